-- migrate:up

CREATE OR REPLACE VIEW card_holder_keys AS
SELECT
    holder.user_id AS key,
    holder.agent_id,
    holder.user_name,
    holder.match
FROM card_holders AS holder
UNION ALL
(
    SELECT DISTINCT ON (holder.user_uuid)
        holder.user_uuid,
        holder.agent_id,
        holder.user_name,
        holder.match
    FROM card_holders AS holder
    WHERE
        holder.user_uuid IS NOT NULL
        AND NOT EXISTS (SELECT FROM card_holders AS other WHERE other.user_id = holder.user_uuid)
    ORDER BY holder.user_uuid, holder.user_id
);
COMMENT ON VIEW card_holder_keys IS 'The holders of cards by id and by uuid: a record may give only one of them.';
COMMENT ON COLUMN card_holder_keys.key IS 'Id or uuid of the holder.';
COMMENT ON COLUMN card_holder_keys.agent_id IS 'The agent; see card_holders.';
COMMENT ON COLUMN card_holder_keys.user_name IS 'Name of the holder.';
COMMENT ON COLUMN card_holder_keys.match IS 'How many agents the name fits; see card_holders.';

CREATE OR REPLACE VIEW card_transactions AS
SELECT
    spent.transaction_id,
    spent.transaction_type,
    spent.occurred_time,
    spent.merchant_name,
    spent.original_amount,
    spent.original_currency,
    spent.amount_usd,
    spent.card_id,
    card.name AS card_name,
    card.last_four,
    card.status AS card_status,
    spent.budget_id,
    budget.name AS budget_name,
    spent.user_id,
    coalesce(holder.user_name, spent.user_name) AS holder_name,
    spent.agent_id,
    agent.name AS agent_name,
    agent.email AS agent_email,
    agent.status AS agent_status
FROM transactions AS spent
LEFT JOIN cards AS card ON card.card_id = spent.card_id
LEFT JOIN budgets AS budget ON budget.budget_id = spent.budget_id
LEFT JOIN card_holder_keys AS holder ON holder.key = coalesce(spent.user_id, spent.user_uuid)
LEFT JOIN agents AS agent ON agent.agent_id = spent.agent_id;
COMMENT ON VIEW card_transactions IS 'Every transaction with its card, budget, holder and agent.';
COMMENT ON COLUMN card_transactions.transaction_id IS 'Id of the transaction.';
COMMENT ON COLUMN card_transactions.transaction_type IS 'AUTHORIZATION, CLEAR, DECLINE or OTHER.';
COMMENT ON COLUMN card_transactions.occurred_time IS 'When it happened.';
COMMENT ON COLUMN card_transactions.merchant_name IS 'Name of the merchant.';
COMMENT ON COLUMN card_transactions.original_amount IS 'Amount in the currency of the purchase.';
COMMENT ON COLUMN card_transactions.original_currency IS 'That currency.';
COMMENT ON COLUMN card_transactions.amount_usd IS 'Amount in US dollars.';
COMMENT ON COLUMN card_transactions.card_id IS 'The card.';
COMMENT ON COLUMN card_transactions.card_name IS 'Name of the card.';
COMMENT ON COLUMN card_transactions.last_four IS 'Last four digits of its number.';
COMMENT ON COLUMN card_transactions.card_status IS 'Status of the card now.';
COMMENT ON COLUMN card_transactions.budget_id IS 'The budget.';
COMMENT ON COLUMN card_transactions.budget_name IS 'Name of the budget.';
COMMENT ON COLUMN card_transactions.user_id IS 'Id of the holder in the spend API.';
COMMENT ON COLUMN card_transactions.holder_name IS 'Name of the holder, as the newest transaction gives it.';
COMMENT ON COLUMN card_transactions.agent_id IS 'The agent who is the holder.';
COMMENT ON COLUMN card_transactions.agent_name IS 'Name of the agent.';
COMMENT ON COLUMN card_transactions.agent_email IS 'E-mail address of the agent.';
COMMENT ON COLUMN card_transactions.agent_status IS 'active or inactive, now.';

CREATE OR REPLACE VIEW cards_of_inactive_agents AS
SELECT
    card.card_id,
    card.name AS card_name,
    card.last_four,
    card.status AS card_status,
    card.type AS card_type,
    card.current_limit,
    card.current_spent,
    budget.name AS budget_name,
    agent.agent_id,
    agent.name AS agent_name,
    agent.email AS agent_email,
    agent.updated_at AS agent_updated_at,
    last.occurred_time AS last_used_at
FROM cards AS card
JOIN agents AS agent ON agent.agent_id = card.agent_id
LEFT JOIN budgets AS budget ON budget.budget_id = card.budget_id
LEFT JOIN (
    SELECT used.card_id, max(used.occurred_time) AS occurred_time
    FROM transactions AS used
    WHERE deskroll_kind(used.transaction_type) IS DISTINCT FROM 'DECLINE'
    GROUP BY used.card_id
) AS last ON last.card_id = card.card_id
WHERE agent.deactivated AND card.status NOT IN ('FROZEN', 'DELETED');
COMMENT ON VIEW cards_of_inactive_agents IS 'Cards that can still be used, and whose holder is an agent who is gone: somebody may want to freeze them.';
COMMENT ON COLUMN cards_of_inactive_agents.card_id IS 'The card.';
COMMENT ON COLUMN cards_of_inactive_agents.card_name IS 'Its name.';
COMMENT ON COLUMN cards_of_inactive_agents.last_four IS 'Last four digits of its number.';
COMMENT ON COLUMN cards_of_inactive_agents.card_status IS 'Its status: any but FROZEN and DELETED.';
COMMENT ON COLUMN cards_of_inactive_agents.card_type IS 'Its type.';
COMMENT ON COLUMN cards_of_inactive_agents.current_limit IS 'What may be spent with it in the current period.';
COMMENT ON COLUMN cards_of_inactive_agents.current_spent IS 'What was spent in it.';
COMMENT ON COLUMN cards_of_inactive_agents.budget_name IS 'Name of its budget.';
COMMENT ON COLUMN cards_of_inactive_agents.agent_id IS 'The agent.';
COMMENT ON COLUMN cards_of_inactive_agents.agent_name IS 'Name of the agent.';
COMMENT ON COLUMN cards_of_inactive_agents.agent_email IS 'E-mail address of the agent.';
COMMENT ON COLUMN cards_of_inactive_agents.agent_updated_at IS 'When the agent''s record last changed or, for a missing agent, when it was found missing.';
COMMENT ON COLUMN cards_of_inactive_agents.last_used_at IS 'When the card was last used, declined attempts left out.';

-- A card that was never used has no holder whose name is known: only transactions give names.
CREATE OR REPLACE VIEW cards_without_known_holder AS
SELECT
    card.card_id,
    card.name AS card_name,
    card.last_four,
    card.status AS card_status,
    card.type AS card_type,
    card.current_limit,
    budget.name AS budget_name,
    coalesce(card.user_id, card.user_uuid) AS user_id,
    coalesce(holder.user_name, by_uuid.user_name) AS holder_name,
    CASE coalesce(holder.match, by_uuid.match)
        WHEN 'none' THEN 'no agent has the name'
        WHEN 'several' THEN 'several active agents have the name'
        ELSE 'never used'
    END AS reason
FROM cards AS card
LEFT JOIN budgets AS budget ON budget.budget_id = card.budget_id
LEFT JOIN card_holder_keys AS holder ON holder.key = card.user_id
LEFT JOIN card_holder_keys AS by_uuid ON by_uuid.key = card.user_uuid
WHERE card.agent_id IS NULL AND card.status NOT IN ('FROZEN', 'DELETED');
COMMENT ON VIEW cards_without_known_holder IS 'Cards that can be used, and of which nobody knows whether the holder has left.';
COMMENT ON COLUMN cards_without_known_holder.card_id IS 'The card.';
COMMENT ON COLUMN cards_without_known_holder.card_name IS 'Its name.';
COMMENT ON COLUMN cards_without_known_holder.last_four IS 'Last four digits of its number.';
COMMENT ON COLUMN cards_without_known_holder.card_status IS 'Its status: any but FROZEN and DELETED.';
COMMENT ON COLUMN cards_without_known_holder.card_type IS 'Its type.';
COMMENT ON COLUMN cards_without_known_holder.current_limit IS 'What may be spent with it in the current period.';
COMMENT ON COLUMN cards_without_known_holder.budget_name IS 'Name of its budget.';
COMMENT ON COLUMN cards_without_known_holder.user_id IS 'Id of the holder in the spend API; the uuid if the record gives no id.';
COMMENT ON COLUMN cards_without_known_holder.holder_name IS 'Name of the holder, as the newest transaction gives it.';
COMMENT ON COLUMN cards_without_known_holder.reason IS 'Why no agent is known: no transaction has named the holder, or the name fits no agent, or several.';

-- migrate:down

DROP VIEW cards_without_known_holder, cards_of_inactive_agents, card_transactions, card_holder_keys;
