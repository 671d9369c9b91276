"""PostgreSQL servers for tests: the one of the session, and others of other kinds."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deskroll.postgres.server import accounts, binaries, embedded


def other_servers() -> dict[str, Path]:
    """Other PostgreSQL servers on this machine, as Debian and the embedded package lay them out."""
    package = binaries.folder().parents[1]
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *package.glob("pginstall*/bin")]
    return {path.parent.name: path for path in found if (path / "initdb").exists()}


@contextmanager
def another_server(name: str = "pginstall", auth: str = "trust") -> Iterator[str]:
    """A server of another kind for the length of a test; yields a URL."""
    with server_to_restart(name, auth) as (url, _):
        yield url


@contextmanager
def another_embedded() -> Iterator[str]:
    """An embedded server for the length of a test; yields a URL."""
    home = Path(tempfile.mkdtemp(prefix="deskroll-pg-", dir="/tmp"))
    home.chmod(0o755)  # it may run as another user
    try:
        yield embedded.start(home)
    finally:
        embedded.stop(home)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def server_to_restart(
    name: str = "pginstall", auth: str = "trust", parent: str = "/tmp", settings: str = ""
) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The like; yields also what restarts it, given the mode of pg_ctl in which it is to stop."""
    home = Path(tempfile.mkdtemp(prefix="deskroll-pg-", dir=parent))  # a socket's path must be short
    programs = other_servers()[name]
    password = home / "password"
    password.write_text("right")
    as_other: dict[str, Any] = {"cwd": "/"}
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        account = accounts.for_server()
        for path in (home, password):
            os.chown(path, account.uid, account.gid)
        as_other |= account.options()
        if programs.is_relative_to(binaries.folder().parents[1]):  # the account may not reach this checkout
            programs = binaries.reachable(account, programs)
    control = [str(programs / "pg_ctl"), "-w", "-D", str(home / "data")]
    options = [f"--auth={auth}", "-U", "postgres", "-E", "UTF8", "--pwfile", str(password), "-D", str(home / "data")]
    try:
        subprocess.run([str(programs / "initdb"), *options], check=True, capture_output=True, **as_other)
        with (home / "data/postgresql.conf").open("a") as conf:
            conf.write(settings)
        start = [*control, "-o", f"-h '' -k {home}", "-l", str(home / "log"), "start"]
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **as_other)

        def restart(mode: str) -> None:
            subprocess.run([*control, "-m", mode, "stop"], check=False, capture_output=True, **as_other)
            subprocess.run(start, check=True, stdout=subprocess.DEVNULL, **as_other)

        yield f"postgresql://postgres@/postgres?host={home}", restart
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, **as_other)
        shutil.rmtree(home, ignore_errors=True)
