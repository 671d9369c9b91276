"""From which files the dates of each pipeline were published, so that a sync of many days can skip them."""

from collections.abc import Mapping
from datetime import date

from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained
from deskroll.postgres.ledger import Run


def record(connection: Connection, run: Run, fingerprints: Mapping[str, str]) -> None:
    """Note from which files a run published each pipeline, in the transaction at hand; the ledger has the run."""
    connection.cursor().executemany(
        """INSERT INTO sync_run_files (pipeline, sync_date, sync_day, fingerprint, run_id) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (pipeline, sync_date)
        DO UPDATE SET sync_day = excluded.sync_day, fingerprint = excluded.fingerprint, run_id = excluded.run_id""",
        [[name, run.sync_date, run.sync_day, files, run.run_id] for name, files in fingerprints.items()],
    )


def of_date(connection: Connection, on: date) -> dict[str, str]:
    """The fingerprint of each pipeline that was published for a date, unless the last run of that date failed.

    A date has none either if an earlier one was published since, or itself from files that are not known.
    """
    with explained():
        rows = connection.execute(
            """SELECT files.pipeline, files.fingerprint FROM sync_run_files AS files
            WHERE files.sync_date = %(on)s AND 'succeeded' = (
                SELECT run.status FROM sync_runs AS run WHERE run.sync_date = %(on)s ORDER BY run.run_id DESC LIMIT 1
            )""",
            {"on": on},
        ).fetchall()
    return dict(rows)
