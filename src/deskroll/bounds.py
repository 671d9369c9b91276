"""How much a record may hold: what a text of JSON costs to parse does not show in its length.

The functions here take little memory, whatever the text.
"""

import json
import re
from typing import Final

MAX_RECORD: Final = 16 * 1024 * 1024  # characters of one record
MAX_VALUES: Final = 200_000  # members and elements in one record, at all depths
ALWAYS_FEW: Final = 2 * MAX_VALUES  # characters, up to which a text cannot hold too many: each takes two of them
TOO_MANY: Final = f"has more than {MAX_VALUES:,} members and elements"

# Possessive, so that a text of any length is matched in little memory. A quote alone is a text that does not end.
_TEXT: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MARKS: Final = re.compile(rf'{_TEXT}|\[[ \t\r\n]*+\]|\{{[ \t\r\n]*+\}}|[\[\]{{}},"]', re.DOTALL)
_BRACKETS: Final = re.compile(rf'{_TEXT}|[\[\]{{}}"]', re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_CLOSES: Final = {"[": "]", "{": "}"}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


# Numbers stay text: only the bounds of a value matter here, and Python refuses integers of over 4,300 digits.
DECODER: Final = json.JSONDecoder(parse_constant=_no_constant, parse_int=str, parse_float=str)


class Extent:
    """Follows the brackets of an array or object to its end, through a text that may grow, and counts what is in it.

    `has_too_many` says whether it has more values than a record may have; they are not counted further.
    """

    def __init__(self, begin: int) -> None:
        self._at = begin
        self._depth = 0
        self._values = 0

    @property
    def has_too_many(self) -> bool:
        """Whether more values were seen than a record may have."""
        return self._values > MAX_VALUES

    def find_end(self, text: str) -> int | None:
        """Where the value ends; None if the text ends before."""
        if not self.has_too_many:
            end = self._follow(_MARKS, text)
            if end is not None or not self.has_too_many:
                return end
        return self._follow(_BRACKETS, text)

    def _follow(self, marks: re.Pattern[str], text: str) -> int | None:
        """Go on to the end, or to where there are too many values if `marks` has what tells them."""
        counts = marks is _MARKS
        for match in marks.finditer(text, self._at):
            begin, end = match.span()
            mark = text[begin]
            if mark == '"':
                if end - begin == 1:
                    self._at = begin
                    return None
            elif mark == ",":
                self._values += 1
            elif mark in "]}":
                self._depth -= 1
            elif end - begin == 1:
                self._depth += 1
                self._values += 1
            self._at = end
            if not self._depth:
                return end
            if counts and self._values > MAX_VALUES:
                return None
        return None


def has_too_many(text: str) -> bool:
    """Whether a record holds more values than one may; it is JSON, or brackets at least."""
    if len(text) <= ALWAYS_FEW or not text.lstrip().startswith(("[", "{")):
        return False
    extent = Extent(0)
    extent.find_end(text)
    return extent.has_too_many


def find_end(text: str, at: int) -> int:
    """Where a JSON value ends that begins at a place, however deep it is nested: Python's own parser gives up there.

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
        else:
            at = DECODER.raw_decode(text, at)[1]
        at = _skip(text, at)
        while closing and text[at : at + 1] == closing[-1]:
            closing.pop()
            at = _skip(text, at + 1) if closing else at + 1
        if not closing:
            return at
        at = _after_comma(text, at, closing[-1])


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
