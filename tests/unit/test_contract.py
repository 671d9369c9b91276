"""A contract, compiled to SQL and run on DuckDB alone: types, faults, lists, duplicates."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from deskroll.engines.duckdb import DuckDB
from deskroll.input.dump import list_folder
from deskroll.spec import contract as c
from deskroll.spec.contract import Contract, Lookup, Rule, column, states
from deskroll.transform.check import check_elements, check_records
from deskroll.transform.compile import deduplicate, explode, find_rejected, find_repeated, look_up, needed

ON = date(2026, 1, 5)
OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
DATED = Contract(
    "things", (column("id", c.BIGINT, required=True), column("updated_at", c.TIMESTAMP)), "id", version_by="updated_at"
)


@pytest.fixture
def engine() -> Iterator[DuckDB]:
    with DuckDB("400MB", threads=1) as opened:
        yield opened


@pytest.fixture
def read(engine: DuckDB, tmp_path: Path) -> Any:
    """Check records by a contract: `read(contract, record, …)` makes the relation `checked`, and returns its rows."""

    def run(contract: Contract, *records: Any) -> list[dict[str, Any]]:
        (tmp_path / "things").mkdir(exist_ok=True)
        texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
        (tmp_path / "things" / "a.json").write_text(f"[{','.join(texts)}]")
        engine.read(list_folder(str(tmp_path), "things", "things"), check_records(contract), "checked")
        return rows(engine, "SELECT * FROM checked ORDER BY record_index")

    return run


def rows(engine: DuckDB, select: str) -> list[dict[str, Any]]:
    return [dict(zip(engine.columns(select), row, strict=True)) for row in engine.fetch(select)]


VALID: dict[str, tuple[c.Type, list[tuple[str, Any]]]] = {
    "text": (c.TEXT, [('"a"', "a"), ("1.5", "1.5"), ("true", "true"), ('""', ""), ("null", None)]),
    "key": (c.KEY, [(json.dumps("ä" * 500), "ä" * 500)]),
    "avatar": (c.TEXT_OR_AVATAR, [('{"avatar_url": "u"}', "u"), ('{"x": 1}', '{"x":1}'), ('"u"', "u")]),
    "kind": (c.JSON_KIND, [("{}", "OBJECT"), ("null", "NULL"), ("[]", "ARRAY")]),
    "integer": (
        c.BIGINT,
        [("-9223372036854775808", -(2**63)), ('"7"', 7), ("7.0", 7), ("4.637E3", 4637), ("0", 0), ("-0", 0)],
    ),
    "boolean": (c.BOOLEAN, [("true", True), ('"False"', False), ('"TRUE"', True)]),
    "digit": (c.DIGIT, [("0", 0), ("9", 9), ("2.0", 2)]),
    "date": (c.DATE, [('"2024-02-29"', date(2024, 2, 29))]),
    "decimal": (c.DECIMAL, [("1.50", "1.50"), ("-0.1234567890123456789", "-0.1234567890123456789"), ("1e3", "1e3")]),
    "not negative": (c.NOT_NEGATIVE, [("0.00", "0.00"), ("-0", "-0")]),
    "timestamp": (
        c.TIMESTAMP,
        [
            (f'"{text}"', datetime(2026, 1, 5, 8, 30, tzinfo=UTC))
            for text in (
                "2026-01-05T08:30:00Z",
                "2026-01-05 08:30:00",
                "2026-01-05T10:30:00+02",
                "2026-01-05T03:00:00-0530",
            )
        ],
    ),
}
REJECTED: dict[str, tuple[c.Type, list[str]]] = {
    "text": (c.TEXT, ["[1]", '"a\\u0000b"', '{"a": 1}']),
    "key": (c.KEY, [json.dumps("x" * 501)]),
    "avatar": (c.TEXT_OR_AVATAR, ['["u"]']),
    "integer": (c.BIGINT, ["9223372036854775808", "1.5", '"1x"', '" 1"', "true", '"+1"', "1e-1"]),
    "boolean": (c.BOOLEAN, ["1", '"yes"', '""', '"tRUE"']),
    "digit": (c.DIGIT, ["10", "-1", "2.5"]),
    "date": (c.DATE, ['"2026-02-29"', '"2026-1-5"', '"2026-01-05T00:00:00Z"', '"0999-01-01"']),
    "decimal": (c.DECIMAL, ['"1,5"', '"NaN"', '".5"', '"1."']),
    "not negative": (c.NOT_NEGATIVE, ["-0.01", "-1"]),
    "timestamp": (
        c.TIMESTAMP,
        ['"2026-01-05"', '"2026-01-05T24:00:00Z"', '"2026-02-30T00:00:00Z"', '"2026-01-05T08:30Z"', "1767600000"],
    ),
}


@pytest.mark.parametrize(("type_", "cases"), VALID.values(), ids=VALID)
def test_a_type_takes(type_: c.Type, cases: list[tuple[str, Any]], read: Any) -> None:
    contract = Contract("things", (column("id", c.BIGINT), column("x", type_)), "id")
    found = read(contract, *(f'{{"x": {text}}}' for text, _ in cases))
    assert [(row["x"], row["error_message"]) for row in found] == [(value, None) for _, value in cases]


@pytest.mark.parametrize(("type_", "texts"), REJECTED.values(), ids=REJECTED)
def test_a_type_rejects(type_: c.Type, texts: list[str], read: Any) -> None:
    contract = Contract("things", (column("id", c.BIGINT), column("x", type_)), "id")
    found = read(contract, *(f'{{"x": {text}}}' for text in texts))
    assert [(row["x"], row["error_type"]) for row in found] == [(None, "VALIDATION_ERROR")] * len(texts)
    assert all(row["error_message"].startswith("x: ") for row in found)
    assert [json.loads(row["raw_record"]) for row in found] == [{"x": json.loads(text)} for text in texts]


def test_a_path_that_has_nothing_leads_to_the_next(read: Any) -> None:
    contract = Contract("things", (column("name", c.TEXT, "contact.name", "name", required=True),), "name")
    found = read(
        contract,
        {"contact": {"name": "a"}, "name": "b"},
        {"contact": None, "name": "b"},
        {"contact": {}},
        {"contact": 1},
    )
    assert [row["name"] for row in found] == ["a", "b", None, None]
    assert [row["error_message"] for row in found] == [
        None,
        None,
        "contact.name: missing, expected text",
        "contact.name: missing, expected text; contact: found 1, expected an object",
    ]


def test_a_key_that_stands_twice_makes_the_record_bad_and_itself_unreadable(read: Any) -> None:
    contract = Contract("things", (column("id", c.BIGINT, required=True), column("name", c.TEXT)), "id")
    twice, other = read(contract, '{"id": 1, "id": 1}', '{"id": 2, "name": "a", "name": "b"}')
    assert (twice["id"], other["id"]) == (None, 2)
    assert twice["error_message"] == "the record: has a key more than once: id"
    assert other["error_message"] == "the record: has a key more than once: name"


def test_a_rule_looks_at_the_record_as_a_whole(read: Any) -> None:
    fields = (column("id", c.BIGINT), column("low", c.BIGINT), column("high", c.BIGINT))
    contract = Contract("things", fields, "id", rules=(Rule("low > high", "low: is above high"),))
    found = read(contract, {"id": 1, "low": 1, "high": 2}, {"id": 2, "low": 3, "high": 2}, {"id": 3, "low": 3})
    assert [row["error_message"] for row in found] == [None, "low: is above high", None]


LISTED = Contract("things", (column("id", c.BIGINT, required=True),), "id", lists=(c.ids("group_ids", "group_id"),))


def test_an_absent_list_is_not_an_empty_one(read: Any, engine: DuckDB) -> None:
    found = read(
        LISTED, {"id": 1}, {"id": 2, "group_ids": None}, {"id": 3, "group_ids": []}, {"id": 4, "group_ids": "x"}
    )
    assert [row["group_ids"] for row in found] == [None, "[]", "[]", '"x"']
    stated = engine.fetch(f"SELECT id FROM checked WHERE {states('group_ids')} ORDER BY 1")
    assert stated == [(2,), (3,)]


def test_a_fault_in_a_list_costs_the_element_or_the_list_and_not_the_record(read: Any, engine: DuckDB) -> None:
    (item,) = LISTED.lists
    assert [
        row["error_type"] for row in read(LISTED, {"id": 1, "group_ids": [7, "x", None, 8]}, {"id": 2, "group_ids": {}})
    ] == [None] * 2
    engine.map_rows(explode(LISTED, item, "checked"), check_elements(LISTED, item), "elements")
    select = "SELECT id, position, group_id, error_message FROM elements ORDER BY id, position"
    assert engine.fetch(select) == [
        (1, 0, 7, None),
        (1, 1, None, 'group_ids[1]: found "x", expected an integer of at most 64 bits'),
        (1, 2, None, "group_ids[2]: missing, expected an integer of at most 64 bits"),
        (1, 3, 8, None),
        (2, None, None, "group_ids: found {}, expected an array"),
    ]


def left_of(engine: DuckDB, contract: Contract) -> dict[int, tuple[int, bool]]:
    """Which record of each key is left, by its position, and whether a rejected one may be newer."""
    engine.create("repeats", find_repeated(contract, "checked"), materialize=True)
    engine.create("rejects", find_rejected(contract, "checked", ON), materialize=True)
    select = deduplicate(contract, "checked", "repeats", "rejects", ON)
    return {row["id"]: (row["record_index"], row["is_superseded"]) for row in rows(engine, select)}


@pytest.mark.parametrize(
    ("records", "left"),
    [
        ([{"id": 1, "updated_at": NEW}, {"id": 1, "updated_at": OLD}], (0, False)),
        ([{"id": 1, "updated_at": OLD}, {"id": 1, "updated_at": OLD}], (1, False)),
        ([{"id": 1, "updated_at": None}, {"id": 1, "updated_at": OLD}, {"id": 1}], (1, False)),
        ([{"id": 1, "updated_at": NEW}, {"id": 1, "updated_at": "?"}], (0, True)),
        ([{"id": 1, "updated_at": NEW}], (0, False)),
    ],
)
def test_the_newest_valid_record_of_a_key_is_left(records: list[Any], left: Any, read: Any, engine: DuckDB) -> None:
    read(DATED, *records)
    assert left_of(engine, DATED) == {1: left}


@pytest.mark.parametrize(
    ("bad", "valid", "may_be_newer"),
    [(OLD, NEW, False), (NEW, OLD, True), (NEW, NEW, False), (None, NEW, True), (OLD, None, True)],
)
def test_a_rejected_record_supersedes_an_older_one(
    bad: str | None, valid: str | None, may_be_newer: bool, read: Any, engine: DuckDB
) -> None:
    fields = (*DATED.fields, column("x", c.BOOLEAN))
    contract = Contract("things", fields, "id", version_by="updated_at")
    read(contract, {"id": 1, "updated_at": bad, "x": "?"}, {"id": 1, "updated_at": valid})
    assert left_of(engine, contract) == {1: (1, may_be_newer)}


@pytest.mark.parametrize(
    ("records", "left"),
    [
        ([{"updated_at": NEW}, {"updated_at": NEW, "x": "?"}], (0, True)),
        ([{"updated_at": NEW}, {"updated_at": "?"}, {"updated_at": OLD, "x": "?"}], (0, True)),
        ([{"updated_at": OLD, "x": "?"}, {"updated_at": "?"}, {"updated_at": NEW}], (2, True)),
        ([{"updated_at": OLD, "x": "?"}, {"updated_at": OLD, "x": 5}, {"updated_at": NEW}], (2, False)),
    ],
)
def test_of_several_rejected_records_the_one_that_may_be_the_newest_counts(
    records: list[Any], left: Any, read: Any, engine: DuckDB
) -> None:
    contract = Contract("things", (*DATED.fields, column("x", c.BOOLEAN)), "id", version_by="updated_at")
    read(contract, *({"id": 1} | record for record in records))
    assert left_of(engine, contract) == {1: left}


def test_a_record_from_the_future_is_ordered_as_of_the_sync_date(read: Any, engine: DuckDB) -> None:
    contract = Contract("things", DATED.fields, "id", version_by="updated_at", is_dated=True)
    read(contract, {"id": 1, "updated_at": "2026-01-05T12:00:00Z"}, {"id": 1, "updated_at": "2029-01-01T00:00:00Z"})
    assert left_of(engine, contract) == {1: (0, False)}
    assert left_of(engine, DATED) == {1: (1, False)}


def test_what_is_looked_up_and_not_found_is_the_fault_of_the_record(read: Any, engine: DuckDB) -> None:
    lookup = Lookup("rate", "rate_given IS NULL", "currency", "on_day", lambda keys: {}, "package", "rate: not known")
    fields = (
        column("id", c.BIGINT),
        column("currency", c.TEXT),
        column("on_day", c.DATE),
        column("rate_given", c.DECIMAL),
    )
    contract = Contract("things", fields, "id", lookup=lookup)
    day = {"on_day": "2026-01-05"}
    read(contract, {"id": 1, "currency": "EUR", **day}, {"id": 2, "currency": "XXX", **day}, {"id": 3, "rate_given": 1})
    assert sorted(engine.fetch(needed(lookup, "checked"))) == [("EUR", ON), ("XXX", ON)]
    engine.create("found", "SELECT 'EUR' AS text, DATE '2026-01-05' AS on_date, '1.1' AS value")
    engine.create("looked_up", look_up(lookup, "checked", "found"))
    found = rows(engine, "SELECT * FROM looked_up ORDER BY id")
    assert [(row["rate"], row["error_message"]) for row in found] == [
        ("1.1", None),
        (None, "rate: not known"),
        (None, None),
    ]
    assert [row["raw_record"] is None for row in found] == [True, False, True]
