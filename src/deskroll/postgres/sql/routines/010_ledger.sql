-- migrate:up

CREATE OR REPLACE VIEW sync_contexts AS
SELECT
    watermark.pipeline,
    coalesce(nullif(current_setting('deskroll.sync_day', true), ''), staged.sync_day, current_date::TEXT) AS sync_day,
    given.sync_date,
    coalesce(nullif(current_setting('deskroll.source', true), ''), staged.source, 'api') AS source,
    nullif(current_setting('deskroll.run_id', true), '')::BIGINT AS run_id,
    coalesce(given.sync_date < watermark.sync_date, false) AS is_backfill,
    NOT EXISTS (
        SELECT FROM stg_sync_sources AS folder WHERE folder.pipeline = watermark.pipeline AND NOT folder.complete
    ) AS is_complete
FROM sync_watermarks AS watermark
LEFT JOIN stg_syncs AS staged ON staged.pipeline = watermark.pipeline
CROSS JOIN LATERAL (
    SELECT
        coalesce(
            nullif(current_setting('deskroll.sync_date', true), '')::DATE, staged.sync_date, current_date
        ) AS sync_date
) AS given;
COMMENT ON VIEW sync_contexts IS
'What the publish SQL goes by, one row per pipeline: the settings deskroll.sync_day, .sync_date, .source and .run_id, else what was staged.';
COMMENT ON COLUMN sync_contexts.pipeline IS 'Pipeline.';
COMMENT ON COLUMN sync_contexts.sync_day IS 'Label of the sync day.';
COMMENT ON COLUMN sync_contexts.sync_date IS 'Calendar date the sync stands for.';
COMMENT ON COLUMN sync_contexts.source IS 'api or tran.';
COMMENT ON COLUMN sync_contexts.run_id IS 'The run; NULL by hand.';
COMMENT ON COLUMN sync_contexts.is_backfill IS 'Whether a newer date has been published: current state then stays as it is.';
COMMENT ON COLUMN sync_contexts.is_complete IS 'Whether absence from the day counts.';

CREATE OR REPLACE VIEW sync_context AS
SELECT
    contexts.pipeline,
    contexts.sync_day,
    contexts.sync_date,
    contexts.source,
    contexts.run_id,
    contexts.is_backfill,
    contexts.is_complete
FROM sync_contexts AS contexts
WHERE contexts.pipeline = current_setting('deskroll.pipeline', true);
COMMENT ON VIEW sync_context IS 'That of the pipeline that is being published: deskroll_begin() says which.';
COMMENT ON COLUMN sync_context.pipeline IS 'Pipeline.';
COMMENT ON COLUMN sync_context.sync_day IS 'Label of the sync day.';
COMMENT ON COLUMN sync_context.sync_date IS 'Calendar date the sync stands for.';
COMMENT ON COLUMN sync_context.source IS 'api or tran.';
COMMENT ON COLUMN sync_context.run_id IS 'The run; NULL by hand.';
COMMENT ON COLUMN sync_context.is_backfill IS 'Whether a newer date has been published: current state then stays as it is.';
COMMENT ON COLUMN sync_context.is_complete IS 'Whether absence from the day counts.';

-- JSON as JSONB or, if JSONB would fail or lose something (a NUL, too deep, a key twice, no JSON at all), as a JSON
-- string. Keys are compared in the object itself and in those right inside it.
CREATE OR REPLACE FUNCTION deskroll_to_jsonb(raw TEXT)
RETURNS JSONB LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT AS $$
BEGIN
    IF json_typeof(raw::JSON) = 'object' AND EXISTS (
        SELECT FROM (
            SELECT '' AS parent, member.key FROM json_each(raw::JSON) AS member
            UNION ALL
            SELECT member.key, inside.key
            FROM json_each(raw::JSON) AS member
            CROSS JOIN LATERAL json_object_keys(
                CASE WHEN json_typeof(member.value) = 'object' THEN member.value ELSE '{}' END
            ) AS inside (key)
        ) AS keys
        GROUP BY parent, key
        HAVING count(*) > 1
    ) THEN
        RETURN to_jsonb(raw);
    END IF;
    RETURN raw::JSONB;
EXCEPTION WHEN OTHERS THEN
    RETURN to_jsonb(raw);
END
$$;
COMMENT ON FUNCTION deskroll_to_jsonb IS 'JSON text as JSONB or, if that cannot hold it, as a JSON string.';

CREATE OR REPLACE FUNCTION deskroll_move_watermark()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE sync_watermarks SET sync_date = context.sync_date
    FROM sync_context AS context
    WHERE
        sync_watermarks.pipeline = context.pipeline
        AND context.sync_date > coalesce(sync_watermarks.sync_date, '-infinity')
        AND (
            EXISTS (SELECT FROM stg_syncs AS staged WHERE staged.pipeline = context.pipeline)
            OR nullif(current_setting('deskroll.sync_date', true), '') IS NOT NULL
        );
    PERFORM deskroll_note_published();
END
$$;
COMMENT ON FUNCTION deskroll_move_watermark IS
'Note that the pipeline has published its date, and whether that is the newest. If nothing was staged, only a date that is set counts.';

CREATE OR REPLACE FUNCTION deskroll_replace_quarantine(quarantine REGCLASS, key NAME)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_context;
    key_type TEXT;
BEGIN
    SELECT * INTO STRICT day FROM sync_context;
    SELECT format_type(atttypid, atttypmod) INTO STRICT key_type
    FROM pg_attribute WHERE attrelid = quarantine AND attname = key;
    EXECUTE format('DELETE FROM %s WHERE sync_day = $1', quarantine) USING day.sync_day;
    EXECUTE format(
        'INSERT INTO %s (
            %I, error_type, error_message, raw_record, source_file, record_index, sync_day, run_id
        )
        SELECT
            entity_id::%s, error_type, error_message, deskroll_to_jsonb(raw_record), source_file, record_index, $1, $2
        FROM stg_pipeline_errors
        WHERE pipeline = $3
        ORDER BY source_file, record_index, error_message',
        quarantine, key, key_type
    ) USING day.sync_day, day.run_id, day.pipeline;
END
$$;
COMMENT ON FUNCTION deskroll_replace_quarantine IS
'Replace the day''s rows of a quarantine table with the rejected records that were staged; key: its column for an id.';

-- If the newest record of the day is valid, the values are not old.
CREATE OR REPLACE FUNCTION deskroll_tell_stale(changes REGCLASS, key NAME)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    day sync_context;
    key_type TEXT;
BEGIN
    SELECT * INTO STRICT day FROM sync_context;
    IF day.is_backfill THEN
        RETURN;
    END IF;
    SELECT format_type(atttypid, atttypmod) INTO STRICT key_type
    FROM pg_attribute WHERE attrelid = changes AND attname = key;
    EXECUTE format(
        'INSERT INTO %2$s (%3$I, change)
        SELECT DISTINCT stored.%3$I, ''stale''
        FROM stg_pipeline_errors AS error
        JOIN %1$I AS stored ON stored.%3$I = error.entity_id::%4$s
        WHERE
            error.pipeline = $1
            AND NOT EXISTS (SELECT FROM %5$I AS today WHERE today.%3$I = stored.%3$I AND NOT today.is_rejected)',
        day.pipeline, changes, key, key_type, 'stg_' || day.pipeline
    ) USING day.pipeline;
END
$$;
COMMENT ON FUNCTION deskroll_tell_stale IS
'Add the rows that keep old values because their records are in quarantine to what a publish did. Their table is named like the pipeline.';

-- Empty staging says that everybody is gone, so it must be told from staging that a crash, or a failed run, left empty.
CREATE OR REPLACE FUNCTION deskroll_begin(of_pipeline TEXT)
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7234315281759169644);  -- as every run does: one at a time
    PERFORM set_config('deskroll.pipeline', of_pipeline, false);  -- a file may be run statement by statement
    DELETE FROM sync_date_changes
    USING sync_context AS context
    WHERE
        sync_date_changes.pipeline = context.pipeline
        AND sync_date_changes.sync_date < context.sync_date;
    -- What a later date made of its files may depend on this one, and nothing else says what a publish by hand did.
    DELETE FROM sync_run_files
    USING sync_context AS context
    WHERE
        sync_run_files.pipeline = context.pipeline
        AND sync_run_files.sync_date >= context.sync_date;
    IF
        nullif(current_setting('deskroll.sync_date', true), '') IS NULL
        AND NOT EXISTS (SELECT FROM stg_syncs AS staged WHERE staged.pipeline = of_pipeline)
    THEN
        RAISE EXCEPTION 'Nothing is staged of %.', of_pipeline
        USING HINT = 'Run deskroll stage; or, if staging was filled by other means, set deskroll.sync_date.';
    END IF;
    IF
        nullif(current_setting('deskroll.run_id', true), '') IS NULL
        AND EXISTS (SELECT FROM stg_syncs AS staged WHERE staged.pipeline = of_pipeline AND staged.purpose = 'plan')
    THEN
        RAISE EXCEPTION 'A plan filled the staging tables of %.', of_pipeline
        USING HINT = 'Run deskroll stage again.';
    END IF;
END
$$;
COMMENT ON FUNCTION deskroll_begin IS
'Say which pipeline is published, wait for other runs to end, see that it is staged (stg_syncs says so, or deskroll.sync_date is set), and forget what other dates changed, and from which files this date and later ones were published.';

-- migrate:down

DROP FUNCTION deskroll_begin;
DROP FUNCTION deskroll_tell_stale;
DROP FUNCTION deskroll_replace_quarantine;
DROP FUNCTION deskroll_move_watermark;
DROP FUNCTION deskroll_to_jsonb;
DROP VIEW sync_context, sync_contexts;
