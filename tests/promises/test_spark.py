"""The Spark engine around the rows: sessions, tasks that run twice, a cluster that loses a worker, what goes wrong."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from deskroll.engines import spark as spark_engine
from deskroll.engines.dialect import to_spark
from deskroll.engines.spark import Spark
from deskroll.errors import EngineError, UsageError
from deskroll.many_days import DayResult, DaysRequest, Event, sync_days
from deskroll.postgres import staging
from deskroll.postgres.database import Session, connect
from deskroll.postgres.guards import Limits
from deskroll.postgres.locks import locked
from deskroll.postgres.staging import Attempt, Load
from deskroll.settings import Settings
from tests.helpers.databases import Database, new_database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import SAMPLE, Shell, sync_into

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.usefixtures("spark")

TABLE = "stg_agent_group_membership"
COLUMNS = ("agent_id", "group_id")


def attempts(db: Database) -> list[str]:
    found = db.rows("SELECT relname FROM pg_class WHERE relname LIKE 'stg_attempt_%%' AND relkind = 'r'")
    return [row["relname"] for row in found]


@pytest.fixture
def engine(url: str) -> Iterator[Spark]:
    """An engine with a relation `members` of 1,000 rows in 16 partitions."""
    with Spark(Settings(database_url=SecretStr(url), spark_connections=4)) as opened:
        frame = opened._session.range(0, 1000, 1, 16).selectExpr("id AS agent_id", "id % 7 AS group_id")
        frame.createOrReplaceTempView("members")
        yield opened


@dataclass(frozen=True)
class Twice:
    """Writes as it should, and then fails the first time in each partition: Spark runs the task again."""

    attempt: Attempt
    marks: str

    def __call__(self, chunks: Iterator[bytes]) -> str:
        rows = b"".join(chunks)
        written = self.attempt(iter([rows]))
        mark = Path(self.marks) / re.sub(rb"[^0-9]", b"", rows[:40]).decode()
        if not mark.exists():
            mark.touch()
            raise RuntimeError("the executor is lost after the rows were committed")
        return written


@pytest.fixture
def by_value() -> Iterator[None]:
    """Executors have no tests to import."""
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]  # has no types
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]  # as above


@pytest.mark.usefixtures("by_value")
def test_a_task_that_spark_runs_again_leaves_no_row_twice(engine: Spark, db: Database, tmp_path: Path) -> None:
    def write(sink: Any) -> list[str]:
        return engine.copy_out("SELECT * FROM members", Twice(sink, str(tmp_path)))

    with connect(db.url) as connection, locked(connection, wait=False):
        session = Session(connection, db.url, "here")
        (loaded,) = staging.load(session, [Load(TABLE, list(COLUMNS), write, is_distributed=True)])
        session.close_others()
    assert loaded.rows == db.one(f"SELECT count(DISTINCT agent_id) FROM {TABLE}") == 1000
    assert len(list(tmp_path.iterdir())) == len(attempts(db)) == 4  # the rows that did not count are still there
    with connect(db.url) as connection:
        staging.begin(connection, ["agents"])
    assert attempts(db) == []


def test_no_more_connections_than_are_allowed(engine: Spark, db: Database) -> None:
    assert len(engine.copy_out("SELECT * FROM members", Attempt(db.url, TABLE, COLUMNS))) == 4


def test_many_days_in_one_session_give_what_duckdb_gives(
    db: Database, server: str, template: str, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump.write("2026-01-05", "agents", [agent(n) for n in (1, 2, 2, 3)])
    dump.write("2026-01-05", "agent_details", [agent(1, group_ids=[7]), {"id": "bad"}])
    dump.write("2026-01-06", "agents", [agent(n) for n in (2, 3, 4)])
    dump.write("2026-01-06", "roles", [{"id": 1, "name": "Admin"}])
    monkeypatch.setattr("deskroll.input.dump.SETTLED_AFTER", 0)
    began = datetime.now(UTC)
    told: list[Event] = []
    limits = Limits(allow_mass_change=True, max_rejected="100%")
    with new_database(server, template) as url:
        for where, engine in ((db.url, "spark"), (url, "duckdb")):
            settings = Settings(database_url=SecretStr(where))
            request = DaysRequest(str(dump.path), engine=engine)
            sync_days(request, settings, limits, told.append)
            sync_days(request, settings, limits, told.append)
        alone = Database(url)
        assert db.everything(began) == alone.everything(began)
        alone.connection.close()
    results = [event.result for event in told if isinstance(event, DayResult)]
    assert results == ["published", "published", "unchanged", "unchanged"] * 2


def test_the_session_of_a_notebook_stays_as_it_was(spark: "SparkSession", db: Database) -> None:
    spark.conf.set("spark.sql.session.timeZone", "Asia/Kolkata")
    before = {key: spark.conf.get(key) for key in (*spark_engine._SESSION, spark_engine._SHUFFLES)}
    sync_into(db.url, str(SAMPLE), "day1", "2026-01-05", "spark")
    assert {key: spark.conf.get(key) for key in before} == before
    assert spark.catalog.listTables() == []
    assert spark.range(3).count() == 3
    assert db.one("SELECT engine FROM sync_runs") == "spark"
    spark.conf.unset("spark.sql.session.timeZone")


def test_what_spark_lacks_is_refused_and_not_passed_on() -> None:
    assert to_spark("SELECT * EXCLUDE (a) FROM t ANTI JOIN u USING (k)") == (
        "SELECT * EXCEPT (a) FROM t ANTI JOIN u USING (k)"
    )


@pytest.mark.parametrize("content", [None, []])
def test_a_day_without_files_or_records(content: Any, dump: Dump, db: Database) -> None:
    dump.write("day1", "agent_details", content)
    dump.write("day1", "agents", [agent(1)])
    sync_into(db.url, str(dump.path), "day1", "2026-01-05", "spark")
    assert db.status() == {1: "active"}


def test_a_url_that_is_not_there(dump: Dump, url: str) -> None:
    dump.write("day1", "agents", [agent(1)])
    with pytest.raises(UsageError, match="The dump file:///nowhere"):
        sync_into(url, "file:///nowhere", "day1", "2026-01-05", "spark")
    with pytest.raises(UsageError, match="has no day 'dya1'") as raised:
        sync_into(url, f"file://{dump.path}", "dya1", "2026-01-05", "spark")
    assert raised.value.hint == "Did you mean day1? Days found: day1."
    with pytest.raises(UsageError) as raised:
        sync_into(url, f"file://{dump.path}", "day1", "2026-01-05", "duckdb")
    assert raised.value.hint == "A URL needs --engine spark."


def test_a_database_that_executors_cannot_reach(engine: Spark) -> None:
    nowhere = "postgresql://somebody:secret@127.0.0.1:1/nothing"
    with pytest.raises(EngineError) as raised:
        engine.copy_out("SELECT * FROM members", Attempt(nowhere, TABLE, COLUMNS))
    assert raised.value.message.startswith("Spark failed: DatabaseError: PostgreSQL on 127.0.0.1 cannot be used")
    assert "secret" not in raised.value.message + raised.value.hint


def test_an_option_that_a_running_session_cannot_take(url: str) -> None:
    settings = Settings(database_url=SecretStr(url), spark_conf={"spark.executor.memory": "4g"})
    with Spark(settings) as opened, pytest.raises(EngineError, match=r"spark\.executor\.memory"):
        opened.create("numbers", "SELECT 1 AS n")


def java(folder: Path, says: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    (folder / "bin" / "java").chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (None, "Spark needs Java, and there is none in"),
        ('java version "1.8.0_392"', "Spark needs Java 17 or newer; this is 8."),
        ('openjdk version "11.0.21" 2023-10-17', "Spark needs Java 17 or newer; this is 11."),
        ("no idea", "Spark needs Java 17 or newer; this is one that does not tell its version"),
    ],
)
def test_no_java_that_will_do(says: str | None, message: str, shell: Shell, tmp_path: Path) -> None:
    home = java(tmp_path / "java", says) if says else tmp_path
    done = shell.run("sync", SAMPLE, "--day", "day1", "--engine", "spark", env=shell.environment | {"JAVA_HOME": home})
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {message}"), done.stderr
    assert "apt install openjdk-17-jre-headless" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_executors_without_deskroll(shell: Shell, tmp_path: Path) -> None:
    bare = tmp_path / "bare"  # a Python that has all but deskroll
    bare.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c \"import sys, runpy; sys.modules['deskroll'] = None;"
        ' sys.argv[1:2] = []; runpy.run_module(sys.argv.pop(1), run_name=\'__main__\')" "$@"\n'
    )
    bare.chmod(0o755)
    done = shell.run(
        "sync", SAMPLE, "--day", "day1", "--engine", "spark", env=shell.environment | {"PYSPARK_PYTHON": str(bare)}
    )
    assert done.returncode == 1
    what, remedy = done.stderr.splitlines()
    assert what.startswith("error: Spark failed: ModuleNotFoundError: ")
    assert remedy == "Install this version of deskroll[spark] in the Python of the executors: see docs/spark.md."


def test_spark_is_not_installed(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "pyspark.py").write_text("raise ImportError('No module named pyspark')")
    done = shell.run(
        "sync", SAMPLE, "--day", "day1", "--engine", "spark", env=shell.environment | {"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[1] == "Install it with pip install 'deskroll[spark]'."


def test_a_session_of_its_own_says_nothing_and_leaves_nothing(shell: Shell, db: Database, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    done = shell.run(
        "sync", SAMPLE, "--day", "day1", "--sync-date", "2026-01-05", "--engine", "spark",
        "--spark-conf", "spark.driver.memory=1g", "--spark-conf", "spark.master=local[1]",
        env=shell.environment | {"TMPDIR": str(tmp_path / "tmp")},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("day1 as of 2026-01-05, spark, run 1\n")
    assert db.one("SELECT count(*) FROM agents") == 25
    assert [path.name for path in (tmp_path / "tmp").iterdir() if "deskroll" in path.name] == []
    assert [path.name for path in tmp_path.iterdir() if "spark" in path.name] == []


def test_a_session_that_does_not_start(shell: Shell) -> None:
    done = shell.run("sync", SAMPLE, "--day", "day1", "--engine", "spark", "--spark-conf", "spark.driver.memory=lots")
    assert done.returncode == 1
    assert done.stderr.startswith("error: Spark does not start: ")
    (log,) = re.findall(r"Its log is (.*)\.$", done.stderr)
    assert "lots" in Path(log).read_text()
    shutil.rmtree(Path(log).parent)


def test_a_wrong_option(shell: Shell) -> None:
    done = shell.run("sync", SAMPLE, "--day", "day1", "--engine", "spark", "--spark-conf", "spark.master")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --spark-conf 'spark.master' is not KEY=VALUE.\nIt looks like spark.executor.memory=4g.\n"
    )


@pytest.mark.rare
def test_spark_connect(shell: Shell, db: Database) -> None:
    done = shell.run(
        "sync", SAMPLE, "--day", "day1", "--sync-date", "2026-01-05", "--engine", "spark",
        env=shell.environment | {"SPARK_REMOTE": "local[2]"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert db.one("SELECT count(*) FROM agents") == 25


class Cluster:
    """A standalone cluster on loopback: a master, and workers of one core each."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"spark://127.0.0.1:{self.port}"
        self.processes = [self._start("master.Master", "--port", str(self.port), "--webui-port", "0")]
        for number in (1, 2):
            self.processes.append(
                self._start(
                    "worker.Worker",
                    "--webui-port",
                    "0",
                    "-c",
                    "1",
                    "-m",
                    "1g",
                    "-d",
                    str(home / f"w{number}"),
                    self.url,
                )
            )
        self._wait_for("master.Master", "Registering worker", 2)

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        import pyspark

        home = Path(pyspark.__file__).parent
        log = self.home / f"{name}-{len(list(self.home.glob('*.log')))}.log"
        with log.open("wb") as sink:
            return subprocess.Popen(
                [home / "bin" / "spark-class", f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1", *arguments],
                env=os.environ
                | {"SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m"},
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for(self, name: str, said: str, times: int) -> None:
        until = time.monotonic() + 60
        while sum(path.read_text().count(said) for path in self.home.glob(f"{name}*.log")) < times:
            assert time.monotonic() < until, [path.read_text() for path in self.home.glob("*.log")]
            time.sleep(0.2)

    def kill(self, number: int) -> None:
        """Kill a worker and the executor on it, at once."""
        assert any("Asked to launch executor" in p.read_text() for p in self.home.glob(f"worker.Worker-{number}.log"))
        os.killpg(self.processes[number].pid, signal.SIGKILL)

    def stop(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


# Prints each step before it begins, and waits for a line: the test may do something in between.
STEPS = """
import json, sys
from datetime import date
from deskroll.postgres.guard import Limits
from deskroll.settings import Settings
from deskroll.sync import Request, sync_day

def tell(step):
    print(step, flush=True)
    sys.stdin.readline()

sync(Request(sys.argv[1], "day1", date(2026, 1, 5), engine="spark"), Settings(), Limits(), tell)
"""


@pytest.mark.rare
@pytest.mark.parametrize("step", ["reading agents", "staging agents"])
def test_a_cluster_that_loses_a_worker(
    step: str, cluster: Cluster, shell: Shell, dump: Dump, db: Database, server: str, template: str
) -> None:
    for page in range(24):
        some = [agent(n, group_ids=[n % 5], signature="x" * 2000) for n in range(page * 200, page * 200 + 200)]
        dump.write("day1", "agent_details", [*some, {"id": "x"}])
        dump.write("day1", "agents", some)
    began = datetime.now(UTC)
    conf = {"spark.master": cluster.url, "spark.driver.host": "127.0.0.1"}
    steps = []
    with subprocess.Popen(
        [sys.executable, "-c", STEPS, str(dump.path)],
        env=shell.environment | {"DESKROLL_SPARK_CONF": json.dumps(conf), "PYSPARK_PYTHON": sys.executable},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        for line in process.stdout:
            steps.append(line)
            if line.startswith(step):
                cluster.kill(1)
            process.stdin.write("\n")
            process.stdin.flush()
    assert process.returncode == 0
    assert any(line.startswith(step) for line in steps)
    with new_database(server, template) as url:
        alone = Database(url)
        sync_into(url, str(dump.path), "day1", "2026-01-05")
        assert db.everything(began) == alone.everything(began)
        alone.connection.close()
