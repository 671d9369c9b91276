"""Files for auditors: `deskroll evidence`, and `deskroll export`."""

import csv
import hashlib
import io
import json
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from deskroll.errors import DeskrollError, UsageError
from deskroll.evidence import write_evidence
from deskroll.exports import write_export
from deskroll.settings import Settings
from deskroll.sync import Refused
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, group, role, transaction
from tests.helpers.runs import Sync

FORMULAS = [
    '=HYPERLINK("http://example.com")',
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "\r=1",
    "\uff1d1",
    "\u200b=1",
]


def settings(db: Database) -> Settings:
    return Settings(database_url=SecretStr(db.url))


@pytest.fixture
def three_days(dump: Dump, sync: Sync) -> None:
    """Agent 2 leaves on the 6th, and loses the card on the 7th and the role at once; on the 7th most would leave."""
    for day in (5, 6, 7):
        people = [1, 3, 4, 5] if day > 5 else [1, 2, 3, 4, 5]
        label = f"day{day}"
        some = [agent(n, role_ids=[10], contact={"name": f"Agent {n}" if n > 1 else FORMULAS[0]}) for n in people]
        dump.write(label, "agent_details", some)
        dump.write(label, "roles", [role(10)])
        dump.write(label, "admin_groups", [group(7, 1, 2)])
        dump.write(label, "budgets", [budget("b1", name='Trips, "all"\nof them')])
        dump.write(label, "cards", [card("c1", userId="u2", status="FROZEN" if day > 6 else "ACTIVATED")])
        dump.write(label, "transactions", [transaction("t1", userId="u2", userName="Agent 2")])
    dump.write("day5", "agent_details", [{"id": "bad"}])
    sync("day5", "2026-01-05")
    sync("day6", "2026-01-06")
    sync("day7", "2026-01-07")
    dump.write("day8", "agent_details", [agent(1)])
    with pytest.raises(Refused):
        sync("day8", "2026-01-08")
    sync("day8", "2026-01-08", allow_mass_change=True, reason="HR confirmed it")


def read(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(archive.read(name).decode(), newline="")))


@pytest.mark.usefixtures("three_days")
def test_evidence_has_what_was_true_and_what_became_so(db: Database, tmp_path: Path) -> None:
    files = write_evidence(settings(db), date(2026, 1, 7), date(2026, 1, 6), tmp_path / "e.zip")
    assert [file.name for file in tmp_path.iterdir() if "zip" in file.name] == ["e.zip"]
    assert (tmp_path / "e.zip").stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        manifest = json.loads(archive.read("MANIFEST.json"))
        assert archive.testzip() is None
        assert {*archive.namelist()} == {"MANIFEST.json", *(file.name for file in files)}
        for one in manifest["files"]:
            whole = archive.read(one["name"])
            assert (one["bytes"], one["sha256"]) == (len(whole), hashlib.sha256(whole).hexdigest()), one["name"]
            assert one["rows"] == len(read(archive, one["name"])), one["name"]
        assert (manifest["on"], manifest["since"]) == ("2026-01-07", "2026-01-06")
        assert {row["sync_date"] for row in manifest["published"]} == {"2026-01-07"}
        agents = {row["agent_id"]: row for row in read(archive, "agents.csv")}
        assert {key: row["is_active"] for key, row in agents.items()} == {
            "1": "true", "2": "false", "3": "true", "4": "true", "5": "true",
        }  # fmt: skip
        assert agents["1"]["name"] == "'" + FORMULAS[0]
        assert [(row["agent_id"], row["role"]) for row in read(archive, "roles.csv")] == [
            (n, "Role 10") for n in ("1", "3", "4", "5")
        ]
        assert [(row["group_id"], row["agent_id"]) for row in read(archive, "members.csv")] == [("7", "1"), ("7", "2")]
        assert [(row["card_id"], row["status"]) for row in read(archive, "cards.csv")] == [("c1", "FROZEN")]
        assert read(archive, "budgets.csv")[0]["name"] == 'Trips, "all"\nof them'
        assert [row["agent_id"] for row in read(archive, "leavers.csv")] == ["2"]
        assert {(row["kind"], row["id"]): row["revoked_on"] for row in read(archive, "revoked.csv")} == {
            ("card", "c1"): "2026-01-07", ("group", "7"): "", ("role", "10"): "2026-01-06",
        }  # fmt: skip
        assert [row["sync_date"] for row in read(archive, "runs.csv")] == ["2026-01-06", "2026-01-07"]
        for row in read(archive, "inputs.csv"):
            parts = (int(row[name]) for name in ("valid", "duplicates", "rejected"))
            assert int(row["records_read"]) == sum(parts)
        changed = {(row["change"], row["key"]) for row in read(archive, "changes.csv")}
        assert {("missing", "2"), ("removed", "2 10")} <= changed


@pytest.mark.usefixtures("three_days")
def test_evidence_has_refusals_and_who_allowed_what(db: Database, tmp_path: Path) -> None:
    write_evidence(settings(db), date(2026, 1, 8), None, tmp_path / "e.zip")
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        runs = read(archive, "runs.csv")
        assert [row["status"] for row in runs] == ["succeeded"] * 3 + ["refused", "succeeded"]
        assert "would be deactivated" in runs[3]["message"]
        guards = [row for row in read(archive, "guards.csv") if row["guarded"] == "active agents" and row["threshold"]]
        verdicts = [(row["refused"], row["allowed"], row["reason"]) for row in guards if row["changed"] == "3"]
        assert verdicts == [("true", "false", ""), ("false", "true", "HR confirmed it")]
        manifest = json.loads(archive.read("MANIFEST.json"))
        assert manifest["since"] == "2026-01-05"


@pytest.mark.usefixtures("three_days")
def test_what_is_asked_for_wrongly_writes_nothing(db: Database, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    on = date(2026, 1, 7)
    with pytest.raises(UsageError, match="later than --on"):
        write_evidence(settings(db), on, date(2026, 1, 8), out / "e.zip")
    with pytest.raises(UsageError, match="Nothing was published"):
        write_evidence(settings(db), date(2025, 1, 1), None, out / "e.zip")
    with pytest.raises(DeskrollError, match="cannot be written: No such file"):
        write_evidence(settings(db), on, None, out / "none" / "e.zip")
    with pytest.raises(UsageError, match="'agent' is not a table") as wrong:
        write_export(settings(db), "agent", None, out / "a.csv")
    assert "agents" in wrong.value.hint
    with pytest.raises(UsageError, match="'roles' is not kept by date"):
        write_export(settings(db), "roles", on, out / "a.csv")
    for hidden in ("stg_agents", "pg_shadow", "agents; DROP TABLE agents", 'agents"'):
        with pytest.raises(UsageError, match="is not a table"):
            write_export(settings(db), hidden, None, out / "a.csv")
    with pytest.raises(UsageError, match="names no format"):
        write_export(settings(db), "agents", None, out / "agents.xlsx")
    assert not list(out.iterdir())


@pytest.fixture
def odd(db: Database, dump: Dump, sync: Sync) -> list[dict[str, Any]]:
    """Agents whose titles a spreadsheet would run, numbers with many digits, and texts that CSV and JSON escape."""
    titles = [*FORMULAS, "plain", 'a "quoted", one', "two\nlines", "back\\slash", "tab\there", "é\u2028ö", ""]
    dump.write("day1", "agent_details", [
        agent(n, contact={"job_title": title}, deactivated=bool(n % 2)) for n, title in enumerate(titles, start=1)
    ])  # fmt: skip
    dump.write("day1", "agent_details", [{"id": "bad", "name": "\\."}])
    dump.write("day1", "budgets", [
        budget("b1", currentPeriod={"limit": 99.5, "assigned": 12345678901234567890.25, "overspendBuffer": 0.125}),
    ])  # fmt: skip
    sync("day1", "2026-01-05")
    return db.rows("SELECT agent_id, job_title, deactivated FROM agents ORDER BY agent_id")


def test_csv_is_read_as_it_was_but_for_what_a_spreadsheet_would_run(
    odd: list[dict[str, Any]], db: Database, tmp_path: Path
) -> None:
    count = write_export(settings(db), "agents", date(2026, 1, 5), tmp_path / "agents.csv")
    found = list(csv.DictReader(io.StringIO((tmp_path / "agents.csv").read_bytes().decode(), newline="")))
    assert count == len(found) == len(odd)
    for row, right in zip(found, odd, strict=True):
        title = right["job_title"] or ""
        runs = any(title.startswith(begin) for begin in FORMULAS)
        assert row["job_title"] == ("'" if runs else "") + title
    write_export(settings(db), "agents", date(2026, 1, 5), tmp_path / "raw.csv", as_is=True)
    raw = list(csv.DictReader(io.StringIO((tmp_path / "raw.csv").read_bytes().decode(), newline="")))
    assert [row["job_title"] for row in raw] == [right["job_title"] or "" for right in odd]


def test_json_and_parquet_keep_every_value(odd: list[dict[str, Any]], db: Database, tmp_path: Path) -> None:
    write_export(settings(db), "agents", None, tmp_path / "agents.json")
    rows = json.loads((tmp_path / "agents.json").read_text(encoding="utf-8"))
    kept = ("agent_id", "job_title", "deactivated")
    assert sorted(({k: row[k] for k in kept} for row in rows), key=lambda row: row["agent_id"]) == odd
    assert write_export(settings(db), "agents", None, tmp_path / "agents.parquet") == len(odd)
    with duckdb.connect() as engine:
        found = engine.execute(
            "SELECT agent_id, job_title, deactivated FROM read_parquet(?) ORDER BY 1",
            [str(tmp_path / "agents.parquet")],
        ).fetchall()
        assert [dict(zip(kept, row, strict=True)) for row in found] == odd
        write_export(settings(db), "budgets", None, tmp_path / "budgets.parquet")
        numbers = engine.execute(
            "SELECT limit_amount, assigned_amount, overspend_buffer, start_date, created_at FROM read_parquet(?)",
            [str(tmp_path / "budgets.parquet")],
        ).fetchone()
        (right,) = db.rows(
            "SELECT limit_amount, assigned_amount, overspend_buffer, start_date, created_at FROM budgets"
        )
        assert numbers == tuple(right.values())
        assert isinstance(numbers[1], Decimal)
        write_export(settings(db), "agent_pipeline_errors", None, tmp_path / "errors.parquet")
        (raw,) = (
            engine.execute("SELECT raw_record FROM read_parquet(?)", [str(tmp_path / "errors.parquet")]).fetchone()
            or ()
        )
        assert json.loads(raw)["name"] == "\\."


@pytest.mark.parametrize("name", ["leavers.csv", "leavers.json", "leavers.parquet"])
def test_what_has_no_rows_is_a_file_without_rows(name: str, odd: Any, db: Database, tmp_path: Path) -> None:
    assert write_export(settings(db), "leavers", None, tmp_path / name) == 0
    if name.endswith("json"):
        assert json.loads((tmp_path / name).read_text()) == []
    else:
        with duckdb.connect() as engine:
            assert engine.execute(f"SELECT count(*) FROM '{tmp_path / name}'").fetchall() == [(0,)]
