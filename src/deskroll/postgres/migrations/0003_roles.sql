-- migrate:up

CREATE TABLE roles (
    role_id BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT,
    is_default BOOLEAN,
    agent_type INTEGER,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ
);
COMMENT ON TABLE roles IS 'The roles of the help desk, one row each, as last seen.';
COMMENT ON COLUMN roles.role_id IS 'Id of the role.';
COMMENT ON COLUMN roles.name IS 'Name.';
COMMENT ON COLUMN roles.description IS 'What the role is for.';
COMMENT ON COLUMN roles.is_default IS 'Whether the help desk came with it.';
COMMENT ON COLUMN roles.agent_type IS 'Kind of agent that may hold it, as the help desk numbers them.';
COMMENT ON COLUMN roles.created_at IS 'When the role was created.';
COMMENT ON COLUMN roles.updated_at IS 'When the record last changed.';

CREATE TABLE role_pipeline_errors (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role_id BIGINT,
    error_type TEXT NOT NULL CHECK (error_type IN ('PARSE_ERROR', 'VALIDATION_ERROR', 'REFERENCE_ERROR')),
    error_message TEXT NOT NULL,
    raw_record JSONB,
    source_file TEXT,
    record_index BIGINT,
    sync_day TEXT NOT NULL,
    run_id BIGINT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE role_pipeline_errors IS 'Quarantine of the roles pipeline, one row per record that could not be taken.';
COMMENT ON COLUMN role_pipeline_errors.id IS 'Number of the row.';
COMMENT ON COLUMN role_pipeline_errors.role_id IS 'Id of the role, where it could be read.';
COMMENT ON COLUMN role_pipeline_errors.error_type IS 'PARSE_ERROR: no JSON, or no object; VALIDATION_ERROR: a field at fault; REFERENCE_ERROR: a link to something unknown.';
COMMENT ON COLUMN role_pipeline_errors.error_message IS 'The fields at fault, what was found and what was expected.';
COMMENT ON COLUMN role_pipeline_errors.raw_record IS 'The record as it came; a JSON string where JSONB cannot hold it.';
COMMENT ON COLUMN role_pipeline_errors.source_file IS 'File, inside the day''s folder.';
COMMENT ON COLUMN role_pipeline_errors.record_index IS 'Place of the record in the file, from 0; NULL for the whole file.';
COMMENT ON COLUMN role_pipeline_errors.sync_day IS 'Sync day; a sync of the same day replaces its rows.';
COMMENT ON COLUMN role_pipeline_errors.run_id IS 'The run; NULL when published by hand.';
COMMENT ON COLUMN role_pipeline_errors.created_at IS 'When the row was written.';

CREATE INDEX role_pipeline_errors_sync_day ON role_pipeline_errors (sync_day);

CREATE UNLOGGED TABLE stg_roles (
    role_id BIGINT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    is_default BOOLEAN,
    agent_type INTEGER,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ,
    is_rejected BOOLEAN NOT NULL DEFAULT false
);
COMMENT ON TABLE stg_roles IS 'What the engine made of today''s roles, from both folders that carry them.';
COMMENT ON COLUMN stg_roles.role_id IS 'Id of the role.';
COMMENT ON COLUMN stg_roles.name IS 'Name.';
COMMENT ON COLUMN stg_roles.description IS 'What the role is for.';
COMMENT ON COLUMN stg_roles.is_default IS 'Whether the help desk came with it.';
COMMENT ON COLUMN stg_roles.agent_type IS 'Kind of agent that may hold it, as the help desk numbers them.';
COMMENT ON COLUMN stg_roles.created_at IS 'When the role was created.';
COMMENT ON COLUMN stg_roles.updated_at IS 'When the record last changed.';
COMMENT ON COLUMN stg_roles.is_rejected IS 'A rejected record of this key may be newer: the stored values stay; those of this row are for a role that is not stored yet.';

CREATE UNLOGGED TABLE stg_role_changes (
    role_id BIGINT NOT NULL,
    change TEXT NOT NULL
);
COMMENT ON TABLE stg_role_changes IS 'What the last publish did to roles, one row per role that changed.';
COMMENT ON COLUMN stg_role_changes.role_id IS 'The role.';
COMMENT ON COLUMN stg_role_changes.change IS 'added, changed or stale (keeps its stored values because its record is in quarantine).';

INSERT INTO sync_watermarks (pipeline) VALUES ('roles');

-- migrate:down

DELETE FROM sync_watermarks WHERE pipeline = 'roles';
DROP TABLE stg_role_changes, stg_roles, role_pipeline_errors, roles;
