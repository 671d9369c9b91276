"""A real PostgreSQL for every test: one server for the session, one database per test, cloned from a migrated one."""

import os
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deskroll import sync as sync_module
from deskroll.errors import EngineError
from deskroll.postgres.server import embedded
from tests.helpers.databases import Database, drop_database, make_migrated, new_database
from tests.helpers.factories import Dump
from tests.helpers.runs import Shell, Sync, sync_into
from tests.helpers.torture import Torture

if TYPE_CHECKING:
    from pyspark.sql import SparkSession  # heavy, and on a machine without Java of no use

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


@pytest.fixture
def url(server: str, template: str) -> Iterator[str]:
    """The URL of a migrated, empty database of the test's own."""
    with new_database(server, template) as made:
        yield made


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    asked = Database(url)
    yield asked
    asked.connection.close()


@pytest.fixture
def dump(tmp_path: Path) -> Dump:
    return Dump(tmp_path / "dump")


@pytest.fixture
def shell(url: str, tmp_path: Path) -> Shell:
    return Shell(url, tmp_path)


@pytest.fixture
def sync(url: str, dump: Dump) -> Sync:
    """Sync a day of the test's dump: `sync("day1", "2026-01-05")`."""

    def run(day: str, on: str | None = None, *, plan: bool = False, **limits: Any) -> sync_module.Outcome:
        return sync_into(url, str(dump.path), day, on or str(datetime.now(UTC).date()), plan=plan, **limits)

    return run


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
