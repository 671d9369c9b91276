-- migrate:up

CREATE TABLE cards (
    card_id TEXT COLLATE "C" PRIMARY KEY,
    card_uuid TEXT,
    name TEXT,
    user_id TEXT COLLATE "C",
    user_uuid TEXT COLLATE "C",
    source_budget_id TEXT COLLATE "C",
    budget_uuid TEXT,
    last_four TEXT,
    valid_thru TEXT,
    status TEXT NOT NULL,
    type TEXT NOT NULL,
    share_budget_funds BOOLEAN,
    recurring BOOLEAN,
    recurring_limit NUMERIC,
    current_limit NUMERIC,
    current_spent NUMERIC,
    created_time TIMESTAMPTZ NOT NULL,
    updated_time TIMESTAMPTZ,
    ordered_time TIMESTAMPTZ,
    budget_id TEXT COLLATE "C" REFERENCES budgets,
    agent_id BIGINT REFERENCES agents,
    sync_day TEXT NOT NULL,
    source TEXT NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    as_of DATE NOT NULL
);
COMMENT ON TABLE cards IS 'The cards, one row each; one that is gone keeps its row.';
COMMENT ON COLUMN cards.card_id IS 'Id of the card.';
COMMENT ON COLUMN cards.card_uuid IS 'Its other id.';
COMMENT ON COLUMN cards.name IS 'Name.';
COMMENT ON COLUMN cards.user_id IS 'Id of the holder; see card_holders.';
COMMENT ON COLUMN cards.user_uuid IS 'Other id of the holder.';
COMMENT ON COLUMN cards.source_budget_id IS 'Budget that the record names, known or not.';
COMMENT ON COLUMN cards.budget_uuid IS 'Other id of that budget.';
COMMENT ON COLUMN cards.last_four IS 'Last four digits of its number.';
COMMENT ON COLUMN cards.valid_thru IS 'Month and year in which it ends, such as 01/32.';
COMMENT ON COLUMN cards.status IS 'ACTIVATED, NOT_ACTIVATED, FROZEN or DELETED; another value is kept, and counted as drift.';
COMMENT ON COLUMN cards.type IS 'PHYSICAL, VIRTUAL_MEMBER or VIRTUAL_VENDOR; another value is kept, and counted as drift.';
COMMENT ON COLUMN cards.share_budget_funds IS 'Whether it may spend all of its budget.';
COMMENT ON COLUMN cards.recurring IS 'Whether its limit begins anew each period.';
COMMENT ON COLUMN cards.recurring_limit IS 'Limit of each period, in US dollars.';
COMMENT ON COLUMN cards.current_limit IS 'Limit of the current period.';
COMMENT ON COLUMN cards.current_spent IS 'What was spent in the current period.';
COMMENT ON COLUMN cards.created_time IS 'When the card was made.';
COMMENT ON COLUMN cards.updated_time IS 'When the record last changed.';
COMMENT ON COLUMN cards.ordered_time IS 'updated_time or, if that is in the future, the sync date: the newer record wins.';
COMMENT ON COLUMN cards.budget_id IS 'The budget; NULL if it is not known.';
COMMENT ON COLUMN cards.agent_id IS 'The agent who holds the card; NULL if none is known. See card_holders.';
COMMENT ON COLUMN cards.sync_day IS 'Sync day that last changed the row.';
COMMENT ON COLUMN cards.source IS 'api for a sync day, tran for tran/: where the values came from.';
COMMENT ON COLUMN cards.ingested_at IS 'When the row last changed.';
COMMENT ON COLUMN cards.as_of IS 'Newest sync date whose dump had the card: as of then its values are true.';

CREATE TABLE card_pipeline_errors (LIKE agent_pipeline_errors INCLUDING ALL);
ALTER TABLE card_pipeline_errors RENAME COLUMN agent_id TO card_id;
ALTER TABLE card_pipeline_errors ALTER COLUMN card_id TYPE TEXT;
COMMENT ON TABLE card_pipeline_errors IS 'Quarantine of the cards pipeline, one row per record or link that could not be taken.';
COMMENT ON COLUMN card_pipeline_errors.card_id IS 'Id of the card if it could be read.';

CREATE UNLOGGED TABLE stg_cards (
    LIKE cards,
    source_file TEXT,
    record_index BIGINT,
    is_rejected BOOLEAN NOT NULL DEFAULT false
);
ALTER TABLE stg_cards
DROP COLUMN budget_id,
DROP COLUMN agent_id,
DROP COLUMN sync_day,
DROP COLUMN source,
DROP COLUMN ingested_at,
DROP COLUMN as_of;
COMMENT ON TABLE stg_cards IS 'What the engine made of today''s cards.';
COMMENT ON COLUMN stg_cards.source_file IS 'File of the record.';
COMMENT ON COLUMN stg_cards.record_index IS 'Place of the record in the file, from 0.';
COMMENT ON COLUMN stg_cards.is_rejected IS 'A rejected record of this key may be newer: what is stored stays. The values of this row are for a card that is not stored yet.';

CREATE UNLOGGED TABLE stg_card_changes (
    card_id TEXT NOT NULL,
    change TEXT NOT NULL
);
COMMENT ON TABLE stg_card_changes IS 'What the last publish did to cards, one row per card whose values changed.';
COMMENT ON COLUMN stg_card_changes.card_id IS 'The card.';
COMMENT ON COLUMN stg_card_changes.change IS 'added, changed or stale (keeps its stored values because its record is in quarantine).';

INSERT INTO sync_watermarks (pipeline) VALUES ('cards');

-- migrate:down

DELETE FROM sync_watermarks WHERE pipeline = 'cards';
DROP TABLE stg_card_changes, stg_cards, card_pipeline_errors, cards;
