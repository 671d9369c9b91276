"""What real dumps proved about the rules of agents, roles and groups (docs/rules.md)."""

from typing import Any

import pytest

from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, group, role, transaction
from tests.helpers.runs import Sync, changes, messages

BAD = {"created_at": "?"}
FULL: dict[str, Any] = {"role_ids": [10], "group_ids": [7], "availability": [{"channel": "chat"}]}
OLD, NEW = "2025-01-01T00:00:00Z", "2026-01-04T00:00:00Z"


def values(db: Database, agent_id: int) -> tuple[str, str, int]:
    """An agent's name, status, and the day of the record that its values come from."""
    (row,) = db.rows("SELECT name, status, as_of FROM agents WHERE agent_id = %s", agent_id)
    return row["name"], row["status"], row["as_of"].day


def members(db: Database) -> set[tuple[int, int]]:
    return {tuple(row.values()) for row in db.rows("SELECT group_id, agent_id FROM group_membership")}


class TestStatusAndValues:
    """Status comes from the roster, values from the record."""

    @pytest.mark.parametrize("roster", [True, False])
    def test_a_leaver_whose_record_is_bad_leaves(self, roster: bool, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write(
            "day2", "agent_details", [agent(1), agent(2, deactivated=True, contact={"email": None, "name": "x"})]
        )
        if roster:
            dump.write("day1", "agents", [agent(1), agent(2)])
            dump.write("day2", "agents", [agent(1)])
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert values(db, 2) == ("Agent 2", "inactive", 5)
        assert db.history()[2, 6] is False
        assert changes(outcome)["deactivated"] == 1
        assert "1 agent keeps old values because its record is in quarantine" in messages(outcome)

    @pytest.mark.parametrize(
        ("pipeline", "folder", "make"),
        [
            ("roles", "roles", lambda n, name: role(n, name=name)),
            ("roles", "admin_roles", lambda n, name: role(n, name=name, agent_ids=[])),
            ("groups", "admin_groups", lambda n, name: group(n) | {"name": name}),
            ("budgets", "budgets", lambda n, name: budget(str(n), name=name)),
            ("cards", "cards", lambda n, name: card(str(n), status=name)),
            (
                "transactions",
                "transactions",
                lambda n, name: transaction(str(n), occurredTime=NEW if name == "a" else name),
            ),
        ],
    )
    def test_who_else_keeps_old_values_is_told_too(
        self, pipeline: str, folder: str, make: Any, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", folder, [make(1, "a"), make(2, "a"), make(3, None)])
        dump.write("day2", folder, [make(1, None), make(2, "a"), make(3, None), make(3, {"of": "no text"})])
        dump.write(
            "day3", folder, [make(1, None), make(2, None), make(2, [0]), make(3, "a"), make(4, "a"), make(4, None)]
        )
        dump.write("day4", folder, [make(1, "a"), make(2, "a"), make(4, "a")])
        one, three = f"1 {pipeline[:-1]} keeps old values", f"3 {pipeline} keep old values"
        for number, count, note in ((1, 0, []), (2, 1, [one]), (3, 3, [three]), (3, 3, [three]), (4, 0, [])):
            outcome = sync(f"day{number}", f"2026-01-0{4 + number}", allow_mass_change=True)
            assert changes(outcome, pipeline).get("stale", 0) == count
            assert [told.partition(" because")[0] for told in messages(outcome) if "old values" in told] == note

    def test_a_leaver_whose_bad_record_tells_nothing_leaves_by_the_roster(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, listed, fault in (("day1", [1, 2], {}), ("day2", [1], BAD)):
            dump.write(day, "agent_details", [agent(1), agent(2, **fault)])
            dump.write(day, "agents", [agent(n) for n in listed])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "inactive"}

    def test_a_returner_whose_record_is_bad_returns(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2, deactivated=True)])
        dump.write("day2", "agent_details", [agent(1), agent(2, deactivated=False, contact={"name": "New"}, **BAD)])
        sync("day1", "2026-01-05")
        assert changes(sync("day2", "2026-01-06"))["reactivated"] == 1
        assert values(db, 2) == ("Agent 2", "active", 5)

    def test_who_is_off_an_incomplete_roster_keeps_its_status_though_its_record_is_bad(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agents", [agent(1), agent(2)])
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agents", [agent(1)])
        dump.write("day2", "agents", b"[")
        dump.write("day2", "agent_details", [agent(1), agent(2, **BAD)])
        sync("day1", "2026-01-05")
        assert changes(sync("day2", "2026-01-06"))["held back"] == 1
        assert db.status() == {1: "active", 2: "active"}

    def test_a_backfill_tells_the_status_of_a_bad_record_too(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2, deactivated=True, **BAD)])
        dump.write("day2", "agent_details", [agent(1), agent(2)])
        dump.write("day0", "agent_details", [agent(1), agent(2)])
        sync("day0", "2026-01-04")
        sync("day2", "2026-01-06")
        sync("day1", "2026-01-05")
        assert db.history()[2, 5] is False
        assert values(db, 2) == ("Agent 2", "active", 6)

    def test_deactivated_twice_cannot_be_read(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write(
            "day2",
            "agent_details",
            b'[{"id": 1, "email": "a", "name": "b", "deactivated": true,'
            b' "deactivated": true}, {"id": 2, "email": "a", "name": "b", "deactivated": true, "id": 2}]',
        )
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.status()[1] == "active"

    @pytest.mark.parametrize(
        ("master", "listed", "status"),
        [
            ((False, OLD), (True, NEW), "inactive"),
            ((True, OLD), (False, NEW), "active"),
            ((False, NEW), (True, OLD), "active"),
            ((True, NEW), (False, OLD), "inactive"),
            ((False, NEW), (True, NEW), "inactive"),
            ((True, NEW), (False, NEW), "inactive"),
            ((True, None), (False, NEW), "inactive"),
            ((None, NEW), (True, OLD), "inactive"),
        ],
    )
    def test_if_the_folders_disagree_the_newer_record_decides(
        self, master: Any, listed: Any, status: str, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for folder, (deactivated, at) in (("agent_details", master), ("agents", listed)):
            dump.write("day1", folder, [agent(1, deactivated=deactivated, updated_at=at)])
        sync("day1", "2026-01-05")
        assert db.status() == {1: status}


class TestRosterLost:
    """A day without a roster after days with one."""

    def test_nobody_comes_back_and_nobody_goes_by_absence(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2), agent(3), agent(4)])
        dump.write("day1", "agents", [agent(1), agent(2), agent(4)])
        dump.write("day2", "agent_details", [agent(1), agent(3), agent(4, deactivated=True), agent(5)])
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active", 3: "inactive", 4: "inactive", 5: "inactive"}
        assert changes(outcome) == {"added": 1, "deactivated": 1, "held back": 1}
        assert any("although an earlier day had it" in note for note in messages(outcome))

    def test_a_day_before_the_first_roster_has_none_to_lose(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day2", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agents", [agent(2)])
        sync("day2", "2026-01-06")
        sync("day1", "2026-01-05")
        assert db.history()[1, 5] is True


class TestAbsentKeys:
    """An absent key says nothing."""

    def stored(self, db: Database) -> tuple[int, int, int]:
        assigned = sum(status == "assigned" for status in db.roles().values())
        (row,) = db.rows(
            "SELECT (SELECT count(*) FROM agent_group_membership) AS g, (SELECT count(*) FROM agent_availability) AS a"
        )
        return assigned, row["g"], row["a"]

    @pytest.mark.parametrize(
        ("lists", "left"),
        [
            ({}, (1, 1, 1)),
            (dict.fromkeys(FULL), (0, 0, 0)),
            ({name: [] for name in FULL}, (0, 0, 0)),
            ({"role_ids": []}, (0, 1, 1)),
            ({"group_ids": None}, (1, 0, 1)),
            ({"availability": []}, (1, 1, 0)),
            (dict.fromkeys(FULL, "x"), (1, 1, 1)),
            (dict.fromkeys(FULL, 5), (1, 1, 1)),
            ({name: {"a": 1} for name in FULL}, (1, 1, 1)),
        ],
    )
    def test_a_list_that_is_absent_or_is_none_stays(
        self, lists: Any, left: Any, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1, **FULL)])
        dump.write("day1", "roles", [role(10)])
        dump.write("day2", "agent_details", [agent(1, contact={"name": "New"}, **lists)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert self.stored(db) == left
        assert values(db, 1) == ("New", "active", 6)
        at_fault = sum(value is not None and value != [] for value in lists.values())
        found = db.rows("SELECT error_message FROM agent_pipeline_errors") + db.rows(
            "SELECT error_message FROM agent_role_pipeline_errors"
        )
        assert sum(", expected an array" in row["error_message"] for row in found) == at_fault

    @pytest.mark.parametrize(("lists", "stays"), [({}, True), ({"agent_ids": None}, False), ({"agent_ids": []}, False),
                                                  ({"agent_ids": "x"}, True)])  # fmt: skip
    def test_members_and_holders_without_the_key_stay(
        self, lists: Any, stays: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, said in (("day1", {"agent_ids": [1]}), ("day2", lists)):
            dump.write(day, "agents", [agent(1)])
            dump.write(day, "admin_roles", [role(10, **said)])
            dump.write(day, "admin_groups", [{"id": 7, "name": day, **said}])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert (members(db) == {(7, 1)}, db.roles() == {(1, 10): "assigned"}) == (stays, stays)
        assert db.one("SELECT name FROM groups") == "day2"

    def test_a_note_names_the_keys_that_no_record_has(self, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "agents", [agent(1, group_ids=[])])
        dump.write("day1", "admin_groups", [{"id": 1, "name": "n"}])
        notes = messages(sync("day1", "2026-01-05"))
        left = "deskroll keeps what is stored of these"
        assert f"no record in agent_details/ has the key availability or role_ids: {left}" in notes
        assert f"no record in admin_groups/ has the key agent_ids: {left}" in notes

    def test_lists_come_from_the_roster_if_the_master_list_does_not_have_them(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "roles", [role(10), role(11)])
        dump.write("day1", "agent_details", [agent(1), agent(2, role_ids=[10])])
        dump.write("day1", "agents", [agent(1, **FULL), agent(2, role_ids=[11]), agent(3, role_ids=[11])])
        sync("day1", "2026-01-05")
        assert db.roles() == {(1, 10): "assigned", (2, 10): "assigned", (3, 11): "assigned"}
        assert self.stored(db) == (3, 1, 1)


class TestUnreadableId:
    """An id that cannot be read makes absence uncertain."""

    def test_an_agent_is_known_by_its_e_mail(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2, role_ids=[10]), agent(3)])
        dump.write("day1", "roles", [role(10)])
        dump.write("day2", "agent_details", [agent(1), agent("2.x", contact={"email": " A2@Example.com"})])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active", 3: "inactive"}
        assert db.roles() == {(2, 10): "assigned"}
        assert db.rows("SELECT agent_id, raw_record->>'id' AS id FROM agent_pipeline_errors") == [
            {"agent_id": 2, "id": "2.x"}
        ]

    @pytest.mark.parametrize("nobody", [agent("x"), {"name": "n"}, {"email": "a1@example.com"}, 5, None])
    def test_a_record_of_nobody_holds_back_who_is_missing(
        self, nobody: Any, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1), nobody], "a.json")
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert db.status() == {1: "active", 2: "active"}
        assert any("agent_details/a.json[1]" in note for note in messages(outcome))

    def test_two_of_one_e_mail_cannot_be_told_apart(self, db: Database, dump: Dump, sync: Sync) -> None:
        twins = [agent(n, contact={"email": "one@example.com"}) for n in (2, 3)]
        dump.write("day1", "agent_details", [agent(1), *twins])
        dump.write("day2", "agent_details", [agent(1), agent("?", contact={"email": "one@example.com"})])
        sync("day1", "2026-01-05")
        assert changes(sync("day2", "2026-01-06"))["held back"] == 2

    def test_roles_and_groups_are_known_by_their_names(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, first, second in (("day1", 1, 2), ("day2", "?", 2), ("day3", "?", "?")):
            dump.write(day, "agents", [agent(1)])
            dump.write(day, "admin_groups", [group(first, 1) | {"name": "A"}, group(second, 1) | {"name": "B"}])
            held = [role(1, agent_ids=[1]) | {"id": first, "name": "A"}, role(2, agent_ids=[1]) | {"id": second}]
            dump.write(day, "admin_roles", held)
        for number in (1, 2, 3):
            sync(f"day{number}", f"2026-01-0{number}")
            assert members(db) == {(1, 1), (2, 1)}
            assert db.roles() == {(1, 1): "assigned", (1, 2): "assigned"}


class TestNewestIsBad:
    """An older duplicate does not win because the newest is bad."""

    @pytest.mark.parametrize(("at", "stays"), [(NEW, True), ("?", True), (None, True), ("2024-01-01T00:00:00Z", False)])
    def test_what_is_stored_stays_if_the_rejected_record_may_be_newer(
        self, at: Any, stays: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "roles", [role(10)])
        dump.write("day1", "agent_details", [agent(1, role_ids=[10], group_ids=[7], signature="s", updated_at=OLD)])
        older = agent(1, role_ids=[], group_ids=[], signature="t", contact={"name": "Older"}, updated_at=OLD)
        dump.write("day2", "agent_details", [older], "b.json")
        dump.write("day2", "agent_details", [agent(1, updated_at=at) | BAD], "a.json")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert values(db, 1) == (("Agent 1", "active", 5) if stays else ("Older", "active", 6))
        assert db.roles() == {(1, 10): "assigned" if stays else "removed"}
        assert db.one("SELECT count(*) FROM agent_group_membership") == stays
        assert db.one("SELECT signature FROM agent_details") == ("s" if stays else "t")

    def test_an_unknown_key_is_loaded_from_the_valid_record(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[10], group_ids=[7]), agent(1, updated_at=NEW) | BAD])
        dump.write("day1", "roles", [role(10), role(10, updated_at="?")])
        dump.write("day1", "admin_groups", [group(7, 1), group(7) | {"created_at": "?"}])
        sync("day1", "2026-01-05")
        assert values(db, 1) == ("Agent 1", "active", 5)
        assert (db.roles(), members(db)) == ({(1, 10): "assigned"}, {(7, 1)})
        assert db.one("SELECT count(*) FROM agent_group_membership") == 1

    def test_a_role_and_a_group_stay_too(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agents", [agent(1)])
        dump.write("day1", "admin_groups", [group(7, 1)])
        dump.write("day1", "roles", [role(10)])
        dump.write("day2", "agents", [agent(1)])
        dump.write("day2", "admin_groups", [group(7) | {"name": "Older"}, group(7) | {"created_at": "?"}])
        dump.write("day2", "roles", [role(10) | {"name": "Older"}])
        dump.write("day2", "admin_roles", [role(10, created_at="?")])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert (db.one("SELECT name FROM groups"), members(db)) == ("Group 7", {(7, 1)})
        assert db.one("SELECT name FROM roles") == "Role 10"

    def test_the_status_is_that_of_the_newest_record(self, db: Database, dump: Dump, sync: Sync) -> None:
        newest = agent(1, deactivated=True, updated_at=NEW) | BAD
        dump.write("day1", "agent_details", [agent(1, deactivated=False, updated_at=OLD), newest])
        sync("day1", "2026-01-05")
        assert db.status() == {1: "inactive"}


class TestSilence:
    """Which side stated a role stays known while that side is silent."""

    def sides(self, db: Database) -> tuple[bool, bool]:
        (row,) = db.rows("SELECT stated_by_agent, stated_by_role FROM agent_role_mapping")
        return row["stated_by_agent"], row["stated_by_role"]

    def test_the_no_of_the_other_side_alone_removes_nothing(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[10])])
        dump.write("day1", "admin_roles", [role(10, agent_ids=[1])])
        dump.write("day2", "admin_roles", [role(10, agent_ids=[1])])
        dump.write("day3", "admin_roles", [role(10, agent_ids=[])])
        for number in (1, 2):
            sync(f"day{number}", f"2026-01-0{number}")
            assert self.sides(db) == (True, True)
        sync("day3", "2026-01-03")
        assert (db.roles(), self.sides(db)) == ({(1, 10): "assigned"}, (True, False))

    def test_neither_does_it_if_the_silent_side_is_the_role(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[10])])
        dump.write("day1", "admin_roles", [role(10, agent_ids=[1])])
        dump.write("day2", "agent_details", [agent(1, role_ids=[10])])
        dump.write("day3", "agent_details", [agent(1, role_ids=[])])
        for number in (1, 2, 3):
            sync(f"day{number}", f"2026-01-0{number}")
        assert (db.roles(), self.sides(db)) == ({(1, 10): "assigned"}, (False, True))

    def test_a_bad_record_is_silent_too(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, own, said in (("day1", {}, [1]), ("day2", BAD, [1]), ("day3", BAD, [])):
            dump.write(day, "agent_details", [agent(1, role_ids=[10], **own)])
            dump.write(day, "admin_roles", [role(10, agent_ids=said)])
        for number in (1, 2, 3):
            sync(f"day{number}", f"2026-01-0{number}")
        assert db.roles() == {(1, 10): "assigned"}


class TestLateTargets:
    """A link is made when its target arrives, on whatever day."""

    def test_members_and_roles_wait_for_an_agent(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day1", "admin_groups", [group(7, 2)])
        dump.write("day1", "admin_roles", [role(10, agent_ids=[2])])
        dump.write("day2", "agent_details", [agent(1)])
        dump.write("day3", "agent_details", [agent(1), agent(2)])
        for number in (1, 2, 3):
            assert (members(db), db.roles()) == (set(), {})
            sync(f"day{number}", f"2026-01-0{number}")
        assert (members(db), db.roles()) == ({(7, 2)}, {(2, 10): "assigned"})
        assert db.role_history() == [(2, 10, "assigned", 3)]
        assert db.inactive_groups() == set()

    def test_a_role_arrives_alone(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[10])])
        dump.write("day2", "roles", [role(10)])
        sync("day1", "2026-01-05")
        assert changes(sync("day2", "2026-01-06"), "agent_roles") == {"assigned": 1}
        before = db.versions()
        sync("day2", "2026-01-06")
        assert db.versions() == before

    def test_what_is_taken_back_before_does_not_arrive(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, held, inside in (("day1", [10], [2]), ("day2", [], [])):
            dump.write(day, "agent_details", [agent(1, role_ids=held)])
            dump.write(day, "admin_groups", [group(7, *inside)])
        dump.write("day3", "agent_details", [agent(1), agent(2)])
        dump.write("day3", "roles", [role(10)])
        for number in (1, 2, 3):
            sync(f"day{number}", f"2026-01-0{number}")
        assert (members(db), db.roles()) == (set(), {})

    def test_a_parent_is_linked_when_it_arrives(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "admin_groups", [group(1, parent=2)])
        dump.write("day2", "admin_groups", [group(2)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.one("SELECT parent_group_id FROM groups WHERE group_id = 1") == 2


class TestCorrectedDay:
    """A corrected download of a date leaves no transition that never happened."""

    def sync_all(self, dump: Dump, sync: Sync, *held: tuple[str, str, list[int]]) -> None:
        for day, on, role_ids in held:
            dump.write(day, "agent_details", [agent(1, role_ids=role_ids)])
            dump.write(day, "roles", [role(10), role(11)])
            sync(day, on)

    def test_a_role_that_a_wrong_day_took_away_was_never_gone(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.sync_all(dump, sync, ("day1", "2026-01-05", [10]))
        before = db.rows("SELECT assigned_at, removed_at FROM agent_role_mapping")
        self.sync_all(dump, sync, ("bad", "2026-01-06", []))
        assert db.role_history() == [(1, 10, "assigned", 5), (1, 10, "removed", 6)]
        self.sync_all(dump, sync, ("good", "2026-01-06", [10]))
        assert db.role_history() == [(1, 10, "assigned", 5)]
        assert db.rows("SELECT assigned_at, removed_at FROM agent_role_mapping") == before

    def test_a_role_that_a_wrong_day_gave_was_never_held(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.sync_all(dump, sync, ("day1", "2026-01-05", [10]), ("bad", "2026-01-06", [10, 11]))
        self.sync_all(dump, sync, ("good", "2026-01-06", [10]))
        assert db.roles() == {(1, 10): "assigned"}
        assert db.role_history() == [(1, 10, "assigned", 5)]

    def test_a_role_that_was_removed_before_is_removed_as_it_was(self, db: Database, dump: Dump, sync: Sync) -> None:
        self.sync_all(dump, sync, ("day1", "2026-01-05", [10]), ("day2", "2026-01-06", []))
        before = db.rows("SELECT assigned_at, removed_at FROM agent_role_mapping")
        self.sync_all(dump, sync, ("bad", "2026-01-07", [10]), ("good", "2026-01-07", []))
        assert db.rows("SELECT assigned_at, removed_at FROM agent_role_mapping") == before
        assert db.role_history() == [(1, 10, "assigned", 5), (1, 10, "removed", 6)]


class TestActivity:
    """What changes with mere activity is counted as updated rows, and not told as a change."""

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"last_active_at": NEW}, {}),
            ({"available": True}, {}),
            ({"updated_at": NEW}, {}),
            ({"contact": {"last_login_at": NEW}}, {}),
            ({"contact": {"name": "New"}}, {"changed": 1}),
            ({"contact": {"job_title": "New"}}, {"changed": 1}),
        ],
    )
    def test_activity_is_not_a_change(self, changed: Any, told: Any, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, available=False)])
        dump.write("day2", "agent_details", [agent(1, **{"available": False} | changed)])
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert changes(outcome) == told
        (counts,) = [t for t in outcome.published.tables if t.table == "agents"]
        assert counts.updated == 1
