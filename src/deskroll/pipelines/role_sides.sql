-- The roles that admin_roles/ names, and whether their records state agents.
SELECT coalesce(valid.role_id, bad.role_id) AS role_id, coalesce(valid.is_superseded, true) AS is_rejected,
    coalesce(starts_with(valid.agent_ids, '['), false) AS states_agents
FROM admin_roles_valid AS valid FULL JOIN admin_roles_rejected AS bad ON bad.role_id = valid.role_id;
