"""The rules of state in plain Python: slow, small, and obviously right. Knows nothing of the code that it judges."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

Row = dict[str, Any]
OLDEST = datetime.min.replace(tzinfo=UTC)


class Number(str):
    """A number, as it stands in the JSON."""

    __slots__ = ()


class Object(dict[str, Any]):
    """An object; `twice` has the keys that stand in it more than once."""

    twice: frozenset[str] = frozenset()


class Bad:
    """What a value that does not fit its type becomes."""


BAD = Bad()


def _object(pairs: list[tuple[str, Any]]) -> Object:
    made = Object(pairs)
    keys = [key for key, _ in pairs]
    made.twice = frozenset(key for key in keys if keys.count(key) > 1)
    return made


def _refuse(_: str) -> None:
    raise ValueError


def parse(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=_refuse)


def text_of(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value  # type: ignore[no-any-return]  # a text, a number as text, or nothing


def dump(value: Any) -> str:
    """The JSON of a parsed value, numbers as they came."""
    match value:
        case Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{json.dumps(k)}:{dump(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(dump, value)) + "]"
        case _:
            return json.dumps(value)


def as_text(value: Any) -> Any:
    if isinstance(value, dict | list):
        return BAD
    text = text_of(value)
    return BAD if text is not None and re.search("[\x00\ud800-\udfff]", text) else text


def as_avatar(value: Any) -> Any:
    if isinstance(value, dict):
        kept = value.get("avatar_url")
        return dump(value) if kept is None else dump(kept) if isinstance(kept, dict | list) else as_text(kept)
    return as_text(value)


def as_key(value: Any) -> Any:
    text = as_text(value)
    return BAD if isinstance(text, str) and len(text) > 500 else text


def as_whole(digits: int, sign: str, value: Any) -> Any:
    """A whole number of at most so many digits, in any notation."""
    text = "[" if isinstance(value, dict | list) else text_of(value)
    if text is None:
        return None
    if not re.fullmatch(rf"{sign}[0-9]{{1,{digits}}}(\.[0-9]{{1,18}})?([eE]\+?[0-9]{{1,2}})?", text, re.ASCII):
        return BAD
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() and abs(number) < 10**digits else BAD


def as_bigint(value: Any) -> Any:
    number = as_whole(19, "-?", value)
    return BAD if isinstance(number, int) and not -(2**63) <= number < 2**63 else number


def as_listed_id(value: Any) -> Any:
    """An id in a list: if it is written as a float, parsers make one of it, which holds 15 digits."""
    if not isinstance(value, str) or not set(".eE") & set(value):
        return as_bigint(value)
    number = as_bigint(str(Decimal(float(value)))) if isinstance(value, Number) else as_bigint(value)
    return number if isinstance(number, int) and abs(number) < 10**15 else BAD


def as_boolean(value: Any) -> Any:
    text = "[" if isinstance(value, dict | list) else text_of(value)
    return {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False, None: None}.get(
        text, BAD
    )


def as_timestamp(value: Any) -> Any:
    text = "[" if isinstance(value, dict | list) else text_of(value)
    if text is None:
        return None
    shape = r"[12]\d{3}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d(:?\d\d)?)?"
    try:
        moment = datetime.fromisoformat(text if re.fullmatch(shape, text, re.ASCII) else "")
    except ValueError:
        return BAD
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


CONTACT = ("email", "name", "job_title", "language", "mobile", "phone", "time_zone")
ROSTER = dict.fromkeys((*CONTACT, "agent_operational_status"), as_text) | {
    "available": as_boolean,
    "deactivated": as_boolean,
    "focus_mode": as_boolean,
    "last_active_at": as_timestamp,
    "created_at": as_timestamp,
    "updated_at": as_timestamp,
}
DETAILS = {
    "org_agent_id": as_text,
    "ticket_scope": as_text,
    "signature": as_text,
    "freshchat_agent": as_boolean,
    "is_active": as_boolean,
    "avatar": as_avatar,
    "last_login_at": as_timestamp,
    "created_at": as_timestamp,
    "updated_at": as_timestamp,
}
IN_CONTACT = {*CONTACT, "avatar", "last_login_at"}


def as_integer(value: Any) -> Any:
    number = as_whole(10, "-?", value)
    return BAD if isinstance(number, int) and not -(2**31) <= number < 2**31 else number


ROLE = {"name": as_text, "description": as_text, "agent_type": as_integer} | {
    "is_default": as_boolean,
    "created_at": as_timestamp,
    "updated_at": as_timestamp,
}
GROUP = {"name": as_text, "parent_group_id": as_bigint, "created_at": as_timestamp, "updated_at": as_timestamp}


@dataclass
class Checked:
    """A record that was looked at: its place, its id where readable, its values unless it is bad."""

    file: str
    index: int | None
    kind: str | None
    key: Any = None
    values: Row = field(default_factory=dict)
    lists: dict[str, Any] = field(default_factory=dict)  # those whose key the record has; BAD if it is not a list
    alias: str | None = None  # by which it is identified if its key cannot be read

    def states(self, name: str) -> bool:
        return isinstance(self.lists.get(name), list)


@dataclass
class Folder:
    """All that a folder says."""

    found: bool
    complete: bool
    records: list[Checked]

    def valid(self, newest: str = "updated_at") -> dict[Any, Checked]:
        """One record a key: the newest, then the last by file and position."""
        best: dict[Any, Checked] = {}
        for record in sorted(
            (r for r in self.records if r.kind is None),
            key=lambda r: (r.values.get(newest) or OLDEST, r.file.encode(), r.index or 0),
        ):
            assert record.key is not None
            best[record.key] = record
        return best

    def newest_rejected(self, newest: str = "updated_at") -> dict[Any, Checked]:
        """Of the rejected records one a key; one whose age cannot be read may be the newest of all."""

        def age(record: Checked) -> tuple[Any, ...]:
            moment = _age(record, newest)
            return moment is None, moment or OLDEST, record.file.encode(), record.index or 0

        return {r.key: r for r in sorted((r for r in self.records if r.kind), key=age) if r.key is not None}

    def doubtful(self, newest: str | None = "updated_at") -> set[Any]:
        """The keys whose newest record was rejected, as far as can be told."""
        valid = self.valid(newest or "")
        return {
            key
            for key, bad in self.newest_rejected(newest or "").items()
            if key not in valid or is_superseded(valid[key], bad, newest)
        }

    def named(self) -> set[Any]:
        return {r.key for r in self.records if r.key is not None}

    def faults(self) -> list[tuple[Any, ...]]:
        return [(r.file, r.index, r.kind, r.key) for r in self.records if r.kind]


def _age(record: Checked, newest: str) -> Any:
    value = record.values.get(newest)
    return None if value is BAD else value


def is_superseded(valid: Checked, bad: Checked, newest: str | None) -> bool:
    """Whether the rejected record of a key may be newer than the valid one."""
    is_later = (bad.file.encode(), bad.index or 0) > (valid.file.encode(), valid.index or 0)
    if newest is None:
        return is_later
    at, than = _age(bad, newest), _age(valid, newest)
    return at is None or than is None or at > than or (at == than and is_later)


def names_of(folders: list[Folder], stored: dict[Any, str]) -> dict[str, set[Any]]:
    """Who bears which name: of the day's records, and of the stored rows that the day does not have."""
    bearers: dict[str, set[Any]] = {}
    today = [(r.key, r.alias) for folder in folders for r in folder.records if r.key is not None]
    absent = [(key, name) for key, name in stored.items() if key not in {key for key, _ in today}]
    for key, name in today + absent:
        if name is not None:
            bearers.setdefault(folded(name), set()).add(key)
    return {name: keys for name, keys in bearers.items() if name}


def folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def identify(folder: Folder, bearers: dict[str, set[Any]]) -> None:
    """Give records without a readable id that of the only one who bears their name; see that there are no others."""
    here = folder.named()
    for record in folder.records:
        keys = bearers.get(folded(record.alias), set()) if record.alias is not None else set()
        if record.key is None and len(keys) == 1 and not keys & here:
            (record.key,) = keys
    folder.complete &= all(record.key is not None for record in folder.records)


def read_folder(day: Path, name: str, resource: str, check: Callable[[str, int, Any], Checked]) -> Folder:
    folder = Folder((day / name).is_dir(), True, [])
    found = sorted((day / name).glob("*"), key=lambda p: p.name.encode())
    paths = [path for path in found if path.name.endswith((".json", ".jsonl", ".part"))]
    for path in paths:
        try:
            for index, value in _values(path, resource):
                if value is BAD:
                    folder.complete = False
                    folder.records.append(Checked(f"{name}/{path.name}", index, "PARSE_ERROR"))
                else:
                    folder.records.append(check(f"{name}/{path.name}", index, value))
        except (ValueError, RecursionError):
            folder.complete = False
            folder.records.append(Checked(f"{name}/{path.name}", None, "PARSE_ERROR"))
    folder.complete &= not _promises_more([p for p in paths if p.name.endswith(".json")], resource, folder)
    return folder


def _promises_more(paths: list[Path], resource: str, folder: Folder) -> bool:
    """Whether the envelopes of a folder promise a next page that is not there, or more records than it has."""
    envelopes = []
    for path in paths:
        with suppress(ValueError, RecursionError):
            document = parse(path.read_bytes().decode("utf-8-sig"))
            if isinstance(document, dict) and any(isinstance(document.get(k), list) for k in ("results", resource)):
                envelopes.append(document)
    following = [e for e in envelopes if e.get("nextPage")]
    total = max((int(e.get("total") or 0) for e in envelopes), default=0)
    return (bool(following) and len(following) == len(envelopes)) or total > len(folder.records)


def _values(path: Path, resource: str) -> Iterator[tuple[int, Any]]:
    text = path.read_bytes().decode("utf-8-sig")
    if not text.strip() or path.name.endswith(".part"):
        raise ValueError
    if path.name.endswith(".jsonl"):
        for index, line in enumerate(line for line in text.split("\n") if line.strip()):
            try:
                yield index, parse(line)
            except ValueError:
                yield index, BAD
    else:
        document = parse(text)
        if isinstance(document, dict):
            lists = [document[key] for key in ("results", resource) if isinstance(document.get(key), list)]
            if lists and not any(lists) and document.get("errors"):
                raise ValueError
            yield from enumerate([r for some in lists for r in some] if lists else [document])
        elif isinstance(document, list):
            yield from enumerate(document)
        else:
            raise ValueError


def lists_in(value: Object, names: tuple[str, ...]) -> dict[str, Any]:
    """The lists of a record: null is the empty one, and a key that is absent says nothing."""
    some = {name: [] if value[name] is None else value[name] for name in names if name in value}
    return {name: found if isinstance(found, list) else BAD for name, found in some.items()}


def alias_of(value: Any, is_twice: bool) -> str | None:
    return None if is_twice or value is BAD else value


def check_plain(fields: dict[str, Any], lists: tuple[str, ...], file: str, index: int, value: Any) -> Checked:
    """A record of a folder whose records have an id and a name, and nothing nested but lists."""
    if not isinstance(value, Object):
        return Checked(file, index, "PARSE_ERROR")
    values = {name: as_type(value.get("default" if name == "is_default" else name)) for name, as_type in fields.items()}
    key = as_bigint(value.get("id"))
    is_bad = bool(value.twice) or key in {None, BAD} or values["name"] is None or any(v is BAD for v in values.values())
    alias = alias_of(values["name"], "name" in value.twice)
    values |= dict.fromkeys(value.twice & {"updated_at"}, BAD)
    readable = None if key is BAD or "id" in value.twice else key
    return Checked(file, index, "VALIDATION_ERROR" if is_bad else None, readable, values, lists_in(value, lists), alias)


LISTS = ("availability", "group_ids", "role_ids")


def check_agent(details: bool, file: str, index: int, value: Any) -> Checked:
    if not isinstance(value, Object):
        return Checked(file, index, "PARSE_ERROR")
    contact = value.get("contact")
    is_bad = bool(value.twice) or not (contact is None or isinstance(contact, dict))
    inside = contact if isinstance(contact, Object) else Object()
    is_bad = is_bad or bool(inside.twice)
    values: Row = {}
    for name, as_type in (ROSTER | DETAILS if details else ROSTER).items():
        if name == "is_active":
            found = (
                inside.get("active", value.get("active")) if inside.get("active") is not None else value.get("active")
            )
        elif name in IN_CONTACT:
            found = inside.get(name) if inside.get(name) is not None else value.get(name)
        else:
            found = value.get(name)
        values[name] = as_type(found)
    agent_id = as_bigint(value.get("id"))
    is_bad = is_bad or any(v is BAD for v in values.values()) or agent_id in {None, BAD}
    is_bad = is_bad or values["email"] is None or values["name"] is None
    alias = alias_of(values["email"], bool({"email", "contact"} & value.twice) or "email" in inside.twice)
    values |= dict.fromkeys(value.twice & {"deactivated", "updated_at"}, BAD)
    readable = None if agent_id is BAD or "id" in value.twice else agent_id
    return Checked(file, index, "VALIDATION_ERROR" if is_bad else None, readable, values, lists_in(value, LISTS), alias)


@dataclass
class State:
    """The tables, as the rules have them."""

    agents: dict[int, Row] = field(default_factory=dict)
    details: dict[int, Row] = field(default_factory=dict)
    availability: dict[tuple[int, str], Row] = field(default_factory=dict)
    membership: set[tuple[int, int]] = field(default_factory=set)
    history: dict[tuple[int, date], bool] = field(default_factory=dict)
    absence_counts: dict[date, bool] = field(default_factory=dict)  # of each date of agents that was published
    roles: dict[int, Row] = field(default_factory=dict)
    mapping: dict[tuple[int, int], tuple[str, bool, bool]] = field(default_factory=dict)
    role_history: list[tuple[Any, ...]] = field(default_factory=list)
    groups: dict[int, Row] = field(default_factory=dict)
    group_membership: set[tuple[int, int]] = field(default_factory=set)
    errors: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    newest: dict[str, date] = field(default_factory=dict)
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    roster_since: date | None = None
    waiting: dict[tuple[int, int], tuple[bool, bool]] = field(default_factory=dict)  # roles, by whom
    waiting_members: set[tuple[int, int]] = field(default_factory=set)

    def begin(self, pipeline: str, on: date) -> bool:
        """Note that a pipeline is synced; returns whether that is a backfill."""
        before = self.newest.get(pipeline, on)
        self.newest[pipeline] = max(before, on)
        return on < before


def sync(state: State, dump: Path, day: str, on: date, only: set[str] | None = None) -> None:
    """Do to the state what a sync of the day must do, or of some of its pipelines."""
    folder = dump / f"sync-{day}"
    master = read_folder(folder, "agent_details", "agents", partial(check_agent, True))
    roster = read_folder(folder, "agents", "agents", partial(check_agent, False))
    roles = read_folder(folder, "roles", "roles", partial(check_plain, ROLE, ()))
    admin = read_folder(folder, "admin_roles", "roles", partial(check_plain, ROLE, ("agent_ids",)))
    groups = read_folder(folder, "admin_groups", "groups", partial(check_plain, GROUP, ("agent_ids",)))
    is_lost = not roster.found and state.roster_since is not None and state.roster_since < on
    for folders, stored in (
        ((master, roster), {key: row["email"] for key, row in state.agents.items()}),
        ((roles, admin), {key: row["name"] for key, row in state.roles.items()}),
        ((groups,), {key: row["name"] for key, row in state.groups.items()}),
    ):
        bearers = names_of(list(folders), stored)
        for one in folders:
            identify(one, bearers)
    roster.complete &= not is_lost
    state.counts = {}
    # The roles of agents are worked out before anything is published.
    seen_before = {agent_id: row["as_of"] for agent_id, row in state.agents.items()}
    if (master.found or roster.found) and (only is None or "agents" in only):
        state.counts["agents"] = count(master, roster)
        sync_agents(state, master, roster, day, on)
    if (roles.found or admin.found) and (only is None or "roles" in only):
        state.counts["roles"] = count(roles, admin)
        sync_roles(state, roles, admin, day, on)
    if (master.found or roster.found or admin.found) and (only is None or "agent_roles" in only):
        sync_agent_roles(state, master, roster, admin, seen_before, day, on)
    if groups.found and (only is None or "groups" in only):
        state.counts["groups"] = count(groups)
        sync_groups(state, groups, day, on)
    link(state, day, on)
    mark_inactive(state)


def count(*folders: Folder, newest: str = "updated_at") -> tuple[int, int, int]:
    """Records read, duplicates and rejected."""
    read = sum(len(folder.records) for folder in folders)
    rejected = sum(len(folder.faults()) for folder in folders)
    return read, read - rejected - sum(len(folder.valid(newest)) for folder in folders), rejected


def says_deactivated(master: Checked | None, roster: Checked | None) -> bool:
    """The newer record decides; of two of one age, or of no known age, the one that says true."""
    said = [(r.values["deactivated"], _age(r, "updated_at")) for r in (master, roster) if r is not None]
    known = [(value, age) for value, age in said if value in {True, False}]
    ages = {age for _, age in said}
    if len(known) == 2 and None not in ages and len(ages) == 2:
        return bool(max(known, key=lambda one: one[1])[0])
    return any(value for value, _ in known)


def spoken(folder: Folder, agent_id: int) -> Checked | None:
    """What a folder says of an agent's status: the newest record, rejected or not."""
    valid, bad = folder.valid().get(agent_id), folder.newest_rejected().get(agent_id)
    if agent_id not in folder.doubtful():
        return valid
    assert bad is not None
    if bad.values.get("deactivated") in {True, False} or valid is None:
        return bad
    return Checked(bad.file, bad.index, bad.kind, agent_id, bad.values | {"deactivated": valid.values["deactivated"]})


def listing(master: Folder, roster: Folder, agent_id: int, name: str) -> Checked | None:
    """The valid record that has the list of an agent: the master list's, else the roster's."""
    found = [folder.valid().get(agent_id) for folder in (master, roster)]
    return next((record for record in found if record is not None and record.states(name)), None)


def is_doubtful(master: Folder, roster: Folder, agent_id: int) -> bool:
    """Whether the values of an agent's record do not count: those of the master list's, if it has one."""
    return agent_id in (master if agent_id in master.named() else roster).doubtful()


def sync_agents(  # noqa: C901 - the rule, line by line
    state: State, master: Folder, roster: Folder, day: str, on: date
) -> None:
    is_backfill = state.begin("agents", on)
    if roster.found:
        state.roster_since = min(on, state.roster_since or on)
    quarantine = master.faults() + roster.faults()
    said: dict[int, bool | None] = {}  # whether today says that the agent is active; None: it cannot tell
    present = master.named() | roster.named()
    before = set(state.agents)

    for agent_id in sorted(present):
        if says_deactivated(spoken(master, agent_id), spoken(roster, agent_id)):
            said[agent_id] = False
        elif agent_id in roster.named() or (roster.complete and not roster.found):
            said[agent_id] = True
        else:
            said[agent_id] = False if roster.complete else None
        known = state.agents.get(agent_id)
        record = master.valid().get(agent_id) or roster.valid().get(agent_id)
        if known is None and record is not None:
            state.agents[agent_id] = _row(record, bool(said[agent_id]) and not is_backfill, day, on)
        elif known is not None and not is_backfill:
            was_active = known["status"] == "active"
            is_active = was_active if said[agent_id] is None else bool(said[agent_id])
            if not is_doubtful(master, roster, agent_id):
                assert record is not None
                row = _row(record, is_active, day, on)
                is_same = row | {"sync_day": known["sync_day"], "as_of": known["as_of"]} == known
                state.agents[agent_id] = known | {"as_of": on} if is_same else row
            elif is_active != was_active:
                known |= _status(is_active) | {"updated_at": "now", "sync_day": day}

    absent_counts = master.complete and roster.complete
    for agent_id, row in state.agents.items():
        if agent_id not in present and absent_counts and not is_backfill and row["status"] == "active":
            row |= _status(False) | {"updated_at": "now", "sync_day": day}

    for agent_id in sorted(present):
        is_told = agent_id not in before or not is_doubtful(master, roster, agent_id)
        write = is_told and not is_backfill
        if write and agent_id in master.valid():
            state.details[agent_id] = {name: master.valid()[agent_id].values[name] for name in DETAILS}
        _channels(state, agent_id, listing(master, roster, agent_id, "availability"), write=write)
        _own_groups(state, agent_id, listing(master, roster, agent_id, "group_ids"), write=write)
    for folder in (master, roster):
        for agent_id, record in folder.valid().items():
            faults = _list_faults(record, "availability", _channel) + _list_faults(record, "group_ids", _id)
            quarantine += [(record.file, record.index, "VALIDATION_ERROR", agent_id)] * faults

    state.absence_counts[on] = absent_counts
    recorded = master.valid().keys() | roster.valid().keys()
    for agent_id, row in state.agents.items():
        if not is_backfill:
            state.history[agent_id, on] = row["status"] == "active"
        elif agent_id in recorded or any(who == agent_id and when <= on for who, when in state.history):
            is_missing = agent_id not in present and absent_counts
            _write_history(state, agent_id, said.get(agent_id, False if is_missing else None), on)

    state.errors["agent", day] = quarantine


def _write_history(state: State, agent_id: int, is_active: bool | None, on: date) -> None:
    """Write the status that an old day tells, if it does, and that of later dates which knew nothing of the agent."""
    past = [when for who, when in state.history if who == agent_id and when <= on]
    if is_active is None:
        is_active = state.history[agent_id, max(past)] if past else False
    state.history[agent_id, on] = is_active
    for later in sorted(when for when in state.absence_counts if when > on and not past):
        if (agent_id, later) in state.history:
            break
        is_active = is_active and not state.absence_counts[later]
        state.history[agent_id, later] = is_active


def _status(is_active: bool) -> Row:
    return {"deactivated": not is_active, "status": "active" if is_active else "inactive"}


def sync_roles(state: State, roles: Folder, admin: Folder, day: str, on: date) -> None:
    is_backfill = state.begin("roles", on)
    state.errors["role", day] = roles.faults() + admin.faults()
    both = Folder(True, True, [*roles.records, *admin.records])
    for role_id, record in both.valid().items():
        if role_id not in state.roles or (not is_backfill and role_id not in both.doubtful()):
            state.roles[role_id] = record.values


def sync_agent_roles(
    state: State, master: Folder, roster: Folder, admin: Folder, seen_before: dict[int, date], day: str, on: date
) -> None:
    is_backfill = state.begin("agent_roles", on)
    sides: dict[tuple[int, int], set[str]] = {}
    places: dict[tuple[int, int], list[tuple[str, int | None]]] = {}
    quarantine: list[tuple[Any, ...]] = []
    for folder, name in ((master, "role_ids"), (roster, "role_ids"), (admin, "agent_ids")):
        for key, record in folder.valid().items():
            ids = (key, None) if name == "role_ids" else (None, key)
            quarantine += [(record.file, record.index, "VALIDATION_ERROR", *ids)] * _list_faults(record, name, _id)
            if name == "role_ids":
                is_heard = listing(master, roster, key, name) is record
                is_heard = is_heard and not (seen_before.get(key, on) < on and is_doubtful(master, roster, key))
            else:
                is_heard = record.states(name) and key not in admin.doubtful()
            for other in filter(_id, map(as_listed_id, record.lists[name] if is_heard else ())):
                pair = (key, other) if name == "role_ids" else (other, key)
                sides.setdefault(pair, set()).add(name)
                places.setdefault(pair, []).append((record.file, record.index))
    for pair, found in places.items():
        if pair[0] not in state.agents or pair[1] not in state.roles:
            file, index = max(found)
            quarantine.append((file, index, "REFERENCE_ERROR", *pair))
    state.errors["agent_role", day] = quarantine
    if is_backfill:
        return
    stored = {pair: flags for pair, (status, *flags) in state.mapping.items() if status == "assigned"}
    stored |= {pair: list(flags) for pair, flags in state.waiting.items()}
    for pair in sides.keys() | stored.keys():
        by_agent, by_role = stored.get(pair, (False, False))
        agent = _agent_says(pair, sides.get(pair, set()), master, roster, seen_before, on)
        role = _role_says(pair, sides.get(pair, set()), admin)
        states_agent = by_agent if agent in {"silent", "unsure"} else agent == "yes"
        states_role = role == "yes" or (by_role and role in {"silent", "unsure"} and agent != "gone")
        if pair in sides or states_agent or states_role or "unsure" in {agent, role}:
            _assign(state, pair, (states_agent, states_role), day, on)
        else:
            _remove(state, pair, day, on)


def _agent_says(
    pair: tuple[int, int], sides: set[str], master: Folder, roster: Folder, seen_before: dict[int, date], on: date
) -> str:
    agent_id, _ = pair
    is_named = agent_id in master.named() | roster.named()
    is_valid = agent_id in master.valid() or agent_id in roster.valid()
    if "role_ids" in sides:
        return "yes"
    if is_named and is_doubtful(master, roster, agent_id) and (seen_before.get(agent_id, on) < on or not is_valid):
        return "unsure"
    if listing(master, roster, agent_id, "role_ids") is not None:
        return "no"
    if not is_named and (master.found or roster.found) and master.complete and roster.complete:
        return "gone" if agent_id in seen_before else "silent"
    return "unsure" if master.found and agent_id not in master.named() else "silent"


def _role_says(pair: tuple[int, int], sides: set[str], admin: Folder) -> str:
    _, role_id = pair
    if "agent_ids" in sides:
        return "yes"
    if role_id in admin.doubtful():
        return "unsure"
    if role_id in admin.valid():
        return "no" if admin.valid()[role_id].states("agent_ids") else "silent"
    if not admin.complete:
        return "unsure"
    return "no" if admin.records else "silent"


def _assign(state: State, pair: tuple[int, int], flags: tuple[bool, bool], day: str, on: date) -> None:
    if pair[0] not in state.agents or pair[1] not in state.roles:
        state.waiting[pair] = flags
        return
    state.waiting.pop(pair, None)
    if state.mapping.get(pair, ("removed",))[0] == "removed":
        _transition(state, pair, "assigned", day, on)
    state.mapping[pair] = ("assigned", *flags)


def _remove(state: State, pair: tuple[int, int], day: str, on: date) -> None:
    state.waiting.pop(pair, None)
    if pair in state.mapping:
        _transition(state, pair, "removed", day, on)
        state.mapping[pair] = ("removed", *state.mapping[pair][1:])
        if not any(row[:2] == pair for row in state.role_history):
            del state.mapping[pair]


def _transition(state: State, pair: tuple[int, int], action: str, day: str, on: date) -> None:
    """Note what happened to a pair on a date, or take back what an earlier sync of the date noted."""
    of_date = [row for row in state.role_history if row[:2] == pair and row[3] == on]
    if of_date:
        state.role_history.remove(of_date[0])
    else:
        state.role_history.append((*pair, action, on))


def link(state: State, day: str, on: date) -> None:
    """Make the links whose target has arrived."""
    for pair, flags in list(state.waiting.items()):
        if pair[0] in state.agents and pair[1] in state.roles:
            _assign(state, pair, flags, day, on)
    if on >= state.newest.get("groups", on):
        arrived = {(g, a) for g, a in state.waiting_members if a in state.agents}
        state.group_membership |= arrived
        state.waiting_members -= arrived


def sync_groups(state: State, groups: Folder, day: str, on: date) -> None:
    is_backfill = state.begin("groups", on)
    quarantine = groups.faults()
    valid = groups.valid()
    known = state.groups.keys() | valid.keys()
    told = {g for g in valid if g not in state.groups or g not in groups.doubtful()}
    members: dict[int, set[int]] = {}
    for group_id, record in valid.items():
        faults = _list_faults(record, "agent_ids", _id)
        quarantine += [(record.file, record.index, "VALIDATION_ERROR", group_id)] * faults
        ids = set(filter(_id, map(as_listed_id, record.lists["agent_ids"]))) if record.states("agent_ids") else set()
        quarantine += [(record.file, record.index, "REFERENCE_ERROR", group_id)] * len(ids - state.agents.keys())
        if record.states("agent_ids") and group_id in told:
            members[group_id] = ids
        parent = record.values["parent_group_id"]
        if parent is not None and parent not in known:
            quarantine.append((record.file, record.index, "REFERENCE_ERROR", group_id))
    state.errors["group", day] = quarantine
    if is_backfill:
        return
    for group_id in told:
        values = dict(valid[group_id].values)
        state.groups[group_id] = values | {"source_parent_group_id": values["parent_group_id"]}
    for row in state.groups.values():
        parent = row["source_parent_group_id"]
        row["parent_group_id"] = parent if parent in state.groups else None
    if groups.complete:
        members |= {group_id: set() for group_id in state.groups.keys() - groups.named()}
    for group_id, ids in members.items():
        state.group_membership = {(g, a) for g, a in state.group_membership if g != group_id}
        state.waiting_members = {(g, a) for g, a in state.waiting_members if g != group_id}
        state.group_membership |= {(group_id, a) for a in ids & state.agents.keys()}
        state.waiting_members |= {(group_id, a) for a in ids - state.agents.keys()}


def mark_inactive(state: State) -> None:
    """A group is active if an active agent is in it, or it is above one that is."""
    active = {g for g, a in state.group_membership if state.agents[a]["status"] == "active"}
    while above := {state.groups[g]["parent_group_id"] for g in active} - active - {None}:
        active |= above
    for group_id, row in state.groups.items():
        row["inactive"] = group_id not in active


def _row(record: Checked, is_active: bool, day: str, on: date) -> Row:
    values = {name: record.values[name] for name in ROSTER}
    return values | _status(is_active) | {"sync_day": day, "as_of": on}


def _id(value: Any) -> bool:
    return isinstance(value, int)


def _channel(element: Any) -> tuple[str | None, Row | None]:
    """The channel of an element of the list, if it can be read, and its row, if that is valid."""
    if not isinstance(element, Object):
        return None, None
    channel = None if "channel" in element.twice else as_key(element.get("channel"))
    row = {
        "is_available": as_boolean(element.get("available")),
        "available_since": as_timestamp(element.get("available_since")),
    }
    readable = channel if isinstance(channel, str) else None
    return readable, None if readable is None or element.twice or BAD in row.values() else row


def _list_faults(record: Checked, name: str, check: Callable[[Any], Any]) -> int:
    """How many elements of a list are at fault; one if it is not a list."""
    found = record.lists.get(name, [])
    if found is BAD:
        return 1
    if check is _id:
        return sum(not _id(as_listed_id(element)) for element in found)
    return sum(_channel(element)[1] is None for element in found)


def _channels(state: State, agent_id: int, record: Checked | None, *, write: bool) -> None:
    if record is None or not write:
        return
    found = list(map(_channel, record.lists["availability"]))
    rows = {channel: row for channel, row in found if row is not None}
    kept = {channel for channel, row in found if row is None} - rows.keys()
    for key in [k for k in state.availability if k[0] == agent_id and k[1] not in rows.keys() | kept]:
        del state.availability[key]
    state.availability |= {(agent_id, str(channel)): row for channel, row in rows.items()}


def _own_groups(state: State, agent_id: int, record: Checked | None, *, write: bool) -> None:
    if record is not None and write:
        state.membership = {(a, g) for a, g in state.membership if a != agent_id}
        state.membership |= {(agent_id, g) for g in filter(_id, map(as_listed_id, record.lists["group_ids"]))}
