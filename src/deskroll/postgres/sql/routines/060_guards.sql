-- migrate:up

-- Of a backfill only the history of its date: it changes nothing else that a guard counts.
CREATE OR REPLACE VIEW guarded_now AS
SELECT 'active agents'::TEXT AS guarded, agent.agent_id AS id, 0::BIGINT AS other_id
FROM agents AS agent
WHERE NOT agent.deactivated
UNION ALL
SELECT 'inactive agents', agent.agent_id, 0 FROM agents AS agent WHERE agent.deactivated
UNION ALL
SELECT 'agents', agent.agent_id, 0 FROM agents AS agent
UNION ALL
SELECT 'memberships of agents in groups', membership.agent_id, membership.group_id
FROM agent_group_membership AS membership
UNION ALL
SELECT 'role assignments', mapping.agent_id, mapping.role_id
FROM agent_role_mapping AS mapping
WHERE mapping.status = 'assigned'
UNION ALL
SELECT 'members of groups', membership.agent_id, membership.group_id FROM group_membership AS membership
UNION ALL
SELECT 'parents of groups', child.group_id, 0 FROM groups AS child WHERE child.parent_group_id IS NOT NULL
UNION ALL
SELECT 'agents active on that date', history.agent_id, 0
FROM sync_context AS context
JOIN agent_status_history AS history ON history.sync_date = context.sync_date
WHERE context.is_backfill AND history.is_active
UNION ALL
SELECT 'agents inactive on that date', history.agent_id, 0
FROM sync_context AS context
JOIN agent_status_history AS history ON history.sync_date = context.sync_date
WHERE context.is_backfill AND NOT history.is_active;
COMMENT ON VIEW guarded_now IS 'What the guards count, as it is now: one row per agent, pair of ids, or group with a parent.';
COMMENT ON COLUMN guarded_now.guarded IS 'What is counted, such as active agents.';
COMMENT ON COLUMN guarded_now.id IS 'Id of the agent or group.';
COMMENT ON COLUMN guarded_now.other_id IS 'Id of the group or role that the agent belongs to; 0 if there is none.';

-- A backfill is compared with the date before its own, or, if it is the oldest, with the date after it; and with what
-- its date had before the run.
CREATE OR REPLACE VIEW guarded_changes AS
SELECT
    change.guarded,
    change.id,
    change.other_id,
    change.was_there,
    here.id IS NOT NULL AS is_there,
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
LEFT JOIN guarded_now AS here
    ON here.guarded = change.guarded AND here.id = change.id AND here.other_id = change.other_id
WHERE NOT context.is_backfill
UNION ALL
SELECT
    CASE WHEN state.is_active THEN 'agents active on that date' ELSE 'agents inactive on that date' END,
    today.agent_id,
    0,
    coalesce(coalesce(change.deactivated, earlier.is_active) = state.is_active, false),
    today.is_active = state.is_active,
    false
FROM sync_context AS context
CROSS JOIN
    LATERAL (
        SELECT
            coalesce(
                (
                    SELECT max(older.sync_date)
                    FROM agent_status_history AS older
                    WHERE older.sync_date < context.sync_date
                ),
                (
                    SELECT min(newer.sync_date)
                    FROM agent_status_history AS newer
                    WHERE newer.sync_date > context.sync_date
                )
            ) AS sync_date
    ) AS compared
JOIN agent_status_history AS today ON today.sync_date = context.sync_date
LEFT JOIN agent_status_history AS earlier
    ON earlier.agent_id = today.agent_id AND earlier.sync_date = compared.sync_date
LEFT JOIN stg_agent_changes AS change ON change.agent_id = today.agent_id AND change.change = 'history changed'
CROSS JOIN (VALUES (true), (false)) AS state (is_active)
WHERE context.is_backfill;
COMMENT ON VIEW guarded_changes IS
'What differs, of what the guards count, from the state before the date that is being published.';
COMMENT ON COLUMN guarded_changes.guarded IS 'What is counted, such as active agents.';
COMMENT ON COLUMN guarded_changes.id IS 'Id of the agent or group.';
COMMENT ON COLUMN guarded_changes.other_id IS 'Id of the group or role that the agent belongs to; 0 if there is none.';
COMMENT ON COLUMN guarded_changes.was_there IS 'Whether it was there before the date.';
COMMENT ON COLUMN guarded_changes.is_there IS 'Whether it is there now.';
COMMENT ON COLUMN guarded_changes.is_allowed IS 'Whether guards pass over it.';

-- migrate:down

DROP VIEW guarded_changes, guarded_now;
