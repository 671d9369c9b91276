"""The quarantine: show it, and delete old rows, which hold records as they came, with the names of people in them."""

import re
from datetime import timedelta

from psycopg import sql

from deskroll.errors import UsageError
from deskroll.pipelines import find_pipelines
from deskroll.postgres import checks, database
from deskroll.postgres.explain import explained
from deskroll.postgres.locks import locked
from deskroll.queries import Row, fetch, reading
from deskroll.settings import Settings


def errors(settings: Settings, day: str | None, pipeline: str | None, limit: int | None) -> list[Row]:
    """The quarantine, newest day first, in the order of the files."""
    chosen = find_pipelines([pipeline] if pipeline else [])
    with reading(settings) as connection:
        if day and not fetch(connection, "SELECT FROM sync_runs WHERE sync_day = %s LIMIT 1", [day]):
            found = fetch(connection, "SELECT sync_day FROM sync_runs GROUP BY 1 ORDER BY max(run_id) DESC LIMIT 5")
            raise UsageError(
                f"There was no run of the day {day!r}.",
                f"The last days: {', '.join(row['sync_day'] for row in found) or 'none'}.",
            )
        return [
            {"pipeline": p.name, **row}
            for p in chosen
            for row in fetch(
                connection,
                sql.SQL(
                    """SELECT * FROM {} WHERE %s::TEXT IS NULL OR sync_day = %s
                    ORDER BY run_id DESC NULLS LAST, id LIMIT %s"""
                ).format(sql.Identifier(p.publication.quarantine_table)),
                [day, day, limit],
            )
        ]


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
    chosen = find_pipelines([pipeline] if pipeline else [])
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
