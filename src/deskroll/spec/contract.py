"""What a record must look like: a contract is data, one line a field.

A contract names the folder's fields, where each stands in the JSON, and its type. `compile.py` turns it into SQL.
A type is pinned by its lexical form, a regular expression that every engine reads alike, so that the same text gives
the same value, or the same quarantine row, whichever engine reads it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

PARSE_ERROR: Final = "PARSE_ERROR"
VALIDATION_ERROR: Final = "VALIDATION_ERROR"
UNREAD: Final = "UNREAD"  # the engine's fast reader doubts the file: it is to be read again, exactly


@dataclass(frozen=True)
class Type:
    """A column type: its SQL name, what a message calls it, and the text that it takes.

    `pattern` is an anchored regular expression; None takes any text, of at most `max_length` characters if that is
    given. With `unwrap`, an object stands for a text too: the member of that name is kept, else the object's JSON.
    `is_exact`: a number's text is taken as it stands in the JSON, because parsers make a float of it, which holds 15
    digits. `digits`: an integer of at most so many digits, which may be written with a point or an exponent, as 4637.0
    or 4.637E3. `is_kind`: the value is not what stands at the path but what kind of JSON that is, such as OBJECT; NULL
    if the key is absent, and the text NULL if it is null.
    """

    sql: str
    label: str
    pattern: str | None = None
    max_length: int | None = None
    unwrap: str | None = None
    is_exact: bool = False
    digits: int | None = None
    is_kind: bool = False


def decimal(label: str, pattern: str) -> Type:
    """A number of any fractional digits, kept as its text until PostgreSQL makes NUMERIC of it."""
    return Type("VARCHAR", label, pattern, is_exact=True)


def integer(sql: str, label: str, digits: int, *, sign: str = "-?") -> Type:
    """A whole number, in whatever notation: programs that rewrite JSON make floats of integers."""
    pattern = f"^{sign}[0-9]{{1,{digits}}}([.][0-9]{{1,18}})?([eE][+]?[0-9]{{1,2}})?$"
    return Type(sql, label, pattern, digits=digits)


_HOUR_MINUTE = "([01][0-9]|2[0-3])(:?[0-5][0-9])?"

_EXPONENT = "([eE][+-]?[0-9]{1,2})?"

TEXT: Final = Type("VARCHAR", "text")
# What is a key, or is looked up: an index takes 2704 bytes, and a character has at most four.
KEY: Final = Type("VARCHAR", "text of at most 500 characters", max_length=500)
TEXT_OR_AVATAR: Final = Type("VARCHAR", "text or an object", unwrap="avatar_url")
JSON_KIND: Final = Type("VARCHAR", "JSON", is_kind=True)
BIGINT: Final = integer("BIGINT", "an integer of at most 64 bits", 19)
INTEGER: Final = integer("INTEGER", "an integer of at most 32 bits", 10)
BOOLEAN: Final = Type("BOOLEAN", "true or false", pattern="^([Tt]rue|TRUE|[Ff]alse|FALSE)$")
DIGIT: Final = integer("INTEGER", "a whole number from 0 to 9", 1, sign="")
DATE: Final = Type("DATE", "a date such as 2026-01-05", pattern="^[12][0-9]{3}-[0-9]{2}-[0-9]{2}$")
DECIMAL: Final = decimal("a number", f"^-?[0-9]{{1,20}}([.][0-9]{{1,30}})?{_EXPONENT}$")
NOT_NEGATIVE: Final = decimal(
    "a number that is not negative", f"^([0-9]{{1,20}}([.][0-9]{{1,30}})?{_EXPONENT}|-0+([.]0+)?)$"
)
# ISO 8601 with seconds; no offset means UTC, and an offset may have no minutes. Years 1000 to 2999 fit every engine,
# PostgreSQL and Python.
TIMESTAMP: Final = Type(
    "TIMESTAMPTZ",
    "a timestamp such as 2026-01-05T08:30:00Z",
    pattern=(
        "^[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?"
        f"(Z|[+-]{_HOUR_MINUTE})?$"
    ),
)


@dataclass(frozen=True)
class Field:
    """One column of a record: its name, type, and the JSON paths to try in turn (dots lead into objects).

    The empty path is the value itself, for a list of plain values.
    """

    name: str
    type: Type
    paths: tuple[str, ...]
    required: bool = False


def column(name: str, type_: Type, *paths: str, required: bool = False) -> Field:
    """A field; its path is its own name unless others are given."""
    return Field(name, type_, paths or (name,), required)


@dataclass(frozen=True)
class Rule:
    """What a record as a whole must not be: SQL over its columns, and what to say if that is true."""

    violated_when: str
    message: str


@dataclass(frozen=True)
class Lookup:
    """A column `name` whose value comes from outside, for records for which `needed_when` is true.

    `needed_when` is SQL over a record's columns and, as `<column>__text`, the texts that they are made of. `find` takes
    keys, each a text and a date that the SQL of `text` and `on` gives, and returns the value of each that has one. If
    there is none, the record is at fault, and `message` says so. The answers are those of a version of `package`.
    """

    name: str
    needed_when: str
    text: str
    on: str
    find: Callable[[Iterable[tuple[str, date]]], Mapping[tuple[str, date], str]]
    package: str
    message: str


@dataclass(frozen=True)
class Contract:
    """The shape of one record, or of one element of a list inside a record.

    `key` identifies a record. Of several valid ones with the same key, the newest by `version_by` wins; if `is_dated`,
    one from the future does not, see `order`. `lists` are arrays inside the record, each with the contract of its
    elements: a fault in an element costs that element only, and what is not a list costs the list. `alias` is the field
    by which a record is identified if its key cannot be read. Of a rejected record these three count too, and the
    fields in `salvaged`.
    """

    name: str
    fields: tuple[Field, ...]
    key: str
    version_by: str | None = None
    lists: tuple["Contract", ...] = field(default=())
    rules: tuple[Rule, ...] = ()
    lookup: Lookup | None = None
    salvaged: tuple[str, ...] = ()
    alias: str | None = None
    is_dated: bool = False

    def order(self, on: date | None, of: str = "") -> str | None:
        """SQL by which the newest record of a key is found, in a sync of that date; `of` is the relation, as `valid.`.

        A record from the future, later than the day after that date, counts as one of that date.
        """
        if not self.version_by:
            return None
        moment = f"{of}{self.version_by}"
        if on is None or not self.is_dated:
            return moment
        latest, instead = (f"CAST('{day} 00:00:00+00' AS TIMESTAMPTZ)" for day in (on + timedelta(days=2), on))
        return f"CASE WHEN {moment} >= {latest} THEN {instead} ELSE {moment} END"

    @property
    def objects(self) -> tuple[str, ...]:
        """The nested objects that paths lead into, outermost first, such as `contact`."""
        parents = (p.split(".")[:depth] for f in self.fields for p in f.paths for depth in range(1, p.count(".") + 1))
        return tuple(dict.fromkeys(".".join(p) for p in parents))

    @property
    def is_scalar(self) -> bool:
        """Whether a record is a plain value, as in `group_ids`."""
        return self.fields[0].paths == ("",)


def ids(name: str, key: str) -> Contract:
    """The contract of a list of plain ids, such as `group_ids`; `key` is the column that an id becomes."""
    return Contract(name, (column(key, BIGINT, "", required=True),), key=key)


def states(name: str) -> str:
    """SQL over the columns of a record: whether it has the list `name`, and that is a list."""
    return f"coalesce(starts_with({name}, '['), false)"


def supersedes(contract: Contract, bad: str, valid: str, on: date | None = None) -> str:
    """SQL: whether the rejected row `bad` of the same key, if there is one, may be newer than the row `valid`.

    `on` is the date of the sync, which only the contract of dated records needs.
    """
    is_later = f"""({bad}.source_file > {valid}.source_file
        OR {bad}.source_file = {valid}.source_file AND {bad}.record_index > {valid}.record_index)"""
    if contract.version_by:
        at, than = contract.order(on, f"{bad}."), contract.order(on, f"{valid}.")
        is_later = f"({at} IS NULL OR {than} IS NULL OR {at} > {than} OR {at} = {than} AND {is_later})"
    return f"coalesce({bad}.{contract.key} IS NOT NULL AND {is_later}, false)"
