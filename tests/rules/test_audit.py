"""What an auditor asks: the functions and views over the periods."""

from datetime import date

import pytest

from tests.helpers.changes import recorded
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, group, role, transaction
from tests.helpers.runs import DAYS, SAMPLE, Shell, Sync, sync_into

ON = ("agents_on", "agent_roles_on", "groups_on", "group_members_on", "cards_on", "budgets_on")


@pytest.fixture
def three_days(dump: Dump, sync: Sync) -> None:
    """Agents 1 and 2 leave on the 6th; 1 keeps a card and a group, 2 is back on the 9th. These days are synced."""
    days = {"day5": [1, 2, 3, 4], "day6": [3, 4], "day9": [2, 3, 4]}
    for day, people in days.items():
        some = [
            agent(n, role_ids=[10], contact={"name": f"Agent {n}{'' if day == 'day5' else ' Ltd'}"}) for n in people
        ]
        dump.write(day, "agent_details", some)
        dump.write(day, "roles", [role(10) | {"name": "Account Administrator"}, role(11)])
        is_first = day == "day5"
        dump.write(day, "admin_groups", [group(7, *([1, 2, 3] if is_first else [1, 3]))])
        dump.write(day, "budgets", [budget("b1", name="First" if is_first else "Second")])
        status = "ACTIVATED" if is_first else "FROZEN"
        dump.write(day, "cards", [card("c1", userId="u1"), card("c2", userId="u2", status=status)])
        spent = [
            transaction("t1", userId="u1", userName="Agent 1"),
            transaction("t2", userId="u2", userName="Agent 2", cardId="c2"),
            transaction("t3", userId="u1", userName="Agent 1", occurredTime="2026-01-08T00:00:00Z"),
        ]
        dump.write(day, "transactions", spent if day == "day9" else spent[:2])
        sync(day, f"2026-01-0{day[3]}", allow_mass_change=True)


@pytest.mark.usefixtures("three_days")
class TestOn:
    """The functions of a date."""

    @pytest.mark.parametrize(
        ("function", "on", "right"),
        [
            ("agents_on", "2026-01-04", []),
            ("agents_on", "2026-01-05", [(1, True), (2, True), (3, True), (4, True)]),
            ("agents_on", "2026-01-08", [(1, False), (2, False), (3, True), (4, True)]),  # between two dates
            ("agents_on", "2026-01-09", [(1, False), (2, True), (3, True), (4, True)]),
            ("agent_roles_on", "2026-01-05", [(1, "Account Administrator"), (2, "Account Administrator")]),
            ("agent_roles_on", "2026-01-06", []),
            ("agent_roles_on", "2026-02-01", [(2, "Account Administrator")]),
            ("group_members_on", "2026-01-05", [(7, 1), (7, 2), (7, 3)]),
            ("group_members_on", "2026-01-07", [(7, 1), (7, 3)]),
            ("groups_on", "2026-01-07", [(7, False)]),
            ("cards_on", "2026-01-05", [("c1", "ACTIVATED", 1), ("c2", "ACTIVATED", 2)]),
            ("cards_on", "2026-01-06", [("c1", "ACTIVATED", 1), ("c2", "FROZEN", 2)]),
            ("budgets_on", "2026-01-05", [("b1", "First")]),
            ("budgets_on", "2026-01-06", [("b1", "Second")]),
        ],
    )
    def test_they_answer_for_any_date(self, function: str, on: str, right: list[object], db: Database) -> None:
        columns = {
            "agents_on": "agent_id, is_active",
            "agent_roles_on": "agent_id, role",
            "group_members_on": "group_id, agent_id",
            "groups_on": "group_id, inactive",
            "cards_on": "card_id, status, agent_id",
            "budgets_on": "budget_id, name",
        }[function]
        where = "WHERE agent_id < 3" if function == "agent_roles_on" else ""
        rows = db.rows(f"SELECT {columns} FROM {function}('{on}') {where} ORDER BY 1, 2")
        assert [tuple(row.values()) for row in rows] == right

    @pytest.mark.parametrize("function", ON)
    def test_postgresql_puts_them_into_the_query(self, function: str, db: Database) -> None:
        plan = "\n".join(row["QUERY PLAN"] for row in db.rows(f"EXPLAIN SELECT * FROM {function}('2026-01-06')"))
        assert "Scan" in plan
        assert "Function Scan" not in plan

    @pytest.mark.parametrize("function", ON)
    def test_they_find_the_tables_whatever_the_search_path(self, function: str, db: Database) -> None:
        rows = db.rows(f"SELECT * FROM {function}('2026-01-06')")
        db.connection.execute("CREATE SCHEMA theirs; SET search_path = theirs")
        db.connection.execute("CREATE TABLE agent_periods (LIKE public.agent_periods)")
        assert db.rows(f"SELECT * FROM public.{function}('2026-01-06')") == rows != []

    def test_the_commands_show_a_date(self, shell: Shell) -> None:
        then = shell.run("status", "--on", "2026-01-07").stdout
        assert "As of 2026-01-07\nactive agents: 2\ninactive agents: 2\n" in then
        assert "agents: as of 2026-01-06 (day6)\n" in then
        assert "Group 7 (7): active, 1 of 2 members active" in shell.run("groups", "--on", "2026-01-07").stdout
        assert "Group 7 (7): active, 3 of 3 members active" in shell.run("groups", "--on", "2026-01-05").stdout
        too_early = shell.run("groups", "--on", "2026-01-04")
        assert too_early.returncode == 2
        assert "Nothing was published up to 2026-01-04.\nThe first date is 2026-01-05." in too_early.stderr

    def test_an_agent_has_a_timeline(self, shell: Shell) -> None:
        _, found, timeline = shell.run("agent", "2").stdout.partition("2026-01-05\n")
        assert found
        assert timeline.splitlines() == [
            "  first known: active",
            "  card c2 first known: ACTIVATED",
            "  group Group 7 (7): joined, by the group's record",
            "  role Account Administrator (10): assigned",
            "2026-01-06",
            "  status: active → inactive",
            "  card c2 status: ACTIVATED → FROZEN",
            "  group Group 7 (7): left, by the group's record",
            "  role Account Administrator (10): removed",
            "2026-01-09",
            "  name: Agent 2 → Agent 2 Ltd",
            "  status: inactive → active",
            "  role Account Administrator (10): assigned",
        ]


@pytest.mark.usefixtures("three_days")
class TestViews:
    """The views leavers and access."""

    def test_a_departure_says_what_was_held_and_what_still_is(self, db: Database) -> None:
        rows = {row.pop("agent_id"): row for row in db.rows("SELECT * FROM leavers")}
        assert rows.keys() == {1, 2}
        assert rows[1] == {
            "name": "Agent 1", "email": "a1@example.com", "job_title": None, "last_active_on": date(2026, 1, 5),
            "left_on": date(2026, 1, 6), "returned_on": None, "roles_then": ["Account Administrator"],
            "roles_now": [], "groups_then": ["Group 7"], "groups_now": ["Group 7"], "cards_then": ["c1"],
            "cards_now": ["c1"], "spent_since_usd": rows[1]["spent_since_usd"],
        }  # fmt: skip
        assert str(rows[1]["spent_since_usd"]) == "12.34"
        assert rows[2] == {
            "name": "Agent 2", "email": "a2@example.com", "job_title": None, "last_active_on": date(2026, 1, 5),
            "left_on": date(2026, 1, 6), "returned_on": date(2026, 1, 9), "roles_then": ["Account Administrator"],
            "roles_now": ["Account Administrator"], "groups_then": ["Group 7"], "groups_now": [],
            "cards_then": ["c2"], "cards_now": [], "spent_since_usd": 0,
        }  # fmt: skip

    def test_access_marks_administrators_and_says_since_when(self, db: Database, dump: Dump, sync: Sync) -> None:
        admin = role(10) | {"name": "Account Administrator"}
        dump.write("day10", "admin_roles", [role(11) | {"agent_ids": [3]}, admin | {"agent_ids": [3]}])
        sync("day10", "2026-01-10", allow_mass_change=True)
        rows = db.rows("SELECT * FROM access WHERE agent_id IN (2, 3) ORDER BY agent_id, role_id")
        assert [
            (row["agent_id"], row["role_id"], row["is_admin"], row["source"], row["since"].day) for row in rows
        ] == [
            (2, 10, True, "agent", 9),
            (3, 10, True, "agent and role", 5),
            (3, 11, False, "role", 10),
        ]


def test_the_quarantine_is_one_view(db: Database) -> None:
    sync_into(db.url, str(SAMPLE), "day1", DAYS["day1"])
    found = {row["pipeline"]: row["count"] for row in db.rows("SELECT pipeline, count(*) FROM quarantine GROUP BY 1")}
    assert set(found) == {"agents", "roles", "agent_roles", "groups", "budgets", "cards", "transactions"}
    for name, count in found.items():
        assert db.one(f"SELECT count(*) FROM {name.removesuffix('s')}_pipeline_errors") == count


def test_a_corrected_day_has_no_transition_that_never_happened(db: Database, dump: Dump, sync: Sync) -> None:
    for day in ("day5", "day6"):
        dump.write(day, "agent_details", [agent(1, role_ids=[10] if day == "day5" else [])], "1.json")
        dump.write(day, "roles", [role(10)])
        sync(day, f"2026-01-0{day[3]}")
    assert db.role_history() == [(1, 10, "assigned", 5), (1, 10, "removed", 6)]
    dump.write("day6", "agent_details", [agent(1, role_ids=[10])], "1.json")
    sync("day6", "2026-01-06")
    assert db.role_history() == [(1, 10, "assigned", 5)]
    changes = {change for run in (2, 3) for name, change, _ in recorded(db, run) if name == "agent_roles"}
    assert changes == {"removed", "assigned"}
    assert db.rows("SELECT assigned_at::TEXT, removed_at FROM agent_role_mapping") == [
        {"assigned_at": "2026-01-05 00:00:00+00", "removed_at": None}
    ]


def test_a_late_day_gets_its_transitions(db: Database, dump: Dump, sync: Sync) -> None:
    for day, held in (("day5", [10]), ("day6", []), ("day7", [10])):
        dump.write(day, "agent_details", [agent(1, role_ids=held)])
        dump.write(day, "roles", [role(10)])
    for number in (5, 7, 6):
        sync(f"day{number}", f"2026-01-0{number}")
    assert db.role_history() == [(1, 10, "assigned", 5), (1, 10, "removed", 6), (1, 10, "assigned", 7)]
    assert db.one("SELECT assigned_at::TEXT FROM agent_role_mapping") == "2026-01-07 00:00:00+00"


def test_a_role_that_only_a_late_day_has_was_held_and_is_removed(db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("day5", "agent_details", [agent(1, role_ids=[10])], "1.json")
    dump.write("day5", "roles", [role(10) | {"name": "Auditor"}])
    dump.write("day6", "agent_details", [agent(1, role_ids=[]), agent(2, role_ids=[11])])
    dump.write("day6", "roles", [role(11)])
    sync("day6", "2026-01-06")
    sync("day5", "2026-01-05")
    assert db.rows("SELECT agent_id, role FROM agent_roles_on('2026-01-05')") == [{"agent_id": 1, "role": "Auditor"}]
    of_it = "SELECT status, assigned_at::TEXT, removed_at::TEXT FROM agent_role_mapping WHERE role_id = 10"
    (row,) = db.rows(of_it)
    assert tuple(row.values()) == ("removed", "2026-01-05 00:00:00+00", "2026-01-06 00:00:00+00")
    assert recorded(db)["agent_roles", "history changed", "1 10"] == (None, {"status": "removed"}, 1)
    dump.write("day5", "agent_details", [agent(1, role_ids=[])], "1.json")
    sync("day5", "2026-01-05")
    assert db.rows(of_it) == []
    assert recorded(db)["agent_roles", "history changed", "1 10"] == ({"status": "removed"}, None, 1)
