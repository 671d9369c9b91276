"""The evidence of a date: what was true, who left, what changed, what was read and allowed, as one ZIP file."""

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from psycopg import IsolationLevel, sql

from deskroll.errors import UsageError
from deskroll.exports import copy_csv, written
from deskroll.postgres.database import Connection
from deskroll.queries import check_published, fetch, published_on, reading
from deskroll.settings import Settings

_RUNS: Final = "FROM sync_runs AS run WHERE run.sync_date BETWEEN {since} AND {on}"
_HELD: Final = """SELECT period.agent_id, 'role' AS kind, period.role_id::TEXT AS id, role.name, period.valid_from,
        period.valid_to
    FROM agent_role_periods AS period LEFT JOIN roles AS role ON role.role_id = period.role_id
    UNION ALL
    SELECT member.agent_id, 'group', member.group_id::TEXT, one.name, member.valid_from, member.valid_to
    FROM (
        SELECT own.agent_id, own.group_id, own.valid_from, own.valid_to FROM agent_group_periods AS own
        UNION ALL
        SELECT theirs.agent_id, theirs.group_id, theirs.valid_from, theirs.valid_to FROM group_member_periods AS theirs
    ) AS member LEFT JOIN groups AS one ON one.group_id = member.group_id
    UNION ALL
    SELECT period.agent_id, 'card', period.card_id, card.name, period.valid_from, period.valid_to
    FROM card_periods AS period LEFT JOIN cards AS card ON card.card_id = period.card_id
    WHERE period.status NOT IN ('FROZEN', 'DELETED')"""

# What each file tells, and its SELECT.
_FILES: Final = {
    "agents.csv": (
        "Who was known on the date, and who of them was active.",
        "SELECT * FROM agents_on({on}) ORDER BY agent_id",
    ),
    "roles.csv": (
        "Who held which role on the date.",
        """SELECT held.agent_id, agent.name, agent.email, agent.is_active, held.role_id, held.role,
            held.valid_from AS held_from, held.valid_to AS held_until
        FROM agent_roles_on({on}) AS held LEFT JOIN agents_on({on}) AS agent ON agent.agent_id = held.agent_id
        ORDER BY held.agent_id, held.role_id""",
    ),
    "groups.csv": (
        "The groups that were known on the date, and which of them had an active member.",
        "SELECT * FROM groups_on({on}) ORDER BY group_id",
    ),
    "members.csv": (
        "Who was in which group on the date, and whose record says so.",
        """SELECT member.group_id, one.name AS group_name, member.agent_id, agent.name, agent.email, agent.is_active,
            member.stated_by_group, member.stated_by_agent, member.valid_from AS member_from
        FROM group_members_on({on}) AS member
        LEFT JOIN groups_on({on}) AS one ON one.group_id = member.group_id
        LEFT JOIN agents_on({on}) AS agent ON agent.agent_id = member.agent_id
        ORDER BY member.group_id, member.agent_id""",
    ),
    "cards.csv": (
        "The cards that were known on the date, and their holders.",
        """SELECT card.*, agent.name AS agent_name, agent.email AS agent_email, agent.is_active AS agent_is_active
        FROM cards_on({on}) AS card LEFT JOIN agents_on({on}) AS agent ON agent.agent_id = card.agent_id
        ORDER BY card.card_id""",
    ),
    "budgets.csv": (
        "The budgets that were known on the date.",
        "SELECT * FROM budgets_on({on}) ORDER BY budget_id",
    ),
    "leavers.csv": (
        "Who left in the time, what they had then, and what they have at the time of the query.",
        "SELECT * FROM leavers WHERE left_on BETWEEN {since} AND {on} ORDER BY left_on, agent_id",
    ),
    "revoked.csv": (
        "What those who left had on their last active day, and until when; revoked_on is empty if they have it still.",
        f"""SELECT gone.agent_id, gone.name, gone.email, gone.left_on, held.kind, held.id, held.name AS what,
            lower(held.days) AS held_from, upper(held.days) AS revoked_on
        FROM leavers AS gone
        JOIN (
            SELECT held.agent_id, held.kind, held.id, held.name,
                unnest(range_agg(daterange(held.valid_from, held.valid_to))) AS days
            FROM ({_HELD}) AS held GROUP BY held.agent_id, held.kind, held.id, held.name
        ) AS held ON held.agent_id = gone.agent_id
        WHERE gone.left_on BETWEEN {{since}} AND {{on}}
            AND lower(held.days) < gone.left_on AND (upper(held.days) IS NULL OR upper(held.days) >= gone.left_on)
        ORDER BY gone.left_on, gone.agent_id, held.kind, held.id""",
    ),
    "runs.csv": (
        "The runs for dates in the time: what became of them, who made them, with which version, options and reason.",
        f"SELECT run.* {_RUNS} ORDER BY run.run_id",
    ),
    "inputs.csv": (
        "What each run read: records_read = valid + duplicates + rejected; files, and their fingerprint.",
        f"""SELECT run.sync_day, run.sync_date, run.status, input.*
        FROM sync_run_inputs AS input JOIN (SELECT run.* {_RUNS}) AS run ON run.run_id = input.run_id
        ORDER BY input.run_id, input.input""",
    ),
    "tables.csv": (
        "What each run did to each table, in rows.",
        f"""SELECT run.sync_day, run.sync_date, counted.*
        FROM sync_run_tables AS counted JOIN (SELECT run.* {_RUNS}) AS run ON run.run_id = counted.run_id
        ORDER BY counted.run_id, counted.pipeline, counted.table_name""",
    ),
    "changes.csv": (
        "What each run changed; of a refused run what it would have changed.",
        f"""SELECT run.sync_day, run.sync_date, run.status, change.*
        FROM run_changes AS change JOIN (SELECT run.* {_RUNS}) AS run ON run.run_id = change.run_id
        ORDER BY change.run_id, change.pipeline, change.change, length(change.key), change.key""",
    ),
    "guards.csv": (
        "How near each run was to being refused, which were refused, and what a person allowed for which reason.",
        f"""SELECT run.sync_day, run.sync_date, run.status, guard.*, run.reason, run.os_user, run.database_role
        FROM sync_run_guards AS guard JOIN (SELECT run.* {_RUNS}) AS run ON run.run_id = guard.run_id
        ORDER BY guard.run_id, guard.pipeline, guard.guarded, guard.is_gain""",
    ),
    "discrepancies.csv": (
        "What the inputs of a run disagreed on.",
        f"""SELECT run.sync_day, run.sync_date, found.*
        FROM sync_run_drift AS found JOIN (SELECT run.* {_RUNS}) AS run ON run.run_id = found.run_id
        ORDER BY found.run_id, found.pipeline, found.drift""",
    ),
}


@dataclass(frozen=True)
class EvidenceFile:
    """One file of the evidence: what it tells, its rows without the header, its bytes, and their SHA-256 in hex."""

    name: str
    tells: str
    rows: int
    bytes: int
    sha256: str


def write_evidence(settings: Settings, on: date, since: date | None, target: Path) -> list[EvidenceFile]:
    """Write what was true on a date, and what became so from another date on, into a ZIP file.

    It has CSV files, all of one moment, and MANIFEST.json, which says what each tells. Without `since` the time begins
    with the first date that was published.

    Raises:
        UsageError: nothing was published up to the date, or `since` is later.
        DeskrollError: the file cannot be written.
    """
    if since and since > on:
        raise UsageError(f"--since {since} is later than --on {on}.", "Change one of them.")
    with reading(settings) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            first = check_published(connection, on)
            dates = {"on": on, "since": since or first}
            with written(target) as partial, zipfile.ZipFile(partial, "w") as archive:
                files = [
                    _write_file(connection, archive, name, tells, select, dates)
                    for name, (tells, select) in _FILES.items()
                ]
                manifest = _manifest(connection, dates, files)
                archive.writestr(_entry("MANIFEST.json"), json.dumps(manifest, indent=2, default=str) + "\n")
    return files


def _write_file(
    connection: Connection, archive: zipfile.ZipFile, name: str, tells: str, select: str, dates: dict[str, date]
) -> EvidenceFile:
    digest, size = hashlib.sha256(), 0
    with archive.open(_entry(name), "w", force_zip64=True) as sink:

        def write(chunk: bytes) -> None:
            nonlocal size
            sink.write(chunk)
            digest.update(chunk)
            size += len(chunk)

        rows = copy_csv(connection, sql.SQL(select).format(**dates), write)
    return EvidenceFile(name, tells, rows, size, digest.hexdigest())


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry


def _manifest(connection: Connection, dates: dict[str, date], files: list[EvidenceFile]) -> dict[str, Any]:
    info = connection.info
    (asked,) = fetch(connection, "SELECT now() AS queried_at, current_user AS database_role, version() AS server")
    return {
        "deskroll": version("deskroll"),
        **asked,
        "database": f"{info.dbname} on {info.host}",
        **dates,
        "published": published_on(connection, dates["on"]),
        "about_cells": "An apostrophe was put before each cell that a spreadsheet would run as a formula.",
        "files": [asdict(file) for file in files],
    }
