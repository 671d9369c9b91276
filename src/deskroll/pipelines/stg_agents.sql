-- One row per agent that the day names. `deactivated` is NULL if the day cannot tell: the agent is not on an incomplete
-- roster. If `is_rejected`, what is stored of the agent stays; the row has values for an agent that is not stored yet.
WITH record AS (
    SELECT
        -- columns of agents but deactivated: {}
        agent_id, email, name, job_title, language, mobile, phone, time_zone, available, focus_mode,
        agent_operational_status, last_active_at, created_at, updated_at
        -- end of columns
    FROM agent_details_valid
    UNION ALL
    SELECT
        -- columns of agents but deactivated: {}
        agent_id, email, name, job_title, language, mobile, phone, time_zone, available, focus_mode,
        agent_operational_status, last_active_at, created_at, updated_at
        -- end of columns
    FROM agents_valid ANTI JOIN agent_details_valid USING (agent_id)
),

roster AS (
    SELECT found AS is_found, complete AS is_complete FROM folders WHERE name = 'agents'
)

SELECT
    named.agent_id,
    -- columns of agents but agent_id, deactivated: record.{}
    record.email, record.name, record.job_title, record.language, record.mobile, record.phone, record.time_zone,
    record.available, record.focus_mode, record.agent_operational_status, record.last_active_at, record.created_at,
    record.updated_at,
    -- end of columns
    CASE
        WHEN named.says_deactivated THEN true
        WHEN named.is_listed OR (roster.is_complete AND NOT roster.is_found) THEN false
        WHEN roster.is_complete THEN true
    END AS deactivated,
    named.is_rejected,
    named.states_availability,
    named.states_group_ids AS states_groups,
    sync.sync_day,
    sync.source
FROM named_agents AS named
LEFT JOIN record ON record.agent_id = named.agent_id
CROSS JOIN roster
CROSS JOIN sync;
