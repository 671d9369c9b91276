"""Forgetting a person: nothing that names one agent stays in any table; amounts, and ids that others refer to, do."""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, LiteralString

from psycopg import Rollback, sql

from deskroll import provenance
from deskroll.errors import UsageError
from deskroll.postgres import checks, database, ledger, migrations
from deskroll.postgres.database import Connection
from deskroll.postgres.explain import explained
from deskroll.postgres.guards import Limits
from deskroll.postgres.locks import locked
from deskroll.postgres.migrations import names
from deskroll.queries import fetch, find_agents
from deskroll.settings import Settings

_WORD: Final = "[forgotten]"
_SHORTEST_NUMBER: Final = 5
# What is there of the person, by any date. What a date was corrected from is in run_changes alone.
_KNOWN_AS: Final = """SELECT email, name, mobile, phone FROM agents WHERE agent_id = %(id)s
UNION SELECT email, name, mobile, phone FROM agent_periods WHERE agent_id = %(id)s
UNION SELECT NULL, name, NULL, NULL FROM agent_names WHERE agent_id = %(id)s AND NOT is_email
UNION SELECT name, NULL, NULL, NULL FROM agent_names WHERE agent_id = %(id)s AND is_email
UNION SELECT NULL, user_name, NULL, NULL FROM card_holders WHERE agent_id = %(id)s
UNION SELECT said ->> 'email', said ->> 'name', said ->> 'mobile', said ->> 'phone'
    FROM run_changes CROSS JOIN LATERAL (VALUES (before), (after)) AS one (said)
    WHERE pipeline = 'agents' AND key = (%(id)s)::TEXT"""
# Each table with whether its rows need an agent (NULL: they have none), and its columns of text that are no ids.
_TABLES: Final = """SELECT one.relname,
    (SELECT attnotnull FROM pg_attribute WHERE attrelid = one.oid AND attname = 'agent_id' AND NOT attisdropped),
    coalesce((
        SELECT jsonb_object_agg(attname, format_type(atttypid, NULL)) FROM pg_attribute
        WHERE attrelid = one.oid AND attnum > 0 AND NOT attisdropped AND format_type(atttypid, NULL) = ANY (%s)
        AND attname !~ '(_id|_uuid|_key)$'
        AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = one.oid AND indisprimary AND attnum = ANY (indkey))
    ), '{}')
FROM pg_class AS one
WHERE one.relkind = 'r' AND one.relnamespace = current_schema()::REGNAMESPACE AND one.relname = ANY (%s)
ORDER BY one.relname = 'agents', one.relname"""
_REPLACED: Final = {
    "text": "{column} = regexp_replace({column}, {pattern}, {{word}}, 'gi')",
    "text[]": "{column} = array(SELECT regexp_replace(one, {pattern}, {{word}}, 'gi') FROM unnest({column}) AS one)",
    "jsonb": "{column} = regexp_replace({column}::TEXT, {pattern}, {{word}}, 'gi')::JSONB",
}
# Tables whose rows are about what has an id, of which an agent is one.
_IDS: Final = {
    "silent_periods": "subject LIKE '%agent%' AND subject <> 'role_agents' AND id = {key}",
    "sync_date_changes": "guarded <> 'parents of groups' AND id = {id}",
}
# What is kept as it came, or as it was, goes as a whole; that there was something stays.
_QUARANTINE: Final = """UPDATE {table} SET raw_record = to_jsonb({word}::TEXT), error_message = {word}
WHERE raw_record::TEXT ~* {anything} OR error_message ~* {anything}"""
_OF_AGENT: Final = f"{_QUARANTINE} OR agent_id = {{id}}"
_RECORDS: Final = {
    "agent_pipeline_errors": _OF_AGENT,
    "agent_role_pipeline_errors": _OF_AGENT,
    "run_changes": """UPDATE {table} SET label = {word}, before = NULL, after = NULL
        WHERE (pipeline IN ('agents', 'agent_roles', 'groups') AND {key} = ANY (string_to_array(key, ' '))
            OR concat(label, ' ', before, ' ', after) ~* {anything})
        AND (label, before, after) IS DISTINCT FROM ({word}, NULL::JSONB, NULL::JSONB)""",
}


@dataclass(frozen=True)
class Erased:
    """What was done to a table: rows deleted, and rows from which what names the person was taken."""

    table: str
    deleted: int
    blanked: int


@dataclass(frozen=True)
class Forgotten:
    """What forgetting did, or as a plan would do; `last_sent` is the date of the newest record of the agent."""

    agent_id: int
    tables: tuple[Erased, ...]
    last_sent: date
    newest_date: date | None
    run_id: int | None


def forget(settings: Settings, who: str, reason: str, *, plan: bool = False, wait: bool = True) -> Forgotten:
    """Erase one agent, by id or e-mail, in one transaction; the ledger says that it was done, and not of whom.

    Rows about the agent are deleted, quarantine and run_changes keep their rows without what they said, and other text
    loses the agent's names, e-mail addresses and telephone numbers. Staging is emptied: it has to be filled again.
    With `plan` nothing stays done.

    Raises:
        UsageError: the agent is not known, several agents have the e-mail, the reason is empty or names the agent.
        BusyError: a run is at work, and `wait` is false.
    """
    limits = Limits(reason=reason)
    if limits.reason is None:
        raise UsageError("The reason is empty.", 'Give one, such as --reason "Request 4711 for erasure".')
    with (
        database.connect(database.url_of(settings)) as connection,
        locked(connection, wait=wait),
    ):
        checks.check_server(connection)
        migrations.migrate(connection)
        agent, *others = find_agents(connection, who)
        if others:
            ids = ", ".join(str(one["agent_id"]) for one in (agent, *others))
            raise UsageError(f"Several agents have the e-mail {who!r}.", f"Give the id: one of {ids}.")
        person = _Person.find(connection, agent["agent_id"])
        if person.is_named_in(limits.reason):
            raise UsageError(
                "The reason names the person.", "It stays in the ledger: say it without name, e-mail or id."
            )
        with explained(), suppress(Rollback), connection.transaction() as transaction:
            tables = tuple(_erase(connection, person))
            newest = fetch(connection, "SELECT sync_date FROM sync_watermarks WHERE pipeline = 'agents'")
            run = None if plan else _record(connection, limits, tables)
            done = Forgotten(person.agent_id, tables, agent["as_of"], newest[0]["sync_date"] if newest else None, run)
            if plan:
                raise Rollback(transaction)
    return done


@dataclass(frozen=True)
class _Person:
    """An agent, and regular expressions of PostgreSQL for all that names the agent.

    `anything` fits where only people are named. `certain` leaves out names of one word: they may be other words too.
    """

    agent_id: int
    anything: str
    certain: str

    @classmethod
    def find(cls, connection: Connection, agent_id: int) -> "_Person":
        known: dict[str, set[str]] = {"name": set(), "email": set(), "number": set()}
        for row in fetch(connection, _KNOWN_AS, {"id": agent_id}):
            known["name"].add(row["name"] or "")
            known["email"].add(row["email"] or "")
            known["number"] |= {row["mobile"] or "", row["phone"] or ""}
        numbers = {number for number in known["number"] if sum(map(str.isdigit, number)) >= _SHORTEST_NUMBER}
        sure = known["email"] | numbers | {name for name in known["name"] if " " in name.strip()}
        return cls(agent_id, _pattern(sure | known["name"]), _pattern(sure))

    def is_named_in(self, text: str) -> bool:
        """Whether the text names the agent, or has the id."""
        return bool(re.search(rf"{self.anything}|\b{self.agent_id}\b", text, re.IGNORECASE))


def _pattern(texts: Iterable[str]) -> str:
    """A regular expression that fits any of the texts as a whole, however Unicode and JSON write them."""
    written = {form for text in texts if text.strip() for form in _forms(text.strip())}
    longest_first = sorted(written, key=lambda form: (-len(form), form))
    return f"(?<!\\w)(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})(?!\\w)"


def _forms(text: str) -> Iterator[str]:
    for form in ("NFC", "NFD"):
        plain = unicodedata.normalize(form, text)
        escaped = json.dumps(plain)[1:-1]
        yield from (plain, escaped, json.dumps(plain, ensure_ascii=False)[1:-1], json.dumps(escaped)[1:-1])


def _erase(connection: Connection, person: _Person) -> Iterator[Erased]:
    """Erase the person from all tables; tells which of them had anything."""
    staging, kept = [n for n in names() if n.startswith("stg_")], [n for n in names() if not n.startswith("stg_")]
    connection.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(map(sql.Identifier, staging))))
    _claim_spend(connection, person)
    for table, agent_is_required, texts in connection.execute(_TABLES, [list(_REPLACED), kept]).fetchall():
        deleted = blanked = 0
        if agent_is_required:
            deleted = _change(connection, "DELETE FROM {table} WHERE agent_id = {id}", table, person)
        elif table in _IDS:
            deleted = _change(connection, f"DELETE FROM {{table}} WHERE {_IDS[table]}", table, person)
        elif table in _RECORDS:
            blanked = _change(connection, _RECORDS[table], table, person)
        elif table.endswith("_pipeline_errors"):
            blanked = _change(connection, _QUARANTINE, table, person)
        elif texts:
            blanked = _blank(connection, person, table, texts, has_agent=agent_is_required is not None)
        if agent_is_required is False:
            _change(connection, "UPDATE {table} SET agent_id = NULL WHERE agent_id = {id}", table, person)
        if deleted or blanked:
            yield Erased(table, deleted, blanked)


def _claim_spend(connection: Connection, person: _Person) -> None:
    """Link to the agent what only the name links: of several agents with one name, none is linked."""
    _change(
        connection,
        "UPDATE {table} SET agent_id = {id} WHERE agent_id IS NULL AND user_name ~* {whole}", "card_holders", person,
    )  # fmt: skip
    _change(
        connection,
        """UPDATE {table} SET agent_id = {id} WHERE agent_id IS NULL AND (user_name ~* {whole} OR EXISTS (
            SELECT FROM card_holder_keys AS holder
            WHERE holder.agent_id = {id} AND holder.key IN (transactions.user_id, transactions.user_uuid)
        ))""",
        "transactions",
        person,
    )
    _change(connection, "UPDATE {table} SET match = 'none' WHERE agent_id = {id}", "card_holders", person)


def _blank(connection: Connection, person: _Person, table: str, texts: Mapping[str, str], *, has_agent: bool) -> int:
    """Take out of the texts of a table what names the person; a row of another agent is about another person."""
    pattern = "CASE WHEN agent_id = {id} THEN {anything} ELSE {certain} END" if has_agent else "{certain}"
    of_nobody_else = "coalesce(agent_id, {id}) = {id}" if has_agent else "true"
    changes = ", ".join(_REPLACED[kind].format(column=column, pattern=pattern) for column, kind in texts.items())
    is_named = f"concat_ws(' ', {', '.join(texts)}) ~* {pattern}"
    return _change(connection, f"UPDATE {{table}} SET {changes} WHERE {of_nobody_else} AND {is_named}", table, person)


def _change(connection: Connection, statement: LiteralString, table: str, person: _Person) -> int:
    """Run a statement about the person on a table; returns of how many rows."""
    whole = sql.SQL(statement).format(
        table=sql.Identifier(table), id=person.agent_id, key=str(person.agent_id), word=_WORD,
        anything=person.anything, certain=person.certain, whole=f"^\\s*{person.anything}\\s*$",
    )  # fmt: skip
    return connection.execute(whole).rowcount


def _record(connection: Connection, limits: Limits, tables: Iterable[Erased]) -> int:
    """Write into the ledger that somebody was forgotten; returns the number of the run."""
    did = [
        f"{count:,} {verb} {one.table}"
        for one in tables
        for count, verb in ((one.deleted, "deleted from"), (one.blanked, "blanked in"))
        if count
    ]
    run = ledger.begin(connection, "forget", datetime.now(UTC).date(), "forget", "none")
    entry = ledger.Entry(run, provenance.describe("forget", {}, limits))
    ledger.record(connection, entry, "succeeded", f"forgot one person; rows: {', '.join(did)}")
    return run.run_id
