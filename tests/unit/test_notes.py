"""The notes on a run, as a person reads them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from deskroll import notes
from deskroll.pipelines import PIPELINES, Pipeline
from deskroll.postgres.counts import Change
from deskroll.postgres.ledger import Run
from deskroll.postgres.publisher import Published
from deskroll.postgres.staging import Purpose, Staged, StagedInput, StagedSync
from deskroll.verdicts import Note

AGENTS = next(p for p in PIPELINES if p.name == "agents")
NOTHING = Published((), (), (), (), (), 0, ())
FOLDERS = [s.folder for p in PIPELINES for s in p.inputs]


def source(name: str, read: int = 1, **said: bool) -> StagedInput:
    known = {"is_folder": "." not in name, "found": True, "complete": True} | said
    return StagedInput("agents", name, known["is_folder"], known["found"], known["complete"], read, 0, 0)


def staged(pipeline: str, day: str, purpose: Purpose) -> StagedSync:
    return replace(StagedSync(pipeline, day, date(2026, 1, 5), "api", "duckdb"), purpose=purpose)


def told(found: Iterable[Note]) -> list[str]:
    return [note.message for note in found]


def of_input(pipelines: list[Pipeline], inputs: list[StagedInput], reused: tuple[str, ...] = ()) -> list[str]:
    return told(notes.of_input(pipelines, Staged(inputs, {}, list(reused))))


def test_a_folder_says_why_it_is_incomplete_and_what_it_not_read() -> None:
    reasons = notes.few(["1.json: is empty", "2.json: x", "3.json: y", "4.json: z"], "; ")
    folder = replace(
        source("agents", complete=False),
        incomplete_because=reasons, not_read=notes.few(["a.txt", "b.csv", "c/", "d"]),
    )  # fmt: skip
    incomplete, not_read = notes.of_input([AGENTS], Staged([source("agent_details"), folder], {}))
    assert incomplete == Note(
        "incomplete",
        "agents/ is incomplete: 1.json: is empty; 2.json: x; 3.json: y and 1 more. Rows missing from this folder"
        " were not deactivated or removed. Download the folder again and re-run the sync",
    )
    assert not_read.kind == "not read"
    assert not_read.message.startswith("not read in agents/: a.txt, b.csv, c/ and 1 more (deskroll reads .j")


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["agents/", "cards/"], []),
        (["agent_detail/"], ["not read: agent_detail/ (did you mean agent_details/?)"]),
        (["Transactions/"], ["not read: Transactions/ (did you mean transactions/?)"]),
        (["readme.txt", "x/"], ["not read: readme.txt, x/"]),
    ],
)
def test_what_a_day_holds_beside_the_folders_that_are_known(entries: list[str], said: list[str]) -> None:
    assert told(notes.of_day(entries, FOLDERS)) == said


def test_a_plan_says_which_staged_day_it_has_replaced() -> None:
    held = [staged("agents", "day1", "stage"), staged("roles", "day1", "sync")]
    plan = [staged("agents", "day2", "plan"), staged("roles", "day2", "plan")]
    (note,) = told(notes.of_replaced(list(PIPELINES), held, plan, []))
    assert note.startswith("this plan replaced what `deskroll stage` had staged of day1 (agents)")
    assert list(notes.of_replaced(list(PIPELINES), held, held, ["agents"])) == []


def test_a_backfill_says_what_it_fills_in() -> None:
    run = Run(1, "day1", date(2026, 1, 5), "api", "duckdb", datetime(2026, 1, 9, tzinfo=UTC))
    newer = {date(2026, 1, 8): ["agents", "groups"], date(2026, 1, 7): ["roles"]}
    agents, roles = told(notes.of_backfill(run, newer))
    assert agents == (
        "a backfill: agents, groups are already published up to 2026-01-08. deskroll adds the status of agents on"
        " 2026-01-05, and keeps every newer value"
    )
    assert roles == "a backfill: roles is already published up to 2026-01-07. deskroll keeps every newer value"


def test_who_keeps_old_values_and_what_was_let_through() -> None:
    changes = (Change("agents", "stale", 1, ()), Change("cards", "stale", 1200, ()), Change("agents", "added", 5, ()))
    published = replace(NOTHING, changes=changes, noticed=("12 agents would be added",))
    assert told(notes.of_published(published)) == [
        "1 agent keeps old values because its record is in quarantine",
        "1,200 cards keep old values because their records are in quarantine",
        "mass change: 12 agents would be added. Check that this is the right dump",
    ]


def test_a_lost_roster_and_an_absent_folder_say_what_they_mean() -> None:
    lost, absent = source("agents", found=False, complete=False), source("agents", found=False)
    (note,) = of_input([AGENTS], [source("agent_details"), lost])
    assert note.startswith("the day has no agents/, although an earlier day had it: the roster is incomplete.")
    (note,) = of_input([AGENTS], [source("agent_details"), absent])
    assert note == "the day has no agents/: deskroll uses the master list as the roster"


def test_what_was_not_read_and_what_was_skipped() -> None:
    reused, skipped = of_input([*PIPELINES[:2]], [replace(source("roles"), pipeline="roles")], ("roles",))
    assert reused.startswith("roles: the files have not changed since they were staged")
    assert skipped == "skipped because the day has none of their folders: agents (agent_details/, agents/)"


def test_a_list_that_no_record_has_is_told_unless_another_folder_has_it() -> None:
    lists = [
        source(f"{folder}.{key}") for folder in ("agent_details", "agents") for key in ("availability", "group_ids")
    ]
    folders = [source("agent_details"), source("agents")]
    silent = [replace(one, found=False) for one in lists]
    assert of_input([AGENTS], folders + lists) == []
    assert of_input([AGENTS], [*folders, *silent[:2], *lists[2:]]) == []
    assert of_input([AGENTS], folders + silent) == [
        f"no record in {name}/ has the key availability or group_ids: deskroll keeps what is stored of these"
        for name in ("agent_details", "agents")
    ]
    nothing_valid = [replace(one, rejected=1) for one in folders]
    assert of_input([AGENTS], nothing_valid + silent) == []
