-- migrate:up

CREATE OR REPLACE FUNCTION deskroll_track_groups()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    CREATE TEMP TABLE told_group_values AS
    SELECT
        coalesce(today.group_id, stored.group_id) AS group_id,
        stored.group_id IS NULL AS is_new,
        (
            SELECT min(later.valid_from) FROM group_periods AS later
            WHERE stored.group_id IS NULL AND day.next_date IS NOT NULL AND later.group_id = today.group_id
        ) AS known_from,
        today.name IS NOT NULL AND (stored.group_id IS NULL OR NOT today.is_rejected) AS has_values,
        (today.name, today.parent_group_id) IS DISTINCT FROM (stored.name, stored.parent_group_id) AS has_new_values,
        today.name, today.parent_group_id,
        CASE
            WHEN today.group_id IS NULL THEN day.is_complete
            ELSE today.states_members AND (stored.group_id IS NULL OR NOT today.is_rejected)
        END AS states_members
    FROM stg_groups AS today
    FULL JOIN (
        SELECT period.* FROM group_periods AS period
        WHERE period.valid_from <= day.sync_date AND (period.valid_to IS NULL OR period.valid_to > day.sync_date)
    ) AS stored ON stored.group_id = today.group_id
    WHERE stored.group_id IS NOT NULL OR today.name IS NOT NULL;

    PERFORM deskroll_new_period_changes('group_periods'::REGCLASS);
    INSERT INTO period_changes (group_id, valid_from, valid_to, name, parent_group_id, inactive)
    SELECT told.group_id, day.sync_date, told.known_from, told.name, told.parent_group_id, true
    FROM told_group_values AS told
    WHERE told.is_new;
    PERFORM deskroll_note_reach();
    PERFORM deskroll_assign_periods('group_periods'::REGCLASS);

    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to)
    SELECT 'groups', told.group_id::TEXT, day.next_date, told.known_from
    FROM told_group_values AS told
    WHERE told.is_new AND day.next_date < coalesce(told.known_from, 'infinity');
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);

    PERFORM deskroll_new_period_changes('group_periods'::REGCLASS);
    INSERT INTO period_changes (group_id, valid_from, valid_to, name, parent_group_id)
    SELECT
        told.group_id, day.sync_date, deskroll_told_again('groups'::TEXT, told.group_id::TEXT, day.next_date),
        told.name, told.parent_group_id
    FROM told_group_values AS told
    WHERE told.has_values AND told.has_new_values AND NOT told.is_new;
    PERFORM deskroll_note_reach();
    PERFORM deskroll_assign_periods('group_periods'::REGCLASS, ARRAY['name', 'parent_group_id']::NAME[]);

    CREATE TEMP TABLE tellers AS
    SELECT told.group_id AS id, told.has_values AS tells, told.is_new FROM told_group_values AS told;
    PERFORM deskroll_note_silence('groups'::TEXT);
    DROP TABLE tellers;

    CREATE TEMP TABLE tellers AS
    -- Of a group that an earlier download of the date lacked, that one told that it has no members.
    SELECT told.group_id AS id, told.states_members AS tells, told.is_new AND NOT day.was_complete AS is_new
    FROM told_group_values AS told;
    CREATE TEMP TABLE told_pairs AS
    SELECT today.group_id AS id, today.agent_id AS other_id FROM stg_group_membership AS today;
    PERFORM deskroll_track_pairs('group_member_periods'::REGCLASS, 'group_members'::TEXT);
    PERFORM deskroll_note_reach();
    PERFORM deskroll_assign_periods('group_member_periods'::REGCLASS);
    PERFORM deskroll_note_silence('group_members'::TEXT);
    DROP TABLE tellers, told_pairs, told_group_values;
END
$$;
COMMENT ON FUNCTION deskroll_track_groups IS
'Carry what the day tells of groups and their members into group_periods and group_member_periods.';

CREATE OR REPLACE FUNCTION deskroll_note_reach()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    until DATE := greatest(
        nullif(current_setting('deskroll.reach', true), '')::DATE,
        (SELECT max(coalesce(change.valid_to, 'infinity')) FROM period_changes AS change)
    );
BEGIN
    PERFORM set_config('deskroll.reach', coalesce(until::TEXT, ''), false);
END
$$;
COMMENT ON FUNCTION deskroll_note_reach IS
'Note up to which date what the day tells changes who is in which group: deskroll_track_inactive_groups() goes so far.';

CREATE OR REPLACE FUNCTION deskroll_active_groups_on(at DATE)
RETURNS SETOF BIGINT LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH RECURSIVE known AS (
        SELECT period.group_id, period.parent_group_id
        FROM group_periods AS period
        WHERE period.valid_from <= at AND (period.valid_to IS NULL OR period.valid_to > at)
    ), active (group_id) AS (
        SELECT DISTINCT member.group_id
        FROM group_member_periods AS member
        JOIN agent_periods AS agent ON agent.agent_id = member.agent_id
        WHERE
            member.valid_from <= at AND (member.valid_to IS NULL OR member.valid_to > at)
            AND agent.valid_from <= at AND (agent.valid_to IS NULL OR agent.valid_to > at)
            AND agent.is_active
        UNION
        SELECT child.parent_group_id
        FROM active
        JOIN known AS child ON child.group_id = active.group_id
        WHERE child.parent_group_id IS NOT NULL
    )
    SELECT active.group_id FROM active
$$;
COMMENT ON FUNCTION deskroll_active_groups_on IS 'The groups that had an active member themselves or below them on a date.';

-- Agents and groups may be published on other dates: whether a group is active is worked out for each of both.
CREATE OR REPLACE FUNCTION deskroll_track_inactive_groups()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    at DATE := (SELECT context.sync_date FROM sync_context AS context);
    until DATE := coalesce(nullif(current_setting('deskroll.reach', true), '')::DATE, at + 1);
    next_at DATE;
BEGIN
    WHILE at < until LOOP
        SELECT min(later.sync_date) INTO next_at
        FROM published_dates AS later
        WHERE later.pipeline IN ('agents', 'groups') AND later.sync_date > at;
        PERFORM deskroll_new_period_changes('group_periods'::REGCLASS);
        INSERT INTO period_changes (group_id, valid_from, valid_to, inactive)
        SELECT period.group_id, at, next_at, active.group_id IS NULL
        FROM group_periods AS period
        LEFT JOIN deskroll_active_groups_on(at) AS active (group_id) ON active.group_id = period.group_id
        WHERE
            period.valid_from <= at AND (period.valid_to IS NULL OR period.valid_to > at)
            AND period.inactive <> (active.group_id IS NULL);
        PERFORM deskroll_assign_periods('group_periods'::REGCLASS, ARRAY['inactive']::NAME[]);
        EXIT WHEN next_at IS NULL;
        at := next_at;
    END LOOP;
    PERFORM set_config('deskroll.reach', '', false);
END
$$;
COMMENT ON FUNCTION deskroll_track_inactive_groups IS 'Work out group_periods.inactive of the dates that the day changes.';

-- migrate:down

DROP FUNCTION deskroll_track_inactive_groups;
DROP FUNCTION deskroll_active_groups_on;
DROP FUNCTION deskroll_note_reach;
DROP FUNCTION deskroll_track_groups;
