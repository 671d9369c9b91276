"""The commands: parse, call, print, exit code."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib import metadata
from typing import Annotated, Any, Final

import typer

from deskroll import quarantine, queries, report
from deskroll.audit_commands import audit
from deskroll.database_commands import db
from deskroll.dated_days import Choice
from deskroll.days_report import DaysTable, print_event_as_json
from deskroll.errors import DeskrollError, ExitCode, UsageError
from deskroll.logs import JsonFormatter, TextFormatter, fields_as_extra
from deskroll.many_days import DaysRequest, Event, sync_days
from deskroll.options import (
    AllDays,
    AllowMassChange,
    App,
    Data,
    DatabaseUrl,
    Dates,
    Day,
    Engine,
    EngineName,
    Group,
    Json,
    JsonOrLines,
    LogFormatOption,
    LogLevelOption,
    MaxRejected,
    NoWait,
    OnDate,
    OneDay,
    Only,
    Plan,
    Reason,
    Reread,
    Since,
    SparkConf,
    Start,
    SyncDate,
    Until,
    settings_of,
)
from deskroll.pipelines import find_pipelines
from deskroll.postgres.guards import Limits
from deskroll.postgres.publisher import by_hand
from deskroll.settings import Settings
from deskroll.sync import Outcome, Refused, Request, publish_staged, stage_day, sync_day
from deskroll.terminal import LogLines, Narration, is_terminal, visible

_logger = logging.getLogger("deskroll")
_narration = Narration()


app = App(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Help-desk and card-spend JSON as PostgreSQL tables that know who is active, who left, and what was wrong.",
)
app.add_typer(audit)
app.add_typer(db, name="db")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        report.print_text(metadata.version("deskroll"))
        raise typer.Exit


@app.callback()
def _deskroll(
    debug: Annotated[bool, typer.Option("--debug", help="Print a traceback if something fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Take the roll: see the commands below."""


@app.command()
def sync(
    data: Data,
    day: OneDay = None,
    sync_date: SyncDate = None,
    all_days: AllDays = False,
    since: Since = None,
    until: Until = None,
    dates: Dates = None,
    start: Start = None,
    only: Only = "",
    engine: Engine = EngineName.duckdb,
    spark_conf: SparkConf = None,
    database_url: DatabaseUrl = None,
    plan: Plan = False,
    allow_mass_change: AllowMassChange = False,
    reason: Reason = None,
    max_rejected: MaxRejected = None,
    reread: Reread = False,
    no_wait: NoWait = False,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = None,
    as_json: JsonOrLines = False,
) -> None:
    """Read a day of a dump, or many, and publish each in one transaction."""
    limits = Limits(allow_mass_change, max_rejected, reason)
    settings = settings_of(database_url, spark_conf, log_level, log_format)
    choice = Choice(_date(since), _date(until), dates, _date(start))
    _check_days(day, sync_date, choice, is_all=all_days)
    if day is None:
        many = DaysRequest(data, choice, _names(only), engine.value, plan, reread)
        _sync_many(many, settings, limits, wait=not no_wait, as_json=as_json)
        return
    request = _request(data, day, sync_date, only, engine)
    with _narrated(settings):
        outcome = _or_refused(lambda: sync_day(request, settings, limits, plan=plan, wait=not no_wait, reread=reread))
    _print_result(outcome, as_json)


@app.command()
def stage(
    data: Data,
    day: Day,
    sync_date: SyncDate = None,
    only: Only = "",
    engine: Engine = EngineName.duckdb,
    spark_conf: SparkConf = None,
    database_url: DatabaseUrl = None,
    no_wait: NoWait = False,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = None,
    as_json: Json = False,
) -> None:
    """Fill the staging tables with a day, and publish nothing: the first half of a sync."""
    settings = settings_of(database_url, spark_conf, log_level, log_format)
    with _narrated(settings):
        inputs = stage_day(_request(data, day, sync_date, only, engine), settings, wait=not no_wait)
    if as_json:
        report.print_json({"inputs": [report.plain(i) for i in inputs]})
    else:
        report.print_staged(inputs)


@app.command()
def publish(
    only: Only = "",
    database_url: DatabaseUrl = None,
    plan: Plan = False,
    allow_mass_change: AllowMassChange = False,
    reason: Reason = None,
    max_rejected: MaxRejected = None,
    no_wait: NoWait = False,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = None,
    as_json: Json = False,
) -> None:
    """Publish what `stage` left in the staging tables: the second half of a sync."""
    limits = Limits(allow_mass_change, max_rejected, reason)
    settings = settings_of(database_url, None, log_level, log_format)
    with _narrated(settings):
        outcome = _or_refused(lambda: publish_staged(_names(only), settings, limits, plan=plan, wait=not no_wait))
    _print_result(outcome, as_json)


@app.command("sql")
def sql_(
    pipeline: Annotated[str, typer.Argument(help="The pipeline, such as agents.")],
    transform: Annotated[
        bool, typer.Option("--transform", help="Print the steps from records to staging instead.")
    ] = False,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="With --transform: in whose dialect.")
    ] = EngineName.duckdb,
) -> None:
    """Print a pipeline's publish SQL, to read or to pipe into psql; or its transformation, to paste into DuckDB."""
    (found,) = find_pipelines([pipeline])
    if transform:
        from deskroll.transform.script import write_script

        report.print_text(write_script(found, datetime.now(UTC).date(), engine.value))
    else:
        report.print_text(by_hand(found.publication))


@app.command("status")
def status_(on: OnDate = None, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Show who is active, the last runs, and what lies in quarantine; or how much there was on a date."""
    if on:
        then = queries.status_on(settings_of(database_url), on.date())
        report.print_json(then) if as_json else report.print_status_on(then)
        return
    found = queries.status(settings_of(database_url))
    report.print_json(found) if as_json else report.print_status(found)


@app.command()
def runs(
    run: Annotated[int | None, typer.Argument(metavar="[RUN]", help="The number of one run, to see all of it.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="How many, newest first; with RUN, how many changes of each kind.")
    ] = 20,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show the ledger: every run, and what became of it; or one run: who made it, what it read, what it changed."""
    if run is not None:
        whole = queries.run(settings_of(database_url), run, limit)
        report.print_json(whole) if as_json else report.print_run(whole)
        return
    found = queries.runs(settings_of(database_url), limit)
    report.print_json(found) if as_json else report.print_runs(found)


@app.command()
def errors(
    day: Annotated[str | None, typer.Option("--day", help="Only this sync day.")] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Only this pipeline.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many a pipeline.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete rows instead, with --older-than.")] = False,
    older_than: Annotated[str | None, typer.Option("--older-than", metavar="90d", help="What to purge.")] = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Show the quarantine: each rejected record, its file and place, and the reason. Or delete old rows."""
    if purge or older_than:
        if not purge or not older_than or day or limit:
            raise UsageError(
                "--purge and --older-than go together, and without --day and --limit.",
                "For example: deskroll errors --purge --older-than 90d.",
            )
        gone = quarantine.purge(settings_of(database_url), quarantine.age(older_than), pipeline)
        total = sum(gone.values())
        report.print_json(gone) if as_json else report.print_text(f"{total:,} row{'s' * (total != 1)} purged")
        return
    found = quarantine.errors(settings_of(database_url), day, pipeline, limit)
    report.print_json(found) if as_json else report.print_errors(found)


@app.command()
def groups(
    depth: Annotated[int, typer.Option("--depth", min=1, help="Levels to draw.")] = 10,
    inactive: Annotated[bool, typer.Option("--inactive", help="Only inactive groups, and what leads to them.")] = False,
    on: OnDate = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Draw the groups as a tree: which are active, and how many members they have; now, or on a date."""
    found = queries.groups(settings_of(database_url), _date(on))
    if as_json:
        report.print_json([group for group in found if group["inactive"] or not inactive])
    else:
        report.print_groups(found, depth, inactive=inactive)


@app.command()
def agent(
    who: Annotated[str, typer.Argument(metavar="AGENT", help="An id or an e-mail address.")],
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Tell one agent's whole story: details, availability, roles, groups, and a timeline of all that changed."""
    found = queries.agent(settings_of(database_url), who)
    report.print_json(found) if as_json else report.print_agent(found)


def _sync_many(request: DaysRequest, settings: Settings, limits: Limits, *, wait: bool, as_json: bool) -> None:
    show = print_event_as_json if as_json else DaysTable()

    def tell(event: Event) -> None:
        with _narration.paused(), _output_must_work():
            show(event)

    with _narrated(settings):
        sync_days(request, settings, limits, tell, wait=wait)


def _check_days(day: str | None, sync_date: datetime | None, choice: Choice, *, is_all: bool) -> None:
    """See that one day was asked for, or many, and that the options about dates are those of one, or of many.

    Raises:
        UsageError: they are not.
    """
    is_range = bool(choice.since or choice.until)
    if (day is not None) + is_all + is_range != 1:
        raise UsageError(
            "Give one of --day DAY, --all, or --from and --to.",
            "For example: deskroll sync DATA --day 2026-01-05, or deskroll sync DATA --all.",
        )
    if choice.since and choice.until and choice.since > choice.until:
        raise UsageError(f"--from {choice.since} is later than --to {choice.until}.", "Change one of them.")
    if day is None and sync_date:
        raise UsageError(
            "--sync-date is the date of one day.",
            "For the dates of many days give --start YYYY-MM-DD, or --dates FILE with a label and a date a line.",
        )
    if day is not None and (choice.dates or choice.start):
        raise UsageError("--dates and --start are about many days.", "With --day give --sync-date YYYY-MM-DD.")
    if choice.dates and choice.start:
        raise UsageError("--dates and --start exclude each other.", "Give all dates in the file, or --start alone.")


def _request(data: str, day: str, sync_date: datetime | None, only: str, engine: EngineName) -> Request:
    return Request(data, day, _date(sync_date), _names(only), engine.value)


def _date(typed: datetime | None) -> date | None:
    return typed.date() if typed else None


def _names(only: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in only.split(","))))


@contextmanager
def _narrated(settings: Settings) -> Iterator[None]:
    """Show the step at hand on a terminal; else, or if somebody asked for it, log a line a step."""
    if settings.log_level is None and settings.log_format == "text" and is_terminal():
        _logger.setLevel(logging.INFO)
        with _narration.progress():
            yield
        return
    lines = LogLines(sys.stderr)
    lines.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    _logger.setLevel((settings.log_level or "info").upper())
    _logger.removeHandler(_narration)
    _logger.addHandler(lines)
    yield


def _or_refused(run: Callable[[], Outcome]) -> Outcome | Refused:
    try:
        return run()
    except Refused as refused:
        return refused


def _print_result(result: Outcome | Refused, as_json: bool) -> None:
    outcome = result.outcome if isinstance(result, Refused) else result
    with _output_must_work():
        report.print_json(outcome) if as_json else report.print_outcome(outcome)
    if isinstance(result, Refused):
        raise result
    if outcome.published.refusals:
        raise Refused(outcome)


@contextmanager
def _output_must_work() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise DeskrollError(
            f"What the run did cannot be printed: {error.strerror}.", "It has ended; `deskroll runs` says how."
        ) from error


def _drop_output() -> None:
    """Let what Python still has to write on stdout go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_WRONG_USAGE: Final = typer.BadParameter.__bases__[0]  # typer has no public name for it


def _run(arguments: list[str]) -> int:
    """Run the command line and return its exit code; a failure that an interrupt left behind is the interrupt."""
    try:
        return app(arguments, prog_name="deskroll", standalone_mode=False) or 0
    except Exception as error:
        if isinstance(error, _WRONG_USAGE):
            return _print_wrong_usage(error)
        context: BaseException | None = error
        while context:
            if isinstance(context, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            context = context.__context__
        raise


def _print_wrong_usage(error: Any) -> int:
    """Have typer say what is wrong with a command line, without what a terminal would obey in it."""
    from typer.rich_utils import rich_format_error

    message = visible(error.format_message())
    error.format_message = lambda: message
    rich_format_error(error)
    return int(error.exit_code)


def main() -> int:
    """Run the command line; here alone a failure becomes a message and an exit code, which is returned."""
    debug = "--debug" in sys.argv
    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # what it logs is raised too, and told once
    _logger.addHandler(_narration)
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        return _run(arguments)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except BrokenPipeError:
        _drop_output()
        return 1
    except DeskrollError as error:
        if debug:
            raise
        _print_failure(error)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        _print_failure(
            DeskrollError(
                f"Unexpected {type(error).__name__}: {error}".splitlines()[0],
                "A fault of deskroll: run again with --debug, and report it. `deskroll runs` has what was published.",
            )
        )
        return ExitCode.FAILED


def _print_failure(error: DeskrollError) -> None:
    """Say what happened and what to do about it; in the log, if a program reads that."""
    if any(isinstance(handler.formatter, JsonFormatter) for handler in _logger.handlers):
        _logger.error(error.message, extra=fields_as_extra(hint=error.hint, exit_code=int(error.exit_code)))
    else:
        report.print_failure(error)
