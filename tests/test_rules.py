"""The rules of state (docs/rules.md), each with tests named after it."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from rollcall.errors import BusyError, RollcallError, UsageError
from rollcall.postgres import database
from rollcall.postgres.guard import Limits
from rollcall.settings import Settings
from rollcall.sync import Outcome, Refused, Request
from rollcall.sync import sync as run
from tests.conftest import Database, Dump, Sync, agent

ONE_ELEMENT_BAD = [
    {"channel": "chat", "available": True},
    {"channel": None},
    {"channel": "ticket", "available": "maybe"},
]


def changes(outcome: Outcome, pipeline: str = "agents") -> dict[str, int]:
    return {change.change: change.count for change in outcome.published.changes if change.pipeline == pipeline}


def roles(db: Database) -> dict[tuple[int, int], str]:
    rows = db.rows("SELECT agent_id, role_id, status FROM agent_role_mapping")
    return {(row["agent_id"], row["role_id"]): row["status"] for row in rows}


def role_history(db: Database) -> list[tuple[Any, ...]]:
    rows = db.rows("SELECT agent_id, role_id, action, extract(day FROM sync_date)::INT AS day FROM agent_role_history")
    return [tuple(row.values()) for row in rows]


def inactive(db: Database) -> set[int]:
    return {row["group_id"] for row in db.rows("SELECT group_id FROM groups WHERE inactive")}


def role(role_id: int, **more: Any) -> dict[str, Any]:
    return {"id": role_id, "name": f"Role {role_id}", **more}


def group(group_id: Any, *agent_ids: Any, parent: Any = None) -> dict[str, Any]:
    return {"id": group_id, "name": f"Group {group_id}", "agent_ids": list(agent_ids), "parent_group_id": parent}


def history(db: Database) -> dict[tuple[int, int], bool]:
    rows = db.rows("SELECT agent_id, sync_date, is_active FROM agent_status_history")
    return {(row["agent_id"], row["sync_date"].day): row["is_active"] for row in rows}


class TestActive:
    """Active."""

    def test_active_is_on_the_roster_and_not_deactivated(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2, deactivated=True), agent(3)])
        dump.write("day1", "agents", [agent(1), agent(2)])
        sync("day1", "2026-01-05")
        assert db.status() == {1: "active", 2: "inactive", 3: "inactive"}
        assert [r["deactivated"] for r in db.rows("SELECT deactivated FROM agents ORDER BY 1")] == [False, True, True]

    def test_active_without_a_roster_folder_is_who_is_on_the_master_list(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2, deactivated=True)])
        outcome = sync("day1", "2026-01-05")
        assert db.status() == {1: "active", 2: "inactive"}
        assert "the day has no agents/: the master list is taken for the roster" in outcome.notes

    def test_active_on_the_roster_only_keeps_what_the_roster_does_not_say(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        full = agent(1, signature="s", group_ids=[7], availability=[{"channel": "chat"}])
        dump.write("day1", "agent_details", [full])
        sync("day1", "2026-01-05")
        dump.write("day2", "agents", [agent(1, contact={"name": "New"}), agent(2)])
        sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active"}
        assert db.one("SELECT name FROM agents WHERE agent_id = 1") == "New"
        assert db.one("SELECT signature FROM agent_details") == "s"
        assert db.one("SELECT group_id FROM agent_group_membership") == 7
        assert db.one("SELECT channel FROM agent_availability") == "chat"


class TestMissing:
    """Missing."""

    def test_missing_is_deactivated_and_stamped_once_and_keeps_what_hangs_on_it(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2, group_ids=[7], availability=[{"channel": "chat"}])])
        sync("day1", "2026-01-05")
        dump.write("day2", "agent_details", [agent(1)])
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome) == {"missing": 1}
        assert db.status() == {1: "active", 2: "inactive"}
        stamped = db.one("SELECT updated_at FROM agents WHERE agent_id = 2")
        assert stamped > db.one("SELECT updated_at FROM agents WHERE agent_id = 1")
        assert db.one("SELECT count(*) FROM agent_details") == 2
        assert db.one("SELECT count(*) FROM agent_group_membership") == 1
        assert db.one("SELECT count(*) FROM agent_availability") == 1
        sync("day2", "2026-01-07")
        assert db.one("SELECT updated_at FROM agents WHERE agent_id = 2") == stamped

    def test_missing_that_comes_back_is_active_with_its_new_values(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1)])
        dump.write("day3", "agent_details", [agent(1), agent(2, contact={"name": "Back"})])
        for number in (1, 2):
            sync(f"day{number}", f"2026-01-0{number}")
        assert changes(sync("day3", "2026-01-03")) == {"reactivated": 1}
        assert db.rows("SELECT name, status FROM agents WHERE agent_id = 2") == [{"name": "Back", "status": "active"}]


class TestBadRecord:
    """Bad records."""

    def test_bad_record_changes_nothing_and_deactivates_nobody(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, group_ids=[7], availability=[{"channel": "chat"}])])
        sync("day1", "2026-01-05")
        before = db.versions()
        dump.write("day2", "agent_details", [agent(1, created_at="not-a-timestamp", group_ids=[8])])
        sync("day2", "2026-01-05")
        after = db.versions()
        assert after == before
        assert db.one("SELECT agent_id FROM agent_pipeline_errors") == 1

    def test_bad_record_of_the_roster_still_lists_the_agent(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day1", "agents", [agent(1, available="perhaps")])
        sync("day1", "2026-01-05")
        assert db.status() == {1: "active", 2: "inactive"}

    def test_bad_record_of_an_unknown_agent_on_the_roster_is_loaded_from_there(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1, last_active_at="?")])
        dump.write("day1", "agents", [agent(1, contact={"name": "As the roster says"})])
        sync("day1", "2026-01-05")
        dump.write("day1", "agents", [agent(1, contact={"name": "Changed"}, updated_at="2027-01-01T00:00:00Z")])
        sync("day1", "2026-01-06")
        assert db.rows("SELECT name, status FROM agents") == [{"name": "As the roster says", "status": "active"}]
        assert db.one("SELECT count(*) FROM agent_details") == 0

    @pytest.mark.parametrize("value", ["12", 12])
    def test_bad_record_is_none_where_a_number_or_a_boolean_is_text(
        self, value: Any, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(value, available="true", focus_mode="False", ticket_scope="3")])
        sync("day1", "2026-01-05")
        assert db.rows("SELECT agent_id, available, focus_mode FROM agents") == [
            {"agent_id": 12, "available": True, "focus_mode": False}
        ]
        assert db.one("SELECT ticket_scope FROM agent_details") == 3

    def test_bad_element_costs_that_element_only(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, availability=[{"channel": "ticket", "available": False}])])
        sync("day1", "2026-01-05")
        dump.write("day2", "agent_details", [agent(1, group_ids=[7, "x", None, "8"], availability=ONE_ELEMENT_BAD)])
        sync("day2", "2026-01-06")
        assert [r["group_id"] for r in db.rows("SELECT group_id FROM agent_group_membership ORDER BY 1")] == [7, 8]
        # The channel of the bad element was readable: what is known of it stays.
        assert db.rows("SELECT channel, is_available FROM agent_availability ORDER BY 1") == [
            {"channel": "chat", "is_available": True},
            {"channel": "ticket", "is_available": False},
        ]
        assert [r["error_message"] for r in db.rows("SELECT error_message FROM agent_pipeline_errors ORDER BY 1")] == [
            "availability[1].channel: missing, expected text",
            'availability[2].available: found "maybe", expected true or false',
            'group_ids[1]: found "x", expected an integer of at most 64 bits',
            "group_ids[2]: missing, expected an integer of at most 64 bits",
        ]


class TestIncompleteInput:
    """Incomplete input."""

    @pytest.mark.parametrize("broken", [b"[", b'[{"id": 1', b'["\xff"]', b'"text"', b"12"])
    @pytest.mark.parametrize("folder", ["agent_details", "agents"])
    def test_absence_does_not_count_where_a_file_cannot_be_read(
        self, folder: str, broken: bytes, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for name in ("agent_details", "agents"):
            dump.write("day1", name, [agent(1), agent(2)])
            dump.write("day2", name, [agent(1)])
        sync("day1", "2026-01-05")
        dump.write("day2", folder, broken)
        outcome = sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active"}
        assert changes(outcome) == {"held back": 1}
        assert any(f"{folder}/ has a file that could not be read" in note for note in outcome.notes)
        assert "not deactivated" in db.one("SELECT message FROM sync_runs ORDER BY run_id DESC LIMIT 1")

    def test_absence_from_a_complete_roster_counts_though_the_master_list_is_incomplete(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day in ("day1", "day2"):
            dump.write(day, "agent_details", [agent(1), agent(2)])
        dump.write("day1", "agents", [agent(1), agent(2)])
        dump.write("day2", "agents", [agent(1)])
        dump.write("day2", "agent_details", b"[")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "inactive"}

    def test_absence_from_an_incomplete_roster_leaves_whom_the_master_list_has_as_they_were(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2), agent(3)])
        dump.write("day1", "agents", [agent(1), agent(2)])
        sync("day1", "2026-01-05")
        dump.write("day2", "agent_details", [agent(1), agent(2, contact={"name": "New"}), agent(3)])
        dump.write("day2", "agents", [agent(1)])
        dump.write("day2", "agents", b"[")
        outcome = sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active", 3: "inactive"}
        assert changes(outcome) == {"changed": 1, "held back": 1}
        assert db.one("SELECT name FROM agents WHERE agent_id = 2") == "New"

    def test_absence_from_an_incomplete_roster_makes_nobody_active(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "agents", b"[")
        sync("day1", "2026-01-05")
        assert db.status() == {1: "inactive"}

    def test_a_bad_line_is_an_incomplete_file_whose_other_lines_count(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2), agent(3)])
        sync("day1", "2026-01-05")
        dump.write(
            "day2",
            "agent_details",
            b'{"id":1,"email":"e","name":"n"}\n{bad\n\n{"id":2,"email":"e","name":"n"}',
            "a.jsonl",
        )
        sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active", 3: "active"}
        assert db.rows("SELECT record_index, error_type FROM agent_pipeline_errors") == [
            {"record_index": 1, "error_type": "PARSE_ERROR"}
        ]

    @pytest.mark.parametrize(
        "page",
        [
            {"code": "invalid_credentials", "message": "You have to be logged in to perform this action."},
            {"agents": None, "error": "rate limited"},
            [{"id": "29 "}, {"id": 1.5}],
        ],
    )
    @pytest.mark.parametrize("folder", ["agent_details", "agents"])
    def test_incomplete_input_is_a_page_of_nobody(
        self, page: Any, folder: str, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for name in ("agent_details", "agents"):
            dump.write("day1", name, [agent(1), agent(2)])
            dump.write("day2", name, [agent(1)])
        dump.write("day2", folder, page)
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active"}
        assert changes(outcome)["held back"] == 1
        assert any(f"{folder}/ has a file" in note for note in outcome.notes)

    def test_incomplete_input_is_not_a_bad_record_among_good_ones(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1), {"name": "nobody"}])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "inactive"}


class TestDuplicates:
    """Duplicates."""

    def name_after(self, db: Database, sync: Sync) -> tuple[str, Outcome]:
        outcome = sync("day1", "2026-01-05")
        return db.one("SELECT name FROM agents"), outcome

    def test_duplicates_the_newest_wins(self, db: Database, dump: Dump, sync: Sync) -> None:
        newest = agent(1, contact={"name": "newest"}, updated_at="2026-01-03T01:00:00+05:30")
        older = agent(1, contact={"name": "older"}, updated_at="2026-01-02T19:29:59Z")
        undated = agent(1, contact={"name": "undated"}, updated_at=None)
        dump.write("day1", "agent_details", [newest, older, undated])
        name, outcome = self.name_after(db, sync)
        assert name == "newest"
        (source,) = [s for s in outcome.sources if s.source == "agent_details"]
        assert (source.records_read, source.duplicates, source.rejected) == (3, 2, 0)

    def test_duplicates_of_one_age_the_last_file_and_position_win(self, db: Database, dump: Dump, sync: Sync) -> None:
        for name in ("10.json", "2.json", "9.json"):
            dump.write("day1", "agent_details", [agent(1, contact={"name": f"{name} {n}"}) for n in range(2)], name)
        assert self.name_after(db, sync)[0] == "9.json 1"

    def test_duplicates_a_bad_record_never_wins(self, db: Database, dump: Dump, sync: Sync) -> None:
        bad = agent(1, contact={"name": "bad"}, updated_at="2027-01-01T00:00:00Z", available="?")
        dump.write("day1", "agent_details", [agent(1, contact={"name": "good"}), bad])
        assert self.name_after(db, sync)[0] == "good"


class TestRoles:
    """Roles."""

    def day(self, dump: Dump, name: str, agents: list[Any], admin: Any = None, roster: Any = None) -> None:
        dump.write(name, "agent_details", agents)
        dump.write(name, "roles", [role(n) for n in (10, 11, 12)])
        if admin is not None:
            dump.write(name, "admin_roles", admin)
        if roster is not None:
            dump.write(name, "agents", roster)

    def test_roles_given_taken_and_given_again_are_three_rows_of_history(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for number, held in enumerate(([10, 11], [11], [11, 10]), start=1):
            self.day(dump, f"day{number}", [agent(1, role_ids=held)])
        sync("day1", "2026-01-05")
        assert roles(db) == {(1, 10): "assigned", (1, 11): "assigned"}
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome, "agent_roles") == {"removed": 1}
        assert roles(db) == {(1, 10): "removed", (1, 11): "assigned"}
        sync("day3", "2026-01-07")
        rows = db.rows("SELECT * FROM agent_role_mapping WHERE role_id = 10")
        assert [(r["status"], r["removed_at"], r["assigned_at"] is None) for r in rows] == [("assigned", None, False)]
        wanted = [(1, 10, "assigned", 5), (1, 11, "assigned", 5), (1, 10, "removed", 6), (1, 10, "assigned", 7)]
        assert role_history(db) == wanted
        sync("day3", "2026-01-07")
        assert role_history(db) == wanted

    def test_roles_come_one_by_one(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number, held in enumerate(([10], [10, 11], [10, 11, 12]), start=1):
            self.day(dump, f"day{number}", [agent(1, role_ids=held), agent(2, role_ids=held[-1:])])
            sync(f"day{number}", f"2026-01-0{number}")
            assert {pair for pair, status in roles(db).items() if status == "assigned"} == {
                *((1, role_id) for role_id in held),
                (2, held[-1]),
            }

    def test_roles_that_nobody_holds_any_more(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number, held in enumerate(([10], [], [], [11]), start=1):
            self.day(dump, f"day{number}", [agent(1, role_ids=held)])
            sync(f"day{number}", f"2026-01-0{number}")
            assert [pair[1] for pair, status in roles(db).items() if status == "assigned"] == held

    def test_roles_in_another_order_or_twice_or_as_text_are_no_change(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10, 11, 12])])
        self.day(dump, "day2", [agent(1, role_ids=["12", 10, 10, 11])])
        sync("day1", "2026-01-05")
        before = db.versions()
        sync("day2", "2026-01-06")
        after = db.versions()
        assert {t for t in before if "role" in t and before[t] != after[t]} == set()

    def test_roles_are_said_by_either_side(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10]), agent(2)], [role(11, agent_ids=[1, 2]), role(13)])
        sync("day1", "2026-01-05")
        assert roles(db) == {(1, 10): "assigned", (1, 11): "assigned", (2, 11): "assigned"}
        assert db.one("SELECT count(*) FROM roles") == 4

    @pytest.mark.parametrize("admin", [None, []])
    def test_roles_of_a_folder_that_is_missing_or_empty_stay(
        self, admin: Any, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[]), agent(2)], [role(11, agent_ids=[1, 2])])
        dump.write("day2", "agent_details", [agent(1, role_ids=[]), agent(2)])
        if admin is not None:
            dump.write("day2", "admin_roles", admin)
            dump.write("day2", "roles", admin)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 11): "assigned", (2, 11): "assigned"}

    def test_roles_of_an_agent_whose_details_are_missing_but_that_is_on_the_roster_stay(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        both = [agent(1, role_ids=[10]), agent(2, role_ids=[11])]
        self.day(dump, "day1", both, roster=both)
        self.day(dump, "day2", both[:1], [role(11, agent_ids=[])], roster=both)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 10): "assigned", (2, 11): "assigned"}

    def test_roles_of_a_missing_agent_are_removed_but_not_where_absence_does_not_count(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        both = [agent(1, role_ids=[10]), agent(2, role_ids=[11])]
        self.day(dump, "day1", both)
        self.day(dump, "day2", both[:1])
        dump.write("day2", "agent_details", b"[")
        self.day(dump, "day3", both[:1])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 10): "assigned", (2, 11): "assigned"}
        sync("day3", "2026-01-07")
        assert roles(db) == {(1, 10): "assigned", (2, 11): "removed"}
        assert db.status() == {1: "active", 2: "inactive"}

    def test_roles_of_a_rejected_record_stay_on_either_side(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10]), agent(2)], [role(11, agent_ids=[2]), role(12, agent_ids=[2])])
        self.day(
            dump, "day2", [agent(1, role_ids=[], available="x"), agent(2)],
            [role(11, agent_ids=[], default="x"), role(12, agent_ids=[])],
        )  # fmt: skip
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 10): "assigned", (2, 11): "assigned", (2, 12): "removed"}

    def test_roles_of_an_unreadable_folder_of_roles_stay(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1)], [role(11, agent_ids=[1]), role(12, agent_ids=[1])])
        self.day(dump, "day2", [agent(1)], [role(12, agent_ids=[])])
        dump.write("day2", "admin_roles", b"{")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 11): "assigned", (1, 12): "removed"}

    def test_roles_of_an_agent_that_only_an_unreadable_roster_may_list_stay(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10]), agent(2)], roster=[agent(1), agent(2)])
        self.day(dump, "day2", [agent(2)], roster=[agent(2)])
        dump.write("day2", "agents", b"[")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 10): "assigned"}

    def test_roles_that_agents_said_stay_on_a_day_without_the_master_list(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10])], [role(11, agent_ids=[1])])
        dump.write("day2", "agents", [agent(1)])
        dump.write("day2", "admin_roles", [role(10, agent_ids=[]), role(11, agent_ids=[])])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 10): "assigned", (1, 11): "removed"}

    def test_roles_that_both_sides_said_go_when_both_say_no(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10])], [role(10, agent_ids=[1])])
        self.day(dump, "day2", [agent(1, role_ids=[])])
        self.day(dump, "day3", [agent(1, role_ids=[])], [role(10, agent_ids=[])])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 10): "assigned"}
        sync("day3", "2026-01-07")
        assert roles(db) == {(1, 10): "removed"}

    def test_roles_whose_own_record_is_gone_from_a_folder_that_has_others_go(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1)], [role(11, agent_ids=[1]), role(12, agent_ids=[1])])
        self.day(dump, "day2", [agent(1)], [role(12, agent_ids=[1])])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 11): "removed", (1, 12): "assigned"}

    def test_roles_that_the_agent_denies_stay_while_a_rejected_role_may_say_them(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[11, 12])])
        self.day(dump, "day2", [agent(1, role_ids=[])], [role(11, agent_ids=[1], default="x"), role(12)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 11): "assigned", (1, 12): "removed"}

    def test_roles_only_from_the_side_of_the_roles(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, members in (("day1", [1, 2]), ("day2", [2])):
            dump.write(day, "agents", [agent(1), agent(2)])
            dump.write(day, "admin_roles", [role(11, agent_ids=members)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 11): "removed", (2, 11): "assigned"}

    def test_roles_in_a_backfill_stay(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10])])
        self.day(dump, "day2", [agent(1, role_ids=[11])])
        sync("day2", "2026-01-06")
        before = role_history(db)
        sync("day1", "2026-01-05")
        assert roles(db) == {(1, 11): "assigned"}
        assert role_history(db) == before

    def test_roles_of_both_folders_the_newest_wins(self, db: Database, dump: Dump, sync: Sync) -> None:
        old, new = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
        dump.write("day1", "roles", [role(1, updated_at=old), role(2, updated_at=new), role(3) | {"name": "own"}])
        dump.write("day1", "admin_roles", [
            role(1, updated_at=new) | {"name": "newer"}, role(2, updated_at=old) | {"name": "older"}, role(3),
        ])  # fmt: skip
        sync("day1", "2026-01-05")
        names = [row["name"] for row in db.rows("SELECT name FROM roles ORDER BY role_id")]
        assert names == ["newer", "Role 2", "own"]


class TestGroups:
    """Groups."""

    def test_groups_are_active_through_a_member_at_any_depth(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2, deactivated=True)])
        dump.write("day1", "admin_groups", [
            group(1), group(2, parent=1), group(3, 1, parent=2), group(4, 2, parent=1), group(5),
        ])  # fmt: skip
        sync("day1", "2026-01-05")
        assert inactive(db) == {4, 5}

    def test_groups_that_lose_their_last_active_agent_are_inactive_on_that_sync(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, members in (("day1", [1]), ("day2", []), ("day3", [1])):
            dump.write(day, "agent_details", [agent(1)])
            dump.write(day, "admin_groups", [group(1), group(2, *members, parent=1)])
        sync("day1", "2026-01-05")
        assert inactive(db) == set()
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome, "groups") == {"inactivated": 2}
        assert inactive(db) == {1, 2}
        assert db.one("SELECT count(*) FROM group_membership") == 0
        sync("day3", "2026-01-07")
        assert inactive(db) == set()

    @pytest.mark.parametrize("length", [1, 2, 3, 7])
    def test_groups_in_a_cycle_share_their_activity(self, length: int, db: Database, dump: Dump, sync: Sync) -> None:
        cycle = [group(n, *([1] if n == 0 else []), parent=(n + 1) % length) for n in range(length)]
        other = [group(10 + n, parent=10 + (n + 1) % length) for n in range(length)]
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "admin_groups", [*cycle, *other, group(20, parent=0), group(21, 1, parent=20)])
        sync("day1", "2026-01-05")
        assert inactive(db) == {10 + n for n in range(length)}

    def test_groups_follow_agents_also_when_only_agents_are_synced(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "admin_groups", [group(1), group(2, 1, parent=1)])
        dump.write("day2", "agent_details", [agent(1, deactivated=True)])
        dump.write("day3", "agent_details", [agent(1)])
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome, "groups") == {"inactivated": 2}
        assert inactive(db) == {1, 2}
        before = db.versions()["groups"]
        sync("day2", "2026-01-06")
        assert db.versions()["groups"] == before
        sync("day3", "2026-01-07")
        assert inactive(db) == set()

    def test_groups_gone_from_the_source_keep_their_row_and_lose_their_members(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, some in (("day1", [group(1), group(2, 1)]), ("day2", [group(1, 1, parent=2)]), ("day3", [])):
            dump.write(day, "agent_details", [agent(1)])
            dump.write(day, "admin_groups", some)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.rows("SELECT * FROM group_membership") == [{"group_id": 1, "agent_id": 1}]
        assert inactive(db) == set()  # 2 has no members any more, but 1 is below it
        sync("day3", "2026-01-07")
        assert inactive(db) == {1, 2}

    def test_groups_that_were_rejected_or_may_stand_in_an_unreadable_file_stay(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "admin_groups", [group(1, 1), group(2, 1), group(3, 1)])
        dump.write("day2", "agent_details", [agent(1)])
        dump.write("day2", "admin_groups", [group(1) | {"name": None}, group(3)])
        dump.write("day2", "admin_groups", b"[")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.rows("SELECT group_id FROM group_membership ORDER BY 1") == [{"group_id": 1}, {"group_id": 2}]
        assert db.one("SELECT name FROM groups WHERE group_id = 1") == "Group 1"

    def test_groups_that_stand_twice_once_valid_and_once_not_follow_the_valid_record(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, members in (("day1", [1, 2]), ("day2", [2])):
            dump.write(day, "agent_details", [agent(1), agent(2)])
            dump.write(day, "admin_groups", [group(1, *members), group(1, 1) | {"name": None}])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.rows("SELECT * FROM group_membership") == [{"group_id": 1, "agent_id": 2}]
        assert db.one("SELECT count(*) FROM stg_groups") == 1

    def test_groups_in_a_chain_a_thousand_deep(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write(
            "day1", "admin_groups", [group(n, *([1] if n == 1000 else []), parent=n - 1) for n in range(1, 1001)]
        )
        sync("day1", "2026-01-05")
        assert inactive(db) == set()

    def test_groups_in_a_backfill_stay(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "admin_groups", [group(1), group(3, 1)])
        dump.write("day2", "agent_details", [agent(1)])
        dump.write("day2", "admin_groups", [group(1, 1), group(2)])
        sync("day2", "2026-01-06")
        before = db.versions()
        sync("day1", "2026-01-05")
        after = db.versions()
        assert [after[t] for t in ("groups", "group_membership")] == [before[t] for t in ("groups", "group_membership")]


class TestLinks:
    """Links."""

    def test_links_to_nobody_are_left_out_and_told_with_their_place(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[10, 99])], "a.json")
        dump.write("day1", "roles", [role(10)])
        dump.write("day1", "admin_roles", [role(11, agent_ids=[1, 98])], "a.json")
        dump.write("day1", "admin_groups", [group(1), group(2, 1, 97, parent=96)], "a.json")
        sync("day1", "2026-01-05")
        assert roles(db) == {(1, 10): "assigned", (1, 11): "assigned"}
        columns = "error_type, error_message, source_file, record_index, raw_record"
        assert [tuple(r.values()) for r in db.rows(f"SELECT {columns} FROM agent_role_pipeline_errors ORDER BY 2")] == [
            ("REFERENCE_ERROR", "agent_ids: found 98, expected a known agent", "admin_roles/a.json", 0, 98),
            ("REFERENCE_ERROR", "role_ids: found 99, expected a known role", "agent_details/a.json", 0, 99),
        ]
        assert [tuple(r.values()) for r in db.rows(f"SELECT {columns} FROM group_pipeline_errors ORDER BY 2")] == [
            ("REFERENCE_ERROR", "agent_ids: found 97, expected a known agent", "admin_groups/a.json", 1, 97),
            ("REFERENCE_ERROR", "parent_group_id: found 96, expected a known group", "admin_groups/a.json", 1, 96),
        ]
        assert db.one("SELECT parent_group_id FROM groups WHERE group_id = 2") is None

    def test_links_to_a_parent_that_was_rejected_and_never_known(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "admin_groups", [group(1, parent=2), group(2) | {"name": None}])
        sync("day1", "2026-01-05")
        assert db.rows("SELECT group_id, parent_group_id FROM groups") == [{"group_id": 1, "parent_group_id": None}]
        found = db.rows("SELECT error_type FROM group_pipeline_errors ORDER BY 1")
        assert [row["error_type"] for row in found] == ["REFERENCE_ERROR", "VALIDATION_ERROR"]

    def test_links_are_made_when_what_they_point_at_arrives(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, late in (("day1", []), ("day2", [96])):
            dump.write(day, "agent_details", [agent(1, role_ids=[99]), *map(agent, late)])
            dump.write(day, "roles", [role(99) for _ in late])
            dump.write(day, "admin_groups", [group(2, 96, parent=96), *map(group, late)])
        sync("day1", "2026-01-05")
        assert (roles(db), db.rows("SELECT * FROM group_membership")) == ({}, [])
        sync("day2", "2026-01-06")
        assert roles(db) == {(1, 99): "assigned"}
        assert db.rows("SELECT * FROM group_membership") == [{"group_id": 2, "agent_id": 96}]
        assert db.one("SELECT parent_group_id FROM groups WHERE group_id = 2") == 96

    def test_links_of_one_agent_are_not_those_of_another(self, db: Database, dump: Dump, sync: Sync) -> None:
        chat, ticket = {"channel": "chat", "available": True}, {"channel": "ticket", "available": True}
        dump.write("day1", "agent_details", [agent(n, availability=[chat, ticket]) for n in (1, 2)])
        changed = agent(1, availability=[chat | {"available": False}])
        dump.write("day2", "agent_details", [changed, agent(2, availability=[chat, ticket])])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        rows = db.rows("SELECT agent_id, channel, is_available FROM agent_availability")
        assert {tuple(row.values()) for row in rows} == {(1, "chat", False), (2, "chat", True), (2, "ticket", True)}

    def test_links_come_and_go_one_by_one(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number, (own, theirs) in enumerate(
            [({1}, {(1, 1)}), ({1, 2}, {(1, 1), (1, 2), (2, 1)}), ({2}, {(1, 2), (2, 1)}), ({2, 3}, {(1, 1)})], start=1
        ):
            dump.write(f"day{number}", "agent_details", [agent(n, group_ids=sorted(own)) for n in (1, 2)])
            groups = [group(n, *(a for g, a in sorted(theirs) if g == n)) for n in (1, 2, 3)]
            dump.write(f"day{number}", "admin_groups", groups)
            sync(f"day{number}", f"2026-01-0{number}")
            found = {tuple(row.values()) for row in db.rows("SELECT agent_id, group_id FROM agent_group_membership")}
            assert found == {(n, group_id) for n in (1, 2) for group_id in own}
            assert {tuple(row.values()) for row in db.rows("SELECT group_id, agent_id FROM group_membership")} == theirs


class TestDrift:
    """Drift."""

    def test_drift_counts_the_memberships_that_one_side_alone_states(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1, group_ids=[1, 2, 3]), agent(2)])
        dump.write("day1", "admin_groups", [group(1, 1, 2), group(2), group(3)])
        outcome = sync("day1", "2026-01-05")
        found = {"memberships that only the agent states": 2, "memberships that only the group states": 1}
        assert {d.drift: d.rows for d in outcome.published.drift} == found
        assert {r["drift"]: r["rows"] for r in db.rows("SELECT drift, rows FROM sync_run_drift")} == found


class TestHistory:
    """History."""

    def test_history_has_a_row_per_agent_and_date_and_a_rerun_rewrites_its_own_date_only(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1)], "a.json")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert history(db) == {(1, 5): True, (2, 5): True, (1, 6): True, (2, 6): False}
        dump.write("day2", "agent_details", [agent(1), agent(2), agent(3)], "a.json")
        sync("day2", "2026-01-06")
        assert history(db) == {(1, 5): True, (2, 5): True, (1, 6): True, (2, 6): True, (3, 6): True}


class TestBackfill:
    """Backfill."""

    def test_backfill_writes_the_history_of_its_date_and_current_state_stays(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day2", "agent_details", [agent(1), agent(2)])
        sync("day2", "2026-01-06")
        before = db.versions()
        dump.write("day1", "agent_details", [agent(1, contact={"name": "Old"}), agent(3, group_ids=[7]), {"id": 4}])
        outcome = sync("day1", "2026-01-05")
        assert changes(outcome) == {"added": 1}
        assert history(db) == {(1, 6): True, (2, 6): True, (1, 5): True, (2, 5): False, (3, 5): True}
        assert db.status() == {1: "active", 2: "active", 3: "inactive"}
        assert db.one("SELECT count(*) FROM agents WHERE name = 'Old'") == 0
        assert db.one("SELECT sync_date FROM sync_watermarks WHERE pipeline = 'agents'") == date(2026, 1, 6)
        assert db.one("SELECT count(*) FROM agent_pipeline_errors WHERE sync_day = 'day1'") == 1
        assert db.versions()["agent_details"] == before["agent_details"]
        assert db.versions()["agents"][:2] == before["agents"]

    def test_backfill_leaves_alone_what_hangs_on_known_agents(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, number in (("day1", 1), ("day2", 2)):
            channels = [{"channel": "chat", "available": number == 1}, {"channel": f"c{number}"}]
            some = agent(1, signature=day, group_ids=[number], role_ids=[number], availability=channels)
            dump.write(day, "agent_details", [some, agent(2)])
            dump.write(day, "roles", [role(n, description=day) for n in (1, 2)])
            dump.write(day, "admin_groups", [group(1, number) | {"name": day}, group(2, parent=number)])
        sync("day2", "2026-01-06")
        before = db.versions()
        sync("day1", "2026-01-05")
        after = db.versions()
        assert {table for table in before if before[table] != after[table]} == {"agent_status_history"}

    def test_backfill_of_a_day_that_does_not_contain_an_agent_says_so_whatever_was_known_before(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, agents in {"day1": [1, 2], "day2": [1], "day3": [1, 2]}.items():
            dump.write(day, "agent_details", [agent(n) for n in agents])
        sync("day1", "2026-01-04")
        sync("day3", "2026-01-06")
        sync("day2", "2026-01-05")
        assert history(db) == {(1, 4): True, (2, 4): True, (1, 6): True, (2, 6): True, (1, 5): True, (2, 5): False}

    def test_backfill_that_cannot_tell_repeats_what_was_known_at_its_date(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day0", "agent_details", [agent(1, deactivated=True), agent(2)])
        dump.write("day1", "agent_details", [agent(1), agent(2, deactivated=True)])
        dump.write("day2", "agent_details", [agent(1, created_at="?"), agent(2, created_at="?")])
        dump.write("day3", "agent_details", [agent(1, deactivated=True), agent(2)])
        sync("day0", "2026-01-03")
        sync("day1", "2026-01-04")
        sync("day3", "2026-01-06")
        for _ in range(2):
            sync("day2", "2026-01-05")
            assert {k: v for k, v in history(db).items() if k[1] == 5} == {(1, 5): True, (2, 5): False}

    def test_backfill_that_cannot_tell_keeps_what_its_own_date_said(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)], "a.json")
        dump.write("day2", "agent_details", [agent(1)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        dump.write("day1", "agent_details", [agent(1, created_at="?")], "a.json")
        sync("day1", "2026-01-05")
        assert history(db) == {(1, 5): True, (1, 6): True}

    def test_backfill_of_a_day_that_is_not_whole_does_not_say_who_was_gone(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day in ("day1", "day3"):
            dump.write(day, "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1)])
        dump.write("day2", "agent_details", b"[")
        for day, on in (("day1", "2026-01-04"), ("day3", "2026-01-06"), ("day2", "2026-01-05")):
            sync(day, on)
        assert set(history(db).values()) == {True}

    def test_backfill_is_said(self, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        assert not any("backfill" in note for note in sync("day1", "2026-01-07").notes)
        (note,) = (note for note in sync("day1", "2026-01-06").notes if "backfill" in note)
        assert "published up to 2026-01-07" in note
        assert note.startswith("a backfill: agent_roles, agents are published")

    def test_backfill_is_what_no_date_to_come_may_make_of_today(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        with pytest.raises(UsageError, match="9999-12-31 is a date to come"):
            sync("day1", "9999-12-31")
        assert db.status() == {}
        tomorrow = datetime.now(UTC).date() + timedelta(days=1)  # it may have begun where the day was fetched
        sync("day1", str(tomorrow))


class TestRerun:
    """Again."""

    def test_rerun_leaves_every_row_version_and_replaces_the_quarantine(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        full = agent(1, group_ids=[8, 7], availability=[{"channel": "chat"}, {"channel": None}])
        dump.write("day1", "agent_details", [full, agent(2), agent("x")], "a.json")
        dump.write("day1", "agents", [agent(1)])
        sync("day1", "2026-01-05")
        before, quarantined = db.versions(), db.one("SELECT count(*) FROM agent_pipeline_errors")
        # The same facts in another order are no change.
        full["group_ids"].reverse()
        full["availability"].reverse()
        dump.write("day1", "agent_details", [agent("x"), agent(2), dict(reversed(full.items()))], "a.json")
        outcome = sync("day1", "2026-01-05")
        assert db.versions() == before
        assert db.one("SELECT count(*) FROM agent_pipeline_errors") == quarantined
        assert db.one("SELECT count(DISTINCT run_id) FROM agent_pipeline_errors") == 1
        assert all(t.inserted == t.updated == t.removed == 0 for t in outcome.published.tables)

    def test_rerun_says_which_sync_last_changed_a_row(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1), agent(2, contact={"name": "Changed"})])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.rows("SELECT agent_id, sync_day, source FROM agents ORDER BY 1") == [
            {"agent_id": 1, "sync_day": "day1", "source": "api"},
            {"agent_id": 2, "sync_day": "day2", "source": "api"},
        ]


class TestConservation:
    """Conservation."""

    def test_conservation_holds_and_is_written_down(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(1), agent(2), {"id": 3}, 5])
        dump.write("day1", "agent_details", b"{")
        outcome = sync("day1", "2026-01-05")
        (source,) = [s for s in outcome.sources if s.source == "agent_details"]
        assert (source.records_read, source.duplicates, source.rejected) == (6, 1, 3)
        counts = db.rows(
            "SELECT records_read, duplicates, rejected, staged FROM sync_run_tables WHERE table_name = 'agent_details'"
        )
        assert counts == [{"records_read": 6, "duplicates": 1, "rejected": 3, "staged": 2}]

    def test_conservation_broken_fails_the_run(
        self, db: Database, dump: Dump, sync: Sync, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        monkeypatch.setattr("rollcall.sync.newest", lambda contract, relation, *_: f"SELECT * FROM {relation} LIMIT 1")
        with pytest.raises(RollcallError, match="2 read is not 1 valid"):
            sync("day1", "2026-01-05")
        assert db.one("SELECT count(*) FROM agents") == 0


class TestAllOrNothing:
    """All or nothing."""

    def test_all_or_nothing_where_publishing_fails_midway(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent("x")])
        db.connection.execute("ALTER TABLE agent_pipeline_errors ADD CHECK (error_message = 'never')")
        with pytest.raises(RollcallError, match="check constraint"):
            sync("day1", "2026-01-05")
        assert db.one("SELECT count(*) FROM agents") == 0
        assert db.one("SELECT count(*) FROM agent_status_history") == 0
        assert db.rows("SELECT status, sync_day FROM sync_runs") == [{"status": "failed", "sync_day": "day1"}]
        assert "check constraint" in db.one("SELECT message FROM sync_runs")
        keys = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'agents'::REGCLASS AND contype = 'p'"
        assert db.one(keys) == 1


class TestOneAtATime:
    """One at a time."""

    def test_one_at_a_time_no_wait_stops_with_a_message(self, db: Database, dump: Dump, url: str) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        settings = Settings(database_url=SecretStr(url))
        with (
            database.connect(url) as other,
            database.locked(other, wait=True, waiting=lambda: None),
            pytest.raises(BusyError, match="Another run"),
        ):
            run(Request(str(dump.path), "day1"), settings, Limits(), lambda step: None, wait=False)
        run(Request(str(dump.path), "day1"), settings, Limits(), lambda step: None, wait=False)
        assert db.status() == {1: "active"}


class TestBoundedDamage:
    """Bounded damage."""

    def days(self, dump: Dump, before: int, after: int) -> None:
        for folder in ("agent_details", "agents"):
            dump.write("day1", folder, [agent(n) for n in range(before)])
            dump.write("day2", folder, [agent(n) for n in range(after)])

    @pytest.mark.parametrize(("before", "after"), [(55, 44), (50, 40), (12, 2)])
    def test_bounded_damage_lets_pass_what_is_within_either_limit(
        self, before: int, after: int, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.days(dump, before, after)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert list(db.status().values()).count("active") == after

    @pytest.mark.parametrize(("before", "after"), [(54, 43), (12, 1), (100, 79)])
    def test_bounded_damage_refuses_what_is_over_both(
        self, before: int, after: int, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.days(dump, before, after)
        sync("day1", "2026-01-05")
        versions = db.versions()
        with pytest.raises(Refused, match=f"{before - after} of {before} active agents would go"):
            sync("day2", "2026-01-06")
        assert db.versions() == versions
        assert db.one("SELECT status FROM sync_runs ORDER BY run_id DESC LIMIT 1") == "refused"
        sync("day2", "2026-01-06", allow_mass_change=True)
        assert list(db.status().values()).count("active") == after

    @pytest.mark.parametrize(("gone", "back", "passes"), [(55, 11, True), (54, 11, False), (12, 10, True)])
    def test_bounded_damage_covers_those_who_come_back(
        self, gone: int, back: int, passes: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(n, deactivated=n < gone) for n in range(60)])
        dump.write("day2", "agent_details", [agent(n, deactivated=back <= n < gone) for n in range(60)])
        sync("day1", "2026-01-05")
        if passes:
            sync("day2", "2026-01-06")
        else:
            with pytest.raises(Refused, match=f"{back} of {gone} inactive agents would come back"):
                sync("day2", "2026-01-06")
        assert list(db.status().values()).count("active") == 60 - gone + (back if passes else 0)

    @pytest.mark.parametrize("empty", ["agent_details", "agents"])
    def test_bounded_damage_refuses_an_empty_list_while_agents_are_active(
        self, empty: str, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.days(dump, 1, 1)
        sync("day1", "2026-01-05")
        dump.write("day3", "agent_details", [] if empty == "agent_details" else [agent(0)])
        dump.write("day3", "agents", [] if empty == "agents" else [agent(0)])
        with pytest.raises(Refused, match=f"{empty}/ is empty, while 1 active agents are known"):
            sync("day3", "2026-01-06")
        assert db.status() == {0: "active"}

    @pytest.mark.parametrize(
        ("known", "kept", "passes"), [(50, 40, True), (50, 39, False), (12, 2, True), (12, 1, False)]
    )
    def test_bounded_damage_covers_memberships(
        self, known: int, kept: int, passes: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1, group_ids=list(range(known)))])
        dump.write("day2", "agent_details", [agent(1, group_ids=list(range(kept)))])
        sync("day1", "2026-01-05")
        if passes:
            sync("day2", "2026-01-06")
        else:
            with pytest.raises(Refused, match=f"{known - kept} of {known} memberships of agents in groups would go"):
                sync("day2", "2026-01-06")
        assert db.one("SELECT count(*) FROM agent_group_membership") == (kept if passes else known)

    def test_bounded_damage_is_none_where_a_list_is_half_readable_or_not_there(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.days(dump, 50, 10)
        for folder in ("agent_details", "agents"):
            dump.write("day2", folder, b'[{"id": 11, "contact"')
        dump.write("day3", "agent_details", [agent(n) for n in range(50)])
        dump.write("day4", "agents", [agent(n) for n in range(50)])
        for number in range(1, 5):
            sync(f"day{number}", f"2026-01-0{number}")
            assert list(db.status().values()).count("active") == 50

    @pytest.mark.parametrize(("kept", "passes"), [(40, True), (39, False)])
    def test_bounded_damage_covers_role_assignments(
        self, kept: int, passes: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=list(range(50)))])
        dump.write("day1", "roles", [role(n) for n in range(50)])
        dump.write("day2", "agent_details", [agent(1, role_ids=list(range(kept)))])
        sync("day1", "2026-01-05")
        if passes:
            sync("day2", "2026-01-06")
        else:
            with pytest.raises(Refused, match="11 of 50 role assignments would go"):
                sync("day2", "2026-01-06")
        assert list(roles(db).values()).count("assigned") == (kept if passes else 50)

    @pytest.mark.parametrize(("kept", "passes"), [(40, True), (39, False)])
    def test_bounded_damage_covers_the_members_of_groups(
        self, kept: int, passes: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, members in (("day1", 50), ("day2", kept)):
            dump.write(day, "agent_details", [agent(n) for n in range(50)])
            dump.write(day, "admin_groups", [group(1, *range(members))])
        sync("day1", "2026-01-05")
        if passes:
            sync("day2", "2026-01-06")
        else:
            with pytest.raises(Refused, match="11 of 50 members of groups would go"):
                sync("day2", "2026-01-06")
        assert db.one("SELECT count(*) FROM group_membership") == (kept if passes else 50)

    @pytest.mark.parametrize(("limit", "passes"), [("1", True), ("0", False), ("50%", True), ("49.9%", False)])
    def test_bounded_damage_max_rejected(self, limit: str, passes: bool, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), {"id": 2}])
        if passes:
            sync("day1", "2026-01-05", max_rejected=limit)
        else:
            with pytest.raises(Refused, match="1 of 2 records were rejected"):
                sync("day1", "2026-01-05", max_rejected=limit)
        assert db.one("SELECT count(*) FROM agents") == int(passes)


def test_plan_says_what_a_sync_would_do_and_changes_nothing(db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("day1", "agent_details", [agent(1), agent(2), agent(3)])
    dump.write("day2", "agent_details", [agent(1, contact={"name": "N"}), agent(2, deactivated=True), agent(4)])
    sync("day1", "2026-01-05")
    before, ledger = db.versions(), db.one("SELECT count(*) FROM sync_runs")
    outcome = sync("day2", "2026-01-06", plan=True)
    assert changes(outcome) == {"added": 1, "changed": 1, "deactivated": 1, "missing": 1}
    assert db.versions() == before
    assert db.one("SELECT count(*) FROM sync_runs") == ledger
