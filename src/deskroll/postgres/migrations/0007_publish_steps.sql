-- migrate:up

ALTER TABLE sync_watermarks ADD COLUMN updated_time TIMESTAMPTZ;
COMMENT ON COLUMN sync_watermarks.updated_time IS
'Newest updated_time among the records published, where records carry their own age; NULL: none yet.';

ALTER TABLE sync_run_drift ADD COLUMN examples TEXT[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN sync_run_drift.examples IS 'Ids of some of them, where that helps.';
COMMENT ON COLUMN sync_run_drift.rows IS 'How many rows, after the run or, of what was staged, in it.';

-- migrate:down

ALTER TABLE sync_run_drift DROP COLUMN examples;
ALTER TABLE sync_watermarks DROP COLUMN updated_time;
