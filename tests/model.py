"""The rules of state in plain Python: slow, small, and obviously right. Knows nothing of the code that it judges."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

Row = dict[str, Any]


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
        return dump(value) if kept is None else dump(kept) if isinstance(kept, dict | list) else text_of(kept)
    return as_text(value)


def as_bigint(value: Any) -> Any:
    text = "[" if isinstance(value, dict | list) else text_of(value)
    if text is None:
        return None
    if not re.fullmatch(r"-?[0-9]{1,19}", text) or not -(2**63) <= int(text) < 2**63:
        return BAD
    return int(text)


def as_boolean(value: Any) -> Any:
    text = "[" if isinstance(value, dict | list) else text_of(value)
    return {"true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False, None: None}.get(
        text, BAD
    )


def as_timestamp(value: Any) -> Any:
    text = "[" if isinstance(value, dict | list) else text_of(value)
    if text is None:
        return None
    shape = r"[12]\d{3}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?"
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
    "ticket_scope": as_bigint,
    "signature": as_text,
    "freshchat_agent": as_boolean,
    "is_active": as_boolean,
    "avatar": as_avatar,
    "last_login_at": as_timestamp,
    "created_at": as_timestamp,
    "updated_at": as_timestamp,
}
IN_CONTACT = {*CONTACT, "avatar", "last_login_at"}


@dataclass
class Checked:
    """A record that was looked at: its place, its id where readable, its values unless it is bad."""

    file: str
    index: int | None
    kind: str | None
    agent_id: int | None = None
    values: Row = field(default_factory=dict)
    availability: list[Any] = field(default_factory=list)
    group_ids: list[Any] = field(default_factory=list)


@dataclass
class Folder:
    """All that a folder says."""

    found: bool
    complete: bool
    records: list[Checked]

    def valid(self) -> dict[int, Checked]:
        """One record an agent: the newest, then the last by file and position."""
        oldest = datetime.min.replace(tzinfo=UTC)
        best: dict[int, Checked] = {}
        for record in sorted(
            (r for r in self.records if r.kind is None),
            key=lambda r: (r.values["updated_at"] or oldest, r.file.encode(), r.index or 0),
        ):
            assert record.agent_id is not None
            best[record.agent_id] = record
        return best

    def named(self) -> set[int]:
        return {r.agent_id for r in self.records if r.agent_id is not None}


def read_folder(day: Path, name: str, resource: str) -> Folder:
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
                    folder.records.append(check(f"{name}/{path.name}", index, value, details=name == "agent_details"))
        except (ValueError, RecursionError):
            folder.complete = False
            folder.records.append(Checked(f"{name}/{path.name}", None, "PARSE_ERROR"))
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


def check(file: str, index: int, value: Any, *, details: bool) -> Checked:
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
    lists = [value.get(name) for name in ("availability", "group_ids")] if details else [None, None]
    is_bad = is_bad or any(v is BAD for v in values.values()) or agent_id in {None, BAD}
    is_bad = is_bad or values["email"] is None or values["name"] is None
    is_bad = is_bad or any(not (x is None or isinstance(x, list)) for x in lists)
    readable = None if agent_id is BAD or "id" in value.twice else agent_id
    kind = "VALIDATION_ERROR" if is_bad else None
    return Checked(file, index, kind, readable, values, lists[0] or [], lists[1] or [])


@dataclass
class State:
    """The tables, as the rules have them."""

    agents: dict[int, Row] = field(default_factory=dict)
    details: dict[int, Row] = field(default_factory=dict)
    availability: dict[tuple[int, str], Row] = field(default_factory=dict)
    membership: set[tuple[int, int]] = field(default_factory=set)
    history: dict[tuple[int, date], bool] = field(default_factory=dict)
    errors: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    newest: date | None = None


def sync(state: State, dump: Path, day: str, on: date) -> None:  # noqa: C901 - the rules, one after the other
    """Do to the state what a sync of the day must do."""
    folder = dump / f"sync-{day}"
    master, roster = read_folder(folder, "agent_details", "agents"), read_folder(folder, "agents", "agents")
    is_backfill = state.newest is not None and on < state.newest
    quarantine = [(r.file, r.index, r.kind, r.agent_id) for f in (master, roster) for r in f.records if r.kind]
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

    state.errors[day] = sorted(quarantine, key=repr)
    state.newest = on if state.newest is None else max(on, state.newest)


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
    for element in record.availability:
        if not isinstance(element, Object):
            bad.append(fault)
            continue
        channel = as_text(element.get("channel"))
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
    groups = [as_bigint(element) for element in record.group_ids]
    bad += [fault] * sum(group in {None, BAD} for group in groups)
    if write:
        state.details[agent_id] = {name: record.values[name] for name in DETAILS}
        for key in [k for k in state.availability if k[0] == agent_id and k[1] not in channels and k[1] not in kept]:
            del state.availability[key]
        state.availability |= {(agent_id, channel): row for channel, row in channels.items()}
        state.membership = {(a, g) for a, g in state.membership if a != agent_id}
        state.membership |= {(agent_id, g) for g in groups if isinstance(g, int)}
    return bad
