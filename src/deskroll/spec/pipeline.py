"""What a pipeline is: the folders it reads, the SELECTs that are its own, and where their rows go."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, Literal

from deskroll.spec.contract import Contract

_AGENT: Final = "SELECT format('%%s (%%s)', left(name, 60), agent_id) FROM agents WHERE agent_id = %(id)s"


@dataclass(frozen=True)
class Input:
    """One folder of a day, and the contract of its records.

    `resource` is the key under which an envelope in that folder has its records, and the final table that they end in.
    `absent` says what a day without the folder means; it is empty if that is not worth a note. If `must_return`, a day
    without the folder is incomplete once an earlier day had it.
    """

    folder: str
    resource: str
    contract: Contract
    absent: str = "deskroll keeps what is stored of it"
    must_return: bool = False

    def relation(self, state: str, item: Contract | None = None) -> str:
        """The relation of its records, or of the elements of one of their lists, in a state such as `valid`.

        `transform.compile` says which states there are.
        """
        return f"{self.folder}_{item.name}_{state}" if item else f"{self.folder}_{state}"

    def list_name(self, item: Contract) -> str:
        """What the ledger calls one of its records' lists."""
        return f"{self.folder}.{item.name}"


@dataclass(frozen=True)
class Relation:
    """A SELECT with a name, which later SELECTs of the pipeline use."""

    name: str
    select: str


@dataclass(frozen=True)
class StagingTable:
    """A staging table, and the SELECT that fills it; the SELECT's column names are the table's."""

    table: str
    select: str


@dataclass(frozen=True)
class Snapshot:
    """Rows of a final table as they stand: the relation `name` of the rows of `table` for which `where` is true.

    `columns` gives each column its type, BIGINT or DATE, and its SQL in PostgreSQL.
    """

    name: str
    table: str
    columns: Mapping[str, tuple[Literal["BIGINT", "DATE"], str]]
    where: str = "true"


@dataclass(frozen=True)
class Guard:
    """What a date must not change much of.

    `guarded` names it as the views guarded_now and guarded_changes do. The guard counts what is lost or, with
    `is_gain`, what is new. `would` says what happens to it; `label_sql` is a SELECT that names one by `id` and
    `other_id`. With `is_noted` a mass change is told and not refused, as it loses nothing.
    None of `folders` may be empty while any is stored. Nor may `roster`, one of them, be empty on a first load if
    another folder has records; on a first load nothing is stored of `among`, which are the guarded and all like them.
    """

    guarded: str
    would: str
    label_sql: str = _AGENT
    is_gain: bool = False
    is_noted: bool = False
    folders: tuple[str, ...] = ()
    roster: str = ""
    among: str = ""


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
class Discrepancy:
    """What two inputs disagree on and rejects nothing or, as `drift`, what no contract knows.

    `select` runs when all is published, and selects names, counts, and some ids (TEXT[]).
    """

    select: str
    kind: Literal["discrepancy", "drift"] = "discrepancy"


def unknown_values(table: str, key: str, column: str, *known: str) -> Discrepancy:
    """The values of a column of a staging table that the API's documents do not name: kept, counted and shown."""
    return Discrepancy(
        f"""SELECT 'unknown {column} ' || left({column}, 60), count(*),
        (array_agg({key} ORDER BY {key}))[:3]
        FROM {table} WHERE {column} NOT IN ({", ".join(f"'{value}'" for value in known)}) GROUP BY 1 ORDER BY 1""",
        kind="drift",
    )


def in_the_future(pipeline: str, key: str, column: str) -> Discrepancy:
    """The staged rows that are later than the day after the sync date, in whatever time zone that day ends."""
    return Discrepancy(
        f"""SELECT '{column} in the future', count(*), (array_agg(today.{key} ORDER BY today.{key}))[:3]
        FROM stg_{pipeline} AS today CROSS JOIN sync_context AS context
        WHERE (today.{column} AT TIME ZONE 'UTC')::DATE > context.sync_date + 1"""
    )


@dataclass(frozen=True)
class Tracked:
    """A final table whose changes the ledger has one by one, in run_changes.

    `columns` are those whose values it has: not what mere activity changes. A trigger on `told_by`, by default the
    publication's table of changes, keeps rows before they change; see `sql/routines/070_run_changes.sql`. `changes` are
    the words for what happens; if several happen to one row, the first of them counts. Those that are also `counted`
    are one row with their number. Of pairs, which are told by their own table, `changes` are the words for one that was
    inserted and for one that was deleted. `label_sql` is a SELECT that names the bearer of a key, by default the
    publication's.
    """

    table: str
    columns: tuple[str, ...]
    key: tuple[str, ...] = ()
    changes: tuple[str, ...] = ("added", "changed")
    counted: tuple[str, ...] = ()
    told_by: str = ""
    label_sql: str = ""

    @property
    def is_pairs(self) -> bool:
        """Whether a row has nothing but its key: it is there, or it is not."""
        return self.told_by == self.table and self.columns == self.key


@dataclass(frozen=True)
class Event:
    """A change that the values of no final table show: `select` gives key, label, before and after of each."""

    change: str
    select: str


def pairs(table: str, key: tuple[str, str], word: str, label_sql: str) -> Tracked:
    """A table of pairs, to which `word` refers, such as membership."""
    return Tracked(table, key, key, (f"{word} added", f"{word} removed"), told_by=table, label_sql=label_sql)


@dataclass(frozen=True)
class Publication:
    """How one pipeline is published.

    `tables` maps each final table, the pipeline's own first, to the inputs of its rows: folders, and lists in their
    records (`folder.list`). `staging_tables` names the staging table of a final table if it is not `stg_` and its name.
    What is not given is named after the pipeline: for `skills` the table `skills` of the folder `skills`, labelled by
    its `name`, with `skill_pipeline_errors` and `stg_skill_changes`.

    The SQL `file` leaves what it did in `changes_table`, a row per `key` and `change`; `label_sql` is a SELECT that
    names the bearer of a key. Of the changes, `deactivating` are those by which a row becomes inactive, and `untold`
    are not shown. `ledger_notes` says of a change what the ledger writes about a run that made it; `{count}` and `{s}`,
    the plural, are filled in.

    `tracked` and `events` are what run_changes has of a run. `guards` hold back a mass change. If a run does not
    publish the pipeline, it runs `refresh_sql` when all others are published. `discrepancies` are counted in what
    a run publishes, `standing_discrepancies` in what there is after any run.
    """

    pipeline: str
    file: str
    key: tuple[str, ...]
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    label_sql: str = ""
    quarantine_table: str = ""
    changes_table: str = ""
    staging_tables: Mapping[str, str] = field(default_factory=dict)
    deactivating: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    ledger_notes: Mapping[str, str] = field(default_factory=dict)
    tracked: tuple[Tracked, ...] = ()
    events: tuple[Event, ...] = ()
    refresh_sql: str | None = None
    guards: tuple[Guard, ...] = ()
    discrepancies: tuple[Discrepancy, ...] = ()
    standing_discrepancies: tuple[Discrepancy, ...] = ()

    def __post_init__(self) -> None:
        entity = self.pipeline.removesuffix("s")
        defaults = {
            "tables": {self.pipeline: (self.pipeline,)},
            "label_sql": f"SELECT name FROM {self.pipeline} WHERE {self.key[0]} = %s",
            "quarantine_table": f"{entity}_pipeline_errors",
            "changes_table": f"stg_{entity}_changes",
        }
        for name, default in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, default)
        tracked = (replace(t, key=t.key or self.key, told_by=t.told_by or self.changes_table) for t in self.tracked)
        object.__setattr__(self, "tracked", tuple(tracked))


@dataclass(frozen=True)
class Pipeline:
    """A step of the sync that ends in final tables of its own.

    A SELECT may use the relations of its inputs (see `transform.compile`), its own `relations` and `snapshots`, and

        sync     sync_day TEXT, source TEXT, sync_date DATE: one row
        folders  name TEXT, found BOOLEAN, complete BOOLEAN: a row per input

    Pipelines may share an input: it is read once. `facts` are the counts that `deskroll status` shows, each a label and
    a SELECT of one column `count`.
    """

    inputs: tuple[Input, ...]
    staging: tuple[StagingTable, ...]
    publication: Publication
    relations: tuple[Relation, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.publication.pipeline

    @property
    def input_names(self) -> frozenset[str]:
        """The folders, and lists in their records, whose rows it takes or puts into its quarantine."""
        return frozenset(chain.from_iterable(self.publication.tables.values()))
