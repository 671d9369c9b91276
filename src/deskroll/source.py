"""A day's folders and files: which there are, and the exact way to read one.

The reader here is the authority on what is JSON (RFC 8259, UTF-8) and where each record stands. It is exact, bounded in
memory and slow (tens of MB a second); an engine may read faster what raises no doubt and come here for the rest.
"""

import codecs
import difflib
import gzip
import hashlib
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import IO, Final, NamedTuple

import zstandard

from deskroll.errors import InputError, UsageError

MAX_RECORD: Final = 16 * 1024 * 1024  # characters of one record
SETTLED_AFTER: Final = 2_000_000_000  # nanoseconds after which a file's times tell its state
MOST_UNPACKED: Final = 250  # times its packed size, for a file that unpacks to more than the following
SMALL_UNPACKED: Final = 64 * 1024 * 1024  # bytes
KEPT_OF_A_BAD_FILE: Final = 64 * 1024  # bytes of an unreadable file that go into quarantine
_CHUNK: Final = 1024 * 1024
_NAME: Final = re.compile(r"\.(json|ndjson|jsonl)(\.gz|\.zst)?$", re.IGNORECASE)


class SourceFile(NamedTuple):
    """One file of a folder.

    `name` is its path inside the day's folder; `size` its bytes on disk, -1 where it is no regular file; `is_lines`
    whether it holds one record a line; `compression` is `.gz`, `.zst` or nothing; `stamp` is what no change of the file
    leaves as it was: inode, time of modification, time of change.
    """

    path: str
    name: str
    size: int
    is_lines: bool = False
    compression: str = ""
    stamp: tuple[int, ...] = ()


@dataclass(frozen=True)
class Folder:
    """The files of one source folder of a day, by name; `found` is False where the day has no such folder."""

    name: str
    resource: str
    files: tuple[SourceFile, ...] = ()
    found: bool = True


class Record(NamedTuple):
    """One record as read: its 0-based place, its JSON, the text as it came where that had to be mended, or a fault.

    A fault without a position is the whole file's.
    """

    position: int | None
    record: str | None
    raw: str | None = None
    fault: str | None = None


class Unreadable(Exception):  # noqa: N818 - a verdict on a file that becomes a quarantine row, never a person's error
    """A file that is not what it should be; the message says what was found, and where."""


def find_day(dump: str, label: str) -> str:
    """The folder of a sync day: `sync-<label>/`, else `<label>/`.

    Raises:
        UsageError: there is no such dump or day; the message names the days that there are.
    """
    folder = Path(dump)
    if not folder.is_dir():
        hint = "A URL needs --engine spark." if is_url(dump) else "Give the folder that holds sync-<day>/ folders."
        raise UsageError(f"There is no dump folder {dump}.", hint)
    for name in day_folders(label):
        if (folder / name).is_dir():
            return str(folder / name)
    days = sorted(e.name.removeprefix("sync-") for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))
    raise no_such_day(dump, label, days)


def is_url(dump: str) -> bool:
    """Whether a dump is no folder of this machine, but somewhere that only Spark can read."""
    return "://" in dump


def day_folders(label: str) -> tuple[str, ...]:
    """The names that the folder of a day may have; none for what is no label."""
    if not label or label in {".", ".."} or "/" in label or os.sep in label:
        return ()
    return (f"sync-{label}", label)


def no_such_day(dump: str, label: str, days: list[str]) -> UsageError:
    """What to tell somebody who asked for a day that is not there."""
    near = difflib.get_close_matches(label, days, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    shown = ", ".join(days[:10]) + (f" and {len(days) - 10} more" if len(days) > 10 else "")
    return UsageError(
        f"{dump} has no day {label!r}: neither sync-{label}/ nor {label}/ is there.",
        f"{hint}Days found: {shown or 'none'}.",
    )


def list_folder(day: str, name: str, resource: str) -> Folder:
    """List one source folder of a day; other files than JSON, and sub-folders, are passed over.

    Raises:
        InputError: the folder is there and may not be listed.
    """
    files: list[SourceFile] = []
    try:
        with os.scandir(os.path.join(day, name)) as entries:  # noqa: PTH118 - paths are plain text here, for speed
            files.extend(_source_file(name, entry) for entry in entries if is_json(entry.name) and not _is_dir(entry))
    except (FileNotFoundError, NotADirectoryError):
        return Folder(name, resource, found=False)
    except OSError as error:
        raise InputError(
            f"{day}/{name} cannot be listed: {error.strerror}.",
            "Let this user read the folder, or leave it out.",
        ) from error
    return Folder(name, resource, tuple(sorted(files, key=lambda f: f.name)))


def is_json(name: str) -> bool:
    """Whether a file of this name is one to read."""
    return _NAME.search(name) is not None


def describe(folder: str, path: str, size: int = -1, stamp: tuple[int, ...] = ()) -> SourceFile:
    """A file of a folder, by its path, whose last part says what is in it."""
    base = path.rpartition("/")[2]
    match = _NAME.search(base)
    name = f"{folder}/{base}"
    if not name.isprintable():  # a name that is not UTF-8, or that would break a line
        name = os.fsencode(name).decode("utf-8", "backslashreplace").encode("unicode_escape").decode()
    is_lines = match is not None and match[1].lower() != "json"
    return SourceFile(path, name, size, is_lines, ((match and match[2]) or "").lower(), stamp)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links is a file that cannot be read
        return False


def _source_file(folder: str, entry: os.DirEntry[str]) -> SourceFile:
    try:
        status = entry.stat()
    except OSError:  # a dangling link: reading it will say so
        return describe(folder, entry.path)
    size = status.st_size if stat.S_ISREG(status.st_mode) else -1
    return describe(folder, entry.path, size, (status.st_ino, status.st_mtime_ns, status.st_ctime_ns))


def fingerprint(folders: Iterable[Folder], what_else: str) -> str | None:
    """A text that differs if any file of the folders, or what else matters, has changed; None while that is too fresh.

    As in git's index, a file that changed a moment ago may change once more without its time showing it.
    """
    digest = hashlib.sha256(what_else.encode())
    for folder in folders:
        digest.update(f"{folder.name} {folder.found} {len(folder.files)}\n".encode())
        for file in folder.files:
            if not file.stamp or time.time_ns() - max(file.stamp[1:]) < SETTLED_AFTER:
                return None
            digest.update(f"{file.name} {file.size} {file.stamp}\n".encode())
    return digest.hexdigest()


def open_bytes(file: SourceFile) -> Iterator[bytes]:
    """The file's bytes, unpacked, in chunks of at most a few MB.

    Raises:
        Unreadable: it cannot be opened, is no regular file, or its compressed data are damaged, cut short or a bomb.
    """
    unpacked = 0
    try:
        if not stat.S_ISREG(os.stat(file.path).st_mode):  # noqa: PTH116 - paths are plain text here, for speed
            raise Unreadable("is not a regular file")
        with open(file.path, "rb") as stream:  # noqa: PTH123 - as above
            most = max(SMALL_UNPACKED, MOST_UNPACKED * os.fstat(stream.fileno()).st_size)
            for chunk in _UNPACK[file.compression](stream):
                unpacked += len(chunk)
                if file.compression and unpacked > most:
                    raise Unreadable(f"unpacks to more than {MOST_UNPACKED} times its size")
                yield chunk
    except EOFError as error:
        raise Unreadable("ends before its compressed data do: the file is cut short") from error
    except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise Unreadable(f"cannot be unpacked: {error}") from error
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error


def _plain(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _gunzip(stream: IO[bytes]) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=stream) as unpacked:
        while chunk := unpacked.read(_CHUNK):
            yield chunk


def _unzstd(stream: IO[bytes]) -> Iterator[bytes]:
    # `stream_reader` ends quietly where a frame is cut short, so the frames are followed one by one; and a few bytes at
    # a time, because each four of them may become 128 KiB.
    frame = zstandard.ZstdDecompressor().decompressobj()
    packed = b""
    while packed or (packed := stream.read(1024)):
        if frame.eof:
            frame = zstandard.ZstdDecompressor().decompressobj()
        yield frame.decompress(packed)
        packed = frame.unused_data
    if not frame.eof:
        raise EOFError


_UNPACK: Final[dict[str, Callable[[IO[bytes]], Iterator[bytes]]]] = {
    "": _plain,
    ".gz": _gunzip,
    ".zst": _unzstd,
}


def read_exactly(file: SourceFile, resource: str) -> Iterator[Record]:
    """Read every record of a file, whatever its shape: an object, an array, an envelope, or a record a line.

    A bad line is a fault of that line.

    Raises:
        Unreadable: the file is not JSON to its end; what was yielded before does not count.
    """
    if file.is_lines:
        yield from _read_lines(file)
    else:
        yield from _Reader(open_bytes(file)).records(("results", resource))


def bad_file(file: SourceFile, fault: str) -> Record:
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
    return Record(None, None, _readable(head), f"the file {fault}")


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


def _read_lines(file: SourceFile) -> Iterator[Record]:
    index = 0
    for number, line in enumerate(_split_lines(open_bytes(file)), start=1):
        text = line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").strip(b" \t\r")
        if not text:
            continue
        try:
            _DECODER.decode(text.decode())
            yield _mended(index, text.decode())
        except (ValueError, RecursionError) as error:
            yield Record(index, None, _readable(text), f"the line {_say(error)}")
        index += 1


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


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


# Numbers stay text: only the bounds of a value matter here, and Python refuses integers of over 4,300 digits.
_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant, parse_int=str, parse_float=str)
_SPACE: Final = re.compile(r"[ \t\r\n]*")


def _say(error: Exception) -> str:
    match error:
        case json.JSONDecodeError():
            return f"is not JSON: {error.msg.removesuffix(' at')} at character {error.pos}"
        case UnicodeDecodeError():
            return f"is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
        case RecursionError():
            return "is nested too deeply to be read"
        case _:
            return f"is not JSON: {error}"


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

    def records(self, lists: tuple[str, ...]) -> Iterator[Record]:
        """Every record of the document; `lists` are the keys under which an envelope has its records."""
        match self._peek():
            case "":
                return
            case "[":
                yield from self._elements(0)
            case "{":
                yield from self._object(lists)
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
            yield _mended(index, self._value())
            index += 1
            if self._expect(",", "]") == "]":
                return

    def _object(self, lists: tuple[str, ...]) -> Iterator[Record]:
        """An envelope's records or, where no member is a list of records, the object itself as the one record."""
        begin, index, is_envelope = self._at, 0, False
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
                self._value()
            if is_envelope:
                self._forget()
            closed = self._expect(",", "}") == "}"
        if not is_envelope:
            yield _mended(0, self._text[begin : self._at])

    def _value(self) -> str:
        """The text of the value that begins here, and move past it."""
        self._peek()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise self._unexpected(error.msg.removesuffix(" at"), error.pos) from error
                continue
            except (ValueError, RecursionError) as error:
                raise Unreadable(_say(error)) from error
            # A number at the window's edge may go on behind it.
            if end < len(self._text) or not self._more():
                value = self._text[self._at : end]
                self._at = end
                return value

    def _peek(self) -> str:
        """The next character that is no white space; nothing at the end."""
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
