"""Every folder that deskroll reads: records of it, and the rows that they become. One line a folder for many tests."""

from dataclasses import dataclass, field
from typing import Any

from tests.helpers.factories import agent, budget, card, transaction


@dataclass(frozen=True)
class Entity:
    """A folder.

    `good` is a record that belongs together with those of the other folders; `loaded` has the rows that it becomes, a
    condition for each table. `full` has a value of every kind that hostile input is to take the place of. With
    `is_enveloped` its vendor sends lists in an envelope.
    """

    folder: str
    good: dict[str, Any]
    full: dict[str, Any]
    loaded: dict[str, str] = field(default_factory=dict)
    is_enveloped: bool = False


_CHANNELS = [{"channel": "chat", "available": True, "available_since": None}]

ENTITIES = (
    Entity(
        "agent_details",
        agent(1, role_ids=[2], group_ids=[3]),
        agent(7, availability=_CHANNELS, group_ids=[1], role_ids=[2], available=True, created_at=None),
        {"agents": "agent_id = 1", "agent_role_mapping": "agent_id = 1 AND role_id IN (2, 4)"},
    ),
    Entity("agents", agent(1), agent(7, available=False, last_active_at="2026-01-01T00:00:00Z")),
    Entity(
        "roles",
        {"id": 2, "name": "R"},
        {"id": 7, "name": "R", "description": "", "default": True, "agent_type": 1, "created_at": None},
        {"roles": "role_id IN (2, 4)"},
    ),
    Entity("admin_roles", {"id": 4, "name": "R", "agent_ids": [1]}, {"id": 7, "name": "R", "agent_ids": [1]}),
    Entity(
        "admin_groups",
        {"id": 3, "name": "G", "agent_ids": [1]},
        {"id": 7, "name": "G", "agent_ids": [1], "parent_group_id": None},
        {"groups": "group_id = 3 AND NOT inactive", "group_membership": "group_id = 3 AND agent_id = 1"},
    ),
    Entity(
        "budgets",
        budget("b1"),
        budget("b7", retired=False, startDate="2026-01-01", currentPeriod={"limit": 1.5, "spent": {"total": 1}}),
        {"budgets": "budget_id = 'b1'"},
        is_enveloped=True,
    ),
    Entity(
        "cards",
        card("c1"),
        card("c7", shareBudgetFunds=True, recurringLimit=5, currentPeriod={"limit": 1, "spent": 0}),
        {"cards": "card_id = 'c1' AND budget_id = 'b1'"},
        is_enveloped=True,
    ),
    Entity(
        "transactions",
        transaction("t1"),
        transaction("t7", amount=12.34, userName="A", userId="u"),
        {"transactions": "transaction_id = 't1' AND card_id = 'c1'"},
        is_enveloped=True,
    ),
)
