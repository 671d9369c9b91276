"""Many sync days, one after the other: one engine and one connection that holds the database, a transaction a day.

find the days → lock the database → date the days → for each: skip it if its files are published, else sync it
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from deskroll import provenance
from deskroll.dated_days import Choice, DatedDay, date_days, find_days
from deskroll.engines import Engine, open_engine
from deskroll.errors import DeskrollError
from deskroll.logs import log_step
from deskroll.pipelines import PIPELINES, Pipeline, find_pipelines
from deskroll.postgres import ledger, published_files
from deskroll.postgres.database import Session
from deskroll.postgres.guards import Limits
from deskroll.postgres.ledger import Provenance, Run
from deskroll.settings import Settings
from deskroll.staging_run import StagingRun
from deskroll.sync import Outcome, Refused, open_database, options_of, sync_found

_logger = logging.getLogger(__name__)

Result = Literal["published", "unchanged", "refused", "failed", "planned"]
"""What became of a day; `unchanged`: skipped, because it is published from the same files; `planned`: not skipped."""


@dataclass(frozen=True)
class DaysRequest:
    """What to sync: the chosen days of a dump, some pipelines, and the engine to do it with.

    A `plan` only says which days would be synced. With `reread` no day is skipped, and every file is read.
    """

    dump: str
    choice: Choice = field(default_factory=Choice)
    only: tuple[str, ...] = ()
    engine: str = "duckdb"
    plan: bool = False
    reread: bool = False


@dataclass(frozen=True)
class Listed:
    """The days that are about to be synced, in the order of their dates, and what the dump has beside them."""

    request: DaysRequest
    database: str
    days: tuple[DatedDay, ...]
    has_archive: bool
    passed_over: tuple[str, ...]


@dataclass(frozen=True)
class DayResult:
    """What became of a day; `message` says why it failed."""

    day: DatedDay
    result: Result
    seconds: float
    outcome: Outcome | None = None
    message: str = ""


@dataclass(frozen=True)
class Ended:
    """The end of it all: what became of how many days, and which days are left if one stopped it."""

    results: dict[Result, int]
    seconds: float
    left: tuple[DatedDay, ...]


Event = Listed | DayResult | Ended


def sync_days(
    request: DaysRequest, settings: Settings, limits: Limits, tell: Callable[[Event], None], *, wait: bool = True
) -> None:
    """Sync many days, each in a transaction of its own; the first one that is refused or fails is the last.

    `tell` is called with what happens, as it happens.

    Raises:
        UsageError: the days, or their dates, cannot be told; nothing was synced.
        Refused: a guard held a day back.
        DeskrollError: a day failed.
    """
    pipelines = find_pipelines(request.only)
    options = options_of(request.dump, request.only, request.engine, settings)
    made = provenance.describe("sync", options | {"many_days": True, "reread": request.reread}, limits)
    inputs = {i.folder for p in PIPELINES for i in p.inputs}
    with open_engine(request.engine, settings) as engine:
        log_step(_logger, "looking for the days", dump=request.dump, engine=request.engine)
        found = find_days(engine, request.dump, request.choice, inputs)
        with open_database(settings, wait=wait, plan=request.plan) as session:
            days = date_days(session.connection, found, request.choice, [p.name for p in pipelines])
            tell(Listed(request, session.place, days, found.has_archive, found.passed_over))
            _sync_each(_Days(request, session, engine, pipelines, made, limits), days, tell)


@dataclass(frozen=True)
class _Days:
    """What all days have in common."""

    request: DaysRequest
    session: Session
    engine: Engine
    pipelines: list[Pipeline]
    made: Provenance
    limits: Limits

    def sync(self, day: DatedDay) -> tuple[Result, Outcome | None]:
        """Sync a day, unless it is published from the same files; returns what became of it, and the outcome of a run.

        Raises:
            Refused: a guard held it back.
            DeskrollError: it failed.
        """
        request, engine = self.request, self.engine
        folder = engine.find_day(request.dump, day.label)
        unnumbered = Run(0, day.label, day.date, day.origin, engine.name, datetime.now(UTC))
        if not request.reread and self._is_published(StagingRun(self.session, engine, folder, unnumbered)):
            return "unchanged", None
        if request.plan:
            return "planned", None
        run = ledger.begin(self.session.connection, day.label, day.date, day.origin, engine.name)
        try:
            staging_run = StagingRun(self.session, engine, folder, run)
            return "published", sync_found(staging_run, self.pipelines, self.made, self.limits, reread=request.reread)
        finally:
            engine.forget()

    def _is_published(self, staging_run: StagingRun) -> bool:
        """Whether all pipelines of which the day has a folder were last published for its date from these files."""
        files = staging_run.list_files(self.pipelines, "sync")
        published = published_files.of_date(self.session.connection, staging_run.run.sync_date)
        return bool(files.present) and all(
            p.name in files.fingerprints and published.get(p.name) == files.fingerprints[p.name] for p in files.present
        )


def _sync_each(all_days: _Days, days: tuple[DatedDay, ...], tell: Callable[[Event], None]) -> None:
    """Sync days until one of them stops it, and tell how it ended whatever happens."""
    began = time.monotonic()
    results: dict[Result, int] = {}
    done = 0
    try:
        for day in days:
            log_step(_logger, "next day", day=day.label, date=day.date, number=done + 1, of=len(days))
            result = _sync(all_days, day, tell)
            results[result] = results.get(result, 0) + 1
            done += 1
    finally:
        tell(Ended(results, round(time.monotonic() - began, 3), days[done:]))


def _sync(all_days: _Days, day: DatedDay, tell: Callable[[Event], None]) -> Result:
    """Sync a day, and tell what became of it, also if it stops all."""
    began = time.monotonic()

    def ended(result: Result, outcome: Outcome | None = None, message: str = "") -> None:
        tell(DayResult(day, result, round(time.monotonic() - began, 3), outcome, message))

    try:
        result, outcome = all_days.sync(day)
    except Refused as refused:
        ended("refused", refused.outcome, refused.message)
        raise
    except DeskrollError as error:
        ended("failed", message=error.message)
        raise
    ended(result, outcome)
    return result
