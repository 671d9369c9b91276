"""The tables, brought up to date: numbered migrations, each run once, and routines, replaced whenever they differ.

A file of `migrations/` or `routines/` is plain SQL in two parts: `-- migrate:up` and, to take it back by hand,
`-- migrate:down`. The table deskroll_migrations tells which were run.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psycopg

from deskroll.errors import DatabaseError
from deskroll.postgres.database import Connection, place_of
from deskroll.postgres.explain import explained, reason

MIGRATIONS: Final = Path(__file__).parent / "sql" / "migrations"
ROUTINES: Final = Path(__file__).parent / "sql" / "routines"
_ROUTINES: Final = "routines"
_LEDGER: Final = """CREATE TABLE deskroll_migrations (
    version TEXT PRIMARY KEY,
    checksum TEXT NOT NULL,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    package_version TEXT NOT NULL
);
COMMENT ON TABLE deskroll_migrations IS 'The migrations that this database has had.';
COMMENT ON COLUMN deskroll_migrations.version IS 'Its file; routines: all functions, views and comments.';
COMMENT ON COLUMN deskroll_migrations.checksum IS 'SHA-256 of what was run, in hex.';
COMMENT ON COLUMN deskroll_migrations.applied_at IS 'When it was run.';
COMMENT ON COLUMN deskroll_migrations.package_version IS 'Version of deskroll that ran it.';
"""
# What others may do with views, as statements: a view that a migration drops is made anew without it.
_GRANTS: Final = """SELECT format(
    'GRANT %%s ON %%I TO %%s%%s', granted.privilege_type, relname,
    CASE WHEN granted.grantee = 0 THEN 'PUBLIC' ELSE granted.grantee::REGROLE::TEXT END,
    CASE WHEN granted.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
)
FROM pg_class CROSS JOIN LATERAL aclexplode(relacl) AS granted
WHERE relnamespace = current_schema()::REGNAMESPACE AND relname = ANY (%s) AND granted.grantee <> relowner"""
_MADE: Final = re.compile(
    r"^(?:CREATE (?:OR REPLACE )?(?:UNLOGGED )?(TABLE|VIEW) (\w+)|DROP TABLE ([\w, ]+);)", re.MULTILINE
)
_COMMENT: Final = re.compile(r"^(COMMENT ON (?:TABLE|COLUMN) (\w+).*?';)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Script:
    """One file: its name, and the SQL that takes it up and down."""

    name: str
    up: str
    down: str

    @property
    def checksum(self) -> str:
        """SHA-256 of what is run."""
        return hashlib.sha256(self.up.encode()).hexdigest()


def scripts(folder: Path) -> list[Script]:
    """The files of a folder, in their order."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        up, _, down = path.read_text(encoding="utf-8").partition("-- migrate:down")
        found.append(Script(path.name, up.removeprefix("-- migrate:up").strip(), down.strip()))
    return found


def names(kind: str = "") -> list[str]:
    """The tables and views that deskroll makes; of one kind: TABLE or VIEW."""
    texts = [_LEDGER, *(s.up for folder in (MIGRATIONS, ROUTINES) for s in scripts(folder))]
    found: dict[str, str] = {}
    for made, name, dropped in (match for text in texts for match in _MADE.findall(text)):
        if made:
            found[name] = made
        for gone in dropped.split(", "):  # it may come back as a view
            found.pop(gone, None)
    return [name for name, made in found.items() if kind in {"", made}]


def migrate(connection: Connection) -> list[str]:
    """Run what is pending, all of it or nothing; return what was run.

    Raises:
        DatabaseError: a newer deskroll has migrated the database, others have tables of our names there, or a
            statement failed.
    """
    found = applied_to(connection)
    applied = found or {}
    if found is None:
        _check_names(connection)
    numbered, routines = scripts(MIGRATIONS), _routines(connection)
    _check_newer(applied, [*numbered, routines])
    pending = [s for s in numbered if s.name not in applied]
    if pending or applied.get(_ROUTINES, ("", ""))[0] != routines.checksum:
        pending.append(routines)
    if pending:
        with explained():
            _run(connection, pending, is_new=found is None)
    return [script.name for script in pending]


def applied_to(connection: Connection) -> dict[str, tuple[str, str]] | None:
    """What was run in a database: the checksum of each file, and the version that ran it; None if it is not ours."""
    with explained():
        if connection.execute("SELECT to_regclass('deskroll_migrations')").fetchone() == (None,):
            return None
        rows = connection.execute("SELECT version, checksum, package_version FROM deskroll_migrations").fetchall()
    return {name: (checksum, by) for name, checksum, by in rows}


def _run(connection: Connection, pending: Iterable[Script], *, is_new: bool) -> None:
    name = "deskroll_migrations"
    try:
        with connection.transaction():
            if is_new:
                connection.execute(_LEDGER)
            grants = connection.execute(_GRANTS, [names("VIEW")]).fetchall()
            for script in pending:
                name = script.name
                connection.execute(script.up)
                connection.execute(
                    """INSERT INTO deskroll_migrations (version, checksum, package_version) VALUES (%s, %s, %s)
                    ON CONFLICT (version) DO UPDATE
                    SET checksum = excluded.checksum, package_version = excluded.package_version, applied_at = now()""",
                    [script.name, script.checksum, version("deskroll")],
                )
            for (grant,) in grants:
                connection.execute(grant)
    except psycopg.errors.InsufficientPrivilege as error:
        raise DatabaseError(
            f"The database could not be migrated ({name}): {reason(error)}. Nothing was changed.",
            "Migrate once as a user that may create tables, the owner of those that are there: `deskroll db migrate`.",
        ) from error
    except psycopg.errors.ProgrammingError as error:
        raise DatabaseError(
            f"The database could not be migrated ({name}): {reason(error)}. Nothing was changed.",
            "Look at what is there in the schema, or sync into a new database.",
        ) from error


def _routines(connection: Connection) -> Script:
    """All functions and views, and the comments on tables, as one script.

    Which collation a function takes depends on the server, and a database may have been moved from another. The
    comments come twice: tables that are made from another take over its comments in between, and then add their own.
    """
    tables = set(names("TABLE"))
    comments = [text for s in scripts(MIGRATIONS) for text, table in _COMMENT.findall(s.up) if table in tables]
    with explained():
        ((server,),) = connection.execute(
            """SELECT current_setting('server_version_num')::INT / 10000
                || ' ' || md5(string_agg(collname, ' ' ORDER BY collname))
            FROM pg_collation
            WHERE collnamespace = 'pg_catalog'::REGNAMESPACE AND collencoding IN (-1, 6)"""
        ).fetchall()
    return Script(
        _ROUTINES, "\n".join([f"-- for {server}", *comments, *(s.up for s in scripts(ROUTINES)), *comments]), ""
    )


def _check_names(connection: Connection) -> None:
    with explained():
        taken = connection.execute(
            """SELECT relname FROM pg_class WHERE relnamespace = current_schema()::REGNAMESPACE AND relname = ANY (%s)
            ORDER BY relname""",
            [names()],
        ).fetchall()
    if taken:
        raise DatabaseError(
            f"The {place_of(connection)} has tables of others under names of deskroll's: "
            f"{', '.join(name for (name,) in taken)}. Nothing was made there.",
            "Use a database of deskroll's own, or a schema: CREATE SCHEMA deskroll, and then"
            " ?options=-c%20search_path%3Ddeskroll in the URL.",
        )


def _check_newer(applied: dict[str, tuple[str, str]], known: Iterable[Script]) -> None:
    checksums = {script.name: script.checksum for script in known}
    newer = [by for name, (checksum, by) in applied.items() if name not in checksums]
    newer += [by for name, (checksum, by) in applied.items() if checksums.get(name) != checksum and _is_newer(by)]
    if newer:
        mine = version("deskroll")
        raise DatabaseError(
            f"The database was migrated by deskroll {max(newer, key=_parts)}, and this is deskroll {mine}.",
            "Install the newer version here. Nothing was changed.",
        )


def _is_newer(than_mine: str) -> bool:
    return _parts(than_mine) > _parts(version("deskroll"))


def _parts(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]
