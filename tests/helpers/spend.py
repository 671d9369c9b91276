"""What the tests of spend share: a day of spend, and what became of it."""

from typing import Any

from deskroll.sync import Outcome
from tests.helpers.databases import Database
from tests.helpers.factories import Dump

NEW, OLD = "2026-01-05T00:00:00Z", "2026-01-04T00:00:00Z"


def spend(dump: Dump, day: str, **folders: list[Any]) -> None:
    """Write folders of a day, as the spend API answers."""
    for folder, records in folders.items():
        dump.write(day, folder, {"results": records, "nextPage": None})


def money(**changed: Any) -> dict[str, Any]:
    return {"currencyData": changed}


def spent(db: Database) -> dict[str, Any]:
    return {
        row["transaction_id"]: (str(row["original_amount"]), str(row["amount_usd"]), row["fx_source"])
        for row in db.rows("SELECT transaction_id, original_amount, amount_usd, fx_source FROM transactions")
    }


def errors(db: Database, name: str = "transaction") -> dict[str, str]:
    rows = db.rows(f"SELECT {name}_id AS id, error_message FROM {name}_pipeline_errors")
    return {row["id"]: row["error_message"] for row in rows}


def told(outcome: Outcome) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(d.discrepancy, d.rows, d.examples) for d in outcome.published.discrepancies]
