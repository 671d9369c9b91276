"""What people put on and beside the tables: views, keys, publications, indexes, partitions, hostile functions."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg import sql

from deskroll.errors import DatabaseError
from deskroll.postgres import migrations
from deskroll.postgres.publisher import FILES
from tests.helpers.databases import Database, make_migrated
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import DAYS, SAMPLE, Shell, sync_into
from tests.helpers.servers import other_servers, server_to_restart

KEYS = """SELECT conname, conrelid::REGCLASS::TEXT AS on_table, pg_get_constraintdef(oid), obj_description(oid)
FROM pg_constraint WHERE connamespace = 'public'::REGNAMESPACE AND contype IN ('p', 'u', 'f') ORDER BY 1, 2"""


def loads_all(db: Database) -> None:
    """See that first loads of agents, roles, groups and spend get in, and that every key is where it was."""
    before = db.rows(KEYS)
    for day in ("day1", "tran"):
        sync_into(db.url, str(SAMPLE), day, DAYS[day])
    assert db.rows(KEYS) == before
    assert db.one("SELECT count(*) FROM agents") == 25


@pytest.mark.parametrize(
    "theirs",
    [
        # The primary key is what lets a view leave columns out of GROUP BY.
        """CREATE VIEW who AS SELECT a.agent_id, a.name, count(h.sync_date)
        FROM agents a JOIN agent_status_history h USING (agent_id) GROUP BY a.agent_id""",
        """CREATE MATERIALIZED VIEW spent AS
        SELECT t.transaction_id, t.amount_usd FROM transactions t GROUP BY t.transaction_id""",
        "CREATE TABLE notes (agent_id BIGINT REFERENCES agents, note TEXT)",
        """CREATE SCHEMA theirs; CREATE TABLE theirs.pins (transaction_id TEXT COLLATE "C" REFERENCES transactions);
        COMMENT ON CONSTRAINT pins_transaction_id_fkey ON theirs.pins IS 'Kept.'""",
        "ALTER TABLE agents REPLICA IDENTITY USING INDEX agents_pkey",
        "CREATE UNIQUE INDEX only_once ON agents (agent_id, email)",
        "ALTER TABLE agents ADD COLUMN cost_centre TEXT DEFAULT 'none'",
        "COMMENT ON CONSTRAINT agents_pkey ON agents IS 'Ours, with a comment of theirs.'",
    ],
)
def test_what_leans_on_the_tables_stays_and_lets_a_first_load_in(theirs: str, db: Database) -> None:
    db.connection.execute(theirs)
    identity = "SELECT count(*) FROM pg_index WHERE indrelid = 'agents'::REGCLASS AND indisreplident"
    before = db.one(identity)
    loads_all(db)
    assert db.one(identity) == before


def test_a_foreign_key_of_another_owner_stays(db: Database) -> None:
    """The owner of deskroll's tables may not take it off, and so leaves its own keys on too."""
    owner, other = (f"{name}_{uuid4().hex[:8]}" for name in ("owner", "other"))
    for name in (owner, other):
        db.connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    try:
        for name in migrations.names():
            db.connection.execute(f"ALTER TABLE {name} OWNER TO {owner}")
        for row in db.rows("SELECT oid::REGPROCEDURE::TEXT AS signature FROM pg_proc WHERE proname LIKE 'deskroll%'"):
            db.connection.execute(f"ALTER FUNCTION {row['signature']} OWNER TO {owner}")
        db.connection.execute(
            f"""GRANT REFERENCES ON agents TO {other}; CREATE SCHEMA theirs AUTHORIZATION {other};
            SET ROLE {other}; CREATE TABLE theirs.notes (agent_id BIGINT REFERENCES public.agents); RESET ROLE;
            GRANT USAGE, CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON SCHEMA public TO {other}"""
        )
        sync_into(db.url.replace("postgres@", f"{owner}@"), str(SAMPLE), "day1", "2026-01-05")
        assert db.one("SELECT count(*) FROM pg_constraint WHERE conname = 'notes_agent_id_fkey'") == 1
        assert db.one("SELECT count(*) FROM agents") > 0
    finally:
        for name in (owner, other):
            db.connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture(scope="module")
def replicating() -> Iterator[str]:
    """A server that writes what logical replication needs."""
    with server_to_restart(next(iter(other_servers())), settings="wal_level = logical\n") as (url, _):
        yield url


@pytest.mark.parametrize(
    "published",
    ["FOR ALL TABLES", "FOR TABLE agents, agent_role_mapping", "FOR TABLE transactions WITH (publish = 'update')"],
)
def test_a_publication_lets_a_first_load_in(published: str, replicating: str) -> None:
    name = f"published_{uuid4().hex[:8]}"
    made = make_migrated(replicating, name)
    db = Database(made)
    db.connection.execute(f"CREATE PUBLICATION cdc {published}")
    loads_all(db)
    db.connection.close()


def test_a_unique_index_that_the_day_violates_is_named_and_loses_no_row(db: Database, dump: Dump, shell: Shell) -> None:
    db.connection.execute("CREATE UNIQUE INDEX one_address_each ON agents (email)")
    dump.write("2026-01-05", "agent_details", [agent(1, contact={"email": "both@example.com"}), agent(3)])
    dump.write("2026-01-06", "agent_details", [agent(1, contact={"email": "both@example.com"}), agent(3)])
    dump.write("2026-01-06", "agent_details", [agent(2, contact={"email": "both@example.com"})])
    assert shell.run("sync", dump.path, "--day", "2026-01-05").returncode == 0
    done = shell.run("sync", dump.path, "--day", "2026-01-06")
    assert done.returncode == 1
    assert "one_address_each on agents does not allow what the day's records say" in done.stderr
    assert "(both@example.com)" in done.stderr
    assert "drop it" in done.stderr
    assert db.status() == {1: "active", 3: "active"}
    assert db.one("SELECT message FROM sync_runs WHERE status = 'failed'").startswith("one_address_each")


def test_no_statement_passes_over_a_row_because_of_somebody_elses_index() -> None:
    """Without a target, ON CONFLICT DO NOTHING lets any unique index swallow rows."""
    for path in FILES.glob("*.sql"):
        for clause in path.read_text().split("ON CONFLICT")[1:]:
            assert clause.startswith(" ("), path.name


@pytest.mark.parametrize(
    ("table", "partition"),
    [("agents", True), ("agent_periods", True), ("transactions", False)],
)
def test_a_table_that_is_no_plain_one_is_refused(table: str, partition: bool, db: Database, shell: Shell) -> None:
    if partition:
        db.connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        key = "agent_id"
        db.connection.execute(f"CREATE TABLE {table} (LIKE old_{table} INCLUDING DEFAULTS) PARTITION BY HASH ({key})")
    else:
        db.connection.execute(f"CREATE TABLE more_{table} () INHERITS ({table})")
    done = shell.run("sync", SAMPLE, "--day", "day1")
    assert done.returncode == 1
    assert f"Tables of deskroll are not what it made: {table} is" in done.stderr


# Functions and schemas of somebody who may log in.


@pytest.fixture
def mallory(db: Database) -> Iterator[str]:
    name = f"mallory_{uuid4().hex[:8]}"
    db.connection.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    db.connection.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


ATTACK = "RETURNS VOID LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'ALTER ROLE {} SUPERUSER'; END $$"


def test_a_schema_in_which_everybody_may_create_is_refused(db: Database, shell: Shell) -> None:
    db.connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    for command in (
        ("sync", SAMPLE, "--day", "day1"), ("stage", SAMPLE, "--day", "day1"), ("publish",), ("db", "migrate"),
        ("errors", "--purge", "--older-than", "1d"),
    ):  # fmt: skip
        done = shell.run(*command)
        assert done.returncode == 1, command
        assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in done.stderr
    db.connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert shell.run("sync", SAMPLE, "--day", "day1").returncode == 0


@pytest.mark.parametrize(
    "signature",
    [
        "deskroll_detach_keys(text, text, text, text, text)",
        "deskroll_replace_quarantine(text, text)",
        "deskroll_begin(unknown_day varchar)",
        "deskroll_tell_stale(text, text)",
        "deskroll_active_groups(text)",
    ],
)
def test_a_function_of_the_same_name_is_never_taken_for_ours(signature: str, db: Database, mallory: str) -> None:
    """Also if it is put there by somebody who was let in: who may create, and was trusted once."""
    db.connection.execute(f"GRANT CREATE ON SCHEMA public TO {mallory}")
    attack = ATTACK.format(mallory)
    db.connection.execute(f"SET ROLE {mallory}; CREATE FUNCTION public.{signature} {attack}; RESET ROLE")
    for day in ("day1", "day2"):
        sync_into(db.url, str(SAMPLE), day, DAYS[day])
    assert db.one("SELECT rolsuper FROM pg_roles WHERE rolname = %s", mallory) is False


def test_a_schema_named_like_the_user_does_not_come_before_ours(db: Database, mallory: str, dump: Dump) -> None:
    dump.write("2026-01-05", "agent_details", [agent(1)])
    db.connection.execute(f"CREATE SCHEMA postgres AUTHORIZATION {mallory}")
    db.connection.execute("CREATE TABLE postgres.agents (LIKE public.agents)")
    db.connection.execute(f"CREATE FUNCTION postgres.deskroll_begin(text) {ATTACK.format(mallory)}")
    sync_into(db.url, str(dump.path), "2026-01-05", "2026-01-05")
    assert db.one("SELECT count(*) FROM public.agents") == 1
    assert db.one("SELECT count(*) FROM postgres.agents") == 0
    assert db.one("SELECT rolsuper FROM pg_roles WHERE rolname = %s", mallory) is False
    # A whole set of tables in there is not ours either.
    db.connection.execute("CREATE TABLE postgres.deskroll_migrations (LIKE public.deskroll_migrations)")
    with pytest.raises(DatabaseError, match=f"The schema postgres is named like this user and belongs to {mallory}"):
        sync_into(db.url, str(dump.path), "2026-01-05", "2026-01-05")


def test_every_function_of_ours_looks_for_names_in_its_own_schema(db: Database) -> None:
    found = db.rows("SELECT proname, proconfig, prosrc FROM pg_proc WHERE proname LIKE 'deskroll%%'")
    assert len(found) == 47
    qualified = {"deskroll_fold": "pg_catalog.lower", "deskroll_kind": "pg_catalog.upper"}  # inlined, for speed
    qualified["deskroll_midnight"] = "AT TIME ZONE"  # which is always that of PostgreSQL
    for row in found:
        if row["proconfig"] != ["search_path=public, pg_temp"]:
            assert qualified[row["proname"]] in row["prosrc"]
