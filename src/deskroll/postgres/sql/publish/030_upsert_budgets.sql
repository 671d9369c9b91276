-- Carry today's budgets from staging into budgets. A budget that is gone keeps its row.
--
-- By hand, after `deskroll stage DATA --day day1 --only budgets`, in one transaction:
--     deskroll sql budgets | psql "$(deskroll db url)"

SELECT deskroll_begin('budgets'::TEXT);

TRUNCATE stg_budget_changes;

-- The newest date that speaks of a budget wins; of the same date, a sync day before tran/. A record without the key
-- currentPeriod says nothing of the amounts: they are those of the newest date that had it.
INSERT INTO stg_budget_changes (budget_id, change)
SELECT today.budget_id, CASE WHEN budget.budget_id IS NULL THEN 'added' ELSE 'changed' END
FROM sync_context AS context
CROSS JOIN stg_budgets AS today
LEFT JOIN budgets AS budget ON budget.budget_id = today.budget_id
WHERE
    (
        budget.budget_id IS NULL
        OR NOT today.is_rejected
        AND (
            (context.sync_date, context.source = 'api') >= (budget.as_of, budget.source = 'api')
            AND (
                -- columns of budgets but budget_id, not in currentPeriod: today.{}
                today.budget_uuid, today.name, today.description, today.retired, today.start_date,
                today.recurring_interval, today.timezone, today.limitless
                -- end of columns
            ) IS DISTINCT FROM (
                -- columns of budgets but budget_id, not in currentPeriod: budget.{}
                budget.budget_uuid, budget.name, budget.description, budget.retired, budget.start_date,
                budget.recurring_interval, budget.timezone, budget.limitless
                -- end of columns
            )
            OR today.has_period
            AND (context.sync_date, context.source = 'api')
            >= (coalesce(budget.period_as_of, '-infinity'), coalesce(budget.period_source = 'api', false))
            AND (
                -- columns of budgets, in currentPeriod: today.{}
                today.limit_amount, today.overspend_buffer, today.assigned_amount, today.spent_cleared,
                today.spent_pending, today.spent_total
                -- end of columns
            ) IS DISTINCT FROM (
                -- columns of budgets, in currentPeriod: budget.{}
                budget.limit_amount, budget.overspend_buffer, budget.assigned_amount, budget.spent_cleared,
                budget.spent_pending, budget.spent_total
                -- end of columns
            )
        )
    );

INSERT INTO budgets (
    -- columns of budgets: {}
    budget_id, budget_uuid, name, description, retired, start_date, recurring_interval, timezone, limitless,
    limit_amount, overspend_buffer, assigned_amount, spent_cleared, spent_pending, spent_total,
    -- end of columns
    sync_day, source, as_of, period_as_of, period_source
)
SELECT
    -- columns of budgets: today.{}
    today.budget_id, today.budget_uuid, today.name, today.description, today.retired, today.start_date,
    today.recurring_interval, today.timezone, today.limitless, today.limit_amount, today.overspend_buffer,
    today.assigned_amount, today.spent_cleared, today.spent_pending, today.spent_total,
    -- end of columns
    context.sync_day, context.source, context.sync_date,
    CASE WHEN today.has_period THEN context.sync_date END,
    CASE WHEN today.has_period THEN context.source END
FROM sync_context AS context
CROSS JOIN stg_budget_changes AS change
JOIN stg_budgets AS today ON today.budget_id = change.budget_id
WHERE change.change = 'added'
ORDER BY today.budget_id;

UPDATE budgets SET
    -- columns of budgets but budget_id, not in currentPeriod: {} = today.{}
    budget_uuid = today.budget_uuid,
    name = today.name,
    description = today.description,
    retired = today.retired,
    start_date = today.start_date,
    recurring_interval = today.recurring_interval,
    timezone = today.timezone,
    limitless = today.limitless,
    -- end of columns
    sync_day = context.sync_day,
    ingested_at = now(),
    updated_at = now()
FROM sync_context AS context
CROSS JOIN stg_budget_changes AS change
JOIN stg_budgets AS today ON today.budget_id = change.budget_id
WHERE
    change.change = 'changed'
    AND budgets.budget_id = today.budget_id
    AND (context.sync_date, context.source = 'api') >= (budgets.as_of, budgets.source = 'api');

UPDATE budgets SET
    -- columns of budgets, in currentPeriod: {} = today.{}
    limit_amount = today.limit_amount,
    overspend_buffer = today.overspend_buffer,
    assigned_amount = today.assigned_amount,
    spent_cleared = today.spent_cleared,
    spent_pending = today.spent_pending,
    spent_total = today.spent_total,
    -- end of columns
    sync_day = context.sync_day,
    ingested_at = now(),
    updated_at = now()
FROM sync_context AS context
CROSS JOIN stg_budget_changes AS change
JOIN stg_budgets AS today ON today.budget_id = change.budget_id
WHERE
    change.change = 'changed'
    AND budgets.budget_id = today.budget_id
    AND today.has_period
    AND (context.sync_date, context.source = 'api')
    >= (coalesce(budgets.period_as_of, '-infinity'), coalesce(budgets.period_source = 'api', false));

UPDATE budgets SET
    source = context.source,
    as_of = context.sync_date
FROM sync_context AS context
CROSS JOIN stg_budgets AS today
WHERE
    budgets.budget_id = today.budget_id
    AND NOT today.is_rejected
    AND (context.sync_date, context.source = 'api') > (budgets.as_of, budgets.source = 'api');

UPDATE budgets SET
    period_source = context.source,
    period_as_of = context.sync_date
FROM sync_context AS context
CROSS JOIN stg_budgets AS today
WHERE
    budgets.budget_id = today.budget_id
    AND today.has_period
    AND NOT today.is_rejected
    AND (context.sync_date, context.source = 'api')
    > (coalesce(budgets.period_as_of, '-infinity'), coalesce(budgets.period_source = 'api', false));

SELECT deskroll_track_budgets();

SELECT deskroll_replace_quarantine('budget_pipeline_errors'::REGCLASS, 'budget_id'::NAME);

SELECT deskroll_tell_stale('stg_budget_changes'::REGCLASS, 'budget_id'::NAME);

SELECT deskroll_move_watermark();

-- Cards and transactions may have waited for these budgets. A run does this once, when it has published all.
SELECT deskroll_link_spend() WHERE nullif(current_setting('deskroll.run_id', true), '') IS NULL;
