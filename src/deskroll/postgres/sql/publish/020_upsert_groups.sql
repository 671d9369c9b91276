-- Carry today's groups and their members from staging into groups and group_membership, and work out who is inactive.
--
-- By hand, after `deskroll stage DATA --day day1 --only groups`, in one transaction:
--     deskroll sql groups | psql "$(deskroll db url)"

SELECT deskroll_begin('groups'::TEXT);

SET CONSTRAINTS ALL DEFERRED;

SELECT deskroll_detach_keys(
    VARIADIC ARRAY['groups', 'group_membership', 'group_periods', 'group_member_periods']::REGCLASS[]
);

-- What the day says of groups: all of a group that is not stored, and what its record has of one whose record is valid.
CREATE TEMP TABLE told_groups AS
SELECT
    staged.group_id, staged.name, staged.parent_group_id, staged.created_at, staged.updated_at, staged.states_members
FROM sync_context AS context
CROSS JOIN stg_groups AS staged
LEFT JOIN groups AS stored ON stored.group_id = staged.group_id
WHERE
    NOT context.is_backfill
    AND staged.name IS NOT NULL
    AND (stored.group_id IS NULL OR NOT staged.is_rejected);

-- Whose members the day tells: a group whose record has the list, and one that is gone from a complete folder.
CREATE TEMP TABLE told_members AS
SELECT told.group_id FROM told_groups AS told WHERE told.states_members
UNION ALL
SELECT stored.group_id
FROM sync_context AS context
CROSS JOIN groups AS stored
LEFT JOIN stg_groups AS staged ON staged.group_id = stored.group_id
WHERE
    NOT context.is_backfill AND context.is_complete AND staged.group_id IS NULL;

CREATE TEMP TABLE next_members AS
SELECT today.group_id, today.agent_id, agent.agent_id IS NOT NULL AS is_known
FROM stg_group_membership AS today
JOIN told_members AS told ON told.group_id = today.group_id
LEFT JOIN agents AS agent ON agent.agent_id = today.agent_id;

ANALYZE told_members, next_members;

CREATE TEMP TABLE group_membership_changes AS
SELECT
    coalesce(today.group_id, stored.group_id) AS group_id,
    coalesce(today.agent_id, stored.agent_id) AS agent_id,
    stored.group_id IS NULL AS is_added
FROM (
    SELECT next.group_id, next.agent_id FROM next_members AS next WHERE next.is_known
    UNION ALL
    SELECT waiting.group_id, waiting.agent_id
    FROM sync_context AS context
    CROSS JOIN unlinked_group_members AS waiting
    JOIN agents AS agent ON agent.agent_id = waiting.agent_id
    WHERE
        NOT context.is_backfill
        AND waiting.group_id NOT IN (SELECT told.group_id FROM told_members AS told)
) AS today
FULL JOIN group_membership AS stored ON stored.group_id = today.group_id AND stored.agent_id = today.agent_id
WHERE
    stored.group_id IS NULL
    OR today.group_id IS NULL AND stored.group_id IN (SELECT told.group_id FROM told_members AS told);

INSERT INTO sync_date_changes (guarded, id, other_id, pipeline, sync_date, was_there)
SELECT
    'members of groups', change.agent_id, change.group_id, context.pipeline, context.sync_date, NOT change.is_added
FROM sync_context AS context
CROSS JOIN group_membership_changes AS change
WHERE EXISTS (SELECT FROM group_membership)
ON CONFLICT (guarded, id, other_id) DO NOTHING;

DELETE FROM group_membership
USING group_membership_changes AS change
WHERE
    NOT change.is_added
    AND group_membership.group_id = change.group_id
    AND group_membership.agent_id = change.agent_id;

INSERT INTO group_membership (group_id, agent_id)
SELECT change.group_id, change.agent_id
FROM group_membership_changes AS change
WHERE change.is_added
ORDER BY change.group_id, change.agent_id;

-- An agent that is not known yet waits.
DELETE FROM unlinked_group_members
USING told_members AS told
WHERE
    unlinked_group_members.group_id = told.group_id
    AND NOT EXISTS (
        SELECT FROM next_members AS next
        WHERE
            next.group_id = unlinked_group_members.group_id
            AND next.agent_id = unlinked_group_members.agent_id
            AND NOT next.is_known
    );

INSERT INTO unlinked_group_members (group_id, agent_id)
SELECT next.group_id, next.agent_id
FROM next_members AS next
WHERE NOT next.is_known
ORDER BY next.group_id, next.agent_id
ON CONFLICT (group_id, agent_id) DO NOTHING;

SELECT deskroll_link_group_members();

DROP TABLE group_membership_changes, next_members, told_members;

-- All groups as they will be. A parent is linked as soon as it has a row, or gets one today.
CREATE TEMP TABLE next_groups AS
SELECT
    coalesce(today.group_id, stored.group_id) AS group_id,
    CASE WHEN today.group_id IS NULL THEN stored.name ELSE today.name END AS name,
    CASE
        WHEN today.group_id IS NULL THEN stored.source_parent_group_id
        ELSE today.parent_group_id
    END AS source_parent_group_id,
    NULL::BIGINT AS parent_group_id,
    CASE WHEN today.group_id IS NULL THEN stored.created_at ELSE today.created_at END AS created_at,
    CASE WHEN today.group_id IS NULL THEN stored.updated_at ELSE today.updated_at END AS updated_at,
    stored.group_id IS NULL AS is_new
FROM told_groups AS today
FULL JOIN groups AS stored ON stored.group_id = today.group_id;

UPDATE next_groups SET parent_group_id = parent.group_id
FROM next_groups AS parent
WHERE parent.group_id = next_groups.source_parent_group_id;

ANALYZE next_groups;

CREATE TEMP TABLE active_groups AS
SELECT active.group_id FROM deskroll_active_groups('next_groups'::REGCLASS) AS active (group_id);

TRUNCATE stg_group_changes;

INSERT INTO stg_group_changes (group_id, change)
SELECT next.group_id, 'added' FROM next_groups AS next WHERE next.is_new
UNION ALL
SELECT next.group_id, 'changed'
FROM next_groups AS next
JOIN groups AS stored ON stored.group_id = next.group_id
WHERE
    (
        next.name, next.parent_group_id, next.source_parent_group_id, next.created_at, next.updated_at
    ) IS DISTINCT FROM (
        stored.name, stored.parent_group_id, stored.source_parent_group_id, stored.created_at, stored.updated_at
    )
UNION ALL
SELECT stored.group_id, CASE WHEN stored.inactive THEN 'activated' ELSE 'inactivated' END
FROM groups AS stored
LEFT JOIN active_groups AS active ON active.group_id = stored.group_id
WHERE stored.inactive <> (active.group_id IS NULL);

INSERT INTO sync_date_changes (guarded, id, pipeline, sync_date, was_there)
SELECT 'parents of groups', next.group_id, context.pipeline, context.sync_date, stored.parent_group_id IS NOT NULL
FROM sync_context AS context
CROSS JOIN next_groups AS next
JOIN groups AS stored ON stored.group_id = next.group_id
WHERE (next.parent_group_id IS NULL) <> (stored.parent_group_id IS NULL)
ON CONFLICT (guarded, id, other_id) DO NOTHING;

UPDATE groups SET
    name = next.name,
    parent_group_id = next.parent_group_id,
    source_parent_group_id = next.source_parent_group_id,
    created_at = next.created_at,
    updated_at = next.updated_at,
    inactive = active.group_id IS NULL
FROM next_groups AS next
LEFT JOIN active_groups AS active ON active.group_id = next.group_id
WHERE
    groups.group_id = next.group_id
    AND next.group_id IN (SELECT change.group_id FROM stg_group_changes AS change WHERE change.change <> 'added');

INSERT INTO groups (group_id, name, parent_group_id, source_parent_group_id, created_at, updated_at, inactive)
SELECT
    next.group_id, next.name, next.parent_group_id, next.source_parent_group_id, next.created_at, next.updated_at,
    active.group_id IS NULL
FROM next_groups AS next
LEFT JOIN active_groups AS active ON active.group_id = next.group_id
WHERE next.is_new
ORDER BY next.group_id;

DROP TABLE next_groups, active_groups, told_groups;

SELECT deskroll_track_groups();

SELECT deskroll_track_inactive_groups();

SELECT deskroll_attach_keys();

SET CONSTRAINTS ALL IMMEDIATE;

-- Quarantine of the day, replaced: bad records and elements, and links to nobody or nothing.
SELECT deskroll_replace_quarantine('group_pipeline_errors'::REGCLASS, 'group_id'::NAME);

INSERT INTO group_pipeline_errors (
    group_id, error_type, error_message, raw_record, source_file, record_index, sync_day, run_id
)
SELECT
    error.group_id, 'REFERENCE_ERROR', error.message, to_jsonb(error.found), error.source_file, error.record_index,
    context.sync_day, context.run_id
FROM sync_context AS context
CROSS JOIN (
    SELECT
        today.group_id, format('parent_group_id: found %s, expected a known group', today.parent_group_id) AS message,
        today.parent_group_id AS found, today.source_file, today.record_index
    FROM stg_groups AS today
    LEFT JOIN groups AS parent ON parent.group_id = today.parent_group_id
    LEFT JOIN stg_groups AS new ON new.group_id = today.parent_group_id AND new.name IS NOT NULL
    WHERE today.parent_group_id IS NOT NULL AND parent.group_id IS NULL AND new.group_id IS NULL
    UNION ALL
    SELECT
        today.group_id, format('agent_ids: found %s, expected a known agent', today.agent_id), today.agent_id,
        today.source_file, today.record_index
    FROM stg_group_membership AS today
    LEFT JOIN agents AS agent ON agent.agent_id = today.agent_id
    WHERE agent.agent_id IS NULL
) AS error
ORDER BY error.source_file, error.record_index, error.message;

SELECT deskroll_tell_stale('stg_group_changes'::REGCLASS, 'group_id'::NAME);

SELECT deskroll_move_watermark();
