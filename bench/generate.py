"""Make a dump of any size from a seed, with the churn and the dirt of real ones.

    python bench/generate.py OUT --agents 50000 --days 2 --layout paged
    python bench/generate.py OUT --transactions 2000000 --days 2

The same arguments always make the same bytes. From day to day a share of the agents leaves the roster or returns, a
share changes, arrays come in another order without a change, and a few records are bad or stand twice.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from zlib import crc32

PAGE = 1000


def chance(*what: object) -> float:
    """A number from 0 to 1 that depends on nothing but its arguments."""
    return crc32(repr(what).encode()) / 2**32


@dataclass(frozen=True)
class Dump:
    """What a dump is made of: how many agents, and which shares of them change, come and go, or are bad, a day."""

    agents: int
    seed: int = 7
    change: float = 0.05
    churn: float = 0.03
    dirt: float = 0.002

    def master(self, day: int) -> Iterator[tuple[int, str]]:
        """The master list of a day: the id and the JSON of each agent; some stand twice."""
        for number in range(self.agents):
            agent_id = 71_000_000_000 + number
            record = self._record(number, day, is_master=True)
            yield agent_id, record
            if chance(self.seed, "twice", number, day) < self.dirt:
                yield agent_id, record

    def roster(self, day: int) -> Iterator[str]:
        """The roster of a day: the JSON of each agent on it."""
        for number in range(self.agents):
            if chance(self.seed, "off", number, day) >= self.churn:
                yield self._record(number, day, is_master=False)

    def _record(self, number: int, day: int, *, is_master: bool) -> str:
        changed = sum(chance(self.seed, "change", number, d) < self.change for d in range(2, day + 1))
        bad = chance(self.seed, "bad", number, day) < self.dirt and is_master
        kind = int(chance(self.seed, "kind", number) * 5)
        created = "not-a-timestamp" if bad and kind == 0 else "2022-05-26T08:26:55Z"
        agent_id = f'"{71_000_000_000 + number}"' if bad and kind == 1 else str(71_000_000_000 + number)
        groups = [71_000_500_000 + number * 7 % 2000, 71_000_502_000 + number * 13 % 500]
        channel = "null" if bad and kind == 2 else '"ticket"'
        channels = [
            f'{{"channel": {channel}, "available": false, "available_since": "2021-11-19T16:32:15.000Z"}}',
            f'{{"channel": "chat", "available": {json.dumps(changed % 2 == 0)}, "available_since": null}}',
        ]
        if chance(self.seed, "order", number, day) < 0.5:
            groups.reverse()
            channels.reverse()
        group_ids = json.dumps([*groups, "seven"] if bad and kind == 3 else groups)
        roles = [71_000_300_000 + number % 20, 71_000_300_000 + (number + changed) % 7]
        own = (
            f'"org_agent_id": "{400_000_000_000_000_000 + number}", "group_ids": {group_ids}, "role_ids":'
            f' {json.dumps(roles)}, "availability": [{", ".join(channels)}], '
            if is_master
            else ""
        )
        return (
            f'{{"id": {agent_id}, {own}"org_group_ids": [], "deactivated": false, "agent_operational_status":'
            f' "available", "available": {json.dumps(number % 2 == 0)}, "available_since": null, "occasional": false,'
            f' "ticket_scope": {1 + number % 3}, "skill_ids": [], "type": "support_agent", "last_active_at":'
            f' "2026-01-{1 + changed:02}T08:57:30Z", "created_at": "{created}", "updated_at":'
            f' "2026-01-{1 + changed:02}T08:57:{number % 60:02}Z", "signature": "<div dir=\\"ltr\\"><p>Kind regards'
            f'</p><p>Agent {number}</p></div>", "freshchat_agent": false, "contact": {{"active": true, "email":'
            f' "agent{number}@example.com", "job_title": "IT Support {changed}", "language": "en", "last_login_at":'
            f' "2026-01-02T21:35:16+05:30", "mobile": null, "name": "Agent {number}", "phone": "555{number:07}",'
            ' "time_zone": "Eastern Time (US & Canada)", "created_at": "2022-05-26T08:26:55Z", "updated_at":'
            ' "2022-08-31T17:53:32Z", "avatar": null}, "scope": 1, "focus_mode": true}'
        )

    def roles(self) -> Iterator[str]:
        """The roles, the same every day."""
        for number in range(20):
            yield json.dumps(
                {"id": 71_000_300_000 + number, "name": f"Role {number}", "default": number < 3, "agent_type": 1}
            )

    def groups(self, day: int) -> Iterator[str]:
        """The groups of a day, in a tree of eight children each, with the members whose own records name them."""
        members: dict[int, list[int]] = {}
        for number in range(self.agents):
            if chance(self.seed, "drift", number, day) >= self.dirt:
                for group in (number * 7 % 2000, 2000 + number * 13 % 500):
                    members.setdefault(group, []).append(71_000_000_000 + number)
        for number in range(2500):
            yield json.dumps(
                {
                    "id": 71_000_500_000 + number,
                    "name": f"Group {number}",
                    "parent_group_id": 71_000_500_000 + number // 8 if number else None,
                    "agent_ids": members.get(number, []),
                    "updated_at": "2026-01-01T00:00:00Z",
                }
            )


@dataclass(frozen=True)
class Spend:
    """A dump of card spend: how many transactions on the first day; the next day has those and `growth` more."""

    transactions: int
    seed: int = 7
    growth: float = 0.05
    change: float = 0.02
    dirt: float = 0.002

    @property
    def cards(self) -> int:
        """One card for every 200 transactions."""
        return self.transactions // 200 + 1

    def folders(self, day: int) -> dict[str, Iterator[str]]:
        """The records of each folder of a day."""
        budgets = (self._budget(number, day) for number in range(300))
        cards = (self._card(number, day) for number in range(self.cards))
        count = int(self.transactions * (1 + self.growth * (day - 1)))
        transactions = (self._transaction(number, day) for number in range(count))
        return {"budgets": budgets, "cards": cards, "transactions": transactions}

    def _budget(self, number: int, day: int) -> str:
        spent = round(chance(self.seed, "spent", number, day) * 10000, 2)
        period = {"limit": 20000, "overspendBuffer": 500, "spent": {"cleared": spent, "pending": 0, "total": spent}}
        times = {"startDate": "2025-04-23", "recurringInterval": "MONTHLY", "timezone": "US/Pacific"}
        ids = {"id": f"QnVkZ2V0{number}", "uuid": f"bgt_{number:025}"}
        return json.dumps({**ids, "name": f"Budget {number}", "retired": False, **times, "currentPeriod": period})

    def _card(self, number: int, day: int) -> str:
        what = {"id": f"Q2FyZDo{number}", "uuid": f"crd_{number:025}", "name": f"Card {number}"}
        state = {"lastFour": f"{number % 10000:04}", "validThru": "01/32", "status": "ACTIVATED", "type": "PHYSICAL"}
        times = {"createdTime": "2024-09-23T17:53:44.000+00:00", "updatedTime": "2024-12-05T19:31:42.000+00:00"}
        period = {"currentPeriod": {"limit": 27008.81, "spent": number % 900 + day / 100}}
        return json.dumps(what | self._links(number) | state | period | times)

    def _links(self, card: int) -> dict[str, str]:
        holder, budget = card * 4 // 5, card % 300
        user = {"userId": f"VXNlcjo{holder}", "userUuid": f"usr_{holder:025}"}
        return user | {"budgetId": f"QnVkZ2V0{budget}", "budgetUuid": f"bgt_{budget:025}"}

    def _transaction(self, number: int, day: int) -> str:
        card = int(chance(self.seed, "card", number) * self.cards)
        draw = chance(self.seed, "kind", number)
        code, exponent, unit = (("USD", 2, 1.0), ("GBP", 2, 1.35), ("JPY", 0, 0.0064), ("KWD", 3, 3.25))[int(draw * 4)]
        rate = 1 if code == "USD" else unit * (1 + draw / 100)
        units = 100 + int(chance(self.seed, "amount", number) * 1_000_000)
        changed = sum(chance(self.seed, "change", number, d) < self.change for d in range(2, day + 1))
        bad = chance(self.seed, "bad", number, day) < self.dirt
        moment = f"2026-01-{1 + number % 28:02}T17:{number % 60:02}"
        money = {"exchangeRate": rate, "exponent": exponent, "originalCurrencyAmount": "" if bad else str(units)}
        return json.dumps(
            {
                "id": f"VHJhbnNhY3Rpb246{number}",
                "uuid": f"txr_{number:025}",
                "childTransactionIds": [],
                "isParent": False,
                "transactionType": ("CLEAR", "AUTHORIZATION", "CLEAR", "DECLINE")[number % 4],
                **self._links(card),
                "userName": f"Agent {card * 4 // 5}",
                "rawMerchantName": "TOOLS 4U LTD",
                "merchantName": f"Tools 4U {changed}",
                "currencyData": {**money, "originalCurrencyCode": code, "symbol": "¤"},
                "occurredTime": f"{moment}:58.000+00:00",
                "updatedTime": f"{moment}:{changed:02}.000+00:00",
                "complete": True,
                "amount": round(units / 10**exponent * rate, 2),
                "fees": 0,
                "cardId": f"Q2FyZDo{card}",
                "cardUuid": f"crd_{card:025}",
                "cardLastFour": f"{card % 10000:04}",
                "cardType": "VIRTUAL_VENDOR",
                "merchantCategoryCode": "5072",
                "network": "VISA",
            }
        )


def write_spend(out: Path, dump: Spend, days: int) -> None:
    """Write the days of a dump of card spend, in pages as the API has them."""
    for day in range(1, days + 1):
        for name, records in dump.folders(day).items():
            folder = out / f"sync-day{day}" / name
            folder.mkdir(parents=True)
            _write_pages(folder, records, '{{"results": [{}], "nextPage": null}}')


def write(out: Path, dump: Dump, days: int, layout: str) -> None:
    """Write the days: `agent_details/` in pages or one file per agent, `agents/` in pages."""
    for day in range(1, days + 1):
        folder = out / f"sync-day{day}"
        (folder / "agent_details").mkdir(parents=True)
        (folder / "agents").mkdir()
        if layout == "files":
            for agent_id, record in dump.master(day):
                (folder / "agent_details" / f"{agent_id}.json").write_text(record)
        else:
            _write_pages(folder / "agent_details", (record for _, record in dump.master(day)))
        _write_pages(folder / "agents", dump.roster(day))
        for name, records in (("roles", dump.roles()), ("admin_groups", dump.groups(day))):
            (folder / name).mkdir()
            _write_pages(folder / name, records)


def _write_pages(folder: Path, records: Iterable[str], form: str = "[{}]") -> None:
    source = iter(records)
    for number, page in enumerate(iter(lambda: list(islice(source, PAGE)), []), start=1):
        (folder / f"{number}.json").write_text(form.format(", ".join(page)))


def main() -> None:
    """Make a dump as the command line says."""
    parser = argparse.ArgumentParser(description="Make a dump of any size from a seed.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--agents", type=int, default=50_000)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--layout", choices=["paged", "files"], default="paged")
    parser.add_argument("--change", type=float, default=0.05, help="share of agents that change a day")
    parser.add_argument("--churn", type=float, default=0.03, help="share of agents off the roster on a day")
    parser.add_argument("--dirt", type=float, default=0.002, help="share of records that are bad, or stand twice")
    parser.add_argument("--transactions", type=int, help="card spend instead of agents")
    given = parser.parse_args()
    if given.transactions:
        write_spend(given.out, Spend(given.transactions, given.seed), given.days)
        return
    write(given.out, Dump(given.agents, given.seed, given.change, given.churn, given.dirt), given.days, given.layout)


if __name__ == "__main__":
    main()
