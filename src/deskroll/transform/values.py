"""The values of a record, as SQL: the text of each field as it stands in the JSON, and the value of its type."""

import re
from typing import Any

from deskroll.spec.contract import Contract, Field

_NUMBER = "-?[0-9][0-9.eE+-]*"


def select_texts(contract: Contract) -> list[str]:
    """The text of each field, and the JSON of each list."""
    return [
        *(f"{_exact(f) if f.type.is_exact else _text(f)} AS {f.name}__text" for f in contract.fields),
        *(f"{_list(contract, item.name)} AS {item.name}" for item in contract.lists),
    ]


def structure_of(contract: Contract) -> dict[str, Any]:
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


def find_numbers(field: Field) -> str:
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


def typed(field: Field) -> str:
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
    is_null = f"list_contains({keys_of(contract, '')}, '{name}')"
    return f"coalesce(CAST(p.{name} AS VARCHAR), CASE WHEN {is_null} THEN '[]' END)"


def _typed_integer(field: Field) -> str:
    """A whole number. An element of a list has been a float if it was written like one, and 15 digits of that hold."""
    text = f"{field.name}__text"
    digits = 15 if field.paths == ("",) else field.type.digits
    number = f"try_cast({text} AS DECIMAL(38, 18))"
    whole = f"CASE WHEN {number} = trunc({number}) THEN try_cast({number} AS DECIMAL({digits}, 0)) END"
    return f"""CASE WHEN regexp_matches({text}, '[.eE]')
            THEN try_cast({whole} AS {field.type.sql}) ELSE try_cast({text} AS {field.type.sql}) END"""


def json_keys(contract: Contract) -> str:
    """The keys of a record and of each object in it, in the order of `contract.objects`."""
    if contract.is_scalar:
        return "NULL"
    return f"json_keys(value, {['$', *(f'$.{o}' for o in contract.objects)]})"


def keys_of(contract: Contract, path: str) -> str:
    """The keys of a record, or of an object in it, as the step `parsed` has them."""
    return f"keys[{['', *contract.objects].index(path) + 1}]"
