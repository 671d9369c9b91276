"""Run compiled steps on an engine: read the inputs of a run, count what became of their records, and stage tables."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from deskroll import notes
from deskroll.engines import Engine, Reading
from deskroll.errors import DeskrollError
from deskroll.input.dump import Folder
from deskroll.logs import log_step
from deskroll.postgres.database import Connection
from deskroll.postgres.staging import StagedInput
from deskroll.spec.contract import Lookup
from deskroll.spec.pipeline import Input
from deskroll.transform.compile import COUNTED, Step, compile_phases
from deskroll.transform.identify import find_ids

Counts = dict[str, int]
_NAMED: Final = 10  # unreadable files of a folder

_SMALL: Final = 16 * 1024 * 1024  # bytes of a day whose folders fit into memory together, however they are packed
_SIDE_BY_SIDE: Final = 4

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runner:
    """Runs steps over the folders of a day.

    Names that tell an id are looked up over `connection`, too. A folder in `lost` is missing although an earlier day
    had it, and so incomplete.
    """

    engine: Engine
    connection: Connection
    folders: dict[Input, Folder]
    lost: frozenset[str]
    _readings: dict[str, Reading] = field(default_factory=dict)
    _counts: dict[str, Counts] = field(default_factory=dict)

    def read(self, on: date, names: frozenset[str]) -> dict[Input, list[StagedInput]]:
        """Read, check and deduplicate all folders and, of the lists in their records, those in `names`.

        Returns what was read of each folder, and of each list.

        Raises:
            DeskrollError: the counts do not add up, which would be a fault of deskroll.
        """
        for phase in compile_phases(self.folders, on, names):
            self._run_phase(phase)
        return {one: [self._folder(one), *self._lists(one, names)] for one in self.folders}

    def _run_phase(self, phase: list[list[Step]]) -> None:
        """Run the steps of all inputs, of a small day side by side: most of the time is to plan, by one thread each."""
        size = sum(max(file.size, 0) for folder in self.folders.values() for file in folder.files)
        at_once = 1 if self.engine.is_distributed or size > _SMALL else _SIDE_BY_SIDE
        if at_once == 1:
            for steps in phase:
                self._run_steps(steps)
            return
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self._run_steps, phase))  # raises what one of them raised

    def _run_steps(self, steps: list[Step]) -> None:
        for step in steps:
            self._run(step)

    def _run(self, step: Step) -> None:
        engine = self.engine
        if step.how == "read" and step.input:
            self._read(step, step.input)
        elif step.how == "look up" and step.input and step.input.contract.lookup:
            _look_up(engine, step, step.input.contract.lookup)
        elif step.how == "identify" and step.input:
            alike = [other for other in self.folders if other.resource == step.input.resource]
            engine.create(step.name, find_ids(engine, self.connection, step.input, alike, step.sql))
        elif step.how == "count":
            self._count(step)
        elif step.how == "map":
            engine.map_rows(f"SELECT * FROM {step.over}", step.sql, step.name)
        else:
            is_weighty = not step.weighed_by or any(self._counts[step.subject][name] for name in step.weighed_by)
            is_kept = step.materialize and is_weighty and (engine.is_distributed or not step.is_wide)
            is_empty = step.is_rare and not is_weighty  # mostly: the engine need not look for rows
            engine.create(
                step.name, f"SELECT * FROM ({step.sql}) WHERE false" if is_empty else step.sql, materialize=is_kept
            )

    def _read(self, step: Step, input_: Input) -> None:
        folder = self.folders[input_]
        megabytes = round(sum(f.size for f in folder.files) / 1e6, 1)
        log_step(_logger, "reading", folder=folder.name, files=len(folder.files), megabytes=megabytes)
        self._readings[input_.folder] = self.engine.read(folder, step.sql, step.name)

    def _count(self, step: Step) -> None:
        """Count rows; every row that was checked must be valid, a duplicate, or rejected."""
        (row,) = self.engine.fetch(step.sql)
        counts = self._counts.setdefault(step.subject, {})
        counts.update(zip(step.columns, row, strict=True))
        if "valid" in counts and counts["records_read"] != counts["valid"] + counts["duplicates"] + counts["rejected"]:
            raise DeskrollError(
                f"{step.subject}: {counts['records_read']} read is not {counts['valid']} valid"
                f" + {counts['duplicates']} duplicates + {counts['rejected']} rejected.",
                "This is a fault of deskroll; nothing was published. Please report it.",
            )

    def _folder(self, input_: Input) -> StagedInput:
        folder, counts = self.folders[input_], self._counts[input_.folder]
        reading = self._readings[input_.folder]
        unreadable = notes.unreadable_files(self.engine, reading, input_)
        reasons = notes.why_incomplete(self.engine, reading, input_, counts, unreadable)
        is_complete = not reasons and input_.folder not in self.lost
        return StagedInput(
            "", input_.folder, True, folder.found, is_complete, *_counted(counts),
            incomplete_because=notes.few(reasons, "; "), not_read=notes.few(folder.not_read),
            valid=counts["valid"], files=len(folder.files), bytes=folder.size, fingerprint=folder.digest,
            unreadable=tuple(sorted(unreadable))[:_NAMED],
        )  # fmt: skip

    def _lists(self, input_: Input, names: frozenset[str]) -> Iterator[StagedInput]:
        for item in input_.contract.lists:
            if (name := input_.list_name(item)) in names:
                is_stated = self._counts[input_.folder][f"states_{item.name}"] > 0
                counts = self._counts[name]
                yield StagedInput("", name, False, is_stated, True, *_counted(counts), valid=counts["valid"])


def _counted(counts: Counts) -> tuple[int, int, int]:
    read, duplicates, rejected = (counts[name] for name in COUNTED)
    return read, duplicates, rejected


def _look_up(engine: Engine, step: Step, lookup: Lookup) -> None:
    """Make a relation of what is found outside for the records that need it."""
    found = lookup.find(engine.fetch(step.sql))
    rows = ", ".join(f"('{text}', DATE '{on}', '{value}')" for (text, on), value in found.items())
    nothing = "SELECT CAST(NULL AS VARCHAR) AS text, CAST(NULL AS DATE) AS on_date, CAST(NULL AS VARCHAR) AS value"
    some = f"SELECT * FROM (VALUES {rows}) AS found (text, on_date, value)" if found else nothing
    engine.create(step.name, some, materialize=True)
