-- migrate:up

ALTER TABLE sync_runs
ADD COLUMN version TEXT,
ADD COLUMN database_role TEXT,
ADD COLUMN os_user TEXT,
ADD COLUMN host TEXT,
ADD COLUMN options JSONB,
ADD COLUMN reason TEXT;
COMMENT ON COLUMN sync_runs.version IS 'Version of deskroll; NULL, as in the columns that follow, if the run was made before deskroll wrote this down.';
COMMENT ON COLUMN sync_runs.database_role IS 'Role of the database that made the run.';
COMMENT ON COLUMN sync_runs.os_user IS 'User of the operating system who made the run.';
COMMENT ON COLUMN sync_runs.host IS 'Machine on which the run was made.';
COMMENT ON COLUMN sync_runs.options IS 'The command, its data, and the options that differ from their defaults; of spark_conf the names alone. No password, and no URL with one.';
COMMENT ON COLUMN sync_runs.reason IS 'Why a person allowed the run (--reason); NULL: no reason was given.';

CREATE TABLE run_changes (
    run_id BIGINT NOT NULL REFERENCES sync_runs ON DELETE CASCADE,
    pipeline TEXT NOT NULL,
    change TEXT NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    label TEXT,
    before JSONB,
    after JSONB,
    rows BIGINT NOT NULL DEFAULT 1,
    PRIMARY KEY (run_id, pipeline, change, key)
);
COMMENT ON TABLE run_changes IS
'What each run changed or, if refused, would have changed: one row per thing. It has personal data: names, e-mail addresses, telephone numbers, also former ones. A publish by hand leaves none.';
COMMENT ON COLUMN run_changes.run_id IS 'The run; sync_runs.status says whether it was published.';
COMMENT ON COLUMN run_changes.pipeline IS 'Pipeline that keeps the table.';
COMMENT ON COLUMN run_changes.change IS 'What happened, such as added, changed, deactivated or membership removed; first load: all rows of the pipeline, counted.';
COMMENT ON COLUMN run_changes.key IS 'Its id, or its ids with a space between; empty if the row counts several.';
COMMENT ON COLUMN run_changes.label IS 'Its name at the end of the run. Personal data.';
COMMENT ON COLUMN run_changes.before IS 'The fields that changed, as they were before the run; NULL if there was nothing. Personal data.';
COMMENT ON COLUMN run_changes.after IS 'The fields that changed, as they are after the run; NULL if nothing is left. Personal data.';
COMMENT ON COLUMN run_changes.rows IS 'How many rows it stands for: 1, or more if the key is empty.';

CREATE INDEX run_changes_key ON run_changes (key, pipeline);

CREATE TABLE sync_run_inputs (
    run_id BIGINT NOT NULL REFERENCES sync_runs ON DELETE CASCADE,
    input TEXT NOT NULL,
    is_folder BOOLEAN NOT NULL,
    found BOOLEAN NOT NULL,
    complete BOOLEAN,
    files BIGINT,
    bytes BIGINT,
    records_read BIGINT,
    valid BIGINT,
    duplicates BIGINT,
    rejected BIGINT,
    fingerprint TEXT,
    unreadable TEXT[] NOT NULL DEFAULT '{}',
    incomplete_because TEXT,
    PRIMARY KEY (run_id, input)
);
COMMENT ON TABLE sync_run_inputs IS
'What each run read: one row per folder of the day, and per list inside its records; of a run that failed as far as it got. records_read = valid + duplicates + rejected.';
COMMENT ON COLUMN sync_run_inputs.run_id IS 'The run.';
COMMENT ON COLUMN sync_run_inputs.input IS 'Folder, or folder.list.';
COMMENT ON COLUMN sync_run_inputs.is_folder IS 'Whether it is a folder.';
COMMENT ON COLUMN sync_run_inputs.found IS 'Whether the day has the folder or, of a list, whether a valid record has it.';
COMMENT ON COLUMN sync_run_inputs.complete IS 'Whether all of it is there and could be read; NULL: the run failed before it was read.';
COMMENT ON COLUMN sync_run_inputs.files IS 'How many files the folder has; NULL for a list.';
COMMENT ON COLUMN sync_run_inputs.bytes IS 'Their size on disk; NULL for a list.';
COMMENT ON COLUMN sync_run_inputs.records_read IS 'Records, or elements, read; NULL: the run failed before it was read, as with the counts that follow.';
COMMENT ON COLUMN sync_run_inputs.valid IS 'Valid ones that were taken, one a key.';
COMMENT ON COLUMN sync_run_inputs.duplicates IS 'Valid ones that lost to a newer one with the same key.';
COMMENT ON COLUMN sync_run_inputs.rejected IS 'Those in quarantine.';
COMMENT ON COLUMN sync_run_inputs.fingerprint IS 'SHA-256 of the names, sizes and times of modification of the files, in hex: what is equal was read from the same files. NULL for a list.';
COMMENT ON COLUMN sync_run_inputs.unreadable IS 'Names of the first ten files that could not be read to their end.';
COMMENT ON COLUMN sync_run_inputs.incomplete_because IS 'Why the folder is incomplete; NULL if it is not.';

CREATE TABLE sync_run_guards (
    run_id BIGINT NOT NULL REFERENCES sync_runs ON DELETE CASCADE,
    pipeline TEXT NOT NULL,
    guarded TEXT NOT NULL,
    is_gain BOOLEAN NOT NULL,
    before BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    share DOUBLE PRECISION,
    threshold BIGINT,
    refused BOOLEAN NOT NULL,
    allowed BOOLEAN NOT NULL,
    PRIMARY KEY (run_id, pipeline, guarded, is_gain)
);
COMMENT ON TABLE sync_run_guards IS 'How near each guard of a run was to refusing it: one row per guard, whether it refused or not.';
COMMENT ON COLUMN sync_run_guards.run_id IS 'The run.';
COMMENT ON COLUMN sync_run_guards.pipeline IS 'Pipeline; empty for the limit of rejected records (--max-rejected).';
COMMENT ON COLUMN sync_run_guards.guarded IS 'What the guard counts, such as active agents, or records of agents/.';
COMMENT ON COLUMN sync_run_guards.is_gain IS 'Whether it counts what is added; else what is lost.';
COMMENT ON COLUMN sync_run_guards.before IS 'How many there were before the date; of records how many were read.';
COMMENT ON COLUMN sync_run_guards.changed IS 'How many of them the runs of the date have changed so far; of records how many were rejected.';
COMMENT ON COLUMN sync_run_guards.share IS 'changed / before; NULL if there were none before.';
COMMENT ON COLUMN sync_run_guards.threshold IS 'The smallest number of changed ones that is too many; NULL if no number is, as on a first load.';
COMMENT ON COLUMN sync_run_guards.refused IS 'Whether this guard refused the run.';
COMMENT ON COLUMN sync_run_guards.allowed IS 'Whether it would have refused the run, and --allow-mass-change or --max-rejected let it through.';

ALTER TABLE stg_sync_sources
ADD COLUMN valid BIGINT NOT NULL DEFAULT 0,
ADD COLUMN files BIGINT,
ADD COLUMN bytes BIGINT,
ADD COLUMN fingerprint TEXT,
ADD COLUMN unreadable TEXT[] NOT NULL DEFAULT '{}';
UPDATE stg_sync_sources SET valid = records_read - duplicates - rejected;
COMMENT ON COLUMN stg_sync_sources.valid IS 'Valid ones that were taken, one a key.';
COMMENT ON COLUMN stg_sync_sources.files IS 'How many files the folder has; NULL for a list.';
COMMENT ON COLUMN stg_sync_sources.bytes IS 'Their size on disk; NULL for a list.';
COMMENT ON COLUMN stg_sync_sources.fingerprint IS 'SHA-256 of the names, sizes and times of modification of the files, in hex; NULL for a list.';
COMMENT ON COLUMN stg_sync_sources.unreadable IS 'Names of the first ten files that could not be read to their end.';

-- migrate:down

ALTER TABLE stg_sync_sources
DROP COLUMN valid, DROP COLUMN files, DROP COLUMN bytes, DROP COLUMN fingerprint, DROP COLUMN unreadable;
DROP TABLE sync_run_guards, sync_run_inputs, run_changes;
ALTER TABLE sync_runs
DROP COLUMN version, DROP COLUMN database_role, DROP COLUMN os_user, DROP COLUMN host, DROP COLUMN options,
DROP COLUMN reason;
