"""The embedded engine: DuckDB in this process, with bounded memory, spilling to a temporary folder."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb

from deskroll.engines.base import Reading, Rows, Sink
from deskroll.engines.duckdb_reader import FolderReader, explained
from deskroll.errors import EngineError
from deskroll.input.dump import Folder, find_day, list_day, list_dump, list_folder
from deskroll.sql import sql_text

TEMP: Final = "deskroll-engine-"
_PARSED: Final = 512  # statements to remember: more than a day has
_TEMP_IS_OLD: Final = 2 * 24 * 3600  # seconds
_Columns = dict[str, list[tuple[str, str]]]
"""The names and types of the columns of SELECTs."""


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
        self._views: dict[str, str] = {}
        self._mapped: dict[str, str] = {}
        self._described: _Columns = {}
        self._described_today: _Columns = {}
        self._described_before: _Columns = {}
        self._parse: Callable[[str], duckdb.Statement] | None = None

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

    def forget(self) -> None:
        """Drop every table and temporary file; see `Engine.forget`.

        On a small day most of the work is to parse and plan statements, and those of the next day are the same: views,
        what statements were parsed to, and the columns that SELECTs have, are kept.
        """
        self._parse = self._parse or lru_cache(_PARSED)(self._parse_once)
        self._described_before = self._described_before | self._described_today
        self._described_today.clear()
        for (name,) in self.fetch("SELECT table_name FROM duckdb_tables()"):
            self._run(f'DROP TABLE "{name}"')
        for left in self._temp.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def list_dump(self, dump: str) -> list[str]:
        """The names of the folders in a dump; see `dump.list_dump`."""
        return list_dump(dump)

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
        return FolderReader(self._run, self._temp, table, select).read(folder)

    def map_rows(self, rows: str, select: str, table: str) -> None:
        """Run a SELECT that looks at each row by itself; see `Engine.map_rows`."""
        known = self._mapped.get(select)
        if known and not self.fetch(f"SELECT 1 FROM ({rows}) LIMIT 1"):  # there is nothing to plan the SELECT for
            self._run(f"CREATE OR REPLACE TABLE {table} ({known})")
            return
        self.create(table, f"WITH records AS NOT MATERIALIZED ({rows}) SELECT * FROM ({select})", materialize=True)
        described = self.fetch(f"DESCRIBE {table}")
        self._mapped[select] = ", ".join(f'"{name}" {kind}' for name, kind, *_ in described)

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
        if not materialize and self._views.get(name) == select:
            return
        if self._views.pop(name, None) and materialize:
            self._run(f"DROP VIEW {name}")
        self._run(f"CREATE OR REPLACE {'TABLE' if materialize else 'VIEW'} {name} AS {select}")
        if not materialize:
            self._views[name] = select

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        """Run a SELECT and return its few rows."""
        with explained():
            return self._run(select).fetchall()

    def columns(self, select: str) -> list[str]:
        """The names of a SELECT's columns."""
        return [name for name, _ in self._describe(select)]

    def copy_out(self, select: str, sink: Sink) -> list[str]:
        """Hand the rows of a SELECT to `sink`; see `Engine.copy_out`."""
        with closing(self._copy_text(select)) as rows:  # if the sink fails, its thread must end before all else
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
        if select in self._described_before:
            return self._described_before[select]
        if select not in self._described:
            self._described[select] = [(name, kind) for name, kind, *_ in self.fetch(f"DESCRIBE {select}")]
            self._described_today[select] = self._described[select]
        return self._described[select]

    def _run(self, statement: str, parameters: list[Any] | dict[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
        with explained():
            cursor = self._connection.cursor()  # of its own: staging tables are copied side by side
            return cursor.execute(self._parse(statement) if self._parse else statement, parameters)

    def _parse_once(self, statement: str) -> duckdb.Statement:
        (parsed,) = self._connection.cursor().extract_statements(statement)
        return parsed


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
