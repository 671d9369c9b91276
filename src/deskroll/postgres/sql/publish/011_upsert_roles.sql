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
    -- Also a backfill adds one that was never seen: somebody may have held it.
    role.role_id IS NULL
    OR NOT context.is_backfill
    AND NOT today.is_rejected
    AND (
        -- columns of roles but role_id: today.{}
        today.name, today.description, today.is_default, today.agent_type, today.created_at, today.updated_at
        -- end of columns
    ) IS DISTINCT FROM (
        -- columns of roles but role_id: role.{}
        role.name, role.description, role.is_default, role.agent_type, role.created_at, role.updated_at
        -- end of columns
    );

INSERT INTO roles (
    -- columns of roles: {}
    role_id, name, description, is_default, agent_type, created_at, updated_at
    -- end of columns
)
SELECT
    -- columns of roles: today.{}
    today.role_id, today.name, today.description, today.is_default, today.agent_type, today.created_at,
    today.updated_at
    -- end of columns
FROM stg_role_changes AS change
JOIN stg_roles AS today ON today.role_id = change.role_id
WHERE change.change = 'added'
ORDER BY today.role_id;

UPDATE roles SET
    -- columns of roles but role_id: {} = today.{}
    name = today.name,
    description = today.description,
    is_default = today.is_default,
    agent_type = today.agent_type,
    created_at = today.created_at,
    updated_at = today.updated_at
    -- end of columns
FROM stg_role_changes AS change
JOIN stg_roles AS today ON today.role_id = change.role_id
WHERE change.change = 'changed' AND roles.role_id = change.role_id;

SELECT deskroll_track_roles();

SELECT deskroll_replace_quarantine('role_pipeline_errors'::REGCLASS, 'role_id'::NAME);

SELECT deskroll_tell_stale('stg_role_changes'::REGCLASS, 'role_id'::NAME);

SELECT deskroll_move_watermark();

-- New roles are given to the agents that they waited for. A run works this out once, when it has published all.
SELECT deskroll_link_agent_roles()
WHERE nullif(current_setting('deskroll.run_id', true), '') IS NULL;
