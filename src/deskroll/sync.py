"""One sync day, start to finish: the only module that knows the order.

find the day → lock the database → read, check, derive, stage each pipeline → publish all in one transaction
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from importlib.metadata import version

from deskroll.contract import Contract, Lookup
from deskroll.engines import Engine, open_engine
from deskroll.errors import DeskrollError, InputError, RefusedError, UsageError
from deskroll.flatten import check_elements, check_records, lists_of, look_up, newest, repeated, sql_text, wanted
from deskroll.pipelines import PIPELINES, Pipeline
from deskroll.pipelines.pipeline import Source
from deskroll.postgres import checks, database, ledger, migrations, staging
from deskroll.postgres.database import Connection
from deskroll.postgres.guard import Limits
from deskroll.postgres.known import parts
from deskroll.postgres.locks import locked
from deskroll.postgres.publish import Published, publish
from deskroll.postgres.rehearsal import rehearsal
from deskroll.postgres.session import backend_pid
from deskroll.postgres.staging import Load, StagedSource, StagedSync
from deskroll.settings import Settings
from deskroll.source import Folder, fingerprint

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
        return "tran" if self.day == "tran" else "api"

    @property
    def date(self) -> date:
        """The calendar date: as given, else the day's label where that is a date, else today in UTC."""
        return self.sync_date or _as_date(self.day) or datetime.now(UTC).date()

    @property
    def is_dated(self) -> bool:
        """Whether that is a date that somebody gave."""
        return bool(self.sync_date or _as_date(self.day))


def _as_date(label: str) -> date | None:
    try:
        return date.fromisoformat(label)
    except ValueError:
        return None


@dataclass(frozen=True)
class Staged:
    """What is in staging: what was read, the rows of each table, and the pipelines whose files were not read again."""

    sources: list[StagedSource]
    rows: dict[str, int]
    reused: list[str]

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
        options = {
            "a higher --max-rejected" if "--max-rejected" in said else "--allow-mass-change"
            for said in outcome.published.refusals
        }
        super().__init__(
            "Refused: " + "; ".join(outcome.published.refusals) + ".",
            f"Nothing was published. If it is right, run again with {' and '.join(sorted(options))}.",
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
        run = ledger.begin(target.connection, request.day, request.date, request.source, request.engine)
        with _failures_recorded(target, run, plan=plan):
            staged = _stage(target, engine, pipelines, day, run, tell, reread=reread)
            outcome = _publish(target, pipelines, run, staged, limits, tell, plan=plan)
    return outcome if request.is_dated else replace(outcome, notes=(*outcome.notes, _of_today(run)))


def stage(request: Request, settings: Settings, tell: Tell, *, wait: bool = True) -> tuple[StagedSource, ...]:
    """Fill the staging tables with a day, and publish nothing."""
    pipelines = _chosen(request.only)
    with _engine(request, settings, tell) as (engine, day), _database(settings, tell, wait=wait) as target:
        run = ledger.begin(target.connection, request.day, request.date, request.source, request.engine)
        return _stage(target, engine, pipelines, day, run, tell, reread=True).once()


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
        days = {(s.sync_day, s.sync_date, s.source, s.engine) for s in mine.values()}
        if len(days) != 1 or (only and len(mine) < len(asked)):
            held = ", ".join(f"{s.pipeline} of {s.sync_day}" for s in syncs) or "nothing"
            raise UsageError(
                f"These pipelines are not staged for one day; staged: {held}.", "Run `deskroll stage` first."
            )
        run = ledger.begin(connection, *days.pop())
        with _failures_recorded(target, run, plan=plan):
            rows = {s.table: staging.count(connection, s.table) for p in pipelines for s in p.staging}
            staged = Staged([s for s in sources if s.pipeline in mine], rows, [])
            return _publish(target, pipelines, run, staged, limits, tell, plan=plan)


def _chosen(only: Iterable[str]) -> list[Pipeline]:
    names = [p.name for p in PIPELINES]
    for name in only:
        if name not in names:
            raise UsageError(f"There is no pipeline {name!r}.", f"Pipelines: {', '.join(names)}.")
    return [p for p in PIPELINES if not only or p.name in only]


def _check_date(given: date) -> None:
    """See that a date has come, somewhere on earth: published, one to come would make all before it backfills."""
    if given > datetime.now(UTC).date() + timedelta(days=1):
        raise UsageError(f"{given} is a date to come.", "Correct --day or --sync-date.")


@contextmanager
def _engine(request: Request, settings: Settings, tell: Tell) -> Iterator[tuple[Engine, str]]:
    """The engine, and the folder of the day."""
    _check_date(request.date)
    with open_engine(request.engine, settings) as engine:
        tell(f"looking for {request.day}")
        yield engine, engine.find_day(request.dump, request.day)


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
    syncs = {p.name: _describe_sync(p, folders, run) for p in present}
    staged = Staged([], {}, [])
    if not reread:
        staged = _reuse(connection, present, syncs)
    rest = [p for p in pipelines if p.name not in staged.reused]
    staging.begin(connection, [p.name for p in rest])
    unread = [p for p in present if p in rest]
    feeds = frozenset().union(*(p.feeds for p in unread))
    sources = dict.fromkeys(s for p in unread for s in p.sources)  # read once, though pipelines share some
    found = {s: list(_read(engine, s, folders[s.folder], feeds, run.sync_date, tell)) for s in sources}
    for pipeline in unread:
        read = [
            replace(one, pipeline=pipeline.name)
            for source in pipeline.sources
            for one in found[source]
            if one.is_folder or one.source in pipeline.feeds
        ]
        tell(f"staging {pipeline.name}")
        _describe_run(engine, run, read)
        with ExitStack() as moment:
            for known in pipeline.known:
                some = moment.enter_context(parts(connection, url, known))
                engine.take(known.name, list(known.columns), some)
            holder = backend_pid(connection)
            loaded = staging.load(url, holder, [_load(engine, s.table, s.select) for s in pipeline.staging])
            loaded.append(staging.add(url, holder, _load(engine, "stg_pipeline_errors", _errors(pipeline))))
        staging.finish(connection, syncs[pipeline.name], read, loaded)
        staged.sources.extend(read)
        staged.rows.update({t.table: t.rows for t in loaded})
    return staged


def _describe_sync(pipeline: Pipeline, folders: dict[str, Folder], run: ledger.Run) -> StagedSync:
    """What staging will hold of a pipeline, and the fingerprint of all that it is made of."""
    mine = [folders[s.folder] for s in pipeline.sources]
    sql = [s.select for s in pipeline.staging] + [check_records(s.contract) for s in pipeline.sources]
    sql += [version(s.contract.lookup.package) for s in pipeline.sources if s.contract.lookup]
    sql += [str(run.sync_date) for s in pipeline.sources if s.contract.is_dated]
    made_by = "\n".join([version("deskroll"), run.engine, run.sync_day, run.source, *sql])
    return StagedSync(pipeline.name, run.sync_day, run.sync_date, run.source, run.engine, fingerprint(mine, made_by))


def _reuse(connection: Connection, pipelines: list[Pipeline], syncs: dict[str, StagedSync]) -> Staged:
    """Take over what staging already holds of the very same files, if nobody has touched it since."""
    reused = Staged([], {}, [])
    known, sources = staging.staged(connection)
    fingerprints = {s.pipeline: s.fingerprint for s in known}
    for pipeline in pipelines:
        described = syncs[pipeline.name]
        loaded = staging.tables(connection, pipeline.name)
        if (
            described.fingerprint is not None
            and fingerprints.get(pipeline.name) == described.fingerprint
            and staging.is_untouched(connection, pipeline.name, loaded)
        ):
            staging.finish(connection, described, [], [])
            reused.sources.extend(s for s in sources if s.pipeline == pipeline.name)
            reused.rows.update({t.table: t.rows for t in loaded})
            reused.reused.append(pipeline.name)
    return reused


def _load(engine: Engine, table: str, select: str) -> Load:
    return Load(table, engine.columns(select), partial(engine.write, select), engine.is_distributed)


def _read(
    engine: Engine, source: Source, folder: Folder, feeds: frozenset[str], on: date, tell: Tell
) -> Iterator[StagedSource]:
    """Read, check and deduplicate a folder, and those lists in its records that are in `feeds`."""
    contract = source.contract
    tell(f"reading {folder.name}/ ({len(folder.files):,} files, {sum(f.size for f in folder.files) / 1e6:,.1f} MB)")
    as_read = f"{source.checked}_as_read" if contract.lookup else source.checked
    complete = engine.read(folder, check_records(contract), as_read)
    if contract.lookup:
        _look_up(engine, contract.lookup, as_read, source.checked)
    _deduplicate(engine, contract, source.checked, source.valid, on)
    counts = _counts(engine, source.checked, source.valid, contract.key)
    complete = complete and not _has_nobodys_file(engine, source.checked, contract.key)
    yield StagedSource("", source.folder, True, folder.found, complete, *counts)
    for item in contract.lists:
        if source.list_name(item.name) in feeds:
            checked, valid = source.list_checked(item.name), source.list_valid(item.name)
            engine.each(lists_of(contract, item, source.valid), check_elements(contract, item), checked)
            _deduplicate(engine, item, checked, valid, on, contract.key)
            counts = _counts(engine, checked, valid, f"({contract.key}, {item.key})")
            yield StagedSource("", source.list_name(item.name), False, folder.found, True, *counts)


def _look_up(engine: Engine, lookup: Lookup, relation: str, result: str) -> None:
    """Give the records of a relation what they are to get from outside."""
    found = lookup.find(engine.fetch(wanted(lookup, relation)))
    rows = ", ".join(f"('{text}', DATE '{on}', '{value}')" for (text, on), value in found.items())
    nothing = "SELECT CAST(NULL AS VARCHAR) AS text, CAST(NULL AS DATE) AS on_date, CAST(NULL AS VARCHAR) AS value"
    some = f"SELECT * FROM (VALUES {rows}) AS found (text, on_date, value)" if found else nothing
    engine.create(f"{relation}_found", some, keep=True)
    engine.create(result, look_up(lookup, relation, f"{relation}_found"))


def _deduplicate(engine: Engine, contract: Contract, checked: str, valid: str, on: date, *also: str) -> None:
    engine.create(f"{checked}_repeated", repeated(contract, checked, *also), keep=True)
    # An engine in one process works the valid rows out again in less time than it would take to copy them.
    engine.create(valid, newest(contract, checked, f"{checked}_repeated", on, *also), keep=engine.is_distributed)


def _has_nobodys_file(engine: Engine, checked: str, key: str) -> bool:
    """Whether there is a file of which no record has a key: what an API says instead of records, as a rule."""
    nameless = f"SELECT source_file FROM {checked} WHERE error_type IS NOT NULL AND {key} IS NULL"
    if not engine.fetch(f"{nameless} LIMIT 1"):
        return False
    return bool(engine.fetch(f"{nameless} EXCEPT SELECT source_file FROM {checked} WHERE {key} IS NOT NULL LIMIT 1"))


def _counts(engine: Engine, checked: str, valid: str, key: str) -> tuple[int, int, int]:
    """Records read, duplicates and rejected.

    Raises:
        DeskrollError: they and the valid ones do not add up, which would be a fault of deskroll.
    """
    ((read, rejected, keys),) = engine.fetch(
        f"""SELECT count(*), count(error_type), count(DISTINCT CASE WHEN error_type IS NULL THEN {key} END)
        FROM {checked}"""
    )
    ((kept,),) = engine.fetch(f"SELECT count(*) FROM {valid}")
    duplicates = read - rejected - keys
    if read != kept + duplicates + rejected:
        raise DeskrollError(
            f"{checked}: {read} read is not {kept} valid + {duplicates} duplicates + {rejected} rejected.",
            "This is a fault of deskroll; nothing was published. Please report it.",
        )
    return read, duplicates, rejected


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
    notes = dict.fromkeys([*_of_backfill(run, newer), *_notes(pipelines, staged)])  # pipelines may share a folder
    outcome = Outcome(run, target.place, plan, staged.once(), published, tuple(notes))
    if published.refusals and not plan:
        raise Refused(outcome)
    return outcome


def _of_backfill(run: ledger.Run, newer: dict[date, list[str]]) -> Iterator[str]:
    for until, names in newer.items():
        yield (
            f"a backfill: {', '.join(names)} {'is' if len(names) == 1 else 'are'} published up to {until}; history of"
            f" {run.sync_date} is filled, and what is known to be newer stays"
        )


def _of_today(run: ledger.Run) -> str:
    return f"{run.sync_day!r} is no date (YYYY-MM-DD), and stands for today, {run.sync_date}; or give --sync-date"


def _notes(pipelines: list[Pipeline], staged: Staged) -> Iterator[str]:
    """What a reader of the result must know about the input."""
    sources = staged.sources
    for name in staged.reused:
        yield f"{name}: the files are those that staging holds already, and were not read again (--reread reads them)"
    skipped = [p for p in pipelines if p.name not in {s.pipeline for s in sources}]
    if skipped:
        wanted_by = (f"{p.name} ({', '.join(f'{s.folder}/' for s in p.sources)})" for p in skipped)
        yield f"the day has no folder for, and so skipped: {', '.join(wanted_by)}"
    absent = {s.folder: s.absent for p in pipelines for s in p.sources}
    for source in sources:
        if source.is_folder and not source.found and absent[source.source]:
            yield f"the day has no {source.source}/: {absent[source.source]}"
        if not source.complete:
            yield (
                f"{source.source}/ has a file that could not be read, or of which no record has an id: nobody is taken"
                " for gone by what is missing there; fetch it again and sync again"
            )
