"""What a database must be before a run writes into it."""

from collections.abc import Iterable

from deskroll.errors import DatabaseError
from deskroll.postgres.database import Connection, schema_of
from deskroll.postgres.explain import explained


def check_server(connection: Connection) -> None:
    """See that a run may write, that the server counts rows, and that nobody else can put functions before ours.

    Raises:
        DatabaseError: one of these is not so; the remedy is in the message.
    """
    _check_writable(connection)
    _check_counting(connection)
    _check_schema(connection)


def is_read_only(connection: Connection) -> bool:
    """Whether nothing can be written: the server is a standby, or the session may only read."""
    with explained():
        return connection.execute("SHOW transaction_read_only").fetchone() == ("on",)


def _check_writable(connection: Connection) -> None:
    if not is_read_only(connection):
        return
    with explained():
        ((is_standby,),) = connection.execute("SELECT pg_is_in_recovery()").fetchall()
    raise DatabaseError(
        "The server is a standby: it can only be read."
        if is_standby
        else "The database can only be read (default_transaction_read_only is on).",
        f"{'Use the primary server' if is_standby else 'Let this user write'}. `--plan` works here.",
    )


def _check_counting(connection: Connection) -> None:
    """See that PostgreSQL counts the rows that are written: guards and ledger ask it how many a run has touched."""
    with explained():
        is_off = connection.execute("SHOW track_counts").fetchone() == ("off",)
    if is_off:
        raise DatabaseError(
            "The server counts no rows (track_counts is off), and so no guard can tell how many a run takes away.",
            "Turn it on for the server, or as a superuser for this user: ALTER ROLE … SET track_counts = on.",
        )


def _check_schema(connection: Connection) -> None:
    schema = schema_of(connection)
    with explained():
        ((owner, is_open, is_trusted),) = connection.execute(
            """SELECT
                pg_get_userbyid(nspowner),
                has_schema_privilege('public', namespace.oid, 'CREATE'),
                nspname <> current_user  -- which comes first in search_path, without anybody having chosen it
                OR nspowner IN (
                    SELECT oid FROM pg_roles WHERE rolsuper OR rolname IN (current_user, 'pg_database_owner')
                )
                OR nspowner = (SELECT datdba FROM pg_database WHERE datname = current_database())
            FROM pg_namespace AS namespace
            WHERE nspname = %s""",
            [schema],
        ).fetchall()
    if is_open:
        raise DatabaseError(
            f"Every user of the database may create functions in the schema {schema}, and so act as this user.",
            f"As its owner: REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC; (PostgreSQL 15 and newer begin so.)",
        )
    if not is_trusted:
        raise DatabaseError(
            f"The schema {schema} is named like this user and belongs to {owner}, who could act as the user.",
            "Name the schema of deskroll's tables in the URL: ?options=-c%20search_path%3Dpublic.",
        )


def check_tables(connection: Connection, tables: Iterable[str]) -> None:
    """See that tables of ours are plain tables: of others PostgreSQL counts rows otherwise.

    Raises:
        DatabaseError: one is not.
    """
    with explained():
        found = connection.execute(
            """SELECT relname, CASE relkind WHEN 'p' THEN 'partitioned' WHEN 'f' THEN 'a foreign table'
                WHEN 'r' THEN 'inherited from' ELSE 'not a table' END
            FROM pg_class AS class
            WHERE relnamespace = current_schema()::REGNAMESPACE AND relname = ANY (%s)
                AND (relkind <> 'r' OR EXISTS (SELECT FROM pg_inherits WHERE class.oid IN (inhparent, inhrelid)))
            ORDER BY relname""",
            [list(tables)],
        ).fetchall()
    if found:
        told = ", ".join(f"{name} is {what}" for name, what in found)
        raise DatabaseError(
            f"Tables of deskroll are not what it made: {told}.",
            "deskroll keeps plain tables. Put a plain table in its place, or sync into a new database.",
        )
