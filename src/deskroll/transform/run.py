"""Read the folders of a day: check the records, tell whose they are, deduplicate them and the lists in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from deskroll import notes
from deskroll.engines import Engine, Reading
from deskroll.errors import DeskrollError
from deskroll.input.dump import Folder
from deskroll.postgres.database import Connection
from deskroll.postgres.staging import StagedSource
from deskroll.spec.contract import Contract, Lookup, states
from deskroll.spec.pipeline import Source
from deskroll.transform.compile import (
    check_elements,
    check_records,
    lists_of,
    look_up,
    newest,
    rejected,
    repeated,
    wanted,
)
from deskroll.transform.identify import identify


@dataclass(frozen=True)
class Reader:
    """Reads folders into the relations of their sources.

    `on` is the date of the sync. Of the lists in records those in `feeds` are read. A folder in `lost` is missing
    although an earlier day had it, and so incomplete. `tell` is told what is being read.
    """

    engine: Engine
    connection: Connection
    on: date
    feeds: frozenset[str]
    lost: frozenset[str]
    tell: Callable[[str], None]

    def read(self, folders: dict[Source, Folder]) -> dict[Source, list[StagedSource]]:
        """Read, check and deduplicate; return what was read of each folder, and of each list in its records."""
        readings = {source: self._read(source, folder) for source, folder in folders.items()}
        for source in folders:
            alike = [other for other in folders if other.resource == source.resource]
            identify(self.engine, self.connection, source, alike)
        return {s: list(self._deduplicated(s, folder, readings[s])) for s, folder in folders.items()}

    def _read(self, source: Source, folder: Folder) -> Reading:
        contract, size = source.contract, sum(f.size for f in folder.files) / 1e6
        self.tell(f"reading {folder.name}/ ({len(folder.files):,} files, {size:,.1f} MB)")
        if not contract.lookup:
            return self.engine.read(folder, check_records(contract), source.as_read)
        wanting = f"{source.as_read}_wanting"
        reading = self.engine.read(folder, check_records(contract), wanting)
        _look_up(self.engine, contract.lookup, wanting, source.as_read)
        return reading

    def _deduplicated(self, source: Source, folder: Folder, reading: Reading) -> Iterator[StagedSource]:
        engine, contract = self.engine, source.contract
        counts, stated = self._deduplicate(contract, source.checked, source.valid)
        reasons = notes.why_incomplete(engine, reading, source.checked, contract.key, counts[0], counts[2])
        is_complete = not reasons and source.folder not in self.lost
        told = notes.of_folder(folder, reasons)
        yield StagedSource("", source.folder, True, folder.found, is_complete, *counts, told)
        for item, count in zip(contract.lists, stated, strict=True):
            if source.list_name(item.name) in self.feeds:
                checked, valid = source.list_checked(item.name), source.list_valid(item.name)
                engine.each(lists_of(contract, item, source.valid), check_elements(contract, item), checked)
                counts, _ = self._deduplicate(item, checked, valid, contract.key)
                yield StagedSource("", source.list_name(item.name), False, count > 0, True, *counts)

    def _deduplicate(
        self, contract: Contract, checked: str, valid: str, *also: str
    ) -> tuple[tuple[int, int, int], list[int]]:
        """Make `valid` of `checked`.

        Returns the rows read, duplicates and rejected, and how many of the valid ones have each list.

        Raises:
            DeskrollError: the counts do not add up, which would be a fault of deskroll.
        """
        engine, repeats, rejects = self.engine, f"{checked}_repeated", f"{checked}_rejected"
        key = ", ".join((*also, contract.key))
        ((read, rejections, keys),) = engine.fetch(
            f"""SELECT count(*), count(error_type), count(DISTINCT CASE WHEN error_type IS NULL THEN ({key}) END)
            FROM {checked}"""
        )
        duplicates = read - rejections - keys
        self._create(repeats, repeated(contract, checked, *also), duplicates)
        self._create(rejects, rejected(contract, checked, self.on, *also), rejections)
        # An engine in one process works the valid rows out again in less time than it would take to copy them.
        is_kept = engine.is_distributed and duplicates + rejections > 0
        engine.create(valid, newest(contract, checked, repeats, rejects, self.on, *also), keep=is_kept)
        stated = (f", count(CASE WHEN {states(item.name)} THEN 1 END)" for item in contract.lists)
        ((kept, *having),) = engine.fetch(f"SELECT count(*){''.join(stated)} FROM {valid}")
        if read != kept + duplicates + rejections:
            raise DeskrollError(
                f"{checked}: {read} read is not {kept} valid + {duplicates} duplicates + {rejections} rejected.",
                "This is a fault of deskroll; nothing was published. Please report it.",
            )
        return (read, duplicates, rejections), having

    def _create(self, name: str, select: str, rows: int) -> None:
        """Keep what a SELECT finds; if that is nothing, as it mostly is, the engine need not look for it."""
        self.engine.create(name, select if rows else f"SELECT * FROM ({select}) WHERE false", keep=rows > 0)


def _look_up(engine: Engine, lookup: Lookup, relation: str, result: str) -> None:
    """Give the records of a relation what they are to get from outside."""
    found = lookup.find(engine.fetch(wanted(lookup, relation)))
    rows = ", ".join(f"('{text}', DATE '{on}', '{value}')" for (text, on), value in found.items())
    nothing = "SELECT CAST(NULL AS VARCHAR) AS text, CAST(NULL AS DATE) AS on_date, CAST(NULL AS VARCHAR) AS value"
    some = f"SELECT * FROM (VALUES {rows}) AS found (text, on_date, value)" if found else nothing
    engine.create(f"{relation}_found", some, keep=True)
    engine.create(result, look_up(lookup, relation, f"{relation}_found"))
