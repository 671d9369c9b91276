-- The agents that the day names, and whether their records state roles.
--
-- A record that a rejected one may supersede counts only for an agent whose values come from no earlier date.
SELECT named.agent_id, is_in_master, states_role_ids AS states_roles,
    is_rejected AND (coalesce(known_agents.as_of < sync.sync_date, false) OR NOT is_valid) AS is_rejected
FROM named_agents AS named LEFT JOIN known_agents ON known_agents.agent_id = named.agent_id CROSS JOIN sync;
