"""The days of a dump and the dates that they stand for, for a sync of many days; `sync_date` has the rule."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from deskroll.engines import Engine
from deskroll.errors import UsageError
from deskroll.input.dump import DAY_PREFIX
from deskroll.notes import few
from deskroll.postgres import ledger
from deskroll.postgres.database import Connection
from deskroll.sync_date import ARCHIVE, date_of, looks_like_date

DAYS_NAMED: Final = 10  # in a message
_HEADER: Final = ("label", "date")
_NUMBER: Final = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Choice:
    """Which days of a dump are asked for, and what was typed about their dates.

    `since` and `until` are the first and the last date; without them every day is asked for. `dates` is a file of
    labels and dates. `start` is the date of the first of the days whose label is not a date.
    """

    since: date | None = None
    until: date | None = None
    dates: Path | None = None
    start: date | None = None

    def has(self, on: date) -> bool:
        """Whether a date is asked for."""
        return (self.since is None or on >= self.since) and (self.until is None or on <= self.until)


@dataclass(frozen=True, order=True)
class DatedDay:
    """A day and its date, in the order in which days are synced: an archive follows the day of its date."""

    date: date
    is_archive: bool
    label: str

    @property
    def origin(self) -> str:
        """Where its records come from: `tran` for an archive, else `api`."""
        return ARCHIVE if self.is_archive else "api"

    def __str__(self) -> str:
        return self.label if self.label == str(self.date) else f"{self.date} ({self.label})"


@dataclass(frozen=True)
class FoundDays:
    """What lies in a dump: the labels of its days, dates that were typed for some, and what is passed over.

    `has_archive` says that the dump has an archive for which no date was typed.
    """

    dump: str
    labels: tuple[str, ...]
    typed: Mapping[str, date]
    has_archive: bool = False
    passed_over: tuple[str, ...] = ()


def find_days(engine: Engine, dump: str, choice: Choice, inputs: Iterable[str]) -> FoundDays:
    """Find the days of a dump; `inputs` are the names of all folders that a day may have. No database is asked.

    A folder is a day if its name begins with `sync-`, is a date or that of an archive, or if it has one of `inputs`.

    Raises:
        UsageError: the dump has no day, one has two folders or a label that is nearly a date, or the file of dates
            cannot be used.
    """
    labels: list[str] = []
    passed_over: list[str] = []
    for name in engine.list_dump(dump):
        label = name.removeprefix(DAY_PREFIX)
        if label in labels:
            raise UsageError(
                f"{dump} has two folders for the day {label!r}: {DAY_PREFIX}{label}/ and {label}/.",
                "Move one of them out of the dump.",
            )
        if label != name or _is_day(engine, dump, name, inputs):
            labels.append(label)
        else:
            passed_over.append(f"{name}/")
    typed = read_dates(choice.dates, labels) if choice.dates else {}
    days = tuple(label for label in labels if label != ARCHIVE or label in typed)
    if not days:
        raise UsageError(f"{dump} has no sync day.", "Give the folder that holds sync-<day>/ folders.")
    _check_labels(days, typed)
    return FoundDays(dump, days, typed, len(days) < len(labels), tuple(passed_over))


def _is_day(engine: Engine, dump: str, name: str, inputs: Iterable[str]) -> bool:
    """Whether a folder is a day although its name does not begin as that of one."""
    if date_of(name) or name == ARCHIVE:
        return True
    return not {f"{folder}/" for folder in inputs}.isdisjoint(engine.list_day(f"{dump.rstrip('/')}/{name}"))


def _check_labels(labels: Iterable[str], typed: Mapping[str, date]) -> None:
    """See that no label looks like a date without being one: somebody has to say what it means."""
    for label in labels:
        if label not in typed and not date_of(label) and looks_like_date(label):
            raise UsageError(
                f"The day label {label!r} looks like a date, but is not a date YYYY-MM-DD.",
                "Rename the folder, or give its date in a file with --dates.",
            )


def read_dates(path: Path, labels: Iterable[str]) -> dict[str, date]:
    """Read a file of dates: a label and its date a line, with a comma or white space between.

    Empty lines, a heading `label,date`, and what follows a `#` at the beginning of a line are passed over.

    Raises:
        UsageError: the file cannot be read, or a line cannot be used; the message has its number.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"The file of dates {path} cannot be read: {why}.", "Correct --dates.") from error
    known = list(labels)
    read: dict[str, date] = {}
    for number, line in enumerate(lines, start=1):
        label, typed = _split_line(line)
        if not line.strip() or line.lstrip().startswith("#") or (label.lower(), typed.lower()) == _HEADER:
            continue
        on = date_of(typed)
        if not label or not on:
            raise _bad_line(path, number, f"{line.strip()!r} is not a label and a date YYYY-MM-DD", "Correct the line.")
        if label in read:
            raise _bad_line(path, number, f"the day {label!r} stands there twice", "Remove one of the lines.")
        if label not in known:
            near = difflib.get_close_matches(label.removeprefix(DAY_PREFIX), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Days found: {few(known, most=DAYS_NAMED)}."
            raise _bad_line(path, number, f"the dump has no day {label!r}", hint)
        read[label] = on
    return read


def _split_line(line: str) -> tuple[str, str]:
    """The label and the date of a line, each perhaps in quotes; a label may hold white space."""
    before, comma, after = line.rpartition(",")
    if not comma:
        before, _, after = re.sub(r"\s+", " ", line.strip()).rpartition(" ")
    label, typed = (part.strip().strip('"') for part in (before, after))
    return label, typed


def _bad_line(path: Path, number: int, what: str, hint: str) -> UsageError:
    return UsageError(f"{path}, line {number}: {what}.", hint)


def date_days(
    connection: Connection, found: FoundDays, choice: Choice, pipelines: Iterable[str]
) -> tuple[DatedDay, ...]:
    """Date the days that were found, and return those that were asked for, in the order of their dates.

    Raises:
        UsageError: the date of a day is not known, is in the future, or is that of another day; or no day was asked
            for.
    """
    dates = _dates(connection, found, choice)
    days = sorted(DatedDay(on, label == ARCHIVE, label) for label, on in dates.items())
    _check_twins(days)
    chosen = tuple(day for day in days if choice.has(day.date))
    if not chosen:
        raise UsageError(
            f"{found.dump} has no day from {choice.since or 'the first'} to {choice.until or 'the last'}.",
            f"Its days are from {days[0].date} to {days[-1].date}.",
        )
    pipelines = list(pipelines)
    for day in chosen:
        check_future(day.date, is_typed=day.label in found.typed)
        if day.label not in found.typed:
            _check_others(connection, day, pipelines)
    return chosen


def _dates(connection: Connection, found: FoundDays, choice: Choice) -> dict[str, date]:
    """The date of each day: as typed, else what its label is, else that of its last run, else counted from a start."""
    dates = {label: on for label in found.labels if (on := found.typed.get(label) or date_of(label))}
    undated = sorted((label for label in found.labels if label not in dates), key=_naturally)
    published = ledger.dates_of(connection, undated)
    if choice.start is not None:
        check_future(choice.start, is_typed=True)
        counted = {label: choice.start + timedelta(days=n) for n, label in enumerate(undated)}
        for label, on in published.items():
            if counted[label] != on:
                raise UsageError(
                    f"{label!r} was published for {on} before, and --start {choice.start} would make it"
                    f" {counted[label]}.",
                    "Correct --start, or give the dates of all days in a file with --dates.",
                )
        return dates | counted
    if unknown := [label for label in undated if label not in published]:
        listed = few(unknown, most=DAYS_NAMED)
        raise UsageError(
            f"The dates of {len(unknown)} day{'s' * (len(unknown) > 1)} are not known: {listed}.",
            "Give --start YYYY-MM-DD if the days are consecutive, or --dates FILE with a label and a date a line.",
        )
    return dates | published


def _naturally(label: str) -> list[tuple[int, str]]:
    """A key that sorts day2 before day10."""
    return [(int(part), "") if _NUMBER.fullmatch(part) else (-1, part) for part in _NUMBER.split(label)]


def check_future(on: date, *, is_typed: bool) -> None:
    """See that a date is not in the future; tomorrow's may be typed.

    Raises:
        UsageError: it is.
    """
    today = datetime.now(UTC).date()
    if on > today + timedelta(days=is_typed):
        raise UsageError(
            f"{on} is in the future: today is {today} (UTC).", "Correct the date, or leave it out with --to."
        )


def _check_twins(days: list[DatedDay]) -> None:
    """See that no two days stand for one date."""
    first: dict[tuple[date, bool], DatedDay] = {}
    for day in days:
        other = first.setdefault((day.date, day.is_archive), day)
        if other is not day:
            raise UsageError(
                f"{other.label!r} and {day.label!r} would both stand for {day.date}.",
                "Move one of them out of the dump, or give their dates in a file with --dates.",
            )


def _check_others(connection: Connection, day: DatedDay, pipelines: list[str]) -> None:
    """See that no other label was published for the date of a day since the day itself was."""
    others = ledger.other_days(connection, day.label, day.date, pipelines, ARCHIVE)
    if others:
        raise UsageError(
            f"{' and '.join(map(repr, others))} {'is' if len(others) == 1 else 'are'} already published for {day.date},"
            f" the date that {day.label!r} would stand for.",
            f"To replace it, sync {day.label!r} alone, with --sync-date {day.date}. Otherwise give the date of"
            f" {day.label!r} in a file with --dates.",
        )
