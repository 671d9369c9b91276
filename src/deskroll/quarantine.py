"""Forget old quarantine rows: they hold records as they came, with the names of people in them."""

import re
from datetime import timedelta

from psycopg import sql

from deskroll.errors import UsageError
from deskroll.pipelines import PIPELINES
from deskroll.postgres import checks, database
from deskroll.postgres.explain import explained
from deskroll.postgres.locks import locked
from deskroll.settings import Settings


def age(text: str) -> timedelta:
    """How long `90d` is; days are the only unit.

    Raises:
        UsageError: the text is not a number of days.
    """
    found = re.fullmatch(r"([0-9]{1,5})d", text)
    if not found:
        raise UsageError(f"--older-than {text!r} is not an age.", "Give a number of days, such as 90d.")
    return timedelta(days=int(found[1]))


def purge(settings: Settings, older_than: timedelta, pipeline: str | None, *, wait: bool = True) -> dict[str, int]:
    """Delete the quarantine rows written longer ago than that; returns how many, by pipeline.

    Raises:
        UsageError: the pipeline does not exist.
        BusyError: a run is at work, and `wait` is false.
    """
    chosen = [p for p in PIPELINES if pipeline in {None, p.name}]
    if not chosen:
        raise UsageError(
            f"The pipeline {pipeline!r} does not exist.", f"Pipelines: {', '.join(p.name for p in PIPELINES)}."
        )
    with (
        database.connect(database.url_of(settings)) as connection,
        locked(connection, wait=wait),
    ):
        checks.check_server(connection)
        delete = sql.SQL("DELETE FROM {} WHERE created_at < now() - %s")
        with explained(), connection.transaction():
            return {
                p.name: connection.execute(
                    delete.format(sql.Identifier(p.publication.quarantine_table)), [older_than]
                ).rowcount
                for p in chosen
            }
