"""What the model tests publish, recorded once and published again: their verdict on a change of the SQL, in seconds.

    python torture/replay.py record STEPS URL
    python torture/replay.py STEPS URL [STEP ...]

A step is one publishing: the tables before it, staging with it, and what the model found right after it. Replaying
makes a database with the SQL of the `deskroll` that is imported, and exits with 1 at the first step, those given
before the others, of which the result differs. `URL` is a database on a server where others can be made.
"""

import argparse
import pickle
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from psycopg import sql

from deskroll import pipelines, sync
from deskroll.errors import DeskrollError
from deskroll.postgres import database, guards
from deskroll.postgres.database import Session
from deskroll.postgres.guards import Limits
from deskroll.postgres.ledger import Entry, Provenance, Run
from deskroll.postgres.staging import Staged

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.databases import Database, drop_database, make_migrated  # noqa: E402 - they are no package that is installed
from tests.rules import test_model, test_model_spend  # noqa: E402 - as above

TESTS = ["tests/rules/test_model.py", "tests/rules/test_model_spend.py", "tests/promises/test_machine.py"]


@dataclass(frozen=True)
class Step:
    """One publishing."""

    before: dict[str, bytes]
    pipelines: tuple[str, ...]
    run: Run
    staged: Staged
    limits: Limits
    most_rows: int
    after: Any


def names_of(connection: Any) -> list[str]:
    """Every table that a run may fill."""
    found = connection.execute(
        """SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE
        AND relname <> 'deskroll_migrations'"""
    ).fetchall()
    return [name for (name,) in found]


def contents(connection: Any) -> dict[str, bytes]:
    """Every table that has rows, as COPY gives it."""
    found = {}
    for name in names_of(connection):
        with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(name))) as copy:
            found[name] = b"".join(map(bytes, copy))
    return {name: rows for name, rows in found.items() if rows}


def restore(connection: Any, tables: dict[str, bytes]) -> None:
    """Give all tables these rows, as replicas do: without a look at foreign keys.

    In a transaction of its own, as the ledger tells by its transaction what a run has touched.
    """
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        for name in names_of(connection):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
        for name, rows in tables.items():
            with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(name))) as copy:
                copy.write(rows)


def seen(db: Database, outcome: sync.Outcome | None) -> Any:
    """What the model tests compare; the counts stand for the versions of rows that they look at after a second run."""
    bad = {name: test_model.errors(db, name, f"{name}_id") for name in ("budget", "card", "transaction")}
    counts = outcome and [
        (t.table, t.inserted, t.updated, t.unchanged, t.deactivated, t.removed) for t in outcome.published.tables
    ]
    found = test_model.tables(db), test_model_spend.tables(db), test_model.watermarks(db), bad
    return *found, counts, outcome and outcome.published.refusals


def publish(session: Session, step: Any) -> sync.Outcome | None:
    """Publish as `sync` does; nothing comes of it where PostgreSQL refuses."""
    chosen = [p for p in pipelines.PIPELINES if p.name in step.pipelines]
    try:
        with patch.object(guards, "MOST_ROWS", step.most_rows):
            entry = Entry(step.run, Provenance("", "", "", {}))
            return sync._publish(session, chosen, entry, step.staged, step.limits)
    except sync.Refused as refused:
        return refused.outcome
    except DeskrollError:
        return None


def record(file: Path, url: str) -> None:
    """Run the model tests, and write down their steps."""
    steps: list[Step] = []
    plain = sync._publish

    def recording(session: Session, chosen: Any, entry: Entry, staged: Any, limits: Limits) -> Any:
        connection = session.connection
        before = contents(connection)
        outcome = None
        try:
            outcome = plain(session, chosen, entry, staged, limits)
        except sync.Refused as refused:
            outcome = refused.outcome
            raise
        finally:
            db = Database(f"{connection.info.dsn} dbname={connection.info.dbname}")
            names = tuple(p.name for p in chosen)
            steps.append(Step(before, names, entry.run, staged, limits, guards.MOST_ROWS, seen(db, outcome)))
            db.connection.close()
        return outcome

    with patch.object(sync, "_publish", recording):
        code = pytest.main(
            [
                "-q",
                "-W",
                "ignore::pytest.PytestAssertRewriteWarning",
                "--database-url",
                url,
                *(str(ROOT / test) for test in TESTS),
            ]
        )
    if code:
        raise SystemExit(code)
    file.write_bytes(pickle.dumps(steps))
    print(f"{len(steps)} steps")


@contextmanager
def migrated(url: str) -> Iterator[str]:
    """The URL of a new database."""
    name = f"replay_{uuid.uuid4().hex[:12]}"
    try:
        yield make_migrated(url, name)
    finally:
        drop_database(url, name)


def replay(file: Path, url: str, first: list[int]) -> int | None:
    """The first step of which the result differs."""
    steps: list[Step] = pickle.loads(file.read_bytes())
    with migrated(url) as made, database.connect(made) as restoring:
        db = Database(made)
        # Rows that are restored have numbers; those that are made after them must have others.
        restoring.execute("SELECT setval(seqrelid::REGCLASS, 1000000) FROM pg_sequence")
        for number in [*first, *(n for n in range(len(steps)) if n not in first)]:
            restore(restoring, steps[number].before)
            # A connection publishes once: PostgreSQL counts on one what it did before, too.
            with database.connect(made) as connection:
                outcome = publish(Session(connection, made, "replay"), steps[number])
            if seen(db, outcome) != steps[number].after:
                return number
    return None


def main() -> None:
    """Record, or replay."""
    parser = argparse.ArgumentParser(description="Publish again what the model tests published.")
    parser.add_argument("steps", type=Path)
    parser.add_argument("url")
    parser.add_argument("first", type=int, nargs="*")
    if sys.argv[1] == "record":
        given = parser.parse_args(sys.argv[2:])
        record(given.steps, given.url)
        return
    given = parser.parse_args()
    failed = replay(given.steps, given.url, given.first)
    if failed is not None:
        print(failed)
        sys.exit(1)


if __name__ == "__main__":
    main()
