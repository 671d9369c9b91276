"""The transactions pipeline: what was spent, by whom, in what currency, and what that is in US dollars."""

from deskroll.contract import (
    DECIMAL,
    DIGIT,
    KEY,
    POSITIVE,
    TEXT,
    TIMESTAMP,
    Contract,
    Lookup,
    Rule,
    Type,
    column,
)
from deskroll.currencies import EXPONENTS, RATES_PACKAGE, usd_rates
from deskroll.pipelines.pipeline import Pipeline, Source, Staging
from deskroll.postgres.publish import Drift, Publication, unknown_values

_CURRENCY = Type("VARCHAR", "a currency code of ISO 4217", form=f"^({'|'.join(EXPONENTS)})$")
_MINOR_UNITS = Type("BIGINT", "a whole number of minor units, of at most 18 digits", form="^-?[0-9]{1,18}$")
_WITHOUT_MINOR_UNIT = ", ".join(f"'{code}'" for code, exponent in EXPONENTS.items() if exponent is None)

_CONTRACT = Contract(
    "transactions",
    (
        column("transaction_id", KEY, "id", required=True),
        column("transaction_uuid", TEXT, "uuid", required=True),
        column("transaction_type", TEXT, "transactionType"),
        column("occurred_time", TIMESTAMP, "occurredTime", required=True),
        column("updated_time", TIMESTAMP, "updatedTime"),
        column("user_id", KEY, "userId"),
        column("user_uuid", TEXT, "userUuid"),
        column("user_name", TEXT, "userName"),
        column("merchant_name", TEXT, "merchantName"),
        column("raw_merchant_name", TEXT, "rawMerchantName"),
        column("source_card_id", KEY, "cardId"),
        column("card_uuid", TEXT, "cardUuid"),
        column("source_budget_id", KEY, "budgetId"),
        column("budget_uuid", TEXT, "budgetUuid"),
        column("minor_units", _MINOR_UNITS, "currencyData.originalCurrencyAmount", required=True),
        column("exponent", DIGIT, "currencyData.exponent"),
        column("original_currency", _CURRENCY, "currencyData.originalCurrencyCode", required=True),
        column("payload_rate", POSITIVE, "currencyData.exchangeRate"),
        column("amount", DECIMAL),
        column("original_auth_transaction_id", TEXT, "originalAuthTransactionId"),
        column("original_auth_transaction_uuid", TEXT, "originalAuthTransactionUuid"),
        column("clearing_reference", TEXT, "clearingReference"),
    ),
    key="transaction_id",
    newest="updated_time",
    rules=(
        Rule("contains(transaction_id, '|')", "id: holds a |, which parts what the idempotency_key is made of"),
        Rule(
            f"exponent__text IS NULL AND original_currency IN ({_WITHOUT_MINOR_UNIT})",
            "currencyData.exponent: missing, and ISO 4217 has none for this currency",
        ),
    ),
    lookup=Lookup(
        "ecb_rate",
        wanted="payload_rate__text IS NULL",
        text="original_currency",
        on="CAST(occurred_time AS DATE)",
        find=usd_rates,
        package=RATES_PACKAGE,
        message="currencyData.exchangeRate: missing, and the European Central Bank has none for currency and date",
    ),
)

_PLAIN = (
    "transaction_id, transaction_uuid, transaction_type, occurred_time, updated_time, user_id, user_uuid, user_name,"
    " merchant_name, raw_merchant_name, source_card_id, card_uuid, source_budget_id, budget_uuid, original_currency,"
    " amount, original_auth_transaction_id, original_auth_transaction_uuid, clearing_reference, source_file,"
    " record_index"
)
_BY_CURRENCY = " ".join(
    f"WHEN '{code}' THEN {exponent}" for code, exponent in EXPONENTS.items() if exponent not in {None, 2}
)

# Minor units become an amount by moving the point in their digits; PostgreSQL multiplies and rounds, in NUMERIC.
_STG_TRANSACTIONS = f"""WITH scaled AS (
    SELECT *, CAST(abs(minor_units) AS VARCHAR) AS units,
        coalesce(exponent, CASE original_currency {_BY_CURRENCY} ELSE 2 END) AS decimals
    FROM transactions_valid
), padded AS (
    SELECT *, lpad(units, CAST(greatest(length(units), decimals + 1) AS INTEGER), '0') AS digits FROM scaled
), priced AS (
    SELECT *, CASE WHEN minor_units < 0 THEN '-' ELSE '' END || left(digits, length(digits) - decimals)
        || CASE WHEN decimals > 0 THEN '.' || right(digits, decimals) ELSE '' END AS original_amount
    FROM padded
)
SELECT {_PLAIN}, original_amount,
    coalesce(payload_rate, ecb_rate) AS exchange_rate,
    CASE WHEN payload_rate IS NULL THEN 'ecb' ELSE 'payload' END AS fx_source,
    sha256(concat_ws('|', transaction_id, transaction_uuid, strftime(occurred_time, '%Y-%m-%d %H:%M:%S.%f'),
        original_amount, original_currency)) AS idempotency_key
FROM priced"""

# A person may go by several names in a day: the one that was used last counts.
_STG_CARD_HOLDERS = """SELECT user_id, user_name, updated_time
FROM (
    SELECT user_id, user_name, updated_time,
        row_number() OVER (PARTITION BY user_id ORDER BY updated_time DESC NULLS LAST, user_name DESC) AS nth
    FROM (
        SELECT user_id, user_name, max(updated_time) AS updated_time FROM transactions_valid
        WHERE user_id IS NOT NULL AND user_name IS NOT NULL GROUP BY user_id, user_name
    )
)
WHERE nth = 1"""

TRANSACTIONS = Pipeline(
    sources=(Source("transactions", "transactions", _CONTRACT),),
    staging=(
        Staging("stg_transactions", _STG_TRANSACTIONS),
        Staging("stg_card_holders", _STG_CARD_HOLDERS),
    ),
    publication=Publication(
        pipeline="transactions",
        file="040_upsert_transactions.sql",
        errors="transaction_pipeline_errors",
        feeds={"transactions": ("transactions",), "card_holders": ()},
        changes="stg_transaction_changes",
        key=("transaction_id",),
        who="""SELECT coalesce(merchant_name, raw_merchant_name, transaction_id) || ' ' || amount_usd || ' USD'
        FROM transactions WHERE transaction_id = %s""",
        otherwise="SELECT deskroll_link_spend()",
        drift=(
            unknown_values(
                "stg_transactions", "transaction_id", "transaction_type", "AUTHORIZATION", "CLEAR", "DECLINE", "OTHER"
            ),
            Drift(
                """SELECT 'amounts that are off the computed one by more than a cent', count(*),
                (array_agg(transaction_id ORDER BY transaction_id))[:3]
                FROM stg_transactions WHERE abs(amount - amount_usd) > 0.01"""
            ),
        ),
    ),
    facts=(("transactions", "SELECT count(*) FROM transactions"),),
)
