"""A sync with a fault at one of its steps: `python -m tests.helpers.crash FAULT NUMBER sync DATA --day DAY …`.

The steps are those between any two statements, wherever deskroll runs them: each of a publish file, each chunk of a
COPY, each query of the engine, both ends of each transaction. They are counted by wrapping the libraries' functions, so
that the product itself knows nothing of it. FAULT is what happens at step NUMBER:

    kill         this process is killed
    terminate    PostgreSQL ends this process's connections
    crash        a server process is killed, so that PostgreSQL restarts and recovers
    list         nothing; the steps' names are printed at the end
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.transaction import Transaction

from deskroll.engines import duckdb as engine
from deskroll.postgres.publisher import FILES

_PUBLISH = {path.read_text() for path in FILES.glob("*.sql")}
_names: list[str] = []
_lock = threading.Lock()
_servers: set[int] = set()  # the server processes that serve this process


def step(name: str) -> None:
    """Count a step, and run into the fault if it is the one."""
    with _lock:
        _names.append(" ".join(name.split())[:70])
        is_the_one = len(_names) == NUMBER
    if is_the_one:
        _FAULTS[FAULT]()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _terminate() -> None:
    with _connect(URL, autocommit=True) as other:
        for server in list(_servers):  # other threads add to them
            _execute(other, "SELECT pg_terminate_backend(%s)", [server])


def _crash() -> None:
    with _connect(URL, autocommit=True) as other:
        alive = _execute(other, "SELECT max(pid) FROM pg_stat_activity WHERE pid = ANY (%s)", [list(_servers)])
        (server,) = alive.fetchone()
    with suppress(ProcessLookupError, TypeError):  # it has just ended, or there is none
        os.kill(server, signal.SIGKILL)
        sys.stderr.write("crashed\n")


_FAULTS: dict[str, Callable[[], None]] = {"kill": _kill, "terminate": _terminate, "crash": _crash, "list": lambda: None}

_connect: Any = psycopg.connect
_execute: Any = psycopg.Connection.execute


def _statements(query: Any) -> Iterator[Any]:
    """The statements of a publish file one by one; any other query as it is."""
    if not isinstance(query, str) or query not in _PUBLISH:
        yield query
        return
    lines = [line for line in str(query).splitlines() if not line.startswith("--")]
    yield from (statement for statement in "\n".join(lines).split(";\n") if statement.strip())


def _wrap(owner: Any, name: str, said: str) -> None:
    plain = getattr(owner, name)

    def wrapped(self: Any, *arguments: Any, **options: Any) -> Any:
        step(f"before {said} {arguments[0] if arguments and isinstance(arguments[0], str) else ''}")
        result = plain(self, *arguments, **options)
        if owner is Transaction:
            step(f"after {said}")
        return result

    setattr(owner, name, wrapped)


def _counted(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
    _servers.add(connection.info.backend_pid)
    cursor = None
    for statement in _statements(query):
        step(f"before {statement}")
        cursor = _execute(connection, statement, *arguments, **options)
    return cursor


if __name__ == "__main__":
    FAULT, NUMBER, URL = sys.argv[1], int(sys.argv[2]), os.environ["DESKROLL_DATABASE_URL"]
    sys.argv[1:3] = []
    psycopg.Connection.execute = _counted  # type: ignore[method-assign, assignment]  # that is the purpose
    _wrap(psycopg.Copy, "write", "a chunk of COPY")
    _wrap(Transaction, "__enter__", "BEGIN")
    _wrap(Transaction, "__exit__", "COMMIT")
    _wrap(engine.DuckDB, "_run", "the engine's")
    from deskroll.__main__ import main

    try:
        main()
    finally:
        if FAULT == "list":
            sys.stderr.write("\n".join(_names))
