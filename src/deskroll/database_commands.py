"""The commands `deskroll db …`: the database in use."""

import os
import sys
from typing import Annotated

import typer

from deskroll import report
from deskroll.options import App, DatabaseUrl, Group, settings_of
from deskroll.postgres import checks, database, grants, migrations
from deskroll.postgres.locks import locked
from deskroll.postgres.server import embedded

db = App(cls=Group, no_args_is_help=True, help="The database in use: the embedded one, unless a URL is given.")


@db.command()
def url(database_url: DatabaseUrl = None) -> None:
    """Print the database's URL, for psql and others; starts the embedded server if it does not run."""
    report.print_text(database.url_of(settings_of(database_url)))


@db.command()
def shell(database_url: DatabaseUrl = None) -> None:
    """Open psql on the database."""
    settings = settings_of(database_url)
    target, password = database.without_password(database.url_of(settings))
    psql = database.psql(settings)
    sys.stdout.flush()
    os.execve(psql, [psql, target], {**os.environ, **({"PGPASSWORD": password} if password else {})})


@db.command()
def dump(database_url: DatabaseUrl = None) -> None:
    """Print the database as SQL that psql runs on any PostgreSQL from 14 on: all tables, staging empty."""
    settings = settings_of(database_url)
    for line in database.dump(settings):
        sys.stdout.buffer.write(line)


@db.command()
def migrate(database_url: DatabaseUrl = None) -> None:
    """Bring the database's tables up to date; every sync does this first."""
    target = database.url_of(settings_of(database_url))
    with database.connect(target) as connection:
        checks.check_server(connection)
        with locked(connection, wait=True):
            applied = migrations.migrate(connection)
    report.print_text("\n".join(f"applied {name}" for name in applied) or "up to date")


@db.command("grants")
def grants_(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="The role that is to get the rights.")],
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only to read, and neither quarantine nor staging.")
    ] = False,
    database_url: DatabaseUrl = None,
) -> None:
    """Print the SQL that gives a role the rights that a sync needs, to run as the owner after each update."""
    with database.connect(database.url_of(settings_of(database_url))) as connection:
        make = grants.to_read if read_only else grants.to_sync
        report.print_text(make(connection.info.dbname, database.schema_of(connection), role))


@db.command()
def stop() -> None:
    """Stop the embedded server; the next command starts it again."""
    report.print_text("stopped" if embedded.stop(settings_of(None).home) else "it does not run")
