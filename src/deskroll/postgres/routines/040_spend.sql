-- migrate:up

-- Case is folded by the rules of Unicode where the server knows them, whatever the database's own locale.
DO $$
DECLARE
    folding TEXT;
BEGIN
    FOREACH folding IN ARRAY ARRAY['und-x-icu', 'pg_c_utf8', 'C.utf8', 'default'] LOOP
        BEGIN
            EXECUTE format('SELECT lower(''A'' COLLATE pg_catalog.%I)', folding);
            EXIT;
        EXCEPTION WHEN undefined_object OR feature_not_supported THEN
            CONTINUE;
        END;
    END LOOP;
    EXECUTE format(
        'CREATE OR REPLACE FUNCTION deskroll_fold(name TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        $fold$
            SELECT pg_catalog.lower(
                pg_catalog.btrim(pg_catalog.regexp_replace(name, ''\s+'', '' '', ''g'')) COLLATE pg_catalog.%I
            ) COLLATE pg_catalog."C"
        $fold$',
        folding
    );
END
$$;
COMMENT ON FUNCTION deskroll_fold IS 'A name with its case and spaces folded, to compare it with others.';

CREATE OR REPLACE FUNCTION deskroll_link_spend()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    renamed TEXT [];
BEGIN
    WITH called AS (
        SELECT agent.agent_id, deskroll_fold(agent.name) AS name FROM agents AS agent
        UNION
        SELECT agent.agent_id, deskroll_fold(agent.email) FROM agents AS agent
    ), matched AS (
        SELECT holder.user_id, CASE WHEN count(*) = 1 THEN min(called.agent_id) END AS agent_id
        FROM card_holders AS holder
        LEFT JOIN called ON called.name = deskroll_fold(holder.user_name) AND called.name <> ''
        GROUP BY holder.user_id
    ), relinked AS (
        UPDATE card_holders SET agent_id = matched.agent_id
        FROM matched
        WHERE matched.user_id = card_holders.user_id AND matched.agent_id IS DISTINCT FROM card_holders.agent_id
        RETURNING card_holders.user_id
    )
    SELECT array_agg(user_id) INTO renamed FROM relinked;

    UPDATE cards SET
        budget_id = linked.budget_id,
        agent_id = linked.agent_id,
        sync_day = context.sync_day,
        ingested_at = now()
    FROM sync_context AS context
    CROSS JOIN (
        SELECT card.card_id, budget.budget_id, holder.agent_id
        FROM cards AS card
        LEFT JOIN budgets AS budget ON budget.budget_id = card.source_budget_id
        LEFT JOIN card_holders AS holder ON holder.user_id = card.user_id
    ) AS linked
    WHERE
        context.pipeline = 'cards'
        AND cards.card_id = linked.card_id
        AND (cards.budget_id, cards.agent_id) IS DISTINCT FROM (linked.budget_id, linked.agent_id);

    TRUNCATE stg_transaction_changes;
    INSERT INTO stg_transaction_changes (transaction_id, change)
    SELECT found.transaction_id, 'linked'
    FROM (
        SELECT one.transaction_id
        FROM transactions AS one
        JOIN cards AS card ON card.card_id = one.source_card_id
        WHERE one.card_id IS NULL AND one.source_card_id IS NOT NULL
        UNION
        SELECT one.transaction_id
        FROM transactions AS one
        JOIN budgets AS budget ON budget.budget_id = one.source_budget_id
        WHERE one.budget_id IS NULL AND one.source_budget_id IS NOT NULL
        UNION
        SELECT one.transaction_id
        FROM transactions AS one
        WHERE renamed IS NOT NULL AND one.user_id = ANY (renamed)
    ) AS found;

    UPDATE transactions SET
        card_id = linked.card_id,
        budget_id = linked.budget_id,
        agent_id = linked.agent_id,
        sync_day = context.sync_day,
        ingested_at = now()
    FROM sync_context AS context
    CROSS JOIN (
        SELECT one.transaction_id, card.card_id, budget.budget_id, holder.agent_id
        FROM stg_transaction_changes AS change
        JOIN transactions AS one ON one.transaction_id = change.transaction_id
        LEFT JOIN cards AS card ON card.card_id = one.source_card_id
        LEFT JOIN budgets AS budget ON budget.budget_id = one.source_budget_id
        LEFT JOIN card_holders AS holder ON holder.user_id = one.user_id
    ) AS linked
    WHERE context.pipeline = 'transactions' AND transactions.transaction_id = linked.transaction_id;
END
$$;
COMMENT ON FUNCTION deskroll_link_spend IS
'Link cards and transactions to the budgets, cards and agents that are known now: some of these may have come since.';

-- migrate:down

DROP FUNCTION deskroll_link_spend;
DROP FUNCTION deskroll_fold;
