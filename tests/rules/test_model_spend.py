"""Model = product, for the spend side: days and tran/ with every kind of dirt, in any order."""

import json
import shutil
import tempfile
from datetime import date
from itertools import permutations
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from deskroll.postgres.guards import Limits
from deskroll.settings import Settings
from deskroll.sync import Request
from deskroll.sync import sync_day as run_sync
from tests.helpers import model
from tests.helpers.databases import Database
from tests.helpers.factories import agent
from tests.helpers.model_spend import Spend
from tests.rules.test_model import booleans, empty, errors, mixed_days, moments, mostly, texts, tidy, watermarks, write

RAW = "@@"  # stands around the text of a number that Python would not write so


def raw(*numbers: str) -> list[str]:
    return [f"{RAW}{number}{RAW}" for number in numbers]


numbers = st.sampled_from(
    [
        0,
        5,
        12.5,
        -3,
        "7.25",
        "-0",
        "1e2",
        *raw("1.50", "1e3", "0.1234567890123456789", "12345678901234567890.5", "-0.0"),
    ]
)
rates = st.sampled_from(
    [None, 1, "1.25", 0.005, *raw("1.350505948066711412345", "2.5E-1", "0.0049999999999999999999"), 0, -1, "x"]
)
units = st.sampled_from(
    [
        "12559", 100, "-5", -250, "0", "-0", "0012", "999999999999999999", "", "1.5", "4.637E3", 10**18,
        *raw("1.0", "-4.637E3", "1.5e0", "1000000000000000000.0", "1.0000000000000000001"),
    ]
)  # fmt: skip
currencies = st.sampled_from(
    ["USD", "EUR", "GBP", "JPY", "KWD", "CLF", "RUB", "XAU", "ABC", "usd", "BGN", "HRK", "BYR"]
)
users = st.sampled_from(["u1", "u2", "u3", None])
uuids = st.sampled_from(["x1", "x2", "u1", None])
names = st.sampled_from(
    ["Agent 1", "AGENT  2 ", "a3@EXAMPLE.com", "\u00dcnal\u00a0\u00c9", "Gro\u00df", "nobody", "", None]
)
called = st.sampled_from(["Agent 1", "agent 2", "Agent 3", "u\u0308nal e\u0301", "GROSS", " "])
occurred = st.sampled_from(
    [
        "2026-01-01T23:59:59.999+00:00", "2026-01-04T12:00:00Z", "2025-12-26T00:30:00+02", "1998-12-31T00:00:00Z",
        "2025-11-17T00:00:00Z", "2025-11-16T12:00:00-0530", "2026-02-01T00:00:00Z",
    ]
)  # fmt: skip
changed = moments | st.sampled_from(["2099-01-01T00:00:00Z", "2026-01-03T23:59:59Z"])


def given_or_not(draw: st.DrawFn, share: int, **fields: st.SearchStrategy[Any]) -> dict[str, Any]:
    return {name: draw(values) for name, values in fields.items() if draw(st.integers(0, share))}


@st.composite
def budgets(draw: st.DrawFn) -> Any:
    spent = given_or_not(draw, 3, cleared=numbers, pending=numbers, total=numbers)
    period = {"limit": draw(mostly(numbers, 15))} | given_or_not(
        draw, 3, spent=mostly(st.just(spent), 15), assigned=numbers
    )
    record = {"id": draw(mostly(st.sampled_from(["b1", "b2", "b3"]), 30)), "name": draw(mostly(texts, 30))}
    if draw(st.integers(0, 3)):
        record |= {"currentPeriod": draw(st.one_of(*[mostly(st.just(period), 20)] * 3, st.just({}), st.none()))}
    start = st.sampled_from(["2025-04-23", "2025-02-30", "x", None])
    return record | given_or_not(
        draw, 3, startDate=start, retired=mostly(booleans), description=texts, limitlessOverspend=booleans
    )


@st.composite
def cards(draw: st.DrawFn) -> Any:
    record = {
        "id": draw(mostly(st.sampled_from(["c1", "c2", "c3"]), 30)),
        "status": draw(mostly(st.sampled_from(["ACTIVATED", "FROZEN", "LOST"]), 30)),
        "type": "PHYSICAL",
        "createdTime": "2024-09-23T17:53:44.000+00:00",
        "updatedTime": draw(changed),
    }
    period = given_or_not(draw, 4, limit=numbers, spent=numbers)
    some: dict[str, st.SearchStrategy[Any]] = {
        "userId": users,
        "userUuid": uuids,
        "lastFour": st.sampled_from(["0072", 72]),
        "currentPeriod": mostly(st.just(period)),
    }
    return record | given_or_not(draw, 5, budgetId=st.sampled_from(["b1", "b2", "b3", "b9"]), **some)


ids = st.sampled_from(["t1", "t2", "t3", "t4", None])
transaction_uuids = st.sampled_from(["v1", "v2", "v3", None])
kinds = st.sampled_from(["AUTHORIZATION", "AUTHORIZATION", "CLEAR", "clear", "DECLINE", "GIFT", None])
leads: dict[str, st.SearchStrategy[Any]] = {
    "transactionType": kinds,
    "originalAuthTransactionId": st.sampled_from(["t1", "t2", "t9", "", None]),
    "originalAuthTransactionUuid": st.sampled_from(["v1", "v3", "v9", "", None, None, None]),
    "clearingReference": st.sampled_from(["r", "", None]),
    "parentTransactionId": st.sampled_from(["t1", *[None] * 7]),
    "parentTransactionUuid": st.sampled_from(["v2", *[None] * 7]),
}


@st.composite
def transactions(draw: st.DrawFn) -> Any:
    money = {"originalCurrencyAmount": draw(units), "originalCurrencyCode": draw(currencies)}
    money |= given_or_not(draw, 3, exchangeRate=rates, exponent=st.sampled_from([0, 2, "3", 2, 10, None]))
    record = {
        "id": draw(mostly(ids, 30)),
        "uuid": draw(mostly(transaction_uuids, 30)),
        "occurredTime": draw(mostly(occurred, 30)),
        "updatedTime": draw(changed),
        "currencyData": draw(st.one_of(*[mostly(st.just(money), 30)] * 6, st.none())),
    }
    some: dict[str, st.SearchStrategy[Any]] = {
        "cardId": st.sampled_from(["c1", "c2", "c9"]),
        "budgetId": st.sampled_from(["b1", "b2", "b9"]),
    }
    some |= {"userId": users, "userUuid": uuids, "userName": names, "amount": numbers, "merchantName": texts}
    return record | given_or_not(draw, 3, **some, **leads)


RECORDS: dict[str, st.SearchStrategy[Any]] = {"budgets": budgets(), "cards": cards(), "transactions": transactions()}


def as_json(value: Any) -> str:
    return json.dumps(value).replace(f'"{RAW}', "").replace(f'{RAW}"', "")


@st.composite
def files(draw: st.DrawFn, folder: str) -> tuple[str, bytes]:
    some = [as_json(record) for record in draw(st.lists(RECORDS[folder], max_size=5))]
    key = draw(st.sampled_from(["results", "results", folder, "other", "lines", "cut"]))
    match key:
        case "lines":
            return ".jsonl", "\n".join(some).encode()
        case "cut":
            return ".json", f'{{"results": [{", ".join(some)}]'.encode()
        case "other":
            return ".json", f"[{', '.join(some)}]".encode()
        case _:
            return ".json", f'{{"nextPage": null, "{key}": [{", ".join(some)}], "more": {{"results": []}}}}'.encode()


def agents(names: list[str]) -> list[tuple[str, bytes]]:
    some = [agent(number, contact={"name": name}) for number, name in enumerate(names, start=1)]
    return [(".json", json.dumps(some).encode())]


people = st.lists(called, min_size=3, max_size=3).map(agents)
aged = st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"])
period = st.fixed_dictionaries({"limit": st.integers(0, 2)})
cents = st.fixed_dictionaries(
    {
        "originalCurrencyAmount": st.sampled_from([100, 101, 0, -40]),
        "originalCurrencyCode": st.sampled_from(["USD"] * 7 + ["ABC"]),
    }
)
owners, plastic = st.sampled_from(["b1", "b2", "b3"]), st.sampled_from(["c1", "c2", "c3"])
held = {"userId": users, "budgetId": owners, "updatedTime": aged}
TIDY = {
    "budgets": tidy(id=owners, name=st.sampled_from("AB"), currentPeriod=period),
    "cards": tidy(
        id=plastic, status=st.sampled_from("AB"), type=st.just("P"), createdTime=st.just("2024-09-23T17:53:44Z"), **held
    ),
    "transactions": tidy(
        id=ids, uuid=transaction_uuids, occurredTime=st.sampled_from(["2026-01-01T00:00:00Z", "2025-11-17T00:00:00Z"]),
        cardId=plastic, userName=st.sampled_from(["Agent 1", "Agent 2", "agent 2"]), currencyData=cents, **held,
        **leads,
    ),
}  # fmt: skip
DIRTY = {folder: st.lists(files(folder), min_size=1, max_size=2) for folder in RECORDS}
LABELS = ("day0", "day1", "tran")


def sync_into(db: Database, dump: Path, day: str, on: date) -> None:
    request = Request(str(dump), day, on)
    run_sync(request, Settings(database_url=SecretStr(db.url), threads=1), Limits(True, "100%"))


BOOKKEEPING = {"sync_day", "ingested_at", "created_at", "updated_at"}


def tables(db: Database, *without: str) -> dict[str, Any]:
    holders = db.rows("SELECT user_id, user_name, agent_id, match FROM card_holders")
    found = {
        table: {
            row[f"{table[:-1]}_id"]: {k: v for k, v in row.items() if k not in {*BOOKKEEPING, *without}}
            for row in db.rows(f"SELECT * FROM {table}")
        }
        for table in RECORDS
    }
    newest = db.one("SELECT updated_time FROM sync_watermarks WHERE pipeline = 'transactions'")
    uuids = db.rows("SELECT transaction_uuid, transaction_id FROM transaction_uuids")
    return found | {
        "card_holders": {row["user_id"]: (row["user_name"], row["agent_id"], row["match"]) for row in holders},
        "uuids": {row["transaction_uuid"]: row["transaction_id"] for row in uuids},
        "newest version": newest,
    }


def purchases(db: Database) -> Any:
    """The transactions that count, each with state and date, and which of them are one purchase."""
    rows = db.rows("SELECT transaction_id, purchase_id, state, spent_on FROM spend_records")
    together: dict[str, set[str]] = {}
    for row in rows:
        together.setdefault(row["purchase_id"], set()).add(row["transaction_id"])
    states = {row["transaction_id"]: (row["state"], row["spent_on"]) for row in rows}
    return states, set(map(frozenset, together.values()))


def expected(spend: Spend) -> dict[str, Any]:
    cards, transactions = spend.linked()
    holders = {
        user: (name.decode(), spend.agents.get(user), spend.matches[user]) for user, (_, name) in spend.holders.items()
    }
    found = {"budgets": spend.budgets, "cards": cards, "transactions": transactions, "card_holders": holders}
    return found | {"uuids": spend.uuids, "newest version": spend.newest_version}


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.tuples(*[mixed_days({**DIRTY, "agent_details": people}, {**TIDY, "agent_details": people})] * 3),
    order=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=5),
)
def test_any_days_in_any_order_leave_what_the_model_says(
    db: Database, content: tuple[Any, ...], order: list[Any]
) -> None:
    empty(db)
    state, spend = model.State(), Spend()
    dump = Path(tempfile.mkdtemp())
    try:
        for label, some in zip(LABELS, content, strict=True):
            write(dump, label, some)
        for number, day_of_month in order:
            if all(some is None for some in content[number].values()):
                continue
            label, on = LABELS[number], date(2026, 1, day_of_month)
            sync_into(db, dump, label, on)
            model.sync(state, dump, label, on)
            spend.sync(dump / f"sync-{label}", label, on, state)
            assert tables(db) == expected(spend)
            assert purchases(db) == spend.purchases()
            assert watermarks(db) == state.newest | spend.newest
            for name in ("budget", "card", "transaction"):
                said = {
                    day: sorted(rows, key=repr) for (what, day), rows in spend.errors.items() if what == name and rows
                }
                assert errors(db, name, f"{name}_id") == said
            before = db.versions()
            sync_into(db, dump, label, on)
            assert db.versions() == before
    finally:
        shutil.rmtree(dump)


@st.composite
def versions(draw: st.DrawFn, label: str) -> dict[str, Any]:
    """A day in which a version of a transaction, told by its updatedTime, is the same wherever else it stands."""

    def transaction(key: str, version: int) -> dict[str, Any]:
        origin = "tran" if label == "tran" else "api"
        money = {"originalCurrencyAmount": version * 100 + len(origin), "originalCurrencyCode": "USD"}
        links = {"cardId": f"c{version}", "budgetId": f"b{version % 2}", "userId": "u1", "userName": f"agent {version}"}
        moment = f"2026-01-0{version}T00:00:00Z"
        return {
            "id": key,
            "uuid": f"u{key}",
            "occurredTime": moment,
            "updatedTime": moment,
            "currencyData": money,
            **links,
        }

    keys = st.sampled_from(["t1", "t2"])
    spent = [transaction(*one) for one in draw(st.lists(st.tuples(keys, st.integers(1, 3)), max_size=3))]
    made: dict[str, Any] = {
        "createdTime": "2024-09-23T17:53:44.000+00:00",
        "type": "PHYSICAL",
        "budgetId": "b1",
        "userId": "u1",
    }
    moment = st.sampled_from([None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
    period = st.fixed_dictionaries({"limit": st.integers(0, 2), "spent": st.integers(0, 2)})
    some: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {"updatedTime": moment, "currentPeriod": period, "status": st.sampled_from("AB")}
    )
    held = {f"c{n}": made | {"id": f"c{n}"} | draw(some) for n in draw(st.sets(st.integers(1, 3)))}
    owned = {n: {"id": f"b{n}", "name": "B", "currentPeriod": draw(period)} for n in draw(st.sets(st.integers(0, 2)))}
    content = {"budgets": list(owned.values()), "cards": list(held.values()), "transactions": spent}
    return {folder: [(".json", json.dumps({"results": found}).encode())] for folder, found in content.items()}


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.tuples(*(versions(label) for label in LABELS)), tran_on=st.integers(1, 2))
def test_the_order_of_days_and_tran_does_not_matter(db: Database, content: tuple[Any, ...], tran_on: int) -> None:
    dump = Path(tempfile.mkdtemp())
    dates = {"day0": date(2026, 1, 1), "day1": date(2026, 1, 2), "tran": date(2026, 1, tran_on)}
    try:
        write(dump, "people", {"agent_details": agents(["Agent 1", "Agent 2", "Agent 3"])})
        for label, some in zip(LABELS, content, strict=True):
            write(dump, label, some)
        results = []
        for order in permutations(LABELS):
            empty(db)
            sync_into(db, dump, "people", date(2026, 1, 1))
            for label in order:
                sync_into(db, dump, label, dates[label])
            found = tables(db)
            for row in found["transactions"].values():
                del row["as_of"]  # which of the syncs that brought a version came first
            results.append(found)
        assert all(result == results[0] for result in results)
    finally:
        shutil.rmtree(dump)
