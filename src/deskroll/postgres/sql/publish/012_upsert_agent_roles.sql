-- Carry today's roles of agents into agent_role_mapping, and when they were held into agent_role_periods.
--
-- By hand, after `deskroll stage DATA --day day1 --only agent_roles`, in one transaction:
--     deskroll sql agent_roles | psql "$(deskroll db url)"

SELECT deskroll_begin('agent_roles'::TEXT);

SELECT deskroll_detach_keys(
    VARIADIC ARRAY[
        'agent_role_mapping', 'agent_role_periods', 'agent_role_periods_by_agent', 'agent_role_periods_by_role',
        'agent_role_periods_in_doubt'
    ]::REGCLASS[]
);

-- A pair whose agent or role is not known waits until it is.
DELETE FROM unlinked_agent_roles
USING sync_context AS context, stg_agent_roles AS today
WHERE
    NOT context.is_backfill
    AND today.status = 'removed'
    AND unlinked_agent_roles.agent_id = today.agent_id
    AND unlinked_agent_roles.role_id = today.role_id;

UPDATE unlinked_agent_roles SET
    stated_by_agent = today.stated_by_agent,
    stated_by_role = today.stated_by_role
FROM sync_context AS context
CROSS JOIN stg_agent_roles AS today
WHERE
    NOT context.is_backfill
    AND today.status = 'assigned'
    AND unlinked_agent_roles.agent_id = today.agent_id
    AND unlinked_agent_roles.role_id = today.role_id
    AND (today.stated_by_agent, today.stated_by_role)
    IS DISTINCT FROM (unlinked_agent_roles.stated_by_agent, unlinked_agent_roles.stated_by_role);

INSERT INTO unlinked_agent_roles (agent_id, role_id, stated_by_agent, stated_by_role)
SELECT today.agent_id, today.role_id, today.stated_by_agent, today.stated_by_role
FROM sync_context AS context
CROSS JOIN stg_agent_roles AS today
LEFT JOIN agents AS agent ON agent.agent_id = today.agent_id
LEFT JOIN roles AS role ON role.role_id = today.role_id
WHERE
    NOT context.is_backfill
    AND today.status = 'assigned'
    AND (agent.agent_id IS NULL OR role.role_id IS NULL)
    AND NOT EXISTS (
        SELECT FROM unlinked_agent_roles AS waiting
        WHERE waiting.agent_id = today.agent_id AND waiting.role_id = today.role_id
    )
ORDER BY today.agent_id, today.role_id;

SELECT deskroll_track_agent_roles();

SELECT deskroll_find_agent_role_changes();

INSERT INTO sync_date_changes (guarded, id, other_id, pipeline, sync_date, was_there)
SELECT
    'role assignments', change.agent_id, change.role_id, context.pipeline, context.sync_date,
    change.change = 'removed'
FROM sync_context AS context
CROSS JOIN stg_agent_role_changes AS change
WHERE
    NOT context.is_backfill
    AND change.change <> 'history changed'
    AND EXISTS (SELECT FROM agent_role_mapping)
ON CONFLICT (guarded, id, other_id) DO NOTHING;

SELECT deskroll_change_agent_roles();

SELECT deskroll_attach_keys();

-- Quarantine of the day, replaced: elements that are no ids, and ids of nobody or nothing.
DELETE FROM agent_role_pipeline_errors
USING sync_context AS context
WHERE agent_role_pipeline_errors.sync_day = context.sync_day;

INSERT INTO agent_role_pipeline_errors (
    agent_id, role_id, error_type, error_message, raw_record, source_file, record_index, sync_day, run_id
)
SELECT
    error.agent_id, error.role_id, error.error_type, error.error_message, deskroll_to_jsonb(error.raw_record),
    error.source_file, error.record_index, context.sync_day, context.run_id
FROM sync_context AS context
CROSS JOIN (
    SELECT
        CASE WHEN source_file LIKE 'admin_roles/%' THEN NULL ELSE entity_id::BIGINT END AS agent_id,
        CASE WHEN source_file LIKE 'admin_roles/%' THEN entity_id::BIGINT END AS role_id,
        error_type, error_message, raw_record, source_file, record_index
    FROM stg_pipeline_errors
    WHERE pipeline = 'agent_roles'
    UNION ALL
    SELECT
        today.agent_id, today.role_id, 'REFERENCE_ERROR',
        concat_ws(
            '; ',
            CASE
                WHEN agent.agent_id IS NULL THEN format('agent_ids: found %s, expected a known agent', today.agent_id)
            END,
            CASE WHEN role.role_id IS NULL THEN format('role_ids: found %s, expected a known role', today.role_id) END
        ),
        CASE WHEN today.source_file LIKE 'admin_roles/%' THEN today.agent_id ELSE today.role_id END::TEXT,
        today.source_file, today.record_index
    FROM stg_agent_roles AS today
    LEFT JOIN agents AS agent ON agent.agent_id = today.agent_id
    LEFT JOIN roles AS role ON role.role_id = today.role_id
    WHERE today.source_file IS NOT NULL AND (agent.agent_id IS NULL OR role.role_id IS NULL)
) AS error
ORDER BY error.source_file, error.record_index, error.error_message;

SELECT deskroll_move_watermark();
