"""Whose a record is whose id cannot be read: a name that only one bears tells it."""

from collections.abc import Iterable

from deskroll.engines import Engine
from deskroll.postgres import snapshot
from deskroll.postgres.database import Connection
from deskroll.spec.pipeline import Source
from deskroll.sql import sql_text


def identify(engine: Engine, connection: Connection, source: Source, alike: Iterable[Source]) -> None:
    """Make `dump.checked` of `dump.as_read`: give each record without a readable id the id of who bears its name.

    That is an agent's e-mail address, or the name of a role or group. It tells the id if exactly one bears it: in the
    records of the day, `alike` being all folders of that table, or among the stored rows that the day does not have. An
    id that stands in the same folder is told by that record. The record stays rejected.
    """
    contract = source.contract
    nameless = (
        engine.fetch(
            f"""SELECT source_file, record_index, {contract.alias} FROM {source.as_read}
            WHERE error_type IS NOT NULL AND {contract.key} IS NULL AND {contract.alias} IS NOT NULL"""
        )
        if contract.alias
        else []
    )
    select = f"SELECT * FROM {source.as_read}"
    if nameless:
        bearers, here = _bearers(engine, connection, source, alike)
        found = {
            (file, index): key
            for file, index, name in nameless
            for key in bearers.get(_folded(name), ())
            if len(bearers[_folded(name)]) == 1 and key not in here
        }
        select = _with_ids(source, found)
    engine.create(source.checked, select)


def _bearers(
    engine: Engine, connection: Connection, source: Source, alike: Iterable[Source]
) -> tuple[dict[str, set[int]], set[int]]:
    """Who bears which name, and whose ids stand in the folder itself."""
    key, alias = source.contract.key, source.contract.alias
    bearers: dict[str, set[int]] = {}
    of_today: set[int] = set()
    here: set[int] = set()
    for folder in alike:
        for bearer, name in engine.fetch(f"SELECT {key}, {alias} FROM {folder.as_read} WHERE {key} IS NOT NULL"):
            bearers.setdefault(_folded(name or ""), set()).add(bearer)
            of_today.add(bearer)
            here |= {bearer} if folder == source else set()
    for bearer, name in snapshot.names(connection, source.resource, key, str(alias)):
        if bearer not in of_today:
            bearers.setdefault(_folded(name), set()).add(bearer)
    bearers.pop("", None)
    return bearers, here


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _with_ids(source: Source, found: dict[tuple[str, int], int]) -> str:
    rows = ", ".join(f"({sql_text(file)}, {index}, {key})" for (file, index), key in found.items())
    if not rows:
        return f"SELECT * FROM {source.as_read}"
    key = source.contract.key
    return f"""SELECT one.* EXCLUDE ({key}), coalesce(one.{key}, found.found_id) AS {key}
FROM {source.as_read} AS one
LEFT JOIN (SELECT * FROM (VALUES {rows}) AS found (found_file, found_index, found_id)) AS found
    ON one.source_file = found.found_file AND one.record_index = found.found_index"""
