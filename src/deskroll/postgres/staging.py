"""Staging: rewritten by every run, filled by COPY, all tables of a pipeline side by side.

An engine in one process copies into the staging tables themselves. Of a distributed one each attempt at a partition
copies into a table of its own: it may fail half way, or be made twice, and only those that the engine counts may stay.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from datetime import date
from typing import Final, Literal

from psycopg import sql
from psycopg.rows import class_row

from deskroll.postgres.database import Connection, Session, connect_again
from deskroll.postgres.explain import explained
from deskroll.postgres.locks import load_for
from deskroll.postgres.session import backend_pid
from deskroll.verdicts import Note

_SIDE_BY_SIDE: Final = 4
_ATTEMPT: Final = "stg_attempt_"


Purpose = Literal["sync", "stage", "plan"]


@dataclass(frozen=True)
class StagedSync:
    """What staging holds of a pipeline; see the table stg_syncs."""

    pipeline: str
    sync_day: str
    sync_date: date
    origin: str
    engine: str
    fingerprint: str | None = None
    purpose: Purpose = "sync"


@dataclass(frozen=True)
class StagedInput:
    """What was read of one folder, or of one list in its records; see the table stg_sync_sources."""

    pipeline: str
    input: str
    is_folder: bool
    found: bool
    complete: bool
    records_read: int
    duplicates: int
    rejected: int
    incomplete_because: str = ""
    not_read: str = ""
    valid: int = 0
    files: int | None = None
    bytes: int | None = None
    fingerprint: str | None = None
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Staged:
    """What is in staging: what was read, the rows of each table, and the pipelines whose files were not read again.

    `fingerprints` has the state of the files that each pipeline was made of, if that is known.
    """

    inputs: list[StagedInput]
    rows: dict[str, int]
    reused: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def once(self, order: Sequence[str]) -> tuple[StagedInput, ...]:
        """What was read, each input once, though pipelines share some; `order` are the names of all pipelines."""
        first: dict[str, StagedInput] = {}
        for one in sorted(self.inputs, key=lambda i: (order.index(i.pipeline), i.input)):
            first.setdefault(one.input, one)
        return tuple(first.values())


@dataclass(frozen=True)
class StagedTable:
    """What was loaded into one staging table, and by which transaction; see the table stg_sync_tables."""

    table: str
    rows: int
    loaded_by: str


@dataclass(frozen=True)
class Load:
    """The rows of one staging table; `copy_out` has them copied in COPY's text format, a partition a call."""

    table: str
    columns: list[str]
    copy_out: Callable[[Callable[[Iterator[bytes]], str]], list[str]]
    is_distributed: bool


def begin(connection: Connection, pipelines: Iterable[str]) -> None:
    """Say that staging of these pipelines is not whole, until `finish` says what it holds."""
    with explained(), connection.transaction():
        for table in ("stg_syncs", "stg_sync_sources", "stg_sync_tables", "stg_pipeline_errors"):
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE pipeline = ANY (%s)").format(sql.Identifier(table)),
                [list(pipelines)],
            )
    _drop_attempts(connection)


def load(session: Session, loads: Iterable[Load]) -> list[StagedTable]:
    """Rewrite staging tables, side by side."""
    holder = backend_pid(session.connection)
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return list(pool.map(lambda one: _load(session, holder, one, anew=True), loads))


def add(session: Session, one: Load) -> StagedTable:
    """Add rows to a staging table that several pipelines share."""
    return _load(session, backend_pid(session.connection), one, anew=False)


def _load(session: Session, holder: int, one: Load, *, anew: bool) -> StagedTable:
    """Load one table, for the run of which the connection of the process `holder` has the lock."""
    table, columns = sql.Identifier(one.table), _listed(one.columns)
    attempts = one.copy_out(Attempt(session.url, one.table, tuple(one.columns))) if one.is_distributed else []
    with explained(), session.another() as connection, connection.transaction():
        load_for(connection, holder)
        if anew:
            connection.execute(sql.SQL("TRUNCATE {}").format(table))
        if one.is_distributed:
            rows = sum(_take(connection, attempt, table, columns) for attempt in attempts)
        else:
            (rows,) = map(int, one.copy_out(lambda chunks: str(_copy(connection, table, columns, chunks, freeze=anew))))
        if anew:
            connection.execute(sql.SQL("ANALYZE {}").format(table))
        ((loaded_by,),) = connection.execute("SELECT pg_current_xact_id()::xid::TEXT").fetchall()
    return StagedTable(one.table, rows, loaded_by)


def _listed(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _copy(
    connection: Connection, table: sql.Identifier, columns: sql.Composed, chunks: Iterator[bytes], *, freeze: bool
) -> int:
    options = sql.SQL("WITH (FREEZE)" if freeze else "")
    cursor = connection.cursor()
    with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN {}").format(table, columns, options)) as copy:
        for chunk in chunks:
            copy.write(chunk)
    return cursor.rowcount


@dataclass(frozen=True)
class Attempt:
    """Copies the rows of a partition, wherever that is, into a new table like `table`; returns the table's name."""

    url: str = field(repr=False)
    table: str
    columns: tuple[str, ...]

    def __call__(self, chunks: Iterator[bytes]) -> str:
        """Copy the rows, all or none.

        Raises:
            DatabaseError: the database cannot be used from here, or refuses.
        """
        name = f"{_ATTEMPT}{uuid.uuid4().hex}"
        like = sql.SQL("CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING DEFAULTS)")
        with explained(), connect_again(self.url) as connection, connection.transaction():
            connection.execute(like.format(sql.Identifier(name), sql.Identifier(self.table)))
            _copy(connection, sql.Identifier(name), _listed(self.columns), chunks, freeze=True)
        return name


def _take(connection: Connection, attempt: str, table: sql.Identifier, columns: sql.Composed) -> int:
    """Move the rows of an attempt into a staging table."""
    rows = connection.execute(
        sql.SQL("INSERT INTO {} ({columns}) SELECT {columns} FROM {}").format(
            table, sql.Identifier(attempt), columns=columns
        )
    ).rowcount
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(attempt)))
    return rows


def _drop_attempts(connection: Connection) -> None:
    """Drop the tables of attempts that did not count: of tasks that ran twice, and of runs that were killed."""
    with explained():
        left = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ %s AND pg_table_is_visible(oid)",
            [f"^{_ATTEMPT}[0-9a-f]{{32}}$"],
        ).fetchall()
        for (name,) in left:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))


def finish(
    connection: Connection, sync: StagedSync, inputs: Iterable[StagedInput], tables: Iterable[StagedTable]
) -> None:
    """Say what staging of a pipeline holds."""
    _drop_attempts(connection)
    with explained(), connection.transaction():
        connection.execute(
            """INSERT INTO stg_syncs (pipeline, sync_day, sync_date, source, engine, fingerprint, purpose)
            VALUES (%s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (pipeline) DO UPDATE SET sync_date = EXCLUDED.sync_date, purpose = EXCLUDED.purpose""",
            [sync.pipeline, sync.sync_day, sync.sync_date, sync.origin, sync.engine, sync.fingerprint, sync.purpose],
        )
        for one in inputs:
            connection.execute(
                f"""INSERT INTO stg_sync_sources (
                    pipeline, source, is_folder, found, complete, records_read, duplicates, rejected,
                    incomplete_because, not_read, valid, files, bytes, fingerprint, unreadable
                ) VALUES ({", ".join(["%s"] * 15)}) ON CONFLICT DO NOTHING""",
                [*astuple(one)[:-1], list(one.unreadable)],
            )
        for t in tables:
            connection.execute(
                "INSERT INTO stg_sync_tables VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [sync.pipeline, t.table, t.rows, t.loaded_by],
            )


def staged(connection: Connection) -> tuple[list[StagedSync], list[StagedInput]]:
    """What staging holds, of all pipelines."""
    with explained():
        syncs = (
            connection.cursor(row_factory=class_row(StagedSync))
            .execute(
                """SELECT pipeline, sync_day, sync_date, source AS origin, engine, fingerprint, purpose
            FROM stg_syncs"""
            )
            .fetchall()
        )
        inputs = (
            connection.cursor(row_factory=class_row(StagedInput))
            .execute(
                """SELECT pipeline, source AS input, is_folder, found, complete, records_read, duplicates, rejected,
                incomplete_because, not_read, valid, files, bytes, fingerprint, unreadable
            FROM stg_sync_sources ORDER BY pipeline, source"""
            )
            .fetchall()
        )
    return syncs, [replace(one, unreadable=tuple(one.unreadable)) for one in inputs]


def mark_published(connection: Connection, pipelines: list[str]) -> None:
    """Note that what `stage` left is published: from now on it may be replaced without a word."""
    connection.execute(
        "UPDATE stg_syncs SET purpose = 'sync' WHERE purpose = 'stage' AND pipeline = ANY (%s)", [pipelines]
    )


def tables(connection: Connection, pipeline: str) -> list[StagedTable]:
    """What was loaded into a pipeline's staging tables."""
    with explained():
        cursor = connection.cursor(row_factory=class_row(StagedTable))
        return cursor.execute(
            "SELECT table_name AS table, rows, loaded_by FROM stg_sync_tables WHERE pipeline = %s", [pipeline]
        ).fetchall()


def is_untouched(connection: Connection, pipeline: str, loaded: Iterable[StagedTable]) -> bool:
    """Whether every staging table of a pipeline still has all rows that were loaded, and no other."""
    with explained():
        for one in loaded:
            mine = sql.SQL("WHERE pipeline = %(pipeline)s" if one.table == "stg_pipeline_errors" else "")
            ((rows, same),) = connection.execute(
                sql.SQL("SELECT count(*), count(*) FILTER (WHERE xmin::TEXT = %(by)s) FROM {} {}").format(
                    sql.Identifier(one.table), mine
                ),
                {"by": one.loaded_by, "pipeline": pipeline},
            ).fetchall()
            if not rows == same == one.rows:
                return False
    return True


def count(connection: Connection, table: str) -> int:
    """Count the rows of a staging table."""
    with explained():
        ((rows,),) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchall()
    return int(rows)
