-- Carry today's agents from staging into agents and its dependent tables, and mark those that are gone.
--
-- By hand, after `deskroll stage DATA --day day1 --only agents`, in one transaction:
--     deskroll sql agents | psql "$(deskroll db url)"
-- or  psql -1 -v ON_ERROR_STOP=1 -f 010_upsert_agents.sql
-- It goes by what was staged; SET deskroll.sync_day, deskroll.sync_date or deskroll.source before it to overrule that.

SELECT deskroll_begin('agents'::TEXT);

SELECT deskroll_detach_keys(
    VARIADIC ARRAY[
        'agents', 'agent_details', 'agent_availability', 'agent_group_membership', 'agent_names', 'agent_periods',
        'agent_group_periods'
    ]::REGCLASS[]
);

-- What changes, decided once: one row per agent and change. What moves with mere activity is not told.
TRUNCATE stg_agent_changes;

INSERT INTO stg_agent_changes (agent_id, change, deactivated)
SELECT
    today.agent_id,
    CASE
        WHEN agent.agent_id IS NULL THEN 'added'
        WHEN next.deactivated AND NOT agent.deactivated THEN 'deactivated'
        WHEN agent.deactivated AND NOT next.deactivated THEN 'reactivated'
        WHEN ((
            -- columns of agents but agent_id, available, deactivated, last_active_at, updated_at: today.{}
            today.email, today.name, today.job_title, today.language, today.mobile, today.phone, today.time_zone,
            today.focus_mode, today.agent_operational_status, today.created_at
            -- end of columns
        ) IS DISTINCT FROM (
            -- columns of agents but agent_id, available, deactivated, last_active_at, updated_at: agent.{}
            agent.email, agent.name, agent.job_title, agent.language, agent.mobile, agent.phone, agent.time_zone,
            agent.focus_mode, agent.agent_operational_status, agent.created_at
            -- end of columns
        )) THEN 'changed'
        ELSE 'activity'
    END,
    next.deactivated
FROM sync_context AS context
CROSS JOIN stg_agents AS today
LEFT JOIN agents AS agent ON agent.agent_id = today.agent_id
CROSS JOIN
    LATERAL (
        SELECT
            CASE
                -- Never seen before: a backfill does not know what became of the agent since.
                WHEN agent.agent_id IS NULL THEN context.is_backfill OR coalesce(today.deactivated, true)
                ELSE coalesce(today.deactivated, agent.deactivated)
            END AS deactivated
    ) AS next
WHERE
    CASE
        WHEN agent.agent_id IS NULL THEN today.email IS NOT NULL
        WHEN context.is_backfill THEN false
        WHEN today.is_rejected THEN next.deactivated <> agent.deactivated
        ELSE (
            -- columns of agents but agent_id, deactivated: today.{}
            today.email, today.name, today.job_title, today.language, today.mobile, today.phone, today.time_zone,
            today.available, today.focus_mode, today.agent_operational_status, today.last_active_at,
            today.created_at, today.updated_at,
            -- end of columns
            next.deactivated
        ) IS DISTINCT FROM (
            -- columns of agents but agent_id, deactivated: agent.{}
            agent.email, agent.name, agent.job_title, agent.language, agent.mobile, agent.phone, agent.time_zone,
            agent.available, agent.focus_mode, agent.agent_operational_status, agent.last_active_at,
            agent.created_at, agent.updated_at,
            -- end of columns
            agent.deactivated
        )
    END;

INSERT INTO stg_agent_changes (agent_id, change, deactivated)
SELECT
    agent.agent_id,
    CASE WHEN context.is_complete THEN 'missing' ELSE 'held back' END,
    context.is_complete
FROM sync_context AS context
CROSS JOIN agents AS agent
LEFT JOIN stg_agents AS today ON today.agent_id = agent.agent_id
WHERE
    NOT context.is_backfill
    AND NOT agent.deactivated
    AND (
        today.agent_id IS NULL
        -- The master list has the agent, and an incomplete roster does not.
        OR today.deactivated IS NULL
        AND EXISTS (
            SELECT FROM stg_sync_sources AS roster
            WHERE roster.pipeline = 'agents' AND roster.source = 'agents' AND roster.found
        )
    );

INSERT INTO stg_agent_changes (agent_id, change, deactivated)
SELECT agent.agent_id, 'stale', coalesce(today.deactivated, agent.deactivated)
FROM sync_context AS context
CROSS JOIN stg_agents AS today
JOIN agents AS agent ON agent.agent_id = today.agent_id
WHERE NOT context.is_backfill AND today.is_rejected;

-- For the guards: how it was before the date. A first load changes nothing.
INSERT INTO sync_date_changes (guarded, id, pipeline, sync_date, was_there)
SELECT
    state.guarded, change.agent_id, context.pipeline, context.sync_date,
    CASE state.guarded
        WHEN 'active agents' THEN change.change IN ('deactivated', 'missing')
        WHEN 'inactive agents' THEN change.change = 'reactivated'
        ELSE change.change <> 'added'
    END
FROM sync_context AS context
CROSS JOIN stg_agent_changes AS change
CROSS JOIN (VALUES ('agents'), ('active agents'), ('inactive agents')) AS state (guarded)
WHERE
    NOT context.is_backfill
    AND change.change IN ('added', 'deactivated', 'missing', 'reactivated')
    AND EXISTS (SELECT FROM agents)
ON CONFLICT (guarded, id, other_id) DO NOTHING;

INSERT INTO agents (
    -- columns of agents but deactivated: {}
    agent_id, email, name, job_title, language, mobile, phone, time_zone, available, focus_mode,
    agent_operational_status, last_active_at, created_at, updated_at,
    -- end of columns
    deactivated, status, as_of, sync_day, source, ingested_at
)
SELECT
    -- columns of agents but deactivated: today.{}
    today.agent_id, today.email, today.name, today.job_title, today.language, today.mobile, today.phone,
    today.time_zone, today.available, today.focus_mode, today.agent_operational_status, today.last_active_at,
    today.created_at, today.updated_at,
    -- end of columns
    change.deactivated, CASE WHEN change.deactivated THEN 'inactive' ELSE 'active' END,
    context.sync_date, context.sync_day, context.source, now()
FROM sync_context AS context
CROSS JOIN stg_agent_changes AS change
JOIN stg_agents AS today ON today.agent_id = change.agent_id
WHERE change.change = 'added'
ORDER BY today.agent_id;

UPDATE agents SET
    -- columns of agents but agent_id, deactivated: {} = today.{}
    email = today.email,
    name = today.name,
    job_title = today.job_title,
    language = today.language,
    mobile = today.mobile,
    phone = today.phone,
    time_zone = today.time_zone,
    available = today.available,
    focus_mode = today.focus_mode,
    agent_operational_status = today.agent_operational_status,
    last_active_at = today.last_active_at,
    created_at = today.created_at,
    updated_at = today.updated_at,
    -- end of columns
    deactivated = change.deactivated,
    status = CASE WHEN change.deactivated THEN 'inactive' ELSE 'active' END,
    as_of = context.sync_date,
    sync_day = context.sync_day,
    source = context.source,
    ingested_at = now()
FROM sync_context AS context
CROSS JOIN stg_agent_changes AS change
JOIN stg_agents AS today ON today.agent_id = change.agent_id
WHERE
    change.change IN ('changed', 'deactivated', 'reactivated', 'activity')
    AND NOT today.is_rejected
    AND agents.agent_id = change.agent_id;

-- Values that were found again as they are stored are those of today too.
UPDATE agents SET as_of = context.sync_date
FROM sync_context AS context
CROSS JOIN stg_agents AS today
WHERE
    NOT context.is_backfill
    AND NOT today.is_rejected
    AND agents.agent_id = today.agent_id
    AND agents.as_of <> context.sync_date;

-- The status alone, of an agent that is missing or whose record is in quarantine.
UPDATE agents SET
    deactivated = change.deactivated,
    status = CASE WHEN change.deactivated THEN 'inactive' ELSE 'active' END,
    updated_at = now(),
    sync_day = context.sync_day,
    source = context.source,
    ingested_at = now()
FROM sync_context AS context
CROSS JOIN stg_agent_changes AS change
LEFT JOIN stg_agents AS today ON today.agent_id = change.agent_id
WHERE
    (change.change = 'missing' OR change.change IN ('deactivated', 'reactivated') AND today.is_rejected)
    AND agents.agent_id = change.agent_id;

-- What else is stored of an agent follows its record: all but a list that the record does not have, and nothing if the
-- record is in quarantine.
CREATE TEMP TABLE stale_agents AS
SELECT change.agent_id FROM stg_agent_changes AS change WHERE change.change = 'stale';

ANALYZE stale_agents;

UPDATE agent_details SET
    -- columns of agent_details but agent_id: {} = today.{}
    created_at = today.created_at,
    updated_at = today.updated_at,
    org_agent_id = today.org_agent_id,
    ticket_scope = today.ticket_scope,
    signature = today.signature,
    freshchat_agent = today.freshchat_agent,
    is_active = today.is_active,
    avatar = today.avatar,
    last_login_at = today.last_login_at
    -- end of columns
FROM sync_context AS context
CROSS JOIN stg_agent_details AS today
WHERE
    NOT context.is_backfill
    AND agent_details.agent_id = today.agent_id
    AND today.agent_id NOT IN (SELECT stale.agent_id FROM stale_agents AS stale)
    AND (
        -- columns of agent_details but agent_id: today.{}
        today.created_at, today.updated_at, today.org_agent_id, today.ticket_scope, today.signature,
        today.freshchat_agent, today.is_active, today.avatar, today.last_login_at
        -- end of columns
    ) IS DISTINCT FROM (
        -- columns of agent_details but agent_id: agent_details.{}
        agent_details.created_at, agent_details.updated_at, agent_details.org_agent_id, agent_details.ticket_scope,
        agent_details.signature, agent_details.freshchat_agent, agent_details.is_active, agent_details.avatar,
        agent_details.last_login_at
        -- end of columns
    );

INSERT INTO agent_details (
    -- columns of agent_details: {}
    agent_id, created_at, updated_at, org_agent_id, ticket_scope, signature, freshchat_agent, is_active, avatar,
    last_login_at
    -- end of columns
)
SELECT
    -- columns of agent_details: today.{}
    today.agent_id, today.created_at, today.updated_at, today.org_agent_id, today.ticket_scope, today.signature,
    today.freshchat_agent, today.is_active, today.avatar, today.last_login_at
    -- end of columns
FROM sync_context AS context
CROSS JOIN stg_agent_details AS today
WHERE
    NOT context.is_backfill
    AND NOT EXISTS (SELECT FROM agent_details AS stored WHERE stored.agent_id = today.agent_id)
    AND today.agent_id NOT IN (SELECT stale.agent_id FROM stale_agents AS stale)
ORDER BY today.agent_id;

-- What is known is compared with what is said in one pass, and only what differs is touched.
CREATE TEMP TABLE agent_availability_changes AS
SELECT
    coalesce(today.agent_id, stored.agent_id) AS agent_id,
    coalesce(today.channel, stored.channel) AS channel,
    today.is_available,
    today.available_since,
    CASE
        WHEN stored.agent_id IS NULL THEN 'added'
        WHEN today.agent_id IS NULL THEN 'removed'
        ELSE 'changed'
    END AS change
FROM stg_agent_availability AS today
FULL JOIN agent_availability AS stored ON stored.agent_id = today.agent_id AND stored.channel = today.channel
WHERE
    NOT (SELECT context.is_backfill FROM sync_context AS context)
    AND coalesce(today.agent_id, stored.agent_id) NOT IN (SELECT stale.agent_id FROM stale_agents AS stale)
    AND CASE
        WHEN today.agent_id IS NULL
            THEN stored.agent_id IN (SELECT agent.agent_id FROM stg_agents AS agent WHERE agent.states_availability)
        WHEN today.is_rejected THEN false
        ELSE
            stored.agent_id IS NULL
            OR (today.is_available, today.available_since)
            IS DISTINCT FROM (stored.is_available, stored.available_since)
    END;

DELETE FROM agent_availability
USING agent_availability_changes AS change
WHERE
    change.change = 'removed'
    AND agent_availability.agent_id = change.agent_id
    AND agent_availability.channel = change.channel;

UPDATE agent_availability SET
    is_available = change.is_available,
    available_since = change.available_since
FROM agent_availability_changes AS change
WHERE
    change.change = 'changed'
    AND agent_availability.agent_id = change.agent_id
    AND agent_availability.channel = change.channel;

INSERT INTO agent_availability (agent_id, is_available, available_since, channel)
SELECT change.agent_id, change.is_available, change.available_since, change.channel
FROM agent_availability_changes AS change
WHERE change.change = 'added'
ORDER BY change.agent_id, change.channel;

DROP TABLE agent_availability_changes;

CREATE TEMP TABLE agent_group_membership_changes AS
SELECT
    coalesce(today.agent_id, stored.agent_id) AS agent_id,
    coalesce(today.group_id, stored.group_id) AS group_id,
    stored.agent_id IS NULL AS is_added
FROM stg_agent_group_membership AS today
FULL JOIN agent_group_membership AS stored ON stored.agent_id = today.agent_id AND stored.group_id = today.group_id
WHERE
    NOT (SELECT context.is_backfill FROM sync_context AS context)
    AND coalesce(today.agent_id, stored.agent_id) NOT IN (SELECT stale.agent_id FROM stale_agents AS stale)
    AND CASE
        WHEN today.agent_id IS NULL
            THEN stored.agent_id IN (SELECT agent.agent_id FROM stg_agents AS agent WHERE agent.states_groups)
        ELSE stored.agent_id IS NULL
    END;

INSERT INTO sync_date_changes (guarded, id, other_id, pipeline, sync_date, was_there)
SELECT
    'memberships of agents in groups', change.agent_id, change.group_id, context.pipeline, context.sync_date,
    NOT change.is_added
FROM sync_context AS context
CROSS JOIN agent_group_membership_changes AS change
WHERE EXISTS (SELECT FROM agent_group_membership)
ON CONFLICT (guarded, id, other_id) DO NOTHING;

DELETE FROM agent_group_membership
USING agent_group_membership_changes AS change
WHERE
    NOT change.is_added
    AND agent_group_membership.agent_id = change.agent_id
    AND agent_group_membership.group_id = change.group_id;

INSERT INTO agent_group_membership (agent_id, group_id)
SELECT change.agent_id, change.group_id
FROM agent_group_membership_changes AS change
WHERE change.is_added
ORDER BY change.agent_id, change.group_id;

DROP TABLE agent_group_membership_changes, stale_agents;

SELECT deskroll_track_agents();

-- A card stays with its holder when that agent gets another name, or a dummy e-mail.
INSERT INTO agent_names (agent_id, name, is_email)
WITH folded AS MATERIALIZED (
    SELECT today.agent_id, deskroll_fold(named.name) AS name, named.is_email
    FROM sync_context AS context
    CROSS JOIN stg_agents AS today
    CROSS JOIN LATERAL (VALUES (today.name, false), (today.email, true)) AS named (name, is_email)
    WHERE
        named.name IS NOT NULL
        AND (context.is_backfill OR today.agent_id IN (SELECT change.agent_id FROM stg_agent_changes AS change))
)

SELECT folded.agent_id, folded.name, folded.is_email
FROM folded
LEFT JOIN agent_names AS stored
    ON stored.agent_id = folded.agent_id AND stored.name = folded.name AND stored.is_email = folded.is_email
WHERE stored.agent_id IS NULL AND length(folded.name) BETWEEN 1 AND 500
ORDER BY folded.agent_id;

SELECT deskroll_attach_keys();

SELECT deskroll_replace_quarantine('agent_pipeline_errors'::REGCLASS, 'agent_id'::NAME);

SELECT deskroll_move_watermark();

UPDATE sync_watermarks SET roster_since = context.sync_date
FROM sync_context AS context
JOIN stg_sync_sources AS roster ON roster.pipeline = context.pipeline
WHERE
    sync_watermarks.pipeline = context.pipeline
    AND roster.source = 'agents'
    AND roster.found
    AND context.sync_date < coalesce(sync_watermarks.roster_since, 'infinity');

-- New agents get the roles and groups that waited for them, a group is inactive if nobody active is left in it, and a
-- card holder is the agent of the same name. A run works this out once, when it has published all.
SELECT
    deskroll_link_agent_roles(), deskroll_link_group_members(), deskroll_mark_inactive_groups(), deskroll_link_spend()
WHERE nullif(current_setting('deskroll.run_id', true), '') IS NULL;
