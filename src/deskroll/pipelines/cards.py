"""The cards pipeline: every card, what may be spent with it, and the budget and the agent that it belongs to."""

from deskroll.contract import BOOLEAN, DECIMAL, KEY, NOT_NEGATIVE, TEXT, TIMESTAMP, Contract, column
from deskroll.pipelines.pipeline import Pipeline, Source, Staging
from deskroll.postgres.publish import Publication, unknown_values

_CARD = (
    column("card_id", KEY, "id", required=True),
    column("card_uuid", TEXT, "uuid"),
    column("name", TEXT),
    column("user_id", KEY, "userId"),
    column("user_uuid", TEXT, "userUuid"),
    column("source_budget_id", KEY, "budgetId"),
    column("budget_uuid", TEXT, "budgetUuid"),
    column("last_four", TEXT, "lastFour"),
    column("valid_thru", TEXT, "validThru"),
    column("status", TEXT, required=True),
    column("type", TEXT, required=True),
    column("share_budget_funds", BOOLEAN, "shareBudgetFunds"),
    column("recurring", BOOLEAN),
    column("recurring_limit", DECIMAL, "recurringLimit"),
    column("current_limit", NOT_NEGATIVE, "currentPeriod.limit"),
    column("current_spent", DECIMAL, "currentPeriod.spent"),
    column("created_time", TIMESTAMP, "createdTime", required=True),
    column("updated_time", TIMESTAMP, "updatedTime"),
)

CARDS = Pipeline(
    sources=(Source("cards", "cards", Contract("cards", _CARD, key="card_id", newest="updated_time")),),
    staging=(
        Staging("stg_cards", f"SELECT {', '.join(f.name for f in _CARD)}, source_file, record_index FROM cards_valid"),
    ),
    publication=Publication(
        pipeline="cards",
        file="031_upsert_cards.sql",
        errors="card_pipeline_errors",
        feeds={"cards": ("cards",)},
        changes="stg_card_changes",
        key=("card_id",),
        who="SELECT coalesce(name, card_id) FROM cards WHERE card_id = %s",
        drift=(
            unknown_values("stg_cards", "card_id", "status", "ACTIVATED", "NOT_ACTIVATED", "FROZEN", "DELETED"),
            unknown_values("stg_cards", "card_id", "type", "PHYSICAL", "VIRTUAL_MEMBER", "VIRTUAL_VENDOR"),
        ),
    ),
    facts=(
        ("cards", "SELECT count(*) FROM cards"),
        ("cards of inactive agents that can still be used", "SELECT count(*) FROM cards_of_inactive_agents"),
    ),
)
