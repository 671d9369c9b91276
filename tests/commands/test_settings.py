"""The file of settings is read only if it is the user's own."""

import os
from pathlib import Path

import pytest

from deskroll.errors import UsageError
from deskroll.settings import read_settings
from tests.helpers.runs import Shell

LINE = "DESKROLL_DATABASE_URL=postgresql://elsewhere.example/database\n"


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".env"
    path.write_text(LINE)
    path.chmod(0o644)
    return path


def read() -> str | None:
    url = read_settings().database_url
    return url.get_secret_value() if url else None


def test_the_users_own_is_read(env_file: Path) -> None:
    assert read() == LINE.strip().partition("=")[2]
    env_file.unlink()
    assert read() is None


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_one_that_others_may_write_is_refused(mode: int, env_file: Path) -> None:
    env_file.chmod(mode)
    with pytest.raises(UsageError, match=rf"Other users may write the file \.env \(mode {mode:o}\)") as refused:
        read()
    assert "chmod go-w .env" in refused.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_one_of_somebody_else_is_refused(env_file: Path, shell: Shell) -> None:
    os.chown(env_file, 12345, 12345)
    with pytest.raises(UsageError, match=r"belongs to another user \(uid 12345\)"):
        read()
    done = shell.run("status")
    assert done.returncode == 2
    assert "elsewhere" not in done.stderr + done.stdout
    os.chown(env_file, 0, 0)
    env_file.rename(env_file.with_name("real"))
    os.chown(env_file.with_name("real"), 12345, 12345)
    env_file.symlink_to("real")  # a link of one's own to a file of another's
    with pytest.raises(UsageError, match="belongs to another user"):
        read()


def test_a_pipe_under_its_name_does_not_hang(env_file: Path) -> None:
    env_file.unlink()
    os.mkfifo(env_file)
    assert read() is None
