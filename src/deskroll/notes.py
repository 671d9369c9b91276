"""The notes on a run: why a folder is incomplete, what was not read, and what else its reader must know."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Any, Final

from deskroll.engines import Engine, Reading
from deskroll.postgres.guards import Limits
from deskroll.postgres.ledger import Run
from deskroll.postgres.publisher import Published
from deskroll.postgres.staging import Staged, StagedInput, StagedSync
from deskroll.spec.contract import PARSE_ERROR
from deskroll.spec.pipeline import Input, Pipeline
from deskroll.verdicts import Note, Refusal

_NAMED: Final = 3  # files, or reasons, that a note names
_FETCHED: Final = 1000


def unreadable_files(engine: Engine, reading: Reading, input_: Input) -> dict[str, str]:
    """The files of a folder that could not be read to their end, or of which a record could not, and why."""
    return {} if reading.is_complete else _unreadable(engine, input_.relation("checked"))


def why_incomplete(
    engine: Engine, reading: Reading, input_: Input, counts: Mapping[str, int], files: Mapping[str, str]
) -> list[str]:
    """Why absence from a folder does not count; nothing if the folder is complete.

    `counts` says how many records there are (`records_read`), and how many of them are `rejected`; `files` has those
    that are unreadable.
    """
    checked = input_.relation("checked")
    found = _nameless(engine, checked, input_.contract.key) if counts["rejected"] else []
    nameless = {name: f"{name}[{index}]: its id cannot be read" for name, index in found}
    why = nameless | {name: f"{name}: {what}" for name, what in files.items()}
    reasons = [why[name] for name in sorted(why)]
    promise = reading.envelopes.broken_promise(counts["records_read"])
    return reasons + [promise] * bool(promise)


def of_day(entries: Iterable[str], known: Iterable[str]) -> list[Note]:
    """The note on what lies in the folder of a day beside the folders that deskroll knows, if there is any."""
    folders = [f"{name}/" for name in known]
    others = [_with_nearest(name, folders) for name in entries if name not in folders]
    return [Note("not read", f"not read: {few(others)}")] if others else []


def of_replaced(
    pipelines: list[Pipeline], held: list[StagedSync], now: list[StagedSync], reused: list[str]
) -> list[Note]:
    """Say what a plan puts in the place of what `deskroll stage` has left, and nobody has published yet."""
    kept = {s.pipeline for s in now if s.purpose == "stage" and s.pipeline in reused}
    lost = [s for s in held if s.purpose == "stage" and s.pipeline not in kept]
    names = [s.pipeline for p in pipelines for s in lost if s.pipeline == p.name]
    if not names:
        return []
    days = " and ".join(sorted({s.sync_day for s in lost if s.pipeline in names}))
    message = (
        f"this plan replaced what `deskroll stage` had staged of {days} ({', '.join(names)}): run"
        " `deskroll stage` again before `deskroll publish`"
    )
    return [Note("plan", message)]


def of_backfill(run: Run, newer: dict[date, list[str]]) -> Iterator[Note]:
    """Say of which pipelines a run is a backfill, and what it fills in."""
    for until, names in newer.items():
        filled = f"adds the status of agents on {run.sync_date}, and " if "agents" in names else ""
        yield Note(
            "backfill",
            f"a backfill: {', '.join(names)} {'is' if len(names) == 1 else 'are'} already published up to {until}."
            f" deskroll {filled}keeps every newer value",
        )


def of_published(published: Published) -> Iterator[Note]:
    """Say whose values are old, and which mass changes were let through because they lose nothing."""
    for stale in (c for c in published.changes if c.change == "stale"):
        yield Note(
            "stale",
            f"1 {stale.pipeline.removesuffix('s')} keeps old values because its record is in quarantine"
            if stale.count == 1
            else f"{stale.count:,} {stale.pipeline} keep old values because their records are in quarantine",
        )
    for change in published.noticed:
        yield Note("mass change", f"mass change: {change}. Check that this is the right dump")


def of_limits(limits: Limits) -> list[Note]:
    """The note on a mass change that was allowed without a reason, if it was."""
    if not limits.allow_mass_change or limits.reason:
        return []
    message = (
        "--allow-mass-change was given without --reason: the ledger says that no reason was given. Say why the change"
        ' is right, for those who ask later: --reason "HR confirmed the lay-off"'
    )
    return [Note("no reason", message)]


def of_refusal(refusals: Iterable[Refusal], *, is_plan: bool) -> tuple[str, str]:
    """The message and the hint of a refusal."""
    refusals = list(refusals)
    options = {"a higher --max-rejected" if r.kind == "rejected records" else "--allow-mass-change" for r in refusals}
    return (
        ("A sync would be refused: " if is_plan else "Refused: ") + "; ".join(r.message for r in refusals) + ".",
        (
            "Nothing was published. If the dump is wrong, download it again."
            f" If all this is right, run again with {' and '.join(sorted(options))}."
        ),
    )


def of_input(pipelines: list[Pipeline], staged: Staged) -> Iterator[Note]:
    """Say what a reader of the result must know about the input."""
    for name in staged.reused:
        message = (
            f"{name}: the files have not changed since they were staged, so deskroll did not read them again"
            " (--reread reads them)"
        )
        yield Note("reused", message)
    skipped = [p for p in pipelines if p.name not in {i.pipeline for i in staged.inputs}]
    if skipped:
        wanted_by = (f"{p.name} ({', '.join(f'{i.folder}/' for i in p.inputs)})" for p in skipped)
        yield Note("skipped", f"skipped because the day has none of their folders: {', '.join(wanted_by)}")
    absent = {i.folder: i.absent for p in pipelines for i in p.inputs}
    for one in (i for i in staged.inputs if i.is_folder):
        if not one.found and not one.complete:
            yield Note(
                "incomplete",
                f"the day has no {one.input}/, although an earlier day had it: the roster is incomplete. deskroll"
                " deactivated no agent that is missing from the master list, and reactivated nobody",
            )
        elif not one.found and absent[one.input]:
            yield Note("absent", f"the day has no {one.input}/: {absent[one.input]}")
        if one.incomplete_because:
            yield Note(
                "incomplete",
                f"{one.input}/ is incomplete: {one.incomplete_because}. Rows missing from this folder were not"
                " deactivated or removed. Download the folder again and re-run the sync",
            )
        if one.not_read:
            yield Note(
                "not read",
                f"not read in {one.input}/: {one.not_read} (deskroll reads .json, .ndjson and .jsonl,"
                " also with .gz or .zst)",
            )
    yield from _of_absent_keys(pipelines, staged.inputs)


def _of_absent_keys(pipelines: list[Pipeline], inputs: list[StagedInput]) -> Iterator[Note]:
    """Say which lists no record has, of a table that a folder with valid records could have told."""
    valid = {i.input for i in inputs if i.is_folder and i.records_read > i.rejected}
    stated = {i.input: i.found for i in inputs if not i.is_folder}
    missing: dict[str, list[str]] = {}
    for fed in dict.fromkeys(names for p in pipelines for names in p.publication.tables.values()):
        asked = [name for name in fed if name in stated and name.partition(".")[0] in valid]
        for name in asked:
            folder, _, key = name.partition(".")
            if not any(stated[other] for other in asked if other.endswith(f".{key}")):
                missing.setdefault(folder, []).append(key)
    for folder, keys in missing.items():
        message = f"no record in {folder}/ has the key {' or '.join(keys)}: deskroll keeps what is stored of these"
        yield Note("absent", message)


def _with_nearest(name: str, folders: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), folders, n=1, cutoff=0.8)
    return f"{name} (did you mean {near[0]}?)" if near else name


def few(names: Iterable[str], separator: str = ", ", most: int = _NAMED) -> str:
    """The first of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return separator.join(listed[:most]) + more


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
