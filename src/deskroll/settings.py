"""Settings: environment variables that begin with DESKROLL_, or a `.env` file beside the data."""

import logging
import os
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from deskroll.errors import UsageError
from deskroll.logs import KeptLog

_PREFIX: Final = "DESKROLL_"


class Settings(BaseSettings):
    """What can be set once for all commands; an option on the command line comes before it."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore")

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
    """Options of the Spark session, such as spark.master; as JSON where it is an environment variable."""
    spark_connections: int = Field(default=8, ge=1)
    """Connections to PostgreSQL that Spark's executors open at once, at most, for one table."""


def read_settings() -> Settings:
    """The settings as they are now.

    Raises:
        UsageError: one cannot be used, there is none of that name, or a line of `.env` cannot be read: to go on
            without it could mean another database.
    """
    unread = KeptLog(logging.WARNING)
    logging.getLogger("dotenv.main").addHandler(unread)
    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    wrong = [f"there is no {name}" for name in sorted(os.environ) if name.startswith(_PREFIX) and name not in known]
    try:
        settings = Settings()
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
