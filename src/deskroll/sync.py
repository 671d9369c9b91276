"""One sync day, start to finish: the only module that knows the order.

find the day → lock the database → read, check, derive, stage each pipeline → publish all in one transaction
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from importlib.metadata import version

from deskroll import notes, sync_date
from deskroll.engines import Engine, open_engine
from deskroll.errors import DeskrollError, InputError, RefusedError, UsageError
from deskroll.input.dump import Folder, fingerprint
from deskroll.pipelines import PIPELINES
from deskroll.pipelines.agents import ROSTER
from deskroll.postgres import checks, database, ledger, migrations, staging
from deskroll.postgres.database import Connection
from deskroll.postgres.guards import Limits
from deskroll.postgres.locks import locked
from deskroll.postgres.publisher import Published, publish
from deskroll.postgres.rehearsal import rehearsal
from deskroll.postgres.session import backend_pid
from deskroll.postgres.snapshot import parts
from deskroll.postgres.staging import Load, Purpose, StagedSource, StagedSync
from deskroll.settings import Settings
from deskroll.spec.pipeline import Pipeline, Source
from deskroll.sql import sql_text
from deskroll.transform.compile import check_records
from deskroll.transform.run import Reader

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to sync: a day of a dump, the date it stands for, some pipelines, and the engine to do it with."""

    dump: str
    day: str
    sync_date: date | None = None
    only: tuple[str, ...] = ()
    engine: str = "duckdb"

    @property
    def source(self) -> str:
        """Where the day's records come from: `tran` for tran/, else `api`."""
        return "tran" if self.day == sync_date.ARCHIVE else "api"


@dataclass(frozen=True)
class Staged:
    """What is in staging: what was read, the rows of each table, and the pipelines whose files were not read again."""

    sources: list[StagedSource]
    rows: dict[str, int]
    reused: list[str]
    notes: list[str] = field(default_factory=list)

    def once(self) -> tuple[StagedSource, ...]:
        """What was read, each source once, though pipelines share some."""
        order = [p.name for p in PIPELINES]
        first: dict[str, StagedSource] = {}
        for one in sorted(self.sources, key=lambda s: (order.index(s.pipeline), s.source)):
            first.setdefault(one.source, one)
        return tuple(first.values())


@dataclass(frozen=True)
class Target:
    """The database of a run: a connection that holds it, its URL for more of them, and how a person is told of it."""

    connection: Connection
    url: str = field(repr=False)
    place: str


@dataclass(frozen=True)
class Outcome:
    """What a run did, for a person or a program to read."""

    run: ledger.Run
    database: str
    is_plan: bool
    sources: tuple[StagedSource, ...]
    published: Published
    notes: tuple[str, ...]


class Refused(RefusedError):  # noqa: N818 - a verdict, with the outcome that it is about
    """A refusal that carries what the run would have done."""

    def __init__(self, outcome: Outcome) -> None:
        refusals = outcome.published.refusals
        options = {
            "a higher --max-rejected" if r.kind == "rejected records" else "--allow-mass-change" for r in refusals
        }
        super().__init__(
            ("A sync would be refused: " if outcome.is_plan else "Refused: ")
            + "; ".join(r.message for r in refusals)
            + ".",
            "Nothing was published. If the dump is wrong, download it again."
            f" If all this is right, run again with {' and '.join(sorted(options))}.",
        )
        self.outcome = outcome


def sync(
    request: Request,
    settings: Settings,
    limits: Limits,
    tell: Tell,
    *,
    plan: bool = False,
    wait: bool = True,
    reread: bool = False,
) -> Outcome:
    """Stage a day and publish it in one transaction.

    Files that staging already holds as they are now are not read again, unless `reread` says so.

    Raises:
        Refused: a guard held it back.
        DeskrollError: it failed; nothing was published, and the ledger says so.
    """
    pipelines = _chosen(request.only)
    with (
        _engine(request, settings, tell) as (engine, day),
        _database(settings, tell, wait=wait, plan=plan) as target,
    ):
        run, notes = _begin(target, request, pipelines)
        with _failures_recorded(target, run, plan=plan):
            staged = _stage(target, engine, pipelines, day, run, tell, "plan" if plan else "sync", reread=reread)
            outcome = _publish(target, pipelines, run, staged, limits, tell, plan=plan)
    return replace(outcome, notes=(*outcome.notes, *notes))


def stage(request: Request, settings: Settings, tell: Tell, *, wait: bool = True) -> tuple[StagedSource, ...]:
    """Fill the staging tables with a day, and publish nothing."""
    pipelines = _chosen(request.only)
    with _engine(request, settings, tell) as (engine, day), _database(settings, tell, wait=wait) as target:
        run, _ = _begin(target, request, pipelines)
        return _stage(target, engine, pipelines, day, run, tell, "stage", reread=True).once()


def publish_staged(
    only: tuple[str, ...],
    settings: Settings,
    limits: Limits,
    tell: Tell,
    *,
    plan: bool = False,
    wait: bool = True,
) -> Outcome:
    """Publish what `stage` left in the staging tables.

    Raises:
        UsageError: nothing is staged, or not of one day.
        Refused: a guard held it back.
    """
    asked = _chosen(only)
    with _database(settings, tell, wait=wait) as target:
        connection = target.connection
        syncs, sources = staging.staged(connection)
        mine = {s.pipeline: s for s in syncs if s.pipeline in {p.name for p in asked}}
        pipelines = [p for p in asked if p.name in mine]
        staged_days = {(s.sync_day, s.sync_date, s.source, s.engine) for s in mine.values()}
        if len(staged_days) != 1 or (only and len(mine) < len(asked)):
            held = ", ".join(f"{s.pipeline} of {s.sync_day}" for s in syncs) or "nothing"
            raise UsageError(
                f"These pipelines are not staged for one day; staged: {held}.", "Run `deskroll stage` first."
            )
        _check_purpose(mine.values())
        run = ledger.begin(connection, *staged_days.pop())
        with _failures_recorded(target, run, plan=plan):
            rows = {s.table: staging.count(connection, s.table) for p in pipelines for s in p.staging}
            staged = Staged([s for s in sources if s.pipeline in mine], rows, [])
            return _publish(target, pipelines, run, staged, limits, tell, plan=plan)


def _check_purpose(syncs: Iterable[StagedSync]) -> None:
    planned = [s for s in syncs if s.purpose == "plan"]
    if planned:
        raise UsageError(
            f"A plan of {planned[0].sync_day} filled the staging tables of {', '.join(s.pipeline for s in planned)}.",
            "Run `deskroll stage` again.",
        )


def _chosen(only: Iterable[str]) -> list[Pipeline]:
    names = [p.name for p in PIPELINES]
    for name in only:
        if name not in names:
            raise UsageError(f"There is no pipeline {name!r}.", f"Pipelines: {', '.join(names)}.")
    return [p for p in PIPELINES if not only or p.name in only]


@contextmanager
def _engine(request: Request, settings: Settings, tell: Tell) -> Iterator[tuple[Engine, str]]:
    """The engine, and the folder of the day."""
    sync_date.check(request.day, request.sync_date)
    with open_engine(request.engine, settings) as engine:
        tell(f"looking for {request.day}")
        yield engine, engine.find_day(request.dump, request.day)


def _begin(target: Target, request: Request, pipelines: Iterable[Pipeline]) -> tuple[ledger.Run, tuple[str, ...]]:
    """Number a run, and find the date that it stands for; returns notes on that too."""
    found = sync_date.find_date(target.connection, request.day, request.sync_date, [p.name for p in pipelines])
    run = ledger.begin(target.connection, request.day, found.date, request.source, request.engine)
    return run, found.notes


@contextmanager
def _database(settings: Settings, tell: Tell, *, wait: bool, plan: bool = False) -> Iterator[Target]:
    """The database, held for this run; a plan for one that can only be read is made on a copy of it."""
    tell("connecting to PostgreSQL")
    url = database.url_of(settings)
    with database.connect(url) as connection:
        place = database.place_of(connection)
        if plan and checks.is_read_only(connection):
            tell("copying the database, which can only be read")
            with (
                rehearsal(connection, settings.home) as copied,
                database.connect(copied) as copy,
                locked(copy, wait=wait),
            ):
                yield Target(copy, copied, place)
            return
        checks.check_server(connection)
        with locked(connection, wait=wait):
            if migrations.migrate(connection):
                tell("database migrated")
            checks.check_tables(connection, migrations.names("TABLE"))
            yield Target(connection, url, place)


@contextmanager
def _failures_recorded(target: Target, run: ledger.Run, *, plan: bool) -> Iterator[None]:
    """Leave a row in the ledger also where a run does not succeed; a plan leaves none."""
    try:
        yield
    except BaseException as error:
        status: ledger.Status = "refused" if isinstance(error, RefusedError) else "failed"
        message = (
            error.what
            if isinstance(error, DeskrollError)
            else f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
        )
        if isinstance(error, KeyboardInterrupt):
            message = "Interrupted."
        if not plan:
            with (
                suppress(DeskrollError),  # what went wrong first is what is to be told
                database.usable(target.connection, target.url) as usable,
            ):
                ledger.record(usable, run, status, message)
        raise


def _stage(
    target: Target,
    engine: Engine,
    pipelines: list[Pipeline],
    day: str,
    run: ledger.Run,
    tell: Tell,
    purpose: Purpose,
    *,
    reread: bool,
) -> Staged:
    connection, url = target.connection, target.url
    folders = {s.folder: engine.list_folder(day, s.folder, s.resource) for p in pipelines for s in p.sources}
    present = [p for p in pipelines if any(folders[s.folder].found for s in p.sources)]
    if not present:
        raise InputError(
            f"{day} has none of the folders {', '.join(f'{name}/' for name in folders)}.",
            "Check the dump: did its download end?",
        )
    lost = _lost(connection, folders, run)
    syncs = {p.name: _describe_sync(p, folders, run, purpose, lost) for p in present}
    held = staging.staged(connection)[0]
    staged = Staged([], {}, []) if reread else _reuse(connection, present, syncs)
    staged.notes.extend(notes.of_day(engine.list_day(day), [s.folder for p in PIPELINES for s in p.sources]))
    if purpose == "plan":
        staged.notes.extend(notes.of_replaced(pipelines, held, staging.staged(connection)[0], staged.reused))
    rest = [p for p in pipelines if p.name not in staged.reused]
    staging.begin(connection, [p.name for p in rest])
    unread = [p for p in present if p in rest]
    feeds = frozenset().union(*(p.feeds for p in unread))
    sources = dict.fromkeys(s for p in unread for s in p.sources)  # read once, though pipelines share some
    reader = Reader(engine, connection, run.sync_date, feeds, lost, tell)
    found = reader.read({s: folders[s.folder] for s in sources})
    for pipeline in unread:
        read = [
            replace(one, pipeline=pipeline.name)
            for source in pipeline.sources
            for one in found[source]
            if one.is_folder or one.source in pipeline.feeds
        ]
        tell(f"staging {pipeline.name}")
        _describe_run(engine, run, read)
        with parts(connection, url, pipeline.known) as stored:
            for known, rows in stored:
                engine.take(known.name, list(known.columns), rows)
            holder = backend_pid(connection)
            loaded = staging.load(url, holder, [_load(engine, s.table, s.select) for s in pipeline.staging])
            loaded.append(staging.add(url, holder, _load(engine, "stg_pipeline_errors", _errors(pipeline))))
        staging.finish(connection, syncs[pipeline.name], read, loaded)
        staged.sources.extend(read)
        staged.rows.update({t.table: t.rows for t in loaded})
    return staged


def _lost(connection: Connection, folders: dict[str, Folder], run: ledger.Run) -> frozenset[str]:
    """The roster's folder, if the day does not have it although an earlier day did."""
    since = ledger.roster_since(connection)
    name = ROSTER.folder
    is_lost = name in folders and not folders[name].found and since is not None and since < run.sync_date
    return frozenset({name} if is_lost else ())


def _describe_sync(
    pipeline: Pipeline, folders: dict[str, Folder], run: ledger.Run, purpose: Purpose, lost: frozenset[str]
) -> StagedSync:
    """What staging will hold of a pipeline, and the fingerprint of all that it is made of."""
    mine = [folders[s.folder] for s in pipeline.sources]
    sql = [s.select for s in pipeline.staging] + [check_records(s.contract) for s in pipeline.sources]
    sql += [version(s.contract.lookup.package) for s in pipeline.sources if s.contract.lookup]
    if pipeline.known or any(s.contract.is_dated for s in pipeline.sources):
        sql.append(str(run.sync_date))
    made_by = "\n".join([version("deskroll"), run.engine, run.sync_day, run.source, *sorted(lost), *sql])
    files = fingerprint(mine, made_by)
    return StagedSync(pipeline.name, run.sync_day, run.sync_date, run.source, run.engine, files, purpose)


def _reuse(connection: Connection, pipelines: list[Pipeline], syncs: dict[str, StagedSync]) -> Staged:
    """Take over what staging already holds of the very same files, if nobody has touched it since."""
    reused = Staged([], {}, [])
    known, sources = staging.staged(connection)
    held = {s.pipeline: s for s in known}
    for pipeline in pipelines:
        described = syncs[pipeline.name]
        same = held.get(pipeline.name, described)
        if described.purpose == "plan" and described.sync_date == same.sync_date:
            described = replace(described, purpose=same.purpose)  # a plan that fills nothing leaves it as it is
        loaded = staging.tables(connection, pipeline.name)
        if (
            described.fingerprint is not None
            and pipeline.name in held
            and same.fingerprint == described.fingerprint
            and staging.is_untouched(connection, pipeline.name, loaded)
        ):
            staging.finish(connection, described, [], [])
            reused.sources.extend(s for s in sources if s.pipeline == pipeline.name)
            reused.rows.update({t.table: t.rows for t in loaded})
            reused.reused.append(pipeline.name)
    return reused


def _load(engine: Engine, table: str, select: str) -> Load:
    return Load(table, engine.columns(select), partial(engine.write, select), engine.is_distributed)


def _describe_run(engine: Engine, run: ledger.Run, read: list[StagedSource]) -> None:
    """Tell the pipelines' SELECTs what they may need to know of the run."""
    day = f"{sql_text(run.sync_day)} AS sync_day, '{run.source}' AS source, DATE '{run.sync_date}' AS sync_date"
    engine.create("sync", f"SELECT {day}")
    rows = ", ".join(f"('{s.source}', {s.found}, {s.complete})" for s in read if s.is_folder)
    engine.create("folders", f"SELECT * FROM (VALUES {rows}) AS folders (name, found, complete)")


def _errors(pipeline: Pipeline) -> str:
    """Select the quarantine rows of a pipeline: of its records, and of the elements in them."""
    return " UNION ALL ".join(
        f"""SELECT '{pipeline.name}' AS pipeline, CAST({source.contract.key} AS VARCHAR) AS entity_id,
        error_type, error_message, raw_record, source_file, record_index
        FROM {checked} WHERE error_type IS NOT NULL"""
        for source in pipeline.sources
        for name, checked in _checked(source)
        if name in pipeline.feeds
    )


def _checked(source: Source) -> list[tuple[str, str]]:
    """The relations of a source that have rows to reject, and the names of what they are read from."""
    lists = [(source.list_name(item.name), source.list_checked(item.name)) for item in source.contract.lists]
    return [(source.folder, source.checked), *lists]


def _publish(
    target: Target,
    pipelines: list[Pipeline],
    run: ledger.Run,
    staged: Staged,
    limits: Limits,
    tell: Tell,
    *,
    plan: bool,
) -> Outcome:
    tell("publishing")
    connection = target.connection
    publications = [p.publication for p in PIPELINES]
    newer = ledger.published_after(connection, [p.name for p in pipelines], run.sync_date)
    published = publish(connection, publications, run, staged.sources, staged.rows, limits, plan=plan)
    found = [*notes.of_backfill(run, newer), *staged.notes]
    found += [*notes.of_input(pipelines, staged.sources, staged.reused), *notes.of_published(published)]
    told = tuple(dict.fromkeys(found))  # pipelines may share a folder
    outcome = Outcome(run, target.place, plan, staged.once(), published, told)
    if published.refusals and not plan:
        raise Refused(outcome)
    return outcome
