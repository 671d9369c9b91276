-- migrate:up

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
LEFT JOIN card_holders AS holder ON holder.user_id = spent.user_id
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

-- An empty reference is none, and a transaction of no type is not pending.
-- An authorisation leads to the one that it takes back, if any; what settles it leads to it by an id or a reference.
CREATE OR REPLACE VIEW spend AS
WITH leads AS (
    SELECT
        one.transaction_id,
        coalesce(by_id.transaction_id, by_uuid.transaction_id, by_reference.transaction_id) AS authorization_id
    FROM transactions AS one
    LEFT JOIN transactions AS by_id
        ON by_id.transaction_id = one.original_auth_transaction_id AND by_id.transaction_type = 'AUTHORIZATION'
    LEFT JOIN (
        SELECT DISTINCT ON (found.transaction_uuid) found.transaction_uuid, found.transaction_id
        FROM transactions AS found
        WHERE found.transaction_type = 'AUTHORIZATION'
        ORDER BY found.transaction_uuid, found.occurred_time, found.transaction_id
    ) AS by_uuid ON by_uuid.transaction_uuid = one.original_auth_transaction_uuid
    LEFT JOIN (
        SELECT DISTINCT ON (found.clearing_reference) found.clearing_reference, found.transaction_id
        FROM transactions AS found
        WHERE found.transaction_type = 'AUTHORIZATION' AND found.clearing_reference <> ''
        ORDER BY found.clearing_reference, found.occurred_time, found.transaction_id
    ) AS by_reference ON by_reference.clearing_reference = one.clearing_reference
    WHERE one.transaction_type IN ('AUTHORIZATION', 'CLEAR')
),

settled AS (
    SELECT DISTINCT leads.authorization_id
    FROM leads
    JOIN transactions AS settling ON settling.transaction_id = leads.transaction_id
    JOIN transactions AS first ON first.transaction_id = leads.authorization_id
    WHERE settling.transaction_type = 'CLEAR' AND sign(settling.amount_usd) = sign(first.amount_usd)
)

SELECT
    one.transaction_id,
    (
        CASE
            WHEN one.transaction_type = 'CLEAR' AND sign(one.amount_usd) = sign(first.amount_usd)
                THEN first.occurred_time
            ELSE one.occurred_time
        END AT TIME ZONE 'UTC'
    )::DATE AS spent_on,
    one.amount_usd,
    coalesce(one.transaction_type = 'AUTHORIZATION', false) AS is_pending,
    one.merchant_name,
    one.card_id,
    one.budget_id,
    one.user_id,
    one.agent_id
FROM transactions AS one
LEFT JOIN leads ON leads.transaction_id = one.transaction_id
LEFT JOIN transactions AS first ON first.transaction_id = leads.authorization_id
LEFT JOIN settled ON settled.authorization_id = coalesce(leads.authorization_id, one.transaction_id)
WHERE
    one.transaction_type IS DISTINCT FROM 'DECLINE'
    AND (one.transaction_type IS DISTINCT FROM 'AUTHORIZATION' OR settled.authorization_id IS NULL);
COMMENT ON VIEW spend IS
'What was spent, each purchase once: settled amounts, and authorisations that nothing has settled yet; refunds and reversals are below zero.';
COMMENT ON COLUMN spend.transaction_id IS 'The transaction that counts.';
COMMENT ON COLUMN spend.spent_on IS 'Date of the purchase, in UTC: that of the authorisation where one was settled.';
COMMENT ON COLUMN spend.amount_usd IS 'Amount in US dollars.';
COMMENT ON COLUMN spend.is_pending IS 'Whether it is an authorisation that nothing has settled yet.';
COMMENT ON COLUMN spend.merchant_name IS 'Name of the merchant.';
COMMENT ON COLUMN spend.card_id IS 'The card.';
COMMENT ON COLUMN spend.budget_id IS 'The budget.';
COMMENT ON COLUMN spend.user_id IS 'Id of the holder in the spend API.';
COMMENT ON COLUMN spend.agent_id IS 'The agent who spent it.';

CREATE OR REPLACE VIEW spend_by_month AS
SELECT
    date_trunc('month', spend.spent_on::TIMESTAMP)::DATE AS month,
    spend.budget_id,
    budget.name AS budget_name,
    spend.user_id,
    holder.user_name AS holder_name,
    spend.agent_id,
    count(*) AS transactions,
    sum(spend.amount_usd) AS spent_usd,
    coalesce(sum(spend.amount_usd) FILTER (WHERE spend.is_pending), 0) AS pending_usd,
    coalesce(sum(spend.amount_usd) FILTER (WHERE spend.amount_usd < 0), 0) AS refunded_usd
FROM spend
LEFT JOIN budgets AS budget ON budget.budget_id = spend.budget_id
LEFT JOIN card_holders AS holder ON holder.user_id = spend.user_id
GROUP BY month, spend.budget_id, budget.name, spend.user_id, holder.user_name, spend.agent_id;
COMMENT ON VIEW spend_by_month IS 'What was spent, one row per month, budget and holder, in US dollars, each purchase once.';
COMMENT ON COLUMN spend_by_month.month IS 'First day of the month.';
COMMENT ON COLUMN spend_by_month.budget_id IS 'The budget.';
COMMENT ON COLUMN spend_by_month.budget_name IS 'Name of the budget.';
COMMENT ON COLUMN spend_by_month.user_id IS 'Id of the holder in the spend API.';
COMMENT ON COLUMN spend_by_month.holder_name IS 'Name of the holder.';
COMMENT ON COLUMN spend_by_month.agent_id IS 'The agent who is the holder.';
COMMENT ON COLUMN spend_by_month.transactions IS 'How many transactions count.';
COMMENT ON COLUMN spend_by_month.spent_usd IS 'What was spent, less what came back.';
COMMENT ON COLUMN spend_by_month.pending_usd IS 'What of it has not been settled yet.';
COMMENT ON COLUMN spend_by_month.refunded_usd IS 'What of it came back: zero or below.';

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
    WHERE used.transaction_type IS DISTINCT FROM 'DECLINE'
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

-- migrate:down

DROP VIEW cards_of_inactive_agents, spend_by_month, spend, card_transactions;
