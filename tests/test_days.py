"""Which date a day stands for."""

from datetime import UTC, date, datetime, timedelta

import pytest

from deskroll import days
from deskroll.errors import UsageError
from tests.conftest import Database, Dump, Shell, Sync, agent, budget

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
        days.check(label, None)
    assert f"Did you mean --day {HOLD_A_DATE[label]}?" in caught.value.remedy


def test_a_label_of_which_the_order_is_not_known() -> None:
    with pytest.raises(UsageError) as caught:
        days.check("07-01-2026", None)
    assert "Did you mean --day 2026-01-07 or --day 2026-07-01?" in caught.value.remedy


@pytest.mark.parametrize("label", ["2026-02-30", "2026-13-01", "31.02.2026"])
def test_a_date_that_the_calendar_does_not_have(label: str) -> None:
    with pytest.raises(UsageError, match="no date"):
        days.check(label, None)


@pytest.mark.parametrize(
    "label", ["day1", "1", "2026", "week-2026-3", "12345678", "20261345", "tran", "1000001", JANUARY]
)
def test_other_labels_are_taken(label: str) -> None:
    days.check(label, None)


def test_a_folder_with_such_a_name_needs_a_date() -> None:
    days.check("20260107", date(2026, 1, 7))
    with pytest.raises(UsageError):
        days.check("sync-2026-01-07", date(2026, 1, 7))


def test_a_date_in_the_future_has_to_be_typed() -> None:
    tomorrow = TODAY + timedelta(days=1)
    days.check(str(tomorrow), tomorrow)
    days.check(str(TODAY), None)
    for label, given in ((str(tomorrow), None), (str(tomorrow + timedelta(days=1)), tomorrow + timedelta(days=1))):
        with pytest.raises(UsageError, match="is in the future"):
            days.check(label, given)


class Runs:
    """Syncs by the command line, with no date typed unless it is given."""

    def __init__(self, shell: Shell, dump: Dump) -> None:
        self.shell, self.dump = shell, dump

    def __call__(self, day: str, on: str | None = None, *more: str) -> tuple[int, str]:
        self.dump.write(day, "agent_details", [agent(1)], "1.json")
        typed = ["--sync-date", on] if on else []
        done = self.shell.run("sync", self.dump.path, "--day", day, *typed, *more)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def runs(shell: Shell, dump: Dump) -> Runs:
    return Runs(shell, dump)


def dates(db: Database) -> list[tuple[str, str]]:
    rows = db.rows("SELECT sync_day, sync_date FROM sync_runs ORDER BY run_id")
    return [(row["sync_day"], str(row["sync_date"])) for row in rows]


def test_two_labels_on_one_date(runs: Runs, db: Database) -> None:
    assert runs("day1")[0] == 0
    code, said = runs("day2")
    assert (code, dates(db)) == (2, [("day1", str(TODAY))])
    assert f"'day1' is published for {TODAY}, for which 'day2' would stand too." in said
    assert f"--sync-date {TODAY}" in said
    assert runs(str(TODAY))[0] == 2
    assert runs("day2", str(TODAY))[0] == 0
    assert runs("day1")[0] == 2  # it would undo its correction
    assert runs("day2")[0] == 0


def test_labels_of_other_pipelines_do_not_matter(runs: Runs, dump: Dump) -> None:
    assert runs("desk", None, "--only", "agents")[0] == 0
    dump.write("spend", "budgets", [budget("b1")])
    assert runs("spend", None, "--only", "budgets,cards")[0] == 0
    assert runs("spend")[0] == 2


def test_a_label_keeps_its_date(runs: Runs, db: Database) -> None:
    for day, on in (("day1", "2026-01-05"), ("day2", "2026-01-06")):
        assert runs(day, on)[0] == 0
    code, said = runs("day1")
    assert code == 0
    assert "note: 'day1' was published as of 2026-01-05, and keeps that date; another one needs --sync-date\n" in said
    assert runs("day1", "2026-01-04")[0] == 0
    runs("day1")
    assert dates(db)[2:] == [("day1", "2026-01-05"), ("day1", "2026-01-04"), ("day1", "2026-01-04")]
    assert runs("day1-corrected", "2026-01-04")[0] == 0
    assert runs("day1")[0] == 2


def test_a_date_that_another_label_stood_for(runs: Runs) -> None:
    assert runs("day1", "2026-01-05")[0] == 0
    assert runs("2026-01-05")[0] == 2
    assert runs("2026-01-05", "2026-01-05")[0] == 0
    assert runs("2026-01-05")[0] == 0


def test_an_archive_needs_a_date(shell: Shell, dump: Dump, db: Database) -> None:
    dump.write("2026-01-05", "budgets", [budget("b1", currentPeriod={"limit": 5})])
    dump.write("tran", "budgets", [budget("b1", currentPeriod={"limit": 1})])
    assert shell.run("sync", dump.path, "--day", "2026-01-05").returncode == 0
    done = shell.run("sync", dump.path, "--day", "tran")
    assert done.returncode == 2
    assert "--sync-date YYYY-MM-DD" in done.stderr
    assert shell.run("stage", dump.path, "--day", "tran").returncode == 2
    assert shell.run("sync", dump.path, "--day", "tran", "--sync-date", "2026-01-04").returncode == 0
    assert shell.run("sync", dump.path, "--day", "tran").returncode == 0
    assert db.one("SELECT limit_amount FROM budgets") == 5
    assert dates(db)[1:] == [("tran", "2026-01-04")] * 2


def test_a_plan_and_a_run_that_failed_publish_nothing(runs: Runs, sync: Sync, dump: Dump, db: Database) -> None:
    assert runs("day1", None, "--plan")[0] == 0
    dump.write("empty", "agents", [])
    dump.write("day1", "agents", [])
    runs("day1")
    assert runs("day2")[0] == 0
