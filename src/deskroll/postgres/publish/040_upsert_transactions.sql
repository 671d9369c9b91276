-- Carry today's transactions from staging into transactions, and the names of card holders into card_holders.
--
-- By hand, after `deskroll stage DATA --day day1 --only transactions`, in one transaction:
--     deskroll sql transactions | psql "$(deskroll db url)"

SELECT deskroll_begin('transactions'::TEXT);

INSERT INTO card_holders (user_id, user_name, updated_time)
SELECT today.user_id, today.user_name, today.updated_time
FROM stg_card_holders AS today
ORDER BY today.user_id
ON CONFLICT (user_id) DO UPDATE SET
    user_name = excluded.user_name,
    updated_time = excluded.updated_time
WHERE
(coalesce(excluded.updated_time, '-infinity'), excluded.user_name COLLATE "C")
> (coalesce(card_holders.updated_time, '-infinity'), card_holders.user_name COLLATE "C");

-- Budgets and cards are published before: what waited for them is linked here, and what follows is linked as it comes.
SELECT deskroll_link_spend();

SELECT deskroll_detach_keys(VARIADIC ARRAY['transactions']::REGCLASS[]);

-- The newest version of a transaction wins, whichever day it came with; of the same version that of a sync day before
-- that of tran/, and then the newest date.
INSERT INTO stg_transaction_changes (transaction_id, change)
SELECT today.transaction_id, CASE WHEN known.transaction_id IS NULL THEN 'added' ELSE 'changed' END
FROM sync_context AS context
CROSS JOIN stg_transactions AS today
LEFT JOIN transactions AS known ON known.transaction_id = today.transaction_id
WHERE
    context.pipeline = 'transactions'
    AND (
        known.transaction_id IS NULL
        OR (coalesce(today.updated_time, '-infinity'), context.source = 'api', context.sync_date)
        >= (coalesce(known.updated_time, '-infinity'), known.source = 'api', known.as_of)
        AND (
            today.transaction_uuid, today.transaction_type, today.occurred_time, today.updated_time, today.user_id,
            today.user_uuid, today.user_name, today.merchant_name, today.raw_merchant_name, today.source_card_id,
            today.card_uuid, today.source_budget_id, today.budget_uuid, today.original_amount,
            today.original_currency, today.amount_usd, today.exchange_rate, today.fx_source, today.amount,
            today.original_auth_transaction_id, today.original_auth_transaction_uuid, today.clearing_reference,
            today.idempotency_key,
            context.source
        ) IS DISTINCT FROM (
            known.transaction_uuid, known.transaction_type, known.occurred_time, known.updated_time, known.user_id,
            known.user_uuid, known.user_name, known.merchant_name, known.raw_merchant_name, known.source_card_id,
            known.card_uuid, known.source_budget_id, known.budget_uuid, known.original_amount,
            known.original_currency, known.amount_usd, known.exchange_rate, known.fx_source, known.amount,
            known.original_auth_transaction_id, known.original_auth_transaction_uuid, known.clearing_reference,
            known.idempotency_key,
            known.source
        )
    );

UPDATE transactions SET
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
    original_amount = today.original_amount,
    original_currency = today.original_currency,
    amount_usd = today.amount_usd,
    exchange_rate = today.exchange_rate,
    fx_source = today.fx_source,
    amount = today.amount,
    original_auth_transaction_id = today.original_auth_transaction_id,
    original_auth_transaction_uuid = today.original_auth_transaction_uuid,
    clearing_reference = today.clearing_reference,
    idempotency_key = today.idempotency_key,
    card_id = card.card_id,
    budget_id = budget.budget_id,
    agent_id = holder.agent_id,
    sync_day = context.sync_day,
    source = context.source,
    ingested_at = now(),
    as_of = context.sync_date
FROM sync_context AS context
CROSS JOIN stg_transaction_changes AS change
JOIN stg_transactions AS today ON today.transaction_id = change.transaction_id
LEFT JOIN cards AS card ON card.card_id = today.source_card_id
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
LEFT JOIN card_holders AS holder ON holder.user_id = today.user_id
WHERE
    context.pipeline = 'transactions'
    AND change.change = 'changed'
    AND transactions.transaction_id = today.transaction_id;

INSERT INTO transactions (
    transaction_id, transaction_uuid, transaction_type, occurred_time, updated_time, user_id, user_uuid, user_name,
    merchant_name, raw_merchant_name, source_card_id, card_uuid, source_budget_id, budget_uuid, original_amount,
    original_currency, amount_usd, exchange_rate, fx_source, amount, original_auth_transaction_id,
    original_auth_transaction_uuid, clearing_reference, idempotency_key, card_id, budget_id, agent_id, sync_day,
    source, as_of
)
SELECT
    today.transaction_id, today.transaction_uuid, today.transaction_type, today.occurred_time, today.updated_time,
    today.user_id, today.user_uuid, today.user_name, today.merchant_name, today.raw_merchant_name,
    today.source_card_id, today.card_uuid, today.source_budget_id, today.budget_uuid, today.original_amount,
    today.original_currency, today.amount_usd, today.exchange_rate, today.fx_source, today.amount,
    today.original_auth_transaction_id, today.original_auth_transaction_uuid, today.clearing_reference,
    today.idempotency_key,
    card.card_id, budget.budget_id, holder.agent_id, context.sync_day, context.source, context.sync_date
FROM sync_context AS context
CROSS JOIN stg_transaction_changes AS change
JOIN stg_transactions AS today ON today.transaction_id = change.transaction_id
LEFT JOIN cards AS card ON card.card_id = today.source_card_id
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
LEFT JOIN card_holders AS holder ON holder.user_id = today.user_id
WHERE context.pipeline = 'transactions' AND change.change = 'added';

SELECT deskroll_attach_keys();

-- Quarantine of the day, replaced: bad records, and links to no card or budget.
SELECT deskroll_replace_quarantine(
    'transactions'::TEXT, 'transaction_pipeline_errors'::REGCLASS, 'transaction_id'::NAME
);

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
    context.pipeline = 'transactions'
    AND (
        today.source_card_id IS NOT NULL AND card.card_id IS NULL
        OR today.source_budget_id IS NOT NULL AND budget.budget_id IS NULL
    )
ORDER BY today.source_file, today.record_index;

SELECT deskroll_move_watermark('transactions'::TEXT);

UPDATE sync_watermarks SET updated_time = newest.updated_time
FROM (SELECT max(today.updated_time) AS updated_time FROM stg_transactions AS today) AS newest
WHERE
    sync_watermarks.pipeline = 'transactions'
    AND newest.updated_time > coalesce(sync_watermarks.updated_time, '-infinity');
