"""A day's folders and files: which there are. `opening` opens one, `exact` reads it."""

import difflib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from deskroll.errors import InputError, UsageError

DAY_PREFIX: Final = "sync-"
SETTLED_AFTER: Final = 2_000_000_000  # nanoseconds after which a file's times tell its state
SMALL_UNPACKED: Final = 64 * 1024 * 1024  # bytes that a folder's compressed files may unpack to beyond their ratio
_NAME: Final = re.compile(r"\.(json|ndjson|jsonl)(\.gz|\.zst)?$", re.IGNORECASE)
_UNFINISHED: Final = re.compile(
    r"\.(part|partial|filepart|tmp|temp|incomplete|crdownload|opdownload|download|aria2)([._-]?\d+)?$", re.IGNORECASE
)
_PACKED: Final = re.compile(
    r"\.(gz|tgz|zst|zstd|bz2?|tbz2?|xz|txz|lzma|zip|7z|rar|tar|lz4?|lzo|br|sz|snappy|z)$", re.IGNORECASE
)
_NOT_LOOKED_INTO: Final = "is a folder inside a folder, where deskroll reads nothing"


class InputFile(NamedTuple):
    """One file of a folder.

    `name` is its path inside the day's folder; `size` its bytes on disk, -1 if it is not a regular file; `is_lines`
    whether it holds one record a line; `compression` is `.gz`, `.zst` or nothing; `stamp` is what no change of the file
    leaves as it was: inode, time of modification, time of change. `root` is the resolved path of the dump that the file
    must lie in, or nothing if it is at a URL or deskroll itself wrote it; `allowance` is the number of bytes that it
    may unpack to beyond its ratio. `fault` says why the file is not even opened, if it is not. `is_part` says that it
    holds only some later lines of a file, so that it may hold none.
    """

    path: str
    name: str
    size: int
    is_lines: bool = False
    compression: str = ""
    stamp: tuple[int, ...] = ()
    root: str = ""
    allowance: int = SMALL_UNPACKED
    fault: str = ""
    is_part: bool = False


@dataclass(frozen=True)
class Folder:
    """The files of one source folder of a day, by name; `found` is False if the day has no such folder.

    `not_read` names what else lies in it, without hidden files; a folder ends with a slash.
    """

    name: str
    resource: str
    files: tuple[InputFile, ...] = ()
    found: bool = True
    not_read: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """The bytes of its files on disk."""
        return sum(max(file.size, 0) for file in self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the names, sizes and times of modification of its files: what is equal is the same download."""
        lines = (f"{file.name} {file.size} {file.stamp[1:2]}\n" for file in self.files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_day(dump: str, label: str) -> str:
    """The folder of a sync day: `sync-<label>/`, else `<label>/`.

    A dump that is itself a link is resolved once, so that a run reads one dump even if the link is changed meanwhile.

    Raises:
        UsageError: the dump or the day does not exist; the message names the days that there are.
        InputError: the day's folder is a link that leads out of the dump.
    """
    folder = _existing(dump)
    for name in day_folders(label):
        if (folder / name).is_dir():
            return _inside_dump(folder, name)
    raise no_such_day(dump, label, sorted(name.removeprefix(DAY_PREFIX) for name in list_dump(dump)))


def list_dump(dump: str) -> list[str]:
    """The names of the folders in a dump, without hidden ones and without links that give one a second name.

    Raises:
        UsageError: the dump does not exist.
        InputError: it may not be listed.
    """
    root = os.path.realpath(_existing(dump))
    with _listing(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name) and not _is_second_name(e, root))


def _is_second_name(entry: os.DirEntry[str], root: str) -> bool:
    return entry.is_symlink() and os.path.dirname(os.path.realpath(entry.path)) == root  # noqa: PTH120 - as below


def _existing(dump: str) -> Path:
    folder = Path(dump)
    if not folder.is_dir():
        hint = "A URL needs --engine spark." if is_url(dump) else "Give the folder that holds sync-<day>/ folders."
        raise UsageError(f"The dump folder {dump} does not exist.", hint)
    return folder


def _inside_dump(folder: Path, name: str) -> str:
    root = os.path.realpath(folder)
    if not lies_in(os.path.realpath(folder / name), root):
        raise InputError(
            f"The folder {name} is a link that leads out of the dump {folder}.",
            "Copy the folder into the dump, or give the dump that it is in.",
        )
    is_link = root != os.path.abspath(folder)  # noqa: PTH100 - pathlib has nothing that leaves links as they are
    return str((Path(root) if is_link else folder) / name)


def lies_in(path: str, root: str) -> bool:
    """Whether a resolved path is a resolved folder or lies in it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def is_url(dump: str) -> bool:
    """Whether only Spark can read a dump, because it is not a folder of this machine."""
    return "://" in dump


def day_folders(label: str) -> tuple[str, ...]:
    """The names that the folder of a day may have; none for what cannot be a label."""
    if not label or label in {".", ".."} or "/" in label or os.sep in label:
        return ()
    return (f"{DAY_PREFIX}{label}", label)


def no_such_day(dump: str, label: str, days: list[str]) -> UsageError:
    """What to tell somebody who asked for a day that is not there."""
    near = difflib.get_close_matches(label, days, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    shown = ", ".join(days[:10]) + (f" and {len(days) - 10} more" if len(days) > 10 else "")
    return UsageError(
        f"{dump} has no day {label!r}: neither sync-{label}/ nor {label}/ is there.",
        f"{hint}Days found: {shown or 'none'}.",
    )


def list_day(day: str) -> list[str]:
    """The names of what lies in the folder of a day, without hidden files; a folder ends with a slash.

    Raises:
        InputError: the folder may not be listed.
    """
    with _listing(day) as entries:
        return sorted(_entry_name(e) for e in entries if not is_hidden(e.name))


def list_folder(day: str, name: str, resource: str) -> Folder:
    """List one source folder of a day.

    What cannot be read although it may hold records is among the files, with a fault: unfinished downloads, packings
    that deskroll does not know, sub-folders with such files or JSON. So is the folder itself, and any file, if it is a
    link that leads out of the dump.

    Raises:
        InputError: the folder is there and may not be listed.
    """
    path = os.path.join(day, name)  # noqa: PTH118 - paths are plain text here, for speed
    root = os.path.realpath(os.path.dirname(day))  # noqa: PTH120 - as above
    if os.path.lexists(path) and not lies_in(os.path.realpath(path), root):
        return Folder(name, resource, (describe(name, f"{path}/", root=root),))
    try:
        with _listing(path) as entries:
            listed = [(e, _source_file(name, e, root)) for e in entries if not is_hidden(e.name)]
    except (FileNotFoundError, NotADirectoryError):
        return Folder(name, resource, found=False)
    not_read = sorted(_entry_name(e) for e, file in listed if not file)
    return make_folder(name, resource, (file for _, file in listed if file), not_read)


def make_folder(name: str, resource: str, files: Iterable[InputFile], not_read: Iterable[str]) -> Folder:
    """A folder that was found, its files in order of their names, each with its share of what they may unpack to."""
    listed = sorted(files, key=lambda f: f.name)
    share = allowance(listed)
    return Folder(name, resource, tuple(f._replace(allowance=share) for f in listed), not_read=tuple(not_read))


@contextmanager
def _listing(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    try:
        with os.scandir(path) as entries:
            yield entries
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise InputError(
            f"{path} cannot be listed: {error.strerror}.", "Let this user read the folder, or leave it out."
        ) from error


def allowance(files: Iterable[InputFile]) -> int:
    """The bytes that each compressed file of a folder may unpack to beyond its ratio: equal shares of a fixed sum."""
    return SMALL_UNPACKED // max(sum(bool(f.compression) for f in files), 1)


def is_json(name: str) -> bool:
    """Whether a file of this name is one to read."""
    return _NAME.search(name) is not None


def is_hidden(name: str) -> bool:
    """Whether a name is that of a hidden file, such as `.DS_Store` or `._1.json`, which macOS leaves beside others."""
    return name.startswith(".")


def fault_of(name: str) -> str:
    """Why a file of this name cannot be read although it may hold records; nothing if it can, or holds none."""
    if is_json(name):
        return ""
    if _UNFINISHED.search(name):
        return "is an unfinished download"
    return "is packed in a way that deskroll does not read" if _PACKED.search(name) else ""


def may_hold_records(name: str) -> bool:
    """Whether a file of this name is read, or would be if it were whole, or packed in another way."""
    return not is_hidden(name) and (is_json(name) or fault_of(name) != "")


def sub_folder(folder: str, path: str, stamp: tuple[int, ...] = (), root: str = "") -> InputFile:
    """What stands for a folder inside a folder that holds records, as a file that cannot be read."""
    return describe(folder, path, -1, stamp, root)._replace(fault=_NOT_LOOKED_INTO)


def describe(folder: str, path: str, size: int = -1, stamp: tuple[int, ...] = (), root: str = "") -> InputFile:
    """A file of a folder, by its path, whose last part says what is in it."""
    base = path.rpartition("/")[2]
    match = _NAME.search(base)
    is_lines = match is not None and match[1].lower() != "json"
    compression = ((match and match[2]) or "").lower()
    name = _shown(f"{folder}/{base}")
    return InputFile(path, name, size, is_lines, compression, stamp, root, fault=fault_of(base))


def _shown(name: str) -> str:
    """A name as it may be told and stored: one that is not UTF-8, or that would break a line, with escapes."""
    if name.isprintable():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace").encode("unicode_escape").decode()


def _entry_name(entry: os.DirEntry[str]) -> str:
    """The name of an entry, with a slash behind that of a folder; a link is not followed, and may be one."""
    return _shown(entry.name) + "/" * (entry.is_symlink() or entry.is_dir())


def _source_file(folder: str, entry: os.DirEntry[str], root: str) -> InputFile | None:
    """The file of an entry; None if it is passed over. Nothing out of the dump is looked at."""
    is_wanted = may_hold_records(entry.name)
    if entry.is_symlink() and not lies_in(os.path.realpath(entry.path), root):
        return describe(folder, entry.path, root=root) if is_wanted else None
    try:
        status = entry.stat()
    except OSError:  # a dangling link, or a loop of links: reading it will say so
        return describe(folder, entry.path, root=root) if is_wanted else None
    stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    if stat.S_ISDIR(status.st_mode):
        return sub_folder(folder, entry.path, stamp, root) if _holds_records(entry) else None
    size = status.st_size if stat.S_ISREG(status.st_mode) else -1
    return describe(folder, entry.path, size, stamp, root) if is_wanted else None


def _holds_records(folder: os.DirEntry[str]) -> bool:
    """Whether a folder inside a folder has files with records somewhere in it, may not be listed, or is unfinished."""
    faults: list[OSError] = []
    for _, folders, files in os.walk(folder.path, onerror=faults.append):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if any(map(may_hold_records, files)):
            return True
    return bool(faults) or fault_of(folder.name) != ""


def fingerprint(folders: Iterable[Folder], what_else: str) -> str | None:
    """A text that differs if any file of the folders, or what else matters, has changed; None while that is too fresh.

    As in git's index, a file that changed a moment ago may change once more without its time showing it.
    """
    digest = hashlib.sha256(what_else.encode())
    for folder in folders:
        digest.update(f"{folder.name} {folder.found} {len(folder.files)} {folder.not_read}\n".encode())
        for file in folder.files:
            if not file.stamp or time.time_ns() - max(file.stamp[1:]) < SETTLED_AFTER:
                return None
            digest.update(f"{file.name} {file.size} {file.stamp}\n".encode())
    return digest.hexdigest()
