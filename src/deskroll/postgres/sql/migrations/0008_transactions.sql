-- migrate:up

CREATE TABLE transactions (
    transaction_id TEXT COLLATE "C" PRIMARY KEY,
    transaction_uuid TEXT COLLATE "C",
    transaction_type TEXT,
    occurred_time TIMESTAMPTZ NOT NULL,
    updated_time TIMESTAMPTZ,
    ordered_time TIMESTAMPTZ,
    user_id TEXT COLLATE "C",
    user_uuid TEXT COLLATE "C",
    user_name TEXT,
    merchant_name TEXT,
    raw_merchant_name TEXT,
    source_card_id TEXT COLLATE "C",
    card_uuid TEXT,
    source_budget_id TEXT COLLATE "C",
    budget_uuid TEXT,
    original_amount NUMERIC NOT NULL,
    original_currency TEXT NOT NULL,
    amount_usd NUMERIC NOT NULL,
    exchange_rate NUMERIC NOT NULL,
    fx_source TEXT NOT NULL,
    amount NUMERIC,
    original_auth_transaction_id TEXT COLLATE "C",
    original_auth_transaction_uuid TEXT COLLATE "C",
    clearing_reference TEXT COLLATE "C",
    parent_transaction_id TEXT COLLATE "C",
    parent_transaction_uuid TEXT COLLATE "C",
    idempotency_key TEXT COLLATE "C" NOT NULL UNIQUE,
    card_id TEXT COLLATE "C" REFERENCES cards,
    budget_id TEXT COLLATE "C" REFERENCES budgets,
    agent_id BIGINT REFERENCES agents,
    sync_day TEXT NOT NULL,
    source TEXT NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    as_of DATE NOT NULL,
    is_identified BOOLEAN NOT NULL
);
COMMENT ON TABLE transactions IS 'What was spent, one row per transaction; an authorisation and what settles it are two (see the view spend).';
COMMENT ON COLUMN transactions.transaction_id IS 'Id of the transaction; its uuid while no record gives the id.';
COMMENT ON COLUMN transactions.transaction_uuid IS 'Its other id.';
COMMENT ON COLUMN transactions.transaction_type IS 'AUTHORIZATION, CLEAR, DECLINE or OTHER; another value is kept, and counted as drift.';
COMMENT ON COLUMN transactions.occurred_time IS 'When it happened.';
COMMENT ON COLUMN transactions.updated_time IS 'When the record last changed.';
COMMENT ON COLUMN transactions.ordered_time IS 'updated_time or, if that is in the future, the sync date: the newer record wins.';
COMMENT ON COLUMN transactions.user_id IS 'Id of the holder; see card_holders.';
COMMENT ON COLUMN transactions.user_uuid IS 'Other id of the holder.';
COMMENT ON COLUMN transactions.user_name IS 'Name of the holder, as the record gives it.';
COMMENT ON COLUMN transactions.merchant_name IS 'Name of the merchant.';
COMMENT ON COLUMN transactions.raw_merchant_name IS 'That name as the card network gave it.';
COMMENT ON COLUMN transactions.source_card_id IS 'Card that the record names, known or not.';
COMMENT ON COLUMN transactions.card_uuid IS 'Other id of that card.';
COMMENT ON COLUMN transactions.source_budget_id IS 'Budget that the record names, known or not.';
COMMENT ON COLUMN transactions.budget_uuid IS 'Other id of that budget.';
COMMENT ON COLUMN transactions.original_amount IS 'Amount in the currency of the purchase; below zero for a refund or a reversal.';
COMMENT ON COLUMN transactions.original_currency IS 'That currency, by its code in ISO 4217.';
COMMENT ON COLUMN transactions.amount_usd IS 'original_amount times exchange_rate, rounded half up to cents.';
COMMENT ON COLUMN transactions.exchange_rate IS 'US dollars per unit of the original currency.';
COMMENT ON COLUMN transactions.fx_source IS 'payload: the record gave the rate; ecb: it is that of the European Central Bank for the day; amount: the record gives an amount in US dollars, and no currency.';
COMMENT ON COLUMN transactions.amount IS 'Amount in US dollars as the record gives it; see amount_usd.';
COMMENT ON COLUMN transactions.original_auth_transaction_id IS 'Authorisation that this transaction settles or takes back, by its id.';
COMMENT ON COLUMN transactions.original_auth_transaction_uuid IS 'That authorisation, by its other id.';
COMMENT ON COLUMN transactions.clearing_reference IS 'What an authorisation and what settles it have in common.';
COMMENT ON COLUMN transactions.parent_transaction_id IS 'Purchase that this one is a part of, by its id: such a part counts only if the purchase is not stored.';
COMMENT ON COLUMN transactions.parent_transaction_uuid IS 'That purchase, by its other id.';
COMMENT ON COLUMN transactions.idempotency_key IS 'SHA-256, in hex, of transaction_id|transaction_uuid|occurred_time|original_amount|original_currency, without what is NULL; the time in UTC, as 2026-01-05 17:22:58.000000.';
COMMENT ON COLUMN transactions.card_id IS 'The card; NULL if it is not known.';
COMMENT ON COLUMN transactions.budget_id IS 'The budget; NULL if it is not known.';
COMMENT ON COLUMN transactions.agent_id IS 'The agent who spent it, by the holder''s name; see card_holders.';
COMMENT ON COLUMN transactions.sync_day IS 'Sync day that last changed the row.';
COMMENT ON COLUMN transactions.source IS 'api for a sync day, tran for tran/: where the values came from.';
COMMENT ON COLUMN transactions.ingested_at IS 'When the row last changed.';
COMMENT ON COLUMN transactions.as_of IS 'Date of the sync that the values are from.';
COMMENT ON COLUMN transactions.is_identified IS 'Whether a record gave the id; else transaction_id is the uuid.';

CREATE INDEX transactions_without_card ON transactions (source_card_id)
WHERE card_id IS NULL AND source_card_id IS NOT NULL;

CREATE INDEX transactions_without_budget ON transactions (source_budget_id)
WHERE budget_id IS NULL AND source_budget_id IS NOT NULL;

CREATE INDEX transactions_without_user ON transactions (user_uuid) WHERE user_id IS NULL AND user_uuid IS NOT NULL;

CREATE INDEX transactions_without_id ON transactions (transaction_id) WHERE NOT is_identified;

CREATE TABLE transaction_uuids (
    transaction_uuid TEXT COLLATE "C" PRIMARY KEY,
    transaction_id TEXT COLLATE "C" NOT NULL
);
COMMENT ON TABLE transaction_uuids IS 'The id of each transaction of which a record gave both id and uuid: later records may give only one of them.';
COMMENT ON COLUMN transaction_uuids.transaction_uuid IS 'The uuid.';
COMMENT ON COLUMN transaction_uuids.transaction_id IS 'The id that came with it first.';

CREATE TABLE card_holders (
    user_id TEXT COLLATE "C" PRIMARY KEY,
    user_uuid TEXT COLLATE "C",
    user_name TEXT NOT NULL,
    updated_time TIMESTAMPTZ,
    agent_id BIGINT REFERENCES agents,
    match TEXT NOT NULL DEFAULT 'none'
);
COMMENT ON TABLE card_holders IS 'The holders of cards, one row each, and the agents that they are.';
COMMENT ON COLUMN card_holders.user_id IS 'Id of the holder in the spend API; the uuid if no record gives the id.';
COMMENT ON COLUMN card_holders.user_uuid IS 'The other id.';
COMMENT ON COLUMN card_holders.user_name IS 'Name, or e-mail, as the newest transaction gives it.';
COMMENT ON COLUMN card_holders.updated_time IS 'ordered_time of that transaction.';
COMMENT ON COLUMN card_holders.agent_id IS 'The agent: once found, it stays until a better one is.';
COMMENT ON COLUMN card_holders.match IS 'How many agents the name fits: none; one; several, of which more than one is active.';

CREATE TABLE transaction_pipeline_errors (LIKE agent_pipeline_errors INCLUDING ALL);
ALTER TABLE transaction_pipeline_errors RENAME COLUMN agent_id TO transaction_id;
ALTER TABLE transaction_pipeline_errors ALTER COLUMN transaction_id TYPE TEXT;
COMMENT ON TABLE transaction_pipeline_errors IS 'Quarantine of the transactions pipeline, one row per record or link that could not be taken.';
COMMENT ON COLUMN transaction_pipeline_errors.transaction_id IS 'Id of the transaction if it could be read.';

CREATE UNLOGGED TABLE stg_transactions (
    LIKE transactions,
    source_file TEXT COLLATE "C",
    record_index BIGINT,
    is_rejected BOOLEAN NOT NULL DEFAULT false
);
ALTER TABLE stg_transactions
DROP COLUMN card_id,
DROP COLUMN budget_id,
DROP COLUMN agent_id,
DROP COLUMN sync_day,
DROP COLUMN source,
DROP COLUMN ingested_at,
DROP COLUMN as_of,
DROP COLUMN amount_usd,
ADD COLUMN amount_usd NUMERIC GENERATED ALWAYS AS (round(original_amount * exchange_rate, 2)) STORED;
COMMENT ON TABLE stg_transactions IS 'What the engine made of today''s transactions.';
COMMENT ON COLUMN stg_transactions.is_identified IS 'Whether the record gives the id; else transaction_id is the uuid.';
COMMENT ON COLUMN stg_transactions.source_file IS 'File of the record.';
COMMENT ON COLUMN stg_transactions.record_index IS 'Place of the record in the file, from 0.';
COMMENT ON COLUMN stg_transactions.is_rejected IS 'A rejected record of this key may be newer: what is stored stays. The values of this row are for a transaction that is not stored yet.';

CREATE UNLOGGED TABLE stg_card_holders (LIKE card_holders);
ALTER TABLE stg_card_holders
DROP COLUMN agent_id,
DROP COLUMN match;
COMMENT ON TABLE stg_card_holders IS 'The name that today''s transactions give each holder.';

CREATE UNLOGGED TABLE stg_transaction_changes (
    transaction_id TEXT COLLATE "C" NOT NULL,
    change TEXT NOT NULL,
    staged_id TEXT COLLATE "C",
    idempotency_key TEXT COLLATE "C"
);
COMMENT ON TABLE stg_transaction_changes IS 'What the last publish did to transactions, one row per transaction and change.';
COMMENT ON COLUMN stg_transaction_changes.transaction_id IS 'The transaction.';
COMMENT ON COLUMN stg_transaction_changes.change IS 'added, changed; identified: its id became known, or that it is the same as another; linked: a card, budget or agent came to be known, or another agent; unlinked; stale: it keeps its stored values because its record is in quarantine.';
COMMENT ON COLUMN stg_transaction_changes.staged_id IS 'transaction_id of the staged row whose values were taken.';
COMMENT ON COLUMN stg_transaction_changes.idempotency_key IS 'Key of these values.';

INSERT INTO sync_watermarks (pipeline) VALUES ('transactions');

-- migrate:down

DELETE FROM sync_watermarks WHERE pipeline = 'transactions';
DROP TABLE stg_transaction_changes, stg_card_holders, stg_transactions, transaction_pipeline_errors;
DROP TABLE card_holders, transaction_uuids, transactions;
