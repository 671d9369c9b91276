"""Where the embedded server keeps its data, and as whom it runs.

Usually that is the home that the settings name, and the user who runs the command. Root is another matter: its server
runs as an unprivileged account, which must be able to reach the data, and root must not be led astray by somebody who
owns a folder above them. If the home does not do, root's data lie below `SHARED`. No folder that is there is opened.
"""

import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from deskroll.errors import DatabaseError
from deskroll.postgres.server import accounts
from deskroll.postgres.server.accounts import Account

SHARED = Path("/var/lib/deskroll")
"""Root's own place: data, sockets and programs that the server's account cannot have elsewhere."""


@dataclass(frozen=True)
class Place:
    """A home of the server, and the account that root runs it as."""

    home: Path
    account: Account | None = None

    @property
    def data(self) -> Path:
        """The folder of the data."""
        return self.home / "postgres"

    @property
    def owner(self) -> int:
        """The user who owns the data and runs the server."""
        return self.account.uid if self.account else os.geteuid()

    @property
    def is_shared(self) -> bool:
        """Whether the data lie in root's own place, not in the home that the settings name."""
        return self.home.parent == SHARED


def find(home: Path) -> Place:
    """The place of the data; touches nothing.

    Raises:
        DatabaseError: the data belong to somebody else, or root cannot trust the way to them.
    """
    home = home.absolute()
    if accounts.is_root():
        return _of_root(home)
    place = Place(home)
    if os.name != "nt" and _exists(place.data):
        _check_owner(place.data, os.geteuid())
    return place


def _exists(path: Path) -> bool:
    """Whether it exists; a folder that we may not look into is reported by whoever uses it next."""
    try:
        return path.exists()
    except PermissionError:
        return False


def _of_root(home: Path) -> Place:
    home = home.parent.resolve() / home.name if home.name not in ("", "..") else home.resolve()
    data = home / "postgres"
    for path in (home, data):
        if path.is_symlink():
            raise DatabaseError(
                f"{path} is a symbolic link, and root does not follow it: whoever made it decides to where.",
                "Set DESKROLL_HOME to the folder itself, or run deskroll as the user who owns it.",
            )
    if home.exists():
        _check_owner(home, 0)
    if data.exists() and not _is_replaceable(data):
        return Place(home, _account_of(data))
    account = accounts.for_server()
    shared = Place(SHARED / _short_name(home), account)
    if shared.data.exists():
        return Place(shared.home, _account_of(shared.data))
    nearest = next(path for path in (home, *home.parents) if path.exists())
    return Place(home, account) if is_trusted(nearest) and accounts.can_enter(account, nearest) else shared


def _is_replaceable(data: Path) -> bool:
    """Whether it is an empty folder of root's, which the data may take the place of."""
    return data.stat().st_uid == 0 and not data.is_mount() and not any(data.iterdir())


def _account_of(data: Path) -> Account:
    """The account that owns data which are there."""
    uid = data.stat().st_uid
    known = [account for account in map(accounts.named, accounts.ACCEPTED) if account and account.uid == uid]
    if not known:
        _check_owner(data, accounts.for_server().uid)
    if not is_trusted(data.parent):
        raise DatabaseError(
            f"Root does not use the data in {data}: somebody else may write to a folder above them.",
            f"Move {data.parent} to a folder in which only root may write, and set DESKROLL_HOME to it.",
        )
    if not accounts.can_enter(known[0], data):
        raise DatabaseError(
            f"The data in {data} belong to {known[0].name}, who cannot reach them.",
            f"Move {data.parent} to a folder that {known[0].name} can reach, and set DESKROLL_HOME to it.",
        )
    return known[0]


def _check_owner(folder: Path, expected: int) -> None:
    owner = folder.stat().st_uid
    if owner == expected:
        return
    name = accounts.name_of(owner)
    raise DatabaseError(
        f"{folder} belongs to {name}; deskroll would run the embedded PostgreSQL as {accounts.name_of(expected)}.",
        f"Run deskroll as {name}, or set DESKROLL_HOME to a folder of your own."
        if owner
        else "Give it to that user, or set DESKROLL_HOME to another folder.",
    )


def is_trusted(folder: Path) -> bool:
    """Whether nobody but root can put something else in place of a folder, or of one above it."""
    return all(_is_roots(path.lstat()) for path in (folder, *folder.parents))


def _is_roots(entry: os.stat_result) -> bool:
    others = stat.S_IWOTH | (stat.S_IWGRP if entry.st_gid else 0)
    is_closed = not entry.st_mode & others or entry.st_mode & stat.S_ISVTX
    return stat.S_ISDIR(entry.st_mode) and entry.st_uid == 0 and bool(is_closed)


def _short_name(home: Path) -> str:
    parts = re.sub(r"[^\w.]+", "-", "-".join(home.parts[-3:]), flags=re.ASCII).strip("-.")
    return f"{parts[-30:].strip('-.')}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:10]}"


def make(place: Place) -> None:
    """Make the home and what is missing above it; root lets the server's account pass through what it makes.

    Raises:
        OSError: a folder cannot be made.
        DatabaseError: root's own place is not only root's.
    """
    if not place.account:
        place.home.mkdir(parents=True, exist_ok=True)
        return
    if place.is_shared:
        make_shared()
    make_open(place.home)


def make_shared() -> None:
    """Make root's own place.

    Raises:
        DatabaseError: somebody else may write there.
    """
    make_open(SHARED)
    if not is_trusted(SHARED):
        raise DatabaseError(
            f"Root does not use {SHARED}: somebody else may write there.",
            f"See who made it; give it to root (chown root {SHARED}; chmod 755 {SHARED}) or remove it.",
        )


def make_open(folder: Path) -> None:
    """Make a folder and what is missing above it so that everybody may pass, whatever the umask."""
    for path in [path for path in (folder, *folder.parents) if not path.exists()][::-1]:
        path.mkdir()
        path.chmod(0o755)


def give(folder: Path, account: Account) -> None:
    """Give a folder that we have just made to an account, never what a link leads to."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(handle, account.uid, account.gid)
    finally:
        os.close(handle)
