"""The transactions pipeline: what was spent, by whom, in what currency, and what that is in US dollars."""

from deskroll.currencies import EXPONENTS, RATES_PACKAGE, usd_rates
from deskroll.pipelines.selects import read_select
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
from deskroll.spec.pipeline import (
    Discrepancy,
    Event,
    Input,
    Pipeline,
    Publication,
    Relation,
    StagingTable,
    Tracked,
    in_the_future,
)

_CURRENCY = Type("VARCHAR", "a currency code of ISO 4217", pattern=f"^({'|'.join(EXPONENTS)})$")
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
    version_by="updated_time",
    is_dated=True,
    rules=(
        Rule("contains(given_id, '|')", "id: holds a |, which parts what the idempotency_key is made of"),
        Rule(
            "given_id__text IS NULL AND contains(transaction_id, '|')",
            "uuid: holds a |, which parts what the idempotency_key is made of",
        ),
        Rule(
            "coalesce(money, 'NULL') = 'NULL' AND amount__text IS NULL",
            "currencyData: missing, and the record has no amount in US dollars",
        ),
        Rule(
            "money = 'OBJECT' AND minor_units__text IS NULL",
            f"currencyData.originalCurrencyAmount: missing, expected {_MINOR_UNITS.label}",
        ),
        Rule(
            "money = 'OBJECT' AND original_currency__text IS NULL",
            f"currencyData.originalCurrencyCode: missing, expected {_CURRENCY.label}",
        ),
        Rule(
            f"exponent__text IS NULL AND original_currency IN ({_WITHOUT_MINOR_UNIT})",
            "currencyData.exponent: missing, and ISO 4217 has none for this currency",
        ),
    ),
    lookup=Lookup(
        "ecb_rate",
        needed_when=f"money = 'OBJECT' AND (payload_rate__text IS NULL OR {_NO_RATE})",
        text="original_currency",
        on="CAST(occurred_time AS DATE)",
        find=usd_rates,
        package=RATES_PACKAGE,
        message="currencyData.exchangeRate: missing, and the European Central Bank has none for currency and date",
    ),
)

_EXPONENTS = ", ".join(f"('{code}', {exponent})" for code, exponent in EXPONENTS.items() if exponent not in {None, 2})

_MATCHES = {"none": "card holders who match no agent", "several": "card holders who match several active agents"}


def _holders(match: str) -> Discrepancy:
    return Discrepancy(
        f"""SELECT '{_MATCHES[match]}', count(*), (array_agg(user_id ORDER BY user_id))[:3]
        FROM card_holders WHERE match = '{match}'"""
    )


# It is stored under another key than before, so that there is nothing to compare it with.
_IDENTIFIED = """SELECT change.transaction_id, one.merchant_name, NULL::JSONB,
    jsonb_build_object('transaction_id', one.transaction_id, 'transaction_uuid', one.transaction_uuid)
FROM stg_transaction_changes AS change JOIN transactions AS one ON one.transaction_id = change.transaction_id
WHERE change.change = 'identified'"""

TRANSACTIONS = Pipeline(
    inputs=(Input("transactions", "transactions", _CONTRACT),),
    relations=(Relation("currencies", f"SELECT * FROM (VALUES {_EXPONENTS}) AS currencies (currency, exponent)"),),
    staging=(
        StagingTable("stg_transactions", read_select("stg_transactions")),
        StagingTable("stg_card_holders", read_select("stg_card_holders")),
    ),
    publication=Publication(
        "transactions",
        file="040_upsert_transactions.sql",
        tables={"transactions": ("transactions",), "card_holders": ()},
        key=("transaction_id",),
        label_sql="""SELECT coalesce(merchant_name, raw_merchant_name, transaction_id) || ' ' || amount_usd || ' USD'
        FROM transactions WHERE transaction_id = %s""",
        tracked=(
            Tracked(
                "transactions",
                (
                    "transaction_uuid",
                    "transaction_type",
                    "occurred_time",
                    "user_id",
                    "user_uuid",
                    "user_name",
                    "merchant_name",
                    "raw_merchant_name",
                    "source_card_id",
                    "card_uuid",
                    "source_budget_id",
                    "budget_uuid",
                    "original_amount",
                    "original_currency",
                    "exchange_rate",
                    "fx_source",
                    "amount_usd",
                    "amount",
                ),
                changes=("added", "changed", "linked", "unlinked"),
                counted=("added", "linked", "unlinked"),  # thousands a day, and one for each new holder
            ),
        ),
        events=(Event("identified", _IDENTIFIED),),
        refresh_sql="SELECT deskroll_link_spend()",
        discrepancies=(
            in_the_future("transactions", "transaction_id", "updated_time"),
            in_the_future("transactions", "transaction_id", "occurred_time"),
            Discrepancy(
                """SELECT coalesce('unknown transaction_type ' || left(transaction_type, 60), 'no transaction_type')
                    || ', which is not spend: ' || sum(amount_usd) || ' USD',
                count(*), (array_agg(transaction_id ORDER BY transaction_id))[:3]
                FROM stg_transactions
                WHERE coalesce(deskroll_kind(transaction_type), '')
                    NOT IN ('AUTHORIZATION', 'CLEAR', 'DECLINE', 'OTHER')
                GROUP BY left(transaction_type, 60) ORDER BY 1""",
                kind="drift",
            ),
            Discrepancy(
                """SELECT 'amounts that are off the computed one by more than a cent', count(*),
                (array_agg(transaction_id ORDER BY transaction_id))[:3]
                FROM stg_transactions WHERE abs(amount - amount_usd) > 0.01"""
            ),
        ),
        standing_discrepancies=tuple(map(_holders, _MATCHES)),
    ),
    facts=(
        ("transactions", "SELECT count(*) FROM transactions"),
        *((label, f"SELECT count(*) FROM card_holders WHERE match = '{match}'") for match, label in _MATCHES.items()),
    ),
)
