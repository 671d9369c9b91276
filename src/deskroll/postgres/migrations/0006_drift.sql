-- migrate:up

CREATE TABLE sync_run_drift (
    run_id BIGINT NOT NULL REFERENCES sync_runs,
    pipeline TEXT NOT NULL,
    drift TEXT NOT NULL,
    rows BIGINT NOT NULL,
    PRIMARY KEY (run_id, pipeline, drift)
);
COMMENT ON TABLE sync_run_drift IS 'What a run found that does not agree, and is no error: one row per run and kind.';
COMMENT ON COLUMN sync_run_drift.run_id IS 'The run.';
COMMENT ON COLUMN sync_run_drift.pipeline IS 'Pipeline.';
COMMENT ON COLUMN sync_run_drift.drift IS 'What does not agree.';
COMMENT ON COLUMN sync_run_drift.rows IS 'How many rows after the run.';

-- migrate:down

DROP TABLE sync_run_drift;
