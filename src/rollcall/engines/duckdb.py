"""The embedded engine: DuckDB in this process, with bounded memory, spilling to a temporary folder.

Three ways to read a file, each for what it is best at:

- arrays of some size by DuckDB itself, as they lie on disk;
- everything small by Python into a few large spool files, which DuckDB then takes apart: opening tens of thousands of
  small files costs DuckDB four times what it costs Python;
- whatever either of them doubts by `source.read_exactly`, which says exactly what is wrong, and where.
"""

import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb

from rollcall.engines import Rows, Sink
from rollcall.errors import EngineError
from rollcall.flatten import UNREAD
from rollcall.source import (
    Folder,
    Record,
    SourceFile,
    Unreadable,
    bad_file,
    find_day,
    list_folder,
    open_bytes,
    read_exactly,
)

_DIRECT_FROM: Final = 256 * 1024  # bytes from which DuckDB reads an array itself
_SPOOL_UP_TO: Final = 16 * 1024 * 1024  # bytes of a file that is taken into memory whole
_SPOOL_CHUNK: Final = 4 * 1024 * 1024
_ROW, _COLUMN = b"\x1e", b"\x1f"  # control characters, which no JSON text holds
TEMP: Final = "rollcall-engine-"
_TEMP_IS_OLD: Final = 2 * 24 * 3600  # seconds
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"


def _is_lax(text: str) -> str:
    """Whether it holds what DuckDB takes for JSON and RFC 8259 does not: a trailing comma, or a number that is none."""
    return (
        rf"""(regexp_matches({text}, ',[ \t\r\n]*[}}\]]') OR contains({text}, 'NaN') OR contains({text}, 'Infinity'))"""
    )


_SPOOLED: Final = """(
    SELECT string_split(row, chr(31)) AS part
    FROM (SELECT unnest(string_split(content, chr(30))) AS row FROM read_text(?))
)"""

_FROM_SPOOL: Final = f"""SELECT source_file, coalesce(line, position - 1) AS record_index,
    CASE WHEN NOT is_doubtful THEN coalesce(item, 'null') END AS record, NULL AS raw, NULL AS fault
FROM (
    SELECT source_file, line, is_doubtful, unnest(items) AS item, generate_subscripts(items, 1) AS position FROM (
        SELECT *, CASE WHEN line IS NULL AND starts_with(text, '[') AND NOT is_doubtful
            THEN CAST(json_transform(text, '["JSON"]') AS VARCHAR[]) ELSE [text] END AS items
        FROM (SELECT *, NOT json_valid(text) OR {_is_lax("text")} AS is_doubtful FROM (
            SELECT part[1] AS source_file, try_cast(part[2] AS BIGINT) AS line, part[3] AS text FROM {_SPOOLED}
        ))
    )
)"""

_FROM_EXACT: Final = f"""SELECT part[1] AS source_file, try_cast(part[2] AS BIGINT) AS record_index,
    nullif(part[3], '') AS record, nullif(part[4], '') AS raw, nullif(part[5], '') AS fault
FROM {_SPOOLED}"""

Insert = Callable[[str, Iterable[str]], None]

_NOTHING: Final = "SELECT '' AS source_file, 0 AS record_index, '' AS record, '' AS raw, '' AS fault LIMIT 0"


def _from_large(folder: str, *, is_lines: bool) -> str:
    """Read whole files by DuckDB: a line that is no JSON comes back as NULL, an array that is none fails them all."""
    style = "'newline_delimited', ignore_errors = true" if is_lines else "'array'"
    return f"""SELECT '{folder}/' || parse_filename(filename) AS source_file, NULL AS record_index,
    CASE WHEN NOT {_is_lax("json")} THEN CAST(json AS VARCHAR) END AS record, NULL AS raw, NULL AS fault
FROM read_json_objects(?, format = {style}, filename = true)"""


class DuckDB:
    """An in-memory DuckDB whose memory is bounded; what does not fit goes to `temp_folder`."""

    name = "duckdb"
    is_distributed = False

    def __init__(self, memory_limit: str, threads: int | None = None, temp_folder: Path | None = None) -> None:
        self._memory_limit = memory_limit
        self._threads = threads
        self._temp_parent = temp_folder

    def __enter__(self) -> Self:
        try:
            self._temp = Path(tempfile.mkdtemp(prefix=TEMP, dir=self._temp_parent))
        except OSError as error:
            raise EngineError(
                f"No temporary folder can be made in {self._temp_parent or tempfile.gettempdir()}: {error.strerror}.",
                "Set ROLLCALL_TEMP_FOLDER to one with free space.",
            ) from error
        for old in self._temp.parent.glob(f"{TEMP}*"):  # of runs that were killed
            with suppress(FileNotFoundError):  # of a run that ends just now
                if time.time() - old.stat().st_mtime > _TEMP_IS_OLD:
                    shutil.rmtree(old, ignore_errors=True)
        config: dict[str, Any] = {
            "memory_limit": self._memory_limit,
            "temp_directory": str(self._temp / "spill"),
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
        }
        if self._threads:
            config["threads"] = self._threads
        try:
            self._connection = duckdb.connect(config=config)
        except duckdb.Error as error:
            raise EngineError(f"DuckDB does not start: {error}", "Check ROLLCALL_MEMORY_LIMIT.") from error
        self._run("SET TimeZone = 'UTC'")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        shutil.rmtree(self._temp, ignore_errors=True)

    def find_day(self, dump: str, label: str) -> str:
        """The folder of a sync day; see `source.find_day`."""
        return find_day(dump, label)

    def list_folder(self, day: str, name: str, resource: str) -> Folder:
        """List one source folder of a day; see `source.list_folder`."""
        return list_folder(day, name, resource)

    def read(self, folder: Folder, select: str, table: str) -> bool:
        """Run a SELECT over all records of a folder; see `Engine.read`."""
        self._run(f"CREATE OR REPLACE TABLE {table} AS WITH records AS ({_NOTHING}) SELECT * FROM ({select}) LIMIT 0")

        def insert(reader: str, paths: Iterable[str]) -> None:
            literal = [_literally(path) for path in paths]
            self._run(
                f"INSERT INTO {table} WITH records AS NOT MATERIALIZED ({reader}) SELECT * FROM ({select})",
                [literal],
            )

        large: list[SourceFile] = []
        small: list[SourceFile] = []
        for file in folder.files:
            (large if _is_large(file) else small).append(file)
        doubtful = self._read_large(folder.name, large, table, insert)
        spool = _Spool(self._temp / f"{table}.small")
        doubtful += _spool_small(small, folder.resource, spool)
        spool.empty_into(insert, _FROM_SPOOL)

        unread = self.fetch(f"SELECT DISTINCT source_file FROM {table} WHERE error_type = '{UNREAD}'")
        names = {f.name for f in doubtful} | {name for (name,) in unread}
        self._run(f"DELETE FROM {table} WHERE list_contains(?, source_file)", [sorted(names)])
        exact = _Spool(self._temp / f"{table}.exact")
        is_complete = _spool_exactly((f for f in folder.files if f.name in names), folder.resource, exact)
        exact.empty_into(insert, _FROM_EXACT)
        return is_complete

    def each(self, rows: str, select: str, table: str) -> None:
        """Run a SELECT that looks at each row by itself; see `Engine.each`."""
        self.create(table, f"WITH records AS NOT MATERIALIZED ({rows}) SELECT * FROM ({select})", keep=True)

    def take(self, name: str, columns: Sequence[str], parts: Sequence[Rows]) -> None:
        """Keep a relation that is known already; see `Engine.take`."""
        typed = ", ".join(f"{column} BIGINT" for column in columns)
        self._run(f"CREATE OR REPLACE TABLE {name} ({typed})")
        spool = self._temp / f"{name}.known"
        for part in parts:
            with spool.open("wb") as sink:
                sink.writelines(part())
            self._run(rf"COPY {name} FROM '{spool}' (FORMAT csv, HEADER false, DELIMITER '\t', NULLSTR '\N')")
            spool.unlink()

    def create(self, name: str, select: str, *, keep: bool = False) -> None:
        """Give a SELECT a name; see `Engine.create`."""
        self._run(f"CREATE OR REPLACE {'TABLE' if keep else 'VIEW'} {name} AS {select}")

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        """Run a SELECT and return its few rows."""
        return self._run(select).fetchall()

    def columns(self, select: str) -> list[str]:
        """The names of a SELECT's columns."""
        return [name for name, *_ in self._run(f"DESCRIBE {select}").fetchall()]

    def write(self, select: str, sink: Sink) -> list[str]:
        """Hand the rows of a SELECT to `sink`; see `Engine.write`."""
        return [sink(self.copy_text(select))]

    def copy_text(self, select: str) -> Iterator[bytes]:
        """Run a SELECT and yield its rows in COPY's text format, which unlike CSV has no trouble with any line."""
        described = self._run(f"DESCRIBE {select}").fetchall()
        columns = ", ".join(_escaped(name) if kind == "VARCHAR" else name for name, kind, *_ in described)
        reading, writing = os.pipe()
        failure: list[BaseException] = []

        def write() -> None:
            try:
                self._run(
                    f"COPY (SELECT {columns} FROM ({select})) TO '/dev/fd/{writing}' (FORMAT csv, HEADER false,"
                    r" DELIMITER '\t', QUOTE '', ESCAPE '', NULLSTR '\N', USE_TMP_FILE false)"
                )
            except BaseException as error:  # noqa: BLE001 - raised again by the reader, who would take silence for the end
                failure.append(error)
            finally:
                os.close(writing)

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        try:
            while chunk := os.read(reading, 1024 * 1024):
                yield chunk
        finally:
            os.close(reading)
            writer.join()
        for error in failure:
            raise error

    def _run(self, statement: str, parameters: list[Any] | None = None) -> duckdb.DuckDBPyConnection:
        try:
            # A cursor of its own: staging tables are copied side by side.
            return self._connection.cursor().execute(statement, parameters)
        except RuntimeError as error:
            if "interrupted" in str(error):  # Ctrl-C, which DuckDB takes for itself
                raise KeyboardInterrupt from error
            raise
        except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
            raise EngineError(
                f"DuckDB ran out of room: {str(error).splitlines()[0]}",
                "Free space in the temporary folder (ROLLCALL_TEMP_FOLDER) or raise ROLLCALL_MEMORY_LIMIT.",
            ) from error

    def _read_large(self, folder: str, files: list[SourceFile], table: str, insert: Insert) -> list[SourceFile]:
        """Insert the records of large files; return those that DuckDB cannot read."""
        bad: list[SourceFile] = []
        for is_lines in (False, True):
            reader = _from_large(folder, is_lines=is_lines)
            some = [f for f in files if f.is_lines == is_lines]
            if not some:
                continue
            try:
                insert(reader, [f.path for f in some])
            except (duckdb.Error, EngineError):
                unusable = {f for f in some if not self._can_read(reader, f)}
                bad += unusable
                if len(unusable) < len(some):
                    insert(reader, [f.path for f in some if f not in unusable])
        # DuckDB keeps the order of a file's records in that of the rows, and so far no row has been deleted.
        self._run(
            f"""UPDATE {table} SET record_index = {table}.rowid - begin.row
            FROM (SELECT source_file, min(rowid) AS row FROM {table} GROUP BY source_file) AS begin
            WHERE begin.source_file = {table}.source_file"""
        )
        return bad

    def _can_read(self, reader: str, file: SourceFile) -> bool:
        try:
            self._run(f"SELECT count(record) FROM ({reader})", [[_literally(file.path)]])
        except (duckdb.Error, EngineError):
            return False
        return True


def _spool_exactly(files: Iterable[SourceFile], resource: str, spool: "_Spool") -> bool:
    """Spool the records of files that raised doubts; return whether all could be read to their end."""
    is_complete = True
    for file in files:
        mark = spool.mark()
        try:
            for record in read_exactly(file, resource):
                is_complete = is_complete and record.fault is None
                spool.add(_exact_row(file, record))
        except Unreadable as error:
            is_complete = False
            spool.rewind(mark)
            spool.add(_exact_row(file, bad_file(file, str(error))))
    return is_complete


class _Spool:
    """Rows of bytes in files of a few MB each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: list[Path] = []
        self._rows: list[bytes] = []
        self._size = 0

    def add(self, row: bytes) -> None:
        self._rows.append(row)
        self._size += len(row)
        if self._size > _SPOOL_CHUNK:
            self._flush()

    def mark(self) -> int:
        """Finish the file at hand; returns a place to rewind to."""
        self._flush()
        return len(self._paths)

    def rewind(self, mark: int) -> None:
        """Forget the rows added since a mark."""
        self._rows, self._size = [], 0
        for path in self._paths[mark:]:
            path.unlink()
        del self._paths[mark:]

    def empty_into(self, insert: Insert, reader: str) -> None:
        """Hand all rows over, and free the disk."""
        self._flush()
        if self._paths:
            insert(reader, map(str, self._paths))
            shutil.rmtree(self.folder)

    def _flush(self) -> None:
        if not self._rows:
            return
        path = self.folder / f"{len(self._paths):06}"
        try:
            self.folder.mkdir(exist_ok=True)
            path.write_bytes(_ROW.join(self._rows))
        except OSError as error:
            raise EngineError(
                f"The temporary folder cannot be written: {error.strerror}.",
                "Free space there, or set ROLLCALL_TEMP_FOLDER to a folder with more.",
            ) from error
        self._paths.append(path)
        self._rows, self._size = [], 0


def _is_large(file: SourceFile) -> bool:
    """Whether DuckDB is to read the file itself: an array, or lines, of some size."""
    if file.size < _DIRECT_FROM or not file.name.endswith(file.path.rpartition(os.sep)[2]):
        return False
    if file.is_lines:
        return not file.compression  # DuckDB takes a compressed stream that is cut short between lines for whole
    try:
        return next(open_bytes(file), b"").removeprefix(_BOM).lstrip(_SPACE).startswith(b"[")
    except Unreadable:
        return False


def _spool_small(files: Iterable[SourceFile], resource: str, spool: _Spool) -> list[SourceFile]:
    """Spool the text of files that fit in memory; return those that raise doubts already."""
    doubtful: list[SourceFile] = []
    lists = (b'"results"', b'"%b"' % resource.encode())
    for file in files:
        try:
            text = _whole(file)
            rows: Iterable[tuple[bytes, bytes]]
            if file.is_lines:
                rows = _lines(text)
            elif text.startswith(b"{") and (lists[0] in text or lists[1] in text):
                rows = [(b"", _list_of_envelope(text, lists))]
            elif not text or text.startswith((b"{", b"[")):
                rows = [(b"", text)]
            else:
                raise ValueError
            for index, row in rows:
                if row:
                    spool.add(b"%b\x1f%b\x1f%b" % (file.name.encode(), index, row))
        except (Unreadable, ValueError, OSError):
            doubtful.append(file)
    return doubtful


def _whole(file: SourceFile) -> bytes:
    """The text of a small file.

    Raises:
        ValueError: it is too large, not UTF-8, or holds the spool's own separators, which no JSON does.
    """
    if file.compression:
        data = b""
        for chunk in open_bytes(file):
            data += chunk
            if len(data) > _SPOOL_UP_TO:
                raise ValueError
    elif 0 <= file.size <= _SPOOL_UP_TO:
        # What is written while we read is read next time: the file as it was listed.
        descriptor = os.open(file.path, os.O_RDONLY)
        try:
            data = os.read(descriptor, file.size)
        finally:
            os.close(descriptor)
    else:
        raise ValueError
    if not data.isascii():
        data.decode()
    if _ROW in data or _COLUMN in data:
        raise ValueError
    return data.removeprefix(_BOM).strip(_SPACE)


def _lines(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    return (
        (b"%d" % index, line) for index, line in enumerate(filter(None, (x.strip(_SPACE) for x in text.split(b"\n"))))
    )


def _list_of_envelope(text: bytes, lists: tuple[bytes, bytes]) -> bytes:
    """The array in an envelope; the whole text where there is none.

    Raises:
        ValueError: it may be an envelope, and not one of the plain kind.
    """
    begin = re.search(rb"(%b|%b)\s*:\s*\[" % tuple(map(re.escape, lists)), text)
    if not begin:
        return text
    end = text.rindex(b"]") + 1
    # The rest of the envelope must be JSON with the list cut out, and the list a member of the envelope itself.
    envelope = json.loads(text[: begin.end() - 1] + b"null" + text[end:], object_pairs_hook=_members)
    if (json.loads(begin[1]), None) not in envelope:
        raise ValueError
    return text[begin.end() - 1 : end]


def _members(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return pairs


def _exact_row(file: SourceFile, record: Record) -> bytes:
    position = "" if record.position is None else str(record.position)
    columns = (file.name, position, record.record or "", record.raw or "", record.fault or "")
    return _COLUMN.join(c.encode() for c in columns)


def _literally(path: str) -> str:
    """A path as DuckDB takes it: it reads `*`, `?` and `[` in one as a pattern."""
    return re.sub(r"([*?[])", r"[\1]", path)


def _escaped(column: str) -> str:
    """SQL that writes a text column as COPY's text format wants it."""
    text = column
    for character, escape in (
        ("'\\'", "'\\\\'"),
        ("chr(10)", "'\\n'"),
        ("chr(13)", "'\\r'"),
        ("chr(9)", "'\\t'"),
    ):
        text = f"replace({text}, {character}, {escape})"
    return f"{text} AS {column}"
