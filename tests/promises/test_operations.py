"""Least privilege, passwords, purging: docs/operations.md, word by word."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from deskroll.postgres import database
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import DAYS, SAMPLE, Shell, Sync, sync_into
from tests.helpers.servers import another_server


@pytest.fixture
def role(db: Database, shell: Shell) -> Iterator[str]:
    """A role of its own name that may sync, and one with _r behind it that may read: roles are of a whole server."""
    name = f"sync_{uuid.uuid4().hex[:8]}"
    db.connection.execute("CREATE TABLE payroll (salary INT); CREATE SEQUENCE others")
    for options, one in (((), name), (("--read-only",), f"{name}_r")):
        db.connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(one)))
        done = shell.run("db", "grants", *options, one)
        assert done.returncode == 0, done.stderr
        db.connection.execute(done.stdout)
    yield name
    for one in (name, f"{name}_r"):
        db.connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(one)))
        db.connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(one)))


def test_a_sync_runs_with_the_least_rights(role: str, db: Database) -> None:
    url = db.url.replace("postgres@", f"{role}@")
    for _ in range(2):
        for day, on in DAYS.items():
            sync_into(url, str(SAMPLE), day, on, allow_mass_change=True)
    assert db.one("SELECT count(*) FROM agents") == 29
    assert db.one("SELECT count(*) FROM transactions") == 18
    assert db.one("SELECT count(DISTINCT status) FROM sync_runs") == 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM agents",
        "DELETE FROM published_dates",
        "TRUNCATE agent_periods",
        "TRUNCATE transactions",
        "DELETE FROM sync_runs",
        "TRUNCATE agents",
        "DROP TABLE agents",
        "ALTER TABLE agents ADD x INT",
        "CREATE TABLE mine (x INT)",
        "INSERT INTO deskroll_migrations VALUES ('9')",
        "CREATE ROLE other",
        "SELECT * FROM payroll",
        "SELECT nextval('others')",
        "CREATE OR REPLACE FUNCTION deskroll_attach_keys() RETURNS VOID LANGUAGE sql AS 'SELECT'",
    ],
)
def test_the_role_can_do_nothing_else(statement: str, role: str, url: str) -> None:
    with (
        psycopg.connect(url.replace("postgres@", f"{role}@")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_the_reader_sees_all_but_quarantine_and_staging(role: str, db: Database) -> None:
    relations = db.rows(
        """SELECT relname, has_table_privilege(%s, oid, 'SELECT') AS may FROM pg_class
        WHERE relnamespace = 'public'::REGNAMESPACE AND relkind IN ('r', 'v')""",
        f"{role}_r",
    )
    hidden = {row["relname"] for row in relations if not row["may"]}
    internal = {
        "deskroll_migrations",
        "sync_context",
        "sync_contexts",
        "guarded_rows",
        "guarded_now",
        "guarded_changes",
        "payroll",
    }
    internal |= {"sync_neighbours", "guarded_dates", "guarded_periods", "quarantine"}
    assert (
        hidden
        == {
            row["relname"]
            for row in relations
            if row["relname"].startswith("stg_") or row["relname"].endswith("_errors")
        }
        | internal
    )


def test_a_reader_can_run_what_reads(role: str, db: Database, shell: Shell) -> None:
    sync_into(db.url, str(SAMPLE), "day1", "2026-01-05")
    shell.environment["DESKROLL_DATABASE_URL"] = db.url.replace("postgres@", f"{role}_r@")
    for command in (("status",), ("agent", "nadia.rahal@example.com"), ("groups",), ("runs",)):
        for options in ((), ("--json",)):
            done = shell.run(*command, *options)
            assert done.returncode == 0, (command, done.stderr)
            if command[0] in {"status", "agent"} and not options:
                assert "this user may not read it" in done.stdout
    done = shell.run("errors")
    assert done.returncode == 1
    assert "The database user may not do this" in done.stderr


def test_a_sync_that_may_not_replace_old_routines_says_who_may(role: str, db: Database, shell: Shell) -> None:
    """After an update of deskroll the owner has to migrate once."""
    db.connection.execute("UPDATE deskroll_migrations SET checksum = 'of another version' WHERE version = 'routines'")
    shell.environment["DESKROLL_DATABASE_URL"] = db.url.replace("postgres@", f"{role}@")
    done = shell.run("sync", SAMPLE, "--day", "day1")
    assert done.returncode == 1
    assert "The database could not be migrated (routines)" in done.stderr
    assert "`deskroll db migrate`" in done.stderr
    assert db.one("SELECT count(*) FROM agents") == 0
    shell.environment["DESKROLL_DATABASE_URL"] = db.url
    assert shell.run("db", "migrate").returncode == 0
    shell.environment["DESKROLL_DATABASE_URL"] = db.url.replace("postgres@", f"{role}@")
    assert shell.run("sync", SAMPLE, "--day", "day1").returncode == 0


SECRET = "hun%ter/2 é"
ENCODED = "hun%25ter%2F2%20%C3%A9"


def test_a_password_never_leaves(shell: Shell, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1), {"id": 2}])
    commands = [
        ("sync", dump.path, "--day", "day1"),
        ("sync", dump.path, "--day", "day1", "--debug"),
        ("sync", dump.path, "--day", "day1", "--json", "--plan"),
        ("sync", dump.path, "--day", "day2"),
        ("stage", dump.path, "--day", "day1"),
        ("publish", "--max-rejected", "0"),
        ("status",),
        ("runs", "--json"),
        ("errors",),
        ("errors", "--purge", "--older-than", "1d"),
        ("db", "migrate"),
    ]
    with another_server(auth="scram-sha-256") as server:
        with psycopg.connect(server.replace("postgres@", "postgres:right@"), autocommit=True) as admin:
            admin.execute(sql.SQL("ALTER USER postgres PASSWORD {}").format(sql.Literal(SECRET)))
            admin.execute(sql.SQL("CREATE ROLE nobody LOGIN PASSWORD {}").format(sql.Literal(SECRET)))
        urls = {
            "right": server.replace("postgres@", f"postgres:{ENCODED}@"),
            "no rights": server.replace("postgres@", f"nobody:{ENCODED}@"),
            "wrong": server.replace("postgres@", f"postgres:x{ENCODED}@"),
            "no database": server.replace("postgres@", f"postgres:{ENCODED}@").replace("/postgres?", "/none?"),
            "no server": f"postgresql://postgres:{ENCODED}@127.0.0.1:1/none",
            "unreadable": f"postgresql://postgres:{ENCODED}@[/none",
            "an @ as it is": "postgresql://postgres:hun%25@part-of-it@127.0.0.1:1/none",
            "odd timeout": f"postgresql://postgres:{ENCODED}@127.0.0.1:1/none?connect_timeout=abc",
            "odd option": f"postgresql://postgres:{ENCODED}@127.0.0.1:1/none?nonsense=1",
        }
        order = ["no rights", *(name for name in urls if name not in {"no rights", "right"}), "right"]
        for name in order:
            shell.environment["DESKROLL_DATABASE_URL"] = urls[name]
            # Where nobody gets in, all commands come to the same place.
            for command in commands if name == "right" else commands[:2] + commands[-1:]:
                done = shell.run(*command)
                assert "Traceback" not in done.stderr or "--debug" in command
                assert "Unexpected" not in done.stderr
                for text in (SECRET, ENCODED, "hun%", "hun%25", "part-of-it"):
                    assert text not in done.stdout + done.stderr, (name, command)
        assert done.returncode == 0
        db = Database(urls["right"])
        everything = repr(db.everything(db.one("SELECT now()")))
        assert "hun%" not in everything
        db.connection.close()
        seen = shell.run("db", "shell", input="SELECT 42 AS answer; \\! ps -eo args | grep [p]sql")
        assert "42" in seen.stdout, seen.stderr
        assert "hun%" not in seen.stdout


def test_the_password_of_a_key_is_in_no_list_of_processes() -> None:
    shown, password = database.without_password("postgresql://u:one@h/d?sslpassword=two")
    assert password == "one"
    assert "two" not in shown


def test_purging_forgets_what_is_old(shell: Shell, db: Database, dump: Dump, sync: Sync) -> None:
    for day in ("day1", "day2"):
        dump.write(day, "agent_details", [agent(1), {"id": 2}])
        dump.write(day, "roles", [{"id": "x"}])
        sync(day, "2026-01-05")
    for table in ("agent_pipeline_errors", "role_pipeline_errors"):
        db.connection.execute(f"UPDATE {table} SET created_at = now() - INTERVAL '91 days' WHERE sync_day = 'day1'")
    assert shell.run("errors", "--purge", "--older-than", "92d").stdout == "0 rows purged\n"
    assert shell.run("errors", "--purge", "--older-than", "90d", "--pipeline", "roles").stdout == "1 row purged\n"
    assert shell.run("errors", "--purge", "--older-than", "90d").stdout == "1 row purged\n"
    for table in ("agent_pipeline_errors", "role_pipeline_errors"):
        assert db.rows(f"SELECT sync_day FROM {table}") == [{"sync_day": "day2"}]
    for wrong in (
        ("--purge",), ("--older-than", "90d"), ("--purge", "--older-than", "soon"), ("--purge", "--older-than", "-1d"),
        ("--purge", "--older-than", "9d", "--day", "day1"), ("--purge", "--older-than", "9d", "--pipeline", "x"),
    ):  # fmt: skip
        done = shell.run("errors", *wrong)
        assert done.returncode == 2, wrong
        assert done.stderr.count("\n") == 2, done.stderr
