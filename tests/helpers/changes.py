"""What run_changes has, and what it should have: the difference of the tables before and after a run."""

from typing import Any

from psycopg import sql

from deskroll.pipelines import PIPELINES
from tests.helpers.databases import Database

Values = dict[tuple[str, str], dict[str, dict[str, Any]]]


def tracked_values(db: Database) -> Values:
    """The values of every tracked row, by pipeline and table, and by its key as run_changes writes it."""
    found: Values = {}
    for pipeline in PIPELINES:
        for one in pipeline.publication.tracked:
            query = sql.SQL("SELECT concat_ws(' ', {}) AS key, to_jsonb(own) AS own FROM (SELECT {} FROM {}) AS own")
            columns = dict.fromkeys((*one.key, *one.columns))
            composed = query.format(
                sql.SQL(", ").join(map(sql.Identifier, one.key)),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.Identifier(one.table),
            )
            rows = db.connection.execute(composed).fetchall()
            found[pipeline.name, one.table] = {
                row["key"]: {name: row["own"][name] for name in one.columns} for row in rows
            }
    return found


def recorded(db: Database, run_id: int | None = None) -> dict[tuple[str, str, str], tuple[Any, Any, int]]:
    """What run_changes has of a run, by default the newest: before, after and rows by pipeline, change and key."""
    rows = db.rows(
        """SELECT pipeline, change, key, before, after, rows FROM run_changes
        WHERE run_id = coalesce(%s, (SELECT max(run_id) FROM sync_runs))""",
        run_id,
    )
    return {(r["pipeline"], r["change"], r["key"]): (r["before"], r["after"], r["rows"]) for r in rows}


def check_recorded(db: Database, before: Values) -> None:
    """See that run_changes has what the newest run changed, thing by thing, and nothing else."""
    after, found = tracked_values(db), recorded(db)
    for pipeline in PIPELINES:
        own_table = next(iter(pipeline.publication.tables))
        first = before[pipeline.name, own_table] == {}
        rows = len(after[pipeline.name, own_table])
        assert found.get((pipeline.name, "first load", ""), (None, None, 0))[2] == (rows if first else 0)
        for one in pipeline.publication.tracked:
            was, now = before[pipeline.name, one.table], after[pipeline.name, one.table]
            told = {
                key: (old, new)
                for (name, change, key), (old, new, _) in found.items()
                if name == pipeline.name and change in one.changes and key
            }
            if first:
                assert told == {}
                continue
            right = {key: diff for key in was.keys() | now.keys() if (diff := _difference(was.get(key), now.get(key)))}
            if one.table == "agent_details":  # a row that comes is told as its agent
                right = {key: diff for key, diff in right.items() if key in was}
            if one.table == "transactions":  # which get another key, and are counted as they come
                # The row of another key may have taken this one over: that is told as identified.
                taken = {key for (name, change, key) in found if (name, change) == (pipeline.name, "identified")}
                right = {key: diff for key, diff in right.items() if key in was.keys() & now.keys() - taken}
                told = {key: diff for key, diff in told.items() if key in was.keys() - taken}
            assert told.keys() ^ right.keys() == set(), one.table
            for key, differs in right.items():
                assert told[key] == differs, (one.table, key)


def _difference(was: dict[str, Any] | None, now: dict[str, Any] | None) -> tuple[Any, Any] | None:
    if was == now:
        return None
    old = {k: v for k, v in (was or {}).items() if (v != now.get(k) if now else v is not None)}
    new = {k: v for k, v in (now or {}).items() if (v != was.get(k) if was else v is not None)}
    return (old if was else None), (new if now else None)
