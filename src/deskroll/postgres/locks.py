"""One run at a time: the lock that a run holds, and who holds it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import psycopg

from deskroll.errors import BusyError, DatabaseError
from deskroll.postgres.explain import explained

LOCK: Final = int.from_bytes(b"deskroll")  # any number that nobody else locks
_LOADING: Final = LOCK + 1

_logger = logging.getLogger(__name__)

Connection = psycopg.Connection[tuple[Any, ...]]

_IS_THE_LOCK: Final = """locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::BIGINT << 32 | objid::BIGINT = %s"""


@contextmanager
def locked(connection: Connection, *, wait: bool) -> Iterator[None]:
    """Hold the database for one run; if another run holds it, a warning says who that is.

    Raises:
        BusyError: another run holds it and `wait` is false.
    """
    with explained():
        (got,) = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone() or (False,)
        if not got:
            holder, remedy = _holder(connection)
            if not wait:
                raise BusyError(
                    f"Another run holds this database: {holder}.", f"Wait for it, or leave --no-wait out.{remedy}"
                )
            _logger.warning("Waiting for another run to end: %s.%s", holder, remedy)
            connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        # If the run before lost the connection that held the lock, others of it may still be loading.
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOADING])
        connection.execute("SELECT pg_advisory_unlock(%s)", [_LOADING])
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # a connection of no use is closed next, and the lock goes with it
            connection.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def _holder(connection: Connection) -> tuple[str, str]:
    """Who holds the lock, as far as this user may see, and how to end a run that is dead."""
    found = connection.execute(
        f"""SELECT held.pid, activity.usename, coalesce(host(activity.client_addr), 'a socket'),
            to_char(activity.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')
        FROM pg_locks AS held LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
        WHERE {_IS_THE_LOCK}""",
        [LOCK],
    ).fetchone()
    if found is None:
        return "it ended just now", ""
    pid, user, host, since = found
    who = f"process {pid} of {user} from {host}, connected since {since}" if since else f"process {pid} of {user}"
    return who, f" If that run is dead, end its connection: SELECT pg_terminate_backend({pid})."


def load_for(connection: Connection, holder: int) -> None:
    """Begin to load in a transaction of this connection, for the run of which the process `holder` has the lock.

    Raises:
        DatabaseError: that connection was lost, and with it the lock: another run may be at work.
    """
    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_LOADING])
    held = connection.execute(f"SELECT FROM pg_locks WHERE pid = %s AND {_IS_THE_LOCK}", [holder, LOCK]).fetchone()
    if held is None:
        raise DatabaseError(
            "The connection to PostgreSQL was lost: the one that held the database for this run.",
            "Nothing was published. Run again.",
        )
