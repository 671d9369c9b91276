-- migrate:up

CREATE TABLE agent_role_mapping (
    agent_id BIGINT NOT NULL REFERENCES agents,
    role_id BIGINT NOT NULL REFERENCES roles,
    status TEXT NOT NULL CHECK (status IN ('assigned', 'removed')),
    assigned_at TIMESTAMPTZ NOT NULL,
    removed_at TIMESTAMPTZ,
    stated_by_agent BOOLEAN NOT NULL,
    stated_by_role BOOLEAN NOT NULL,
    PRIMARY KEY (agent_id, role_id),
    CHECK ((status = 'removed') = (removed_at IS NOT NULL))
);
COMMENT ON TABLE agent_role_mapping IS 'Who holds which role, and who held it: one row per agent and role.';
COMMENT ON COLUMN agent_role_mapping.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_role_mapping.role_id IS 'The role.';
COMMENT ON COLUMN agent_role_mapping.status IS 'assigned, or removed.';
COMMENT ON COLUMN agent_role_mapping.assigned_at IS 'Midnight (UTC) of the date on which the newest period of agent_role_periods began.';
COMMENT ON COLUMN agent_role_mapping.removed_at IS 'Midnight (UTC) of the date on which that period ended; NULL while it is assigned.';
COMMENT ON COLUMN agent_role_mapping.stated_by_agent IS 'Whether the agent''s record (role_ids) stated it, the last time that it said anything of its roles.';
COMMENT ON COLUMN agent_role_mapping.stated_by_role IS 'Whether the role''s record (agent_ids) stated it, the last time that it said anything of its agents.';

CREATE TABLE unlinked_agent_roles (
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    stated_by_agent BOOLEAN NOT NULL,
    stated_by_role BOOLEAN NOT NULL,
    PRIMARY KEY (agent_id, role_id)
);
COMMENT ON TABLE unlinked_agent_roles IS 'Role assignments that a record states, and whose agent or role is not known yet: they are made when it arrives.';
COMMENT ON COLUMN unlinked_agent_roles.agent_id IS 'The agent.';
COMMENT ON COLUMN unlinked_agent_roles.role_id IS 'The role.';
COMMENT ON COLUMN unlinked_agent_roles.stated_by_agent IS 'Whether the agent''s record (role_ids) stated it last.';
COMMENT ON COLUMN unlinked_agent_roles.stated_by_role IS 'Whether the role''s record (agent_ids) stated it last.';

CREATE TABLE agent_role_history (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('assigned', 'removed')),
    action_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    sync_date DATE NOT NULL,
    sync_day TEXT NOT NULL
);
COMMENT ON TABLE agent_role_history IS 'Every time that an agent was given a role or lost it, one row each. Only a corrected sync of the newest date takes away rows of that date.';
COMMENT ON COLUMN agent_role_history.id IS 'Number of the row.';
COMMENT ON COLUMN agent_role_history.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_role_history.role_id IS 'The role.';
COMMENT ON COLUMN agent_role_history.action IS 'assigned, or removed.';
COMMENT ON COLUMN agent_role_history.action_at IS 'When a sync found it.';
COMMENT ON COLUMN agent_role_history.sync_date IS 'Date that the sync stands for.';
COMMENT ON COLUMN agent_role_history.sync_day IS 'Sync day.';

CREATE INDEX agent_role_history_agent ON agent_role_history (agent_id, role_id);

-- Its ids stand side by side, as in every table of pairs; all else is that of agent_pipeline_errors.
CREATE TABLE agent_role_pipeline_errors (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id BIGINT,
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
COMMENT ON TABLE agent_role_pipeline_errors IS 'Quarantine of the agent_roles pipeline, one row per agent and role, or element of a list, that could not be taken.';
COMMENT ON COLUMN agent_role_pipeline_errors.role_id IS 'Id of the role if it could be read.';

CREATE INDEX agent_role_pipeline_errors_sync_day ON agent_role_pipeline_errors (sync_day);

CREATE UNLOGGED TABLE stg_agent_roles (
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    status TEXT NOT NULL,
    stated_by_agent BOOLEAN NOT NULL,
    stated_by_role BOOLEAN NOT NULL,
    source_file TEXT,
    record_index BIGINT,
    sync_day TEXT NOT NULL,
    source TEXT NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE stg_agent_roles IS 'What the engine made of today''s roles of agents: every pair that the day states, every pair that it removes, and every pair that one side states no longer.';
COMMENT ON COLUMN stg_agent_roles.agent_id IS 'The agent.';
COMMENT ON COLUMN stg_agent_roles.role_id IS 'The role.';
COMMENT ON COLUMN stg_agent_roles.status IS 'assigned, or removed.';
COMMENT ON COLUMN stg_agent_roles.stated_by_agent IS 'Whether the agent''s record states it or, if it is silent today, stated it last.';
COMMENT ON COLUMN stg_agent_roles.stated_by_role IS 'Whether the role''s record states it or, if it is silent today, stated it last.';
COMMENT ON COLUMN stg_agent_roles.source_file IS 'File of the record that states it; NULL for a pair that none states today.';
COMMENT ON COLUMN stg_agent_roles.record_index IS 'Place of that record in the file, from 0.';
COMMENT ON COLUMN stg_agent_roles.sync_day IS 'Sync day.';
COMMENT ON COLUMN stg_agent_roles.source IS 'api for a sync day, tran for tran/.';
COMMENT ON COLUMN stg_agent_roles.ingested_at IS 'When the row was staged.';

CREATE UNLOGGED TABLE stg_agent_role_changes (
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    change TEXT NOT NULL,
    stated_by_agent BOOLEAN NOT NULL,
    stated_by_role BOOLEAN NOT NULL
);
COMMENT ON TABLE stg_agent_role_changes IS 'What the last publish did to the roles of agents, one row per pair that changed.';
COMMENT ON COLUMN stg_agent_role_changes.agent_id IS 'The agent.';
COMMENT ON COLUMN stg_agent_role_changes.role_id IS 'The role.';
COMMENT ON COLUMN stg_agent_role_changes.change IS 'assigned, removed, or history changed: not held now, and an older date tells that it was, or was not.';
COMMENT ON COLUMN stg_agent_role_changes.stated_by_agent IS 'Whether the agent''s record states it, or stated it last.';
COMMENT ON COLUMN stg_agent_role_changes.stated_by_role IS 'Whether the role''s record states it, or stated it last.';

INSERT INTO sync_watermarks (pipeline) VALUES ('agent_roles');

-- migrate:down

DELETE FROM sync_watermarks WHERE pipeline = 'agent_roles';
DROP TABLE stg_agent_role_changes, stg_agent_roles, agent_role_pipeline_errors, agent_role_history;
DROP TABLE unlinked_agent_roles, agent_role_mapping;
