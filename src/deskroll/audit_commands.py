"""The commands of auditors, and of those who answer for data about people: evidence, export, forget."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from deskroll import report
from deskroll.evidence import write_evidence
from deskroll.exports import ON_A_DATE, write_export
from deskroll.forget import forget as forget_
from deskroll.options import DATE, App, DatabaseUrl, Group, Json, NoWait, OnDate, settings_of

audit = App(cls=Group)


@audit.command()
def evidence(
    on: Annotated[datetime, typer.Option("--on", help="The date.", **DATE)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.zip", help="The file to write.")],
    since: Annotated[
        datetime | None,
        typer.Option("--since", help="Departures, changes and runs from this date on; else from the first.", **DATE),
    ] = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Write what was true on a date, who left, what changed, what was read and allowed into a ZIP of CSV files."""
    files = write_evidence(settings_of(database_url), on.date(), since.date() if since else None, out)
    if as_json:
        report.print_json([report.plain(file) for file in files])
    else:
        report.print_evidence(files, out)


@audit.command()
def export(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help=f"A table or view; with --on one of {', '.join(ON_A_DATE)}.")
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", help="The file to write: its name ends in .csv, .json or .parquet.")
    ],
    on: OnDate = None,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="In CSV, put no apostrophe before a cell that a spreadsheet would run.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Write a table, or what was true on a date, into a file: CSV, JSON or Parquet."""
    rows = write_export(settings_of(database_url), table, on.date() if on else None, to, as_is=as_is)
    report.print_text(f"{rows:,} row{'s' * (rows != 1)} of {table} in {to}")


@audit.command()
def forget(
    who: Annotated[str, typer.Argument(metavar="AGENT", help="An id or an e-mail address.")],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why, for the ledger; without the person's name.")
    ],
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be erased, and erase nothing.")] = False,
    no_wait: NoWait = False,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Erase one person from every table, for good; amounts, and ids that others refer to, stay."""
    done = forget_(settings_of(database_url), who, reason, plan=plan, wait=not no_wait)
    report.print_json(done) if as_json else report.print_forgotten(done)
