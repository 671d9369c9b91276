"""What counts as a complete folder: which files are read, and what the input says of itself."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from deskroll.engines.duckdb import DuckDB
from deskroll.input.dump import fault_of, list_folder
from deskroll.input.envelope import Envelope, Envelopes, of_folder, read_envelope
from deskroll.sync import Outcome
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, group
from tests.helpers.runs import Sync, messages

BOM = b"\xef\xbb\xbf"
EMPTY = {
    "no bytes": (b"", "2.json"),
    "white space": (b" \r\n\t", "2.json"),
    "a byte-order mark": (BOM, "2.json"),
    "no bytes, called gzip": (b"", "2.json.gz"),
    "no bytes, called Zstandard": (b"", "2.jsonl.zst"),
    "no bytes, as lines": (b"", "2.ndjson"),
    "blank lines": (b"\n \n", "2.jsonl"),
    "many blank lines": (b"\n" * 300_000, "2.jsonl"),
    "nothing, packed": (gzip.compress(b""), "2.json.gz"),
    "white space, packed": (zstandard.compress(b" \n"), "2.json.zst"),
    "a byte-order mark, packed": (gzip.compress(BOM), "2.jsonl.gz"),
}
UNREAD = ["2.json.part", "2.JSON.PART", "2.jsonl.gz.tmp", "2.crdownload", "2.json.download", "2.json.tmp.4711"]
UNREAD += ["2.json.partial", "2.json.bz2", "2.json.xz", "pages.zip", "2.json.lz4", "2.ndjson.7z", "2.json.br", "2.gz"]
ERRORS: list[Any] = ["timeout", {"code": 7}, [{"code": "timeout"}], True, [None, {"message": "x"}]]
NO_ERRORS: list[Any] = [None, "", " ", [], {}, False, 0, {"code": None}, [{"message": "", "details": []}]]


SELECT = """SELECT source_file, record_index, record, raw, fault,
    CASE WHEN record IS NULL AND fault IS NULL THEN 'UNREAD' END AS error_type FROM records"""


@pytest.fixture(scope="module")
def engine() -> Iterator[DuckDB]:
    with DuckDB("400MB", threads=1) as opened:
        yield opened


def notes_on(outcome: Outcome, folder: str) -> list[str]:
    others = ("no folder for", "no record in")
    return [note for note in messages(outcome) if f"{folder}/" in note and not any(other in note for other in others)]


@pytest.mark.parametrize("kind", EMPTY)
def test_a_file_without_json_is_no_empty_list(kind: str, engine: DuckDB, dump: Dump) -> None:
    data, name = EMPTY[kind]
    dump.write("day1", "agents", data, name)
    reading = engine.read(list_folder(str(dump.path / "sync-day1"), "agents", "agents"), SELECT, "found")
    assert not reading.is_complete
    ((file, fault),) = engine.fetch("SELECT source_file, fault FROM found")
    assert file == f"agents/{name}"
    assert fault.startswith(("the file is empty: it holds no JSON", "the file ends before its compressed data do"))


@pytest.mark.parametrize("data", [b"[]", BOM + b" []", b'{"agents": []}', b'{"results": [], "next": null}'])
def test_an_empty_list_is_no_error(data: bytes, engine: DuckDB, dump: Dump) -> None:
    dump.write("day1", "agents", data)
    reading = engine.read(list_folder(str(dump.path / "sync-day1"), "agents", "agents"), SELECT, "found")
    assert reading.is_complete
    assert engine.fetch("SELECT * FROM found") == []


@pytest.mark.parametrize("name", UNREAD)
def test_what_may_hold_records_and_is_not_read(name: str, engine: DuckDB, dump: Dump) -> None:
    dump.write("day1", "agents", b"[]", name)
    reading = engine.read(list_folder(str(dump.path / "sync-day1"), "agents", "agents"), SELECT, "found")
    assert not reading.is_complete
    ((file, raw, fault),) = engine.fetch("SELECT source_file, raw, fault FROM found")
    assert (file, raw) == (f"agents/{name}", None)
    assert fault in {
        "the file is an unfinished download",
        "the file is packed in a way that deskroll does not read",
    }


def test_absence_from_an_incomplete_folder_does_not_count(db: Database, dump: Dump, sync: Sync) -> None:
    files = dict.fromkeys(UNREAD, b"[]") | {name: data for data, name in EMPTY.values()}
    dump.write("2026-01-05", "agents", [agent(1), agent(2)])
    dump.write("2026-01-06", "agents", [agent(1)], "1.json")
    for name, data in files.items():
        dump.write("2026-01-06", "agents", data, name)
    sync("2026-01-05", "2026-01-05")
    outcome = sync("2026-01-06", "2026-01-06")
    assert db.status() == {1: "active", 2: "active"}
    (note,) = notes_on(outcome, "agents")
    assert note.startswith("agents/ is incomplete: agents/2.JSON.PART: the file is an unfinished download; ")
    assert (
        f" and {len(files) - 3} more. Rows missing from this folder were not deactivated or removed. Download" in note
    )
    found = db.rows("SELECT source_file FROM agent_pipeline_errors")
    assert {row["source_file"] for row in found} == {f"agents/{name}" for name in files}


@pytest.mark.parametrize("error", [*ERRORS, *NO_ERRORS], ids=repr)
def test_an_error_beside_an_empty_list(error: Any, tmp_path: Path) -> None:
    said = read_envelope({"errors": error, "page": 1}).error
    assert bool(said) == (error in ERRORS[:3] or error is True or error == ERRORS[4]), said


@pytest.mark.parametrize("before", [True, False])
def test_an_error_beside_an_empty_list_is_no_empty_list(before: bool, engine: DuckDB, dump: Dump) -> None:
    error = {"Error": {"code": "timeout"}}
    dump.write("day1", "agents", {**error, "results": []} if before else {"results": [], **error}, "2.json")
    reading = engine.read(list_folder(str(dump.path / "sync-day1"), "agents", "agents"), SELECT, "found")
    assert not reading.is_complete
    ((fault,),) = engine.fetch("SELECT fault FROM found")
    assert fault.startswith("the file has an empty list beside an error: ")
    assert "timeout" in fault


def test_an_error_beside_records_costs_none_of_them(db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("day1", "agents", {"agents": [agent(1)], "errors": ["slow"]})
    assert all(source.complete for source in sync("day1", "2026-01-05").inputs)
    assert db.status() == {1: "active"}


def test_hidden_files_are_ignored_without_a_word(db: Database, dump: Dump, sync: Sync) -> None:
    for day, ids in (("2026-01-05", [1, 2]), ("2026-01-06", [1])):
        for name in ("._1.json", ".DS_Store", ".1.json.part", "._1.json.gz"):
            dump.write(day, "agents", b"\x00\x05\x16\x07", name)
        dump.write(day, "agents", [agent(n) for n in ids], "1.json")
        dump.write(day, ".partial", b"", "1.json")
        notes = messages(sync(day, day))
    assert db.status() == {1: "active", 2: "inactive"}
    assert [note for note in notes if "passed over" in note or "incomplete" in note] == []


def test_what_is_not_read_is_named_with_the_nearest_known_name(db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("day1", "agents", [agent(1)], "1.json")
    for name in ("notes.txt", "1.json.bak", "a\nb"):
        dump.write("day1", "agents", b"x", name)
    dump.write("day1", "agents/empty", None)
    for folder in ("agent_detail", "Transactions", "tickets", "agent"):
        dump.write("day1", folder, None)
    outcome = sync("day1", "2026-01-05")
    assert messages(outcome)[0] == (
        "not read: Transactions/ (did you mean transactions/?), agent/ (did you mean agents/?),"
        " agent_detail/ (did you mean agent_details/?) and 1 more"
    )
    (note,) = [note for note in messages(outcome) if note.startswith("not read in agents/")]
    assert note.startswith("not read in agents/: 1.json.bak, a\\nb, empty/ and 1 more (")
    assert all(source.complete for source in outcome.inputs)
    assert not outcome.published.quarantine


@pytest.mark.parametrize("name", ["pages/1.json", "pages/a/b/1.jsonl.gz", "1.json/1.json.part", "1.json.download/x"])
def test_a_sub_folder_with_records(name: str, db: Database, dump: Dump, sync: Sync) -> None:
    folder, _, file = name.rpartition("/")
    dump.write("2026-01-05", "admin_groups", [group(1)])
    dump.write("2026-01-05", "agent_details", [agent(1)])
    dump.write("2026-01-06", f"agent_details/{folder}", b"[]", file)
    sync("2026-01-05", "2026-01-05")
    first = folder.partition("/")[0]
    (note,) = notes_on(sync("2026-01-06", "2026-01-06"), "agent_details")
    assert note.startswith(f"agent_details/ is incomplete: agent_details/{first}: the file is a folder inside a folder")
    assert db.status() == {1: "active"}


def test_a_hidden_sub_folder_and_one_without_records_are_no_matter(dump: Dump) -> None:
    for name in (".git/1.json", "__MACOSX/._1.json", "pages/.cache/1.json", "pages/readme.md"):
        folder, _, file = name.rpartition("/")
        dump.write("day1", f"agents/{folder}", b"[]", file)
    listed = list_folder(str(dump.path / "sync-day1"), "agents", "agents")
    assert listed.files == ()
    assert listed.not_read == ("__MACOSX/", "pages/")


SAYS: list[tuple[dict[str, Any], Envelope]] = [
    ({"next": None, "nextPage": "", "has_more": False, "hasMore": None}, Envelope()),
    ({"nextPage": "page-2"}, Envelope(has_next=True)),
    ({"next_page": 2}, Envelope(has_next=True)),
    ({"nextPageToken": "x"}, Envelope(has_next=True)),
    ({"continuationToken": "x"}, Envelope(has_next=True)),
    ({"@odata.nextLink": "https://example.com"}, Envelope(has_next=True)),
    ({"has_more": True}, Envelope(has_next=True)),
    ({"hasMore": "true"}, Envelope(has_next=True)),
    ({"isLast": False}, Envelope(has_next=True)),
    ({"isLast": True}, Envelope()),
    ({"has_more": False, "next_cursor": "for later"}, Envelope()),
    ({"links": {"next": "https://example.com/?page=2", "last": "x"}}, Envelope(has_next=True)),
    ({"links": {"next": {"href": None}}}, Envelope()),
    ({"_links": {"next": {"href": "x"}}}, Envelope(has_next=True)),
    ({"links": [{"rel": "self", "href": "x"}, {"rel": "next", "href": "y"}]}, Envelope(has_next=True)),
    ({"links": [{"rel": "self", "href": "x"}]}, Envelope()),
    ({"meta": {"pagination": {"next_page": 2, "total": 5.0}}}, Envelope(has_next=True, total=5)),
    ({"pagination": {"total_count": "40"}}, Envelope(total=40)),
    ({"meta": {"last_page": 3, "error": "of no page"}}, Envelope(pages=3)),
    ({"total": 12.5, "count": -1}, Envelope()),
    ({"total": {"value": 40}}, Envelope()),
    ({"total": "many", "page": 7}, Envelope()),
]


@pytest.mark.parametrize(("members", "expected"), SAYS, ids=lambda value: json.dumps(value))
def test_what_an_envelope_says(members: dict[str, Any], expected: Envelope) -> None:
    assert read_envelope(members) == expected


def test_what_envelopes_say_together() -> None:
    yes, no = Envelope(has_next=True), Envelope(total=3, pages=2)
    assert of_folder({"1": yes, "2": no}).broken_promise(3) == ""
    assert of_folder({}).broken_promise(0) == ""
    assert of_folder({"1": yes, "2": yes}).broken_promise(9) == ("2 says that there is a next page, which is not there")
    assert "3 records, and it has 2" in of_folder({"1": yes, "2": no}).broken_promise(2)
    assert "2 pages, and it has 1" in of_folder({"1": no}).broken_promise(3)
    parts = of_folder({"1": yes}) + of_folder({"2": no}) + Envelopes()
    assert parts == of_folder({"1": yes, "2": no})


@pytest.mark.parametrize("says", [{"nextPage": "page-2"}, {"total": 3}, {"meta": {"has_more": True}}], ids=json.dumps)
@pytest.mark.parametrize("doubtful", [False, True], ids=["fast", "exact"])
def test_a_page_that_is_not_there(says: dict[str, Any], doubtful: bool, db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("2026-01-05", "agents", [agent(1), agent(2)])
    page = {"agents": [agent(1)], **says, "total_count": 2.0}
    text = json.dumps(page).replace("agents", "\\u0061gents") if doubtful else json.dumps(page)
    dump.write("2026-01-06", "agents", text.encode())
    sync("2026-01-05", "2026-01-05")
    outcome = sync("2026-01-06", "2026-01-06")
    assert db.status() == {1: "active", 2: "active"}
    (note,) = notes_on(outcome, "agents")
    assert note.startswith("agents/ is incomplete: ")


def test_all_pages_are_there(db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("2026-01-05", "agents", [agent(n) for n in range(1, 5)])
    for number, following in ((1, "p2"), (2, "p3"), (3, None)):
        page = {"agents": [agent(number)], "nextPage": following, "total": 3}
        dump.write("2026-01-06", "agents", page, f"{number}.json")
    sync("2026-01-05", "2026-01-05")
    assert notes_on(sync("2026-01-06", "2026-01-06"), "agents") == []
    assert db.status() == {1: "active", 2: "active", 3: "active", 4: "inactive"}


def test_names_of_files() -> None:
    assert [name for name in UNREAD if not fault_of(name)] == []
    assert [
        name for name in ("1.json", "1.JSON.GZ", "notes.txt", "part", "1.json.bak", "1.json.part.txt") if fault_of(name)
    ] == []
