-- What only the master list says of an agent.
SELECT
    -- columns of agent_details: {}
    agent_id, created_at, updated_at, org_agent_id, ticket_scope, signature, freshchat_agent, is_active, avatar,
    last_login_at
    -- end of columns
FROM agent_details_valid;
