-- migrate:up

CREATE TABLE groups (
    group_id BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    parent_group_id BIGINT,
    source_parent_group_id BIGINT,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ,
    inactive BOOLEAN NOT NULL
);
COMMENT ON TABLE groups IS 'The groups of the help desk, one row each; one that is gone keeps its row and loses its members.';
COMMENT ON COLUMN groups.group_id IS 'Id of the group.';
COMMENT ON COLUMN groups.name IS 'Name.';
COMMENT ON COLUMN groups.parent_group_id IS 'Group that it is part of; NULL for a root, and until the parent is known.';
COMMENT ON COLUMN groups.source_parent_group_id IS 'Parent that its record names.';
COMMENT ON COLUMN groups.created_at IS 'When the group was created.';
COMMENT ON COLUMN groups.updated_at IS 'When the record last changed.';
COMMENT ON COLUMN groups.inactive IS 'Whether no active agent is a member of it or of any group below it.';

CREATE TABLE group_membership (
    -- Deferrable: members are written before new groups, which are written once, when it is known whether they are active.
    group_id BIGINT NOT NULL REFERENCES groups DEFERRABLE,
    agent_id BIGINT NOT NULL REFERENCES agents,
    PRIMARY KEY (group_id, agent_id)
);
COMMENT ON TABLE group_membership IS 'The members that a group''s own record names, one row per pair.';
COMMENT ON COLUMN group_membership.group_id IS 'The group.';
COMMENT ON COLUMN group_membership.agent_id IS 'Agent that the group''s own record names.';

CREATE TABLE unlinked_group_members (
    group_id BIGINT NOT NULL REFERENCES groups DEFERRABLE,
    agent_id BIGINT NOT NULL,
    PRIMARY KEY (group_id, agent_id)
);
COMMENT ON TABLE unlinked_group_members IS 'Members that a group''s own record names, and that are not known yet: they join when they arrive.';
COMMENT ON COLUMN unlinked_group_members.group_id IS 'The group.';
COMMENT ON COLUMN unlinked_group_members.agent_id IS 'Agent that the group''s own record names.';

CREATE TABLE group_pipeline_errors (LIKE agent_pipeline_errors INCLUDING ALL);
ALTER TABLE group_pipeline_errors RENAME COLUMN agent_id TO group_id;
COMMENT ON TABLE group_pipeline_errors IS 'Quarantine of the groups pipeline, one row per record, list element or link that could not be taken.';
COMMENT ON COLUMN group_pipeline_errors.group_id IS 'Id of the group if it could be read.';

CREATE UNLOGGED TABLE stg_groups (
    LIKE groups,
    source_file TEXT,
    record_index BIGINT,
    is_rejected BOOLEAN NOT NULL DEFAULT false,
    states_members BOOLEAN NOT NULL DEFAULT true
);
ALTER TABLE stg_groups
DROP COLUMN source_parent_group_id,
DROP COLUMN inactive,
ALTER COLUMN name DROP NOT NULL;
COMMENT ON TABLE stg_groups IS 'What the engine made of today''s groups, one row per group that the day names.';
COMMENT ON COLUMN stg_groups.parent_group_id IS 'Group that it is part of, as its record says.';
COMMENT ON COLUMN stg_groups.source_file IS 'File of the record.';
COMMENT ON COLUMN stg_groups.record_index IS 'Place of the record in the file, from 0.';
COMMENT ON COLUMN stg_groups.is_rejected IS 'A rejected record of this key may be newer: what is stored stays. The values of this row are for a group that is not stored yet.';
COMMENT ON COLUMN stg_groups.states_members IS 'Whether a valid record has the list agent_ids: without it the stored members stay.';

CREATE UNLOGGED TABLE stg_group_membership (
    LIKE group_membership,
    source_file TEXT,
    record_index BIGINT
);
COMMENT ON TABLE stg_group_membership IS 'What the engine made of the members that groups'' own records name.';
COMMENT ON COLUMN stg_group_membership.source_file IS 'File of the record.';
COMMENT ON COLUMN stg_group_membership.record_index IS 'Place of the record in the file, from 0.';

CREATE UNLOGGED TABLE stg_group_changes (
    group_id BIGINT NOT NULL,
    change TEXT NOT NULL
);
COMMENT ON TABLE stg_group_changes IS 'What the last publish did to groups, one row per group and change.';
COMMENT ON COLUMN stg_group_changes.group_id IS 'The group.';
COMMENT ON COLUMN stg_group_changes.change IS 'added, changed, activated, inactivated or stale (keeps its stored values because its record is in quarantine).';

INSERT INTO sync_watermarks (pipeline) VALUES ('groups');

-- migrate:down

DELETE FROM sync_watermarks WHERE pipeline = 'groups';
DROP TABLE stg_group_changes, stg_group_membership, stg_groups, group_pipeline_errors;
DROP TABLE unlinked_group_members, group_membership, groups;
