"""The ledger: a row per run, whatever became of it, and what it did to each table."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import date, datetime
from typing import Literal

from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained

Status = Literal["succeeded", "failed", "refused"]


@dataclass(frozen=True)
class Run:
    """One execution: its number, the day it stands for, and when it began."""

    run_id: int
    sync_day: str
    sync_date: date
    source: str
    engine: str
    started_at: datetime


@dataclass(frozen=True)
class TableCounts:
    """What a run did to one final table; see the table sync_run_tables."""

    pipeline: str
    table: str
    records_read: int
    duplicates: int
    rejected: int
    staged: int
    inserted: int
    updated: int
    unchanged: int
    deactivated: int
    removed: int
    seconds: float


@dataclass(frozen=True)
class DriftCount:
    """How many rows do not agree in a run, and the ids of some; see the table sync_run_drift."""

    pipeline: str
    drift: str
    rows: int
    examples: tuple[str, ...]


def begin(connection: Connection, sync_day: str, sync_date: date, source: str, engine: str) -> Run:
    """Number a run and note when it began; nothing is written yet."""
    with explained():
        row = connection.execute(
            "SELECT nextval(pg_get_serial_sequence('sync_runs', 'run_id')), clock_timestamp()"
        ).fetchone()
    assert row is not None
    run_id, started_at = row
    return Run(run_id, sync_day, sync_date, source, engine, started_at)


def record(
    connection: Connection,
    run: Run,
    status: Status,
    message: str | None,
    tables: Iterable[TableCounts] = (),
    drift: Iterable[DriftCount] = (),
) -> None:
    """Write a run down, in the transaction at hand."""
    with explained():
        connection.execute(
            """INSERT INTO sync_runs (run_id, sync_day, sync_date, engine, status, started_at, finished_at, message)
            VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp(), %s)""",
            [run.run_id, run.sync_day, run.sync_date, run.engine, status, run.started_at, message],
        )
        for table in tables:
            connection.execute(
                f"INSERT INTO sync_run_tables VALUES (%s, {', '.join(['%s'] * 12)})",
                [run.run_id, *astuple(table)],
            )
        for one in drift:
            connection.execute(
                "INSERT INTO sync_run_drift VALUES (%s, %s, %s, %s, %s)",
                [run.run_id, one.pipeline, one.drift, one.rows, list(one.examples)],
            )


def published_after(connection: Connection, pipelines: Iterable[str], than: date) -> dict[date, list[str]]:
    """The pipelines that have published a later date, by that date: a sync of this one is a backfill."""
    with explained():
        rows = connection.execute(
            """SELECT sync_date, array_agg(pipeline ORDER BY pipeline) FROM sync_watermarks
            WHERE pipeline = ANY (%s) AND sync_date > %s GROUP BY sync_date ORDER BY sync_date""",
            [list(pipelines), than],
        ).fetchall()
    return dict(rows)


def roster_since(connection: Connection) -> date | None:
    """The oldest date whose day had a roster; None: no day yet."""
    with explained():
        row = connection.execute("SELECT roster_since FROM sync_watermarks WHERE pipeline = 'agents'").fetchone()
    assert row is not None
    since: date | None = row[0]
    return since


def date_of(connection: Connection, sync_day: str) -> date | None:
    """The date under which a day was last published; None if it never was."""
    with explained():
        row = connection.execute(
            """SELECT sync_date FROM sync_runs WHERE sync_day = %s AND status = 'succeeded'
            ORDER BY run_id DESC LIMIT 1""",
            [sync_day],
        ).fetchone()
    return row[0] if row else None


def other_days(connection: Connection, sync_day: str, on: date, pipelines: Iterable[str], but: str) -> list[str]:
    """The other days that published some of the pipelines for a date since this day last did, without `but`."""
    with explained():
        rows = connection.execute(
            """SELECT DISTINCT other.sync_day FROM sync_runs AS other
            JOIN sync_run_tables AS published ON published.run_id = other.run_id
            WHERE other.status = 'succeeded' AND other.sync_date = %(on)s AND other.sync_day NOT IN (%(day)s, %(but)s)
                AND published.pipeline = ANY (%(pipelines)s) AND other.run_id > coalesce((
                    SELECT max(mine.run_id) FROM sync_runs AS mine JOIN sync_run_tables AS own USING (run_id)
                    WHERE mine.status = 'succeeded' AND mine.sync_day = %(day)s AND mine.sync_date = %(on)s
                        AND own.pipeline = published.pipeline
                ), 0)
            ORDER BY 1""",
            {"on": on, "day": sync_day, "but": but, "pipelines": list(pipelines)},
        ).fetchall()
    return [day for (day,) in rows]
