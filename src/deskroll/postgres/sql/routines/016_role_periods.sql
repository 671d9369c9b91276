-- migrate:up

CREATE OR REPLACE FUNCTION deskroll_track_roles()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    CREATE TEMP TABLE IF NOT EXISTS arrived_roles (role_id BIGINT);
    INSERT INTO arrived_roles (role_id)
    SELECT today.role_id
    FROM sync_context AS context
    CROSS JOIN stg_roles AS today
    LEFT JOIN role_dates AS stored ON stored.role_id = today.role_id
    WHERE stored.role_id IS NULL OR stored.known_since > context.sync_date;
    UPDATE role_dates SET known_since = context.sync_date
    FROM sync_context AS context
    CROSS JOIN arrived_roles AS arrived
    WHERE role_dates.role_id = arrived.role_id;
    INSERT INTO role_dates (role_id, known_since)
    SELECT arrived.role_id, context.sync_date
    FROM sync_context AS context
    CROSS JOIN arrived_roles AS arrived
    WHERE NOT EXISTS (SELECT FROM role_dates AS stored WHERE stored.role_id = arrived.role_id)
    ORDER BY arrived.role_id;
END
$$;
COMMENT ON FUNCTION deskroll_track_roles IS 'Note since when the roles of the day are known.';

-- What the two sides state of a pair together, since the agent and the role are known.
CREATE OR REPLACE FUNCTION deskroll_merge_agent_roles()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    CREATE TEMP TABLE IF NOT EXISTS changed_agent_roles (agent_id BIGINT, role_id BIGINT);
    CREATE TEMP TABLE IF NOT EXISTS arrived_agents (agent_id BIGINT);
    CREATE TEMP TABLE IF NOT EXISTS arrived_roles (role_id BIGINT);
    INSERT INTO changed_agent_roles (agent_id, role_id)
    SELECT side.agent_id, side.role_id
    FROM (
        SELECT side.agent_id, side.role_id FROM agent_role_periods_by_agent AS side
        UNION ALL
        SELECT side.agent_id, side.role_id FROM agent_role_periods_by_role AS side
    ) AS side
    WHERE
        (EXISTS (SELECT FROM arrived_agents) OR EXISTS (SELECT FROM arrived_roles))
        AND (
            side.agent_id IN (SELECT arrived.agent_id FROM arrived_agents AS arrived)
            OR side.role_id IN (SELECT arrived.role_id FROM arrived_roles AS arrived)
        );
    DROP TABLE arrived_agents, arrived_roles;
    IF NOT EXISTS (SELECT FROM changed_agent_roles) THEN
        RETURN;
    END IF;
    PERFORM deskroll_end_roles_of_missing();

    CREATE TEMP TABLE period_next AS
    WITH changed AS (
        SELECT DISTINCT pair.agent_id, pair.role_id FROM changed_agent_roles AS pair
    ), known AS (
        SELECT changed.agent_id, changed.role_id, greatest(agent.known_since, role.known_since) AS known_since
        FROM changed
        JOIN role_dates AS role ON role.role_id = changed.role_id
        JOIN (
            SELECT period.agent_id, min(period.valid_from) AS known_since
            FROM agent_periods AS period
            WHERE period.agent_id IN (SELECT changed.agent_id FROM changed)
            GROUP BY period.agent_id
        ) AS agent ON agent.agent_id = changed.agent_id
    ), stated AS (
        SELECT side.agent_id, side.role_id, side.valid_from, side.valid_to FROM agent_role_periods_by_agent AS side
        UNION ALL
        SELECT side.agent_id, side.role_id, side.valid_from, side.valid_to FROM agent_role_periods_by_role AS side
    )
    SELECT held.agent_id, held.role_id, lower(held.days) AS valid_from, upper(held.days) AS valid_to
    FROM (
        SELECT known.agent_id, known.role_id, unnest(range_agg(
            daterange(greatest(stated.valid_from, known.known_since), stated.valid_to)
        )) AS days
        FROM known
        JOIN stated ON stated.agent_id = known.agent_id AND stated.role_id = known.role_id
        WHERE stated.valid_to IS NULL OR stated.valid_to > known.known_since
        GROUP BY known.agent_id, known.role_id
    ) AS held;
    CREATE TEMP TABLE period_old AS
    SELECT period.*
    FROM agent_role_periods AS period
    WHERE (period.agent_id, period.role_id) IN (
        SELECT changed.agent_id, changed.role_id FROM changed_agent_roles AS changed
    );
    PERFORM deskroll_replace_periods('agent_role_periods'::REGCLASS);
    DROP TABLE changed_agent_roles;
END
$$;
COMMENT ON FUNCTION deskroll_merge_agent_roles IS
'Work out agent_role_periods anew of the pairs in changed_agent_roles, and of agents and roles that have arrived.';

-- So do those of an agent that was missing on a date in between, before anybody knew the agent.
CREATE OR REPLACE FUNCTION deskroll_end_roles_of_missing()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    LOOP
        PERFORM deskroll_new_period_changes('agent_role_periods_by_role'::REGCLASS);
        INSERT INTO period_changes (role_id, agent_id, valid_from, valid_to, is_present)
        SELECT ended.role_id, ended.agent_id, ended.at, deskroll_told_again(
            'role_agents'::TEXT, ended.role_id::TEXT, ended.at
        ), false
        FROM (
            SELECT side.role_id, side.agent_id, min(day.sync_date) AS at
            FROM (SELECT DISTINCT agent_id, role_id FROM changed_agent_roles) AS changed
            JOIN agent_role_periods_by_role AS side
                ON side.role_id = changed.role_id AND side.agent_id = changed.agent_id
            JOIN agent_periods AS gone ON gone.agent_id = side.agent_id AND NOT gone.is_active
            JOIN silent_periods AS untold ON untold.subject = 'agents' AND untold.id = gone.agent_id::TEXT
            JOIN silent_periods AS silent
                ON silent.subject = 'role_agents' AND silent.id IN (side.role_id::TEXT, '*')
            JOIN (
                SELECT published.sync_date FROM published_dates AS published WHERE published.pipeline = 'agent_roles'
                UNION
                SELECT context.sync_date FROM sync_context AS context
            ) AS day
                ON
                    day.sync_date >= greatest(side.valid_from, gone.valid_from, untold.valid_from, silent.valid_from)
                    AND day.sync_date < least(
                        coalesce(side.valid_to, 'infinity'), coalesce(gone.valid_to, 'infinity'),
                        coalesce(untold.valid_to, 'infinity'), coalesce(silent.valid_to, 'infinity')
                    )
            GROUP BY side.role_id, side.agent_id
        ) AS ended;
        EXIT WHEN NOT EXISTS (SELECT FROM period_changes);
        PERFORM deskroll_assign_periods('agent_role_periods_by_role'::REGCLASS);
    END LOOP;
END
$$;
COMMENT ON FUNCTION deskroll_end_roles_of_missing IS
'End what roles state of agents on the dates on which these are missing and the role says nothing, of the pairs in changed_agent_roles.';

CREATE OR REPLACE FUNCTION deskroll_track_agent_roles()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
    is_absent BOOLEAN;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    CREATE TEMP TABLE IF NOT EXISTS changed_agent_roles (agent_id BIGINT, role_id BIGINT);

    SELECT EXISTS (
        SELECT FROM stg_agent_role_sides AS side WHERE side.stated_by = 'agent' AND side.id IS NULL
    ) INTO is_absent;
    CREATE TEMP TABLE told_pairs AS
    SELECT today.agent_id AS id, today.role_id AS other_id
    FROM stg_agent_roles AS today
    WHERE today.status = 'assigned' AND today.stated_by_agent AND today.source_file IS NOT NULL;
    CREATE TEMP TABLE tellers AS
    SELECT one.id, coalesce(side.says, 'all') <> 'nothing' AS tells, false AS is_new
    FROM (
        SELECT pair.id FROM told_pairs AS pair
        UNION
        SELECT stored.agent_id FROM agent_role_periods_by_agent AS stored
        WHERE stored.valid_from <= day.sync_date AND (stored.valid_to IS NULL OR stored.valid_to > day.sync_date)
        UNION
        SELECT side.id FROM stg_agent_role_sides AS side WHERE side.stated_by = 'agent'
        UNION
        SELECT silent.id::BIGINT FROM silent_periods AS silent
        WHERE
            silent.subject = 'agent_roles'
            AND silent.id <> '*'
            AND silent.valid_from <= day.sync_date AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    ) AS one
    LEFT JOIN stg_agent_role_sides AS side ON side.stated_by = 'agent' AND side.id = one.id
    WHERE NOT is_absent AND one.id IS NOT NULL;
    PERFORM deskroll_track_pairs('agent_role_periods_by_agent'::REGCLASS, 'agent_roles'::TEXT);
    INSERT INTO changed_agent_roles (agent_id, role_id)
    SELECT change.agent_id, change.role_id FROM period_changes AS change;
    PERFORM deskroll_assign_periods('agent_role_periods_by_agent'::REGCLASS);
    PERFORM deskroll_note_silence('agent_roles'::TEXT);
    PERFORM deskroll_note_absent_input('agent_roles'::TEXT, is_absent);
    DROP TABLE told_pairs, tellers;

    SELECT NOT EXISTS (
        SELECT FROM stg_agent_role_sides AS side
        WHERE side.stated_by = 'role' AND (side.id IS NOT NULL OR side.says = 'all')
    ) INTO is_absent;
    CREATE TEMP TABLE told_pairs AS
    SELECT today.role_id AS id, today.agent_id AS other_id
    FROM stg_agent_roles AS today
    WHERE today.status = 'assigned' AND today.stated_by_role AND today.source_file IS NOT NULL;
    CREATE TEMP TABLE tellers AS
    SELECT
        one.id,
        coalesce(
            side.says,
            (SELECT rest.says FROM stg_agent_role_sides AS rest WHERE rest.stated_by = 'role' AND rest.id IS NULL)
        ) <> 'nothing' AS tells,
        false AS is_new
    FROM (
        SELECT pair.id FROM told_pairs AS pair
        UNION
        SELECT stored.role_id FROM agent_role_periods_by_role AS stored
        WHERE stored.valid_from <= day.sync_date AND (stored.valid_to IS NULL OR stored.valid_to > day.sync_date)
        UNION
        SELECT side.id FROM stg_agent_role_sides AS side WHERE side.stated_by = 'role'
        UNION
        SELECT role.role_id FROM role_dates AS role
    ) AS one
    LEFT JOIN stg_agent_role_sides AS side ON side.stated_by = 'role' AND side.id = one.id
    WHERE NOT is_absent AND one.id IS NOT NULL;
    PERFORM deskroll_track_pairs('agent_role_periods_by_role'::REGCLASS, 'role_agents'::TEXT);
    -- The roles of an agent that is gone end, if their own records say nothing of it.
    INSERT INTO period_changes (role_id, agent_id, valid_from, valid_to, is_present)
    SELECT
        stored.role_id, stored.agent_id, day.sync_date,
        deskroll_told_again('role_agents'::TEXT, stored.role_id::TEXT, day.next_date), false
    FROM stg_agent_role_sides AS gone
    JOIN agent_role_periods_by_role AS stored ON stored.agent_id = gone.id
    LEFT JOIN tellers AS teller ON teller.id = stored.role_id AND teller.tells
    WHERE
        gone.stated_by = 'agent'
        AND gone.says = 'gone'
        AND teller.id IS NULL
        AND stored.valid_from <= day.sync_date AND (stored.valid_to IS NULL OR stored.valid_to > day.sync_date);
    INSERT INTO changed_agent_roles (agent_id, role_id)
    SELECT change.agent_id, change.role_id FROM period_changes AS change;
    PERFORM deskroll_assign_periods('agent_role_periods_by_role'::REGCLASS);
    PERFORM deskroll_note_silence('role_agents'::TEXT);
    PERFORM deskroll_note_absent_input('role_agents'::TEXT, is_absent);
    DROP TABLE told_pairs, tellers;

    PERFORM deskroll_merge_agent_roles();
END
$$;
COMMENT ON FUNCTION deskroll_track_agent_roles IS
'Carry what the day tells of the roles of agents into agent_role_periods.';

-- migrate:down

DROP FUNCTION deskroll_track_agent_roles;
DROP FUNCTION deskroll_end_roles_of_missing;
DROP FUNCTION deskroll_merge_agent_roles;
DROP FUNCTION deskroll_track_roles;
