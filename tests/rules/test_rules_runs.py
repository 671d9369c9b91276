"""The rules of runs (docs/rules.md), each with tests named after it."""

from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import SecretStr

from deskroll.errors import BusyError, DatabaseError, DeskrollError, UsageError
from deskroll.postgres import database
from deskroll.postgres.guards import Limits
from deskroll.postgres.locks import locked
from deskroll.settings import Settings
from deskroll.sync import Refused, Request
from deskroll.sync import sync_day as run
from tests.helpers.changes import recorded
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, group, role
from tests.helpers.runs import DAYS, SAMPLE, Sync, changes, messages, sync_into


class TestHistory:
    """History."""

    def test_history_has_a_row_per_agent_and_date_and_a_rerun_rewrites_its_own_date_only(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1)], "a.json")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.history() == {(1, 5): True, (2, 5): True, (1, 6): True, (2, 6): False}
        dump.write("day2", "agent_details", [agent(1), agent(2), agent(3)], "a.json")
        sync("day2", "2026-01-06")
        assert db.history() == {(1, 5): True, (2, 5): True, (1, 6): True, (2, 6): True, (3, 6): True}


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
        assert db.history() == {(1, 6): True, (2, 6): True, (3, 6): False, (1, 5): True, (3, 5): True}
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
        # Also the times in agent_role_mapping are of the past.
        of_the_past = {"agent_role_mapping", "agent_periods", "agent_group_periods", "agent_role_periods"}
        of_the_past |= {"agent_role_periods_by_agent", "group_periods", "group_member_periods"}
        of_the_past |= {"published_dates", "role_dates", "silent_periods"}
        assert {table for table in before if before[table] != after[table]} == of_the_past

    def test_backfill_of_a_day_that_does_not_contain_an_agent_says_so_whatever_was_known_before(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, agents in {"day1": [1, 2], "day2": [1], "day3": [1, 2]}.items():
            dump.write(day, "agent_details", [agent(n) for n in agents])
        sync("day1", "2026-01-04")
        sync("day3", "2026-01-06")
        sync("day2", "2026-01-05")
        assert db.history() == {(1, 4): True, (2, 4): True, (1, 6): True, (2, 6): True, (1, 5): True, (2, 5): False}

    def test_backfill_that_cannot_tell_repeats_what_was_known_at_its_date(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day0", "agent_details", [agent(1, deactivated=True), agent(2)])
        dump.write("day1", "agent_details", [agent(1), agent(2, deactivated=True)])
        dump.write("day2", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agents", b"[")
        dump.write("day3", "agent_details", [agent(1, deactivated=True), agent(2)])
        sync("day0", "2026-01-03")
        sync("day1", "2026-01-04")
        sync("day3", "2026-01-06")
        for _ in range(2):
            sync("day2", "2026-01-05")
            assert {k: v for k, v in db.history().items() if k[1] == 5} == {(1, 5): True, (2, 5): False}

    def test_backfill_that_cannot_tell_keeps_what_its_own_date_said(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)], "a.json")
        dump.write("day2", "agent_details", [agent(1)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        dump.write("day1", "agent_details", [agent(1, created_at="?")], "a.json")
        sync("day1", "2026-01-05")
        assert db.history() == {(1, 5): True, (1, 6): True}

    def test_backfill_of_a_day_that_is_not_whole_does_not_say_who_was_gone(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day in ("day1", "day3"):
            dump.write(day, "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1)])
        dump.write("day2", "agent_details", b"[")
        for day, on in (("day1", "2026-01-04"), ("day3", "2026-01-06"), ("day2", "2026-01-05")):
            sync(day, on)
        assert set(db.history().values()) == {True}

    def test_backfill_is_said(self, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        assert not any("backfill" in note for note in messages(sync("day1", "2026-01-07")))
        (note,) = (note for note in messages(sync("day1", "2026-01-06")) if "backfill" in note)
        assert "published up to 2026-01-07" in note
        assert note.startswith("a backfill: agent_roles, agents are already published")

    def test_backfill_is_what_no_date_to_come_may_make_of_today(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        with pytest.raises(UsageError, match="9999-12-31 is in the future"):
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
        (source,) = [s for s in outcome.inputs if s.input == "agent_details"]
        assert (source.records_read, source.duplicates, source.rejected) == (6, 1, 3)
        counts = db.rows(
            "SELECT records_read, duplicates, rejected, staged FROM sync_run_tables WHERE table_name = 'agent_details'"
        )
        assert counts == [{"records_read": 6, "duplicates": 1, "rejected": 3, "staged": 2}]

    def test_conservation_broken_fails_the_run(
        self, db: Database, dump: Dump, sync: Sync, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        monkeypatch.setattr(
            "deskroll.transform.compile.deduplicate", lambda contract, relation, *_: f"SELECT * FROM {relation} LIMIT 1"
        )
        with pytest.raises(DeskrollError, match="2 read is not 1 valid"):
            sync("day1", "2026-01-05")
        assert db.one("SELECT count(*) FROM agents") == 0


class TestAllOrNothing:
    """All or nothing."""

    def test_all_or_nothing_where_publishing_fails_midway(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent("x")])
        db.connection.execute("ALTER TABLE agent_pipeline_errors ADD CHECK (error_message = 'never')")
        with pytest.raises(DeskrollError, match="check constraint"):
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
            locked(other, wait=True),
            pytest.raises(BusyError, match="Another run"),
        ):
            run(Request(str(dump.path), "day1"), settings, Limits(), wait=False)
        run(Request(str(dump.path), "day1"), settings, Limits(), wait=False)
        assert db.status() == {1: "active"}


class TestBoundedDamage:
    """Bounded damage."""

    def days(self, dump: Dump, before: int, after: int) -> None:
        gone = [agent(1000 + n, deactivated=True) for n in range(30)]  # of whom none counts
        for folder in ("agent_details", "agents"):
            dump.write("day1", folder, gone + [agent(n) for n in range(before)])
            dump.write("day2", folder, gone + [agent(n) for n in range(after)])

    @pytest.mark.parametrize(("before", "after"), [(55, 44), (50, 40), (20, 10), (6, 3), (2, 0)])
    def test_bounded_damage_lets_pass_what_is_within_the_limits(
        self, before: int, after: int, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.days(dump, before, after)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert list(db.status().values()).count("active") == after

    @pytest.mark.parametrize(("before", "after"), [(54, 43), (12, 1), (100, 79), (10, 1), (5, 2), (3, 0)])
    def test_bounded_damage_refuses_what_is_beyond_them(
        self, before: int, after: int, db: Database, dump: Dump, sync: Sync
    ) -> None:
        self.days(dump, before, after)
        sync("day1", "2026-01-05")
        versions = db.versions()
        with pytest.raises(Refused, match=f"{before - after} of {before} active agents would be deactivated"):
            sync("day2", "2026-01-06")
        assert db.versions() == versions
        assert db.one("SELECT status FROM sync_runs ORDER BY run_id DESC LIMIT 1") == "refused"
        sync("day2", "2026-01-06", allow_mass_change=True)
        assert list(db.status().values()).count("active") == after

    @pytest.mark.parametrize(
        ("gone", "back", "passes"), [(55, 11, True), (54, 11, False), (20, 10, True), (4, 3, False), (2, 2, True)]
    )
    def test_bounded_damage_covers_those_who_come_back(
        self, gone: int, back: int, passes: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "agent_details", [agent(n, deactivated=n < gone) for n in range(60)])
        dump.write("day2", "agent_details", [agent(n, deactivated=back <= n < gone) for n in range(60)])
        sync("day1", "2026-01-05")
        if passes:
            sync("day2", "2026-01-06")
        else:
            with pytest.raises(Refused, match=f"{back} of {gone} inactive agents would become active again"):
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
        with pytest.raises(Refused, match=f"{empty}/ is empty, while 1 active agents are stored"):
            sync("day3", "2026-01-06")
        assert db.status()[0] == "active"

    @pytest.mark.parametrize(
        ("known", "kept", "passes"), [(50, 40, True), (50, 39, False), (20, 10, True), (5, 3, True), (5, 2, False)]
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
            with pytest.raises(
                Refused, match=f"{known - kept} of {known} memberships of agents in groups would be removed"
            ):
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
        for number, held in enumerate((60, 50, kept), start=1):  # those that went before do not count
            dump.write(f"day{number}", "agent_details", [agent(1, role_ids=list(range(held)))])
        dump.write("day1", "roles", [role(n) for n in range(60)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        if passes:
            sync("day3", "2026-01-07")
        else:
            with pytest.raises(Refused, match="11 of 50 role assignments would be removed"):
                sync("day3", "2026-01-07")
        assert list(db.roles().values()).count("assigned") == (kept if passes else 50)

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
            with pytest.raises(Refused, match="11 of 50 members of groups would be removed"):
                sync("day2", "2026-01-06")
        assert db.one("SELECT count(*) FROM group_membership") == (kept if passes else 50)

    def test_bounded_damage_needs_a_server_that_counts(self, db: Database, dump: Dump) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        with pytest.raises(DatabaseError, match="counts no rows"):
            sync_into(f"{db.url}&options=-c%20track_counts%3Doff", str(dump.path), "day1", "2026-01-05")
        assert not db.status()

    @pytest.mark.parametrize(("limit", "passes"), [("1", True), ("0", False), ("50%", True), ("49.9%", False)])
    def test_bounded_damage_max_rejected(self, limit: str, passes: bool, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), {"id": 2}])
        if passes:
            sync("day1", "2026-01-05", max_rejected=limit)
        else:
            with pytest.raises(Refused, match=r"1 of 2 records (of agent_details/ )?were rejected"):
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


class TestLedger:
    """The ledger."""

    def test_ledger_has_no_change_of_a_sync_that_is_repeated(self, db: Database) -> None:
        """What it has of each kind of change, of inputs and of guards is in test_run_changes.py."""
        for day in ("day1", "day2", "tran"):
            sync_into(db.url, str(SAMPLE), day, DAYS[day], allow_mass_change=True)
            assert recorded(db)
            sync_into(db.url, str(SAMPLE), day, DAYS[day], allow_mass_change=True)
            assert recorded(db) == {}
