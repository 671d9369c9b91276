"""Periods: what was true on any date, whatever the order in which the days were published."""

import json
import shutil
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from deskroll.postgres.guards import Limits
from deskroll.settings import Settings
from deskroll.sync import Request
from deskroll.sync import sync_day as run_sync
from tests.helpers import model_periods
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, card, role
from tests.helpers.runs import Sync
from tests.rules.test_model import empty, some

Records = list[dict[str, Any]]


def folder(size: int = 3, *, optional: dict[str, st.SearchStrategy[Any]], **fields: Any) -> st.SearchStrategy[Records]:
    """A folder without a fault, of which a record may leave out the optional keys."""
    record = st.fixed_dictionaries(fields, optional=optional)
    return st.lists(record, min_size=1, max_size=size, unique_by=lambda one: one["id"])


people, offices, teams = st.integers(1, 3), st.integers(20, 21), st.integers(10, 12)
either = st.sampled_from(["a", "b"])
lists = {"role_ids": some(20, 21), "group_ids": some(10, 11)}
FOLDERS = {
    "agent_details": folder(
        id=people,
        email=st.just("e"),
        name=either,
        deactivated=st.sampled_from([False, False, True]),
        org_agent_id=either,
        optional=lists,
    ),
    "roles": folder(2, id=offices, name=either, optional={}),
    "admin_roles": folder(2, id=offices, name=either, optional={"agent_ids": some(1, 2, 3)}),
    "budgets": folder(
        id=st.sampled_from(["B1", "B2"]),
        name=either,
        retired=st.booleans(),
        optional={"currentPeriod": st.none() | st.fixed_dictionaries({"limit": st.integers(0, 2)})},
    ),
    "cards": folder(
        id=st.sampled_from(["C1", "C2"]),
        status=st.sampled_from(["ACTIVATED", "FROZEN"]),
        type=st.just("PHYSICAL"),
        createdTime=st.just("2025-01-01T00:00:00Z"),
        optional={
            "updatedTime": st.sampled_from([f"2025-12-0{number}T00:00:00Z" for number in (1, 2, 3)]),
            "userId": either,
            "budgetId": st.sampled_from(["B1", "B2"]),
        },
    ),
    "admin_groups": folder(
        id=teams,
        name=either,
        parent_group_id=st.none() | st.integers(10, 12),
        optional={"agent_ids": some(1, 2, 3)},
    ),
}
ROSTER = folder(id=people, email=st.just("e"), name=either, optional={"role_ids": some(20, 21)})


@st.composite
def dumps(draw: st.DrawFn) -> tuple[list[dict[str, Records | None]], list[int]]:
    """Days, each with the number of its date: a date may be downloaded again, once."""
    has_roster = draw(st.booleans())  # a day without the folder, after one with it, is incomplete
    days = []
    for _ in range(draw(st.integers(2, 4))):
        day: dict[str, Records | None] = {name: draw(st.none() | found | found) for name, found in FOLDERS.items()}
        day["agents"] = draw(ROSTER) if has_roster else None
        days.append(day)
    numbers = st.lists(st.integers(1, 4), min_size=len(days), max_size=len(days))
    return days, draw(numbers.filter(lambda some: max(map(some.count, some)) <= 2))


def published(db: Database, dump: Path, order: list[tuple[str, date]]) -> dict[str, set[tuple[Any, ...]]]:
    """The periods after these days were published in this order."""
    empty(db)
    for day, on in order:
        request = Request(str(dump), day, on)
        run_sync(request, Settings(database_url=SecretStr(db.url), threads=1), Limits(True, "100%"))
        model_periods.check_shape(db)
    return model_periods.stored(db)


class TestPeriods:
    """Periods."""

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(content=dumps(), data=st.data())
    def test_any_order_of_days_gives_the_periods_of_their_dates(
        self, db: Database, content: Any, data: st.DataObject
    ) -> None:
        days, numbers = content
        dump = Path(tempfile.mkdtemp())
        try:
            found = []
            for number, day in enumerate(days):
                if any(records is not None for records in day.values()):
                    found.append((f"day{number}", date(2026, 1, numbers[number])))
                for name, records in day.items():
                    if records is not None:
                        where = dump / f"sync-day{number}" / name
                        where.mkdir(parents=True)
                        (where / "1.json").write_text(json.dumps(records))
            order = data.draw(st.permutations(found))
            # Of one date, the later download stays the later one.
            again = {on: iter([day for day, other in found if other == on]) for _, on in found}
            order = [(next(again[on]), on) for _, on in order]
            rows, right = published(db, dump, order), model_periods.in_order(dump, found)
            for table in right:
                assert sorted(rows[table], key=repr) == sorted(right[table], key=repr), (table, order)
        finally:
            shutil.rmtree(dump)

    def test_a_former_name_and_the_days_of_leaving_and_coming_back(self, db: Database, dump: Dump, sync: Sync) -> None:
        first, second = (agent(1, contact={"name": name}) for name in ("Mara Lind", "Mara Voss"))
        for day, agents in (("day1", [first]), ("day2", [second]), ("day3", []), ("day4", [second])):
            dump.write(day, "agent_details", [*agents, agent(2), agent(3)])
        for number in (4, 1, 3, 2):
            sync(f"day{number}", f"2026-01-0{number}")
        rows = db.rows("SELECT * FROM agent_periods WHERE agent_id = 1 ORDER BY valid_from")
        assert [(row["valid_from"].day, row["valid_to"] and row["valid_to"].day) for row in rows] == [
            (1, 2), (2, 3), (3, 4), (4, None),
        ]  # fmt: skip
        assert [(row["name"], row["is_active"]) for row in rows] == [
            ("Mara Lind", True), ("Mara Voss", True), ("Mara Voss", False), ("Mara Voss", True),
        ]  # fmt: skip

    def test_a_role_of_a_late_day_is_held_until_the_next_date(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, held in (("day1", [10]), ("day2", [10, 11]), ("day3", [10])):
            dump.write(day, "agent_details", [agent(1, role_ids=held)])
            dump.write(day, "roles", [role(10), role(11)])
        for number in (1, 3, 2):
            sync(f"day{number}", f"2026-01-0{number}")
        rows = db.rows("SELECT role_id, valid_from, valid_to FROM agent_role_periods ORDER BY role_id")
        assert [tuple(row.values()) for row in rows] == [
            (10, date(2026, 1, 1), None), (11, date(2026, 1, 2), date(2026, 1, 3)),
        ]  # fmt: skip

    def test_a_download_without_a_list_after_one_without_the_folder_says_nothing_of_it(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "roles", [role(20)])
        dump.write("day3", "agent_details", [agent(1)])
        dump.write("day3again", "admin_roles", [{"id": 20, "name": "Admin"}])
        dump.write("day1again", "admin_roles", [{"id": 20, "name": "Admin", "agent_ids": [1]}])
        for day in ("day1", "day3", "day3again", "day1again"):
            sync(day, f"2026-01-0{day[3]}")
        rows = db.rows("SELECT agent_id, role_id, valid_from, valid_to FROM agent_role_periods")
        assert [tuple(row.values()) for row in rows] == [(1, 20, date(2026, 1, 3), None)]

    def test_a_rejected_record_leaves_the_period_as_it_was(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day2", "agent_details", [agent(1, created_at="?", contact={"name": "New"})])
        for number in (1, 2):
            sync(f"day{number}", f"2026-01-0{number}")
        (row,) = db.rows("SELECT * FROM agent_periods")
        assert (row["name"], row["is_active"], row["valid_to"]) == ("Agent 1", True, None)

    def test_an_older_version_of_a_card_on_a_newer_day_changes_nothing(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, moment, status in (("day1", "02", "FROZEN"), ("day2", "01", "ACTIVATED"), ("day3", "03", "DELETED")):
            dump.write(day, "cards", [card("c", updatedTime=f"2025-12-{moment}T00:00:00Z", status=status)])
        for number in (3, 2, 1):
            sync(f"day{number}", f"2026-01-0{number}")
        rows = db.rows("SELECT status, valid_from FROM card_periods ORDER BY valid_from")
        assert [(row["status"], row["valid_from"].day) for row in rows] == [("FROZEN", 1), ("DELETED", 3)]

    def test_dates_that_were_published_are_noted_with_whether_absence_counted(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day2", "agent_details", b"[")
        sync("day2", "2026-01-02")
        sync("day1", "2026-01-01")
        rows = db.rows(
            """SELECT sync_date, sync_day, source, run_id, is_complete FROM published_dates
            WHERE pipeline = 'agents' ORDER BY sync_date"""
        )
        assert [tuple(row.values()) for row in rows] == [
            (date(2026, 1, 1), "day1", "api", 2, True), (date(2026, 1, 2), "day2", "api", 1, False),
        ]  # fmt: skip
