"""What is printed: no name is an order to the terminal, and JSON is JSON, whatever the names and the encoding."""

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deskroll.terminal import as_json, visible
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import Shell

TURNING = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
CONTROLS = "".join(map(chr, (*range(1, 0x20), *range(0x7F, 0xA0))))
OBEYED = set(TURNING + CONTROLS) - {"\n"}  # which our own lines end with
PLAIN_NAMES = [
    ":fire:",
    "B:M:W",
    "[bold]",
    "[/]",
    "[link=https://example.org]x[/link]",
    "back\\\\",
    "[red]\\",
    "Zoë 漢 😀",
]
NASTY = f"a{CONTROLS}b{TURNING}c"


def spoil(dump: Dump, day: str = "day1") -> None:
    """A day with names of every kind in everything that has a name."""
    names = [*PLAIN_NAMES, NASTY]
    dump.write(
        day,
        "agent_details",
        [
            agent(n, contact={"name": name, "email": f"{name}@x", "job_title": name}, role_ids=[n], group_ids=[n],
                  availability=[{"channel": name, "available": True}])
            for n, name in enumerate(names, 1)
        ] + [agent(90, available=NASTY), agent(91, created_at=":fire:"), agent(92, available="[/]")],
    )  # fmt: skip
    dump.write(day, "roles", [{"id": n, "name": name} for n, name in enumerate(names, 1)])
    dump.write(day, "admin_groups", [{"id": n, "name": name, "agent_ids": [n]} for n, name in enumerate(names, 1)])
    dump.write(day, "agent_details", b"{", f"{TURNING}\x85:fire:[bold].json")
    dump.write(day, "cards", [{"id": NASTY, "status": NASTY, "type": "[/]", "createdTime": "2026-01-05T00:00:00Z"}])


@pytest.fixture
def spoiled(shell: Shell, dump: Dump) -> Shell:
    spoil(dump)
    assert shell.run("sync", dump.path, "--day", "day1", "--sync-date", "2026-01-05").returncode == 0
    return shell


COMMANDS = [
    ["status"],
    ["runs"],
    ["errors"],
    ["groups"],
    *(["agent", str(n)] for n in range(1, len(PLAIN_NAMES) + 2)),
    ["agent", f"nobody {NASTY[1:]}"],
    ["sync", NASTY, "--day", "day1"],
    ["sync", "DUMP", "--day", "day1", "--sync-date", "2026-01-05", "--plan"],
    ["sync", "DUMP", "--day", NASTY],
    ["sync", "DUMP", "--day", "day1", "--only", NASTY],
    ["sync", "DUMP", "--day", "day1", "--sync-date", NASTY],
    ["sync", "DUMP", "--day", "day1", "--engine", NASTY],
    ["sync", "DUMP", "--day", "day1", "--max-rejected", NASTY],
    ["sync", "DUMP", "--day", "day1", "--engine", "spark", "--spark-conf", f"={NASTY}"],
    ["errors", "--pipeline", NASTY],
    ["errors", "--limit", NASTY],
    ["sql", NASTY],
    [f"no-such-{NASTY}"],
    ["sync", f"--{NASTY}"],
    ["status", NASTY],
    ["status", "--database-url", f"postgresql://127.0.0.1:1/{NASTY}"],
]


def test_no_terminal_obeys_what_is_in_a_name(spoiled: Shell, dump: Dump) -> None:
    for command in COMMANDS:
        done = spoiled.run(*(dump.path if part == "DUMP" else part for part in command))
        said = done.stdout + done.stderr
        assert said, command
        assert not OBEYED & set(said), (command, OBEYED & set(said))


def test_a_name_stays_what_it_is(spoiled: Shell, db: Database) -> None:
    shown = {command: spoiled.run(command).stdout for command in ("groups", "status", "errors")}
    story = "".join(spoiled.run("agent", n).stdout for n in range(1, len(PLAIN_NAMES) + 1))
    for name in PLAIN_NAMES:
        assert f"{name} (" in shown["groups"], name
        for line in (f"{name} <{name}@x>", f"channel {name}:", f"role {name} (", f"group {name} ("):
            assert line in story, line
    assert ":fire:[bold].json" in shown["errors"]
    assert 'found ":fire:"' in shown["errors"]
    assert visible(NASTY.replace("\t", " ")[:5]) in shown["groups"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252", "utf-16", "shift_jis"])
def test_json_is_json_in_any_encoding(encoding: str, spoiled: Shell) -> None:
    spoiled.environment["PYTHONIOENCODING"] = encoding
    as_read: list[Any] = []
    for command in (["groups"], ["agent", "9"], ["errors"], ["status"], ["runs"]):
        said = spoiled.run(*command, "--json", encoding=encoding).stdout
        as_read.append(json.loads(said, parse_constant=pytest.fail))
        assert not OBEYED & set(said)
        assert "漢" in said or command != ["groups"] or encoding not in {"utf-8", "shift_jis"}
    assert {group["name"] for group in as_read[0]} == {*PLAIN_NAMES, NASTY}
    assert as_read[1]["agent"]["name"] == NASTY


def test_json_has_no_infinity(shell: Shell, dump: Dump) -> None:
    dump.write("day1", "agent_details", b'[{"id": "x", "y": 1e400, "z": 100000.5e400}, {"id": 1}]')
    shell.run("sync", dump.path, "--day", "day1", "--sync-date", "2026-01-05")
    said = shell.run("errors", "--json").stdout
    assert len(json.loads(said, parse_constant=pytest.fail)) == 2


@given(value=st.recursive(st.text(st.characters()), st.lists), encoding=st.sampled_from(["utf-8", "ascii", "cp1252"]))
@example(value="\ud800 \udc80 😀 ü", encoding="utf-8")
@example(value="\ud800 \udc80 😀 ü", encoding="ascii")
def test_escapes_change_no_value(value: Any, encoding: str) -> None:
    said = as_json(json.dumps(value, ensure_ascii=False), encoding)
    assert json.loads(said) == value
    said.encode(encoding)


def test_a_terminal_with_colours_is_shown_what_is_in_the_step_at_hand() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    code = """
import logging, time
from deskroll.terminal import Narration, say
narration, logger = Narration(), logging.getLogger("deskroll")
logger.addHandler(narration)
logger.setLevel("INFO")
with narration.progress():
    logger.info(":fire: [bold] a\\x9bb\\x1b[31mc")
    time.sleep(0.5)
say((":fire: [bold] d\\x1b[31me", "bold"))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, env=environment)
    process.wait(60)
    os.close(theirs)
    said = os.read(ours, 1_000_000).decode()
    os.close(ours)
    assert ":fire: [bold] a\\x9bb\\x1b[31mc" in said
    assert ":fire: [bold] d\\x1b[31me" in said
