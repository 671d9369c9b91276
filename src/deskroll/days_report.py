"""What a sync of many days prints: a line a day, as each of them ends, or a JSON document a line."""

from dataclasses import asdict
from typing import Any, Final

from deskroll.dated_days import DAYS_NAMED, DatedDay
from deskroll.many_days import DayResult, Ended, Event, Listed
from deskroll.notes import few
from deskroll.report import plain, print_outcome
from deskroll.sync import Outcome
from deskroll.terminal import say, say_json_line
from deskroll.verdicts import Note

_COUNTS: Final = ("inserted", "updated", "removed", "deactivated")
_SAID: Final = {"unchanged": "unchanged, skipped", "planned": "would be synced", "refused": "refused"}


class DaysTable:
    """Prints what happens to many days as a table for a person; a note that a day shares with the one before once."""

    def __init__(self) -> None:
        self._widths: list[int] = []
        self._noted: set[Note] = set()
        self._totals = dict.fromkeys((*_COUNTS, "quarantine"), 0)
        self._is_plan = False

    def __call__(self, event: Event) -> None:
        """Print an event."""
        if isinstance(event, Listed):
            self._print_listed(event)
        elif isinstance(event, DayResult):
            self._print_day(event)
        else:
            self._print_end(event)

    def _print_listed(self, listed: Listed) -> None:
        self._is_plan = listed.request.plan
        days = listed.days
        say(listed.database)
        if listed.has_archive:
            say(
                "note: tran/ is not among the days. Sync it with --day tran --sync-date YYYY-MM-DD, or name it in the"
                " file of --dates",
                soft_wrap=True,
            )
        if listed.passed_over:
            names = few(listed.passed_over, most=DAYS_NAMED)
            say(f"note: passed over, because they are not sync days: {names}", soft_wrap=True)
        labels = max(len("day"), *(len(day.label) for day in days))
        self._widths = [len("YYYY-MM-DD"), labels, *(max(len(name), 10) for name in _COUNTS), 10, 7]
        self._print_row("date", "day", *_COUNTS, "quarantine", "seconds", style="bold")

    def _print_row(self, *cells: str, style: str = "") -> None:
        """Print the cells of a row; the first two are texts, the others numbers."""
        padded = [
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, self._widths, strict=False))
        ]
        say(("  ".join(padded).rstrip(), style), soft_wrap=True)

    def _print_day(self, result: DayResult) -> None:
        day, outcome = result.day, result.outcome
        if result.result != "published" or outcome is None:
            said = _SAID.get(result.result) or f"{result.result}: {result.message}"
            say("  ".join([str(day.date), day.label.ljust(self._widths[1]), said]), soft_wrap=True)
            if outcome:
                print_outcome(outcome)
            return
        counts = counts_of(outcome)
        for name, count in counts.items():
            self._totals[name] += count
        numbers = [f"{count:,}" for count in counts.values()]
        self._print_row(str(day.date), day.label, *numbers, f"{result.seconds:.2f}")
        for note in outcome.notes:
            if note not in self._noted:
                say(f"  note: {note.message}", soft_wrap=True)
        self._noted = set(outcome.notes)

    def _print_end(self, end: Ended) -> None:
        synced, skipped = end.results.get("published", 0), end.results.get("unchanged", 0)
        if self._is_plan:
            would = f"{_days(end.results.get('planned', 0))} would be synced and {_days(skipped)} skipped"
            say(
                f"Plan: {would}; nothing was published. --day DAY --plan shows what a day would change.", soft_wrap=True
            )
        else:
            rate = f", {synced / end.seconds:.1f} a second" if synced and end.seconds else ""
            totals = ", ".join(f"{name} {count:,}" for name, count in self._totals.items())
            did = f"{_days(synced)} synced, {_days(skipped)} unchanged and skipped"
            say(f"{did}, in {end.seconds:.1f} s{rate}: {totals}", soft_wrap=True)
        if end.left:
            _print_left(end.left)


def _print_left(left: tuple[DatedDay, ...]) -> None:
    first = left[0]
    say(("Stopped", "bold"), f" at {first}. Left: {few(map(str, left), most=DAYS_NAMED)}.", soft_wrap=True)
    say("Run the same command again to go on: it begins with the first day that is left.", soft_wrap=True)
    say(
        f"If {first} needs an option that other days must not have, such as --allow-mass-change, sync it alone before:"
        f" --day {first.label} --sync-date {first.date}.",
        soft_wrap=True,
    )


def counts_of(outcome: Outcome) -> dict[str, int]:
    """The rows that a run changed, over all tables, and those in the quarantine of its day."""
    published = outcome.published
    counts = {name: sum(getattr(table, name) for table in published.tables) for name in _COUNTS}
    return counts | {"quarantine": published.quarantine}


def print_event_as_json(event: Event) -> None:
    """Print an event as a JSON document on one line."""
    say_json_line(_as_json(event))


def _as_json(event: Event) -> dict[str, Any]:
    if isinstance(event, Listed):
        listed = {"database": event.database, "is_plan": event.request.plan, "days": [_named(d) for d in event.days]}
        return {"event": "listed", **listed, "has_archive": event.has_archive, "passed_over": list(event.passed_over)}
    if isinstance(event, Ended):
        return {"event": "ended", **asdict(event), "left": [_named(day) for day in event.left]}
    result = {"result": event.result, "seconds": event.seconds, "message": event.message}
    return {"event": "day", **_named(event.day), **result, "outcome": plain(event.outcome)}


def _named(day: DatedDay) -> dict[str, Any]:
    return {"sync_day": day.label, "sync_date": day.date}


def _days(count: int) -> str:
    return f"{count:,} day{'s' * (count != 1)}"
