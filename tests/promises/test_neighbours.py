"""Two at once, and slow neighbours: what others do on the database at the same time."""

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from deskroll import sync as syncing
from deskroll.errors import DatabaseError, UsageError
from deskroll.postgres import checks, database, ledger, staging
from deskroll.postgres import publisher as publishing
from deskroll.postgres.guards import Limits
from deskroll.settings import Settings
from tests.helpers.databases import Database, new_database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import DAYS, SAMPLE, Shell, Sync, sync_into
from tests.helpers.servers import server_to_restart
from tests.promises.test_kills import contents, without_ledger

COMMAND = ("sync", str(SAMPLE), "--day", "day1", "--sync-date", "2026-01-05", "--json")


def together(commands: Sequence[Sequence[str]], shell: Shell) -> None:
    """Start them all, and see that all end well."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    main = [sys.executable, "-m", "deskroll"]
    started = [
        subprocess.Popen([*main, *command], env=shell.environment, cwd=shell.tmp_path, **pipes) for command in commands
    ]
    ends = [process.communicate() for process in started]
    assert not any(process.returncode for process in started), ends


def test_two_syncs_started_together_are_as_one_after_the_other(shell: Shell, db: Database) -> None:
    together([COMMAND, COMMAND], shell)
    assert db.rows("SELECT status, count(*) FROM sync_runs GROUP BY 1") == [{"status": "succeeded", "count": 2}]
    assert db.one("SELECT count(*) FROM agents") == 25
    inserted = db.rows("SELECT inserted FROM sync_run_tables WHERE table_name = 'agents' ORDER BY run_id")
    assert [row["inserted"] for row in inserted] == [25, 0]
    assert db.one("SELECT count(*) FROM agent_pipeline_errors") == 8


def test_two_days_started_together_are_as_one_after_the_other(
    shell: Shell, db: Database, server: str, template: str
) -> None:
    days = ["day1", "day2"]
    either = []
    for order in (days, days[::-1]):
        with new_database(server, template) as url:
            for day in order:
                sync_into(url, str(SAMPLE), day, DAYS[day])
            either.append(without_ledger(contents(url)))
    together([["sync", str(SAMPLE), "--day", day, "--sync-date", DAYS[day]] for day in days], shell)
    assert without_ledger(contents(db.url)) in either


def test_a_run_that_lost_its_connection_leaves_staging_to_the_next(
    db: Database, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads files for minutes, and its lock goes with the connection: another run may come in between."""
    for day, on in (("dayA", 6), ("dayB", 7)):
        dump.write(day, "agent_details", [agent(1, contact={"name": day}), agent(on, available=day)])
    plain = staging.load

    def load(*given: Any) -> Any:
        monkeypatch.setattr(staging, "load", plain)
        db.rows("SELECT pg_terminate_backend(%s)", given[0].connection.info.backend_pid)
        sync_into(db.url, str(dump.path), "dayB", "2026-01-07")
        return plain(*given)

    monkeypatch.setattr(staging, "load", load)
    with pytest.raises(DatabaseError, match="was lost"):
        sync_into(db.url, str(dump.path), "dayA", "2026-01-06")
    for table in ("agents", "stg_agents"):
        assert db.one(f"SELECT name FROM {table} WHERE agent_id = 1") == "dayB"
    assert db.rows("SELECT entity_id FROM stg_pipeline_errors") == [{"entity_id": "7"}]


def test_a_connection_that_is_lost_before_anything_is_read_is_told(db: Database) -> None:
    connection = database.connect(db.url)
    db.rows("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
    with pytest.raises(DatabaseError, match="was lost"):
        checks.check_server(connection)


def test_a_connection_that_is_lost_when_all_is_published_is_no_failure(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(connection: database.Connection, *given: Any, **options: Any) -> Any:
        published = publishing.publish(connection, *given, **options)
        db.rows("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        return published

    monkeypatch.setattr("deskroll.sync.publish", publish)
    sync_into(db.url, str(SAMPLE), "day1", "2026-01-05")
    assert db.one("SELECT status FROM sync_runs") == "succeeded"


def test_a_connection_that_is_lost_as_the_run_is_committed_is_not_told_as_nothing_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL has committed, and waits for a replica; the run is never told."""
    plain = ledger.record

    def record(connection: database.Connection, entry: ledger.Entry, status: ledger.Status, *given: Any) -> None:
        plain(connection, entry, status, *given)
        if status == "succeeded":
            connection.execute("SET LOCAL synchronous_commit = on")
            thread.submit(end_as_it_waits)

    def end_as_it_waits() -> None:
        for _ in range(1000):
            if other.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"):
                return
            time.sleep(0.01)

    replicated = "synchronous_standby_names = 'nobody'\nsynchronous_commit = local\n"
    monkeypatch.setattr(ledger, "record", record)
    with server_to_restart(settings=replicated) as (url, _), ThreadPoolExecutor(1) as thread:
        other = Database(url)
        with pytest.raises(DatabaseError, match="was lost") as lost:
            sync_into(url, str(SAMPLE), "day1", "2026-01-05")
        assert lost.value.hint.startswith("Nothing was published, unless `deskroll runs` says so.")
        assert other.rows("SELECT status FROM sync_runs") == [{"status": "succeeded"}]
        assert other.one("SELECT count(*) FROM agents") == 25
        other.connection.close()


def test_a_run_waits_for_what_one_before_it_still_loads(db: Database, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    with psycopg.connect(db.url) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock_shared(%s)", [int.from_bytes(b"deskroll") + 1])
        with pytest.raises(DatabaseError, match="gave up waiting"):
            sync_into(f"{db.url}&options=-c%20lock_timeout%3D100ms", str(dump.path), "day1", "2026-01-05")
    sync_into(db.url, str(dump.path), "day1", "2026-01-05")


def test_a_second_run_does_not_wait_if_it_is_told_so(shell: Shell, db: Database) -> None:
    with psycopg.connect(db.url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [int.from_bytes(b"deskroll")])
        done = shell.run(*COMMAND, "--no-wait")
    assert done.returncode == 1
    assert "Another run holds this database: process " in done.stderr
    assert db.one("SELECT count(*) FROM agents") == 0


def test_a_reader_in_a_long_transaction_neither_waits_nor_is_waited_for(db: Database) -> None:
    sync_into(db.url, str(SAMPLE), "day1", "2026-01-05")
    with psycopg.connect(db.url) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        select = "SELECT agent_id, name, status, xmin::TEXT FROM agents ORDER BY agent_id"
        before = reader.execute(select).fetchall()
        reader.execute("SELECT count(*) FROM transactions, cards, groups, agent_status_history")
        for day in ("day2", "day3", "tran"):
            sync_into(f"{db.url}&options=-c%20lock_timeout%3D5s", str(SAMPLE), day, DAYS[day], allow_mass_change=True)
        assert reader.execute(select).fetchall() == before
    assert db.one("SELECT count(*) FROM agents") == 29


@pytest.mark.parametrize("table", ["agents", "stg_agents", "transactions", "sync_runs", "stg_pipeline_errors"])
def test_a_lock_that_somebody_holds_is_given_up_on_in_time(table: str, db: Database) -> None:
    sync_into(db.url, str(SAMPLE), "day1", "2026-01-05")
    before = db.versions()
    url = f"{db.url}&options=-c%20lock_timeout%3D300"
    with psycopg.connect(db.url) as other:
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseError, match="gave up waiting"):
            sync_into(url, str(SAMPLE), "day2", "2026-01-06", allow_mass_change=True)
    assert db.versions() == before
    sync_into(url, str(SAMPLE), "day2", "2026-01-06", allow_mass_change=True)
    assert db.one("SELECT count(*) FROM agents") == 29


def test_a_table_that_is_changed_meanwhile_is_seen_as_it_is_or_not_at_all(db: Database, dump: Dump, sync: Sync) -> None:
    """Somebody edits an agent by hand between two syncs of the same files: the next sync puts it right."""
    dump.write("day1", "agent_details", [agent(1), agent(2)])
    sync("day1", "2026-01-05")
    db.connection.execute("UPDATE agents SET name = 'edited'")
    db.connection.execute("DELETE FROM stg_agents WHERE agent_id = 2")
    sync("day1", "2026-01-05")
    assert [row["name"] for row in db.rows("SELECT name FROM agents ORDER BY 1")] == ["Agent 1", "Agent 2"]
    assert db.status() == {1: "active", 2: "active"}


def test_rows_that_somebody_writes_while_a_first_load_waits_for_its_lock_are_kept(db: Database) -> None:
    with psycopg.connect(db.url) as other, psycopg.connect(db.url) as loading, ThreadPoolExecutor(1) as thread:
        loading.execute("SELECT 1")
        other.execute("INSERT INTO roles (role_id, name) VALUES (1, 'theirs')")
        waiting = thread.submit(loading.execute, "SELECT deskroll_detach_keys('roles')")
        while not db.one("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'roles'::REGCLASS"):
            assert not waiting.done(), waiting.result()
        other.commit()
        waiting.result()
        loading.execute("SELECT deskroll_attach_keys()")
    assert db.rows("SELECT role_id, name FROM roles") == [{"role_id": 1, "name": "theirs"}]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_restarted_between_stage_and_publish(mode: str) -> None:
    """What is staged survives a shutdown; a crash empties unlogged tables, and then nothing is published."""
    with server_to_restart() as (url, restart):
        settings = Settings(database_url=SecretStr(url))
        syncing.stage_day(syncing.Request(str(SAMPLE), "day1", date(2026, 1, 5)), settings)
        restart(mode)
        if mode == "fast":
            syncing.publish_staged((), settings, Limits())
        else:
            with pytest.raises(UsageError, match="staged: nothing"):
                syncing.publish_staged((), settings, Limits())
            sync_into(url, str(SAMPLE), "day1", "2026-01-05")
        db = Database(url)
        assert db.one("SELECT count(*) FROM agents") == 25
        assert db.one("SELECT count(*) FROM transactions") == 8
        db.connection.close()
