"""Bad input: the good records are loaded, the bad one is in quarantine with its place and a message to act on."""

import gzip
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard

from deskroll.engines.duckdb import DuckDB
from deskroll.input.dump import list_folder
from deskroll.input.files import Unreadable
from deskroll.input.json_reader import Record, bad_file, read_exactly
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import Sync

GOOD = agent(1)
DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000

MANY = b",\n".join(json.dumps(agent(n, signature="x" * 1000)).encode() for n in range(2, 302))

WHOLE_FILES = {
    "cut short after a comma": (b"[%b,\n" % MANY, "the file ends there", "a.json"),
    "cut short before a comma": (b"[%b" % MANY, "the file ends there", "a.json"),
    "cut short after a comma, then packed": (gzip.compress(b"[%b,\n" % MANY), "the file ends there", "a.json.gz"),
    "comma before the end": (b"[%b, ]\n" % MANY, "is not JSON", "a.json"),
    "cut short, and a name of several parts": (b"[%b,\n" % MANY, "the file ends there", "b\\a.json"),
    "inf": (b"[%b]" % MANY.replace(b'"id": 9,', b'"id": 9, "x": -inf,'), "is not JSON", "a.json"),
    "cut short": (b'[{"id": 2, "contact"', "is not JSON", "a.json"),
    "trailing comma": (b'[{"id": 2},]', "is not JSON", "a.json"),
    "trailing comma inside": (b'[{"id": 2, }]', "is not JSON", "a.json"),
    "two documents": (b'{"id": 2} {"id": 3}', "more text after the document's end", "a.json"),
    "NaN": (b'[{"id": NaN}]', "NaN is not a JSON value", "a.json"),
    "newline in a string": (b'{"id": "a\nb"}', "Invalid control character", "a.json"),
    "not UTF-8": (b'[{"id": 2, "name": "\xe9t\xe9"}]', "byte 0xe9 at offset 20", "a.json"),
    "UTF-16": ('[{"id": 2}]'.encode("utf-16"), "byte 0xff at offset 0", "a.json"),
    "a string": (b'"Internal error"', 'holds "Internal error", expected an object', "a.json"),
    "a number": (b"12", "holds 12, expected an object", "a.json"),
    "null": (b"null", "holds null, expected an object", "a.json"),
    "truncated gzip": (gzip.compress(json.dumps([agent(2)]).encode())[:-20], "the file is cut short", "a.json.gz"),
    "no gzip": (b"[]", "cannot be unpacked", "a.json.gz"),
    "truncated zstd": (zstandard.compress(b"[1]" + b" " * 9999)[:-5], "the file is cut short", "a.json.zst"),
    "no zstd": (b"[]", "cannot be unpacked", "a.json.zst"),
    "separators": (b'[{"id": "\x1e\x1f"}]', "is not JSON", "a.json"),
    "an envelope cut short": (b'{"results": [{"id": 2}', "is not JSON", "a.json"),
}

RECORDS: dict[str, tuple[Any, str, int | None]] = {
    "id null": (agent(2) | {"id": None}, "id: missing, expected an integer", None),
    "id missing": ({"contact": GOOD["contact"]}, "id: missing, expected an integer", None),
    "id is text": (agent(2) | {"id": "two"}, 'id: found "two", expected an integer', None),
    "id is fractional": (agent(2) | {"id": 2.5}, 'id: found "2.5", expected an integer', None),
    "id is above 2^63": (agent(2) | {"id": 2**63}, 'id: found "9223372036854775808", expected', None),
    "id is far above": (agent(2) | {"id": 10**30}, "expected an integer of at most 64 bits", None),
    "e-mail missing": (agent(2, contact={"email": None}), "contact.email: missing, expected text", 2),
    "name missing": (agent(2, contact={"name": None}), "contact.name: missing, expected text", 2),
    "name is an object": (agent(2, contact={"name": {"first": "A"}}), 'contact.name: found "{"first":"A"}"', 2),
    "contact is text": (agent(2) | {"contact": "A"}, 'contact: found "A", expected an object', 2),
    "no timestamp": (agent(2, created_at="not-a-timestamp"), 'created_at: found "not-a-timestamp", expected a time', 2),
    "no such day": (agent(2, created_at="2026-02-30T00:00:00Z"), 'created_at: found "2026-02-30T00:00:00Z"', 2),
    "empty timestamp": (agent(2, created_at=""), 'created_at: found "", expected a timestamp', 2),
    "no boolean": (agent(2, available="yes"), 'available: found "yes", expected true or false', 2),
    "NUL in a name": (agent(2, contact={"name": "a\0b"}), "contact.name: holds a character that PostgreSQL cannot", 2),
    "NUL after a brace": (agent(2, signature="{\0"), "signature: holds a character that PostgreSQL cannot", 2),
    "NUL after a bracket": (agent(2, signature="[\0"), "signature: holds a character that PostgreSQL cannot", 2),
    "NUL in an avatar": (agent(2, contact={"avatar": {"avatar_url": "\0"}}), "contact.avatar: found", 2),
    "lone surrogate": (agent(2, contact={"name": "a\ud800b"}), "contact.name: holds a character that", 2),
    "no object": (5, "the record: found 5, expected an object", None),
    "null": (None, "the record: found null, expected an object", None),
    "an array": ([1], "the record: found [1], expected an object", None),
    "several faults": (
        agent(2, available=3, created_at=4),
        'available: found "3", expected true or false; created_at',
        2,
    ),
}


def test_a_bad_file_costs_that_file_only(db: Database, dump: Dump, sync: Sync) -> None:
    names = {f"{number:02}-{file}": message for number, (_, message, file) in enumerate(WHOLE_FILES.values())}
    for name, (data, _, _) in zip(names, WHOLE_FILES.values(), strict=True):
        dump.write("day1", "agent_details", data, name)
    dump.write("day1", "agent_details", [GOOD])
    sync("day1", "2026-01-05")
    assert db.status() == {1: "active"}
    errors = {error["source_file"]: error for error in db.rows("SELECT * FROM agent_pipeline_errors")}
    assert len(errors) == db.one("SELECT count(*) FROM agent_pipeline_errors")
    assert errors.keys() == {f"agent_details/{name}" for name in names}
    for name, message in names.items():
        error = errors[f"agent_details/{name}"]
        assert (error["error_type"], error["record_index"]) == ("PARSE_ERROR", None), name
        assert message in error["error_message"], name


SHAPES = ["array", "object", "lines", "envelope", "large"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_bad_record_costs_that_record_only(shape: str, db: Database, dump: Dump, sync: Sync) -> None:
    """All bad records in one sync, each in a file, or files, of its own beside two good ones."""
    cases = {
        name: (number, *case)
        for number, (name, case) in enumerate(RECORDS.items(), start=1)
        if shape != "object" or isinstance(case[0], dict)
    }
    for number, record, *_ in cases.values():
        if isinstance(record, dict) and record.get("id") == 2:
            record = record | {"id": 1000 * number + 2}
        write(dump, shape, [agent(1000 * number + 1), record, agent(1000 * number + 3)], number)
    sync("day1", "2026-01-05")
    known = db.status().keys()
    errors = db.rows("SELECT * FROM agent_pipeline_errors")
    assert len(errors) == len(cases)
    for name, (number, record, message, agent_id) in cases.items():
        assert {1000 * number + 1, 1000 * number + 3} <= known, name
        (error,) = [e for e in errors if e["source_file"].startswith(f"agent_details/{number:02}-")]
        assert message in error["error_message"], name
        assert error["agent_id"] == (agent_id and 1000 * number + 2), name
        assert error["record_index"] == (0 if shape == "object" else 1), name
        assert error["error_type"] == ("VALIDATION_ERROR" if isinstance(record, dict) else "PARSE_ERROR"), name
        raw = error["raw_record"]
        came = json.loads(raw) if isinstance(raw, str) else raw
        if shape != "large":
            assert came == (record | {"id": 1000 * number + 2} if agent_id else record), name


def write(dump: Dump, shape: str, records: list[Any], number: int) -> None:
    lines = [json.dumps(record) for record in records]
    match shape:
        case "array":
            dump.write("day1", "agent_details", f"[{','.join(lines)}]".encode(), f"{number:02}-a.json")
        case "lines":
            dump.write("day1", "agent_details", "\n".join(lines).encode(), f"{number:02}-a.ndjson")
        case "envelope":
            text = f'{{"next": [], "results": [{",".join(lines)}]}}'
            dump.write("day1", "agent_details", text.encode(), f"{number:02}-a.json")
        case "large":  # what DuckDB reads by itself
            padding = [json.dumps(agent(1000 * number + n, signature="x" * 1000)) for n in range(100, 400)]
            dump.write("day1", "agent_details", f"[{','.join([*lines, *padding])}]".encode(), f"{number:02}-a.json")
        case _:
            for place, line in enumerate(lines):
                dump.write("day1", "agent_details", line.encode(), f"{number:02}-{place}.json")


def test_a_key_twice_is_rejected_and_kept_as_it_came(db: Database, dump: Dump, sync: Sync) -> None:
    twice = '{"id": 2, "contact": {"email": "a", "email": "b", "name": "n"}, "available": true, "available": false}'
    dump.write("day1", "agent_details", f"[{json.dumps(GOOD)}, {twice}]".encode())
    sync("day1", "2026-01-05")
    (error,) = db.rows("SELECT agent_id, error_message, raw_record FROM agent_pipeline_errors")
    assert error["agent_id"] == 2
    assert error["error_message"] == (
        "the record: has a key more than once: available; contact: has a key more than once: email"
    )
    assert error["raw_record"].count("available") == 2


def test_a_key_twice_that_holds_what_cannot_be_stored(db: Database, dump: Dump, sync: Sync) -> None:
    bad = b'[{"id": 2, "a\\u0000": 1, "a\\u0000": 2, "contact": {"email": "e", "name": "n"}}]'
    dump.write("day1", "agent_details", bad)
    sync("day1", "2026-01-05")
    (error,) = db.rows("SELECT error_message FROM agent_pipeline_errors")
    assert error["error_message"] == r"the record: has a key more than once: a\u0000"


def test_a_key_of_a_table_has_at_most_500_characters(db: Database, dump: Dump, sync: Sync) -> None:
    channels = [{"channel": incompressible(length), "available": True} for length in (500, 501)]
    dump.write("day1", "agent_details", [agent(1, availability=channels)])
    sync("day1", "2026-01-05")
    assert db.rows("SELECT length(channel) FROM agent_availability") == [{"length": 500}]
    (error,) = db.rows("SELECT error_message FROM agent_pipeline_errors")
    assert error["error_message"].startswith('availability[1].channel: found "')
    assert error["error_message"].endswith('", expected text of at most 500 characters')


def incompressible(length: int) -> str:
    """Text of four bytes a character that no index can hold a few thousand of."""
    dice = random.Random(length)
    return "".join(chr(dice.randrange(0x20000, 0x2A000)) for _ in range(length))


def test_an_id_twice_is_no_id_that_can_be_read(db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("day1", "agent_details", b'[{"id": 2, "id": 3, "contact": {"email": "e", "name": "n"}}]')
    sync("day1", "2026-01-05")
    assert db.rows("SELECT agent_id FROM agent_pipeline_errors") == [{"agent_id": None}]


NAMES = [
    'quote " comma , end', "line\nfeed", "carriage\r\nreturn", "back\\slash", "\\N", "\\.", "a\n\\.\nb", "tab\t",
    "é 😀 漢",
    "'; DROP TABLE agents; --", "{curly}", "[square]", "%s %d {}", " spaces ", "\x01\x7f", "", "null", "x" * 1_000_000,
]  # fmt: skip


def test_text_arrives_exactly_as_it_was_and_empty_is_not_null(db: Database, dump: Dump, sync: Sync) -> None:
    records = [agent(n, contact={"name": name, "phone": name, "mobile": None}) for n, name in enumerate(NAMES)]
    dump.write("day1", "agent_details", records)
    sync("day1", "2026-01-05")
    assert [row["name"] for row in db.rows("SELECT name FROM agents ORDER BY agent_id")] == NAMES
    assert db.one("SELECT count(*) FROM agents WHERE phone IS DISTINCT FROM name OR mobile IS NOT NULL") == 0
    assert db.one("SELECT count(*) FROM agent_pipeline_errors") == 0


def test_escapes_of_a_pair_are_a_character_and_no_lone_surrogate(db: Database, dump: Dump, sync: Sync) -> None:
    raw = b'[{"id": 1, "email": "e", "name": "\\ud83d\\ude00 \\\\ud800", "x": "\\ud800"}]'
    dump.write("day1", "agent_details", raw)
    sync("day1", "2026-01-05")
    assert db.one("SELECT name FROM agents") == "😀 \\ud800"


def test_an_empty_list_is_no_error_but_an_empty_object_is_a_record(db: Database, dump: Dump, sync: Sync) -> None:
    for data in (b"[]", b"{}", b'{"results": []}', b"\xef\xbb\xbf[]"):
        dump.write("day1", "agent_details", data)
    dump.write("day1", "agent_details", [GOOD])
    sync("day1", "2026-01-05")
    (error,) = db.rows("SELECT error_message FROM agent_pipeline_errors")
    assert error["error_message"].startswith("id: missing")


def test_depth_in_what_no_contract_reads_does_no_harm_and_in_quarantine_neither(
    db: Database, dump: Dump, sync: Sync
) -> None:
    dump.write("day1", "agent_details", b'{"id": 1, "email": "e", "name": "n", "x": ' + DEEP + b"}")
    dump.write("day1", "agent_details", b'{"id": 2, "x": ' + DEEP + b"}")
    sync("day1", "2026-01-05")
    assert db.status() == {1: "active"}
    assert db.one("SELECT jsonb_typeof(raw_record) FROM agent_pipeline_errors") in {"string", "object"}


@pytest.mark.parametrize("kind", ["directory", "dangling link", "loop of links", "pipe", "no permission"])
def test_what_is_no_file_to_read(kind: str, db: Database, dump: Dump, sync: Sync) -> None:
    folder = dump.write("day1", "agent_details", [GOOD]).parent
    odd = folder / "odd.json"
    match kind:
        case "directory":
            odd.mkdir()
        case "dangling link":
            odd.symlink_to(folder / "nowhere")
        case "loop of links":
            odd.symlink_to(odd)
        case "pipe":
            os.mkfifo(odd)
        case _:
            odd.write_bytes(b"[]")
            odd.chmod(0)
    sync("day1", "2026-01-05")
    assert db.status() == {1: "active"}
    found = [row["error_message"] for row in db.rows("SELECT error_message FROM agent_pipeline_errors")]
    is_harmless = kind == "directory" or (kind == "no permission" and os.geteuid() == 0)  # root may read all
    assert len(found) == (0 if is_harmless else 1), found


ODD_NAMES = ["a'b.json", 'a"b.json', "a%b.json", "a*[?].json", "a\nb.json", "é.JSON", "a;b--.json"]


@pytest.mark.parametrize("size", [0, 300])
def test_odd_file_names(size: int, db: Database, dump: Dump, sync: Sync) -> None:
    for number, name in enumerate(ODD_NAMES, start=1):
        more = [agent(1000 * number + n, signature="x" * 1000) for n in range(2, size)]
        dump.write("day1", "agent_details", [agent(1000 * number), {"id": "x"}, *more], name)
    sync("day1", "2026-01-05")
    assert {1000 * number for number, _ in enumerate(ODD_NAMES, start=1)} <= db.status().keys()
    found = db.rows("SELECT source_file FROM agent_pipeline_errors")
    named = sorted(f"agent_details/{name}".replace("\n", "\\n") for name in ODD_NAMES)
    assert sorted(row["source_file"] for row in found) == named


def test_other_files_are_not_read(db: Database, dump: Dump, sync: Sync) -> None:
    for name in (".DS_Store", "notes.txt", "a.json.bak", "json"):
        dump.write("day1", "agent_details", b"\x00\x01", name)
    dump.write("day1", "agent_details", [GOOD])
    sync("day1", "2026-01-05")
    assert db.one("SELECT count(*) FROM agent_pipeline_errors") == 0


@pytest.mark.parametrize("many", [3, 400])
def test_every_shape_and_compression_gives_the_same(many: int, db: Database, dump: Dump, sync: Sync) -> None:
    packs: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
    kinds = [(pack, ending) for pack in packs for ending in (".json", ".ndjson", ".jsonl")]
    for number, (pack, ending) in enumerate(kinds):
        some = range(1000 * number, 1000 * number + many)
        lines = [json.dumps(agent(n, signature=f"{n} " + os.urandom(400).hex())) for n in some]
        data = (f"[{', '.join(lines)}]" if ending == ".json" else "\n".join(lines)).encode()
        dump.write("day1", "agent_details", packs[pack](data), f"a{ending}{pack}")
    sync("day1", "2026-01-05")
    found = db.rows(
        """SELECT agent_id / 1000 AS number, count(*) FROM agent_details
        WHERE signature LIKE agent_id || ' %%' GROUP BY 1 ORDER BY 1"""
    )
    assert [row["count"] for row in found] == [many] * len(kinds)


CORPUS = [data for data, _, name in WHOLE_FILES.values() if name == "a.json"] + [
    f"[{json.dumps(GOOD)}, {json.dumps(record)}]".encode() for record, _, _ in RECORDS.values()
]


@pytest.fixture(scope="module")
def engine() -> Iterator[DuckDB]:
    with DuckDB("400MB", threads=1) as opened:
        yield opened


@pytest.mark.parametrize("number", range(len(CORPUS)))
@pytest.mark.parametrize("large", [False, True])
def test_the_fast_reader_says_what_the_exact_one_says(number: int, large: bool, tmp_path: Path, engine: DuckDB) -> None:
    data = CORPUS[number]
    if large and data.startswith(b"["):
        data = (
            b"[" + b",".join(json.dumps(agent(n, signature="x" * 1000)).encode() for n in range(300)) + b"," + data[1:]
        )
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "a.json").write_bytes(data)
    folder = list_folder(str(tmp_path), "agents", "agents")
    (file,) = folder.files
    try:
        exact = list(read_exactly(file, "agents"))
    except Unreadable as error:
        exact = [bad_file(file, str(error))]
    select = """SELECT source_file, record_index, record, raw, fault,
        CASE WHEN record IS NULL AND fault IS NULL THEN 'UNREAD' END AS error_type FROM records"""
    is_complete, _ = engine.read(folder, select, "found")
    fast = [Record(*row) for row in engine.fetch("SELECT record_index, record, raw, fault FROM found ORDER BY 1")]
    assert [(r.position, r.fault, r.raw, as_json(r.record)) for r in fast] == [
        (r.position, r.fault, r.raw, as_json(r.record)) for r in exact
    ]
    assert is_complete == all(r.fault is None for r in exact)


def as_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def test_the_quarantine_takes_anything(url: str) -> None:
    hostile = [
        '{"a": "\\u0000"}',
        '{"a": "\\ud800"}',
        "{",
        '{"a": 1e999999}',
        "[" * 20000,
        "",
        '{"a": 1, "a": 2}',
        "null",
    ]
    with psycopg.connect(url) as connection:
        for text in hostile:
            row = connection.execute("SELECT deskroll_to_jsonb(%s)", [text]).fetchone()
            assert row is not None
            assert row[0] == text or text == "null"


def test_a_temporary_folder_that_another_run_removes_meanwhile_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "deskroll-engine-gone").symlink_to(tmp_path / "nowhere")  # listed, and not there when it is looked at
    with DuckDB("400MB", threads=1, temp_folder=tmp_path) as engine:
        assert engine.fetch("SELECT 1") == [(1,)]
