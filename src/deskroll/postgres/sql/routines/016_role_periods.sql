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

-- As long as one of the sides is in doubt, nothing is removed.
CREATE OR REPLACE FUNCTION deskroll_sure_again(of_agent BIGINT, of_role BIGINT, from_date DATE)
RETURNS DATE LANGUAGE plpgsql STABLE STRICT SET search_path FROM CURRENT AS $$
DECLARE
    sure DATE := from_date;
    agent_sure DATE;
BEGIN
    LOOP
        agent_sure := deskroll_told_again('agent_doubt'::TEXT, of_agent::TEXT, sure);
        sure := deskroll_told_again('role_doubt'::TEXT, of_role::TEXT, agent_sure);
        -- When the role's doubts end later, the agent's record may be in doubt again.
        EXIT WHEN sure IS NOT DISTINCT FROM agent_sure;
    END LOOP;
    RETURN sure;
END
$$;
COMMENT ON FUNCTION deskroll_sure_again IS
'The first published date, from a published one on, on which neither the agent''s record nor the role''s is in doubt; NULL if there is none.';

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
        UNION ALL
        SELECT side.agent_id, side.role_id, side.valid_from, side.valid_to FROM agent_role_periods_in_doubt AS side
    ), held AS (
        SELECT known.agent_id, known.role_id, known.known_since, lower(stated.days) AS valid_from, sure.valid_to
        FROM known
        JOIN (
            SELECT
                stated.agent_id, stated.role_id,
                unnest(range_agg(daterange(stated.valid_from, stated.valid_to))) AS days
            FROM stated
            JOIN changed ON changed.agent_id = stated.agent_id AND changed.role_id = stated.role_id
            GROUP BY stated.agent_id, stated.role_id
        ) AS stated ON stated.agent_id = known.agent_id AND stated.role_id = known.role_id
        CROSS JOIN LATERAL (
            SELECT
                CASE
                    WHEN
                        known.agent_id::TEXT IN (
                            SELECT doubt.id FROM silent_periods AS doubt WHERE doubt.subject = 'agent_doubt'
                        )
                        OR known.role_id::TEXT IN (
                            SELECT doubt.id FROM silent_periods AS doubt WHERE doubt.subject = 'role_doubt'
                        )
                        THEN deskroll_sure_again(known.agent_id, known.role_id, upper(stated.days))
                    ELSE upper(stated.days)
                END AS valid_to
            OFFSET 0  -- so that it is asked once
        ) AS sure
    )
    SELECT held.agent_id, held.role_id, lower(held.days) AS valid_from, upper(held.days) AS valid_to
    FROM (
        SELECT
            held.agent_id, held.role_id,
            unnest(range_agg(daterange(greatest(held.valid_from, held.known_since), held.valid_to))) AS days
        FROM held
        WHERE held.valid_to IS NULL OR held.valid_to > held.known_since
        GROUP BY held.agent_id, held.role_id
    ) AS held;
    CREATE TEMP TABLE period_old AS
    SELECT period.*
    FROM agent_role_periods AS period
    WHERE (period.agent_id, period.role_id) IN (
        SELECT changed.agent_id, changed.role_id FROM changed_agent_roles AS changed
    );
    PERFORM deskroll_replace_periods('agent_role_periods'::REGCLASS);
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
            JOIN silent_periods AS gone
                ON gone.subject IN ('gone_agents', 'late_agents') AND gone.id = side.agent_id::TEXT
            JOIN silent_periods AS silent
                ON silent.subject = 'role_agents' AND silent.id IN (side.role_id::TEXT, '*')
            JOIN (
                SELECT published.sync_date FROM published_dates AS published WHERE published.pipeline = 'agent_roles'
                UNION
                SELECT context.sync_date FROM sync_context AS context
            ) AS day
                ON
                    day.sync_date >= greatest(side.valid_from, gone.valid_from, silent.valid_from)
                    AND day.sync_date < least(
                        coalesce(side.valid_to, 'infinity'), coalesce(gone.valid_to, 'infinity'),
                        coalesce(silent.valid_to, 'infinity')
                    )
                    AND (
                        gone.subject = 'gone_agents'
                        OR EXISTS (
                            SELECT FROM agent_periods AS known
                            WHERE known.agent_id = side.agent_id AND known.valid_from < day.sync_date
                        )
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

-- What is stated of a pair once ends on a date with doubts only when these end, in deskroll_merge_agent_roles().
CREATE OR REPLACE FUNCTION deskroll_note_doubt(of_subject TEXT)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE tellers SET tells = tellers.is_sure WHERE tellers.tells <> tellers.is_sure;
    PERFORM deskroll_note_silence(of_subject);
    INSERT INTO changed_agent_roles (agent_id, role_id)
    SELECT side.agent_id, side.role_id
    FROM (
        SELECT side.agent_id, side.role_id, side.valid_to FROM agent_role_periods_by_agent AS side
        UNION ALL
        SELECT side.agent_id, side.role_id, side.valid_to FROM agent_role_periods_by_role AS side
        UNION ALL
        SELECT side.agent_id, side.role_id, side.valid_to FROM agent_role_periods_in_doubt AS side
    ) AS side
    JOIN period_changes AS change
        ON change.id = CASE of_subject WHEN 'agent_doubt' THEN side.agent_id ELSE side.role_id END::TEXT
    WHERE side.valid_to IS NOT NULL;
END
$$;
COMMENT ON FUNCTION deskroll_note_doubt IS
'Note of which agents or roles the day is unsure: the temporary table tellers (id, tells, is_new, is_sure) has them.';

-- A later download of a date may take a role back and be unsure of it at once. Then the role stays on that date.
CREATE OR REPLACE FUNCTION deskroll_keep_roles_in_doubt()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    ANALYZE changed_agent_roles;
    PERFORM deskroll_new_period_changes('agent_role_periods_in_doubt'::REGCLASS);
    INSERT INTO period_changes (agent_id, role_id, valid_from, valid_to, is_present)
    WITH doubtful AS (
        SELECT kept.agent_id, kept.role_id
        FROM agent_role_periods_in_doubt AS kept
        WHERE kept.valid_from <= day.sync_date AND (kept.valid_to IS NULL OR kept.valid_to > day.sync_date)
    )
    SELECT pair.agent_id, pair.role_id, day.sync_date, day.next_date, now.is_kept
    FROM (
        SELECT changed.agent_id, changed.role_id FROM changed_agent_roles AS changed
        UNION
        SELECT doubtful.agent_id, doubtful.role_id FROM doubtful
    ) AS pair
    LEFT JOIN agent_role_periods AS held
        ON
            held.agent_id = pair.agent_id
            AND held.role_id = pair.role_id
            AND held.valid_from <= day.sync_date
            AND (held.valid_to IS NULL OR held.valid_to > day.sync_date)
    LEFT JOIN doubtful ON doubtful.agent_id = pair.agent_id AND doubtful.role_id = pair.role_id
    LEFT JOIN stg_agent_role_sides AS own ON own.stated_by = 'agent' AND own.id = pair.agent_id
    LEFT JOIN stg_agent_role_sides AS theirs ON theirs.stated_by = 'role' AND theirs.id = pair.role_id
    LEFT JOIN stg_agent_role_sides AS rest ON rest.stated_by = 'role' AND rest.id IS NULL
    CROSS JOIN LATERAL (
        SELECT
            day.was_published
            AND held.agent_id IS NOT NULL
            AND (coalesce(own.says = 'unsure', false) OR coalesce(theirs.says, rest.says, '') = 'unsure') AS is_kept
    ) AS now
    WHERE now.is_kept <> (doubtful.agent_id IS NOT NULL);
    INSERT INTO changed_agent_roles (agent_id, role_id)
    SELECT change.agent_id, change.role_id FROM period_changes AS change;
    PERFORM deskroll_assign_periods('agent_role_periods_in_doubt'::REGCLASS);
END
$$;
COMMENT ON FUNCTION deskroll_keep_roles_in_doubt IS
'Keep the roles in changed_agent_roles that were held on the date before this download, and of which it is unsure.';

-- Once gone, gone on that date: what a role stated before ends there, whatever a later download of the date has.
CREATE OR REPLACE FUNCTION deskroll_note_gone()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to, is_present)
    SELECT
        coalesce(stored.subject, 'gone_agents'), coalesce(gone.id::TEXT, stored.id), day.sync_date, day.next_date,
        gone.id IS NOT NULL
    FROM gone_agents AS gone
    FULL JOIN (
        SELECT silent.subject, silent.id
        FROM silent_periods AS silent
        WHERE
            silent.subject IN ('gone_agents', 'late_agents')
            AND silent.valid_from <= day.sync_date
            AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    ) AS stored ON stored.id = gone.id::TEXT AND stored.subject = 'gone_agents'
    WHERE stored.id IS NULL OR gone.id IS NULL AND NOT day.was_published;
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);
END
$$;
COMMENT ON FUNCTION deskroll_note_gone IS
'Note which agents the day does not contain: the temporary table gone_agents (id) has them.';

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
    SELECT
        one.id, NOT is_absent AND coalesce(side.says, 'all') IN ('all', 'gone') AS tells, false AS is_new,
        side.says IS DISTINCT FROM 'unsure' AS is_sure
    FROM (
        SELECT side.id FROM stg_agent_role_sides AS side WHERE side.stated_by = 'agent'
        UNION
        SELECT silent.id::BIGINT FROM silent_periods AS silent
        WHERE
            silent.subject IN ('agent_roles', 'agent_doubt')
            AND silent.id <> '*'
            AND silent.valid_from <= day.sync_date AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    ) AS one
    LEFT JOIN stg_agent_role_sides AS side ON side.stated_by = 'agent' AND side.id = one.id
    WHERE one.id IS NOT NULL;
    IF NOT is_absent THEN
        PERFORM deskroll_track_pairs('agent_role_periods_by_agent'::REGCLASS, 'agent_roles'::TEXT);
        INSERT INTO changed_agent_roles (agent_id, role_id)
        SELECT change.agent_id, change.role_id FROM period_changes AS change;
        PERFORM deskroll_assign_periods('agent_role_periods_by_agent'::REGCLASS);
        PERFORM deskroll_note_silence('agent_roles'::TEXT);
    END IF;
    PERFORM deskroll_note_absent_input('agent_roles'::TEXT, is_absent);
    PERFORM deskroll_note_doubt('agent_doubt'::TEXT);
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
        one.id, NOT is_absent AND said.says = 'all' AS tells, false AS is_new, said.says <> 'unsure' AS is_sure
    FROM (
        SELECT pair.id FROM told_pairs AS pair
        UNION
        SELECT stored.role_id FROM agent_role_periods_by_role AS stored
        WHERE stored.valid_from <= day.sync_date AND (stored.valid_to IS NULL OR stored.valid_to > day.sync_date)
        UNION
        SELECT side.id FROM stg_agent_role_sides AS side WHERE side.stated_by = 'role'
        UNION
        SELECT role.role_id FROM role_dates AS role
        UNION
        SELECT silent.id::BIGINT FROM silent_periods AS silent
        WHERE
            silent.subject = 'role_doubt'
            AND silent.valid_from <= day.sync_date AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    ) AS one
    LEFT JOIN stg_agent_role_sides AS side ON side.stated_by = 'role' AND side.id = one.id
    LEFT JOIN stg_agent_role_sides AS rest ON rest.stated_by = 'role' AND rest.id IS NULL
    CROSS JOIN LATERAL (SELECT coalesce(side.says, rest.says, 'nothing') AS says) AS said
    WHERE one.id IS NOT NULL;
    PERFORM deskroll_track_pairs('agent_role_periods_by_role'::REGCLASS, 'role_agents'::TEXT);
    -- The roles of an agent that is gone end, if their own records say nothing of it. Nobody misses an agent who was not
    -- known yet.
    CREATE TEMP TABLE gone_agents AS
    SELECT side.id
    FROM stg_agent_role_sides AS side
    WHERE
        side.stated_by = 'agent'
        AND side.says = 'gone'
        AND EXISTS (
            SELECT FROM agent_periods AS known WHERE known.agent_id = side.id AND known.valid_from <= day.sync_date
        );
    INSERT INTO period_changes (role_id, agent_id, valid_from, valid_to, is_present)
    SELECT
        stored.role_id, stored.agent_id, day.sync_date,
        deskroll_told_again('role_agents'::TEXT, stored.role_id::TEXT, day.next_date), false
    FROM gone_agents AS gone
    JOIN agent_role_periods_by_role AS stored ON stored.agent_id = gone.id
    LEFT JOIN tellers AS teller ON teller.id = stored.role_id AND teller.tells
    WHERE
        teller.id IS NULL
        AND stored.valid_from <= day.sync_date AND (stored.valid_to IS NULL OR stored.valid_to > day.sync_date);
    INSERT INTO changed_agent_roles (agent_id, role_id)
    SELECT change.agent_id, change.role_id FROM period_changes AS change;
    PERFORM deskroll_assign_periods('agent_role_periods_by_role'::REGCLASS);
    PERFORM deskroll_note_gone();
    IF NOT is_absent THEN
        PERFORM deskroll_note_silence('role_agents'::TEXT);
    END IF;
    PERFORM deskroll_note_absent_input('role_agents'::TEXT, is_absent);
    PERFORM deskroll_note_doubt('role_doubt'::TEXT);
    DROP TABLE told_pairs, tellers, gone_agents;

    PERFORM deskroll_keep_roles_in_doubt();
END
$$;
COMMENT ON FUNCTION deskroll_track_agent_roles IS
'Carry what the day tells of the roles of agents into the periods of each side; deskroll_merge_agent_roles() comes next.';

CREATE OR REPLACE VIEW agent_role_history AS
SELECT
    transition.agent_id,
    transition.role_id,
    transition.action,
    transition.sync_date,
    (
        SELECT published.sync_day
        FROM published_dates AS published
        WHERE
            published.sync_date = transition.sync_date
            AND published.pipeline IN ('agent_roles', 'agents', 'roles')
        ORDER BY published.pipeline
        LIMIT 1
    ) AS sync_day,
    deskroll_midnight(transition.sync_date) AS action_at
FROM (
    SELECT period.agent_id, period.role_id, 'assigned' AS action, period.valid_from AS sync_date
    FROM agent_role_periods AS period
    UNION ALL
    SELECT period.agent_id, period.role_id, 'removed', period.valid_to
    FROM agent_role_periods AS period
    WHERE period.valid_to IS NOT NULL
) AS transition;
COMMENT ON VIEW agent_role_history IS 'Every date from which an agent held a role, or held it no longer: one row each.';
COMMENT ON COLUMN agent_role_history.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_role_history.role_id IS 'The role.';
COMMENT ON COLUMN agent_role_history.action IS 'assigned, or removed.';
COMMENT ON COLUMN agent_role_history.sync_date IS 'The date.';
COMMENT ON COLUMN agent_role_history.sync_day IS 'Label of the sync day that last changed anything of the date.';
COMMENT ON COLUMN agent_role_history.action_at IS 'Midnight of the date, UTC; when deskroll knew of it, run_changes says.';

-- migrate:down

DROP VIEW agent_role_history;
DROP FUNCTION deskroll_track_agent_roles;
DROP FUNCTION deskroll_note_gone;
DROP FUNCTION deskroll_keep_roles_in_doubt;
DROP FUNCTION deskroll_note_doubt;
DROP FUNCTION deskroll_end_roles_of_missing;
DROP FUNCTION deskroll_merge_agent_roles;
DROP FUNCTION deskroll_sure_again;
DROP FUNCTION deskroll_track_roles;
