"""Any sequence: syncs, re-runs, backfills, subsets, plans, refusals, tran/, all with dirt, against the plain rules."""

import copy
import shutil
import tempfile
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from pydantic import SecretStr

from deskroll.pipelines import PIPELINES
from deskroll.postgres import guards
from deskroll.postgres.guards import Limits
from deskroll.settings import Settings
from deskroll.sync import Outcome, Refused, Request
from deskroll.sync import sync_day as run_sync
from tests.helpers import model, model_guards, model_spend
from tests.helpers.changes import check_recorded, recorded, tracked_values
from tests.helpers.databases import Database
from tests.helpers.torture import Torture
from tests.rules import test_model, test_model_spend

LABELS = ("day0", "day1", "tran")
MOST_ROWS = 1  # of rows that may go in any case, so that a few agents are enough for a refusal
DIRTY = {**test_model.DIRTY, **test_model_spend.DIRTY}
TIDY = {**test_model.TIDY, **test_model_spend.TIDY}
KNOWN = {p.name: {s.folder for s in p.inputs} for p in PIPELINES}

tidy_days = test_model.tidy_days(TIDY)
days = st.one_of(test_model.mixed_days(DIRTY, TIDY), tidy_days)
labels = st.sampled_from(LABELS)
dates = st.integers(1, 4).map(lambda day: date(2026, 1, day))
subsets = st.none() | st.sets(st.sampled_from(sorted(KNOWN)), min_size=1)


class Syncs(RuleBasedStateMachine):
    """A database and the model of it, to which the same things happen."""

    def __init__(self, db: Database, torture: Torture) -> None:
        super().__init__()
        self.db, self.torture = db, torture
        self.dump = Path(tempfile.mkdtemp())
        self.state, self.spend, self.guards = model.State(), model_spend.Spend(), model_guards.Guards()
        self.last: tuple[str, date, set[str] | None] | None = None

    @initialize(content=days)
    def begin(self, content: Any) -> None:
        test_model.empty(self.db)
        test_model.write(self.dump, "day0", content)

    @rule(label=labels, content=days)
    def fetch(self, label: str, content: Any) -> None:
        """A day is downloaded, perhaps again."""
        shutil.rmtree(self.dump / f"sync-{label}", ignore_errors=True)
        test_model.write(self.dump, label, content)

    @rule(label=labels, on=dates, only=subsets, force=st.booleans())
    def sync(self, label: str, on: date, only: set[str] | None, force: bool) -> None:
        if not self.has(label, only):
            return
        folder = self.dump / f"sync-{label}"
        state, spend = copy.deepcopy(self.state), copy.deepcopy(self.spend)
        model.sync(state, self.dump, label, on, only)
        spend.sync(folder, label, on, state, only)
        guards = copy.deepcopy(self.guards)
        must_refuse = guards.sync(self.state, state, self.dump, label, on, only, MOST_ROWS)
        old = guards.of_old_date(self.db, self.state, self.dump, label, on, only)
        rows, values = self.db.rows_by_key(), tracked_values(self.db)
        outcome = None if force else self.attempt(label, on, only)
        if must_refuse and not force:
            assert outcome is None
            return
        is_refused = not force and outcome is None
        if outcome is None:
            outcome = self.run(label, on, only, force=True)
        # What an old date would have lost only its periods tell, when they are there.
        assert force or old.must_refuse(MOST_ROWS) == is_refused
        if force or is_refused:
            guards.allow(self.state, self.dump, label, on, only)
        self.state, self.spend, self.guards, self.last = state, spend, guards, (label, on, only)
        self.compare(outcome)
        self.reckon(outcome, rows, self.db.rows_by_key())
        check_recorded(self.db, values)
        self.torture.count("sequences: runs compared")

    @precondition(lambda self: self.last is not None)
    @rule()
    def again(self) -> None:
        assert self.last is not None
        label, on, only = self.last
        if not self.has(label, only):
            return
        self.sync(label, on, only, force=True)
        before = self.db.versions()
        self.run(label, on, only, force=True)
        assert self.db.versions() == before
        assert recorded(self.db) == {}
        self.torture.count("sequences: runs repeated")

    @rule(label=labels, on=dates)
    def plan(self, label: str, on: date) -> None:
        if self.has(label, None):
            before = self.db.versions()
            self.run(label, on, None, force=False, plan=True)
            assert self.db.versions() == before

    def attempt(self, label: str, on: date, only: set[str] | None) -> Outcome | None:
        """Run, and let the guards refuse it; None if they do."""
        before = self.db.versions()
        try:
            return self.run(label, on, only, force=False)
        except Refused:
            assert self.db.versions() == before
            assert self.db.one("SELECT status FROM sync_runs ORDER BY run_id DESC LIMIT 1") == "refused"
            self.torture.count("sequences: refused runs")
            return None

    def has(self, label: str, only: set[str] | None) -> bool:
        """Whether the day has a folder of these pipelines; without one nothing runs."""
        return any((self.dump / f"sync-{label}" / name).is_dir() for p in only or KNOWN for name in KNOWN[p])

    def run(self, label: str, on: date, only: set[str] | None, force: bool, *, plan: bool = False) -> Outcome:
        request = Request(str(self.dump), label, on, tuple(only or ()))
        settings = Settings(database_url=SecretStr(self.db.url), threads=1)
        return run_sync(request, settings, Limits(force, "100%"), plan=plan)

    def compare(self, outcome: Outcome) -> None:
        assert self.last is not None
        found = test_model.tables(self.db)
        test_model.settle_roles(self.db, self.state, found, self.last[1])
        expected = test_model.expected(self.state)
        expected["errors"] |= {where: sorted(rows, key=repr) for where, rows in self.spend.errors.items() if rows}
        for name in ("budget", "card", "transaction"):
            rows = test_model.errors(self.db, name, f"{name}_id")
            found["errors"] |= {(name, day): quarantined for day, quarantined in rows.items()}
        assert found == expected
        assert test_model.watermarks(self.db) == self.state.newest | self.spend.newest
        assert test_model_spend.tables(self.db) == test_model_spend.expected(self.spend)
        assert test_model_spend.purchases(self.db) == self.spend.purchases()
        counts = {t.table: (t.records_read, t.duplicates, t.rejected) for t in outcome.published.tables}
        for table, said in (self.state.counts | self.spend.counts).items():
            assert counts[table] == said, table

    def reckon(self, outcome: Outcome, before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> None:
        """The ledger's counts of what was done are those of the rows that changed, one for each."""
        identified = self.db.rows(
            "SELECT ROW(transaction_id)::TEXT AS key FROM stg_transaction_changes WHERE change = 'identified'"
        )
        for said in outcome.published.tables:
            was, now = before[said.table], after[said.table]
            both = was.keys() & now.keys()
            rewritten = sum(was[key] != now[key] for key in both)
            renamed = 0  # rows that got another key
            if said.table == "transactions":
                renamed = len({row["key"] for row in identified} & now.keys() - was.keys())
            assert (said.inserted, said.updated) == (len(now) - len(both) - renamed, rewritten + renamed), said
            assert said.unchanged == len(both) - rewritten, said
            if said.table != "agent_role_mapping":  # whose rows stay, and are marked
                assert said.removed == len(was) - len(both) - renamed, said

    def teardown(self) -> None:
        shutil.rmtree(self.dump)


def test_any_sequence_leaves_what_the_model_says(
    db: Database, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MOST_ROWS", MOST_ROWS)
    machine: Any = partial(Syncs, db, torture)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150 if torture.is_full else 6,
            stateful_step_count=12 if torture.is_full else 8,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_tidy_days_one_after_another_leave_what_the_model_says(
    db: Database, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes and goes from one day to the next only shows where both are tidy, which at random they seldom are.

    What is refused is then forced.
    """
    monkeypatch.setattr(guards, "MOST_ROWS", MOST_ROWS)

    @settings(max_examples=20 if torture.is_full else 5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        content=st.lists(tidy_days, min_size=8, max_size=8),
        steps=st.lists(st.sampled_from([1, 1, 1, 0, -2]), min_size=8, max_size=8),
    )
    def one_after_another(content: list[test_model.Day], steps: list[int]) -> None:
        syncs = Syncs(db, torture)
        test_model.empty(db)
        on = date(2026, 1, 20)
        try:
            for number, (day, step) in enumerate(zip(content, steps, strict=True)):
                on += timedelta(step)
                label = LABELS[number % len(LABELS)]
                syncs.fetch(label, day)
                syncs.sync(label, on, None, force=False)
                if syncs.last != (label, on, None):
                    syncs.sync(label, on, None, force=True)
        finally:
            syncs.teardown()

    one_after_another()
