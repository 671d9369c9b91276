-- migrate:up

-- Names are compared in the same way on every server: decomposed first, so that simple mappings of case do for all but
-- the sharp s (223). The final sigma (962) is a sigma (963), the dotted i (i, 775) an i, and invisible characters are
-- none. Case is mapped by the rules of Unicode if the server knows them, whatever the database's own locale.
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
            SELECT pg_catalog.btrim(pg_catalog.regexp_replace(pg_catalog.normalize(
                pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(
                    pg_catalog.lower(pg_catalog.upper(pg_catalog.normalize(
                        pg_catalog.regexp_replace(name, ''[\u00AD\u200B-\u200D\u2060\uFEFF]'', '''', ''g''), ''NFKD''
                    ) COLLATE pg_catalog.%1$I) COLLATE pg_catalog.%1$I) COLLATE pg_catalog."C",
                    pg_catalog.chr(223), ''ss''), pg_catalog.chr(962), pg_catalog.chr(963)
                ), ''i'' || pg_catalog.chr(775), ''i''), ''NFKC''
            ), ''[\u0009-\u000D\u001C-\u0020\u0085\u1680\u2028\u2029]+'', '' '', ''g''))
        $fold$',
        folding
    );
END
$$;
COMMENT ON FUNCTION deskroll_fold IS
'A name as it is compared with others: without differences of case, of spaces, and of how Unicode writes a character.';

CREATE OR REPLACE FUNCTION deskroll_kind(transaction_type TEXT)
RETURNS TEXT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.upper(transaction_type COLLATE pg_catalog."C")
$$;
COMMENT ON FUNCTION deskroll_kind IS 'The type of a transaction in capitals: an API may change its mind on them.';

CREATE OR REPLACE FUNCTION deskroll_idempotency_key(
    transaction_id TEXT, transaction_uuid TEXT, occurred_time TIMESTAMPTZ, original_amount NUMERIC,
    original_currency TEXT
)
RETURNS TEXT LANGUAGE sql STABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
    SELECT encode(
        sha256(
            convert_to(
                concat_ws(
                    '|', transaction_id, transaction_uuid,
                    to_char(occurred_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
                    original_amount, original_currency
                ),
                'UTF8'
            )
        ),
        'hex'
    )
$$;
COMMENT ON FUNCTION deskroll_idempotency_key IS 'What transactions.idempotency_key is, as the engine makes it too.';

-- A holder keeps the agent that was found once, until a better one is found: the only one whom the name fits, or the
-- only active one of these, or of those who are all gone the one who was active last. If the name fits the agent that
-- the holder has, another is better only if it is the same person under a new id: both had the same e-mail.
CREATE OR REPLACE FUNCTION deskroll_match_holders()
RETURNS SETOF TEXT LANGUAGE sql SET search_path FROM CURRENT AS $$
    WITH fits AS (
        SELECT DISTINCT holder.user_id, holder.agent_id AS known_id, agent.agent_id, agent.deactivated
        FROM card_holders AS holder
        JOIN agent_names AS named ON named.name = deskroll_fold(holder.user_name)
        JOIN agents AS agent ON agent.agent_id = named.agent_id
    ), counted AS (
        SELECT
            fits.*,
            count(*) FILTER (WHERE NOT fits.deactivated) OVER holders AS active,
            bool_or(fits.agent_id = fits.known_id) OVER holders AS fits_known
        FROM fits
        WINDOW holders AS (PARTITION BY fits.user_id)
    ), best AS (
        SELECT DISTINCT ON (counted.user_id)
            counted.user_id, counted.agent_id, counted.active, counted.known_id, counted.fits_known
        FROM counted
        LEFT JOIN LATERAL (
            SELECT max(period.valid_to) AS active_until
            FROM agent_periods AS period
            WHERE counted.active = 0 AND period.agent_id = counted.agent_id AND period.is_active
        ) AS last ON true
        ORDER BY counted.user_id, counted.deactivated, last.active_until DESC NULLS LAST, counted.agent_id DESC
    ), matched AS (
        SELECT
            holder.user_id,
            CASE WHEN best.user_id IS NULL THEN 'none' WHEN best.active > 1 THEN 'several' ELSE 'one' END AS match,
            CASE
                WHEN best.user_id IS NULL OR best.active > 1 THEN holder.agent_id
                WHEN NOT coalesce(best.fits_known, false) THEN best.agent_id
                WHEN EXISTS (
                    SELECT FROM agent_names AS mine
                    JOIN agent_names AS theirs ON theirs.name = mine.name AND theirs.is_email
                    WHERE mine.agent_id = best.known_id AND mine.is_email AND theirs.agent_id = best.agent_id
                ) THEN best.agent_id
                ELSE holder.agent_id
            END AS agent_id
        FROM card_holders AS holder
        LEFT JOIN best ON best.user_id = holder.user_id
    ), relinked AS (
        UPDATE card_holders SET
            agent_id = matched.agent_id,
            match = matched.match
        FROM matched
        WHERE
            matched.user_id = card_holders.user_id
            AND (matched.agent_id, matched.match) IS DISTINCT FROM (card_holders.agent_id, card_holders.match)
        RETURNING card_holders.user_id
    )
    SELECT relinked.user_id FROM relinked
$$;
COMMENT ON FUNCTION deskroll_match_holders IS 'Find out which agents hold cards; returns the holders that changed.';

CREATE OR REPLACE FUNCTION deskroll_link_spend()
RETURNS VOID LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    relinked TEXT [] := ARRAY(SELECT deskroll_match_holders());
BEGIN
    UPDATE cards SET
        budget_id = linked.budget_id,
        agent_id = linked.agent_id,
        sync_day = context.sync_day,
        ingested_at = now()
    FROM sync_contexts AS context
    CROSS JOIN (
        SELECT card.card_id, budget.budget_id, coalesce(holder.agent_id, by_uuid.agent_id) AS agent_id
        FROM cards AS card
        LEFT JOIN budgets AS budget ON budget.budget_id = card.source_budget_id
        LEFT JOIN card_holder_keys AS holder ON holder.key = card.user_id
        LEFT JOIN card_holder_keys AS by_uuid ON by_uuid.key = card.user_uuid
    ) AS linked
    WHERE
        context.pipeline = 'cards'
        AND cards.card_id = linked.card_id
        AND (cards.budget_id, cards.agent_id) IS DISTINCT FROM (linked.budget_id, linked.agent_id);

    -- Who a holder is does not change in time: what is known today holds for all periods.
    UPDATE card_periods SET agent_id = linked.agent_id
    FROM (
        SELECT period.card_id, period.valid_from, holder.agent_id
        FROM card_periods AS period
        LEFT JOIN card_holder_keys AS holder ON holder.key = period.user_id
    ) AS linked
    WHERE
        card_periods.card_id = linked.card_id
        AND card_periods.valid_from = linked.valid_from
        AND card_periods.agent_id IS DISTINCT FROM linked.agent_id;

    TRUNCATE stg_transaction_changes;
    INSERT INTO stg_transaction_changes (transaction_id, change)
    SELECT
        one.transaction_id,
        CASE WHEN one.agent_id IS NOT NULL AND holder.agent_id IS NULL THEN 'unlinked' ELSE 'linked' END
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
        WHERE cardinality(relinked) > 0 AND one.user_id = ANY (relinked)
        UNION
        SELECT one.transaction_id
        FROM transactions AS one
        WHERE one.user_id IS NULL AND one.user_uuid IS NOT NULL
    ) AS found
    JOIN transactions AS one ON one.transaction_id = found.transaction_id
    LEFT JOIN cards AS card ON card.card_id = one.source_card_id
    LEFT JOIN budgets AS budget ON budget.budget_id = one.source_budget_id
    LEFT JOIN card_holder_keys AS holder ON holder.key = coalesce(one.user_id, one.user_uuid)
    WHERE (one.card_id, one.budget_id, one.agent_id)
    IS DISTINCT FROM (card.card_id, budget.budget_id, holder.agent_id);

    UPDATE transactions SET
        card_id = linked.card_id,
        budget_id = linked.budget_id,
        agent_id = linked.agent_id,
        sync_day = context.sync_day,
        ingested_at = now()
    FROM sync_contexts AS context
    CROSS JOIN (
        SELECT one.transaction_id, card.card_id, budget.budget_id, holder.agent_id
        FROM stg_transaction_changes AS change
        JOIN transactions AS one ON one.transaction_id = change.transaction_id
        LEFT JOIN cards AS card ON card.card_id = one.source_card_id
        LEFT JOIN budgets AS budget ON budget.budget_id = one.source_budget_id
        LEFT JOIN card_holder_keys AS holder ON holder.key = coalesce(one.user_id, one.user_uuid)
    ) AS linked
    WHERE context.pipeline = 'transactions' AND transactions.transaction_id = linked.transaction_id;
END
$$;
COMMENT ON FUNCTION deskroll_link_spend IS
'Link cards and transactions to the budgets, cards and agents that are known now: some of these may have come since.';

-- migrate:down

DROP FUNCTION deskroll_link_spend;
DROP FUNCTION deskroll_match_holders;
DROP FUNCTION deskroll_idempotency_key;
DROP FUNCTION deskroll_kind;
DROP FUNCTION deskroll_fold;
