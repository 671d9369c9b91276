-- Carry today's roles from staging into roles. A role that is gone keeps its row: people held it.
--
-- By hand, after `deskroll stage DATA --day day1 --only roles`, in one transaction:
--     deskroll sql roles | psql "$(deskroll db url)"

SELECT deskroll_begin('roles'::TEXT);

TRUNCATE stg_role_changes;

INSERT INTO stg_role_changes (role_id, change)
SELECT today.role_id, CASE WHEN role.role_id IS NULL THEN 'added' ELSE 'changed' END
FROM sync_context AS context
CROSS JOIN stg_roles AS today
LEFT JOIN roles AS role ON role.role_id = today.role_id
WHERE
    NOT context.is_backfill
    AND (
        role.role_id IS NULL
        OR NOT today.is_rejected
        AND (
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

SELECT deskroll_replace_quarantine('role_pipeline_errors'::REGCLASS, 'role_id'::NAME);

SELECT deskroll_tell_stale('stg_role_changes'::REGCLASS, 'role_id'::NAME);

SELECT deskroll_move_watermark();

-- New roles are given to the agents that they waited for. A run works this out once, when it has published all.
SELECT deskroll_link_agent_roles()
WHERE nullif(current_setting('deskroll.run_id', true), '') IS NULL;
