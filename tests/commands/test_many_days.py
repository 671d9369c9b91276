"""Many days by one command: which days, in which order, which are skipped, and what stops them."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from deskroll.dated_days import Choice
from deskroll.engines import open_engine
from deskroll.errors import BusyError, DeskrollError, InputError, UsageError
from deskroll.many_days import DayResult, DaysRequest, Ended, Event, Listed, sync_days
from deskroll.postgres import database
from deskroll.postgres.guards import Limits
from deskroll.postgres.locks import locked
from deskroll.settings import Settings
from deskroll.sync import Refused, publish_staged, stage_day
from deskroll.sync import Request as DayRequest
from tests.helpers.databases import Database, new_database
from tests.helpers.factories import Dump, agent, budget, group, role
from tests.helpers.runs import Shell, Sync, sync_into

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TODAY = datetime.now(UTC).date()


class Many:
    """Syncs many days of a dump in this process; keeps what is told."""

    def __init__(self, url: str, dump: Dump) -> None:
        self.dump = dump
        self.settings = Settings(database_url=SecretStr(url), threads=2)
        self.events: list[Event] = []

    def __call__(
        self, *, limits: Limits | None = None, wait: bool = True, choice: Choice | None = None, **request: Any
    ) -> dict[str, str]:
        """Sync, and return what became of each day."""
        self.events = []
        asked = DaysRequest(str(self.dump.path), choice or Choice(), **request)
        sync_days(asked, self.settings, limits or Limits(max_rejected="100%"), self.events.append, wait=wait)
        return self.results

    @property
    def results(self) -> dict[str, str]:
        return {e.day.label: e.result for e in self.events if isinstance(e, DayResult)}

    @property
    def left(self) -> list[str]:
        (ended,) = (e for e in self.events if isinstance(e, Ended))
        return [day.label for day in ended.left]

    @property
    def listed(self) -> Listed:
        (listed,) = (e for e in self.events if isinstance(e, Listed))
        return listed

    def error(self, **options: Any) -> str:
        """Sync, and return the usage error that this is."""
        with pytest.raises(UsageError) as caught:
            self(**options)
        return f"{caught.value.message} {caught.value.hint}"


@pytest.fixture
def many(url: str, dump: Dump, monkeypatch: pytest.MonkeyPatch) -> Many:
    monkeypatch.setattr("deskroll.input.dump.SETTLED_AFTER", 0)
    return Many(url, dump)


@pytest.fixture
def other(server: str, template: str) -> Iterator[Database]:
    """A second database, to compare with."""
    with new_database(server, template) as made:
        found = Database(made)
        yield found
        found.connection.close()


def write_days(dump: Dump, *days: str) -> None:
    """Days with a roster of three each, one of whom leaves and one of whom comes."""
    for n, day in enumerate(days):
        dump.write(day, "agents", [agent(n + k, name=day) for k in range(3)])


def contents(db: Database) -> dict[str, list[Any]]:
    """All final tables, histories and quarantines, and which runs there were."""
    return {name: rows for name, rows in db.everything(BEGAN).items() if not name.startswith("stg_")}


def dates(db: Database) -> list[str]:
    return [str(row["sync_date"]) for row in db.rows("SELECT sync_date FROM sync_runs ORDER BY run_id")]


def rich_days(dump: Dump) -> list[tuple[str, str]]:
    """Days that need other relations: duplicates, rejected records, folders that come and go, an unreadable file."""
    dump.write("2026-01-05", "agents", [agent(n) for n in range(4)])
    dump.write("2026-01-05", "agent_details", [agent(n, role_ids=[1], group_ids=[7]) for n in (0, 1, 1, 2, 3)])
    dump.write("2026-01-05", "roles", [role(1), {"id": 2}])
    dump.write("2026-01-06", "agents", [agent(n) for n in range(1, 6)])
    dump.write("2026-01-06", "admin_groups", [group(7, 1, 2, 9)])
    dump.write("2026-01-07", "agent_details", [*(agent(n, role_ids=[1, 2]) for n in range(2, 6)), {"id": "bad"}])
    dump.write("2026-01-07", "budgets", [budget("b1")])
    dump.write("2026-01-08", "agents", b'[{"id": 2}, {"id": 3')
    dump.write("2026-01-09", "agents", [agent(n) for n in range(2, 6)])
    dump.write("2026-01-09", "agent_details", [agent(n, availability=[{"channel": "chat"}]) for n in range(2, 6)])
    return [(day, day) for day in ("2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08", "2026-01-09")]


class TestOrder:
    def test_many_days_give_what_each_of_them_gives_by_itself(
        self, many: Many, db: Database, other: Database, dump: Dump
    ) -> None:
        days = rich_days(dump)
        assert many(limits=Limits(True, "100%")) == {label: "published" for label, _ in days}
        for label, on in days:
            sync_into(other.url, str(dump.path), label, on, allow_mass_change=True)
        assert contents(db) == contents(other)
        assert many.left == []

    def test_days_are_synced_in_the_order_of_their_dates(self, many: Many, db: Database, dump: Dump) -> None:
        write_days(dump, "day10", "day2", "2026-01-03", "day1")
        many(choice=Choice(start=date(2026, 1, 5)))
        assert list(many.results) == ["2026-01-03", "day1", "day2", "day10"]
        assert dates(db) == ["2026-01-03", "2026-01-05", "2026-01-06", "2026-01-07"]

    def test_one_engine_one_connection_and_one_lock(
        self, many: Many, dump: Dump, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_days(dump, "2026-01-05", "2026-01-06", "2026-01-07")
        opened: list[str] = []

        def counted(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                opened.append(what)
                return function(*given, **named)

            return call

        monkeypatch.setattr("deskroll.many_days.open_engine", counted("engine", open_engine))
        monkeypatch.setattr(database, "connect", counted("connection", database.connect))
        monkeypatch.setattr("deskroll.sync.locked", counted("lock", locked))
        many()
        assert opened == ["engine", "connection", "lock"]

    @pytest.mark.parametrize(
        ("since", "until", "found"),
        [
            (6, 7, ["2026-01-06", "2026-01-07"]),
            (6, None, ["2026-01-06", "2026-01-07", "2026-01-08"]),
            (None, 6, ["2026-01-05", "2026-01-06"]),
            (7, 7, ["2026-01-07"]),
        ],
    )
    def test_a_range_has_its_first_and_its_last_date(
        self, since: int | None, until: int | None, found: list[str], many: Many, dump: Dump
    ) -> None:
        write_days(dump, "2026-01-05", "2026-01-06", "2026-01-07", "2026-01-08")
        first, last = (date(2026, 1, day) if day else None for day in (since, until))
        assert list(many(choice=Choice(first, last), plan=True)) == found

    def test_a_range_without_a_day_is_an_error(self, many: Many, dump: Dump) -> None:
        write_days(dump, "2026-01-05", "2026-01-06")
        said = many.error(choice=Choice(date(2026, 1, 7), date(2026, 1, 9)))
        assert "has no day from 2026-01-07 to 2026-01-09. Its days are from 2026-01-05 to 2026-01-06." in said


class TestSkip:
    def test_days_published_from_the_same_files_are_skipped(self, many: Many, db: Database, dump: Dump) -> None:
        write_days(dump, "2026-01-05", "2026-01-06")
        many()
        before = contents(db)
        assert set(many().values()) == {"unchanged"}
        write_days(dump, "2026-01-07")
        assert contents(db) == before
        assert list(many().values()) == ["unchanged", "unchanged", "published"]

    def test_a_sync_of_one_day_counts_too(self, many: Many, sync: Sync, dump: Dump) -> None:
        write_days(dump, "day1")
        sync("day1", "2026-01-05")
        assert many() == {"day1": "unchanged"}
        assert many.listed.days[0].date == date(2026, 1, 5)

    @pytest.mark.parametrize("change", ["content", "a new file", "a file gone", "a new folder"])
    def test_a_day_whose_files_changed_is_synced_and_all_after_it(
        self, change: str, many: Many, db: Database, dump: Dump
    ) -> None:
        write_days(dump, "2026-01-05", "2026-01-06", "2026-01-07")
        extra = dump.write("2026-01-06", "agents", [agent(9)])
        many()
        if change == "content":
            extra.write_text(json.dumps([agent(8)]))
        elif change == "a new file":
            dump.write("2026-01-06", "agents", [agent(8)])
        elif change == "a file gone":
            extra.unlink()
        else:
            dump.write("2026-01-06", "roles", [role(1)])
        assert list(many().values()) == ["unchanged", "published", "published"]
        assert set(many().values()) == {"unchanged"}

    def test_an_older_day_that_comes_late_gives_what_syncing_all_after_it_gives(
        self, many: Many, db: Database, other: Database, dump: Dump
    ) -> None:
        days = rich_days(dump)
        late = dump.path / "sync-2026-01-06"
        late.rename(dump.path / ".late")
        first = [day for day in days if day[0] != "2026-01-06"]
        many(limits=Limits(True, "100%"))
        for label, on in first:
            sync_into(other.url, str(dump.path), label, on, allow_mass_change=True)
        (dump.path / ".late").rename(late)
        assert many(limits=Limits(True, "100%"))["2026-01-05"] == "unchanged"
        for label, on in days[1:]:
            sync_into(other.url, str(dump.path), label, on, allow_mass_change=True)
        assert contents(db) == contents(other)

    @pytest.mark.parametrize("by", ["version", "contract", "engine", "lookup"])
    def test_what_another_deskroll_published_is_synced_again(
        self, by: str, many: Many, dump: Dump, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_days(dump, "2026-01-05")
        dump.write("2026-01-05", "transactions", [])
        many()
        if by in {"version", "lookup"}:
            changed = "deskroll" if by == "version" else "currencyconverter"
            monkeypatch.setattr("deskroll.staging_run.version", lambda name: "9" if name == changed else version(name))
        elif by == "engine":
            monkeypatch.setattr("deskroll.engines.duckdb.DuckDB.name", "other")
        else:
            monkeypatch.setattr("deskroll.staging_run.compile_pipeline", lambda *_: [])
        if by == "lookup":
            assert many(only=("agents",)) == {"2026-01-05": "unchanged"}
        assert many() == {"2026-01-05": "published"}

    def test_pipelines_that_were_not_published_are_not_skipped(self, many: Many, db: Database, dump: Dump) -> None:
        write_days(dump, "2026-01-05")
        dump.write("2026-01-05", "roles", [role(1)])
        many(only=("agents",))
        assert many(only=("agents",)) == {"2026-01-05": "unchanged"}
        assert many() == {"2026-01-05": "published"}
        assert db.one("SELECT count(*) FROM roles") == 1
        assert many(only=("roles",)) == {"2026-01-05": "unchanged"}

    def test_a_pipeline_that_the_day_has_no_folder_of_does_not_matter(self, many: Many, dump: Dump) -> None:
        write_days(dump, "2026-01-05")
        many()
        assert many(only=("agents", "cards")) == {"2026-01-05": "unchanged"}

    def test_a_day_whose_last_run_was_refused_is_not_skipped(self, many: Many, sync: Sync, dump: Dump) -> None:
        write_days(dump, "2026-01-05")
        dump.write("2026-01-05", "agents", [{"id": "bad"}])
        many()
        with pytest.raises(Refused):
            sync("2026-01-05", "2026-01-05", max_rejected="0")
        assert many() == {"2026-01-05": "published"}
        assert many() == {"2026-01-05": "unchanged"}

    def test_a_day_whose_last_run_failed_is_not_skipped(self, many: Many, db: Database, sync: Sync, dump: Dump) -> None:
        write_days(dump, "2026-01-05")
        many()
        db.connection.execute("ALTER TABLE stg_agents RENAME TO gone")
        with pytest.raises(DeskrollError):
            sync("2026-01-05", "2026-01-05")
        db.connection.execute("ALTER TABLE gone RENAME TO stg_agents")
        assert many() == {"2026-01-05": "published"}

    def test_a_date_published_afterwards_from_other_files_is_not_skipped(
        self, many: Many, db: Database, sync: Sync, dump: Dump
    ) -> None:
        write_days(dump, "2026-01-05")
        many()
        dump.write("fixed", "agents", [agent(n) for n in (0, 1, 2, 9)])
        sync("fixed", "2026-01-05")
        (dump.path / "sync-fixed").rename(dump.path / ".fixed")
        assert "'fixed' is already published for 2026-01-05, the date that '2026-01-05' would stand for" in many.error()
        sync("2026-01-05", "2026-01-05")
        assert many() == {"2026-01-05": "unchanged"}
        assert db.one("SELECT status FROM agents WHERE agent_id = 9") == "inactive"

    def test_a_date_published_by_other_means_is_not_skipped(self, many: Many, db: Database, dump: Dump) -> None:
        write_days(dump, "2026-01-05")
        many()
        stage_day(DayRequest(str(dump.path), "2026-01-05"), many.settings)
        db.connection.execute("UPDATE stg_agents SET name = 'edited'")
        publish_staged((), many.settings, Limits())
        assert db.one("SELECT count(*) FROM agents WHERE name = 'edited'") == 3
        assert many() == {"2026-01-05": "published"}
        assert db.one("SELECT count(*) FROM agents WHERE name = 'edited'") == 0

    def test_files_that_changed_a_moment_ago_are_not_trusted(
        self, many: Many, dump: Dump, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_days(dump, "2026-01-05")
        monkeypatch.setattr("deskroll.input.dump.SETTLED_AFTER", 3600 * 10**9)
        many()
        assert many() == {"2026-01-05": "published"}

    def test_reread_skips_nothing_and_reads_all(self, many: Many, dump: Dump) -> None:
        write_days(dump, "2026-01-05", "2026-01-06")
        many()
        last = Choice(since=date(2026, 1, 6))  # staging still holds that day
        assert many(reread=True, choice=last) == {"2026-01-06": "published"}
        (result,) = (event for event in many.events if isinstance(event, DayResult))
        assert result.outcome
        assert not [note for note in result.outcome.notes if note.kind == "reused"]
        assert set(many(reread=True).values()) == {"published"}
        assert set(many().values()) == {"unchanged"}


class TestStop:
    def write_mass_change(self, dump: Dump) -> None:
        for day, people in (("2026-01-05", 20), ("2026-01-06", 20), ("2026-01-07", 8), ("2026-01-08", 8)):
            dump.write(day, "agents", [agent(n) for n in range(people)])

    def test_a_refused_day_stops_all_and_running_again_goes_on(self, many: Many, db: Database, dump: Dump) -> None:
        self.write_mass_change(dump)
        with pytest.raises(Refused):
            many()
        assert many.results == {"2026-01-05": "published", "2026-01-06": "published", "2026-01-07": "refused"}
        assert many.left == ["2026-01-07", "2026-01-08"]
        assert db.one("SELECT count(*) FROM agents WHERE status = 'active'") == 20
        assert many(limits=Limits(allow_mass_change=True)) == {
            "2026-01-05": "unchanged",
            "2026-01-06": "unchanged",
            "2026-01-07": "published",
            "2026-01-08": "published",
        }

    def test_the_limit_of_rejected_records_holds_for_each_day(self, many: Many, dump: Dump) -> None:
        for day in ("2026-01-05", "2026-01-06"):
            dump.write(day, "agents", [agent(1), {"id": "bad"}])
        many(limits=Limits(max_rejected="1"))
        with pytest.raises(Refused):
            many(limits=Limits(max_rejected="0"), reread=True)
        assert many.left == ["2026-01-05", "2026-01-06"]

    def test_a_failed_day_stops_all(self, many: Many, dump: Dump) -> None:
        write_days(dump, "2026-01-05", "2026-01-07")
        dump.write("2026-01-06", "pictures", None)
        with pytest.raises(InputError, match="has none of the folders"):
            many()
        assert many.results == {"2026-01-05": "published", "2026-01-06": "failed"}
        assert many.left == ["2026-01-06", "2026-01-07"]

    def test_an_interrupt_says_what_is_left(self, many: Many, db: Database, dump: Dump) -> None:
        write_days(dump, "2026-01-05", "2026-01-06", "2026-01-07")

        class Interrupts(list[Event]):
            def append(self, event: Event) -> None:
                super().append(event)
                if isinstance(event, DayResult):
                    raise KeyboardInterrupt

        asked = DaysRequest(str(dump.path))
        told = Interrupts()
        with pytest.raises(KeyboardInterrupt):
            sync_days(asked, many.settings, Limits(), told.append)
        assert [type(event) for event in told] == [Listed, DayResult, Ended]
        assert dates(db) == ["2026-01-05"]
        assert list(many().values()) == ["unchanged", "published", "published"]

    def test_the_terminal_says_what_stopped_it_and_what_is_left(self, shell: Shell, dump: Dump) -> None:
        self.write_mass_change(dump)
        done = shell.run("sync", dump.path, "--all")
        assert done.returncode == 3
        assert "2026-01-07  2026-01-07  refused\nRefused: 2026-01-07 as of 2026-01-07" in done.stdout
        assert "Stopped at 2026-01-07. Left: 2026-01-07, 2026-01-08.\nRun the same command again" in done.stdout
        assert "--day 2026-01-07 --sync-date 2026-01-07" in done.stdout
        assert "of 20 active agents would be deactivated" in done.stderr

    def test_another_run_is_waited_for_or_not(self, many: Many, url: str, dump: Dump) -> None:
        write_days(dump, "2026-01-05")
        with database.connect(url) as connection, locked(connection, wait=True), pytest.raises(BusyError):
            many(wait=False)
        assert many.events == []


class TestDates:
    def test_a_label_that_is_not_a_date_needs_one(self, many: Many, dump: Dump) -> None:
        write_days(dump, "day1", "day2", "2026-01-09")
        said = many.error()
        assert "The dates of 2 days are not known: day1, day2." in said
        assert "--start" in said
        assert "--dates FILE" in said
        assert many.error(choice=Choice(since=date(2026, 1, 9))) == said

    def test_a_label_keeps_the_date_under_which_it_was_published(
        self, many: Many, sync: Sync, db: Database, dump: Dump
    ) -> None:
        write_days(dump, "day1", "day2")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-07")
        assert many(reread=True) == {"day1": "published", "day2": "published"}
        assert dates(db)[2:] == ["2026-01-05", "2026-01-07"]

    def test_a_start_that_would_move_a_published_day_is_an_error(self, many: Many, sync: Sync, dump: Dump) -> None:
        write_days(dump, "day2", "day3")
        sync("day2", "2026-01-06")
        said = many.error(choice=Choice(start=date(2026, 1, 5)))
        assert "'day2' was published for 2026-01-06 before, and --start 2026-01-05 would make it 2026-01-05." in said
        many(choice=Choice(start=date(2026, 1, 6)))
        assert [day.date for day in many.listed.days] == [date(2026, 1, 6), date(2026, 1, 7)]

    @pytest.mark.parametrize("label", ["2026-1-7", "20260107", "2026-02-30"])
    def test_a_folder_whose_name_is_nearly_a_date_is_an_error(
        self, label: str, many: Many, dump: Dump, tmp_path: Path
    ) -> None:
        write_days(dump, "2026-01-05", label)
        said = many.error(choice=Choice(start=date(2026, 1, 7)))
        assert f"The day label {label!r} looks like a date, but is not a date YYYY-MM-DD." in said
        file = tmp_path / "dates"
        file.write_text(f"{label} 2026-01-07")
        assert list(many(choice=Choice(dates=file))) == ["2026-01-05", label]

    def test_two_days_of_one_date_are_an_error(self, many: Many, dump: Dump, tmp_path: Path) -> None:
        write_days(dump, "2026-01-05", "fixed")
        file = tmp_path / "dates"
        file.write_text("fixed 2026-01-05")
        assert "'2026-01-05' and 'fixed' would both stand for 2026-01-05" in many.error(choice=Choice(dates=file))

    def test_two_folders_of_one_day_are_an_error(self, many: Many, dump: Dump) -> None:
        write_days(dump, "2026-01-05")
        (dump.path / "2026-01-05").mkdir()
        assert "has two folders for the day '2026-01-05'" in many.error()

    @pytest.mark.parametrize("days", [1, 2])
    def test_a_date_in_the_future_is_an_error(self, days: int, many: Many, dump: Dump, tmp_path: Path) -> None:
        label = str(TODAY + timedelta(days=days))
        write_days(dump, str(TODAY), label)
        assert f"{label} is in the future" in many.error()
        assert many(choice=Choice(until=TODAY), plan=True) == {str(TODAY): "planned"}
        file = tmp_path / "dates"
        file.write_text(f"{label} {label}")
        if days == 1:
            assert len(many(choice=Choice(dates=file), plan=True)) == 2
        else:
            assert "is in the future" in many.error(choice=Choice(dates=file))
        assert "is in the future" in many.error(choice=Choice(start=date.max))

    def test_a_dump_without_days_is_an_error(self, many: Many, dump: Dump) -> None:
        dump.write("tran", "budgets", [])
        assert "has no sync day" in many.error()

    def test_what_is_not_a_day_is_passed_over_and_named(self, many: Many, dump: Dump, shell: Shell) -> None:
        write_days(dump, "2026-01-05")
        (dump.path / "logs").mkdir()
        (dump.path / ".git").mkdir()
        (dump.path / "sync-latest").symlink_to(dump.path / "sync-2026-01-05")
        (dump.path / "file.txt").write_text("")
        assert list(many()) == ["2026-01-05"]
        assert many.listed.passed_over == ("logs/",)
        assert "passed over, because they are not sync days: logs/" in shell.run("sync", dump.path, "--all").stdout

    def test_days_without_the_prefix(self, many: Many, dump: Dump) -> None:
        for label in ("2026-01-05", "extra"):
            dump.write(label, "agents", [agent(1)])
            (dump.path / f"sync-{label}").rename(dump.path / label)
        many(choice=Choice(start=date(2026, 1, 6)))
        assert list(many.results) == ["2026-01-05", "extra"]


class TestFileOfDates:
    @pytest.mark.parametrize(
        "text",
        [
            "day1 2026-01-06\nday2 2026-01-05\nmy day 2026-01-04\n",
            "day1,2026-01-06\r\nday2, 2026-01-05\r\nmy day,2026-01-04\r\n",
            '\ufefflabel,date\n"day1","2026-01-06"\n"day2","2026-01-05"\n\n# done\n"my day","2026-01-04"',
            "  day1\t2026-01-06\n\t# a remark\nday2\t\t2026-01-05\nmy day  2026-01-04",
        ],
        ids=["spaces", "commas", "quotes", "tabs"],
    )
    def test_forms_of_it(self, text: str, many: Many, dump: Dump, tmp_path: Path) -> None:
        write_days(dump, "day1", "day2", "my day")
        file = tmp_path / "dates.csv"
        file.write_bytes(text.encode())
        assert list(many(choice=Choice(dates=file), plan=True)) == ["my day", "day2", "day1"]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("day1 2026-01-05\nday1 2026-01-06", "line 2: the day 'day1' stands there twice."),
            ("# dates\ndya1,2026-01-05", "line 2: the dump has no day 'dya1'. Did you mean day1?"),
            ("sync-day1 2026-01-05", "line 1: the dump has no day 'sync-day1'. Did you mean day1?"),
            ("tran 2026-01-05", "line 1: the dump has no day 'tran'. Days found: day1, day2."),
            ("day1", "line 1: 'day1' is not a label and a date YYYY-MM-DD."),
            ("2026-01-05", "line 1: '2026-01-05' is not a label and a date YYYY-MM-DD."),
            ("day1 5.1.2026", "line 1: 'day1 5.1.2026' is not a label and a date YYYY-MM-DD."),
            ("day1 2026-02-30", "is not a label and a date"),
            ("day1 2026-01-05 # late", "line 1: 'day1 2026-01-05 # late' is not a label and a date"),
            ("day1 2026-01-05", "The dates of 1 day are not known: day2."),
        ],
    )
    def test_what_is_wrong_with_it_is_said_with_the_line(
        self, text: str, said: str, many: Many, db: Database, dump: Dump, tmp_path: Path
    ) -> None:
        write_days(dump, "day1", "day2")
        file = tmp_path / "dates"
        file.write_text(text)
        assert said in many.error(choice=Choice(dates=file))
        assert dates(db) == []

    def test_a_file_that_cannot_be_read(self, many: Many, dump: Dump, tmp_path: Path) -> None:
        write_days(dump, "day1")
        assert "cannot be read: No such file" in many.error(choice=Choice(dates=tmp_path / "none"))
        (tmp_path / "bad").write_bytes(b"\xff")
        assert "cannot be read: it is not UTF-8" in many.error(choice=Choice(dates=tmp_path / "bad"))

    def test_a_date_that_is_typed_comes_before_what_was_published(
        self, many: Many, sync: Sync, dump: Dump, tmp_path: Path
    ) -> None:
        write_days(dump, "day1")
        sync("day1", "2026-01-05")
        file = tmp_path / "dates"
        file.write_text("day1 2026-01-06")
        assert many(choice=Choice(dates=file)) == {"day1": "published"}
        assert many() == {"day1": "unchanged"}
        assert many.listed.days[0].date == date(2026, 1, 6)

    def test_an_archive_takes_part_only_if_it_is_named(
        self, many: Many, db: Database, dump: Dump, tmp_path: Path, shell: Shell
    ) -> None:
        dump.write("2026-01-05", "budgets", [budget("b1", name="day")])
        dump.write("tran", "budgets", [budget("b1", name="archive"), budget("b2")])
        assert list(many()) == ["2026-01-05"]
        assert many.listed.has_archive
        assert "note: tran/ is not among the days" in shell.run("sync", dump.path, "--all").stdout
        file = tmp_path / "dates"
        file.write_text("tran 2026-01-05")
        assert list(many(choice=Choice(dates=file))) == ["2026-01-05", "tran"]
        assert not many.listed.has_archive
        rows = db.rows("SELECT name, source FROM budgets ORDER BY 1")
        assert [tuple(row.values()) for row in rows] == [("Budget b2", "tran"), ("day", "api")]


class TestOutput:
    def test_a_line_a_day(self, shell: Shell, dump: Dump) -> None:
        write_days(dump, "day1", "day2")
        dump.write("day2", "agents", [{"id": "bad"}])
        past = time.time() - 3600
        for file in dump.path.rglob("*.json"):
            os.utime(file, (past, past))
        time.sleep(2.1)  # the times of change cannot be set
        first, again = (shell.run("sync", dump.path, "--all", *more) for more in (["--start", "2026-01-05"], []))
        assert (first.returncode, again.returncode, first.stderr, again.stderr) == (0, 0, "", "")
        head, *lines = first.stdout.splitlines()
        assert head.startswith("database ")
        assert lines[0].split() == [
            "date", "day", "inserted", "updated", "removed", "deactivated", "quarantine", "seconds",
        ]  # fmt: skip
        days = [line.split()[:7] for line in lines if line.startswith("2026")]
        assert days == [
            ["2026-01-05", "day1", "3", "0", "0", "0", "0"],
            ["2026-01-06", "day2", "1", "2", "0", "0", "1"],
        ]
        assert lines[-1].startswith("2 days synced, 0 days unchanged and skipped, in ")
        assert lines[-1].endswith("inserted 4, updated 2, removed 0, deactivated 0, quarantine 1")
        assert again.stdout.splitlines()[2:4] == [
            "2026-01-05  day1  unchanged, skipped",
            "2026-01-06  day2  unchanged, skipped",
        ]

    def test_a_note_that_days_share_is_printed_once(self, shell: Shell, dump: Dump) -> None:
        write_days(dump, "2026-01-05", "2026-01-06", "2026-01-07")
        dump.write("2026-01-06", "pictures", None)
        lines = shell.run("sync", dump.path, "--all").stdout.splitlines()
        notes = [line for line in lines if line.startswith("  note: ")]
        assert len([note for note in notes if "skipped because the day has none of their folders" in note]) == 1
        at = lines.index("  note: not read: pictures/")
        assert lines[at - 1].startswith("2026-01-06")

    def test_a_plan_names_the_days_and_changes_nothing(
        self, many: Many, db: Database, dump: Dump, shell: Shell
    ) -> None:
        write_days(dump, "2026-01-05", "2026-01-06")
        many(choice=Choice(until=date(2026, 1, 5)))
        before = db.everything(BEGAN)
        assert many(plan=True) == {"2026-01-05": "unchanged", "2026-01-06": "planned"}
        done = shell.run("sync", dump.path, "--all", "--plan")
        assert done.returncode == 0
        assert "2026-01-06  2026-01-06  would be synced\n" in done.stdout
        assert "nothing was published" in done.stdout
        assert db.everything(BEGAN) == before

    def test_json_is_a_document_a_line(self, shell: Shell, dump: Dump) -> None:
        TestStop().write_mass_change(dump)
        done = shell.run("sync", dump.path, "--all", "--json")
        assert done.returncode == 3
        listed, first, _, refused, ended = map(json.loads, done.stdout.splitlines())
        assert listed["event"] == "listed"
        assert listed["days"][0] == {"sync_day": "2026-01-05", "sync_date": "2026-01-05"}
        assert (first["event"], first["result"], first["sync_date"]) == ("day", "published", "2026-01-05")
        assert first["outcome"]["published"]["tables"][0]["inserted"] == 20
        assert (refused["result"], refused["outcome"]["published"]["refusals"][0]["kind"]) == ("refused", "mass change")
        assert ended["results"] == {"published": 2}
        assert [day["sync_day"] for day in ended["left"]] == ["2026-01-07", "2026-01-08"]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ([], "Give one of --day DAY, --all, or --from and --to."),
            (["--all", "--day", "day1"], "Give one of"),
            (["--day", "day1", "--from", "2026-01-05"], "Give one of"),
            (["--all", "--to", "2026-01-05"], "Give one of"),
            (["--from", "2026-01-06", "--to", "2026-01-05"], "--from 2026-01-06 is later than --to 2026-01-05."),
            (["--all", "--sync-date", "2026-01-05"], "--sync-date is the date of one day."),
            (["--day", "day1", "--start", "2026-01-05"], "--dates and --start are about many days."),
            (["--day", "day1", "--dates", "file"], "--dates and --start are about many days."),
            (["--all", "--dates", "file", "--start", "2026-01-05"], "--dates and --start exclude each other."),
            (["--all"], "The dates of 1 day are not known: day1."),
            (["--all", "--only", "agnets"], "agnets"),
        ],
        ids=lambda given: " ".join(given) if isinstance(given, list) else "",
    )
    def test_options_that_do_not_go_together(
        self, options: list[str], said: str, shell: Shell, dump: Dump, db: Database
    ) -> None:
        write_days(dump, "day1")
        done = shell.run("sync", dump.path, *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert dates(db) == []
