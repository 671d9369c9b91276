"""What the database says now: who is active, which runs there were, what lies in quarantine. Plain data."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from deskroll.errors import UsageError
from deskroll.pipelines import PIPELINES
from deskroll.postgres import database
from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained
from deskroll.settings import Settings

Row = dict[str, Any]
_RUNS: Final = """SELECT run_id, sync_day, sync_date, engine, status, started_at,
    extract(epoch FROM finished_at - started_at)::FLOAT AS seconds, message
FROM sync_runs ORDER BY run_id DESC LIMIT %s"""

# What the ledger has of one run, each a name and a SELECT.
_RUN: Final = {
    "tables": "SELECT * FROM sync_run_tables WHERE run_id = %s",
    "inputs": "SELECT * FROM sync_run_inputs WHERE run_id = %s ORDER BY input",
    "guards": """SELECT * FROM sync_run_guards WHERE run_id = %s
        ORDER BY share DESC NULLS LAST, pipeline, guarded, is_gain""",
    "discrepancies": """SELECT pipeline, kind, drift AS discrepancy, rows, examples FROM sync_run_drift
        WHERE run_id = %s ORDER BY pipeline, drift""",
}
_CHANGES: Final = """SELECT pipeline, change, sum(rows)::BIGINT AS count FROM run_changes WHERE run_id = %(run_id)s
GROUP BY pipeline, change ORDER BY pipeline, change"""
# Numbers in their order, though keys are text.
_FIRST_CHANGES: Final = """SELECT key, label, before, after FROM run_changes
WHERE run_id = %(run_id)s AND pipeline = %(pipeline)s AND change = %(change)s AND key <> ''
ORDER BY length(key), key LIMIT %(limit)s"""


# Of the run that published the pipeline last.
_DISCREPANCIES: Final = """SELECT drift.pipeline, drift.kind, drift.drift AS discrepancy, drift.rows, drift.examples,
    drift.run_id
FROM (SELECT pipeline, max(run_id) AS run_id FROM sync_run_tables GROUP BY pipeline) AS last
JOIN sync_run_drift AS drift ON drift.run_id = last.run_id AND drift.pipeline = last.pipeline
ORDER BY drift.pipeline, drift.drift"""
# The newest day of each kind is the one that was written last: labels have no order.
_QUARANTINE: Final = """SELECT error_type, sum(rows)::BIGINT AS count, count(*) AS days,
    (array_agg(sync_day ORDER BY newest DESC))[1] AS newest_day,
    (array_agg(rows ORDER BY newest DESC))[1] AS of_newest_day
FROM (SELECT error_type, sync_day, count(*) AS rows, max(id) AS newest FROM {} GROUP BY 1, 2) AS of_day
GROUP BY error_type ORDER BY error_type"""
_GROUPS: Final = """SELECT one.group_id, one.name, one.parent_group_id, one.inactive, count(member.agent_id) AS members,
    count(member.agent_id) FILTER (WHERE NOT agent.deactivated) AS active_members
FROM groups AS one
LEFT JOIN group_membership AS member ON member.group_id = one.group_id
LEFT JOIN agents AS agent ON agent.agent_id = member.agent_id
GROUP BY one.group_id ORDER BY one.name, one.group_id"""
# What is known of one agent, each a name and a SELECT.
_STORY: Final = {
    "details": "SELECT * FROM agent_details WHERE agent_id = %s",
    "availability": """SELECT channel, is_available, available_since FROM agent_availability WHERE agent_id = %s
        ORDER BY channel""",
    "roles": """SELECT mapping.role_id, role.name, mapping.status, mapping.assigned_at, mapping.removed_at
        FROM agent_role_mapping AS mapping JOIN roles AS role ON role.role_id = mapping.role_id
        WHERE mapping.agent_id = %s ORDER BY role.name, mapping.role_id""",
    "role_history": """SELECT history.sync_date, history.sync_day, history.action, history.role_id, role.name
        FROM agent_role_history AS history JOIN roles AS role ON role.role_id = history.role_id
        WHERE history.agent_id = %s ORDER BY history.id""",
    "groups": """SELECT coalesce(theirs.group_id, own.group_id) AS group_id, one.name, one.inactive,
        own.group_id IS NOT NULL AS stated_by_agent, theirs.group_id IS NOT NULL AS stated_by_group
        FROM (SELECT * FROM agent_group_membership WHERE agent_id = %(agent_id)s) AS own
        FULL JOIN (SELECT * FROM group_membership WHERE agent_id = %(agent_id)s) AS theirs
            ON theirs.group_id = own.group_id
        LEFT JOIN groups AS one ON one.group_id = coalesce(theirs.group_id, own.group_id)
        ORDER BY one.name, 1""",
    "status_by_day": """SELECT sync_date, is_active FROM agent_status_history WHERE agent_id = %s
        ORDER BY sync_date""",
    "quarantine": """SELECT sync_day, error_type, source_file, record_index, error_message FROM agent_pipeline_errors
        WHERE agent_id = %s ORDER BY id""",
}


@contextmanager
def reading(settings: Settings) -> Iterator[Connection]:
    """A connection to a database in which something was synced."""
    with database.connect(database.url_of(settings)) as connection, explained():
        if connection.execute("SELECT to_regclass('sync_watermarks')").fetchone() == (None,):
            info = connection.info
            raise UsageError(
                f"Nothing has been synced yet into {info.dbname} on {info.host}.",
                "Run `deskroll sync DATA --day DAY` first, or point at another database.",
            )
        set_json_loads(_load, connection)
        yield connection


def _load(text: str | bytes) -> Any:
    """A JSON value; what Python cannot hold and write again (nested too deeply, a number too large) as its text."""
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False)
    except (RecursionError, ValueError):
        return text if isinstance(text, str) else text.decode()
    return value


def status(settings: Settings) -> Row:
    """Counts of what matters, how far each pipeline is, the last runs, and the quarantine by kind."""
    with reading(settings) as connection:
        shown = [p for p in PIPELINES if _may_read(connection, p.publication.quarantine_table)]
        facts = {label: fetch(connection, select)[0]["count"] for p in PIPELINES for label, select in p.facts}
        return {
            "facts": facts,
            "pipelines": fetch(
                connection, "SELECT pipeline, sync_date, updated_time FROM sync_watermarks ORDER BY pipeline"
            ),
            "discrepancies": fetch(connection, _DISCREPANCIES),
            "runs": fetch(connection, _RUNS, [5]),
            "quarantine": [
                {"pipeline": p.name, **row}
                for p in shown
                for row in fetch(
                    connection, sql.SQL(_QUARANTINE).format(sql.Identifier(p.publication.quarantine_table))
                )
            ],
            "quarantine_hidden": [p.name for p in PIPELINES if p not in shown],
        }


def runs(settings: Settings, limit: int) -> list[Row]:
    """The ledger, newest first, each run with what it did to its tables."""
    with reading(settings) as connection:
        found = fetch(connection, _RUNS, [limit])
        tables = fetch(
            connection,
            "SELECT * FROM sync_run_tables WHERE run_id = ANY (%s)",
            [[run["run_id"] for run in found]],
        )
        return [run | {"tables": [t for t in tables if t["run_id"] == run["run_id"]]} for run in found]


def run(settings: Settings, run_id: int, limit: int) -> Row:
    """One run whole: who made it, what it read, how near its guards were, what it changed; `limit` changes a kind.

    Raises:
        UsageError: the run does not exist.
    """
    with reading(settings) as connection:
        found = fetch(connection, "SELECT * FROM sync_runs WHERE run_id = %s", [run_id])
        if not found:
            ((newest,),) = connection.execute("SELECT max(run_id) FROM sync_runs").fetchall()
            raise UsageError(
                f"The run {run_id} does not exist.",
                f"The newest run is {newest}; `deskroll runs` lists them." if newest else "Nothing has run yet.",
            )
        details = {name: fetch(connection, select, [run_id]) for name, select in _RUN.items()}
        changes = fetch(connection, _CHANGES, {"run_id": run_id})
        for change in changes:
            change["first"] = fetch(connection, _FIRST_CHANGES, {**change, "run_id": run_id, "limit": limit})
        return found[0] | details | {"changes": changes}


def groups(settings: Settings) -> list[Row]:
    """All groups by name, each with its parent and how many members it has, and how many of them are active."""
    with reading(settings) as connection:
        return fetch(connection, _GROUPS)


def agent(settings: Settings, who: str) -> Row:
    """Everything that is known of one agent, by id or e-mail.

    Raises:
        UsageError: the agent is not known; the message names those whose name or e-mail holds the text.
    """
    with reading(settings) as connection:
        by = "agent_id::TEXT = %s" if who.isascii() and who.isdigit() else "lower(email) = lower(%s)"
        found = fetch(connection, f"SELECT * FROM agents WHERE {by} ORDER BY deactivated, agent_id", [who])
        if not found:
            near = fetch(
                connection,
                """SELECT agent_id, email FROM agents WHERE strpos(lower(name || ' ' || email), lower(%s)) > 0
                ORDER BY agent_id LIMIT 5""",
                [who],
            )
            hint = ", ".join(f"{row['email']} ({row['agent_id']})" for row in near)
            raise UsageError(
                f"The agent {who!r} is not known.",
                f"Did you mean {hint}?" if hint else "Give an id or an e-mail address.",
            )
        agent_id = found[0]["agent_id"]
        story = {
            name: fetch(connection, select, {"agent_id": agent_id} if "%(" in select else [agent_id])
            for name, select in _STORY.items()
            if name != "quarantine" or _may_read(connection, "agent_pipeline_errors")
        }
        others = [row["agent_id"] for row in found[1:]]
        return {"agent": found[0], "quarantine": None, **story, "others_with_this_email": others}


def _may_read(connection: Connection, table: str) -> bool:
    """Whether this user may read a quarantine: it holds records as they came, and not everybody should."""
    (row,) = fetch(connection, "SELECT has_table_privilege(%s, 'SELECT') AS may", [table])
    return bool(row["may"])


def fetch(connection: Connection, query: str | sql.Composed, parameters: list[Any] | Row | None = None) -> list[Row]:
    """The rows of a query, by the names of their columns."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()
