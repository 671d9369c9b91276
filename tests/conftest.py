"""A real PostgreSQL for every test: one server for the session, one database per test, cloned from a migrated one."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader
from pydantic import SecretStr

from deskroll import sync as sync_module
from deskroll.errors import EngineError
from deskroll.postgres import database
from deskroll.postgres.guards import Limits
from deskroll.postgres.migrations import migrate
from deskroll.postgres.server import accounts, binaries, embedded
from deskroll.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession  # heavy, and on a machine without Java of no use

SAMPLE = Path(__file__).parent.parent / "sample_data"
DAYS = {"day1": "2026-01-05", "day2": "2026-01-06", "day3": "2026-01-07", "tran": "2026-01-04"}

for name in [name for name in os.environ if name.startswith("DESKROLL_")]:
    del os.environ[name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--database-url", help="Run on this server, as a user that may create databases.")
    parser.addoption("--torture", type=Path, help="Do all of it, and write the counts into this folder.")
    parser.addoption("--update-docs", action="store_true", help="Write the generated pages anew.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for mark in metafunc.definition.iter_markers("chunks"):
        metafunc.parametrize("chunk", range(*mark.args) if metafunc.config.getoption("--torture") else [0])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--torture"):
        return
    rare = [item for item in items if item.get_closest_marker("rare")]
    items[:] = [item for item in items if item not in rare]
    config.hook.pytest_deselected(items=rare)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have one worker do all that needs Spark: a JVM takes memory and half a minute.

    xdist's own groups do nothing with pytest 9.2, which no longer lets it change a test's id.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneWorkerForSpark(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "spark" if file.endswith(("test_spark.py", "test_spark_links.py", "test_parity.py")) else nodeid

    return OneWorkerForSpark(config, log)


def _server_home(config: pytest.Config) -> Path:
    return Path(config.cache.mkdir("server")) if config.cache else Path(".pytest_cache/server")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):  # not in a worker: all of them are done
        embedded.stop(_server_home(session.config))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> str:
    """The URL of a database on the server, from which others can be made."""
    given: str | None = request.config.getoption("--database-url")
    return given or embedded.start(_server_home(request.config))


def other_servers() -> dict[str, Path]:
    """Other PostgreSQL servers on this machine, as Debian and the embedded package lay them out."""
    package = binaries.folder().parents[1]
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *package.glob("pginstall*/bin")]
    return {path.parent.name: path for path in found if (path / "initdb").exists()}


@contextmanager
def another_server(name: str = "pginstall", auth: str = "trust") -> Iterator[str]:
    """A server of another kind for the length of a test; yields a URL."""
    with server_to_restart(name, auth) as (url, _):
        yield url


@contextmanager
def another_embedded() -> Iterator[str]:
    """An embedded server for the length of a test; yields a URL."""
    home = Path(tempfile.mkdtemp(prefix="deskroll-pg-", dir="/tmp"))
    home.chmod(0o755)  # it may run as another user
    try:
        yield embedded.start(home)
    finally:
        embedded.stop(home)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def server_to_restart(
    name: str = "pginstall", auth: str = "trust", parent: str = "/tmp", settings: str = ""
) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The like; yields also what restarts it, given the mode of pg_ctl in which it is to stop."""
    home = Path(tempfile.mkdtemp(prefix="deskroll-pg-", dir=parent))  # a socket's path must be short
    programs = other_servers()[name]
    password = home / "password"
    password.write_text("right")
    as_other: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        account = accounts.for_server()
        for path in (home, password):
            os.chown(path, account.uid, account.gid)
        as_other |= account.options()
        if programs.is_relative_to(binaries.folder().parents[1]):  # the account may not reach this checkout
            programs = binaries.reachable(account, programs)
    control = [str(programs / "pg_ctl"), "-w", "-D", str(home / "data")]
    options = [f"--auth={auth}", "-U", "postgres", "-E", "UTF8", "--pwfile", str(password), "-D", str(home / "data")]
    try:
        subprocess.run([str(programs / "initdb"), *options], check=True, capture_output=True, **as_other)
        with (home / "data/postgresql.conf").open("a") as conf:
            conf.write(settings)
        start = [*control, "-o", f"-h '' -k {home}", "-l", str(home / "log"), "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **as_other)

        def restart(mode: str) -> None:
            subprocess.run([*control, "-m", mode, "stop"], check=False, capture_output=True, **as_other)
            subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **as_other)

        yield f"postgresql://postgres@/postgres?host={home}", restart
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, **as_other)
        shutil.rmtree(home, ignore_errors=True)


def url_of(url: str, name: str) -> str:
    base, _, query = url.partition("?")
    return f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")


class Torture:
    """How much of the long tests to do, and how often what came to pass."""

    def __init__(self, folder: Path | None) -> None:
        self.is_full = folder is not None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            self.log = folder / f"{uuid.uuid4().hex}.counts"

    def count(self, what: str) -> None:
        """Note that it came to pass once more; at once, so that a run that is stopped counts as far as it came."""
        if self.is_full:
            with self.log.open("a") as log:
                log.write(f"{what}\n")


@pytest.fixture(scope="session")
def torture(request: pytest.FixtureRequest) -> Torture:
    return Torture(request.config.getoption("--torture"))


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a migrated database."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    make_migrated(server, name)
    yield name
    drop_database(server, name)


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


@pytest.fixture
def url(server: str, template: str) -> Iterator[str]:
    """The URL of a migrated, empty database of the test's own."""
    with new_database(server, template) as made:
        yield made


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
        rows = self.rows("SELECT agent_id, role_id, action, extract(day FROM sync_date)::INT FROM agent_role_history")
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
        """The rows of every table, in some order, without what no two runs have alike; `since` is when they began."""

        def plain(value: Any) -> Any:
            return "NOW" if isinstance(value, datetime) and value >= since else value

        cursor = self.connection.cursor()
        cursor.adapters.register_loader("jsonb", TextLoader)  # Python cannot read all that PostgreSQL can

        tables = self.rows(
            """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE
            AND relname <> 'deskroll_migrations' ORDER BY 1"""
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
            AND relname NOT LIKE 'stg_%' AND relname NOT LIKE '%_errors' AND relname NOT LIKE 'sync_run%'"""
        )
        return sorted(row["relname"] for row in found)


# What no two runs have alike.
_OF_A_RUN = {"id", "run_id", "engine", "fingerprint", "loaded_by", "seconds"}


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    asked = Database(url)
    yield asked
    asked.connection.close()


class Dump:
    """A dump that a test writes: `dump.write("day1", "agents", [...])`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = itertools.count(1)

    def write(self, day: str, folder: str, content: Any, name: str | None = None) -> Path:
        """Write JSON, or bytes as they are, into a file; a folder alone where the content is None."""
        where = self.path / f"sync-{day}" / folder
        where.mkdir(parents=True, exist_ok=True)
        if content is None:
            return where
        file = where / (name or f"{next(self._number):04}.json")
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return file


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    return Dump(tmp_path / "dump")


def agent(agent_id: Any, **changed: Any) -> dict[str, Any]:
    """A valid master-list record; keyword arguments replace members, a dict for `contact` is merged."""
    contact = {"email": f"a{agent_id}@example.com", "name": f"Agent {agent_id}"} | (changed.pop("contact", None) or {})
    return {"id": agent_id, "contact": contact, "updated_at": "2026-01-01T00:00:00Z"} | changed


def role(role_id: int, **more: Any) -> dict[str, Any]:
    """A valid role."""
    return {"id": role_id, "name": f"Role {role_id}", **more}


def group(group_id: Any, *agent_ids: Any, parent: Any = None) -> dict[str, Any]:
    """A valid group with these members."""
    return {"id": group_id, "name": f"Group {group_id}", "agent_ids": list(agent_ids), "parent_group_id": parent}


def budget(budget_id: str, **changed: Any) -> dict[str, Any]:
    """A valid budget; keyword arguments replace members."""
    return {"id": budget_id, "name": f"Budget {budget_id}", "currentPeriod": {"limit": 100}} | changed


def card(card_id: str, **changed: Any) -> dict[str, Any]:
    """A valid card of budget b1."""
    made = {"status": "ACTIVATED", "type": "PHYSICAL", "createdTime": "2025-01-01T00:00:00.000+00:00"}
    return {"id": card_id, "name": f"Card {card_id}", "budgetId": "b1", **made} | changed


def transaction(transaction_id: str, **changed: Any) -> dict[str, Any]:
    """A valid transaction of 12.34 dollars with card c1; a dict for `currencyData` is merged."""
    money = {"originalCurrencyAmount": "1234", "originalCurrencyCode": "USD", "exponent": 2, "exchangeRate": 1}
    links = {"cardId": "c1", "budgetId": "b1", "transactionType": "CLEAR"}
    times = {"occurredTime": "2026-01-05T12:00:00.000+00:00", "updatedTime": "2026-01-05T12:00:01.000+00:00"}
    money |= changed.pop("currencyData", {})
    return {"id": transaction_id, "uuid": f"u-{transaction_id}", **links, **times, "currencyData": money} | changed


INTERRUPTED = "error: Interrupted; nothing was published, unless `deskroll runs` says so.\n"


def heed_ctrl_c() -> None:
    """Before a program is run: shells have what they run in the background ignore it, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Shell:
    """Runs `python -m deskroll` and shows what came of it, without what differs from run to run."""

    def __init__(self, url: str, tmp_path: Path) -> None:
        self.url, self.tmp_path = url, tmp_path
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DESKROLL_DATABASE_URL": url}
        passed_on = ("COV", "PYTHONPATH")
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith(passed_on)}

    def run(self, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]  # options as they come
            [sys.executable, "-m", "deskroll", *map(str, arguments)],
            **{"env": self.environment, "capture_output": True, "text": True, "check": False, "cwd": self.tmp_path}
            | options,
        )

    def show(self, *arguments: object) -> str:
        done = self.run(*arguments)
        text = f"exit {done.returncode}\n--- stdout\n{done.stdout}--- stderr\n{done.stderr}"
        text = text.replace(str(self.tmp_path), "TMP").replace(self.url, "URL")
        given = conninfo_to_dict(self.url)
        text = text.replace(str(given.get("host")), "HOST").replace(str(given["dbname"]), "DATABASE")
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ +\d+\.\d", "WHEN SECONDS", text)
        text = re.sub(
            r'"(seconds|started_at|finished_at|ingested_at|created_at)": ("[^"]*"|[\d.]+)', r'"\1": "..."', text
        )
        text = re.sub(r"ingested_at: .*", "ingested_at: WHEN", text)
        return re.sub(r" +$", "", text, flags=re.MULTILINE)


@pytest.fixture
def shell(url: str, tmp_path: Path) -> Shell:
    return Shell(url, tmp_path)


Sync = Callable[..., sync_module.Outcome]


@pytest.fixture
def sync(url: str, dump: Dump) -> Sync:
    """Sync a day of the test's dump: `sync("day1", "2026-01-05")`."""

    def run(day: str, on: str | None = None, *, plan: bool = False, **limits: Any) -> sync_module.Outcome:
        return sync_into(url, str(dump.path), day, on or str(datetime.now(UTC).date()), plan=plan, **limits)

    return run


def sync_into(
    url: str,
    dump: str,
    day: str,
    on: str,
    engine: str = "duckdb",
    *,
    only: tuple[str, ...] = (),
    plan: bool = False,
    **limits: Any,
) -> sync_module.Outcome:
    """Sync a day of a dump in this process; however many of its records are bad, unless a limit is given."""
    request = sync_module.Request(dump, day, date.fromisoformat(on), only, engine)
    settings = Settings(database_url=SecretStr(url), threads=2)
    return sync_module.sync_day(
        request, settings, Limits(**{"max_rejected": "100%"} | limits), lambda step: None, plan=plan
    )


def messages(outcome: sync_module.Outcome) -> list[str]:
    """What the notes on a run say."""
    return [note.message for note in outcome.notes]


def changes(outcome: sync_module.Outcome, pipeline: str = "agents") -> dict[str, int]:
    """How many rows changed, and how."""
    return {change.change: change.count for change in outcome.published.changes if change.pipeline == pipeline}


@pytest.fixture(scope="session")
def spark() -> Iterator["SparkSession"]:
    """The active Spark session, as in a notebook; tests that use it run in one process."""
    from deskroll.engines.spark_session import check_java

    try:
        check_java()
    except EngineError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"{error.message} {error.hint}")
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2,3]")  # a task may fail twice
    warehouse = tempfile.mkdtemp(prefix="warehouse-")
    options = {"spark.ui.enabled": "false", "spark.log.level": "OFF", "spark.driver.memory": "1g"}
    for key, value in (options | {"spark.sql.warehouse.dir": warehouse}).items():
        builder = builder.config(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = builder.getOrCreate()
    yield session
    session.stop()
    shutil.rmtree(warehouse)
