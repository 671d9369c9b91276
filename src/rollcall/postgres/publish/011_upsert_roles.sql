-- Carry today's roles from staging into roles. A role that is gone keeps its row: people held it.
--
-- By hand, after `rollcall stage DATA --day day1 --only roles`, in one transaction:
--     rollcall sql roles | psql "$(rollcall db url)"

TRUNCATE stg_role_changes;

INSERT INTO stg_role_changes (role_id, change)
SELECT today.role_id, CASE WHEN role.role_id IS NULL THEN 'added' ELSE 'changed' END
FROM sync_context AS context
CROSS JOIN stg_roles AS today
LEFT JOIN roles AS role ON role.role_id = today.role_id
WHERE
    context.pipeline = 'roles'
    AND NOT context.is_backfill
    AND (
        role.role_id IS NULL
        OR (
            today.name, today.description, today.is_default, today.agent_type, today.created_at, today.updated_at
        ) IS DISTINCT FROM (
            role.name, role.description, role.is_default, role.agent_type, role.created_at, role.updated_at
        )
    );

INSERT INTO roles (role_id, name, description, is_default, agent_type, created_at, updated_at)
SELECT
    today.role_id, today.name, today.description, today.is_default, today.agent_type, today.created_at,
    today.updated_at
FROM stg_role_changes AS change
JOIN stg_roles AS today ON today.role_id = change.role_id
ORDER BY today.role_id
ON CONFLICT (role_id) DO UPDATE SET
    name = excluded.name,
    description = excluded.description,
    is_default = excluded.is_default,
    agent_type = excluded.agent_type,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at;

-- Quarantine of the day, replaced.
DELETE FROM role_pipeline_errors
USING sync_context AS context
WHERE context.pipeline = 'roles' AND role_pipeline_errors.sync_day = context.sync_day;

INSERT INTO role_pipeline_errors (
    role_id, error_type, error_message, raw_record, source_file, record_index, sync_day, run_id
)
SELECT
    error.entity_id::BIGINT, error.error_type, error.error_message, rollcall_to_jsonb(error.raw_record),
    error.source_file, error.record_index, context.sync_day, context.run_id
FROM sync_context AS context
JOIN stg_pipeline_errors AS error ON error.pipeline = context.pipeline
WHERE context.pipeline = 'roles'
ORDER BY error.source_file, error.record_index, error.error_message;

UPDATE sync_watermarks SET sync_date = context.sync_date
FROM sync_context AS context
WHERE
    context.pipeline = 'roles'
    AND sync_watermarks.pipeline = context.pipeline
    AND context.sync_date > coalesce(sync_watermarks.sync_date, '-infinity');
