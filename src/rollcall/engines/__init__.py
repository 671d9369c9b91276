"""The engines: what runs the transformations. Each speaks the small protocol below and knows no pipeline."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

from rollcall.errors import UsageError
from rollcall.settings import Settings
from rollcall.source import Folder


class Engine(AbstractContextManager["Engine"], Protocol):
    """Runs SELECTs in DuckDB's dialect over relations that it keeps for the length of one run."""

    name: str

    def __enter__(self) -> Self:
        """Open the engine; leaving drops every relation and temporary file."""
        ...

    def read(self, folder: Folder, select: str, table: str) -> bool:
        """Run a SELECT over `records` (see `flatten`), all records of a folder, and keep the result as `table`.

        Returns whether every file could be read to its end. A file that could not is one row with a fault.
        """
        ...

    def create(self, name: str, select: str, *, keep: bool = False) -> None:
        """Give a SELECT a name that later ones can use; with `keep`, run it once and keep its rows."""
        ...

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        """Run a SELECT and return its few rows."""
        ...

    def columns(self, select: str) -> list[str]:
        """The names of a SELECT's columns."""
        ...

    def copy_text(self, select: str) -> Iterator[bytes]:
        """Run a SELECT and yield its rows in the text format of PostgreSQL's COPY."""
        ...


def open_engine(name: str, settings: Settings) -> Engine:
    """The engine of that name; each is imported only when it is asked for.

    Raises:
        UsageError: there is no such engine.
    """
    if name == "duckdb":
        from rollcall.engines.duckdb import DuckDB

        return DuckDB(settings.memory_limit, settings.threads, settings.temp_folder)
    raise UsageError(f"There is no engine {name!r}.", "Engines: duckdb.")
