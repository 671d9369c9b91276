"""The rules of budgets, cards and transactions in plain Python; see `model`."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

from currency_converter import CurrencyConverter, RateNotFoundError
from iso4217 import Currency

from tests.model import (
    BAD,
    OLDEST,
    Checked,
    Object,
    Row,
    as_boolean,
    as_key,
    as_text,
    as_timestamp,
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


def above_zero(value: Any) -> Any:
    number = as_number(value)
    return BAD if isinstance(number, Decimal) and number <= 0 else number


def not_negative(value: Any) -> Any:
    number = as_number(value)
    return BAD if isinstance(number, Decimal) and number < 0 else number


as_number = partial(as_matching, f"-?{NUMBER}", Decimal)
as_minor_units = partial(as_matching, r"-?[0-9]{1,18}", int)
as_digit = partial(as_matching, r"[0-9]", int)
as_currency = partial(as_matching, "|".join(c.code for c in Currency), str)

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
    "user_uuid": ("userUuid", as_text),
    "source_budget_id": ("budgetId", as_key),
    "budget_uuid": ("budgetUuid", as_text),
    "last_four": ("lastFour", as_text),
    "valid_thru": ("validThru", as_text),
    "status": ("status", as_text),
    "type": ("type", as_text),
    "share_budget_funds": ("shareBudgetFunds", as_boolean),
    "recurring": ("recurring", as_boolean),
    "recurring_limit": ("recurringLimit", as_number),
    "current_limit": ("currentPeriod.limit", not_negative),
    "current_spent": ("currentPeriod.spent", as_number),
    "created_time": ("createdTime", as_timestamp),
    "updated_time": ("updatedTime", as_timestamp),
}
TRANSACTION: Fields = {
    "transaction_id": ("id", as_key),
    "transaction_uuid": ("uuid", as_text),
    "transaction_type": ("transactionType", as_text),
    "occurred_time": ("occurredTime", as_timestamp),
    "updated_time": ("updatedTime", as_timestamp),
    "user_id": ("userId", as_key),
    "user_uuid": ("userUuid", as_text),
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
    "rate": ("currencyData.exchangeRate", above_zero),
    "amount": ("amount", as_number),
    "original_auth_transaction_id": ("originalAuthTransactionId", as_text),
    "original_auth_transaction_uuid": ("originalAuthTransactionUuid", as_text),
    "clearing_reference": ("clearingReference", as_text),
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


def check_transaction(file: str, index: int, value: Any) -> Checked:
    required = {"transaction_id", "transaction_uuid", "occurred_time", "units", "original_currency"}
    record = check(TRANSACTION, required, file, index, value)
    if record.kind is None and "|" in record.key:
        return Checked(file, index, "VALIDATION_ERROR", record.key)
    if record.kind is None:
        values = record.values
        exponent = values.pop("exponent")
        if exponent is None:
            exponent = Currency(values["original_currency"]).exponent
        rate, units = values.pop("rate"), values.pop("units")
        values["fx_source"] = "ecb" if rate is None else "payload"
        rate = ecb_rate(values["original_currency"], values["occurred_time"].date()) if rate is None else rate
        if exponent is None or rate is None:
            return Checked(file, index, "VALIDATION_ERROR", record.key)
        with localcontext(prec=200):
            amount = Decimal(units).scaleb(-exponent)
            usd = (amount * rate).quantize(Decimal("0.01"), ROUND_HALF_UP)
        values |= {"original_amount": amount, "exchange_rate": rate, "amount_usd": usd}
        moment = values["occurred_time"].strftime("%Y-%m-%d %H:%M:%S.%f")
        text = (record.key, values["transaction_uuid"], moment, f"{amount:f}", values["original_currency"])
        values["idempotency_key"] = hashlib.sha256("|".join(text).encode()).hexdigest()
    return record


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


@dataclass
class Spend:
    """The tables of the spend side, as the rules have them."""

    budgets: dict[str, Row] = field(default_factory=dict)
    cards: dict[str, Row] = field(default_factory=dict)
    transactions: dict[str, Row] = field(default_factory=dict)
    holders: dict[str, tuple[datetime, bytes]] = field(default_factory=dict)
    errors: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    counts: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    newest: dict[str, date] = field(default_factory=dict)
    newest_version: datetime | None = None

    def sync(self, folder: Path, day: str, on: date, only: set[str] | None = None) -> None:
        """Do what a sync of the day must do, or of some of its pipelines."""
        source = "tran" if day == "tran" else "api"
        self.counts = {}
        for name in ("budgets", "cards", "transactions"):
            if (folder / name).is_dir() and (only is None or name in only):
                getattr(self, f"_sync_{name}")(folder, day, on, source)
                self.newest[name] = max(on, self.newest.get(name, on))

    def _sync_budgets(self, folder: Path, day: str, on: date, source: str) -> None:
        required = {"budget_id", "name", "limit_amount"}
        budgets = read_folder(folder, "budgets", "budgets", partial(check, BUDGET, required))
        for key, record in budgets.valid("none").items():
            known = self.budgets.get(key)
            if known is None or (on, source == "api") >= (known["as_of"], known["source"] == "api"):
                self.budgets[key] = record.values | {"as_of": on, "source": source}
        self.counts["budgets"] = count(budgets, newest="none")
        self.errors["budget", day] = budgets.faults()

    def _sync_cards(self, folder: Path, day: str, on: date, source: str) -> None:
        required = {"card_id", "status", "type", "created_time"}
        cards = read_folder(folder, "cards", "cards", partial(check, CARD, required))
        valid = cards.valid("updated_time")
        for key, record in valid.items():
            known = self.cards.get(key)
            version = (record.values["updated_time"] or OLDEST, on, source == "api")
            if known is None or version >= (known["updated_time"] or OLDEST, known["as_of"], known["source"] == "api"):
                self.cards[key] = record.values | {"as_of": on, "source": source}
        self.counts["cards"] = count(cards, newest="updated_time")
        unknown = [r for r in valid.values() if self._lacks(r, "budget", self.budgets)]
        self.errors["card", day] = cards.faults() + [(r.file, r.index, "REFERENCE_ERROR", r.key) for r in unknown]

    def _sync_transactions(self, folder: Path, day: str, on: date, source: str) -> None:
        spent = read_folder(folder, "transactions", "transactions", check_transaction)
        unknown: list[Checked] = []
        for key, record in spent.valid("updated_time").items():
            known = self.transactions.get(key)
            version = (record.values["updated_time"] or OLDEST, source == "api", on)
            if known is None or (
                version >= (known["updated_time"] or OLDEST, known["source"] == "api", known["as_of"])
                and record.values | {"source": source} != {k: v for k, v in known.items() if k != "as_of"}
            ):
                self.transactions[key] = record.values | {"as_of": on, "source": source}
            user, name = record.values["user_id"], record.values["user_name"]
            if user is not None and name is not None:
                said = (record.values["updated_time"] or OLDEST, name.encode())
                self.holders[user] = max(self.holders.get(user, (OLDEST, b"")), said)
            if self._lacks(record, "card", self.cards) or self._lacks(record, "budget", self.budgets):
                unknown.append(record)
            ages = {self.newest_version, record.values["updated_time"]} - {None}
            self.newest_version = max(ages, default=None)
        self.counts["transactions"] = count(spent, newest="updated_time")
        links = [(r.file, r.index, "REFERENCE_ERROR", r.key) for r in unknown]
        self.errors["transaction", day] = spent.faults() + links

    def _lacks(self, record: Checked, what: str, known: dict[str, Row]) -> bool:
        linked = record.values[f"source_{what}_id"]
        return linked is not None and linked not in known

    def linked(self, agents: dict[int, Row]) -> tuple[dict[str, Row], dict[str, Row]]:
        """Cards and transactions, with what they link to."""

        def link(row: Row, *kinds: str) -> Row:
            known = {"budget": self.budgets, "card": self.cards}
            named = {kind: row[f"source_{kind}_id"] for kind in kinds}
            links = {f"{kind}_id": name if name in known[kind] else None for kind, name in named.items()}
            return row | links | {"agent_id": holder.get(row["user_id"])}

        called: dict[str, set[int]] = {}
        for agent_id, agent in agents.items():
            for name in (agent["name"], agent["email"]):
                called.setdefault(fold(name), set()).add(agent_id)
        holder: dict[str | None, int] = {}
        for user, (_, name) in self.holders.items():
            who = called.get(fold(name.decode()), set())
            if fold(name.decode()) and len(who) == 1:
                (holder[user],) = who
        return (
            {key: link(row, "budget") for key, row in self.cards.items()},
            {key: link(row, "budget", "card") for key, row in self.transactions.items()},
        )


def fold(name: str) -> str:
    return " ".join(name.split()).lower()
