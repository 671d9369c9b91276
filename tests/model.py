"""The rules of state in plain Python: slow, small, and obviously right. Knows nothing of the code that it judges."""

import json
import re
from collections.abc import Callable, Iterator
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
    lists: dict[str, list[Any]] = field(default_factory=dict)


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

    def named(self) -> set[Any]:
        return {r.key for r in self.records if r.key is not None}

    def faults(self) -> list[tuple[Any, ...]]:
        return [(r.file, r.index, r.kind, r.key) for r in self.records if r.kind]


def read_folder(day: Path, name: str, resource: str, check: Callable[[str, int, Any], Checked]) -> Folder:
    folder = Folder((day / name).is_dir(), True, [])
    for path in sorted((day / name).glob("*"), key=lambda p: p.name.encode()):
        if not path.name.endswith((".json", ".jsonl")):
            continue
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
    files = {r.file for r in folder.records}
    folder.complete &= files == {r.file for r in folder.records if r.key is not None}
    return folder


def _values(path: Path, resource: str) -> Iterator[tuple[int, Any]]:
    text = path.read_bytes().decode("utf-8-sig")
    if path.name.endswith(".jsonl"):
        for index, line in enumerate(line for line in text.split("\n") if line.strip()):
            try:
                yield index, parse(line)
            except ValueError:
                yield index, BAD
    elif text.strip():
        document = parse(text)
        if isinstance(document, dict):
            lists = [document[key] for key in ("results", resource) if isinstance(document.get(key), list)]
            yield from enumerate([r for some in lists for r in some] if lists else [document])
        elif isinstance(document, list):
            yield from enumerate(document)
        else:
            raise ValueError


def check_plain(fields: dict[str, Any], lists: tuple[str, ...], file: str, index: int, value: Any) -> Checked:
    """A record of a folder whose records have an id and a name, and nothing nested but lists."""
    if not isinstance(value, Object):
        return Checked(file, index, "PARSE_ERROR")
    values = {name: as_type(value.get("default" if name == "is_default" else name)) for name, as_type in fields.items()}
    key, some = as_bigint(value.get("id")), [value.get(name) for name in lists]
    is_bad = bool(value.twice) or key in {None, BAD} or values["name"] is None or any(v is BAD for v in values.values())
    is_bad = is_bad or any(not (x is None or isinstance(x, list)) for x in some)
    readable = None if key is BAD or "id" in value.twice else key
    kind = "VALIDATION_ERROR" if is_bad else None
    return Checked(file, index, kind, readable, values, {n: x or [] for n, x in zip(lists, some, strict=True)})


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
    lists = {name: value.get(name) for name in ("availability", "group_ids", "role_ids")} if details else {}
    is_bad = is_bad or any(v is BAD for v in values.values()) or agent_id in {None, BAD}
    is_bad = is_bad or values["email"] is None or values["name"] is None
    is_bad = is_bad or any(not (x is None or isinstance(x, list)) for x in lists.values())
    readable = None if agent_id is BAD or "id" in value.twice else agent_id
    kind = "VALIDATION_ERROR" if is_bad else None
    return Checked(file, index, kind, readable, values, {name: some or [] for name, some in lists.items()})


@dataclass
class State:
    """The tables, as the rules have them."""

    agents: dict[int, Row] = field(default_factory=dict)
    details: dict[int, Row] = field(default_factory=dict)
    availability: dict[tuple[int, str], Row] = field(default_factory=dict)
    membership: set[tuple[int, int]] = field(default_factory=set)
    history: dict[tuple[int, date], bool] = field(default_factory=dict)
    roles: dict[int, Row] = field(default_factory=dict)
    mapping: dict[tuple[int, int], tuple[str, bool, bool]] = field(default_factory=dict)
    role_history: list[tuple[Any, ...]] = field(default_factory=list)
    groups: dict[int, Row] = field(default_factory=dict)
    group_membership: set[tuple[int, int]] = field(default_factory=set)
    errors: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    newest: dict[str, date] = field(default_factory=dict)
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)

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
    state.counts = {}
    if (master.found or roster.found) and (only is None or "agents" in only):
        state.counts["agents"] = count(master, roster)
        sync_agents(state, master, roster, day, on)
    if (roles.found or admin.found) and (only is None or "roles" in only):
        state.counts["roles"] = count(roles, admin)
        sync_roles(state, roles, admin, day, on)
    if (master.found or roster.found or admin.found) and (only is None or "agent_roles" in only):
        sync_agent_roles(state, master, roster, admin, day, on)
    if groups.found and (only is None or "groups" in only):
        state.counts["groups"] = count(groups)
        sync_groups(state, groups, day, on)
    mark_inactive(state)


def count(*folders: Folder, newest: str = "updated_at") -> tuple[int, int, int]:
    """Records read, duplicates and rejected."""
    read = sum(len(folder.records) for folder in folders)
    rejected = sum(len(folder.faults()) for folder in folders)
    return read, read - rejected - sum(len(folder.valid(newest)) for folder in folders), rejected


def is_too_much(lost: int, known: int, most_rows: int) -> bool:
    """Whether a run may not take that much away."""
    return lost > most_rows and lost > known / 5


def refuses(before: State, after: State, dump: Path, day: str, only: set[str] | None, most_rows: int) -> bool:
    """Whether a guard must hold a sync back that makes `after` of `before`."""
    folder = dump / f"sync-{day}"
    active = {agent_id for agent_id, row in before.agents.items() if row["status"] == "active"}
    back = {agent_id for agent_id in before.agents.keys() - active if after.agents[agent_id]["status"] == "active"}
    gone = {agent_id for agent_id in active if after.agents[agent_id]["status"] == "inactive"}
    assigned = {pair for pair, (status, *_) in before.mapping.items() if status == "assigned"}
    removed = {pair for pair in assigned if after.mapping[pair][0] == "removed"}
    is_empty = (only is None or "agents" in only) and any(
        found.found and not found.records
        for found in (
            read_folder(folder, "agent_details", "agents", partial(check_agent, True)),
            read_folder(folder, "agents", "agents", partial(check_agent, False)),
        )
    )
    return (is_empty and bool(active)) or any(
        is_too_much(len(lost), len(known), most_rows)
        for lost, known in (
            (gone, active),
            (back, before.agents.keys() - active),
            (removed, assigned),
            (before.membership - after.membership, before.membership),
            (before.group_membership - after.group_membership, before.group_membership),
        )
    )


def sync_agents(state: State, master: Folder, roster: Folder, day: str, on: date) -> None:  # noqa: C901 - as above
    is_backfill = state.begin("agents", on)
    quarantine = master.faults() + roster.faults()
    said: dict[int, bool | None] = {}  # whether today says that the agent is active; None: it cannot tell
    present = master.named() | roster.named()

    for agent_id in sorted(present):
        own, listed = master.valid().get(agent_id), roster.valid().get(agent_id)
        on_roster = agent_id in roster.named() if roster.found else True
        record = own or listed
        known = state.agents.get(agent_id)
        if record is not None:
            if record.values["deactivated"]:
                said[agent_id] = False
            elif on_roster:
                said[agent_id] = True
            elif roster.complete:
                said[agent_id] = False
            else:
                said[agent_id] = None
        if record is None or (own is None and agent_id in master.named()):  # its own record was rejected
            if record is not None and known is None:
                is_active = bool(said[agent_id]) and not is_backfill
                state.agents[agent_id] = _row(record, is_active, day)
            said[agent_id] = None
            continue
        if known is None:
            state.agents[agent_id] = _row(record, bool(said[agent_id]) and not is_backfill, day)
        elif not is_backfill:
            is_active = (known["status"] == "active") if said[agent_id] is None else bool(said[agent_id])
            row = _row(record, is_active, day)
            if {k: v for k, v in row.items() if k != "sync_day"} != {k: v for k, v in known.items() if k != "sync_day"}:
                state.agents[agent_id] = row

    absent_counts = master.complete and roster.complete
    for agent_id, row in state.agents.items():
        if agent_id not in present and absent_counts and not is_backfill and row["status"] == "active":
            row |= {"deactivated": True, "status": "inactive", "updated_at": "now", "sync_day": day}

    for agent_id, record in master.valid().items():
        quarantine += _children(state, agent_id, record, write=not is_backfill)

    for agent_id, row in state.agents.items():
        if not is_backfill:
            is_active = row["status"] == "active"
        elif said.get(agent_id) is not None:
            is_active = bool(said[agent_id])
        elif agent_id not in present and absent_counts:
            is_active = False
        else:
            before = [when for (who, when) in state.history if who == agent_id and when <= on]
            is_active = state.history[agent_id, max(before)] if before else False
        state.history[agent_id, on] = is_active

    state.errors["agent", day] = quarantine


def sync_roles(state: State, roles: Folder, admin: Folder, day: str, on: date) -> None:
    is_backfill = state.begin("roles", on)
    state.errors["role", day] = roles.faults() + admin.faults()
    if not is_backfill:
        both = Folder(True, True, [*roles.records, *admin.records])
        state.roles |= {role_id: record.values for role_id, record in both.valid().items()}


def sync_agent_roles(  # noqa: C901 - the rule, line by line
    state: State, master: Folder, roster: Folder, admin: Folder, day: str, on: date
) -> None:
    is_backfill = state.begin("agent_roles", on)
    quarantine: list[tuple[Any, ...]] = []
    said: dict[tuple[int, int], list[tuple[str, int | None, str]]] = {}  # by whom, and where
    for folder, name in ((master, "role_ids"), (admin, "agent_ids")):
        for key, record in folder.valid().items():
            for other in map(as_listed_id, record.lists[name]):
                if other in {None, BAD}:
                    ids = (key, None) if folder is master else (None, key)
                    quarantine.append((record.file, record.index, "VALIDATION_ERROR", *ids))
                else:
                    pair = (key, other) if folder is master else (other, key)
                    said.setdefault(pair, []).append((record.file, record.index, name))
    for pair, places in said.items():
        if pair[0] not in state.agents or pair[1] not in state.roles:
            file, index, _ = max(places)
            quarantine.append((file, index, "REFERENCE_ERROR", *pair))
    state.errors["agent_role", day] = quarantine
    if is_backfill:
        return
    for pair, places in said.items():
        if pair[0] in state.agents and pair[1] in state.roles:
            sides = {name for *_, name in places}
            if state.mapping.get(pair, ("removed",))[0] == "removed":
                state.role_history.append((*pair, "assigned", on, day))
            state.mapping[pair] = ("assigned", "role_ids" in sides, "agent_ids" in sides)
    for pair, (status, by_agent, by_role) in list(state.mapping.items()):
        if status == "assigned" and pair not in said and _is_revoked(*pair, by_agent, by_role, master, roster, admin):
            state.mapping[pair] = ("removed", by_agent, by_role)
            state.role_history.append((*pair, "removed", on, day))


def _is_revoked(
    agent_id: int, role_id: int, by_agent: bool, by_role: bool, master: Folder, roster: Folder, admin: Folder
) -> bool:
    """Whether everybody who gave a role says no, and nobody may still say yes."""
    is_listed = agent_id in master.named() | roster.named()
    is_gone = not is_listed and (master.found or roster.found) and master.complete and roster.complete
    agent_says_no = agent_id in master.valid() or is_gone
    agent_is_silent = not master.found
    if not agent_says_no and not agent_is_silent:
        return False
    if role_id in admin.valid():
        role_says_no = True
    elif role_id in admin.named() or not admin.complete:
        return False
    else:
        role_says_no = bool(admin.records)
    return (agent_says_no or not by_agent) and (role_says_no or is_gone or not by_role)


def sync_groups(state: State, groups: Folder, day: str, on: date) -> None:
    is_backfill = state.begin("groups", on)
    quarantine = groups.faults()
    valid = groups.valid()
    known = state.groups.keys() | valid.keys()
    members: dict[int, set[int]] = {}
    for group_id, record in valid.items():
        found = [as_listed_id(element) for element in record.lists["agent_ids"]]
        ids = {a for a in found if isinstance(a, int)}
        quarantine += [(record.file, record.index, "VALIDATION_ERROR", group_id)] * sum(a in {None, BAD} for a in found)
        quarantine += [(record.file, record.index, "REFERENCE_ERROR", group_id)] * len(ids - state.agents.keys())
        members[group_id] = ids & state.agents.keys()
        parent = record.values["parent_group_id"]
        if parent is not None and parent not in known:
            quarantine.append((record.file, record.index, "REFERENCE_ERROR", group_id))
    state.errors["group", day] = quarantine
    if is_backfill:
        return
    for group_id, record in valid.items():
        parent = record.values["parent_group_id"]
        state.groups[group_id] = record.values | {"parent_group_id": parent if parent in known else None}
    stays = groups.named() - valid.keys() if groups.complete else known - valid.keys()
    state.group_membership = {(g, a) for g, a in state.group_membership if g in stays}
    state.group_membership |= {(g, a) for g, ids in members.items() for a in ids}


def mark_inactive(state: State) -> None:
    """A group is active if an active agent is in it, or it is above one that is."""
    active = {g for g, a in state.group_membership if state.agents[a]["status"] == "active"}
    while above := {state.groups[g]["parent_group_id"] for g in active} - active - {None}:
        active |= above
    for group_id, row in state.groups.items():
        row["inactive"] = group_id not in active


def _row(record: Checked, is_active: bool, day: str) -> Row:
    values = {name: record.values[name] for name in ROSTER}
    status = "active" if is_active else "inactive"
    return values | {"deactivated": not is_active, "status": status, "sync_day": day}


def _children(state: State, agent_id: int, record: Checked, *, write: bool) -> list[tuple[Any, ...]]:
    """Replace what hangs on an agent by what its record says; returns the elements at fault."""
    bad: list[tuple[Any, ...]] = []
    fault = (record.file, record.index, "VALIDATION_ERROR", agent_id)
    channels: dict[str, Row] = {}
    kept: set[str] = set()
    for element in record.lists["availability"]:
        if not isinstance(element, Object):
            bad.append(fault)
            continue
        channel = as_key(element.get("channel"))
        row = {
            "is_available": as_boolean(element.get("available")),
            "available_since": as_timestamp(element.get("available_since")),
        }
        channel = None if "channel" in element.twice else channel
        if channel in {None, BAD} or element.twice or BAD in row.values():
            bad.append(fault)
            kept |= {channel} if isinstance(channel, str) else set()
        else:
            channels[channel] = row
    groups = [as_listed_id(element) for element in record.lists["group_ids"]]
    bad += [fault] * sum(group in {None, BAD} for group in groups)
    if write:
        state.details[agent_id] = {name: record.values[name] for name in DETAILS}
        for key in [k for k in state.availability if k[0] == agent_id and k[1] not in channels and k[1] not in kept]:
            del state.availability[key]
        state.availability |= {(agent_id, channel): row for channel, row in channels.items()}
        state.membership = {(a, g) for a, g in state.membership if a != agent_id}
        state.membership |= {(agent_id, g) for g in groups if isinstance(g, int)}
    return bad
