"""Staging: rewritten by every run, filled by COPY, all tables of a pipeline side by side."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Final

from psycopg import sql

from rollcall.postgres.database import Connection, connect, explained

_SIDE_BY_SIDE: Final = 4


@dataclass(frozen=True)
class StagedSync:
    """What staging holds of a pipeline; see the table stg_syncs."""

    pipeline: str
    sync_day: str
    sync_date: date
    source: str
    engine: str
    fingerprint: str | None = None


@dataclass(frozen=True)
class StagedSource:
    """What was read of one folder, or of one list in its records; see the table stg_sync_sources."""

    pipeline: str
    source: str
    is_folder: bool
    found: bool
    complete: bool
    records_read: int
    duplicates: int
    rejected: int


@dataclass(frozen=True)
class StagedTable:
    """What was loaded into one staging table, and by which transaction; see the table stg_sync_tables."""

    table: str
    rows: int
    loaded_by: str


@dataclass(frozen=True)
class Load:
    """The rows of one staging table, in COPY's text format."""

    table: str
    columns: list[str]
    rows: Iterable[bytes]


def begin(connection: Connection, pipelines: Iterable[str]) -> None:
    """Say that staging of these pipelines is not whole, until `finish` says what it holds."""
    with explained(), connection.transaction():
        for table in ("stg_syncs", "stg_sync_sources", "stg_sync_tables", "stg_pipeline_errors"):
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE pipeline = ANY (%s)").format(sql.Identifier(table)),
                [list(pipelines)],
            )


def load(url: str, loads: Iterable[Load]) -> list[StagedTable]:
    """Rewrite staging tables, side by side."""
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return list(pool.map(lambda one: _load(url, one), loads))


def _load(url: str, one: Load) -> StagedTable:
    table = sql.Identifier(one.table)
    with explained(), connect(url) as connection, connection.transaction():
        connection.execute(sql.SQL("TRUNCATE {}").format(table))
        loaded = _copy(connection, one, sql.SQL("WITH (FREEZE)"))
        connection.execute(sql.SQL("ANALYZE {}").format(table))
    return loaded


def load_errors(connection: Connection, rows: Load) -> StagedTable:
    """Add a pipeline's quarantine rows to stg_pipeline_errors."""
    with explained(), connection.transaction():
        return _copy(connection, rows, sql.SQL(""))


def _copy(connection: Connection, one: Load, options: sql.SQL) -> StagedTable:
    columns = sql.SQL(", ").join(map(sql.Identifier, one.columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN {}").format(sql.Identifier(one.table), columns, options)
    cursor = connection.cursor()
    with cursor.copy(statement) as copy:
        for chunk in one.rows:
            copy.write(chunk)
    rows = cursor.rowcount
    ((loaded_by,),) = cursor.execute("SELECT pg_current_xact_id()::xid::TEXT").fetchall()
    return StagedTable(one.table, rows, loaded_by)


def finish(
    connection: Connection, sync: StagedSync, sources: Iterable[StagedSource], tables: Iterable[StagedTable]
) -> None:
    """Say what staging of a pipeline holds."""
    with explained(), connection.transaction():
        connection.execute(
            """INSERT INTO stg_syncs (pipeline, sync_day, sync_date, source, engine, fingerprint)
            VALUES (%s, %s, %s, %s, %s, %s)
            ON CONFLICT (pipeline) DO UPDATE SET sync_date = EXCLUDED.sync_date""",
            [sync.pipeline, sync.sync_day, sync.sync_date, sync.source, sync.engine, sync.fingerprint],
        )
        for s in sources:
            connection.execute(
                "INSERT INTO stg_sync_sources VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [s.pipeline, s.source, s.is_folder, s.found, s.complete, s.records_read, s.duplicates, s.rejected],
            )
        for t in tables:
            connection.execute(
                "INSERT INTO stg_sync_tables VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [sync.pipeline, t.table, t.rows, t.loaded_by],
            )


def staged(connection: Connection) -> tuple[list[StagedSync], list[StagedSource]]:
    """What staging holds, of all pipelines."""
    with explained():
        syncs = connection.execute(
            "SELECT pipeline, sync_day, sync_date, source, engine, fingerprint FROM stg_syncs"
        ).fetchall()
        sources = connection.execute("SELECT * FROM stg_sync_sources ORDER BY pipeline, source").fetchall()
    return [StagedSync(*row) for row in syncs], [StagedSource(*row) for row in sources]


def tables(connection: Connection, pipeline: str) -> list[StagedTable]:
    """What was loaded into a pipeline's staging tables."""
    with explained():
        rows = connection.execute(
            "SELECT table_name, rows, loaded_by FROM stg_sync_tables WHERE pipeline = %s", [pipeline]
        ).fetchall()
    return [StagedTable(*row) for row in rows]


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


@dataclass(frozen=True)
class StagedError:
    """One row of stg_pipeline_errors, as a message needs it."""

    pipeline: str
    error_type: str
    source_file: str
    record_index: int | None
    error_message: str


def errors(connection: Connection, pipelines: Iterable[str], limit: int) -> list[StagedError]:
    """The first rows that go into quarantine, in the order of the files."""
    with explained():
        rows = connection.execute(
            """SELECT pipeline, error_type, source_file, record_index, error_message FROM stg_pipeline_errors
            WHERE pipeline = ANY (%s) ORDER BY pipeline, source_file, record_index, error_message LIMIT %s""",
            [list(pipelines), limit],
        ).fetchall()
    return [StagedError(*row) for row in rows]
