-- migrate:up

-- Climb from the groups that have an active member to all above them, each group once: a cycle ends at its begin.
-- DISTINCT, because PostgreSQL makes room for ten times what it expects of the first part before it begins.
CREATE OR REPLACE FUNCTION deskroll_active_groups(hierarchy REGCLASS)
RETURNS SETOF BIGINT LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'WITH RECURSIVE active (group_id) AS (
            SELECT DISTINCT membership.group_id
            FROM group_membership AS membership
            JOIN agents AS agent ON agent.agent_id = membership.agent_id
            WHERE NOT agent.deactivated
            UNION
            SELECT child.parent_group_id
            FROM active
            JOIN %s AS child ON child.group_id = active.group_id
            WHERE child.parent_group_id IS NOT NULL
        )
        SELECT active.group_id FROM active',
        hierarchy
    );
END
$$;
COMMENT ON FUNCTION deskroll_active_groups IS
'The groups that have an active member themselves or below them; hierarchy: a table with group_id and parent_group_id.';

CREATE OR REPLACE FUNCTION deskroll_link_group_members()
RETURNS VOID LANGUAGE sql SET search_path FROM CURRENT AS $$
    WITH arrived AS (
        DELETE FROM unlinked_group_members
        USING agents AS agent, sync_contexts AS context
        WHERE
            context.pipeline = 'groups'
            AND NOT context.is_backfill
            AND agent.agent_id = unlinked_group_members.agent_id
        RETURNING unlinked_group_members.group_id, unlinked_group_members.agent_id
    )
    INSERT INTO group_membership (group_id, agent_id)
    SELECT arrived.group_id, arrived.agent_id
    FROM arrived
    WHERE NOT EXISTS (
        SELECT FROM group_membership AS stored
        WHERE stored.group_id = arrived.group_id AND stored.agent_id = arrived.agent_id
    )
    ORDER BY arrived.group_id, arrived.agent_id;
$$;
COMMENT ON FUNCTION deskroll_link_group_members IS 'Make the agents that have arrived members of the groups that named them.';

CREATE OR REPLACE FUNCTION deskroll_mark_inactive_groups()
RETURNS VOID LANGUAGE sql SET search_path FROM CURRENT AS $$
    TRUNCATE stg_group_changes;
    INSERT INTO stg_group_changes (group_id, change)
    SELECT one.group_id, CASE WHEN one.inactive THEN 'activated' ELSE 'inactivated' END
    FROM groups AS one
    LEFT JOIN deskroll_active_groups('groups'::REGCLASS) AS active (group_id) ON active.group_id = one.group_id
    WHERE one.inactive <> (active.group_id IS NULL);
    UPDATE groups SET inactive = change.change = 'inactivated'
    FROM stg_group_changes AS change
    WHERE groups.group_id = change.group_id;
    SELECT deskroll_track_inactive_groups();
$$;
COMMENT ON FUNCTION deskroll_mark_inactive_groups IS 'Work out groups.inactive anew, if agents changed and groups were not synced.';

-- migrate:down

DROP FUNCTION deskroll_mark_inactive_groups;
DROP FUNCTION deskroll_link_group_members;
DROP FUNCTION deskroll_active_groups;
