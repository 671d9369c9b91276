"""The engines: what runs the transformations. Each speaks the protocol in `base` and knows no pipeline."""

from deskroll.engines.base import Engine, Reading, Rows, Sink
from deskroll.errors import UsageError
from deskroll.settings import Settings

__all__ = ["Engine", "Reading", "Rows", "Sink", "open_engine"]


def open_engine(name: str, settings: Settings) -> Engine:
    """The engine of that name; each is imported only when it is asked for.

    Raises:
        UsageError: the engine does not exist, or is not installed.
    """
    if name == "duckdb":
        from deskroll.engines.duckdb import DuckDB

        return DuckDB(settings.memory_limit, settings.threads, settings.temp_folder)
    if name == "spark":
        try:
            from deskroll.engines.spark import Spark
        except ImportError as error:
            raise UsageError(
                f"Spark is not installed here: {error}.", "Install it with pip install 'deskroll[spark]'."
            ) from error
        return Spark(settings)
    raise UsageError(f"The engine {name!r} does not exist.", "Engines: duckdb, spark.")
