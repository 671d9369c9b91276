"""The notes on a run: why a folder is incomplete, what was passed over, and what else its reader must know."""

import difflib
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any, Final

from deskroll.engines import Engine, Reading
from deskroll.input.dump import Folder
from deskroll.postgres.ledger import Run
from deskroll.postgres.publisher import Published
from deskroll.postgres.staging import StagedSource, StagedSync
from deskroll.spec.contract import PARSE_ERROR
from deskroll.spec.pipeline import Pipeline

_NAMED: Final = 3  # files, or reasons, that a note names
_FETCHED: Final = 1000


def why_incomplete(engine: Engine, reading: Reading, checked: str, key: str, records: int, rejected: int) -> list[str]:
    """Why absence from a folder does not count; nothing if the folder is complete.

    `checked` is the relation of its records, `key` the column of their ids. There are `records`, of which `rejected`.
    """
    files = {} if reading.is_complete else _unreadable(engine, checked)
    found = _nameless(engine, checked, key) if rejected else []
    nameless = {name: f"{name}[{index}]: its id cannot be read" for name, index in found}
    why = nameless | {name: f"{name}: {what}" for name, what in files.items()}
    reasons = [why[name] for name in sorted(why)]
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


def of_replaced(
    pipelines: list[Pipeline], held: list[StagedSync], now: list[StagedSync], reused: list[str]
) -> Iterator[str]:
    """Say what a plan puts in the place of what `deskroll stage` has left, and nobody has published yet."""
    kept = {s.pipeline for s in now if s.purpose == "stage" and s.pipeline in reused}
    lost = [s for s in held if s.purpose == "stage" and s.pipeline not in kept]
    names = [s.pipeline for p in pipelines for s in lost if s.pipeline == p.name]
    if names:
        days = " and ".join(sorted({s.sync_day for s in lost if s.pipeline in names}))
        yield (
            f"this plan has replaced what `deskroll stage` had left of {days} ({', '.join(names)}): run"
            " `deskroll stage` again before `deskroll publish`"
        )


def of_backfill(run: Run, newer: dict[date, list[str]]) -> Iterator[str]:
    """Say of which pipelines a run is a backfill, and what it fills in."""
    for until, names in newer.items():
        filled = f"the status of agents on {run.sync_date} is filled in, and " if "agents" in names else ""
        yield (
            f"a backfill: {', '.join(names)} {'is' if len(names) == 1 else 'are'} published up to {until}; {filled}"
            "what is known to be newer stays"
        )


def of_published(published: Published) -> Iterator[str]:
    """Say whose values are old, and which mass changes were let through because they lose nothing."""
    for stale in (c for c in published.changes if c.change == "stale"):
        yield (
            f"1 {stale.pipeline.removesuffix('s')} keeps old values because its record is in quarantine"
            if stale.count == 1
            else f"{stale.count:,} {stale.pipeline} keep old values because their records are in quarantine"
        )
    for change in published.noticed:
        yield f"a mass change: {change}; see that this is the right dump"


def of_input(pipelines: list[Pipeline], sources: list[StagedSource], reused: list[str]) -> Iterator[str]:
    """Say what a reader of the result must know about the input."""
    for name in reused:
        yield f"{name}: the files are those that staging holds already, and were not read again (--reread reads them)"
    skipped = [p for p in pipelines if p.name not in {s.pipeline for s in sources}]
    if skipped:
        wanted_by = (f"{p.name} ({', '.join(f'{s.folder}/' for s in p.sources)})" for p in skipped)
        yield f"the day has no folder for, and so skipped: {', '.join(wanted_by)}"
    absent = {s.folder: s.absent for p in pipelines for s in p.sources}
    for source in sources:
        if not source.is_folder:
            continue
        if not source.found and not source.complete:
            yield (
                f"the day has no {source.source}/, although an earlier day has: the roster is incomplete. Agents"
                " missing from the master list were not deactivated, and nobody was reactivated"
            )
        elif not source.found and absent[source.source]:
            yield f"the day has no {source.source}/: {absent[source.source]}"
        yield from source.notes
    yield from _of_absent_keys(pipelines, sources)


def _of_absent_keys(pipelines: list[Pipeline], sources: list[StagedSource]) -> Iterator[str]:
    """Say which lists no record has, of a table that a folder with valid records could have told."""
    valid = {s.source for s in sources if s.is_folder and s.records_read > s.rejected}
    stated = {s.source: s.found for s in sources if not s.is_folder}
    missing: dict[str, list[str]] = {}
    for fed in dict.fromkeys(lists for p in pipelines for lists in p.publication.feeds.values()):
        asked = [name for name in fed if name in stated and name.partition(".")[0] in valid]
        for name in asked:
            folder, _, key = name.partition(".")
            if not any(stated[other] for other in asked if other.endswith(f".{key}")):
                missing.setdefault(folder, []).append(key)
    for folder, keys in missing.items():
        yield f"no record in {folder}/ has the key {' or '.join(keys)}: what is stored of these stays as it is"


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
