"""What a pipeline is: the folders it reads, the SELECTs that are its own, and where their rows go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from deskroll.spec.contract import Contract

_AGENT: Final = "SELECT format('%%s (%%s)', left(name, 60), agent_id) FROM agents WHERE agent_id = %(id)s"


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
        """The relation of all its records as they were read; see `compile.check_records`."""
        return f"{self.folder}_as_read"

    @property
    def checked(self) -> str:
        """The relation of all its records, each with what is wrong with it, and an id if it was identified."""
        return f"{self.folder}_checked"

    @property
    def rejected(self) -> str:
        """The relation of its rejected records whose key is known, one a key; see `compile.rejected`."""
        return f"{self.folder}_checked_rejected"

    @property
    def valid(self) -> str:
        """The relation of its valid records, one a key; see `compile.newest`."""
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
class Known:
    """The relation `name`: `columns`, each with SQL that makes a whole number, of the rows of `table` where `where`."""

    name: str
    table: str
    columns: Mapping[str, str]
    where: str = "true"


@dataclass(frozen=True)
class Guard:
    """What a date must not change much of.

    `guarded` names it as the views guarded_now and guarded_changes do. The guard counts what is lost or, with
    `is_gain`, what is new. `would` says what happens to it; `who` is a SELECT that names one by `id` and `other_id`.
    With `is_noted` a mass change is told and not refused, as it loses nothing.
    None of `folders` may be empty while any is stored; nor may `roster`, one of them, on a first load, if another has
    records.
    """

    guarded: str
    would: str
    who: str = _AGENT
    is_gain: bool = False
    is_noted: bool = False
    folders: tuple[str, ...] = ()
    roster: str = ""


def membership(verb: str, table: str) -> str:
    """A SELECT that says what would become of an agent in a group, or of its role."""
    what = table.removesuffix("s")
    return f"""SELECT format(
        '%%s (%%s) would {verb} {what} %%s(%%s)',
        left(agent.name, 60), agent.agent_id, left(other.name, 60) || ' ', %(other_id)s::BIGINT
    )
    FROM agents AS agent LEFT JOIN {table} AS other ON other.{what}_id = %(other_id)s
    WHERE agent.agent_id = %(id)s"""


@dataclass(frozen=True)
class Drift:
    """What does not agree and is no error: a SELECT, when all is published, of names, counts and some ids (TEXT[])."""

    select: str


def unknown_values(table: str, key: str, column: str, *known: str) -> Drift:
    """The values of a column of a staging table that nobody has heard of: kept, counted and named."""
    return Drift(
        f"""SELECT 'unknown {column} ' || left({column}, 60), count(*),
        (array_agg({key} ORDER BY {key}))[:3]
        FROM {table} WHERE {column} NOT IN ({", ".join(f"'{value}'" for value in known)}) GROUP BY 1 ORDER BY 1"""
    )


def in_the_future(pipeline: str, key: str, column: str) -> Drift:
    """The staged rows that are later than the day after the sync date, in whatever time zone that day ends."""
    return Drift(
        f"""SELECT '{column} in the future', count(*), (array_agg(today.{key} ORDER BY today.{key}))[:3]
        FROM stg_{pipeline} AS today CROSS JOIN sync_context AS context
        WHERE (today.{column} AT TIME ZONE 'UTC')::DATE > context.sync_date + 1"""
    )


@dataclass(frozen=True)
class Publication:
    """How one pipeline is published.

    `errors` is its quarantine. `feeds` maps each final table, the pipeline's own first, to the sources of its records.
    `stages` names the staging table of a final table where it is not `stg_` and its name.
    `changes` is the staging table in which the file leaves what it did, a row per `key` and `change`, and `who` a
    SELECT that names the bearer of a key. `guards` hold back a mass change. Where a run does not publish the pipeline,
    it runs `otherwise` in its place, when all others are published. `drift` is told of what a run publishes, `always`
    of what there is after any run.
    """

    pipeline: str
    file: str
    errors: str
    feeds: Mapping[str, tuple[str, ...]]
    changes: str
    key: tuple[str, ...]
    who: str
    stages: Mapping[str, str] = field(default_factory=dict)
    otherwise: str | None = None
    guards: tuple[Guard, ...] = ()
    drift: tuple[Drift, ...] = ()
    always: tuple[Drift, ...] = ()


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
