-- migrate:up

-- Empty staging says that everybody is gone, so it must be told from staging that a crash, or a failed run, left empty.
CREATE FUNCTION deskroll_begin(of_pipeline TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7234315281759169644);  -- as every run does: one at a time
    IF
        nullif(current_setting('deskroll.sync_date', true), '') IS NULL
        AND NOT EXISTS (SELECT FROM stg_syncs AS staged WHERE staged.pipeline = of_pipeline)
    THEN
        RAISE EXCEPTION 'Nothing is staged of %.', of_pipeline
        USING HINT = 'Run deskroll stage; or, where staging was filled by other means, set deskroll.sync_date.';
    END IF;
END
$$;
COMMENT ON FUNCTION deskroll_begin IS
'Wait for other runs to end, and see that a pipeline is staged: stg_syncs says so, or deskroll.sync_date is set.';

COMMENT ON TABLE sync_runs IS
'The ledger: one row per sync or publish that began, unless it was killed; a plan, and staging alone, leave none.';

-- migrate:down

DROP FUNCTION deskroll_begin;
