-- migrate:up

CREATE OR REPLACE FUNCTION deskroll_add_arrived_agent_roles()
RETURNS VOID LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO stg_agent_role_changes (agent_id, role_id, change, stated_by_agent, stated_by_role)
    SELECT waiting.agent_id, waiting.role_id, 'assigned', waiting.stated_by_agent, waiting.stated_by_role
    FROM sync_contexts AS context
    CROSS JOIN unlinked_agent_roles AS waiting
    JOIN agents AS agent ON agent.agent_id = waiting.agent_id
    JOIN roles AS role ON role.role_id = waiting.role_id
    LEFT JOIN stg_agent_role_changes AS change
        ON change.agent_id = waiting.agent_id AND change.role_id = waiting.role_id
    WHERE context.pipeline = 'agent_roles' AND NOT context.is_backfill AND change.agent_id IS NULL;
$$;
COMMENT ON FUNCTION deskroll_add_arrived_agent_roles IS
'Add to stg_agent_role_changes the roles that waited, and whose agent and role are known now.';

-- A date has one transition of a pair at most, and none if the pair is at its end what it was before it: a corrected sync
-- of the newest date takes back what the wrong one did. The times in the mapping are those of its history.
CREATE OR REPLACE FUNCTION deskroll_change_agent_roles()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM unlinked_agent_roles
    USING stg_agent_role_changes AS change
    WHERE unlinked_agent_roles.agent_id = change.agent_id AND unlinked_agent_roles.role_id = change.role_id;

    WITH undone AS (
        DELETE FROM agent_role_history
        USING sync_contexts AS context, stg_agent_role_changes AS change
        WHERE
            context.pipeline = 'agent_roles'
            AND agent_role_history.sync_date = context.sync_date
            AND agent_role_history.agent_id = change.agent_id
            AND agent_role_history.role_id = change.role_id
        RETURNING agent_role_history.agent_id, agent_role_history.role_id
    )
    INSERT INTO agent_role_history (agent_id, role_id, action, sync_date, sync_day)
    SELECT change.agent_id, change.role_id, change.change, context.sync_date, context.sync_day
    FROM sync_contexts AS context
    CROSS JOIN stg_agent_role_changes AS change
    LEFT JOIN undone ON undone.agent_id = change.agent_id AND undone.role_id = change.role_id
    WHERE context.pipeline = 'agent_roles' AND undone.agent_id IS NULL
    ORDER BY change.agent_id, change.role_id;

    CREATE TEMP TABLE next_agent_roles AS
    SELECT
        change.agent_id, change.role_id, change.change AS status, change.stated_by_agent, change.stated_by_role,
        max(past.action_at) FILTER (WHERE past.action = 'assigned') AS assigned_at,
        CASE
            WHEN change.change = 'removed' THEN max(past.action_at) FILTER (WHERE past.action = 'removed')
        END AS removed_at
    FROM stg_agent_role_changes AS change
    LEFT JOIN agent_role_history AS past ON past.agent_id = change.agent_id AND past.role_id = change.role_id
    GROUP BY change.agent_id, change.role_id, change.change, change.stated_by_agent, change.stated_by_role;

    DELETE FROM agent_role_mapping
    USING next_agent_roles AS next
    WHERE
        next.assigned_at IS NULL
        AND agent_role_mapping.agent_id = next.agent_id
        AND agent_role_mapping.role_id = next.role_id;

    UPDATE agent_role_mapping SET
        status = next.status,
        assigned_at = next.assigned_at,
        removed_at = next.removed_at,
        stated_by_agent = next.stated_by_agent,
        stated_by_role = next.stated_by_role
    FROM next_agent_roles AS next
    WHERE agent_role_mapping.agent_id = next.agent_id AND agent_role_mapping.role_id = next.role_id;

    INSERT INTO agent_role_mapping (agent_id, role_id, status, assigned_at, removed_at, stated_by_agent, stated_by_role)
    SELECT
        next.agent_id, next.role_id, next.status, next.assigned_at, next.removed_at, next.stated_by_agent,
        next.stated_by_role
    FROM next_agent_roles AS next
    LEFT JOIN agent_role_mapping AS stored ON stored.agent_id = next.agent_id AND stored.role_id = next.role_id
    WHERE next.assigned_at IS NOT NULL AND stored.agent_id IS NULL
    ORDER BY next.agent_id, next.role_id;

    DROP TABLE next_agent_roles;
END
$$;
COMMENT ON FUNCTION deskroll_change_agent_roles IS
'Carry stg_agent_role_changes out.';

CREATE OR REPLACE FUNCTION deskroll_link_agent_roles()
RETURNS VOID LANGUAGE sql SET search_path FROM CURRENT AS $$
    TRUNCATE stg_agent_role_changes;
    SELECT deskroll_merge_agent_roles();
    SELECT deskroll_add_arrived_agent_roles();
    SELECT deskroll_change_agent_roles();
$$;
COMMENT ON FUNCTION deskroll_link_agent_roles IS
'Assign the roles whose agent or role has arrived, if the roles of agents were not synced.';

-- migrate:down

DROP FUNCTION deskroll_link_agent_roles;
DROP FUNCTION deskroll_change_agent_roles;
DROP FUNCTION deskroll_add_arrived_agent_roles;
