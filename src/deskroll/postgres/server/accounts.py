"""The account under which the embedded server runs: PostgreSQL refuses to run as root."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deskroll.errors import DatabaseError

# An older deskroll made pgserver; data that it made as root are still run by that account.
PREFERRED: Final = ("postgres", "nobody")
ACCEPTED: Final = (*PREFERRED, "pgserver")


@dataclass(frozen=True)
class Account:
    """A user of this machine, with its main group."""

    name: str
    uid: int
    gid: int

    def options(self) -> dict[str, Any]:
        """The arguments that have `subprocess` run a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def is_root() -> bool:
    """Whether this process may do everything; never on Windows."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def named(name: str) -> Account | None:
    """The account of that name, if the machine has it."""
    import pwd  # Windows has none

    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def name_of(uid: int) -> str:
    """The name of a user, or its number if it has no name."""
    import pwd  # Windows has none

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def for_server() -> Account:
    """The account under which root runs a new server.

    Raises:
        DatabaseError: the machine has none of the accounts that we look for.
    """
    found = [account for account in map(named, PREFERRED) if account and account.uid]
    if not found:
        raise DatabaseError(
            "PostgreSQL does not run as root, and this machine has neither a user postgres nor a user nobody.",
            "Run deskroll as another user, or use a server of your own with --database-url.",
        )
    return found[0]


def can_enter(account: Account, folder: Path) -> bool:
    """Try whether an account can enter a folder."""
    return can_run(account, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)])


def can_run(account: Account, command: Sequence[str]) -> bool:
    """Try whether an account can run a program."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, cwd="/", env={}, **account.options())
    except OSError:
        return False
    return done.returncode == 0
