"""The options of the commands, and what typer needs to show them plainly."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from typer.core import TyperCommand, TyperGroup
from typer.models import CommandFunctionType

from deskroll.errors import UsageError
from deskroll.settings import Settings, read_settings


class _PlainFlags:
    """A command whose help shows options that take no value as such, and not as `<bool>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the class beside this one
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class _Command(_PlainFlags, TyperCommand):
    pass


class Group(_PlainFlags, TyperGroup):
    """A group of commands whose help shows flags plainly."""


class App(typer.Typer):
    """An app with such commands."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Add a command whose help shows flags plainly."""
        return super().command(name, cls=_Command, **options)


class EngineName(StrEnum):
    """The engines that there are."""

    duckdb = "duckdb"
    spark = "spark"


class LogLevelName(StrEnum):
    """How much is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class LogFormatName(StrEnum):
    """How it is logged."""

    text = "text"
    json = "json"


Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="The dump: a folder of sync-<day>/ folders; with Spark also a URL of one."),
]
_DAY = typer.Option("--day", metavar="DAY", help="The sync day: reads sync-DAY/, else DAY/.")
Day = Annotated[str, _DAY]
OneDay = Annotated[str | None, _DAY]
AllDays = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Every day of the dump but tran/, in the order of their dates; days that are published from the same files"
        " are skipped.",
    ),
]
DATE: Any = {"metavar": "YYYY-MM-DD", "formats": ["%Y-%m-%d"]}
"""What the option of a date has in common with all others."""
Since = Annotated[
    datetime | None, typer.Option("--from", **DATE, help="As --all, but only the days from this date on.")
]
Until = Annotated[
    datetime | None, typer.Option("--to", **DATE, help="As --all, but only the days up to this date, with it.")
]
Dates = Annotated[
    Path | None,
    typer.Option(
        "--dates",
        metavar="FILE",
        help="Of many days: a file with the dates of days, a line `LABEL,YYYY-MM-DD` each; it may name tran.",
    ),
]
Start = Annotated[
    datetime | None,
    typer.Option(
        "--start",
        **DATE,
        help="Of many days: the date of the first day whose label is not a date; the other ones follow day by day.",
    ),
]
OnDate = Annotated[datetime | None, typer.Option("--on", help="As it was on this date, not as it is now.", **DATE)]
SyncDate = Annotated[
    datetime | None,
    typer.Option(
        "--sync-date",
        **DATE,
        help="The date that the day stands for; by default the day itself if it is a date, else the date under which it"
        " was published before, else today (UTC).",
    ),
]
Only = Annotated[str, typer.Option("--only", metavar="PIPELINES", help="Only these pipelines, with commas between.")]
Engine = Annotated[EngineName, typer.Option("--engine", help="What runs the transformations.")]
SparkConf = Annotated[
    list[str] | None,
    typer.Option("--spark-conf", metavar="KEY=VALUE", help="An option of the Spark session; may be given many times."),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        help="Any PostgreSQL from 14 on (or DESKROLL_DATABASE_URL); else the embedded one.",
    ),
]
Plan = Annotated[
    bool,
    typer.Option(
        "--plan", help="Print what would change, and publish nothing; ends with 3 if a sync would be refused."
    ),
]
AllowMassChange = Annotated[
    bool,
    typer.Option(
        "--allow-mass-change", help="Publish even if a large part of what is stored would change; give a --reason."
    ),
]
Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="Why the run is right, for the ledger: give it with --allow-mass-change."
    ),
]
MaxRejected = Annotated[
    str | None,
    typer.Option(
        "--max-rejected",
        metavar="N or N%",
        help="Refuse if more records, or a larger share of a folder, are rejected; by default 50%, and at least 3.",
    ),
]
Reread = Annotated[bool, typer.Option("--reread", help="Read every file, even if staging is already up to date.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Stop if another run is at work, instead of waiting for it.")]
LogLevelOption = Annotated[
    LogLevelName | None,
    typer.Option("--log-level", help="Log each step on stderr from this level on; info if stderr is not a terminal."),
]
LogFormatOption = Annotated[
    LogFormatName | None, typer.Option("--log-format", help="Log text, or a JSON object a line.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
JsonOrLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; of many days one a line, as each of them ends.")
]


def settings_of(
    database_url: str | None,
    spark_conf: list[str] | None = None,
    log_level: LogLevelName | None = None,
    log_format: LogFormatName | None = None,
) -> Settings:
    """The settings, and the options that come before them."""
    settings = read_settings()
    pairs = [option.partition("=") for option in spark_conf or ()]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise UsageError(f"--spark-conf {key!r} is not KEY=VALUE.", "It looks like spark.executor.memory=4g.")
    given: dict[str, Any] = {"spark_conf": settings.spark_conf | {key: value for key, _, value in pairs}}
    if database_url:
        given["database_url"] = SecretStr(database_url)
    given |= {"log_level": log_level.value} if log_level else {}
    given |= {"log_format": log_format.value} if log_format else {}
    return settings.model_copy(update=given)
