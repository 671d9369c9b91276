"""The cards pipeline: every card, what may be spent with it, and the budget and the agent that it belongs to."""

from deskroll.spec.contract import BOOLEAN, DECIMAL, KEY, TEXT, TIMESTAMP, Contract, column
from deskroll.spec.pipeline import (
    Discrepancy,
    Input,
    Pipeline,
    Publication,
    StagingTable,
    Tracked,
    in_the_future,
    unknown_values,
)

_CARD = (
    column("card_id", KEY, "id", required=True),
    column("card_uuid", TEXT, "uuid"),
    column("name", TEXT),
    column("user_id", KEY, "userId"),
    column("user_uuid", KEY, "userUuid"),
    column("source_budget_id", KEY, "budgetId"),
    column("budget_uuid", TEXT, "budgetUuid"),
    column("last_four", TEXT, "lastFour"),
    column("valid_thru", TEXT, "validThru"),
    column("status", TEXT, required=True),
    column("type", TEXT, required=True),
    column("share_budget_funds", BOOLEAN, "shareBudgetFunds"),
    column("recurring", BOOLEAN),
    column("recurring_limit", DECIMAL, "recurringLimit"),
    column("current_limit", DECIMAL, "currentPeriod.limit"),
    column("current_spent", DECIMAL, "currentPeriod.spent"),
    column("created_time", TIMESTAMP, "createdTime", required=True),
    column("updated_time", TIMESTAMP, "updatedTime"),
)

_CONTRACT = Contract("cards", _CARD, key="card_id", version_by="updated_time", is_dated=True)

_STG_CARDS = f"""SELECT {", ".join(f.name for f in _CARD)}, source_file, record_index, is_superseded AS is_rejected,
    ordered_time
FROM cards_valid"""

_UNKNOWN_HOLDERS = Discrepancy(
    """SELECT 'usable cards without a known holder', count(*), (array_agg(card_id ORDER BY card_id))[:3]
    FROM cards_without_known_holder"""
)

CARDS = Pipeline(
    inputs=(Input("cards", "cards", _CONTRACT),),
    staging=(StagingTable("stg_cards", _STG_CARDS),),
    publication=Publication(
        "cards",
        file="031_upsert_cards.sql",
        key=("card_id",),
        label_sql="SELECT coalesce(name, card_id) FROM cards WHERE card_id = %s",
        tracked=(
            Tracked(
                "cards",
                (
                    "card_uuid",
                    "name",
                    "user_id",
                    "user_uuid",
                    "source_budget_id",
                    "budget_uuid",
                    "last_four",
                    "valid_thru",
                    "status",
                    "type",
                    "share_budget_funds",
                    "recurring",
                    "recurring_limit",
                    "current_limit",
                    "created_time",
                    "budget_id",
                    "agent_id",
                ),
                changes=("added", "changed", "linked"),
            ),
        ),
        discrepancies=(
            in_the_future("cards", "card_id", "updated_time"),
            in_the_future("cards", "card_id", "created_time"),
            unknown_values("stg_cards", "card_id", "status", "ACTIVATED", "NOT_ACTIVATED", "FROZEN", "DELETED"),
            unknown_values("stg_cards", "card_id", "type", "PHYSICAL", "VIRTUAL_MEMBER", "VIRTUAL_VENDOR"),
            Discrepancy(
                """SELECT 'card limits below zero', count(*), (array_agg(card_id ORDER BY card_id))[:3]
                FROM stg_cards WHERE least(current_limit, recurring_limit) < 0"""
            ),
        ),
        standing_discrepancies=(_UNKNOWN_HOLDERS,),
    ),
    facts=(
        ("cards", "SELECT count(*) FROM cards"),
        ("cards of inactive agents that can still be used", "SELECT count(*) FROM cards_of_inactive_agents"),
        ("usable cards without a known holder", "SELECT count(*) FROM cards_without_known_holder"),
    ),
)
