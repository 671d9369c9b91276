"""The guards (docs/rules.md, rule 16): what they count, whom they name, and that they compare dates."""

from datetime import date

import pytest
from pydantic import SecretStr

from deskroll import sync as syncing
from deskroll.errors import UsageError
from deskroll.pipelines import PIPELINES
from deskroll.postgres.guards import Limits, is_mass_change
from deskroll.postgres.publisher import read_file
from deskroll.settings import Settings
from deskroll.sync import Refused
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, group, role
from tests.helpers.runs import Shell, Sync, messages

NAMES = ["Ada Lark", "Bo Finch", "Cy Heron", "Di Swift", "Ed Robin"]


def people(count: int, **more: object) -> list[dict[str, object]]:
    return [agent(n, contact={"name": NAMES[n] if n < len(NAMES) else f"Agent {n}"}, **more) for n in range(count)]


def write(dump: Dump, day: str, agents: list[dict[str, object]], roster: list[int] | None = None) -> None:
    """Write a day's master list, in place of what it had, and its roster."""
    dump.write(day, "agent_details", agents, "page.json")
    if roster is not None:
        dump.write(day, "agents", [agent(n) for n in roster], "page.json")


def active(db: Database) -> int:
    return list(db.status().values()).count("active")


@pytest.mark.parametrize(
    ("changed", "before", "expected"),
    [
        (10, 20, False), (11, 55, False), (11, 54, True),
        (2, 3, False), (3, 6, False), (3, 5, True), (2, 2, False), (3, 3, True), (9, 10, True),
        (10, 0, False),
    ],
)  # fmt: skip
def test_a_mass_change_is_a_fifth_and_more_than_ten_or_half_and_three(
    changed: int, before: int, expected: bool
) -> None:
    assert is_mass_change(changed, before) == expected


class TestWhom:
    """A refusal names whom it is about."""

    def test_a_refusal_names_the_agents_of_a_small_team(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(10), list(range(10)))
        write(dump, "day2", people(10), [9])
        sync("day1", "2026-01-05")
        with pytest.raises(Refused) as refused:
            sync("day2", "2026-01-06")
        assert refused.value.message.startswith(
            "Refused: 9 of 10 active agents would be deactivated (90 %): Ada Lark (0), Bo Finch (1), Cy Heron (2)"
        )
        assert refused.value.hint == (
            "Nothing was published. If the dump is wrong, download it again."
            " If all this is right, run again with --allow-mass-change."
        )
        assert active(db) == 10

    def test_a_refusal_names_ten_and_counts_the_others(self, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(13))
        write(dump, "day2", people(1))
        sync("day1", "2026-01-05")
        with pytest.raises(Refused, match=r"Agent 9 \(9\), Agent 10 \(10\) and 2 more\."):
            sync("day2", "2026-01-06")

    def test_a_refusal_names_memberships_roles_and_groups(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, ids in (("day1", [3, 4, 5]), ("day2", [])):
            write(dump, day, [agent(7, contact={"name": "Ada\nLark"}, group_ids=ids, role_ids=ids)])
            dump.write(day, "roles", [role(n) | {"name": f"Desk {n}"} for n in (3, 4, 5)])
            parents = [group(n, *([7] if ids else []), parent=1 if ids else None) for n in (3, 4, 5)]
            dump.write(day, "admin_groups", [group(1), *(g | {"name": f"Night {g['id']}"} for g in parents)])
        sync("day1", "2026-01-05")
        sync("day1", "2026-01-05")  # whose groups are known now
        with pytest.raises(Refused) as refused:
            sync("day2", "2026-01-06")
        for said in (
            "3 of 3 memberships of agents in groups would be removed (100 %): Ada Lark (7) would leave group Night 3",
            "3 of 3 role assignments would be removed (100 %): Ada Lark (7) would lose role Desk 3 (3)",
            "3 of 3 members of groups would be removed (100 %): Ada Lark (7) would leave group Night 3 (3)",
            "3 of 3 parents of groups would be lost (100 %): Night 3 (3), Night 4 (4), Night 5 (5)",
        ):
            assert said in refused.value.message
        assert db.one("SELECT count(parent_group_id) FROM groups") == 3
        sync("day2", "2026-01-06", allow_mass_change=True)
        assert db.one("SELECT count(parent_group_id) FROM groups") == 0


class TestGains:
    """What comes in great numbers."""

    def test_many_new_roles_of_known_agents_are_refused(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "roles", [role(n) for n in (1, 2)])
        write(dump, "day1", people(4, role_ids=[1]))
        write(dump, "day2", people(3, role_ids=[1, 2]) + people(4, role_ids=[1])[3:])
        sync("day1", "2026-01-05")
        with pytest.raises(Refused, match=r"3 role assignments would be added, to 4 .*Ada Lark \(0\) would get role"):
            sync("day2", "2026-01-06")
        assert len(db.roles()) == 4

    def test_roles_of_new_agents_come_with_them_and_a_note_counts_these(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "roles", [role(1)])
        write(dump, "day1", people(3, role_ids=[1], group_ids=[5]))
        write(dump, "day2", people(9, role_ids=[1], group_ids=[5]))
        for day, count in (("day1", 3), ("day2", 9)):
            dump.write(day, "admin_groups", [group(5, *range(count))])
        assert not any("mass change" in note for note in messages(sync("day1", "2026-01-05")))
        notes = [note for note in messages(sync("day2", "2026-01-06")) if "mass change" in note]
        assert len(notes) == 3
        assert notes[0].startswith("mass change: 6 agents would be added, to 3 that were stored (200 %): Di Swift (3)")
        assert "6 memberships of agents in groups would be added" in notes[1]
        assert "6 members of groups would be added" in notes[2]
        assert len(db.roles()) == 9
        assert not any("mass change" in note for note in messages(sync("day2", "2026-01-06")))

    def test_leavers_who_all_come_back_as_the_roster_is_lost_do_not(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(20), list(range(12)))
        write(dump, "day2", people(20))
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert active(db) == 12

    def test_leavers_who_all_come_back_are_refused(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(20), list(range(12)))
        write(dump, "day2", people(20), list(range(20)))
        sync("day1", "2026-01-05")
        with pytest.raises(Refused, match="8 of 8 inactive agents would become active again"):
            sync("day2", "2026-01-06")
        assert active(db) == 12

    def test_a_dump_of_others_is_refused(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(3))
        write(dump, "wrong", [agent(n) for n in (100, 101, 102)])
        sync("day1", "2026-01-05")
        with pytest.raises(Refused, match="3 of 3 active agents"):
            sync("wrong", "2026-01-06")
        assert set(db.status()) == {0, 1, 2}


class TestFirstLoad:
    """Nothing is stored yet."""

    def test_a_first_load_with_an_empty_roster_is_refused(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(3), [])
        with pytest.raises(Refused, match="agents/ is empty, while agent_details/ has 3 records"):
            sync("day1", "2026-01-05")
        assert db.status() == {}
        sync("day1", "2026-01-05", allow_mass_change=True)
        sync("day1", "2026-01-05")  # what was allowed stays so
        assert active(db) == 0

    def test_a_first_load_that_shrinks_on_its_date_is_refused(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(10))
        sync("day1", "2026-01-05")
        write(dump, "day1", people(1))
        with pytest.raises(Refused, match="9 of 10 active agents"):
            sync("day1", "2026-01-05")
        assert active(db) == 10


class TestRejected:
    """Records in quarantine."""

    @pytest.mark.parametrize(("good", "bad", "passes"), [(3, 3, True), (2, 3, False), (0, 2, True), (0, 3, False)])
    def test_more_than_half_of_a_folder_and_three_are_refused(
        self, good: int, bad: int, passes: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        dump.write("day1", "roles", [role(n) for n in range(50)])
        dump.write("day1", "agent_details", [*people(good), *({"id": 100 + n} for n in range(bad))])
        if passes:
            sync("day1", "2026-01-05", max_rejected=None)
        else:
            with pytest.raises(
                Refused, match=f"{bad} of {good + bad} records of agent_details/ were rejected"
            ) as refused:
                sync("day1", "2026-01-05", max_rejected=None)
            assert "run again with a higher --max-rejected" in refused.value.hint
            sync("day1", "2026-01-05", max_rejected="100%")
        assert db.one("SELECT count(*) FROM agent_pipeline_errors") == bad


class TestDates:
    """Guards compare with the state before the date, however many runs it takes."""

    def test_five_shrinking_runs_of_a_date_are_refused_as_one(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(50))
        sync("day1", "2026-01-05")
        write(dump, "day2", people(40))
        sync("day2", "2026-01-06")
        write(dump, "day2", people(31))
        with pytest.raises(Refused, match="19 of 50 active agents"):
            sync("day2", "2026-01-06")
        assert active(db) == 40
        write(dump, "day3", people(31))
        sync("day3", "2026-01-07")  # another date: 9 of 40

    def test_memberships_and_roles_that_go_bit_by_bit_are_refused(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, held in (("day1", 20), ("day2", 12)):
            write(dump, day, [agent(1, group_ids=list(range(held)), role_ids=list(range(held)))])
            dump.write(day, "roles", [role(n) for n in range(20)])
            dump.write(day, "agent_details", [agent(100 + n) for n in range(20)])
            dump.write(day, "admin_groups", [group(5, *(100 + n for n in range(held)))], "groups.json")
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        write(dump, "day2", [agent(1, group_ids=list(range(8)), role_ids=list(range(8)))])
        dump.write("day2", "admin_groups", [group(5, *(100 + n for n in range(8)))], "groups.json")
        with pytest.raises(Refused) as refused:
            sync("day2", "2026-01-06")
        for what in ("memberships of agents in groups", "role assignments", "members of groups"):
            assert f"12 of 20 {what} would be removed" in refused.value.message
        assert db.one("SELECT count(*) FROM group_membership") == 12

    def test_what_was_allowed_on_a_date_stays_allowed_and_no_more(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(30))
        sync("day1", "2026-01-05")
        write(dump, "day2", people(15))
        sync("day2", "2026-01-06", allow_mass_change=True)
        sync("day2", "2026-01-06")
        assert active(db) == 15
        write(dump, "day2", people(30))
        sync("day2", "2026-01-06")
        write(dump, "day2", people(30)[12:])  # others
        with pytest.raises(Refused, match="12 of 30 active agents"):
            sync("day2", "2026-01-06")
        assert active(db) == 30

    def test_who_goes_and_comes_back_on_one_date_has_not_changed(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day1", people(10))
        sync("day1", "2026-01-05")
        write(dump, "day2", people(2))
        sync("day2", "2026-01-06", allow_mass_change=True)
        write(dump, "day2", people(10))
        sync("day2", "2026-01-06")
        assert active(db) == 10

    def test_a_run_that_adds_nothing_is_not_refused_for_what_was_published_by_hand(
        self, url: str, db: Database, dump: Dump, sync: Sync
    ) -> None:
        write(dump, "day1", people(10))
        sync("day1", "2026-01-05")
        write(dump, "day2", people(1))
        request = syncing.Request(str(dump.path), "day2", date(2026, 1, 6))
        syncing.stage_day(request, Settings(database_url=SecretStr(url)))
        with db.connection.transaction():
            for pipeline in PIPELINES[:1]:
                db.connection.execute(read_file(pipeline.publication))
        assert active(db) == 1
        sync("day2", "2026-01-06")


class TestBackfills:
    """Old days are guarded by what they write into the history of their date."""

    def inactive(self, db: Database, day: int) -> int:
        return sum(not is_active for (_, on), is_active in db.history().items() if on == day)

    def test_a_refused_day_is_refused_also_when_a_newer_one_is_published(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for number, count in ((5, 30), (6, 10), (7, 30)):
            write(dump, f"day{number}", people(count))
        sync("day5", "2026-01-05")
        with pytest.raises(Refused):
            sync("day6", "2026-01-06")
        sync("day7", "2026-01-07")
        where = r"on 2026-01-06, compared with 2026-01-05"
        with pytest.raises(Refused, match=rf"20 of 30 active agents would be deactivated \(67 %\) {where}"):
            sync("day6", "2026-01-06")
        assert self.inactive(db, 6) == 0
        sync("day6", "2026-01-06", allow_mass_change=True)
        sync("day6", "2026-01-06")
        assert self.inactive(db, 6) == 20

    def test_an_old_day_again_is_guarded_in_small_steps_too(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number in (5, 6, 7):
            write(dump, f"day{number}", people(30))
            sync(f"day{number}", f"2026-01-0{number}")
        write(dump, "day6", people(20))
        outcome = sync("day6", "2026-01-06")
        (change,) = [c for c in outcome.published.changes if c.change == "history changed"]
        assert (change.count, change.examples[0]) == (10, "Agent 20 <a20@example.com>")
        write(dump, "day6", people(11))
        with pytest.raises(Refused, match="19 of 30 active agents would be deactivated"):
            sync("day6", "2026-01-06")
        assert self.inactive(db, 6) == 10

    def test_an_old_day_that_brings_back_many_is_refused(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number, count in ((4, 30), (5, 5), (7, 5)):
            write(dump, f"day{number}", people(count))
            sync(f"day{number}", f"2026-01-0{number}", allow_mass_change=True)
        write(dump, "day6", people(30))
        with pytest.raises(Refused, match="25 of 25 inactive agents would become active again"):
            sync("day6", "2026-01-06")
        assert self.inactive(db, 7) == 25
        assert db.one("SELECT count(*) FROM published_dates WHERE sync_date = '2026-01-06'") == 0

    def test_an_old_day_that_is_corrected_to_what_the_day_before_it_had_is_not(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for number, count in ((5, 30), (6, 5), (7, 30)):
            write(dump, f"day{number}", people(count))
            sync(f"day{number}", f"2026-01-0{number}", allow_mass_change=True)
        write(dump, "day6", people(30))
        sync("day6", "2026-01-06")
        assert self.inactive(db, 6) == 0

    def test_roles_and_memberships_of_an_old_day_are_guarded_too(self, db: Database, dump: Dump, sync: Sync) -> None:
        for number in (5, 7):
            dump.write(f"day{number}", "agent_details", [agent(n, role_ids=[1], group_ids=[2]) for n in range(4)])
            dump.write(f"day{number}", "roles", [role(1)])
            dump.write(f"day{number}", "admin_groups", [group(2, 0, 1, 2, 3), *(group(n, parent=2) for n in (3, 4, 5))])
            sync(f"day{number}", f"2026-01-0{number}")
        dump.write("day6", "agent_details", [agent(n, role_ids=[], group_ids=[]) for n in range(4)])
        dump.write("day6", "admin_groups", [group(2), group(3), group(4), group(5)])
        with pytest.raises(Refused) as refused:
            sync("day6", "2026-01-06")
        for what in ("role assignments", "memberships of agents in groups", "members of groups"):
            assert f"4 of 4 {what} would be removed (100 %) on 2026-01-06, compared with 2026-01-05" in str(
                refused.value
            )
        assert "3 of 3 parents of groups would be lost" in str(refused.value)

    def test_the_oldest_day_is_compared_with_the_one_after_it(self, db: Database, dump: Dump, sync: Sync) -> None:
        write(dump, "day6", people(30))
        sync("day6", "2026-01-06")
        write(dump, "day5", people(3))
        where = "on 2026-01-05, compared with 2026-01-06"
        with pytest.raises(Refused, match=f"27 of 30 active agents would be deactivated .* {where}"):
            sync("day5", "2026-01-05")
        write(dump, "day5", people(28))
        sync("day5", "2026-01-05")
        assert len([on for _, on in db.history() if on == 5]) == 28


class TestPlans:
    """A plan says what a sync would do, and a staged day is not a planned one."""

    @pytest.fixture(autouse=True)
    def settled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Files count as unchanged however young they are."""
        monkeypatch.setattr("deskroll.input.dump.SETTLED_AFTER", 0)

    def test_a_plan_that_would_be_refused_ends_with_3_and_is_whole(self, shell: Shell, dump: Dump) -> None:
        write(dump, "2026-01-05", people(5))
        write(dump, "2026-01-06", people(1))
        assert shell.run("sync", dump.path, "--day", "2026-01-05", "--plan").returncode == 0
        assert shell.run("sync", dump.path, "--day", "2026-01-05").returncode == 0
        done = shell.run("sync", dump.path, "--day", "2026-01-06", "--plan")
        assert done.returncode == 3
        assert "agents missing 4: Bo Finch" in done.stdout
        assert "A sync would be refused: 4 of 5 active agents would be deactivated (80 %): Bo Finch (1)" in done.stderr
        assert shell.run("sync", dump.path, "--day", "2026-01-06", "--plan", "--allow-mass-change").returncode == 0

    def test_publish_refuses_what_a_plan_has_filled(self, url: str, db: Database, dump: Dump, sync: Sync) -> None:
        settings = Settings(database_url=SecretStr(url))
        for day in ("day1", "day2"):
            write(dump, day, people(3))
        request = syncing.Request(str(dump.path), "day1", date(2026, 1, 5))
        syncing.stage_day(request, settings)
        assert not any(
            "plan" in note for note in messages(sync("day1", "2026-01-05", plan=True))
        )  # it had nothing to read
        (note,) = [note for note in messages(sync("day2", "2026-01-06", plan=True)) if "plan" in note]
        assert note.startswith("this plan replaced what `deskroll stage` had staged of day1 (agents, agent_roles)")
        with pytest.raises(UsageError, match=r"A plan of day2 filled the staging tables of agents, agent_roles\."):
            syncing.publish_staged((), settings, Limits())
        with pytest.raises(Exception, match="A plan filled the staging tables of agents"):
            db.connection.execute(read_file(PIPELINES[0].publication))
        assert db.status() == {}
        syncing.stage_day(request, settings)
        syncing.publish_staged((), settings, Limits())
        assert db.one("SELECT max(sync_date) FROM agent_status_history") == date(2026, 1, 5)
        assert not any("plan" in note for note in messages(sync("day2", "2026-01-06", plan=True)))  # day1 is published

    def test_a_plan_for_another_date_does_not_change_the_date_of_what_is_staged(
        self, url: str, dump: Dump, sync: Sync
    ) -> None:
        settings = Settings(database_url=SecretStr(url))
        write(dump, "day1", people(3))
        syncing.stage_day(syncing.Request(str(dump.path), "day1", date(2026, 1, 5)), settings)
        assert any("this plan replaced" in note for note in messages(sync("day1", "2026-01-09", plan=True)))
        with pytest.raises(UsageError, match="A plan of day1"):
            syncing.publish_staged((), settings, Limits())

    def test_what_a_sync_staged_and_was_refused_can_be_published_after_a_plan_of_it(
        self, url: str, db: Database, dump: Dump, sync: Sync
    ) -> None:
        write(dump, "day1", people(3))
        sync("day1", "2026-01-05")
        write(dump, "day2", [agent(9)])
        with pytest.raises(Refused):
            sync("day2", "2026-01-06")
        sync("day2", "2026-01-06", plan=True)
        syncing.publish_staged((), Settings(database_url=SecretStr(url)), Limits(True))
        assert active(db) == 1
