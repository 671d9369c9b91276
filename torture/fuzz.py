"""Coverage-guided fuzzing of whatever Python parses bytes: the exact reader, and what lays files out for the fast one.

    python torture/fuzz.py --seconds 60            needs atheris, which is for Linux only

What must hold of any bytes: they are read or refused, and nothing else happens; what is read is what the standard
library's `json` reads; and what is laid out for DuckDB is, behind its brackets, JSON with the same elements.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["deskroll"]):
    from deskroll.engines import spool
    from deskroll.input.dump import InputFile, describe
    from deskroll.input.files import Unreadable
    from deskroll.input.json_reader import bad_file, read_exactly

ENDINGS = (".json", ".jsonl", ".json.gz", ".json.zst", ".ndjson.gz")
ROOT = Path(__file__).parent.parent


def main() -> None:
    """Fuzz for some seconds, beginning with the corpus of hostile input."""
    parser = argparse.ArgumentParser(description="Coverage-guided fuzzing of the readers.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument(
        "--corpus", type=Path, default=ROOT / "bench" / "out" / "fuzz", help="what it finds is kept here"
    )
    given = parser.parse_args()
    given.corpus.mkdir(parents=True, exist_ok=True)
    seeds = str(ROOT / "tests" / "corpus")
    temp = Path(tempfile.mkdtemp(prefix="deskroll-fuzz-"))
    options = [sys.argv[0], str(given.corpus), seeds, f"-max_total_time={given.seconds}", "-max_len=4096"]
    atheris.Setup([*options, "-print_final_stats=1"], lambda data: try_one(data, temp))
    atheris.Fuzz()


def try_one(data: bytes, temp: Path) -> None:
    """Read bytes as a file whose kind the first byte says."""
    if not data:
        return
    path = temp / f"x{ENDINGS[data[0] % len(ENDINGS)]}"
    path.write_bytes(data[1:])
    file = describe("agents", os.fspath(path), len(data) - 1)
    records: list[str | None] | None = []
    try:
        for record in read_exactly(file, "agents"):
            assert (record.record is None) == (record.fault is not None)
            assert records is not None
            records.append(record.record)
    except Unreadable as error:
        bad_file(file, str(error))
        records = None
    try:
        values = None if records is None else [None if one is None else json.loads(one) for one in records]
    except RecursionError:
        return
    if not file.compression and not file.is_lines:
        agree_with_json(data[1:], values)
    if not file.is_lines:
        agree_with_spool(file, values)


def agree_with_json(data: bytes, values: list[Any] | None) -> None:
    """The exact reader takes what `json` takes, and no more."""
    try:
        document = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except RecursionError:  # what is too deep for `json` is read all the same
        return
    except ValueError:
        assert not values
        return
    if isinstance(document, list):
        assert values is None or repr(values) == repr(document) or "\\ud" in repr(document).lower()


def agree_with_spool(file: InputFile, values: list[Any] | None) -> None:
    """What is laid out and is JSON has the elements of the file."""
    try:
        laid_out = b"[" + b"".join(spool._elements(file, (b'"results"', b'"agents"'))) + b"]"
        document = json.loads(laid_out.decode(), parse_constant=_refuse)
    except (Unreadable, ValueError, RecursionError):
        return
    assert values is not None
    assert repr(document) == repr(values) or "\\ud" in repr(document).lower()


def _refuse(constant: str) -> None:
    raise ValueError(constant)


if __name__ == "__main__":
    main()
