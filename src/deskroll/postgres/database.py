"""A connection to the PostgreSQL in use: found, opened, and seen to be one that a run can rely on."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from deskroll.errors import DatabaseError
from deskroll.postgres import session
from deskroll.postgres.explain import explained, reason
from deskroll.postgres.server import embedded
from deskroll.settings import Settings

OLDEST: Final = 14

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Session:
    """The database of a run: a connection that holds it, its URL for more of them, and how a person is told of it."""

    connection: Connection
    url: str = field(repr=False)
    place: str
    _idle: list[Connection] = field(default_factory=list, repr=False)

    @contextmanager
    def another(self) -> Iterator[Connection]:
        """One more connection, opened if none is idle; it is kept for the next who asks, unless something went wrong.

        Raises:
            DatabaseError: the server has no connection left, or cannot be reached.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = connect_again(self.url)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)

    def close_others(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()


def url_of(settings: Settings) -> str:
    """The URL of the database in use; starts the embedded server if no other is named."""
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


def dump(settings: Settings) -> Iterator[bytes]:
    """The lines of a dump of the database, without what servers before 17 do not know.

    Raises:
        DatabaseError: pg_dump is not there, or fails.
    """
    target, password = without_password(url_of(settings))
    beside = Path(embedded.psql(settings.home) or "psql").with_name("pg_dump")  # newer than most, and dumps older ones
    command = [str(beside) if beside.exists() else "pg_dump", "--no-owner", "--no-privileges"]
    command += ["--exclude-table-data=stg_*", target]
    environment = {**os.environ, **({"PGPASSWORD": password} if password else {})}
    try:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            yield from (line for line in process.stdout if line != b"SET transaction_timeout = 0;\n")
            said = process.stderr.read().decode(errors="backslashreplace").strip()
    except OSError as error:
        raise DatabaseError(f"pg_dump cannot be run: {error.strerror}.", "Install PostgreSQL's client.") from error
    if process.returncode:
        raise DatabaseError(
            f"pg_dump failed: {said.splitlines()[0] if said else process.returncode}",
            "What was printed is not whole. The user must be able to read every table.",
        )


def connect(url: str) -> Connection:
    """Open the connection of a command, each statement a transaction of its own.

    Raises:
        DatabaseError: the URL, the server, the password, the server's version, the database's encoding or a pooler
            is not what is needed.
    """
    return _opened(url, _check_server, lambda one: session.check_pooling(one, lambda: _open(url)), session.settle)


def connect_again(url: str) -> Connection:
    """Open one more connection for a run whose first one was checked.

    Raises:
        DatabaseError: the server cannot be used from here, or has no connection left.
    """
    return _opened(url, session.settle)


def _opened(url: str, *steps: Callable[[Connection], None]) -> Connection:
    connection = _open(url)
    try:
        for step in steps:
            step(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _open(url: str) -> Connection:
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
        return psycopg.connect(
            url, autocommit=True, connect_timeout=timeout, client_encoding="UTF8", application_name="deskroll"
        )
    except psycopg.OperationalError as error:
        where = given.get("host") or "this machine"
        raise DatabaseError(
            f"PostgreSQL on {where} cannot be used: {reason(error)}",
            "A run needs 5 connections. Raise the limit, or end other connections."
            if re.search("too many|connection slots", str(error))
            else "Check --database-url (or DESKROLL_DATABASE_URL), and that the server runs and lets this user in.",
        ) from error


def _check_server(connection: Connection) -> None:
    version = connection.info.server_version // 10000
    if version < OLDEST:
        raise DatabaseError(
            f"The server is PostgreSQL {version}; deskroll needs {OLDEST} or newer.", "Use a newer server."
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"The database {connection.info.dbname} has the encoding {encoding}, which cannot hold every name.",
            f"Use a UTF8 database: CREATE DATABASE {connection.info.dbname}_utf8 ENCODING 'UTF8' TEMPLATE template0.",
        )


@contextmanager
def usable(session: Session) -> Iterator[Connection]:
    """A connection that takes a query: the session's, or a new one if it was lost or a query on it was interrupted.

    Raises:
        DatabaseError: none can be had.
    """
    if _takes_queries(session.connection):
        yield session.connection
        return
    session.connection.close()
    with connect_again(session.url) as another:
        yield another


def _takes_queries(connection: Connection) -> bool:
    """Whether it does; what has ended a connection may not be known before it is asked."""
    if connection.info.transaction_status == TransactionStatus.IDLE:
        with suppress(psycopg.Error):
            connection.execute("SELECT")
            return True
    return False


def schema_of(connection: Connection) -> str:
    """The schema of our tables, or in which they would be made.

    Raises:
        DatabaseError: there is none.
    """
    with explained():
        ((schema,),) = connection.execute("SELECT current_schema()").fetchall()
    if schema is None:
        raise DatabaseError(
            "No schema can take the tables: none of the search_path exists, or this user may use none.",
            "Let the user use the schema public, or name another: ?options=-c%20search_path%3Ddeskroll.",
        )
    return str(schema)


def place_of(connection: Connection) -> str:
    """The database of a connection as a person is told of it: host, port and name."""
    info = connection.info
    return f"database {info.dbname} on {info.host or 'this machine'}, port {info.port}"
