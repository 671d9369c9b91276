"""Model = product: days with every kind of dirt, and all final tables compared with the plain rules."""

import json
import shutil
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from pydantic import SecretStr

from deskroll.postgres.guards import Limits
from deskroll.settings import Settings
from deskroll.sync import Request
from deskroll.sync import sync_day as run_sync
from tests.helpers import model
from tests.helpers.databases import Database
from tests.helpers.factories import agent

Files = list[tuple[str, bytes]]  # the ending of a file's name, and what it holds
Folders = dict[str, st.SearchStrategy[Files]]
Day = dict[str, Files | None]

SEED = agent(1)

ids = st.sampled_from([1, 2, 3, 4, 5, 6])
texts = st.sampled_from(
    ["", "a", "\\N", "\\.", "a\n\\.\nb", "tab\there", "cr\r\n", 'quo"te, comma', "é😀", "{x", "[", "null"]
)
odd: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        5,
        1.5,
        "x",
        "\x00",
        "{\x00",
        "\ud800",
        "|",
        "k" * 500,
        "k" * 501,
        [],
        {},
        {"a": 1},
        "2026-01-01T00:00:00Z",
        "",
        "true",
        "12",
    ]
)
moments = st.sampled_from(
    ["2026-01-01T00:00:00Z", "2026-01-02T05:30:00+05:30", "2026-01-02T00:00:00.123Z", "2026-01-03 00:00:00", None]
)
booleans = st.sampled_from([True, False, None, "true", "False"])


def mostly(good: st.SearchStrategy[Any], share: int = 12) -> st.SearchStrategy[Any]:
    return st.integers(0, share).flatmap(lambda n: odd if n == 0 else good)


groups = st.one_of(st.none(), st.lists(mostly(st.integers(10, 14), 6), max_size=4), odd)
members = st.one_of(st.none(), st.lists(mostly(st.integers(1, 8), 12), max_size=4), odd)
held = st.one_of(st.none(), st.lists(mostly(st.integers(20, 24), 12), max_size=3), st.lists(st.integers(20, 23)), odd)
channels = st.one_of(
    st.none(),
    st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {"channel": mostly(st.sampled_from(["chat", "ticket"]), 8)},
                optional={"available": mostly(booleans), "available_since": mostly(moments)},
            ),
            odd,
        ),
        max_size=3,
    ),
    odd,
)


@st.composite
def records(draw: st.DrawFn, *, details: bool) -> Any:
    if draw(st.integers(0, 25)) == 0:
        return draw(odd)
    record: dict[str, Any] = {"id": draw(mostly(st.one_of(ids, ids.map(str)), 15))}
    person = {"email": draw(mostly(texts, 20)), "name": draw(mostly(texts, 20)), "phone": draw(st.none() | texts)}
    record |= draw(st.sampled_from([{"contact": person}, person, {"contact": None, **person}]))
    record |= {
        "updated_at": draw(mostly(moments, 20)),
        "deactivated": draw(st.sampled_from([None, False, False, True])),
    }
    if details:
        record |= {
            "group_ids": draw(groups),
            "role_ids": draw(held),
            "availability": draw(channels),
            "signature": draw(st.none() | texts),
        }
        record["contact" if draw(st.booleans()) else "extra"] = record.get("contact")
        if isinstance(record.get("contact"), dict):
            record["contact"] |= {
                "avatar": draw(st.sampled_from([None, "u", {"avatar_url": "v"}, {"avatar_url": "\x00"}, {"b": 1}, [1]]))
            }
    return {key: record[key] for key in draw(st.permutations(list(record)))}


@st.composite
def plain_records(draw: st.DrawFn, /, numbers: st.SearchStrategy[int], **fields: st.SearchStrategy[Any]) -> Any:
    """A record with an id and a name, such as a role or a group."""
    if draw(st.integers(0, 25)) == 0:
        return draw(odd)
    record = {"id": draw(mostly(numbers, 20)), "name": draw(mostly(texts, 20)), "updated_at": draw(mostly(moments, 20))}
    record |= {name: draw(values) for name, values in fields.items() if draw(st.integers(0, 4))}
    return {key: record[key] for key in draw(st.permutations(list(record)))}


RECORDS = {
    "agent_details": records(details=True),
    "agents": records(details=False),
    "roles": plain_records(st.integers(20, 24), description=texts, default=mostly(booleans), agent_type=st.just(1)),
    "admin_roles": plain_records(st.integers(20, 24), agent_ids=members),
    "admin_groups": plain_records(
        st.integers(10, 16), agent_ids=members, parent_group_id=mostly(st.none() | st.integers(10, 17), 15)
    ),
}
RESOURCE = {"roles": "roles", "admin_roles": "roles", "admin_groups": "groups"}


SAYS = ['"next": null', '"nextPage": "2"', '"nextPage": ""', '"errors": ["x"]', '"total": 4']


@st.composite
def files(draw: st.DrawFn, folder: str) -> tuple[str, bytes]:
    some = draw(st.lists(RECORDS[folder], max_size=5))
    texts_ = [json.dumps(r, ensure_ascii=draw(st.booleans()) or "\\ud8" in json.dumps(r)) for r in some]
    if texts_ and texts_[0].startswith('{"id"') and draw(st.integers(0, 20)) == 0:
        texts_[0] = texts_[0].replace('{"id"', '{"id": 3, "id"', 1)
    array = f"[{', '.join(texts_)}]"
    resource = RESOURCE.get(folder, "agents")
    shape = draw(st.sampled_from(["array", "array", "array", "lines", "results", resource, "object", "bad"]))
    match shape:
        case "lines":
            return ".jsonl", "\n".join([*texts_, *draw(st.sampled_from([[], [], [""], ["{bad"]]))]).encode()
        case "results" | "agents" | "roles" | "groups":
            says = draw(
                st.sampled_from(['"next": null', '"nextPage": "2"', '"nextPage": ""', '"errors": ["x"]', '"total": 4'])
            )
            return ".json", f'{{{says}, "{shape}": {array}}}'.encode()
        case "object":
            return ".json", (texts_ or [""])[0].encode()
        case "bad":
            broken = [array[:-1], array[:-1] + ",]", '"text"', "12", "[NaN]", "{} {}"]
            data = draw(st.sampled_from([*(b.encode() for b in broken), b'["\xff"]', b"", b"\xef\xbb\xbf[]"]))
            return draw(st.sampled_from([".json", ".json", ".json.part"])), data
        case _:
            return ".json", array.encode()


def some(*values: int) -> st.SearchStrategy[list[int]]:
    return st.sets(st.sampled_from(values)).map(sorted)


def tidy(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Files]:
    """A folder with hardly a fault: what hangs together only shows where most of it is there."""
    content = st.lists(st.fixed_dictionaries(fields), min_size=2, max_size=4, unique_by=lambda record: record["id"])
    whole = content.map(lambda records: (".json", json.dumps(records).encode()))
    return st.tuples(whole, seldom((".json", b"["))).map(lambda files: [file for file in files if file])


def seldom(value: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([*[None] * 7, value])


people, offices, teams = st.integers(1, 4), st.integers(20, 22), st.integers(10, 12)
names, either = st.sampled_from(["Agent 1", "Agent 2", "n"]), st.sampled_from(["a", "b"])
fault = {"created_at": seldom("?")}
person = {"id": people, "email": st.just("e"), "name": names} | fault
opening = st.fixed_dictionaries({"channel": st.sampled_from(["chat", "ticket"]), "available": st.booleans()})
openings = st.lists(opening, max_size=2, unique_by=lambda one: one["channel"])
hung = {"role_ids": some(20, 21), "group_ids": some(10, 11), "availability": openings, "signature": either}
TIDY = {
    "agent_details": tidy(**person, deactivated=st.sampled_from([False, False, True]), **hung),
    "agents": tidy(**person),
    "roles": tidy(id=offices, name=either, **fault),
    "admin_roles": tidy(id=offices, name=either, agent_ids=some(1, 2, 3), **fault),
    "admin_groups": tidy(
        id=teams, name=either, agent_ids=some(1, 2, 3), parent_group_id=st.none() | st.integers(10, 13), **fault
    ),
}
DIRTY = {
    folder: st.lists(files(folder), min_size=1, max_size=3 if folder == "agent_details" else 2) for folder in RECORDS
}
runs = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=4)


def mixed_days(dirty: Folders, tidy: Folders) -> st.SearchStrategy[Day]:
    return st.fixed_dictionaries({name: st.one_of(st.none(), tidy[name], dirty[name]) for name in dirty})


def tidy_days(tidy: Folders) -> st.SearchStrategy[Day]:
    return st.fixed_dictionaries({name: st.one_of(found, found, found, st.none()) for name, found in tidy.items()})


def write(dump: Path, day: str, content: Day) -> None:
    (dump / f"sync-{day}").mkdir(parents=True)
    for folder, some in content.items():
        if some is not None:
            (dump / f"sync-{day}" / folder).mkdir()
            for number, (ending, data) in enumerate(some):
                (dump / f"sync-{day}" / folder / f"{number}{ending}").write_bytes(data)


def empty(db: Database) -> None:
    """Make a database what it was when it was migrated."""
    names = [row["relname"] for row in db.rows("SELECT relname FROM pg_class WHERE relname ~ '(^|_)(errors|runs)$'")]
    for table in [*db.final_tables(), *names]:
        if table not in {"deskroll_migrations", "sync_watermarks"}:
            db.connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(sql.Identifier(table)))
    db.connection.execute("UPDATE sync_watermarks SET sync_date = NULL, updated_time = NULL, roster_since = NULL")


def tables(db: Database) -> dict[str, Any]:
    def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
        return {k: v for k, v in row.items() if k not in names}

    return {
        "agents": {
            row["agent_id"]: without(row, "agent_id", "source", "ingested_at", "updated_at")
            for row in db.rows("SELECT * FROM agents")
        },
        "details": {row["agent_id"]: without(row, "agent_id") for row in db.rows("SELECT * FROM agent_details")},
        "availability": {
            (row["agent_id"], row["channel"]): without(row, "agent_id", "channel")
            for row in db.rows("SELECT * FROM agent_availability")
        },
        "membership": {tuple(row.values()) for row in db.rows("SELECT agent_id, group_id FROM agent_group_membership")},
        "history": {
            (row["agent_id"], row["sync_date"]): row["is_active"]
            for row in db.rows("SELECT * FROM agent_status_history")
        },
        "roles": {row["role_id"]: without(row, "role_id") for row in db.rows("SELECT * FROM roles")},
        "mapping": {
            (row["agent_id"], row["role_id"]): (row["status"], row["stated_by_agent"], row["stated_by_role"])
            for row in db.rows("SELECT * FROM agent_role_mapping")
        },
        "role history": sorted(
            tuple(row.values())
            for row in db.rows("SELECT agent_id, role_id, action, sync_date FROM agent_role_history")
        ),
        "waiting roles": {
            (row["agent_id"], row["role_id"]): (row["stated_by_agent"], row["stated_by_role"])
            for row in db.rows("SELECT * FROM unlinked_agent_roles")
        },
        "waiting members": {tuple(row.values()) for row in db.rows("SELECT * FROM unlinked_group_members")},
        "groups": {row["group_id"]: without(row, "group_id") for row in db.rows("SELECT * FROM groups")},
        "group membership": {tuple(row.values()) for row in db.rows("SELECT group_id, agent_id FROM group_membership")},
        "errors": {
            (name, day): rows for name, ids in QUARANTINE.items() for day, rows in errors(db, name, ids).items()
        },
    }


def watermarks(db: Database) -> dict[str, date]:
    """The newest date of each pipeline that has one."""
    rows = db.rows("SELECT pipeline, sync_date FROM sync_watermarks WHERE sync_date IS NOT NULL")
    return {row["pipeline"]: row["sync_date"] for row in rows}


QUARANTINE = {"agent": "agent_id", "role": "role_id", "agent_role": "agent_id, role_id", "group": "group_id"}


def errors(db: Database, name: str, ids: str) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for row in db.rows(f"SELECT sync_day, source_file, record_index, error_type, {ids} FROM {name}_pipeline_errors"):
        day, *values = row.values()
        found.setdefault(day, []).append(tuple(values))
    return {day: sorted(rows, key=repr) for day, rows in found.items()}


def expected(state: model.State) -> dict[str, Any]:
    return {
        "agents": {k: {n: v for n, v in row.items() if n != "updated_at"} for k, row in state.agents.items()},
        "details": state.details,
        "availability": state.availability,
        "membership": state.membership,
        "history": state.history,
        "roles": state.roles,
        "mapping": state.mapping,
        "role history": sorted(state.role_history),
        "waiting roles": state.waiting,
        "waiting members": state.waiting_members,
        "groups": state.groups,
        "group membership": state.group_membership,
        "errors": {where: sorted(rows, key=repr) for where, rows in state.errors.items() if rows},
    }


def check_mapping(db: Database) -> None:
    """Check that the mapping is the newest period of each pair."""
    newest = db.rows(
        """SELECT DISTINCT ON (agent_id, role_id) agent_id, role_id, valid_from, valid_to FROM agent_role_periods
        ORDER BY agent_id, role_id, valid_from DESC"""
    )
    mapping = db.rows(
        """SELECT agent_id, role_id, (assigned_at AT TIME ZONE 'UTC')::DATE AS valid_from,
            (removed_at AT TIME ZONE 'UTC')::DATE AS valid_to FROM agent_role_mapping ORDER BY agent_id, role_id"""
    )
    assert mapping == newest


def settle_roles(db: Database, state: model.State, found: dict[str, Any], on: date) -> None:
    """Check the mapping, and go on with the roles as an old day left them, of which the model does not know."""
    check_mapping(db)
    if all(on >= state.newest.get(name, on) for name in ("agents", "roles", "agent_roles")):
        return
    state.mapping, state.waiting = dict(found["mapping"]), dict(found["waiting roles"])
    state.role_history = list(found["role history"])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.tuples(*[mixed_days(DIRTY, TIDY)] * 3), order=runs)
@example(
    content=(
        {"agent_details": [(".json", json.dumps([SEED, agent(2), agent(3)]).encode())], "agents": None},
        {"agent_details": [(".json", json.dumps([SEED]).encode())], "agents": [(".json", b"[")]},
        {"agent_details": None, "agents": [(".json", json.dumps([SEED]).encode())]},
    ),
    order=[(0, 2), (1, 3), (2, 4), (0, 1), (2, 4)],
)
def test_any_days_in_any_order_leave_what_the_model_says(
    db: Database, content: tuple[Any, ...], order: list[Any]
) -> None:
    empty(db)
    state = model.State()
    dump = Path(tempfile.mkdtemp())
    try:
        for number, some in enumerate(content):
            write(dump, f"day{number}", some)
        for number, day_of_month in order:
            if all(some is None for some in content[number].values()):
                continue
            on = date(2026, 1, day_of_month)
            request = Request(str(dump), f"day{number}", on)
            limits = Limits(allow_mass_change=True, max_rejected="100%")
            run_sync(request, Settings(database_url=SecretStr(db.url), threads=1), limits)
            model.sync(state, dump, f"day{number}", on)
            found = tables(db)
            settle_roles(db, state, found, on)
            right = expected(state)
            for name in found:
                assert found[name] == right[name], name
            assert watermarks(db) == state.newest
            before = db.versions()
            run_sync(request, Settings(database_url=SecretStr(db.url), threads=1), limits)
            assert db.versions() == before
    finally:
        shutil.rmtree(dump)
