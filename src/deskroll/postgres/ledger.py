"""The ledger: a row per run, whatever became of it, who made it, what it read, and what it did to each table."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from deskroll.input.dump import Folder
from deskroll.postgres import run_changes
from deskroll.postgres.counts import DiscrepancyCount, TableCounts
from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained
from deskroll.postgres.guards import GuardCheck
from deskroll.postgres.staging import StagedInput

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


@dataclass(frozen=True)
class Provenance:
    """Who made a run, with which version of deskroll, which options, and for which reason."""

    version: str
    os_user: str
    host: str
    options: dict[str, Any]
    reason: str | None = None


@dataclass
class Seen:
    """What a run has seen of its input so far: the folders that were listed, and what was read."""

    folders: dict[str, Folder] = field(default_factory=dict)
    inputs: dict[str, StagedInput] = field(default_factory=dict)

    def add(self, inputs: Iterable[StagedInput]) -> None:
        """Add what was read, each input once, though pipelines share some."""
        for one in inputs:
            self.inputs.setdefault(one.input, one)


@dataclass
class Entry:
    """What the ledger will say of a run, filled in as the run goes on.

    `changes` are those of a refused run, as `run_changes` saved them.
    """

    run: Run
    provenance: Provenance
    seen: Seen = field(default_factory=Seen)
    guards: tuple[GuardCheck, ...] = ()
    changes: bytes | None = None


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
    entry: Entry,
    status: Status,
    message: str | None,
    tables: Iterable[TableCounts] = (),
    discrepancies: Iterable[DiscrepancyCount] = (),
) -> None:
    """Write a run down, all of it or nothing."""
    run, by = entry.run, entry.provenance
    with explained(), connection.transaction():
        connection.execute(
            """INSERT INTO sync_runs (
                run_id, sync_day, sync_date, engine, status, started_at, finished_at, message,
                version, database_role, os_user, host, options, reason
            ) VALUES (%s, %s, %s, %s, %s, %s, clock_timestamp(), %s, %s, current_user, %s, %s, %s, %s)""",
            [
                run.run_id, run.sync_day, run.sync_date, run.engine, status, run.started_at, message,
                by.version, by.os_user, by.host, Jsonb(by.options), by.reason,
            ],
        )  # fmt: skip
        _record_inputs(connection, run.run_id, entry.seen)
        _record_guards(connection, run.run_id, entry.guards)
        if entry.changes is not None:
            run_changes.restore(connection, entry.changes)
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


def _record_inputs(connection: Connection, run_id: int, seen: Seen) -> None:
    listed: list[list[Any]] = [
        [
            run_id, name, True, folder.found, None, len(folder.files), folder.size,
            *[None if folder.found else 0] * 4, folder.digest, [], None,
        ]
        for name, folder in seen.folders.items()
        if name not in seen.inputs
    ]  # fmt: skip
    read: list[list[Any]] = [
        [
            run_id, one.input, one.is_folder, one.found, one.complete, one.files, one.bytes, one.records_read,
            one.valid, one.duplicates, one.rejected, one.fingerprint, list(one.unreadable),
            one.incomplete_because or None,
        ]
        for one in seen.inputs.values()
    ]  # fmt: skip
    connection.cursor().executemany(
        f"""INSERT INTO sync_run_inputs (
            run_id, input, is_folder, found, complete, files, bytes, records_read, valid, duplicates, rejected,
            fingerprint, unreadable, incomplete_because
        ) VALUES ({", ".join(["%s"] * 14)})""",
        [*read, *listed],
    )


def _record_guards(connection: Connection, run_id: int, guards: Iterable[GuardCheck]) -> None:
    connection.cursor().executemany(
        f"""INSERT INTO sync_run_guards (
            run_id, pipeline, guarded, is_gain, before, changed, share, threshold, refused, allowed
        ) VALUES ({", ".join(["%s"] * 10)})""",
        [[run_id, *astuple(check)] for check in guards],
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
    return dates_of(connection, [sync_day]).get(sync_day)


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
