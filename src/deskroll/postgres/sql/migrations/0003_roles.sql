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

CREATE TABLE role_pipeline_errors (LIKE agent_pipeline_errors INCLUDING ALL);
ALTER TABLE role_pipeline_errors RENAME COLUMN agent_id TO role_id;
COMMENT ON TABLE role_pipeline_errors IS 'Quarantine of the roles pipeline, one row per record that could not be taken.';
COMMENT ON COLUMN role_pipeline_errors.role_id IS 'Id of the role if it could be read.';

CREATE UNLOGGED TABLE stg_roles (
    LIKE roles,
    is_rejected BOOLEAN NOT NULL DEFAULT false
);
COMMENT ON TABLE stg_roles IS 'What the engine made of today''s roles, from both folders that carry them.';
COMMENT ON COLUMN stg_roles.is_rejected IS 'A rejected record of this key may be newer: what is stored stays. The values of this row are for a role that is not stored yet.';

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
