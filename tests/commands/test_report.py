"""What is printed for a person."""

from typing import Any

import pytest
from pydantic import SecretStr

from deskroll import queries, report
from deskroll.settings import Settings
from tests.helpers.databases import Database


def group(group_id: int, name: str, parent: int | None) -> dict[str, Any]:
    counts = {"inactive": True, "members": 0, "active_members": 0}
    return {"group_id": group_id, "name": name, "parent_group_id": parent, **counts}


ZULU, XRAY, YANKEE, ALPHA, BETA, CHARLIE, ROOT = range(1, 8)
BELOW_A_CYCLE = [
    group(ALPHA, "Alpha", ZULU),
    group(BETA, "Beta", ALPHA),
    group(CHARLIE, "Charlie", YANKEE),
    group(ROOT, "Root", None),
    group(XRAY, "Xray", ZULU),
    group(YANKEE, "Yankee", XRAY),
    group(ZULU, "Zulu", YANKEE),
]


@pytest.mark.parametrize("inactive", [False, True])
def test_what_hangs_below_a_cycle_is_drawn_there_once(inactive: bool, capsys: pytest.CaptureFixture[str]) -> None:
    report.print_groups(BELOW_A_CYCLE, 10, inactive=inactive)
    drawn = [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert drawn == [
        "Root",
        "Zulu",
        "├── Alpha",
        "│   └── Beta",
        "└── Xray",
        "    └── Yankee",
        "        ├── Charlie",
        "        └── Zulu",
    ]


def test_a_cycle_is_drawn_with_as_many_levels_as_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    report.print_groups(BELOW_A_CYCLE, 2, inactive=False)
    drawn = capsys.readouterr().out.splitlines()
    assert drawn[-1] == "7 groups, 7 inactive"
    assert [line.partition(" (")[0].strip("├─└│ ") for line in drawn[:-1]] == [
        "Root", "Zulu", "Alpha", "… 1 more below", "Xray", "… 2 more below",
    ]  # fmt: skip


def test_status_after_hundreds_of_days_is_a_screen(db: Database, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    db.connection.execute(
        """INSERT INTO sync_runs (run_id, sync_day, sync_date, engine, status, started_at, finished_at, message)
        SELECT n, 'day' || n, DATE '2025-01-01' + n, 'duckdb', 'succeeded', now(), now(), NULL
        FROM generate_series(1, 300) AS n"""
    )
    for kind in ("agent", "role", "agent_role", "group", "budget", "card", "transaction"):
        db.connection.execute(
            f"""INSERT INTO {kind}_pipeline_errors (error_type, error_message, sync_day, run_id)
            SELECT kind, 'bad', 'day' || n, n FROM generate_series(1, 300) AS n,
                unnest(ARRAY['PARSE_ERROR', 'VALIDATION_ERROR', 'REFERENCE_ERROR']) AS kind
            UNION ALL SELECT 'PARSE_ERROR', 'bad', 'day300', 300"""
        )
    found = queries.status(Settings(database_url=SecretStr(url)))
    report.print_status(found)
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 60
    assert found["quarantine"][0] == {
        "pipeline": "agents",
        "error_type": "PARSE_ERROR",
        "count": 301,
        "days": 300,
        "newest_day": "day300",
        "of_newest_day": 2,
    }
    assert [run["sync_day"] for run in found["runs"]] == [f"day{n}" for n in range(300, 295, -1)]
