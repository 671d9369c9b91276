"""Which date a day stands for."""

from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import SecretStr

from deskroll import sync as sync_module
from deskroll import sync_date
from deskroll.errors import UsageError
from deskroll.postgres.guards import Limits
from deskroll.settings import Settings
from deskroll.sync import Refused, Request
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget
from tests.helpers.runs import Shell, messages

TODAY = datetime.now(UTC).date()
JANUARY = "2026-01-07"
HOLD_A_DATE = {
    "sync-2026-01-07": JANUARY,
    "2026-1-7": JANUARY,
    "20260107": JANUARY,
    "2026_01_07": JANUARY,
    "2026.01.07": JANUARY,
    "2026 01 07": JANUARY,
    "07.01.2026": JANUARY,
    "7.1.2026": JANUARY,
    "2026-01-07T06:00:00Z": JANUARY,
    "202601070600": JANUARY,
    "dump-2026-01-07": JANUARY,
    "2026-01-07-again": JANUARY,
    "sync-day1": "day1",
    "13-01-2026": "2026-01-13",
}


@pytest.mark.parametrize("label", HOLD_A_DATE)
def test_a_label_that_holds_a_date_in_another_form(label: str) -> None:
    with pytest.raises(UsageError) as caught:
        sync_date.check(label, None)
    assert f"Did you mean --day {HOLD_A_DATE[label]}?" in caught.value.hint


def test_a_label_of_which_the_order_is_not_known() -> None:
    with pytest.raises(UsageError) as caught:
        sync_date.check("07-01-2026", None)
    assert "Did you mean --day 2026-01-07 or --day 2026-07-01?" in caught.value.hint


@pytest.mark.parametrize("label", ["2026-02-30", "2026-13-01", "31.02.2026"])
def test_a_date_that_the_calendar_does_not_have(label: str) -> None:
    with pytest.raises(UsageError, match="not a date"):
        sync_date.check(label, None)


@pytest.mark.parametrize(
    "label", ["day1", "1", "2026", "week-2026-3", "12345678", "20261345", "tran", "1000001", JANUARY]
)
def test_other_labels_are_taken(label: str) -> None:
    sync_date.check(label, None)


def test_a_folder_with_such_a_name_needs_a_date() -> None:
    sync_date.check("20260107", date(2026, 1, 7))
    with pytest.raises(UsageError):
        sync_date.check("sync-2026-01-07", date(2026, 1, 7))


def test_a_date_in_the_future_has_to_be_typed() -> None:
    tomorrow = TODAY + timedelta(days=1)
    sync_date.check(str(tomorrow), tomorrow)
    sync_date.check(str(TODAY), None)
    for label, given in ((str(tomorrow), None), (str(tomorrow + timedelta(days=1)), tomorrow + timedelta(days=1))):
        with pytest.raises(UsageError, match="is in the future"):
            sync_date.check(label, given)


class Runs:
    """Syncs days with one agent each; no date is typed unless it is given."""

    def __init__(self, url: str, dump: Dump) -> None:
        self.settings, self.dump = Settings(database_url=SecretStr(url), threads=2), dump

    def __call__(
        self,
        day: str,
        on: str | None = None,
        only: tuple[str, ...] = (),
        *,
        most: str | None = None,
        plan: bool = False,
    ) -> list[str]:
        self.dump.write(day, "agent_details", [agent(1)], "1.json")
        request = Request(str(self.dump.path), day, date.fromisoformat(on) if on else None, only)
        limits = Limits(max_rejected=most)
        return messages(sync_module.sync_day(request, self.settings, limits, plan=plan))

    def refused(self, day: str, *only: str) -> str:
        with pytest.raises(UsageError) as caught:
            self(day, None, only)
        return f"{caught.value.message} {caught.value.hint}"


@pytest.fixture
def runs(url: str, dump: Dump) -> Runs:
    return Runs(url, dump)


def dates(db: Database) -> list[tuple[str, str]]:
    rows = db.rows("SELECT sync_day, sync_date FROM sync_runs ORDER BY run_id")
    return [(row["sync_day"], str(row["sync_date"])) for row in rows]


def test_two_labels_on_one_date(runs: Runs, db: Database) -> None:
    runs("day1")
    said = runs.refused("day2")
    assert said.startswith(f"'day1' is already published for {TODAY}, the date that 'day2' would stand for.")
    assert f"--sync-date {TODAY}" in said
    assert dates(db) == [("day1", str(TODAY))]
    runs.refused(str(TODAY))
    runs("day2", str(TODAY))
    runs.refused("day1")  # it would undo its correction
    runs("day2")


def test_labels_of_other_pipelines_do_not_matter(runs: Runs, dump: Dump) -> None:
    runs("desk", None, ("agents",))
    dump.write("spend", "budgets", [budget("b1")])
    runs("spend", None, ("budgets", "cards"))
    runs.refused("spend")
    runs.refused("spend", "agents", "budgets")


def test_a_label_keeps_its_date(runs: Runs, db: Database) -> None:
    runs("day1", "2026-01-05")
    runs("day2", "2026-01-06")
    expected = "'day1' was published for 2026-01-05 before, and keeps that date. Give --sync-date for another date"
    assert expected in runs("day1")
    runs("day1", "2026-01-04")
    runs("day1")
    assert dates(db)[2:] == [("day1", "2026-01-05"), ("day1", "2026-01-04"), ("day1", "2026-01-04")]
    runs("day1-corrected", "2026-01-04")
    runs.refused("day1")


def test_a_date_that_another_label_stood_for(runs: Runs) -> None:
    runs("day1", "2026-01-05")
    runs.refused("2026-01-05")
    runs("2026-01-05", "2026-01-05")
    assert not [note for note in runs("2026-01-05") if "keeps that date" in note]


def test_an_archive_needs_a_date(runs: Runs, dump: Dump, db: Database) -> None:
    dump.write("2026-01-05", "budgets", [budget("b1", currentPeriod={"limit": 5})])
    dump.write("tran", "budgets", [budget("b1", currentPeriod={"limit": 1})])
    runs("2026-01-05")
    assert "--sync-date YYYY-MM-DD" in runs.refused("tran")
    runs("tran", "2026-01-05", ("budgets",))
    runs("tran", None, ("budgets",))
    runs("2026-01-05")
    assert db.one("SELECT limit_amount FROM budgets") == 5
    assert dates(db)[1:3] == [("tran", "2026-01-05")] * 2


def test_what_published_nothing_does_not_count(runs: Runs, dump: Dump, db: Database) -> None:
    runs("day1", plan=True)
    dump.write("day1", "agents", [{"id": "bad"}])
    with pytest.raises(Refused):
        runs("day1", most="0")
    runs("day2")
    assert dates(db) == [("day1", str(TODAY)), ("day2", str(TODAY))]


def test_a_usage_error_reads_no_database(shell: Shell, dump: Dump) -> None:
    dump.write("2026-01-07", "agents", [agent(1)])
    done = shell.run("sync", dump.path, "--day", "sync-2026-01-07", "--database-url", "postgresql://nowhere.invalid/x")
    assert done.returncode == 2
    assert "Did you mean --day 2026-01-07?" in done.stderr
