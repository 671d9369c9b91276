"""The budgets pipeline: what may be spent, and what was, in the current period of each budget."""

from deskroll.spec.contract import BOOLEAN, DATE, DECIMAL, JSON_KIND, KEY, NOT_NEGATIVE, TEXT, Contract, Rule, column
from deskroll.spec.pipeline import Input, Pipeline, Publication, StagingTable, Tracked

_BUDGET = (
    column("budget_id", KEY, "id", required=True),
    column("budget_uuid", TEXT, "uuid"),
    column("name", TEXT, required=True),
    column("description", TEXT),
    column("retired", BOOLEAN),
    column("start_date", DATE, "startDate"),
    column("recurring_interval", TEXT, "recurringInterval"),
    column("timezone", TEXT),
    column("limitless", BOOLEAN, "limitlessOverspend"),
    column("period", JSON_KIND, "currentPeriod"),
    column("limit_amount", NOT_NEGATIVE, "currentPeriod.limit"),
    column("overspend_buffer", DECIMAL, "currentPeriod.overspendBuffer"),
    column("assigned_amount", DECIMAL, "currentPeriod.assigned"),
    column("spent_cleared", DECIMAL, "currentPeriod.spent.cleared"),
    column("spent_pending", DECIMAL, "currentPeriod.spent.pending"),
    column("spent_total", DECIMAL, "currentPeriod.spent.total"),
)

_LIMIT_MISSING = Rule(
    "period = 'OBJECT' AND limit_amount__text IS NULL AND NOT coalesce(limitless, false)",
    "currentPeriod.limit: missing, expected a number that is not negative, or limitlessOverspend",
)

_CONTRACT = Contract("budgets", _BUDGET, key="budget_id", rules=(_LIMIT_MISSING,))

_STG_BUDGETS = f"""SELECT {", ".join(f.name for f in _BUDGET if f.name != "period")},
    period IS NOT NULL AS has_period, is_superseded AS is_rejected
FROM budgets_valid"""

BUDGETS = Pipeline(
    inputs=(Input("budgets", "budgets", _CONTRACT),),
    staging=(StagingTable("stg_budgets", _STG_BUDGETS),),
    publication=Publication(
        "budgets",
        file="030_upsert_budgets.sql",
        key=("budget_id",),
        tracked=(
            Tracked(
                "budgets",
                (
                    "budget_uuid",
                    "name",
                    "description",
                    "retired",
                    "start_date",
                    "recurring_interval",
                    "timezone",
                    "limitless",
                    "limit_amount",
                    "overspend_buffer",
                ),
            ),
        ),
    ),
    facts=(("budgets", "SELECT count(*) FROM budgets"),),
)
