"""What a run changes, thing by thing: the table run_changes.

Triggers keep the rows that are about to change (see `sql/routines/070_run_changes.sql`). At the end of the transaction
they are compared with what has become of them. So a run that a guard refuses has its changes too.
"""

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from deskroll.postgres.counts import Change
from deskroll.postgres.database import Connection
from deskroll.spec.pipeline import Publication, Tracked

_COLUMNS: Final = sql.SQL("run_id, pipeline, change, key, label, before, after, rows")
_KEPT: Final = """CREATE TEMP TABLE IF NOT EXISTS deskroll_kept (
    nth BIGINT GENERATED ALWAYS AS IDENTITY,
    target TEXT NOT NULL,
    ids TEXT[] NOT NULL,
    change TEXT NOT NULL,
    before JSONB
) ON COMMIT DELETE ROWS"""
# Of several changes of one thing, the first that is declared names them all; of a pair, whether it is there.
_INSERT: Final = """INSERT INTO {into} (run_id, pipeline, change, key, label, before, after)
SELECT {run_id}, {pipeline}, told.change, array_to_string(told.ids, ' '), left(({label}), 500), told.before, told.after
FROM (
    SELECT first.ids, {change} AS change, first.before IS NULL AS was_absent, now.fields IS NULL AS is_absent,
        nullif(CASE WHEN now.fields IS NULL THEN jsonb_strip_nulls(first.before - same.keys)
            ELSE first.before - same.keys END, '{{}}') AS before,
        nullif(CASE WHEN first.before IS NULL THEN jsonb_strip_nulls(now.fields)
            ELSE now.fields - same.keys END, '{{}}') AS after
    FROM (
        SELECT kept.ids, (array_agg(kept.before ORDER BY kept.nth))[1] AS before,
            (array_agg(kept.change ORDER BY array_position({kinds}, kept.change)))[1] AS change
        FROM pg_temp.deskroll_kept AS kept WHERE kept.target = {target}
        GROUP BY kept.ids
    ) AS first
    LEFT JOIN {table} AS stored ON {joined}
    CROSS JOIN LATERAL (
        SELECT CASE WHEN stored.{first_key} IS NOT NULL THEN jsonb_build_object({fields}) END AS fields
        OFFSET 0  -- so that the object is made once
    ) AS now
    CROSS JOIN LATERAL (
        SELECT ARRAY(
            SELECT field.key FROM jsonb_each(first.before) AS field
            WHERE field.key <> ALL ({columns}) OR now.fields -> field.key = field.value
        ) AS keys
        OFFSET 0
    ) AS same
    OFFSET 0  -- so that what is compared is compared once
) AS told
WHERE told.before IS NOT NULL OR told.after IS NOT NULL OR told.was_absent <> told.is_absent"""


@dataclass(frozen=True)
class Tracking:
    """What a transaction keeps of what it changes; `first_loads` are the pipelines that had nothing before."""

    connection: Connection
    publications: tuple[Publication, ...]
    first_loads: frozenset[str]

    def write(self, run_id: int, changes: Iterable[Change], published: Iterable[Publication]) -> None:
        """Write what has changed into run_changes, when all is published; its run is in the ledger."""
        self._write(sql.Identifier("run_changes"), run_id, changes, published)

    def save(self, run_id: int, changes: Iterable[Change], published: Iterable[Publication]) -> bytes:
        """What `write` would write, for `restore`: the transaction is rolled back."""
        name = sql.Identifier("pg_temp", "deskroll_refused")
        self.connection.execute("CREATE TEMP TABLE deskroll_refused (LIKE run_changes INCLUDING DEFAULTS)")
        self._write(name, run_id, changes, published)
        packer, packed = zlib.compressobj(1), bytearray()
        with self.connection.cursor().copy(
            sql.SQL("COPY {} ({}) TO STDOUT (FORMAT binary)").format(name, _COLUMNS)
        ) as rows:
            for chunk in rows:
                packed += packer.compress(chunk)
        return bytes(packed + packer.flush())

    def _write(
        self, into: sql.Identifier, run_id: int, changes: Iterable[Change], published: Iterable[Publication]
    ) -> None:
        tracked = [(p, t) for p in self.publications if p.pipeline not in self.first_loads for t in p.tracked]
        types = _types(self.connection, (t for _, t in tracked))
        for publication, one in tracked:
            self.connection.execute(_compared(into, run_id, publication, one, types))
        for publication in published:
            if publication.pipeline not in self.first_loads:
                for event in publication.events:
                    _write_event(self.connection, into, run_id, publication, event.change, event.select)
        counted = {(p.pipeline, kind) for p, t in tracked for kind in t.counted}
        sums = [(c.pipeline, c.change, c.count) for c in changes if (c.pipeline, c.change) in counted]
        sums += [
            (p.pipeline, "first load", rows)
            for p in self.publications
            if p.pipeline in self.first_loads and (rows := _count(self.connection, _own_table(p)))
        ]
        put = sql.SQL("INSERT INTO {} (run_id, pipeline, change, key, rows) VALUES (%s, %s, %s, '', %s)").format(into)
        for pipeline, change, rows in sums:
            self.connection.execute(put, [run_id, pipeline, change, rows])


def track(connection: Connection, publications: Iterable[Publication]) -> Tracking:
    """Begin to keep what the transaction at hand changes."""
    publications = tuple(publications)
    first_loads = _find_first_loads(connection, publications)
    connection.execute(_KEPT)
    told = [
        {
            "told_by": one.told_by,
            "target": one.table,
            "key": one.key,
            "columns": one.columns,
            "kinds": [kind for kind in one.changes if kind not in one.counted],
        }
        for publication in publications
        if publication.pipeline not in first_loads
        for one in publication.tracked
    ]
    connection.execute("SELECT set_config('deskroll.tracked', %s, true)", [json.dumps(told)])
    return Tracking(connection, publications, first_loads)


def restore(connection: Connection, saved: bytes) -> None:
    """Write what `Tracking.save` has saved; its run is in the ledger."""
    put = sql.SQL("COPY run_changes ({}) FROM STDIN (FORMAT binary)").format(_COLUMNS)
    unpacker, rest = zlib.decompressobj(), saved
    with connection.cursor().copy(put) as sink:
        while rest:
            sink.write(unpacker.decompress(rest, 1 << 20))
            rest = unpacker.unconsumed_tail
        sink.write(unpacker.flush())


def _own_table(publication: Publication) -> str:
    return next(iter(publication.tables))


def _find_first_loads(connection: Connection, publications: Iterable[Publication]) -> frozenset[str]:
    """The pipelines whose own table is empty."""
    empty = [
        sql.SQL("SELECT {} WHERE NOT EXISTS (SELECT FROM {})").format(p.pipeline, sql.Identifier(_own_table(p)))
        for p in publications
    ]
    return frozenset(name for (name,) in connection.execute(sql.SQL(" UNION ALL ").join(empty)).fetchall())


def _count(connection: Connection, table: str) -> int:
    ((rows,),) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchall()
    return int(rows)


def _types(connection: Connection, tracked: Iterable[Tracked]) -> dict[tuple[str, str], str]:
    """The types of the columns of the tables that are tracked."""
    rows = connection.execute(
        """SELECT relname, attname, format_type(atttypid, NULL) FROM pg_attribute JOIN pg_class ON oid = attrelid
        WHERE oid = ANY (%s::REGCLASS[]) AND attnum > 0 AND NOT attisdropped""",
        [[one.table for one in tracked]],
    ).fetchall()
    return {(table, column): kind for table, column, kind in rows}


def _compared(
    into: sql.Identifier, run_id: int, publication: Publication, one: Tracked, types: dict[tuple[str, str], str]
) -> sql.Composed:
    """Compare the rows of a table that were kept with those of now, and insert what differs."""
    casts = [sql.SQL(f"ids[{nth}]::{types[one.table, column]}") for nth, column in enumerate(one.key, start=1)]
    kinds = sql.SQL("{}::TEXT[]").format(list(one.changes))
    by_presence = sql.SQL("({})[CASE WHEN now.fields IS NULL THEN 2 ELSE 1 END]").format(kinds)
    return sql.SQL(_INSERT).format(
        into=into,
        run_id=run_id,
        pipeline=publication.pipeline,
        label=sql.SQL((one.label_sql or publication.label_sql).replace("%s", "{}")).format(
            *(sql.SQL("told.{}").format(cast) for cast in casts)
        ),
        change=by_presence if one.is_pairs else sql.SQL("first.change"),
        columns=list(one.columns),
        kinds=kinds,
        target=one.table,
        table=sql.Identifier(one.table),
        joined=sql.SQL(" AND ").join(
            sql.SQL("stored.{} = first.{}").format(sql.Identifier(column), cast)
            for column, cast in zip(one.key, casts, strict=True)
        ),
        first_key=sql.Identifier(one.key[0]),
        fields=sql.SQL(", ").join(
            sql.SQL("{}, stored.{}").format(sql.Literal(column), sql.Identifier(column)) for column in one.columns
        ),
    )


def _write_event(
    connection: Connection, into: sql.Identifier, run_id: int, publication: Publication, change: str, select: str
) -> None:
    connection.execute(
        sql.SQL(
            """INSERT INTO {} (run_id, pipeline, change, key, label, before, after)
            SELECT {}, {}, {}, event.key, left(event.label, 500), event.before, event.after
            FROM ({}) AS event (key, label, before, after)"""
        ).format(into, run_id, publication.pipeline, change, sql.SQL(select))
    )
