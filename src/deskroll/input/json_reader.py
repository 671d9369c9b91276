"""Read a file exactly: the authority on what is JSON (RFC 8259, UTF-8) and where each record stands.

This reader is exact, bounded in memory and slow (tens of MB a second). An engine may read faster what raises no doubt,
and come here for the rest.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from typing import Any, Final, NamedTuple

from deskroll.input.bounds import DECODER, MAX_RECORD, Extent, find_end, find_fault
from deskroll.input.dump import InputFile
from deskroll.input.envelope import Envelope, is_telling, read_envelope
from deskroll.input.files import Unreadable, open_bytes

KEPT_OF_A_BAD_FILE: Final = 64 * 1024  # bytes that go into quarantine of an unreadable file, or of a record too full
_CHUNK: Final = 1024 * 1024
_WINDOW: Final = 2 * _CHUNK  # characters that are parsed without looking first at how much they hold


class Record(NamedTuple):
    """One record as read: its 0-based place, its JSON, the text as it came if that had to be mended, or a fault.

    A fault without a position is the whole file's.
    """

    position: int | None
    record: str | None
    raw: str | None = None
    fault: str | None = None


def read_exactly(
    file: InputFile, resource: str, tell: Callable[[Envelope], None] = lambda envelope: None
) -> Iterator[Record]:
    """Read every record of a file, whatever its shape: an object, an array, an envelope, or a record a line.

    A bad line is a fault of that line, and so is a record that holds more than one may. `tell` is called with what an
    envelope says beside its records.

    Raises:
        Unreadable: the file is not JSON to its end; what was yielded before does not count.
    """
    if file.is_lines:
        yield from _read_lines(file)
    else:
        yield from _Reader(open_bytes(file)).records(("results", resource), tell)


def bad_file(file: InputFile, fault: str) -> Record:
    """The one quarantine row of a file that could not be read: what is wrong, and how the file begins."""
    head = b""
    try:
        for chunk in open_bytes(file):
            head += chunk
            if len(head) >= KEPT_OF_A_BAD_FILE:
                break
    except Unreadable:
        pass  # what could be read before the fault is kept
    if not head:  # nor unpacked: the file as it is
        with suppress(OSError, Unreadable):
            head = next(open_bytes(file._replace(compression="")), b"")
    return Record(None, None, _readable(head) or None, f"the file {fault}")


def _readable(data: bytes) -> str:
    """The beginning of bytes that are no JSON, as text that PostgreSQL can store."""
    text = data[:KEPT_OF_A_BAD_FILE].decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", lambda m: f"\\x{ord(m[0]):02x}", text)


def _is_short(line: bytes) -> bool:
    return len(line) <= MAX_RECORD


def _split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The lines of a stream of bytes, without their ends."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from takewhile(_is_short, lines)
        if not all(map(_is_short, (*lines, rest))):
            raise Unreadable(f"has a line longer than {MAX_RECORD // 1024 // 1024} MiB")
    if rest:
        yield rest


def _read_lines(file: InputFile) -> Iterator[Record]:
    index = 0
    for number, line in enumerate(_split_lines(open_bytes(file)), start=1):
        text = line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip(b" \t\r")
        if not text:
            continue
        yield _line(index, text)
        index += 1
    if not index and not file.is_part:
        raise Unreadable(_EMPTY)


def _line(index: int, data: bytes) -> Record:
    try:
        text = data.decode()
        if not find_fault(text):
            _check_line(text)
        return _record(index, text)
    except ValueError as error:
        return Record(index, None, _readable(data), f"the line {_say(error)}")


def _check_line(text: str) -> None:
    """See that a line is one JSON value.

    Raises:
        ValueError: it is not.
    """
    try:
        DECODER.decode(text)
    except RecursionError:
        end = find_end(text, 0)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end) from None


def _record(index: int, text: str) -> Record:
    """A record of a file, or its fault if it holds too much."""
    if fault := find_fault(text):
        return Record(index, None, _readable(text[:KEPT_OF_A_BAD_FILE].encode()), f"the record {fault}")
    return _mended(index, text)


def _mended(index: int, text: str) -> Record:
    r"""A record, with `\u0000` in place of each lone surrogate: neither can be stored, and parsers refuse this one."""
    if _SURROGATE.search(text):
        mended = _ESCAPE.sub(lambda m: "\\u0000" if m["lone"] else m[0], text)
        if mended != text:
            return Record(index, mended, raw=text)
    return Record(index, text)


_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)


_SPACE: Final = re.compile(r"[ \t\r\n]*")
_EMPTY: Final = "is empty: it holds no JSON; a list of nothing is []"


def _say(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"is not JSON: {error.msg.removesuffix(' at')} at character {error.pos}"
        case UnicodeDecodeError():
            return f"is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
        case _:
            return f"is not JSON: {error}"


def _plain(text: str) -> Any:
    """A JSON value that an envelope says; one that is nested too deeply for Python as its text."""
    try:
        return DECODER.decode(text)
    except RecursionError:
        return text


class _Reader:
    """A JSON document read value by value through a window of text that moves over it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._bytes_before = 0
        self._text = ""
        self._at = 0
        self._characters_before = 0
        self._is_whole = False

    def records(self, lists: tuple[str, ...], tell: Callable[[Envelope], None]) -> Iterator[Record]:
        """Every record of the document; `lists` are the keys under which an envelope has its records."""
        match self._peek():
            case "":
                raise Unreadable(_EMPTY)
            case "[":
                yield from self._elements(0)
            case "{":
                yield from self._object(lists, tell)
            case _:
                value = self._value()
                raise Unreadable(f"holds {value[:60]}, expected an object, an array or an envelope")
        if self._peek():
            raise self._unexpected("more text after the document's end")

    def _elements(self, index: int) -> Iterator[Record]:
        self._expect("[")
        if self._peek() == "]":
            self._expect("]")
            return
        while True:
            self._forget()
            yield _record(index, self._value())
            index += 1
            if self._expect(",", "]") == "]":
                return

    def _object(self, lists: tuple[str, ...], tell: Callable[[Envelope], None]) -> Iterator[Record]:
        """An envelope's records or, if no member is a list of records, the object itself as the one record."""
        begin, index, is_envelope, fault = self._at, 0, False, None
        said: dict[str, Any] = {}
        self._expect("{")
        closed = self._peek() == "}" and self._expect("}") == "}"
        while not closed:
            if self._peek() != '"':
                raise self._unexpected("a key in quotes was expected")
            key = json.loads(self._value())
            self._expect(":")
            if key in lists and self._peek() == "[":
                is_envelope = True
                for record in self._elements(index):
                    index += 1
                    yield record
            else:
                value = self._value()
                fault = find_fault(value) or fault
                if is_telling(key) and not fault:
                    said[key] = _plain(value)
            if is_envelope:
                self._forget()
            closed = self._expect(",", "}") == "}"
        if is_envelope and fault:
            raise Unreadable(f"{fault} beside its records")
        if not is_envelope:
            yield _record(0, self._text[begin : self._at])
            return
        envelope = read_envelope(said)
        if envelope.error and not index:
            raise Unreadable(f"has an empty list beside an error: {envelope.error}")
        tell(envelope)

    def _value(self) -> str:
        """The text of the value that begins here, and move past it; one that holds too much is not parsed."""
        self._peek()
        extent, is_deep = Extent(self._at), False
        while True:
            end = self._end_of(extent) if is_deep or self._is_long() else None
            if end is not None and extent.fault:
                return self._pass(end)
            try:
                at = find_end(self._text, self._at) if is_deep else DECODER.raw_decode(self._text, self._at)[1]
            except RecursionError:
                is_deep = True
            except ValueError as error:
                self._fail_unless_cut(error, is_cut=end is None)
            else:
                # A number at the window's edge may go on behind it.
                if at < len(self._text) or not self._more():
                    return self._pass(at)

    def _end_of(self, extent: Extent) -> int | None:
        """The end of a value, in a window that is widened as far as need be; None if the document ends before."""
        while (end := extent.find_end(self._text)) is None and self._more():
            pass
        return end

    def _fail_unless_cut(self, error: ValueError, *, is_cut: bool) -> None:
        """Raise an error, unless the text at hand ends too early, and there is more."""
        if not isinstance(error, json.JSONDecodeError):
            raise Unreadable(_say(error)) from error
        if not is_cut or not self._more():
            raise self._unexpected(error.msg.removesuffix(" at"), error.pos) from error

    def _is_long(self) -> bool:
        """Whether an array or object begins here, and so much text follows that it is not parsed without a look."""
        return len(self._text) - self._at > _WINDOW and self._text[self._at] in "[{"

    def _pass(self, end: int) -> str:
        value = self._text[self._at : end]
        self._at = end
        return value

    def _peek(self) -> str:
        """The next character that is not white space; nothing at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _expect(self, *characters: str) -> str:
        found = self._peek()
        if found not in characters or not found:
            raise self._unexpected(f"expected {' or '.join(characters)}")
        self._at += 1
        return found

    def _forget(self) -> None:
        if self._at > _CHUNK:
            self._characters_before += self._at
            self._text, self._at = self._text[self._at :], 0

    def _more(self) -> bool:
        """Widen the window, at least doubling what is still ahead, so that a long value is not read over and over."""
        if self._is_whole:
            return False
        if len(self._text) > MAX_RECORD:
            raise Unreadable(f"has a record longer than {MAX_RECORD // 1024 // 1024} MiB")
        parts, wanted = [self._text], max(len(self._text) - self._at, 1)
        while wanted > 0 and not self._is_whole:
            chunk = next(self._chunks, None)
            self._is_whole = chunk is None
            pending = len(self._decode.getstate()[0])
            try:
                text = self._decode.decode(chunk or b"", final=self._is_whole)
            except UnicodeDecodeError as error:
                offset = self._bytes_before - pending + error.start
                byte = error.object[error.start]
                raise Unreadable(f"is not UTF-8: byte 0x{byte:02x} at offset {offset}") from error
            self._bytes_before += len(chunk or b"")
            parts.append(text)
            wanted -= len(text)
        grown = "".join(parts)
        was, self._text = len(self._text), grown
        return len(grown) > was

    def _unexpected(self, what: str, at: int | None = None) -> Unreadable:
        position = self._characters_before + (self._at if at is None else at)
        found = self._text[self._at if at is None else at :][:20]
        shown = f"found {found!r}" if found else "the file ends there"
        return Unreadable(f"is not JSON: {what} at character {position}, {shown}")
