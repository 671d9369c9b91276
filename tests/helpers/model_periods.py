"""What tables of periods must hold: the state of every published date, in the order of dates, in the fewest rows."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from tests.helpers import model
from tests.helpers.databases import Database

Key = tuple[Any, ...]
Values = tuple[Any, ...]
Snapshot = Mapping[str, Mapping[Key, Values]]
VALUES = ("email", "name", "job_title", "language", "mobile", "phone", "time_zone")
# Each table, its key and its values.
TABLES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "agent_periods": (("agent_id",), ("is_active", *VALUES, "org_agent_id", "ticket_scope")),
    "agent_group_periods": (("agent_id", "group_id"), ()),
    "agent_role_periods": (("agent_id", "role_id"), ()),
    "group_periods": (("group_id",), ("name", "parent_group_id", "inactive")),
    "group_member_periods": (("group_id", "agent_id"), ()),
    "budget_periods": (("budget_id",), ("name", "limit_amount", "retired")),
    "card_periods": (("card_id",), ("status", "user_id", "budget_id")),
}


def snapshot(state: model.State) -> Snapshot:
    """What is true when a date is published, of all that periods keep."""

    def details(agent_id: int) -> Values:
        known = state.details.get(agent_id, {})
        return known.get("org_agent_id"), known.get("ticket_scope")

    return {
        "agent_periods": {
            (agent_id,): (row["status"] == "active", *(row[name] for name in VALUES), *details(agent_id))
            for agent_id, row in state.agents.items()
        },
        "agent_group_periods": dict.fromkeys(state.membership, ()),
        "agent_role_periods": {pair: () for pair, (status, *_) in state.mapping.items() if status == "assigned"},
        "group_periods": {
            (group_id,): (row["name"], row["source_parent_group_id"], row["inactive"])
            for group_id, row in state.groups.items()
        },
        "group_member_periods": dict.fromkeys(state.group_membership | state.waiting_members, ()),
    }


def in_order(dump: Path, days: list[tuple[str, date]]) -> dict[str, set[tuple[Any, ...]]]:
    """The rows of each table after these days, published in the order of their dates."""
    state, budgets, cards = model.State(), dict[Key, Values](), dict[Key, tuple[str, Values]]()
    dates: dict[date, Snapshot] = {}
    for day, on in sorted(days, key=lambda one: one[1]):
        model.sync(state, dump, day, on)
        _add_budgets(budgets, dump / f"sync-{day}" / "budgets" / "1.json")
        _add_cards(cards, dump / f"sync-{day}" / "cards" / "1.json")
        spend = {"budget_periods": dict(budgets), "card_periods": {key: values for key, (_, values) in cards.items()}}
        dates[on] = {**snapshot(state), **spend}
    return {table: set(_rows(table, dates)) for table in TABLES}


def _add_budgets(budgets: dict[Key, Values], path: Path) -> None:
    """The newest date wins; a record without currentPeriod says nothing of the limit."""
    for one in json.loads(path.read_text()) if path.exists() else ():
        known = budgets.get((one["id"],), (None, None, None))
        limit = (one["currentPeriod"] or {}).get("limit") if "currentPeriod" in one else known[1]
        budgets[one["id"],] = (one["name"], limit, one["retired"])


def _add_cards(cards: dict[Key, tuple[str, Values]], path: Path) -> None:
    """The newest version wins, whatever its date."""
    for one in json.loads(path.read_text()) if path.exists() else ():
        version = one.get("updatedTime", "")
        if (one["id"],) not in cards or version >= cards[one["id"],][0]:
            cards[one["id"],] = version, (one["status"], one.get("userId"), one.get("budgetId"))


def _rows(table: str, dates: Mapping[date, Snapshot]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for key in {key for of_date in dates.values() for key in of_date[table]}:
        before: Values | None = None
        since: date | None = None
        for on, of_date in dates.items():
            values = of_date[table].get(key)
            if values != before:
                if before is not None:
                    rows.append((*key, since, on, *before))
                before, since = values, on
        if before is not None:
            rows.append((*key, since, None, *before))
    return rows


def stored(db: Database) -> dict[str, set[tuple[Any, ...]]]:
    """The rows of each table as they are."""
    found = {}
    for table, (key, values) in TABLES.items():
        columns = ", ".join((*key, "valid_from", "valid_to", *values))
        found[table] = {tuple(row.values()) for row in db.rows(f"SELECT {columns} FROM {table}")}
    return found


def check_shape(db: Database) -> None:
    """No two periods of a key overlap, and no two that touch are equal."""
    for table, (key, values) in TABLES.items():
        same = " AND ".join(f"one.{name} = other.{name}" for name in key)
        equal = " AND ".join(f"one.{name} IS NOT DISTINCT FROM other.{name}" for name in values) or "true"
        wrong = db.rows(
            f"""SELECT * FROM {table} AS one JOIN {table} AS other ON {same} AND one.valid_from < other.valid_from
            WHERE one.valid_to IS NULL OR one.valid_to > other.valid_from
                OR (one.valid_to = other.valid_from AND {equal})"""
        )
        assert not wrong, (table, wrong)
