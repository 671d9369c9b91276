"""The transactions pipeline: what was spent, by whom, in what currency, and what that is in US dollars."""

from deskroll.currencies import EXPONENTS, RATES_PACKAGE, usd_rates
from deskroll.spec.contract import (
    DECIMAL,
    DIGIT,
    JSON_KIND,
    KEY,
    NOT_NEGATIVE,
    TEXT,
    TIMESTAMP,
    Contract,
    Lookup,
    Rule,
    Type,
    column,
    integer,
)
from deskroll.spec.pipeline import ORDERED_TIME, Drift, Pipeline, Publication, Source, Staging, in_the_future

_CURRENCY = Type("VARCHAR", "a currency code of ISO 4217", form=f"^({'|'.join(EXPONENTS)})$")
_MINOR_UNITS = integer("BIGINT", "a whole number of minor units, of at most 18 digits", 18)
_WITHOUT_MINOR_UNIT = ", ".join(f"'{code}'" for code, exponent in EXPONENTS.items() if exponent is None)
# A record of a purchase that was declined may give a rate of zero, which is none.
_NO_RATE = "regexp_matches(payload_rate__text, '^-?0+([.]0+)?([eE].*)?$')"

_CONTRACT = Contract(
    "transactions",
    (
        column("transaction_id", KEY, "id", "uuid", required=True),
        column("given_id", KEY, "id"),
        column("transaction_uuid", KEY, "uuid"),
        column("transaction_type", TEXT, "transactionType"),
        column("occurred_time", TIMESTAMP, "occurredTime", required=True),
        column("updated_time", TIMESTAMP, "updatedTime"),
        column("user_id", KEY, "userId"),
        column("user_uuid", KEY, "userUuid"),
        column("user_name", TEXT, "userName"),
        column("merchant_name", TEXT, "merchantName"),
        column("raw_merchant_name", TEXT, "rawMerchantName"),
        column("source_card_id", KEY, "cardId"),
        column("card_uuid", TEXT, "cardUuid"),
        column("source_budget_id", KEY, "budgetId"),
        column("budget_uuid", TEXT, "budgetUuid"),
        column("money", JSON_KIND, "currencyData"),
        column("minor_units", _MINOR_UNITS, "currencyData.originalCurrencyAmount"),
        column("exponent", DIGIT, "currencyData.exponent"),
        column("original_currency", _CURRENCY, "currencyData.originalCurrencyCode"),
        column("payload_rate", NOT_NEGATIVE, "currencyData.exchangeRate"),
        column("amount", DECIMAL),
        column("original_auth_transaction_id", TEXT, "originalAuthTransactionId"),
        column("original_auth_transaction_uuid", TEXT, "originalAuthTransactionUuid"),
        column("clearing_reference", TEXT, "clearingReference"),
        column("parent_transaction_id", TEXT, "parentTransactionId"),
        column("parent_transaction_uuid", TEXT, "parentTransactionUuid"),
    ),
    key="transaction_id",
    newest="updated_time",
    is_dated=True,
    rules=(
        Rule("contains(given_id, '|')", "id: holds a |, which parts what the idempotency_key is made of"),
        Rule(
            "given_id__text IS NULL AND contains(transaction_id, '|')",
            "uuid: holds a |, which parts what the idempotency_key is made of",
        ),
        Rule(
            "coalesce(money, 'NULL') = 'NULL' AND amount__text IS NULL",
            "currencyData: missing, and there is no amount in US dollars",
        ),
        Rule(
            "money = 'OBJECT' AND minor_units__text IS NULL",
            f"currencyData.originalCurrencyAmount: missing, expected {_MINOR_UNITS.called}",
        ),
        Rule(
            "money = 'OBJECT' AND original_currency__text IS NULL",
            f"currencyData.originalCurrencyCode: missing, expected {_CURRENCY.called}",
        ),
        Rule(
            f"exponent__text IS NULL AND original_currency IN ({_WITHOUT_MINOR_UNIT})",
            "currencyData.exponent: missing, and ISO 4217 has none for this currency",
        ),
    ),
    lookup=Lookup(
        "ecb_rate",
        wanted=f"money = 'OBJECT' AND (payload_rate__text IS NULL OR {_NO_RATE})",
        text="original_currency",
        on="CAST(occurred_time AS DATE)",
        find=usd_rates,
        package=RATES_PACKAGE,
        message="currencyData.exchangeRate: missing, and the European Central Bank has none for currency and date",
    ),
)

_PLAIN = (
    "transaction_id, transaction_uuid, transaction_type, occurred_time, updated_time, user_id, user_uuid, user_name,"
    " merchant_name, raw_merchant_name, source_card_id, card_uuid, source_budget_id, budget_uuid, amount,"
    " original_auth_transaction_id, original_auth_transaction_uuid, clearing_reference, parent_transaction_id,"
    " parent_transaction_uuid, source_file, record_index"
)
_BY_CURRENCY = " ".join(
    f"WHEN '{code}' THEN {exponent}" for code, exponent in EXPONENTS.items() if exponent not in {None, 2}
)

# Minor units become an amount by moving the point in their digits; PostgreSQL multiplies and rounds, in NUMERIC. A
# record without currencyData gives an amount in US dollars.
_STG_TRANSACTIONS = f"""WITH scaled AS (
    SELECT *, CAST(abs(minor_units) AS VARCHAR) AS units,
        coalesce(exponent, CASE original_currency {_BY_CURRENCY} ELSE 2 END) AS decimals
    FROM transactions_valid
), padded AS (
    SELECT *, lpad(units, CAST(greatest(length(units), decimals + 1) AS INTEGER), '0') AS digits FROM scaled
), priced AS (
    SELECT * EXCLUDE (original_currency), coalesce(original_currency, 'USD') AS original_currency,
        CASE WHEN minor_units IS NULL THEN amount
            ELSE CASE WHEN minor_units < 0 THEN '-' ELSE '' END || left(digits, length(digits) - decimals)
                || CASE WHEN decimals > 0 THEN '.' || right(digits, decimals) ELSE '' END
        END AS original_amount
    FROM padded
)
SELECT {_PLAIN}, original_amount, original_currency, given_id IS NOT NULL AS is_identified,
    is_superseded AS is_rejected,
    {ORDERED_TIME},
    CASE WHEN minor_units IS NULL THEN '1' ELSE coalesce(ecb_rate, payload_rate) END AS exchange_rate,
    CASE WHEN minor_units IS NULL THEN 'amount' WHEN ecb_rate IS NULL THEN 'payload' ELSE 'ecb' END AS fx_source,
    sha256(concat_ws('|', transaction_id, transaction_uuid, strftime(occurred_time, '%Y-%m-%d %H:%M:%S.%f'),
        original_amount, original_currency)) AS idempotency_key
FROM priced CROSS JOIN sync"""

# A person may go by several names in a day: the one that was used last counts.
_STG_CARD_HOLDERS = f"""WITH named AS (
    SELECT coalesce(user_id, user_uuid) AS user_id, user_uuid, user_name,
        {ORDERED_TIME}
    FROM transactions_valid CROSS JOIN sync
    WHERE coalesce(user_id, user_uuid) IS NOT NULL AND user_name IS NOT NULL
), told AS (
    SELECT user_id, user_name, max(user_uuid) AS user_uuid, max(ordered_time) AS updated_time
    FROM named GROUP BY user_id, user_name
), ranked AS (
    SELECT user_id, user_name, updated_time, max(user_uuid) OVER (PARTITION BY user_id) AS user_uuid,
        row_number() OVER (PARTITION BY user_id ORDER BY updated_time DESC NULLS LAST, user_name DESC) AS nth
    FROM told
)
SELECT user_id, user_uuid, user_name, updated_time FROM ranked WHERE nth = 1"""

_MATCHES = {"none": "card holders who match no agent", "several": "card holders who match several active agents"}


def _holders(match: str) -> Drift:
    return Drift(
        f"""SELECT '{_MATCHES[match]}', count(*), (array_agg(user_id ORDER BY user_id))[:3]
        FROM card_holders WHERE match = '{match}'"""
    )


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
            in_the_future("transactions", "transaction_id", "updated_time"),
            in_the_future("transactions", "transaction_id", "occurred_time"),
            Drift(
                """SELECT coalesce('unknown transaction_type ' || left(transaction_type, 60), 'no transaction_type')
                    || ', which is not spend: ' || sum(amount_usd) || ' USD',
                count(*), (array_agg(transaction_id ORDER BY transaction_id))[:3]
                FROM stg_transactions
                WHERE coalesce(deskroll_kind(transaction_type), '')
                    NOT IN ('AUTHORIZATION', 'CLEAR', 'DECLINE', 'OTHER')
                GROUP BY left(transaction_type, 60) ORDER BY 1"""
            ),
            Drift(
                """SELECT 'amounts that are off the computed one by more than a cent', count(*),
                (array_agg(transaction_id ORDER BY transaction_id))[:3]
                FROM stg_transactions WHERE abs(amount - amount_usd) > 0.01"""
            ),
        ),
        always=tuple(map(_holders, _MATCHES)),
    ),
    facts=(
        ("transactions", "SELECT count(*) FROM transactions"),
        *((label, f"SELECT count(*) FROM card_holders WHERE match = '{match}'") for match, label in _MATCHES.items()),
    ),
)
