"""What a run logs if nobody looks: a line a step, for people and for programs."""

import json
import re

import pytest

from tests.helpers.factories import Dump, agent
from tests.helpers.runs import Shell

STEPS = ["looking for the day", "connecting to PostgreSQL", "reading", "staged", "publishing", "published"]


@pytest.fixture
def cron(shell: Shell, dump: Dump) -> Shell:
    """A shell of somebody who has set nothing, and a day of two agents."""
    del shell.environment["DESKROLL_LOG_LEVEL"]
    dump.write("2026-01-05", "agent_details", [agent(1), agent(2)])
    return shell


def test_without_a_terminal_each_step_is_a_line(cron: Shell, dump: Dump) -> None:
    done = cron.run("sync", dump.path, "--day", "2026-01-05", "--only", "agents")
    assert done.returncode == 0
    lines = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO (.*)", line) for line in done.stderr.splitlines()]
    assert all(lines), done.stderr
    said = [line[1] for line in lines if line]
    steps = [step for step in STEPS for line in said if line.startswith(step)]
    assert list(dict.fromkeys(steps)) == STEPS
    assert "reading folder=agent_details files=1 megabytes=0.0" in said
    assert "staged pipeline=agents rows=4" in said
    assert "published day=2026-01-05 run_id=1 inserted=4 updated=0 removed=0 quarantine=0" in said


def test_a_program_reads_an_object_a_line(cron: Shell, dump: Dump) -> None:
    done = cron.run("sync", dump.path, "--day", "2026-01-05", "--only", "agents", "--log-format", "json")
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [{"time", "level", "message"} <= line.keys() for line in found] == [True] * len(found)
    assert next(line for line in found if line["message"] == "reading")["folder"] == "agent_details"
    assert found[-1] | {"time": ""} == {
        "time": "", "level": "info", "message": "published", "day": "2026-01-05", "run_id": 1, "inserted": 4,
        "updated": 0, "removed": 0, "quarantine": 0,
    }  # fmt: skip


def test_a_failure_is_an_object_too(cron: Shell, dump: Dump) -> None:
    done = cron.run("sync", dump.path, "--day", "2026-01-06", "--log-format", "json")
    assert done.returncode == 2
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["level"] == "error"
    assert last["exit_code"] == 2
    assert "has no day '2026-01-06'" in last["message"]
    assert "2026-01-05" in last["hint"]


def test_a_refusal_is_logged_as_one(cron: Shell, dump: Dump) -> None:
    dump.write("2026-01-06", "agent_details", [{"id": n} for n in range(5)])
    done = cron.run("sync", dump.path, "--day", "2026-01-06", "--log-format", "json")
    assert done.returncode == 3
    *_, result, failure = map(json.loads, done.stderr.splitlines())
    assert result["message"] == "refused"
    assert failure["exit_code"] == 3


@pytest.mark.parametrize("how", [("--log-level", "warning"), ("--log-level", "error")])
def test_whoever_wants_less_gets_less(how: tuple[str, str], cron: Shell, dump: Dump) -> None:
    assert cron.run("sync", dump.path, "--day", "2026-01-05", *how).stderr == ""


def test_settings_say_it_for_all_commands(cron: Shell, dump: Dump) -> None:
    cron.environment |= {"DESKROLL_LOG_LEVEL": "info", "DESKROLL_LOG_FORMAT": "json"}
    done = cron.run("stage", dump.path, "--day", "2026-01-05")
    assert json.loads(done.stderr.splitlines()[0])["message"] == "looking for the day"


def test_no_log_has_a_password(cron: Shell, dump: Dump) -> None:
    cron.environment["DESKROLL_DATABASE_URL"] = "postgresql://me:hunter2@127.0.0.1:1/deskroll"
    done = cron.run("sync", dump.path, "--day", "2026-01-05", "--log-level", "debug", "--log-format", "json")
    assert done.returncode == 1
    assert "hunter2" not in done.stdout + done.stderr
