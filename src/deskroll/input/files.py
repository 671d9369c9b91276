"""Open a file of a dump, and unpack it: nothing else opens one.

A dump may come from people who may read less than deskroll may, so a link must not lead out of it, and a pipe or device
must not be read. The operating system is asked about what was opened, not about its path: that may be changed between
looking and opening.
"""

import gzip
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final

import zstandard

from deskroll.input.dump import InputFile, lies_in

MOST_UNPACKED: Final = 250  # times its packed size, for a file that unpacks to more than its allowance
_CHUNK: Final = 1024 * 1024
_DESCRIPTORS: Final = "/proc/self/fd"
CAN_REOPEN: Final = os.path.isdir(_DESCRIPTORS)  # noqa: PTH112 - paths are plain text here, for speed
"""Whether this system lets an open file be opened again by its descriptor, as Linux does."""
# A pipe without a writer must not be waited for.
_HOW: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LEADS_OUT: Final = "is a link that leads out of the dump"
_NO_FILE: Final = "is not a regular file"


class Unreadable(Exception):  # noqa: N818 - a verdict on a file that becomes a quarantine row, never a person's error
    """A file that is not what it should be; the message says what was found, and where."""


def open_file(file: InputFile) -> IO[bytes]:
    """Open a file of a dump.

    Raises:
        Unreadable: it cannot be opened, is not a regular file, lies out of the dump, or is not to be opened at all.
    """
    return os.fdopen(open_descriptor(file), "rb")


def open_descriptor(file: InputFile) -> int:
    """Open a file of a dump, for who reads it at once and closes it; see `open_file`."""
    if file.fault:
        raise Unreadable(file.fault)
    try:
        path = _inside(file) if file.size < 0 else file.path
        try:
            descriptor = os.open(path, _HOW)
        except OSError:
            if not os.path.islink(path):  # noqa: PTH114 - paths are plain text here, for speed
                raise
            descriptor = os.open(_inside(file), _HOW)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    try:
        _check(file, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def reopened(stream: IO[bytes]) -> str:
    """A path that leads to an open file, whatever became of its own path; only if `CAN_REOPEN`."""
    return f"{_DESCRIPTORS}/{stream.fileno()}"


def _inside(file: InputFile) -> str:
    """The resolved path of a file that may be a link, or something that must not even be opened."""
    path = os.path.realpath(file.path)
    if file.root and not lies_in(path, file.root):
        raise Unreadable(_LEADS_OUT)
    if not stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode):  # noqa: PTH116 - as above
        raise Unreadable(_NO_FILE)
    return path


def _check(file: InputFile, descriptor: int) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(_NO_FILE)
    if file.root and not lies_in(_place(file, descriptor, status), file.root):
        raise Unreadable(_LEADS_OUT)


def _place(file: InputFile, descriptor: int, status: os.stat_result) -> str:
    """Where an open file lies."""
    try:
        return os.readlink(f"{_DESCRIPTORS}/{descriptor}")  # noqa: PTH115 - as above
    except OSError:  # a system without /proc
        path = os.path.realpath(file.path)
        is_same = os.path.samestat(os.stat(path, follow_symlinks=False), status)  # noqa: PTH116 - as above
        return path if is_same else ""


def open_bytes(file: InputFile) -> Iterator[bytes]:
    """The file's bytes, unpacked, in chunks of at most a few MB.

    Raises:
        Unreadable: it cannot be opened, is not a regular file, lies out of the dump, or its compressed data are
            damaged, cut short or a bomb.
    """
    unpacked = 0
    try:
        with open_file(file) as stream:
            most = MOST_UNPACKED * os.fstat(stream.fileno()).st_size + file.allowance
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
    # `stream_reader` ends quietly if a frame is cut short, so the frames are followed one by one; and a few bytes at
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
