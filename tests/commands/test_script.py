"""`deskroll sql … --transform`: the script that it prints makes of a day's files what a run stages of them."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from deskroll.pipelines import PIPELINES, Pipeline
from deskroll.transform.script import write_script
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, group, role, transaction
from tests.helpers.runs import Shell

DAY = "2026-01-05"
MADE_HERE = {"ingested_at", "amount_usd"}  # by PostgreSQL, and not by the engine


@pytest.fixture
def day(dump: Dump) -> Path:
    """A day with valid records, duplicates, bad records and bad elements, in files of several shapes."""
    lists = {
        "availability": [
            {"channel": "chat", "available": True},
            {"channel": "", "available": "?"},
            {"available": True},
        ],
        "group_ids": [7, "x", 8],
        "role_ids": [3],
    }
    dump.write(DAY, "agent_details", [agent(1, **lists), agent(1), agent(2, deactivated="?"), {"id": 9}])
    dump.write(DAY, "agent_details", agent(4, deactivated=True))
    dump.write(DAY, "agents", {"agents": [agent(1), agent(2, role_ids=[3, 4]), agent(5, name=None)]})
    dump.write(DAY, "roles", [role(3), role(4, updated_at="?")])
    dump.write(DAY, "admin_roles", [role(3, agent_ids=[1, "x"]), role(4, agent_ids=[1])])
    dump.write(DAY, "admin_groups", [group(7, 1, 2), group(8, parent=7), group("x")])
    dump.write(DAY, "budgets", {"results": [budget("b1"), budget("b2", name=None)]})
    dump.write(DAY, "cards", {"results": [card("c1", budgetId="b1"), card("c1", updatedTime="2026-01-06T00:00:00Z")]})
    return dump.write(
        DAY, "transactions", [transaction("t1"), (transaction("t2") | {"currencyData": None, "amount": 1.5}), {}]
    ).parent.parent


def canonical(value: Any) -> str:
    """A value as text; DuckDB writes JSON without spaces, where deskroll keeps the text of the file."""
    return "" if value is None else str(value).replace(" ", "")


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.name)
def test_the_script_makes_what_a_run_stages(
    pipeline: Pipeline, day: Path, shell: Shell, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = shell.run("stage", day.parent, "--day", DAY, "--only", pipeline.name)
    assert staged.returncode == 0, staged.stderr
    monkeypatch.chdir(day)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(write_script(pipeline, date.fromisoformat(DAY), "duckdb"))
        for table in (*(one.table for one in pipeline.staging), "stg_pipeline_errors"):
            rows = db.rows(f"SELECT * FROM {table}")
            names = sorted({*(rows[0] if rows else ())} - MADE_HERE)
            if not rows:
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
                continue
            selected = connection.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall()
            assert sorted([canonical(v) for v in row] for row in selected) == sorted(
                [canonical(row[name]) for name in names] for row in rows
            ), table


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.name)
def test_the_script_of_spark_has_every_step(pipeline: Pipeline, shell: Shell) -> None:
    done = shell.run("sql", pipeline.name, "--transform", "--engine", "spark")
    assert done.returncode == 0, done.stderr
    for one in pipeline.inputs:
        assert f"-- {one.folder}_read" in done.stdout or f"VIEW {one.folder}_read" in done.stdout
        assert f"VIEW {one.folder}_valid AS" in done.stdout
    for table in pipeline.staging:
        assert f"VIEW {table.table} AS" in done.stdout
    assert "EXCLUDE" not in "".join(line for line in done.stdout.splitlines() if not line.startswith("--"))
    assert json.dumps(pipeline.name) not in done.stderr
