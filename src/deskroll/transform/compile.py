"""A pipeline as SQL: named steps in DuckDB's dialect, each over the relations of those before it.

Of each input, whose folder is `agents` here and has a list `role_ids`:

    agents_read                 every record, checked (see `check`)
    agents_identified           ids of records whose own cannot be read; see `identify`
    agents_checked              every record, with these ids
    agents_repeated             keys that several valid records have
    agents_rejected             rejected records whose key is known, one a key
    agents_valid                valid records, one a key: the newest
    agents_role_ids_exploded    the list of each valid record; then _checked, _repeated, _rejected and _valid

A contract that looks something up has `…_unresolved` before `…_read`, and in between `…_found`, the answers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final, Literal

from deskroll.spec.contract import VALIDATION_ERROR, Contract, Lookup, states, supersedes
from deskroll.spec.pipeline import Input, Pipeline
from deskroll.sql import sql_text
from deskroll.transform.check import PLACE, check_elements, check_records

How = Literal["read", "look up", "identify", "map", "count", "select"]
"""How a step is run.

    read      the SELECT runs over `records`, all records of the input's folder
    look up   the SELECT gives texts and dates; the relation is what the contract's lookup finds for them
    identify  the SELECT gives records without an id; the relation is the ids that are found for them
    map       the SELECT runs over `records`, which are the rows of the relation `over`, each by itself
    count     the SELECT gives one row of numbers
    select    the SELECT is what the relation is
"""

COUNTED: Final = ("records_read", "duplicates", "rejected")


@dataclass(frozen=True)
class Step:
    """One relation: its name, its SELECT, and how that is run.

    With `materialize` its rows are computed once, and kept; with `is_wide` by a distributed engine alone, because an
    engine in one process computes them again in less time than it would take to copy them. `subject` is the folder, or
    the list (`folder.list`), whose rows are counted, and `columns` are the names of a count's numbers. `weighed_by`
    names some of them: if all are zero, there is nothing worth keeping and, if the step `is_rare`, no row at all.
    """

    name: str
    sql: str
    how: How = "select"
    input: Input | None = None
    over: str = ""
    materialize: bool = False
    is_wide: bool = False
    is_rare: bool = False
    subject: str = ""
    columns: tuple[str, ...] = ()
    weighed_by: tuple[str, ...] = ()


def compile_inputs(inputs: Iterable[Input], on: date, names: frozenset[str]) -> list[Step]:
    """The steps that read, check and deduplicate inputs, in a sync of a date.

    Of the lists in records those in `names` are taken. Ids are looked for when all inputs are read: see `identify`.
    """
    return [step for phase in compile_phases(inputs, on, names) for steps in phase for step in steps]


def compile_phases(inputs: Iterable[Input], on: date, names: frozenset[str]) -> list[list[list[Step]]]:
    """The steps of `compile_inputs`, phase by phase: a list an input, which needs no other list of its phase."""
    inputs = list(inputs)
    return [
        [list(_read(one)) for one in inputs],
        [list(_identify(one)) for one in inputs],
        [list(_take(one, on, names)) for one in inputs],
    ]


def compile_pipeline(pipeline: Pipeline, on: date) -> list[Step]:
    """Return every step of a pipeline, for a sync of date `on`: what reads its inputs, then what it leaves."""
    return [*compile_inputs(pipeline.inputs, on, pipeline.input_names), *compile_outputs(pipeline)]


def compile_outputs(pipeline: Pipeline) -> list[Step]:
    """The steps that make a pipeline's own relations, its staging tables, and what goes into quarantine."""
    return [
        *(Step(relation.name, relation.select) for relation in pipeline.relations),
        *(Step(table.table, table.select) for table in pipeline.staging),
        Step("stg_pipeline_errors", _rejections(pipeline)),
    ]


def _read(input_: Input) -> Iterator[Step]:
    check, read, lookup = check_records(input_.contract), input_.relation("read"), input_.contract.lookup
    if not lookup:
        yield Step(read, check, "read", input_)
        return
    unresolved, found = input_.relation("unresolved"), input_.relation("found")
    yield Step(unresolved, check, "read", input_)
    yield Step(found, needed(lookup, unresolved), "look up", input_, materialize=True)
    yield Step(read, look_up(lookup, unresolved, found))


def _identify(input_: Input) -> Iterator[Step]:
    read, checked = input_.relation("read"), input_.relation("checked")
    key, alias = input_.contract.key, input_.contract.alias
    if not alias:
        yield Step(checked, f"SELECT * FROM {read}")
        return
    identified = input_.relation("identified")
    nameless = f"""SELECT source_file, record_index, {alias} FROM {read}
WHERE error_type IS NOT NULL AND {key} IS NULL AND {alias} IS NOT NULL"""
    yield Step(identified, nameless, "identify", input_)
    yield Step(
        checked,
        f"""SELECT one.* EXCLUDE ({key}), coalesce(one.{key}, found.found_id) AS {key}
FROM {read} AS one
LEFT JOIN {identified} AS found ON one.source_file = found.found_file AND one.record_index = found.found_index""",
    )


def _take(input_: Input, on: date, names: frozenset[str]) -> Iterator[Step]:
    contract = input_.contract
    yield from _deduplicate_steps(input_, on)
    for item in contract.lists:
        if input_.list_name(item) in names:
            exploded = input_.relation("exploded", item)
            yield Step(exploded, explode(contract, item, input_.relation("valid")))
            yield Step(input_.relation("checked", item), check_elements(contract, item), "map", input_, over=exploded)
            yield from _deduplicate_steps(input_, on, item)


def _deduplicate_steps(input_: Input, on: date, item: Contract | None = None) -> Iterator[Step]:
    """Make the valid rows of the checked ones: records or, with `item`, elements of a list."""
    contract, also = item or input_.contract, (input_.contract.key,) if item else ()
    checked, repeats, rejects, valid = (
        input_.relation(state, item) for state in ("checked", "repeated", "rejected", "valid")
    )
    keys = ", ".join((*also, contract.key))
    step = partial(Step, subject=input_.list_name(item) if item else input_.folder)
    yield step(
        f"{checked}_counts",
        f"""SELECT count(*),
    count(*) - count(error_type) - count(DISTINCT CASE WHEN error_type IS NULL THEN ({keys}) END),
    count(error_type)
FROM {checked}""",
        how="count",
        columns=COUNTED,
    )
    rare = partial(step, materialize=True, is_rare=True)
    yield rare(repeats, find_repeated(contract, checked, *also), weighed_by=("duplicates",))
    yield rare(rejects, find_rejected(contract, checked, on, *also), weighed_by=("rejected",))
    select = deduplicate(contract, checked, repeats, rejects, on, *also)
    yield step(valid, select, materialize=True, is_wide=True, weighed_by=("duplicates", "rejected"))
    having = "".join(f", count(CASE WHEN {states(one.name)} THEN 1 END)" for one in contract.lists)
    stated = tuple(f"states_{one.name}" for one in contract.lists)
    yield step(f"{valid}_counts", f"SELECT count(*){having} FROM {valid}", how="count", columns=("valid", *stated))


def _rejections(pipeline: Pipeline) -> str:
    """Select the quarantine rows of a pipeline: of its records, and of the elements in them."""
    return "\nUNION ALL\n".join(
        f"""SELECT '{pipeline.name}' AS pipeline, CAST({input_.contract.key} AS VARCHAR) AS entity_id,
    error_type, error_message, raw_record, source_file, record_index
FROM {checked} WHERE error_type IS NOT NULL"""
        for input_ in pipeline.inputs
        for name, checked in _checked(input_)
        if name in pipeline.input_names
    )


def _checked(input_: Input) -> list[tuple[str, str]]:
    """The relations of an input that have rows to reject, and the names of what they are read from."""
    lists = [(input_.list_name(item), input_.relation("checked", item)) for item in input_.contract.lists]
    return [(input_.folder, input_.relation("checked")), *lists]


def find_repeated(contract: Contract, relation: str, *also: str) -> str:
    """Select the keys under which `relation` has several valid rows; `also` are columns that belong to the key."""
    key = ", ".join((*also, contract.key))
    return f"SELECT {key} FROM {relation} WHERE error_type IS NULL GROUP BY {key} HAVING count(*) > 1"


def find_rejected(contract: Contract, relation: str, on: date, *also: str) -> str:
    """Select the rejected rows of `relation` whose key can be read, one a key: the newest, as far as that can be told.

    A row whose age cannot be read may be the newest of all. `on` is the date of the sync.
    """
    key = ", ".join((*also, contract.key))
    age = f"{contract.order(on)} DESC NULLS FIRST, " if contract.version_by else ""
    return f"""SELECT * EXCLUDE (nth) FROM (
    SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {age}{_last(also)}) AS nth
    FROM {relation} WHERE error_type IS NOT NULL AND {contract.key} IS NOT NULL
) WHERE nth = 1"""


def deduplicate(contract: Contract, relation: str, repeats: str, rejects: str, on: date, *also: str) -> str:
    """Select the valid rows of `relation`, one a key: the newest, then the last by file and position.

    `is_superseded` says of each whether a rejected row of its key may be newer. Of dated records, `ordered_time` is the
    time by which they are ordered. `repeats` is the relation of `find_repeated`: only rows with these keys are sorted,
    because a window over all of the wide rows costs several times as much. `rejects` is that of `find_rejected`. `on`
    is the date of the sync.
    """
    key = ", ".join((*also, contract.key))
    age = f"{contract.order(on)} DESC NULLS LAST, " if contract.version_by else ""
    ordered = f", {contract.order(on, 'valid.')} AS ordered_time" if contract.is_dated else ""
    return f"""WITH valid AS (
    SELECT one.* FROM {relation} AS one ANTI JOIN {repeats} USING ({key}) WHERE error_type IS NULL
    UNION ALL
    SELECT * EXCLUDE (nth) FROM (
        SELECT one.*, row_number() OVER (PARTITION BY {key} ORDER BY {age}{_last(also)}) AS nth
        FROM {relation} AS one SEMI JOIN {repeats} USING ({key}) WHERE error_type IS NULL
    ) WHERE nth = 1
)
SELECT valid.*, {supersedes(contract, "bad", "valid", on)} AS is_superseded{ordered}
FROM valid LEFT JOIN {rejects} AS bad ON {" AND ".join(f"bad.{k} = valid.{k}" for k in (*also, contract.key))}"""


def _last(also: tuple[str, ...]) -> str:
    return "source_file DESC, record_index DESC" + (", position DESC" if also else "")


def needed(lookup: Lookup, relation: str) -> str:
    """Select what the records in `relation` have to look up: distinct texts and dates."""
    return f"SELECT DISTINCT {lookup.text}, {lookup.on} FROM {relation} WHERE needs_lookup"


def look_up(lookup: Lookup, relation: str, found: str) -> str:
    """Select the rows of `relation`, with the column that was looked up: `found` has `text`, `on_date` and `value`."""
    is_missing = "needs_lookup AND found.value IS NULL"
    return f"""SELECT one.* EXCLUDE (needs_lookup, error_type, error_message, raw_record), found.value AS {lookup.name},
    CASE WHEN {is_missing} THEN '{VALIDATION_ERROR}' ELSE error_type END AS error_type,
    CASE WHEN {is_missing} THEN concat_ws('; ', error_message, {sql_text(lookup.message)})
        ELSE error_message END AS error_message,
    CASE WHEN error_type IS NOT NULL OR {is_missing} THEN raw_record END AS raw_record
FROM {relation} AS one
LEFT JOIN {found} AS found ON needs_lookup AND found.text = {lookup.text} AND found.on_date = {lookup.on}"""


def explode(parent: Contract, contract: Contract, relation: str) -> str:
    """Select one list of the records in `relation`, each with its record's key and place: input of `check_elements`."""
    return f"SELECT {parent.key}, {PLACE}, {contract.name} FROM {relation} WHERE {contract.name} IS NOT NULL"
