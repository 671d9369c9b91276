"""Files laid out anew say what they said before: the fast reader agrees with the exact one, whatever lies beside."""

import gzip
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deskroll.engines import duckdb_reader, spool
from deskroll.engines.duckdb import DuckDB
from deskroll.input.dump import list_folder
from deskroll.input.files import Unreadable
from deskroll.input.json_reader import Record, bad_file, read_exactly

SELECT = """SELECT source_file, record_index, record, raw, fault,
    CASE WHEN record IS NULL AND fault IS NULL THEN 'UNREAD' END AS error_type FROM records"""
PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
TOKENS = [
    "[",
    "]",
    "[",
    "]",
    "{",
    "}",
    ",",
    ",",
    " ",
    "\n",
    "1.50",
    '"x"',
    '{"id": 1}',
    '{"id":1e3}',
    '"results":',
    '"cards":',
]
TOKENS += [
    '{"results": [',
    '{"next": null, "cards": [',
    '{"errors": ["x"], "cards": [',
    "], ",
    "]}",
    '{"results": []}',
    "NaN",
    "-inf",
    '"Infinity": "nan, inf]"',
    "\x0c",
    "\ufeff",
    "\x00",
    '"',
    "\\",
]


def read_both(folder: Path, **lines: Any) -> tuple[list[Any], list[Any]]:
    """What the fast and the exact reader make of all files of a folder `cards`."""
    listed = list_folder(str(folder), "cards", "cards")
    exact: list[tuple[str, Record]] = []
    for file in listed.files:
        try:
            exact += [(file.name, record) for record in list(read_exactly(file, "cards"))]
        except Unreadable as error:
            exact.append((file.name, bad_file(file, str(error))))
    with DuckDB("400MB", threads=1) as engine:
        is_complete, _ = engine.read(listed, SELECT, "found")
        rows = engine.fetch("SELECT source_file, record_index, record, raw, fault FROM found ORDER BY ALL")
    assert is_complete == all(record.fault is None for _, record in exact)
    fast = [(name, *rest) for name, *rest in rows]
    return fast, sorted([(name, *record) for name, record in exact], key=_order)


def _order(row: tuple[Any, ...]) -> Any:
    return (row[0].encode(), row[1] is None, row[1] or 0)


def write(folder: Path, files: list[tuple[str, bytes]]) -> None:
    (folder / "cards").mkdir()
    for number, (ending, data) in enumerate(files):
        (folder / "cards" / f"{number:03}'\\?{ending}").write_bytes(data)


endings = st.sampled_from([".json", ".json", ".json", ".jsonl", ".json.gz", ".ndjson.zst"])
contents = st.lists(st.sampled_from(TOKENS), max_size=12).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    some=st.lists(st.tuples(endings, contents), min_size=1, max_size=5),
    how=st.sampled_from(["spooled", "too long for memory", "direct"]),
)
@example(some=[(".json", "[[1]"), (".json", "[2]]")], how="spooled")
@example(some=[(".json", "[1], [2]"), (".json", "[3]")], how="spooled")
@example(some=[(".json", '{"results": [1], "cards": [2]}'), (".json", "[3]")], how="too long for memory")
@example(some=[(".json", '{"x": {"results": [1]}}'), (".json", '{"x": "\\"results\\": ["}')], how="spooled")
@example(some=[(".json", '{"r\\u0065sults": [{"id": 1}]}'), (".json", '{"results": null}')], how="spooled")
@example(some=[(".json", '{"r\\u0065sults": [2], "results": [1]}')], how="spooled")
@example(some=[(".jsonl", '{"id": 1}, {"id": 2}\n[1\n2]'), (".jsonl", "1\n\n 2 ")], how="spooled")
@example(
    some=[(".json", '[{"id": 1},\n'), (".json", '[{"id": 1}, ]'), (".json", '[{"id": 1}'), (".json", "[]")],
    how="direct",
)
@example(some=[(".jsonl", '{"id": 1}\n{"id": -inf}\n'), (".json", '[{"id": [nan]}]')], how="direct")
@example(some=[(".jsonl", '{"id": 1}\n\x0c\n{"id": 2}\x0c\n'), (".json", '[{"id": 1}\x0c]')], how="spooled")
@example(some=[(".json", '{"errors": ["x"], "cards": [ ]}'), (".json", "[1]")], how="too long for memory")
@example(some=[(".json", '{"cards": [], "errors": {"a": null}}'), (".json", " "), (".jsonl", " \n")], how="spooled")
@example(some=[(".jsonl", " \n"), (".jsonl", "1")], how="direct")
@example(some=[(".json.gz", '{"results": [{"id": 1.50}, 2], "next": []}')], how="too long for memory")
def test_whatever_lies_beside_what_each_file_says_what_it_said(some: list[tuple[str, str]], how: str) -> None:
    folder = Path(tempfile.mkdtemp())
    files = [
        (ending, PACK[Path(ending).suffix if ending.count(".") > 1 else ""](text.encode())) for ending, text in some
    ]
    with pytest.MonkeyPatch.context() as patch:
        if how == "direct":
            patch.setattr(duckdb_reader, "_DIRECT_FROM", 1)
            # DuckDB takes a form feed between records for white space; only in a spool is it looked for.
            files = [(ending, data.replace(b"\x0c", b"")) for ending, data in files]
        if how == "too long for memory":
            patch.setattr(spool, "MAX_RECORD", 8)
            patch.setattr(spool, "_MARGIN", 24)
        try:
            write(folder, files)
            fast, exact = read_both(folder)
            assert fast == exact
        finally:
            shutil.rmtree(folder)


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("form", ["[{}]", '{{"results": [{}], "next": "x"}}', '{{"next": [], "cards" : [{}]\n}}'])
def test_a_file_of_any_size_is_read_by_duckdb(form: str, pack: str, tmp_path: Path) -> None:
    some = [json.dumps({"id": number, "text": "x" * 2000, "digits": 7}) for number in range(10_000)]
    text = form.format(",\n".join(some)).replace('"digits": 7', '"digits": 1.2345678901234567890')
    write(tmp_path, [(f".json{pack}", PACK[pack](text.encode()))])
    (file,) = list_folder(str(tmp_path), "cards", "cards").files
    taken = spool.DocumentSpool(tmp_path / "spool", "cards", is_lines=False)
    assert taken.add(file)  # and so not left to the exact reader
    fast, exact = read_both(tmp_path)
    assert fast == exact
    assert len(fast) == 10_000
    assert "1.2345678901234567890" in fast[-1][2]
