"""Runs of deskroll: in this process, and as a command."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from deskroll import sync as sync_module
from deskroll.postgres.guards import Limits
from deskroll.settings import Settings

SAMPLE = Path(__file__).parent.parent.parent / "sample_data"
DAYS = {"day1": "2026-01-05", "day2": "2026-01-06", "day3": "2026-01-07", "tran": "2026-01-04"}


INTERRUPTED = "error: Interrupted; nothing was published, unless `deskroll runs` says so.\n"


def heed_ctrl_c() -> None:
    """Before a program is run: shells have what they run in the background ignore it, and that is inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Shell:
    """Runs `python -m deskroll` and shows what came of it, without what differs from run to run."""

    def __init__(self, url: str, tmp_path: Path) -> None:
        self.url, self.tmp_path = url, tmp_path
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DESKROLL_DATABASE_URL": url}
        self.environment["DESKROLL_LOG_LEVEL"] = "warning"  # a test of something else compares what stderr says
        passed_on = ("COV", "PYTHONPATH")
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith(passed_on)}

    def run(self, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload, no-any-return]  # options as they come
            [sys.executable, "-m", "deskroll", *map(str, arguments)],
            **{"env": self.environment, "capture_output": True, "text": True, "check": False, "cwd": self.tmp_path}
            | options,
        )

    def show(self, *arguments: object) -> str:
        done = self.run(*arguments)
        text = f"exit {done.returncode}\n--- stdout\n{done.stdout}--- stderr\n{done.stderr}"
        text = text.replace(str(self.tmp_path), "TMP").replace(self.url, "URL")
        given = conninfo_to_dict(self.url)
        text = text.replace(str(given.get("host")), "HOST").replace(str(given["dbname"]), "DATABASE")
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ +\d+\.\d", "WHEN SECONDS", text)
        text = re.sub(
            r'"(seconds|started_at|finished_at|ingested_at|created_at|fingerprint)": ("[^"]*"|[\d.]+)',
            r'"\1": "..."',
            text,
        )
        text = re.sub(r"ingested_at: .*", "ingested_at: WHEN", text)
        return re.sub(r" +$", "", text, flags=re.MULTILINE)


Sync = Callable[..., sync_module.Outcome]


def sync_into(
    url: str,
    dump: str,
    day: str,
    on: str,
    engine: str = "duckdb",
    *,
    only: tuple[str, ...] = (),
    plan: bool = False,
    **limits: Any,
) -> sync_module.Outcome:
    """Sync a day of a dump in this process; however many of its records are bad, unless a limit is given."""
    request = sync_module.Request(dump, day, date.fromisoformat(on), only, engine)
    settings = Settings(database_url=SecretStr(url), threads=2)
    return sync_module.sync_day(request, settings, Limits(**{"max_rejected": "100%"} | limits), plan=plan)


def messages(outcome: sync_module.Outcome) -> list[str]:
    """What the notes on a run say."""
    return [note.message for note in outcome.notes]


def changes(outcome: sync_module.Outcome, pipeline: str = "agents") -> dict[str, int]:
    """How many rows changed, and how."""
    return {change.change: change.count for change in outcome.published.changes if change.pipeline == pipeline}
