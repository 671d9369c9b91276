"""What the Spark engine's tasks do, each in a Python process beside its executor.

A task opens an embedded DuckDB of its own over its share of the files or rows: what looks at one record at a time is
computed by the very engine, and the very SQL, of a run on one machine, so that there is nothing to differ.
"""

import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa

from deskroll.engines.base import Reading, Rows, Sink
from deskroll.engines.duckdb import TEMP, DuckDB
from deskroll.input.dump import SMALL_UNPACKED, Folder, InputFile, describe
from deskroll.input.files import Unreadable, open_file
from deskroll.sql import sql_text

Batches = Iterator[pa.RecordBatch]

_CHUNK: Final = 4 * 1024 * 1024
_BATCH_ROWS: Final = 2000  # a batch holds at most 2 GB of text


class Part(NamedTuple):
    """A file of a task or, if `begin` is set, the lines of a file that begin from that byte on."""

    file: InputFile
    begin: int | None = None


PartReader = Callable[[str, str, Batches, Path], Iterator[Part]]
"""Makes local files of a task's rows: takes the folder's name, the dump, the rows, and a place for temporary files."""


def listed(folder: str, root: str, batches: Batches, temp: Path) -> Iterator[Part]:
    """Files that every executor sees under the same path; rows: path BINARY, size, begin, end BIGINT, fault."""
    for number, row in enumerate(_rows(batches)):
        path = os.fsdecode(row["path"])
        file = describe(folder, path, row["size"], root=root)._replace(fault=row["fault"])
        if row["begin"] is None:
            yield Part(file)
        else:
            place = _place(temp, number, path)
            try:
                _cut_lines(file, place, row["begin"], row["end"])
            except (OSError, Unreadable):  # reading all of it will say what is wrong
                yield Part(file._replace(size=-1), row["begin"])
            else:
                yield _part(folder, place, row["begin"])


def fetched(folder: str, _: str, batches: Batches, temp: Path) -> Iterator[Part]:
    """Files that Spark has read, or not because of a fault; rows: path STRING, content BINARY, perhaps fault STRING."""
    for number, row in enumerate(_rows(batches)):
        place = _place(temp, number, row["path"])
        place.write_bytes(row["content"])
        yield Part(describe(folder, str(place), len(row["content"]))._replace(fault=row.get("fault", "")))


def fetched_lines(folder: str, _: str, batches: Batches, temp: Path) -> Iterator[Part]:
    """Lines that Spark has read, those of a part of a file together; rows: path (quoted), begin BIGINT, line BINARY."""
    parts = groupby(_rows(batches), key=lambda row: (row["path"], row["begin"]))
    for number, ((path, begin), rows) in enumerate(parts):
        place = _place(temp, number, unquote(path))
        with place.open("wb") as file:
            file.write(b"\n" if begin else b"")  # a byte order mark counts at the begin of a file alone
            file.writelines(row["line"] + b"\n" for row in rows)
        yield _part(folder, place, begin)


def _part(folder: str, place: Path, begin: int) -> Part:
    """Lines of a file as a file; only one with the file's first lines has to hold any."""
    return Part(describe(folder, str(place), place.stat().st_size)._replace(is_part=begin > 0), begin)


def _rows(batches: Batches) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(batch.to_pylist() for batch in batches)


def _place(temp: Path, number: int, path: str) -> Path:
    """The path under which a task keeps a file: its own name says what is in it."""
    folder = temp / str(number)
    folder.mkdir()
    return folder / path.rpartition("/")[2]


def _cut_lines(file: InputFile, to: Path, begin: int, end: int) -> None:
    """Copy the lines of a file that begin in a range of bytes."""
    with open_file(file) as source, to.open("wb") as sink:
        if begin:
            source.seek(begin - 1)
            deque(_rest_of_line(source), maxlen=0)
            sink.write(b"\n")  # as above
        last = b"\n"
        while (left := end - source.tell()) > 0 and (chunk := source.read(min(left, _CHUNK))):
            sink.write(chunk)
            last = chunk
        if not last.endswith(b"\n"):
            sink.writelines(_rest_of_line(source))


def _rest_of_line(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.readline(_CHUNK):
        yield chunk
        if chunk.endswith(b"\n"):
            return


class _Engine(DuckDB):
    """The embedded engine, with a way in and a way out for Arrow."""

    def keep(self, table: str, rows: pa.RecordBatchReader) -> None:
        """Keep Arrow rows as a table."""
        self._connection.register("taken", rows)
        self._connection.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT * FROM taken")
        self._connection.unregister("taken")

    def give(self, select: str) -> pa.RecordBatchReader:
        """Run a SELECT and return its rows."""
        return self._connection.sql(select).to_arrow_reader(_BATCH_ROWS)


@dataclass(frozen=True)
class Task:
    """What any task needs: the memory of its DuckDB, before that spills to a temporary folder of the executor's."""

    memory_limit: str

    def open(self) -> _Engine:
        """An engine for this task alone."""
        return _Engine(self.memory_limit, threads=1)


@dataclass(frozen=True)
class ReadFiles(Task):
    """Read a task's files and run a SELECT over their records; adds the columns that `PART` names."""

    folder: str
    resource: str
    select: str
    parts: PartReader
    root: str = ""
    allowance: int = SMALL_UNPACKED

    def run(self, batches: Batches) -> Batches:
        """Yield the rows of all files."""
        with tempfile.TemporaryDirectory(prefix=f"{TEMP}task-") as temp, self.open() as engine:
            whole: list[InputFile] = []
            for part in self.parts(self.folder, self.root, batches, Path(temp)):
                file = part.file._replace(allowance=self.allowance)
                if part.begin is None:
                    whole.append(file)
                else:
                    yield from self._read(engine, [file], part.begin)
            if whole:
                yield from self._read(engine, whole, None)

    def schema(self) -> pa.Schema:
        """The columns of the result."""
        with self.open() as engine:
            return self._read(engine, [], None).schema

    def _read(self, engine: _Engine, files: list[InputFile], begin: int | None) -> pa.RecordBatchReader:
        reading = engine.read(Folder(self.folder, self.resource, tuple(files)), self.select, "checked")
        return engine.give(_with_part("checked", begin, reading))


PART: Final = ("part_begin", "part_is_complete")
"""Where the part of a file begins that a row is from (NULL: it is whole), and whether its task could read all."""


ENVELOPES: Final = "ENVELOPES"
"""The `error_type` of a row that is not a record: its `error_message` has what the envelopes of a task say."""


def _with_part(table: str, begin: int | None, reading: Reading) -> str:
    at = "NULL" if begin is None else str(begin)
    part = f"CAST({at} AS BIGINT) AS {PART[0]}, {reading.is_complete} AS {PART[1]}"
    select = f"SELECT *, {part} FROM {table}"
    if not reading.envelopes.count:
        return select
    said = sql_text(json.dumps(asdict(reading.envelopes)))
    return f"{select} UNION ALL BY NAME SELECT '{ENVELOPES}' AS error_type, {said} AS error_message, {part}"


@dataclass(frozen=True)
class CheckRows(Task):
    """Run a SELECT that looks at each row of `records` by itself."""

    select: str

    def run(self, batches: Batches) -> Batches:
        """Yield what becomes of the rows."""
        first = next(batches, None)
        if first is not None:
            with self.open() as engine:
                yield from self._check(engine, pa.RecordBatchReader.from_batches(first.schema, chain([first], batches)))

    def schema(self, rows: pa.Schema) -> pa.Schema:
        """The columns of the result, given those of the rows."""
        with self.open() as engine:
            return self._check(engine, pa.RecordBatchReader.from_batches(rows, [])).schema

    def _check(self, engine: _Engine, rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
        engine.keep("records", rows)
        return engine.give(self.select)


@dataclass(frozen=True)
class LoadRows(Task):
    """Read parts of a relation that is known already; the task's rows say which, `part` INT."""

    columns: Mapping[str, str]
    parts: tuple[Rows, ...]

    def run(self, batches: Batches) -> Batches:
        """Yield the rows of the parts."""
        for row in _rows(batches):
            with self.open() as engine:
                engine.load_rows("loaded", self.columns, [self.parts[row["part"]]])
                yield from engine.give("SELECT * FROM loaded")


@dataclass(frozen=True)
class WriteRows(Task):
    """Hand a partition's rows to a sink in the text format of COPY; what it returns is the task's one row."""

    sink: Sink

    def run(self, batches: Batches) -> Batches:
        """Yield one row, `written`; none for an empty partition."""
        first = next(batches, None)
        if first is not None:
            with self.open() as engine:
                engine.keep("rows", pa.RecordBatchReader.from_batches(first.schema, chain([first], batches)))
                (written,) = engine.copy_out("SELECT * FROM rows", self.sink)
                literal = written.replace("'", "''")
                # Through DuckDB: Arrow would import pandas first, which takes longer than most tasks.
                yield from engine.give(f"SELECT '{literal}' AS written")
