"""The rules of agents (docs/rules.md), each with tests named after it."""

from typing import Any

import pytest

from deskroll.sync import Outcome
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import Sync, changes, messages

ONE_ELEMENT_BAD = [
    {"channel": "chat", "available": True},
    {"channel": None},
    {"channel": "ticket", "available": "maybe"},
]


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
        assert "the day has no agents/: deskroll uses the master list as the roster" in messages(outcome)

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
        assert db.one("SELECT ticket_scope FROM agent_details") == "3"

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
            "availability[1].channel: missing, expected text of at most 500 characters",
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
        assert any(f"{folder}/ is incomplete: " in note for note in messages(outcome))
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
        assert any(f"{folder}/ is incomplete: " in note for note in messages(outcome))


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
        (source,) = [s for s in outcome.inputs if s.input == "agent_details"]
        assert (source.records_read, source.duplicates, source.rejected) == (3, 2, 0)

    def test_duplicates_of_one_age_the_last_file_and_position_win(self, db: Database, dump: Dump, sync: Sync) -> None:
        for name in ("10.json", "2.json", "9.json"):
            dump.write("day1", "agent_details", [agent(1, contact={"name": f"{name} {n}"}) for n in range(2)], name)
        assert self.name_after(db, sync)[0] == "9.json 1"

    def test_duplicates_a_bad_record_never_wins(self, db: Database, dump: Dump, sync: Sync) -> None:
        bad = agent(1, contact={"name": "bad"}, updated_at="2027-01-01T00:00:00Z", available="?")
        dump.write("day1", "agent_details", [agent(1, contact={"name": "good"}), bad])
        assert self.name_after(db, sync)[0] == "good"

    def test_duplicates_a_bad_record_never_wins_over_several(self, db: Database, dump: Dump, sync: Sync) -> None:
        bad = agent(1, contact={"name": "bad"}, updated_at="2027-01-01T00:00:00Z", available="?")
        some = [agent(1, contact={"name": name}) for name in ("first", "second")]
        dump.write("day1", "agent_details", [*some, bad])
        assert self.name_after(db, sync)[0] == "second"

    def test_duplicates_in_a_list_the_last_position_wins(self, db: Database, dump: Dump, sync: Sync) -> None:
        channels = [{"channel": "chat", "available": available} for available in (False, True, False)]
        dump.write("day1", "agent_details", [agent(1, availability=channels)])
        sync("day1", "2026-01-05")
        assert db.rows("SELECT is_available FROM agent_availability") == [{"is_available": False}]
        dump.write("day2", "agent_details", [agent(1, availability=channels[:2])])
        sync("day2", "2026-01-06")
        assert db.rows("SELECT is_available FROM agent_availability") == [{"is_available": True}]
