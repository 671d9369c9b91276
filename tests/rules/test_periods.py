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
    """Days, each with the number of its date: a date may be downloaded again."""
    has_roster = draw(st.booleans())  # a day without the folder, after one with it, is incomplete
    days = []
    for _ in range(draw(st.integers(2, 4))):
        day: dict[str, Records | None] = {name: draw(st.none() | found | found) for name, found in FOLDERS.items()}
        day["agents"] = draw(ROSTER) if has_roster else None
        days.append(day)
    return days, [draw(st.integers(1, 4)) for _ in days]


def published(db: Database, dump: Path, order: list[tuple[str, date]]) -> dict[str, set[tuple[Any, ...]]]:
    """The periods after these days were published in this order."""
    empty(db)
    for day, on in order:
        request = Request(str(dump), day, on)
        run_sync(request, Settings(database_url=SecretStr(db.url), threads=1), Limits(True, "100%"))
        model_periods.check_shape(db)
    return model_periods.stored(db)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=dumps(), data=st.data())
def test_any_order_of_days_gives_the_periods_of_their_dates(db: Database, content: Any, data: st.DataObject) -> None:
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
