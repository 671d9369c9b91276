-- migrate:up

CREATE TABLE sync_run_files (
    pipeline TEXT NOT NULL,
    sync_date DATE NOT NULL,
    sync_day TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    run_id BIGINT NOT NULL REFERENCES sync_runs,
    PRIMARY KEY (pipeline, sync_date)
);
COMMENT ON TABLE sync_run_files IS
'From which files a pipeline''s dates were published: a sync of many days skips a date whose files are still these. Publishing a date removes the rows of that date and of all later ones.';
COMMENT ON COLUMN sync_run_files.pipeline IS 'Pipeline.';
COMMENT ON COLUMN sync_run_files.sync_date IS 'Calendar date that was published.';
COMMENT ON COLUMN sync_run_files.sync_day IS 'Label of the sync day.';
COMMENT ON COLUMN sync_run_files.fingerprint IS 'State of the files, and of what deskroll made of them.';
COMMENT ON COLUMN sync_run_files.run_id IS 'The run that published them.';

-- migrate:down

DROP TABLE sync_run_files;
