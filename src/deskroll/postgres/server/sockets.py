"""The folder of the embedded server's socket: who reaches the socket is trusted, so only the server's user enters."""

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from deskroll.postgres.server import places
from deskroll.postgres.server.places import Place
from deskroll.postgres.server.postmaster import Recorded, is_private

_NAME: Final = ".s.PGSQL.5432"
_PREFIX: Final = "deskroll-socket-"
_LONGEST: Final = 107 if sys.platform == "linux" else 103  # bytes; a limit of the system


def folder_for(place: Place) -> Path:
    """The folder for the socket: that of the data, or a new one with a short path.

    A new folder belongs to the server's user, and is closed to all others, before the server starts.

    Raises:
        OSError: the folder cannot be made.
    """
    if _fits(place.data):
        return place.data
    if place.account:
        places.make_shared()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=places.SHARED))
        places.give(folder, place.account)
        return folder
    parent = next(path for path in (Path(tempfile.gettempdir()), Path("/tmp")) if _fits(path / f"{_PREFIX}12345678"))
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))


def _fits(folder: Path) -> bool:
    """Whether a socket's path may be so long, and whether a URL can hold it: a comma separates hosts there."""
    return len(os.fsencode(folder / _NAME)) <= _LONGEST and "," not in str(folder)


def discard(recorded: Recorded, place: Place) -> None:
    """Remove the socket that a server has left, with its lock, and the folder if `folder_for` made it.

    The lock names a process too: as long as that number lives, whoever has it, PostgreSQL does not start.
    """
    _remove_socket(place.data, place.owner)
    # Data that were copied name the folder of the original, which may run.
    if recorded.socket and recorded.socket.name.startswith(_PREFIX) and recorded.data == str(place.data):
        _remove_socket(recorded.socket, place.owner)
        with suppress(OSError):
            recorded.socket.rmdir()


def _remove_socket(folder: Path, owner: int) -> None:
    if os.name == "nt" or not is_private(folder, owner):
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in (_NAME, f"{_NAME}.lock"):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=handle)
        finally:
            os.close(handle)
