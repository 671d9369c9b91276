"""Records and dumps for tests; all of it invented."""

import itertools
import json
from pathlib import Path
from typing import Any


class Dump:
    """A dump that a test writes: `dump.write("day1", "agents", [...])`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = itertools.count(1)

    def write(self, day: str, folder: str, content: Any, name: str | None = None) -> Path:
        """Write JSON, or bytes as they are, into a file; a folder alone where the content is None."""
        where = self.path / f"sync-{day}" / folder
        where.mkdir(parents=True, exist_ok=True)
        if content is None:
            return where
        file = where / (name or f"{next(self._number):04}.json")
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return file


def agent(agent_id: Any, **changed: Any) -> dict[str, Any]:
    """A valid master-list record; keyword arguments replace members, a dict for `contact` is merged."""
    contact = {"email": f"a{agent_id}@example.com", "name": f"Agent {agent_id}"} | (changed.pop("contact", None) or {})
    return {"id": agent_id, "contact": contact, "updated_at": "2026-01-01T00:00:00Z"} | changed


def role(role_id: int, **more: Any) -> dict[str, Any]:
    """A valid role."""
    return {"id": role_id, "name": f"Role {role_id}", **more}


def group(group_id: Any, *agent_ids: Any, parent: Any = None) -> dict[str, Any]:
    """A valid group with these members."""
    return {"id": group_id, "name": f"Group {group_id}", "agent_ids": list(agent_ids), "parent_group_id": parent}


def budget(budget_id: str, **changed: Any) -> dict[str, Any]:
    """A valid budget; keyword arguments replace members."""
    return {"id": budget_id, "name": f"Budget {budget_id}", "currentPeriod": {"limit": 100}} | changed


def card(card_id: str, **changed: Any) -> dict[str, Any]:
    """A valid card of budget b1."""
    made = {"status": "ACTIVATED", "type": "PHYSICAL", "createdTime": "2025-01-01T00:00:00.000+00:00"}
    return {"id": card_id, "name": f"Card {card_id}", "budgetId": "b1", **made} | changed


def transaction(transaction_id: str, **changed: Any) -> dict[str, Any]:
    """A valid transaction of 12.34 dollars with card c1; a dict for `currencyData` is merged."""
    money = {"originalCurrencyAmount": "1234", "originalCurrencyCode": "USD", "exponent": 2, "exchangeRate": 1}
    links = {"cardId": "c1", "budgetId": "b1", "transactionType": "CLEAR"}
    times = {"occurredTime": "2026-01-05T12:00:00.000+00:00", "updatedTime": "2026-01-05T12:00:01.000+00:00"}
    money |= changed.pop("currencyData", {})
    return {"id": transaction_id, "uuid": f"u-{transaction_id}", **links, **times, "currencyData": money} | changed
