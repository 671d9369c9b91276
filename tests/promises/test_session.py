"""What stands between deskroll and its database: settings, poolers, timeouts, encodings, policies, standbys."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from deskroll.errors import BusyError, DatabaseError
from deskroll.postgres import checks, database, session
from deskroll.postgres.locks import locked
from deskroll.postgres.server import places
from tests.helpers.databases import Database, drop_database, make_migrated, new_database, url_of
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import SAMPLE, Shell, sync_into
from tests.helpers.servers import another_server, other_servers, server_to_restart

SPOILT = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Tokyo",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "default_transaction_isolation": "serializable",
}


@pytest.fixture
def spoilt(db: Database) -> None:
    """The database has other settings than deskroll's SQL depends on."""
    for name, value in SPOILT.items():
        db.connection.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                sql.Identifier(db.connection.info.dbname), sql.Identifier(name), sql.Literal(value)
            )
        )


@pytest.mark.usefixtures("spoilt")
def test_what_the_sql_depends_on_is_set_whatever_the_server_says(
    url: str, monkeypatch: pytest.MonkeyPatch, shell: Shell, dump: Dump
) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    with database.connect(url) as connection:
        kept = {name: connection.execute(f"SHOW {name}").fetchall()[0][0] for name in SPOILT}
    assert kept == {
        "DateStyle": "ISO, MDY",
        "IntervalStyle": "postgres",
        "TimeZone": "UTC",
        "standard_conforming_strings": "on",
        "bytea_output": "hex",
        "default_transaction_isolation": "read committed",
    }
    dump.write("2026-01-05", "agent_details", [agent(1, contact={"name": "  Mara \\ Lind  "})])
    shell.environment |= {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "SQL, DMY"}
    assert shell.run("sync", dump.path, "--day", "2026-01-05").returncode == 0
    began = shell.run("runs").stdout.splitlines()[1].split()
    told = time.strptime(f"{began[4]} {began[5]}", "%Y-%m-%d %H:%M:%SZ")
    assert abs(time.mktime(time.gmtime()) - time.mktime(told)) < 600


def test_a_setting_that_is_not_kept_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(session._SETTINGS, "DateStyle", "Iso")  # which the server spells otherwise
    with pytest.raises(DatabaseError, match="does not keep its settings: DateStyle is 'ISO, MDY'"):
        database.connect(url)


def test_a_database_in_another_encoding_is_refused_before_anything_is_read(server: str, shell: Shell) -> None:
    name = f"latin_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'").format(
                sql.Identifier(name)
            )
            if admin.info.server_version < 150000
            else sql.SQL(
                "CREATE DATABASE {} ENCODING 'LATIN1' TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'"
            ).format(sql.Identifier(name))
        )
    try:
        shell.environment["DESKROLL_DATABASE_URL"] = url_of(server, name)
        done = shell.run("sync", SAMPLE, "--day", "day1")
        assert done.returncode == 1
        assert "has the encoding LATIN1" in done.stderr
        assert "Use a UTF8 database" in done.stderr
        assert "SELECT" not in done.stderr
    finally:
        drop_database(server, name)


@pytest.fixture
def restricted(db: Database) -> Iterator[tuple[str, str]]:
    """A role of the test's own with all rights on our tables but their ownership: its name, and a URL for it."""
    name = f"restricted_{os.urandom(4).hex()}"
    who = sql.Identifier(name)
    db.connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(who))
    db.connection.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA public TO {}").format(who))
    db.connection.execute(sql.SQL("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {}").format(who))
    yield name, db.url.replace("postgres@", f"{name}@")
    db.connection.execute(sql.SQL("DROP OWNED BY {}").format(who))
    db.connection.execute(sql.SQL("DROP ROLE {}").format(who))


@pytest.mark.parametrize("table", ["agents", "deskroll_migrations", "sync_watermarks", "stg_agents"])
def test_rows_that_a_policy_hides_are_never_taken_for_gone(
    table: str, restricted: tuple[str, str], db: Database, shell: Shell
) -> None:
    sync_into(db.url, str(SAMPLE), "day1", "2026-01-05")
    db.connection.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    shell.environment["DESKROLL_DATABASE_URL"] = restricted[1]
    commands: list[list[Any]] = [["sync", SAMPLE, "--day", "day2", "--sync-date", "2026-01-06"]]
    if table in {"agents", "sync_watermarks"}:
        commands.append(["status"])
    for command in commands:
        done = shell.run(*command)
        assert done.returncode == 1, (command, done.stdout)
        assert "Row-level security" in done.stderr
        assert table in done.stderr


def _set(db: Database, role: str, name: str, value: str) -> None:
    db.connection.execute(
        sql.SQL("ALTER ROLE {} SET {} = {}").format(sql.Identifier(role), sql.Identifier(name), sql.Literal(value))
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [("statement_timeout", "1ms"), ("idle_session_timeout", "60ms")],
)
def test_a_timeout_of_the_server_is_told_as_what_it_is(
    setting: str, value: str, restricted: tuple[str, str], db: Database, dump: Dump, shell: Shell
) -> None:
    role, url = restricted
    dump.write("2026-01-05", "agent_details", [agent(n) for n in range(20_000)])
    _set(db, role, setting, value if setting == "idle_session_timeout" else "40ms")
    shell.environment["DESKROLL_DATABASE_URL"] = url
    done = shell.run("sync", dump.path, "--day", "2026-01-05")
    assert done.returncode == 1
    assert f"The setting {setting} does that." in done.stderr
    assert f"?options=-c%20{setting}%3D0" in done.stderr
    assert done.stderr.count("\n") == 2
    told = db.rows("SELECT status, message FROM sync_runs")
    assert [row["status"] for row in told] == ["failed"]
    assert setting in told[0]["message"]
    shell.environment["DESKROLL_DATABASE_URL"] = f"{url}&options=-c%20{setting}%3D0"
    assert shell.run("sync", dump.path, "--day", "2026-01-05").returncode == 0


def test_who_holds_the_database_is_named(db: Database, shell: Shell) -> None:
    with (
        database.connect(db.url) as holder,
        locked(holder, wait=True),
        database.connect(db.url) as late,
    ):
        pid = session.backend_pid(holder)
        with pytest.raises(BusyError, match=rf"process {pid} of postgres from a socket, connected since 20"):
            locked(late, wait=False).__enter__()
        done = shell.run("sync", SAMPLE, "--day", "day1", "--no-wait")
    assert done.returncode == 1
    assert f"SELECT pg_terminate_backend({pid})" in done.stderr


def test_a_connection_that_ended_while_nobody_asked_is_replaced(db: Database) -> None:
    with database.connect(db.url) as connection:
        db.rows("SELECT pg_terminate_backend(%s)", session.backend_pid(connection))
        with database.usable(database.Session(connection, db.url, "here")) as usable:
            assert usable.execute("SELECT 42").fetchone() == (42,)


# Poolers.


@contextmanager
def pgbouncer(server: str, mode: str, size: int = 20) -> Iterator[str]:
    """A PgBouncer before a server; yields the URL of the server's database through it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        if "CI" in os.environ:
            raise FileNotFoundError("pgbouncer")
        pytest.skip("PgBouncer is not installed")
    given = conninfo_to_dict(server)
    home = Path(tempfile.mkdtemp(prefix="deskroll-pool-", dir="/tmp"))
    (home / "pgbouncer.ini").write_text(
        f"""[databases]
* = host={given["host"]} port={given.get("port", 5432)} user=postgres
[pgbouncer]
listen_addr =
unix_socket_dir = {home}
listen_port = 6432
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = extra_float_digits
"""
    )
    as_other: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
    if as_other:
        shutil.chown(home, "nobody")
    process = subprocess.Popen([program, str(home / "pgbouncer.ini")], stderr=subprocess.DEVNULL, **as_other)
    url = make_conninfo(server, host=str(home), port=6432)
    try:
        for _ in range(100):
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def pooled() -> Iterator[str]:
    """A server that users of other accounts can reach, with a migrated database as the one to connect to."""
    with another_server(next(iter(other_servers()))) as other:
        Path(str(conninfo_to_dict(other)["host"])).chmod(0o755)
        yield other


def test_a_pool_of_sessions_is_as_good_as_the_server(pooled: str, dump: Dump) -> None:
    dump.write("2026-01-05", "agent_details", [agent(1), agent(2)])
    make_migrated(pooled, "sessions")
    with pgbouncer(url_of(pooled, "sessions"), "session") as url:
        for _ in range(2):
            sync_into(url, str(dump.path), "2026-01-05", "2026-01-05")
    with psycopg.connect(url_of(pooled, "sessions")) as direct:
        assert direct.execute("SELECT count(*) FROM agents").fetchone() == (2,)


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pool_of_transactions_is_refused_and_no_lock_stays(
    mode: str, size: int, pooled: str, dump: Dump, shell: Shell
) -> None:
    dump.write("2026-01-05", "agent_details", [agent(1)])
    with pgbouncer(pooled, mode, size) as url:
        shell.environment["DESKROLL_DATABASE_URL"] = url
        for _ in range(3):
            done = shell.run("sync", dump.path, "--day", "2026-01-05")
            assert done.returncode == 1
            assert "A pooler (such as PgBouncer) gives each transaction another process" in done.stderr
            assert "pool_mode = session" in done.stderr
            assert done.stderr.count("\n") == 2
        with psycopg.connect(pooled) as direct:
            assert direct.execute("SELECT FROM pg_locks WHERE locktype = 'advisory'").fetchall() == []
            assert direct.execute("SELECT to_regclass('agents')").fetchone() == (None,)
        # No setting of ours stays on a connection that others get next.
        with psycopg.connect(url, autocommit=True) as next_one:
            assert next_one.execute("SHOW row_security").fetchone() == ("on",)


@pytest.mark.parametrize(("connections", "code"), [(3, 1), (5, 0)])
def test_five_connections_are_enough_and_three_are_told(
    connections: int, code: int, db: Database, restricted: tuple[str, str], shell: Shell
) -> None:
    role, url = restricted
    db.connection.execute(
        sql.SQL("ALTER ROLE {} CONNECTION LIMIT {}").format(sql.Identifier(role), sql.Literal(connections))
    )
    shell.environment["DESKROLL_DATABASE_URL"] = url
    done = shell.run("sync", SAMPLE, "--day", "day1", "--sync-date", "2026-01-05")
    assert done.returncode == code, done.stderr
    if code:
        assert "A run needs 5 connections" in done.stderr


# Servers that can only be read.


@pytest.fixture(scope="module")
def standby() -> Iterator[tuple[str, str]]:
    """A primary with day1 of the sample and a standby that follows it: their URLs."""
    name = next(iter(other_servers()))
    with server_to_restart(name, settings="wal_level = replica\nhot_standby = on\n") as (primary, _):
        sync_into(primary, str(SAMPLE), "day1", "2026-01-05")
        host = str(conninfo_to_dict(primary)["host"])
        with following(name, host) as replica:
            with psycopg.connect(primary) as one:
                ((until,),) = one.execute("SELECT pg_current_wal_lsn()::TEXT").fetchall()
            with psycopg.connect(replica, autocommit=True) as other:
                for _ in range(200):
                    if other.execute("SELECT pg_last_wal_replay_lsn() >= %s::PG_LSN", [until]).fetchone() == (True,):
                        break
                    time.sleep(0.05)
            yield primary, replica


@contextmanager
def following(name: str, host: str) -> Iterator[str]:
    """A standby of the server whose socket is in a folder; yields its URL."""
    binaries = other_servers()[name]
    home = Path(tempfile.mkdtemp(prefix="deskroll-standby-", dir="/tmp"))
    owner = Path(host).owner()
    as_other: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:
        shutil.chown(home, owner)
        as_other |= {"user": owner, "group": Path(host).group(), "extra_groups": []}
    control = [str(binaries / "pg_ctl"), "-w", "-D", str(home / "data"), "-l", str(home / "log")]
    copy = [str(binaries / "pg_basebackup"), "-h", host, "-U", "postgres", "-D", str(home / "data"), "-R", "-c", "fast"]
    try:
        subprocess.run(copy, check=True, capture_output=True, **as_other)
        subprocess.run([*control, "-o", f"-h '' -k {home}", "start"], check=True, stdout=subprocess.DEVNULL, **as_other)
        yield f"postgresql://postgres@/postgres?host={home}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, **as_other)
        shutil.rmtree(home, ignore_errors=True)


def test_a_standby_says_so_and_can_be_planned_for(standby: tuple[str, str], shell: Shell) -> None:
    primary, replica = standby
    day2: tuple[Any, ...] = ("sync", SAMPLE, "--day", "day2", "--sync-date", "2026-01-06")
    shell.environment["DESKROLL_DATABASE_URL"] = replica
    writing: list[tuple[Any, ...]] = [day2, ("db", "migrate"), ("errors", "--purge", "--older-than", "1d")]
    for command in writing:
        done = shell.run(*command)
        assert done.returncode == 1, command
        assert "The server is a standby" in done.stderr
        assert "Use the primary server" in done.stderr
    for command in (("status",), ("runs",), ("agent", "nadia.rahal@example.com"), ("groups",)):
        assert shell.run(*command).returncode == 0, command
    try:
        planned = shell.run(*day2, "--plan")
        shell.environment["DESKROLL_DATABASE_URL"] = primary
        there = shell.run(*day2, "--plan")
    finally:
        shell.run("db", "stop")
        shutil.rmtree(places.find(shell.tmp_path / ".deskroll").home)  # as root it need not lie where the test does
    assert planned.returncode == 0, planned.stderr
    assert f"port {5432}" in planned.stdout
    assert planned.stdout.splitlines()[2:] == there.stdout.splitlines()[2:]
    assert str(conninfo_to_dict(replica)["host"]) in planned.stdout.splitlines()[1]


def test_a_database_that_is_set_to_be_read_only_says_so(
    db: Database, restricted: tuple[str, str], shell: Shell
) -> None:
    role, url = restricted
    _set(db, role, "default_transaction_read_only", "on")
    shell.environment["DESKROLL_DATABASE_URL"] = url
    done = shell.run("sync", SAMPLE, "--day", "day1")
    assert done.returncode == 1
    assert "default_transaction_read_only is on" in done.stderr
    with database.connect(url) as connection:
        assert checks.is_read_only(connection)


def test_a_url_that_libpq_takes_is_taken(server: str, template: str, dump: Dump, shell: Shell) -> None:
    """Whatever the form: keywords, several hosts, a socket with a port, options that few know."""
    dump.write("2026-01-05", "agent_details", [agent(1)])
    with new_database(server, template) as url:
        given = conninfo_to_dict(url)
        host, name = given["host"], given["dbname"]
        for form in (
            f"host={host} dbname={name} user=postgres port=5432",
            f"postgresql:///{name}?host={host}&port=5432&user=postgres",
            f"postgresql://postgres@/{name}?host=/nowhere,{host}&port=5432,5432",
            f"{url}&channel_binding=prefer&keepalives=1&gssencmode=disable&target_session_attrs=read-write",
        ):
            shell.environment["DESKROLL_DATABASE_URL"] = form
            done = shell.run("sync", dump.path, "--day", "2026-01-05")
            assert done.returncode == 0, (form, done.stderr)
