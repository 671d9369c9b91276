-- Minor units become an amount by moving the point in their digits; PostgreSQL multiplies and rounds, in NUMERIC.
-- A record without currencyData gives an amount in US dollars.
WITH scaled AS (
    SELECT
        today.* EXCLUDE (exponent),
        CAST(abs(today.minor_units) AS VARCHAR) AS units,
        coalesce(today.exponent, currencies.exponent, 2) AS decimals
    FROM transactions_valid AS today
    LEFT JOIN currencies ON currencies.currency = today.original_currency
),

padded AS (
    SELECT *, lpad(units, CAST(greatest(length(units), decimals + 1) AS INTEGER), '0') AS digits FROM scaled
),

priced AS (
    SELECT
        * EXCLUDE (original_currency),
        coalesce(original_currency, 'USD') AS original_currency,
        CASE
            WHEN minor_units IS NULL THEN amount
            ELSE
                CASE WHEN minor_units < 0 THEN '-' ELSE '' END || left(digits, length(digits) - decimals)
                || CASE WHEN decimals > 0 THEN '.' || right(digits, decimals) ELSE '' END
        END AS original_amount
    FROM padded
)

SELECT
    -- columns of transactions: {}
    transaction_id, transaction_uuid, transaction_type, occurred_time, updated_time, user_id, user_uuid, user_name,
    merchant_name, raw_merchant_name, source_card_id, card_uuid, source_budget_id, budget_uuid, original_currency,
    amount, original_auth_transaction_id, original_auth_transaction_uuid, clearing_reference, parent_transaction_id,
    parent_transaction_uuid,
    -- end of columns
    ordered_time,
    original_amount,
    given_id IS NOT NULL AS is_identified,
    source_file,
    record_index,
    is_superseded AS is_rejected,
    CASE WHEN minor_units IS NULL THEN '1' ELSE coalesce(ecb_rate, payload_rate) END AS exchange_rate,
    CASE WHEN minor_units IS NULL THEN 'amount' WHEN ecb_rate IS NULL THEN 'payload' ELSE 'ecb' END AS fx_source,
    sha256(
        concat_ws(
            '|', transaction_id, transaction_uuid, strftime(occurred_time, '%Y-%m-%d %H:%M:%S.%f'), original_amount,
            original_currency
        )
    ) AS idempotency_key
FROM priced;
