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
class Load:
    """The rows of one staging table, in COPY's text format."""

    table: str
    columns: list[str]
    rows: Iterable[bytes]


def begin(connection: Connection, pipelines: Iterable[str]) -> None:
    """Say that staging of these pipelines is not whole, until `finish` says what it holds."""
    with explained(), connection.transaction():
        for table in ("stg_syncs", "stg_sync_sources", "stg_pipeline_errors"):
            connection.execute(
                sql.SQL("DELETE FROM {} WHERE pipeline = ANY (%s)").format(sql.Identifier(table)),
                [list(pipelines)],
            )


def load(url: str, loads: Iterable[Load]) -> dict[str, int]:
    """Rewrite staging tables; returns the rows of each."""
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        return dict(pool.map(lambda one: (one.table, _load(url, one)), loads))


def _load(url: str, one: Load) -> int:
    table = sql.Identifier(one.table)
    columns = sql.SQL(", ").join(map(sql.Identifier, one.columns))
    with explained(), connect(url) as connection, connection.transaction():
        connection.execute(sql.SQL("TRUNCATE {}").format(table))
        copied = _copy(connection, sql.SQL("COPY {} ({}) FROM STDIN WITH (FREEZE)").format(table, columns), one.rows)
        connection.execute(sql.SQL("ANALYZE {}").format(table))
    return copied


def _copy(connection: Connection, statement: sql.Composed, rows: Iterable[bytes]) -> int:
    cursor = connection.cursor()
    with cursor.copy(statement) as copy:
        for chunk in rows:
            copy.write(chunk)
    return cursor.rowcount


def load_errors(connection: Connection, columns: list[str], rows: Iterable[bytes]) -> None:
    """Add a pipeline's quarantine rows to stg_pipeline_errors."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with explained():
        _copy(connection, sql.SQL("COPY stg_pipeline_errors ({}) FROM STDIN").format(names), rows)


def finish(connection: Connection, sync: StagedSync, sources: Iterable[StagedSource]) -> None:
    """Say what staging of a pipeline holds."""
    with explained(), connection.transaction():
        connection.execute(
            "INSERT INTO stg_syncs (pipeline, sync_day, sync_date, source, engine) VALUES (%s, %s, %s, %s, %s)",
            [sync.pipeline, sync.sync_day, sync.sync_date, sync.source, sync.engine],
        )
        for s in sources:
            connection.execute(
                "INSERT INTO stg_sync_sources VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    s.pipeline,
                    s.source,
                    s.is_folder,
                    s.found,
                    s.complete,
                    s.records_read,
                    s.duplicates,
                    s.rejected,
                ],
            )


def staged(connection: Connection) -> tuple[list[StagedSync], list[StagedSource]]:
    """What staging holds, of all pipelines."""
    with explained():
        syncs = connection.execute("SELECT pipeline, sync_day, sync_date, source, engine FROM stg_syncs").fetchall()
        sources = connection.execute("SELECT * FROM stg_sync_sources ORDER BY pipeline, source").fetchall()
    return [StagedSync(*row) for row in syncs], [StagedSource(*row) for row in sources]


def count(connection: Connection, tables: Iterable[str]) -> dict[str, int]:
    """Count the rows of staging tables."""
    counted: dict[str, int] = {}
    with explained():
        for table in tables:
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            counted[table] = row[0] if row else 0
    return counted


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
