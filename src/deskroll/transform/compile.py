"""A contract as SQL: flatten, validate, deduplicate, explode.

Every function returns a SELECT in DuckDB's dialect, made of named steps, that can be pasted into DuckDB. Those that
check look at each row by itself; their input is a relation `records`:

    source_file TEXT, record_index BIGINT,  where it stands (0-based; NULL: the fault is the whole file's)
    record TEXT,                            the JSON (NULL, with no fault: not read yet)
    raw TEXT,                               the text as it came, where `record` had to be mended
    fault TEXT                              why there is no record

and the output a row per record: its place, a column per field, a JSON text per list (NULL if the record does not have
the key; of a null the empty list), and `error_type`, `error_message` and `raw_record`, all three NULL if the record is
valid.
"""

import json
import re
from collections.abc import Iterable
from datetime import date
from typing import Any

from deskroll.spec.contract import PARSE_ERROR, UNREAD, VALIDATION_ERROR, Contract, Field, Lookup, states, supersedes
from deskroll.sql import sql_text

PLACE = "source_file, record_index"

_FEW_KEYS = 1000  # in all objects of a record together, up to which its keys are remembered to compare others with
_SHOWN_KEYS = 10


def check_records(contract: Contract) -> str:
    """Select every record of `records`, flattened into typed columns, with what is wrong with it."""
    return _check(
        contract,
        rows="SELECT *, record AS value FROM records",
        place=PLACE,
        says=f"""CASE
        WHEN fault IS NOT NULL THEN '{PARSE_ERROR}'
        WHEN record IS NULL THEN '{UNREAD}'
        WHEN NOT is_expected THEN '{PARSE_ERROR}'
        WHEN faults IS NOT NULL THEN '{VALIDATION_ERROR}'
    END""",
        message="coalesce(fault, faults)",
        raw="coalesce(raw, record)",
        label="",
    )


def lists_of(parent: Contract, contract: Contract, relation: str) -> str:
    """Select one list of the records in `relation`, each with its record's key and place: input of `check_elements`."""
    return f"SELECT {parent.key}, {PLACE}, {contract.name} FROM {relation} WHERE {contract.name} IS NOT NULL"


def check_elements(parent: Contract, contract: Contract) -> str:
    """Select every element of the lists in `records`, checked like a record of its own.

    What stands in the place of a list is one row without a position, and at fault.
    """
    name = contract.name
    return _check(
        contract,
        rows=f"""SELECT {parent.key}, {PLACE}, position - 1 AS position, CAST(NULL AS VARCHAR) AS no_list,
        CAST(coalesce(element, 'null') AS VARCHAR) AS value
    FROM (
        SELECT {parent.key}, {PLACE}, unnest(list) AS element, generate_subscripts(list, 1) AS position
        FROM (SELECT *, json_transform({name}, '["JSON"]') AS list FROM records WHERE {states(name)})
    )
    UNION ALL
    SELECT {parent.key}, {PLACE}, CAST(NULL AS BIGINT), {name}, CAST(NULL AS VARCHAR)
    FROM records WHERE NOT {states(name)}""",
        place=f"{parent.key}, {PLACE}, position",
        says=f"CASE WHEN no_list IS NOT NULL OR faults IS NOT NULL THEN '{VALIDATION_ERROR}' END",
        message=f"coalesce('{name}: found ' || {_shown_json('no_list')} || ', expected an array', faults)",
        raw="coalesce(no_list, value)",
        label=f"'{name}[' || position || ']' || ",
    )


def repeated(contract: Contract, relation: str, *also: str) -> str:
    """Select the keys under which `relation` has several valid rows; `also` are columns that belong to the key."""
    key = ", ".join((*also, contract.key))
    return f"SELECT {key} FROM {relation} WHERE error_type IS NULL GROUP BY {key} HAVING count(*) > 1"


def rejected(contract: Contract, relation: str, on: date, *also: str) -> str:
    """Select the rejected rows of `relation` whose key can be read, one a key: the newest, as far as that can be told.

    A row whose age cannot be read may be the newest of all. `on` is the date of the sync.
    """
    key = ", ".join((*also, contract.key))
    age = f"{contract.order(on)} DESC NULLS FIRST, " if contract.newest else ""
    return f"""SELECT * EXCLUDE (nth) FROM (
    SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {age}{_last(also)}) AS nth
    FROM {relation} WHERE error_type IS NOT NULL AND {contract.key} IS NOT NULL
) WHERE nth = 1"""


def newest(contract: Contract, relation: str, repeats: str, rejects: str, on: date, *also: str) -> str:
    """Select the valid rows of `relation`, one a key: the newest, then the last by file and position.

    `is_superseded` says of each whether a rejected row of its key may be newer. `repeats` is the relation of
    `repeated`: only rows with these keys are sorted, because a window over all of the wide rows costs several times as
    much. `rejects` is that of `rejected`. `on` is the date of the sync.
    """
    key = ", ".join((*also, contract.key))
    age = f"{contract.order(on)} DESC NULLS LAST, " if contract.newest else ""
    return f"""WITH valid AS (
    SELECT one.* FROM {relation} AS one ANTI JOIN {repeats} USING ({key}) WHERE error_type IS NULL
    UNION ALL
    SELECT * EXCLUDE (nth) FROM (
        SELECT one.*, row_number() OVER (PARTITION BY {key} ORDER BY {age}{_last(also)}) AS nth
        FROM {relation} AS one SEMI JOIN {repeats} USING ({key}) WHERE error_type IS NULL
    ) WHERE nth = 1
)
SELECT valid.*, {supersedes(contract, "bad", "valid", on)} AS is_superseded
FROM valid LEFT JOIN {rejects} AS bad ON {" AND ".join(f"bad.{k} = valid.{k}" for k in (*also, contract.key))}"""


def _last(also: tuple[str, ...]) -> str:
    return "source_file DESC, record_index DESC" + (", position DESC" if also else "")


def wanted(lookup: Lookup, relation: str) -> str:
    """Select what the records in `relation` have to look up: distinct texts and dates."""
    return f"SELECT DISTINCT {lookup.text}, {lookup.on} FROM {relation} WHERE is_wanting"


def look_up(lookup: Lookup, relation: str, found: str) -> str:
    """Select the rows of `relation`, with the column that was looked up: `found` has `text`, `on_date` and `value`."""
    is_missing = "is_wanting AND found.value IS NULL"
    return f"""SELECT one.* EXCLUDE (is_wanting, error_type, error_message, raw_record), found.value AS {lookup.name},
    CASE WHEN {is_missing} THEN '{VALIDATION_ERROR}' ELSE error_type END AS error_type,
    CASE WHEN {is_missing} THEN concat_ws('; ', error_message, {sql_text(lookup.message)})
        ELSE error_message END AS error_message,
    CASE WHEN error_type IS NOT NULL OR {is_missing} THEN raw_record END AS raw_record
FROM {relation} AS one
LEFT JOIN {found} AS found ON is_wanting AND found.text = {lookup.text} AND found.on_date = {lookup.on}"""


def _check(contract: Contract, *, rows: str, place: str, says: str, message: str, raw: str, label: str) -> str:
    """Write the steps that records and elements share: parse, take the texts, type them, tell the faults."""
    fields = contract.fields
    lists = [item.name for item in contract.lists]
    objects = [] if contract.is_scalar else ["", *contract.objects]
    parsed = "NULL" if contract.is_scalar else f"json_transform(value, '{json.dumps(_structure(contract))}')"
    keys = "NULL" if contract.is_scalar else f"json_keys(value, {['$', *(f'$.{o}' for o in contract.objects)]})"
    texts = [f"{_exact(f) if f.type.is_exact else _text(f)} AS {f.name}__text" for f in fields] + [
        f"{_list(contract, name)} AS {name}" for name in lists
    ]
    wrong = [
        *map(_is_wrong, fields),
        *(_is_no_object(contract, o) for o in contract.objects),
        *(f"({rule.broken})" for rule in contract.rules),
    ]
    told = [
        *(_tell(f, label) for f in fields),
        *(_tell_object(contract, o, label) for o in objects),
        *(f"CASE WHEN {rule.broken} THEN {sql_text(rule.message)} END" for rule in contract.rules),
    ]
    # A record that has to look something up may yet turn out to be bad.
    is_kept, wanting = "error_type IS NOT NULL", []
    if contract.lookup:
        text, on = contract.lookup.text, contract.lookup.on  # without these the record is bad already
        is_wanting = f"(({contract.lookup.wanted}) AND {text} IS NOT NULL AND {on} IS NOT NULL)"
        is_kept, wanting = f"{is_kept} OR {is_wanting}", [f"{is_wanting} AS is_wanting"]
    found = "".join(f"\n        {_find(f)}," for f in fields if f.type.is_exact)
    if found:
        found += r" regexp_matches(value, '\\u00[4-7]') AS has_escaped_letters,"
    is_expected = "true" if contract.is_scalar else "starts_with(ltrim(value, ' \t\r\n'), '{')"
    # Readers differ in which value of a key that stands twice they take, so no record may have one. Telling keys apart
    # is dear, and most records have the very keys of the first ones: only the others are looked at.
    return f"""WITH located AS NOT MATERIALIZED (
    {rows}
), usual AS (
    SELECT list(DISTINCT keys) AS shapes FROM (SELECT {keys} AS keys FROM located LIMIT 1000)
    WHERE list_aggregate(list_transform(keys, lambda k: coalesce(len(k), 0)), 'sum') <= {_FEW_KEYS}
    AND NOT list_contains(list_transform(keys, lambda k: list_unique(k) < len(k)), true)
), parsed AS (
    SELECT *, {is_expected} AS is_expected, {parsed} AS p, {keys} AS keys,{found}
        NOT coalesce(list_contains((SELECT shapes FROM usual), keys), false) AS is_unusual
    FROM located
), texts AS (
    SELECT *,
        {_lines(texts)}
    FROM parsed
), typed AS (
    SELECT *,
        {_lines(f"{_typed(f)} AS {f.name}" for f in fields)}
    FROM texts
), told AS (
    SELECT *, CASE
        WHEN NOT is_expected THEN {_subject("", label) + _found_no_object("value")}
        WHEN is_unusual OR {" OR ".join(wrong)} THEN nullif(concat_ws('; ',
        {_lines(told)}), '')
    END AS faults
    FROM typed
), judged AS (
    SELECT *, {says} AS error_type FROM told
)
SELECT {place},
    {_lines([*(_kept(contract, f) for f in fields), *lists, *wanting], indent=4)},
    error_type,
    CASE WHEN error_type IS NOT NULL THEN replace({message}, chr(0), '\\u0000') END AS error_message,
    CASE WHEN {is_kept} THEN {raw} END AS raw_record
FROM judged"""


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

    A key in quotes is nowhere in JSON but where it is a key, unless it is written with escapes. Where it stands once,
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
    """The value, or NULL where the text is not of the type's form."""
    text = f"{field.name}__text"
    if field.type.is_kind:
        return text
    if field.type.form:
        number = _typed_integer(field) if field.type.digits else f"try_cast({text} AS {field.type.sql})"
        return f"CASE WHEN regexp_matches({text}, '{field.type.form}') THEN {number} END"
    kept, most = "NULL", f" OR length({text}) > {field.type.most}" if field.type.most else ""
    if field.type.member:
        found = f"coalesce(json_extract_string({text}, '$.{field.type.member}'), {text})"
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
    if contract.is_scalar or field.name not in {contract.key, contract.newest, contract.alias, *contract.salvaged}:
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


def _tell(field: Field, label: str) -> str:
    text, subject = f"{field.name}__text", _subject(field.paths[0], label)
    missing = (
        f"WHEN {text} IS NULL THEN {subject} || ': missing, expected {field.type.called}'" if field.required else ""
    )
    found = f"{subject} || ': found ' || {_shown(text)} || ', expected {field.type.called}'"
    return f"""CASE WHEN {field.name} IS NOT NULL THEN NULL {missing}
            WHEN contains({text}, chr(0)) THEN {subject} || ': holds a character that PostgreSQL cannot store'
            WHEN {text} IS NOT NULL THEN {found} END"""


def _tell_object(contract: Contract, path: str, label: str) -> str:
    keys = _keys(contract, path)
    said = f"""CASE WHEN list_unique({keys}) < len({keys})
            THEN {_subject(path, label)} || ': has a key more than once: ' || {_shown_twice(keys)} END"""
    if not path:
        return said
    found = _found_no_object(f"json_extract(value, '$.{path}')")
    return f"""{said},
        CASE WHEN {_is_no_object(contract, path)}
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


def _is_no_object(contract: Contract, path: str) -> str:
    """Whether something else stands where the object should; looked at only where nothing was found inside."""
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
