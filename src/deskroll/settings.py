"""Settings: environment variables that begin with DESKROLL_, or a `.env` file beside the data."""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from deskroll.errors import UsageError
from deskroll.logs import KeptLog, LogFormat, LogLevel

_PREFIX: Final = "DESKROLL_"
_FILE: Final = Path(".env")


class Settings(BaseSettings):
    """What can be set once for all commands; an option on the command line comes before it."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, extra="ignore")

    database_url: SecretStr | None = None
    """Any PostgreSQL from 14 on; without it the embedded server is used."""
    home: Path = Path(".deskroll")
    """Where the embedded server keeps its data."""
    memory_limit: str = "600MB"
    """What the embedded engine may take before it spills to disk."""
    threads: int | None = Field(default=None, ge=1, le=1024)
    """Threads of the embedded engine; all cores by default."""
    temp_folder: Path | None = None
    """Where the embedded engine spills to; the system's temporary folder by default."""
    spark_conf: dict[str, str] = {}
    """Options of the Spark session, such as spark.master; as JSON if it is an environment variable."""
    spark_connections: int = Field(default=8, ge=1)
    """Connections to PostgreSQL that Spark's executors open at once, at most, for one table."""
    log_level: LogLevel | None = None
    """What is logged on stderr: debug, info, warning or error. By default info if stderr is not a terminal."""
    log_format: LogFormat = "text"
    """How it is logged: text, or json for a JSON object a line."""


def read_settings() -> Settings:
    """The settings as they are now.

    Raises:
        UsageError: one cannot be used, there is none of that name, or a line of `.env` cannot be read: to go on
            without it could mean another database. Or `.env` is not this user's own.
    """
    unread = KeptLog(logging.WARNING)
    logging.getLogger("dotenv.main").addHandler(unread)
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    wrong = [f"{name} does not exist" for name in sorted(os.environ) if name.startswith(_PREFIX) and name not in known]
    try:
        with _own_file() as path:
            settings = Settings(_env_file=path)  # type: ignore[call-arg]  # of BaseSettings, which mypy takes for a dataclass
    except ValidationError as error:
        wrong += [f"{_PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()]
    except (SettingsError, UnicodeDecodeError) as error:
        wrong.append(str(error).splitlines()[0])
    if wrong or unread.said:
        raise UsageError(
            f"A setting cannot be used: {'; '.join(wrong + unread.said)}.",
            "Correct the environment variable, or the file .env.",
        )
    return settings


@contextmanager
def _own_file() -> Iterator[str | None]:
    """The file of settings as it was opened, so that it is the one that was looked at; None if there is none.

    Who may write it could name another database and so have records, and a password, sent there.

    Raises:
        UsageError: it cannot be read, or somebody else may write it.
    """
    try:
        descriptor = os.open(_FILE, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # it may be a pipe
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise UsageError(f"The file {_FILE} cannot be read: {error.strerror}.", "Let this user read it.") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            yield None
        elif os.name == "nt":  # neither owner nor mode say who may write there
            yield str(_FILE)
        else:
            _check_own(found)
            yield f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _check_own(found: os.stat_result) -> None:
    if found.st_uid not in {os.geteuid(), 0}:
        raise UsageError(
            f"The file {_FILE} belongs to another user (uid {found.st_uid}), and was not read.",
            "Run deskroll in a folder of your own, or as the user whose settings these are.",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(
            f"Other users may write the file {_FILE} (mode {stat.S_IMODE(found.st_mode):o}), and so it was not read.",
            f"See that it is as you left it, then: chmod go-w {_FILE}",
        )
