-- Carry today's cards from staging into cards. A card that is gone keeps its row.
--
-- By hand, after `deskroll stage DATA --day day1 --only cards`, in one transaction:
--     deskroll sql cards | psql "$(deskroll db url)"

SELECT deskroll_begin('cards'::TEXT);

TRUNCATE stg_card_changes;

-- The newest version of a card wins, whichever day it came with; of the same version the newest date, which may know
-- more of what was spent; of the same date a sync day before tran/.
INSERT INTO stg_card_changes (card_id, change)
SELECT today.card_id, CASE WHEN card.card_id IS NULL THEN 'added' ELSE 'changed' END
FROM sync_context AS context
CROSS JOIN stg_cards AS today
LEFT JOIN cards AS card ON card.card_id = today.card_id
WHERE
    (
        card.card_id IS NULL
        OR NOT today.is_rejected
        AND (coalesce(today.ordered_time, '-infinity'), context.sync_date, context.source = 'api')
        >= (coalesce(card.ordered_time, '-infinity'), card.as_of, card.source = 'api')
        AND (
            -- columns of cards but card_id: today.{}
            today.card_uuid, today.name, today.user_id, today.user_uuid, today.source_budget_id, today.budget_uuid,
            today.last_four, today.valid_thru, today.status, today.type, today.share_budget_funds, today.recurring,
            today.recurring_limit, today.current_limit, today.current_spent, today.created_time, today.updated_time,
            -- end of columns
            today.ordered_time
        ) IS DISTINCT FROM (
            -- columns of cards but card_id: card.{}
            card.card_uuid, card.name, card.user_id, card.user_uuid, card.source_budget_id, card.budget_uuid,
            card.last_four, card.valid_thru, card.status, card.type, card.share_budget_funds, card.recurring,
            card.recurring_limit, card.current_limit, card.current_spent, card.created_time, card.updated_time,
            -- end of columns
            card.ordered_time
        )
    );

INSERT INTO cards (
    -- columns of cards: {}
    card_id, card_uuid, name, user_id, user_uuid, source_budget_id, budget_uuid, last_four, valid_thru, status,
    type, share_budget_funds, recurring, recurring_limit, current_limit, current_spent, created_time, updated_time,
    -- end of columns
    ordered_time, budget_id, agent_id, sync_day, source, as_of
)
SELECT
    -- columns of cards: today.{}
    today.card_id, today.card_uuid, today.name, today.user_id, today.user_uuid, today.source_budget_id,
    today.budget_uuid, today.last_four, today.valid_thru, today.status, today.type, today.share_budget_funds,
    today.recurring, today.recurring_limit, today.current_limit, today.current_spent, today.created_time,
    today.updated_time,
    -- end of columns
    today.ordered_time,
    budget.budget_id, coalesce(holder.agent_id, by_uuid.agent_id), context.sync_day, context.source, context.sync_date
FROM sync_context AS context
CROSS JOIN stg_card_changes AS change
JOIN stg_cards AS today ON today.card_id = change.card_id
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
LEFT JOIN card_holder_keys AS holder ON holder.key = today.user_id
LEFT JOIN card_holder_keys AS by_uuid ON by_uuid.key = today.user_uuid
WHERE change.change = 'added'
ORDER BY today.card_id;

UPDATE cards SET
    -- columns of cards but card_id: {} = today.{}
    card_uuid = today.card_uuid,
    name = today.name,
    user_id = today.user_id,
    user_uuid = today.user_uuid,
    source_budget_id = today.source_budget_id,
    budget_uuid = today.budget_uuid,
    last_four = today.last_four,
    valid_thru = today.valid_thru,
    status = today.status,
    type = today.type,
    share_budget_funds = today.share_budget_funds,
    recurring = today.recurring,
    recurring_limit = today.recurring_limit,
    current_limit = today.current_limit,
    current_spent = today.current_spent,
    created_time = today.created_time,
    updated_time = today.updated_time,
    -- end of columns
    ordered_time = today.ordered_time,
    budget_id = budget.budget_id,
    agent_id = coalesce(holder.agent_id, by_uuid.agent_id),
    sync_day = context.sync_day,
    source = context.source,
    as_of = context.sync_date,
    ingested_at = now()
FROM sync_context AS context
CROSS JOIN stg_card_changes AS change
JOIN stg_cards AS today ON today.card_id = change.card_id
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
LEFT JOIN card_holder_keys AS holder ON holder.key = today.user_id
LEFT JOIN card_holder_keys AS by_uuid ON by_uuid.key = today.user_uuid
WHERE change.change = 'changed' AND cards.card_id = change.card_id;

UPDATE cards SET
    source = context.source,
    as_of = context.sync_date
FROM sync_context AS context
CROSS JOIN stg_cards AS today
WHERE
    cards.card_id = today.card_id
    AND NOT today.is_rejected
    AND today.ordered_time IS NOT DISTINCT FROM cards.ordered_time
    AND (context.sync_date, context.source = 'api') > (cards.as_of, cards.source = 'api');

SELECT deskroll_track_cards();

-- Quarantine of the day, replaced: bad records, and links to no budget.
SELECT deskroll_replace_quarantine('card_pipeline_errors'::REGCLASS, 'card_id'::NAME);

INSERT INTO card_pipeline_errors (
    card_id, error_type, error_message, raw_record, source_file, record_index, sync_day, run_id
)
SELECT
    today.card_id, 'REFERENCE_ERROR', format('budgetId: found "%s", expected a known budget', today.source_budget_id),
    to_jsonb(today.source_budget_id), today.source_file, today.record_index, context.sync_day, context.run_id
FROM sync_context AS context
CROSS JOIN stg_cards AS today
LEFT JOIN budgets AS budget ON budget.budget_id = today.source_budget_id
WHERE today.source_budget_id IS NOT NULL AND budget.budget_id IS NULL
ORDER BY today.source_file, today.record_index;

SELECT deskroll_tell_stale('stg_card_changes'::REGCLASS, 'card_id'::NAME);

SELECT deskroll_move_watermark();

-- Transactions may have waited for these cards. A run does this once, when it has published all.
SELECT deskroll_link_spend() WHERE nullif(current_setting('deskroll.run_id', true), '') IS NULL;
