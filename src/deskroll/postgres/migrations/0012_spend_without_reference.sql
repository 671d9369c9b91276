-- migrate:up

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

-- migrate:down

-- Nothing: the view is as good for what came before.
SELECT 1;
