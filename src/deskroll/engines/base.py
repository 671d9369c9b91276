"""The protocol of an engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, Self

from deskroll.input.dump import Folder
from deskroll.input.envelope import Envelopes

Sink = Callable[[Iterator[bytes]], str]
"""Takes the rows of a partition in the text format of PostgreSQL's COPY; for a distributed engine it can be pickled."""


Rows = Callable[[], Iterator[bytes]]
"""Yields rows in the text format of PostgreSQL's COPY; can be pickled."""


class Reading(NamedTuple):
    """What reading a folder came to: whether every file could be read to its end, and what the envelopes say."""

    is_complete: bool
    envelopes: Envelopes


class Engine(AbstractContextManager["Engine"], Protocol):
    """Runs SELECTs in DuckDB's dialect over relations that it keeps until it is to forget them."""

    name: str
    is_distributed: bool
    """Whether rows are written by several processes, and some perhaps more than once."""

    def __enter__(self) -> Self:
        """Open the engine; leaving drops every relation and temporary file."""
        ...

    def forget(self) -> None:
        """Drop every relation and temporary file, as leaving does, and stay open for another day."""
        ...

    def list_dump(self, dump: str) -> list[str]:
        """The names of the folders in a dump; see `dump.list_dump`."""
        ...

    def find_day(self, dump: str, label: str) -> str:
        """The folder of a sync day; see `dump.find_day`."""
        ...

    def list_day(self, day: str) -> list[str]:
        """The names of what lies in the folder of a day; see `dump.list_day`."""
        ...

    def list_folder(self, day: str, name: str, resource: str) -> Folder:
        """List one source folder of a day; see `dump.list_folder`."""
        ...

    def read(self, folder: Folder, select: str, table: str) -> Reading:
        """Run a SELECT over `records` (see `compile`), all records of a folder, and keep the result as `table`.

        A file that could not be read to its end is one row with a fault.
        """
        ...

    def map_rows(self, rows: str, select: str, table: str) -> None:
        """Run a SELECT that looks at each row of `records` by itself, with `rows` as these, and keep the result."""
        ...

    def load_rows(self, name: str, columns: Mapping[str, str], parts: Sequence[Rows]) -> None:
        """Keep rows as a relation; `columns` has their types, and each part yields rows in COPY's text format."""
        ...

    def create(self, name: str, select: str, *, materialize: bool = False) -> None:
        """Give a SELECT a name that later ones can use; with `materialize`, run it once and keep its rows."""
        ...

    def fetch(self, select: str) -> list[tuple[Any, ...]]:
        """Run a SELECT and return its few rows."""
        ...

    def columns(self, select: str) -> list[str]:
        """The names of a SELECT's columns."""
        ...

    def copy_out(self, select: str, sink: Sink) -> list[str]:
        """Run a SELECT and call `sink` with the rows of each partition, where the partition is.

        Returns what it returned for each, once a partition, even if a partition was written more than once.
        """
        ...
