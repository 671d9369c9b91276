"""The data of the embedded server: made by initdb, checked before each start; and why a program of it failed."""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deskroll.errors import DatabaseError
from deskroll.postgres.server import binaries, places
from deskroll.postgres.server.places import Place

# Nobody replicates from this server: without the log that replicas need, filling a new table writes no log at all.
_SETTINGS: Final = ("wal_level=minimal", "max_wal_senders=0", "max_wal_size=4GB", "shared_buffers=256MB")
# A locale of PostgreSQL's own, whatever the machine has; messages in English.
_LOCALE: Final = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "-E", "UTF8")
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "COMSPEC", "TEMP")

_logger = logging.getLogger(__name__)


def prepare(place: Place, programs: Path) -> None:
    """Make the data if there are none, and see that our PostgreSQL can use them.

    Raises:
        DatabaseError: they cannot be made, are of another version, or are not complete.
        OSError: a folder cannot be made.
    """
    if not (place.data / "PG_VERSION").exists():
        _make(place, programs)
        if place.is_shared:
            _logger.warning("The embedded PostgreSQL keeps its data in %s.", place.data)
    version = (place.data / "PG_VERSION").read_text().strip()
    if version != str(binaries.VERSION):
        raise DatabaseError(
            f"The data in {place.data} are of PostgreSQL {version}; deskroll brings PostgreSQL {binaries.VERSION}.",
            "Set DESKROLL_HOME to another folder and sync again, or run the old server yourself with --database-url.",
        )
    if not (place.data / "global" / "pg_control").exists():
        raise DatabaseError(
            f"The data in {place.data} are not complete: making them was interrupted, or files were lost.",
            "Restore them, or remove the folder and sync again.",
        )


def _make(place: Place, programs: Path) -> None:
    """Make the data beside their place and move them there: if this is interrupted, the next command begins anew."""
    if place.data.is_mount():  # nothing can take its place; initdb empties it if it fails
        _initdb(place, programs, place.data)
        return
    if place.data.exists() and any(place.data.iterdir()):
        raise DatabaseError(
            f"{place.data} is not empty, and holds no database.",
            "Move away what is in it, or set DESKROLL_HOME to another folder.",
        )
    unfinished = place.home / "postgres.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(0o700)
    try:
        if place.account:
            places.give(unfinished, place.account)
        _initdb(place, programs, unfinished)
        unfinished.replace(place.data)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _initdb(place: Place, programs: Path, data: Path) -> None:
    settings = [f"--set={setting}" for setting in _SETTINGS]
    done = run(place, [programs / "initdb", "--auth=trust", "-U", "postgres", *_LOCALE, *settings, "-D", data])
    if done.returncode:
        raise failure(place, done.stderr)


def run(place: Place, command: Sequence[object], *, is_detached: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program as the server's user, with nothing of our environment that it could take for its settings."""
    return subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        cwd="/",
        start_new_session=is_detached,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | {"LC_ALL": "C"},
        **(place.account.options() if place.account else {}),
    )


def failure(place: Place, said: str) -> DatabaseError:
    """The error that says why the server does not start, in the words of the program that failed."""
    reason = _reason(said)
    log = f"See {place.data / 'log'}, or use" if (place.data / "log").exists() else "Use"
    first = "Free space there, and run again. " if "No space left" in reason else ""
    return DatabaseError(
        f"The embedded PostgreSQL in {place.data} does not start: {reason}",
        f"{first}{log} a server of your own with --database-url.",
    )


def _reason(said: str) -> str:
    """The first error of a program with its detail, else the last line that it wrote."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if any("contains errors" in line for line in lines):  # a file of settings; what they are is logged before
        return _marked("LOG", lines)[0]
    reasons = _marked("FATAL|PANIC|ERROR|error", lines) or lines[-1:] or ["it does not say why"]
    return " ".join(reasons[:1] + _marked("DETAIL", lines)[:1])


def _marked(levels: str, lines: list[str]) -> list[str]:
    return [found[1].strip() for line in lines if (found := re.search(rf"\b(?:{levels}):\s+(.*)", line))]
