"""The exact reader: every shape of file, its records as they stand, and what is no JSON."""

import gzip
from pathlib import Path

import pytest
import zstandard

from deskroll.input.dump import InputFile, describe
from deskroll.input.envelope import Envelope
from deskroll.input.files import Unreadable
from deskroll.input.json_reader import KEPT_OF_A_BAD_FILE, bad_file, read_exactly
from tests.promises.test_bad_input import WHOLE_FILES


def file(folder: Path, data: bytes, name: str = "a.json") -> InputFile:
    path = folder / name
    path.write_bytes(data)
    return describe("cards", str(path), len(data), root=str(folder.resolve()))


SHAPES = {
    "an object": (b'{"id": 1}', "a.json", [(0, '{"id": 1}')]),
    "an array": (b' [{"id": 1}, 2 ,[]] ', "a.json", [(0, '{"id": 1}'), (1, "2"), (2, "[]")]),
    "an empty array": (b"[]", "a.json", []),
    "an envelope": (b'{"next": 2, "results": [{"id": 1.50}]}', "a.json", [(0, '{"id": 1.50}')]),
    "an envelope of the resource": (b'{"cards": [1, 2]}', "a.json", [(0, "1"), (1, "2")]),
    "another list": (b'{"users": [1, 2]}', "a.json", [(0, '{"users": [1, 2]}')]),
    "lines": (b'{"id": 1}\n\n \r\n{"id": 2}\r\n', "a.ndjson", [(0, '{"id": 1}'), (1, '{"id": 2}')]),
    "a byte order mark": (b'\xef\xbb\xbf{"id": 1}\n{"id": 2}', "a.jsonl", [(0, '{"id": 1}'), (1, '{"id": 2}')]),
    "packed with gzip": (gzip.compress(b"[1]"), "a.json.gz", [(0, "1")]),
    "packed twice in one file": (gzip.compress(b"[1,") + gzip.compress(b"2]"), "a.json.gz", [(0, "1"), (1, "2")]),
    "packed with zstd": (zstandard.compress(b"[1]"), "a.JSON.zst", [(0, "1")]),
    "numbers as they stand": (b"[1.50, 1e400]", "a.json", [(0, "1.50"), (1, "1e400")]),
}  # fmt: skip
FAULTS: dict[str, tuple[bytes, str, str]] = WHOLE_FILES | {
    "empty": (b"", "is empty: it holds no JSON; a list of nothing is []", "a.json"),
    "white space": (b" \n", "is empty", "a.ndjson"),
    "cut short in a record": (b'[{"id": 1}, {"id"', "the file ends there", "a.json"),
    "NaN alone": (b"[NaN]", "is not JSON", "a.json"),
    "two arrays": (b"[1] [2]", "more text after the document's end", "a.json"),
    "one byte that is not UTF-8": (b'["\xff"]', "is not UTF-8: byte 0xff at offset 2", "a.json"),
    "UTF-16, by its name": ('{"id": 1}'.encode("utf-16"), "is not UTF-8", "a.json"),
    "a text": (b'"Internal error"', 'holds "Internal error", expected an object, an array or an envelope', "a.json"),
    "a page of an error": (b"<html>", "is not JSON", "a.json"),
    "an error beside an empty list": (b'{"cards": [], "errors": ["x"]}', "has an empty list beside an error", "a.json"),
    "packed with another": (b"PK\x03\x04", "cannot be unpacked", "a.json.gz"),
}


@pytest.mark.parametrize(("data", "name", "records"), SHAPES.values(), ids=SHAPES)
def test_a_file_of_any_shape(data: bytes, name: str, records: list[tuple[int | None, str]], tmp_path: Path) -> None:
    found = list(read_exactly(file(tmp_path, data, name), "cards"))
    assert [(one.position, one.record, one.fault) for one in found] == [(*record, None) for record in records]


@pytest.mark.parametrize(("data", "message", "name"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_is_no_json_to_its_end(data: bytes, message: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(Unreadable) as raised:
        list(read_exactly(file(tmp_path, data, name), "cards"))
    assert message in str(raised.value)


def test_a_bad_line_is_a_fault_of_that_line(tmp_path: Path) -> None:
    lines = [b'{"id": 1}', b"{bad", b"NaN", b'{"id": "\xff"}', b'{"id": 1} {"id": 2}', b'{"id": 3}']
    found = list(read_exactly(file(tmp_path, b"\n".join(lines), "a.ndjson"), "cards"))
    assert [one.position for one in found] == list(range(6))
    assert [one.record for one in found if not one.fault] == ['{"id": 1}', '{"id": 3}']
    assert [one.fault is None for one in found] == [True, False, False, False, False, True]


def test_what_an_envelope_says_is_told(tmp_path: Path) -> None:
    told: list[Envelope] = []
    list(read_exactly(file(tmp_path, b'{"nextPage": "x", "results": [1], "total": 7}'), "cards", told.append))
    assert told == [Envelope(has_next=True, total=7)]


def test_a_bad_file_keeps_how_it_begins(tmp_path: Path) -> None:
    kept = bad_file(file(tmp_path, b"\x00\xff" + b"x" * (2 * KEPT_OF_A_BAD_FILE)), "is not JSON")
    assert kept.fault == "the file is not JSON"
    assert kept.raw is not None
    assert kept.raw.startswith("\\x00\\xffx")
    assert bad_file(file(tmp_path, b""), "is empty").raw is None
    assert bad_file(file(tmp_path, b"PK\x03", "a.json.gz"), "cannot be unpacked").raw == "PK\\x03"


def test_a_link_out_of_the_dump_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("[1]")
    (tmp_path / "dump").mkdir()
    link = tmp_path / "dump" / "a.json"
    link.symlink_to(tmp_path / "secret.json")
    with pytest.raises(Unreadable, match="out of the dump"):
        list(read_exactly(describe("cards", str(link), root=str((tmp_path / "dump").resolve())), "cards"))
