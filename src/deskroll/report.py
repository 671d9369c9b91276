"""What a command prints: tables for a person on stdout, narration on stderr, or one JSON document."""

import dataclasses
import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from deskroll.errors import DeskrollError
from deskroll.evidence import EvidenceFile
from deskroll.forget import Forgotten
from deskroll.postgres.staging import StagedInput
from deskroll.queries import Row
from deskroll.sync import Outcome
from deskroll.terminal import Columns, Part, say, say_error, say_json, say_lines

_COUNTS = {
    "records_read": "read",
    "duplicates": "duplicates",
    "rejected": "rejected",
    "staged": "staged",
    "inserted": "inserted",
    "updated": "updated",
    "unchanged": "unchanged",
    "deactivated": "deactivated",
    "removed": "removed",
}


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    say_json(plain(value))


def plain(value: Any) -> Any:
    """A value that JSON can take."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def print_failure(error: DeskrollError) -> None:
    """What happened, and what to do about it: two lines on stderr."""
    say_error(("error:", "bold red"), f" {error.message}")
    if error.hint:
        say_error(error.hint)


def print_outcome(outcome: Outcome) -> None:
    """The summary of a run: counts per table, who changed, what went into quarantine."""
    run, published = outcome.run, outcome.published
    title = f"{run.sync_day} as of {run.sync_date}, {run.engine}"
    if run.is_plan:
        would = "; a sync would be refused" if published.refusals else ""
        say((f"Plan for {title}", "bold"), f": nothing was published{would}")
    elif published.refusals:
        say((f"Refused: {title}", "bold"), f", run {run.run_id}: this is what it would have done")
    else:
        say((title, "bold"), f", run {run.run_id}")
    say(outcome.database)
    columns = [c for c in _COUNTS if any(getattr(t, c) for t in published.tables)]
    table = Columns("table", *(_COUNTS[c] for c in columns))
    for counts in published.tables:
        table.add(counts.table, *(f"{getattr(counts, c):,}" for c in columns))
    table.say()
    for change in published.changes:
        more = f" and {change.count - len(change.examples):,} more" if change.count > len(change.examples) else ""
        who = ", ".join(map(_short, change.examples))
        say(f"{change.pipeline} {change.change} {change.count:,}: {who}{more}")
    for one in published.discrepancies:
        _print_discrepancy(one.kind, one.discrepancy, one.rows, one.examples)
    _print_quarantine(outcome)
    for note in outcome.notes:
        say(f"note: {note.message}")


def _print_discrepancy(kind: str, what: str, rows: int, examples: Iterable[str]) -> None:
    say(f"{kind}: {_short(what)}: {rows:,} (such as {_short(', '.join(examples))})")


def _short(text: str) -> str:
    """A name as a line of a summary can bear it."""
    line = " ".join(text.split()) or "(blank)"
    return line if len(line) <= 80 else f"{line[:79]}…"


def _print_quarantine(outcome: Outcome) -> None:
    total, errors = outcome.published.quarantine, outcome.published.errors
    if not total:
        return
    say(f"quarantine {total:,}:")
    for error in errors:
        say(f"  {_place(error.source_file or '', error.record_index)} {error.error_message}")
    if total > len(errors):
        say(f"  and {total - len(errors):,} more: deskroll errors --day {outcome.run.sync_day}")


def _place(file: str, index: int | None) -> str:
    return file if index is None else f"{file}[{index}]"


def print_staged(inputs: tuple[StagedInput, ...]) -> None:
    """What `stage` read."""
    table = Columns("input", "read", "duplicates", "rejected")
    for s in inputs:
        table.add(s.input, f"{s.records_read:,}", f"{s.duplicates:,}", f"{s.rejected:,}")
    table.say()
    say("Staged. Nothing is published yet: run `deskroll publish`.")


def print_status(status: Row) -> None:
    """Who is active, how far each pipeline is, the last runs, the quarantine."""
    for label, count in status["facts"].items():
        say(f"{label}: {count:,}")
    for pipeline in status["pipelines"]:
        newest = f", records up to {pipeline['updated_time']:%Y-%m-%d %H:%M:%S}Z" if pipeline["updated_time"] else ""
        until = f"published up to {pipeline['sync_date']}" if pipeline["sync_date"] else "not published yet"
        say(f"{pipeline['pipeline']}: {until}{newest}")
    for one in status["discrepancies"]:
        _print_discrepancy(one["kind"], one["discrepancy"], one["rows"], one["examples"])
    print_runs(status["runs"])
    if status["quarantine_hidden"]:
        say(f"quarantine of {', '.join(status['quarantine_hidden'])}: this user may not read it")
    if status["quarantine"]:
        table = Columns("quarantine of", "error", "newest day", "rows of it", "of all days", numbers=2)
        for row in status["quarantine"]:
            of_newest = (row["newest_day"], f"{row['of_newest_day']:,}")
            table.add(row["pipeline"], row["error_type"], *of_newest, f"{row['count']:,}")
        table.say()


def print_status_on(status: Row) -> None:
    """The counts of a date, and from which days they are."""
    say((f"As of {status['on']}", "bold"))
    for label, count in status["facts"].items():
        say(f"{label}: {count:,}")
    for pipeline in status["pipelines"]:
        incomplete = "" if pipeline["is_complete"] else ", of which a part was missing"
        say(f"{pipeline['pipeline']}: as of {pipeline['sync_date']} ({pipeline['sync_day']}){incomplete}")


def print_runs(runs: list[Row]) -> None:
    """The ledger, a line a run."""
    table = Columns("run", "day", "date", "status", "began", "seconds", "message", numbers=0)
    for run in runs:
        began = f"{run['started_at']:%Y-%m-%d %H:%M:%S}Z"
        table.add(
            str(run["run_id"]), run["sync_day"], str(run["sync_date"]), run["status"], began,
            f"{run['seconds']:.1f}", run["message"] or "",
        )  # fmt: skip
    table.say()


def print_run(run: Row) -> None:
    """One run whole: who made it and why, what it read, how near its guards were, and what it changed."""
    say(
        (f"run {run['run_id']}", "bold"),
        f": {run['sync_day']} as of {run['sync_date']}, {run['engine']}, {run['status']}",
    )
    seconds = (run["finished_at"] - run["started_at"]).total_seconds()
    say(f"began: {run['started_at']:%Y-%m-%d %H:%M:%S}Z, {seconds:.1f} seconds")
    if run["version"]:
        say(f"by: {run['os_user']} on {run['host']}, as {run['database_role']}, with deskroll {run['version']}")
    for name, value in (run["options"] or {}).items():
        say(f"  {name}: {_short(', '.join(value) if isinstance(value, list) else str(value))}")
    is_asked = (run["options"] or {}).get("allow_mass_change")
    if run["reason"] or is_asked:
        say(f"reason: {run['reason'] or 'none was given'}")
    if run["message"]:
        say(f"message: {run['message']}")
    _print_run_inputs(run["inputs"])
    _print_guards(run["guards"])
    for one in run["discrepancies"]:
        _print_discrepancy(one["kind"], one["discrepancy"], one["rows"], one["examples"])
    _print_run_changes(run)


def _print_run_inputs(inputs: list[Row]) -> None:
    if not inputs:
        return
    table = Columns("input", "state", "files", "bytes", "read", "valid", "duplicates", "rejected", numbers=6)
    for one in inputs:
        state = (
            "absent" if not one["found"] else {True: "complete", False: "incomplete", None: "not read"}[one["complete"]]
        )
        counts = ("files", "bytes", "records_read", "valid", "duplicates", "rejected")
        table.add(one["input"], state, *("" if one[c] is None else f"{one[c]:,}" for c in counts))
    table.say()
    for one in inputs:
        if one["incomplete_because"]:
            say(f"{one['input']}/ is incomplete: {one['incomplete_because']}")


def _print_guards(guards: list[Row]) -> None:
    """The guards that something came near to; those that counted nothing are left out."""
    shown = [guard for guard in guards if guard["changed"]]
    if not shown:
        return
    table = Columns("guard", "verdict", "changed", "of", "share", "too many from", numbers=4)
    for guard in shown:
        verdict = "refused" if guard["refused"] else "allowed" if guard["allowed"] else "passed"
        what = f"{guard['guarded']}{' (gain)' if guard['is_gain'] else ''}"
        share = "" if guard["share"] is None else f"{100 * guard['share']:.0f} %"
        most = "" if guard["threshold"] is None else f"{guard['threshold']:,}"
        table.add(what, verdict, f"{guard['changed']:,}", f"{guard['before']:,}", share, most)
    table.say()


def _print_run_changes(run: Row) -> None:
    """The changes of a run, of each kind the first."""
    if run["changes"] and run["status"] == "refused":
        say("This is what it would have changed:")
    for change in run["changes"]:
        say((f"{change['pipeline']} {change['change']}", "bold"), f" {change['count']:,}")
        for one in change["first"]:
            say(f"  {_short(one['label'] or one['key'])} ({one['key']})", _fields_changed(one))
        if change["first"] and change["count"] > len(change["first"]):
            say(f"  and {change['count'] - len(change['first']):,} more (--limit)")


def _fields_changed(change: Row) -> str:
    """What changed of a thing: each field as it was and as it is."""
    before, after = change["before"], change["after"]
    if not before or not after:
        return ""
    told = [f"{name} {_value(before.get(name))} → {_value(after.get(name))}" for name in {**before, **after}]
    return f": {'; '.join(told)}"


def _value(value: Any) -> str:
    return "(none)" if value is None else _short(value if isinstance(value, str) else json.dumps(value))


def print_errors(errors: list[Row]) -> None:
    """The quarantine: the place of each record, what is wrong with it, and how it begins."""
    for error in errors:
        place = _place(error["source_file"], error["record_index"])
        say((f"{error['sync_day']} {place}", "bold"), f" {error['error_type']}")
        say(f"  {error['error_message']}")
        raw = json.dumps(error["raw_record"], ensure_ascii=False)
        say((f"  {raw[:200]}{'…' if len(raw) > 200 else ''}", "dim"))
    say(f"{len(errors):,} in quarantine" if errors else "The quarantine is empty.")


def print_groups(groups: list[Row], depth: int, *, inactive: bool) -> None:
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
        _print_tree(root, below, depth, seen)
    by_id = {group["group_id"]: group for group in groups}
    for group in groups:  # the rest are in a cycle, or below one
        if group["group_id"] in shown and group["group_id"] not in seen:
            _print_tree(by_id[_in_cycle(group["group_id"], parents)], below, depth, seen)
    idle = sum(g["inactive"] for g in groups)
    say(f"{len(groups):,} groups, {idle:,} inactive" if groups else "There are no groups.")


def _in_cycle(group_id: int, parents: dict[int, int]) -> int:
    """The group of a cycle that a group without a root is in, or below."""
    passed: set[int] = set()
    while group_id not in passed:
        passed.add(group_id)
        group_id = parents[group_id]
    return group_id


def _print_tree(root: Row, below: dict[int | None, list[Row]], depth: int, seen: set[int]) -> None:
    """Draw a tree without recursion: hierarchies may be deeper than Python's stack."""
    stack = [(root, "", "", 1)]
    while stack:
        group, lead, branch, level = stack.pop()
        again = group["group_id"] in seen
        seen.add(group["group_id"])
        children = [] if again else below.get(group["group_id"], [])
        say(f"{lead}{branch}", *_group(group), " (again: a cycle)" if again else "", soft_wrap=True)
        lead += {"": "", "├── ": "│   ", "└── ": "    "}[branch]
        if children and level == depth:
            hidden = _count_below(group, below, seen)
            say(f"{lead}└── ", (f"… {hidden:,} more below (--depth)", "dim"), soft_wrap=True)
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


def _group(group: Row) -> tuple[Part, Part]:
    colour, state = ("dim", "inactive") if group["inactive"] else ("green", "active")
    people = f"{group['active_members']:,} of {group['members']:,} members active" if group["members"] else "no members"
    return (_short(group["name"]), colour), f" ({group['group_id']}): {state}, {people}"


def print_agent(story: Row) -> None:
    """One agent's whole story: who it is, its roles and groups, and what changed when."""
    agent, details = story["agent"], (story["details"] or [{}])[0]
    say((agent["name"], "bold"), f" <{agent['email']}>, {agent['agent_id']}: {agent['status']}")
    for label, value in (agent | details | agent).items():  # the times that both have stand once, as the agent's own
        if value is not None and label not in _IN_TITLE:
            say(f"  {label}: {_short(str(value))}")
    for one in story["availability"]:
        state = {True: "available", False: "not available", None: "unknown"}[one["is_available"]]
        since = f" since {one['available_since']:%Y-%m-%d %H:%M}Z" if one["available_since"] else ""
        say(f"channel {one['channel']}: {state}{since}")
    for role in story["roles"]:
        dates = [f"{h['action']} {h['sync_date']}" for h in story["role_history"] if h["role_id"] == role["role_id"]]
        say(f"role {role['name']} ({role['role_id']}): {role['status']} ({', '.join(dates)})")
    for group in story["groups"]:
        both = group["stated_by_agent"] and group["stated_by_group"]
        side = "" if both else f", which only the {'agent' if group['stated_by_agent'] else 'group'}'s record states"
        say(f"group {group['name'] or 'unknown'} ({group['group_id']}){side}")
    _print_timeline(story["timeline"])
    if story["quarantine"] is None:
        say("quarantine: this user may not read it")
    for error in story["quarantine"] or ():
        place = _place(error["source_file"], error["record_index"])
        say(f"quarantine {error['sync_day']}: {place} {error['error_message']}")
    if story["others_with_this_email"]:
        say(f"others with this e-mail: {', '.join(map(str, story['others_with_this_email']))}")


_IN_TITLE = {"agent_id", "name", "email", "status", "deactivated", "source"}


def _print_timeline(events: list[Row]) -> None:
    for on, of_date in groupby(events, key=lambda event: event["date"]):
        say((str(on), "bold"))
        for event in of_date:
            before = "" if event["before"] is None else f"{_short(event['before'])} → "
            say(f"  {event['what']}: {before}{_value(event['after'])}")


def print_text(text: str) -> None:
    """A line of data, as it is."""
    say_lines(text)


def print_evidence(files: list[EvidenceFile], out: Path) -> None:
    """What an evidence file has in it."""
    table = Columns("file", "rows", "tells", numbers=0)
    for file in files:
        table.add(file.name, f"{file.rows:,}", file.tells)
    table.say()
    say_lines(f"written to {out}, with MANIFEST.json")


def print_forgotten(done: Forgotten) -> None:
    """What forgetting a person did, or would do, and what may bring the person back."""
    table = Columns("table", "rows deleted", "rows blanked")
    for one in done.tables:
        table.add(one.table, f"{one.deleted:,}", f"{one.blanked:,}")
    table.say()
    if done.run_id is None:
        say_lines("a plan: nothing was erased")
    else:
        say_lines(f"forgotten; run {done.run_id} of the ledger says so. Staging is empty: stage again what was staged.")
    still = " The newest day still had them." if done.last_sent == done.newest_date else ""
    say_lines(f"note: if the source still sends this person, the next sync adds them again.{still}")
    say_lines("note: the dumps, backups and exports of this database still have them.")
