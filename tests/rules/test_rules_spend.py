"""The rules of discrepancies of spend and of origin (docs/rules.md), each with tests named after it."""

import json
from datetime import date

from pydantic import SecretStr

from deskroll import queries
from deskroll.postgres.guards import Limits
from deskroll.settings import Settings
from deskroll.sync import Request
from deskroll.sync import sync_day as run
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, card, transaction
from tests.helpers.runs import Sync, messages
from tests.helpers.spend import spend


class TestDiscrepanciesOfSpend:
    """Discrepancies of spend."""

    def test_discrepancies_of_spend_are_counted_and_named_and_rejects_nothing(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        spend(dump, "day1", cards=[card("c1", status="LOST"), card("c2", status="LOST"), card("c3", type="PAPER")])
        some = [transaction(f"t{n}", amount=12.34 + n / 100) for n in range(3)]
        spend(
            dump,
            "day1",
            transactions=[*some, transaction("t9", transactionType="GIFT"), transaction("t8", amount=None)],
        )
        outcome = sync("day1", "2026-01-05")
        assert db.one("SELECT count(*) FROM cards") == 3
        assert db.one("SELECT count(*) FROM transactions") == 5
        assert [(d.discrepancy, d.rows, d.examples) for d in outcome.published.discrepancies] == [
            ("unknown status LOST", 2, ("c1", "c2")),
            ("unknown type PAPER", 1, ("c3",)),
            ("usable cards without a known holder", 3, ("c1", "c2", "c3")),
            ("unknown transaction_type GIFT, which is not spend: 12.34 USD", 1, ("t9",)),
            ("amounts that are off the computed one by more than a cent", 1, ("t2",)),
        ]
        rows = db.rows("SELECT pipeline, kind, drift, rows, examples FROM sync_run_drift WHERE drift LIKE '%%LOST'")
        assert rows == [
            {"pipeline": "cards", "kind": "drift", "drift": "unknown status LOST", "rows": 2, "examples": ["c1", "c2"]}
        ]
        spend(dump, "day2", cards=[card("c1", status="FROZEN")])
        sync("day2", "2026-01-06")
        told = queries.status(Settings(database_url=SecretStr(db.url)))["discrepancies"]
        odd = {row["pipeline"] for row in told if not row["discrepancy"].startswith("usable")}
        assert odd == {"transactions"}  # no card of the last day is odd


class TestOrigin:
    """Origin."""

    def test_origin_is_tran_for_the_folder_of_that_name(self, db: Database, dump: Dump) -> None:
        folder = dump.path / "tran" / "transactions"
        folder.mkdir(parents=True)
        (folder / "1.json").write_text(json.dumps({"results": [transaction("t1", cardId=None, budgetId=None)]}))
        request = Request(str(dump.path), "tran", date(2026, 1, 5))
        outcome = run(request, Settings(database_url=SecretStr(db.url)), Limits())
        assert db.rows("SELECT source, sync_day FROM transactions") == [{"source": "tran", "sync_day": "tran"}]
        (note,) = messages(outcome)
        assert note.startswith(
            "skipped because the day has none of their folders: agents (agent_details/, agents/), roles"
        )
        assert "cards (cards/)" in note
