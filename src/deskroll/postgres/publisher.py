"""Publish: run the numbered SQL files, have the guards check what they did, and commit all of it or nothing."""

import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from psycopg import Rollback

from deskroll.logs import log_step
from deskroll.postgres import guards, ledger, published_files, run_changes, staging
from deskroll.postgres.counts import (
    QUARANTINE_SHOWN,
    Change,
    DiscrepancyCount,
    Part,
    Quarantined,
    TableCounts,
    count_changes,
    count_discrepancies,
    count_quarantine,
    count_tables,
    count_written,
)
from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained
from deskroll.postgres.guards import GuardCheck, Limits
from deskroll.postgres.ledger import Entry, Run
from deskroll.postgres.staging import Staged
from deskroll.spec.pipeline import Publication
from deskroll.verdicts import Refusal

_logger = logging.getLogger(__name__)

FILES: Final = Path(__file__).parent / "sql" / "publish"


@dataclass(frozen=True)
class Published:
    """What a run did or, if it was planned or refused, would have done; of the quarantine the first rows.

    `noticed` are mass changes that are not refused, as they lose nothing.
    """

    tables: tuple[TableCounts, ...]
    changes: tuple[Change, ...]
    refusals: tuple[Refusal, ...]
    noticed: tuple[str, ...]
    discrepancies: tuple[DiscrepancyCount, ...]
    quarantine: int
    errors: tuple[Quarantined, ...]
    guards: tuple[GuardCheck, ...] = ()


def read_file(publication: Publication) -> str:
    """The SQL file of a pipeline."""
    return (FILES / publication.file).read_text(encoding="utf-8")


def by_hand(publication: Publication) -> str:
    """The SQL file as psql takes it from a pipe: in one transaction, stopping at the first error."""
    return f"\\set ON_ERROR_STOP on\nBEGIN;\n{read_file(publication)}COMMIT;\n"


def publish(
    connection: Connection, publications: Iterable[Publication], entry: Entry, staged: Staged, limits: Limits
) -> Published:
    """Carry staging over in one transaction, which a plan or a guard rolls back.

    Of `publications`, all that there are, those that staging has inputs of are published. What the guards have found,
    and the changes of a refused run, are in `entry` afterwards.
    """
    publications, run = list(publications), entry.run
    read = {i.pipeline for i in staged.inputs}
    chosen = [p for p in publications if p.pipeline in read]
    rejected = [Refusal("rejected records", why) for why in guards.find_rejected(limits, staged.inputs)]
    with explained(), suppress(Rollback), connection.transaction() as transaction:
        _set(connection, run)
        tracking = None if run.is_plan else run_changes.track(connection, publications)
        before = count_written(connection, chosen)
        parts = {p.pipeline: _publish_one(connection, p, staged, limits) for p in chosen}
        changes = [change for part in parts.values() for change in part.changes]
        changes += _refresh(connection, [p for p in publications if p not in chosen])
        now = count_written(connection, chosen)
        written = {table: now[table] - before[table] for table in now}
        tables = [counts for p in chosen for counts in count_tables(connection, p, parts[p.pipeline], written, staged)]
        quarantines = [count_quarantine(connection, p, run.sync_day) for p in chosen]
        discrepancies = _find_discrepancies(connection, publications, chosen)
        refusals = [*rejected, *(refusal for part in parts.values() for refusal in part.refusals)]
        published = Published(
            tuple(tables),
            tuple(changes),
            tuple(refusals),
            tuple(notice for part in parts.values() for notice in part.noticed),
            tuple(discrepancies),
            sum(total for total, _ in quarantines),
            tuple(row for _, first in quarantines for row in first)[:QUARANTINE_SHOWN],
            (
                *guards.check_rejected(limits, staged.inputs),
                *(check for part in parts.values() for check in part.guards),
            ),
        )
        entry.guards = published.guards
        if tracking is None or refusals:
            entry.changes = tracking.save(run.run_id, changes, chosen) if tracking else None
            raise Rollback(transaction)
        staging.mark_published(connection, [p.pipeline for p in chosen])
        ledger.record(connection, entry, "succeeded", _ledger_note(chosen, changes, limits), tables, discrepancies)
        tracking.write(run.run_id, changes, chosen)
        published_files.record(connection, run, staged.fingerprints)
    return published


def _publish_one(connection: Connection, publication: Publication, staged: Staged, limits: Limits) -> Part:
    """Run a pipeline's file, between two looks of its guards."""
    _turn_to(connection, publication)
    watch = guards.Watch(connection, publication.guards, publication.changes_table)
    log_step(_logger, "publishing", pipeline=publication.pipeline)
    began = time.monotonic()
    connection.execute(read_file(publication))
    seconds = round(time.monotonic() - began, 3)
    changes = count_changes(connection, publication)
    refusals = []
    if not limits.allow_mass_change:
        refusals = watch.find_refusals([i for i in staged.inputs if i.pipeline == publication.pipeline])
    noticed = watch.find_notes()
    checks = watch.find_checks(publication.pipeline, is_allowed=limits.allow_mass_change)
    if limits.allow_mass_change:
        guards.allow(connection)
    return Part(seconds, changes, refusals, noticed, checks)


def _refresh(connection: Connection, publications: Iterable[Publication]) -> list[Change]:
    """Work out anew what pipelines that are not published hold of those that are."""
    changes = []
    for publication in publications:
        if publication.refresh_sql:
            connection.execute(publication.refresh_sql)
            changes += count_changes(connection, publication)
    return changes


def _find_discrepancies(
    connection: Connection, publications: Iterable[Publication], chosen: Iterable[Publication]
) -> list[DiscrepancyCount]:
    found = []
    for publication in publications:
        _turn_to(connection, publication)
        of_run = publication.discrepancies if publication in chosen else ()
        found += count_discrepancies(connection, publication, (*of_run, *publication.standing_discrepancies))
    return found


def _set(connection: Connection, run: Run) -> None:
    given = {"sync_day": run.sync_day, "sync_date": run.sync_date, "source": run.origin, "run_id": run.run_id}
    for name, value in given.items():
        connection.execute("SELECT set_config(%s, %s, true)", [f"deskroll.{name}", str(value)])
    # Joins of whole tables: let their hashes stay in memory, and do not compile what runs once.
    connection.execute("SET LOCAL work_mem = '128MB'; SET LOCAL maintenance_work_mem = '256MB'; SET LOCAL jit = off")


def _turn_to(connection: Connection, publication: Publication) -> None:
    """Let `sync_context` be that of a pipeline, as its file does when it begins."""
    connection.execute("SELECT set_config('deskroll.pipeline', %s, true)", [publication.pipeline])


def _ledger_note(publications: Iterable[Publication], changes: Iterable[Change], limits: Limits) -> str | None:
    """What the ledger writes about a run that succeeded, if anything: its changes, and that nobody gave a reason."""
    notes = {(p.pipeline, change): note for p in publications for change, note in p.ledger_notes.items()}
    told = [
        notes[c.pipeline, c.change].format(count=c.count, s="s" * (c.count > 1))
        for c in changes
        if (c.pipeline, c.change) in notes
    ]
    told += ["no reason was given for --allow-mass-change"] * (limits.allow_mass_change and not limits.reason)
    return "; ".join(told) or None
