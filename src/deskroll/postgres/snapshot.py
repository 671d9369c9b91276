"""Rows of final tables that a transformation needs as they stand, copied out in parts that may be read side by side."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import sql

from deskroll.errors import DatabaseError
from deskroll.postgres.database import Connection, Session, connect_again
from deskroll.postgres.explain import explained
from deskroll.spec.pipeline import Snapshot

_PAGES: Final = 16 * 1024  # of 8 KiB, in one part


@dataclass(frozen=True)
class CopyOut:
    """Copies a part of a table out, wherever it is called, as it stood when the snapshot was taken."""

    url: str = field(repr=False)
    snapshot: str
    relation: Snapshot
    begin: int
    end: int

    def __call__(self) -> Iterator[bytes]:
        """Yield the rows in COPY's text format.

        Raises:
            DatabaseError: the database cannot be used from here, or refuses.
        """
        copy_out = sql.SQL("COPY (SELECT {} FROM {} WHERE {} AND ctid >= {} AND ctid < {}) TO STDOUT").format(
            sql.SQL(", ").join((sql.SQL(select) for _, select in self.relation.columns.values())),
            sql.Identifier(self.relation.table),
            sql.SQL(self.relation.where),
            sql.Literal(f"({self.begin},0)"),
            sql.Literal(f"({self.end},0)"),
        )
        with explained(), connect_again(self.url) as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self.snapshot)))
            except psycopg.errors.UndefinedObject as error:  # it ends with the connection that took it
                raise DatabaseError(
                    "The connection to PostgreSQL was lost: its snapshot is gone.", "Nothing was published. Run again."
                ) from error
            with connection.cursor().copy(copy_out) as copy:
                yield from map(bytes, copy)


Part = Callable[[], Iterator[bytes]]


@contextmanager
def parts(session: Session, relations: Sequence[Snapshot]) -> Iterator[list[tuple[Snapshot, list[Part]]]]:
    """The parts of each relation, all of one moment; they can be read until the context ends."""
    if not relations:
        yield []
        return
    connection = session.connection
    with explained(), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        ((snapshot,),) = connection.execute("SELECT pg_export_snapshot()").fetchall()
        yield [(relation, _parts(session, snapshot, relation)) for relation in relations]


def _parts(session: Session, snapshot: str, relation: Snapshot) -> list[Part]:
    ((pages,),) = session.connection.execute(
        "SELECT pg_relation_size(%s::REGCLASS) / current_setting('block_size')::BIGINT", [relation.table]
    ).fetchall()
    return [CopyOut(session.url, snapshot, relation, at, at + _PAGES) for at in range(0, pages, _PAGES)]


def names(connection: Connection, table: str, key: str, name: str) -> list[tuple[int, str]]:
    """The keys of a final table, each with its row's name."""
    with explained():
        return connection.execute(
            sql.SQL("SELECT {}, {} FROM {}").format(*map(sql.Identifier, (key, name, table)))
        ).fetchall()
