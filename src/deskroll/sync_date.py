"""Which date a day stands for: as typed, else what its label says, else what the ledger remembers of it, else today."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from deskroll.errors import UsageError
from deskroll.postgres import ledger
from deskroll.postgres.database import Connection
from deskroll.verdicts import Note

ARCHIVE: Final = "tran"
_PREFIX: Final = "sync-"
_LABEL: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_YEAR_FIRST: Final = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_. ]?)(\d{1,2})\2(\d{1,2})(?:(?:\d\d){2,3})?(?!\d)")
_YEAR_LAST: Final = re.compile(r"(?<!\d)(\d{1,2})([-_. ])(\d{1,2})\2((?:19|20)\d\d)(?!\d)")


@dataclass(frozen=True)
class DayDate:
    """The date of a run, and what a reader must know of how it was found."""

    date: date
    notes: tuple[Note, ...] = ()


def check(label: str, given: date | None) -> None:
    """See that a label, and the date that was typed, may be right; the database is not asked.

    Raises:
        UsageError: the label is the name of a folder, or holds a date in another form, or the date is in the future.
    """
    if label.startswith(_PREFIX):
        raise UsageError(
            f"--day {label} is the name of a folder: --day takes the label behind {_PREFIX!r}.",
            f"Did you mean --day {next(_dates_in(label), label.removeprefix(_PREFIX))}?",
        )
    today = datetime.now(UTC).date()
    on = given or date_of(label)
    if on and on > today + timedelta(days=1):
        raise UsageError(f"{on} is in the future.", "Correct --day or --sync-date.")
    if on and on > today and not given:
        raise UsageError(f"{on} is in the future: today is {today} (UTC).", f"If it is right, give --sync-date {on}.")
    if not on and looks_like_date(label):
        near = " or ".join(f"--day {found}" for found in dict.fromkeys(_dates_in(label)))
        raise UsageError(
            f"The day label {label!r} looks like a date, but is not a date YYYY-MM-DD.",
            (f"Did you mean {near}? " if near else "") + "If the folder has this name, give --sync-date too.",
        )


def find_date(connection: Connection, label: str, given: date | None, pipelines: Iterable[str]) -> DayDate:
    """Find the date of a run of these pipelines.

    Raises:
        UsageError: nothing says what date an archive is of, or another label was published for this date.
    """
    if given:
        return DayDate(given)
    of_label = date_of(label)
    found = DayDate(of_label) if of_label else _undated(label, ledger.date_of(connection, label))
    on = found.date
    others = [] if label == ARCHIVE else ledger.other_days(connection, label, on, pipelines, ARCHIVE)
    if others:
        raise UsageError(
            f"{' and '.join(map(repr, others))} {'is' if len(others) == 1 else 'are'} already published for {on},"
            f" the date that {label!r} would stand for.",
            f"To replace it, give --sync-date {on}. Otherwise give the date of {label!r}.",
        )
    return found


def _undated(label: str, published: date | None) -> DayDate:
    """The date of a label that is none."""
    if published:
        note = f"{label!r} was published for {published} before, and keeps that date. Give --sync-date for another date"
        return DayDate(published, (Note("date", note),))
    if label == ARCHIVE:
        raise UsageError(
            f"{ARCHIVE}/ does not say its date, and deskroll does not use today's date for an archive.",
            "Give the date up to which it was made: --sync-date YYYY-MM-DD.",
        )
    today = datetime.now(UTC).date()
    note = (
        f"{label!r} is not a date (YYYY-MM-DD), so this run stands for today, {today}."
        " Give --sync-date for another date"
    )
    return DayDate(today, (Note("date", note),))


def date_of(label: str) -> date | None:
    """The date that a label is, in the one form that counts: YYYY-MM-DD."""
    if _LABEL.fullmatch(label):
        with suppress(ValueError):
            return date.fromisoformat(label)
    return None


def looks_like_date(label: str) -> bool:
    """Whether a label holds a date; with marks between its numbers, also one that the calendar does not have."""
    if any(True for _ in _dates_in(label)):
        return True
    return any(match[2] for form in (_YEAR_FIRST, _YEAR_LAST) for match in form.finditer(label))


def _dates_in(label: str) -> Iterator[date]:
    """The dates that a label may mean; with the year last, of both orders of day and month those that there are."""
    for year, _, month, day in _YEAR_FIRST.findall(label):
        with suppress(ValueError):
            yield date(int(year), int(month), int(day))
    for first, mark, second, year in _YEAR_LAST.findall(label):
        for day, month in [(first, second), (second, first)][: 1 if mark == "." else 2]:
            with suppress(ValueError):
                yield date(int(year), int(month), int(day))
