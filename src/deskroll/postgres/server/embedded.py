"""The embedded PostgreSQL: started when it is needed, and left running so that psql and others can use it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psutil
import psycopg
from fasteners import InterProcessLock
from psycopg import sql

from deskroll.errors import DatabaseError
from deskroll.postgres.server import binaries, cluster, places, postmaster, sockets
from deskroll.postgres.server.places import Place

DATABASE: Final = "deskroll"

_PORT: Final = 5432
_PATIENCE: Final = 60.0  # seconds
_IS_WINDOWS: Final = os.name == "nt"


def start(home: Path) -> str:
    """Start the server whose data are in `home`/postgres, unless it runs; return its URL.

    Raises:
        DatabaseError: the data are not ours, or the server does not start; the message says why.
    """
    place = places.find(home)
    if "\n" in str(place.data):
        raise DatabaseError("A folder's name has a line break in it.", "Set DESKROLL_HOME to another folder.")
    try:
        places.make(place)
        with _locked(place):
            return _answer(place) or _start(place)
    except (OSError, subprocess.SubprocessError, psutil.Error, psycopg.Error) as error:
        raise cluster.failure(place, str(error)) from error


def stop(home: Path) -> bool:
    """Stop the server, if it runs, and wait until it has ended; return whether it ran.

    Clients are disconnected, and what they have not committed is rolled back.

    Raises:
        DatabaseError: the data are not ours, or the server does not stop.
    """
    place = places.find(home)
    try:
        if postmaster.read(place.data) is None:
            return False
        with _locked(place):
            return _stop(place)
    except (OSError, psutil.Error) as error:
        raise DatabaseError(
            f"The embedded PostgreSQL in {place.data} cannot be stopped: {error}", f"See {place.data / 'log'}."
        ) from error


def psql(home: Path) -> str | None:
    """The psql that comes with the server, if it comes with one."""
    return shutil.which("psql", path=str(binaries.folder()))


@contextmanager
def _locked(place: Place) -> Iterator[None]:
    """Keep other commands from starting or stopping the same server."""
    lock = place.home / "lock"
    try:
        with InterProcessLock(lock):
            yield
    except PermissionError as error:
        if error.filename != str(lock) and error.filename != os.fsencode(lock):
            raise
        raise DatabaseError(
            f"This user may not write to {place.home}: {error.strerror}: {lock}",
            "Run deskroll as the user who owns it, or set DESKROLL_HOME to a folder of your own.",
        ) from error


def _start(place: Place) -> str:
    programs = binaries.folder_for(place.account)
    cluster.prepare(place, programs)
    deadline = time.monotonic() + _PATIENCE
    launched, log_from = None, 0
    while time.monotonic() < deadline:
        if url := _answer(place):
            return url
        if not (launched and postmaster.is_alive(launched)) and not postmaster.process_of(place.data):
            said = _log(place, log_from)
            if launched and "pre-existing shared memory block" not in said:  # the processes of one that was killed
                _forget(place)
                raise cluster.failure(place, said)
            _forget(place)
            log_from = _size_of_log(place)
            launched = _launch(place, programs)
        time.sleep(0.05)
    raise DatabaseError(
        f"The embedded PostgreSQL in {place.data} runs, but has not answered for {_PATIENCE:.0f} seconds.",
        f"See {place.data / 'log'}: it may be recovering from a crash. Run again later.",
    )


def _launch(place: Place, programs: Path) -> int:
    """Start a server that outlives this command; return its process number."""
    options = ["-c", "lc_messages=C", "-c", "lc_monetary=C", "-c", "lc_numeric=C", "-c", "lc_time=C"]
    if _IS_WINDOWS:
        return _launch_on_windows(place, programs, options)
    # A list of folders: in quotes, so that a name may have any character.
    folder = str(sockets.folder_for(place)).replace('"', '""')
    options += ["-c", f'unix_socket_directories="{folder}"', "-c", "unix_socket_permissions=0700"]
    options += ["-c", "listen_addresses=", "-c", f"port={_PORT}"]
    server = [programs / "postgres", "-D", place.data, *options]
    # The shell ends at once, so the server is nobody's child; its user writes the log.
    script = 'log=$1; shift; umask 077; exec "$@" >>"$log" 2>&1 </dev/null & echo $!'
    done = cluster.run(place, ["/bin/sh", "-c", script, "sh", place.data / "log", *server], is_detached=True)
    return int(done.stdout)


def _launch_on_windows(place: Place, programs: Path, options: list[str]) -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        options = [*options, "-h", "127.0.0.1", "-p", str(free.getsockname()[1])]
    control: list[str | Path] = [
        programs / "pg_ctl",
        "-w",
        "-D",
        place.data,
        "-l",
        place.data / "log",
        "-o",
        " ".join(options),
        "start",
    ]
    with (place.data.parent / "start.log").open("w") as said:  # a pipe would stay open as long as the server runs
        subprocess.run(control, check=True, stdout=said, stderr=said)
    recorded = postmaster.read(place.data)
    return (recorded.pid if recorded else None) or 0


def _answer(place: Place) -> str | None:
    """The URL of the server, if it answers and these are its data; makes the database if it is not there.

    Raises:
        DatabaseError: it answers, and refuses.
    """
    recorded = postmaster.read(place.data)
    base = _base(place, recorded) if recorded else None
    if not base:
        return None
    try:
        with psycopg.connect(base.format("postgres"), autocommit=True, connect_timeout=5) as connection:
            if not _has(connection, place.data):
                return None
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.OperationalError as error:
        if "FATAL" in str(error) and "the database system is" not in str(error):
            raise
        return None
    return base.format(DATABASE)


def _base(place: Place, recorded: postmaster.Recorded) -> str | None:
    """The server's URL with a gap for the database, if the way to it is safe."""
    if recorded.socket is None:  # Windows has no sockets
        return f"postgresql://postgres@{recorded.host}:{recorded.port}/{{}}" if _IS_WINDOWS and recorded.port else None
    if not postmaster.is_private(recorded.socket, place.owner):
        return None
    is_told = recorded.port != _PORT or "PGPORT" in os.environ  # else every client takes it for granted
    port = f"&port={recorded.port}" if is_told else ""
    return f"postgresql://postgres@/{{}}?host={quote(os.fsencode(recorded.socket))}{port}"


def _has(connection: psycopg.Connection[tuple[str]], data: Path) -> bool:
    row = connection.execute("SHOW data_directory").fetchone()
    return row is not None and Path(row[0]).exists() and Path(row[0]).samefile(data)


def _stop(place: Place) -> bool:
    process = postmaster.process_of(place.data)
    recorded = postmaster.read(place.data)
    if process is None:
        if _answer(place):
            raise DatabaseError(
                f"The embedded PostgreSQL in {place.data} runs, but not as a process that this one can see.",
                "Stop it in the place that started it, perhaps another container.",
            )
        return False
    if _IS_WINDOWS:
        subprocess.run([binaries.folder() / "pg_ctl", "-m", "fast", "-D", place.data, "stop"], check=True)
    else:
        process.send_signal(2)  # SIGINT asks PostgreSQL for a fast shutdown; psutil sees that it is still this process
    deadline = time.monotonic() + _PATIENCE
    while postmaster.is_alive(process.pid):
        if time.monotonic() > deadline:
            raise DatabaseError(
                f"The embedded PostgreSQL in {place.data} (process {process.pid}) is still stopping.",
                f"See {place.data / 'log'}, and run again later.",
            )
        time.sleep(0.02)
    if recorded:
        sockets.discard(recorded, place)
    return True


def _forget(place: Place) -> None:
    """Remove what a server that is gone has left, so that its number does not keep the next one from starting."""
    if recorded := postmaster.read(place.data):
        (place.data / postmaster.FILE).unlink(missing_ok=True)
        sockets.discard(recorded, place)


def _size_of_log(place: Place) -> int:
    log = place.data / "log"
    return log.stat().st_size if log.exists() else 0


def _log(place: Place, since: int) -> str:
    log = place.data / "log"
    return log.read_bytes()[since:].decode(errors="replace") if log.exists() else ""
