"""A copy of a database that can only be read, in the embedded server: what a run would do there can be tried out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from psycopg import sql
from psycopg.conninfo import make_conninfo

from deskroll.errors import DatabaseError
from deskroll.postgres.database import Connection, connect
from deskroll.postgres.explain import explained
from deskroll.postgres.migrations import applied_to, migrate, names
from deskroll.postgres.server import embedded


@contextmanager
def rehearse(source: Connection, home: Path) -> Iterator[str]:
    """The URL of a migrated database with the rows of `source`'s final tables, for as long as the context lasts.

    Raises:
        DatabaseError: the embedded server does not start, or other migrations were run in `source`.
    """
    server, name = embedded.start(home), f"deskroll_plan_{uuid4().hex[:12]}"
    with connect(server) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            url = make_conninfo(server, dbname=name)
            with connect(url) as copy:
                migrate(copy)
                _fill(source, copy)
            yield url
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _fill(source: Connection, copy: Connection) -> None:
    """Copy what a run looks at: neither staging, nor quarantine, nor the ledger of runs."""
    there, here = applied_to(source), applied_to(copy)
    if there is None or here is None:  # nothing was ever synced
        return
    if there.keys() != here.keys():
        raise DatabaseError(
            "The database has not had the migrations of this version of deskroll.",
            "Run `deskroll db migrate` on the primary server first, then plan here.",
        )
    tables = [
        name
        for name in names("TABLE")
        if not name.startswith(("stg_", "sync_run", "run_"))
        and not name.endswith("_errors")
        and name != "deskroll_migrations"
    ]
    with explained(), source.transaction(), copy.transaction():
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        copy.execute(
            "SET LOCAL session_replication_role = replica"
        )  # foreign keys were checked in the database that the rows are from
        for table in tables:
            copy.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))  # a migration may have filled it
            _copy(source, copy, table)


def _copy(source: Connection, copy: Connection, table: str) -> None:
    found = copy.execute(
        """SELECT attname, attidentity <> '' FROM pg_attribute
        WHERE attrelid = %s::REGCLASS AND attnum > 0 AND NOT attisdropped""",
        [table],
    ).fetchall()
    columns = sql.SQL(", ").join(sql.Identifier(name) for name, _ in found)
    put = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(sql.Identifier(table), columns)
    get = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(columns, sql.Identifier(table))
    with source.cursor().copy(get) as rows, copy.cursor().copy(put) as sink:
        for chunk in rows:
            sink.write(chunk)
    for name in (name for name, is_numbered in found if is_numbered):
        copy.execute(
            sql.SQL("SELECT setval(pg_get_serial_sequence(%s, %s), (SELECT coalesce(max({}), 0) + 1 FROM {}))").format(
                sql.Identifier(name), sql.Identifier(table)
            ),
            [table, name],
        )
