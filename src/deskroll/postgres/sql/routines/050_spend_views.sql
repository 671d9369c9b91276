-- migrate:up

-- An empty reference is none. A reference joins the records of one card of which neighbours are at most 45 days apart:
-- they all lead to the first of them.
CREATE OR REPLACE VIEW transaction_leads AS
WITH referenced AS (
    SELECT
        one.transaction_id,
        one.occurred_time,
        coalesce(one.source_card_id, one.card_uuid, '') AS card,
        one.clearing_reference,
        CASE
            WHEN one.occurred_time - lag(one.occurred_time) OVER neighbours <= INTERVAL '45 days' THEN 0
            ELSE 1
        END AS begins
    FROM transactions AS one
    WHERE one.clearing_reference <> '' AND deskroll_kind(one.transaction_type) IN ('AUTHORIZATION', 'CLEAR')
    WINDOW
        neighbours AS (
            PARTITION BY coalesce(one.source_card_id, one.card_uuid, ''), one.clearing_reference
            ORDER BY one.occurred_time, one.transaction_id
        )
),

runs AS (
    SELECT
        referenced.*,
        sum(referenced.begins) OVER (
            PARTITION BY referenced.card, referenced.clearing_reference
            ORDER BY referenced.occurred_time, referenced.transaction_id
        ) AS run
    FROM referenced
)

SELECT
    one.transaction_id,
    one.original_auth_transaction_id AS leads_to,
    false AS is_reference
FROM transactions AS one
WHERE one.original_auth_transaction_id <> ''
UNION ALL
SELECT
    one.transaction_id,
    coalesce(named.transaction_id, one.original_auth_transaction_uuid),
    false
FROM transactions AS one
LEFT JOIN transaction_uuids AS named ON named.transaction_uuid = one.original_auth_transaction_uuid
WHERE one.original_auth_transaction_uuid <> ''
UNION ALL
SELECT
    runs.transaction_id,
    first_value(runs.transaction_id) OVER (
        PARTITION BY runs.card, runs.clearing_reference, runs.run
        ORDER BY runs.occurred_time, runs.transaction_id
    ),
    true
FROM runs;
COMMENT ON VIEW transaction_leads IS 'Which transactions lead to which other: a row per link.';
COMMENT ON COLUMN transaction_leads.transaction_id IS 'The transaction.';
COMMENT ON COLUMN transaction_leads.leads_to IS 'The one that it settles or takes back, stored or not; for a common clearing_reference, the first that has it.';
COMMENT ON COLUMN transaction_leads.is_reference IS 'Whether it leads there by its clearing_reference.';

-- A purchase is all records that lead to one another. From where the links end all of it is reached; links that go in a
-- circle end nowhere, and are followed from each record.
CREATE OR REPLACE VIEW transaction_purchases AS
WITH RECURSIVE links AS (
    SELECT DISTINCT
        leads.transaction_id AS node,
        leads.leads_to AS other
    FROM transaction_leads AS leads
    WHERE leads.transaction_id <> leads.leads_to
),

neighbours AS (
    SELECT
        links.node,
        links.other
    FROM links
    UNION
    SELECT
        links.other AS node,
        links.node AS other
    FROM links
),

reached (seed, node) AS (
    SELECT
        links.other AS seed,
        links.other AS node
    FROM links
    WHERE NOT EXISTS (SELECT FROM links AS further WHERE further.node = links.other)
    UNION
    SELECT
        reached.seed,
        neighbours.other
    FROM reached
    JOIN neighbours ON neighbours.node = reached.node
),

circled (seed, node) AS (
    SELECT
        links.node AS seed,
        links.node
    FROM links
    WHERE NOT EXISTS (SELECT FROM reached WHERE reached.node = links.node)
    UNION
    SELECT
        circled.seed,
        neighbours.other
    FROM circled
    JOIN neighbours ON neighbours.node = circled.node
    WHERE neighbours.other > circled.seed
),

found AS (
    SELECT
        reached.seed,
        reached.node
    FROM reached
    UNION ALL
    SELECT
        circled.seed,
        circled.node
    FROM circled
)

SELECT
    found.node AS transaction_id,
    min(found.seed) AS purchase_id
FROM found
GROUP BY found.node;
COMMENT ON VIEW transaction_purchases IS 'The purchase of each transaction that is linked with others.';
COMMENT ON COLUMN transaction_purchases.transaction_id IS 'The transaction, stored or not.';
COMMENT ON COLUMN transaction_purchases.purchase_id IS 'Name of the purchase: one of its transactions.';

-- Of a purchase, what was settled counts and, until something of zero or more was settled, what was authorised. What
-- was settled below zero closes the authorisation below zero that it leads to: by an id, else the last before it that
-- has the same reference. A part of a purchase counts only if the purchase is not stored.
CREATE OR REPLACE VIEW spend_records AS
WITH counted AS (
    SELECT
        one.transaction_id,
        coalesce(purchase.purchase_id, one.transaction_id) AS purchase_id,
        deskroll_kind(one.transaction_type) AS kind,
        one.occurred_time,
        one.amount_usd,
        one.merchant_name,
        one.card_id,
        one.budget_id,
        coalesce(one.user_id, one.user_uuid) AS user_id,
        one.agent_id
    FROM transactions AS one
    LEFT JOIN transaction_purchases AS purchase ON purchase.transaction_id = one.transaction_id
    LEFT JOIN transaction_uuids AS named ON named.transaction_uuid = one.parent_transaction_uuid
    LEFT JOIN transactions AS parent
        ON parent.transaction_id = one.parent_transaction_id AND parent.transaction_id <> one.transaction_id
    LEFT JOIN transactions AS parent_by_uuid
        ON
            parent_by_uuid.transaction_id = coalesce(named.transaction_id, one.parent_transaction_uuid)
            AND parent_by_uuid.transaction_id <> one.transaction_id
    WHERE
        deskroll_kind(one.transaction_type) IN ('AUTHORIZATION', 'CLEAR')
        AND parent.transaction_id IS NULL
        AND parent_by_uuid.transaction_id IS NULL
),

purchases AS (
    SELECT
        counted.purchase_id,
        bool_or(counted.kind = 'CLEAR' AND counted.amount_usd >= 0) AS is_settled,
        min(counted.occurred_time) FILTER (WHERE counted.kind = 'AUTHORIZATION') AS first_authorized,
        max(counted.occurred_time) FILTER (WHERE counted.kind = 'AUTHORIZATION') AS last_authorized
    FROM counted
    GROUP BY counted.purchase_id
),

refunds AS (
    SELECT
        counted.transaction_id,
        counted.occurred_time
    FROM counted
    WHERE counted.kind = 'CLEAR' AND counted.amount_usd < 0
),

reversals AS (
    SELECT
        counted.transaction_id,
        counted.occurred_time
    FROM counted
    WHERE counted.kind = 'AUTHORIZATION' AND counted.amount_usd < 0
),

refunds_by_id AS (
    SELECT
        refund.transaction_id,
        reversal.transaction_id AS authorization_id,
        reversal.occurred_time
    FROM refunds AS refund
    JOIN transaction_leads AS leads ON leads.transaction_id = refund.transaction_id AND NOT leads.is_reference
    JOIN reversals AS reversal ON reversal.transaction_id = leads.leads_to
),

refunds_by_reference AS (
    SELECT DISTINCT ON (refund.transaction_id)
        refund.transaction_id,
        reversal.transaction_id AS authorization_id,
        reversal.occurred_time
    FROM refunds AS refund
    JOIN transaction_leads AS leads ON leads.transaction_id = refund.transaction_id AND leads.is_reference
    JOIN transaction_leads AS same ON same.leads_to = leads.leads_to AND same.is_reference
    JOIN reversals AS reversal ON reversal.transaction_id = same.transaction_id
    WHERE
        reversal.occurred_time <= refund.occurred_time
        AND NOT EXISTS (SELECT FROM refunds_by_id AS by_id WHERE by_id.transaction_id = refund.transaction_id)
    ORDER BY refund.transaction_id ASC, reversal.occurred_time DESC, reversal.transaction_id DESC
),

closed AS (
    SELECT * FROM refunds_by_id
    UNION ALL
    SELECT * FROM refunds_by_reference
),

authorized AS (
    SELECT
        closed.transaction_id,
        min(closed.occurred_time) AS occurred_time
    FROM closed
    GROUP BY closed.transaction_id
)

SELECT
    counted.transaction_id,
    counted.purchase_id,
    (
        CASE
            WHEN counted.amount_usd < 0 THEN coalesce(authorized.occurred_time, counted.occurred_time)
            ELSE coalesce(purchase.first_authorized, counted.occurred_time)
        END AT TIME ZONE 'UTC'
    )::DATE AS spent_on,
    counted.amount_usd,
    CASE
        WHEN counted.kind = 'CLEAR' THEN 'settled'
        WHEN watermark.sync_date - (purchase.last_authorized AT TIME ZONE 'UTC')::DATE > 45 THEN 'stale'
        ELSE 'pending'
    END AS state,
    counted.occurred_time,
    counted.merchant_name,
    counted.card_id,
    counted.budget_id,
    counted.user_id,
    counted.agent_id
FROM counted
JOIN purchases AS purchase ON purchase.purchase_id = counted.purchase_id
LEFT JOIN authorized ON authorized.transaction_id = counted.transaction_id
LEFT JOIN sync_watermarks AS watermark ON watermark.pipeline = 'transactions'
WHERE
    counted.kind = 'CLEAR'
    OR NOT purchase.is_settled
    AND NOT EXISTS (SELECT FROM closed WHERE closed.authorization_id = counted.transaction_id);
COMMENT ON VIEW spend_records IS 'The transactions that count: settled, pending, or authorised and never settled (stale).';
COMMENT ON COLUMN spend_records.transaction_id IS 'The transaction.';
COMMENT ON COLUMN spend_records.purchase_id IS 'Name of the purchase: one of its transactions, stored or not.';
COMMENT ON COLUMN spend_records.spent_on IS 'Date of the purchase, in UTC: that of its first authorisation; of what is below zero its own, or that of the authorisation that it settles.';
COMMENT ON COLUMN spend_records.amount_usd IS 'Amount in US dollars.';
COMMENT ON COLUMN spend_records.state IS 'settled; pending; stale: pending, and authorised more than 45 days before the newest date of transactions.';
COMMENT ON COLUMN spend_records.occurred_time IS 'When it happened.';
COMMENT ON COLUMN spend_records.merchant_name IS 'Name of the merchant.';
COMMENT ON COLUMN spend_records.card_id IS 'The card.';
COMMENT ON COLUMN spend_records.budget_id IS 'The budget.';
COMMENT ON COLUMN spend_records.user_id IS 'Id of the holder in the spend API; the uuid if the record gives no id.';
COMMENT ON COLUMN spend_records.agent_id IS 'The agent who spent it.';

CREATE OR REPLACE VIEW spend AS
SELECT
    counted.transaction_id,
    counted.purchase_id,
    counted.spent_on,
    counted.amount_usd,
    counted.state = 'pending' AS is_pending,
    counted.merchant_name,
    counted.card_id,
    counted.budget_id,
    counted.user_id,
    counted.agent_id
FROM spend_records AS counted
WHERE counted.state <> 'stale';
COMMENT ON VIEW spend IS
'What was spent, each purchase once: settled amounts, and what was authorised and is pending; refunds and reversals are below zero.';
COMMENT ON COLUMN spend.transaction_id IS 'The transaction that counts.';
COMMENT ON COLUMN spend.purchase_id IS 'Name of the purchase: one of its transactions, stored or not.';
COMMENT ON COLUMN spend.spent_on IS 'Date of the purchase, in UTC: that of its first authorisation; of what is below zero its own, or that of the authorisation that it settles.';
COMMENT ON COLUMN spend.amount_usd IS 'Amount in US dollars.';
COMMENT ON COLUMN spend.is_pending IS 'Whether it is an authorisation of a purchase that nothing has settled yet; the other rows are settled.';
COMMENT ON COLUMN spend.merchant_name IS 'Name of the merchant.';
COMMENT ON COLUMN spend.card_id IS 'The card.';
COMMENT ON COLUMN spend.budget_id IS 'The budget.';
COMMENT ON COLUMN spend.user_id IS 'Id of the holder in the spend API; the uuid if the record gives no id.';
COMMENT ON COLUMN spend.agent_id IS 'The agent who spent it.';

CREATE OR REPLACE VIEW stale_authorizations AS
SELECT
    counted.transaction_id,
    counted.purchase_id,
    counted.spent_on,
    counted.occurred_time,
    counted.amount_usd,
    counted.merchant_name,
    counted.card_id,
    counted.budget_id,
    counted.user_id,
    counted.agent_id
FROM spend_records AS counted
WHERE counted.state = 'stale';
COMMENT ON VIEW stale_authorizations IS 'What was authorised more than 45 days before the newest date of transactions, and never settled: it is in no sum of spend.';
COMMENT ON COLUMN stale_authorizations.transaction_id IS 'The authorisation.';
COMMENT ON COLUMN stale_authorizations.purchase_id IS 'Name of the purchase: one of its transactions, stored or not.';
COMMENT ON COLUMN stale_authorizations.spent_on IS 'Date of the purchase, in UTC.';
COMMENT ON COLUMN stale_authorizations.occurred_time IS 'When it was authorised.';
COMMENT ON COLUMN stale_authorizations.amount_usd IS 'Amount in US dollars.';
COMMENT ON COLUMN stale_authorizations.merchant_name IS 'Name of the merchant.';
COMMENT ON COLUMN stale_authorizations.card_id IS 'The card.';
COMMENT ON COLUMN stale_authorizations.budget_id IS 'The budget.';
COMMENT ON COLUMN stale_authorizations.user_id IS 'Id of the holder in the spend API; the uuid if the record gives no id.';
COMMENT ON COLUMN stale_authorizations.agent_id IS 'The agent who authorised it.';

CREATE OR REPLACE VIEW spend_by_month AS
SELECT
    date_trunc('month', counted.spent_on::TIMESTAMP)::DATE AS month,
    counted.budget_id,
    budget.name AS budget_name,
    counted.user_id,
    holder.user_name AS holder_name,
    counted.agent_id,
    count(*) FILTER (WHERE counted.state <> 'stale') AS transactions,
    coalesce(sum(counted.amount_usd) FILTER (WHERE counted.state = 'settled'), 0) AS settled_usd,
    coalesce(sum(counted.amount_usd) FILTER (WHERE counted.state = 'pending'), 0) AS pending_usd,
    coalesce(sum(counted.amount_usd) FILTER (WHERE counted.state = 'stale'), 0) AS stale_usd,
    coalesce(
        sum(counted.amount_usd) FILTER (WHERE counted.state = 'settled' AND counted.amount_usd < 0), 0
    ) AS refunded_of_settled_usd
FROM spend_records AS counted
LEFT JOIN budgets AS budget ON budget.budget_id = counted.budget_id
LEFT JOIN card_holder_keys AS holder ON holder.key = counted.user_id
GROUP BY month, counted.budget_id, budget.name, counted.user_id, holder.user_name, counted.agent_id;
COMMENT ON VIEW spend_by_month IS
'What was spent, one row per month, budget and holder, in US dollars, each purchase once: settled_usd plus pending_usd.';
COMMENT ON COLUMN spend_by_month.month IS 'First day of the month.';
COMMENT ON COLUMN spend_by_month.budget_id IS 'The budget.';
COMMENT ON COLUMN spend_by_month.budget_name IS 'Name of the budget.';
COMMENT ON COLUMN spend_by_month.user_id IS 'Id of the holder in the spend API; the uuid if no record gives the id.';
COMMENT ON COLUMN spend_by_month.holder_name IS 'Name of the holder.';
COMMENT ON COLUMN spend_by_month.agent_id IS 'The agent who is the holder.';
COMMENT ON COLUMN spend_by_month.transactions IS 'How many transactions are settled or pending.';
COMMENT ON COLUMN spend_by_month.settled_usd IS 'What was settled, less what came back.';
COMMENT ON COLUMN spend_by_month.pending_usd IS 'What was authorised and is not settled yet; no part of settled_usd.';
COMMENT ON COLUMN spend_by_month.stale_usd IS 'What was authorised, and not settled in 45 days; no part of the others.';
COMMENT ON COLUMN spend_by_month.refunded_of_settled_usd IS 'What came back, zero or below; settled_usd is less by this already.';

-- migrate:down

DROP VIEW spend_by_month, stale_authorizations, spend, spend_records, transaction_purchases, transaction_leads;
