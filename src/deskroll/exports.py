"""Rows as files: CSV, JSON or Parquet of one table, or of one function of a date."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from psycopg import sql

from deskroll.errors import DeskrollError, UsageError
from deskroll.postgres.database import Connection
from deskroll.postgres.migrations import names
from deskroll.queries import check_published, reading
from deskroll.settings import Settings
from deskroll.sql import sql_text

ON_A_DATE: Final = ("agents", "agent_roles", "groups", "group_members", "cards", "budgets")
"""What there is a function of a date for, such as agents_on()."""

# A cell that begins so is run as a formula, whatever stands before it that cannot be seen. See OWASP, "CSV Injection".
_RUN_BY_SPREADSHEETS: Final = r"^[\s\u200B\uFEFF]*[-=+@\uFF0B\uFF0D\uFF1D\uFF20]"
_PARQUET_TYPES: Final = {
    "bigint": "BIGINT",
    "integer": "INTEGER",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "double precision": "DOUBLE",
    "text[]": "VARCHAR[]",
    "timestamp with time zone": "TIMESTAMPTZ",
}
_MOST_DIGITS: Final = 38


def write_export(settings: Settings, table: str, on: date | None, target: Path, *, as_is: bool = False) -> int:
    """Write a table or view into a file, or what was true on a date; returns how many rows.

    The name of the file says the format: .csv, .json (an array of objects) or .parquet. With `as_is` no cell of a CSV
    is changed, even if a spreadsheet would run it. The file is there whole, or not at all.

    Raises:
        UsageError: the table does not exist, nothing was published up to the date, or the name says no format.
        DeskrollError: the file cannot be written.
    """
    writers: dict[str, Callable[[Connection, sql.Composed, Path], int]] = {
        ".csv": partial(_write_csv, as_is=as_is),
        ".json": _write_json,
        ".parquet": _write_parquet,
    }
    write = writers.get(target.suffix.lower())
    if write is None:
        raise UsageError(f"{target.name} names no format.", f"It must end in {', '.join(writers)}.")
    with reading(settings) as connection:
        query = _query(connection, table, on)
        with written(target) as unfinished:
            return write(connection, query, unfinished)


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """The path of a file that takes the place of `target` when all of it is written; only its owner may read it.

    Raises:
        DeskrollError: it cannot be written.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        unfinished.touch(mode=0o600, exist_ok=False)
        try:
            yield unfinished
            unfinished.replace(target)
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()
    except OSError as error:
        raise DeskrollError(
            f"{target} cannot be written: {error.strerror}.", "Nothing was written. Name another file, or make room."
        ) from error


def copy_csv(
    connection: Connection, query: sql.Composable, write: Callable[[bytes], Any], *, as_is: bool = False
) -> int:
    """Write the rows of a query as CSV, as they come; returns how many. No cell is one that a spreadsheet would run.

    Such a cell gets an apostrophe before it. What a list has stands in one cell, with "; " between. With `as_is` each
    cell is as PostgreSQL writes it.
    """
    if not as_is:
        query = _with_plain_cells(connection, query)
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(query)) as rows:
            for chunk in rows:
                write(bytes(chunk))
        return cursor.rowcount


def _with_plain_cells(connection: Connection, query: sql.Composable) -> sql.Composed:
    cells = []
    for name, kind in _columns(connection, query):
        cell: sql.Composable = sql.Identifier("q", name)
        if kind == "text[]":
            cell = sql.SQL("array_to_string({}, '; ')").format(cell)
        elif kind == "boolean":  # true, and not t
            cell = sql.SQL("{}::TEXT").format(cell)
        if kind in ("text", "text[]"):
            cell = sql.SQL("CASE WHEN {0} ~ {1} THEN '''' || {0} ELSE {0} END").format(cell, _RUN_BY_SPREADSHEETS)
        cells.append(sql.SQL("{} AS {}").format(cell, sql.Identifier(name)))
    return sql.SQL("SELECT {} FROM ({}) AS q").format(sql.SQL(", ").join(cells), query)


def _columns(connection: Connection, query: sql.Composable) -> list[tuple[str, str]]:
    """The columns of a query, each with its type."""
    columns = connection.execute(sql.SQL("SELECT * FROM ({}) AS q LIMIT 0").format(query)).description or []
    rows = connection.execute(
        "SELECT format_type(oid, NULL) FROM unnest(%s::OID[]) AS oid", [[c.type_code for c in columns]]
    )
    return [(column.name, kind) for column, (kind,) in zip(columns, rows.fetchall(), strict=True)]


def _query(connection: Connection, table: str, on: date | None) -> sql.Composed:
    """The SELECT of a table, or of a function of a date."""
    known = sorted(n for n in names() if not n.startswith("stg_")) if on is None else list(ON_A_DATE)
    if table not in known:
        near = get_close_matches(table, known, n=3)
        what = "a table or view of deskroll" if on is None else "kept by date"
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(known)}."
        raise UsageError(f"{table!r} is not {what}.", hint)
    if on is None:
        return sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))
    check_published(connection, on)
    return sql.SQL("SELECT * FROM {}({}) ORDER BY 1, 2").format(sql.Identifier(f"{table}_on"), on)


def _write_csv(connection: Connection, query: sql.Composed, path: Path, *, as_is: bool) -> int:
    with path.open("wb") as sink:
        return copy_csv(connection, query, sink.write, as_is=as_is)


def _write_json(connection: Connection, query: sql.Composed, path: Path) -> int:
    with path.open("wb") as sink:
        sink.write(b"[")
        rows = _copy_objects(connection, query, sink, between=b",")
        sink.write(b"\n]\n")
        return rows


def _copy_objects(connection: Connection, query: sql.Composable, sink: BinaryIO, between: bytes = b"") -> int:
    """Write each row as a JSON object, a line each. JSON has no control characters, so nothing in it is quoted."""
    lines = sql.SQL(
        "COPY (SELECT to_json(q) FROM ({}) AS q) TO STDOUT (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02')"
    ).format(query)
    count, rest = 0, b""
    with connection.cursor().copy(lines) as chunks:
        for chunk in chunks:
            *objects, rest = (rest + bytes(chunk)).split(b"\n")
            for one in objects:
                sink.write((between if count else b"") + b"\n" + one)
                count += 1
    return count


def _write_parquet(connection: Connection, query: sql.Composed, path: Path) -> int:
    import duckdb

    types = _columns(connection, query)
    scales = _scales(connection, query, [name for name, kind in types if kind == "numeric"])
    # As text, a number keeps all its digits, and JSON its form.
    plain = sql.SQL(", ").join(
        sql.SQL("{0}::TEXT AS {1}" if kind in ("numeric", "jsonb") else "{0}").format(
            sql.Identifier("q", name), sql.Identifier(name)
        )
        for name, kind in types
    )
    lines = path.with_suffix(".lines")
    try:
        with lines.open("wb") as sink:
            lines.chmod(0o600)
            rows = _copy_objects(connection, sql.SQL("SELECT {} FROM ({}) AS q").format(plain, query), sink)
        columns = {name: _PARQUET_TYPES.get(kind, "VARCHAR") for name, kind in types}
        numbers = ", ".join(
            f'CAST("{name}" AS DECIMAL({_MOST_DIGITS}, {scale})) AS "{name}"' for name, scale in scales.items()
        )
        with duckdb.connect() as engine:
            engine.execute(
                f"""COPY (
                    SELECT * {f"REPLACE ({numbers})" if numbers else ""}
                    FROM read_json(?, format = 'newline_delimited', columns = {columns}, maximum_object_size = ?)
                ) TO {sql_text(str(path))} (FORMAT parquet)""",
                [str(lines), max(lines.stat().st_size, 1 << 20)],
            )
        return rows
    except duckdb.Error as error:
        said = str(error).splitlines()[0]
        raise DeskrollError(
            f"The Parquet file cannot be written: {said}", "Make room, or write CSV or JSON."
        ) from error
    finally:
        lines.unlink(missing_ok=True)


def _scales(connection: Connection, query: sql.Composed, numbers: list[str]) -> dict[str, int]:
    """How many decimals each column of numbers needs; one that Parquet cannot hold with all its digits is left out."""
    scales = {}
    for name in numbers:
        ((scale, digits),) = connection.execute(
            sql.SQL(
                "SELECT coalesce(max(scale({0})), 0), coalesce(max(length(trunc(abs({0}))::TEXT)), 1) FROM ({1}) AS q"
            ).format(sql.Identifier("q", name), query)
        ).fetchall()
        if scale + digits <= _MOST_DIGITS:
            scales[name] = scale
    return scales
