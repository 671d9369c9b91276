"""The guards: how much a run may take away before a person has to say so."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from deskroll.errors import UsageError
from deskroll.postgres.staging import StagedSource

MOST_PERCENT: Final = 20
MOST_ROWS: Final = 10


@dataclass(frozen=True)
class Guard:
    """What a run must not lose much of.

    `known` is a SELECT that counts it before publishing, `lost` one that counts after it what was taken away, or
    `would` come to pass. While any is known, none of `sources` may be there and empty.
    """

    what: str
    known: str
    lost: str
    sources: tuple[str, ...] = ()
    would: str = "go"


@dataclass(frozen=True)
class Limits:
    """What a person allows a run: a mass change, and how many records in quarantine (None: any number)."""

    allow_mass_change: bool = False
    max_rejected: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]+|[0-9]*[.]?[0-9]+%", self.max_rejected or "0"):
            raise UsageError(
                f"--max-rejected {self.max_rejected!r} is no limit.",
                "Give a number, or a percentage like 5%.",
            )


def judge_loss(guard: Guard, known: int, lost: int, sources: Iterable[StagedSource]) -> list[str]:
    """Say what stands against publishing, if anything."""
    found: list[str] = []
    if lost > MOST_ROWS and lost * 100 > known * MOST_PERCENT:
        found.append(
            f"{lost} of {known} {guard.what} would {guard.would} ({100 * lost / known:.0f} %);"
            f" the limit is {MOST_PERCENT} % or {MOST_ROWS}, whichever is more"
        )
    if known:
        found += [
            f"{s.source}/ is empty, while {known} {guard.what} are known"
            for s in sources
            if s.source in guard.sources and s.found and not s.records_read
        ]
    return found


def judge_rejected(limits: Limits, sources: Iterable[StagedSource]) -> list[str]:
    """Say whether more records are in quarantine than a person allows."""
    if limits.max_rejected is None:
        return []
    folders = {s.source: s for s in sources if s.is_folder}.values()  # pipelines may share one
    read, rejected = sum(s.records_read for s in folders), sum(s.rejected for s in folders)
    number = float(limits.max_rejected.removesuffix("%"))
    most = read * number / 100 if limits.max_rejected.endswith("%") else number
    if rejected <= most:
        return []
    return [f"{rejected} of {read} records were rejected; the limit is {limits.max_rejected} (--max-rejected)"]
