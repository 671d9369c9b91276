"""Which rights on which tables a role needs: to sync, or only to read."""

from collections.abc import Iterable
from typing import Final

from psycopg import sql

from deskroll.postgres.migrations import names

# Rows of these are taken away when a day no longer states them, or states them anew.
_EMPTIED: Final = {
    "agent_availability",
    "agent_group_membership",
    "agent_group_periods",
    "agent_periods",
    "agent_role_mapping",
    "agent_role_periods",
    "agent_role_periods_by_agent",
    "agent_role_periods_by_role",
    "agent_role_periods_in_doubt",
    "budget_periods",
    "card_periods",
    "card_versions",
    "group_member_periods",
    "group_membership",
    "group_periods",
    "silent_periods",
    "sync_date_changes",
    "sync_run_files",
    "transactions",
    "unlinked_agent_roles",
    "unlinked_group_members",
}


def to_sync(database: str, schema: str, role: str) -> str:
    """The SQL that lets a role run every command but `db migrate` and `forget`."""
    tables = [name for name in names("TABLE") if name != "deskroll_migrations"]
    staging = [name for name in tables if name.startswith("stg_")]
    emptied = [name for name in tables if name.endswith("_errors") or name in _EMPTIED]
    return "\n".join(
        [
            _on_database("CONNECT, TEMPORARY", database, role),
            _on_schema(schema, role),
            _on_tables("SELECT", schema, sorted(names()), role),
            _on_tables("INSERT, UPDATE", schema, sorted(tables), role),
            _on_tables("DELETE", schema, sorted({*staging, *emptied}), role),
            _on_tables("TRUNCATE", schema, sorted(staging), role),
            _written("GRANT USAGE ON SEQUENCE {} TO {};", sql.Identifier(schema, "sync_runs_run_id_seq"), _name(role)),
        ]
    )


def to_read(database: str, schema: str, role: str) -> str:
    """The SQL that lets a role read all but quarantine and staging: `status`, `runs`, `groups` and `agent` work."""
    hidden = {
        "deskroll_migrations",
        "sync_context",
        "sync_contexts",
        "sync_neighbours",
        "guarded_dates",
        "guarded_rows",
        "guarded_now",
        "guarded_periods",
        "guarded_changes",
        "quarantine",
    }
    shown = [n for n in names() if not n.startswith("stg_") and not n.endswith("_errors") and n not in hidden]
    return "\n".join(
        [
            _on_database("CONNECT", database, role),
            _on_schema(schema, role),
            _on_tables("SELECT", schema, sorted(shown), role),
        ]
    )


def _on_database(rights: str, database: str, role: str) -> str:
    return _written(f"GRANT {rights} ON DATABASE {{}} TO {{}};", _name(database), _name(role))


def _on_schema(schema: str, role: str) -> str:
    return _written("GRANT USAGE ON SCHEMA {} TO {};", _name(schema), _name(role))


def _on_tables(rights: str, schema: str, tables: Iterable[str], role: str) -> str:
    listed = sql.SQL(",\n    ").join(sql.Identifier(schema, table) for table in tables)
    return _written(f"GRANT {rights} ON\n    {{}}\nTO {{}};", listed, _name(role))


def _name(text: str) -> sql.Identifier:
    return sql.Identifier(text)


def _written(template: str, *parts: sql.Composable) -> str:
    return sql.SQL(template).format(*parts).as_string()
