"""What the guards must refuse (docs/rules.md, rule 16), in plain Python."""

from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

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
        if "agents" in published:
            active = counted(old)["active"]
            refused = bool(active) and any(f.found and not f.records for f in (details, roster))
            refused = refused or (not old.agents and roster.found and not roster.records and bool(details.records))
        for pipeline in published & NAMES.keys():
            if on < old.newest.get(pipeline, on):
                refused = (pipeline == "agents" and self._rewrites(old, new, on, most_rows)) or refused
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

    @staticmethod
    def _rewrites(old: State, new: State, on: date, most_rows: int) -> bool:
        """Whether the history of an old date changes too much, against the date before it and against what it was."""
        dates = {at for _, at in new.history if at != on}
        earlier = max((at for at in dates if at < on), default=min((at for at in dates if at > on), default=None))
        now = {agent_id: is_active for (agent_id, at), is_active in new.history.items() if at == on}
        had = {agent_id: is_active for (agent_id, at), is_active in old.history.items() if at == on}
        compared = {a: old.history.get((a, earlier)) if earlier else None for a in now}
        flipped = {a: had[a] for a in now if a in had and had[a] != now[a]}
        for state in (True, False):
            was = {a for a, is_active in (compared | flipped).items() if is_active is state}
            lost = {a for a in was if now[a] is not state}
            lost_before = {a for a in had if compared[a] is state and had[a] is not state}
            if len(lost) > len(lost_before) and is_mass_change(len(lost), len(was), most_rows):
                return True
        return False
