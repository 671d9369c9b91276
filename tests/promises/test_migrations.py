"""The tables brought up to date: all or nothing, beside others' tables, by newer and older versions, after a move."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from deskroll.errors import DatabaseError
from deskroll.postgres import database, migrations
from deskroll.postgres.server import binaries
from tests.helpers.databases import Database, drop_database, url_of
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import DAYS, SAMPLE, Shell, sync_into
from tests.helpers.servers import another_server, other_servers

ROOT = Path(__file__).parent.parent.parent
RELATIONS = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::REGNAMESPACE ORDER BY 1"


@pytest.fixture
def bare(server: str) -> Iterator[Database]:
    """A database in which nothing is."""
    name = f"bare_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    asked = Database(url_of(server, name))
    yield asked
    asked.connection.close()
    drop_database(server, name)


# Two agents on three dates, as the tables of history had them: the first is away on the second date.
HISTORY = """
INSERT INTO agents (agent_id, email, name, deactivated, status, as_of, sync_day, source)
SELECT n, 'agent' || n || '@example.com', 'Agent ' || n, false, 'active', '2026-01-07', 'day3', 'api'
FROM generate_series(1, 2) AS n;
INSERT INTO roles (role_id, name) VALUES (10, 'Role 10'), (11, 'Role 11');
INSERT INTO agent_status_history (agent_id, sync_date, is_active)
SELECT agent_id, sync_date, agent_id = 2 OR sync_date <> '2026-01-06'
FROM agents CROSS JOIN (VALUES (DATE '2026-01-05'), ('2026-01-06'), ('2026-01-07')) AS day (sync_date);
INSERT INTO agent_role_history (agent_id, role_id, action, action_at, sync_date, sync_day) VALUES
    (1, 10, 'assigned', '2026-01-05 21:00Z', '2026-01-05', 'day1'),
    (1, 11, 'assigned', '2026-01-05 21:00Z', '2026-01-05', 'day1'),
    (1, 10, 'removed', '2026-01-06 21:00Z', '2026-01-06', 'day2'),
    (1, 10, 'assigned', '2026-01-07 21:00Z', '2026-01-07', 'day3'),
    (1, 11, 'removed', '2026-01-07 21:00Z', '2026-01-07', 'day3');
INSERT INTO agent_role_mapping (
    agent_id, role_id, status, assigned_at, removed_at, stated_by_agent, stated_by_role
) VALUES
    (1, 10, 'assigned', '2026-01-07 21:00Z', NULL, true, false),
    (1, 11, 'removed', '2026-01-05 21:00Z', '2026-01-07 21:00Z', true, false);
UPDATE sync_watermarks SET sync_date = '2026-01-07' WHERE pipeline IN ('agents', 'roles', 'agent_roles')"""
PG_DUMP = str(binaries.folder() / "pg_dump")
NUMBERED = sorted(migrations.MIGRATIONS.glob("*.sql"))


def refusal(url: str) -> str:
    with database.connect(url) as connection, pytest.raises(DatabaseError) as refused:
        migrations.migrate(connection)
    return f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE schema_migrations (version VARCHAR(128) PRIMARY KEY)",
        "CREATE TABLE schema_migrations (version BIGINT NOT NULL, dirty BOOLEAN NOT NULL)",
        "CREATE TABLE payroll (salary INT); CREATE VIEW earners AS SELECT * FROM payroll",
    ],
)
def test_other_tables_of_a_database_are_left_alone(theirs: str, bare: Database) -> None:
    bare.connection.execute(theirs)
    sync_into(bare.url, str(SAMPLE), "day1", "2026-01-05")
    assert bare.one("SELECT count(*) FROM agents") > 0
    assert {"schema_migrations", "payroll"} & {row["relname"] for row in bare.rows(RELATIONS)}


@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ("CREATE TABLE agents (id INT)", "agents"),
        ("CREATE VIEW spend AS SELECT 1 AS x", "spend"),
        ("CREATE SEQUENCE roles", "roles"),
        ("CREATE TABLE t (x INT); CREATE INDEX groups ON t (x)", "groups"),
        ("CREATE TYPE cards AS ENUM ('ace')", "cards"),
        ("CREATE TABLE stg_agents (id INT) PARTITION BY HASH (id)", "stg_agents"),
    ],
)
def test_a_table_of_somebody_else_under_a_name_of_ours_stops_it_before_anything_is_made(
    theirs: str, name: str, bare: Database, shell: Shell
) -> None:
    bare.connection.execute(theirs)
    before = bare.rows(RELATIONS)
    shell.environment["DESKROLL_DATABASE_URL"] = bare.url
    for _ in range(2):  # nothing of a first attempt makes the second one say something else
        done = shell.run("sync", SAMPLE, "--day", "day1")
        assert done.returncode == 1
        assert name in done.stderr
        assert "search_path%3Ddeskroll" in done.stderr or "sync into a new database" in done.stderr
        assert bare.rows(RELATIONS) == before
    bare.connection.execute("CREATE SCHEMA deskroll")
    shell.environment["DESKROLL_DATABASE_URL"] += "&options=-c%20search_path%3Ddeskroll"
    done = shell.run("sync", SAMPLE, "--day", "day1")
    assert done.returncode == 0, done.stderr
    assert shell.run("status").returncode == 0
    assert bare.rows(RELATIONS) == before


def test_a_migration_that_fails_leaves_nothing(bare: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = migrations.scripts

    def scripts(folder: Path) -> list[migrations.Script]:
        return [
            *plain(folder),
            *([migrations.Script("9999_bad.sql", "SELECT nonsense", "")] * (folder.name != "routines")),
        ]

    monkeypatch.setattr(migrations, "scripts", scripts)
    assert "(9999_bad.sql)" in refusal(bare.url)
    assert bare.rows(RELATIONS) == []


def test_an_older_version_keeps_off_what_a_newer_one_has_migrated(db: Database, shell: Shell) -> None:
    for name, version in (("9999_to_come.sql", "9.10.1"), ("9998.sql", "9.9")):
        db.connection.execute("INSERT INTO deskroll_migrations VALUES (%s, 'x', now(), %s)", [name, version])
    for command in (["sync", SAMPLE, "--day", "day1"], ["db", "migrate"]):
        done = shell.run(*command)
        assert done.returncode == 1
        assert "migrated by deskroll 9.10.1, and this is deskroll 0." in done.stderr
    assert db.one("SELECT count(*) FROM agents") == 0
    db.connection.execute("DELETE FROM deskroll_migrations WHERE package_version LIKE '9%'")
    db.connection.execute(
        "UPDATE deskroll_migrations SET checksum = 'x', package_version = '9.0' WHERE version = 'routines'"
    )
    assert "migrated by deskroll 9.0" in refusal(db.url)


def test_functions_views_and_comments_become_those_of_today(db: Database) -> None:
    about = "SELECT obj_description('agents'::REGCLASS) AS says"
    body = "SELECT md5(string_agg(prosrc, '' ORDER BY proname)) FROM pg_proc WHERE proname LIKE 'deskroll%'"
    view = "SELECT pg_get_viewdef('spend'::REGCLASS) AS says"
    today = [db.one(query) for query in (about, body, view)]
    db.connection.execute("COMMENT ON TABLE agents IS 'Of another day.'")
    db.connection.execute(
        """CREATE OR REPLACE FUNCTION deskroll_move_watermark() RETURNS VOID LANGUAGE sql
        AS 'SELECT'"""
    )
    definition = str(today[2]).rstrip(";")
    db.connection.execute(f"CREATE OR REPLACE VIEW spend AS SELECT * FROM ({definition}) AS old WHERE false")
    db.connection.execute("UPDATE deskroll_migrations SET checksum = 'of another day'")
    with database.connect(db.url) as connection:
        assert migrations.migrate(connection) == ["routines"]
        assert migrations.migrate(connection) == []
    assert [db.one(query) for query in (about, body, view)] == today


def schema_of(url: str) -> str:
    """The tables, functions, views and comments of a database, as pg_dump writes them."""
    command = [PG_DUMP, "--schema-only", "--no-owner", url]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in dumped.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


@pytest.mark.parametrize("already", range(1, len(NUMBERED) + 1))
def test_a_database_of_any_earlier_version_becomes_what_a_new_one_is(
    already: int, bare: Database, db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also if an earlier version said other things about columns, and had other views."""
    for path in NUMBERED[:already]:
        (tmp_path / path.name).write_text(
            re.sub(r" IS\s+'.*?';$", " IS 'Earlier.';", path.read_text(), flags=re.M | re.S)
        )
    (tmp_path / "routines").mkdir()
    (tmp_path / "routines" / "010.sql").write_text(
        "-- migrate:up\nCREATE VIEW sync_context AS SELECT 'x'::TEXT AS pipeline;"
    )
    with database.connect(bare.url) as connection:
        with monkeypatch.context() as earlier:
            earlier.setattr(migrations, "MIGRATIONS", tmp_path)
            earlier.setattr(migrations, "ROUTINES", tmp_path / "routines")
            migrations.migrate(connection)
        migrations.migrate(connection)
    assert schema_of(bare.url) == schema_of(db.url)


def test_the_tables_of_history_become_periods_and_answer_as_before(
    bare: Database, dump: Dump, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for path in NUMBERED[:8]:
        shutil.copy(path, tmp_path / path.name)
    (tmp_path / "routines").mkdir()
    with database.connect(bare.url) as connection:
        with monkeypatch.context() as earlier:
            earlier.setattr(migrations, "MIGRATIONS", tmp_path)
            earlier.setattr(migrations, "ROUTINES", tmp_path / "routines")
            migrations.migrate(connection)
        bare.connection.execute(HISTORY)
        statuses = "SELECT agent_id, sync_date::TEXT, is_active FROM agent_status_history ORDER BY 1, 2"
        roles = "SELECT agent_id, role_id, action, sync_date::TEXT FROM agent_role_history ORDER BY 1, 2, 4"
        before = bare.rows(statuses), bare.rows(roles)
        migrations.migrate(connection)
    assert (bare.rows(statuses), bare.rows(roles)) == before
    assert bare.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'agent%_history' AND relkind = 'v'") == 2
    times = "SELECT role_id, assigned_at::TEXT, removed_at::TEXT FROM agent_role_mapping ORDER BY role_id"
    assert [tuple(row.values()) for row in bare.rows(times)] == [
        (10, "2026-01-07 00:00:00+00", None), (11, "2026-01-05 00:00:00+00", "2026-01-07 00:00:00+00"),
    ]  # fmt: skip
    periods = (
        "SELECT valid_from::TEXT, valid_to::TEXT, is_active, name FROM agent_periods WHERE agent_id = 1 ORDER BY 1"
    )
    assert [tuple(row.values()) for row in bare.rows(periods)] == [
        ("2026-01-05", "2026-01-06", True, "Agent 1"),
        ("2026-01-06", "2026-01-07", False, "Agent 1"),
        ("2026-01-07", None, True, "Agent 1"),
    ]
    dump.write("day1", "agent_details", [agent(1, role_ids=[10]), agent(2, contact={"name": "New name"})])
    sync_into(bare.url, str(dump.path), "day1", "2026-01-08")
    assert bare.one("SELECT name FROM agents_on('2026-01-07') WHERE agent_id = 2") == "Agent 2"
    assert bare.one("SELECT name FROM agents_on('2026-01-08') WHERE agent_id = 2") == "New name"
    assert bare.rows(roles) == before[1]


def test_a_view_that_a_migration_drops_may_be_read_by_whoever_might_before(
    db: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"analyst_{uuid4().hex[:8]}"
    db.connection.execute(f"CREATE ROLE {name}; GRANT SELECT ON spend TO {name} WITH GRANT OPTION")
    db.connection.execute("GRANT SELECT ON spend_by_month TO PUBLIC")
    allowed = "SELECT relname, relacl::TEXT FROM pg_class WHERE relkind = 'v' AND relacl IS NOT NULL ORDER BY 1"
    before = db.rows(allowed)
    for path in NUMBERED:
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "0900_views.sql").write_text("-- migrate:up\nDROP VIEW spend_by_month; DROP VIEW spend CASCADE;")
    monkeypatch.setattr(migrations, "MIGRATIONS", tmp_path)
    with database.connect(db.url) as connection:
        assert migrations.migrate(connection) == ["0900_views.sql", "routines"]
    after = db.rows(allowed)
    db.connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    assert len(before) >= 2
    assert after == before


def test_whoever_may_not_make_tables_is_told(bare: Database, shell: Shell) -> None:
    name = f"poor_{uuid4().hex[:8]}"
    bare.connection.execute(f"CREATE ROLE {name} LOGIN")
    shell.environment["DESKROLL_DATABASE_URL"] = bare.url.replace("postgres@", f"{name}@")
    done = shell.run("sync", SAMPLE, "--day", "day1")
    bare.connection.execute(f"DROP ROLE {name}")
    assert done.returncode == 1
    assert "could not be migrated (deskroll_migrations): permission denied for schema public" in done.stderr
    assert "Migrate once as a user that may create tables" in done.stderr
    assert bare.rows(RELATIONS) == []


@pytest.mark.parametrize("version", other_servers())
def test_a_dump_of_the_embedded_server_is_restored_elsewhere_and_the_next_sync_works(
    version: str, db: Database, shell: Shell
) -> None:
    """The commands are those of docs/moving.md, word by word."""
    began = datetime.now(UTC)
    for day in ("day1", "tran"):
        sync_into(db.url, str(SAMPLE), day, DAYS[day])
    page = (ROOT / "docs" / "moving.md").read_text()
    (copying,) = re.findall(r"<!-- tested -->\n```console\n(.*?)```", page, re.DOTALL)
    with another_server(version) as elsewhere:
        shell.environment |= {"OTHER": elsewhere}
        shell.environment["PATH"] = f"{Path(sys.executable).parent}:{shell.environment['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", copying],
            env=shell.environment, cwd=shell.tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in done.stderr
        for url in (db.url, elsewhere):
            sync_into(url, str(SAMPLE), "day2", DAYS["day2"])
        with closing(Database(elsewhere)) as moved:
            assert moved.one("SELECT deskroll_fold(' ÄÖ  Ł ')") == "äö ł"
            there, here = moved.everything(began), db.everything(began)
            for name in db.final_tables():
                if name != "deskroll_migrations":
                    assert there[name] == here[name], name
