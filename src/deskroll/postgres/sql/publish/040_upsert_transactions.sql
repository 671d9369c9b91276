-- Carry today's transactions from staging into transactions, and the names of card holders into card_holders.
--
-- By hand, after `deskroll stage DATA --day day1 --only transactions`, in one transaction:
--     deskroll sql transactions | psql "$(deskroll db url)"

SELECT deskroll_begin('transactions'::TEXT);

UPDATE card_holders SET
    user_name = today.user_name,
    updated_time = today.updated_time
FROM stg_card_holders AS today
WHERE
    today.user_id = card_holders.user_id
    AND (coalesce(today.updated_time, '-infinity'), today.user_name COLLATE "C")
    > (coalesce(card_holders.updated_time, '-infinity'), card_holders.user_name COLLATE "C");

UPDATE card_holders SET user_uuid = today.user_uuid
FROM stg_card_holders AS today
WHERE today.user_id = card_holders.user_id AND today.user_uuid > coalesce(card_holders.user_uuid, '');

INSERT INTO card_holders (user_id, user_uuid, user_name, updated_time)
SELECT today.user_id, today.user_uuid, today.user_name, today.updated_time
FROM stg_card_holders AS today
WHERE NOT EXISTS (SELECT FROM card_holders AS stored WHERE stored.user_id = today.user_id)
ORDER BY today.user_id;

SELECT deskroll_detach_keys(VARIADIC ARRAY['transactions', 'transaction_uuids']::REGCLASS[]);

-- What has come with a uuid alone is stored under that. When a record says which id it has, it gets its id; if that is
-- stored too, because it has come with the id alone, the newer one of the two stays.
INSERT INTO transaction_uuids (transaction_uuid, transaction_id)
SELECT today.transaction_uuid, min(today.transaction_id)
FROM stg_transactions AS today
WHERE
    today.is_identified
    AND today.transaction_uuid IS NOT NULL
    AND NOT EXISTS (SELECT FROM transaction_uuids AS stored WHERE stored.transaction_uuid = today.transaction_uuid)
GROUP BY today.transaction_uuid;

CREATE TEMP TABLE transactions_identified AS
SELECT
    stored.transaction_id AS uuid,
    named.transaction_id,
    row_number() OVER (
        PARTITION BY named.transaction_id
        ORDER BY
            coalesce(stored.ordered_time, '-infinity') DESC,
            stored.source = 'api' DESC,
            stored.as_of DESC,
            stored.transaction_id ASC
    ) = 1
    AND (
        other.transaction_id IS NULL
        OR (coalesce(stored.ordered_time, '-infinity'), stored.source = 'api', stored.as_of)
        > (coalesce(other.ordered_time, '-infinity'), other.source = 'api', other.as_of)
    ) AS is_newest
FROM transactions AS stored
JOIN transaction_uuids AS named ON named.transaction_uuid = stored.transaction_id
LEFT JOIN transactions AS other ON other.transaction_id = named.transaction_id
WHERE NOT stored.is_identified AND named.transaction_id <> stored.transaction_id;

DELETE FROM transactions
USING transactions_identified AS identified
WHERE
    transactions.transaction_id
    = CASE WHEN identified.is_newest THEN identified.transaction_id ELSE identified.uuid END;

UPDATE transactions SET
    transaction_id = identified.transaction_id,
    is_identified = true,
    idempotency_key = deskroll_idempotency_key(
        identified.transaction_id, transactions.transaction_uuid, transactions.occurred_time,
        transactions.original_amount, transactions.original_currency
    ),
    sync_day = context.sync_day,
    ingested_at = now()
FROM sync_context AS context
CROSS JOIN transactions_identified AS identified
WHERE
    identified.is_newest
    AND transactions.transaction_id = identified.uuid;

-- Budgets and cards are published before: what waited for them is linked here, and what follows is linked as it comes.
SELECT deskroll_link_spend();

INSERT INTO stg_transaction_changes (transaction_id, change)
SELECT DISTINCT identified.transaction_id, 'identified'
FROM transactions_identified AS identified;

DROP TABLE transactions_identified;

-- Today's records that give a uuid alone, and the id that is known of it; of several records the newest counts.
CREATE TEMP TABLE transaction_aliases AS
WITH aliases AS (
    SELECT today.transaction_id AS staged_id, named.transaction_id
    FROM stg_transactions AS today
    JOIN transaction_uuids AS named ON named.transaction_uuid = today.transaction_id
    WHERE NOT today.is_identified
),

versions AS (
    SELECT aliases.staged_id, aliases.transaction_id FROM aliases
    UNION
    SELECT today.transaction_id AS staged_id, today.transaction_id
    FROM stg_transactions AS today
    WHERE today.transaction_id IN (SELECT aliases.transaction_id FROM aliases)
)

SELECT
    versions.staged_id,
    versions.transaction_id,
    row_number() OVER (
        PARTITION BY versions.transaction_id
        ORDER BY today.ordered_time DESC NULLS LAST, today.source_file DESC, today.record_index DESC
    ) = 1 AS is_newest
FROM versions
JOIN stg_transactions AS today ON today.transaction_id = versions.staged_id;

-- The newest version of a transaction wins, whichever day it came with; of the same version that of a sync day before
-- that of tran/, and then the newest date.
INSERT INTO stg_transaction_changes (transaction_id, change, staged_id, idempotency_key)
SELECT
    coalesce(alias.transaction_id, today.transaction_id),
    CASE WHEN stored.transaction_id IS NULL THEN 'added' ELSE 'changed' END,
    today.transaction_id,
    made.idempotency_key
FROM sync_context AS context
CROSS JOIN stg_transactions AS today
LEFT JOIN transaction_aliases AS alias ON alias.staged_id = today.transaction_id
LEFT JOIN transactions AS stored ON stored.transaction_id = coalesce(alias.transaction_id, today.transaction_id)
CROSS JOIN
    LATERAL (
        SELECT
            CASE
                WHEN alias.transaction_id IS NULL AND today.fx_source <> 'amount' THEN today.idempotency_key
                -- The engine knows neither that id nor how PostgreSQL writes the amount.
                ELSE deskroll_idempotency_key(
                    coalesce(alias.transaction_id, today.transaction_id), today.transaction_uuid,
                    today.occurred_time, today.original_amount, today.original_currency
                )
            END AS idempotency_key
    ) AS made
WHERE
    coalesce(alias.is_newest, true)
    AND (
        stored.transaction_id IS NULL
        OR NOT today.is_rejected
        AND (coalesce(today.ordered_time, '-infinity'), context.source = 'api', context.sync_date)
        >= (coalesce(stored.ordered_time, '-infinity'), stored.source = 'api', stored.as_of)
        AND (
            -- columns of transactions but transaction_id: today.{}
            today.transaction_uuid, today.transaction_type, today.occurred_time, today.updated_time, today.user_id,
            today.user_uuid, today.user_name, today.merchant_name, today.raw_merchant_name, today.source_card_id,
            today.card_uuid, today.source_budget_id, today.budget_uuid, today.original_currency, today.amount,
            today.original_auth_transaction_id, today.original_auth_transaction_uuid, today.clearing_reference,
            today.parent_transaction_id, today.parent_transaction_uuid,
            -- end of columns
            today.ordered_time, today.original_amount, today.amount_usd, today.exchange_rate, today.fx_source,
            made.idempotency_key, context.source
        ) IS DISTINCT FROM (
            -- columns of transactions but transaction_id: stored.{}
            stored.transaction_uuid, stored.transaction_type, stored.occurred_time, stored.updated_time,
            stored.user_id, stored.user_uuid, stored.user_name, stored.merchant_name, stored.raw_merchant_name,
            stored.source_card_id, stored.card_uuid, stored.source_budget_id, stored.budget_uuid,
            stored.original_currency, stored.amount, stored.original_auth_transaction_id,
            stored.original_auth_transaction_uuid, stored.clearing_reference, stored.parent_transaction_id,
            stored.parent_transaction_uuid,
            -- end of columns
            stored.ordered_time, stored.original_amount, stored.amount_usd, stored.exchange_rate, stored.fx_source,
            stored.idempotency_key, stored.source
        )
    );

DROP TABLE transaction_aliases;

UPDATE transactions SET
    -- columns of transactions but transaction_id: {} = today.{}
    transaction_uuid = today.transaction_uuid,
    transaction_type = today.transaction_type,
    occurred_time = today.occurred_time,
    updated_time = today.updated_time,
    user_id = today.user_id,
    user_uuid = today.user_uuid,
    user_name = today.user_name,
    merchant_name = today.merchant_name,
    raw_merchant_name = today.raw_merchant_name,
    source_card_id = today.source_card_id,
    card_uuid = today.card_uuid,
    source_budget_id = today.source_budget_id,
    budget_uuid = today.budget_uuid,
    original_currency = today.original_currency,
    amount = today.amount,
    original_auth_transaction_id = today.original_auth_transaction_id,
    original_auth_transaction_uuid = today.original_auth_transaction_uuid,
    clearing_reference = today.clearing_reference,
    parent_transaction_id = today.parent_transaction_id,
    parent_transaction_uuid = today.parent_transaction_uuid,
    -- end of columns
    ordered_time = today.ordered_time,
    original_amount = today.original_amount,
    amount_usd = today.amount_usd,
    exchange_rate = today.exchange_rate,
    fx_source = today.fx_source,
    idempotency_key = change.idempotency_key,
    is_identified = transactions.is_identified OR today.is_identified,
    card_id = card.card_id,
    budget_id = budget.budget_id,
    agent_id = holder.agent_id,
    sync_day = context.sync_day,
    source = context.source,
    ingested_at = now(),
    as_of = context.sync_date
FROM sync_context AS context
CROSS JOIN stg_transaction_changes AS change
JOIN stg_transactions AS today ON today.transaction_id = change.staged_id
LEFT JOIN cards AS card ON card.card_id = today.source_card_id
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
LEFT JOIN card_holder_keys AS holder ON holder.key = coalesce(today.user_id, today.user_uuid)
WHERE
    change.change = 'changed'
    AND transactions.transaction_id = change.transaction_id;

INSERT INTO transactions (
    transaction_id,
    -- columns of transactions but transaction_id: {}
    transaction_uuid, transaction_type, occurred_time, updated_time, user_id, user_uuid, user_name, merchant_name,
    raw_merchant_name, source_card_id, card_uuid, source_budget_id, budget_uuid, original_currency, amount,
    original_auth_transaction_id, original_auth_transaction_uuid, clearing_reference, parent_transaction_id,
    parent_transaction_uuid,
    -- end of columns
    ordered_time, original_amount, amount_usd, exchange_rate, fx_source,
    idempotency_key, is_identified, card_id, budget_id, agent_id, sync_day, source, as_of
)
SELECT
    change.transaction_id,
    -- columns of transactions but transaction_id: today.{}
    today.transaction_uuid, today.transaction_type, today.occurred_time, today.updated_time, today.user_id,
    today.user_uuid, today.user_name, today.merchant_name, today.raw_merchant_name, today.source_card_id,
    today.card_uuid, today.source_budget_id, today.budget_uuid, today.original_currency, today.amount,
    today.original_auth_transaction_id, today.original_auth_transaction_uuid, today.clearing_reference,
    today.parent_transaction_id, today.parent_transaction_uuid,
    -- end of columns
    today.ordered_time, today.original_amount, today.amount_usd, today.exchange_rate, today.fx_source,
    change.idempotency_key, today.is_identified OR change.transaction_id <> change.staged_id,
    card.card_id, budget.budget_id, holder.agent_id, context.sync_day, context.source, context.sync_date
FROM sync_context AS context
CROSS JOIN stg_transaction_changes AS change
JOIN stg_transactions AS today ON today.transaction_id = change.staged_id
LEFT JOIN cards AS card ON card.card_id = today.source_card_id
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
LEFT JOIN card_holder_keys AS holder ON holder.key = coalesce(today.user_id, today.user_uuid)
WHERE change.change = 'added';

SELECT deskroll_attach_keys();

-- Quarantine of the day, replaced: bad records, and links to no card or budget.
SELECT deskroll_replace_quarantine('transaction_pipeline_errors'::REGCLASS, 'transaction_id'::NAME);

INSERT INTO transaction_pipeline_errors (
    transaction_id, error_type, error_message, raw_record, source_file, record_index, sync_day, run_id
)
SELECT
    today.transaction_id, 'REFERENCE_ERROR',
    concat_ws(
        '; ',
        CASE
            WHEN today.source_card_id IS NOT NULL AND card.card_id IS NULL
                THEN format('cardId: found "%s", expected a known card', today.source_card_id)
        END,
        CASE
            WHEN today.source_budget_id IS NOT NULL AND budget.budget_id IS NULL
                THEN format('budgetId: found "%s", expected a known budget', today.source_budget_id)
        END
    ),
    jsonb_strip_nulls(
        jsonb_build_object(
            'cardId', CASE WHEN card.card_id IS NULL THEN today.source_card_id END,
            'budgetId', CASE WHEN budget.budget_id IS NULL THEN today.source_budget_id END
        )
    ),
    today.source_file, today.record_index, context.sync_day, context.run_id
FROM sync_context AS context
CROSS JOIN stg_transactions AS today
LEFT JOIN cards AS card ON card.card_id = today.source_card_id
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
WHERE
    (
        today.source_card_id IS NOT NULL AND card.card_id IS NULL
        OR today.source_budget_id IS NOT NULL AND budget.budget_id IS NULL
    )
ORDER BY today.source_file, today.record_index;

SELECT deskroll_tell_stale('stg_transaction_changes'::REGCLASS, 'transaction_id'::NAME);

SELECT deskroll_move_watermark();

UPDATE sync_watermarks SET updated_time = newest.updated_time
FROM (SELECT max(today.ordered_time) AS updated_time FROM stg_transactions AS today) AS newest
WHERE
    sync_watermarks.pipeline = 'transactions'
    AND newest.updated_time > coalesce(sync_watermarks.updated_time, '-infinity');
