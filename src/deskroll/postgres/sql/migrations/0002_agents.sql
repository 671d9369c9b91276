-- migrate:up

CREATE TABLE agents (
    agent_id BIGINT PRIMARY KEY,
    email TEXT NOT NULL,
    name TEXT NOT NULL,
    job_title TEXT,
    language TEXT,
    mobile TEXT,
    phone TEXT,
    time_zone TEXT,
    available BOOLEAN,
    deactivated BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    focus_mode BOOLEAN,
    agent_operational_status TEXT,
    last_active_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ,
    as_of DATE NOT NULL,
    sync_day TEXT NOT NULL,
    source TEXT NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CHECK (status = CASE WHEN deactivated THEN 'inactive' ELSE 'active' END)
)
-- Every day moves as_of of every row. In a page that is half empty the new version of a row needs no new entry in an index.
WITH (fillfactor = 45);
COMMENT ON TABLE agents IS 'The agents of the help desk, one row each, as the newest sync knows them.';
COMMENT ON COLUMN agents.agent_id IS 'Id of the agent.';
COMMENT ON COLUMN agents.email IS 'E-mail address.';
COMMENT ON COLUMN agents.name IS 'Full name.';
COMMENT ON COLUMN agents.job_title IS 'Job title.';
COMMENT ON COLUMN agents.language IS 'Language code.';
COMMENT ON COLUMN agents.mobile IS 'Mobile number.';
COMMENT ON COLUMN agents.phone IS 'Telephone number.';
COMMENT ON COLUMN agents.time_zone IS 'Time zone as the help desk names it.';
COMMENT ON COLUMN agents.available IS 'Whether the agent takes tickets now.';
COMMENT ON COLUMN agents.deactivated IS 'Whether the agent is gone: off the roster, deactivated by its own record, or missing.';
COMMENT ON COLUMN agents.status IS 'active or inactive: deactivated in words.';
COMMENT ON COLUMN agents.focus_mode IS 'Whether the agent sees only tickets of its own.';
COMMENT ON COLUMN agents.agent_operational_status IS 'Availability in the help desk''s words.';
COMMENT ON COLUMN agents.last_active_at IS 'When the agent last did anything.';
COMMENT ON COLUMN agents.created_at IS 'When the agent was created.';
COMMENT ON COLUMN agents.updated_at IS 'When the record last changed or, if the status was worked out without a valid record, when that changed.';
COMMENT ON COLUMN agents.as_of IS 'Sync date of the record that the values come from; an older one than the newest date shows a stale row.';
COMMENT ON COLUMN agents.sync_day IS 'Sync day that last changed the row.';
COMMENT ON COLUMN agents.source IS 'api for a sync day, tran for tran/.';
COMMENT ON COLUMN agents.ingested_at IS 'When the row last changed.';

CREATE TABLE agent_details (
    agent_id BIGINT PRIMARY KEY REFERENCES agents,
    org_agent_id TEXT,
    ticket_scope TEXT,
    signature TEXT,
    freshchat_agent BOOLEAN,
    is_active BOOLEAN,
    avatar TEXT,
    last_login_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ
);
COMMENT ON TABLE agent_details IS 'What only the master list says of an agent, one row each; of an agent that left, as last known.';
COMMENT ON COLUMN agent_details.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_details.org_agent_id IS 'Id of the agent in the organisation.';
COMMENT ON COLUMN agent_details.ticket_scope IS 'Which tickets the agent sees: 1 all, 2 those of its groups, 3 its own.';
COMMENT ON COLUMN agent_details.signature IS 'Signature, HTML.';
COMMENT ON COLUMN agent_details.freshchat_agent IS 'Whether the agent also chats.';
COMMENT ON COLUMN agent_details.is_active IS 'contact.active: whether the contact may log in. Not the same as the agent''s status.';
COMMENT ON COLUMN agent_details.avatar IS 'URL of the picture, or the JSON that came in its place.';
COMMENT ON COLUMN agent_details.last_login_at IS 'When the agent last logged in.';
COMMENT ON COLUMN agent_details.created_at IS 'When the agent was created.';
COMMENT ON COLUMN agent_details.updated_at IS 'When the record last changed.';

CREATE TABLE agent_availability (
    agent_id BIGINT NOT NULL REFERENCES agents,
    is_available BOOLEAN,
    available_since TIMESTAMPTZ,
    channel TEXT NOT NULL,
    PRIMARY KEY (agent_id, channel)
);
COMMENT ON TABLE agent_availability IS 'Whether an agent takes work on a channel, one row per agent and channel.';
COMMENT ON COLUMN agent_availability.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_availability.is_available IS 'Whether the agent takes work there.';
COMMENT ON COLUMN agent_availability.available_since IS 'Since when.';
COMMENT ON COLUMN agent_availability.channel IS 'Channel, such as ticket or chat.';

CREATE TABLE agent_group_membership (
    agent_id BIGINT NOT NULL REFERENCES agents,
    group_id BIGINT NOT NULL,
    PRIMARY KEY (agent_id, group_id)
);
COMMENT ON TABLE agent_group_membership IS 'The groups that an agent''s own record names, one row per pair.';
COMMENT ON COLUMN agent_group_membership.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_group_membership.group_id IS 'Group that the agent''s own record names.';

CREATE TABLE agent_names (
    agent_id BIGINT NOT NULL REFERENCES agents,
    name TEXT COLLATE "C" NOT NULL,
    is_email BOOLEAN NOT NULL,
    PRIMARY KEY (name, agent_id, is_email)
);
COMMENT ON TABLE agent_names IS 'Every name and e-mail that an agent ever had, to find out who holds a card.';
COMMENT ON COLUMN agent_names.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_names.name IS 'Name or e-mail, as deskroll_fold() makes it; what is longer than 500 characters is left out.';
COMMENT ON COLUMN agent_names.is_email IS 'Whether it is an e-mail.';

CREATE INDEX agent_names_of_agent ON agent_names (agent_id);

CREATE TABLE agent_status_history (
    agent_id BIGINT NOT NULL REFERENCES agents,
    sync_date DATE NOT NULL,
    is_active BOOLEAN NOT NULL,
    -- By date first: a day's rows lie together, are found together, and are added at the index's end.
    PRIMARY KEY (sync_date, agent_id)
);
COMMENT ON TABLE agent_status_history IS 'Who was active on which day, one row per agent and sync date.';
COMMENT ON COLUMN agent_status_history.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_status_history.sync_date IS 'The date.';
COMMENT ON COLUMN agent_status_history.is_active IS 'Whether the agent was active.';

CREATE TABLE agent_pipeline_errors (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id BIGINT,
    error_type TEXT NOT NULL CHECK (error_type IN ('PARSE_ERROR', 'VALIDATION_ERROR', 'REFERENCE_ERROR')),
    error_message TEXT NOT NULL,
    raw_record JSONB,
    source_file TEXT,
    record_index BIGINT,
    sync_day TEXT NOT NULL,
    run_id BIGINT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE agent_pipeline_errors IS 'Quarantine of the agents pipeline, one row per record or list element that could not be taken.';
COMMENT ON COLUMN agent_pipeline_errors.id IS 'Number of the row.';
COMMENT ON COLUMN agent_pipeline_errors.agent_id IS 'Id of the agent if it could be read.';
COMMENT ON COLUMN agent_pipeline_errors.error_type IS 'PARSE_ERROR: no JSON, or no object; VALIDATION_ERROR: a field at fault; REFERENCE_ERROR: a link to something unknown.';
COMMENT ON COLUMN agent_pipeline_errors.error_message IS 'The fields at fault, what was found and what was expected.';
COMMENT ON COLUMN agent_pipeline_errors.raw_record IS 'The record, element or id as it came; a JSON string if JSONB cannot hold it.';
COMMENT ON COLUMN agent_pipeline_errors.source_file IS 'File, inside the day''s folder.';
COMMENT ON COLUMN agent_pipeline_errors.record_index IS 'Place of the record in the file, from 0; NULL for the whole file.';
COMMENT ON COLUMN agent_pipeline_errors.sync_day IS 'Sync day; a sync of the same day replaces its rows.';
COMMENT ON COLUMN agent_pipeline_errors.run_id IS 'The run; NULL when published by hand.';
COMMENT ON COLUMN agent_pipeline_errors.created_at IS 'When the row was written.';

CREATE INDEX agent_pipeline_errors_sync_day ON agent_pipeline_errors (sync_day);

CREATE UNLOGGED TABLE stg_agents (
    LIKE agents INCLUDING DEFAULTS,
    is_rejected BOOLEAN NOT NULL DEFAULT false,
    states_availability BOOLEAN NOT NULL DEFAULT true,
    states_groups BOOLEAN NOT NULL DEFAULT true
);
ALTER TABLE stg_agents
DROP COLUMN status,
DROP COLUMN as_of,
ALTER COLUMN email DROP NOT NULL,
ALTER COLUMN name DROP NOT NULL,
ALTER COLUMN deactivated DROP NOT NULL;
COMMENT ON TABLE stg_agents IS 'What the engine made of today''s agents, one row per agent that the day names.';
COMMENT ON COLUMN stg_agents.deactivated IS 'Whether the agent is gone; NULL if today''s files cannot tell.';
COMMENT ON COLUMN stg_agents.updated_at IS 'When the record last changed.';
COMMENT ON COLUMN stg_agents.ingested_at IS 'When the row was staged.';
COMMENT ON COLUMN stg_agents.is_rejected IS 'A rejected record of this key may be newer: what is stored stays. The values of this row are for a agent that is not stored yet.';
COMMENT ON COLUMN stg_agents.states_availability IS 'Whether a valid record has the list availability: without it the stored channels stay.';
COMMENT ON COLUMN stg_agents.states_groups IS 'Whether a valid record has the list group_ids: without it the stored memberships stay.';

CREATE UNLOGGED TABLE stg_agent_details (LIKE agent_details);
COMMENT ON TABLE stg_agent_details IS 'What the engine made of today''s agent details.';

CREATE UNLOGGED TABLE stg_agent_availability (
    LIKE agent_availability,
    is_rejected BOOLEAN NOT NULL DEFAULT false
);
COMMENT ON TABLE stg_agent_availability IS 'What the engine made of today''s availability.';
COMMENT ON COLUMN stg_agent_availability.is_rejected IS 'The record of this key was rejected: what is stored stays.';

CREATE UNLOGGED TABLE stg_agent_group_membership (LIKE agent_group_membership);
COMMENT ON TABLE stg_agent_group_membership IS 'What the engine made of the groups that agents'' own records name.';

CREATE UNLOGGED TABLE stg_agent_changes (
    agent_id BIGINT NOT NULL,
    change TEXT NOT NULL,
    deactivated BOOLEAN
);
COMMENT ON TABLE stg_agent_changes IS 'What the last publish did to agents, one row per agent and change.';
COMMENT ON COLUMN stg_agent_changes.agent_id IS 'The agent.';
COMMENT ON COLUMN stg_agent_changes.change IS 'added, changed, deactivated, reactivated, missing (deactivated because the day does not contain it), held back (would be deactivated, but the input is incomplete), stale (keeps its stored values because its record is in quarantine), history changed (a backfill rewrote its row of that date) or activity (only what changes with activity did; not told).';
COMMENT ON COLUMN stg_agent_changes.deactivated IS 'The state that the agent is in after it.';

INSERT INTO sync_watermarks (pipeline) VALUES ('agents');

-- migrate:down

DELETE FROM sync_watermarks WHERE pipeline = 'agents';
DROP TABLE stg_agent_changes, stg_agent_group_membership, stg_agent_availability, stg_agent_details, stg_agents;
DROP TABLE agent_names;
DROP TABLE agent_pipeline_errors, agent_status_history, agent_group_membership, agent_availability, agent_details;
DROP TABLE agents;
