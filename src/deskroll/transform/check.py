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
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from deskroll.spec.contract import PARSE_ERROR, UNREAD, VALIDATION_ERROR, Contract, Field, states
from deskroll.sql import sql_text

PLACE: Final = "source_file, record_index"

_FEW_KEYS: Final = (
    1000  # in all objects of a record together, up to which its keys are remembered to compare others with
)
_SHOWN_KEYS: Final = 10


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
            message=f"coalesce('{name}: found ' || {_shown_json('no_list')} || ', expected an array', faults)",
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
        {_lines(_texts(contract))}
    FROM parsed
), typed AS (
    SELECT *,
        {_lines(f"{_typed(f)} AS {f.name}" for f in contract.fields)}
    FROM texts
), messages AS (
    SELECT *, {_faults(contract, frame.label)} AS faults
    FROM typed
), checked AS (
    SELECT *, {frame.error_type} AS error_type FROM messages
)
SELECT {frame.place},
    {_lines(columns, indent=4)},
    error_type,
    CASE WHEN error_type IS NOT NULL THEN replace({frame.message}, chr(0), '\\u0000') END AS error_message,
    CASE WHEN {is_kept} THEN {frame.raw} END AS raw_record
FROM checked"""


def _json_keys(contract: Contract) -> str:
    """The keys of a record and of each object in it, in the order of `contract.objects`."""
    if contract.is_scalar:
        return "NULL"
    return f"json_keys(value, {['$', *(f'$.{o}' for o in contract.objects)]})"


def _usual_keys(contract: Contract) -> str:
    """Select the keys of the first records, unless one has a key twice.

    Readers differ in which value of a key that stands twice they take, so no record may have one. To compare keys is
    dear, and most records have the very keys of the first ones: only the others are looked at.
    """
    return f"""SELECT list(DISTINCT keys) AS shapes FROM (SELECT {_json_keys(contract)} AS keys FROM located LIMIT 1000)
    WHERE list_aggregate(list_transform(keys, lambda k: coalesce(len(k), 0)), 'sum') <= {_FEW_KEYS}
    AND NOT list_contains(list_transform(keys, lambda k: list_unique(k) < len(k)), true)"""


def _parsed(contract: Contract) -> str:
    """Select the parsed JSON, its keys, and what is needed to take numbers as they stand."""
    value = "NULL" if contract.is_scalar else f"json_transform(value, '{json.dumps(_structure(contract))}')"
    is_expected = "true" if contract.is_scalar else "starts_with(ltrim(value, ' \t\r\n'), '{')"
    numbers = "".join(f"\n        {_find(f)}," for f in contract.fields if f.type.is_exact)
    if numbers:
        numbers += r" regexp_matches(value, '\\u00[4-7]') AS has_escaped_letters,"
    return f"""SELECT *, {is_expected} AS is_expected, {value} AS p, {_json_keys(contract)} AS keys,{numbers}
        NOT coalesce(list_contains((SELECT shapes FROM usual), keys), false) AS is_unusual
    FROM located"""


def _texts(contract: Contract) -> list[str]:
    """The text of each field, and the JSON of each list."""
    return [
        *(f"{_exact(f) if f.type.is_exact else _text(f)} AS {f.name}__text" for f in contract.fields),
        *(f"{_list(contract, item.name)} AS {item.name}" for item in contract.lists),
    ]


def _faults(contract: Contract, label: str) -> str:
    """What is wrong with a record, NULL if nothing is; the messages are made for those at fault only."""
    objects = [] if contract.is_scalar else ["", *contract.objects]
    wrong = [
        *map(_is_wrong, contract.fields),
        *(_is_not_object(contract, o) for o in contract.objects),
        *(f"({rule.violated_when})" for rule in contract.rules),
    ]
    messages = [
        *(_message(f, label) for f in contract.fields),
        *(_object_message(contract, o, label) for o in objects),
        *(f"CASE WHEN {rule.violated_when} THEN {sql_text(rule.message)} END" for rule in contract.rules),
    ]
    return f"""CASE
        WHEN NOT is_expected THEN {_subject("", label) + _found_no_object("value")}
        WHEN is_unusual OR {" OR ".join(wrong)} THEN nullif(concat_ws('; ',
        {_lines(messages)}), '')
    END"""


def _lines(items: Iterable[str], indent: int = 8) -> str:
    return (",\n" + " " * indent).join(items)


def _structure(contract: Contract) -> dict[str, Any]:
    """The part of the JSON that the contract reads: every leaf as text, every list as the JSON that it is."""
    structure: dict[str, Any] = {}
    for path in (p for f in contract.fields if not f.type.is_kind for p in f.paths):
        *parents, leaf = path.split(".")
        level = structure
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = "VARCHAR"
    return structure | {item.name: "JSON" for item in contract.lists}


def _text(field: Field) -> str:
    if field.paths == ("",):
        return "json_extract_string(value, '$')"
    if field.type.is_kind:
        return f"json_type(value, '$.{field.paths[0]}')"
    if field.type.digits:
        return _whole(field)
    found = [f"p.{path}" for path in field.paths]
    return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"


_NUMBER = "-?[0-9][0-9.eE+-]*"


def _find(field: Field) -> str:
    """What follows the field's key, wherever it stands in the record: the numbers, and a quote for each text."""
    key = re.escape(field.paths[0].rpartition(".")[2])
    return rf"""regexp_extract_all(value, '"{key}"[ \t\r\n]*:[ \t\r\n]*("|{_NUMBER})', 1) AS {field.name}__found"""


def _exact(field: Field) -> str:
    r"""The text of a number as it stands in the JSON, which json_transform rounds.

    Text in quotes and a colon is a key in JSON, unless it is written with escapes. If it stands once,
    what follows it is the number; else all numbers of the record are put into quotes, which takes ten times as long.
    """
    (path,) = field.paths
    text, found = f"p.{path}", f"{field.name}__found"
    return rf"""CASE
            WHEN {text} IS NULL OR NOT regexp_matches({text}, '^{_NUMBER}') THEN {text}
            WHEN len({found}) <> 1 OR has_escaped_letters THEN {_as_written(path)}
            WHEN {found}[1] = '"' THEN {text}
            ELSE {found}[1]
        END"""


def _whole(field: Field) -> str:
    """The text of an integer; if it has a point or an exponent, as it stands in the JSON."""
    (path,) = field.paths
    is_plain = f"p.{path} IS NULL OR NOT regexp_matches(p.{path}, '^-?[0-9]+[.eE]')"
    return f"CASE WHEN {is_plain} THEN p.{path} ELSE {_as_written(path)} END"


def _as_written(path: str) -> str:
    """What stands at a path, after all numbers of the record have been put into quotes."""
    quoted = rf"""regexp_replace(value, '("(?:[^"\\]|\\.)*")|({_NUMBER})', '\1' || chr(1) || '\2' || chr(1), 'g')"""
    quoted = f"""replace(replace({quoted}, chr(1) || chr(1), ''), chr(1), '"')"""
    return f"json_extract_string({quoted}, '$.{path}')"


def _typed(field: Field) -> str:
    """The value, or NULL if the text does not match the type's pattern."""
    text = f"{field.name}__text"
    if field.type.is_kind:
        return text
    if field.type.pattern:
        number = _typed_integer(field) if field.type.digits else f"try_cast({text} AS {field.type.sql})"
        return f"CASE WHEN regexp_matches({text}, '{field.type.pattern}') THEN {number} END"
    kept, most = "NULL", f" OR length({text}) > {field.type.max_length}" if field.type.max_length else ""
    if field.type.unwrap:
        found = f"coalesce(json_extract_string({text}, '$.{field.type.unwrap}'), {text})"
        kept = f"CASE WHEN NOT contains({found}, chr(0)) THEN {found} END"
    kinds = ", ".join(f"nullif(json_type(value, '$.{path}'), 'NULL')" for path in field.paths)
    return f"""CASE
            WHEN contains({text}, chr(0)){most} THEN NULL
            WHEN starts_with({text}, '{{') OR starts_with({text}, '[') THEN
                CASE coalesce({kinds}) WHEN 'OBJECT' THEN {kept} WHEN 'ARRAY' THEN NULL ELSE {text} END
            ELSE {text}
        END"""


def _list(contract: Contract, name: str) -> str:
    """The JSON of a list, as a text; that of a null is the empty list, and only a key that is absent has none."""
    is_null = f"list_contains({_keys(contract, '')}, '{name}')"
    return f"coalesce(CAST(p.{name} AS VARCHAR), CASE WHEN {is_null} THEN '[]' END)"


def _typed_integer(field: Field) -> str:
    """A whole number. An element of a list has been a float if it was written like one, and 15 digits of that hold."""
    text = f"{field.name}__text"
    digits = 15 if field.paths == ("",) else field.type.digits
    number = f"try_cast({text} AS DECIMAL(38, 18))"
    whole = f"CASE WHEN {number} = trunc({number}) THEN try_cast({number} AS DECIMAL({digits}, 0)) END"
    return f"""CASE WHEN regexp_matches({text}, '[.eE]')
            THEN try_cast({whole} AS {field.type.sql}) ELSE try_cast({text} AS {field.type.sql}) END"""


def _kept(contract: Contract, field: Field) -> str:
    """A column as it leaves; what is used of a rejected record too is not, if its key stands twice in the record."""
    if contract.is_scalar or field.name not in {contract.key, contract.version_by, contract.alias, *contract.salvaged}:
        return field.name
    steps = dict.fromkeys(step for path in field.paths for step in _steps(path))
    twice = " OR ".join(
        f"coalesce(len(list_filter({_keys(contract, parent)}, lambda k: k = '{step}')), 0) > 1"
        for parent, step in steps
    )
    return f"CASE WHEN NOT is_unusual OR NOT ({twice}) THEN {field.name} END AS {field.name}"


def _steps(path: str) -> list[tuple[str, str]]:
    """The keys that lead along a path, each with the object that it stands in."""
    steps = path.split(".")
    return [(".".join(steps[:depth]), step) for depth, step in enumerate(steps)]


def _is_wrong(field: Field) -> str:
    missing_too = "" if field.required else f" AND {field.name}__text IS NOT NULL"
    return f"({field.name} IS NULL{missing_too})"


def _message(field: Field, label: str) -> str:
    text, subject = f"{field.name}__text", _subject(field.paths[0], label)
    missing = (
        f"WHEN {text} IS NULL THEN {subject} || ': missing, expected {field.type.label}'" if field.required else ""
    )
    found = f"{subject} || ': found ' || {_shown(text)} || ', expected {field.type.label}'"
    return f"""CASE WHEN {field.name} IS NOT NULL THEN NULL {missing}
            WHEN contains({text}, chr(0)) THEN {subject} || ': holds a character that PostgreSQL cannot store'
            WHEN {text} IS NOT NULL THEN {found} END"""


def _object_message(contract: Contract, path: str, label: str) -> str:
    keys = _keys(contract, path)
    said = f"""CASE WHEN list_unique({keys}) < len({keys})
            THEN {_subject(path, label)} || ': has a key more than once: ' || {_shown_twice(keys)} END"""
    if not path:
        return said
    found = _found_no_object(f"json_extract(value, '$.{path}')")
    return f"""{said},
        CASE WHEN {_is_not_object(contract, path)}
            THEN {_subject(path, label) + found} END"""


def _shown_twice(keys: str) -> str:
    """The keys that a list has more than once, as a message shows them: the first few, each at most 60 characters."""
    twice = f"list_filter(map_entries(list_histogram({keys})), lambda e: e.value > 1)"
    few = f"list_sort(list_transform({twice}, lambda e: left(e.key, 60)))[1:{_SHOWN_KEYS}]"
    more = (
        f"CASE WHEN len({twice}) > {_SHOWN_KEYS} THEN ' and ' || (len({twice}) - {_SHOWN_KEYS}) || ' more' ELSE '' END"
    )
    return f"array_to_string({few}, ', ') || {more}"


def _found_no_object(json: str) -> str:
    return f" || ': found ' || {_shown_json(json)} || ', expected an object'"


def _keys(contract: Contract, path: str) -> str:
    """The keys of a record, or of an object in it, as the step `parsed` has them."""
    return f"keys[{['', *contract.objects].index(path) + 1}]"


def _is_not_object(contract: Contract, path: str) -> str:
    """Whether something else stands in the object's place; looked at only if nothing was found inside."""
    inside = [f"p.{p}" for f in contract.fields for p in f.paths if p.startswith(f"{path}.")]
    return f"""CASE WHEN coalesce({", ".join(inside)}) IS NULL
            THEN json_type(value, '$.{path}') NOT IN ('NULL', 'OBJECT') ELSE false END"""


def _subject(path: str, label: str) -> str:
    """The SQL text that names what a message is about; `label` is SQL that names the element, empty for a record."""
    if label:
        return label + sql_text(f".{path}" if path else "")
    return sql_text(path or "the record")


def _shown(text: str) -> str:
    """A found value as a message shows it: quoted, at most 60 characters."""
    return f"'\"' || left({text}, 60) || '\"'"


def _shown_json(json: str) -> str:
    """A found JSON value as a message shows it: as it came, at most 60 characters."""
    return f"left(CAST({json} AS VARCHAR), 60)"
