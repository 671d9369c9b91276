"""Links and special files: nothing out of the dump is read, not even a byte of it, whatever leads there."""

import gzip
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deskroll.engines.duckdb import DuckDB
from deskroll.errors import InputError
from deskroll.input import files
from deskroll.input.dump import Folder, find_day, list_folder
from deskroll.input.files import Unreadable, open_bytes, open_file
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import Sync

SECRET = "S3cr3t"
LEADS_OUT = "the file is a link that leads out of the dump"
SELECT = """SELECT source_file, record_index, record, raw, fault,
    CASE WHEN record IS NULL AND fault IS NULL THEN 'UNREAD' END AS error_type FROM records"""
LARGE = json.dumps([agent(n, signature="x" * 1000) for n in range(10, 400)]).encode()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the dump, with what nobody is to see."""
    folder = tmp_path / "outside" / "agent_details"
    folder.mkdir(parents=True)
    (folder / "secret").write_text(f"db.example:5432:*:svc:{SECRET}")
    (folder / "plain.json").write_text(json.dumps([agent(66, signature=SECRET)]))
    (folder / "large.json").write_bytes(LARGE.replace(b"xxx", SECRET.encode()))
    (folder / "lines.ndjson").write_bytes((json.dumps(agent(67, signature=SECRET)) + "\n").encode() * 2000)
    return folder


def to_secret(place: Path, outside: Path) -> None:
    (place / "a.json").symlink_to(outside / "secret")


def to_json(place: Path, outside: Path) -> None:
    (place / "a.json").symlink_to(outside / "plain.json")


def to_large(place: Path, outside: Path) -> None:
    (place / "a.json").symlink_to(outside / "large.json")


def to_lines(place: Path, outside: Path) -> None:
    (place / "a.ndjson").symlink_to(outside / "lines.ndjson")


def to_packed(place: Path, outside: Path) -> None:
    (outside / "secret.gz").write_bytes(gzip.compress(SECRET.encode()))
    (place / "a.json.gz").symlink_to(outside / "secret.gz")


def to_environment(place: Path, _: Path) -> None:
    (place / "a.json.gz").symlink_to("/proc/self/environ")


def to_environment_plain(place: Path, _: Path) -> None:
    (place / "a.json").symlink_to("/proc/self/environ")


def to_device(place: Path, _: Path) -> None:
    (place / "a.json").symlink_to("/dev/zero")


def by_chain(place: Path, outside: Path) -> None:
    (place / "chain").symlink_to(outside / "secret")
    (place / "a.json").symlink_to(place / "chain")


def by_parents(place: Path, outside: Path) -> None:
    (place / "a.json").symlink_to(os.path.relpath(outside / "secret", place))


def by_folder(place: Path, outside: Path) -> None:
    (place / "chain").symlink_to(outside)
    (place / "a.json").symlink_to(place / "chain" / "plain.json")


def to_folder(place: Path, outside: Path) -> None:
    (place / "a.json").symlink_to(outside)


Leader = Callable[[Path, Path], None]
LEADERS: list[Leader] = [
    to_secret, to_json, to_large, to_lines, to_packed, to_environment, to_environment_plain, to_device, by_chain,
    by_parents, by_folder, to_folder,
]  # fmt: skip


def read(folder: Folder) -> tuple[bool, list[dict[str, Any]]]:
    """Whether a folder could be read to its end, and all rows of it."""
    with DuckDB("400MB", threads=1) as engine:
        is_complete, _ = engine.read(folder, SELECT, "found")
        rows = engine.fetch("SELECT * FROM found ORDER BY source_file, record_index")
    return is_complete, [
        dict(zip(["file", "index", "record", "raw", "fault", "kind"], row, strict=True)) for row in rows
    ]


def listed(dump: Dump) -> Folder:
    return list_folder(find_day(str(dump.path), "day1"), "agent_details", "agents")


@pytest.mark.parametrize("lead", LEADERS)
def test_a_link_out_of_the_dump_is_not_followed(lead: Leader, dump: Dump, outside: Path) -> None:
    place = dump.write("day1", "agent_details", [agent(1)], "0.json").parent
    lead(place, outside)
    is_complete, rows = read(listed(dump))
    assert not is_complete
    assert [(row["index"], row["fault"]) for row in rows] == [(0, None), (None, LEADS_OUT)]
    assert rows[1]["raw"] is None
    assert SECRET not in repr(rows)


def test_a_folder_that_leads_out_of_the_dump_is_a_file_that_cannot_be_read(dump: Dump, outside: Path) -> None:
    dump.write("day1", "agents", [agent(1)])
    (dump.path / "sync-day1" / "agent_details").symlink_to(outside)
    is_complete, rows = read(listed(dump))
    assert not is_complete
    (row,) = rows
    assert (row["file"], row["index"], row["fault"], row["raw"]) == ("agent_details/", None, LEADS_OUT, None)


def test_a_day_that_leads_out_of_the_dump_is_refused(dump: Dump, outside: Path) -> None:
    dump.write("day0", "agents", None)
    (dump.path / "sync-day1").symlink_to(outside.parent)
    with pytest.raises(InputError, match="sync-day1 is a link that leads out of the dump"):
        find_day(str(dump.path), "day1")


def test_links_inside_the_dump_are_followed(dump: Dump, tmp_path: Path) -> None:
    place = dump.write("day1", "agent_details", [agent(1)], "0.json").parent
    other = dump.write("day2", "agent_details", LARGE, "large.json")
    (place / "near.json").symlink_to("0.json")
    (place / "far.json").symlink_to("../../sync-day2/agent_details/large.json")
    (dump.path / "sync-day3").symlink_to("sync-day1")
    (dump.path / "sync-day4").mkdir()
    (dump.path / "sync-day4" / "agent_details").symlink_to(other.parent)
    (tmp_path / "link").symlink_to(dump.path)
    for root in (dump.path, tmp_path / "link"):
        for day, count in {"day1": 392, "day3": 392, "day4": 390}.items():
            is_complete, rows = read(list_folder(find_day(str(root), day), "agent_details", "agents"))
            assert (is_complete, len(rows)) == (True, count)


def test_a_run_reads_one_dump_though_the_link_to_it_is_changed(dump: Dump, outside: Path, tmp_path: Path) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    link = tmp_path / "current"
    link.symlink_to(dump.path)
    day = find_day(str(link), "day1")
    link.unlink()
    link.symlink_to(outside.parent)
    is_complete, rows = read(list_folder(day, "agent_details", "agents"))
    assert (is_complete, len(rows)) == (True, 1)


def swap_for_link(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(outside / "large.json")


def swap_for_pipe(path: Path, _: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def swap_folder(path: Path, outside: Path) -> None:
    (outside / path.name).write_bytes(LARGE)
    path.parent.rename(path.parent.with_name("old"))
    path.parent.symlink_to(outside)


@pytest.mark.parametrize("swap", [swap_for_link, swap_for_pipe, swap_folder])
@pytest.mark.parametrize("data", [b'[{"id": 1}]', LARGE, b'{"id": 1}\n' * 50_000], ids=["small", "large", "lines"])
def test_a_file_that_is_swapped_after_it_was_listed_is_not_read(
    swap: Callable[[Path, Path], None], data: bytes, dump: Dump, outside: Path
) -> None:
    path = dump.write("day1", "agent_details", data, "a.ndjson" if data.endswith(b"\n") else "a.json")
    folder = listed(dump)
    swap(path, outside)
    found: list[tuple[bool, list[dict[str, Any]]]] = []
    reader = threading.Thread(target=lambda: found.append(read(folder)), daemon=True)
    reader.start()
    reader.join(60)
    assert found, "it waits for somebody to write into the pipe"
    ((is_complete, rows),) = found
    assert not is_complete
    assert [row["record"] for row in rows] == [None]
    assert SECRET not in repr(rows)


def test_a_file_that_is_swapped_once_it_is_open_is_read_as_it_was(dump: Dump, outside: Path) -> None:
    path = dump.write("day1", "agent_details", LARGE, "a.json")
    (file,) = listed(dump).files
    with open_file(file) as stream:
        swap_for_link(path, outside)
        assert Path(files.reopened(stream)).read_bytes() == LARGE


def test_a_system_without_proc_looks_at_the_path(dump: Dump, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_DESCRIPTORS", "/nowhere")
    path = dump.write("day1", "agent_details", [agent(1)])
    (file,) = listed(dump).files
    assert b"".join(open_bytes(file)) == path.read_bytes()
    swap_folder(path, outside)
    with pytest.raises(Unreadable, match="leads out of the dump"):
        list(open_bytes(file))


@pytest.fixture
def known(db: Database, dump: Dump, sync: Sync) -> Database:
    """A database in which agents 1 and 2 are active."""
    dump.write("day1", "agent_details", [agent(1), agent(2)])
    sync("day1", "2026-01-05")
    return db


@pytest.mark.parametrize("lead", [to_secret, to_environment, None])
def test_nobody_is_deactivated_because_of_a_link(
    lead: Leader | None, known: Database, dump: Dump, sync: Sync, outside: Path
) -> None:
    if lead:
        lead(dump.write("day2", "agent_details", [agent(1)], "0.json").parent, outside)
    else:
        dump.write("day2", "roles", [])
        (dump.path / "sync-day2" / "agent_details").symlink_to(outside)
    sync("day2", "2026-01-06")
    assert known.status() == {1: "active", 2: "active"}
    (error,) = known.rows("SELECT error_type, error_message, raw_record FROM agent_pipeline_errors")
    assert error == {"error_type": "PARSE_ERROR", "error_message": LEADS_OUT, "raw_record": None}
