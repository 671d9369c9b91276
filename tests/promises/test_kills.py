"""All or nothing, tested to destruction: whatever is killed, and when, the database is as before or as after."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.helpers.databases import Database, drop_database, make_migrated, new_database, url_of
from tests.helpers.runs import DAYS, INTERRUPTED, SAMPLE, heed_ctrl_c, sync_into
from tests.helpers.servers import another_embedded, another_server, server_to_restart
from tests.helpers.torture import Torture

BEGAN = datetime.now(UTC)


@dataclass
class Scene:
    """A server with a database to make others from, and what such a one holds before and after a day."""

    server: str
    template: str
    day: str
    before: dict[str, list[Any]]
    after: dict[str, list[Any]]
    steps: int
    seconds: float

    def database(self) -> Any:
        return new_database(self.server, self.template)

    def crash_harness(self, url: str, fault: str, number: int = 0, **options: Any) -> subprocess.Popen[str]:
        return crash_harness(url, self.day, fault, number, **options)


# What a run tells its ledger before it publishes, without what no two runs have alike.
_OF_RUNS = {
    "sync_run_inputs": "input, found, complete, files, bytes, records_read, valid, duplicates, rejected, unreadable",
    "sync_run_guards": "pipeline, guarded, is_gain, before, changed, share, threshold, refused, allowed",
}


def contents(url: str) -> dict[str, list[Any]]:
    """Everything that a run publishes, its ledger included, but for the rows of runs that failed."""
    db = Database(url)
    try:
        found = db.everything(BEGAN)
        found["sync_runs"] = [row for row in found["sync_runs"] if row["status"] != "failed"]
        for table, columns in _OF_RUNS.items():
            found[table] = db.rows(
                f"""SELECT {columns} FROM {table} JOIN sync_runs USING (run_id)
                WHERE sync_runs.status <> 'failed' ORDER BY run_id, {columns}"""
            )
        return {table: rows for table, rows in found.items() if not table.startswith("stg_")}
    finally:
        db.connection.close()


def without_ledger(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {table: rows for table, rows in found.items() if not table.startswith(("sync_run", "run_"))}


def crash_harness(url: str, day: str, fault: str, number: int, **options: Any) -> subprocess.Popen[str]:
    passed_on = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    # If a file cannot grow, Python leaves half of its compiled code behind.
    environment = {"HOME": "/tmp", **passed_on, "DESKROLL_DATABASE_URL": url, "PYTHONDONTWRITEBYTECODE": "1"}
    environment["DESKROLL_LOG_LEVEL"] = "warning"
    main = ["deskroll"] if fault == "interrupt" else ["tests.helpers.crash", fault, str(number)]
    options_ = ("--day", day, "--sync-date", DAYS[day], "--allow-mass-change", "--reread")
    command = [sys.executable, "-m", *main, "sync", str(SAMPLE), *options_]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=SAMPLE.parent,
        **options,
    )


def setting_on(server: str, template: str, day: str = "day2") -> Iterator[Scene]:
    name = f"scene_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    url = url_of(server, name)
    if day != "day1":
        sync_into(url, str(SAMPLE), "day1", DAYS["day1"], allow_mass_change=True)
    before = contents(url)
    with new_database(server, name) as copy:
        begin = time.monotonic()
        process = crash_harness(copy, day, "list", 0)
        steps = process.communicate()[1].splitlines()
        assert process.returncode == 0, "\n".join(steps[:3])
        yield Scene(server, name, day, before, contents(copy), len(steps), time.monotonic() - begin)
    drop_database(server, name)


@pytest.fixture(scope="module")
def scene(server: str, template: str) -> Iterator[Scene]:
    yield from setting_on(server, template)


def judge(scene: Scene, url: str) -> str:
    """See that a database is as before or as after, and that syncing again makes it as after; returns which it was."""
    found = contents(url)
    is_after = found == scene.after
    assert is_after or found == scene.before
    sync_into(url, str(SAMPLE), scene.day, DAYS[scene.day], allow_mass_change=True)
    assert without_ledger(contents(url)) == without_ledger(scene.after)
    return "after" if is_after else "before"


CHUNK = 10


@pytest.mark.chunks(120)
def test_killed_at_any_step(chunk: int, scene: Scene, torture: Torture) -> None:
    share = scene.steps if torture.is_full else 6
    every = random.Random(1).sample(range(1, scene.steps + 1), share)
    for number in every[chunk * CHUNK : (chunk + 1) * CHUNK]:
        with scene.database() as url:
            process = scene.crash_harness(url, "kill", number)
            said = process.communicate()[1]
            assert process.returncode == -9, said
            torture.count(f"killed at a step: as {judge(scene, url)}")
    assert scene.steps <= 120 * CHUNK


@pytest.mark.chunks(15)
def test_killed_at_any_instant(chunk: int, scene: Scene, torture: Torture) -> None:
    instants = random.Random(2)
    every = [instants.random() for _ in range(150 if torture.is_full else 4)]
    for share in every[chunk * CHUNK : (chunk + 1) * CHUNK]:
        with scene.database() as url:
            process = scene.crash_harness(url, "list")
            with suppress(subprocess.TimeoutExpired):
                process.wait(share * scene.seconds)
            process.kill()
            process.communicate()
            what = "killed at an instant" if process.returncode == -9 else "ended before the instant"
            torture.count(f"{what}: as {judge(scene, url)}")


@pytest.mark.chunks(10)
def test_interrupted_at_any_instant(chunk: int, scene: Scene, torture: Torture) -> None:
    """Ctrl-C is one line, wherever it comes, from the imports to the end."""
    instants = random.Random(6)
    every = [instants.random() for _ in range(100 if torture.is_full else 6)]
    for share in every[chunk * CHUNK : (chunk + 1) * CHUNK]:
        with scene.database() as url:
            process = scene.crash_harness(url, "interrupt", preexec_fn=heed_ctrl_c)
            maps = Path(f"/proc/{process.pid}/maps")
            while "pydantic_core" not in maps.read_text() and process.poll() is None:  # before that it is not deskroll
                time.sleep(0.001)
            time.sleep(share * scene.seconds)
            process.send_signal(signal.SIGINT)
            said = process.communicate()[1]
            # Python ends by the signal if that came in an exec().
            assert (process.returncode, said) in [(0, ""), (130, INTERRUPTED), (-signal.SIGINT, INTERRUPTED)]
            torture.count(f"interrupted at an instant: as {judge(scene, url)}")


@pytest.mark.chunks(9)
def test_the_connection_ended_at_any_step(chunk: int, scene: Scene, torture: Torture) -> None:
    every = random.Random(3).sample(range(1, scene.steps + 1), 60 if torture.is_full else 3)
    if torture.is_full:  # the first and the last are each asked by code of their own
        every += [*range(1, 21), *range(scene.steps - 9, scene.steps + 1)]
    for number in every[chunk * CHUNK : (chunk + 1) * CHUNK]:
        with scene.database() as url:
            process = scene.crash_harness(url, "terminate", number)
            said = process.communicate()[1]
            is_told = "The connection to PostgreSQL was lost" in said
            assert process.returncode == (1 if is_told else 0), said
            assert said.count("\n") <= 2
            torture.count(f"connection ended at a step: as {judge(scene, url)}")


@pytest.mark.parametrize(
    ("day", "server_of_its_own"),
    [("day1", another_server), ("day2", another_server), ("day1", another_embedded)],
    ids=["first load", "second day", "first load, embedded server"],
)
def test_the_server_crashed_at_any_step(
    day: str, server_of_its_own: Callable[[], AbstractContextManager[str]], template: str, torture: Torture
) -> None:
    """On a server of its own: when one of its processes is killed, PostgreSQL restarts, and empties unlogged tables."""
    with server_of_its_own() as server:
        make_migrated(server, template)
        for scene in setting_on(server, template, day):
            steps = random.Random(4).sample(range(1, scene.steps + 1), 40 if torture.is_full else 3)
            for number in steps:
                with scene.database() as url:
                    with psycopg.connect(url, autocommit=True) as connection:
                        # The copy itself does not survive a crash: with wal_level = minimal, PostgreSQL 16 and 18
                        # lose the pages of indexes of unlogged tables that CREATE DATABASE has copied.
                        connection.execute("CHECKPOINT")
                    process = scene.crash_harness(url, "crash", number)
                    said = process.communicate()[1]
                    is_crash = said.startswith("crashed\n")
                    assert process.returncode == (1 if is_crash else 0), said
                    wait_for(url)
                    what = "server crashed at a step" if is_crash else "no connection yet, or none any more"
                    torture.count(f"{what}: as {judge(scene, url)}")


def test_a_disk_that_is_full_under_postgresql(template: str, torture: Torture) -> None:
    """A server on a file system of its own, of which a file takes all but some: its tables or its log cannot grow.

    A table that cannot grow is an error; a log that cannot grow ends the server.
    """
    kilobytes = random.Random(7)
    cases = [("tables", 200), ("log", 100)]
    if torture.is_full:
        cases += [(what, kilobytes.randrange(800)) for what in ("tables", "log") for _ in range(20)]
    # A log that is not made of old files, and so needs room for each new one.
    settings = "wal_recycle = off\nmin_wal_size = 32MB\n"
    mount = tempfile.mkdtemp(prefix="full-", dir="/tmp")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m,mode=755", "tmpfs", mount], check=False).returncode:
        pytest.skip("only root may mount a file system")
    try:
        with server_to_restart(parent=mount, settings=settings) as (server, restart):
            make_migrated(server, template)
            for scene in setting_on(server, template):
                ballast = Path(mount) / "ballast"
                for what, room in cases:
                    with scene.database() as url:
                        if what == "log":
                            leave_in_log(url, room * 1024)
                        free = os.statvfs(mount).f_bavail * os.statvfs(mount).f_frsize
                        ballast.write_bytes(b"x" * (free - (room if what == "tables" else 4096) * 1024))
                        process = scene.crash_harness(url, "list")
                        said = process.communicate()[1]
                        ballast.unlink()
                        restart("fast")
                        is_told = said.startswith(
                            ("error: PostgreSQL ", "error: The connection to PostgreSQL was lost: ")
                        )
                        assert is_told or not process.returncode, said
                        is_full = f"disk of PostgreSQL {'' if process.returncode else 'nearly '}full, for its {what}"
                        torture.count(f"{is_full}: as {judge(scene, url)}")
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


def leave_in_log(url: str, room: int) -> None:
    """Have PostgreSQL fill the file of its log, but for so many bytes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        connection.execute(
            """SELECT pg_logical_emit_message(FALSE, 'filler', repeat('x', (segment - written %% segment)::INT - %s))
            FROM (SELECT pg_size_bytes(current_setting('wal_segment_size')) AS segment,
                pg_current_wal_insert_lsn() - '0/0'::PG_LSN AS written) AS log
            WHERE segment - written %% segment > %s""",
            [room, room],
        )


def wait_for(url: str) -> None:
    for _ in range(600):
        with suppress(psycopg.OperationalError):
            psycopg.connect(url).close()
            return
        time.sleep(0.1)
    raise AssertionError("the server does not come back")


def test_a_disk_that_is_full(scene: Scene, torture: Torture) -> None:
    """Files may not grow beyond a size: the engine's, in its temporary folder."""
    import resource

    limits = random.Random(5)
    for limit in [0, 3_000, *(limits.randrange(50_000) for _ in range(25 if torture.is_full else 1))]:
        with scene.database() as url:

            def limited(limit: int = limit) -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

            process = scene.crash_harness(url, "list", preexec_fn=limited)
            said = process.communicate()[1]
            assert (process.returncode, said.partition("temporary folder")[0]) in [
                (0, said),
                (1, "error: The "),
                (1, "error: No "),
            ]
            what = "temporary folder full" if process.returncode else "temporary folder nearly full"
            torture.count(f"{what}: as {judge(scene, url)}")
