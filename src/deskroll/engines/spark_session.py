"""A Spark session: found or started, and what goes wrong in it explained."""

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from deskroll.engines.duckdb import make_temp
from deskroll.errors import EngineError

OLDEST_JAVA: Final = 17
# Of a session that deskroll starts itself, if nothing else is said.
_STARTED: Final = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


def start_session(conf: dict[str, str]) -> tuple[SparkSession, Path | None]:
    """Start a session as the options, the environment and Spark's own configuration say; on this machine by default.

    A JVM that this starts has a folder for itself, which is returned too: its log goes there, because a person wants
    to read what deskroll says.
    """
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)  # says in JSON what an exception says too
    builder = SparkSession.builder.appName("deskroll")
    remote = conf.get("spark.remote") or os.environ.get("SPARK_REMOTE", "")
    if "PYSPARK_GATEWAY_PORT" in os.environ or (remote and not remote.startswith("local")):
        return builder.config(map={**conf}).getOrCreate(), None
    check_java()
    if conf.get("spark.master", "local").startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    folder = make_temp("deskroll-spark-")
    builder = builder.config(map={**_STARTED, "spark.sql.warehouse.dir": str(folder / "warehouse"), **conf})
    stderr = os.dup(2)
    with (folder / "log").open("wb") as log:
        os.dup2(log.fileno(), 2)
        try:
            return builder.getOrCreate(), folder
        except (PySparkException, Py4JError, OSError) as error:
            raise EngineError(f"Spark does not start: {_reason(error)}", f"Its log is {folder / 'log'}.") from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def check_java() -> None:
    """See that there is a Java for Spark.

    Raises:
        EngineError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    remedy = f"Install Java {OLDEST_JAVA} or newer (Debian: apt install openjdk-17-jre-headless), or set JAVA_HOME."
    if not java:
        raise EngineError(f"Spark needs Java, and there is none{f' in {home}' if home else ''}.", remedy)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if not version or int(version[1]) < OLDEST_JAVA:
        found = version[1] if version else f"one that does not tell its version ({java})"
        raise EngineError(f"Spark needs Java {OLDEST_JAVA} or newer; this is {found}.", remedy)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Spark says into what a person can do about it."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        remedy = "Nothing was published. Spark's logs may say more."
        if "ModuleNotFoundError" in (reason := _reason(error)):
            remedy = "Install this version of deskroll[spark] in the Python of the executors: see docs/spark.md."
        raise EngineError(f"Spark failed: {reason}", remedy) from error


def _reason(error: Exception) -> str:
    """The line that tells what went wrong: the last that names an exception of Python's, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"(?!org\.|java\.)[A-Za-z_.]+(Error|Exception): ", line)]
    return raised[-1].removeprefix("deskroll.errors.") if raised else (lines or [type(error).__name__])[0]


def cores(session: SparkSession) -> int:
    """How many tasks run at once, as far as can be told."""
    try:
        return int(session.sparkContext.defaultParallelism)
    except PySparkException:  # Spark Connect does not tell
        return 8
