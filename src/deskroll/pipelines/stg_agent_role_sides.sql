-- Who says what of role assignments: the agents that do not state all of theirs, every role that is named, and all others.
WITH details AS (
    SELECT found, complete FROM folders WHERE name = 'agent_details'
),

roster AS (
    SELECT found, complete FROM folders WHERE name = 'agents'
),

admin AS (
    SELECT complete, (SELECT count(*) FROM admin_roles_checked) AS records FROM folders WHERE name = 'admin_roles'
)

SELECT 'agent' AS stated_by, agent_id AS id,
    CASE WHEN is_rejected OR (details.found AND NOT is_in_master AND NOT states_roles) THEN 'unsure' ELSE 'nothing' END AS says
FROM agent_sides CROSS JOIN details WHERE is_rejected OR NOT states_roles
UNION ALL
SELECT 'agent', known_agents.agent_id,
    CASE WHEN details.complete AND roster.complete THEN 'gone' WHEN details.found THEN 'unsure' ELSE 'nothing' END
FROM known_agents ANTI JOIN agent_sides USING (agent_id) CROSS JOIN details CROSS JOIN roster
WHERE details.found OR roster.found
UNION ALL
SELECT 'agent', CAST(NULL AS BIGINT), 'nothing'
FROM details CROSS JOIN roster WHERE NOT (details.found OR roster.found)
UNION ALL
SELECT 'role', role_id, CASE WHEN is_rejected THEN 'unsure' WHEN states_agents THEN 'all' ELSE 'nothing' END
FROM role_sides
UNION ALL
SELECT 'role', CAST(NULL AS BIGINT), CASE WHEN NOT complete THEN 'unsure' WHEN records > 0 THEN 'all' ELSE 'nothing' END
FROM admin;
