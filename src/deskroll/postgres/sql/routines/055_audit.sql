-- migrate:up

-- What was true on a date: PostgreSQL puts these functions into the query that calls them, so it uses the indexes. Each
-- answers for any date, published or not: what the newest day up to then told.
CREATE OR REPLACE FUNCTION agents_on(on_date DATE)
RETURNS TABLE (
    agent_id BIGINT, is_active BOOLEAN, email TEXT, name TEXT, job_title TEXT, language TEXT, mobile TEXT, phone TEXT,
    time_zone TEXT, org_agent_id TEXT, ticket_scope TEXT, valid_from DATE, valid_to DATE
) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        period.agent_id, period.is_active, period.email, period.name, period.job_title, period.language, period.mobile,
        period.phone, period.time_zone, period.org_agent_id, period.ticket_scope, period.valid_from, period.valid_to
    FROM agent_periods AS period
    WHERE period.valid_from <= $1 AND (period.valid_to IS NULL OR period.valid_to > $1);
END;
COMMENT ON FUNCTION agents_on IS 'The agents that were known on a date, as they were.';

CREATE OR REPLACE FUNCTION agent_roles_on(on_date DATE)
RETURNS TABLE (agent_id BIGINT, role_id BIGINT, role TEXT, valid_from DATE, valid_to DATE)
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        period.agent_id, period.role_id, role.name, period.valid_from,
        period.valid_to
    FROM agent_role_periods AS period
    LEFT JOIN roles AS role ON role.role_id = period.role_id
    WHERE period.valid_from <= $1 AND (period.valid_to IS NULL OR period.valid_to > $1);
END;
COMMENT ON FUNCTION agent_roles_on IS 'Who held which role on a date.';

CREATE OR REPLACE FUNCTION groups_on(on_date DATE)
RETURNS TABLE (
    group_id BIGINT, name TEXT, parent_group_id BIGINT, inactive BOOLEAN, valid_from DATE, valid_to DATE
) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        period.group_id, period.name, period.parent_group_id, period.inactive, period.valid_from, period.valid_to
    FROM group_periods AS period
    WHERE period.valid_from <= $1 AND (period.valid_to IS NULL OR period.valid_to > $1);
END;
COMMENT ON FUNCTION groups_on IS 'The groups that were known on a date, as they were.';

CREATE OR REPLACE FUNCTION group_members_on(on_date DATE)
RETURNS TABLE (
    group_id BIGINT, agent_id BIGINT, stated_by_group BOOLEAN, stated_by_agent BOOLEAN, valid_from DATE
) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        coalesce(theirs.group_id, own.group_id), coalesce(theirs.agent_id, own.agent_id),
        theirs.group_id IS NOT NULL, own.group_id IS NOT NULL,
        least(theirs.valid_from, own.valid_from)
    FROM (
        SELECT period.group_id, period.agent_id, period.valid_from
        FROM group_member_periods AS period
        WHERE period.valid_from <= $1 AND (period.valid_to IS NULL OR period.valid_to > $1)
    ) AS theirs
    FULL JOIN (
        SELECT period.group_id, period.agent_id, period.valid_from
        FROM agent_group_periods AS period
        WHERE period.valid_from <= $1 AND (period.valid_to IS NULL OR period.valid_to > $1)
    ) AS own ON own.group_id = theirs.group_id AND own.agent_id = theirs.agent_id;
END;
COMMENT ON FUNCTION group_members_on IS
'Who was in which group on a date, by the group''s own record, the agent''s, or both.';

CREATE OR REPLACE FUNCTION cards_on(on_date DATE)
RETURNS TABLE (
    card_id TEXT, status TEXT, type TEXT, user_id TEXT, agent_id BIGINT, budget_id TEXT, current_limit NUMERIC,
    valid_thru TEXT, valid_from DATE, valid_to DATE
) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        period.card_id, period.status, period.type, period.user_id, period.agent_id, period.budget_id,
        period.current_limit, period.valid_thru, period.valid_from, period.valid_to
    FROM card_periods AS period
    WHERE period.valid_from <= $1 AND (period.valid_to IS NULL OR period.valid_to > $1);
END;
COMMENT ON FUNCTION cards_on IS 'The cards that were known on a date, as they were.';

CREATE OR REPLACE FUNCTION budgets_on(on_date DATE)
RETURNS TABLE (
    budget_id TEXT, name TEXT, limit_amount NUMERIC, retired BOOLEAN, recurring_interval TEXT, valid_from DATE,
    valid_to DATE
) LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        period.budget_id, period.name, period.limit_amount, period.retired, period.recurring_interval,
        period.valid_from, period.valid_to
    FROM budget_periods AS period
    WHERE period.valid_from <= $1 AND (period.valid_to IS NULL OR period.valid_to > $1);
END;
COMMENT ON FUNCTION budgets_on IS 'The budgets that were known on a date, as they were.';

CREATE OR REPLACE VIEW access AS
SELECT
    mapping.agent_id,
    agent.name,
    agent.email,
    agent.status,
    mapping.role_id,
    role.name AS role,
    role.name ILIKE '%admin%' AS is_admin,
    CASE
        WHEN mapping.stated_by_agent AND mapping.stated_by_role THEN 'agent and role'
        WHEN mapping.stated_by_agent THEN 'agent'
        WHEN mapping.stated_by_role THEN 'role'
        ELSE 'in doubt'
    END AS source,
    (mapping.assigned_at AT TIME ZONE 'UTC')::DATE AS since
FROM agent_role_mapping AS mapping
JOIN agents AS agent ON agent.agent_id = mapping.agent_id
JOIN roles AS role ON role.role_id = mapping.role_id
WHERE mapping.status = 'assigned';
COMMENT ON VIEW access IS 'Who holds which role now: one row per agent and role, also of agents who are inactive.';
COMMENT ON COLUMN access.agent_id IS 'The agent.';
COMMENT ON COLUMN access.name IS 'Name of the agent.';
COMMENT ON COLUMN access.email IS 'E-mail address of the agent.';
COMMENT ON COLUMN access.status IS 'active or inactive.';
COMMENT ON COLUMN access.role_id IS 'The role.';
COMMENT ON COLUMN access.role IS 'Name of the role.';
COMMENT ON COLUMN access.is_admin IS 'Whether the name of the role contains "admin", as those of administrators do.';
COMMENT ON COLUMN access.source IS 'Whose record states it: agent, role, agent and role; in doubt if neither does and one of them could not be read.';
COMMENT ON COLUMN access.since IS 'Sync date from which the agent has held the role without a break.';

CREATE OR REPLACE VIEW leavers AS
WITH departures AS (
    SELECT
        left_it.agent_id,
        left_it.valid_to AS left_on,
        (
            SELECT max(published.sync_date)
            FROM published_dates AS published
            WHERE published.pipeline = 'agents' AND published.sync_date < left_it.valid_to
        ) AS last_active_on,
        (
            SELECT min(later.valid_from)
            FROM agent_periods AS later
            WHERE later.agent_id = left_it.agent_id AND later.is_active AND later.valid_from > left_it.valid_to
        ) AS returned_on
    FROM agent_periods AS left_it
    WHERE
        left_it.is_active
        AND left_it.valid_to IS NOT NULL
        -- Another name or title begins another period, and nobody has left.
        AND NOT EXISTS (
            SELECT FROM agent_periods AS next
            WHERE next.agent_id = left_it.agent_id AND next.valid_from = left_it.valid_to AND next.is_active
        )
),

things AS (
    SELECT
        period.agent_id, 'role' AS kind, coalesce(role.name, period.role_id::TEXT) AS name, period.valid_from,
        period.valid_to
    FROM agent_role_periods AS period
    LEFT JOIN roles AS role ON role.role_id = period.role_id
    UNION ALL
    SELECT member.agent_id, 'group', coalesce(one.name, member.group_id::TEXT), member.valid_from, member.valid_to
    FROM (
        SELECT own.agent_id, own.group_id, own.valid_from, own.valid_to FROM agent_group_periods AS own
        UNION ALL
        SELECT theirs.agent_id, theirs.group_id, theirs.valid_from, theirs.valid_to FROM group_member_periods AS theirs
    ) AS member
    LEFT JOIN groups AS one ON one.group_id = member.group_id
    UNION ALL
    SELECT card.agent_id, 'card', card.card_id, card.valid_from, card.valid_to
    FROM card_periods AS card
    WHERE card.status NOT IN ('FROZEN', 'DELETED')
),

held AS (
    SELECT
        gone.agent_id,
        gone.left_on,
        array_agg(DISTINCT thing.name) FILTER (WHERE thing.kind = 'role' AND at.left_it) AS roles_then,
        array_agg(DISTINCT thing.name) FILTER (WHERE thing.kind = 'role' AND at.today) AS roles_now,
        array_agg(DISTINCT thing.name) FILTER (WHERE thing.kind = 'group' AND at.left_it) AS groups_then,
        array_agg(DISTINCT thing.name) FILTER (WHERE thing.kind = 'group' AND at.today) AS groups_now,
        array_agg(DISTINCT thing.name) FILTER (WHERE thing.kind = 'card' AND at.left_it) AS cards_then,
        array_agg(DISTINCT thing.name) FILTER (WHERE thing.kind = 'card' AND at.today) AS cards_now
    FROM departures AS gone
    JOIN things AS thing ON thing.agent_id = gone.agent_id
    CROSS JOIN
        LATERAL (
            SELECT
                thing.valid_from < gone.left_on AND coalesce(thing.valid_to, 'infinity') >= gone.left_on AS left_it,
                thing.valid_to IS NULL AS today
        ) AS at
    GROUP BY gone.agent_id, gone.left_on
),

spent AS (
    SELECT gone.agent_id, gone.left_on, sum(one.amount_usd) AS amount_usd
    FROM departures AS gone
    JOIN spend AS one ON one.agent_id = gone.agent_id AND one.spent_on >= gone.left_on
    GROUP BY gone.agent_id, gone.left_on
)

SELECT
    gone.agent_id,
    last.name,
    last.email,
    last.job_title,
    gone.last_active_on,
    gone.left_on,
    gone.returned_on,
    coalesce(held.roles_then, '{}') AS roles_then,
    coalesce(held.roles_now, '{}') AS roles_now,
    coalesce(held.groups_then, '{}') AS groups_then,
    coalesce(held.groups_now, '{}') AS groups_now,
    coalesce(held.cards_then, '{}') AS cards_then,
    coalesce(held.cards_now, '{}') AS cards_now,
    coalesce(spent.amount_usd, 0) AS spent_since_usd
FROM departures AS gone
JOIN agent_periods AS last ON last.agent_id = gone.agent_id AND last.valid_to = gone.left_on
LEFT JOIN held ON held.agent_id = gone.agent_id AND held.left_on = gone.left_on
LEFT JOIN spent ON spent.agent_id = gone.agent_id AND spent.left_on = gone.left_on;
COMMENT ON VIEW leavers IS 'Who left, when, what they had on their last active day, and what they have now: one row per departure, also of people who came back.';
COMMENT ON COLUMN leavers.agent_id IS 'The agent.';
COMMENT ON COLUMN leavers.name IS 'Name on the last active day.';
COMMENT ON COLUMN leavers.email IS 'E-mail address on that day.';
COMMENT ON COLUMN leavers.job_title IS 'Job title on that day.';
COMMENT ON COLUMN leavers.last_active_on IS 'The last active day: the last date that was published before left_on.';
COMMENT ON COLUMN leavers.left_on IS 'Sync date from which the agent was inactive.';
COMMENT ON COLUMN leavers.returned_on IS 'Sync date from which the agent was active again; NULL: still gone.';
COMMENT ON COLUMN leavers.roles_then IS 'Names of the roles held on the last active day.';
COMMENT ON COLUMN leavers.roles_now IS 'Names of the roles held now.';
COMMENT ON COLUMN leavers.groups_then IS 'Names of the groups on that day, by the record of the agent or of the group.';
COMMENT ON COLUMN leavers.groups_now IS 'Names of the groups now.';
COMMENT ON COLUMN leavers.cards_then IS 'Cards that could be used on that day: neither FROZEN nor DELETED.';
COMMENT ON COLUMN leavers.cards_now IS 'Cards that can be used now.';
COMMENT ON COLUMN leavers.spent_since_usd IS 'What the agent spent from left_on, in US dollars, settled and pending.';

CREATE OR REPLACE VIEW quarantine AS
SELECT
    one.pipeline, one.id, one.entity_id, one.error_type, one.error_message, one.raw_record, one.source_file,
    one.record_index, one.sync_day, one.run_id, one.created_at
FROM (
    SELECT
        'agents' AS pipeline, error.id, error.agent_id::TEXT AS entity_id, error.error_type, error.error_message,
        error.raw_record, error.source_file, error.record_index, error.sync_day, error.run_id, error.created_at
    FROM agent_pipeline_errors AS error
    UNION ALL
    SELECT
        'roles', error.id, error.role_id::TEXT, error.error_type, error.error_message, error.raw_record,
        error.source_file, error.record_index, error.sync_day, error.run_id, error.created_at
    FROM role_pipeline_errors AS error
    UNION ALL
    SELECT
        'agent_roles', error.id, concat_ws(' ', error.agent_id, error.role_id), error.error_type, error.error_message,
        error.raw_record, error.source_file, error.record_index, error.sync_day, error.run_id, error.created_at
    FROM agent_role_pipeline_errors AS error
    UNION ALL
    SELECT
        'groups', error.id, error.group_id::TEXT, error.error_type, error.error_message, error.raw_record,
        error.source_file, error.record_index, error.sync_day, error.run_id, error.created_at
    FROM group_pipeline_errors AS error
    UNION ALL
    SELECT
        'budgets', error.id, error.budget_id, error.error_type, error.error_message, error.raw_record,
        error.source_file, error.record_index, error.sync_day, error.run_id, error.created_at
    FROM budget_pipeline_errors AS error
    UNION ALL
    SELECT
        'cards', error.id, error.card_id, error.error_type, error.error_message, error.raw_record,
        error.source_file, error.record_index, error.sync_day, error.run_id, error.created_at
    FROM card_pipeline_errors AS error
    UNION ALL
    SELECT
        'transactions', error.id, error.transaction_id, error.error_type, error.error_message, error.raw_record,
        error.source_file, error.record_index, error.sync_day, error.run_id, error.created_at
    FROM transaction_pipeline_errors AS error
) AS one;
COMMENT ON VIEW quarantine IS 'All that could not be taken, of every pipeline.';
COMMENT ON COLUMN quarantine.pipeline IS 'Pipeline.';
COMMENT ON COLUMN quarantine.id IS 'Number of the row in the pipeline''s own table.';
COMMENT ON COLUMN quarantine.entity_id IS 'Id if it could be read; of the roles of agents that of the agent and that of the role.';
COMMENT ON COLUMN quarantine.error_type IS 'PARSE_ERROR: no JSON, or no object; VALIDATION_ERROR: a field at fault; REFERENCE_ERROR: a link to something unknown.';
COMMENT ON COLUMN quarantine.error_message IS 'The fields at fault, what was found and what was expected.';
COMMENT ON COLUMN quarantine.raw_record IS 'The record as it came.';
COMMENT ON COLUMN quarantine.source_file IS 'File of the record.';
COMMENT ON COLUMN quarantine.record_index IS 'Place of the record in the file, from 0.';
COMMENT ON COLUMN quarantine.sync_day IS 'Sync day.';
COMMENT ON COLUMN quarantine.run_id IS 'The run; NULL by hand.';
COMMENT ON COLUMN quarantine.created_at IS 'When the row was written.';

-- migrate:down

DROP VIEW quarantine, leavers, access;
DROP FUNCTION budgets_on, cards_on, group_members_on, groups_on, agent_roles_on, agents_on;
