-- migrate:up

CREATE TABLE budgets (
    budget_id TEXT COLLATE "C" PRIMARY KEY,
    budget_uuid TEXT,
    name TEXT NOT NULL,
    description TEXT,
    retired BOOLEAN,
    start_date DATE,
    recurring_interval TEXT,
    timezone TEXT,
    limitless BOOLEAN,
    limit_amount NUMERIC,
    overspend_buffer NUMERIC,
    assigned_amount NUMERIC,
    spent_cleared NUMERIC,
    spent_pending NUMERIC,
    spent_total NUMERIC,
    sync_day TEXT NOT NULL,
    source TEXT NOT NULL,
    ingested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    as_of DATE NOT NULL,
    period_as_of DATE,
    period_source TEXT
);
COMMENT ON TABLE budgets IS 'The budgets, one row each; one that is gone keeps its row.';
COMMENT ON COLUMN budgets.budget_id IS 'Id of the budget.';
COMMENT ON COLUMN budgets.budget_uuid IS 'Its other id.';
COMMENT ON COLUMN budgets.name IS 'Name.';
COMMENT ON COLUMN budgets.description IS 'What the budget is for.';
COMMENT ON COLUMN budgets.retired IS 'Whether it is used no more.';
COMMENT ON COLUMN budgets.start_date IS 'When it began.';
COMMENT ON COLUMN budgets.recurring_interval IS 'How often it begins anew, such as MONTHLY.';
COMMENT ON COLUMN budgets.timezone IS 'Time zone in which its periods begin.';
COMMENT ON COLUMN budgets.limitless IS 'Whether more than the limit may be spent; then there may be no limit.';
COMMENT ON COLUMN budgets.limit_amount IS 'What may be spent in the current period, in US dollars; NULL if the record gives no limit.';
COMMENT ON COLUMN budgets.overspend_buffer IS 'What may be spent beyond that.';
COMMENT ON COLUMN budgets.assigned_amount IS 'What of it cards have been given.';
COMMENT ON COLUMN budgets.spent_cleared IS 'What was spent in the current period and has been settled.';
COMMENT ON COLUMN budgets.spent_pending IS 'What was spent and has not been settled yet.';
COMMENT ON COLUMN budgets.spent_total IS 'Both.';
COMMENT ON COLUMN budgets.sync_day IS 'Sync day that last changed the row.';
COMMENT ON COLUMN budgets.source IS 'api for a sync day, tran for tran/: where the values came from.';
COMMENT ON COLUMN budgets.ingested_at IS 'When the row last changed.';
COMMENT ON COLUMN budgets.created_at IS 'When the row was first stored.';
COMMENT ON COLUMN budgets.updated_at IS 'When a value of it last changed.';
COMMENT ON COLUMN budgets.as_of IS 'Newest sync date whose dump had the budget: as of then its values are true.';
COMMENT ON COLUMN budgets.period_as_of IS 'The same of limit_amount, overspend_buffer, assigned_amount and what was spent: newest sync date whose record of the budget had a current period.';
COMMENT ON COLUMN budgets.period_source IS 'api or tran: where these amounts came from.';

CREATE TABLE budget_pipeline_errors (LIKE agent_pipeline_errors INCLUDING ALL);
ALTER TABLE budget_pipeline_errors RENAME COLUMN agent_id TO budget_id;
ALTER TABLE budget_pipeline_errors ALTER COLUMN budget_id TYPE TEXT;
COMMENT ON TABLE budget_pipeline_errors IS 'Quarantine of the budgets pipeline, one row per record that could not be taken.';
COMMENT ON COLUMN budget_pipeline_errors.budget_id IS 'Id of the budget if it could be read.';

CREATE UNLOGGED TABLE stg_budgets (
    LIKE budgets,
    has_period BOOLEAN NOT NULL,
    is_rejected BOOLEAN NOT NULL DEFAULT false
);
ALTER TABLE stg_budgets
DROP COLUMN sync_day,
DROP COLUMN source,
DROP COLUMN ingested_at,
DROP COLUMN created_at,
DROP COLUMN updated_at,
DROP COLUMN as_of,
DROP COLUMN period_as_of,
DROP COLUMN period_source;
COMMENT ON TABLE stg_budgets IS 'What the engine made of today''s budgets.';
COMMENT ON COLUMN stg_budgets.has_period IS 'Whether the record has the key currentPeriod; without it, it says nothing of amounts.';
COMMENT ON COLUMN stg_budgets.is_rejected IS 'A rejected record of this key may be newer: what is stored stays. The values of this row are for a budget that is not stored yet.';

CREATE UNLOGGED TABLE stg_budget_changes (
    budget_id TEXT NOT NULL,
    change TEXT NOT NULL
);
COMMENT ON TABLE stg_budget_changes IS 'What the last publish did to budgets, one row per budget whose values changed.';
COMMENT ON COLUMN stg_budget_changes.budget_id IS 'The budget.';
COMMENT ON COLUMN stg_budget_changes.change IS 'added, changed or stale (keeps its stored values because its record is in quarantine).';

INSERT INTO sync_watermarks (pipeline) VALUES ('budgets');

-- migrate:down

DELETE FROM sync_watermarks WHERE pipeline = 'budgets';
DROP TABLE stg_budget_changes, stg_budgets, budget_pipeline_errors, budgets;
