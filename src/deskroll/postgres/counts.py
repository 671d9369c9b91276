"""What a publish did, counted while its transaction is open."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from psycopg import sql
from psycopg.rows import class_row

from deskroll.postgres.database import Connection
from deskroll.postgres.guards import GuardCheck
from deskroll.postgres.staging import Staged
from deskroll.spec.pipeline import Discrepancy, Publication
from deskroll.verdicts import Refusal

_EXAMPLES: Final = 10
QUARANTINE_SHOWN: Final = 20


@dataclass(frozen=True)
class TableCounts:
    """What a run did to one final table; see the table sync_run_tables."""

    pipeline: str
    table: str
    records_read: int
    duplicates: int
    rejected: int
    staged: int
    inserted: int
    updated: int
    unchanged: int
    deactivated: int
    removed: int
    seconds: float


@dataclass(frozen=True)
class Change:
    """One kind of change: how many rows it befell, and the first of them."""

    pipeline: str
    change: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What publishing one pipeline did: how long its file took, its changes, and what its guards say."""

    seconds: float
    changes: list[Change]
    refusals: list[Refusal]
    noticed: list[str]
    guards: list[GuardCheck]


@dataclass(frozen=True)
class DiscrepancyCount:
    """How many rows disagree in a run, and the ids of some; see the table sync_run_drift."""

    pipeline: str
    kind: str
    discrepancy: str
    rows: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Quarantined:
    """One row in quarantine, as a message needs it."""

    pipeline: str
    error_type: str
    source_file: str | None
    record_index: int | None
    error_message: str


@dataclass(frozen=True)
class Written:
    """Rows of a table inserted, updated and deleted, as PostgreSQL itself counts them."""

    table: str
    inserted: int
    updated: int
    deleted: int

    def __sub__(self, earlier: "Written") -> "Written":
        return Written(
            self.table,
            self.inserted - earlier.inserted,
            self.updated - earlier.updated,
            self.deleted - earlier.deleted,
        )


def count_written(connection: Connection, publications: Iterable[Publication]) -> dict[str, Written]:
    """Count the rows written to the final tables so far, by table.

    So far in this transaction, and in those before it on this connection that it has not yet reported to others.
    """
    cursor = connection.cursor(row_factory=class_row(Written))
    rows = cursor.execute(
        """SELECT relname AS table, n_tup_ins AS inserted, n_tup_upd AS updated, n_tup_del AS deleted
        FROM pg_stat_xact_user_tables WHERE relid = ANY (%s::REGCLASS[])""",
        [[table for publication in publications for table in publication.tables]],
    ).fetchall()
    return {row.table: row for row in rows}


def count_tables(
    connection: Connection,
    publication: Publication,
    part: Part,
    written: Mapping[str, Written],
    staged: Staged,
) -> list[TableCounts]:
    """Count what became of a pipeline's final tables, when all is published."""
    own = Counter({c.change: c.count for c in part.changes})
    counted = []
    for table, inputs in publication.tables.items():
        did = written[table]
        inserted, updated, removed = did.inserted, did.updated, did.deleted
        unchanged = deactivated = 0
        rows = staged.rows.get(publication.staging_tables.get(table, f"stg_{table}"))
        if rows is not None:  # a history has no staging, and all its rows but today's are what they were
            stored, touched = _count_touched(connection, table)
            unchanged = stored - touched
            updated = touched - inserted  # a row that is changed, and then linked, is updated twice
        if table == next(iter(publication.tables)):
            deactivated = sum(own[change] for change in publication.deactivating)
            removed = max(removed, own["removed"])  # a row that the date alone had is marked, and deleted
        read = [i for i in staged.inputs if i.pipeline == publication.pipeline and i.input in inputs]
        counted.append(
            TableCounts(
                publication.pipeline,
                table,
                records_read=sum(i.records_read for i in read),
                duplicates=sum(i.duplicates for i in read),
                rejected=sum(i.rejected for i in read),
                staged=rows or 0,
                inserted=inserted,
                updated=updated,
                unchanged=unchanged,
                deactivated=deactivated,
                removed=removed,
                seconds=part.seconds,
            )
        )
    return counted


def _count_touched(connection: Connection, table: str) -> tuple[int, int]:
    """Count all rows of a table, and those that this transaction wrote."""
    by_me = sql.SQL("SELECT count(*), count(*) FILTER (WHERE xmin = (SELECT pg_current_xact_id()::xid)) FROM {}")
    ((stored, touched),) = connection.execute(by_me.format(sql.Identifier(table))).fetchall()
    return stored, touched


def count_changes(connection: Connection, publication: Publication) -> list[Change]:
    """Count what a pipeline's file left in its table of changes."""
    table = sql.Identifier(publication.changes_table)
    key = sql.SQL(", ").join(map(sql.Identifier, publication.key))
    counted = connection.execute(
        sql.SQL("SELECT change, count(*) FROM {} WHERE change <> ALL (%s) GROUP BY change ORDER BY change").format(
            table
        ),
        [list(publication.untold)],
    ).fetchall()
    first = sql.SQL("SELECT {} FROM {} WHERE change = %s ORDER BY {} LIMIT %s").format(key, table, key)
    return [
        Change(
            publication.pipeline,
            change,
            count,
            tuple(
                str(connection.execute(publication.label_sql, bearer).fetchone()[0])  # type: ignore[index]  # a key of the table
                for bearer in connection.execute(first, [change, _EXAMPLES]).fetchall()
            ),
        )
        for change, count in counted
    ]


def count_discrepancies(
    connection: Connection, publication: Publication, discrepancies: Iterable[Discrepancy]
) -> list[DiscrepancyCount]:
    """Count the rows that disagree, of each kind that has any."""
    return [
        DiscrepancyCount(publication.pipeline, one.kind, what, rows, tuple(examples))
        for one in discrepancies
        for what, rows, examples in connection.execute(one.select).fetchall()
        if rows
    ]


def count_quarantine(connection: Connection, publication: Publication, sync_day: str) -> tuple[int, list[Quarantined]]:
    """Count a day's quarantine, and fetch the first rows of it: there may be more than memory holds."""
    table = sql.Identifier(publication.quarantine_table)
    counted = connection.execute(sql.SQL("SELECT count(*) FROM {} WHERE sync_day = %s").format(table), [sync_day])
    ((total,),) = counted.fetchall()
    cursor = connection.cursor(row_factory=class_row(Quarantined))
    first = cursor.execute(
        sql.SQL(
            """SELECT %s AS pipeline, error_type, source_file, record_index, left(error_message, 1000) AS error_message
            FROM {} WHERE sync_day = %s ORDER BY source_file, record_index, error_message LIMIT %s"""
        ).format(table),
        [publication.pipeline, sync_day, QUARANTINE_SHOWN],
    ).fetchall()
    return total, first
