"""A sync does not read again what staging holds already, and reads again whatever might have changed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deskroll.sync import Outcome
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import Sync, messages


@pytest.fixture
def file(dump: Dump, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("deskroll.input.dump.SETTLED_AFTER", 0)
    return dump.write("day1", "agent_details", [agent(1, group_ids=[7]), {"id": 2}])


def was_reused(outcome: Outcome) -> bool:
    return any(note.startswith("agents: ") and "not read them again" in note for note in messages(outcome))


def test_the_same_files_are_not_read_again_and_give_the_same(file: Path, db: Database, sync: Sync) -> None:
    first = sync("day1", "2026-01-05")
    before = db.versions()
    again = sync("day1", "2026-01-05")
    assert (was_reused(first), was_reused(again)) == (False, True)
    assert again.inputs == first.inputs
    assert again.published.errors == first.published.errors
    assert db.versions() == before
    assert [t.staged for t in again.published.tables] == [t.staged for t in first.published.tables]
    sync("day1", "2026-01-06")  # another date: the same files, a new row of history
    assert db.one("SELECT count(*) FROM agent_status_history") == 2


def with_old_times(file: Path) -> None:
    times = file.stat()
    file.write_text(file.read_text().replace("Agent 1", "Agent 9"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES: dict[str, Callable[[Path, Database], object]] = {
    "content": lambda file, db: file.write_text(file.read_text().replace("Agent 1", "Agent 9")),
    "content, with the old times": lambda file, db: with_old_times(file),
    "a new file": lambda file, db: file.with_name("x.json").write_text("[]"),
    "a file gone": lambda file, db: file.unlink(),
    "a folder gone": lambda file, db: file.parent.rename(file.parents[1] / "agents"),
    "staging edited": lambda file, db: db.connection.execute("UPDATE stg_agents SET name = 'edited'"),
    "staging emptied": lambda file, db: db.connection.execute("DELETE FROM stg_agent_group_membership"),
    "staging added to": lambda file, db: db.connection.execute("INSERT INTO stg_agent_details VALUES (9)"),
    "errors emptied": lambda file, db: db.connection.execute("DELETE FROM stg_pipeline_errors"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_read(change: str, file: Path, db: Database, sync: Sync) -> None:
    sync("day1", "2026-01-05")
    CHANGES[change](file, db)
    outcome = sync("day1", "2026-01-05", allow_mass_change=True)
    assert not was_reused(outcome)
    assert db.one("SELECT count(*) FROM stg_agents WHERE name = 'edited'") == 0
    if "content" in change:
        assert db.one("SELECT name FROM agents") == "Agent 9"


def test_a_file_that_changed_a_moment_ago_is_read_again(dump: Dump, db: Database, sync: Sync) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    sync("day1", "2026-01-05")
    assert not was_reused(sync("day1", "2026-01-05"))
