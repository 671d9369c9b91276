-- An assignment is removed if no side states it any longer. Each side states it, says no, is silent, or is unsure.
--
-- The agent says no by a valid record whose role_ids do not have the role, or by being gone: in no folder, all of
-- which are complete. It is unsure if its record was rejected, may stand in an unreadable file, or is missing although
-- the roster lists it. Else it is silent: no folder, no key role_ids, or an agent that nobody has seen yet.
-- The role says no by a valid record without the agent, or by having none in a folder that has others. It is unsure if
-- its record was rejected or may stand in an unreadable file. Else it is silent.
--
-- What a side stated last stays known until it says something else. If either side is unsure, nothing is removed.
WITH said AS (
    SELECT agent_id, role_id, 1 AS by_agent, 0 AS by_role, source_file, record_index
    FROM agent_role_ids_valid AS own JOIN agent_sides AS agent USING (agent_id)
    WHERE NOT agent.is_rejected
    UNION ALL
    SELECT agent_id, role_id, 0, 1, source_file, record_index
    FROM admin_roles_agent_ids_valid JOIN role_sides AS role USING (role_id) WHERE NOT role.is_rejected
),

once AS (
    SELECT agent_id, role_id, max(by_agent) AS by_agent, max(by_role) AS by_role,
        max(source_file) AS source_file, max_by(record_index, source_file) AS record_index
    FROM said GROUP BY agent_id, role_id
),

stored AS (
    SELECT agent_id, role_id, by_agent, by_role FROM assigned
    UNION ALL
    SELECT agent_id, role_id, by_agent, by_role FROM waiting
),

details AS (
    SELECT found, complete FROM folders WHERE name = 'agent_details'
),

roster AS (
    SELECT found, complete FROM folders WHERE name = 'agents'
),

admin AS (
    SELECT complete, (SELECT count(*) FROM admin_roles_checked) AS records FROM folders WHERE name = 'admin_roles'
),

pairs AS (
    SELECT coalesce(once.agent_id, stored.agent_id) AS agent_id, coalesce(once.role_id, stored.role_id) AS role_id,
        once.agent_id IS NOT NULL AS is_said, once.source_file, once.record_index,
        once.by_agent AS says_agent, once.by_role AS says_role,
        coalesce(stored.by_agent, 0) AS agent_stated, coalesce(stored.by_role, 0) AS role_stated
    FROM once FULL JOIN stored ON stored.agent_id = once.agent_id AND stored.role_id = once.role_id
),

sides AS (
    SELECT pairs.*,
        CASE
            WHEN says_agent = 1 THEN 'yes'
            WHEN agent.is_rejected THEN 'unsure'
            WHEN agent.states_roles THEN 'no'
            WHEN agent.agent_id IS NULL AND (details.found OR roster.found) AND details.complete AND roster.complete
                THEN CASE WHEN known_agents.agent_id IS NULL THEN 'silent' ELSE 'gone' END
            WHEN details.found AND NOT coalesce(agent.is_in_master, false) THEN 'unsure'
            ELSE 'silent'
        END AS agent_says,
        CASE
            WHEN says_role = 1 THEN 'yes'
            WHEN role.is_rejected THEN 'unsure'
            WHEN role.states_agents THEN 'no'
            WHEN role.role_id IS NOT NULL THEN 'silent'
            WHEN NOT admin.complete THEN 'unsure'
            WHEN admin.records > 0 THEN 'no'
            ELSE 'silent'
        END AS role_says
    FROM pairs
    LEFT JOIN agent_sides AS agent ON agent.agent_id = pairs.agent_id
    LEFT JOIN known_agents ON known_agents.agent_id = pairs.agent_id
    LEFT JOIN role_sides AS role ON role.role_id = pairs.role_id
    CROSS JOIN details CROSS JOIN roster CROSS JOIN admin
),

next AS (
    SELECT *,
        CASE agent_says WHEN 'yes' THEN 1 WHEN 'no' THEN 0 WHEN 'gone' THEN 0 ELSE agent_stated END AS by_agent,
        CASE WHEN role_says = 'yes' THEN 1 WHEN role_says = 'no' OR agent_says = 'gone' THEN 0 ELSE role_stated END
            AS by_role
    FROM sides
)

SELECT agent_id, role_id, 'assigned' AS status, by_agent = 1 AS stated_by_agent, by_role = 1 AS stated_by_role,
    source_file, record_index, sync.sync_day, sync.source
FROM next CROSS JOIN sync
WHERE is_said OR (
    (by_agent = 1 OR by_role = 1 OR agent_says = 'unsure' OR role_says = 'unsure')
    AND (by_agent <> agent_stated OR by_role <> role_stated)
)
UNION ALL
SELECT agent_id, role_id, 'removed', agent_stated = 1, role_stated = 1, CAST(NULL AS VARCHAR), CAST(NULL AS BIGINT),
    sync.sync_day, sync.source
FROM next CROSS JOIN sync
WHERE NOT is_said AND by_agent = 0 AND by_role = 0 AND agent_says <> 'unsure' AND role_says <> 'unsure';
