"""Files laid out anew for DuckDB: many small ones as one, without compression and envelopes.

In the spool a marker stands before the records of each file, as a record of its own that nothing in a dump can forge.
The records are the very bytes of the file, and DuckDB says whether they are JSON: if all markers come back as
records, each file's text stands between two of them as a whole number of records, whatever is in it.
"""

import json
import os
import re
import shutil
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

from deskroll.errors import EngineError
from deskroll.input.bounds import DECODER, MAX_RECORD
from deskroll.input.dump import InputFile
from deskroll.input.envelope import Envelope, read_envelope
from deskroll.input.files import Unreadable, open_bytes, open_descriptor

ROW: Final = b"\x1e"  # a control character, which no JSON text holds
COLUMN: Final = b"\x1f"
_CHUNK: Final = 4 * 1024 * 1024  # bytes after which the next file begins a new chunk
_MARGIN: Final = 64 * 1024  # bytes at either end of a large file in which its list must begin and end
_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = b" \t\r\n"
_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")
_DOUBTS: Final = (Unreadable, ValueError, RecursionError)


class _Chunks:
    """Files of a few MB each, written one after the other."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[Path] = []
        self._folder = folder
        self._file: IO[bytes] | None = None

    def open(self) -> tuple[IO[bytes], bool]:
        """The chunk at hand, and whether it has just begun.

        Raises:
            EngineError: the disk has no room for it.
        """
        if self._file:
            return self._file, False
        path = self._folder / f"{len(self.paths):06}"
        try:
            self._folder.mkdir(exist_ok=True)
            self._file = path.open("wb")
        except OSError as error:
            raise no_room(error) from error
        self.paths.append(path)
        return self._file, True

    def close(self, end: bytes = b"") -> None:
        """Finish the chunk at hand, if there is one."""
        if self._file:
            _write(self._file, [end])
            try:
                self._file.close()
            except OSError as error:
                raise no_room(error) from error
            self._file = None

    def is_full(self) -> bool:
        """Whether the next row or file begins a new chunk."""
        return self._file is not None and self._file.tell() > _CHUNK

    def remove(self) -> None:
        """Free the disk."""
        shutil.rmtree(self._folder, ignore_errors=True)


class RowSpool(_Chunks):
    """Rows that the exact reader has read: texts with `COLUMN` between them, and `ROW` between rows."""

    def add(self, row: bytes) -> None:
        """Add a row.

        Raises:
            EngineError: the disk has no room for it.
        """
        chunk, is_new = self.open()
        _write(chunk, [row] if is_new else [ROW, row])
        if self.is_full():
            self.close()

    def mark(self) -> int:
        """Finish the file at hand; returns a place to rewind to."""
        self.close()
        return len(self.paths)

    def rewind(self, mark: int) -> None:
        """Forget the rows added since a mark."""
        self.close()
        for path in self.paths[mark:]:
            path.unlink()
        del self.paths[mark:]


class DocumentSpool:
    """The records of files, in chunks of a few MB: lines, or arrays.

    `marker` begins the text of every marker, and the number of the file in `names` follows it; `chunks` has the path of
    each chunk, and the numbers of the files in it. `envelopes` has what envelopes say, by the names of their files.
    """

    def __init__(self, folder: Path, resource: str, *, is_lines: bool) -> None:
        self.marker = uuid4().hex
        self.names: list[str] = []
        self.chunks: list[tuple[Path, range]] = []
        self.envelopes: dict[str, Envelope] = {}
        self.is_lines = is_lines
        self._lists = (b'"results"', b'"%b"' % resource.encode())
        self._files = _Chunks(folder)

    def add(self, file: InputFile) -> bool:
        """Add a file's records; returns False, and adds nothing, if only the exact reader can tell what it holds.

        Raises:
            EngineError: the disk has no room for it.
        """
        pieces = _lines(file) if self.is_lines else self._elements(file)
        try:
            first = next(pieces, None)
            if first is None:
                return True
            chunk = self._open()
            begin = chunk.tell()
            try:
                is_first = self.chunks[-1][1].start == len(self.names)
                separator = b"" if self.is_lines or is_first else b","
                marker = b'"%b %d"%b' % (self.marker.encode(), len(self.names), b"\n" if self.is_lines else b",")
                _write(chunk, chain([separator + marker, first], pieces))
            except _DOUBTS:
                chunk.seek(begin)
                chunk.truncate()
                raise
        except _DOUBTS:
            return False
        self.names.append(file.name)
        path, numbers = self.chunks[-1]
        self.chunks[-1] = (path, range(numbers.start, len(self.names)))
        if self._files.is_full():
            self.close()
        return True

    def _elements(self, file: InputFile) -> Iterator[bytes]:
        envelope = yield from _elements(file, self._lists)
        if envelope:
            self.envelopes[file.name] = envelope

    def close(self) -> None:
        """Finish the chunk at hand."""
        self._files.close(b"" if self.is_lines else b"]")
        if self.chunks and not self.chunks[-1][1]:
            self.chunks.pop()

    def remove(self) -> None:
        """Free the disk."""
        self._files.remove()

    def _open(self) -> IO[bytes]:
        chunk, is_new = self._files.open()
        if is_new:
            _write(chunk, [b"" if self.is_lines else b"["])
            self.chunks.append((self._files.paths[-1], range(len(self.names), len(self.names))))
        return chunk


def no_room(error: OSError) -> EngineError:
    """The error of a temporary folder that cannot be written."""
    return EngineError(
        f"The temporary folder cannot be written: {error.strerror}.",
        "Free space there, or set DESKROLL_TEMP_FOLDER to a folder with more.",
    )


def _write(chunk: IO[bytes], pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        try:
            chunk.write(piece)
        except OSError as error:
            raise no_room(error) from error


def _lines(file: InputFile) -> Iterator[bytes]:
    """The lines of a file, in pieces of any size, the last one ended.

    Raises:
        Unreadable, ValueError: it is to be read exactly, as a file without any line is.
    """
    last, is_blank = b"\n", not file.is_part
    for number, piece in enumerate(_read(file)):
        last = piece.removeprefix(_BOM) if number == 0 else piece
        is_blank = is_blank and not last.strip(_SPACE)
        if last:
            yield last
    if is_blank:
        raise ValueError
    if not last.endswith(b"\n"):
        yield b"\n"


def _elements(file: InputFile, lists: tuple[bytes, bytes]) -> Generator[bytes, None, Envelope | None]:
    """The records of a file, commas between them, in pieces of any size; returns what an envelope says.

    Raises:
        Unreadable, ValueError: it is to be read exactly.
    """
    pieces = _read(file)
    text, piece = b"", next(pieces, None)
    while piece is not None and len(text) <= MAX_RECORD:
        text += piece
        piece = next(pieces, None)
    text = text.removeprefix(_BOM).lstrip(_SPACE)
    if piece is not None:
        return (yield from _long_list(text, chain([piece], pieces), lists))
    text = text.rstrip(_SPACE)
    begin = _begin(text, lists)
    if begin is None:
        yield text
        return None
    end = text.rindex(b"]")
    envelope = _check_envelope(text, begin, text[end + 1 :], lists)
    if inside := text[begin:end].strip(_SPACE):
        yield inside
    elif envelope and envelope.error:
        raise ValueError
    return envelope


def _long_list(
    head: bytes, pieces: Iterable[bytes], lists: tuple[bytes, bytes]
) -> Generator[bytes, None, Envelope | None]:
    """The records of a file that does not fit in memory: a list that begins and ends near the file's ends."""
    begin = _begin(head[:_MARGIN], lists)
    if begin is None:
        raise ValueError
    tail = head[begin:]
    if tail.lstrip(_SPACE)[:1] in {b"", b"]"}:  # an empty list, beside an error perhaps
        raise ValueError
    for piece in pieces:
        if len(tail) > _MARGIN:
            yield tail[:-_MARGIN]
            tail = tail[-_MARGIN:]
        tail += piece
    end = tail.rindex(b"]")
    envelope = _check_envelope(head, begin, tail[end + 1 :], lists)
    yield tail[:end]
    return envelope


def _begin(text: bytes, lists: tuple[bytes, bytes]) -> int | None:
    """Where the first element of the list of records stands; None if the text is one record.

    Raises:
        ValueError: it is neither.
    """
    if text.startswith(b"["):
        return 1
    if not text.startswith(b"{"):
        raise ValueError
    found = re.search(rb"(%b|%b)\s*:\s*\[" % tuple(map(re.escape, lists)), text)
    if not found and _ESCAPED_LETTER.search(text):  # in a key, perhaps
        raise ValueError
    return found.end() if found else None


def _check_envelope(text: bytes, begin: int, after: bytes, lists: tuple[bytes, bytes]) -> Envelope | None:
    """See that a list is the document, or a member of the object that the document is, and all around it JSON.

    Returns what the object says, if there is one.

    Raises:
        ValueError: it is not.
    """
    around = text[: begin - 1] + b"null" + after
    document = json.loads(around, object_pairs_hook=_members)
    if document is None:
        return None
    keys = [json.loads(key) for key in lists]
    if [value for key, value in document if key in keys] != [None]:
        raise ValueError
    return read_envelope(DECODER.decode(around.decode()))


def _members(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return pairs


def _read(file: InputFile) -> Iterator[bytes]:
    is_packed_or_long = file.compression or not 0 <= file.size <= MAX_RECORD
    for piece in open_bytes(file) if is_packed_or_long else _read_once(file):
        if b"\x0b" in piece or b"\x0c" in piece:  # white space to DuckDB, and nothing to JSON
            raise ValueError
        yield piece


def _read_once(file: InputFile) -> Iterator[bytes]:
    # What is written while we read is read next time: the file as it was listed.
    descriptor = open_descriptor(file)
    try:
        data = os.read(descriptor, file.size)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if data:
        yield data
