"""The rules of purchases (docs/rules.md), and the table of them, line by line."""

import re
import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from deskroll import queries
from deskroll.settings import Settings
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, transaction
from tests.helpers.runs import Sync
from tests.helpers.spend import money, spend
from tests.rules.test_model import empty


@dataclass(frozen=True)
class Purchase:
    """A line of the table of purchases in docs/rules.md."""

    number: int
    records: list[str]
    expected: tuple[int, int, int]

    def transaction(self, text: str, newest: date, link: str) -> dict[str, Any]:
        """A record such as `b: CLEAR 150 of a`; it leads to others by `Id` or by `Uuid`."""
        found = re.fullmatch(
            r"(\w): (\w+) (-?\d+)( EUR)?(?: of (\w))?(?: part of (\w))?(?: ref (\d))?(?:, (\d+) days ago)?", text
        )
        assert found, text
        name, kind, amount, is_euro, leads_to, part_of, reference, days = found.groups()
        rate = {"originalCurrencyCode": "EUR", "exchangeRate": "1.08"} if is_euro else {}
        prefix = "" if link == "Id" else "u-"
        links = {"originalAuthTransaction": leads_to, "parentTransaction": part_of}
        return transaction(
            self.key(name),
            transactionType=kind,
            cardId=f"card {self.number}",
            clearingReference=reference or "",
            occurredTime=f"{newest - timedelta(days=int(days or 1))}T12:00:00Z",
            **{f"{field}{link}": prefix + self.key(other) for field, other in links.items() if other},
            **money(originalCurrencyAmount=int(amount) * 100, **rate),
        )

    def key(self, name: str) -> str:
        return f"{self.number} {name}"


def purchases() -> list[Purchase]:
    page = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text()
    lines = re.findall(r"^    \|[^|]+\|(.*`.*)\| (-?\d+) \| (-?\d+) \| (-?\d+) \|$", page, re.MULTILINE)
    return [
        Purchase(number, re.findall("`(.+?)`", records), (int(settled), int(pending), int(stale)))
        for number, (records, settled, pending, stale) in enumerate(lines)
    ]


class TestSpend:
    """Spend."""

    def count(self, db: Database, dump: Dump, sync: Sync, *some: dict[str, Any], on: str = "2026-01-20") -> Any:
        """Sync some transactions; returns what was settled and what is pending, by month."""
        spend(dump, "day1", transactions=list(some))
        sync("day1", on)
        rows = db.rows(
            """SELECT month::TEXT, sum(settled_usd) AS settled, sum(pending_usd) AS pending
            FROM spend_by_month GROUP BY month ORDER BY month"""
        )
        return {row["month"][:7]: (row["settled"], row["pending"]) for row in rows}

    @staticmethod
    def one(name: str, kind: str | None, cents: int, month: int = 1, **links: Any) -> dict[str, Any]:
        when = f"2026-{month:02}-15T12:00:00Z"
        amount = money(originalCurrencyAmount=cents)
        return transaction(name, transactionType=kind, occurredTime=when, **amount, **links)

    def test_spend_of_the_purchases_on_the_rules_page(self, db: Database, dump: Dump, sync: Sync) -> None:
        """All of them at once, in every order in which up to four records can arrive on four days."""
        table, newest = purchases(), date(2026, 1, 8)
        assert len(table) > 25
        expected = {f"card {p.number}": p.expected for p in table}
        for number, order in enumerate(permutations(range(4))):
            shutil.rmtree(dump.path, ignore_errors=True)
            empty(db)
            for day, place in enumerate(order):
                some = [
                    p.transaction(p.records[place], newest, "Uuid" if number % 2 else "Id")
                    for p in table
                    if place < len(p.records)
                ]
                spend(dump, f"day{day}", transactions=some)
                sync(f"day{day}", str(newest - timedelta(days=3 - day)))
            found = dict.fromkeys(expected, (0, 0, 0)) | {
                row["card"]: (row["settled"], row["pending"], row["stale"])
                for row in db.rows(
                    """SELECT source_card_id AS card,
                        coalesce(sum(amount_usd) FILTER (WHERE state = 'settled'), 0) AS settled,
                        coalesce(sum(amount_usd) FILTER (WHERE state = 'pending'), 0) AS pending,
                        coalesce(sum(amount_usd) FILTER (WHERE state = 'stale'), 0) AS stale
                    FROM (SELECT transaction_id, state, amount_usd FROM spend_records) AS counted
                    JOIN (SELECT transaction_id, source_card_id FROM transactions) AS one USING (transaction_id)
                    GROUP BY 1"""
                )
            }
            assert found == expected, order
            sums = "sum(settled_usd) AS settled, sum(pending_usd) AS pending, sum(stale_usd) AS stale"
            (row,) = db.rows(f"SELECT {sums} FROM spend_by_month")
            assert tuple(row.values()) == tuple(map(sum, zip(*expected.values(), strict=True)))

    @pytest.mark.parametrize(
        "link",
        [
            {"originalAuthTransactionId": "auth"},
            {"originalAuthTransactionUuid": "u-auth"},
            {"clearingReference": "r1"},
            {"originalAuthTransactionId": "gone", "originalAuthTransactionUuid": "u-auth"},
            {"originalAuthTransactionId": "fee", "originalAuthTransactionUuid": "u-auth"},
            {"originalAuthTransactionUuid": "u-fee", "clearingReference": "r1"},
        ],
    )
    def test_spend_counts_a_purchase_once_in_its_own_month(
        self, link: dict[str, str], db: Database, dump: Dump, sync: Sync
    ) -> None:
        some = [
            self.one("auth", "AUTHORIZATION", 10000, clearingReference="r1"),
            self.one("fee", "OTHER", 500),
            self.one("clear", "CLEAR", 10100, month=2, **link),
        ]
        assert self.count(db, dump, sync, *some) == {"2026-01": (101, 0)}

    def test_spend_is_not_settled_by_an_empty_reference(self, db: Database, dump: Dump, sync: Sync) -> None:
        links: Any = {"clearingReference": "", "originalAuthTransactionId": "", "originalAuthTransactionUuid": ""}
        some = [self.one("one", "AUTHORIZATION", 500, **links), self.one("other", "CLEAR", 100, **links)]
        assert self.count(db, dump, sync, *some) == {"2026-01": (1, 5)}

    def test_spend_is_not_settled_by_the_reference_of_another_card(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [
            self.one("one", "AUTHORIZATION", 500, clearingReference="r"),
            self.one("other", "CLEAR", 100, clearingReference="r", cardId="c2"),
            self.one("by uuid", "AUTHORIZATION", 700, clearingReference="r", cardId=None, cardUuid="k"),
            self.one("by it too", "CLEAR", 800, clearingReference="r", cardId=None, cardUuid="k"),
        ]
        assert self.count(db, dump, sync, *some) == {"2026-01": (9, 5)}

    def test_spend_of_another_type_is_none(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [self.one("no", "DECLINE", 500), self.one("fee", "OTHER", 7), self.one("odd", None, 3)]
        assert self.count(db, dump, sync, *some, self.one("yes", "Clear", 1)) == {"2026-01": (Decimal("0.01"), 0)}

    def test_spend_is_less_what_came_back(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [
            self.one("auth", "AUTHORIZATION", 10000),
            self.one("clear", "CLEAR", 10000, originalAuthTransactionId="auth"),
            self.one("refund", "CLEAR", -4000, month=3, originalAuthTransactionId="auth"),
            self.one("back", "AUTHORIZATION", -700, month=3),
            self.one("paid back", "CLEAR", -700, month=4, originalAuthTransactionId="back"),
        ]
        assert self.count(db, dump, sync, *some) == {"2026-01": (100, 0), "2026-03": (-47, 0)}
        assert db.one("SELECT sum(refunded_of_settled_usd) FROM spend_by_month") == -47

    def test_spend_that_nothing_settled_in_45_days_is_shown_apart(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [self.one("old", "AUTHORIZATION", 500), self.one("new", "AUTHORIZATION", 700, month=2)]
        assert self.count(db, dump, sync, *some, on="2026-03-01") == {"2026-01": (0, 5), "2026-02": (0, 7)}
        spend(dump, "day2", transactions=[])
        sync("day2", "2026-03-02")
        assert db.rows("SELECT month::TEXT, pending_usd, stale_usd FROM spend_by_month ORDER BY month") == [
            {"month": "2026-01-01", "pending_usd": 0, "stale_usd": 5},
            {"month": "2026-02-01", "pending_usd": 7, "stale_usd": 0},
        ]
        assert db.one("SELECT transaction_id FROM spend") == "new"
        assert db.one("SELECT transaction_id FROM stale_authorizations") == "old"

    def test_spend_of_parts_counts_by_their_budgets_only_without_the_whole(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        spend(dump, "day0", budgets=[budget("b1"), budget("b2")])
        sync("day0", "2026-01-20")
        parts = [
            self.one("p1", "CLEAR", 6000, parentTransactionUuid="u-whole"),
            self.one("p2", "CLEAR", 4000, parentTransactionId="whole", parentTransactionUuid="", budgetId="b2"),
            self.one("own", "CLEAR", 100, parentTransactionId="own", budgetId=None),
        ]
        by_budget = "SELECT budget_id, settled_usd FROM spend_by_month ORDER BY budget_id"
        self.count(db, dump, sync, *parts)
        assert [tuple(row.values()) for row in db.rows(by_budget)] == [("b1", 60), ("b2", 40), (None, 1)]
        self.count(db, dump, sync, self.one("whole", "CLEAR", 10000))
        assert [tuple(row.values()) for row in db.rows(by_budget)] == [("b1", 100), (None, 1)]

    def test_spend_of_many_records_that_lead_to_one(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [self.one(f"{n}", "AUTHORIZATION", 100, originalAuthTransactionId="0") for n in range(1, 3000)]
        chain = [self.one(f"c{n}", "AUTHORIZATION", 100, originalAuthTransactionId=f"c{n + 1}") for n in range(300)]
        same = [self.one(f"r{n}", "AUTHORIZATION", 100, clearingReference="n/a") for n in range(3000)]
        assert self.count(db, dump, sync, *some, *chain, *same) == {"2026-01": (0, 2999 + 300 + 3000)}
        assert db.one("SELECT count(DISTINCT purchase_id) FROM spend") == 3

    def test_spend_is_told_with_card_budget_holder_and_agent(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        spend(dump, "day1", budgets=[budget("b1")], cards=[card("c1", lastFour="0072", userId="u")])
        self.count(
            db,
            dump,
            sync,
            transaction("t", userId="u", userName="AGENT 1"),
            transaction("x", cardId=None, budgetId=None),
        )
        told = db.rows("SELECT * FROM card_transactions WHERE transaction_id = 't'")[0]
        names = ("card_name", "last_four", "budget_name", "holder_name", "agent_name", "agent_status", "amount_usd")
        assert [told[name] for name in names] == [
            "Card c1", "0072", "Budget b1", "AGENT 1", "Agent 1", "active", Decimal("12.34"),
        ]  # fmt: skip
        assert db.one("SELECT count(*) FROM card_transactions") == 2

    def test_spend_with_a_card_of_somebody_who_left_is_shown(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, deactivated=True), agent(2)])
        states = ("ACTIVATED", "NOT_ACTIVATED", "FROZEN", "DELETED", "ODD")
        spend(dump, "day1", cards=[card(f"{n}-{s}", status=s, userId=f"u{n}") for s in states for n in (1, 2)])
        spend(dump, "day1", transactions=[transaction(f"t{n}", userId=f"u{n}", userName=f"Agent {n}") for n in (1, 2)])
        sync("day1", "2026-01-05")
        found = {row["card_id"] for row in db.rows("SELECT card_id FROM cards_of_inactive_agents")}
        assert found == {"1-ACTIVATED", "1-NOT_ACTIVATED", "1-ODD"}
        told = queries.status(Settings(database_url=SecretStr(db.url)))
        assert told["facts"]["cards of inactive agents that can still be used"] == 3

    def test_spend_with_such_a_card_was_last_on(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, deactivated=True)])
        spend(dump, "day1", cards=[card("c1", userId="u"), card("c2", userId="u")])
        kinds = [("CLEAR", 2), ("AUTHORIZATION", 5), (None, 4), ("CLEAR", 3), ("DECLINE", 6)]
        some = [self.one(f"t{n}", kind, 1, n, cardId="c1", userId="u", userName="Agent 1") for kind, n in kinds]
        self.count(db, dump, sync, *some)
        rows = db.rows("SELECT card_id, last_used_at FROM cards_of_inactive_agents")
        assert {row["card_id"]: row["last_used_at"] and row["last_used_at"].month for row in rows} == {
            "c1": 5, "c2": None,
        }  # fmt: skip
