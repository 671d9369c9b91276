"""The rules of budgets, cards and transactions (docs/rules.md), each with tests named after it."""

import json
import re
import shutil
import unicodedata
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from currency_converter import CurrencyConverter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from deskroll import queries
from deskroll.currencies import EXPONENTS, usd_rates
from deskroll.postgres import database
from deskroll.postgres.guards import Limits
from deskroll.postgres.migrations import migrate
from deskroll.settings import Settings
from deskroll.sync import Outcome, Request
from deskroll.sync import sync_day as run
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, transaction
from tests.helpers.model_spend import fold
from tests.helpers.runs import Sync, messages, sync_into
from tests.helpers.servers import another_server, other_servers
from tests.promises.test_bad_input import incompressible
from tests.rules.test_model import empty

NEW, OLD = "2026-01-05T00:00:00Z", "2026-01-04T00:00:00Z"


def spend(dump: Dump, day: str, **folders: list[Any]) -> None:
    """Write folders of a day, as the spend API answers."""
    for folder, records in folders.items():
        dump.write(day, folder, {"results": records, "nextPage": None})


def money(**changed: Any) -> dict[str, Any]:
    return {"currencyData": changed}


def spent(db: Database) -> dict[str, Any]:
    return {
        row["transaction_id"]: (str(row["original_amount"]), str(row["amount_usd"]), row["fx_source"])
        for row in db.rows("SELECT transaction_id, original_amount, amount_usd, fx_source FROM transactions")
    }


def errors(db: Database, name: str = "transaction") -> dict[str, str]:
    rows = db.rows(f"SELECT {name}_id AS id, error_message FROM {name}_pipeline_errors")
    return {row["id"]: row["error_message"] for row in rows}


def told(outcome: Outcome) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(d.discrepancy, d.rows, d.examples) for d in outcome.published.discrepancies]


class TestMoney:
    """Money."""

    def test_money_in_minor_units_of_any_exponent(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = {
            "cents": money(originalCurrencyAmount="12559", exponent=2, exchangeRate=1.5),
            "none": money(originalCurrencyAmount="12559", originalCurrencyCode="JPY", exponent=0, exchangeRate=1.5),
            "mils": money(originalCurrencyAmount=12559, originalCurrencyCode="KWD", exponent="3", exchangeRate="1.5"),
            "refund": money(originalCurrencyAmount="-5", exponent=2),
            "small": money(originalCurrencyAmount="7", originalCurrencyCode="KWD", exponent=3, exchangeRate=1),
            "nothing": money(originalCurrencyAmount="-0", exponent=2),
            "largest": money(originalCurrencyAmount="9" * 18, exponent=2),
        }
        spend(dump, "day1", transactions=[transaction(name, **one) for name, one in some.items()])
        sync("day1", "2026-01-05")
        assert {name: row[:2] for name, row in spent(db).items()} == {
            "cents": ("125.59", "188.39"),
            "none": ("12559", "18838.50"),
            "mils": ("12.559", "18.84"),
            "refund": ("-0.05", "-0.05"),
            "small": ("0.007", "0.01"),
            "nothing": ("0.00", "0.00"),
            "largest": ("9999999999999999.99", "9999999999999999.99"),
        }

    def test_money_without_an_exponent_has_that_of_its_currency(self, db: Database, dump: Dump, sync: Sync) -> None:
        for code in ("USD", "JPY", "KWD", "CLF", "XAU"):
            one = transaction(code, **money(originalCurrencyCode=code, exponent=None))
            spend(dump, "day1", transactions=[one])
        sync("day1", "2026-01-05")
        amounts = {name: amount for name, (amount, *_) in spent(db).items()}
        assert amounts == {"USD": "12.34", "JPY": "1234", "KWD": "1.234", "CLF": "0.1234"}
        assert "currencyData.exponent: missing, and ISO 4217 has none" in errors(db)["XAU"]

    def test_money_keeps_every_digit_of_the_json(self, db: Database, dump: Dump, sync: Sync) -> None:
        rate, amount = "1.350505948066711412345678901234", "20000.12345678901234567"
        record = json.dumps(transaction("t", amount=5, **money(exchangeRate=7, symbol="£", note='"exchangeRate": 8')))
        digits = record.replace('"exchangeRate": 7', f'"exchangeRate" :\n {rate}').replace(": 5", f": {amount}")
        more = {
            "plain": digits,
            "spelled": digits.replace('"t"', '"s"').replace('"exchangeRate" ', '"exchang\\u0065Rate" '),
            "elsewhere": digits.replace('"t"', '"e"').replace('"symbol"', '"more": {"exchangeRate": 9}, "symbol"'),
            "before": digits.replace('"t"', '"b"').replace('{"originalC', '{"more": {"exchangeRate": 9}, "originalC'),
            "as text": digits.replace('"t"', '"x"').replace(rate, f'"{rate}"'),
        }
        for name, text in more.items():
            dump.write("day1", "transactions", text.encode(), f"{name}.json")
        dump.write("day1", "transactions", b"[%b]" % digits.replace('"t"', '"a"').encode())
        sync("day1", "2026-01-05")
        rows = db.rows("SELECT transaction_id AS id, exchange_rate, amount FROM transactions ORDER BY 1")
        assert {(row["id"], str(row["exchange_rate"]), str(row["amount"])) for row in rows} == {
            (name, rate, amount) for name in "abtesx"
        }

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(
            st.tuples(
                st.integers(-(10**18) + 1, 10**18 - 1) | st.integers(-2000, 2000),
                st.integers(0, 3),
                st.from_regex(r"\A(0\.0[0-9]{0,6}[1-9]|[1-9][0-9]?\.[0-9]{1,3}5|0\.5|[1-9][0-9]{0,3})\Z"),
            ),
            min_size=150,
            max_size=150,
        )
    )
    def test_money_is_rounded_half_up(self, db: Database, dump: Dump, sync: Sync, some: list[Any]) -> None:
        empty(db)
        shutil.rmtree(dump.path, ignore_errors=True)
        records = [
            transaction(str(number), **money(originalCurrencyAmount=str(units), exponent=exponent, exchangeRate=rate))
            for number, (units, exponent, rate) in enumerate(some)
        ]
        spend(dump, "day1", transactions=records)
        sync("day1", "2026-01-05")
        with localcontext(prec=100):
            expected = {
                str(number): str(
                    (Decimal(units).scaleb(-exponent) * Decimal(rate)).quantize(Decimal("0.01"), ROUND_HALF_UP)
                )
                for number, (units, exponent, rate) in enumerate(some)
            }
        found = {name: usd for name, (_, usd, _) in spent(db).items()}
        assert found == {name: usd.replace("-0.00", "0.00") for name, usd in expected.items()}

    def test_money_at_the_rate_of_the_record_or_of_its_own_day(self, db: Database, dump: Dump, sync: Sync) -> None:
        days = {
            "monday": "2026-01-05T23:59:59Z",
            "sunday": "2026-01-04T12:00:00Z",
            "friday": "2026-01-02T12:00:00Z",
            "friday in utc": "2026-01-03T00:30:00+01:00",
        }
        eur = money(originalCurrencyAmount="100000", originalCurrencyCode="EUR", exchangeRate=None)
        some = [transaction(name, occurredTime=moment, **eur) for name, moment in days.items()]
        own = money(originalCurrencyAmount="100000", originalCurrencyCode="EUR", exchangeRate=1.5)
        dollar = transaction("dollar", **money(exchangeRate=None), occurredTime="2030-01-01T00:00:00Z")
        spend(dump, "day1", transactions=[*some, transaction("own", **own), dollar])
        sync("day1", "2026-01-05")
        history = CurrencyConverter(decimal=True)
        cent = Decimal("0.01")
        rates = {day: history.convert(1000, "EUR", "USD", date(2026, 1, day)).quantize(cent) for day in (2, 5)}
        assert rates[2] != rates[5]
        assert {name: row[1:] for name, row in spent(db).items()} == {
            "monday": (str(rates[5]), "ecb"),
            **dict.fromkeys(("sunday", "friday", "friday in utc"), (str(rates[2]), "ecb")),
            "own": ("1500.00", "payload"),
            "dollar": ("12.34", "ecb"),
        }

    @pytest.mark.parametrize(
        ("currency", "on"), [("XAF", "2026-01-05"), ("RUB", "2026-01-05"), ("GBP", "1998-12-31"), ("GBP", "2199-01-01")]
    )
    def test_money_without_any_rate_is_rejected(
        self, currency: str, on: str, db: Database, dump: Dump, sync: Sync
    ) -> None:
        none = money(originalCurrencyCode=currency, exponent=2, exchangeRate=None)
        spend(dump, "day1", transactions=[transaction("t", occurredTime=f"{on}T12:00:00Z", **none)])
        sync("day1", "2026-01-05")
        assert errors(db) == {
            "t": "currencyData.exchangeRate: missing, and the European Central Bank has none for currency and date"
        }
        assert db.one("SELECT raw_record ->> 'id' FROM transaction_pipeline_errors") == "t"
        assert db.one("SELECT error_type FROM transaction_pipeline_errors") == "VALIDATION_ERROR"

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            (
                {"originalCurrencyCode": "ABC"},
                'originalCurrencyCode: found "ABC", expected a currency code of ISO 4217',
            ),
            ({"originalCurrencyCode": "usd"}, 'originalCurrencyCode: found "usd", expected a currency code'),
            ({"originalCurrencyCode": None}, "originalCurrencyCode: missing, expected a currency code"),
            (
                {"originalCurrencyAmount": ""},
                'originalCurrencyAmount: found "", expected a whole number of minor units',
            ),
            ({"originalCurrencyAmount": "1.5"}, 'originalCurrencyAmount: found "1.5", expected a whole number'),
            ({"originalCurrencyAmount": "4.6375E3"}, 'originalCurrencyAmount: found "4.6375E3", expected a whole'),
            ({"originalCurrencyAmount": 1e18}, 'originalCurrencyAmount: found "1e+18", expected a whole number'),
            ({"originalCurrencyAmount": 10**18}, 'originalCurrencyAmount: found "1000000000000000000", expected'),
            ({"originalCurrencyAmount": None}, "originalCurrencyAmount: missing, expected a whole number"),
            ({"exponent": 10}, 'exponent: found "10", expected a whole number from 0 to 9'),
            ({"exponent": -1}, 'exponent: found "-1", expected a whole number from 0 to 9'),
            ({"exchangeRate": -1.5}, 'exchangeRate: found "-1.5", expected a number that is not negative'),
            ({"exchangeRate": "1e999"}, 'exchangeRate: found "1e999", expected a number that is not negative'),
            ({"exchangeRate": "1,5"}, 'exchangeRate: found "1,5", expected a number that is not negative'),
        ],
    )
    def test_money_that_is_none_is_rejected(
        self, changed: dict[str, Any], message: str, db: Database, dump: Dump, sync: Sync
    ) -> None:
        spend(dump, "day1", transactions=[transaction("t", **money(**changed)), transaction("good")])
        sync("day1", "2026-01-05")
        assert spent(db).keys() == {"good"}
        assert message in errors(db)["t"]
        assert "European" not in errors(db)["t"]
        assert db.one("SELECT raw_record ->> 'id' FROM transaction_pipeline_errors WHERE transaction_id = 't'") == "t"

    @pytest.mark.parametrize("name", ["id", "userId", "cardId", "budgetId"])
    def test_keys_are_of_a_length_that_an_index_takes(self, name: str, db: Database, dump: Dump, sync: Sync) -> None:
        some = [transaction(f"{length}", uuid=f"{length}") | {name: incompressible(length)} for length in (500, 501)]
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        assert db.rows("SELECT transaction_uuid FROM transactions") == [{"transaction_uuid": "500"}]
        told = [said for said in errors(db).values() if said.startswith(f'{name}: found "')]
        assert len([said for said in told if said.endswith('", expected text of at most 500 characters')]) == 1

    def test_keys_that_would_look_like_another_are_rejected(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [transaction("a|b", uuid="c"), transaction("a", uuid="b|c"), transaction("", uuid="d|e") | {"id": None}]
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        assert spent(db).keys() == {"a"}
        assert errors(db)["a|b"].startswith("id: holds a |")
        assert errors(db)["d|e"].startswith("uuid: holds a |")

    def test_money_of_no_currency_is_not_blamed_on_the_bank(self, db: Database, dump: Dump, sync: Sync) -> None:
        none = money(originalCurrencyCode=None, exchangeRate=None)
        undated = transaction("u", occurredTime="x", **money(exchangeRate=None))
        spend(dump, "day1", transactions=[transaction("t", **none), undated])
        sync("day1", "2026-01-05")
        assert errors(db) == {
            "t": "currencyData.originalCurrencyCode: missing, expected a currency code of ISO 4217",
            "u": 'occurredTime: found "x", expected a timestamp such as 2026-01-05T08:30:00Z',
        }

    def test_money_of_a_budget_is_not_negative_where_it_is_its_limit(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        minus = {"currentPeriod": {"limit": -0.01}}
        nothing = {"currentPeriod": {"limit": 0, "spent": {"total": -5.5}}}
        spend(dump, "day1", budgets=[budget("b1", **minus), budget("b2", **nothing), budget("b3", currentPeriod={})])
        sync("day1", "2026-01-05")
        assert db.rows("SELECT budget_id, spent_total FROM budgets") == [
            {"budget_id": "b2", "spent_total": Decimal("-5.5")}
        ]
        assert errors(db, "budget") == {
            "b1": 'currentPeriod.limit: found "-0.01", expected a number that is not negative',
            "b3": "currentPeriod.limit: missing, expected a number that is not negative, or limitlessOverspend",
        }

    def test_money_of_a_card_that_may_spend_less_than_nothing_is_told(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        some = [card("c1", currentPeriod={"limit": -5}), card("c2", recurringLimit=-0.5), card("c3", recurringLimit=0)]
        spend(dump, "day1", cards=some)
        outcome = sync("day1", "2026-01-05")
        assert [row["current_limit"] for row in db.rows("SELECT current_limit FROM cards ORDER BY card_id")] == [
            -5, None, None,
        ]  # fmt: skip
        assert ("card limits below zero", 2, ("c1", "c2")) in told(outcome)

    def test_money_of_a_budget_without_a_limit(self, db: Database, dump: Dump, sync: Sync) -> None:
        free = {"limitlessOverspend": True}
        spent_so_far = {"spent": {"total": 10}}
        some = [
            budget("free", currentPeriod=spent_so_far, **free),
            budget("none", currentPeriod={"limit": None, **spent_so_far}, **free),
            budget("null", currentPeriod=None, retired=True),
            {"id": "absent", "name": "A"},
            budget("both", currentPeriod={"limit": 7}, **free),
        ]
        spend(dump, "day1", budgets=some)
        sync("day1", "2026-01-05")
        assert {
            row["budget_id"]: (row["limit_amount"], row["spent_total"], row["limitless"])
            for row in db.rows("SELECT * FROM budgets")
        } == {
            "free": (None, 10, True),
            "none": (None, 10, True),
            "null": (None, None, None),
            "absent": (None, None, None),
            "both": (7, None, True),
        }

    def test_money_of_a_budget_stays_where_a_record_says_nothing_of_it(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        spend(dump, "day1", budgets=[budget("b1"), budget("b2")])
        spend(
            dump, "day2", budgets=[{"id": "b1", "name": "Renamed", "retired": True}, budget("b2", currentPeriod=None)]
        )
        for order in (("day1", "day2"), ("day2", "day1")):
            for day in order:
                sync(day, f"2026-01-0{day[3:]}")
            assert db.rows("SELECT name, retired, limit_amount FROM budgets ORDER BY budget_id") == [
                {"name": "Renamed", "retired": True, "limit_amount": 100},
                {"name": "Budget b2", "retired": None, "limit_amount": None},
            ]
            before = db.versions()
            sync(order[1], f"2026-01-0{order[1][3:]}")
            assert db.versions() == before
            empty(db)

    def test_money_in_whole_numbers_that_are_written_as_floats(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = ["4637.0", "4.637E3", "4637", "-4.637e+3", "463700000000000.00", "123456789012345678.0"]
        texts = [
            json.dumps(transaction(f"t{n}", **money(originalCurrencyAmount="@@", exponent="2.0"))).replace(
                '"@@"', f'"{text}"' if n % 2 else text
            )
            for n, text in enumerate(some)
        ]
        dump.write("day1", "transactions", "\n".join(texts).encode(), "1.ndjson")
        exactly = json.dumps(transaction("x", **money(originalCurrencyAmount="@@"))).replace(
            '"@@"', "1.000000000000000001"
        )
        dump.write("day1", "transactions", exactly.encode())
        sync("day1", "2026-01-05")
        assert [row[0] for _, row in sorted(spent(db).items())] == [
            "46.37", "46.37", "46.37", "-46.37", "4637000000000.00", "1234567890123456.78",
        ]  # fmt: skip
        assert 'originalCurrencyAmount: found "1.000000000000000001", expected a whole number' in errors(db)["x"]

    def test_money_in_a_currency_that_was_withdrawn(self, db: Database, dump: Dump, sync: Sync) -> None:
        rates = {"BGN": "0.6", "HRK": "0.1415", "ANG": "0.5586", "BYR": "0.00005", "ZWL": "0.003", "ITL": "0.0006"}
        some = [
            transaction(code, **money(originalCurrencyCode=code, exchangeRate=rate, exponent=None))
            for code, rate in rates.items()
        ]
        when = "2025-11-17T12:00:00Z"
        at_the_bank = transaction(
            "ecb", occurredTime=when, **money(originalCurrencyCode="BGN", exchangeRate=None, exponent=None)
        )
        spend(dump, "day1", transactions=[*some, at_the_bank])
        sync("day1", "2026-01-05")
        rate = CurrencyConverter(decimal=True).convert(Decimal("12.34"), "BGN", "USD", date(2025, 11, 17))
        assert spent(db) == {
            "BGN": ("12.34", "7.40", "payload"),
            "HRK": ("12.34", "1.75", "payload"),
            "ANG": ("12.34", "6.89", "payload"),
            "BYR": ("1234", "0.06", "payload"),
            "ZWL": ("12.34", "0.04", "payload"),
            "ITL": ("1234", "0.74", "payload"),
            "ecb": ("12.34", str(rate.quantize(Decimal("0.01"))), "ecb"),
        }

    def test_money_has_every_code_that_it_ever_had(self) -> None:
        """The list only grows: what was right when it was synced must not be bad after an update of a package."""
        lines = (Path(__file__).parent.parent / "helpers" / "currency_codes.txt").read_text().splitlines()
        known = {code: int(exponent) if exponent else None for code, _, exponent in (x.partition(" ") for x in lines)}
        assert len(known) >= 307
        assert known.items() <= EXPONENTS.items()

    def test_money_of_an_amount_alone_is_in_dollars(self, db: Database, dump: Dump, sync: Sync) -> None:
        texts = [
            json.dumps(transaction(name) | {"amount": "@@", "currencyData": None}).replace('"@@"', amount)
            for name, amount in {"a": "46.37", "b": "4.637E3", "c": '"-5"', "d": "0.005", "e": "null"}.items()
        ]
        dump.write("day1", "transactions", "\n".join(texts).encode(), "1.ndjson")
        absent = transaction("f") | {"amount": 1}
        del absent["currencyData"]
        spend(dump, "day1", transactions=[absent, transaction("g") | {"amount": 1, "currencyData": {}}])
        sync("day1", "2026-01-05")
        assert spent(db) == {
            "a": ("46.37", "46.37", "amount"),
            "b": ("4637", "4637.00", "amount"),
            "c": ("-5", "-5.00", "amount"),
            "d": ("0.005", "0.01", "amount"),
            "f": ("1", "1.00", "amount"),
        }
        assert db.rows("SELECT DISTINCT original_currency, exchange_rate FROM transactions") == [
            {"original_currency": "USD", "exchange_rate": 1}
        ]
        assert errors(db)["e"] == "currencyData: missing, and the record has no amount in US dollars"
        assert errors(db)["g"].startswith("currencyData.originalCurrencyAmount: missing, expected a whole number")

    @pytest.mark.parametrize("rate", [0, "0.000000", "0.00e5"])
    def test_money_at_a_rate_of_zero_has_none(self, rate: Any, db: Database, dump: Dump, sync: Sync) -> None:
        some = [transaction("usd", **money(exchangeRate=rate)), transaction("eur", **money(exchangeRate=rate))]
        some[1]["currencyData"]["originalCurrencyCode"] = "EUR"
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        assert {name: source for name, (_, _, source) in spent(db).items()} == {"usd": "ecb", "eur": "ecb"}

    def test_money_of_a_time_with_an_offset_of_hours(self, db: Database, dump: Dump, sync: Sync) -> None:
        moments = {"a": "2026-01-05T12:00:00+00", "b": "2026-01-05T12:00:00.5-05", "c": "2026-01-05T12:00:00+0530"}
        spend(dump, "day1", transactions=[transaction(name, occurredTime=when) for name, when in moments.items()])
        sync("day1", "2026-01-05")
        rows = db.rows("SELECT occurred_time::TEXT AS at FROM transactions ORDER BY transaction_id")
        assert [row["at"][:19] for row in rows] == ["2026-01-05 12:00:00", "2026-01-05 17:00:00", "2026-01-05 06:30:00"]

    def test_money_has_a_key_that_can_be_reckoned_again(self, db: Database, dump: Dump, sync: Sync) -> None:
        amounts = {
            "1.00": money(originalCurrencyAmount="0100"),
            "0.00": money(originalCurrencyAmount="-0"),
            "-0.05": money(originalCurrencyAmount="-5"),
            "1234": money(originalCurrencyAmount="1234", originalCurrencyCode="JPY", exponent=0),
            "460": {},
        }
        moment = "2026-01-05T18:22:58.5+01:00"
        some = [transaction(name, occurredTime=moment, **one) for name, one in amounts.items()]
        some[-1] |= {"currencyData": None, "amount": "4.6e2", "uuid": None}
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        again = """SELECT encode(sha256(convert_to(concat_ws('|', transaction_id, transaction_uuid,
            to_char(occurred_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), original_amount, original_currency),
            'UTF8')), 'hex') = idempotency_key AS found FROM transactions"""
        assert [row["found"] for row in db.rows(again)] == [True] * len(amounts)
        assert {name: amount for name, (amount, *_) in spent(db).items()} == {name: name for name in amounts}

    def test_money_rates_are_those_of_the_bank(self) -> None:
        found = usd_rates(
            [("EUR", date(2014, 3, 28)), ("EUR", date(2014, 3, 30)), ("GBP", date(2014, 3, 28)), ("XXX", date.today())]
        )
        assert found["EUR", date(2014, 3, 28)] == found["EUR", date(2014, 3, 30)] == "1.3759"
        assert Decimal(found["GBP", date(2014, 3, 28)]).quantize(Decimal("0.0001")) == Decimal(
            "1.6633"
        )  # 1.3759 / 0.8272
        assert len(found) == 3


class TestNewestWins:
    """Newest wins."""

    @pytest.mark.parametrize("of_bad", ["2026-01-04T00:00:00Z", "x"])
    def test_an_older_record_does_not_win_because_the_newest_is_bad(
        self, db: Database, dump: Dump, sync: Sync, of_bad: str
    ) -> None:
        first, second = ({"updatedTime": f"2026-01-0{day}T00:00:00Z"} for day in (2, 3))
        spend(
            dump,
            "day1",
            budgets=[budget("b1", name="stored")],
            cards=[card("c1", name="stored", **first)],
            transactions=[transaction("t1", merchantName="stored", **first)],
        )
        bad = {"updatedTime": of_bad}
        spend(
            dump,
            "day2",
            budgets=[budget(b, name="older") for b in ("b1", "b2")] + [budget(b, retired="?") for b in ("b1", "b2")],
            cards=[card(c, name="older", **second) for c in ("c1", "c2")]
            + [card(c, recurring="?", **bad) for c in ("c1", "c2")],
            transactions=[transaction(t, merchantName="older", **second) for t in ("t1", "t2")]
            + [transaction(t, occurredTime="?", **bad) for t in ("t1", "t2")],
        )
        sync("day1", "2026-01-05")
        for _ in range(2):
            sync("day2", "2026-01-06")
            for table, key, name in (
                ("budgets", "budget_id", "name"),
                ("cards", "card_id", "name"),
                ("transactions", "transaction_id", "merchant_name"),
            ):
                found = db.rows(f"SELECT {name} AS name, as_of::TEXT AS on FROM {table} ORDER BY {key}")
                told = [(row["name"], row["on"]) for row in found]
                assert told == [("stored", "2026-01-05"), ("older", "2026-01-06")], table

    def test_newest_wins_of_cards_and_transactions_whatever_day_it_came_with(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for day, moment in (("day1", NEW), ("day2", OLD), ("day3", None)):
            spend(dump, day, cards=[card("c1", name=day, updatedTime=moment)])
            spend(dump, day, transactions=[transaction("t1", merchantName=day, updatedTime=moment)])
        for order in (("day1", "day2", "day3"), ("day3", "day2", "day1")):
            for number, day in enumerate(order, start=5):
                sync(day, f"2026-01-0{number}")
            assert db.one("SELECT name FROM cards") == "day1"
            assert db.one("SELECT merchant_name FROM transactions") == "day1"
            empty(db)

    def test_newest_wins_also_where_it_comes_as_a_backfill(self, db: Database, dump: Dump, sync: Sync) -> None:
        spend(dump, "day1", cards=[card("c1", updatedTime=OLD)], transactions=[transaction("t1", updatedTime=OLD)])
        spend(dump, "day2", cards=[card("c1", name="N", updatedTime=NEW), card("c2")])
        spend(dump, "day2", transactions=[transaction("t1", merchantName="N", updatedTime=NEW), transaction("t2")])
        sync("day1", "2026-01-09")
        sync("day2", "2026-01-05")
        assert {row["name"] for row in db.rows("SELECT name FROM cards")} == {"N", "Card c2"}
        assert {row["merchant_name"] for row in db.rows("SELECT merchant_name FROM transactions")} == {"N", None}

    def test_newest_wins_and_of_one_version_the_newest_date(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, total in (("day1", 1), ("day2", 2), ("day3", 1)):
            spend(dump, day, cards=[card("c1", updatedTime=OLD, currentPeriod={"spent": total})])
            spend(dump, day, budgets=[budget("b1", currentPeriod={"limit": total})])
        for day in ("day1", "day3", "day2"):
            sync(day, f"2026-01-0{day[3:]}")
        assert db.one("SELECT current_spent FROM cards") == 1
        assert db.one("SELECT limit_amount FROM budgets") == 1
        assert str(db.one("SELECT as_of FROM cards")) == str(db.one("SELECT as_of FROM budgets")) == "2026-01-03"
        assert db.one("SELECT sync_day FROM budgets") == "day1"  # which changed it last

    def test_newest_wins_and_of_one_date_the_api_over_tran(self, db: Database, dump: Dump) -> None:
        for day in ("day1", "tran"):
            where = dump.path / ("tran" if day == "tran" else f"sync-{day}")
            made = [budget("b1", name=day)], [card("c1", name=day)], [transaction("t1", merchantName=day)]
            for folder, records in zip(("budgets", "cards", "transactions"), made, strict=True):
                (where / folder).mkdir(parents=True)
                (where / folder / "1.json").write_text(json.dumps({"results": records}))
        for order in (("day1", "tran"), ("tran", "day1")):
            for day in order:
                sync_into(db.url, str(dump.path), day, "2026-01-05")
            for select in ("name FROM budgets", "name FROM cards", "merchant_name FROM transactions"):
                assert db.one(f"SELECT {select}") == "day1"
            assert {db.one(f"SELECT source FROM {table}") for table in ("budgets", "cards", "transactions")} == {"api"}
            empty(db)
        sync_into(db.url, str(dump.path), "day1", "2026-01-05")
        sync_into(db.url, str(dump.path), "tran", "2026-01-06")
        assert db.rows("SELECT name, source FROM budgets") == [{"name": "tran", "source": "tran"}]

    def test_newest_wins_and_the_same_day_fetched_again_is_newer(self, db: Database, dump: Dump, sync: Sync) -> None:
        for name in ("first", "second"):
            shutil.rmtree(dump.path, ignore_errors=True)
            spend(dump, "day1", budgets=[budget("b1", name=name)], cards=[card("c1", name=name, updatedTime=OLD)])
            spend(dump, "day1", transactions=[transaction("t1", merchantName=name)])
            sync("day1", "2026-01-05")
        for select in ("name FROM budgets", "name FROM cards", "merchant_name FROM transactions"):
            assert db.one(f"SELECT {select}") == "second"

    def test_newest_wins_in_one_day_too(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [transaction("t1", merchantName=str(n), updatedTime=moment) for n, moment in enumerate([OLD, NEW, OLD])]
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        assert db.one("SELECT merchant_name FROM transactions") == "1"
        assert db.one("SELECT duplicates FROM sync_run_tables WHERE table_name = 'transactions'") == 2

    def test_newest_wins_and_the_ledger_says_up_to_when(self, db: Database, dump: Dump, sync: Sync) -> None:
        spend(dump, "day1", transactions=[transaction("t1", updatedTime=NEW), transaction("t2", updatedTime=None)])
        spend(dump, "day2", transactions=[transaction("t3", updatedTime=OLD)])
        select = "SELECT updated_time FROM sync_watermarks WHERE pipeline = 'transactions'"
        for day in ("day1", "day2"):
            sync(day, "2026-01-05")
            assert db.one(select) == datetime(2026, 1, 5, tzinfo=UTC)
        before = db.versions()
        sync("day2", "2026-01-05")
        assert db.versions() == before

    def test_newest_wins_and_the_watermark_is_the_newest_of_a_day(self, db: Database, dump: Dump, sync: Sync) -> None:
        spend(dump, "day1", transactions=[transaction(moment, updatedTime=moment) for moment in (OLD, NEW)])
        sync("day1", "2026-01-05")
        found = db.one("SELECT updated_time FROM sync_watermarks WHERE pipeline = 'transactions'")
        assert f"{found:%FT%TZ}" == NEW

    def test_newest_wins_only_of_those_that_a_day_speaks_of(self, db: Database, dump: Dump, sync: Sync) -> None:
        spend(dump, "day1", budgets=[budget("b1"), budget("b2")], cards=[card("c1"), card("c2")])
        spend(dump, "day2", budgets=[budget("b1")], cards=[card("c1")])
        for number in (1, 2):
            sync(f"day{number}", f"2026-01-0{number}")
        for table in ("budgets", "cards"):
            assert [
                row["day"] for row in db.rows(f"SELECT extract(day FROM as_of)::INT AS day FROM {table} ORDER BY 1")
            ] == [1, 2]
        assert db.rows(
            "SELECT DISTINCT sync_date::TEXT FROM sync_watermarks WHERE pipeline IN ('budgets', 'cards')"
        ) == [{"sync_date": "2026-01-02"}]

    def test_newest_wins_but_not_from_the_future(self, db: Database, dump: Dump, sync: Sync) -> None:
        days = {"day1": "2099-01-01T00:00:00Z", "day2": "2026-01-06T10:00:00Z", "day3": "2026-01-06T09:00:00Z"}
        for day, moment in days.items():
            spend(dump, day, cards=[card("c1", name=day, updatedTime=moment)])
            one = transaction("t1", merchantName=day, updatedTime=moment, userId="u", userName=day)
            spend(dump, day, transactions=[one])
        for order in permutations(days):
            outcomes = {day: sync(day, f"2026-01-0{4 + int(day[3:])}") for day in order}
            assert db.one("SELECT name FROM cards") == "day2"
            assert db.one("SELECT merchant_name FROM transactions") == "day2"
            assert db.one("SELECT user_name FROM card_holders") == "day2"
            newest = db.one("SELECT updated_time FROM sync_watermarks WHERE pipeline = 'transactions'")
            assert f"{newest:%FT%TZ}" == days["day2"]
            assert [one for one in told(outcomes["day1"]) if "future" in one[0]] == [
                ("updated_time in the future", 1, ("c1",)),
                ("updated_time in the future", 1, ("t1",)),
            ]
            assert not [one for one in told(outcomes["day2"]) if "future" in one[0]]
            empty(db)

    def test_newest_wins_in_one_day_but_not_from_the_future(self, db: Database, dump: Dump, sync: Sync) -> None:
        moments = ["2026-01-05T10:00:00Z", "2026-01-08T00:00:00Z", "2026-01-05T09:00:00Z"]
        some = [transaction("t1", merchantName=moment, updatedTime=moment) for moment in moments]
        late = transaction("t2", updatedTime="2026-01-06T23:59:59Z")
        spend(dump, "day1", transactions=[*some, late])
        outcome = sync("day1", "2026-01-05")
        assert db.one("SELECT merchant_name FROM transactions WHERE transaction_id = 't1'") == moments[0]
        assert not [one for one in told(outcome) if "future" in one[0]]
        sync("day1", "2026-01-07")
        assert db.one("SELECT merchant_name FROM transactions WHERE transaction_id = 't1'") == moments[1]

    def test_newest_wins_and_times_in_the_future_are_told(self, db: Database, dump: Dump, sync: Sync) -> None:
        far = "2026-01-07T00:00:00Z"
        spend(dump, "day1", cards=[card("c1", createdTime=far)], transactions=[transaction("t1", occurredTime=far)])
        assert [one for one in told(sync("day1", "2026-01-05")) if "future" in one[0]] == [
            ("created_time in the future", 1, ("c1",)),
            ("occurred_time in the future", 1, ("t1",)),
        ]

    @pytest.mark.parametrize("has_id_alone", [False, True])
    def test_newest_wins_of_a_purchase_by_id_and_by_uuid(
        self, has_id_alone: bool, db: Database, dump: Dump, sync: Sync
    ) -> None:
        last = {"id": "T", "uuid": None} if has_id_alone else {"id": None, "uuid": "U"}
        days: dict[str, dict[str, Any]] = {
            "day1": {"id": None, "uuid": "U"},
            "day2": {"id": "T", "uuid": "U"},
            "day3": last,
        }
        newest = list(days)[-1]
        for day, keys in days.items():
            when = f"2026-01-0{day[3:]}T00:00:00Z"
            spend(dump, day, transactions=[transaction("", merchantName=day, updatedTime=when) | keys])
        for order in permutations(days):
            for day in order:
                sync(day, f"2026-01-0{day[3:]}")
            before = db.versions()
            sync(order[-1], f"2026-01-0{order[-1][3:]}")
            assert db.versions() == before
            (row,) = db.rows("SELECT transaction_id, merchant_name, is_identified FROM transactions")
            assert row == {"transaction_id": "T", "merchant_name": newest, "is_identified": True}
            empty(db)

    def test_newest_wins_in_one_day_by_id_and_by_uuid(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [
            transaction("T", uuid="U", merchantName="old", updatedTime=OLD),
            transaction("", merchantName="new", updatedTime=NEW) | {"id": None, "uuid": "U"},
        ]
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        assert db.rows("SELECT transaction_id, merchant_name FROM transactions") == [
            {"transaction_id": "T", "merchant_name": "new"}
        ]

    def test_newest_wins_and_what_is_identified_keeps_its_links(self, db: Database, dump: Dump, sync: Sync) -> None:
        """On the day that tells its id the purchase also gets its card, its budget and its agent."""
        unnamed = transaction("", uuid="U", userId="u", userName="Agent 1") | {"id": None}
        spend(dump, "day1", transactions=[unnamed, transaction("other", originalAuthTransactionUuid="U")])
        dump.write("day2", "agent_details", [agent(1)])
        again = transaction("T", uuid="U", userId="u", userName="Agent 1", updatedTime=OLD)
        spend(dump, "day2", budgets=[budget("b1")], cards=[card("c1")], transactions=[again])
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        assert db.rows("SELECT card_id, budget_id, agent_id FROM transactions WHERE transaction_id = 'T'") == [
            {"card_id": "c1", "budget_id": "b1", "agent_id": 1}
        ]
        changes = {c.change: c.count for c in outcome.published.changes if c.pipeline == "transactions"}
        assert changes == {"identified": 1, "linked": 2}
        again_key = """SELECT count(*) FROM transactions WHERE idempotency_key = deskroll_idempotency_key(
            transaction_id, transaction_uuid, occurred_time, original_amount, original_currency)"""
        assert db.one(again_key) == 2
        assert db.rows("SELECT DISTINCT purchase_id FROM transaction_purchases") == [{"purchase_id": "T"}]


class TestLinksOfSpend:
    """Links of cards and transactions."""

    def test_links_to_nothing_are_null_and_told(self, db: Database, dump: Dump, sync: Sync) -> None:
        none = transaction("none", cardId=None, budgetId=None)
        spend(dump, "day1", cards=[card("c2", budgetId="b8")], transactions=[transaction("t1"), none])
        sync("day1", "2026-01-05")
        assert db.rows("SELECT DISTINCT card_id, budget_id FROM transactions") == [{"card_id": None, "budget_id": None}]
        assert db.one("SELECT budget_id FROM cards") is None
        assert errors(db, "card") == {"c2": 'budgetId: found "b8", expected a known budget'}
        assert errors(db) == {
            "t1": 'cardId: found "c1", expected a known card; budgetId: found "b1", expected a known budget'
        }
        assert db.one("SELECT raw_record FROM transaction_pipeline_errors") == {"cardId": "c1", "budgetId": "b1"}
        assert db.one("SELECT error_type FROM transaction_pipeline_errors") == "REFERENCE_ERROR"

    def test_links_are_told_one_by_one(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [transaction("a", budgetId="b9"), transaction("b", cardId="c9"), transaction("c")]
        spend(dump, "day1", budgets=[budget("b1")], cards=[card("c1")], transactions=some)
        sync("day1", "2026-01-05")
        assert errors(db) == {
            "a": 'budgetId: found "b9", expected a known budget',
            "b": 'cardId: found "c9", expected a known card',
        }
        raw = db.rows("SELECT raw_record FROM transaction_pipeline_errors ORDER BY transaction_id")
        assert [row["raw_record"] for row in raw] == [{"budgetId": "b9"}, {"cardId": "c9"}]

    def test_links_are_made_when_card_and_budget_arrive(self, db: Database, dump: Dump, sync: Sync) -> None:
        spend(dump, "day1", cards=[card("c2")], transactions=[transaction("t1")])
        spend(dump, "day2", cards=[card("c1")])
        spend(dump, "day3", budgets=[budget("b1")])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.rows("SELECT card_id, budget_id, sync_day FROM transactions") == [
            {"card_id": "c1", "budget_id": None, "sync_day": "day2"}
        ]
        outcome = sync("day3", "2026-01-07")
        assert db.rows("SELECT card_id, budget_id, sync_day FROM transactions") == [
            {"card_id": "c1", "budget_id": "b1", "sync_day": "day3"}
        ]
        assert {row["budget_id"] for row in db.rows("SELECT budget_id FROM cards")} == {"b1"}
        assert [(c.change, c.count) for c in outcome.published.changes if c.pipeline == "transactions"] == [
            ("linked", 1)
        ]

    def test_links_follow_the_record(self, db: Database, dump: Dump, sync: Sync) -> None:
        spend(dump, "day1", budgets=[budget("b1"), budget("b2")], cards=[card("c1")], transactions=[transaction("t1")])
        spend(dump, "day2", cards=[card("c1", budgetId="b2")], transactions=[transaction("t1", budgetId="b9")])
        sync("day1", "2026-01-05")
        sync("day2", "2026-01-06")
        assert db.one("SELECT budget_id FROM cards") == "b2"
        assert db.one("SELECT budget_id FROM transactions") is None


class TestCardHolders:
    """Card holders."""

    def holders(self, db: Database) -> dict[str, int | None]:
        found = {row["user_id"]: row["agent_id"] for row in db.rows("SELECT user_id, agent_id FROM card_holders")}
        for table in ("cards", "transactions"):
            rows = db.rows(f"SELECT user_id, agent_id FROM {table}")
            assert all(row["agent_id"] == found.get(row["user_id"]) for row in rows), table
        return found

    def test_card_holders_are_the_one_agent_of_that_name_or_address(self, db: Database, dump: Dump, sync: Sync) -> None:
        people = {1: "Mara Lind", 2: "Ünal Éde", 3: "Twin", 4: "twin", 5: " ", 6: "Agent 7"}
        some = [agent(n, contact={"name": name}, deactivated=n == 1) for n, name in people.items()]
        dump.write("day1", "agent_details", some)
        names = {"mara": " MARA \t lind", "unal": "ünal éDE", "twin": "Twin", "blank": "  ", "mail": "A4@Example.COM"}
        names |= {"nobody": "Nobody", "near": "Mara  Lin d"}
        spend(dump, "day1", cards=[card(f"c-{user}", userId=user) for user in names])
        spend(dump, "day1", transactions=[transaction(user, userId=user, userName=n) for user, n in names.items()])
        sync("day1", "2026-01-05")
        assert self.holders(db) == {
            "mara": 1, "unal": 2, "twin": None, "blank": None, "mail": 4, "nobody": None, "near": None,
        }  # fmt: skip

    def test_card_holders_keep_their_agent_until_a_better_one_is_found(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        """Another of that name comes, the first gets another name, both get others."""
        spend(dump, "day1", cards=[card("c1", userId="u")])
        spend(dump, "day1", transactions=[transaction("t1", userId="u", userName="Mara Lind")])
        days = {
            2: ["Mara Lind"],
            3: ["Mara Lind", "MARA LIND"],
            4: ["Mara Berg", "Mara Lind"],
            5: ["Agent 1", "Agent 2"],
        }
        for day, names in days.items():
            some = [agent(n, contact={"name": name}) for n, name in enumerate(names, start=1)]
            dump.write(f"day{day}", "agent_details", some)
        found = []
        for number in range(1, 6):
            sync(f"day{number}", f"2026-01-0{number}")
            found.append((self.holders(db)["u"], db.one("SELECT match FROM card_holders")))
        assert found == [(None, "none"), (1, "one"), (1, "several"), (1, "several"), (1, "several")]

    def left(self, db: Database) -> list[str]:
        return [row["card_id"] for row in db.rows("SELECT card_id FROM cards_of_inactive_agents ORDER BY 1")]

    def use(self, dump: Dump, **names: str) -> None:
        """Write a day on which each of these holders has a card, and uses it under a name."""
        spend(dump, "day1", cards=[card(f"card of {user}", userId=user) for user in names])
        some = [transaction(user, userId=user, userName=name, cardId=f"card of {user}") for user, name in names.items()]
        spend(dump, "day1", transactions=some)

    def test_card_holders_are_who_they_were_when_they_left_under_another_name(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        ada, ben = {"name": "Ada Frost"}, {"name": "Ben", "email": "ben@example.com"}
        dump.write("day1", "agent_details", [agent(1, contact=ada), agent(2, contact=ben)])
        self.use(dump, ada="ada frost", ben="BEN@example.com")
        gone = [
            agent(1, deactivated=True, contact={"name": "Deactivated User", "email": "gone-1@example.com"}),
            agent(2, deactivated=True, contact={"name": "Ben", "email": "gone-2@example.com"}),
        ]
        dump.write("day2", "agent_details", gone)
        sync("day1", "2026-01-05")
        assert self.left(db) == []
        outcome = sync("day2", "2026-01-06")
        assert self.left(db) == ["card of ada", "card of ben"]
        assert "transactions" not in {c.pipeline for c in outcome.published.changes}

    def test_card_holders_are_found_by_names_of_days_that_come_later(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        """The day of the old name is a backfill."""
        dump.write("day1", "agent_details", [agent(1, contact={"name": "Ada Frost"})])
        dump.write("day2", "agent_details", [agent(1, deactivated=True, contact={"name": "Gone"})])
        self.use(dump, ada="Ada Frost")
        sync("day2", "2026-01-06")
        sync("day1", "2026-01-05")
        assert self.left(db) == ["card of ada"]

    @pytest.mark.parametrize(
        ("email", "while_back"), [("ada@example.com", []), ("another@example.com", ["card of ada"])]
    )
    def test_card_holders_who_come_back_under_another_id(
        self, email: str, while_back: list[str], db: Database, dump: Dump, sync: Sync
    ) -> None:
        """With the same e-mail it is the same person; else it may be another of that name."""
        old = agent(1, contact={"name": "Ada Frost", "email": "ada@example.com"})
        new = agent(2, contact={"name": "Ada Frost", "email": email})
        dump.write("day1", "agent_details", [old, agent(9)])
        dump.write("day2", "agent_details", [agent(9)])
        dump.write("day3", "agent_details", [new, agent(9)])
        dump.write("day4", "agent_details", [agent(9)])
        self.use(dump, ada="Ada Frost")
        found = []
        for number in range(1, 5):
            sync(f"day{number}", f"2026-01-0{number}")
            found.append(self.left(db))
        assert found == [[], ["card of ada"], while_back, ["card of ada"]]

    def test_card_holders_who_left_are_not_hidden_by_another_of_their_name(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        first, second = (agent(n, contact={"name": "Ada Frost"}) for n in (1, 2))
        for day, people in (("day1", [first]), ("day2", [first, second]), ("day3", [second])):
            dump.write(day, "agent_details", people)
        self.use(dump, ada="Ada Frost")
        found = []
        for number in range(1, 4):
            sync(f"day{number}", f"2026-01-0{number}")
            found.append(self.left(db))
        assert found == [[], [], ["card of ada"]]

    @pytest.mark.parametrize(("active", "who"), [((1,), 1), ((2,), 2), ((1, 2), None), ((), 2)])
    def test_card_holders_of_whom_there_are_several(
        self, active: tuple[int, ...], who: int | None, db: Database, dump: Dump, sync: Sync
    ) -> None:
        """The only active one; or, if all are gone, the one who was active last."""
        people = {n: {"name": "Ada Frost", "email": f"ada{n}@example.com"} for n in (1, 2, 3)}
        dump.write(
            "day1", "agent_details", [agent(1, contact=people[1]), agent(3, contact=people[3], deactivated=True)]
        )
        dump.write("day2", "agent_details", [agent(2, contact=people[2]), agent(9)])
        dump.write("day3", "agent_details", [agent(9), *(agent(n, contact=people[n]) for n in active)])
        spend(dump, "day3", transactions=[transaction("t", userId="u", userName="Ada Frost")])
        for number in range(1, 4):
            sync(f"day{number}", f"2026-01-0{number}", allow_mass_change=True)
        assert self.holders(db) == {"u": who}

    def test_card_holders_are_compared_as_people_read_names(self, db: Database, dump: Dump, sync: Sync) -> None:
        names = {
            "Zo\u00eb \u00c5gren": "Zoe\u0308 A\u030agren",
            "Jos\u00e9 Nunes": "JOS\u00c9\u00a0NUNES",
            "J\u00fcrgen Gro\u00df": "J\u00dcRGEN GROSS",
            "Ana  L\u00facia": "ana\u3000l\u00facia ",
            "\u039d\u03af\u03ba\u03bf\u03c2": "\u039d\u038a\u039a\u039f\u03a3",
            "\u0130pek I\u015f\u0131k": "ipek \u0131\u015f\u0131k",
            "Ng Wei\u200b Ling": "\uff2e\uff27 Wei\u2002Ling",
            "\ufb01nn": "Finn",
        }
        dump.write("day1", "agent_details", [agent(n, contact={"name": name}) for n, name in enumerate(names)])
        some = [transaction(f"{n}", userId=f"{n}", userName=name) for n, name in enumerate(names.values())]
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        assert self.holders(db) == {str(n): n for n in range(len(names))}

    def test_card_holders_are_compared_alike_on_every_server(self, url: str) -> None:
        characters = [chr(n) for n in range(1, 0x110000) if unicodedata.category(chr(n)) not in {"Cn", "Cs"}]
        expected = [(fold(one), fold(f"a{one}b"), fold(f"{one}\u03a3")) for one in characters]
        select = """SELECT deskroll_fold(one), deskroll_fold('a' || one || 'b'), deskroll_fold(one || chr(931))
            FROM unnest(%s::TEXT[]) WITH ORDINALITY AS one (one, nth) ORDER BY nth"""
        with ExitStack() as servers:
            urls = [url, *(servers.enter_context(another_server(name)) for name in other_servers())]
            for server in urls:
                with database.connect(server) as connection:
                    migrate(connection)
                    assert connection.execute(select, [characters]).fetchall() == expected, server

    def test_card_holders_whom_nobody_knows_are_counted(self, db: Database, dump: Dump, sync: Sync) -> None:
        twins = [agent(n, contact={"name": "Twin"}) for n in (1, 2)]
        dump.write("day1", "agent_details", [*twins, agent(3)])
        self.use(dump, x="Nobody", y="Nobody Else", z="Twin", known="Agent 3")
        unused = [card("unused", userId="v"), card("frozen", userId="v", status="FROZEN"), card("odd", userId=None)]
        spend(dump, "day1", cards=unused)
        dump.write("day2", "agent_details", [*twins, agent(3)])
        counted = [
            ("card holders who match no agent", 2, ("x", "y")),
            ("card holders who match several active agents", 1, ("z",)),
            ("usable cards without a known holder", 5, ("card of x", "card of y", "card of z")),
        ]
        for number in (1, 2):
            outcome = sync(f"day{number}", f"2026-01-0{number}")
            assert sorted(one for one in told(outcome) if "holder" in one[0]) == counted
            facts = queries.status(Settings(database_url=SecretStr(db.url)))["facts"]
            assert {label: facts[label] for label, *_ in counted} == {label: rows for label, rows, _ in counted}
        reasons = db.rows("SELECT card_id, reason FROM cards_without_known_holder ORDER BY card_id")
        assert {row["card_id"]: row["reason"] for row in reasons} == {
            "card of x": "no agent has the name",
            "card of y": "no agent has the name",
            "card of z": "several active agents have the name",
            "odd": "never used",
            "unused": "never used",
        }

    def test_card_holders_without_an_id_are_known_by_uuid(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        some = [
            transaction("a", userId="u1", userUuid="x1", userName="Agent 1"),
            transaction("b", userUuid="x1"),
            transaction("c", userUuid="x2", userName="Agent 2"),
        ]
        cards = [card("c1", userUuid="x1"), card("c2", userId="u2", userUuid="x2"), card("c3", userUuid="x3")]
        spend(dump, "day1", cards=cards, transactions=some)
        sync("day1", "2026-01-05")
        assert db.rows("SELECT user_id, user_uuid, agent_id FROM card_holders ORDER BY user_id") == [
            {"user_id": "u1", "user_uuid": "x1", "agent_id": 1},
            {"user_id": "x2", "user_uuid": "x2", "agent_id": 2},
        ]
        assert [row["agent_id"] for row in db.rows("SELECT agent_id FROM cards ORDER BY card_id")] == [1, 2, None]
        assert [row["agent_id"] for row in db.rows("SELECT agent_id FROM transactions ORDER BY 1")] == [1, 1, 2]

    def test_card_holders_who_are_others_take_their_link_away(self, db: Database, dump: Dump, sync: Sync) -> None:
        """A uuid that stood for a holder turns out to be the id of one whom nobody knows."""
        dump.write("day1", "agent_details", [agent(1)])
        named = transaction("a", userId="u1", userUuid="x1", userName="Agent 1")
        spend(dump, "day1", transactions=[named, transaction("b", userUuid="x1")])
        spend(dump, "day2", transactions=[transaction("c", userId="x1", userName="Nobody")])
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        changes = {c.change: c.count for c in outcome.published.changes if c.pipeline == "transactions"}
        assert changes == {"added": 1, "unlinked": 1}

    def test_card_holders_go_by_the_newest_name(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1), agent(2)])
        for day, name, moment in (("day1", "Agent 1", NEW), ("day2", "Agent 2", OLD), ("day3", "Agent 2", NEW)):
            spend(dump, day, transactions=[transaction(day, userId="u", userName=name, updatedTime=moment)])
        for day, who in (("day1", 1), ("day2", 1), ("day3", 2)):
            sync(day, "2026-01-05")
            assert self.holders(db) == {"u": who}

    def test_card_holders_go_by_the_name_that_was_used_last_in_a_day(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        names = ("Old", "Other", "Old")
        some = [
            transaction(str(nth), userId="u", userName=name, updatedTime=f"2026-01-05T0{nth}:00:00Z")
            for nth, name in enumerate(names)
        ]
        spend(dump, "day1", transactions=some)
        sync("day1", "2026-01-05")
        assert db.one("SELECT user_name FROM card_holders") == "Old"

    def test_card_holders_of_two_names_at_once_have_one_of_them(self, db: Database, dump: Dump, sync: Sync) -> None:
        for day, names in (("day1", ["B", "C", "A"]), ("day2", ["A"]), ("day3", ["D", "B"])):
            some = [transaction(f"{day} {name}", userId="u", userName=name, updatedTime=NEW) for name in names]
            spend(dump, day, transactions=some)
        for day, name in (("day1", "C"), ("day2", "C"), ("day3", "D")):
            sync(day, "2026-01-05")
            assert db.one("SELECT user_name FROM card_holders") == name

    def test_card_holders_keep_the_name_of_a_time_before_one_of_none(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        days = (("day1", "A", None), ("day2", "B", OLD), ("day3", "C", None))
        for day, name, moment in days:
            spend(dump, day, transactions=[transaction(day, userId="u", userName=name, updatedTime=moment)])
        for (day, _, _), name in zip(days, "ABB", strict=True):
            sync(day, "2026-01-05")
            assert db.one("SELECT user_name FROM card_holders") == name

    def test_card_holders_found_in_a_run_that_also_changes_the_transaction_are_one_update(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        for number, people in (1, []), (2, [agent(1)]):
            one = transaction("t", userId="u", userName="Agent 1", merchantName=f"M{number}")
            spend(dump, f"day{number}", cards=[card("c1", userId="u")], transactions=[one])
            dump.write(f"day{number}", "agent_details", people)
        sync("day1", "2026-01-05")
        outcome = sync("day2", "2026-01-06")
        counted = {t.table: (t.inserted, t.updated, t.unchanged) for t in outcome.published.tables}
        assert {counted[table] for table in ("cards", "card_holders", "transactions")} == {(0, 1, 0)}

    def test_card_holders_without_a_transaction_have_no_name_yet(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        spend(dump, "day1", cards=[card("c1", userId="u")])
        spend(dump, "day2", transactions=[transaction("t", userId="u", userName="Agent 1", cardId="c1")])
        spend(dump, "day3", cards=[card("c2", userId="u")])
        for number, who in ((1, None), (2, 1), (3, 1)):
            sync(f"day{number}", f"2026-01-0{number}")
            assert {row["agent_id"] for row in db.rows("SELECT agent_id FROM cards")} == {who}


@dataclass(frozen=True)
class Purchase:
    """A line of the table of purchases in docs/rules.md."""

    number: int
    records: list[str]
    expected: tuple[int, int, int]

    def transaction(self, text: str, newest: date, link: str) -> dict[str, Any]:
        """A record such as `b: CLEAR 150 of a`; it leads to others by `Id` or by `Uuid`."""
        found = re.fullmatch(
            r"(\w): (\w+) (-?\d+)( EUR)?(?: of (\w))?(?: part of (\w))?(?: ref (\d))?(?:, (\d+) days ago)?", text
        )
        assert found, text
        name, kind, amount, is_euro, leads_to, part_of, reference, days = found.groups()
        rate = {"originalCurrencyCode": "EUR", "exchangeRate": "1.08"} if is_euro else {}
        prefix = "" if link == "Id" else "u-"
        links = {"originalAuthTransaction": leads_to, "parentTransaction": part_of}
        return transaction(
            self.key(name),
            transactionType=kind,
            cardId=f"card {self.number}",
            clearingReference=reference or "",
            occurredTime=f"{newest - timedelta(days=int(days or 1))}T12:00:00Z",
            **{f"{field}{link}": prefix + self.key(other) for field, other in links.items() if other},
            **money(originalCurrencyAmount=int(amount) * 100, **rate),
        )

    def key(self, name: str) -> str:
        return f"{self.number} {name}"


def purchases() -> list[Purchase]:
    page = (Path(__file__).parent.parent.parent / "docs" / "rules.md").read_text()
    lines = re.findall(r"^    \|[^|]+\|(.*`.*)\| (-?\d+) \| (-?\d+) \| (-?\d+) \|$", page, re.MULTILINE)
    return [
        Purchase(number, re.findall("`(.+?)`", records), (int(settled), int(pending), int(stale)))
        for number, (records, settled, pending, stale) in enumerate(lines)
    ]


class TestSpend:
    """Spend."""

    def count(self, db: Database, dump: Dump, sync: Sync, *some: dict[str, Any], on: str = "2026-01-20") -> Any:
        """Sync some transactions; returns what was settled and what is pending, by month."""
        spend(dump, "day1", transactions=list(some))
        sync("day1", on)
        rows = db.rows(
            """SELECT month::TEXT, sum(settled_usd) AS settled, sum(pending_usd) AS pending
            FROM spend_by_month GROUP BY month ORDER BY month"""
        )
        return {row["month"][:7]: (row["settled"], row["pending"]) for row in rows}

    @staticmethod
    def one(name: str, kind: str | None, cents: int, month: int = 1, **links: Any) -> dict[str, Any]:
        when = f"2026-{month:02}-15T12:00:00Z"
        amount = money(originalCurrencyAmount=cents)
        return transaction(name, transactionType=kind, occurredTime=when, **amount, **links)

    def test_spend_of_the_purchases_on_the_rules_page(self, db: Database, dump: Dump, sync: Sync) -> None:
        """All of them at once, in every order in which up to four records can arrive on four days."""
        table, newest = purchases(), date(2026, 1, 8)
        assert len(table) > 25
        expected = {f"card {p.number}": p.expected for p in table}
        for number, order in enumerate(permutations(range(4))):
            shutil.rmtree(dump.path, ignore_errors=True)
            empty(db)
            for day, place in enumerate(order):
                some = [
                    p.transaction(p.records[place], newest, "Uuid" if number % 2 else "Id")
                    for p in table
                    if place < len(p.records)
                ]
                spend(dump, f"day{day}", transactions=some)
                sync(f"day{day}", str(newest - timedelta(days=3 - day)))
            found = dict.fromkeys(expected, (0, 0, 0)) | {
                row["card"]: (row["settled"], row["pending"], row["stale"])
                for row in db.rows(
                    """SELECT source_card_id AS card,
                        coalesce(sum(amount_usd) FILTER (WHERE state = 'settled'), 0) AS settled,
                        coalesce(sum(amount_usd) FILTER (WHERE state = 'pending'), 0) AS pending,
                        coalesce(sum(amount_usd) FILTER (WHERE state = 'stale'), 0) AS stale
                    FROM (SELECT transaction_id, state, amount_usd FROM spend_records) AS counted
                    JOIN (SELECT transaction_id, source_card_id FROM transactions) AS one USING (transaction_id)
                    GROUP BY 1"""
                )
            }
            assert found == expected, order
            sums = "sum(settled_usd) AS settled, sum(pending_usd) AS pending, sum(stale_usd) AS stale"
            (row,) = db.rows(f"SELECT {sums} FROM spend_by_month")
            assert tuple(row.values()) == tuple(map(sum, zip(*expected.values(), strict=True)))

    @pytest.mark.parametrize(
        "link",
        [
            {"originalAuthTransactionId": "auth"},
            {"originalAuthTransactionUuid": "u-auth"},
            {"clearingReference": "r1"},
            {"originalAuthTransactionId": "gone", "originalAuthTransactionUuid": "u-auth"},
            {"originalAuthTransactionId": "fee", "originalAuthTransactionUuid": "u-auth"},
            {"originalAuthTransactionUuid": "u-fee", "clearingReference": "r1"},
        ],
    )
    def test_spend_counts_a_purchase_once_in_its_own_month(
        self, link: dict[str, str], db: Database, dump: Dump, sync: Sync
    ) -> None:
        some = [
            self.one("auth", "AUTHORIZATION", 10000, clearingReference="r1"),
            self.one("fee", "OTHER", 500),
            self.one("clear", "CLEAR", 10100, month=2, **link),
        ]
        assert self.count(db, dump, sync, *some) == {"2026-01": (101, 0)}

    def test_spend_is_not_settled_by_an_empty_reference(self, db: Database, dump: Dump, sync: Sync) -> None:
        links: Any = {"clearingReference": "", "originalAuthTransactionId": "", "originalAuthTransactionUuid": ""}
        some = [self.one("one", "AUTHORIZATION", 500, **links), self.one("other", "CLEAR", 100, **links)]
        assert self.count(db, dump, sync, *some) == {"2026-01": (1, 5)}

    def test_spend_is_not_settled_by_the_reference_of_another_card(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [
            self.one("one", "AUTHORIZATION", 500, clearingReference="r"),
            self.one("other", "CLEAR", 100, clearingReference="r", cardId="c2"),
            self.one("by uuid", "AUTHORIZATION", 700, clearingReference="r", cardId=None, cardUuid="k"),
            self.one("by it too", "CLEAR", 800, clearingReference="r", cardId=None, cardUuid="k"),
        ]
        assert self.count(db, dump, sync, *some) == {"2026-01": (9, 5)}

    def test_spend_of_another_type_is_none(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [self.one("no", "DECLINE", 500), self.one("fee", "OTHER", 7), self.one("odd", None, 3)]
        assert self.count(db, dump, sync, *some, self.one("yes", "Clear", 1)) == {"2026-01": (Decimal("0.01"), 0)}

    def test_spend_is_less_what_came_back(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [
            self.one("auth", "AUTHORIZATION", 10000),
            self.one("clear", "CLEAR", 10000, originalAuthTransactionId="auth"),
            self.one("refund", "CLEAR", -4000, month=3, originalAuthTransactionId="auth"),
            self.one("back", "AUTHORIZATION", -700, month=3),
            self.one("paid back", "CLEAR", -700, month=4, originalAuthTransactionId="back"),
        ]
        assert self.count(db, dump, sync, *some) == {"2026-01": (100, 0), "2026-03": (-47, 0)}
        assert db.one("SELECT sum(refunded_of_settled_usd) FROM spend_by_month") == -47

    def test_spend_that_nothing_settled_in_45_days_is_shown_apart(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [self.one("old", "AUTHORIZATION", 500), self.one("new", "AUTHORIZATION", 700, month=2)]
        assert self.count(db, dump, sync, *some, on="2026-03-01") == {"2026-01": (0, 5), "2026-02": (0, 7)}
        spend(dump, "day2", transactions=[])
        sync("day2", "2026-03-02")
        assert db.rows("SELECT month::TEXT, pending_usd, stale_usd FROM spend_by_month ORDER BY month") == [
            {"month": "2026-01-01", "pending_usd": 0, "stale_usd": 5},
            {"month": "2026-02-01", "pending_usd": 7, "stale_usd": 0},
        ]
        assert db.one("SELECT transaction_id FROM spend") == "new"
        assert db.one("SELECT transaction_id FROM stale_authorizations") == "old"

    def test_spend_of_parts_counts_by_their_budgets_only_without_the_whole(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        spend(dump, "day0", budgets=[budget("b1"), budget("b2")])
        sync("day0", "2026-01-20")
        parts = [
            self.one("p1", "CLEAR", 6000, parentTransactionUuid="u-whole"),
            self.one("p2", "CLEAR", 4000, parentTransactionId="whole", parentTransactionUuid="", budgetId="b2"),
            self.one("own", "CLEAR", 100, parentTransactionId="own", budgetId=None),
        ]
        by_budget = "SELECT budget_id, settled_usd FROM spend_by_month ORDER BY budget_id"
        self.count(db, dump, sync, *parts)
        assert [tuple(row.values()) for row in db.rows(by_budget)] == [("b1", 60), ("b2", 40), (None, 1)]
        self.count(db, dump, sync, self.one("whole", "CLEAR", 10000))
        assert [tuple(row.values()) for row in db.rows(by_budget)] == [("b1", 100), (None, 1)]

    def test_spend_of_many_records_that_lead_to_one(self, db: Database, dump: Dump, sync: Sync) -> None:
        some = [self.one(f"{n}", "AUTHORIZATION", 100, originalAuthTransactionId="0") for n in range(1, 3000)]
        chain = [self.one(f"c{n}", "AUTHORIZATION", 100, originalAuthTransactionId=f"c{n + 1}") for n in range(300)]
        same = [self.one(f"r{n}", "AUTHORIZATION", 100, clearingReference="n/a") for n in range(3000)]
        assert self.count(db, dump, sync, *some, *chain, *same) == {"2026-01": (0, 2999 + 300 + 3000)}
        assert db.one("SELECT count(DISTINCT purchase_id) FROM spend") == 3

    def test_spend_is_told_with_card_budget_holder_and_agent(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1)])
        spend(dump, "day1", budgets=[budget("b1")], cards=[card("c1", lastFour="0072", userId="u")])
        self.count(
            db,
            dump,
            sync,
            transaction("t", userId="u", userName="AGENT 1"),
            transaction("x", cardId=None, budgetId=None),
        )
        told = db.rows("SELECT * FROM card_transactions WHERE transaction_id = 't'")[0]
        names = ("card_name", "last_four", "budget_name", "holder_name", "agent_name", "agent_status", "amount_usd")
        assert [told[name] for name in names] == [
            "Card c1", "0072", "Budget b1", "AGENT 1", "Agent 1", "active", Decimal("12.34"),
        ]  # fmt: skip
        assert db.one("SELECT count(*) FROM card_transactions") == 2

    def test_spend_with_a_card_of_somebody_who_left_is_shown(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, deactivated=True), agent(2)])
        states = ("ACTIVATED", "NOT_ACTIVATED", "FROZEN", "DELETED", "ODD")
        spend(dump, "day1", cards=[card(f"{n}-{s}", status=s, userId=f"u{n}") for s in states for n in (1, 2)])
        spend(dump, "day1", transactions=[transaction(f"t{n}", userId=f"u{n}", userName=f"Agent {n}") for n in (1, 2)])
        sync("day1", "2026-01-05")
        found = {row["card_id"] for row in db.rows("SELECT card_id FROM cards_of_inactive_agents")}
        assert found == {"1-ACTIVATED", "1-NOT_ACTIVATED", "1-ODD"}
        told = queries.status(Settings(database_url=SecretStr(db.url)))
        assert told["facts"]["cards of inactive agents that can still be used"] == 3

    def test_spend_with_such_a_card_was_last_on(self, db: Database, dump: Dump, sync: Sync) -> None:
        dump.write("day1", "agent_details", [agent(1, deactivated=True)])
        spend(dump, "day1", cards=[card("c1", userId="u"), card("c2", userId="u")])
        kinds = [("CLEAR", 2), ("AUTHORIZATION", 5), (None, 4), ("CLEAR", 3), ("DECLINE", 6)]
        some = [self.one(f"t{n}", kind, 1, n, cardId="c1", userId="u", userName="Agent 1") for kind, n in kinds]
        self.count(db, dump, sync, *some)
        rows = db.rows("SELECT card_id, last_used_at FROM cards_of_inactive_agents")
        assert {row["card_id"]: row["last_used_at"] and row["last_used_at"].month for row in rows} == {
            "c1": 5, "c2": None,
        }  # fmt: skip


class TestDiscrepanciesOfSpend:
    """Discrepancies of spend."""

    def test_discrepancies_of_spend_are_counted_and_named_and_rejects_nothing(
        self, db: Database, dump: Dump, sync: Sync
    ) -> None:
        spend(dump, "day1", cards=[card("c1", status="LOST"), card("c2", status="LOST"), card("c3", type="PAPER")])
        some = [transaction(f"t{n}", amount=12.34 + n / 100) for n in range(3)]
        spend(
            dump,
            "day1",
            transactions=[*some, transaction("t9", transactionType="GIFT"), transaction("t8", amount=None)],
        )
        outcome = sync("day1", "2026-01-05")
        assert db.one("SELECT count(*) FROM cards") == 3
        assert db.one("SELECT count(*) FROM transactions") == 5
        assert [(d.discrepancy, d.rows, d.examples) for d in outcome.published.discrepancies] == [
            ("unknown status LOST", 2, ("c1", "c2")),
            ("unknown type PAPER", 1, ("c3",)),
            ("usable cards without a known holder", 3, ("c1", "c2", "c3")),
            ("unknown transaction_type GIFT, which is not spend: 12.34 USD", 1, ("t9",)),
            ("amounts that are off the computed one by more than a cent", 1, ("t2",)),
        ]
        rows = db.rows("SELECT pipeline, kind, drift, rows, examples FROM sync_run_drift WHERE drift LIKE '%%LOST'")
        assert rows == [
            {"pipeline": "cards", "kind": "drift", "drift": "unknown status LOST", "rows": 2, "examples": ["c1", "c2"]}
        ]
        spend(dump, "day2", cards=[card("c1", status="FROZEN")])
        sync("day2", "2026-01-06")
        told = queries.status(Settings(database_url=SecretStr(db.url)))["discrepancies"]
        odd = {row["pipeline"] for row in told if not row["discrepancy"].startswith("usable")}
        assert odd == {"transactions"}  # no card of the last day is odd


class TestOrigin:
    """Origin."""

    def test_origin_is_tran_for_the_folder_of_that_name(self, db: Database, dump: Dump) -> None:
        folder = dump.path / "tran" / "transactions"
        folder.mkdir(parents=True)
        (folder / "1.json").write_text(json.dumps({"results": [transaction("t1", cardId=None, budgetId=None)]}))
        request = Request(str(dump.path), "tran", date(2026, 1, 5))
        outcome = run(request, Settings(database_url=SecretStr(db.url)), Limits())
        assert db.rows("SELECT source, sync_day FROM transactions") == [{"source": "tran", "sync_day": "tran"}]
        (note,) = messages(outcome)
        assert note.startswith(
            "skipped because the day has none of their folders: agents (agent_details/, agents/), roles"
        )
        assert "cards (cards/)" in note
