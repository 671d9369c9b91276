"""Whose a record is whose id cannot be read: a name that only one bears tells it."""

from collections.abc import Iterable
from typing import Final

from deskroll.engines import Engine
from deskroll.postgres import snapshot
from deskroll.postgres.database import Connection
from deskroll.spec.pipeline import Input
from deskroll.sql import sql_text

_NOTHING: Final = """SELECT CAST(NULL AS VARCHAR) AS found_file, CAST(NULL AS BIGINT) AS found_index,
    CAST(NULL AS BIGINT) AS found_id WHERE false"""


def find_ids(engine: Engine, connection: Connection, input_: Input, alike: Iterable[Input], nameless: str) -> str:
    """Find the id of each record without a readable one by its name: a SELECT of `found_file`, `_index` and `_id`.

    `nameless` is a SELECT of these records: file, index, and name, which is an agent's e-mail address or the name of a
    role or group. It tells the id if exactly one bears it: in the records of the day, `alike` being all inputs of that
    table, or among the stored rows that the day does not have. An id that stands in the same folder is told by that
    record.
    """
    records = engine.fetch(nameless)
    if not records:
        return _NOTHING
    bearers, here = _bearers(engine, connection, input_, alike)
    found = [
        f"({sql_text(file)}, {index}, {key})"
        for file, index, name in records
        for key in bearers.get(_folded(name), ())
        if len(bearers[_folded(name)]) == 1 and key not in here
    ]
    return (
        f"SELECT * FROM (VALUES {', '.join(found)}) AS found (found_file, found_index, found_id)" if found else _NOTHING
    )


def _bearers(
    engine: Engine, connection: Connection, input_: Input, alike: Iterable[Input]
) -> tuple[dict[str, set[int]], set[int]]:
    """Who bears which name, and whose ids stand in the folder itself."""
    key, alias = input_.contract.key, input_.contract.alias
    bearers: dict[str, set[int]] = {}
    of_today: set[int] = set()
    here: set[int] = set()
    for other in alike:
        select = f"SELECT {key}, {alias} FROM {other.relation('read')} WHERE {key} IS NOT NULL"
        for bearer, name in engine.fetch(select):
            bearers.setdefault(_folded(name or ""), set()).add(bearer)
            of_today.add(bearer)
            here |= {bearer} if other == input_ else set()
    for bearer, name in snapshot.names(connection, input_.resource, key, str(alias)):
        if bearer not in of_today:
            bearers.setdefault(_folded(name), set()).add(bearer)
    bearers.pop("", None)
    return bearers, here


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()
