"""What the guards must refuse (docs/rules.md, rule 16), in plain Python."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from tests.helpers.databases import Database
from tests.helpers.model import Folder, State, check_agent, read_folder

Keys = set[tuple[Any, ...]]
NAMES = {
    "agents": ("agents", "active", "inactive", "memberships"),
    "agent_roles": ("roles",),
    "groups": ("members", "parents"),
}


def counted(state: State) -> dict[str, Keys]:
    """What the guards count."""
    return {
        "agents": {(agent_id,) for agent_id in state.agents},
        "active": {(agent_id,) for agent_id, row in state.agents.items() if row["status"] == "active"},
        "inactive": {(agent_id,) for agent_id, row in state.agents.items() if row["status"] == "inactive"},
        "memberships": set(state.membership),
        "roles": {pair for pair, (status, *_) in state.mapping.items() if status == "assigned"},
        "members": set(state.group_membership),
        "parents": {(group_id,) for group_id, row in state.groups.items() if row["parent_group_id"] is not None},
    }


def is_first(state: State, name: str) -> bool:
    """Whether nothing of it is stored yet."""
    stored = {
        "memberships": state.membership,
        "roles": state.mapping,
        "members": state.group_membership,
        "parents": state.groups,
    }
    return not stored.get(name, state.agents)


def is_mass_change(changed: int, before: int, most_rows: int) -> bool:
    """More than a fifth and more than ten (here `most_rows`), or more than half and at least three."""
    return before > 0 and (changed > max(most_rows, before / 5) or (changed >= 3 and changed > before / 2))


PUBLISHED = "SELECT sync_date FROM published_dates WHERE pipeline = %s"
# Of what the guards count, the columns, the table and the condition.
PERIODS = {
    "agents": ("agent_id", "agent_periods", "true"),
    "active": ("agent_id", "agent_periods", "is_active"),
    "inactive": ("agent_id", "agent_periods", "NOT is_active"),
    "memberships": ("agent_id, group_id", "agent_group_periods", "true"),
    "roles": ("agent_id, role_id", "agent_role_periods", "true"),
    "members": ("group_id, agent_id", "group_member_periods", "true"),
    "parents": ("group_id", "group_periods", "parent_group_id IS NOT NULL"),
}


def is_empty(agents: Collection[Any], active: Keys, details: Folder, roster: Folder) -> bool:
    """Whether a folder is empty that may not be."""
    if active and any(f.found and not f.records for f in (details, roster)):
        return True
    return not agents and roster.found and not roster.records and bool(details.records)


@dataclass
class Guards:
    """What the newest date of each pipeline has changed so far, and how it was before it."""

    on: dict[str, date] = field(default_factory=dict)
    was_there: dict[str, dict[tuple[Any, ...], bool]] = field(default_factory=dict)
    allowed: set[tuple[str, tuple[Any, ...]]] = field(default_factory=set)

    def sync(
        self, old: State, new: State, dump: Path, day: str, on: date, only: set[str] | None, most_rows: int
    ) -> bool:
        """Note what a sync changes; returns whether it must be refused."""
        details, roster, published = self._published(dump / f"sync-{day}", only)
        refused = False
        if "agents" in published and on >= old.newest.get("agents", on):
            refused = is_empty(old.agents, counted(old)["active"], details, roster)
        for pipeline in published & NAMES.keys():
            if on < old.newest.get(pipeline, on):
                continue
            names = NAMES[pipeline]
            if self.on.get(pipeline) != on:
                self.on[pipeline] = on
                self.was_there |= {name: {} for name in names}
                self.allowed = {(name, key) for name, key in self.allowed if name not in names}
            for name in names:
                refused = self._changes(old, new, name, most_rows) or refused
        return refused

    def allow(self, old: State, dump: Path, day: str, on: date, only: set[str] | None) -> None:
        """Note that a person allowed what a sync has changed."""
        for pipeline in self._published(dump / f"sync-{day}", only)[2]:
            if on >= old.newest.get(pipeline, on):
                names = NAMES[pipeline]
                self.allowed |= {(name, key) for name in names for key in self.was_there.get(name, {})}

    def of_old_date(self, db: Database, old: State, dump: Path, day: str, on: date, only: set[str] | None) -> "OldDate":
        """What holds of the pipelines for which the date is an old one; to be made before the sync."""
        details, roster, published = self._published(dump / f"sync-{day}", only)
        pipelines = {name for name in published & NAMES.keys() if on < old.newest.get(name, on)}
        return OldDate(db, on, pipelines, details, roster)

    def _published(self, folder: Path, only: set[str] | None) -> tuple[Folder, Folder, set[str]]:
        details = read_folder(folder, "agent_details", "agents", partial(check_agent, True))
        roster = read_folder(folder, "agents", "agents", partial(check_agent, False))
        found = {
            "agents": details.found or roster.found,
            "agent_roles": details.found or roster.found or (folder / "admin_roles").is_dir(),
            "groups": (folder / "admin_groups").is_dir(),
        }
        return (
            details,
            roster,
            {name for name, is_found in found.items() if is_found and (only is None or name in only)},
        )

    def _changes(self, old: State, new: State, name: str, most_rows: int) -> bool:
        before, after, touched = counted(old)[name], counted(new)[name], self.was_there[name]
        lost_before = self._lost(name, before)
        gained_before = self._gained(name, before)
        if not is_first(old, name):
            for key in before ^ after:
                touched.setdefault(key, key in before)
        lost, gained = self._lost(name, after), self._gained(name, after)
        base = {key for key in after if touched.get(key, True)} | {key for key in touched if touched[key]}
        if name == "agents":
            return False
        if name == "roles" and len(gained) > len(gained_before) and is_mass_change(len(gained), len(base), most_rows):
            return True
        return len(lost) > len(lost_before) and is_mass_change(len(lost), len(base), most_rows)

    def _lost(self, name: str, now: Keys) -> Keys:
        return {
            key
            for key, was_there in self.was_there[name].items()
            if was_there and key not in now and (name, key) not in self.allowed and not self._is_new(name, key)
        }

    def _gained(self, name: str, now: Keys) -> Keys:
        return {
            key
            for key, was_there in self.was_there[name].items()
            if not was_there and key in now and (name, key) not in self.allowed and not self._is_new(name, key)
        }

    def _is_new(self, name: str, key: tuple[Any, ...]) -> bool:
        """Whether it is a role of an agent who is new on the same date."""
        is_same_date = self.on.get("agents") == self.on.get("agent_roles")
        return name == "roles" and is_same_date and self.was_there.get("agents", {}).get(key[:1]) is False


@dataclass
class OldDate:
    """What guards must make of an old date: by its periods, before a run and after it, and those of another date."""

    db: Database
    on: date
    pipelines: set[str]
    details: Folder
    roster: Folder
    was_lost: dict[str, Keys] = field(default_factory=dict)
    has_empty: bool = False

    def __post_init__(self) -> None:
        self.was_lost = {name: differ for name, (differ, _) in self._compare().items()}
        for pipeline in self.pipelines:
            if not self.db.rows(f"{PUBLISHED} AND sync_date = %s", pipeline, self.on):
                more = ("roles gained",) if pipeline == "agent_roles" else ()
                self.was_lost |= {name: set() for name in (*NAMES[pipeline], *more)}
        if "agents" in self.pipelines:
            self.has_empty = is_empty(
                self._on("agents", self.on), self._on("active", self.on), self.details, self.roster
            )

    def must_refuse(self, most_rows: int) -> bool:
        """Whether the run since then changed too much of the date."""
        return self.has_empty or any(
            len(differ) > len(self.was_lost[name]) and is_mass_change(len(differ), before, most_rows)
            for name, (differ, before) in self._compare().items()
        )

    def _compare(self) -> dict[str, tuple[Keys, int]]:
        """What the date lost, and which roles it gained, of how many on the date that it is compared with."""
        found = {}
        for pipeline in self.pipelines:
            dates = {row["sync_date"] for row in self.db.rows(PUBLISHED, pipeline)} - {self.on}
            older = {other for other in dates if other < self.on}
            compared = max(older) if older else min(dates)
            known = self._on("agents", compared)
            for name in set(NAMES[pipeline]) - {"agents"}:
                was, now = self._on(name, compared), self._on(name, self.on)
                newcomers = {key for key in was ^ now if name == "roles" and key[:1] not in known}
                is_news = name != "inactive" or compared < self.on
                found[name] = (was - now - newcomers if is_news else set(), len(was))
                if name == "roles":
                    found["roles gained"] = (now - was - newcomers, len(was))
        return found

    def _on(self, name: str, at: date) -> Keys:
        columns, table, condition = PERIODS[name]
        query = f"""SELECT {columns} FROM {table}
            WHERE {condition} AND valid_from <= %s AND coalesce(valid_to, 'infinity') > %s"""
        return {tuple(row.values()) for row in self.db.rows(query, at, at)}
