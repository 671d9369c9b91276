"""Forgetting a person: nothing names the person any more, and everybody else's rows are as they were."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from deskroll.errors import UsageError
from deskroll.forget import forget
from deskroll.settings import Settings
from deskroll.sync import Refused
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, group, role, transaction
from tests.helpers.runs import Shell, Sync

NAME, FORMER, EMAIL, PHONE = "Zoë Quill-Ångström", "Zoë Quill", "zoe.quill@example.com", "+49 30 5550142"


def zoe(**changed: Any) -> dict[str, Any]:
    contact = {"name": NAME, "email": EMAIL, "phone": PHONE, "mobile": None}
    return agent(1, contact=contact | changed.pop("contact", {}), role_ids=[10], **changed)


@pytest.fixture
def two_days(dump: Dump, sync: Sync) -> None:
    """Everything has the name of agent 1: final tables, quarantine, changes, and the message of a refused run."""
    others = [agent(n) for n in range(2, 8)]
    for day, first in (("day1", zoe(contact={"name": FORMER})), ("day2", zoe(signature=f"<b>{NAME}</b>"))):
        dump.write(day, "agent_details", [first, *others])
        dump.write(day, "agents", [first, *others, agent(8, created_at=f"by {NAME}")])
        dump.write(day, "roles", [role(10), role(11) | {"description": f"ask {NAME.upper()}"}])
        dump.write(day, "admin_groups", [group(7, 1, 2) | {"name": f"Team of {NAME}"}, group("x", NAME)])
        dump.write(day, "budgets", [budget("b1", name=f"Travel {NAME}", description=EMAIL)])
        dump.write(day, "cards", [card("c1", name=f"{NAME}'s card", userId="u1"), card("c2", userId="u2")])
        dump.write(day, "transactions", [
            transaction("t1", userId="u1", userName=NAME, merchantName=f"Hotel for {FORMER}"),
            transaction("t2", userId="u2", userName="Agent 2", cardId="c2"),
            transaction("t3", userId="u1", userName=NAME, amount="?"),
        ])  # fmt: skip
    sync("day1", "2026-01-05", allow_mass_change=True)
    sync("day2", "2026-01-06", allow_mass_change=True)
    dump.write("day3", "agent_details", others[3:])
    dump.write("day3", "agents", others[3:])
    with pytest.raises(Refused):
        sync("day3", "2026-01-07")
    (dump.path / "sync-day4" / "agents").mkdir(parents=True)
    cut = json.dumps([others[0], zoe()])[:-40]  # its letters are escaped
    (dump.path / "sync-day4" / "agents" / "1.json").write_text(cut)
    sync("day4", "2026-01-08", allow_mass_change=True)


def settings(db: Database) -> Settings:
    return Settings(database_url=SecretStr(db.url))


def texts(db: Database) -> dict[str, str]:
    """All that each table has, as one text."""
    tables = db.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE")
    return {
        name: "\n".join(row["text"] for row in db.rows(f"SELECT one::TEXT AS text FROM {name} AS one"))
        for (name,) in (row.values() for row in tables)
    }


def naming(db: Database) -> set[str]:
    forms = [NAME, FORMER, EMAIL, PHONE, *(json.dumps(text)[1:-1] for text in (NAME, FORMER))]
    return {
        table
        for table, text in texts(db).items()
        if any(form.lower() in text.replace("\\\\", "\\").lower() for form in forms)
    }


@pytest.mark.usefixtures("two_days")
def test_no_table_names_the_person_any_more(db: Database) -> None:
    before = naming(db)
    assert {"agents", "agent_periods", "agent_names", "agent_details", "agent_pipeline_errors"} <= before
    assert {"run_changes", "sync_runs", "card_holders", "transactions", "cards", "budgets", "groups", "roles"} <= before
    assert {"group_periods", "budget_periods", "transaction_pipeline_errors", "stg_pipeline_errors"} <= before
    done = forget(settings(db), EMAIL, "request 12")
    assert naming(db) == set()
    # The ledger says that it was done, and not of whom.
    (run,) = db.rows(f"SELECT * FROM sync_runs WHERE run_id = {done.run_id}")
    assert (run["sync_day"], run["status"], run["reason"]) == ("forget", "succeeded", "request 12")
    assert run["options"] == {"command": "forget"}
    assert run["os_user"]
    assert run["message"].startswith("forgot one person; rows: ")
    assert "1 deleted from agents" in run["message"]


@pytest.mark.usefixtures("two_days")
def test_amounts_and_ids_that_others_refer_to_stay(db: Database) -> None:
    amounts = "SELECT transaction_id, amount_usd, card_id, budget_id, user_id FROM transactions ORDER BY 1"
    before = db.rows(amounts)
    assert db.rows("SELECT agent_id FROM transactions WHERE transaction_id = 't1'") == [{"agent_id": 1}]
    counted = {name: len(text.splitlines()) for name, text in texts(db).items()}
    forget(settings(db), "1", "request 12")
    assert db.rows(amounts) == before
    found = db.rows("SELECT agent_id, user_name FROM transactions WHERE transaction_id = 't1'")
    assert found == [{"agent_id": None, "user_name": "[forgotten]"}]
    now = {name: len(text.splitlines()) for name, text in texts(db).items()}
    for table in ("agent_pipeline_errors", "transaction_pipeline_errors", "run_changes", "cards", "groups", "budgets"):
        assert now[table] == counted[table], table


@pytest.mark.usefixtures("two_days")
def test_everybody_else_stays_as_they_were(db: Database) -> None:
    def others() -> dict[str, Any]:
        return {
            table: db.rows(f"SELECT * FROM {table} WHERE agent_id IS DISTINCT FROM 1 ORDER BY one::TEXT".replace(
                f"FROM {table}", f"FROM {table} AS one"))
            for table in ("agents", "agent_periods", "agent_names", "agent_details", "agent_role_mapping",
                          "agent_role_periods", "group_membership", "group_member_periods", "agent_group_periods")
        }  # fmt: skip

    before = others()
    forget(settings(db), "1", "request 12")
    assert others() == before
    assert db.rows("SELECT user_name, agent_id FROM card_holders WHERE user_id = 'u2'") == [
        {"user_name": "Agent 2", "agent_id": 2}
    ]


def test_somebody_of_the_same_name_stays(db: Database, dump: Dump, sync: Sync) -> None:
    namesake = agent(2, contact={"name": NAME, "email": "other@example.com"})
    dump.write("day1", "agent_details", [zoe(), namesake])
    sync("day1", "2026-01-05")
    forget(settings(db), EMAIL, "request 12")
    assert db.rows("SELECT agent_id, name FROM agents") == [{"agent_id": 2, "name": NAME}]
    assert db.rows("SELECT DISTINCT name FROM agent_periods") == [{"name": NAME}]


def test_a_name_of_one_word_goes_where_people_are_named_and_nowhere_else(db: Database, dump: Dump, sync: Sync) -> None:
    dump.write("day1", "agent_details", [agent(1, contact={"name": "May", "email": EMAIL})])
    dump.write("day1", "budgets", [budget("b1", name="May trip")])
    dump.write("day1", "transactions", [transaction("t1", userId="u1", userName="May", merchantName="May & Sons")])
    sync("day1", "2026-01-05")
    forget(settings(db), "1", "request 12")
    assert db.rows("SELECT name FROM budgets") == [{"name": "May trip"}]
    assert db.rows("SELECT user_name FROM transactions") == [{"user_name": "[forgotten]"}]
    assert db.rows("SELECT user_name FROM card_holders") == [{"user_name": "[forgotten]"}]


@pytest.mark.usefixtures("two_days")
def test_a_plan_erases_nothing(db: Database) -> None:
    before = texts(db)
    planned = forget(settings(db), EMAIL, "request 12", plan=True)
    assert texts(db) == before
    assert planned.run_id is None
    assert planned.tables == forget(settings(db), EMAIL, "request 12").tables


@pytest.mark.usefixtures("two_days")
def test_a_person_whom_the_source_still_sends_is_added_again(db: Database, sync: Sync, shell: Shell) -> None:
    done = shell.run("forget", EMAIL, "--reason", "request 12")
    assert done.returncode == 0, done.stderr
    assert "if the source still sends this person, the next sync adds them again" in done.stdout
    sync("day2", "2026-01-09", allow_mass_change=True)
    assert db.rows("SELECT valid_from::TEXT, name FROM agent_periods WHERE agent_id = 1") == [
        {"valid_from": "2026-01-09", "name": NAME}
    ]


def test_what_is_asked_for_wrongly_erases_nothing(db: Database, dump: Dump, sync: Sync) -> None:
    """A reason is needed that does not name the person, and one agent that is known."""
    dump.write("day1", "agent_details", [zoe(), *(agent(n, contact={"email": "shared@example.com"}) for n in (2, 3))])
    sync("day1", "2026-01-05")
    before = texts(db)
    for reason in ("", "  ", f"{NAME} asked", f"by {EMAIL.upper()}", "agent 1"):
        with pytest.raises(UsageError, match="reason"):
            forget(settings(db), EMAIL, reason)
    with pytest.raises(UsageError, match="'zoe' is not known") as wrong:
        forget(settings(db), "zoe", "request 12")
    assert EMAIL in wrong.value.hint
    with pytest.raises(UsageError, match="Several agents") as wrong:
        forget(settings(db), "shared@example.com", "request 12")
    assert "one of 2, 3" in wrong.value.hint
    assert texts(db) == before
