"""The budgets pipeline: what may be spent, and what was, in the current period of each budget."""

from deskroll.contract import BOOLEAN, DATE, DECIMAL, KEY, NOT_NEGATIVE, TEXT, Contract, column
from deskroll.pipelines.pipeline import Pipeline, Source, Staging
from deskroll.postgres.publish import Publication

_BUDGET = (
    column("budget_id", KEY, "id", required=True),
    column("budget_uuid", TEXT, "uuid"),
    column("name", TEXT, required=True),
    column("description", TEXT),
    column("retired", BOOLEAN),
    column("start_date", DATE, "startDate"),
    column("recurring_interval", TEXT, "recurringInterval"),
    column("timezone", TEXT),
    column("limit_amount", NOT_NEGATIVE, "currentPeriod.limit", required=True),
    column("overspend_buffer", DECIMAL, "currentPeriod.overspendBuffer"),
    column("assigned_amount", DECIMAL, "currentPeriod.assigned"),
    column("spent_cleared", DECIMAL, "currentPeriod.spent.cleared"),
    column("spent_pending", DECIMAL, "currentPeriod.spent.pending"),
    column("spent_total", DECIMAL, "currentPeriod.spent.total"),
)

BUDGETS = Pipeline(
    sources=(Source("budgets", "budgets", Contract("budgets", _BUDGET, key="budget_id")),),
    staging=(Staging("stg_budgets", f"SELECT {', '.join(f.name for f in _BUDGET)} FROM budgets_valid"),),
    publication=Publication(
        pipeline="budgets",
        file="030_upsert_budgets.sql",
        errors="budget_pipeline_errors",
        feeds={"budgets": ("budgets",)},
        changes="stg_budget_changes",
        key=("budget_id",),
        who="SELECT name FROM budgets WHERE budget_id = %s",
    ),
    facts=(("budgets", "SELECT count(*) FROM budgets"),),
)
