"""A contract as a SELECT that checks: it takes the texts of a record's fields, types them, and names the faults.

Its input is a relation `records`, of which it looks at each row by itself:

    source_file TEXT, record_index BIGINT,  where the record stands (0-based; NULL: the whole file is at fault)
    record TEXT,                            its JSON (NULL, with no fault: not read yet)
    raw TEXT,                               the text as it came, if `record` had to be mended
    fault TEXT                              why the file or record has none

Its output is a row per record: its place, a column per field, a JSON text per list (NULL if the record does not have
the key; the empty list for a null), and `error_type`, `error_message` and `raw_record`, all three NULL if the record is
valid. A field of a rejected record is NULL if it is at fault.
"""

import json
from dataclasses import dataclass
from typing import Final

from deskroll.spec.contract import PARSE_ERROR, UNREAD, VALIDATION_ERROR, Contract, Field, states
from deskroll.transform.faults import faults_of, lines, shown_json
from deskroll.transform.values import find_numbers, json_keys, keys_of, select_texts, structure_of, typed

PLACE: Final = "source_file, record_index"

# The keys of a record are remembered, to compare other records with, if all its objects have no more keys than this.
_FEW_KEYS: Final = 1000


@dataclass(frozen=True)
class _Frame:
    """What differs between the check of a record and that of an element of a list, as SQL.

    `rows` is the SELECT of what is checked, as `value`; `place` are the columns of its place; `error_type`
    and `message` say what is wrong, `raw` what goes into quarantine, and `label` what a message calls an element.
    """

    rows: str
    place: str
    error_type: str
    message: str
    raw: str
    label: str = ""


def check_records(contract: Contract) -> str:
    """Select every record of `records`, flattened into typed columns, with what is wrong with it."""
    return _check(
        contract,
        _Frame(
            rows="SELECT *, record AS value FROM records",
            place=PLACE,
            error_type=f"""CASE
        WHEN fault IS NOT NULL THEN '{PARSE_ERROR}'
        WHEN record IS NULL THEN '{UNREAD}'
        WHEN NOT is_expected THEN '{PARSE_ERROR}'
        WHEN faults IS NOT NULL THEN '{VALIDATION_ERROR}'
    END""",
            message="coalesce(fault, faults)",
            raw="coalesce(raw, record)",
        ),
    )


def check_elements(parent: Contract, contract: Contract) -> str:
    """Select every element of the lists in `records`, checked like a record of its own.

    What stands in the place of a list is one row without a position, and at fault.
    """
    name = contract.name
    rows = f"""SELECT {parent.key}, {PLACE}, position - 1 AS position, CAST(NULL AS VARCHAR) AS no_list,
        CAST(coalesce(element, 'null') AS VARCHAR) AS value
    FROM (
        SELECT {parent.key}, {PLACE}, unnest(list) AS element, generate_subscripts(list, 1) AS position
        FROM (SELECT *, json_transform({name}, '["JSON"]') AS list FROM records WHERE {states(name)})
    )
    UNION ALL
    SELECT {parent.key}, {PLACE}, CAST(NULL AS BIGINT), {name}, CAST(NULL AS VARCHAR)
    FROM records WHERE NOT {states(name)}"""
    return _check(
        contract,
        _Frame(
            rows=rows,
            place=f"{parent.key}, {PLACE}, position",
            error_type=f"CASE WHEN no_list IS NOT NULL OR faults IS NOT NULL THEN '{VALIDATION_ERROR}' END",
            message=f"coalesce('{name}: found ' || {shown_json('no_list')} || ', expected an array', faults)",
            raw="coalesce(no_list, value)",
            label=f"'{name}[' || position || ']' || ",
        ),
    )


def _check(contract: Contract, frame: _Frame) -> str:
    """Write the steps that records and elements share: parse, take the texts, type them, name the faults."""
    lists = [item.name for item in contract.lists]
    columns = [*(_kept(contract, f) for f in contract.fields), *lists]
    is_kept = "error_type IS NOT NULL"
    if contract.lookup:  # a record that has to look something up may yet turn out to be bad
        lookup = contract.lookup
        needs = f"(({lookup.needed_when}) AND {lookup.text} IS NOT NULL AND {lookup.on} IS NOT NULL)"
        is_kept = f"{is_kept} OR {needs}"
        columns.append(f"{needs} AS needs_lookup")
    return f"""WITH located AS NOT MATERIALIZED (
    {frame.rows}
), usual AS (
    {_usual_keys(contract)}
), parsed AS (
    {_parsed(contract)}
), texts AS (
    SELECT *,
        {lines(select_texts(contract))}
    FROM parsed
), typed AS (
    SELECT *,
        {lines(f"{typed(f)} AS {f.name}" for f in contract.fields)}
    FROM texts
), messages AS (
    SELECT *, {faults_of(contract, frame.label)} AS faults
    FROM typed
), checked AS (
    SELECT *, {frame.error_type} AS error_type FROM messages
)
SELECT {frame.place},
    {lines(columns, indent=4)},
    error_type,
    CASE WHEN error_type IS NOT NULL THEN replace({frame.message}, chr(0), '\\u0000') END AS error_message,
    CASE WHEN {is_kept} THEN {frame.raw} END AS raw_record
FROM checked"""


def _usual_keys(contract: Contract) -> str:
    """Select the keys of the first records, unless one has a key twice.

    Readers differ in which value of a key that stands twice they take, so no record may have one. To compare keys is
    dear, and most records have the very keys of the first ones: only the others are looked at.
    """
    return f"""SELECT list(DISTINCT keys) AS shapes FROM (SELECT {json_keys(contract)} AS keys FROM located LIMIT 1000)
    WHERE list_aggregate(list_transform(keys, lambda k: coalesce(len(k), 0)), 'sum') <= {_FEW_KEYS}
    AND NOT list_contains(list_transform(keys, lambda k: list_unique(k) < len(k)), true)"""


def _parsed(contract: Contract) -> str:
    """Select the parsed JSON, its keys, and what is needed to take numbers as they stand."""
    value = "NULL" if contract.is_scalar else f"json_transform(value, '{json.dumps(structure_of(contract))}')"
    is_expected = "true" if contract.is_scalar else "starts_with(ltrim(value, ' \t\r\n'), '{')"
    numbers = "".join(f"\n        {find_numbers(f)}," for f in contract.fields if f.type.is_exact)
    if numbers:
        numbers += r" regexp_matches(value, '\\u00[4-7]') AS has_escaped_letters,"
    return f"""SELECT *, {is_expected} AS is_expected, {value} AS p, {json_keys(contract)} AS keys,{numbers}
        NOT coalesce(list_contains((SELECT shapes FROM usual), keys), false) AS is_unusual
    FROM located"""


def _kept(contract: Contract, field: Field) -> str:
    """A column as it leaves; what is used of a rejected record too is not, if its key stands twice in the record."""
    if contract.is_scalar or field.name not in {contract.key, contract.version_by, contract.alias, *contract.salvaged}:
        return field.name
    steps = dict.fromkeys(step for path in field.paths for step in _steps(path))
    twice = " OR ".join(
        f"coalesce(len(list_filter({keys_of(contract, parent)}, lambda k: k = '{step}')), 0) > 1"
        for parent, step in steps
    )
    return f"CASE WHEN NOT is_unusual OR NOT ({twice}) THEN {field.name} END AS {field.name}"


def _steps(path: str) -> list[tuple[str, str]]:
    """The keys that lead along a path, each with the object that it stands in."""
    steps = path.split(".")
    return [(".".join(steps[:depth]), step) for depth, step in enumerate(steps)]
