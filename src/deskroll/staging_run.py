"""The first half of a run: list the folders of a day, take over what staging holds of them, and stage the rest."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version

from deskroll import notes
from deskroll.engines import Engine
from deskroll.errors import InputError
from deskroll.input.dump import Folder, fingerprint
from deskroll.logs import log_step
from deskroll.pipelines import PIPELINES, Pipeline
from deskroll.postgres import ledger, snapshot, staging
from deskroll.postgres.database import Connection, Session
from deskroll.postgres.ledger import Run, Seen
from deskroll.postgres.staging import Load, Purpose, Staged, StagedInput, StagedSync
from deskroll.spec.pipeline import Input
from deskroll.sql import sql_text
from deskroll.transform.compile import compile_outputs, compile_pipeline
from deskroll.transform.run import Runner

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DayFiles:
    """The folders of a day that some pipelines read.

    `present` are the pipelines of which the day has a folder. `syncs` describes what staging will hold of them. `lost`
    names the folders that the day lacks although an earlier day had them, of those that must return.
    """

    folders: dict[Input, Folder]
    present: list[Pipeline]
    lost: frozenset[str]
    syncs: dict[str, StagedSync]

    @property
    def fingerprints(self) -> dict[str, str]:
        """The state of the files of each pipeline, without those that changed a moment ago."""
        return {name: sync.fingerprint for name, sync in self.syncs.items() if sync.fingerprint is not None}


@dataclass(frozen=True)
class StagingRun:
    """Stages pipelines for a run; `day` is the folder of the day. `seen` takes what the run sees, for the ledger."""

    session: Session
    engine: Engine
    day: str
    run: Run
    seen: Seen = field(default_factory=Seen)

    def list_files(self, pipelines: list[Pipeline], purpose: Purpose) -> DayFiles:
        """List the folders that pipelines read, and describe what staging will hold of them."""
        folders = {i: self.engine.list_folder(self.day, i.folder, i.resource) for p in pipelines for i in p.inputs}
        present = [p for p in pipelines if any(folders[i].found for i in p.inputs)]
        lost = _lost(self.session.connection, folders, self.run)
        syncs = {p.name: _describe(p, folders, self.run, purpose, lost) for p in present}
        return DayFiles(folders, present, lost, syncs)

    def stage(self, pipelines: list[Pipeline], purpose: Purpose, *, reread: bool) -> Staged:
        """Fill the staging tables.

        Files that staging already holds as they are now are not read again, unless `reread` says so.

        Raises:
            InputError: the day has none of the folders.
        """
        connection = self.session.connection
        files = self.list_files(pipelines, purpose)
        folders, present = files.folders, files.present
        self.seen.folders.update({i.folder: folder for i, folder in folders.items()})
        if not present:
            names = dict.fromkeys(f"{i.folder}/" for i in folders)
            raise InputError(
                f"{self.day} has none of the folders {', '.join(names)}.", "Check the dump: did its download end?"
            )
        held = staging.staged(connection)[0]
        staged = Staged([], {}) if reread else _reuse(connection, present, files.syncs)
        staged.notes.extend(
            notes.of_day(self.engine.list_day(self.day), [i.folder for p in PIPELINES for i in p.inputs])
        )
        if purpose == "plan":
            staged.notes.extend(notes.of_replaced(pipelines, held, staging.staged(connection)[0], staged.reused))
        self.seen.add(staged.inputs)
        rest = [p for p in pipelines if p.name not in staged.reused]
        staging.begin(connection, [p.name for p in rest])
        self._stage(staged, [p for p in present if p in rest], files)
        return replace(staged, fingerprints=files.fingerprints)

    def _stage(self, staged: Staged, pipelines: list[Pipeline], files: DayFiles) -> None:
        """Read the inputs of pipelines, each once though they share some, and fill their staging tables."""
        inputs = dict.fromkeys(i for p in pipelines for i in p.inputs)
        names = frozenset().union(*(p.input_names for p in pipelines))
        runner = Runner(self.engine, self.session.connection, {i: files.folders[i] for i in inputs}, files.lost)
        read = runner.read(self.run.sync_date, names)
        self.seen.add(one for i in inputs for one in read[i])
        for pipeline in pipelines:
            own = [
                replace(one, pipeline=pipeline.name)
                for i in pipeline.inputs
                for one in read[i]
                if one.is_folder or one.input in pipeline.input_names
            ]
            tables = self._load_pipeline(pipeline, own)
            log_step(_logger, "staged", pipeline=pipeline.name, rows=sum(t.rows for t in tables))
            staging.finish(self.session.connection, files.syncs[pipeline.name], own, tables)
            staged.inputs.extend(own)
            staged.rows.update({t.table: t.rows for t in tables})

    def _load_pipeline(self, pipeline: Pipeline, read: list[StagedInput]) -> list[staging.StagedTable]:
        """Fill a pipeline's staging tables, and its part of the staged quarantine."""
        engine = self.engine
        _give(engine, self.run, read)
        with snapshot.parts(self.session, pipeline.snapshots) as stored:
            for relation, rows in stored:
                columns: dict[str, str] = {name: kind for name, (kind, _) in relation.columns.items()}
                engine.load_rows(relation.name, columns, rows)
            *steps, quarantine = compile_outputs(pipeline)
            tables = {table.table for table in pipeline.staging}
            for step in (s for s in steps if s.name not in tables):
                engine.create(step.name, step.sql)
            loads = [_load(engine, s.name, s.sql) for s in steps if s.name in tables]
            return [
                *staging.load(self.session, loads),
                staging.add(self.session, _load(engine, quarantine.name, quarantine.sql)),
            ]


def _lost(connection: Connection, folders: dict[Input, Folder], run: Run) -> frozenset[str]:
    """The folders that the day does not have although an earlier day had them, of those that must return."""
    missing = [i for i, folder in folders.items() if i.must_return and not folder.found]
    since = ledger.roster_since(connection, [p.name for p in PIPELINES if {*p.inputs} & {*missing}])
    return frozenset(i.folder for i in missing if since is not None and since < run.sync_date)


def _describe(
    pipeline: Pipeline, folders: dict[Input, Folder], run: Run, purpose: Purpose, lost: frozenset[str]
) -> StagedSync:
    """What staging will hold of a pipeline, and the fingerprint of all that it is made of."""
    sql = [step.sql for step in compile_pipeline(pipeline, run.sync_date)]
    made_by = [version("deskroll"), run.engine, run.sync_day, run.origin, *sorted(lost), *sql]
    made_by += [version(i.contract.lookup.package) for i in pipeline.inputs if i.contract.lookup]
    if pipeline.snapshots:
        made_by.append(str(run.sync_date))
    files = fingerprint([folders[i] for i in pipeline.inputs], "\n".join(made_by))
    return StagedSync(pipeline.name, run.sync_day, run.sync_date, run.origin, run.engine, files, purpose)


def _reuse(connection: Connection, pipelines: list[Pipeline], syncs: dict[str, StagedSync]) -> Staged:
    """Take over what staging already holds of the very same files, if nobody has touched it since."""
    reused = Staged([], {})
    known, inputs = staging.staged(connection)
    held = {s.pipeline: s for s in known}
    for pipeline in pipelines:
        described = syncs[pipeline.name]
        same = held.get(pipeline.name, described)
        if described.purpose == "plan" and described.sync_date == same.sync_date:
            described = replace(described, purpose=same.purpose)  # a plan that fills nothing leaves it as it is
        loaded = staging.tables(connection, pipeline.name)
        if (
            described.fingerprint is not None
            and pipeline.name in held
            and same.fingerprint == described.fingerprint
            and staging.is_untouched(connection, pipeline.name, loaded)
        ):
            staging.finish(connection, described, [], [])
            reused.inputs.extend(i for i in inputs if i.pipeline == pipeline.name)
            reused.rows.update({t.table: t.rows for t in loaded})
            reused.reused.append(pipeline.name)
    return reused


def _load(engine: Engine, table: str, select: str) -> Load:
    return Load(table, engine.columns(select), partial(engine.copy_out, select), engine.is_distributed)


def _give(engine: Engine, run: Run, read: Iterable[StagedInput]) -> None:
    """Give the SELECTs of a pipeline what they may need to know of the run."""
    day = f"{sql_text(run.sync_day)} AS sync_day, '{run.origin}' AS source, DATE '{run.sync_date}' AS sync_date"
    engine.create("sync", f"SELECT {day}")
    rows = ", ".join(f"('{i.input}', {i.found}, {i.complete})" for i in read if i.is_folder)
    engine.create("folders", f"SELECT * FROM (VALUES {rows}) AS folders (name, found, complete)")
