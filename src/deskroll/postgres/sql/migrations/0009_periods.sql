-- migrate:up

CREATE TABLE published_dates (
    pipeline TEXT NOT NULL,
    sync_date DATE NOT NULL,
    sync_day TEXT NOT NULL,
    source TEXT NOT NULL,
    run_id BIGINT,
    is_complete BOOLEAN NOT NULL,
    PRIMARY KEY (pipeline, sync_date)
);
COMMENT ON TABLE published_dates IS 'The dates that each pipeline has published, in whatever order: one row per pipeline and date.';
COMMENT ON COLUMN published_dates.pipeline IS 'Pipeline.';
COMMENT ON COLUMN published_dates.sync_date IS 'The date.';
COMMENT ON COLUMN published_dates.sync_day IS 'Label of the sync day that last changed anything of the date.';
COMMENT ON COLUMN published_dates.source IS 'api if a sync day has published the date; tran if only tran/ has.';
COMMENT ON COLUMN published_dates.run_id IS 'The last run that changed anything of the date; NULL when published by hand.';
COMMENT ON COLUMN published_dates.is_complete IS 'Whether absence from that day counted.';

CREATE TABLE silent_periods (
    subject TEXT NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    PRIMARY KEY (subject, id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX silent_periods_open ON silent_periods (subject, id) WHERE valid_to IS NULL;
COMMENT ON TABLE silent_periods IS
'The published dates that said nothing of something: what an older day says of it holds there too. All other dates said something.';
COMMENT ON COLUMN silent_periods.subject IS 'What was not told, such as agent_groups: the groups in an agent''s own record.';
COMMENT ON COLUMN silent_periods.id IS 'Of whom or what; * if the whole input was absent.';
COMMENT ON COLUMN silent_periods.valid_from IS 'First such date.';
COMMENT ON COLUMN silent_periods.valid_to IS 'First date afterwards that told; NULL if none has.';

CREATE TABLE agent_periods (
    agent_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    is_active BOOLEAN NOT NULL,
    email TEXT,
    name TEXT,
    job_title TEXT,
    language TEXT,
    mobile TEXT,
    phone TEXT,
    time_zone TEXT,
    org_agent_id TEXT,
    ticket_scope TEXT,
    PRIMARY KEY (agent_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX agent_periods_open ON agent_periods (agent_id) WHERE valid_to IS NULL;
COMMENT ON TABLE agent_periods IS 'What was true of an agent, and when: one row per agent and period in which nothing of it changed.';
COMMENT ON COLUMN agent_periods.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_periods.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN agent_periods.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';
COMMENT ON COLUMN agent_periods.is_active IS 'Whether the agent was active.';
COMMENT ON COLUMN agent_periods.email IS 'E-mail address.';
COMMENT ON COLUMN agent_periods.name IS 'Full name.';
COMMENT ON COLUMN agent_periods.job_title IS 'Job title.';
COMMENT ON COLUMN agent_periods.language IS 'Language code.';
COMMENT ON COLUMN agent_periods.mobile IS 'Mobile number.';
COMMENT ON COLUMN agent_periods.phone IS 'Telephone number.';
COMMENT ON COLUMN agent_periods.time_zone IS 'Time zone as the help desk names it.';
COMMENT ON COLUMN agent_periods.org_agent_id IS 'Id of the agent in the organisation.';
COMMENT ON COLUMN agent_periods.ticket_scope IS 'Which tickets the agent saw: 1 all, 2 those of its groups, 3 its own.';

CREATE TABLE agent_group_periods (
    agent_id BIGINT NOT NULL,
    group_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    PRIMARY KEY (agent_id, group_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX agent_group_periods_open ON agent_group_periods (agent_id, group_id) WHERE valid_to IS NULL;
COMMENT ON TABLE agent_group_periods IS 'Which groups an agent''s own record named, and when.';
COMMENT ON COLUMN agent_group_periods.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_group_periods.group_id IS 'Group that the agent''s own record named.';
COMMENT ON COLUMN agent_group_periods.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN agent_group_periods.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';

CREATE TABLE role_dates (
    role_id BIGINT PRIMARY KEY,
    known_since DATE NOT NULL
);
COMMENT ON TABLE role_dates IS 'Since when a role is known: an assignment of it holds from then on.';
COMMENT ON COLUMN role_dates.role_id IS 'The role.';
COMMENT ON COLUMN role_dates.known_since IS 'Oldest published date that has it.';

CREATE TABLE agent_role_periods_by_agent (
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    PRIMARY KEY (agent_id, role_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX agent_role_periods_by_agent_open
ON agent_role_periods_by_agent (agent_id, role_id) WHERE valid_to IS NULL;
COMMENT ON TABLE agent_role_periods_by_agent IS 'When the agent''s own record stated a role; agent_role_periods has both sides in one.';
COMMENT ON COLUMN agent_role_periods_by_agent.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_role_periods_by_agent.role_id IS 'The role, known or not.';
COMMENT ON COLUMN agent_role_periods_by_agent.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN agent_role_periods_by_agent.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';

CREATE TABLE agent_role_periods_by_role (
    role_id BIGINT NOT NULL,
    agent_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    PRIMARY KEY (role_id, agent_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX agent_role_periods_by_role_open
ON agent_role_periods_by_role (role_id, agent_id) WHERE valid_to IS NULL;
COMMENT ON TABLE agent_role_periods_by_role IS 'When the role''s own record stated an agent; agent_role_periods has both sides in one.';
COMMENT ON COLUMN agent_role_periods_by_role.role_id IS 'The role.';
COMMENT ON COLUMN agent_role_periods_by_role.agent_id IS 'The agent, known or not.';
COMMENT ON COLUMN agent_role_periods_by_role.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN agent_role_periods_by_role.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';

CREATE TABLE agent_role_periods_in_doubt (
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    PRIMARY KEY (agent_id, role_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX agent_role_periods_in_doubt_open
ON agent_role_periods_in_doubt (agent_id, role_id) WHERE valid_to IS NULL;
COMMENT ON TABLE agent_role_periods_in_doubt IS
'When a role that neither record states was kept because a later download of the same date left it in doubt; agent_role_periods has all sides in one.';
COMMENT ON COLUMN agent_role_periods_in_doubt.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_role_periods_in_doubt.role_id IS 'The role.';
COMMENT ON COLUMN agent_role_periods_in_doubt.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN agent_role_periods_in_doubt.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';

CREATE TABLE agent_role_periods (
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    PRIMARY KEY (agent_id, role_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX agent_role_periods_open ON agent_role_periods (agent_id, role_id) WHERE valid_to IS NULL;
COMMENT ON TABLE agent_role_periods IS 'Who held which role, and when: one row per agent, role and period.';
COMMENT ON COLUMN agent_role_periods.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_role_periods.role_id IS 'The role.';
COMMENT ON COLUMN agent_role_periods.valid_from IS 'Sync date from which the agent held the role.';
COMMENT ON COLUMN agent_role_periods.valid_to IS 'Sync date from which the agent held it no longer; NULL: it is still held.';

CREATE TABLE group_periods (
    group_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    name TEXT NOT NULL,
    parent_group_id BIGINT,
    inactive BOOLEAN NOT NULL,
    PRIMARY KEY (group_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX group_periods_open ON group_periods (group_id) WHERE valid_to IS NULL;
COMMENT ON TABLE group_periods IS 'What was true of a group, and when: one row per group and period in which nothing of it changed.';
COMMENT ON COLUMN group_periods.group_id IS 'The group.';
COMMENT ON COLUMN group_periods.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN group_periods.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';
COMMENT ON COLUMN group_periods.name IS 'Name.';
COMMENT ON COLUMN group_periods.parent_group_id IS 'Group that its record named as its parent, known or not.';
COMMENT ON COLUMN group_periods.inactive IS 'Whether no active agent was a member of it or of any group below it.';

CREATE TABLE group_member_periods (
    group_id BIGINT NOT NULL,
    agent_id BIGINT NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    PRIMARY KEY (group_id, agent_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX group_member_periods_open ON group_member_periods (group_id, agent_id) WHERE valid_to IS NULL;
CREATE INDEX group_member_periods_agent ON group_member_periods (agent_id);
COMMENT ON TABLE group_member_periods IS 'Which agents a group''s own record named as its members, and when.';
COMMENT ON COLUMN group_member_periods.group_id IS 'The group.';
COMMENT ON COLUMN group_member_periods.agent_id IS 'Agent that the group''s own record named, known or not.';
COMMENT ON COLUMN group_member_periods.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN group_member_periods.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';

CREATE TABLE budget_periods (
    budget_id TEXT COLLATE "C" NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    name TEXT NOT NULL,
    limit_amount NUMERIC,
    retired BOOLEAN,
    recurring_interval TEXT,
    PRIMARY KEY (budget_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX budget_periods_open ON budget_periods (budget_id) WHERE valid_to IS NULL;
COMMENT ON TABLE budget_periods IS 'What was true of a budget, and when: one row per budget and period in which nothing of it changed.';
COMMENT ON COLUMN budget_periods.budget_id IS 'The budget.';
COMMENT ON COLUMN budget_periods.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN budget_periods.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';
COMMENT ON COLUMN budget_periods.name IS 'Name.';
COMMENT ON COLUMN budget_periods.limit_amount IS 'What could be spent in its current period, in US dollars; NULL if its record gave no limit.';
COMMENT ON COLUMN budget_periods.retired IS 'Whether it was used no more.';
COMMENT ON COLUMN budget_periods.recurring_interval IS 'How often it began anew, such as MONTHLY.';

CREATE TABLE card_periods (
    card_id TEXT COLLATE "C" NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    user_id TEXT COLLATE "C",
    agent_id BIGINT,
    budget_id TEXT COLLATE "C",
    current_limit NUMERIC,
    valid_thru TEXT,
    PRIMARY KEY (card_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX card_periods_open ON card_periods (card_id) WHERE valid_to IS NULL;
CREATE INDEX card_periods_agent ON card_periods (agent_id);
COMMENT ON TABLE card_periods IS 'What was true of a card, and when: one row per card and period in which nothing of it changed.';
COMMENT ON COLUMN card_periods.card_id IS 'The card.';
COMMENT ON COLUMN card_periods.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN card_periods.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';
COMMENT ON COLUMN card_periods.status IS 'ACTIVATED, NOT_ACTIVATED, FROZEN or DELETED, or another value as it came.';
COMMENT ON COLUMN card_periods.type IS 'PHYSICAL, VIRTUAL_MEMBER or VIRTUAL_VENDOR, or another value as it came.';
COMMENT ON COLUMN card_periods.user_id IS 'Id of the holder; the uuid if the record gave no id.';
COMMENT ON COLUMN card_periods.agent_id IS 'The agent who is that holder, as far as is known today; see card_holders.';
COMMENT ON COLUMN card_periods.budget_id IS 'Budget that its record named, known or not.';
COMMENT ON COLUMN card_periods.current_limit IS 'Limit of its current period, in US dollars.';
COMMENT ON COLUMN card_periods.valid_thru IS 'Month and year in which it ends, such as 01/32.';

CREATE TABLE card_versions (
    card_id TEXT COLLATE "C" NOT NULL,
    valid_from DATE NOT NULL,
    valid_to DATE,
    ordered_time TIMESTAMPTZ,
    PRIMARY KEY (card_id, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX card_versions_open ON card_versions (card_id) WHERE valid_to IS NULL;
COMMENT ON TABLE card_versions IS 'Which version of a card was the newest, and when: a day with an older one does not change card_periods.';
COMMENT ON COLUMN card_versions.card_id IS 'The card.';
COMMENT ON COLUMN card_versions.valid_from IS 'Sync date from which the row holds.';
COMMENT ON COLUMN card_versions.valid_to IS 'Sync date from which it holds no longer; NULL: it still holds.';
COMMENT ON COLUMN card_versions.ordered_time IS 'The version; see cards.ordered_time.';

CREATE UNLOGGED TABLE stg_agent_role_sides (
    stated_by TEXT NOT NULL,
    id BIGINT,
    says TEXT NOT NULL
);
COMMENT ON TABLE stg_agent_role_sides IS
'Who says what of role assignments today: the agents that do not state all of theirs, and every role that is named.';
COMMENT ON COLUMN stg_agent_role_sides.stated_by IS 'agent or role.';
COMMENT ON COLUMN stg_agent_role_sides.id IS 'The agent or role; NULL: every other one.';
COMMENT ON COLUMN stg_agent_role_sides.says IS 'all: its list has all there are; nothing: what it stated last still holds; unsure: so does what the other side takes back; gone: the day does not contain the agent.';

-- What the tables of history knew becomes periods. What nobody wrote down, such as an earlier name, is not known.
INSERT INTO published_dates (pipeline, sync_date, sync_day, source, run_id, is_complete)
SELECT DISTINCT ON (done.pipeline, run.sync_date)
    done.pipeline, run.sync_date, run.sync_day, CASE WHEN run.sync_day = 'tran' THEN 'tran' ELSE 'api' END, run.run_id,
    true
FROM sync_runs AS run
JOIN sync_run_tables AS done ON done.run_id = run.run_id
WHERE run.status = 'succeeded'
ORDER BY done.pipeline ASC, run.sync_date ASC, run.sync_day = 'tran' ASC, run.run_id DESC;

INSERT INTO published_dates (pipeline, sync_date, sync_day, source, is_complete)
SELECT watermark.pipeline, watermark.sync_date, watermark.sync_date::TEXT, 'api', true
FROM sync_watermarks AS watermark
WHERE watermark.sync_date IS NOT NULL
UNION
SELECT 'agents', history.sync_date, history.sync_date::TEXT, 'api', true FROM agent_status_history AS history
UNION
SELECT 'agent_roles', history.sync_date, history.sync_date::TEXT, 'api', true FROM agent_role_history AS history
ON CONFLICT (pipeline, sync_date) DO NOTHING;

INSERT INTO agent_periods (
    agent_id, valid_from, valid_to, is_active, email, name, job_title, language, mobile, phone, time_zone,
    org_agent_id, ticket_scope
)
SELECT
    changed.agent_id, changed.sync_date,
    lead(changed.sync_date) OVER (PARTITION BY changed.agent_id ORDER BY changed.sync_date),
    changed.is_active, agent.email, agent.name, agent.job_title, agent.language, agent.mobile, agent.phone,
    agent.time_zone, details.org_agent_id, details.ticket_scope
FROM (
    SELECT
        history.agent_id, history.sync_date, history.is_active,
        lag(history.is_active) OVER (PARTITION BY history.agent_id ORDER BY history.sync_date) AS before
    FROM agent_status_history AS history
) AS changed
JOIN agents AS agent ON agent.agent_id = changed.agent_id
LEFT JOIN agent_details AS details ON details.agent_id = changed.agent_id
WHERE changed.is_active IS DISTINCT FROM changed.before
ORDER BY changed.agent_id, changed.sync_date;

-- Of an agent that is gone, no day since has told the values.
INSERT INTO silent_periods (subject, id, valid_from)
SELECT subject.name, period.agent_id::TEXT, period.valid_from
FROM agent_periods AS period
CROSS JOIN (VALUES ('agents'), ('agent_details'), ('agent_groups'), ('gone_agents')) AS subject (name)
JOIN agents AS agent ON agent.agent_id = period.agent_id
WHERE period.valid_to IS NULL AND NOT period.is_active AND agent.as_of < period.valid_from;

INSERT INTO agent_group_periods (agent_id, group_id, valid_from)
SELECT membership.agent_id, membership.group_id, agent.as_of
FROM agent_group_membership AS membership
JOIN agents AS agent ON agent.agent_id = membership.agent_id;

INSERT INTO role_dates (role_id, known_since)
SELECT
    role.role_id,
    least(
        (SELECT min(published.sync_date) FROM published_dates AS published WHERE published.pipeline = 'roles'),
        (SELECT min(history.sync_date) FROM agent_role_history AS history WHERE history.role_id = role.role_id)
    )
FROM roles AS role;

INSERT INTO agent_role_periods (agent_id, role_id, valid_from, valid_to)
SELECT changed.agent_id, changed.role_id, changed.sync_date, changed.until
FROM (
    SELECT
        history.agent_id, history.role_id, history.action, history.sync_date,
        lead(history.sync_date) OVER pair AS until,
        lag(history.action) OVER pair AS before
    FROM agent_role_history AS history
    WINDOW pair AS (PARTITION BY history.agent_id, history.role_id ORDER BY history.sync_date, history.id)
) AS changed
WHERE changed.action = 'assigned' AND (changed.until IS NULL OR changed.until > changed.sync_date);

INSERT INTO agent_role_periods_by_agent (agent_id, role_id, valid_from, valid_to)
SELECT period.agent_id, period.role_id, period.valid_from, period.valid_to
FROM agent_role_periods AS period
JOIN agent_role_mapping AS mapping ON mapping.agent_id = period.agent_id AND mapping.role_id = period.role_id
WHERE mapping.stated_by_agent OR NOT mapping.stated_by_role;

INSERT INTO agent_role_periods_by_role (role_id, agent_id, valid_from, valid_to)
SELECT period.role_id, period.agent_id, period.valid_from, period.valid_to
FROM agent_role_periods AS period
JOIN agent_role_mapping AS mapping ON mapping.agent_id = period.agent_id AND mapping.role_id = period.role_id
WHERE mapping.stated_by_role;

INSERT INTO agent_role_periods_by_agent (agent_id, role_id, valid_from)
SELECT waiting.agent_id, waiting.role_id, watermark.sync_date
FROM unlinked_agent_roles AS waiting
JOIN sync_watermarks AS watermark ON watermark.pipeline = 'agent_roles'
WHERE waiting.stated_by_agent;

INSERT INTO agent_role_periods_by_role (role_id, agent_id, valid_from)
SELECT waiting.role_id, waiting.agent_id, watermark.sync_date
FROM unlinked_agent_roles AS waiting
JOIN sync_watermarks AS watermark ON watermark.pipeline = 'agent_roles'
WHERE waiting.stated_by_role;

INSERT INTO group_periods (group_id, valid_from, name, parent_group_id, inactive)
SELECT one.group_id, watermark.sync_date, one.name, one.source_parent_group_id, one.inactive
FROM groups AS one
JOIN sync_watermarks AS watermark ON watermark.pipeline = 'groups';

INSERT INTO group_member_periods (group_id, agent_id, valid_from)
SELECT member.group_id, member.agent_id, watermark.sync_date
FROM (
    SELECT membership.group_id, membership.agent_id FROM group_membership AS membership
    UNION
    SELECT waiting.group_id, waiting.agent_id FROM unlinked_group_members AS waiting
) AS member
JOIN sync_watermarks AS watermark ON watermark.pipeline = 'groups';

INSERT INTO budget_periods (budget_id, valid_from, name, limit_amount, retired, recurring_interval)
SELECT budget.budget_id, budget.as_of, budget.name, budget.limit_amount, budget.retired, budget.recurring_interval
FROM budgets AS budget;

INSERT INTO card_periods (
    card_id, valid_from, status, type, user_id, agent_id, budget_id, current_limit, valid_thru
)
SELECT
    card.card_id, card.as_of, card.status, card.type, coalesce(card.user_id, card.user_uuid), card.agent_id,
    card.source_budget_id, card.current_limit, card.valid_thru
FROM cards AS card;

INSERT INTO card_versions (card_id, valid_from, ordered_time)
SELECT card.card_id, card.as_of, card.ordered_time FROM cards AS card;

-- The two become views of the periods. What other views ask of them is made anew with them.
DROP VIEW IF EXISTS guarded_changes, guarded_now;
DROP TABLE agent_status_history, agent_role_history;

UPDATE agent_role_mapping SET
    assigned_at = newest.valid_from::TIMESTAMP AT TIME ZONE 'UTC',
    removed_at = newest.valid_to::TIMESTAMP AT TIME ZONE 'UTC'
FROM (
    SELECT DISTINCT ON (period.agent_id, period.role_id)
        period.agent_id, period.role_id, period.valid_from, period.valid_to
    FROM agent_role_periods AS period
    ORDER BY period.agent_id ASC, period.role_id ASC, period.valid_from DESC
) AS newest
WHERE
    agent_role_mapping.agent_id = newest.agent_id
    AND agent_role_mapping.role_id = newest.role_id
    AND (agent_role_mapping.status = 'removed') = (newest.valid_to IS NOT NULL);

-- migrate:down

CREATE TABLE agent_status_history (
    agent_id BIGINT NOT NULL REFERENCES agents,
    sync_date DATE NOT NULL,
    is_active BOOLEAN NOT NULL,
    PRIMARY KEY (sync_date, agent_id)
);
INSERT INTO agent_status_history (agent_id, sync_date, is_active)
SELECT period.agent_id, published.sync_date, period.is_active
FROM published_dates AS published
JOIN agent_periods AS period
    ON
        period.valid_from <= published.sync_date
        AND (period.valid_to IS NULL OR period.valid_to > published.sync_date)
WHERE published.pipeline = 'agents';

CREATE TABLE agent_role_history (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    agent_id BIGINT NOT NULL,
    role_id BIGINT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('assigned', 'removed')),
    action_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    sync_date DATE NOT NULL,
    sync_day TEXT NOT NULL
);
CREATE INDEX agent_role_history_agent ON agent_role_history (agent_id, role_id);
INSERT INTO agent_role_history (agent_id, role_id, action, action_at, sync_date, sync_day)
SELECT
    transition.agent_id, transition.role_id, transition.action,
    transition.sync_date::TIMESTAMP AT TIME ZONE 'UTC', transition.sync_date, transition.sync_date::TEXT
FROM (
    SELECT period.agent_id, period.role_id, 'assigned' AS action, period.valid_from AS sync_date
    FROM agent_role_periods AS period
    UNION ALL
    SELECT period.agent_id, period.role_id, 'removed', period.valid_to
    FROM agent_role_periods AS period
    WHERE period.valid_to IS NOT NULL
) AS transition
ORDER BY transition.sync_date, transition.agent_id, transition.role_id;

DROP TABLE stg_agent_role_sides, card_versions, card_periods, budget_periods, group_member_periods, group_periods;
DROP TABLE agent_role_periods, agent_role_periods_in_doubt, agent_role_periods_by_role, agent_role_periods_by_agent;
DROP TABLE role_dates;
DROP TABLE agent_group_periods, agent_periods, silent_periods, published_dates;
