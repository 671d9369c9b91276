"""What the database says now: who is active, which runs there were, what lies in quarantine. Plain data."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
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
_GROUPS_ON: Final = """SELECT one.group_id, one.name, parent.group_id AS parent_group_id, one.inactive,
    count(agent.agent_id) AS members, count(*) FILTER (WHERE agent.is_active) AS active_members
FROM groups_on(%(on)s) AS one
LEFT JOIN groups_on(%(on)s) AS parent ON parent.group_id = one.parent_group_id
LEFT JOIN group_members_on(%(on)s) AS member ON member.group_id = one.group_id AND member.stated_by_group
LEFT JOIN agents_on(%(on)s) AS agent ON agent.agent_id = member.agent_id
GROUP BY one.group_id, one.name, parent.group_id, one.inactive ORDER BY one.name, one.group_id"""
_FACTS_ON: Final = {
    "active agents": "SELECT count(*) FROM agents_on(%(on)s) WHERE is_active",
    "inactive agents": "SELECT count(*) FROM agents_on(%(on)s) WHERE NOT is_active",
    "roles assigned to agents": "SELECT count(*) FROM agent_roles_on(%(on)s)",
    "active groups": "SELECT count(*) FROM groups_on(%(on)s) WHERE NOT inactive",
    "inactive groups": "SELECT count(*) FROM groups_on(%(on)s) WHERE inactive",
    "budgets": "SELECT count(*) FROM budgets_on(%(on)s)",
    "cards": "SELECT count(*) FROM cards_on(%(on)s)",
    "cards that could be used": "SELECT count(*) FROM cards_on(%(on)s) WHERE status NOT IN ('FROZEN', 'DELETED')",
}
_PUBLISHED_ON: Final = """SELECT DISTINCT ON (pipeline) pipeline, sync_date, sync_day, is_complete
FROM published_dates WHERE sync_date <= %(on)s ORDER BY pipeline, sync_date DESC"""
# Of what an agent, or a card of the agent, was, each value that changed; of roles and groups, when they came and went.
_TIMELINE: Final = """WITH versions AS (
    SELECT told.of, told.date, told.after, lag(told.after) OVER (PARTITION BY told.of ORDER BY told.date) AS before
    FROM (
        SELECT '' AS of, period.valid_from AS date,
            to_jsonb(period) - ARRAY['agent_id', 'valid_from', 'valid_to', 'is_active']
            || jsonb_build_object('status', CASE WHEN period.is_active THEN 'active' ELSE 'inactive' END) AS after
        FROM agent_periods AS period WHERE period.agent_id = %(agent_id)s
        UNION ALL
        SELECT format('card %%s ', period.card_id), period.valid_from,
            to_jsonb(period) - ARRAY['card_id', 'valid_from', 'valid_to']
        FROM card_periods AS period
        WHERE period.card_id IN (SELECT card_id FROM card_periods WHERE agent_id = %(agent_id)s)
    ) AS told
), held AS (
    SELECT format('role %%s (%%s)', coalesce(role.name, 'unknown'), period.role_id) AS what,
        'assigned' AS begins, 'removed' AS ends, period.valid_from, period.valid_to
    FROM agent_role_periods AS period LEFT JOIN roles AS role ON role.role_id = period.role_id
    WHERE period.agent_id = %(agent_id)s
    UNION ALL
    SELECT format('group %%s (%%s)', coalesce(one.name, 'unknown'), period.group_id), 'joined' || period.source,
        'left' || period.source, period.valid_from, period.valid_to
    FROM (
        SELECT own.group_id, ', by the agent''s record' AS source, own.valid_from, own.valid_to
        FROM agent_group_periods AS own WHERE own.agent_id = %(agent_id)s
        UNION ALL
        SELECT theirs.group_id, ', by the group''s record', theirs.valid_from, theirs.valid_to
        FROM group_member_periods AS theirs WHERE theirs.agent_id = %(agent_id)s
    ) AS period LEFT JOIN groups AS one ON one.group_id = period.group_id
)
SELECT date, what, before, after FROM (
    SELECT version.date, version.of || 'first known' AS what, NULL AS before, version.after ->> 'status' AS after,
        0 AS nth
    FROM versions AS version WHERE version.before IS NULL
    UNION ALL
    SELECT version.date, version.of || field.key, version.before ->> field.key, field.value, 1
    FROM versions AS version CROSS JOIN jsonb_each_text(version.after) AS field
    WHERE version.before ->> field.key IS DISTINCT FROM field.value AND version.before IS NOT NULL
    UNION ALL
    SELECT valid_from, what, NULL, begins, 2 FROM held
    UNION ALL
    SELECT valid_to, what, NULL, ends, 3 FROM held WHERE valid_to IS NOT NULL
) AS event ORDER BY date, nth, what LIKE 'card %%', what, after"""
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
        WHERE history.agent_id = %s ORDER BY history.sync_date, role.name, history.action""",
    "groups": """SELECT coalesce(theirs.group_id, own.group_id) AS group_id, one.name, one.inactive,
        own.group_id IS NOT NULL AS stated_by_agent, theirs.group_id IS NOT NULL AS stated_by_group
        FROM (SELECT * FROM agent_group_membership WHERE agent_id = %(agent_id)s) AS own
        FULL JOIN (SELECT * FROM group_membership WHERE agent_id = %(agent_id)s) AS theirs
            ON theirs.group_id = own.group_id
        LEFT JOIN groups AS one ON one.group_id = coalesce(theirs.group_id, own.group_id)
        ORDER BY one.name, 1""",
    "status_by_day": """SELECT sync_date, is_active FROM agent_status_history WHERE agent_id = %s
        ORDER BY sync_date""",
    "timeline": _TIMELINE,
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


def status_on(settings: Settings, on: date) -> Row:
    """Counts of what was true on a date, and which published date of each pipeline says so.

    Raises:
        UsageError: nothing was published up to then.
    """
    with reading(settings) as connection:
        check_published(connection, on)
        facts = {label: fetch(connection, select, {"on": on})[0]["count"] for label, select in _FACTS_ON.items()}
        return {"on": on, "facts": facts, "pipelines": published_on(connection, on)}


def groups(settings: Settings, on: date | None = None) -> list[Row]:
    """All groups by name, each with its parent and how many members it has, and how many of them are active.

    Raises:
        UsageError: nothing was published up to the date that was asked for.
    """
    with reading(settings) as connection:
        if on is None:
            return fetch(connection, _GROUPS)
        check_published(connection, on)
        return fetch(connection, _GROUPS_ON, {"on": on})


def published_on(connection: Connection, on: date) -> list[Row]:
    """Which published date of each pipeline says what was true on a date, and whether absence from it counted."""
    return fetch(connection, _PUBLISHED_ON, {"on": on})


def check_published(connection: Connection, on: date) -> date:
    """See that something was published up to a date; returns the first date that was.

    Raises:
        UsageError: nothing was.
    """
    first: date | None
    ((first,),) = connection.execute("SELECT min(sync_date) FROM published_dates").fetchall()
    if first is None or on < first:
        raise UsageError(
            f"Nothing was published up to {on}.",
            f"The first date is {first}." if first else "Run `deskroll sync DATA --day DAY` first.",
        )
    return first


def agent(settings: Settings, who: str) -> Row:
    """Everything that is known of one agent, by id or e-mail.

    Raises:
        UsageError: the agent is not known; the message names those whose name or e-mail holds the text.
    """
    with reading(settings) as connection:
        found = find_agents(connection, who)
        agent_id = found[0]["agent_id"]
        story = {
            name: fetch(connection, select, {"agent_id": agent_id} if "%(" in select else [agent_id])
            for name, select in _STORY.items()
            if name != "quarantine" or _may_read(connection, "agent_pipeline_errors")
        }
        others = [row["agent_id"] for row in found[1:]]
        return {"agent": found[0], "quarantine": None, **story, "others_with_this_email": others}


def find_agents(connection: Connection, who: str) -> list[Row]:
    """The agent with an id, or those with an e-mail address, who is active first.

    Raises:
        UsageError: there is none; the message names those whose name or e-mail holds the text.
    """
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
    return found


def _may_read(connection: Connection, table: str) -> bool:
    """Whether this user may read a quarantine: it holds records as they came, and not everybody should."""
    (row,) = fetch(connection, "SELECT has_table_privilege(%s, 'SELECT') AS may", [table])
    return bool(row["may"])


def fetch(connection: Connection, query: str | sql.Composed, parameters: list[Any] | Row | None = None) -> list[Row]:
    """The rows of a query, by the names of their columns."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()
