"""How much a record may hold: what a text of JSON costs to parse does not show in its length.

The functions here take little memory, whatever the text.
"""

import json
import re
from typing import Final

MAX_RECORD: Final = 16 * 1024 * 1024  # characters of one record
MAX_VALUES: Final = 500_000  # members and elements in one record, at all depths
MAX_TEXT: Final = 4 * 1024 * 1024  # characters of those texts in one record, keys included, that are long
ALWAYS_FEW: Final = 2 * MAX_VALUES  # characters, up to which a text cannot hold too much: each value takes two of them
_LONG: Final = 1000  # characters from which a text counts as long
_TOO_MANY: Final = f"has more than {MAX_VALUES:,} members and elements"
_TOO_LONG: Final = f"has texts of more than {MAX_TEXT:,} characters"

# Possessive, so that a text of any length is matched in little memory. A quote alone is a text that does not end.
_TEXT: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MARKS: Final = re.compile(rf'{_TEXT}|\[[ \t\r\n]*+\]|\{{[ \t\r\n]*+\}}|[\[\]{{}},"]', re.DOTALL)
_BRACKETS: Final = re.compile(rf'{_TEXT}|[\[\]{{}}"]', re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_CLOSES: Final = {"[": "]", "{": "}"}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


# Numbers stay text: only the bounds of a value matter here, and Python refuses integers of over 4,300 digits.
DECODER: Final = json.JSONDecoder(parse_constant=_no_constant, parse_int=str, parse_float=str)


class Extent:
    """Follows the brackets of an array or object to its end, through a text that may grow, and counts what is in it.

    `fault` says in which way it holds more than a record may, if it does; nothing is counted further then.
    """

    def __init__(self, begin: int) -> None:
        self.fault: str | None = None
        self._at = begin
        self._depth = 0
        self._values = 0
        self._long = 0

    def find_end(self, text: str) -> int | None:
        """Where the value ends; None if the text ends before."""
        end = None if self.fault else self.measure(text)
        return end if end is not None or not self.fault else self._skip(text)

    def measure(self, text: str) -> int | None:
        """Where the value ends; None if the text ends before, or if a fault is found."""
        for match in _MARKS.finditer(text, self._at):
            begin, end = match.span()
            if text[begin] == '"' and end - begin == 1:
                self._at = begin
                return None
            self._count(text[begin], end - begin)
            self._at = end
            if not self._depth:
                return end
            if self.fault:
                return None
        return None

    def _skip(self, text: str) -> int | None:
        """Where the value ends; of what is still in it only brackets are looked at, for speed."""
        depth = self._depth
        for match in _BRACKETS.finditer(text, self._at):
            begin, end = match.span()
            mark = text[begin]
            if mark in "[{":
                depth += 1
            elif mark != '"':
                depth -= 1
            elif end - begin == 1:
                self._at, self._depth = begin, depth
                return None
            self._at = end
            if not depth:
                return end
        self._depth = depth
        return None

    def _count(self, mark: str, length: int) -> None:
        if mark == ",":
            self._values += 1
        elif mark == '"':
            self._long += length if length > _LONG else 0
        elif mark in "]}":
            self._depth -= 1
        elif length == 1:
            self._depth += 1
            self._values += 1
        if self._values > MAX_VALUES:
            self.fault = _TOO_MANY
        elif self._long > MAX_TEXT + _LONG:
            self.fault = _TOO_LONG


def find_fault(text: str) -> str | None:
    """In which way a record holds more than one may; None if it does not. It is JSON, or brackets at least."""
    if len(text) <= ALWAYS_FEW or not text.lstrip(" \t\r\n").startswith(("[", "{")):
        return None
    extent = Extent(0)
    extent.measure(text)
    return extent.fault


def find_end(text: str, at: int) -> int:
    """The end of a JSON value that begins at a place, however deep it is nested: Python's own parser gives up there.

    Raises:
        json.JSONDecodeError: it is not JSON.
        ValueError: it holds a constant that JSON does not have.
    """
    closing: list[str] = []
    while True:
        at = _skip(text, at)
        if text[at : at + 1] in _CLOSES:
            closing.append(_CLOSES[text[at]])
            at = _skip(text, at + 1)
            if text[at : at + 1] != closing[-1]:
                at = _after_key(text, at) if closing[-1] == "}" else at
                continue
            closing.pop()
            at += 1
        else:
            at = DECODER.raw_decode(text, at)[1]
        while closing and text[(next_at := _skip(text, at)) : next_at + 1] == closing[-1]:
            closing.pop()
            at = next_at + 1
        if not closing:
            return at
        at = _after_comma(text, _skip(text, at), closing[-1])


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _after_comma(text: str, at: int, closing: str) -> int:
    """Where the next value of an array or object begins."""
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    return _after_key(text, _skip(text, at + 1)) if closing == "}" else at + 1


def _after_key(text: str, at: int) -> int:
    """Where the value of a member begins."""
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    at = _skip(text, DECODER.raw_decode(text, at)[1])
    if text[at : at + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    return at + 1
