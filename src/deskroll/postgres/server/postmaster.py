"""The server process of a data folder.

`postmaster.pid` outlives a crash, and its number may by then belong to any other process. So a process is taken for the
server only if it is a postgres, runs as the owner of the data, and works in the data folder.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from deskroll.errors import DatabaseError

FILE: Final = "postmaster.pid"


@dataclass(frozen=True)
class Recorded:
    """What `postmaster.pid` says; what it does not say is None."""

    pid: int | None
    data: str
    port: int | None
    socket: Path | None
    host: str | None


def read(data: Path) -> Recorded | None:
    """What `postmaster.pid` says, if there is one; it may say nothing, or be garbage."""
    try:
        text = (data / FILE).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    lines = [line.strip(" \r\0") for line in text.split("\n")] + [""] * 6
    pid, port = (int(line) if line.isascii() and line.isdigit() else None for line in (lines[0], lines[3]))
    return Recorded(pid, lines[1], port, Path(lines[4]) if lines[4].startswith("/") else None, lines[5] or None)


def process_of(data: Path) -> psutil.Process | None:
    """The server's process, if it runs.

    Raises:
        DatabaseError: there may be one, but the system does not let us see whose data it serves.
    """
    recorded = read(data)
    if recorded is None:
        return None
    numbers = psutil.pids() if recorded.pid is None else [recorded.pid]
    return next((process for number in numbers if (process := _server(number, data))), None)


def is_alive(pid: int) -> bool:
    """Whether a process lives; one that only waits for its parent to notice its end does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _server(pid: int, data: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(pid)
        is_postgres = process.status() != psutil.STATUS_ZOMBIE and Path(process.name()).stem == "postgres"
        return process if is_postgres and _is_of_owner(process, data) and _serves(process, data) else None
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise DatabaseError(
            f"The process {pid} is a postgres, and the system does not say whether it serves {data}.",
            f"If it does not, and no other server uses this folder, remove {data / FILE} and run again.",
        ) from error


def _is_of_owner(process: psutil.Process, data: Path) -> bool:
    return os.name == "nt" or process.uids().effective == data.stat().st_uid


def _serves(process: psutil.Process, data: Path) -> bool:
    command = process.cmdline()
    if command and command[0].startswith("postgres:"):  # a process of a server, not the server
        return False
    try:
        return Path(process.cwd()).samefile(data)
    except (psutil.AccessDenied, psutil.ZombieProcess):
        if str(data) in command:
            return True
        raise
    except OSError:  # its folder was removed
        return False


def is_private(folder: Path, owner: int) -> bool:
    """Whether a folder is one that only its owner enters: no link, of that user, closed to all others."""
    try:
        entry = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(entry.st_mode) and entry.st_uid == owner and not stat.S_IMODE(entry.st_mode) & 0o077
