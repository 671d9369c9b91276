"""What an envelope says beside its records: that something went wrong, that there is a next page, how many there are.

Vendors name these differently. A key is looked up in lower case without `_`, `-`, `.` and `@`, on the envelope itself
and in the objects in which vendors put such things (`meta`, `pagination`, `links`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

_ERROR: Final = {"error", "errors", "errormessage", "errormessages", "errorcode", "errordescription", "errordetails"}
_NEXT: Final = {
    "next", "nextpage", "nextpagetoken", "nextpageurl", "nextpagelink", "nexturl", "nexturi", "nexthref", "nextlink",
    "nextcursor", "nexttoken", "nextmarker", "nextoffset", "odatanextlink", "continuationtoken", "continuation",
}  # fmt: skip
_MORE: Final = {"hasmore", "hasnext", "hasnextpage", "hasmorepages", "hasmoreresults", "hasmoreitems", "morerecords"}
_LAST: Final = {"last", "islast", "islastpage"}
_TOTAL: Final = {
    "total", "totalcount", "count", "totalrecords", "totalresults", "totalitems", "totalentries", "totalelements",
    "totalrows", "recordcount", "resultcount", "odatacount",
}  # fmt: skip
_PAGES: Final = {"totalpages", "lastpage", "numpages", "numberofpages"}
_INSIDE: Final = {
    "links", "meta", "metadata", "responsemetadata", "pagination", "paging", "page", "pageinfo", "cursor", "cursors",
}  # fmt: skip
_TELLING: Final = _ERROR | _NEXT | _MORE | _LAST | _TOTAL | _PAGES | _INSIDE
_NOTHING: Final = {"", "0", "false", "null", "none"}
_NUMBER: Final = re.compile(r"(\d{1,18})(\.0+)?")
_LONGEST_SHOWN: Final = 100
_DEEPEST: Final = 2  # objects inside one another


class Envelope(NamedTuple):
    """What one envelope says: its error as a text, whether it promises a next page, how many records and pages."""

    error: str = ""
    has_next: bool = False
    total: int = 0
    pages: int = 0


@dataclass(frozen=True)
class Envelopes:
    """What the envelopes of a folder say together; `promising` of them promise a next page, `last` is one that does."""

    count: int = 0
    promising: int = 0
    total: int = 0
    pages: int = 0
    last: str = ""

    def __add__(self, other: "Envelopes") -> "Envelopes":
        return Envelopes(
            self.count + other.count,
            self.promising + other.promising,
            max(self.total, other.total),
            max(self.pages, other.pages),
            max(self.last, other.last),
        )

    def broken_promise(self, records: int) -> str:
        """What the envelopes promise that a folder with so many records does not hold; nothing if it holds all."""
        if self.promising and self.promising >= self.count:
            return f"{self.last} says that there is a next page, which is not there"
        if self.total > records:
            return f"its pages say that there are {self.total:,} records, and it has {records:,}"
        if self.pages > self.count:
            return f"its pages say that there are {self.pages:,} pages, and it has {self.count:,}"
        return ""


def of_folder(envelopes: Mapping[str, Envelope]) -> Envelopes:
    """Put together what the envelopes of a folder say, given by the names of their files."""
    promising = [name for name, envelope in envelopes.items() if envelope.has_next]
    return Envelopes(
        len(envelopes),
        len(promising),
        max((e.total for e in envelopes.values()), default=0),
        max((e.pages for e in envelopes.values()), default=0),
        max(promising, default=""),
    )


def is_telling(key: str) -> bool:
    """Whether a member of an envelope may say something that matters."""
    return _plain(key) in _TELLING


def read_envelope(members: Mapping[str, Any]) -> Envelope:
    """Read the members of an envelope other than its records; numbers may be texts."""
    said = list(_members(members))
    error = next((value for key, value in said if key in _ERROR and not _is_nothing(value)), None)
    more = [not _is_nothing(value) for key, value in said if key in _MORE]
    following = [not _is_nothing(value) for key, value in said if key in _NEXT]
    is_last = all(value is not False for key, value in said if key in _LAST)
    return Envelope(
        "" if error is None else str(error)[:_LONGEST_SHOWN],
        any(more) if more else any(following) or not is_last,
        max((_number(value) for key, value in said if key in _TOTAL), default=0),
        max((_number(value) for key, value in said if key in _PAGES), default=0),
    )


def _plain(key: str) -> str:
    return re.sub(r"[-_.@ ]", "", key).lower()


def _members(members: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The members that count, those of objects inside too; an error counts on the envelope itself only."""
    for name, value in members.items():
        key = _plain(name)
        if key in _INSIDE and depth < _DEEPEST:
            yield from _inside(value, depth + 1)
        elif key in _TELLING - (_ERROR if depth else set()):
            yield key, value


def _inside(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from _members(value, depth)
    for link in value if isinstance(value, list) else ():
        if isinstance(link, dict) and link.get("rel") == "next":
            yield "next", link.get("href", True)


def _is_nothing(value: Any) -> bool:
    """Whether a value says nothing: null, false, zero, an empty text, or an array or object of nothing but these."""
    stack = [value]  # it may be nested more deeply than Python's calls
    while stack:
        one = stack.pop()
        if isinstance(one, (dict, list)):
            stack += one.values() if isinstance(one, dict) else one
        elif one is not None and str(one).strip().lower() not in _NOTHING:
            return False
    return True


def _number(value: Any) -> int:
    found = _NUMBER.fullmatch(str(value).strip())
    return int(found[1]) if found else 0
