"""The rules of budgets, cards and transactions in plain Python; see `model`."""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

from currency_converter import CurrencyConverter, RateNotFoundError

from tests.helpers.model import (
    BAD,
    OLDEST,
    Checked,
    Folder,
    Object,
    Row,
    State,
    as_boolean,
    as_key,
    as_text,
    as_timestamp,
    as_whole,
    check_agent,
    count,
    read_folder,
    text_of,
)

NUMBER = r"[0-9]{1,20}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?"


def as_matching(shape: str, make: Callable[[str], Any], value: Any) -> Any:
    text = "[" if isinstance(value, dict | list) else text_of(value)
    if text is None:
        return None
    return make(text) if re.fullmatch(shape, text, re.ASCII) else BAD


def as_date(value: Any) -> Any:
    try:
        return as_matching(r"[12]\d{3}-\d\d-\d\d", date.fromisoformat, value)
    except ValueError:
        return BAD


def not_negative(value: Any) -> Any:
    number = as_number(value)
    return BAD if isinstance(number, Decimal) and number < 0 else number


as_number = partial(as_matching, f"-?{NUMBER}", Decimal)
as_minor_units = partial(as_whole, 18, "-?")
as_digit = partial(as_whole, 1, "")
with (Path(__file__).parent / "currency_codes.txt").open() as codes:
    EXPONENTS = {
        code: int(units) if units else None for code, _, units in (one.strip().partition(" ") for one in codes)
    }
as_currency = partial(as_matching, "|".join(EXPONENTS), str)

Fields = dict[str, tuple[str, Callable[[Any], Any]]]

BUDGET: Fields = {
    "budget_id": ("id", as_key),
    "budget_uuid": ("uuid", as_text),
    "name": ("name", as_text),
    "description": ("description", as_text),
    "retired": ("retired", as_boolean),
    "start_date": ("startDate", as_date),
    "recurring_interval": ("recurringInterval", as_text),
    "timezone": ("timezone", as_text),
    "limitless": ("limitlessOverspend", as_boolean),
    "limit_amount": ("currentPeriod.limit", not_negative),
    "overspend_buffer": ("currentPeriod.overspendBuffer", as_number),
    "assigned_amount": ("currentPeriod.assigned", as_number),
    "spent_cleared": ("currentPeriod.spent.cleared", as_number),
    "spent_pending": ("currentPeriod.spent.pending", as_number),
    "spent_total": ("currentPeriod.spent.total", as_number),
}
CARD: Fields = {
    "card_id": ("id", as_key),
    "card_uuid": ("uuid", as_text),
    "name": ("name", as_text),
    "user_id": ("userId", as_key),
    "user_uuid": ("userUuid", as_key),
    "source_budget_id": ("budgetId", as_key),
    "budget_uuid": ("budgetUuid", as_text),
    "last_four": ("lastFour", as_text),
    "valid_thru": ("validThru", as_text),
    "status": ("status", as_text),
    "type": ("type", as_text),
    "share_budget_funds": ("shareBudgetFunds", as_boolean),
    "recurring": ("recurring", as_boolean),
    "recurring_limit": ("recurringLimit", as_number),
    "current_limit": ("currentPeriod.limit", as_number),
    "current_spent": ("currentPeriod.spent", as_number),
    "created_time": ("createdTime", as_timestamp),
    "updated_time": ("updatedTime", as_timestamp),
}
TRANSACTION: Fields = {
    "given_id": ("id", as_key),
    "transaction_uuid": ("uuid", as_key),
    "transaction_type": ("transactionType", as_text),
    "occurred_time": ("occurredTime", as_timestamp),
    "updated_time": ("updatedTime", as_timestamp),
    "user_id": ("userId", as_key),
    "user_uuid": ("userUuid", as_key),
    "user_name": ("userName", as_text),
    "merchant_name": ("merchantName", as_text),
    "raw_merchant_name": ("rawMerchantName", as_text),
    "source_card_id": ("cardId", as_key),
    "card_uuid": ("cardUuid", as_text),
    "source_budget_id": ("budgetId", as_key),
    "budget_uuid": ("budgetUuid", as_text),
    "units": ("currencyData.originalCurrencyAmount", as_minor_units),
    "exponent": ("currencyData.exponent", as_digit),
    "original_currency": ("currencyData.originalCurrencyCode", as_currency),
    "rate": ("currencyData.exchangeRate", not_negative),
    "amount": ("amount", as_number),
    "original_auth_transaction_id": ("originalAuthTransactionId", as_text),
    "original_auth_transaction_uuid": ("originalAuthTransactionUuid", as_text),
    "clearing_reference": ("clearingReference", as_text),
    "parent_transaction_id": ("parentTransactionId", as_text),
    "parent_transaction_uuid": ("parentTransactionUuid", as_text),
}


def check(fields: Fields, required: set[str], file: str, index: int, value: Any) -> Checked:
    """A record whose columns stand at paths, the first of them its id."""
    if not isinstance(value, Object):
        return Checked(file, index, "PARSE_ERROR")
    is_bad, values = bool(value.twice), {}
    for name, (path, as_type) in fields.items():
        found: Any = value
        for step in path.split("."):
            if found is not None and not isinstance(found, Object):
                is_bad, found = True, None  # something else stands where an object should
            if isinstance(found, Object):
                is_bad = is_bad or bool(found.twice)
                found = found.get(step)
        values[name] = as_type(found)
    is_bad = is_bad or any(v is BAD for v in values.values()) or any(values[name] is None for name in required)
    key = values[next(iter(fields))]
    readable = None if key is BAD or "id" in value.twice else key
    return Checked(file, index, "VALIDATION_ERROR" if is_bad else None, readable, values)


def check_budget(file: str, index: int, value: Any) -> Checked:
    record = check(BUDGET, {"budget_id", "name"}, file, index, value)
    if isinstance(value, Object):
        period, values = value.get("currentPeriod"), record.values
        values["has_period"] = "currentPeriod" in value
        if isinstance(period, Object) and values["limit_amount"] is None and values["limitless"] is not True:
            record.kind = "VALIDATION_ERROR"
    return record


def check_transaction(file: str, index: int, value: Any) -> Checked:
    record = check(TRANSACTION, {"occurred_time"}, file, index, value)
    if not isinstance(value, Object):
        return record
    values = record.values
    given, money = values.pop("given_id"), value.get("currencyData")
    key = values["transaction_uuid"] if given is None else given
    record.key = None if key is BAD or "id" in value.twice else key
    exponent, rate, units = (values.pop(name) for name in ("exponent", "rate", "units"))
    needed = [key, values["amount"]] if money is None else [key, units, values["original_currency"]]
    if record.kind or None in needed or "|" in key:
        record.kind = "VALIDATION_ERROR"
        return record
    values["is_identified"] = given is not None
    if money is None:
        number = abs(values["amount"]) if values["amount"] == 0 else values["amount"]
        return priced(record, number, Decimal(1), "amount", "USD")
    exponent = EXPONENTS[values["original_currency"]] if exponent is None else exponent
    fx_source = "payload" if rate else "ecb"
    rate = rate or ecb_rate(values["original_currency"], values["occurred_time"].date())
    if exponent is None or rate is None:
        record.kind = "VALIDATION_ERROR"
        return record
    with localcontext(prec=200):
        return priced(record, Decimal(units).scaleb(-exponent), rate, fx_source, values["original_currency"])


def priced(record: Checked, amount: Decimal, rate: Decimal, fx_source: str, currency: str) -> Checked:
    with localcontext(prec=200):
        usd = (amount * rate).quantize(Decimal("0.01"), ROUND_HALF_UP)
    record.values |= {"original_amount": amount, "exchange_rate": rate, "amount_usd": usd}
    record.values |= {"fx_source": fx_source, "original_currency": currency}
    return record


def keyed(row: Row, transaction_id: str) -> Row:
    """A row under its id, with the key that follows from that."""
    moment = row["occurred_time"].strftime("%Y-%m-%d %H:%M:%S.%f")
    parts = [transaction_id, row["transaction_uuid"], moment, f"{row['original_amount']:f}", row["original_currency"]]
    text = "|".join(part for part in parts if part is not None)
    return row | {"transaction_id": transaction_id, "idempotency_key": hashlib.sha256(text.encode()).hexdigest()}


@cache
def history() -> CurrencyConverter:
    return CurrencyConverter(decimal=True)


def ecb_rate(code: str, on: date) -> Decimal | None:
    if code == "USD":
        return Decimal(1)
    for days in range(7):
        try:
            rate: Decimal = history().convert(1, code, "USD", on - timedelta(days=days))
        except (RateNotFoundError, ValueError):
            continue
        with localcontext(prec=20):
            return +rate
    return None


def ordered(moment: datetime | None, on: date) -> datetime | None:
    """When a record counts as changed: one from the future on the sync date."""
    if moment is None or moment.date() <= on + timedelta(days=1):
        return moment
    return datetime(on.year, on.month, on.day, tzinfo=UTC)


def version(row: Row) -> tuple[datetime, bool, date]:
    return row["ordered_time"] or OLDEST, row["source"] == "api", row["as_of"]


Names = dict[int, set[tuple[str, bool]]]
SPENT = ("AUTHORIZATION", "CLEAR")


@dataclass
class Spend:
    """The tables of the spend side, as the rules have them."""

    budgets: dict[str, Row] = field(default_factory=dict)
    cards: dict[str, Row] = field(default_factory=dict)
    transactions: dict[str, Row] = field(default_factory=dict)
    uuids: dict[str, str] = field(default_factory=dict)
    holders: dict[str, tuple[datetime, bytes]] = field(default_factory=dict)
    holder_uuids: dict[str, str] = field(default_factory=dict)
    agents: dict[str, int] = field(default_factory=dict)
    matches: dict[str, str] = field(default_factory=dict)
    names: Names = field(default_factory=dict)
    errors: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    newest: dict[str, date] = field(default_factory=dict)
    newest_version: datetime | None = None

    def sync(self, folder: Path, day: str, on: date, people: State, only: set[str] | None = None) -> None:
        """Do what a sync of the day must do, or of some of its pipelines; `people` are as that sync leaves them."""
        source = "tran" if day == "tran" else "api"
        self.counts = {}
        self._hear_names(folder, people, on, is_read=only is None or "agents" in only)
        for name in ("budgets", "cards", "transactions"):
            if (folder / name).is_dir() and (only is None or name in only):
                getattr(self, f"_sync_{name}")(folder, day, on, source)
                self.newest[name] = max(on, self.newest.get(name, on))
        self._match_holders(people)

    def _sync_budgets(self, folder: Path, day: str, on: date, source: str) -> None:
        budgets = read_folder(folder, "budgets", "budgets", check_budget)
        amounts = [name for name, (path, _) in BUDGET.items() if path.startswith("currentPeriod.")]
        doubtful = budgets.doubtful(None) & self.budgets.keys()
        for key, record in budgets.valid("none").items():
            if key in doubtful:
                continue
            said = dict(record.values)
            has_period, now = said.pop("has_period"), (on, source == "api")
            period = {name: said.pop(name) for name in amounts} | {"period_as_of": on, "period_source": source}
            known = self.budgets.setdefault(key, dict.fromkeys(period) | {"as_of": date.min, "source": ""})
            if now >= (known["as_of"], known["source"] == "api"):
                known |= said | {"as_of": on, "source": source}
            if has_period and now >= (known["period_as_of"] or date.min, known["period_source"] == "api"):
                known |= period
        self.counts["budgets"] = count(budgets, newest="none")
        self.errors["budget", day] = budgets.faults()

    def _sync_cards(self, folder: Path, day: str, on: date, source: str) -> None:
        required = {"card_id", "status", "type", "created_time"}
        cards = read_folder(folder, "cards", "cards", partial(check, CARD, required))
        _order(cards, on)
        valid, doubtful = cards.valid("ordered_time"), cards.doubtful("ordered_time")
        for key, record in valid.items():
            known = self.cards.get(key)
            if known and key in doubtful:
                continue
            age = (record.values["ordered_time"] or OLDEST, on, source == "api")
            if known is None or age >= (known["ordered_time"] or OLDEST, known["as_of"], known["source"] == "api"):
                self.cards[key] = record.values | {"as_of": on, "source": source}
        self.counts["cards"] = count(cards, newest="ordered_time")
        unknown = [r for r in valid.values() if self._lacks(r, "budget", self.budgets)]
        self.errors["card", day] = cards.faults() + [(r.file, r.index, "REFERENCE_ERROR", r.key) for r in unknown]

    def _sync_transactions(self, folder: Path, day: str, on: date, source: str) -> None:
        spent = read_folder(folder, "transactions", "transactions", check_transaction)
        _order(spent, on)
        valid, doubtful = spent.valid("ordered_time"), spent.doubtful("ordered_time")
        self._identify(valid)
        by_id: dict[str, list[Checked]] = {}
        for record in valid.values():
            is_known = record.values["is_identified"]
            by_id.setdefault(record.key if is_known else self.uuids.get(record.key, record.key), []).append(record)
        for key, records in by_id.items():
            newest = max(records, key=lambda r: (r.values["ordered_time"] or OLDEST, r.file.encode(), r.index))
            if key not in self.transactions or newest.key not in doubtful:
                self._take(key, newest.values | {"as_of": on, "source": source})
        unknown: list[Checked] = []
        for record in valid.values():
            self._hear_holder(record.values)
            if self._lacks(record, "card", self.cards) or self._lacks(record, "budget", self.budgets):
                unknown.append(record)
            ages = {self.newest_version, record.values["ordered_time"]} - {None}
            self.newest_version = max(ages, default=None)
        self.counts["transactions"] = count(spent, newest="ordered_time")
        links = [(r.file, r.index, "REFERENCE_ERROR", r.key) for r in unknown]
        self.errors["transaction", day] = spent.faults() + links

    def _identify(self, valid: dict[str, Checked]) -> None:
        """Learn which ids uuids have, and give them to what is stored under a uuid."""
        for key, record in sorted(valid.items(), key=lambda item: item[0].encode()):
            uuid = record.values["transaction_uuid"]
            if record.values["is_identified"] and uuid is not None:
                self.uuids.setdefault(uuid, key)
        unnamed = [
            (uuid, row)
            for uuid, row in sorted(self.transactions.items(), key=lambda item: item[0].encode(), reverse=True)
            if not row["is_identified"] and self.uuids.get(uuid, uuid) != uuid
        ]
        for uuid, row in sorted(unnamed, key=lambda item: version(item[1])):  # the newest last
            key = self.uuids[uuid]
            del self.transactions[uuid]
            other = self.transactions.get(key)
            if other is None or version(row) > version(other) or other.get("was_unnamed"):
                self.transactions[key] = keyed(row, key) | {"is_identified": True, "was_unnamed": True}
        for row in self.transactions.values():
            row.pop("was_unnamed", None)

    def _take(self, key: str, row: Row) -> None:
        row, known = keyed(row, key), self.transactions.get(key)
        ignored = {"as_of", "is_identified"}
        if known is None:
            self.transactions[key] = row | {"is_identified": row["is_identified"] or key != row["transaction_uuid"]}
        elif version(row) >= version(known) and any(row[name] != known[name] for name in row.keys() - ignored):
            self.transactions[key] = row | {"is_identified": known["is_identified"] or row["is_identified"]}

    def _hear_holder(self, values: Row) -> None:
        user = values["user_uuid"] if values["user_id"] is None else values["user_id"]
        if user is not None and values["user_name"] is not None:
            said = (values["ordered_time"] or OLDEST, values["user_name"].encode())
            self.holders[user] = max(self.holders.get(user, (OLDEST, b"")), said)
            uuids = {values["user_uuid"], self.holder_uuids.get(user)} - {None}
            if uuids:
                self.holder_uuids[user] = max(uuids, key=str.encode)

    def _lacks(self, record: Checked, what: str, known: dict[str, Row]) -> bool:
        linked = record.values[f"source_{what}_id"]
        return linked is not None and linked not in known

    def _hear_names(self, folder: Path, people: State, on: date, *, is_read: bool) -> None:
        """Learn the names that agents have now, and those that a backfill gives them."""
        said = [(agent_id, row) for agent_id, row in people.agents.items()]
        if is_read and on < people.newest.get("agents", on):
            master = read_folder(folder, "agent_details", "agents", partial(check_agent, True)).valid()
            roster = read_folder(folder, "agents", "agents", partial(check_agent, False)).valid()
            said += [(agent_id, record.values) for agent_id, record in (roster | master).items()]
        for agent_id, row in said:
            folded = {(fold(row["name"]), False), (fold(row["email"]), True)}
            self.names.setdefault(agent_id, set()).update(f for f in folded if 1 <= len(f[0]) <= 500)

    def _match_holders(self, people: State) -> None:
        active = {agent_id for agent_id, row in people.agents.items() if row["status"] == "active"}
        lasts: dict[int, date] = {}
        for (agent_id, on), was_active in people.history.items():
            if was_active:
                lasts[agent_id] = max(on, lasts.get(agent_id, on))
        for user, (_, name) in self.holders.items():
            fits = {a for a, names in self.names.items() if fold(name.decode()) in {text for text, _ in names}}
            known, there = self.agents.get(user), fits & active
            self.matches[user] = "none" if not fits else "several" if len(there) > 1 else "one"
            if self.matches[user] == "one":
                best = max(there or fits, key=lambda a: (lasts.get(a, date.min), a))
                if known not in fits or self._is_same_person(known, best):
                    self.agents[user] = best

    def _is_same_person(self, one: int | None, other: int) -> bool:
        mails = [{text for text, is_email in self.names.get(a or 0, set()) if is_email} for a in (one, other)]
        return bool(mails[0] & mails[1])

    def linked(self) -> tuple[dict[str, Row], dict[str, Row]]:
        """Cards and transactions, with what they link to."""
        holders: dict[str | None, int | None] = {}
        for user in sorted(self.holder_uuids, key=str.encode, reverse=True):
            holders[self.holder_uuids[user]] = self.agents.get(user)
        holders |= {user: self.agents.get(user) for user in self.holders}

        def link(row: Row, *kinds: str) -> Row:
            known = {"budget": self.budgets, "card": self.cards}
            named = {kind: row[f"source_{kind}_id"] for kind in kinds}
            links = {f"{kind}_id": name if name in known[kind] else None for kind, name in named.items()}
            by_id, by_uuid = holders.get(row["user_id"]), holders.get(row["user_uuid"])
            use_uuid = by_id is None if kinds == ("budget",) else row["user_id"] is None
            return row | links | {"agent_id": by_uuid if use_uuid else by_id}

        return (
            {key: link(row, "budget") for key, row in self.cards.items()},
            {key: link(row, "budget", "card") for key, row in self.transactions.items()},
        )

    def purchases(self) -> tuple[dict[str, tuple[str, date]], set[frozenset[str]]]:
        """The transactions that count, each with state and date, and which of them are one purchase."""
        kinds = {key: (row["transaction_type"] or "").upper() for key, row in self.transactions.items()}
        groups, runs = self._groups(kinds)
        counted = {key for key in self.transactions if kinds[key] in SPENT and not self._is_part(key)}
        found: dict[str, tuple[str, date]] = {}
        together: set[frozenset[str]] = set()
        for members in {frozenset(groups[key] & counted) for key in counted}:
            found |= self._states(members, kinds, runs)
            together.add(frozenset(members & found.keys()))
        return found, together - {frozenset()}

    def _groups(self, kinds: dict[str, str]) -> tuple[dict[str, set[str]], dict[str, list[str]]]:
        """The records that lead to one another, by each of them, and the records of one reference, first to last."""
        groups: dict[str, set[str]] = {key: {key} for key in self.transactions}
        runs: dict[str, list[str]] = {}
        references: dict[tuple[str, str], list[str]] = {}

        def join(one: str, other: str) -> None:
            group = groups[one] | groups.get(other, {other})
            groups.update(dict.fromkeys(group, group))

        for key, row in self.transactions.items():
            for other in (row["original_auth_transaction_id"], self._named(row["original_auth_transaction_uuid"])):
                if other:
                    join(key, other)
            if row["clearing_reference"] and kinds[key] in SPENT:
                card = next((c for c in (row["source_card_id"], row["card_uuid"]) if c is not None), "")
                references.setdefault((card, row["clearing_reference"]), []).append(key)
        for keys in references.values():
            run: list[str] = []
            for key in sorted(keys, key=self._moment):
                if run and self._moment(key)[0] - self._moment(run[-1])[0] > timedelta(days=45):
                    run = []
                run.append(key)
                runs[key] = run
                join(run[0], key)
        return groups, runs

    def _states(
        self, members: frozenset[str], kinds: dict[str, str], runs: dict[str, list[str]]
    ) -> dict[str, tuple[str, date]]:
        rows = {key: self.transactions[key] for key in members}
        authorized = [rows[key]["occurred_time"] for key in members if kinds[key] == "AUTHORIZATION"]
        clears = [key for key in members if kinds[key] == "CLEAR"]
        is_settled = any(rows[key]["amount_usd"] >= 0 for key in clears)
        closes = {key: self._closed_by(key, rows, kinds, runs) for key in clears if rows[key]["amount_usd"] < 0}
        closed = set().union(*closes.values())
        found = {}
        for key, row in rows.items():
            times = [rows[other]["occurred_time"] for other in closes.get(key, set())]
            if row["amount_usd"] >= 0:
                times = authorized
            on = min(times, default=row["occurred_time"]).date()
            if kinds[key] == "CLEAR":
                found[key] = ("settled", on)
            elif not is_settled and key not in closed:
                is_stale = (self.newest["transactions"] - max(authorized).date()).days > 45
                found[key] = ("stale" if is_stale else "pending", on)
        return found

    def _closed_by(self, key: str, rows: dict[str, Row], kinds: dict[str, str], runs: dict[str, list[str]]) -> set[str]:
        reversals = {k for k in rows if kinds[k] == "AUTHORIZATION" and rows[k]["amount_usd"] < 0}
        row = rows[key]
        named = {row["original_auth_transaction_id"], self._named(row["original_auth_transaction_uuid"])} & reversals
        before = [k for k in runs.get(key, []) if k in reversals and self._moment(k)[0] <= self._moment(key)[0]]
        return named or set(before[-1:])

    def _is_part(self, key: str) -> bool:
        row = self.transactions[key]
        named = {row["parent_transaction_id"], self._named(row["parent_transaction_uuid"])}
        return bool((named - {key}) & self.transactions.keys())

    def _named(self, uuid: str | None) -> str | None:
        return None if uuid is None else self.uuids.get(uuid, uuid)

    def _moment(self, key: str) -> tuple[datetime, bytes]:
        return self.transactions[key]["occurred_time"], key.encode()


def _order(folder: Folder, on: date) -> None:
    for record in folder.records:
        moment = record.values.get("updated_time")
        record.values["ordered_time"] = moment if moment is BAD else ordered(moment, on)


def fold(name: str) -> str:
    """A name without differences of case, of spaces, and of how Unicode writes a character."""
    text = re.sub("[\u00ad\u200b-\u200d\u2060\ufeff]", "", name)
    text = unicodedata.normalize("NFKD", text).upper().lower()
    text = text.replace("\u00df", "ss").replace("\u03c2", "\u03c3").replace("i\u0307", "i")
    return re.sub("[\t-\r\x1c- \x85\u1680\u2028\u2029]+", " ", unicodedata.normalize("NFKC", text)).strip(" ")
