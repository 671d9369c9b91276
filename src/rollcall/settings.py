"""Settings: environment variables that begin with ROLLCALL_, or a `.env` file beside the data."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What can be set once for all commands; an option on the command line comes before it."""

    model_config = SettingsConfigDict(env_prefix="ROLLCALL_", env_file=".env", env_ignore_empty=True, extra="ignore")

    database_url: SecretStr | None = None
    """Any PostgreSQL from 14 on; without it the embedded server is used."""
    home: Path = Path(".rollcall")
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
