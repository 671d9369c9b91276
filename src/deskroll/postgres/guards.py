"""The guards: how much a date may change before a person has to say that it is right."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from deskroll.errors import UsageError
from deskroll.postgres.database import Connection
from deskroll.postgres.staging import StagedInput
from deskroll.spec.pipeline import Guard
from deskroll.verdicts import Refusal

MOST_PERCENT: Final = 20
MOST_ROWS: Final = 10
FEWEST_OF_HALF: Final = 3  # more than half is a mass change from this number on
_DEFAULT_MAX_REJECTED: Final = "50%"
_NAMED: Final = 10


@dataclass(frozen=True)
class Limits:
    """What a person allows a run: a mass change, and how many records in quarantine (a number, or a percentage).

    `reason` says why.
    """

    allow_mass_change: bool = False
    max_rejected: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]+|[0-9]*[.]?[0-9]+%", self.max_rejected or "0"):
            raise UsageError(
                f"--max-rejected {self.max_rejected!r} is not a limit.",
                "Give a number, or a percentage like 5%.",
            )
        object.__setattr__(self, "reason", " ".join((self.reason or "").split()) or None)


@dataclass(frozen=True)
class Changed:
    """How much a guard counts: rows before the date, and those of them that the date took away, or added."""

    before: int
    changed: int


@dataclass(frozen=True)
class GuardCheck:
    """How near a guard was to refusing a run; see the table sync_run_guards."""

    pipeline: str
    guarded: str
    is_gain: bool
    before: int
    changed: int
    share: float | None
    threshold: int | None
    refused: bool
    allowed: bool


def count_changed(connection: Connection, guards: Collection[Guard], now: Mapping[str, int]) -> dict[Guard, Changed]:
    """Count what the date that is being published has changed so far; `now` is what `count_now` counts."""
    with _hashed(connection):
        rows = connection.execute(
            """SELECT guarded, was_there, is_there, count(*), count(*) FILTER (WHERE NOT is_allowed)
            FROM guarded_changes WHERE guarded = ANY (%s) GROUP BY guarded, was_there, is_there""",
            [[guard.guarded for guard in guards]],
        ).fetchall()
    every: Counter[tuple[str, bool]] = Counter()
    unasked: Counter[tuple[str, bool]] = Counter()
    for name, was_there, is_there, count, count_unasked in rows:
        if is_there != was_there:
            every[name, is_there], unasked[name, is_there] = count, count_unasked
    return {
        guard: Changed(now[name] + every[name, False] - every[name, True], unasked[name, guard.is_gain])
        for guard in guards
        for name in [guard.guarded]
    }


def count_now(connection: Connection, guarded: Iterable[str]) -> dict[str, int]:
    """Count the rows that there are of what guards count, on the date if that is not the newest."""
    names = sorted(set(guarded))
    one = sql.SQL("SELECT {name}, count(*) FROM guarded_now WHERE guarded = {name}")
    each = sql.SQL(" UNION ALL ").join(one.format(name=sql.Literal(name)) for name in names)
    return dict(connection.execute(each).fetchall()) if names else {}


@contextmanager
def _hashed(connection: Connection) -> Iterator[None]:
    """Have PostgreSQL join by hashes.

    The rows that the transaction wrote are in no statistics. Taken for none, they would each be looked up by reading a
    whole table.
    """
    connection.execute("SET LOCAL enable_nestloop = off")
    yield
    connection.execute("SET LOCAL enable_nestloop = on")


def is_mass_change(changed: int, before: int) -> bool:
    """Whether so many of them are more than may change unasked; a first load does not count as a change."""
    threshold = find_threshold(before)
    return threshold is not None and changed >= threshold


def find_threshold(before: int) -> int | None:
    """The smallest number of changed rows that is a mass change; None if no number is."""
    by_share = max(MOST_ROWS, before * MOST_PERCENT // 100) + 1
    by_half = max(FEWEST_OF_HALF, before // 2 + 1)
    return min(by_share, by_half) if before > 0 else None


class Watch:
    """Compares what guards count before and after a pipeline is published."""

    def __init__(self, connection: Connection, guards: Iterable[Guard], changes: str) -> None:
        connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(changes)))  # it tells of an earlier run
        self._connection = connection
        self._guards = tuple(guards)
        self._stored = count_now(connection, (name for g in self._guards for name in (g.guarded, g.among) if name))
        self._earlier = count_changed(connection, self._guards, self._stored)
        self._counted: dict[Guard, Changed] = {}

    def find_refusals(self, inputs: Iterable[StagedInput]) -> list[Refusal]:
        """Say what the date loses too much of, and which folders are empty that may not be."""
        found = [Refusal("mass change", why) for why in self._find_mass_changes(is_noted=False)]
        for guard in self._guards:
            is_first_load = bool(guard.among) and not self._stored[guard.among]
            empty = find_empty(guard, self._stored[guard.guarded], inputs, is_first_load=is_first_load)
            found += [Refusal("empty folder", why) for why in empty]
        return found

    def find_notes(self) -> list[str]:
        """Say what the date adds so much of that somebody should look."""
        return list(self._find_mass_changes(is_noted=True))

    def find_checks(self, pipeline: str, *, is_allowed: bool) -> list[GuardCheck]:
        """Say how near each guard is to refusing, when the pipeline is published."""
        checks = []
        for guard in self._guards:
            now = self._count(guard)
            refuses = self._is_exceeded(guard) and not guard.is_noted
            share = now.changed / now.before if now.before else None
            verdict = (refuses and not is_allowed, refuses and is_allowed)
            numbers = (now.before, now.changed, share, find_threshold(now.before))
            checks.append(GuardCheck(pipeline, guard.guarded, guard.is_gain, *numbers, *verdict))
        return checks

    def _find_mass_changes(self, *, is_noted: bool) -> Iterator[str]:
        for guard in self._guards:
            if guard.is_noted == is_noted and self._is_exceeded(guard):
                yield _describe(self._connection, guard, self._count(guard))

    def _is_exceeded(self, guard: Guard) -> bool:
        now = self._count(guard)
        return now.changed > self._earlier[guard].changed and is_mass_change(now.changed, now.before)

    def _count(self, guard: Guard) -> Changed:
        """Count once what the pipeline has changed: it is published."""
        if not self._counted:
            now = count_now(self._connection, (g.guarded for g in self._guards))
            self._counted = count_changed(self._connection, self._guards, now)
        return self._counted[guard]


def _describe(connection: Connection, guard: Guard, now: Changed) -> str:
    percent = f"{100 * now.changed / now.before:.0f} %"
    if guard.is_gain:
        counted = f"{now.changed} {guard.guarded} would {guard.would}, to {now.before} that were stored ({percent})"
    else:
        counted = f"{now.changed} of {now.before} {guard.guarded} would {guard.would} ({percent})"
    old = connection.execute("SELECT sync_date, compared_with FROM guarded_dates").fetchone()
    when = f" on {old[0]}, compared with {old[1]}" if old else ""
    return f"{counted}{when}: {_names(connection, guard, now.changed)}"


def _names(connection: Connection, guard: Guard, changed: int) -> str:
    with _hashed(connection):
        found = connection.execute(
            """SELECT id, other_id FROM guarded_changes
            WHERE guarded = %(guarded)s AND is_there <> was_there AND is_there = %(is_gain)s AND NOT is_allowed
            ORDER BY id, other_id LIMIT %(most)s""",
            {"guarded": guard.guarded, "is_gain": guard.is_gain, "most": _NAMED},
        ).fetchall()
    names = [
        " ".join(str(name).split())
        for id_, other_id in found
        for (name,) in connection.execute(guard.label_sql, {"id": id_, "other_id": other_id}).fetchall()
    ]
    more = f" and {changed - len(names):,} more" if changed > len(names) else ""
    return ", ".join(names) + more


def allow(connection: Connection) -> None:
    """Note that a person allowed what the date of the pipeline that is being published has changed so far."""
    connection.execute(
        """UPDATE sync_date_changes SET is_allowed = true
        FROM sync_context AS context
        WHERE NOT context.is_backfill
        AND sync_date_changes.pipeline = context.pipeline AND NOT sync_date_changes.is_allowed"""
    )


def find_empty(guard: Guard, stored: int, inputs: Iterable[StagedInput], *, is_first_load: bool) -> Iterator[str]:
    """Say which folder is empty although there are rows that it should list."""
    folders = [s for s in inputs if s.input in guard.folders and s.found]
    for empty in (s for s in folders if not s.records_read):
        if stored:
            yield f"{empty.input}/ is empty, while {stored} {guard.guarded} are stored"
        for other in folders:
            if is_first_load and empty.input == guard.roster and other.records_read:
                yield f"{empty.input}/ is empty, while {other.input}/ has {other.records_read} records"


def find_rejected(limits: Limits, inputs: Iterable[StagedInput]) -> Iterator[str]:
    """Say which limit of rejected records is exceeded: a number of all, or a share of a folder."""
    folders = {s.input: s for s in inputs if s.is_folder}  # pipelines may share one
    most = limits.max_rejected or _DEFAULT_MAX_REJECTED
    limit = f"the limit is {most} (--max-rejected)"
    if not most.endswith("%"):
        read, rejected = (sum(getattr(s, n) for s in folders.values()) for n in ("records_read", "rejected"))
        if rejected > int(most):
            yield f"{rejected} of {read} records were rejected; {limit}"
        return
    fewest = 0 if limits.max_rejected else FEWEST_OF_HALF
    for s in folders.values():
        if s.rejected >= fewest and s.rejected * 100 > s.records_read * float(most.removesuffix("%")):
            yield f"{s.rejected} of {s.records_read} records of {s.input}/ were rejected; {limit}"


def check_rejected(limits: Limits, inputs: Iterable[StagedInput]) -> list[GuardCheck]:
    """Say how near each folder, or all of them together, are to the limit of rejected records."""
    folders = list({s.input: s for s in inputs if s.is_folder and s.found}.values())
    most = limits.max_rejected or _DEFAULT_MAX_REJECTED
    if not most.endswith("%"):
        read, rejected = (sum(getattr(s, n) for s in folders) for n in ("records_read", "rejected"))
        return [_rejected("records of all folders", read, rejected, int(most) + 1, limits, folders)]
    percent, fewest = float(most.removesuffix("%")), 0 if limits.max_rejected else FEWEST_OF_HALF
    return [
        _rejected(
            f"records of {s.input}/", s.records_read, s.rejected,
            max(fewest, int(s.records_read * percent / 100) + 1), limits, [s],
        )
        for s in folders
    ]  # fmt: skip


def _rejected(
    guarded: str, read: int, rejected: int, threshold: int, limits: Limits, folders: list[StagedInput]
) -> GuardCheck:
    refused = any(find_rejected(limits, folders))
    allowed = not refused and any(find_rejected(Limits(), folders))
    share = rejected / read if read else None
    return GuardCheck("", guarded, False, read, rejected, share, threshold, refused, allowed)
