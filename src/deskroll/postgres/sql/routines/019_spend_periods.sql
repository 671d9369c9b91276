-- migrate:up

-- Of a budget, the newest date wins. A record without currentPeriod tells nothing of the limit.
CREATE OR REPLACE FUNCTION deskroll_track_budgets()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    CREATE TEMP TABLE told_budgets AS
    SELECT
        coalesce(today.budget_id, stored.budget_id) AS budget_id,
        stored.budget_id IS NULL AS is_new,
        (
            SELECT min(later.valid_from) FROM budget_periods AS later
            WHERE stored.budget_id IS NULL AND day.next_date IS NOT NULL AND later.budget_id = today.budget_id
        ) AS known_from,
        stored.budget_id IS NULL OR told.is_told AND (NOT day.is_second_to_api OR silent.id IS NOT NULL) AS has_values,
        today.has_period
        AND (
            stored.budget_id IS NULL
            OR told.is_told AND (NOT day.is_second_to_api OR silent_limit.id IS NOT NULL)
        ) AS has_limit,
        (today.name, today.retired, today.recurring_interval)
        IS DISTINCT FROM (stored.name, stored.retired, stored.recurring_interval) AS has_new_values,
        today.limit_amount IS DISTINCT FROM stored.limit_amount AS has_new_limit,
        today.name, today.limit_amount, today.retired, today.recurring_interval
    FROM stg_budgets AS today
    FULL JOIN (
        SELECT period.* FROM budget_periods AS period
        WHERE period.valid_from <= day.sync_date AND (period.valid_to IS NULL OR period.valid_to > day.sync_date)
    ) AS stored ON stored.budget_id = today.budget_id
    CROSS JOIN LATERAL (SELECT coalesce(NOT today.is_rejected, false) AS is_told) AS told
    LEFT JOIN silent_periods AS silent
        ON
            silent.subject = 'budgets'
            AND silent.id = stored.budget_id
            AND silent.valid_from <= day.sync_date
            AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    LEFT JOIN silent_periods AS silent_limit
        ON
            silent_limit.subject = 'budget_limits'
            AND silent_limit.id = stored.budget_id
            AND silent_limit.valid_from <= day.sync_date
            AND (silent_limit.valid_to IS NULL OR silent_limit.valid_to > day.sync_date);

    PERFORM deskroll_new_period_changes('budget_periods'::REGCLASS);
    INSERT INTO period_changes (budget_id, valid_from, valid_to, name, limit_amount, retired, recurring_interval)
    SELECT
        told.budget_id, day.sync_date, told.known_from, told.name, told.limit_amount, told.retired,
        told.recurring_interval
    FROM told_budgets AS told
    WHERE told.is_new;
    PERFORM deskroll_assign_periods('budget_periods'::REGCLASS);

    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to)
    SELECT subject.name, told.budget_id, day.next_date, told.known_from
    FROM told_budgets AS told
    CROSS JOIN (VALUES ('budgets'), ('budget_limits')) AS subject (name)
    WHERE told.is_new AND day.next_date < coalesce(told.known_from, 'infinity');
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);

    PERFORM deskroll_new_period_changes('budget_periods'::REGCLASS);
    INSERT INTO period_changes (budget_id, valid_from, valid_to, name, retired, recurring_interval)
    SELECT
        told.budget_id, day.sync_date, deskroll_told_again('budgets'::TEXT, told.budget_id, day.next_date),
        told.name, told.retired, told.recurring_interval
    FROM told_budgets AS told
    WHERE told.has_values AND told.has_new_values AND NOT told.is_new;
    PERFORM deskroll_assign_periods(
        'budget_periods'::REGCLASS, ARRAY['name', 'retired', 'recurring_interval']::NAME[]
    );

    PERFORM deskroll_new_period_changes('budget_periods'::REGCLASS);
    INSERT INTO period_changes (budget_id, valid_from, valid_to, limit_amount)
    SELECT
        told.budget_id, day.sync_date, deskroll_told_again('budget_limits'::TEXT, told.budget_id, day.next_date),
        told.limit_amount
    FROM told_budgets AS told
    WHERE told.has_limit AND told.has_new_limit;
    PERFORM deskroll_assign_periods('budget_periods'::REGCLASS, ARRAY['limit_amount']::NAME[]);

    CREATE TEMP TABLE tellers AS
    SELECT told.budget_id AS id, told.has_values AS tells, told.is_new FROM told_budgets AS told;
    PERFORM deskroll_note_silence('budgets'::TEXT);
    DROP TABLE tellers;
    CREATE TEMP TABLE tellers AS
    SELECT told.budget_id AS id, coalesce(told.has_limit, false) AS tells, told.is_new FROM told_budgets AS told;
    PERFORM deskroll_note_silence('budget_limits'::TEXT);
    DROP TABLE tellers, told_budgets;
END
$$;
COMMENT ON FUNCTION deskroll_track_budgets IS 'Carry what the day tells of budgets into budget_periods.';

-- Of a card, the newest version wins; of the same version the newest date. A day that has an older version than the days
-- before it tells nothing.
CREATE OR REPLACE FUNCTION deskroll_track_cards()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    CREATE TEMP TABLE told_cards AS
    SELECT
        coalesce(today.card_id, stored.card_id) AS card_id,
        stored.card_id IS NULL AS is_new,
        stored.card_id IS NULL
        OR coalesce(
            NOT today.is_rejected
            AND CASE
                WHEN day.is_second_to_api AND silent.id IS NULL THEN mine.version > version.version
                ELSE mine.version >= version.version
            END,
            false
        ) AS tells,
        (
            today.status, today.type, coalesce(today.user_id, today.user_uuid), today.source_budget_id,
            today.current_limit, today.valid_thru
        ) IS DISTINCT FROM (
            stored.status, stored.type, stored.user_id, stored.budget_id, stored.current_limit, stored.valid_thru
        )
        OR mine.version <> version.version AS has_new_values,
        today.status, today.type, coalesce(today.user_id, today.user_uuid) AS user_id,
        holder.agent_id, today.source_budget_id AS budget_id, today.current_limit, today.valid_thru,
        today.ordered_time, mine.version,
        -- The next date that has the card: of one that is new, the first that does.
        CASE
            WHEN stored.card_id IS NULL
                THEN (
                    SELECT min(later.valid_from) FROM card_periods AS later
                    WHERE day.next_date IS NOT NULL AND later.card_id = today.card_id
                )
            ELSE deskroll_told_again('cards'::TEXT, today.card_id, day.next_date)
        END AS next_told
    FROM stg_cards AS today
    FULL JOIN (
        SELECT period.* FROM card_periods AS period
        WHERE period.valid_from <= day.sync_date AND (period.valid_to IS NULL OR period.valid_to > day.sync_date)
    ) AS stored ON stored.card_id = today.card_id
    LEFT JOIN card_versions AS running
        ON
            running.card_id = stored.card_id
            AND running.valid_from <= day.sync_date
            AND (running.valid_to IS NULL OR running.valid_to > day.sync_date)
    CROSS JOIN LATERAL (SELECT coalesce(today.ordered_time, '-infinity') AS version) AS mine
    CROSS JOIN LATERAL (SELECT coalesce(running.ordered_time, '-infinity') AS version) AS version
    LEFT JOIN card_holder_keys AS holder ON holder.key = coalesce(today.user_id, today.user_uuid)
    LEFT JOIN silent_periods AS silent
        ON
            silent.subject = 'cards'
            AND silent.id = stored.card_id
            AND silent.valid_from <= day.sync_date
            AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date);

    -- It holds until the next date that has this version or a newer one.
    CREATE TEMP TABLE next_cards AS
    SELECT
        told.*,
        CASE
            WHEN told.next_told IS NULL OR coalesce(there.ordered_time, '-infinity') >= told.version THEN told.next_told
            ELSE (
                SELECT min(newer.valid_from)
                FROM card_versions AS newer
                WHERE
                    newer.card_id = told.card_id
                    AND newer.valid_from > told.next_told
                    AND coalesce(newer.ordered_time, '-infinity') >= told.version
            )
        END AS holds_until
    FROM told_cards AS told
    LEFT JOIN card_versions AS there
        ON
            there.card_id = told.card_id
            AND there.valid_from <= told.next_told
            AND (there.valid_to IS NULL OR there.valid_to > told.next_told)
    WHERE told.tells AND told.has_new_values;

    PERFORM deskroll_new_period_changes('card_periods'::REGCLASS);
    INSERT INTO period_changes (
        card_id, valid_from, valid_to, status, type, user_id, agent_id, budget_id, current_limit, valid_thru
    )
    SELECT
        next.card_id, day.sync_date, next.holds_until, next.status, next.type, next.user_id, next.agent_id,
        next.budget_id, next.current_limit, next.valid_thru
    FROM next_cards AS next;
    PERFORM deskroll_assign_periods('card_periods'::REGCLASS);

    PERFORM deskroll_new_period_changes('card_versions'::REGCLASS);
    INSERT INTO period_changes (card_id, valid_from, valid_to, ordered_time)
    SELECT next.card_id, day.sync_date, next.holds_until, next.ordered_time FROM next_cards AS next;
    PERFORM deskroll_assign_periods('card_versions'::REGCLASS);

    CREATE TEMP TABLE tellers AS
    SELECT told.card_id AS id, told.tells, told.is_new FROM told_cards AS told;
    PERFORM deskroll_note_silence('cards'::TEXT);
    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to)
    SELECT 'cards', next.card_id, day.next_date, next.holds_until
    FROM next_cards AS next
    WHERE day.next_date < coalesce(next.holds_until, 'infinity');
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);
    DROP TABLE tellers, next_cards, told_cards;
END
$$;
COMMENT ON FUNCTION deskroll_track_cards IS 'Carry what the day tells of cards into card_periods.';

-- migrate:down

DROP FUNCTION deskroll_track_cards;
DROP FUNCTION deskroll_track_budgets;
