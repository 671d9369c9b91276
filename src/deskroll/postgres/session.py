"""What a session must be like for our SQL to mean what it says: set as soon as it is open, and looked at again."""

from collections.abc import Callable
from typing import Final

import psycopg

from deskroll.errors import DatabaseError
from deskroll.postgres.explain import explained, reason

# A role, a database, a URL or an environment variable (PGTZ, PGDATESTYLE) may say otherwise.
_SETTINGS: Final = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "bytea_output": "hex",
    "default_transaction_isolation": "read committed",
    "row_security": "off",  # an error in place of rows that are silently left out
}
_PROBES: Final = 5


def settle(connection: psycopg.Connection) -> None:
    """Set what our SQL depends on; look for names in the schema of our tables alone, then among temporary ones.

    Without this a schema named like the user would come first, and whoever may make schemas could put tables there.

    Raises:
        DatabaseError: the server or a pooler before it does not keep a setting.
    """
    wanted = dict(_SETTINGS)
    with explained():
        ((schema,),) = connection.execute(
            """SELECT coalesce(
                (SELECT relnamespace::REGNAMESPACE::TEXT FROM pg_class WHERE oid = to_regclass('deskroll_migrations')),
                quote_ident(current_schema())
            )"""
        ).fetchall()
        if schema:
            wanted["search_path"] = f"{schema}, pg_temp"
        names = list(wanted)
        connection.execute(
            "SELECT set_config(name, setting, false) FROM unnest(%s::TEXT[], %s::TEXT[]) AS wanted (name, setting)",
            [names, list(wanted.values())],
        )
        ((kept,),) = connection.execute(
            """SELECT array_agg(current_setting(name) ORDER BY nth)
            FROM unnest(%s::TEXT[]) WITH ORDINALITY AS wanted (name, nth)""",
            [names],
        ).fetchall()
    for (name, value), found in zip(wanted.items(), kept, strict=True):
        if found != value:
            raise DatabaseError(
                f"The session does not keep its settings: {name} is {found!r}, and must be {value!r}.",
                "If a pooler stands before the server, connect to the server itself, or let it pool sessions.",
            )


def backend_pid(connection: psycopg.Connection) -> int:
    """The server's process for a connection. A pooler tells libpq another number."""
    with explained():
        ((pid,),) = connection.execute("SELECT pg_backend_pid()").fetchall()
    return int(pid)


def check_pooling(connection: psycopg.Connection, open_another: Callable[[], psycopg.Connection]) -> None:
    """See that a connection has one process of the server to itself: locks and settings belong to a process.

    A pooler that gives processes to transactions hands the one that this connection had last to the next that asks.

    Raises:
        DatabaseError: it has not.
    """
    if backend_pid(connection) == connection.info.backend_pid:
        return
    for _ in range(_PROBES):
        mine = backend_pid(connection)
        with open_another() as another:
            try:
                with another.transaction():
                    is_shared = backend_pid(another) == mine or backend_pid(connection) != mine
            except psycopg.Error as error:
                raise _pooled(f": {reason(error)}") from error
        if is_shared:
            raise _pooled("")


def _pooled(why: str) -> DatabaseError:
    return DatabaseError(
        f"A pooler (such as PgBouncer) gives each transaction another process of the server{why}.",
        "deskroll needs one process for the length of a run: connect to the server itself,"
        " or to a pool with pool_mode = session.",
    )
