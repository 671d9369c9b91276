"""What PostgreSQL says, turned into what a person can do about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from deskroll.errors import DatabaseError

# The settings that end a statement or a session, by the code of the error that they raise.
_TIMEOUTS: Final = {
    "57014": "statement_timeout",
    "57P05": "idle_session_timeout",
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
}
# What happened and what to do about it, by the class of the error.
_KINDS: Final[list[tuple[tuple[type[psycopg.Error], ...], str, str]]] = [
    (
        (errors.InsufficientPrivilege,),
        "The database user may not do this",
        "Grant it, or migrate once as the owner with `deskroll db migrate`.",
    ),
    (
        (errors.DiskFull, errors.OutOfMemory),
        "PostgreSQL has no room left",
        "Free space on the server, and run again.",
    ),
    (
        (errors.ReadOnlySqlTransaction,),
        "The database can only be read",
        "Use the primary server, or let this user write. `--plan` works here. Nothing was published.",
    ),
    ((errors.QueryCanceled,), "Somebody cancelled the run", "Nothing was published. Run again."),
    (
        (errors.LockNotAvailable, errors.DeadlockDetected),
        "PostgreSQL gave up waiting",
        "Run again when the tables are free.",
    ),
    (
        (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction),
        "The tables are not those that deskroll made",
        "Somebody has changed them. Restore the database from a backup, or sync into a new one.",
    ),
]


@contextmanager
def explained() -> Iterator[None]:
    """Turn what PostgreSQL says into what a person can do about it.

    Raises:
        DatabaseError: in place of any `psycopg.Error`.
    """
    try:
        yield
    except psycopg.Error as error:
        raise DatabaseError(*_explain(error)) from error


def reason(error: psycopg.Error) -> str:
    """PostgreSQL's own words, without what libpq puts around them."""
    if error.diag.message_primary:
        return error.diag.message_primary
    said = str(error).strip().partition("\n")[0]  # what follows is advice, or the like of other hosts
    return said.rpartition("failed: ")[2].removeprefix("FATAL:").strip() or type(error).__name__


def _explain(error: psycopg.Error) -> tuple[str, str]:
    """What happened, and what to do about it."""
    said = reason(error)
    if error.sqlstate in _TIMEOUTS and "user request" not in said:
        setting = _TIMEOUTS[error.sqlstate]
        off = f"add ?options=-c%20{setting}%3D0 to the URL, or ALTER ROLE … SET {setting} = 0."
        return (
            f"PostgreSQL stopped the run: {said}. The setting {setting} does that.",
            f"Nothing was published. Turn it off for deskroll: {off}",
        )
    if error.diag.source_function == "check_enable_rls":
        return (
            f"Row-level security hides rows from this database user: {said}",
            "deskroll must see every row. Give the user BYPASSRLS, or turn row-level security off for the table.",
        )
    if isinstance(error, psycopg.IntegrityError):
        return _explain_constraint(error)
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08").startswith(("08", "57P")):
        # When it was lost as the run was committed, nobody here can say.
        return (
            f"The connection to PostgreSQL was lost: {said}",
            "Nothing was published, unless `deskroll runs` says so. Run again: that is safe either way.",
        )
    for kinds, what, hint in _KINDS:
        if isinstance(error, kinds):
            return f"{what}: {said}", hint
    return f"PostgreSQL refuses: {said}", "Nothing was published."


def _explain_constraint(error: psycopg.Error) -> tuple[str, str]:
    """Of a constraint or unique index that somebody added: what deskroll publishes violates none of its own."""
    table, detail = error.diag.table_name, f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    name = error.diag.constraint_name or f"column {error.diag.column_name}"
    return (
        f"{name} on {table} does not allow what the day's records say: {reason(error)}{detail}",
        f"If somebody added {name} to deskroll's table, drop it; else please report a fault of deskroll.",
    )
