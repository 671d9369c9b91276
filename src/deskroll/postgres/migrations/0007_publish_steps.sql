-- migrate:up

ALTER TABLE sync_watermarks ADD COLUMN updated_time TIMESTAMPTZ;
COMMENT ON COLUMN sync_watermarks.updated_time IS
'Newest updated_time among the records published, where records carry their own age; NULL: none yet.';

ALTER TABLE sync_run_drift ADD COLUMN examples TEXT[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN sync_run_drift.examples IS 'Ids of some of them, where that helps.';
COMMENT ON COLUMN sync_run_drift.rows IS 'How many rows, after the run or, of what was staged, in it.';

CREATE FUNCTION deskroll_move_watermark(of_pipeline TEXT) RETURNS VOID LANGUAGE sql AS $$
    UPDATE sync_watermarks SET sync_date = context.sync_date
    FROM sync_context AS context
    WHERE
        context.pipeline = of_pipeline
        AND sync_watermarks.pipeline = of_pipeline
        AND context.sync_date > coalesce(sync_watermarks.sync_date, '-infinity')
        AND (
            EXISTS (SELECT FROM stg_syncs AS staged WHERE staged.pipeline = of_pipeline)
            OR nullif(current_setting('deskroll.sync_date', true), '') IS NOT NULL
        );
$$;
COMMENT ON FUNCTION deskroll_move_watermark IS
'Note that a pipeline has published its date, if that is the newest; where nothing was staged, only a date that is set.';

CREATE FUNCTION deskroll_replace_quarantine(of_pipeline TEXT, quarantine REGCLASS, key NAME)
RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    day sync_context;
    key_type TEXT;
BEGIN
    SELECT * INTO STRICT day FROM sync_context WHERE pipeline = of_pipeline;
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
    ) USING day.sync_day, day.run_id, of_pipeline;
END
$$;
COMMENT ON FUNCTION deskroll_replace_quarantine IS
'Put what was staged of a pipeline''s bad records in place of the day''s rows in its quarantine; key: its column for an id.';

-- migrate:down

DROP FUNCTION deskroll_replace_quarantine;
DROP FUNCTION deskroll_move_watermark;
ALTER TABLE sync_run_drift DROP COLUMN examples;
ALTER TABLE sync_watermarks DROP COLUMN updated_time;
