"""Verdicts on a run, as values; `notes` has their words."""

from dataclasses import dataclass
from typing import Literal

NoteKind = Literal[
    "date",
    "backfill",
    "plan",
    "reused",
    "skipped",
    "absent",
    "incomplete",
    "not read",
    "stale",
    "mass change",
    "no reason",
]
RefusalKind = Literal["mass change", "empty folder", "rejected records"]


@dataclass(frozen=True)
class Note:
    """What a reader of a result must know."""

    kind: NoteKind
    message: str


@dataclass(frozen=True)
class Refusal:
    """Why a run is refused."""

    kind: RefusalKind
    message: str
