-- migrate:up

-- Where the date that is being published stands among those that its pipeline has published.
CREATE OR REPLACE VIEW sync_neighbours AS
SELECT
    context.pipeline,
    context.sync_date,
    context.is_complete,
    same.sync_date IS NOT NULL AS was_published,
    coalesce(same.is_complete, false) AS was_complete,
    -- What a sync day told of budgets and cards, tran/ of the same date does not change.
    context.source = 'tran' AND coalesce(same.source = 'api', false) AS is_second_to_api,
    (
        SELECT min(later.sync_date)
        FROM published_dates AS later
        WHERE later.pipeline = context.pipeline AND later.sync_date > context.sync_date
    ) AS next_date
FROM sync_context AS context
LEFT JOIN published_dates AS same ON same.pipeline = context.pipeline AND same.sync_date = context.sync_date;
COMMENT ON VIEW sync_neighbours IS 'Where the date that is being published stands among those of its pipeline.';
COMMENT ON COLUMN sync_neighbours.pipeline IS 'Pipeline.';
COMMENT ON COLUMN sync_neighbours.sync_date IS 'The date.';
COMMENT ON COLUMN sync_neighbours.is_complete IS 'Whether absence from the day counts.';
COMMENT ON COLUMN sync_neighbours.was_published IS 'Whether a run has published the date before.';
COMMENT ON COLUMN sync_neighbours.was_complete IS 'Whether it has, and absence from that download counted.';
COMMENT ON COLUMN sync_neighbours.is_second_to_api IS 'Whether tran/ is published for a date that a sync day has published.';
COMMENT ON COLUMN sync_neighbours.next_date IS 'The next date that is published; NULL if there is none.';

CREATE OR REPLACE FUNCTION deskroll_note_published()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_context;
    has_changed BOOLEAN;
BEGIN
    SELECT * INTO STRICT day FROM sync_context;
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM %I WHERE change <> ALL (ARRAY[''stale'', ''held back'', ''activity'']))',
        'stg_' || regexp_replace(day.pipeline, 's$', '') || '_changes'
    ) INTO has_changed;
    UPDATE published_dates SET
        sync_day = day.sync_day,
        source = CASE WHEN published_dates.source = 'api' THEN 'api' ELSE day.source END,
        run_id = day.run_id,
        is_complete = day.is_complete
    WHERE
        published_dates.pipeline = day.pipeline
        AND published_dates.sync_date = day.sync_date
        AND (
            published_dates.is_complete <> day.is_complete
            OR published_dates.source <> 'api' AND day.source = 'api'
            OR has_changed
        );
    INSERT INTO published_dates (pipeline, sync_date, sync_day, source, run_id, is_complete)
    VALUES (day.pipeline, day.sync_date, day.sync_day, day.source, day.run_id, day.is_complete)
    ON CONFLICT (pipeline, sync_date) DO NOTHING;
END
$$;
COMMENT ON FUNCTION deskroll_note_published IS 'Note that the pipeline has published its date.';

-- The columns of a table of periods are its key, valid_from, valid_to, and the values that it keeps, in this order.
-- The temporary tables period_old and period_next have all periods of some keys as they are stored, and as they shall be.
CREATE OR REPLACE FUNCTION deskroll_replace_periods(periods REGCLASS)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- By their order: a first load has taken the keys off the table.
    names NAME[] := ARRAY(
        SELECT attname FROM pg_attribute
        WHERE attrelid = periods AND attnum > 0 AND NOT attisdropped
        ORDER BY attnum
    );
    keys NAME[] := names[:array_position(names, 'valid_from') - 1];
    vals NAME[] := names[array_position(names, 'valid_to') + 1:];
    key TEXT := (SELECT string_agg(format('%I', name), ', ') FROM unnest(keys) AS name);
    stored_key TEXT := (SELECT string_agg(format('stored.%I', name), ', ') FROM unnest(keys) AS name);
    old_key TEXT := (SELECT string_agg(format('old.%I', name), ', ') FROM unnest(keys) AS name);
    next_key TEXT := (SELECT string_agg(format('next.%I', name), ', ') FROM unnest(keys) AS name);
    val TEXT := coalesce((SELECT string_agg(format(', %I', name), '') FROM unnest(vals) AS name), '');
    stored_val TEXT := coalesce((SELECT string_agg(format(', stored.%I', name), '') FROM unnest(vals) AS name), '');
    next_val TEXT := coalesce((SELECT string_agg(format(', next.%I', name), '') FROM unnest(vals) AS name), '');
    set_val TEXT := coalesce((SELECT string_agg(format(', %1$I = next.%1$I', name), '') FROM unnest(vals) AS name), '');
BEGIN
    EXECUTE format('ANALYZE period_old (%1$s), period_next (%1$s)', key);
    EXECUTE format(
        'DELETE FROM %1$s AS stored USING period_old AS old
        WHERE
            (%2$s, stored.valid_from) = (%3$s, old.valid_from)
            AND NOT EXISTS (
                SELECT FROM period_next AS next WHERE (%4$s, next.valid_from) = (%3$s, old.valid_from)
            )',
        periods, stored_key, old_key, next_key
    );
    EXECUTE format(
        'UPDATE %1$s AS stored SET valid_to = next.valid_to%2$s
        FROM period_next AS next
        WHERE
            (%3$s, stored.valid_from) = (%4$s, next.valid_from)
            AND ROW(stored.valid_to%5$s) IS DISTINCT FROM ROW(next.valid_to%6$s)',
        periods, set_val, stored_key, next_key, stored_val, next_val
    );
    EXECUTE format(
        'INSERT INTO %1$s (%2$s, valid_from, valid_to%3$s)
        SELECT %4$s, next.valid_from, next.valid_to%5$s
        FROM period_next AS next
        WHERE NOT EXISTS (
            SELECT FROM period_old AS old WHERE (%6$s, old.valid_from) = (%4$s, next.valid_from)
        )
        ORDER BY %4$s, next.valid_from',
        periods, key, val, next_key, next_val, old_key
    );
    DROP TABLE period_old, period_next;
END
$$;
COMMENT ON FUNCTION deskroll_replace_periods IS
'Carry the temporary table period_next into a table of periods, in place of period_old: only what differs is touched.';

-- Each row of the temporary table period_changes gives a key new values from one date until before another, or none at
-- all if not is_present. What the key had before and after stays; equal neighbours become one row. If `columns` are
-- given, only these get new values, in periods that there are already.
CREATE OR REPLACE FUNCTION deskroll_assign_periods(periods REGCLASS, columns NAME[] DEFAULT NULL)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    -- By their order: a first load has taken the keys off the table.
    names NAME[] := ARRAY(
        SELECT attname FROM pg_attribute
        WHERE attrelid = periods AND attnum > 0 AND NOT attisdropped
        ORDER BY attnum
    );
    keys NAME[] := names[:array_position(names, 'valid_from') - 1];
    vals NAME[] := names[array_position(names, 'valid_to') + 1:];
    key TEXT := (SELECT string_agg(format('%I', name), ', ') FROM unnest(keys) AS name);
    old_key TEXT := (SELECT string_agg(format('old.%I', name), ', ') FROM unnest(keys) AS name);
    next_key TEXT := (SELECT string_agg(format('next.%I', name), ', ') FROM unnest(keys) AS name);
    same TEXT := (SELECT string_agg(format('old.%1$I = next.%1$I', name), ' AND ') FROM unnest(keys) AS name);
    val TEXT := coalesce((SELECT string_agg(format(', %I', name), '') FROM unnest(vals) AS name), '');
    old_val TEXT := coalesce((SELECT string_agg(format(', old.%I', name), '') FROM unnest(vals) AS name), '');
    next_val TEXT := coalesce((SELECT string_agg(format(', next.%I', name), '') FROM unnest(vals) AS name), '');
    mixed_val TEXT := coalesce((
        SELECT string_agg(format(CASE WHEN name = ANY (columns) THEN ', next.%I' ELSE ', old.%I' END, name), '')
        FROM unnest(vals) AS name
    ), '');
    is_empty BOOLEAN;
BEGIN
    IF NOT EXISTS (SELECT FROM period_changes) THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %s)', periods) INTO is_empty;
    IF is_empty THEN
        EXECUTE format(
            'INSERT INTO %1$s (%2$s, valid_from, valid_to%3$s)
            SELECT %2$s, valid_from, valid_to%3$s FROM period_changes WHERE $1 AND is_present ORDER BY %2$s',
            periods, key, val
        ) USING columns IS NULL;
        RETURN;
    END IF;
    EXECUTE format('ANALYZE period_changes (%s)', key);
    EXECUTE format(
        'CREATE TEMP TABLE period_old AS
        SELECT old.*, next.valid_from AS change_from, next.valid_to AS change_to
        FROM period_changes AS next
        JOIN %s AS old ON %s
        WHERE
            old.valid_from <= coalesce(next.valid_to, ''infinity'')
            AND coalesce(old.valid_to, ''infinity'') >= next.valid_from',
        periods, same
    );
    EXECUTE format(
        'CREATE TEMP TABLE period_next AS
        SELECT %1$s, min(valid_from) AS valid_from, nullif(max(coalesce(valid_to, ''infinity'')), ''infinity'') AS valid_to%2$s
        FROM (
            SELECT piece.*, count(*) FILTER (WHERE is_start) OVER (PARTITION BY %1$s ORDER BY valid_from) AS island
            FROM (
                SELECT
                    piece.*,
                    lag(valid_to) OVER key IS DISTINCT FROM valid_from
                    OR lag(ROW(true%2$s)) OVER key IS DISTINCT FROM ROW(true%2$s) AS is_start
                FROM (
                    SELECT %3$s, old.valid_from, least(old.valid_to, old.change_from) AS valid_to%4$s
                    FROM period_old AS old
                    WHERE old.valid_from < old.change_from
                    UNION ALL
                    SELECT %3$s, greatest(old.valid_from, old.change_to), old.valid_to%4$s
                    FROM period_old AS old
                    WHERE old.change_to < coalesce(old.valid_to, ''infinity'')
                    UNION ALL
                    %5$s
                ) AS piece
                WINDOW key AS (PARTITION BY %1$s ORDER BY valid_from)
            ) AS piece
        ) AS piece
        GROUP BY %1$s, island%2$s',
        key, val, old_key, old_val,
        CASE
            WHEN columns IS NULL THEN format(
                'SELECT %s, next.valid_from, next.valid_to%s FROM period_changes AS next WHERE next.is_present',
                next_key, next_val
            )
            ELSE format(
                'SELECT %s, greatest(old.valid_from, next.valid_from), least(old.valid_to, next.valid_to)%s
                FROM period_changes AS next
                JOIN period_old AS old ON %s
                WHERE
                    old.valid_from < coalesce(next.valid_to, ''infinity'')
                    AND coalesce(old.valid_to, ''infinity'') > next.valid_from',
                old_key, mixed_val, same
            )
        END
    );
    PERFORM deskroll_replace_periods(periods);
END
$$;
COMMENT ON FUNCTION deskroll_assign_periods IS
'Carry the temporary table period_changes into a table of periods; columns: those that change, if not all.';

CREATE OR REPLACE FUNCTION deskroll_new_period_changes(periods REGCLASS)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DROP TABLE IF EXISTS pg_temp.period_changes;
    EXECUTE format('CREATE TEMP TABLE period_changes AS SELECT *, true AS is_present FROM %s WITH NO DATA', periods);
    ALTER TABLE period_changes ALTER COLUMN is_present SET DEFAULT true;
END
$$;
COMMENT ON FUNCTION deskroll_new_period_changes IS 'Make the temporary table period_changes, for a table of periods.';

CREATE OR REPLACE FUNCTION deskroll_midnight(of_date DATE)
RETURNS TIMESTAMPTZ LANGUAGE sql IMMUTABLE AS $$
    SELECT of_date::TIMESTAMP AT TIME ZONE 'UTC'
$$;
COMMENT ON FUNCTION deskroll_midnight IS 'The moment at which a date begins in UTC.';

-- A day may say nothing of an id, or of nobody because the whole input of the subject is absent (*).
CREATE OR REPLACE FUNCTION deskroll_told_again(of_subject TEXT, of_id TEXT, from_date DATE)
RETURNS DATE LANGUAGE plpgsql STABLE STRICT SET search_path FROM CURRENT AS $$
DECLARE
    told DATE := from_date;
    silent_until DATE;
BEGIN
    WHILE told < 'infinity' LOOP
        SELECT max(coalesce(silent.valid_to, 'infinity')) INTO silent_until
        FROM silent_periods AS silent
        WHERE
            silent.subject = of_subject
            AND silent.id IN (of_id, '*')
            AND silent.valid_from <= told
            AND (silent.valid_to IS NULL OR silent.valid_to > told);
        EXIT WHEN silent_until IS NULL;
        told := silent_until;
    END LOOP;
    RETURN nullif(told, 'infinity');
END
$$;
COMMENT ON FUNCTION deskroll_told_again IS
'The first published date, from a published one on, that tells of an id; NULL if there is none. See silent_periods.';

CREATE OR REPLACE FUNCTION deskroll_note_silence(of_subject TEXT)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_neighbours;
    was_absent BOOLEAN;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    SELECT EXISTS (
        SELECT FROM silent_periods AS silent
        WHERE
            silent.subject = of_subject
            AND silent.id = '*'
            AND silent.valid_from <= day.sync_date
            AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    ) INTO was_absent;
    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to, is_present)
    SELECT of_subject, teller.id::TEXT, day.sync_date, day.next_date, NOT teller.tells
    FROM tellers AS teller
    LEFT JOIN silent_periods AS silent
        ON
            silent.subject = of_subject
            AND silent.id = teller.id::TEXT
            AND silent.valid_from <= day.sync_date
            AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    WHERE
        CASE
            WHEN teller.tells THEN silent.id IS NOT NULL
            -- What an earlier download of the date told still counts.
            ELSE silent.id IS NULL AND (teller.is_new OR was_absent OR NOT day.was_published)
        END;
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);
END
$$;
COMMENT ON FUNCTION deskroll_note_silence IS
'Note of which ids the day tells, and of which it says nothing: the temporary table tellers (id, tells, is_new) has them, but need not have who told before and tells again.';

CREATE OR REPLACE FUNCTION deskroll_note_absent_input(of_subject TEXT, is_absent BOOLEAN)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM deskroll_new_period_changes('silent_periods'::REGCLASS);
    INSERT INTO period_changes (subject, id, valid_from, valid_to, is_present)
    SELECT of_subject, '*', day.sync_date, day.next_date, is_absent
    FROM sync_neighbours AS day
    WHERE is_absent = NOT EXISTS (
        SELECT FROM silent_periods AS silent
        WHERE
            silent.subject = of_subject
            AND silent.id = '*'
            AND silent.valid_from <= day.sync_date
            AND (silent.valid_to IS NULL OR silent.valid_to > day.sync_date)
    )
    AND NOT (is_absent AND day.was_published);
    PERFORM deskroll_assign_periods('silent_periods'::REGCLASS);
END
$$;
COMMENT ON FUNCTION deskroll_note_absent_input IS
'Note whether the day has the whole input of a subject at all; after deskroll_note_silence(), which asks how it was.';

-- The first column of the key is who tells (the agent, of its groups), the second what it tells. Who is not in tellers
-- tells.
CREATE OR REPLACE FUNCTION deskroll_track_pairs(periods REGCLASS, of_subject TEXT)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    keys NAME[] := ARRAY(
        SELECT attname FROM pg_attribute WHERE attrelid = periods AND attnum IN (1, 2) ORDER BY attnum
    );
    day sync_neighbours;
BEGIN
    SELECT * INTO STRICT day FROM sync_neighbours;
    PERFORM deskroll_new_period_changes(periods);
    EXECUTE format(
        'INSERT INTO period_changes (%2$I, %3$I, valid_from, valid_to, is_present)
        SELECT
            coalesce(told.id, stored.%2$I), coalesce(told.other_id, stored.%3$I), $1,
            deskroll_told_again($3, coalesce(told.id, stored.%2$I)::TEXT, $2), told.id IS NOT NULL
        FROM told_pairs AS told
        FULL JOIN (
            SELECT stored.%2$I, stored.%3$I
            FROM %1$s AS stored
            WHERE stored.valid_from <= $1 AND (stored.valid_to IS NULL OR stored.valid_to > $1)
        ) AS stored ON stored.%2$I = told.id AND stored.%3$I = told.other_id
        WHERE
            (stored.%2$I IS NULL OR told.id IS NULL)
            AND coalesce(told.id, stored.%2$I) NOT IN (SELECT teller.id FROM tellers AS teller WHERE NOT teller.tells)',
        periods, keys[1], keys[2]
    ) USING day.sync_date, day.next_date, of_subject;
END
$$;
COMMENT ON FUNCTION deskroll_track_pairs IS
'Find out which pairs of a table of periods the day changes, into period_changes. The temporary tables told_pairs (id, other_id) and tellers (id, tells, is_new) have what the day says.';

-- migrate:down

DROP FUNCTION deskroll_track_pairs;
DROP FUNCTION deskroll_note_absent_input;
DROP FUNCTION deskroll_note_silence;
DROP FUNCTION deskroll_told_again;
DROP FUNCTION deskroll_midnight;
DROP FUNCTION deskroll_new_period_changes;
DROP FUNCTION deskroll_assign_periods;
DROP FUNCTION deskroll_replace_periods;
DROP FUNCTION deskroll_note_published;
DROP VIEW sync_neighbours;
