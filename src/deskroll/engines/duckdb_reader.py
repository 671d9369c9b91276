"""How DuckDB reads the files of a folder: in three ways.

Each is for what it is best at:

- plain arrays and lines of some size by DuckDB itself, as they lie on disk;
- everything else by DuckDB from a few large files into which Python has laid it (`spool`): opening tens of thousands of
  small files costs DuckDB four times what it costs Python;
- whatever DuckDB doubts by `json_reader.read_exactly`, which says exactly what is wrong, and where.

Either way the record is the text of the file, not a digit changed.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import duckdb

from deskroll.engines.base import Reading
from deskroll.engines.spool import COLUMN, DocumentSpool, RowSpool
from deskroll.errors import EngineError
from deskroll.input.bounds import ALWAYS_FEW, MAX_TEXT, MAX_VALUES
from deskroll.input.dump import Folder, InputFile
from deskroll.input.envelope import Envelope, of_folder
from deskroll.input.files import CAN_REOPEN, Unreadable, open_bytes, open_file, reopened
from deskroll.input.json_reader import Record, bad_file, read_exactly
from deskroll.spec.contract import UNREAD

_DIRECT_FROM: Final = 256 * 1024  # bytes from which DuckDB reads an array itself
_PLANNED_FROM: Final = 4 * 1024 * 1024  # bytes of such files that are worth a statement beside that for small ones
_EDGE: Final = 4096  # bytes in which it must begin and end
_OPEN_AT_ONCE: Final = 100  # large files; the system may allow a process few descriptors
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
    FROM (SELECT unnest(string_split(content, chr(30))) AS row FROM read_text($paths))
)"""

_NOTHING: Final = "SELECT '' AS source_file, 0 AS record_index, '' AS record, '' AS raw, '' AS fault LIMIT 0"


@contextmanager
def explained() -> Iterator[None]:
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


@dataclass(frozen=True)
class FolderReader:
    """Runs `select` over all records of a folder, and keeps the result as `table`.

    `run` runs a statement with its parameters; `temp` is a folder for what is laid out anew.
    """

    run: Callable[..., duckdb.DuckDBPyConnection]
    temp: Path
    table: str
    select: str

    def read(self, folder: Folder) -> Reading:
        """Read the files of a folder; see `Engine.read`."""
        self.run(f"CREATE OR REPLACE TABLE {self.table} ({_columns_of(self.select)})")
        large: list[InputFile] = []
        spools = [
            DocumentSpool(self.temp / f"{self.table}.{kind}", folder.resource, is_lines=kind == "lines")
            for kind in ("arrays", "lines")
        ]
        doubtful: list[str] = []
        is_small = [file for file in folder.files if file.size < _DIRECT_FROM]
        is_mixed = bool(is_small) and sum(f.size for f in folder.files) < _PLANNED_FROM
        for file in folder.files:
            if not is_mixed and _is_large(file):
                large.append(file)
            elif not spools[file.is_lines].add(file):
                doubtful.append(file.name)
        doubtful += self._read_large(large)
        for spool in spools:
            spool.close()
            doubtful += self._read_spool(spool)

        self.run(f"DELETE FROM {self.table} WHERE record_index = {_OF_A_MARKER}")
        unread = self._fetch(f"SELECT DISTINCT source_file FROM {self.table} WHERE error_type = '{UNREAD}'")
        names = {*doubtful, *(name for (name,) in unread)}
        self.run(f"DELETE FROM {self.table} WHERE list_contains(?, source_file)", [sorted(names)])
        envelopes = {name: said for name, said in spools[False].envelopes.items() if name not in names}
        is_complete = self._read_exactly([f for f in folder.files if f.name in names], folder.resource, envelopes)
        return Reading(is_complete, of_folder(envelopes))

    def _insert(self, reader: str, paths: Iterable[str], **given: Any) -> None:
        """Insert what a reader reads of `$paths`; whatever differs from day to day is `given`, and not in its text."""
        literal = [_literally(path) for path in paths]
        self.run(
            f"INSERT INTO {self.table} WITH records AS NOT MATERIALIZED ({reader}) SELECT * FROM ({self.select})",
            {"paths": literal} | given,
        )

    def _fetch(self, select: str) -> list[tuple[Any, ...]]:
        with explained():
            return self.run(select).fetchall()

    def _read_large(self, files: list[InputFile]) -> list[str]:
        """Insert the records of large files; return the names of those that DuckDB cannot read."""
        bad: list[str] = []
        for is_lines in (False, True):
            alike = [f for f in files if f.is_lines == is_lines]
            for begin in range(0, len(alike), _OPEN_AT_ONCE):
                bad += self._insert_open(alike[begin : begin + _OPEN_AT_ONCE], is_lines)
        # DuckDB keeps the order of a file's records in that of the rows, and so far no row has been deleted.
        self.run(
            f"""UPDATE {self.table} SET record_index = {self.table}.rowid - begin.row
            FROM (SELECT source_file, min(rowid) AS row FROM {self.table} GROUP BY source_file) AS begin
            WHERE begin.source_file = {self.table}.source_file"""
        )
        return bad

    def _insert_open(self, files: list[InputFile], is_lines: bool) -> list[str]:
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
            listed = [by_number.get(number, "") for number in range(max(by_number, default=0) + 1)]
            place = "list_extract($names, CAST(parse_filename(filename) AS BIGINT) + 1)"
            unreadable = self._insert_readable(list(names), _from_json(place, is_lines=is_lines), names=listed)
            return bad + [names[path] for path in unreadable]

    def _read_spool(self, spool: DocumentSpool) -> list[str]:
        """Insert the records in a spool; return the names of the files in those chunks that DuckDB cannot read."""
        if not spool.chunks:
            return []
        ((begin,),) = self._fetch(f"SELECT coalesce(max(rowid), -1) FROM {self.table}")
        place = "CASE WHEN starts_with(json, $marker) THEN json END"
        numbers = {str(path): numbers for path, numbers in spool.chunks}
        reader = _from_json(place, is_lines=spool.is_lines)
        bad = self._insert_readable(list(numbers), reader, marker=f'"{spool.marker} ')
        self.run(
            f"""CREATE OR REPLACE TABLE {self.table}_markers AS
            SELECT rowid AS row, CAST(trim(split_part(source_file, ' ', 2), '"') AS BIGINT) AS number
            FROM {self.table} WHERE rowid > {begin} AND source_file IS NOT NULL"""
        )
        found = {number for (number,) in self._fetch(f"SELECT number FROM {self.table}_markers")}
        bad += [path for path, some in numbers.items() if path not in bad and not found.issuperset(some)]
        self.run(
            f"""UPDATE {self.table} SET source_file = place.source_file, record_index = place.record_index
            FROM (
                SELECT one.rowid AS row, list_extract(?, marker.number + 1) AS source_file,
                    one.rowid - marker.row - 1 AS record_index
                FROM (SELECT rowid FROM {self.table} WHERE rowid > {begin}) AS one
                ASOF JOIN {self.table}_markers AS marker ON one.rowid >= marker.row
            ) AS place
            WHERE {self.table}.rowid = place.row""",
            [spool.names],
        )
        spool.remove()
        return [spool.names[number] for path in bad for number in numbers[path]]

    def _insert_readable(self, paths: list[str], reader: str, **given: Any) -> list[str]:
        """Insert what can be read; return the paths of what cannot.

        What takes too much memory together, though not each file by itself, counts as what cannot be read.
        """
        unreadable: list[str] = []
        while len(unreadable) < len(paths):
            try:
                self._insert(reader, [path for path in paths if path not in unreadable], **given)
            except (duckdb.Error, EngineError):
                bad = [path for path in paths if not unreadable and not self._can_read(reader, path, **given)]
                unreadable = bad or paths
            else:
                break
        return unreadable

    def _can_read(self, reader: str, path: str, **given: Any) -> bool:
        try:
            self.run(f"SELECT count(record) FROM ({reader})", {"paths": [_literally(path)]} | given)
        except (duckdb.Error, EngineError):
            return False
        return True

    def _read_exactly(self, files: list[InputFile], resource: str, envelopes: dict[str, Envelope]) -> bool:
        """Insert the records of files that raised doubts, and note what envelopes say.

        Returns whether all could be read to their end.
        """
        is_complete = True
        spool = RowSpool(self.temp / f"{self.table}.exact")
        for file in files:
            mark = spool.mark()
            try:
                if file.compression:  # soon told if it cannot be unpacked: what is in it may be endless
                    deque(open_bytes(file), maxlen=0)
                for record in read_exactly(file, resource, partial(envelopes.__setitem__, file.name)):
                    is_complete = is_complete and record.fault is None
                    spool.add(_exact_row(file, record))
            except Unreadable as error:
                is_complete = False
                spool.rewind(mark)
                spool.add(_exact_row(file, bad_file(file, str(error))))
        spool.close()
        if spool.paths:
            self._insert(_FROM_EXACT, map(str, spool.paths))
        spool.remove()
        return is_complete


@cache
def _columns_of(select: str) -> str:
    """The columns of a SELECT over `records`, as a table of its rows has them."""
    with explained(), duckdb.connect() as connection:
        described = connection.execute(f"DESCRIBE WITH records AS ({_NOTHING}) SELECT * FROM ({select})").fetchall()
    return ", ".join(f'"{name}" {kind}' for name, kind, *_ in described)


def _from_json(place: str, *, is_lines: bool) -> str:
    """Read whole files by DuckDB: a line that is not JSON comes back as NULL, an array that is not fails them all."""
    style = "'newline_delimited', ignore_errors = true" if is_lines else "'array'"
    return f"""SELECT {place} AS source_file, NULL AS record_index,
    CASE WHEN {_MAY_HOLD_TOO_MUCH} THEN NULL WHEN NOT {_IS_LAX} THEN CAST(json AS VARCHAR) END AS record,
    NULL AS raw, NULL AS fault
FROM read_json_objects($paths, format = {style}, filename = true)"""


def _is_large(file: InputFile) -> bool:
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


def _exact_row(file: InputFile, record: Record) -> bytes:
    position = "" if record.position is None else str(record.position)
    columns = (file.name, position, record.record or "", record.raw or "", record.fault or "")
    return COLUMN.join(c.encode() for c in columns)


def _literally(path: str) -> str:
    """A path as DuckDB takes it: it reads `*`, `?` and `[` in one as a pattern."""
    return re.sub(r"([*?[])", r"[\1]", path)
