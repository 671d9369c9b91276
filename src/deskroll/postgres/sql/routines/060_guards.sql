-- migrate:up

-- What the guards count, and when it was true.
CREATE OR REPLACE VIEW guarded_periods AS
SELECT
    CASE WHEN period.is_active THEN 'active agents' ELSE 'inactive agents' END AS guarded,
    period.agent_id AS id,
    0::BIGINT AS other_id,
    period.valid_from,
    period.valid_to
FROM agent_periods AS period
UNION ALL
SELECT 'agents', period.agent_id, 0, period.valid_from, period.valid_to FROM agent_periods AS period
UNION ALL
SELECT 'memberships of agents in groups', period.agent_id, period.group_id, period.valid_from, period.valid_to
FROM agent_group_periods AS period
UNION ALL
SELECT 'role assignments', period.agent_id, period.role_id, period.valid_from, period.valid_to
FROM agent_role_periods AS period
UNION ALL
SELECT 'members of groups', period.agent_id, period.group_id, period.valid_from, period.valid_to
FROM group_member_periods AS period
UNION ALL
SELECT 'parents of groups', period.group_id, 0, period.valid_from, period.valid_to
FROM group_periods AS period
WHERE period.parent_group_id IS NOT NULL;
COMMENT ON VIEW guarded_periods IS 'What the guards count, and when it was true: one row per agent, pair of ids, or group with a parent, and period.';
COMMENT ON COLUMN guarded_periods.guarded IS 'What is counted, such as active agents.';
COMMENT ON COLUMN guarded_periods.id IS 'Id of the agent or group.';
COMMENT ON COLUMN guarded_periods.other_id IS 'Id of the group or role that the agent belongs to; 0 if there is none.';
COMMENT ON COLUMN guarded_periods.valid_from IS 'Sync date from which it was true.';
COMMENT ON COLUMN guarded_periods.valid_to IS 'Sync date from which it was true no longer; NULL: it still is.';

-- The oldest date has none before it.
CREATE OR REPLACE VIEW guarded_dates AS
SELECT
    context.pipeline,
    context.sync_date,
    same.sync_date IS NOT NULL AS is_published,
    coalesce(
        (
            SELECT max(older.sync_date)
            FROM published_dates AS older
            WHERE older.pipeline = context.pipeline AND older.sync_date < context.sync_date
        ),
        (
            SELECT min(newer.sync_date)
            FROM published_dates AS newer
            WHERE newer.pipeline = context.pipeline AND newer.sync_date > context.sync_date
        )
    ) AS compared_with
FROM sync_context AS context
LEFT JOIN published_dates AS same ON same.pipeline = context.pipeline AND same.sync_date = context.sync_date
WHERE context.is_backfill;
COMMENT ON VIEW guarded_dates IS 'The old date that is being published, and with which it is compared; no row if the date is the newest.';
COMMENT ON COLUMN guarded_dates.pipeline IS 'Pipeline.';
COMMENT ON COLUMN guarded_dates.sync_date IS 'The date.';
COMMENT ON COLUMN guarded_dates.is_published IS 'Whether it is published, by this run or one before it: until then it has changed nothing.';
COMMENT ON COLUMN guarded_dates.compared_with IS 'The published date before it or, if it is the oldest, after it.';

-- Every part has the same types, or PostgreSQL would not look for one id in the indexes of all.
CREATE OR REPLACE VIEW guarded_rows AS
SELECT 'active agents'::TEXT AS guarded, agent.agent_id AS id, 0::BIGINT AS other_id
FROM agents AS agent
WHERE NOT agent.deactivated
UNION ALL
SELECT 'inactive agents'::TEXT, agent.agent_id, 0::BIGINT FROM agents AS agent WHERE agent.deactivated
UNION ALL
SELECT 'agents'::TEXT, agent.agent_id, 0::BIGINT FROM agents AS agent
UNION ALL
SELECT 'memberships of agents in groups'::TEXT, membership.agent_id, membership.group_id
FROM agent_group_membership AS membership
UNION ALL
SELECT 'role assignments'::TEXT, mapping.agent_id, mapping.role_id
FROM agent_role_mapping AS mapping
WHERE mapping.status = 'assigned'
UNION ALL
SELECT 'members of groups'::TEXT, membership.agent_id, membership.group_id FROM group_membership AS membership
UNION ALL
SELECT 'parents of groups'::TEXT, child.group_id, 0::BIGINT
FROM groups AS child
WHERE child.parent_group_id IS NOT NULL;
COMMENT ON VIEW guarded_rows IS 'What the guards count, as the tables have it: one row per agent, pair of ids, or group with a parent.';
COMMENT ON COLUMN guarded_rows.guarded IS 'What is counted, such as active agents.';
COMMENT ON COLUMN guarded_rows.id IS 'Id of the agent or group.';
COMMENT ON COLUMN guarded_rows.other_id IS 'Id of the group or role that the agent belongs to; 0 if there is none.';

CREATE OR REPLACE VIEW guarded_now AS
SELECT now.guarded, now.id, now.other_id
FROM guarded_rows AS now
WHERE NOT EXISTS (SELECT FROM guarded_dates)
UNION ALL
SELECT held.guarded, held.id, held.other_id
FROM guarded_dates AS day
JOIN guarded_periods AS held
    ON held.valid_from <= day.sync_date AND (held.valid_to IS NULL OR held.valid_to > day.sync_date);
COMMENT ON VIEW guarded_now IS 'What the guards count, as it is now, or on the old date that is being published: one row per agent, pair of ids, or group with a parent.';
COMMENT ON COLUMN guarded_now.guarded IS 'What is counted, such as active agents.';
COMMENT ON COLUMN guarded_now.id IS 'Id of the agent or group.';
COMMENT ON COLUMN guarded_now.other_id IS 'Id of the group or role that the agent belongs to; 0 if there is none.';

CREATE OR REPLACE VIEW guarded_changes AS
SELECT
    change.guarded,
    change.id,
    change.other_id,
    change.was_there,
    -- Not a join, and not EXISTS, of which PostgreSQL makes one: little has changed of much that is stored.
    (
        SELECT count(*) FROM guarded_rows AS here
        WHERE here.guarded = change.guarded AND here.id = change.id AND here.other_id = change.other_id
    ) > 0 AS is_there,
    change.is_allowed
    -- Who is new comes with roles.
    OR change.guarded = 'role assignments' AND EXISTS (
        SELECT FROM sync_date_changes AS newcomer
        WHERE
            newcomer.guarded = 'agents'
            AND newcomer.id = change.id
            AND newcomer.sync_date = change.sync_date
            AND NOT newcomer.was_there
    ) AS is_allowed
FROM sync_context AS context
JOIN sync_date_changes AS change ON change.pipeline = context.pipeline AND change.sync_date = context.sync_date
WHERE NOT context.is_backfill
UNION ALL
SELECT
    coalesce(was.guarded, here.guarded),
    coalesce(was.id, here.id),
    coalesce(was.other_id, here.other_id),
    was.id IS NOT NULL,
    here.id IS NOT NULL,
    -- Agents who have left since the oldest date were active on it.
    coalesce(was.guarded, here.guarded) = 'inactive agents' AND EXISTS (
        SELECT FROM guarded_dates AS day WHERE day.compared_with > day.sync_date
    )
    OR coalesce(was.guarded, here.guarded) = 'role assignments' AND NOT EXISTS (
        SELECT
        FROM guarded_dates AS day
        JOIN agent_periods AS known ON known.valid_from <= day.compared_with
        WHERE known.agent_id = coalesce(was.id, here.id)
    )
FROM (
    SELECT held.guarded, held.id, held.other_id
    FROM guarded_dates AS day
    JOIN guarded_periods AS held
        ON held.valid_from <= day.compared_with AND (held.valid_to IS NULL OR held.valid_to > day.compared_with)
    WHERE day.is_published
) AS was
FULL JOIN (
    SELECT held.guarded, held.id, held.other_id
    FROM guarded_dates AS day
    JOIN guarded_periods AS held
        ON held.valid_from <= day.sync_date AND (held.valid_to IS NULL OR held.valid_to > day.sync_date)
    WHERE day.is_published
) AS here ON here.guarded = was.guarded AND here.id = was.id AND here.other_id = was.other_id
WHERE was.id IS NULL OR here.id IS NULL;
COMMENT ON VIEW guarded_changes IS
'What differs, of what the guards count, from the state before the date that is being published.';
COMMENT ON COLUMN guarded_changes.guarded IS 'What is counted, such as active agents.';
COMMENT ON COLUMN guarded_changes.id IS 'Id of the agent or group.';
COMMENT ON COLUMN guarded_changes.other_id IS 'Id of the group or role that the agent belongs to; 0 if there is none.';
COMMENT ON COLUMN guarded_changes.was_there IS 'Whether it was there before the date.';
COMMENT ON COLUMN guarded_changes.is_there IS 'Whether it is there now.';
COMMENT ON COLUMN guarded_changes.is_allowed IS 'Whether guards pass over it.';

-- migrate:down

DROP VIEW guarded_changes, guarded_now, guarded_rows, guarded_dates, guarded_periods;
