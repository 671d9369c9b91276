"""The messages about a record, as SQL: what was found, what was expected, and which field it is about."""

from collections.abc import Iterable
from typing import Final

from deskroll.spec.contract import Contract, Field
from deskroll.sql import sql_text
from deskroll.transform.values import keys_of

_SHOWN_KEYS: Final = 10


def faults_of(contract: Contract, label: str) -> str:
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
        WHEN NOT is_expected THEN {_subject("", label) + found_no_object("value")}
        WHEN is_unusual OR {" OR ".join(wrong)} THEN nullif(concat_ws('; ',
        {lines(messages)}), '')
    END"""


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
    keys = keys_of(contract, path)
    said = f"""CASE WHEN list_unique({keys}) < len({keys})
            THEN {_subject(path, label)} || ': has a key more than once: ' || {_shown_twice(keys)} END"""
    if not path:
        return said
    found = found_no_object(f"json_extract(value, '$.{path}')")
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


def found_no_object(json: str) -> str:
    """The end of a message about what is not an object, and should be one."""
    return f" || ': found ' || {shown_json(json)} || ', expected an object'"


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


def shown_json(json: str) -> str:
    """A found JSON value as a message shows it: as it came, at most 60 characters."""
    return f"left(CAST({json} AS VARCHAR), 60)"


def lines(items: Iterable[str], indent: int = 8) -> str:
    """Items of a list in SQL, one a line."""
    return (",\n" + " " * indent).join(items)
