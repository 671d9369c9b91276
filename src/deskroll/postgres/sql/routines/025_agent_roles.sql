-- migrate:up

-- The mapping is the newest period of each pair. A pair that has none, as a later download of a date took back what an
-- earlier one had assigned, was never assigned.
CREATE OR REPLACE FUNCTION deskroll_find_agent_role_changes()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM deskroll_merge_agent_roles();
    ANALYZE changed_agent_roles;
    CREATE TEMP TABLE next_agent_roles AS
    SELECT DISTINCT ON (pair.agent_id, pair.role_id)
        pair.agent_id, pair.role_id,
        CASE WHEN period.agent_id IS NULL OR period.valid_to IS NOT NULL THEN 'removed' ELSE 'assigned' END AS status,
        deskroll_midnight(period.valid_from) AS assigned_at,
        deskroll_midnight(period.valid_to) AS removed_at,
        -- What is removed keeps who stated it last.
        CASE
            WHEN period.valid_to IS NOT NULL AND stored.agent_id IS NOT NULL THEN stored.stated_by_agent
            ELSE own.agent_id IS NOT NULL
        END AS stated_by_agent,
        CASE
            WHEN period.valid_to IS NOT NULL AND stored.agent_id IS NOT NULL THEN stored.stated_by_role
            ELSE theirs.agent_id IS NOT NULL
        END AS stated_by_role,
        stored.agent_id IS NOT NULL AS is_stored,
        stored.status AS was
    FROM changed_agent_roles AS pair
    LEFT JOIN agent_role_mapping AS stored ON stored.agent_id = pair.agent_id AND stored.role_id = pair.role_id
    LEFT JOIN agent_role_periods AS period ON period.agent_id = pair.agent_id AND period.role_id = pair.role_id
    LEFT JOIN agent_role_periods_by_agent AS own
        ON
            own.agent_id = pair.agent_id
            AND own.role_id = pair.role_id
            AND own.valid_to IS NOT DISTINCT FROM period.valid_to
    LEFT JOIN agent_role_periods_by_role AS theirs
        ON
            theirs.agent_id = pair.agent_id
            AND theirs.role_id = pair.role_id
            AND theirs.valid_to IS NOT DISTINCT FROM period.valid_to
    WHERE stored.agent_id IS NOT NULL OR period.agent_id IS NOT NULL
    ORDER BY pair.agent_id, pair.role_id, period.valid_from DESC;
    DROP TABLE changed_agent_roles;
    ANALYZE next_agent_roles;

    TRUNCATE stg_agent_role_changes;
    INSERT INTO stg_agent_role_changes (agent_id, role_id, change, stated_by_agent, stated_by_role)
    SELECT
        next.agent_id, next.role_id,
        CASE WHEN 'assigned' IN (next.was, next.status) THEN next.status ELSE 'history changed' END,
        next.stated_by_agent, next.stated_by_role
    FROM next_agent_roles AS next
    WHERE next.was IS DISTINCT FROM next.status OR next.assigned_at IS NULL;
END
$$;
COMMENT ON FUNCTION deskroll_find_agent_role_changes IS
'Work out the periods of roles of what has changed, and how agent_role_mapping follows: stg_agent_role_changes, and the temporary table next_agent_roles.';

CREATE OR REPLACE FUNCTION deskroll_change_agent_roles()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM unlinked_agent_roles
    USING stg_agent_role_changes AS change
    WHERE unlinked_agent_roles.agent_id = change.agent_id AND unlinked_agent_roles.role_id = change.role_id;

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
    WHERE
        agent_role_mapping.agent_id = next.agent_id
        AND agent_role_mapping.role_id = next.role_id
        AND (
            agent_role_mapping.status, agent_role_mapping.assigned_at, agent_role_mapping.removed_at,
            agent_role_mapping.stated_by_agent, agent_role_mapping.stated_by_role
        ) IS DISTINCT FROM (
            next.status, next.assigned_at, next.removed_at, next.stated_by_agent, next.stated_by_role
        );

    INSERT INTO agent_role_mapping (agent_id, role_id, status, assigned_at, removed_at, stated_by_agent, stated_by_role)
    SELECT
        next.agent_id, next.role_id, next.status, next.assigned_at, next.removed_at, next.stated_by_agent,
        next.stated_by_role
    FROM next_agent_roles AS next
    WHERE next.assigned_at IS NOT NULL AND NOT next.is_stored
    ORDER BY next.agent_id, next.role_id;

    DROP TABLE next_agent_roles;
END
$$;
COMMENT ON FUNCTION deskroll_change_agent_roles IS
'Carry what deskroll_find_agent_role_changes() found into agent_role_mapping.';

CREATE OR REPLACE FUNCTION deskroll_link_agent_roles()
RETURNS VOID LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT deskroll_find_agent_role_changes();
    SELECT deskroll_change_agent_roles();
$$;
COMMENT ON FUNCTION deskroll_link_agent_roles IS
'Assign the roles whose agent or role has arrived, if the roles of agents were not synced.';

-- migrate:down

DROP FUNCTION deskroll_link_agent_roles;
DROP FUNCTION deskroll_change_agent_roles;
DROP FUNCTION deskroll_find_agent_role_changes;
