"""Publishing by hand with psql, migrations, keys that come off and go on again, and what must agree with what."""

import re
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from deskroll import sync as syncing
from deskroll.errors import UsageError
from deskroll.pipelines import PIPELINES
from deskroll.postgres import database, migrations
from deskroll.postgres.guards import Limits
from deskroll.postgres.publisher import FILES, by_hand, read_file
from deskroll.settings import Settings
from deskroll.spec.pipeline import Pipeline
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, group, role, transaction
from tests.helpers.runs import Sync
from tests.helpers.servers import another_server, other_servers

SAMPLE = Path(__file__).parent.parent.parent / "sample_data"


def psql(url: str, script: str, *options: str) -> str:
    settings = Settings(database_url=SecretStr(url))
    command = [database.psql(settings), "--no-psqlrc", "--quiet", *options, url]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stage(url: str, dump: Path, day: str, on: str, *only: str) -> None:
    request = syncing.Request(str(dump), day, date.fromisoformat(on), only)
    syncing.stage_day(request, Settings(database_url=SecretStr(url)))


def contents(url: str, since: datetime) -> dict[str, list[object]]:
    """All final tables and quarantines, without what differs from run to run."""
    db = Database(url)
    found = db.everything(since)
    db.connection.close()
    return {table: rows for table, rows in found.items() if not table.startswith(("stg_", "sync_run", "run_"))}


def write_spend(dump: Dump, day: str) -> None:
    """A budget of which only the second day has cards, a card that comes after its transaction, and what is bad."""
    dump.write(day, "budgets", {"results": [budget("b1", name=day), {"id": "b2"}]})
    dump.write(day, "cards", {"results": [card("c1" if day == "day2" else "c0", userId="u1"), card("c3", status=None)]})
    dump.write(day, "transactions", {"results": [transaction(day, userId="u1", userName="AGENT  1")]})


@pytest.mark.parametrize("way", ["deskroll sql | psql", "psql -1 -f"])
def test_by_hand_through_psql_gives_the_same_tables(
    way: str, url: str, server: str, template: str, db: Database, dump: Dump, sync: Sync
) -> None:
    days = {
        "day1": [agent(1, role_ids=[5, 6]), agent(2, group_ids=[7, "x"]), agent(3)],
        "day2": [agent(1, role_ids=[6, 99], contact={"name": "N"}), {"id": 2}],
    }
    for day, records in days.items():
        dump.write(day, "agent_details", records)
        dump.write(day, "roles", [{"id": number, "name": day} for number in (5, 6)])
        dump.write(day, "admin_groups", [{"id": 7, "name": "G", "agent_ids": [len(records)], "parent_group_id": 8}])
        write_spend(dump, day)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {template}_hand TEMPLATE {template}")
    began = datetime.now(UTC)
    hand = url.replace(url.rpartition("/test_")[2].partition("?")[0], "").replace("/test_", f"/{template}_hand")
    try:
        for number, day in enumerate(days, start=5):
            sync(day, f"2026-01-0{number}")
            stage(hand, dump.path, day, f"2026-01-0{number}")
            for pipeline in PIPELINES:
                if way == "psql -1 -f":
                    psql(hand, "", "-1", "-v", "ON_ERROR_STOP=1", "-f", str(FILES / pipeline.publication.file))
                else:
                    psql(hand, by_hand(pipeline.publication))
            assert contents(hand, began) == contents(url, began)
        assert psql(hand, "SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'f')", "-tA") == psql(
            url, "SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'f')", "-tA"
        )
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {template}_hand WITH (FORCE)")


def test_by_hand_settings_come_before_what_was_staged(url: str, db: Database, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    stage(url, dump.path, "day1", "2026-01-05")
    settings = "SET deskroll.sync_day = 'mine'; SET deskroll.sync_date = '2026-02-01'; SET deskroll.source = 'tran';"
    psql(url, settings + by_hand(PIPELINES[0].publication))
    assert db.rows("SELECT sync_day, source FROM agents") == [{"sync_day": "mine", "source": "tran"}]
    assert str(db.one("SELECT sync_date FROM agent_status_history")) == "2026-02-01"


def test_by_hand_twice_in_one_session_is_as_once(url: str, db: Database) -> None:
    stage(url, SAMPLE, "day1", "2026-01-05")
    every = "".join(by_hand(pipeline.publication) for pipeline in PIPELINES)
    psql(url, every)
    before = db.versions()
    psql(url, every + every)
    assert db.versions() == before


def test_by_hand_what_waited_is_linked_by_the_file_that_brings_it(url: str, db: Database, dump: Dump) -> None:
    by_name = {pipeline.name: pipeline.publication for pipeline in PIPELINES}
    dump.write("day1", "cards", [card("c1")])
    dump.write("day1", "transactions", [transaction("t1", cardId="c2")])
    dump.write("day2", "budgets", [budget("b1")])
    dump.write("day3", "cards", [card("c2", budgetId=None)])
    linked = """SELECT card.budget_id, spent.card_id, spent.budget_id AS b
        FROM cards AS card, transactions AS spent WHERE card.card_id = 'c1'"""
    published = [
        (("cards", "transactions"), (None, None, None)),
        (("budgets",), ("b1", None, "b1")),
        (("cards",), ("b1", "c2", "b1")),
    ]
    for number, (names, expected) in enumerate(published, start=1):
        stage(url, dump.path, f"day{number}", f"2026-01-0{number}")
        for name in names:
            psql(url, by_hand(by_name[name]))
        assert [tuple(row.values()) for row in db.rows(linked)] == [expected]


def test_by_hand_who_leaves_leaves_groups_and_keeps_cards(url: str, db: Database, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    dump.write("day1", "admin_groups", [group(7, 1)])
    dump.write("day1", "transactions", [transaction("t", userId="u", userName="Agent 1")])
    dump.write("day2", "agent_details", [agent(1, deactivated=True, contact={"name": "Renamed"})])
    found = []
    for day, on in (("day1", "2026-01-05"), ("day2", "2026-01-06")):
        stage(url, dump.path, day, on)
        staged = {row["pipeline"] for row in db.rows("SELECT pipeline FROM stg_syncs")}
        for pipeline in PIPELINES[:1] if day == "day2" else [p for p in PIPELINES if p.name in staged]:
            psql(url, by_hand(pipeline.publication))
        found.append((db.inactive_groups(), db.one("SELECT agent_id FROM card_holders")))
    assert found == [(set(), 1), ({7}, 1)]


def test_by_hand_a_backfill_writes_its_own_date_whatever_else_is_staged(
    url: str, db: Database, dump: Dump, sync: Sync
) -> None:
    for day in ("day1", "day2"):
        dump.write(day, "agent_details", [agent(1)])
    dump.write("day2", "roles", [role(5)])
    dump.write("day3", "agent_details", [agent(1, deactivated=True)])
    sync("day1", "2026-01-05")
    sync("day2", "2026-01-06")
    stage(url, dump.path, "day3", "2026-01-05")
    stage(url, dump.path, "day2", "2026-01-06", "roles")
    psql(url, by_hand(PIPELINES[0].publication))
    assert db.history() == {(1, 5): False, (1, 6): True}


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: p.name)
def test_by_hand_what_was_not_staged_is_not_published(
    pipeline: Pipeline, url: str, db: Database, dump: Dump, sync: Sync
) -> None:
    write_spend(dump, "day2")
    dump.write("day2", "agent_details", [agent(1, group_ids=[2], role_ids=[3])])
    dump.write("day2", "admin_groups", [group(2, 1)])
    dump.write("day2", "roles", [role(3)])
    sync("day2", "2026-01-05")
    before = db.versions()
    for table in ("stg_sync_sources", *(staging.table for staging in pipeline.staging)):
        db.connection.execute(f"TRUNCATE {table}")
    db.connection.execute("DELETE FROM stg_syncs WHERE pipeline = %s", [pipeline.name])
    with pytest.raises(AssertionError, match=rf"Nothing is staged of {pipeline.name}\."):
        psql(url, by_hand(pipeline.publication))
    assert db.versions() == before


def test_by_hand_staging_of_ones_own_moves_the_watermark_of_its_date(url: str, db: Database) -> None:
    psql(url, "INSERT INTO stg_roles (role_id, name) VALUES (7, 'R')")
    every = "SET deskroll.sync_date = '2026-01-05';" + by_hand(PIPELINES[1].publication)
    psql(url, every)
    assert db.one("SELECT name FROM roles") == "R"
    moved = db.rows("SELECT pipeline, sync_date::TEXT FROM sync_watermarks WHERE sync_date IS NOT NULL")
    assert moved == [{"pipeline": "roles", "sync_date": "2026-01-05"}]


def test_by_hand_waits_for_a_run_to_end(url: str, db: Database, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    stage(url, dump.path, "day1", "2026-01-05")
    with psycopg.connect(url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [int.from_bytes(b"deskroll")])
        with pytest.raises(AssertionError, match="lock timeout"):
            psql(url, "SET lock_timeout = '100ms';" + by_hand(PIPELINES[0].publication))
    assert db.one("SELECT count(*) FROM agents") == 0


def test_by_hand_without_a_transaction_no_key_comes_off(url: str, db: Database, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1)])
    stage(url, dump.path, "day1", "2026-01-05")
    psql(url, read_file(PIPELINES[0].publication).partition("TRUNCATE stg_agent_changes")[0])
    assert db.one("SELECT count(*) FROM pg_constraint WHERE conrelid = 'agents'::regclass AND contype = 'p'") == 1


def test_publish_takes_over_what_stage_left(url: str, db: Database, dump: Dump) -> None:
    dump.write("day1", "agent_details", [agent(1), {"id": 2}])
    settings = Settings(database_url=SecretStr(url))
    with pytest.raises(UsageError, match="staged: nothing"):
        syncing.publish_staged((), settings, Limits())
    stage(url, dump.path, "day1", "2026-01-05")
    assert db.one("SELECT count(*) FROM agents") == 0
    outcome = syncing.publish_staged(("agents",), settings, Limits())
    assert db.status() == {1: "active"}
    assert outcome.published.tables[0].staged == 2  # the rejected record's key is staged too
    assert db.rows("SELECT sync_day, status FROM sync_runs") == [{"sync_day": "day1", "status": "succeeded"}]


@pytest.mark.parametrize("only", [[], *([p.name] for p in PIPELINES)])
def test_a_first_load_leaves_the_keys_as_the_migrations_made_them(only: list[str], url: str, db: Database) -> None:
    definitions = (
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace"
    )
    before = sorted(map(str, db.rows(definitions)))
    request = syncing.Request(str(SAMPLE), "day1", date(2026, 1, 5), tuple(only))
    syncing.sync_day(request, Settings(database_url=SecretStr(url)), Limits())
    assert sorted(map(str, db.rows(definitions))) == before
    watermarks = db.rows("SELECT pipeline, sync_date FROM sync_watermarks")
    published = {row["pipeline"]: row["sync_date"] for row in watermarks if row["sync_date"]}
    assert published == dict.fromkeys(only or [p.name for p in PIPELINES], date(2026, 1, 5))


def test_migrations_go_down_and_up_again(url: str, db: Database) -> None:
    schema = """SELECT table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema = 'public' ORDER BY 1, 2"""
    before = db.rows(schema)
    numbered = migrations.scripts(migrations.MIGRATIONS)
    for script in reversed([*numbered, *migrations.scripts(migrations.ROUTINES)]):
        db.connection.execute(script.down)
    db.connection.execute("TRUNCATE deskroll_migrations")
    assert {row["table_name"] for row in db.rows(schema)} == {"deskroll_migrations"}
    with database.connect(url) as connection:
        assert migrations.migrate(connection) == [*(script.name for script in numbered), "routines"]
        assert migrations.migrate(connection) == []
    assert db.rows(schema) == before


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda p: p.name)
def test_contract_staging_tables_and_publish_sql_agree(pipeline: Pipeline, url: str, db: Database, dump: Dump) -> None:
    """Every column that an engine makes is in its staging table, and every final column is written by the SQL file."""
    for source in pipeline.inputs:
        dump.write("day1", source.folder, [])
    stage(url, dump.path, "day1", "2026-01-05")

    def columns(table: str) -> set[str]:
        found = db.rows("SELECT column_name FROM information_schema.columns WHERE table_name = %s", table)
        return {row["column_name"] for row in found}

    def set_columns(*assignments: str) -> set[str]:
        return set(re.findall(r"^\s*(\w+) = ", "\n".join(assignments), re.MULTILINE))

    sql = re.sub(r"^ *--.*\n", "", read_file(pipeline.publication), flags=re.MULTILINE)
    functions = "".join(script.up for script in migrations.scripts(migrations.ROUTINES))
    for table in pipeline.publication.tables:
        inserted = re.findall(rf"INSERT INTO {table} \(([^)]*)\)", sql + functions)
        assert inserted, table
        updated = re.findall(rf"UPDATE {table} SET\s(.*?)\nFROM", sql, re.DOTALL)
        linked = set_columns(*re.findall(rf"UPDATE {table} SET\s(.*?)\n +FROM", functions, re.DOTALL))
        made_by_itself = {
            row["column_name"]
            for row in db.rows(
                """SELECT column_name FROM information_schema.columns WHERE table_name = %s
                AND (is_identity = 'YES' OR column_default IS NOT NULL)""",
                table,
            )
        }
        everywhere = set(re.findall(r"\w+", " ".join(inserted))) | set_columns(*updated) | linked
        assert everywhere | made_by_itself == columns(table), table
        written = set_columns(*updated) | linked | (made_by_itself & {"created_at"})
        keys = db.rows(
            """SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
            WHERE indisprimary AND indrelid = %s::regclass""",
            table,
        )
        key = {row["attname"] for row in keys}
        expected = columns(table) - key
        assert written - key == expected if updated or linked else not expected, table
    for staging in pipeline.staging:
        made = columns(staging.table) - {"ingested_at"}
        named = set(re.findall(r"\b(?:today|agent|staged)\.(\w+)", sql)) | {"sync_day", "source"}
        named |= set(re.findall(r"\bside\.(\w+)", functions))
        assert made <= named | columns(staging.table.removeprefix("stg_")) | {"is_rejected"}, staging.table
    for source in (s for s in pipeline.inputs if s.folder in pipeline.input_names):
        for field in source.contract.fields:
            finals = set().union(*(columns(table) for table in pipeline.publication.tables))
            texts = [s.select for s in pipeline.staging] + [rule.violated_when for rule in source.contract.rules]
            is_used = any(re.search(rf"\b{field.name}\b", text) for text in texts)
            assert field.name in finals or is_used, f"{source.folder}: {field.name} leads nowhere"


@pytest.mark.parametrize("version", other_servers())
def test_another_version_of_the_server_gives_the_same_tables(version: str, url: str, dump: Dump, sync: Sync) -> None:
    for day in ("day1", "day2"):
        some = [agent(n, group_ids=[7, 8, "x"], role_ids=[n % 3]) for n in range(20 if day == "day1" else 15)]
        dump.write(day, "agent_details", some)
        dump.write(day, "agent_details", b'[{"id": 1, "available": "\\u0000"}]')
        dump.write(day, "roles", [{"id": number, "name": "R"} for number in (0, 1)])
        dump.write(
            day, "admin_groups", [{"id": n, "name": "G", "agent_ids": [n], "parent_group_id": n + 1} for n in (7, 8)]
        )
        write_spend(dump, day)
    began = datetime.now(UTC)
    with another_server(version) as other:
        for number, day in enumerate(("day1", "day2"), start=5):
            sync(day, f"2026-01-0{number}")
            request = syncing.Request(str(dump.path), day, date(2026, 1, number))
            syncing.sync_day(request, Settings(database_url=SecretStr(other)), Limits())
            assert contents(other, began) == contents(url, began)
