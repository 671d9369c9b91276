"""What a command prints: tables for a person on stdout, narration on stderr, or one JSON document."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.table import Table

from deskroll.errors import DeskrollError
from deskroll.postgres.staging import StagedSource
from deskroll.status import Row
from deskroll.sync import Outcome

_WIDE = 1000  # columns of output that goes into a file or a pipe: nothing is to be folded there
_out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
_err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)

_COUNTS = {
    "records_read": "read",
    "duplicates": "twice",
    "rejected": "rejected",
    "staged": "staged",
    "inserted": "new",
    "updated": "updated",
    "unchanged": "same",
    "deactivated": "gone",
    "removed": "removed",
}


# What a terminal obeys instead of showing it: control characters, and those that turn the direction of writing.
_OBEYED = {n: f"\\x{n:02x}" for n in (*range(0x20), *range(0x7F, 0xA0)) if chr(n) not in "\t\n"} | {
    n: f"\\u{n:04x}" for n in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def escape(text: str) -> str:
    """Text of others as it may be shown: nothing in it is markup, and no terminal obeys it."""
    return escape_markup(text.translate(_OBEYED))


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show the step at hand on a terminal; say nothing where stderr is none."""
    if not _err.is_terminal:
        yield lambda step: None
        return
    with _err.status("starting") as shown:
        yield lambda step: shown.update(escape(step))


def tell_json(value: Any) -> None:
    """One JSON document on stdout."""
    _out.print(json.dumps(plain(value), indent=2, ensure_ascii=False, default=str), markup=False, soft_wrap=True)


def plain(value: Any) -> Any:
    """A value that JSON can take."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def tell_failure(error: DeskrollError) -> None:
    """What happened, and what to do about it: two lines on stderr."""
    _err.print(f"[bold red]error:[/] {escape(error.what)}", soft_wrap=True)
    if error.remedy:
        _err.print(escape(error.remedy), soft_wrap=True)


def tell_outcome(outcome: Outcome) -> None:
    """The summary of a run: counts per table, who changed, what went into quarantine."""
    run, published = outcome.run, outcome.published
    title = f"{run.sync_day} as of {run.sync_date}, {run.engine}"
    if outcome.is_plan:
        _out.print(f"[bold]Plan for {escape(title)}[/]: nothing was published")
    elif published.refusals:
        _out.print(f"[bold]Refused: {escape(title)}[/], run {run.run_id}: this is what it would have done")
    else:
        _out.print(f"[bold]{escape(title)}[/], run {run.run_id}")
    _out.print(escape(outcome.database))
    columns = [c for c in _COUNTS if any(getattr(t, c) for t in published.tables)]
    table = _table("table", *(_COUNTS[c] for c in columns))
    for counts in published.tables:
        table.add_row(counts.table, *(f"{getattr(counts, c):,}" for c in columns))
    _out.print(table)
    for change in published.changes:
        more = f" and {change.count - len(change.examples):,} more" if change.count > len(change.examples) else ""
        who = escape(", ".join(map(_short, change.examples)))
        _out.print(f"{change.pipeline} {change.change} {change.count:,}: {who}{more}")
    for drift in published.drift:
        _tell_drift(drift.drift, drift.rows, drift.examples)
    _tell_quarantine(outcome)
    for note in outcome.notes:
        _out.print(f"note: {escape(note)}")
    if outcome.is_plan:
        for refusal in published.refusals:
            _out.print(f"a sync would be refused: {escape(refusal)}")


def _tell_drift(what: str, rows: int, examples: Iterable[str]) -> None:
    _out.print(f"drift: {escape(_short(what))}: {rows:,} (such as {escape(_short(', '.join(examples)))})")


def _short(text: str) -> str:
    """A name as a line of a summary can bear it."""
    line = " ".join(text.split()) or "(blank)"
    return line if len(line) <= 80 else f"{line[:79]}…"


def _tell_quarantine(outcome: Outcome) -> None:
    total, errors = outcome.published.quarantine, outcome.published.errors
    if not total:
        return
    _out.print(f"quarantine {total:,}:")
    for error in errors:
        _out.print(f"  {escape(_place(error.source_file or '', error.record_index))} {escape(error.error_message)}")
    if total > len(errors):
        _out.print(f"  and {total - len(errors):,} more: deskroll errors --day {escape(outcome.run.sync_day)}")


def _place(file: str, index: int | None) -> str:
    return file if index is None else f"{file}[{index}]"


def tell_staged(sources: tuple[StagedSource, ...]) -> None:
    """What `stage` read."""
    table = _table("source", "read", "twice", "rejected")
    for s in sources:
        table.add_row(s.source, f"{s.records_read:,}", f"{s.duplicates:,}", f"{s.rejected:,}")
    _out.print(table)
    _out.print("staged; nothing is published yet: deskroll publish")


def tell_status(status: Row) -> None:
    """Who is active, how far each pipeline is, the last runs, the quarantine."""
    for label, count in status["facts"].items():
        _out.print(f"{label}: {count:,}")
    for pipeline in status["pipelines"]:
        newest = f", records up to {pipeline['updated_time']:%Y-%m-%d %H:%M:%S}Z" if pipeline["updated_time"] else ""
        until = f"published up to {pipeline['sync_date']}" if pipeline["sync_date"] else "not published yet"
        _out.print(f"{pipeline['pipeline']}: {until}{newest}")
    for drift in status["drift"]:
        _tell_drift(drift["drift"], drift["rows"], drift["examples"])
    tell_runs(status["runs"])
    if status["quarantine_hidden"]:
        _out.print(f"quarantine of {', '.join(status['quarantine_hidden'])}: this user may not read it")
    if status["quarantine"]:
        table = _table("pipeline", "day", "error", "rows", numbers=1)
        for row in status["quarantine"]:
            table.add_row(row["pipeline"], escape(row["sync_day"]), row["error_type"], f"{row['count']:,}")
        _out.print(table)


def tell_runs(runs: list[Row]) -> None:
    """The ledger, a line a run."""
    table = _table("run", "day", "date", "status", "began", "seconds", "message", numbers=0)
    for run in runs:
        began = f"{run['started_at']:%Y-%m-%d %H:%M:%S}Z"
        table.add_row(
            str(run["run_id"]), escape(run["sync_day"]), str(run["sync_date"]), run["status"], began,
            f"{run['seconds']:.1f}", escape(run["message"] or ""),
        )  # fmt: skip
    _out.print(table)


def tell_errors(errors: list[Row]) -> None:
    """The quarantine: where each record stands, what is wrong with it, and how it begins."""
    for error in errors:
        place = _place(error["source_file"], error["record_index"])
        _out.print(f"[bold]{escape(error['sync_day'])} {escape(place)}[/] {error['error_type']}")
        _out.print(f"  {escape(error['error_message'])}")
        raw = json.dumps(error["raw_record"], ensure_ascii=False)
        _out.print(f"  [dim]{escape(raw[:200])}{'…' if len(raw) > 200 else ''}[/]")
    _out.print(f"{len(errors):,} in quarantine" if errors else "The quarantine is empty.")


def tell_groups(groups: list[Row], depth: int, *, inactive: bool) -> None:
    """The hierarchy as a tree, `depth` levels of it; with `inactive` only inactive groups and what leads to them."""
    parents = {g["group_id"]: g["parent_group_id"] for g in groups}
    shown = set(parents)
    if inactive:
        shown = set()
        for group in groups:
            at = group["group_id"] if group["inactive"] else None
            while at is not None and at not in shown:
                shown.add(at)
                at = parents[at]
    below: dict[int | None, list[Row]] = {}
    for group in groups:
        if group["group_id"] in shown:
            below.setdefault(group["parent_group_id"], []).append(group)
    seen: set[int] = set()
    for root in below.get(None, []):
        _tell_tree(root, below, depth, seen)
    for group in groups:  # the rest go round in circles
        if group["group_id"] in shown - seen:
            _tell_tree(group, below, depth, seen)
    idle = sum(g["inactive"] for g in groups)
    _out.print(f"{len(groups):,} groups, {idle:,} inactive" if groups else "There are no groups.")


def _tell_tree(root: Row, below: dict[int | None, list[Row]], depth: int, seen: set[int]) -> None:
    """Draw a tree without recursion: hierarchies may be deeper than Python's stack."""
    stack = [(root, "", "", 1)]
    while stack:
        group, lead, branch, level = stack.pop()
        again = group["group_id"] in seen
        seen.add(group["group_id"])
        children = [] if again else below.get(group["group_id"], [])
        _out.print(f"{lead}{branch}{_group(group)}{' (again: a cycle)' if again else ''}", soft_wrap=True)
        lead += {"": "", "├── ": "│   ", "└── ": "    "}[branch]
        if children and level == depth:
            hidden = _count_below(group, below, seen)
            _out.print(f"{lead}└── [dim]… {hidden:,} more below (--depth)[/]", soft_wrap=True)
        elif children:
            *rest, last = children
            stack.append((last, lead, "└── ", level + 1))
            stack += [(child, lead, "├── ", level + 1) for child in reversed(rest)]


def _count_below(group: Row, below: dict[int | None, list[Row]], seen: set[int]) -> int:
    """Count, and mark as seen, all groups below one."""
    before, stack = len(seen), [group]
    while stack:
        for child in below.get(stack.pop()["group_id"], []):
            if child["group_id"] not in seen:
                seen.add(child["group_id"])
                stack.append(child)
    return len(seen) - before


def _group(group: Row) -> str:
    colour, state = ("dim", "inactive") if group["inactive"] else ("green", "active")
    people = f"{group['active_members']:,} of {group['members']:,} members active" if group["members"] else "no members"
    return f"[{colour}]{escape(_short(group['name']))}[/] ({group['group_id']}): {state}, {people}"


def tell_agent(story: Row) -> None:
    """One agent's whole story: who it is, its roles and groups with their dates, its status day by day."""
    agent, details = story["agent"], (story["details"] or [{}])[0]
    _out.print(f"[bold]{escape(agent['name'])}[/] <{escape(agent['email'])}>, {agent['agent_id']}: {agent['status']}")
    for label, value in (agent | details | agent).items():  # the times that both have stand once, as the agent's own
        if value is not None and label not in _TOLD:
            _out.print(f"  {label}: {escape(_short(str(value)))}")
    for one in story["availability"]:
        state = {True: "available", False: "not available", None: "unknown"}[one["is_available"]]
        since = f" since {one['available_since']:%Y-%m-%d %H:%M}Z" if one["available_since"] else ""
        _out.print(f"channel {escape(one['channel'])}: {state}{since}")
    for role in story["roles"]:
        dates = [f"{h['action']} {h['sync_date']}" for h in story["role_history"] if h["role_id"] == role["role_id"]]
        _out.print(f"role {escape(role['name'])} ({role['role_id']}): {role['status']} ({', '.join(dates)})")
    for group in story["groups"]:
        both = group["stated_by_agent"] and group["stated_by_group"]
        side = "" if both else f", which only the {'agent' if group['stated_by_agent'] else 'group'}'s record states"
        _out.print(f"group {escape(group['name'] or 'unknown')} ({group['group_id']}){side}")
    for is_active, days in groupby(story["status_by_day"], key=lambda day: day["is_active"]):
        dates = [day["sync_date"] for day in days]
        span = f"{dates[0]} to {dates[-1]}" if len(dates) > 1 else str(dates[0])
        _out.print(f"{span}: {'active' if is_active else 'inactive'}")
    if story["quarantine"] is None:
        _out.print("quarantine: this user may not read it")
    for error in story["quarantine"] or ():
        place = _place(error["source_file"], error["record_index"])
        _out.print(f"quarantine {escape(error['sync_day'])}: {escape(place)} {escape(error['error_message'])}")
    if story["others_with_this_email"]:
        _out.print(f"others with this e-mail: {', '.join(map(str, story['others_with_this_email']))}")


_TOLD = {"agent_id", "name", "email", "status", "deactivated", "source"}


def tell(text: str) -> None:
    """A line of data, as it is."""
    _out.print(text, markup=False, soft_wrap=True, end="" if text.endswith("\n") else "\n")


def _table(first: str, *rest: str, numbers: int | None = None) -> Table:
    """A table whose last `numbers` columns, by default all but the first, are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    begin = 0 if numbers is None else len(rest) - numbers
    for position, name in enumerate(rest):
        is_number = position >= begin
        table.add_column(name, justify="right" if is_number else "left", no_wrap=name != "message")
    return table
