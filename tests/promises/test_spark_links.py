"""Links out of the dump, with the Spark engine: tasks open files by the same rule, also those of a `file:` URL."""

import json
from pathlib import Path

import pytest

from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import sync_into
from tests.promises.test_links import LEADS_OUT, SECRET

pytestmark = pytest.mark.usefixtures("spark")


@pytest.mark.parametrize("scheme", ["", "file://localhost"])
def test_tasks_follow_no_link_out_of_the_dump(
    scheme: str, db: Database, dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deskroll.engines.spark._TASK_BYTES", 64 * 1024)
    outside = tmp_path / "outside"
    outside.mkdir()
    line = json.dumps(agent(66, signature=SECRET)) + "\n"
    (outside / "lines").write_text(line * 5000)
    place = dump.write("day1", "agent_details", [agent(1)], "0.json").parent
    (place / "a.ndjson").symlink_to(outside / "lines")
    (place / "b.json.gz").symlink_to("/proc/self/environ")
    (dump.path / "sync-day1" / "roles").symlink_to(outside)
    sync_into(db.url, f"{scheme}{dump.path}", "day1", "2026-01-05", "spark")
    assert db.status() == {1: "active"}
    errors = db.rows("SELECT source_file, error_message, raw_record FROM stg_pipeline_errors ORDER BY 1")
    assert {(e["error_message"], e["raw_record"]) for e in errors} == {(LEADS_OUT, None)}
    files = {e["source_file"] for e in errors}
    assert files == {"agent_details/a.ndjson", "agent_details/b.json.gz", "roles/"}
