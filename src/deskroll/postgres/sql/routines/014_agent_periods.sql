-- migrate:up

-- An agent that no day before told of is new on the date. If a newer date is published already, no record of it told of
-- the agent either: there the agent is missing.
CREATE OR REPLACE FUNCTION deskroll_track_new_agents()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    CREATE TEMP TABLE IF NOT EXISTS arrived_agents (agent_id BIGINT);
    INSERT INTO arrived_agents (agent_id) SELECT told.agent_id FROM told_agents AS told WHERE told.is_new;

    PERFORM deskroll_new_period_changes('agent_periods'::REGCLASS);
    INSERT INTO period_changes (
        agent_id, valid_from, valid_to, is_active, email, name, job_title, language, mobile, phone, time_zone,
        org_agent_id, ticket_scope
    )
    SELECT
        told.agent_id, day.sync_date, told.known_from, coalesce(told.is_active, false), told.email, told.name,
        told.job_title, told.language, told.mobile, told.phone, told.time_zone, told.org_agent_id, told.ticket_scope
    FROM sync_neighbours AS day
    CROSS JOIN told_agents AS told
    WHERE told.is_new;
    PERFORM deskroll_note_reach();
    PERFORM deskroll_assign_periods('agent_periods'::REGCLASS);

    PERFORM deskroll_new_period_changes('agent_periods'::REGCLASS);
    INSERT INTO period_changes (agent_id, valid_from, valid_to, is_active)
    SELECT told.agent_id, missing.sync_date, told.known_from, false
    FROM sync_neighbours AS day
    CROSS JOIN (
        SELECT min(complete.sync_date) AS sync_date
        FROM published_dates AS complete
        JOIN sync_neighbours AS day ON day.pipeline = complete.pipeline
        WHERE complete.sync_date > day.sync_date AND complete.is_complete
    ) AS missing
    CROSS JOIN told_agents AS told
    WHERE told.is_new AND told.is_active AND missing.sync_date < coalesce(told.known_from, 'infinity');
    PERFORM deskroll_assign_periods('agent_periods'::REGCLASS, ARRAY['is_active']::NAME[]);

    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to)
    SELECT subject.name, told.agent_id::TEXT, day.next_date, told.known_from
    FROM sync_neighbours AS day
    CROSS JOIN told_agents AS told
    CROSS JOIN (VALUES ('agents'), ('agent_details'), ('agent_groups')) AS subject (name)
    WHERE told.is_new AND day.next_date < coalesce(told.known_from, 'infinity');
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);

    -- On those the agent is gone; and on the date itself too, if an earlier download of it lacked the agent, once an older
    -- date turns out to have the agent.
    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to)
    SELECT missing.subject, told.agent_id::TEXT, missing.valid_from, missing.valid_to
    FROM sync_neighbours AS day
    CROSS JOIN told_agents AS told
    CROSS JOIN LATERAL (
        SELECT 'late_agents' AS subject, day.sync_date AS valid_from, day.next_date AS valid_to
        WHERE day.was_complete
        UNION ALL
        SELECT 'gone_agents', min(complete.sync_date), told.known_from
        FROM published_dates AS complete
        WHERE
            complete.pipeline = day.pipeline
            AND complete.sync_date > day.sync_date
            AND complete.sync_date < coalesce(told.known_from, 'infinity')
            AND complete.is_complete
        HAVING count(*) > 0
    ) AS missing
    WHERE told.is_new;
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);
END
$$;
COMMENT ON FUNCTION deskroll_track_new_agents IS 'Begin the periods of agents that are new; for deskroll_track_agents().';

-- Status, values and details are told apart: a roster tells the status of an agent, but not its details.
CREATE OR REPLACE FUNCTION deskroll_track_agents()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
    is_detailed BOOLEAN;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    -- Of the many whom the day tells nothing new of, nothing is kept.
    CREATE TEMP TABLE told_agents AS
    SELECT told.*
    FROM (
        SELECT
            coalesce(today.agent_id, stored.agent_id) AS agent_id,
            stored.agent_id IS NULL AS is_new,
            (
                SELECT min(later.valid_from) FROM agent_periods AS later
                WHERE stored.agent_id IS NULL AND day.next_date IS NOT NULL AND later.agent_id = today.agent_id
            ) AS known_from,
            CASE
                WHEN today.agent_id IS NOT NULL THEN NOT today.deactivated
                WHEN day.is_complete THEN false
            END AS is_active,
            stored.is_active AS was_active,
            coalesce(today.email IS NOT NULL AND heard.is_heard, false) AS has_values,
            coalesce(details.agent_id IS NOT NULL AND heard.is_heard, false) AS has_details,
            (
                today.email, today.name, today.job_title, today.language, today.mobile, today.phone, today.time_zone
            ) IS DISTINCT FROM (
                stored.email, stored.name, stored.job_title, stored.language, stored.mobile, stored.phone,
                stored.time_zone
            ) AS has_new_values,
            (details.org_agent_id, details.ticket_scope)
            IS DISTINCT FROM (stored.org_agent_id, stored.ticket_scope) AS has_new_details,
            today.email, today.name, today.job_title, today.language, today.mobile, today.phone, today.time_zone,
            details.org_agent_id, details.ticket_scope,
            coalesce(today.states_groups AND heard.is_heard, false) AS states_groups
        FROM stg_agents AS today
        FULL JOIN (
            SELECT period.* FROM agent_periods AS period
            WHERE period.valid_from <= day.sync_date AND (period.valid_to IS NULL OR period.valid_to > day.sync_date)
        ) AS stored ON stored.agent_id = today.agent_id
        LEFT JOIN stg_agent_details AS details ON details.agent_id = today.agent_id
        CROSS JOIN LATERAL (SELECT stored.agent_id IS NULL OR NOT today.is_rejected AS is_heard) AS heard
        WHERE stored.agent_id IS NOT NULL OR today.email IS NOT NULL
    ) AS told
    WHERE
        told.is_new
        OR NOT (told.has_values AND told.has_details AND told.states_groups)
        OR told.has_new_values
        OR told.has_new_details
        OR told.is_active <> told.was_active
        OR told.agent_id::TEXT IN (
            SELECT silent.id FROM silent_periods AS silent
            WHERE
                silent.subject IN ('agents', 'agent_details', 'agent_groups')
                AND silent.valid_from <= day.sync_date
                AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
        );
    SELECT
        EXISTS (SELECT FROM told_agents AS told WHERE told.has_details)
        OR EXISTS (
            SELECT FROM stg_agent_details AS details
            JOIN stg_agents AS today ON today.agent_id = details.agent_id
            WHERE NOT today.is_rejected
        )
    INTO is_detailed;

    PERFORM deskroll_track_new_agents();

    PERFORM deskroll_new_period_changes('agent_periods'::REGCLASS);
    INSERT INTO period_changes (
        agent_id, valid_from, valid_to, email, name, job_title, language, mobile, phone, time_zone
    )
    SELECT
        told.agent_id, day.sync_date, deskroll_told_again('agents'::TEXT, told.agent_id::TEXT, day.next_date),
        told.email, told.name, told.job_title, told.language, told.mobile, told.phone, told.time_zone
    FROM told_agents AS told
    WHERE told.has_values AND told.has_new_values AND NOT told.is_new;
    PERFORM deskroll_assign_periods(
        'agent_periods'::REGCLASS,
        ARRAY['email', 'name', 'job_title', 'language', 'mobile', 'phone', 'time_zone']::NAME[]
    );

    PERFORM deskroll_new_period_changes('agent_periods'::REGCLASS);
    INSERT INTO period_changes (agent_id, valid_from, valid_to, org_agent_id, ticket_scope)
    SELECT
        told.agent_id, day.sync_date, deskroll_told_again('agent_details'::TEXT, told.agent_id::TEXT, day.next_date),
        told.org_agent_id, told.ticket_scope
    FROM told_agents AS told
    -- What is new has its details already, but these may hold longer than until a newer date knows the agent.
    WHERE told.has_details AND told.has_new_details AND (NOT told.is_new OR told.known_from IS NOT NULL);
    PERFORM deskroll_assign_periods('agent_periods'::REGCLASS, ARRAY['org_agent_id', 'ticket_scope']::NAME[]);

    PERFORM deskroll_new_period_changes('agent_periods'::REGCLASS);
    INSERT INTO period_changes (agent_id, valid_from, valid_to, is_active)
    SELECT told.agent_id, day.sync_date, day.next_date, told.is_active
    FROM told_agents AS told
    WHERE told.is_active <> told.was_active;
    PERFORM deskroll_note_reach();
    PERFORM deskroll_assign_periods('agent_periods'::REGCLASS, ARRAY['is_active']::NAME[]);
    INSERT INTO stg_agent_changes (agent_id, change, deactivated)
    SELECT change.agent_id, 'history changed', NOT change.is_active
    FROM sync_context AS context
    CROSS JOIN period_changes AS change
    WHERE context.is_backfill AND day.was_published;

    CREATE TEMP TABLE tellers AS
    SELECT told.agent_id AS id, told.has_values AS tells, told.is_new FROM told_agents AS told;
    PERFORM deskroll_note_silence('agents'::TEXT);

    DROP TABLE tellers;
    CREATE TEMP TABLE tellers AS
    SELECT told.agent_id AS id, told.has_details AS tells, told.is_new
    FROM told_agents AS told
    WHERE is_detailed;
    PERFORM deskroll_note_silence('agent_details'::TEXT);
    PERFORM deskroll_note_absent_input('agent_details'::TEXT, NOT is_detailed);
    DROP TABLE tellers;

    CREATE TEMP TABLE tellers AS
    SELECT told.agent_id AS id, told.states_groups AS tells, told.is_new FROM told_agents AS told;
    CREATE TEMP TABLE told_pairs AS
    SELECT member.agent_id AS id, member.group_id AS other_id
    FROM stg_agent_group_membership AS member
    -- Nobody knows an agent of whom no record was valid until the date.
    WHERE member.agent_id NOT IN (
        SELECT today.agent_id FROM stg_agents AS today
        WHERE today.email IS NULL AND NOT EXISTS (
            SELECT FROM agent_periods AS known
            WHERE known.agent_id = today.agent_id AND known.valid_from <= day.sync_date
        )
    );
    PERFORM deskroll_track_pairs('agent_group_periods'::REGCLASS, 'agent_groups'::TEXT);
    PERFORM deskroll_assign_periods('agent_group_periods'::REGCLASS);
    PERFORM deskroll_note_silence('agent_groups'::TEXT);
    DROP TABLE tellers, told_pairs, told_agents;
END
$$;
COMMENT ON FUNCTION deskroll_track_agents IS
'Carry what the day tells of agents, and of the groups in their own records, into agent_periods and agent_group_periods.';

CREATE OR REPLACE VIEW agent_status_history AS
SELECT period.agent_id, published.sync_date, period.is_active
FROM published_dates AS published
JOIN agent_periods AS period
    ON
        period.valid_from <= published.sync_date
        AND (period.valid_to IS NULL OR period.valid_to > published.sync_date)
WHERE published.pipeline = 'agents';
COMMENT ON VIEW agent_status_history IS 'Who was active on which day: one row per agent that was known, and date that was published.';
COMMENT ON COLUMN agent_status_history.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_status_history.sync_date IS 'The date.';
COMMENT ON COLUMN agent_status_history.is_active IS 'Whether the agent was active.';

-- migrate:down

DROP VIEW agent_status_history;
DROP FUNCTION deskroll_track_agents;
DROP FUNCTION deskroll_track_new_agents;
