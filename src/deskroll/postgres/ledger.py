"""The ledger: a row per run, whatever became of it, and what it did to each table."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from datetime import date, datetime
from typing import Literal

from deskroll.postgres.counts import DiscrepancyCount, TableCounts
from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained

Status = Literal["succeeded", "failed", "refused"]


@dataclass(frozen=True)
class Run:
    """One execution: its number, the day it stands for, where its records come from, and when it began."""

    run_id: int
    sync_day: str
    sync_date: date
    origin: str
    engine: str
    started_at: datetime
    is_plan: bool = False


def begin(connection: Connection, sync_day: str, sync_date: date, origin: str, engine: str) -> Run:
    """Number a run and note when it began; nothing is written yet."""
    with explained():
        row = connection.execute(
            "SELECT nextval(pg_get_serial_sequence('sync_runs', 'run_id')), clock_timestamp()"
        ).fetchone()
    assert row is not None
    run_id, started_at = row
    return Run(run_id, sync_day, sync_date, origin, engine, started_at)


def record(
    connection: Connection,
    run: Run,
    status: Status,
    message: str | None,
    tables: Iterable[TableCounts] = (),
    discrepancies: Iterable[DiscrepancyCount] = (),
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
        for one in discrepancies:
            connection.execute(
                """INSERT INTO sync_run_drift (run_id, pipeline, kind, drift, rows, examples)
                VALUES (%s, %s, %s, %s, %s, %s)""",
                [run.run_id, one.pipeline, one.kind, one.discrepancy, one.rows, list(one.examples)],
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


def roster_since(connection: Connection, pipelines: Iterable[str]) -> date | None:
    """The oldest date whose day had the folder that must return; None: no day of these pipelines had it yet."""
    with explained():
        row = connection.execute(
            "SELECT min(roster_since) FROM sync_watermarks WHERE pipeline = ANY (%s)", [list(pipelines)]
        ).fetchone()
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


def dates_of(connection: Connection, sync_days: Iterable[str]) -> dict[str, date]:
    """The date under which each of some days was last published, without those that never were."""
    with explained():
        rows = connection.execute(
            """SELECT DISTINCT ON (sync_day) sync_day, sync_date FROM sync_runs
            WHERE sync_day = ANY (%s) AND status = 'succeeded' ORDER BY sync_day, run_id DESC""",
            [list(sync_days)],
        ).fetchall()
    return dict(rows)


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
