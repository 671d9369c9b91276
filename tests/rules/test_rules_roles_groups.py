"""The rules of roles and groups (docs/rules.md), each with tests named after it."""

from typing import Any

import pytest

from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, group, role
from tests.helpers.runs import Sync, changes

OLD, AGED = "2026-01-01T00:00:00Z", {"updated_at": "2026-01-01T00:00:00Z"}


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
        assert db.roles() == {(1, 10): "assigned", (1, 11): "assigned"}
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome, "agent_roles") == {"removed": 1}
        assert db.roles() == {(1, 10): "removed", (1, 11): "assigned"}
        sync("day3", "2026-01-07")
        rows = db.rows("SELECT * FROM agent_role_mapping WHERE role_id = 10")
        assert [(r["status"], r["removed_at"], r["assigned_at"] is None) for r in rows] == [("assigned", None, False)]
        wanted = [(1, 10, "assigned", 5), (1, 11, "assigned", 5), (1, 10, "removed", 6), (1, 10, "assigned", 7)]
        assert db.role_history() == wanted
        sync("day3", "2026-01-07")
        assert db.role_history() == wanted

    def test_roles_come_one_by_one(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number, held in enumerate(([10], [10, 11], [10, 11, 12]), start=1):
            self.day(dump, f"day{number}", [agent(1, role_ids=held), agent(2, role_ids=held[-1:])])
            sync(f"day{number}", f"2026-01-0{number}")
            assert {pair for pair, status in db.roles().items() if status == "assigned"} == {
                *((1, role_id) for role_id in held),
                (2, held[-1]),
            }

    def test_roles_that_nobody_holds_any_more(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number, held in enumerate(([10], [], [], [11]), start=1):
            self.day(dump, f"day{number}", [agent(1, role_ids=held)])
            sync(f"day{number}", f"2026-01-0{number}")
            assert [pair[1] for pair, status in db.roles().items() if status == "assigned"] == held

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
        assert db.roles() == {(1, 10): "assigned", (1, 11): "assigned", (2, 11): "assigned"}
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
        assert db.roles() == {(1, 11): "assigned", (2, 11): "assigned"}

    def test_roles_of_an_agent_whose_details_are_missing_but_that_is_on_the_roster_stay(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        both = [agent(1, role_ids=[10]), agent(2, role_ids=[11])]
        self.day(dump, "day1", both, roster=both)
        self.day(dump, "day2", both[:1], [role(11, agent_ids=[])], roster=both)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 10): "assigned", (2, 11): "assigned"}

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
        assert db.roles() == {(1, 10): "assigned", (2, 11): "assigned"}
        sync("day3", "2026-01-07")
        assert db.roles() == {(1, 10): "assigned", (2, 11): "removed"}
        assert db.status() == {1: "active", 2: "inactive"}

    def test_roles_of_a_rejected_record_stay_on_either_side(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10]), agent(2)], [role(11, agent_ids=[2]), role(12, agent_ids=[2])])
        self.day(
            dump, "day2", [agent(1, role_ids=[], available="x"), agent(2)],
            [role(11, agent_ids=[], default="x"), role(12, agent_ids=[])],
        )  # fmt: skip
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 10): "assigned", (2, 11): "assigned", (2, 12): "removed"}

    def test_roles_of_an_unreadable_folder_of_roles_stay(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1)], [role(11, agent_ids=[1]), role(12, agent_ids=[1])])
        self.day(dump, "day2", [agent(1)], [role(12, agent_ids=[])])
        dump.write("day2", "admin_roles", b"{")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 11): "assigned", (1, 12): "removed"}

    def test_roles_of_an_agent_that_only_an_unreadable_roster_may_list_stay(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10]), agent(2)], roster=[agent(1), agent(2)])
        self.day(dump, "day2", [agent(2)], roster=[agent(2)])
        dump.write("day2", "agents", b"[")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 10): "assigned"}

    def test_roles_that_agents_said_stay_on_a_day_without_the_master_list(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10])], [role(11, agent_ids=[1])])
        dump.write("day2", "agents", [agent(1)])
        dump.write("day2", "admin_roles", [role(10, agent_ids=[]), role(11, agent_ids=[])])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 10): "assigned", (1, 11): "removed"}

    @pytest.mark.parametrize("roles", [[], [role(10, agent_ids=[])]])
    def test_roles_that_agents_said_stay_on_a_day_that_says_nothing_of_agents(
        self, roles: Any, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10])], [role(11, agent_ids=[1])])
        dump.write("day2", "admin_roles", roles)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles()[1, 10] == "assigned"

    def test_roles_that_both_sides_said_go_when_both_say_no(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10])], [role(10, agent_ids=[1])])
        self.day(dump, "day2", [agent(1, role_ids=[])])
        self.day(dump, "day3", [agent(1, role_ids=[])], [role(10, agent_ids=[])])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 10): "assigned"}
        sync("day3", "2026-01-07")
        assert db.roles() == {(1, 10): "removed"}

    def test_roles_whose_own_record_is_gone_from_a_folder_that_has_others_go(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1)], [role(11, agent_ids=[1]), role(12, agent_ids=[1])])
        self.day(dump, "day2", [agent(1)], [role(12, agent_ids=[1])])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 11): "removed", (1, 12): "assigned"}

    def test_roles_that_the_agent_denies_stay_while_a_rejected_role_may_say_them(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[11, 12])])
        self.day(dump, "day2", [agent(1, role_ids=[])], [role(11, agent_ids=[1], default="x"), role(12)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 11): "assigned", (1, 12): "removed"}

    def test_roles_only_from_the_side_of_the_roles(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, members in (("day1", [1, 2]), ("day2", [2])):
            dump.write(day, "agents", [agent(1), agent(2)])
            dump.write(day, "admin_roles", [role(11, agent_ids=members)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 11): "removed", (2, 11): "assigned"}

    def test_roles_in_a_backfill_are_added_as_ended(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.day(dump, "day1", [agent(1, role_ids=[10])])
        self.day(dump, "day2", [agent(1, role_ids=[11])])
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 11): "assigned"}
        sync("day1", "2026-01-05")
        assert db.roles() == {(1, 10): "removed", (1, 11): "assigned"}
        assert db.role_history() == [(1, 10, "assigned", 5), (1, 10, "removed", 6), (1, 11, "assigned", 6)]

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
        assert db.inactive_groups() == {4, 5}

    def test_groups_that_lose_their_last_active_agent_are_inactive_on_that_sync(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, members in (("day1", [1]), ("day2", []), ("day3", [1])):
            dump.write(day, "agent_details", [agent(1)])
            dump.write(day, "admin_groups", [group(1), group(2, *members, parent=1)])
        sync("day1", "2026-01-05")
        assert db.inactive_groups() == set()
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome, "groups") == {"inactivated": 2}
        assert db.inactive_groups() == {1, 2}
        assert db.one("SELECT count(*) FROM group_membership") == 0
        sync("day3", "2026-01-07")
        assert db.inactive_groups() == set()

    @pytest.mark.parametrize("length", [1, 2, 3, 7])
    def test_groups_in_a_cycle_share_their_activity(self, length: int, db: Database, dump: Dump, sync: Sync) -> None:
        cycle = [group(n, *([1] if n == 0 else []), parent=(n + 1) % length) for n in range(length)]
        other = [group(10 + n, parent=10 + (n + 1) % length) for n in range(length)]
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "admin_groups", [*cycle, *other, group(20, parent=0), group(21, 1, parent=20)])
        sync("day1", "2026-01-05")
        assert db.inactive_groups() == {10 + n for n in range(length)}

    def test_groups_follow_agents_also_when_only_agents_are_synced(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "admin_groups", [group(1), group(2, 1, parent=1)])
        dump.write("day2", "agent_details", [agent(1, deactivated=True)])
        dump.write("day3", "agent_details", [agent(1)])
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome, "groups") == {"inactivated": 2}
        assert db.inactive_groups() == {1, 2}
        before = db.versions()["groups"]
        sync("day2", "2026-01-06")
        assert db.versions()["groups"] == before
        sync("day3", "2026-01-07")
        assert db.inactive_groups() == set()

    def test_groups_gone_from_the_source_keep_their_row_and_lose_their_members(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, some in (("day1", [group(1), group(2, 1)]), ("day2", [group(1, 1, parent=2)]), ("day3", [])):
            dump.write(day, "agent_details", [agent(1)])
            dump.write(day, "admin_groups", some)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.rows("SELECT * FROM group_membership") == [{"group_id": 1, "agent_id": 1}]
        assert db.inactive_groups() == set()  # 2 has no members any more, but 1 is below it
        sync("day3", "2026-01-07")
        assert db.inactive_groups() == {1, 2}

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

    def test_groups_that_stand_twice_follow_the_valid_record_if_it_is_the_later_one(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, members in (("day1", [1, 2]), ("day2", [2])):
            dump.write(day, "agent_details", [agent(1), agent(2)])
            dump.write(
                day, "admin_groups", [group(1, 1) | {"name": None, "updated_at": OLD}, group(1, *members) | AGED]
            )
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
        assert db.inactive_groups() == set()

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
        assert db.roles() == {(1, 10): "assigned", (1, 11): "assigned"}
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

    def test_links_that_both_sides_state_are_told_once(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[10])], "b.json")
        dump.write("day1", "admin_roles", [role(10, agent_ids=[1])], "a.json")
        sync("day1", "2026-01-05", only=("agent_roles",))
        assert db.rows("SELECT source_file, raw_record FROM agent_role_pipeline_errors") == [
            {"source_file": "agent_details/b.json", "raw_record": 10}
        ]
        sync("day1", "2026-01-05")
        stated = db.rows("SELECT stated_by_agent, stated_by_role FROM agent_role_mapping")
        assert stated == [{"stated_by_agent": True, "stated_by_role": True}]

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
        assert (db.roles(), db.rows("SELECT * FROM group_membership")) == ({}, [])
        sync("day2", "2026-01-06")
        assert db.roles() == {(1, 99): "assigned"}
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


class TestDiscrepancies:
    """Discrepancies."""

    def test_discrepancies_count_the_memberships_that_one_side_alone_states(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1, group_ids=[1, 2, 3]), agent(2)])
        dump.write("day1", "admin_groups", [group(1, 1, 2), group(2), group(3)])
        outcome = sync("day1", "2026-01-05")
        found = {"memberships that only the agent states": 2, "memberships that only the group states": 1}
        assert {d.discrepancy: d.rows for d in outcome.published.discrepancies} == found
        assert {r["drift"]: r["rows"] for r in db.rows("SELECT drift, rows FROM sync_run_drift")} == found
