"""What a reader of a run must know of the folders that it read: why one is incomplete, and what was passed over."""

import difflib
from collections.abc import Iterable
from typing import Any, Final

from deskroll.engines import Engine, Reading
from deskroll.flatten import PARSE_ERROR
from deskroll.source import Folder

_NAMED: Final = 3  # files, or reasons, that a note names
_FETCHED: Final = 1000


def why_incomplete(engine: Engine, reading: Reading, checked: str, key: str, records: int) -> list[str]:
    """Why absence from a folder does not count; nothing if the folder is complete.

    `checked` is the relation of its records, `key` the column of their ids, and `records` how many there are.
    """
    files = {} if reading.is_complete else _unreadable(engine, checked)
    nameless = {name: f"{name}[{index}]: its id cannot be read" for name, index in _nameless(engine, checked, key)}
    found = nameless | {name: f"{name}: {what}" for name, what in files.items()}
    reasons = [found[name] for name in sorted(found)]
    promise = reading.envelopes.broken_promise(records)
    return reasons + [promise] * bool(promise)


def of_folder(folder: Folder, reasons: Iterable[str]) -> tuple[str, ...]:
    """The notes on a folder."""
    notes = []
    if why := _few(list(reasons), "; "):
        notes.append(
            f"{folder.name}/ is incomplete: {why}. What is missing from it was not taken for gone."
            " Download the folder again, and sync again"
        )
    if folder.passed_over:
        notes.append(
            f"passed over in {folder.name}/: {_few(folder.passed_over)} (what is read ends in .json, .ndjson or .jsonl,"
            " perhaps with .gz or .zst)"
        )
    return tuple(notes)


def of_day(entries: Iterable[str], known: Iterable[str]) -> list[str]:
    """The note on what lies in the folder of a day beside the folders that deskroll knows, if there is any."""
    folders = [f"{name}/" for name in known]
    others = [_with_nearest(name, folders) for name in entries if name not in folders]
    return [f"passed over: {_few(others)}"] if others else []


def _with_nearest(name: str, folders: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), folders, n=1, cutoff=0.8)
    return f"{name} (did you mean {near[0]}?)" if near else name


def _few(names: Iterable[str], separator: str = ", ") -> str:
    listed = list(names)
    more = f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
    return separator.join(listed[:_NAMED]) + more


def _unreadable(engine: Engine, checked: str) -> dict[str, str]:
    """The files that could not be read to their end, or of which a record could not, and what is wrong."""
    return dict(
        engine.fetch(
            f"""SELECT source_file, left(min(error_message), 120) FROM {checked}
            WHERE error_type = '{PARSE_ERROR}' GROUP BY source_file ORDER BY source_file LIMIT {_FETCHED}"""
        )
    )


def _nameless(engine: Engine, checked: str, key: str) -> list[tuple[Any, ...]]:
    """The files with a record whose id is not known, each with the place of the first such record."""
    return engine.fetch(
        f"""SELECT source_file, min(record_index) FROM {checked} WHERE {key} IS NULL AND record_index IS NOT NULL
        GROUP BY source_file ORDER BY source_file LIMIT {_FETCHED}"""
    )
