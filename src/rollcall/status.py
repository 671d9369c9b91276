"""What the database says now: who is active, which runs there were, what lies in quarantine. Plain data."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from rollcall.errors import UsageError
from rollcall.pipelines import PIPELINES
from rollcall.postgres import database
from rollcall.postgres.database import Connection
from rollcall.settings import Settings

Row = dict[str, Any]
_RUNS: Final = """SELECT run_id, sync_day, sync_date, engine, status, started_at,
    extract(epoch FROM finished_at - started_at)::FLOAT AS seconds, message
FROM sync_runs ORDER BY run_id DESC LIMIT %s"""


@contextmanager
def _reading(settings: Settings) -> Iterator[Connection]:
    with database.connect(database.url_of(settings)) as connection, database.explained():
        if connection.execute("SELECT to_regclass('sync_watermarks')").fetchone() == (None,):
            info = connection.info
            raise UsageError(
                f"Nothing has been synced yet into {info.dbname} on {info.host}.",
                "Run `rollcall sync DATA --day DAY` first, or point at another database.",
            )
        yield connection


def status(settings: Settings) -> Row:
    """Counts of what matters, how far each pipeline is, the last runs, and the quarantine by day and kind."""
    with _reading(settings) as connection:
        facts = {label: _fetch(connection, select)[0]["count"] for p in PIPELINES for label, select in p.facts}
        return {
            "facts": facts,
            "pipelines": _fetch(connection, "SELECT pipeline, sync_date FROM sync_watermarks ORDER BY pipeline"),
            "runs": _fetch(connection, _RUNS, [5]),
            "quarantine": [
                {"pipeline": p.name, **row}
                for p in PIPELINES
                for row in _fetch(
                    connection,
                    sql.SQL("SELECT sync_day, error_type, count(*) FROM {} GROUP BY 1, 2 ORDER BY 1, 2").format(
                        sql.Identifier(p.publication.errors)
                    ),
                )
            ],
        }


def runs(settings: Settings, limit: int) -> list[Row]:
    """The ledger, newest first, each run with what it did to its tables."""
    with _reading(settings) as connection:
        found = _fetch(connection, _RUNS, [limit])
        tables = _fetch(
            connection,
            "SELECT * FROM sync_run_tables WHERE run_id = ANY (%s)",
            [[run["run_id"] for run in found]],
        )
        return [run | {"tables": [t for t in tables if t["run_id"] == run["run_id"]]} for run in found]


def errors(settings: Settings, day: str | None, pipeline: str | None, limit: int | None) -> list[Row]:
    """The quarantine, newest day first, in the order of the files."""
    chosen = [p for p in PIPELINES if pipeline in {None, p.name}]
    if not chosen:
        raise UsageError(f"There is no pipeline {pipeline!r}.", f"Pipelines: {', '.join(p.name for p in PIPELINES)}.")
    with _reading(settings) as connection:
        return [
            {"pipeline": p.name, **row}
            for p in chosen
            for row in _fetch(
                connection,
                sql.SQL(
                    """SELECT * FROM {} WHERE %s::TEXT IS NULL OR sync_day = %s
                    ORDER BY run_id DESC NULLS LAST, id LIMIT %s"""
                ).format(sql.Identifier(p.publication.errors)),
                [day, day, limit],
            )
        ]


def _fetch(connection: Connection, query: str | sql.Composed, parameters: list[Any] | None = None) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()
