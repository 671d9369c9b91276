"""The distributed engine: Spark spreads the work, and the rows are those of one machine.

What looks at one record at a time (reading, checking, writing) runs in tasks, on an embedded DuckDB each: see
`spark_tasks`. What brings records together (deduplication, joins, counts) is Spark SQL, which `dialect` makes of
DuckDB's.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from deskroll.engines.base import Reading, Rows, Sink
from deskroll.engines.dialect import to_spark
from deskroll.engines.spark_session import cores, explained, start_session
from deskroll.engines.spark_tasks import (
    ENVELOPES,
    PART,
    CheckRows,
    LoadRows,
    PartReader,
    ReadFiles,
    WriteRows,
    fetched,
    fetched_lines,
    listed,
)
from deskroll.errors import EngineError, UsageError
from deskroll.input import dump as local
from deskroll.input.dump import Folder, InputFile, describe, is_url, make_folder, may_hold_records, sub_folder
from deskroll.input.envelope import Envelopes
from deskroll.settings import Settings

_TASK_BYTES: Final = 64 * 1024 * 1024  # of files in one task
_SHUFFLES: Final = "spark.sql.shuffle.partitions"
_SHUFFLE_BYTES: Final = 32 * 1024 * 1024  # of input in one of them
_FILE_COSTS: Final = 32 * 1024  # bytes that could be read in the time that it takes to open a file
_TASKS_PER_CORE: Final = 2

# Of the session that a run has to itself; the one that it was made from stays as it is.
_SESSION: Final = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    # A SELECT joins a dozen relations: a driver of the usual size does not have the memory to build all to broadcast.
    "spark.sql.autoBroadcastJoinThreshold": "-1",
    "spark.sql.files.maxPartitionBytes": str(_TASK_BYTES),
    "spark.sql.files.openCostInBytes": str(_FILE_COSTS),
    "spark.sql.execution.arrow.maxBytesPerBatch": str(_TASK_BYTES),
}


class Spark:
    """The active Spark session, else one that `SPARK_REMOTE` or the options name, else one on this machine.

    The session is opened when it is first needed.
    """

    name = "spark"
    is_distributed = True

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: list[DataFrame] = []
        self._is_mine = False
        self._folder: Path | None = None
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "_session" not in self.__dict__:
            return
        if self._is_mine:
            self._session.stop()
        else:
            self.forget()
        if self._folder and not isinstance(error, EngineError):
            shutil.rmtree(self._folder, ignore_errors=True)

    @cached_property
    def _session(self) -> SparkSession:
        conf = self._settings.spark_conf
        with explained():
            active = SparkSession.getActiveSession()
            if active:
                session, wanted = active.newSession(), {**_SESSION, **conf}
            else:
                session, self._folder = start_session(conf)
                self._is_mine, wanted = True, _SESSION
            for key, value in wanted.items():
                session.conf.set(key, value)
        return session

    def forget(self) -> None:
        """Give up the rows that were kept; see `Engine.forget`. Names are given anew by the next day."""
        for frame in self._kept:
            frame.unpersist()
        self._kept.clear()
        self._bytes = 0

    def list_dump(self, dump: str) -> list[str]:
        """The names of the folders in a dump; see `dump.list_dump`."""
        if not is_url(dump):
            return local.list_dump(dump)
        path = _local(dump)
        return local.list_dump(path) if path and Path(path).is_dir() else self._list_url(dump)

    def find_day(self, dump: str, label: str) -> str:
        """The folder of a sync day; see `dump.find_day`."""
        if not is_url(dump):
            return local.find_day(dump, label)
        path = _local(dump)
        if path and Path(path).is_dir():
            return local.find_day(path, label)
        root = dump.rstrip("/")
        for name in local.day_folders(label):
            if self._list(f"{root}/{name}", limit=1) is not None:
                return f"{root}/{name}"
        days = {name.removeprefix("sync-") for name in self._list_url(dump)}
        raise local.no_such_day(dump, label, sorted(days))

    def _list_url(self, dump: str) -> list[str]:
        root = dump.rstrip("/")
        files = self._list(root)
        if files is None:
            raise UsageError(
                f"The dump {dump} does not exist.", "Give the URL of the folder that holds sync-<day>/ folders."
            )
        inside = (_split(path, root.rpartition("/")[2])[1] for path, *_ in files)
        return sorted({path.partition("/")[0] for path in inside if "/" in path and not path.startswith(".")})

    def list_day(self, day: str) -> list[str]:
        """The names of what lies in the folder of a day; see `dump.list_day`."""
        if not is_url(day):
            return local.list_day(day)
        paths = (_split(path, day.rpartition("/")[2])[1].partition("/") for path, *_ in self._list(day) or ())
        return sorted({first + slash for first, slash, _ in paths})

    def list_folder(self, day: str, name: str, resource: str) -> Folder:
        """List one source folder of a day; see `dump.list_folder`."""
        if not is_url(day):
            return local.list_folder(day, name, resource)
        found = self._list(f"{day}/{name}")
        if found is None:
            return Folder(name, resource, found=False)
        files: dict[str, InputFile] = {}
        not_read: set[str] = set()
        for path, changed, size in found:
            before, inside = _split(path, f"{day.rpartition('/')[2]}/{name}")
            first, slash, _ = inside.partition("/")
            if not may_hold_records(inside.rpartition("/")[2]):
                not_read.add(first + slash)
            elif slash:
                files[first + slash] = sub_folder(name, before + first)
            else:
                files[first] = describe(name, path, size, (0, int(changed.timestamp() * 1e9)))
        return make_folder(name, resource, files.values(), sorted(not_read - files.keys()))

    def read(self, folder: Folder, select: str, table: str) -> Reading:
        """Run a SELECT over all records of a folder; see `Engine.read`."""
        root = next((f.root for f in folder.files), "")
        share = local.allowance(folder.files)
        task = ReadFiles(self._settings.memory_limit, folder.name, folder.resource, select, listed, root, share)
        with explained():
            self._expect(sum(max(f.size, 0) for f in folder.files))
            schema = from_arrow_schema(task.schema())
            parts = self._session.createDataFrame([], schema).coalesce(1)
            for frame, reader in self._share_out(folder):
                parts = parts.unionAll(frame.mapInArrow(replace(task, parts=reader).run, schema))
            self._keep(f"{table}_parts", parts)
        return self._join_parts(table, [name for name in schema.names if name not in PART])

    def map_rows(self, rows: str, select: str, table: str) -> None:
        """Run a SELECT that looks at each row by itself; see `Engine.map_rows`."""
        task = CheckRows(self._settings.memory_limit, select)
        with explained():
            frame = self._sql(rows)
            schema = from_arrow_schema(task.schema(to_arrow_schema(frame.schema, timezone="UTC")))
            self._keep(table, frame.mapInArrow(task.run, schema))

    def load_rows(self, name: str, columns: Mapping[str, str], parts: Sequence[Rows]) -> None:
        """Keep a relation that is known already; see `Engine.load_rows`."""
        task = LoadRows(self._settings.memory_limit, dict(columns), tuple(parts))
        with explained():
            numbers = self._session.range(0, len(parts), 1, max(len(parts), 1)).selectExpr("CAST(id AS INT) AS part")
            self._keep(
                name, numbers.mapInArrow(task.run, ", ".join(f"{column} {kind}" for column, kind in columns.items()))
            )

    def create(self, name: str, select: str, *, materialize: bool = False) -> None:
        """Give a SELECT a name; see `Engine.create`."""
        with explained():
            frame = self._sql(select)
            self._keep(name, frame) if materialize else frame.createOrReplaceTempView(name)

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        """Run a SELECT and return its few rows."""
        with explained():
            return [tuple(row) for row in self._sql(select).collect()]

    def columns(self, select: str) -> list[str]:
        """The names of a SELECT's columns."""
        with explained():
            return list(self._sql(select).columns)

    def copy_out(self, select: str, sink: Sink) -> list[str]:
        """Have executors hand the rows of a SELECT to `sink`; see `Engine.copy_out`."""
        task = WriteRows(self._settings.memory_limit, sink)
        with explained():
            frame = self._sql(select).coalesce(self._settings.spark_connections)
            return [written for (written,) in frame.mapInArrow(task.run, "written STRING").collect()]

    def _expect(self, size: int) -> None:
        """Have Spark split what it brings together by how many bytes there are, unless somebody said how."""
        if _SHUFFLES not in self._settings.spark_conf:
            self._bytes += size
            self._session.conf.set(_SHUFFLES, str(1 + self._bytes // _SHUFFLE_BYTES))

    def _sql(self, select: str) -> DataFrame:
        return self._session.sql(to_spark(select))

    def _keep(self, name: str, frame: DataFrame) -> None:
        """Name rows that are computed once; those of an executor that is lost are computed again."""
        self._kept.append(frame.persist())
        self._without_plan(frame).createOrReplaceTempView(name)

    def _without_plan(self, frame: DataFrame) -> DataFrame:
        """The same rows, without the plan that they come from: relations of relations have plans that double each time.

        Spark has no public way to do this that still computes lost rows again; a session by Spark Connect has none.
        """
        make = getattr(getattr(self._session, "_jsparkSession", None), "internalCreateDataFrame", None)
        if make is None:
            return frame
        from pyspark.sql.classic.dataframe import DataFrame as Classic

        java = cast("Classic", frame)._jdf
        return Classic(make(java.queryExecution().toRdd(), java.schema(), False), self._session)

    def _list(self, url: str, limit: int | None = None) -> list[tuple[str, datetime, int]] | None:
        """Path, time of change and size of the files below a URL; None if nothing has that name."""
        with explained():
            try:
                files = _files(self._session, url)
                rows = files.select("path", "modificationTime", "length")
                found = (rows.limit(limit) if limit else rows).collect()
            except AnalysisException as error:
                if error.getCondition() == "PATH_NOT_FOUND":
                    return None
                raise
            entries = {_without_scheme(path): (path, at.astimezone(), size) for path, at, size in found}
            for path in [] if limit else map(unquote, files.inputFiles()):  # a file without bytes is not among the rows
                entries.setdefault(_without_scheme(path), (path, datetime.fromtimestamp(0, UTC), 0))
        return list(entries.values())

    def _share_out(self, folder: Folder) -> Iterator[tuple[DataFrame, PartReader]]:
        """The files of a folder as rows, a partition a task, with what makes files of them there."""
        if not folder.files:
            return
        if folder.files[0].root:
            yield self._share_out_paths(folder.files), listed
            return
        url = folder.files[0].path.rpartition("/")[0]  # as Hadoop writes it: `file:/dump` is one too
        depth = _without_scheme(folder.files[0].path).count("/")  # what lies deeper is in a sub-folder
        direct = F.length(F.regexp_replace(F.regexp_replace("path", _SCHEME, ""), "[^/]", "")) == depth
        unread = [(f.path, b"", f.fault) for f in folder.files if _is_nothing_to_fetch(f)]
        if unread:
            schema = "path STRING, content BINARY, fault STRING"
            yield self._session.createDataFrame(unread, schema).coalesce(1), fetched
        read = [f for f in folder.files if not _is_nothing_to_fetch(f)]
        if any(not _can_be_cut(f) for f in read):
            whole = _files(self._session, url, _WHOLE).where(direct & F.col("path").rlike(_IS_WHOLE))
            yield whole.select("path", "content"), fetched
        if any(_can_be_cut(f) for f in read):
            lines = self._session.read.option("recursiveFileLookup", True).option("pathGlobFilter", _LINES)
            place = F.col("_metadata.file_path").alias("path"), F.col("_metadata.file_block_start").alias("begin")
            text = lines.text(_literally(url), lineSep="\n").select(*place, F.col("value").cast("binary").alias("line"))
            yield text.where(direct), fetched_lines

    def _share_out_paths(self, files: Iterable[InputFile]) -> DataFrame:
        """Deal files out to tasks by size, and cut long files of lines."""
        total = sum(max(f.size, 0) + _FILE_COSTS for f in files)
        share = min(_TASK_BYTES, max(_TASK_BYTES // 16, total // (cores(self._session) * _TASKS_PER_CORE)))
        rows: list[tuple[int, bytes, int, int | None, int | None, str]] = []
        filled = 0
        for file in files:
            path = os.fsencode(file.path)
            cuts = range(0, file.size, share) if _can_be_cut(file) and file.size > share else ()
            for begin in cuts:
                end = min(begin + share, file.size)
                rows.append((filled // share, path, file.size, begin, end, file.fault))
                filled += end - begin
            if not cuts:
                rows.append((filled // share, path, file.size, None, None, file.fault))
                filled += max(file.size, 0) + _FILE_COSTS
        schema = "task INT, path BINARY, size BIGINT, begin BIGINT, end BIGINT, fault STRING"
        return self._session.createDataFrame(rows, schema).repartitionById(rows[-1][0] + 1, F.col("task"))

    def _join_parts(self, table: str, columns: list[str]) -> Reading:
        """Number the records of files that were cut through, and say what reading the folder came to.

        A file of which a part could not be read has one row, like any that could not be read.
        """
        begin, is_complete = PART
        found = self.fetch(
            f"""SELECT source_file, {begin}, count(*), bool_and({is_complete}), count(*) - count(record_index),
                array_agg({_SAID})
            FROM {table}_parts WHERE {begin} IS NOT NULL OR NOT {is_complete} OR error_type = '{ENVELOPES}'
            GROUP BY source_file, {begin} ORDER BY source_file, {begin}"""
        )
        envelopes = [Envelopes(**json.loads(said)) for row in found for said in row[5] or () if said]
        cut = [row for row in found if row[1] is not None]
        numbers: list[tuple[str, int, int, bool, bool]] = []
        for file, parts in groupby(cut, key=lambda row: row[0]):
            before, mine = 0, list(parts)
            bad = next((at for _, at, _, _, faults, _ in mine if faults), None)
            for _, at, count, *_ in mine:
                numbers.append((file, at, before, bad is not None, at == bad))
                before += count
        schema = f"source_file STRING, {begin} BIGINT, before BIGINT, is_bad BOOLEAN, is_first_bad BOOLEAN"
        with explained():
            self._session.createDataFrame(numbers, schema).createOrReplaceTempView(f"{table}_cuts")
        listing = ", ".join(
            "record_index + coalesce(before, 0) AS record_index" if c == "record_index" else c for c in columns
        )
        is_record = f"coalesce(error_type, '') <> '{ENVELOPES}'"
        self.create(
            table,
            f"""SELECT {listing} FROM {table}_parts LEFT JOIN {table}_cuts USING (source_file, {begin})
            WHERE {is_record} AND (NOT coalesce(is_bad, false) OR (is_first_bad AND record_index IS NULL))"""
            if cut
            else f"SELECT {', '.join(columns)} FROM {table}_parts WHERE {is_record}",
        )
        return Reading(all(row[3] for row in found), sum(envelopes, Envelopes()))


_WHOLE: Final = "*.{[jJ][sS][oO][nN],*.[gG][zZ],*.[zZ][sS][tT]}"
_SCHEME: Final = "^[^:/]+:/+"
_IS_WHOLE: Final = r"(?i)\.(json|(json|ndjson|jsonl)\.(gz|zst))$"
_SAID: Final = f"CASE WHEN error_type = '{ENVELOPES}' THEN error_message END"
_LINES: Final = "*.{[nN][dD][jJ][sS][oO][nN],[jJ][sS][oO][nN][lL]}"


def _files(session: SparkSession, url: str, names: str = "*") -> DataFrame:
    reader = session.read.format("binaryFile").option("recursiveFileLookup", True).option("pathGlobFilter", names)
    return reader.load(_literally(url))


def _literally(url: str) -> str:
    """A URL as Spark takes it: it reads `*`, `?`, `[` and `{` in one as a pattern."""
    return re.sub(r"([*?\[\]{}\\])", r"\\\1", url)


def _without_scheme(url: str) -> str:
    """What two ways of writing a URL share: `file:/dump` and `file:///dump` are one."""
    return re.sub(_SCHEME, "", url)


def _split(path: str, folder: str) -> tuple[str, str]:
    """A path in two: down to a folder in it, given by the end of its own path, and what is below that."""
    before, between, inside = path.partition(f"/{folder}/")
    return before + between, inside


def _local(url: str) -> str:
    """The path that a URL of a folder on this machine stands for: Hadoop would follow any link in it."""
    found = re.match(r"file:(?://[^/]+)?/+(.*)", url, re.IGNORECASE | re.DOTALL)
    return f"/{found[1]}" if found else ""


def _can_be_cut(file: InputFile) -> bool:
    """Whether tasks can each take some lines of a file."""
    return file.is_lines and not file.compression


def _is_nothing_to_fetch(file: InputFile) -> bool:
    """Whether a file is not to be read, or has no bytes: Spark passes over such files."""
    return bool(file.fault) or not file.size
