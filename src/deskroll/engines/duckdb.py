"""The embedded engine: DuckDB in this process, with bounded memory, spilling to a temporary folder.

Three ways to read a file, each for what it is best at:

- plain arrays and lines of some size by DuckDB itself, as they lie on disk;
- everything else by DuckDB from a few large files into which Python has laid it (`spool`): opening tens of thousands of
  small files costs DuckDB four times what it costs Python;
- whatever DuckDB doubts by `json_reader.read_exactly`, which says exactly what is wrong, and where.

Either way the record is the text of the file, not a digit changed.
"""

import os
import re
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb

from deskroll.engines import Reading, Rows, Sink
from deskroll.engines.spool import DocumentSpool, no_room
from deskroll.errors import EngineError
from deskroll.input.bounds import ALWAYS_FEW, MAX_TEXT, MAX_VALUES
from deskroll.input.dump import Folder, SourceFile, find_day, list_day, list_folder
from deskroll.input.envelope import Envelope, of_folder
from deskroll.input.files import CAN_REOPEN, Unreadable, open_bytes, open_file, reopened
from deskroll.input.json_reader import Record, bad_file, read_exactly
from deskroll.spec.contract import UNREAD
from deskroll.sql import sql_text

_DIRECT_FROM: Final = 256 * 1024  # bytes from which DuckDB reads an array itself
_EDGE: Final = 4096  # bytes in which it must begin and end
_OPEN_AT_ONCE: Final = 100  # large files; the system may allow a process few descriptors
_SPOOL_CHUNK: Final = 4 * 1024 * 1024
_ROW, _COLUMN = b"\x1e", b"\x1f"  # control characters, which no JSON text holds
TEMP: Final = "deskroll-engine-"
_TEMP_IS_OLD: Final = 2 * 24 * 3600  # seconds
_OF_A_MARKER: Final = -1  # the place before a file's first record
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"


# What DuckDB takes for JSON and RFC 8259 does not: a trailing comma, and numbers that are none. ILIKE is for speed.
_IS_LAX: Final = r"""(
        regexp_matches(json, ',[ \t\r\n]*[}\]]') OR (json ILIKE '%nan%' OR json ILIKE '%inf%')
        AND regexp_matches(json, '(?i)(^|[:,\[])[ \t\r\n]*-?(nan|inf|infinity)[ \t\r\n]*([,}\]]|$)')
    )"""


# Whether a record may hold too much: the exact reader tells. Few records are so long that it has to be asked.
_MAY_HOLD_TOO_MUCH: Final = f"""CASE WHEN strlen(json) > {MAX_TEXT} THEN true WHEN strlen(json) > {ALWAYS_FEW}
        THEN strlen(json) - strlen(translate(json, ',[{{', '')) > {MAX_VALUES} ELSE false END"""


_FROM_EXACT: Final = """SELECT part[1] AS source_file, try_cast(part[2] AS BIGINT) AS record_index,
    nullif(part[3], '') AS record, nullif(part[4], '') AS raw, nullif(part[5], '') AS fault
FROM (
    SELECT string_split(row, chr(31)) AS part
    FROM (SELECT unnest(string_split(content, chr(30))) AS row FROM read_text(?))
)"""

Insert = Callable[[str, Iterable[str]], None]

_NOTHING: Final = "SELECT '' AS source_file, 0 AS record_index, '' AS record, '' AS raw, '' AS fault LIMIT 0"


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what DuckDB raises into an `EngineError`, or into the Ctrl-C that it takes for itself."""
    try:
        yield
    except RuntimeError as error:
        if "interrupted" in str(error):
            raise KeyboardInterrupt from error
        raise
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise EngineError(
            f"DuckDB ran out of room: {str(error).splitlines()[0]}",
            "Free space in the temporary folder (DESKROLL_TEMP_FOLDER) or raise DESKROLL_MEMORY_LIMIT.",
        ) from error


@cache
def _columns_of(select: str) -> str:
    """The columns of a SELECT over `records`, as a table of its rows has them."""
    with _explained(), duckdb.connect() as connection:
        described = connection.execute(f"DESCRIBE WITH records AS ({_NOTHING}) SELECT * FROM ({select})").fetchall()
    return ", ".join(f'"{name}" {kind}' for name, kind, *_ in described)


def _from_json(place: str, *, is_lines: bool) -> str:
    """Read whole files by DuckDB: a line that is no JSON comes back as NULL, an array that is none fails them all."""
    style = "'newline_delimited', ignore_errors = true" if is_lines else "'array'"
    return f"""SELECT {place} AS source_file, NULL AS record_index,
    CASE WHEN {_MAY_HOLD_TOO_MUCH} THEN NULL WHEN NOT {_IS_LAX} THEN CAST(json AS VARCHAR) END AS record,
    NULL AS raw, NULL AS fault
FROM read_json_objects(?, format = {style}, filename = true)"""


def make_temp(prefix: str, parent: Path | None = None) -> Path:
    """Make a temporary folder: in `parent`, or where the system has them.

    Raises:
        EngineError: none can be made.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        where = f" in {Path(error.filename).parent}" if error.filename else ""
        raise EngineError(
            f"No temporary folder can be made{where}: {error.strerror}.",
            "Free space there, or set DESKROLL_TEMP_FOLDER (with Spark TMPDIR) to a folder with more.",
        ) from error


class DuckDB:
    """An in-memory DuckDB whose memory is bounded; what does not fit goes to `temp_folder`."""

    name = "duckdb"
    is_distributed = False

    def __init__(self, memory_limit: str, threads: int | None = None, temp_folder: Path | None = None) -> None:
        self._memory_limit = memory_limit
        self._threads = threads
        self._temp_parent = temp_folder
        self._described: dict[str, list[tuple[str, str]]] = {}

    def __enter__(self) -> Self:
        self._temp = make_temp(TEMP, self._temp_parent)
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
            raise EngineError(f"DuckDB does not start: {error}", "Check DESKROLL_MEMORY_LIMIT.") from error
        self._run("SET TimeZone = 'UTC'")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        shutil.rmtree(self._temp, ignore_errors=True)

    def find_day(self, dump: str, label: str) -> str:
        """The folder of a sync day; see `dump.find_day`."""
        return find_day(dump, label)

    def list_day(self, day: str) -> list[str]:
        """The names of what lies in the folder of a day; see `dump.list_day`."""
        return list_day(day)

    def list_folder(self, day: str, name: str, resource: str) -> Folder:
        """List one source folder of a day; see `dump.list_folder`."""
        return list_folder(day, name, resource)

    def read(self, folder: Folder, select: str, table: str) -> Reading:
        """Run a SELECT over all records of a folder; see `Engine.read`."""
        self._run(f"CREATE OR REPLACE TABLE {table} ({_columns_of(select)})")

        def insert(reader: str, paths: Iterable[str]) -> None:
            literal = [_literally(path) for path in paths]
            self._run(
                f"INSERT INTO {table} WITH records AS NOT MATERIALIZED ({reader}) SELECT * FROM ({select})",
                [literal],
            )

        large: list[SourceFile] = []
        spools = [
            DocumentSpool(self._temp / f"{table}.{kind}", folder.resource, is_lines=kind == "lines")
            for kind in ("arrays", "lines")
        ]
        doubtful: list[str] = []
        for file in folder.files:
            if _is_large(file):
                large.append(file)
            elif not spools[file.is_lines].add(file):
                doubtful.append(file.name)
        doubtful += self._read_large(large, table, insert)
        for spool in spools:
            spool.close()
            doubtful += self._read_spool(spool, table, insert)

        self._run(f"DELETE FROM {table} WHERE record_index = {_OF_A_MARKER}")
        unread = self.fetch(f"SELECT DISTINCT source_file FROM {table} WHERE error_type = '{UNREAD}'")
        names = {*doubtful, *(name for (name,) in unread)}
        self._run(f"DELETE FROM {table} WHERE list_contains(?, source_file)", [sorted(names)])
        exact = _Spool(self._temp / f"{table}.exact")
        envelopes = {name: said for name, said in spools[False].envelopes.items() if name not in names}
        is_complete = _spool_exactly((f for f in folder.files if f.name in names), folder.resource, exact, envelopes)
        exact.empty_into(insert, _FROM_EXACT)
        return Reading(is_complete, of_folder(envelopes))

    def map_rows(self, rows: str, select: str, table: str) -> None:
        """Run a SELECT that looks at each row by itself; see `Engine.map_rows`."""
        self.create(table, f"WITH records AS NOT MATERIALIZED ({rows}) SELECT * FROM ({select})", materialize=True)

    def load_rows(self, name: str, columns: Mapping[str, str], parts: Sequence[Rows]) -> None:
        """Keep a relation that is known already; see `Engine.load_rows`."""
        typed = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self._run(f"CREATE OR REPLACE TABLE {name} ({typed})")
        spool = self._temp / f"{name}.loaded"
        for part in parts:
            with spool.open("wb") as sink:
                sink.writelines(part())
            self._run(  # a part may have no row, in which nothing could be detected
                f"COPY {name} FROM {sql_text(str(spool))} (FORMAT csv, HEADER false, AUTO_DETECT false,"
                r" DELIMITER '\t', QUOTE '', ESCAPE '', NULLSTR '\N')"
            )
            spool.unlink()

    def create(self, name: str, select: str, *, materialize: bool = False) -> None:
        """Give a SELECT a name; see `Engine.create`."""
        self._described.clear()
        self._run(f"CREATE OR REPLACE {'TABLE' if materialize else 'VIEW'} {name} AS {select}")

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        """Run a SELECT and return its few rows."""
        with _explained():
            return self._run(select).fetchall()

    def columns(self, select: str) -> list[str]:
        """The names of a SELECT's columns."""
        return [name for name, _ in self._describe(select)]

    def copy_out(self, select: str, sink: Sink) -> list[str]:
        """Hand the rows of a SELECT to `sink`; see `Engine.copy_out`."""
        with closing(self._copy_text(select)) as rows:  # where the sink fails: its thread must end before all else
            return [sink(rows)]

    def _copy_text(self, select: str) -> Generator[bytes, None, None]:
        """Run a SELECT and yield its rows in COPY's text format, which unlike CSV has no trouble with any line."""
        columns = ", ".join(_escaped(name) if kind == "VARCHAR" else name for name, kind in self._describe(select))
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

    def _describe(self, select: str) -> list[tuple[str, str]]:
        """The names and types of a SELECT's columns: to plan a long one takes as long as to run it on few rows."""
        if select not in self._described:
            self._described[select] = [(name, kind) for name, kind, *_ in self.fetch(f"DESCRIBE {select}")]
        return self._described[select]

    def _run(self, statement: str, parameters: list[Any] | None = None) -> duckdb.DuckDBPyConnection:
        with _explained():
            # A cursor of its own: staging tables are copied side by side.
            return self._connection.cursor().execute(statement, parameters)

    def _read_large(self, files: list[SourceFile], table: str, insert: Insert) -> list[str]:
        """Insert the records of large files; return the names of those that DuckDB cannot read."""
        bad: list[str] = []
        for is_lines in (False, True):
            some = [f for f in files if f.is_lines == is_lines]
            for begin in range(0, len(some), _OPEN_AT_ONCE):
                bad += self._insert_open(some[begin : begin + _OPEN_AT_ONCE], is_lines, insert)
        # DuckDB keeps the order of a file's records in that of the rows, and so far no row has been deleted.
        self._run(
            f"""UPDATE {table} SET record_index = {table}.rowid - begin.row
            FROM (SELECT source_file, min(rowid) AS row FROM {table} GROUP BY source_file) AS begin
            WHERE begin.source_file = {table}.source_file"""
        )
        return bad

    def _insert_open(self, files: list[SourceFile], is_lines: bool, insert: Insert) -> list[str]:
        """Insert the records of files as they are opened here; return the names of those that cannot be read."""
        with ExitStack() as open_files:
            names: dict[str, str] = {}
            bad: list[str] = []
            for file in files:
                try:
                    names[reopened(open_files.enter_context(open_file(file)))] = file.name
                except Unreadable:
                    bad.append(file.name)
            # By number: the descriptor of each, which is the last part of the path.
            by_number = {int(path.rpartition("/")[2]): name for path, name in names.items()}
            listed = ", ".join(sql_text(by_number.get(number, "")) for number in range(max(by_number, default=0) + 1))
            place = f"list_extract([{listed}], CAST(parse_filename(filename) AS BIGINT) + 1)"
            unreadable = self._insert_readable(list(names), _from_json(place, is_lines=is_lines), insert)
            return bad + [names[path] for path in unreadable]

    def _read_spool(self, spool: DocumentSpool, table: str, insert: Insert) -> list[str]:
        """Insert the records in a spool; return the names of the files in those chunks that DuckDB cannot read."""
        if not spool.chunks:
            return []
        ((begin,),) = self.fetch(f"SELECT coalesce(max(rowid), -1) FROM {table}")
        marker = f"'\"{spool.marker} '"
        place = f"CASE WHEN starts_with(json, {marker}) THEN json END"
        numbers = {str(path): numbers for path, numbers in spool.chunks}
        bad = self._insert_readable(list(numbers), _from_json(place, is_lines=spool.is_lines), insert)
        self._run(
            f"""CREATE OR REPLACE TABLE {table}_markers AS
            SELECT rowid AS row, CAST(trim(split_part(source_file, ' ', 2), '"') AS BIGINT) AS number
            FROM {table} WHERE rowid > {begin} AND source_file IS NOT NULL"""
        )
        found = {number for (number,) in self.fetch(f"SELECT number FROM {table}_markers")}
        bad += [path for path, some in numbers.items() if path not in bad and not found.issuperset(some)]
        self._run(
            f"""UPDATE {table} SET source_file = place.source_file, record_index = place.record_index
            FROM (
                SELECT one.rowid AS row, list_extract(?, marker.number + 1) AS source_file,
                    one.rowid - marker.row - 1 AS record_index
                FROM (SELECT rowid FROM {table} WHERE rowid > {begin}) AS one
                ASOF JOIN {table}_markers AS marker ON one.rowid >= marker.row
            ) AS place
            WHERE {table}.rowid = place.row""",
            [spool.names],
        )
        shutil.rmtree(self._temp / f"{table}.{'lines' if spool.is_lines else 'arrays'}")
        return [spool.names[number] for path in bad for number in numbers[path]]

    def _insert_readable(self, paths: list[str], reader: str, insert: Insert) -> list[str]:
        """Insert what can be read; return the paths of what cannot.

        What takes too much memory together, though not each file by itself, counts as what cannot be read.
        """
        unreadable: list[str] = []
        while len(unreadable) < len(paths):
            try:
                insert(reader, [path for path in paths if path not in unreadable])
            except (duckdb.Error, EngineError):
                unreadable = paths if unreadable else [p for p in paths if not self._can_read(reader, p)] or paths
            else:
                break
        return unreadable

    def _can_read(self, reader: str, path: str) -> bool:
        try:
            self._run(f"SELECT count(record) FROM ({reader})", [[_literally(path)]])
        except (duckdb.Error, EngineError):
            return False
        return True


def _spool_exactly(files: Iterable[SourceFile], resource: str, spool: "_Spool", envelopes: dict[str, Envelope]) -> bool:
    """Spool the records of files that raised doubts, and note what envelopes say.

    Returns whether all could be read to their end.
    """
    is_complete = True
    for file in files:
        mark = spool.mark()
        try:
            if file.compression:  # soon told, where it cannot be unpacked: what is in it may be endless
                deque(open_bytes(file), maxlen=0)
            for record in read_exactly(file, resource, partial(envelopes.__setitem__, file.name)):
                is_complete = is_complete and record.fault is None
                spool.add(_exact_row(file, record))
        except Unreadable as error:
            is_complete = False
            spool.rewind(mark)
            spool.add(_exact_row(file, bad_file(file, str(error))))
    return is_complete


class _Spool:
    """Rows that the exact reader has read, in files of a few MB each."""

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
            raise no_room(error) from error
        self._paths.append(path)
        self._rows, self._size = [], 0


def _is_large(file: SourceFile) -> bool:
    """Whether DuckDB is to read the file itself: an array, or lines, of some size.

    It takes for whole a compressed stream that is cut short between lines, and an array that ends after a comma.
    """
    if file.size < _DIRECT_FROM or file.compression or not CAN_REOPEN:
        return False
    try:
        with open_file(file) as stream:
            head = stream.read(_EDGE).removeprefix(_BOM).lstrip(_SPACE)
            if file.is_lines:
                return bool(head)
            stream.seek(max(file.size - _EDGE, 0))
            tail = stream.read(_EDGE).rstrip(_SPACE)
    except (OSError, Unreadable):
        return False
    return head.startswith(b"[") and tail.endswith(b"]") and not tail[:-1].rstrip(_SPACE).endswith(b",")


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
