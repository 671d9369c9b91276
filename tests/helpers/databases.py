"""Databases on a server, and what they hold."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader

from deskroll.postgres import database
from deskroll.postgres.migrations import migrate


def url_of(url: str, name: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


def make_migrated(server: str, name: str) -> str:
    """Make a migrated database; returns its URL."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = url_of(server, name)
    with database.connect(url) as connection:
        migrate(connection)
    return url


def drop_database(server: str, name: str) -> None:
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def new_database(server: str, template: str) -> Iterator[str]:
    """The URL of a migrated, empty database."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    yield url_of(server, name)
    drop_database(server, name)


class Database:
    """Questions that tests ask of a database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True, options="-c TimeZone=UTC", row_factory=dict_row)

    def close(self) -> None:
        self.connection.close()

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        return self.connection.execute(query, parameters or None).fetchall()

    def one(self, query: str, *parameters: Any) -> Any:
        (row,) = self.rows(query, *parameters)
        (value,) = row.values()
        return value

    def status(self) -> dict[int, str]:
        return {row["agent_id"]: row["status"] for row in self.rows("SELECT agent_id, status FROM agents")}

    def roles(self) -> dict[tuple[int, int], str]:
        rows = self.rows("SELECT agent_id, role_id, status FROM agent_role_mapping")
        return {(row["agent_id"], row["role_id"]): row["status"] for row in rows}

    def role_history(self) -> list[tuple[Any, ...]]:
        rows = self.rows(
            """SELECT agent_id, role_id, action, extract(day FROM sync_date)::INT FROM agent_role_history
            ORDER BY sync_date, agent_id, role_id, action"""
        )
        return [tuple(row.values()) for row in rows]

    def inactive_groups(self) -> set[int]:
        return {row["group_id"] for row in self.rows("SELECT group_id FROM groups WHERE inactive")}

    def history(self) -> dict[tuple[int, int], bool]:
        rows = self.rows("SELECT agent_id, sync_date, is_active FROM agent_status_history")
        return {(row["agent_id"], row["sync_date"].day): row["is_active"] for row in rows}

    def versions(self) -> dict[str, list[Any]]:
        """Each row's place and version in every table that a re-run must leave alone."""
        return {
            table: self.rows(f"SELECT ctid::TEXT, xmin::TEXT FROM {table} ORDER BY ctid")
            for table in self.final_tables()
        }

    def rows_by_key(self) -> dict[str, dict[str, str]]:
        """The version of each row of every final table, by its primary key."""
        keys = self.rows(
            """SELECT relname, string_agg(quote_ident(attname), ', ' ORDER BY attnum) AS key
            FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
            JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
            WHERE indisprimary GROUP BY relname"""
        )
        key_of = {row["relname"]: row["key"] for row in keys}
        return {
            table: {
                row["key"]: row["xmin"]
                for row in self.rows(f"SELECT ROW({key_of[table]})::TEXT AS key, xmin::TEXT FROM {table}")
            }
            for table in self.final_tables()
        }

    def everything(self, since: datetime) -> dict[str, list[Any]]:
        """The rows of every table, in some order, without what no two runs have alike; `since` is when they began.

        `sync_run_files` is left out: files that were written a moment ago are not in it.
        """

        def plain(value: Any) -> Any:
            return "NOW" if isinstance(value, datetime) and value >= since else value

        cursor = self.connection.cursor()
        cursor.adapters.register_loader("jsonb", TextLoader)  # Python cannot read all that PostgreSQL can

        tables = self.rows(
            """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE
            AND relname NOT IN ('deskroll_migrations', 'sync_run_files') ORDER BY 1"""
        )
        return {
            name: sorted(
                (
                    {k: plain(v) for k, v in row.items() if k not in _OF_A_RUN}
                    for row in cursor.execute(f"TABLE {name}").fetchall()
                ),
                key=repr,
            )
            for (name,) in (row.values() for row in tables)
        }

    def final_tables(self) -> list[str]:
        found = self.rows(
            """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE
            AND relname NOT LIKE 'stg_%' AND relname NOT LIKE '%_errors' AND relname NOT LIKE 'sync_run%'
            AND relname <> 'run_changes'"""
        )
        return sorted(row["relname"] for row in found)


# What no two runs have alike.
_OF_A_RUN = {"id", "run_id", "engine", "options", "fingerprint", "loaded_by", "seconds"}
