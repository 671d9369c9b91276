"""One sync day, start to finish: the only module that knows the order.

find the day → lock the database → read, check, derive, stage each pipeline → publish all in one transaction
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from deskroll import notes, provenance, sync_date
from deskroll.engines import Engine, open_engine
from deskroll.errors import DeskrollError, RefusedError, UsageError
from deskroll.logs import log_step
from deskroll.pipelines import PIPELINES, Pipeline, find_pipelines
from deskroll.postgres import checks, database, ledger, migrations, staging
from deskroll.postgres.database import Connection, Session
from deskroll.postgres.guards import Limits
from deskroll.postgres.ledger import Entry, Provenance, Run
from deskroll.postgres.locks import locked
from deskroll.postgres.publisher import Published, publish
from deskroll.postgres.rehearsal import rehearse
from deskroll.postgres.staging import Staged, StagedInput, StagedSync
from deskroll.settings import Settings
from deskroll.staging_run import StagingRun
from deskroll.verdicts import Note

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What to sync: a day of a dump, the date it stands for, some pipelines, and the engine to do it with."""

    dump: str
    day: str
    sync_date: date | None = None
    only: tuple[str, ...] = ()
    engine: str = "duckdb"

    @property
    def origin(self) -> str:
        """Where the day's records come from: `tran` for tran/, else `api`."""
        return "tran" if self.day == sync_date.ARCHIVE else "api"


@dataclass(frozen=True)
class Outcome:
    """What a run did, for a person or a program to read."""

    run: Run
    database: str
    inputs: tuple[StagedInput, ...]
    published: Published
    notes: tuple[Note, ...]


class Refused(RefusedError):  # noqa: N818 - a verdict, with the outcome that it is about
    """A refusal that carries what the run would have done."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(*notes.of_refusal(outcome.published.refusals, is_plan=outcome.run.is_plan))
        self.outcome = outcome


def sync_day(
    request: Request,
    settings: Settings,
    limits: Limits,
    *,
    plan: bool = False,
    wait: bool = True,
    reread: bool = False,
) -> Outcome:
    """Stage a day and publish it in one transaction; a `plan` is rolled back.

    Files that staging already holds as they are now are not read again, unless `reread` says so.

    Raises:
        Refused: a guard held it back.
        DeskrollError: it failed; nothing was published, and the ledger says so.
    """
    pipelines = find_pipelines(request.only)
    with (
        _engine(request, settings) as (engine, day),
        open_database(settings, wait=wait, plan=plan) as session,
    ):
        run, of_date = _begin(session, request, pipelines, plan=plan)
        options = options_of(request.dump, request.only, request.engine, settings) | {
            "sync_date": str(request.sync_date) if request.sync_date else None,
            "reread": reread,
            "no_wait": not wait,
        }
        made = provenance.describe("sync", options, limits)
        outcome = sync_found(StagingRun(session, engine, day, run), pipelines, made, limits, reread=reread)
    return replace(outcome, notes=(*outcome.notes, *of_date))


def sync_found(
    staging_run: StagingRun, pipelines: list[Pipeline], made: Provenance, limits: Limits, *, reread: bool
) -> Outcome:
    """Stage and publish the day of a run that has begun, over a database that it holds; see `sync_day`."""
    session, run = staging_run.session, staging_run.run
    entry = Entry(run, made, staging_run.seen)
    with _failures_recorded(session, entry):
        staged = staging_run.stage(pipelines, "plan" if run.is_plan else "sync", reread=reread)
        return _publish(session, pipelines, entry, staged, limits)


def stage_day(request: Request, settings: Settings, *, wait: bool = True) -> tuple[StagedInput, ...]:
    """Fill the staging tables with a day, and publish nothing."""
    pipelines = find_pipelines(request.only)
    with (
        _engine(request, settings) as (engine, day),
        open_database(settings, wait=wait) as session,
    ):
        run, _ = _begin(session, request, pipelines)
        staged = StagingRun(session, engine, day, run).stage(pipelines, "stage", reread=True)
        return staged.once([p.name for p in PIPELINES])


def publish_staged(
    only: tuple[str, ...],
    settings: Settings,
    limits: Limits,
    *,
    plan: bool = False,
    wait: bool = True,
) -> Outcome:
    """Publish what `stage_day` left in the staging tables; a `plan` is rolled back.

    Raises:
        UsageError: nothing is staged, or not of one day.
        Refused: a guard held it back.
    """
    asked = find_pipelines(only)
    with open_database(settings, wait=wait) as session:
        connection = session.connection
        syncs, inputs = staging.staged(connection)
        held = {s.pipeline: s for s in syncs if s.pipeline in {p.name for p in asked}}
        pipelines = [p for p in asked if p.name in held]
        days = {(s.sync_day, s.sync_date, s.origin, s.engine) for s in held.values()}
        if len(days) != 1 or (only and len(held) < len(asked)):
            found = ", ".join(f"{s.pipeline} of {s.sync_day}" for s in syncs) or "nothing"
            raise UsageError(
                f"These pipelines are not staged for one day; staged: {found}.", "Run `deskroll stage` first."
            )
        _check_purpose(held.values())
        run = replace(ledger.begin(connection, *days.pop()), is_plan=plan)
        entry = Entry(run, provenance.describe("publish", {"only": list(only), "no_wait": not wait}, limits))
        entry.seen.add(i for i in inputs if i.pipeline in held)
        with _failures_recorded(session, entry):
            rows = {s.table: staging.count(connection, s.table) for p in pipelines for s in p.staging}
            staged = Staged([i for i in inputs if i.pipeline in held], rows)
            return _publish(session, pipelines, entry, staged, limits)


def _check_purpose(syncs: Iterable[StagedSync]) -> None:
    planned = [s for s in syncs if s.purpose == "plan"]
    if planned:
        raise UsageError(
            f"A plan of {planned[0].sync_day} filled the staging tables of {', '.join(s.pipeline for s in planned)}.",
            "Run `deskroll stage` again.",
        )


def options_of(dump: str, only: Iterable[str], engine: str, settings: Settings) -> dict[str, Any]:
    """The options that every sync has, for the ledger."""
    return {
        "data": provenance.without_credentials(dump),
        "only": list(only),
        "engine": engine if engine != Request.engine else None,
        "spark_conf": sorted(settings.spark_conf),  # a value may be a password
    }


@contextmanager
def _engine(request: Request, settings: Settings) -> Iterator[tuple[Engine, str]]:
    """The engine, and the folder of the day."""
    sync_date.check(request.day, request.sync_date)
    with open_engine(request.engine, settings) as engine:
        log_step(_logger, "looking for the day", day=request.day, engine=request.engine)
        yield engine, engine.find_day(request.dump, request.day)


def _begin(
    session: Session, request: Request, pipelines: Iterable[Pipeline], *, plan: bool = False
) -> tuple[Run, tuple[Note, ...]]:
    """Number a run, and find the date that it stands for; returns notes on that too."""
    names = [p.name for p in pipelines]
    found = sync_date.find_date(session.connection, request.day, request.sync_date, names)
    run = ledger.begin(session.connection, request.day, found.date, request.origin, request.engine)
    return replace(run, is_plan=plan), found.notes


@contextmanager
def open_database(settings: Settings, *, wait: bool, plan: bool = False) -> Iterator[Session]:
    """The database, held for this run; a plan for one that can only be read is made on a copy of it."""
    log_step(_logger, "connecting to PostgreSQL")
    url = database.url_of(settings)
    with database.connect(url) as connection:
        place = database.place_of(connection)
        if plan and checks.is_read_only(connection):
            log_step(_logger, "copying the database, which can only be read")
            with (
                rehearse(connection, settings.home) as copied,
                database.connect(copied) as copy,
                locked(copy, wait=wait),
                _session(copy, copied, place) as session,
            ):
                yield session
            return
        checks.check_server(connection)
        with locked(connection, wait=wait):
            if applied := migrations.migrate(connection):
                log_step(_logger, "migrated the database", scripts=len(applied))
            checks.check_tables(connection, migrations.names("TABLE"))
            with _session(connection, url, place) as session:
                yield session


@contextmanager
def _session(connection: Connection, url: str, place: str) -> Iterator[Session]:
    """A session that leaves no connection open but the one that it is given."""
    session = Session(connection, url, place)
    try:
        yield session
    finally:
        session.close_others()


@contextmanager
def _failures_recorded(session: Session, entry: Entry) -> Iterator[None]:
    """Leave a row in the ledger also if a run does not succeed; a plan leaves none."""
    try:
        yield
    except BaseException as error:
        if not entry.run.is_plan:
            status: ledger.Status = "refused" if isinstance(error, RefusedError) else "failed"
            with (
                suppress(DeskrollError),  # what went wrong first is what is to be told
                database.usable(session) as usable,
            ):
                ledger.record(usable, entry, status, _reason(error))
        raise


def _reason(error: BaseException) -> str:
    """Why a run failed, in a line."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if isinstance(error, DeskrollError):
        return error.message
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")


def _publish(session: Session, pipelines: list[Pipeline], entry: Entry, staged: Staged, limits: Limits) -> Outcome:
    run = entry.run
    newer = ledger.published_after(session.connection, [p.name for p in pipelines], run.sync_date)
    published = publish(session.connection, [p.publication for p in PIPELINES], entry, staged, limits)
    found = [
        *notes.of_backfill(run, newer),
        *staged.notes,
        *notes.of_input(pipelines, staged),
        *notes.of_published(published),
        *notes.of_limits(limits),
    ]
    told = tuple(dict.fromkeys(found))  # pipelines may share a folder
    outcome = Outcome(run, session.place, staged.once([p.name for p in PIPELINES]), published, told)
    counts = {name: sum(getattr(t, name) for t in published.tables) for name in ("inserted", "updated", "removed")}
    done = "planned" if run.is_plan else "refused" if published.refusals else "published"
    log_step(_logger, done, day=run.sync_day, run_id=run.run_id, **counts, quarantine=published.quarantine)
    if published.refusals and not run.is_plan:
        raise Refused(outcome)
    return outcome
