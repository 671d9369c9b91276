-- Carry today's budgets from staging into budgets. A budget that is gone keeps its row.
--
-- By hand, after `deskroll stage DATA --day day1 --only budgets`, in one transaction:
--     deskroll sql budgets | psql "$(deskroll db url)"

SELECT deskroll_begin('budgets'::TEXT);

TRUNCATE stg_budget_changes;

-- The newest date that speaks of a budget wins; of the same date, a sync day before tran/.
INSERT INTO stg_budget_changes (budget_id, change)
SELECT today.budget_id, CASE WHEN budget.budget_id IS NULL THEN 'added' ELSE 'changed' END
FROM sync_context AS context
CROSS JOIN stg_budgets AS today
LEFT JOIN budgets AS budget ON budget.budget_id = today.budget_id
WHERE
    context.pipeline = 'budgets'
    AND (
        budget.budget_id IS NULL
        OR (context.sync_date, context.source = 'api') >= (budget.as_of, budget.source = 'api')
        AND (
            today.budget_uuid, today.name, today.description, today.retired, today.start_date,
            today.recurring_interval, today.timezone, today.limit_amount, today.overspend_buffer,
            today.assigned_amount, today.spent_cleared, today.spent_pending, today.spent_total
        ) IS DISTINCT FROM (
            budget.budget_uuid, budget.name, budget.description, budget.retired, budget.start_date,
            budget.recurring_interval, budget.timezone, budget.limit_amount, budget.overspend_buffer,
            budget.assigned_amount, budget.spent_cleared, budget.spent_pending, budget.spent_total
        )
    );

INSERT INTO budgets (
    budget_id, budget_uuid, name, description, retired, start_date, recurring_interval, timezone, limit_amount,
    overspend_buffer, assigned_amount, spent_cleared, spent_pending, spent_total, sync_day, source, as_of
)
SELECT
    today.budget_id, today.budget_uuid, today.name, today.description, today.retired, today.start_date,
    today.recurring_interval, today.timezone, today.limit_amount, today.overspend_buffer, today.assigned_amount,
    today.spent_cleared, today.spent_pending, today.spent_total,
    context.sync_day, context.source, context.sync_date
FROM sync_context AS context
CROSS JOIN stg_budget_changes AS change
JOIN stg_budgets AS today ON today.budget_id = change.budget_id
WHERE context.pipeline = 'budgets'
ORDER BY today.budget_id
ON CONFLICT (budget_id) DO UPDATE SET
    budget_uuid = excluded.budget_uuid,
    name = excluded.name,
    description = excluded.description,
    retired = excluded.retired,
    start_date = excluded.start_date,
    recurring_interval = excluded.recurring_interval,
    timezone = excluded.timezone,
    limit_amount = excluded.limit_amount,
    overspend_buffer = excluded.overspend_buffer,
    assigned_amount = excluded.assigned_amount,
    spent_cleared = excluded.spent_cleared,
    spent_pending = excluded.spent_pending,
    spent_total = excluded.spent_total,
    sync_day = excluded.sync_day,
    source = excluded.source,
    as_of = excluded.as_of,
    ingested_at = now(),
    updated_at = now();

UPDATE budgets SET
    source = context.source,
    as_of = context.sync_date
FROM sync_context AS context
CROSS JOIN stg_budgets AS today
WHERE
    context.pipeline = 'budgets'
    AND budgets.budget_id = today.budget_id
    AND (context.sync_date, context.source = 'api') > (budgets.as_of, budgets.source = 'api');

SELECT deskroll_replace_quarantine('budgets'::TEXT, 'budget_pipeline_errors'::REGCLASS, 'budget_id'::NAME);

SELECT deskroll_move_watermark('budgets'::TEXT);

-- Cards and transactions may have waited for these budgets. A run does this once, when it has published all.
SELECT deskroll_link_spend() WHERE nullif(current_setting('deskroll.run_id', true), '') IS NULL;
