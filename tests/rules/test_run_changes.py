"""The ledger (docs/rules.md, rule 24): what a run changed, who made it, what it read, how near its guards were."""

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from deskroll import provenance
from deskroll import sync as syncing
from deskroll.errors import DeskrollError
from deskroll.pipelines import PIPELINES
from deskroll.postgres import database
from deskroll.postgres.guards import FEWEST_OF_HALF, find_threshold, is_mass_change
from deskroll.postgres.publisher import by_hand
from deskroll.settings import Settings
from deskroll.sync import Refused
from tests.helpers.changes import check_recorded, recorded, tracked_values
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, group, role, transaction
from tests.helpers.runs import DAYS, SAMPLE, Shell, Sync, messages, sync_into


@pytest.fixture
def last(db: Database) -> Callable[..., dict[str, Any]]:
    """The newest run's changes of a pipeline: `{"changed 1": ({"name": "A"}, {"name": "B"})}`."""

    def read(pipeline: str = "agents") -> dict[str, Any]:
        return {
            f"{change} {key}".rstrip(): (before, after) if rows == 1 and key else rows
            for (name, change, key), (before, after, rows) in recorded(db).items()
            if name == pipeline
        }

    return read


Last = Callable[..., dict[str, Any]]


class TestAgents:
    """Agents and what belongs to them."""

    def test_a_first_load_is_one_row_with_its_count(self, dump: Dump, sync: Sync, db: Database, last: Last) -> None:
        dump.write("day1", "agent_details", [agent(n, group_ids=[7], role_ids=[5]) for n in range(4)])
        dump.write("day1", "roles", [role(5)])
        sync("day1", "2026-01-05")
        assert last() == {"first load": 4}
        assert last("agent_roles") == {"first load": 4}
        assert db.one("SELECT count(*) FROM run_changes") == 3

    def test_only_the_fields_that_changed_are_recorded(self, dump: Dump, sync: Sync, last: Last, db: Database) -> None:
        contact = {"name": "Ada", "job_title": "Clerk", "phone": "1"}
        dump.write("day1", "agent_details", [agent(1, contact=contact), agent(2)])
        dump.write("day2", "agent_details", [agent(1, contact=contact | {"name": "Ada B", "phone": None}), agent(2)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert last() == {"changed 1": ({"name": "Ada", "phone": "1"}, {"name": "Ada B", "phone": None})}
        assert db.one("SELECT label FROM run_changes WHERE change = 'changed'") == "Ada B <a1@example.com>"

    def test_mere_activity_is_not_recorded(self, dump: Dump, sync: Sync, last: Last, db: Database) -> None:
        for day, at in (("day1", "2026-01-05T01:00:00Z"), ("day2", "2026-01-06T01:00:00Z")):
            moved: dict[str, Any] = {"last_active_at": at, "updated_at": at, "available": day == "day1"}
            channels = [{"channel": "chat", "available": day == "day1"}]
            dump.write(day, "agent_details", [agent(1, last_login_at=at, availability=channels, **moved)])
            spent = {"limit": 100, "spent": {"total": 1 if day == "day1" else 2}}
            dump.write(day, "budgets", {"results": [budget("b1", currentPeriod=spent)]})
            period = {"limit": 5, "spent": 1 if day == "day1" else 2}
            dump.write(day, "cards", {"results": [card("c1", currentPeriod=period, updatedTime=at)]})
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert sum(t.updated for t in outcome.published.tables) >= 5
        assert recorded(db) == {}

    def test_who_comes_leaves_and_returns(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2), agent(3, deactivated=True), agent(5)])
        dump.write("day2", "agent_details", [agent(1, deactivated=True), agent(3), agent(4), agent(5)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        active, inactive = {"status": "active"}, {"status": "inactive"}
        added = {"name": "Agent 4", "email": "a4@example.com", "status": "active"}
        assert last() == {
            "deactivated 1": (active, inactive),
            "missing 2": (active, inactive),
            "reactivated 3": (inactive, active),
            "added 4": (None, added),
        }

    def test_who_is_held_back_or_keeps_old_values_has_not_changed(
        self, dump: Dump, sync: Sync, last: Last, db: Database
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day2", "agent_details", [agent(1, created_at="?")])
        dump.write("day2", "agent_details", b"{")
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert {c.change for c in outcome.published.changes} == {"held back", "stale"}
        assert recorded(db) == {}

    def test_what_an_agent_may_see_is_recorded(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "agent_details", [agent(1, ticket_scope=1), agent(2, ticket_scope=1)])
        dump.write("day2", "agent_details", [agent(1, ticket_scope=2), agent(2, ticket_scope=1, signature="x")])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert last() == {"details changed 1": ({"ticket_scope": "1"}, {"ticket_scope": "2"})}

    def test_the_columns_of_triggers_are_those_that_are_tracked(self, db: Database) -> None:
        definition = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = %s::REGCLASS AND tgname = %s"
        for table in ("agent_details", "cards"):
            (one,) = (t for p in PIPELINES for t in p.publication.tracked if t.table == table)
            columns = one.columns if table == "agent_details" else ("budget_id", "agent_id")
            when = db.one(definition, table, "deskroll_keep_row")
            assert set(columns) <= set(one.columns)
            assert set(re.findall(r"old\.(\w+)", when)) == set(columns)

    def test_memberships_of_both_sides(self, dump: Dump, sync: Sync, last: Last, db: Database) -> None:
        for day, groups, members in (("day1", [7], [1]), ("day2", [8], [2])):
            dump.write(day, "agent_details", [agent(1, group_ids=groups), agent(2)])
            dump.write(day, "admin_groups", [group(7, *members), group(8, 1, 2)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06", allow_mass_change=True)
        assert last() == {
            "membership added 1 8": (None, {"agent_id": 1, "group_id": 8}),
            "membership removed 1 7": ({"agent_id": 1, "group_id": 7}, None),
        }
        assert last("groups") == {
            "member added 7 2": (None, {"agent_id": 2, "group_id": 7}),
            "member removed 7 1": ({"agent_id": 1, "group_id": 7}, None),
        }
        labels = {row["label"] for row in db.rows("SELECT label FROM run_changes WHERE key LIKE '%% %%'")}
        assert labels == {
            "Agent 1 (1): Group 7", "Agent 1 (1): Group 8", "Group 7: Agent 1 (1)", "Group 7: Agent 2 (2)",
        }  # fmt: skip

    def test_roles_that_are_given_and_taken(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[5]), agent(2)])
        dump.write("day2", "agent_details", [agent(1, role_ids=[]), agent(2, role_ids=[6])])
        dump.write("day1", "roles", [role(5), role(6)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert last("agent_roles") == {
            "removed 1 5": ({"status": "assigned"}, {"status": "removed"}),
            "assigned 2 6": (None, {"status": "assigned"}),
        }

    def test_a_corrected_day_takes_back_what_a_wrong_one_recorded(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "agent_details", [agent(1, role_ids=[5]), agent(2, role_ids=[5])])
        dump.write("day1", "roles", [role(5)])
        sync("day1", "2026-01-05")
        dump.write("day2", "agent_details", [agent(1, role_ids=[5]), agent(2, role_ids=[5, 6])], "a.json")
        dump.write("day2", "roles", [role(5), role(6)])
        sync("day2", "2026-01-06")
        assert last("agent_roles") == {"assigned 2 6": (None, {"status": "assigned"})}
        dump.write("day2", "agent_details", [agent(1, role_ids=[5]), agent(2, role_ids=[5])], "a.json")
        sync("day2", "2026-01-06")
        assert last("agent_roles") == {"removed 2 6": ({"status": "assigned"}, None)}

    def test_a_backfill_records_what_it_changed_in_the_history(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)], "a.json")
        dump.write("day2", "agent_details", [agent(1), agent(2)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        dump.write("day1", "agent_details", [agent(1)], "a.json")
        sync("day1", "2026-01-05")
        assert last() == {"history changed 2": ({"is_active": True}, {"is_active": False})}


class TestGroups:
    """Groups."""

    def test_parents_and_names(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "admin_groups", [group(1), group(2, parent=1), group(3)])
        dump.write("day2", "admin_groups", [group(1), group(2, parent=3), group(3) | {"name": "N"}])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        parents = (
            {"parent_group_id": 1, "source_parent_group_id": 1},
            {"parent_group_id": 3, "source_parent_group_id": 3},
        )
        assert last("groups") == {"changed 2": parents, "changed 3": ({"name": "Group 3"}, {"name": "N"})}

    def test_a_group_that_nobody_active_is_left_in_also_if_agents_alone_are_synced(
        self, dump: Dump, sync: Sync, last: Last
    ) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        dump.write("day1", "admin_groups", [group(1, 1), group(2, 2)])
        dump.write("day2", "agent_details", [agent(1, deactivated=True), agent(2)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert last("groups") == {"inactivated 1": ({"inactive": False}, {"inactive": True})}
        dump.write("day3", "agent_details", [agent(1), agent(2)])
        sync("day3", "2026-01-07")
        assert last("groups") == {"activated 1": ({"inactive": True}, {"inactive": False})}


class TestSpend:
    """Budgets, cards and transactions."""

    def test_budgets_and_cards(self, dump: Dump, sync: Sync, last: Last) -> None:
        for day, limit, status in (("day1", 100, "ACTIVATED"), ("day2", 200, "FROZEN")):
            dump.write(day, "budgets", {"results": [budget("b1", currentPeriod={"limit": limit})]})
            new = [card("c2")] * (day == "day2")
            dump.write(day, "cards", {"results": [card("c1", status=status), *new]})
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert last("budgets") == {"changed b1": ({"limit_amount": 100}, {"limit_amount": 200})}
        cards = last("cards")
        assert cards.pop("changed c1") == ({"status": "ACTIVATED"}, {"status": "FROZEN"})
        assert cards["added c2"][1]["budget_id"] == "b1"

    def test_a_card_that_gets_a_holder_or_a_budget_later(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "cards", {"results": [card("c1", userId="u1")]})
        dump.write("day2", "budgets", {"results": [budget("b1")]})
        dump.write("day2", "agent_details", [agent(1)])
        dump.write("day2", "transactions", {"results": [transaction("t1", userId="u1", userName="Agent 1")]})
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        linked = {"budget_id": None, "agent_id": None}, {"budget_id": "b1", "agent_id": 1}
        assert last("cards") == {"linked c1": linked}

    def test_new_transactions_are_counted_and_changed_ones_told(self, dump: Dump, sync: Sync, last: Last) -> None:
        dump.write("day1", "transactions", {"results": [transaction("t1", merchantName="A")]})
        later = {"updatedTime": "2026-01-06T00:00:00Z"}
        more = [transaction(f"t{n}") for n in range(2, 5)]
        dump.write("day2", "transactions", {"results": [transaction("t1", merchantName="B", **later), *more]})
        dump.write("day3", "cards", {"results": [card("c1", budgetId=None)]})
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert last("transactions") == {"changed t1": ({"merchant_name": "A"}, {"merchant_name": "B"}), "added": 3}
        sync("day3", "2026-01-07")
        assert last("transactions") == {"linked": 4}

    def test_a_transaction_that_gets_its_id(self, dump: Dump, sync: Sync, last: Last) -> None:
        nameless = transaction("t1")
        del nameless["id"]
        dump.write("day1", "transactions", {"results": [nameless]})
        dump.write("day2", "transactions", {"results": [transaction("t1")]})
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        ids = {"transaction_id": "t1", "transaction_uuid": "u-t1"}
        assert last("transactions")["identified t1"] == (None, ids)

    def test_every_digit_of_money_is_recorded(self, dump: Dump, sync: Sync, db: Database) -> None:
        for day, limit in (("day1", "100.10"), ("day2", "12345678901234567890.123456789")):
            text = json.dumps({"results": [budget("b1", currentPeriod={"limit": "LIMIT"})]}).replace('"LIMIT"', limit)
            dump.write(day, "budgets", text.encode())
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        kept = "SELECT after ->> 'limit_amount' FROM run_changes WHERE change = 'changed'"
        assert db.one(kept) == "12345678901234567890.123456789"


class TestWhatChanged:
    """What is recorded is the difference of the tables."""

    @pytest.mark.parametrize(
        "order", [["day1", "day2", "day3", "tran"], ["tran", "day2", "day1", "day3"], ["day3", "day1", "day3", "day2"]]
    )
    def test_the_sample_in_any_order(self, order: list[str], db: Database) -> None:
        for day in order:
            before = tracked_values(db)
            sync_into(db.url, str(SAMPLE), day, DAYS[day], allow_mass_change=True)
            check_recorded(db, before)

    def test_the_sample_pipeline_by_pipeline(self, db: Database) -> None:
        names = [p.name for p in PIPELINES]
        for day, some in itertools.product(("day1", "day2", "day3"), (names[4:], names[:1], names[2:4], names[1:2])):
            if day == "day3" and "budgets" in some:
                some = ["transactions"]
            before = tracked_values(db)
            sync_into(db.url, str(SAMPLE), day, DAYS[day], only=tuple(some), allow_mass_change=True)
            check_recorded(db, before)


def fill_two_days(dump: Dump) -> None:
    """Two days, of which the second takes most away."""
    for day, number in (("day1", 20), ("day2", 8)):
        more = {} if day == "day1" else {"contact": {"name": "Later"}}
        people = [agent(n, group_ids=[1], role_ids=[5], **(more if n == 3 else {})) for n in range(number)]
        dump.write(day, "agent_details", people, "a.json")
        dump.write(day, "roles", [role(5)])
        dump.write(day, "admin_groups", [group(1, *range(number))])
        dump.write(day, "transactions", {"results": [transaction(f"{day}-{n}") for n in range(3)]})


class TestRefused:
    """A run that was not published."""

    def test_a_refused_run_has_the_changes_that_it_would_have_made(
        self, db: Database, dump: Dump, sync: Sync, server: str, template: str
    ) -> None:
        fill_two_days(dump)
        sync("day1", "2026-01-05")
        before = db.versions()
        with pytest.raises(Refused):
            sync("day2", "2026-01-06")
        assert db.versions() == before
        refused = recorded(db)
        assert refused["agents", "missing", "19"] == ({"status": "active"}, {"status": "inactive"}, 1)
        assert refused["transactions", "added", ""][2] == 3
        assert db.one("SELECT status FROM sync_runs ORDER BY run_id DESC LIMIT 1") == "refused"
        sync("day2", "2026-01-06", allow_mass_change=True)
        assert recorded(db) == refused
        labels = db.rows(
            "SELECT run_id, label FROM run_changes WHERE run_id > 1 ORDER BY run_id, pipeline, change, key"
        )
        assert [r["label"] for r in labels if r["run_id"] == 2] == [r["label"] for r in labels if r["run_id"] == 3]

    def test_a_plan_and_a_failed_run_have_none(self, db: Database, dump: Dump, sync: Sync) -> None:
        fill_two_days(dump)
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06", plan=True)
        db.connection.execute("ALTER TABLE agents ADD CHECK (name <> 'Later')")
        with pytest.raises(DeskrollError, match="check constraint"):
            sync("day2", "2026-01-06", allow_mass_change=True)
        assert recorded(db) == {}
        assert db.rows("SELECT run_id FROM run_changes WHERE run_id > 1") == []

    def test_publishing_by_hand_records_nothing(self, db: Database, dump: Dump, sync: Sync) -> None:
        fill_two_days(dump)
        sync("day1", "2026-01-05")
        known = recorded(db)
        settings = Settings(database_url=SecretStr(db.url))
        staged = {i.pipeline for i in syncing.stage_day(syncing.Request(str(dump.path), "day2"), settings)}
        for pipeline in (p for p in PIPELINES if p.name in {*staged, "agent_roles"}):
            done = subprocess.run(
                [database.psql(settings), "--no-psqlrc", "--quiet", db.url],
                input=by_hand(pipeline.publication), capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        assert db.one("SELECT count(*) FROM agents WHERE deactivated") == 12
        assert recorded(db) == known

    def test_what_a_run_changed_goes_with_the_run(self, db: Database, dump: Dump, sync: Sync) -> None:
        fill_two_days(dump)
        sync("day1", "2026-01-05")
        for table in ("sync_run_tables", "sync_run_drift"):
            db.connection.execute(f"DELETE FROM {table}")
        db.connection.execute("DELETE FROM sync_runs")
        for table in ("run_changes", "sync_run_inputs", "sync_run_guards"):
            assert db.one(f"SELECT count(*) FROM {table}") == 0


class TestProvenance:
    """Who made a run, with what, and why."""

    def test_the_ledger_says_who_with_which_version_and_options(self, shell: Shell, dump: Dump, db: Database) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        secret = ["--database-url", db.url.replace("?", "?password=hush&", 1), "--only", "agents"]
        done = shell.run("sync", dump.path, "--day", "day1", *secret, "--max-rejected", "5%", "--no-wait")
        assert done.returncode == 0, done.stderr
        (run,) = db.rows("SELECT version, database_role, os_user, host, options, reason FROM sync_runs")
        options = {"command": "sync", "data": str(dump.path), "only": ["agents"], "max_rejected": "5%", "no_wait": True}
        assert run["options"] == options
        assert run["database_role"] == "postgres"
        assert run["version"] == shell.run("--version").stdout.strip()
        assert run["os_user"]
        assert run["host"]
        assert run["reason"] is None
        assert "hush" not in str(db.rows("SELECT * FROM sync_runs"))

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("/data/dump", "/data/dump"),
            ("s3a://bucket/dump", "s3a://bucket/dump"),
            ("s3a://KEY:se/cr@et@bucket/dump", "s3a://bucket/dump"),
            ("https://host/dump?sig=secret#x", "https://host/dump"),
            ("abfss://container@account.net/dump", "abfss://account.net/dump"),
            ("/data/\udcff\x00", "/data/\\udcff\\x00"),
        ],
    )
    def test_a_url_is_kept_without_what_may_be_secret(self, given: str, kept: str) -> None:
        assert provenance.without_credentials(given) == kept

    def test_options_of_spark_are_kept_by_name(self) -> None:
        settings = Settings(spark_conf={"spark.hadoop.fs.s3a.secret.key": "hush", "spark.master": "local"})
        kept = syncing.options_of("/d", (), "spark", settings)
        assert kept["spark_conf"] == ["spark.hadoop.fs.s3a.secret.key", "spark.master"]
        assert kept["engine"] == "spark"

    def test_a_reason_is_kept_and_asked_for(self, dump: Dump, sync: Sync, db: Database) -> None:
        fill_two_days(dump)
        sync("day1", "2026-01-05", reason=" ")
        outcome = sync("day2", "2026-01-06", allow_mass_change=True)
        (note,) = (n for n in messages(outcome) if "--reason" in n)
        assert "the ledger says that no reason was given" in note
        assert outcome.notes[-1].kind == "no reason"
        assert db.one("SELECT message FROM sync_runs WHERE run_id = 2") == "no reason was given for --allow-mass-change"
        outcome = sync("day2", "2026-01-06", allow_mass_change=True, reason=" HR confirmed\nthe lay-off ")
        assert not any("--reason" in n for n in messages(outcome))
        assert db.rows("SELECT reason, message FROM sync_runs ORDER BY run_id") == [
            {"reason": None, "message": None},
            {"reason": None, "message": "no reason was given for --allow-mass-change"},
            {"reason": "HR confirmed the lay-off", "message": None},
        ]

    def test_publish_has_a_reason_too(self, shell: Shell, dump: Dump, db: Database) -> None:
        fill_two_days(dump)
        shell.run("sync", dump.path, "--day", "day1", "--sync-date", "2026-01-05")
        shell.run("stage", dump.path, "--day", "day2", "--sync-date", "2026-01-06")
        assert shell.run("publish").returncode == 3
        done = shell.run("publish", "--allow-mass-change", "--reason", "Reorganisation")
        assert done.returncode == 0, done.stderr
        newest = "SELECT options, reason FROM sync_runs ORDER BY run_id DESC LIMIT 1"
        options = {"command": "publish", "allow_mass_change": True}
        assert db.rows(newest) == [{"options": options, "reason": "Reorganisation"}]
        assert db.one("SELECT count(*) FROM sync_run_inputs WHERE run_id = 3 AND records_read > 0") > 3


class TestInputs:
    """What a run read."""

    def test_records_are_conserved(self, db: Database) -> None:
        for day, on in DAYS.items():
            sync_into(db.url, str(SAMPLE), day, on, allow_mass_change=True)
        rows = db.rows("SELECT * FROM sync_run_inputs")
        assert len(rows) > 40
        for row in rows:
            assert row["records_read"] == row["valid"] + row["duplicates"] + row["rejected"], row
        (details,) = (r for r in rows if (r["run_id"], r["input"]) == (1, "agent_details"))
        files = list((SAMPLE / "sync-day1" / "agent_details").glob("[!.]*"))
        assert (details["files"], details["bytes"]) == (len(files), sum(f.stat().st_size for f in files))
        for count in ("valid", "duplicates", "rejected"):
            assert sum(row[count] for row in rows) > 0, count
        assert details["complete"] is False
        assert "agent_details/cut-short.json" in details["unreadable"]
        assert "agent_details/cut-short.json: the file is not JSON" in details["incomplete_because"]
        assert db.one("SELECT count(*) FROM stg_agent_details") <= details["valid"]

    def test_a_later_run_leaves_what_an_earlier_one_read(self, dump: Dump, sync: Sync, db: Database) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(1), {"id": 5}], "a.json")
        sync("day1", "2026-01-05")
        dump.write("day1", "agent_details", [agent(1)], "a.json")
        sync("day1", "2026-01-05")
        counts = "SELECT records_read, valid, duplicates, rejected FROM sync_run_inputs WHERE input = 'agent_details'"
        assert [tuple(row.values()) for row in db.rows(f"{counts} ORDER BY run_id")] == [(3, 1, 1, 1), (1, 1, 0, 0)]

    def test_a_fingerprint_is_that_of_the_files(self, dump: Dump, sync: Sync, db: Database, tmp_path: Path) -> None:
        file = dump.write("day1", "agent_details", [agent(1)], "a.json")
        sync("day1", "2026-01-05")
        shutil.copytree(dump.path, tmp_path / "copy", copy_function=shutil.copy2)
        sync_into(db.url, str(tmp_path / "copy"), "day1", "2026-01-05")
        file.write_bytes(file.read_bytes() + b" ")
        sync("day1", "2026-01-05")
        prints = db.rows("SELECT fingerprint FROM sync_run_inputs WHERE input = 'agent_details' ORDER BY run_id")
        first, copied, changed = (row["fingerprint"] for row in prints)
        assert first == copied != changed

    def test_files_that_were_not_read_again_are_written_down_too(
        self, dump: Dump, sync: Sync, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("deskroll.input.dump.SETTLED_AFTER", 0)
        dump.write("day1", "agent_details", [agent(1), {"id": 5}])
        dump.write("day1", "agent_details", b"[")
        sync("day1", "2026-01-05")
        assert any("--reread" in note for note in messages(sync("day1", "2026-01-05")))
        one, other = (db.rows("SELECT * FROM sync_run_inputs WHERE run_id = %s ORDER BY input", n) for n in (1, 2))
        assert [row | {"run_id": 2} for row in one] == other

    def test_of_a_refused_run(self, dump: Dump, sync: Sync, db: Database) -> None:
        fill_two_days(dump)
        sync("day1", "2026-01-05")
        with pytest.raises(Refused):
            sync("day2", "2026-01-06")
        assert db.one("SELECT records_read FROM sync_run_inputs WHERE run_id = 2 AND input = 'agent_details'") == 8

    def test_of_a_failed_run_as_far_as_it_got(
        self, dump: Dump, sync: Sync, db: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        monkeypatch.setattr("deskroll.transform.run.Runner._count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            sync("day1", "2026-01-05")
        monkeypatch.undo()
        (listed,) = db.rows("SELECT * FROM sync_run_inputs WHERE input = 'agent_details'")
        assert (listed["found"], listed["files"], listed["complete"], listed["records_read"]) == (True, 1, None, None)
        db.connection.execute("ALTER TABLE agents ADD CHECK (name <> 'Agent 1')")
        with pytest.raises(DeskrollError):
            sync("day1", "2026-01-05")
        assert db.one("SELECT records_read FROM sync_run_inputs WHERE run_id = 2 AND input = 'agent_details'") == 1


class TestGuards:
    """How near the guards were."""

    def guard(self, db: Database, guarded: str, *, is_gain: bool = False) -> dict[str, Any]:
        (row,) = db.rows(
            """SELECT before, changed, round(share::NUMERIC, 2)::FLOAT AS share, threshold, refused, allowed
            FROM sync_run_guards WHERE guarded = %s AND is_gain = %s
            AND run_id = (SELECT max(run_id) FROM sync_runs)""",
            guarded,
            is_gain,
        )
        return row

    def test_a_guard_that_did_not_refuse_says_how_near_it_was(self, dump: Dump, sync: Sync, db: Database) -> None:
        dump.write("day1", "agent_details", [agent(n) for n in range(20)])
        dump.write("day2", "agent_details", [agent(n) for n in range(12)])
        sync("day1", "2026-01-05")
        none = {"before": 0, "changed": 0, "share": None, "threshold": None, "refused": False, "allowed": False}
        assert self.guard(db, "inactive agents") == none
        sync("day2", "2026-01-06")
        near = {"before": 20, "changed": 8, "share": 0.4, "threshold": 11, "refused": False, "allowed": False}
        assert self.guard(db, "active agents") == near

    def test_a_guard_that_refused_and_one_that_was_overruled(self, dump: Dump, sync: Sync, db: Database) -> None:
        fill_two_days(dump)
        sync("day1", "2026-01-05")
        with pytest.raises(Refused):
            sync("day2", "2026-01-06")
        far = {"before": 20, "changed": 12, "share": 0.6, "threshold": 11}
        assert self.guard(db, "active agents") == far | {"refused": True, "allowed": False}
        sync("day2", "2026-01-06", allow_mass_change=True)
        assert self.guard(db, "active agents") == far | {"refused": False, "allowed": True}

    def test_a_gain_that_is_only_noted_is_neither_refused_nor_allowed(
        self, dump: Dump, sync: Sync, db: Database
    ) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        dump.write("day2", "agent_details", [agent(n) for n in range(1, 30)])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        found = self.guard(db, "agents", is_gain=True)
        assert found["changed"] > found["threshold"]
        assert (found["refused"], found["allowed"]) == (False, False)

    def test_the_limit_of_rejected_records_is_a_guard(self, dump: Dump, sync: Sync, db: Database) -> None:
        dump.write("day1", "agent_details", [agent(1), *({"id": n} for n in range(2, 6))])
        with pytest.raises(Refused):
            sync("day1", "2026-01-05", max_rejected=None)
        bad = {"before": 5, "changed": 4, "share": 0.8, "threshold": 3}
        assert self.guard(db, "records of agent_details/") == bad | {"refused": True, "allowed": False}
        sync("day1", "2026-01-05", max_rejected="90%")
        assert self.guard(db, "records of agent_details/") == bad | {"threshold": 5, "refused": False, "allowed": True}
        sync("day1", "2026-01-05", max_rejected="4")
        assert self.guard(db, "records of all folders") == bad | {"threshold": 5, "refused": False, "allowed": True}

    def test_the_threshold_is_where_a_mass_change_begins(self) -> None:
        for before in range(1, 400):
            threshold = find_threshold(before)
            assert threshold is not None
            assert is_mass_change(threshold, before) or threshold > before
            assert not is_mass_change(threshold - 1, before)
        assert find_threshold(0) is None
        assert find_threshold(1) == FEWEST_OF_HALF
