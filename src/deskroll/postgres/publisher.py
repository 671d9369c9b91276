"""Publish: run the numbered SQL files, have the guards check what they did, and commit all of it or nothing."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from psycopg import Rollback, sql

from deskroll.postgres import guards as guards
from deskroll.postgres import ledger, staging
from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained
from deskroll.postgres.guards import Limits, Refusal
from deskroll.postgres.ledger import DriftCount, Run, TableCounts
from deskroll.postgres.staging import StagedSource
from deskroll.spec.pipeline import Publication

FILES: Final = Path(__file__).parent / "sql" / "publish"
_EXAMPLES: Final = 10
_ERRORS_TOLD: Final = 20


@dataclass(frozen=True)
class Change:
    """One kind of change: how many it befell, and the first of them."""

    pipeline: str
    change: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Quarantined:
    """One row in quarantine, as a message needs it."""

    pipeline: str
    error_type: str
    source_file: str | None
    record_index: int | None
    error_message: str


@dataclass(frozen=True)
class Published:
    """What a run did or, if it was planned or refused, would have done; of the quarantine the first rows.

    `noticed` are mass changes that are not refused, as they lose nothing.
    """

    tables: tuple[TableCounts, ...]
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...]
    noticed: tuple[str, ...]
    drift: tuple[DriftCount, ...]
    quarantine: int
    errors: tuple[Quarantined, ...]


def read_file(publication: Publication) -> str:
    """The SQL file of a pipeline."""
    return (FILES / publication.file).read_text(encoding="utf-8")


def by_hand(publication: Publication) -> str:
    """The SQL file as psql takes it from a pipe: in one transaction, stopping at the first error."""
    return f"\\set ON_ERROR_STOP on\nBEGIN;\n{read_file(publication)}COMMIT;\n"


def publish(
    connection: Connection,
    publications: Iterable[Publication],
    run: Run,
    sources: list[StagedSource],
    staged: Mapping[str, int],
    limits: Limits,
    *,
    plan: bool,
) -> Published:
    """Carry staging over in one transaction, which `plan` or a guard rolls back.

    Of `publications`, all that there are, those with `sources` are published; `staged` counts the rows of each
    staging table.
    """
    tables: list[TableCounts] = []
    changes: list[Change] = []
    drift: list[DriftCount] = []
    errors: list[Quarantined] = []
    quarantine = 0
    read = {s.pipeline for s in sources}
    chosen = [p for p in publications if p.pipeline in read]
    refusals = [Refusal("rejected records", why) for why in guards.find_rejected(limits, sources)]
    noticed: list[str] = []
    with explained(), suppress(Rollback), connection.transaction() as transaction:
        _set(connection, run)
        before = _written(connection, chosen)
        seconds: dict[str, float] = {}
        for publication in chosen:
            mine = [s for s in sources if s.pipeline == publication.pipeline]
            _turn_to(connection, publication)
            watch = guards.Watch(connection, publication.guards, publication.changes)
            began = time.monotonic()
            connection.execute(read_file(publication))
            seconds[publication.pipeline] = round(time.monotonic() - began, 3)
            changes += _changes(connection, publication)
            refusals += [] if limits.allow_mass_change else watch.find_refusals(mine)
            noticed += watch.find_notes()
            if limits.allow_mass_change:
                guards.allow(connection)
        for publication in publications:
            if publication.otherwise and publication not in chosen:
                connection.execute(publication.otherwise)
                changes += _changes(connection, publication)
        written = _written(connection, chosen)
        for publication in chosen:
            for table in publication.feeds:
                did = [after - already for after, already in zip(written[table], before[table], strict=True)]
                tables.append(_counts(connection, publication, table, did, sources, staged, changes, seconds))
            mine_bad, first = _errors(connection, publication, run.sync_day)
            quarantine += mine_bad
            errors += first
        for publication in publications:
            _turn_to(connection, publication)
            drift += _drift(connection, publication, is_published=publication in chosen)
        if plan or refusals:
            raise Rollback(transaction)
        staging.mark_published(connection, [p.pipeline for p in chosen])
        ledger.record(connection, run, "succeeded", _held_back(changes), tables, drift)
    return Published(
        tuple(tables),
        tuple(changes),
        tuple(refusals),
        tuple(noticed),
        tuple(drift),
        quarantine,
        tuple(errors[:_ERRORS_TOLD]),
    )


def _drift(connection: Connection, publication: Publication, *, is_published: bool) -> list[DriftCount]:
    return [
        DriftCount(publication.pipeline, what, rows, tuple(examples))
        for one in (*(publication.drift if is_published else ()), *publication.always)
        for what, rows, examples in connection.execute(one.select).fetchall()
        if rows
    ]


def _errors(connection: Connection, publication: Publication, sync_day: str) -> tuple[int, list[Quarantined]]:
    """Count a day's quarantine, and fetch the first rows of it: there may be more than memory holds."""
    table = sql.Identifier(publication.errors)
    counted = connection.execute(sql.SQL("SELECT count(*) FROM {} WHERE sync_day = %s").format(table), [sync_day])
    ((total,),) = counted.fetchall()
    found = connection.execute(
        sql.SQL(
            """SELECT error_type, source_file, record_index, left(error_message, 1000) FROM {} WHERE sync_day = %s
            ORDER BY source_file, record_index, error_message LIMIT %s"""
        ).format(table),
        [sync_day, _ERRORS_TOLD],
    ).fetchall()
    return total, [Quarantined(publication.pipeline, *row) for row in found]


def _set(connection: Connection, run: Run) -> None:
    given = {"sync_day": run.sync_day, "sync_date": run.sync_date, "source": run.source, "run_id": run.run_id}
    for name, value in given.items():
        connection.execute("SELECT set_config(%s, %s, true)", [f"deskroll.{name}", str(value)])
    # Joins of whole tables: let their hashes stay in memory, and do not compile what runs once.
    connection.execute("SET LOCAL work_mem = '128MB'; SET LOCAL maintenance_work_mem = '256MB'; SET LOCAL jit = off")


def _turn_to(connection: Connection, publication: Publication) -> None:
    """Let `sync_context` be that of a pipeline, as its file does when it begins."""
    connection.execute("SELECT set_config('deskroll.pipeline', %s, true)", [publication.pipeline])


def _written(connection: Connection, publications: Iterable[Publication]) -> dict[str, tuple[int, int, int]]:
    """Rows inserted, updated and deleted so far, as PostgreSQL itself counts them.

    So far in this transaction, and in those before it on this connection that it has not yet reported to others.
    """
    rows = connection.execute(
        """SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables
        WHERE relid = ANY (%s::REGCLASS[])""",
        [[table for publication in publications for table in publication.feeds]],
    ).fetchall()
    return {name: (inserted, updated, deleted) for name, inserted, updated, deleted in rows}


def _counts(
    connection: Connection,
    publication: Publication,
    table: str,
    did: list[int],
    sources: Iterable[StagedSource],
    staged: Mapping[str, int],
    changes: Iterable[Change],
    seconds: Mapping[str, float],
) -> TableCounts:
    """What became of a final table, when all is published; `did` has its rows inserted, updated and deleted."""
    inserted, updated, removed = did
    unchanged, deactivated = 0, 0
    rows = staged.get(publication.stages.get(table, f"stg_{table}"))
    if rows is not None:  # a history has no staging, and all its rows but today's are what they were
        by_me = sql.SQL("SELECT count(*), count(*) FILTER (WHERE xmin = (SELECT pg_current_xact_id()::xid)) FROM {}")
        ((there, touched),) = connection.execute(by_me.format(sql.Identifier(table))).fetchall()
        unchanged = there - touched
        updated = touched - inserted  # a row that is changed, and then linked, is updated twice
    if table == next(iter(publication.feeds)):
        mine = Counter({c.change: c.count for c in changes if c.pipeline == publication.pipeline})
        deactivated = mine["deactivated"] + mine["missing"] + mine["inactivated"]
        removed = max(removed, mine["removed"])  # a row that the date alone had is marked, and deleted
    fed = [s for s in sources if s.pipeline == publication.pipeline and s.source in publication.feeds[table]]
    return TableCounts(
        pipeline=publication.pipeline,
        table=table,
        records_read=sum(s.records_read for s in fed),
        duplicates=sum(s.duplicates for s in fed),
        rejected=sum(s.rejected for s in fed),
        staged=rows or 0,
        inserted=inserted,
        updated=updated,
        unchanged=unchanged,
        deactivated=deactivated,
        removed=removed,
        seconds=seconds[publication.pipeline],
    )


def _changes(connection: Connection, publication: Publication) -> list[Change]:
    table, key = sql.Identifier(publication.changes), sql.SQL(", ").join(map(sql.Identifier, publication.key))
    counted = connection.execute(
        sql.SQL("SELECT change, count(*) FROM {} WHERE change <> 'activity' GROUP BY change ORDER BY change").format(
            table
        )
    ).fetchall()
    first = sql.SQL("SELECT {} FROM {} WHERE change = %s ORDER BY {} LIMIT %s").format(key, table, key)
    return [
        Change(
            publication.pipeline,
            change,
            count,
            tuple(
                str(connection.execute(publication.who, bearer).fetchone()[0])  # type: ignore[index]  # a key of the table
                for bearer in connection.execute(first, [change, _EXAMPLES]).fetchall()
            ),
        )
        for change, count in counted
    ]


def _held_back(changes: Iterable[Change]) -> str | None:
    held = sum(c.count for c in changes if c.change == "held back")
    return f"{held} active agent{'s' * (held > 1)} not deactivated because the input is incomplete" if held else None
