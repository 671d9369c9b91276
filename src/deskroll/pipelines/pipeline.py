"""What a pipeline is: the folders it reads, the SELECTs that are its own, and where their rows go."""

from dataclasses import dataclass
from itertools import chain
from typing import Final

from deskroll.contract import Contract
from deskroll.postgres.known import Known
from deskroll.postgres.publish import Publication


@dataclass(frozen=True)
class Source:
    """One folder of a day, and the contract of its records.

    `resource` is the key under which an envelope in that folder has its records, and the final table that they end in.
    `absent` says what a day without the folder means; it is empty if that is nothing to speak of.
    """

    folder: str
    resource: str
    contract: Contract
    absent: str = "what it would say stays as it is"

    @property
    def as_read(self) -> str:
        """The relation of all its records as they were read; see `flatten.check_records`."""
        return f"{self.folder}_as_read"

    @property
    def checked(self) -> str:
        """The relation of all its records, each with what is wrong with it, and an id if it was identified."""
        return f"{self.folder}_checked"

    @property
    def rejected(self) -> str:
        """The relation of its rejected records whose key is known, one a key; see `flatten.rejected`."""
        return f"{self.folder}_checked_rejected"

    @property
    def valid(self) -> str:
        """The relation of its valid records, one a key; see `flatten.newest`."""
        return f"{self.folder}_valid"

    def list_name(self, name: str) -> str:
        """What the ledger calls one of its records' lists."""
        return f"{self.folder}.{name}"

    def list_checked(self, name: str) -> str:
        """The relation of all elements of one of its records' lists."""
        return f"{self.folder}_{name}_checked"

    def list_valid(self, name: str) -> str:
        """The relation of the valid elements of one of its records' lists, one a key."""
        return f"{self.folder}_{name}_valid"


# By which the newer record wins: one that is later than the day after the sync date counts as one of that date.
ORDERED_TIME: Final = """CASE WHEN CAST(updated_time AS DATE) > CAST(sync.sync_date + INTERVAL 1 DAY AS DATE)
        THEN CAST(sync.sync_date AS TIMESTAMPTZ) ELSE updated_time END AS ordered_time"""


@dataclass(frozen=True)
class Staging:
    """A staging table, and the SELECT that fills it; the SELECT's column names are the table's."""

    table: str
    select: str


@dataclass(frozen=True)
class Pipeline:
    """A step of the sync that ends in final tables of its own.

    A SELECT may use the relations of its sources, those of `known`, and

        sync     sync_day TEXT, source TEXT, sync_date DATE: one row
        folders  name TEXT, found BOOLEAN, complete BOOLEAN: a row per source

    Pipelines may share a source: it is read once. What carries staging over, and what it is fed by, is the
    `publication`; `known` are rows of final tables that a SELECT needs as they stand, and `facts` are the counts that
    `deskroll status` shows, each a label and a SELECT of one column `count`.
    """

    sources: tuple[Source, ...]
    staging: tuple[Staging, ...]
    publication: Publication
    facts: tuple[tuple[str, str], ...] = ()
    known: tuple[Known, ...] = ()

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.publication.pipeline

    @property
    def feeds(self) -> frozenset[str]:
        """The folders, and lists in their records (`folder.list`), whose rows it takes or puts into its quarantine."""
        return frozenset(chain.from_iterable(self.publication.feeds.values()))
