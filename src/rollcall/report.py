"""What a command prints: tables for a person on stdout, narration on stderr, or one JSON document."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from rollcall.errors import RollcallError
from rollcall.postgres.staging import StagedSource
from rollcall.status import Row
from rollcall.sync import Outcome

_WIDE = 1000  # columns of output that goes into a file or a pipe: nothing is to be folded there
_out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
_err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)

_COUNTS = {
    "records_read": "read",
    "duplicates": "twice",
    "rejected": "rejected",
    "staged": "staged",
    "inserted": "new",
    "updated": "updated",
    "unchanged": "same",
    "deactivated": "gone",
    "removed": "removed",
}


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show the step at hand on a terminal; say nothing where stderr is none."""
    if not _err.is_terminal:
        yield lambda step: None
        return
    with _err.status("starting") as shown:
        yield lambda step: shown.update(escape(step))


def tell_json(value: Any) -> None:
    """One JSON document on stdout."""
    _out.print(json.dumps(plain(value), indent=2, ensure_ascii=False, default=str), markup=False, soft_wrap=True)


def plain(value: Any) -> Any:
    """A value that JSON can take."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def tell_failure(error: RollcallError) -> None:
    """What happened, and what to do about it: two lines on stderr."""
    _err.print(f"[bold red]error:[/] {escape(error.what)}", soft_wrap=True)
    if error.remedy:
        _err.print(escape(error.remedy), soft_wrap=True)


def tell_outcome(outcome: Outcome) -> None:
    """The summary of a run: counts per table, who changed, what went into quarantine."""
    run, published = outcome.run, outcome.published
    title = f"{run.sync_day} as of {run.sync_date}, {run.engine}"
    if outcome.is_plan:
        _out.print(f"[bold]Plan for {escape(title)}[/]: nothing was published")
    elif published.refusals:
        _out.print(f"[bold]Refused: {escape(title)}[/], run {run.run_id}: this is what it would have done")
    else:
        _out.print(f"[bold]{escape(title)}[/], run {run.run_id}")
    columns = [c for c in _COUNTS if any(getattr(t, c) for t in published.tables)]
    table = _table("table", *(_COUNTS[c] for c in columns))
    for counts in published.tables:
        table.add_row(counts.table, *(f"{getattr(counts, c):,}" for c in columns))
    _out.print(table)
    for change in published.changes:
        more = f" and {change.count - len(change.examples):,} more" if change.count > len(change.examples) else ""
        _out.print(f"{change.change} {change.count:,}: {escape(', '.join(map(_short, change.examples)))}{more}")
    for drift in published.drift:
        if drift.rows:
            _out.print(f"drift: {drift.rows:,} {escape(drift.drift)}")
    _tell_quarantine(outcome)
    for note in outcome.notes:
        _out.print(f"note: {escape(note)}")
    if outcome.is_plan:
        for refusal in published.refusals:
            _out.print(f"a sync would be refused: {escape(refusal)}")


def _short(text: str) -> str:
    """A name as a line of a summary can bear it."""
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"


def _tell_quarantine(outcome: Outcome) -> None:
    total, errors = outcome.published.quarantine, outcome.published.errors
    if not total:
        return
    _out.print(f"quarantine {total:,}:")
    for error in errors:
        _out.print(f"  {escape(_place(error.source_file or '', error.record_index))} {escape(error.error_message)}")
    if total > len(errors):
        _out.print(f"  and {total - len(errors):,} more: rollcall errors --day {escape(outcome.run.sync_day)}")


def _place(file: str, index: int | None) -> str:
    return file if index is None else f"{file}[{index}]"


def tell_staged(sources: tuple[StagedSource, ...]) -> None:
    """What `stage` read."""
    table = _table("source", "read", "twice", "rejected")
    for s in sources:
        table.add_row(s.source, f"{s.records_read:,}", f"{s.duplicates:,}", f"{s.rejected:,}")
    _out.print(table)
    _out.print("staged; nothing is published yet: rollcall publish")


def tell_status(status: Row) -> None:
    """Who is active, how far each pipeline is, the last runs, the quarantine."""
    for label, count in status["facts"].items():
        _out.print(f"{label}: {count:,}")
    for pipeline in status["pipelines"]:
        _out.print(f"{pipeline['pipeline']}: published up to {pipeline['sync_date'] or 'never'}")
    tell_runs(status["runs"])
    if status["quarantine"]:
        table = _table("pipeline", "day", "error", "rows", numbers=1)
        for row in status["quarantine"]:
            table.add_row(row["pipeline"], escape(row["sync_day"]), row["error_type"], f"{row['count']:,}")
        _out.print(table)


def tell_runs(runs: list[Row]) -> None:
    """The ledger, a line a run."""
    table = _table("run", "day", "date", "status", "began", "seconds", "message", numbers=0)
    for run in runs:
        began = f"{run['started_at']:%Y-%m-%d %H:%M:%S}Z"
        table.add_row(
            str(run["run_id"]), escape(run["sync_day"]), str(run["sync_date"]), run["status"], began,
            f"{run['seconds']:.1f}", escape(run["message"] or ""),
        )  # fmt: skip
    _out.print(table)


def tell_errors(errors: list[Row]) -> None:
    """The quarantine: where each record stands, what is wrong with it, and how it begins."""
    for error in errors:
        place = _place(error["source_file"], error["record_index"])
        _out.print(f"[bold]{escape(error['sync_day'])} {escape(place)}[/] {error['error_type']}")
        _out.print(f"  {escape(error['error_message'])}")
        raw = json.dumps(error["raw_record"], ensure_ascii=False)
        _out.print(Text(f"  {raw[:200]}{'…' if len(raw) > 200 else ''}", style="dim"))
    _out.print(f"{len(errors):,} in quarantine" if errors else "The quarantine is empty.")


def tell(text: str) -> None:
    """A line of data, as it is."""
    _out.print(text, markup=False, soft_wrap=True, end="" if text.endswith("\n") else "\n")


def _table(first: str, *rest: str, numbers: int | None = None) -> Table:
    """A table whose last `numbers` columns, by default all but the first, are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    begin = 0 if numbers is None else len(rest) - numbers
    for position, name in enumerate(rest):
        is_number = position >= begin
        table.add_column(name, justify="right" if is_number else "left", no_wrap=name != "message")
    return table
