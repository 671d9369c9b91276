"""A record that holds too much costs itself: not the run, not its neighbours, and no memory to speak of."""

import gzip
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from deskroll.input import bounds
from deskroll.input.bounds import DECODER, MAX_TEXT, MAX_VALUES, Extent, find_end, find_fault
from deskroll.input.dump import SMALL_UNPACKED, allowance, describe, list_folder
from deskroll.input.json_reader import read_exactly
from tests.helpers.databases import Database
from tests.helpers.factories import Dump
from tests.helpers.runs import Shell
from tests.promises.test_hostile import GOOD

MANY = 3_000_000
TOO_MANY = f"the record has more than {MAX_VALUES:,} members and elements"
TOO_LONG = f"the record has texts of more than {MAX_TEXT:,} characters"
BREADTH = {
    "ids": ("[" + "1," * MANY + "1]", TOO_MANY),
    "a list of 15 MB": ("[" + "1," * 7_500_000 + "1]", TOO_MANY),
    "objects": ("[" + "{}," * MANY + "1]", TOO_MANY),
    "lists": ("[" + "[]," * MANY + "1]", TOO_MANY),
    "texts": ("[" + '"",' * MANY + "1]", TOO_MANY),
    "nulls": ("[" + "null," * MANY + "1]", TOO_MANY),
    "depth": ('{"a":' * 1_000_000 + "1" + "}" * 1_000_000, TOO_MANY),
    "depth of lists": ("[" * 1_000_000 + "]" * 1_000_000, TOO_MANY),
    "keys": ("{" + ",".join(f'"k{n}":1' for n in range(1_000_000)) + "}", TOO_MANY),
    "one key": ("{" + '"k":1,' * 1_500_000 + '"k":1}', TOO_MANY),
    "a long text": ('"' + "x" * (15 << 20) + '"', TOO_LONG),
    "a long key": ('{"' + "k" * (10 << 20) + '":1}', TOO_LONG),
    "texts that are long together": ("[" + ",".join(['"' + "x" * (MAX_TEXT // 8) + '"'] * 12) + "]", TOO_LONG),
}
MEMBERS = {
    "agent_details": ["role_ids", "availability", "signature", "unknown"],
    "admin_groups": ["agent_ids", "name"],
    "admin_roles": ["agent_ids"],
    "budgets": ["description", "currentPeriod"],
    "transactions": ["currencyData"],
    "cards": ["name"],
}


def spoiled(folder: str, member: str, value: str, number: int = 2) -> str:
    """A record of a folder with a value of JSON in a member: that which comes last counts."""
    record = {key: content for key, content in GOOD[folder].items() if key != member}
    key = f"x{number}" if isinstance(record["id"], str) else number
    return json.dumps(record | {"id": key})[:-1] + f', "{member}": {value}}}'


def new_id(folder: str, number: int) -> str | int:
    return f"new{number}" if isinstance(GOOD[folder]["id"], str) else 1000 + number


def run(shell: Shell, dump: Dump) -> int:
    """Sync a day; returns the most memory that it took, in MiB."""
    command = [sys.executable, "-m", "deskroll", "sync", str(dump.path), "--day", "day1", "--max-rejected", "100%"]
    process = subprocess.Popen(command, env=shell.environment, stdout=subprocess.PIPE, cwd=dump.path)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    assert process.returncode == 0, said
    return usage.ru_maxrss // 1024


@pytest.mark.parametrize("names", [list(BREADTH)[n::4] for n in range(4)], ids=" + ".join)
def test_a_record_that_holds_too_much_costs_itself(names: list[str], shell: Shell, db: Database, dump: Dump) -> None:
    tables = {"agent_details": "agents", "admin_groups": "groups", "admin_roles": "roles"}
    expected, loaded = Counter[str](), Counter[str]()
    for number, name in enumerate(names, start=10):
        value, fault = BREADTH[name]
        folder, members = random.Random(name).choice(list(MEMBERS.items()))
        spared = json.dumps(GOOD[folder] | {"id": new_id(folder, number)})
        bad = spoiled(folder, random.Random(name).choice(members), value, number)
        dump.write("day1", folder, f"[{spared},{bad},{bad}]".encode(), f"{number}.json")
        expected[fault] += 2
        loaded[folder] += 1
    assert run(shell, dump) < 1500
    errors = db.rows("SELECT error_message, length(raw_record::TEXT) AS kept FROM stg_pipeline_errors")
    at_fault = [error for error in errors if error["error_message"] in expected]
    assert Counter(error["error_message"] for error in at_fault) == expected, errors
    assert max(error["kept"] for error in at_fault) < 100_000
    for folder, count in loaded.items():
        assert db.one(f"SELECT count(*) FROM {tables.get(folder, folder)}") == count


@pytest.mark.parametrize("ending", [".ndjson", ".json.gz", ".jsonl.zst"])
def test_whatever_holds_it(ending: str, shell: Shell, db: Database, dump: Dump) -> None:
    records = [
        json.dumps(GOOD["agent_details"]),
        *(spoiled("agent_details", "x", BREADTH[name][0]) for name in ("ids", "depth", "a long text")),
        json.dumps(GOOD["agent_details"] | {"id": 9}),
    ]
    data = (f"[{','.join(records)}]" if ending.startswith(".json.") else "\n".join(records)).encode()
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
    dump.write("day1", "agent_details", pack.get(ending[-3:], pack.get(ending[-4:], bytes))(data), f"a{ending}")
    assert run(shell, dump) < 1500
    errors = db.rows("SELECT record_index, error_message FROM agent_pipeline_errors ORDER BY 1")
    assert [tuple(error.values()) for error in errors if error["error_message"].startswith("the record")] == [
        (1, TOO_MANY), (2, TOO_MANY), (3, TOO_LONG),
    ]  # fmt: skip
    assert db.status() == {1: "active", 9: "active"}


def test_a_document_that_is_one_record(tmp_path: Path) -> None:
    for name in ("ids", "depth", "a long key"):
        value, fault = BREADTH[name]
        path = tmp_path / "a.json"
        path.write_text(f'{{"id": 1, "x": {value}}}')
        (record,) = read_exactly(describe("agents", str(path)), "agents")
        assert (record.position, record.record, record.fault) == (0, None, fault), name


@pytest.mark.parametrize("times", [2, 90_000])
def test_many_keys_of_which_some_stand_twice(times: int, shell: Shell, db: Database, dump: Dump) -> None:
    keys = ", ".join(f'"k{n:06}": 1' for n in (*range(times), *range(times)))
    record = f'{{"id": 2, {keys[: -len("1")]}1}}'
    dump.write("day1", "agent_details", [GOOD["agent_details"]])
    dump.write("day1", "agent_details", record.encode(), "a.json")
    assert run(shell, dump) < 1500
    said = db.one("SELECT error_message FROM agent_pipeline_errors WHERE source_file = 'agent_details/a.json'")
    if times == 2:
        assert said.endswith("the record: has a key more than once: k000000, k000001")
    else:
        assert said.endswith("k000008, k000009 and 89990 more")


def test_one_key_of_ten_thousand_stands_twice(shell: Shell, db: Database, dump: Dump) -> None:
    keys = ", ".join(f'"k{n}": 1' for n in (*range(10_000), 77))
    dump.write("day1", "agent_details", [GOOD["agent_details"]])
    dump.write("day1", "agent_details", f'{{"id": 2, {keys}}}'.encode(), "a.json")
    assert run(shell, dump) < 1500
    assert "the record: has a key more than once: k77" in db.one(
        "SELECT string_agg(error_message, ' ') FROM agent_pipeline_errors"
    )


def test_up_to_the_bound_all_is_well(shell: Shell, db: Database, dump: Dump) -> None:
    ids = ",".join(map(str, range(1, 100_001)))
    members = ",".join(f'"k{n}": 1' for n in range(50_000))
    deep = "[" * 20_000 + "]" * 20_000
    text = "x" * 1_000_000
    record = f'{{"id": 2, "email": "e", "name": "{text}", "group_ids": [{ids}], "deep": {deep}, {members}}}'
    dump.write("day1", "agent_details", f"[{record}]".encode())
    assert run(shell, dump) < 1500
    assert db.one("SELECT count(*) FROM agent_group_membership") == 100_000
    assert db.one("SELECT length(name) FROM agents") == 1_000_000


numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(st.sampled_from('a"\\[]{},:\n')),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def count(value: Any) -> int:
    """Members and elements, at all depths, and the arrays and objects that are not empty once more."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return len(inside) + sum(map(count, inside))


@given(value=values.filter(lambda v: isinstance(v, dict | list)), indent=st.sampled_from([None, 1]))
def test_an_extent_ends_where_the_value_does_and_counts_what_is_in_it(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    extent = Extent(2)
    for end in range(len(text) // 2, len(text) + 2):  # through a text that grows
        found = extent.find_end(f"  {text[:end]}")
        assert found is None or end >= len(text)
    assert extent.find_end(f"  {text} , []") is not None
    whole = Extent(0)
    assert whole.find_end(f"{text}, 1]") == len(text)
    assert whole._values == count(value)
    assert find_end(f"{text}, 1]", 0) == len(text)


TOKENS = st.sampled_from(
    ['"a"', ":", ",", "[", "]", "{", "}", "1", "-", "1.", "01", " ", "true", '"', "\\", "\n", "\t"]
)


@given(st.lists(TOKENS, max_size=12).map("".join))
@example('{"a":1,}')
@example('{"a" 1}')
@example("[1,]")
@example("[1 2]")
@example("{1:2}")
@example("[}")
def test_a_deep_value_is_json_if_pythons_own_parser_says_so(text: str) -> None:
    expected = _end(lambda: DECODER.raw_decode(text.lstrip(" \t\r\n"))[1])
    lead = len(text) - len(text.lstrip(" \t\r\n"))
    found = _end(lambda: find_end(text, 0) - lead)
    assert found == expected


def _end(parse: Callable[[], int]) -> int | None:
    try:
        return parse()
    except ValueError:
        return None


def test_what_is_too_deep_for_python_is_read(tmp_path: Path) -> None:
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    for name, data, count in (
        ("a.json", f"[{deep}, {deep}, 1]", 3), ("b.json", deep, 1), ("c.ndjson", f"{deep}\n{deep}x\n{deep}", 3),
    ):  # fmt: skip
        (tmp_path / name).write_text(data)
        records = list(read_exactly(describe("agents", str(tmp_path / name)), "agents"))
        assert len(records) == count
        assert [record.fault for record in records if record.fault] == (
            ["the line is not JSON: Extra data at character 30001"] if name == "c.ndjson" else []
        )


def test_what_cannot_hold_too_much_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest text that holds too much is longer than what is not looked at."""
    assert find_fault("[" + "1," * MAX_VALUES + "1]") is not None
    assert find_fault("[" * (MAX_VALUES + 2) + "]" * (MAX_VALUES + 2)) is not None
    monkeypatch.setattr(bounds, "Extent", None)  # which would fail
    assert find_fault("[" + "1," * (MAX_VALUES - 2) + "1]") is None
    assert find_fault("[" * MAX_VALUES + "]" * MAX_VALUES) is None


def bombs(number: int) -> Iterator[tuple[str, bytes]]:
    """Compressed files of 60 KB that unpack to 59 MiB each, which one file by itself may."""
    record = b'{"id": 5, "email": "e", "name": "n", "x": "' + b" " * 99_999 + b'"}'
    bomb = b"[" + b",".join([record] * 600) + b"]"
    for n in range(number):
        yield (f"{n}.json.gz", gzip.compress(bomb)) if n % 2 else (f"{n}.json.zst", zstandard.compress(bomb))


def test_small_bombs_fill_no_disk_together(shell: Shell, db: Database, dump: Dump, tmp_path: Path) -> None:
    for name, data in bombs(12):
        dump.write("day1", "agent_details", data, name)
    good = [GOOD["agent_details"] | {"id": n, "signature": "x" * 100} for n in range(1, 2000)]
    dump.write("day1", "agent_details", gzip.compress(json.dumps(good).encode()), "~good.json.gz")
    folder = list_folder(str(dump.path / "sync-day1"), "agent_details", "agents")
    assert sum(250 * f.size + f.allowance for f in folder.files) <= 250 * sum(f.size for f in folder.files) + (64 << 20)
    temp = tmp_path / "temp"
    temp.mkdir()
    shell.environment["DESKROLL_TEMP_FOLDER"] = str(temp)
    assert run(shell, dump) < 1500
    found = db.rows("SELECT source_file, error_message FROM agent_pipeline_errors")
    assert {error["error_message"] for error in found} == {"the file unpacks to more than 250 times its size"}
    assert len(found) == 12
    assert db.one("SELECT count(*) FROM agents") == 1999


def test_one_small_file_may_unpack_to_much(shell: Shell, db: Database, dump: Dump) -> None:
    ((name, data),) = bombs(1)
    dump.write("day1", "agent_details", data, name)
    run(shell, dump)
    assert db.status() == {5: "active"}
    assert allowance([]) == SMALL_UNPACKED
