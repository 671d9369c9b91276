"""The rules of money, and of which version of a record wins (docs/rules.md), each with tests named after it."""

import json
import shutil
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from currency_converter import CurrencyConverter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deskroll.currencies import EXPONENTS, usd_rates
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, transaction
from tests.helpers.runs import Sync, sync_into
from tests.helpers.spend import NEW, OLD, errors, money, spend, spent, told
from tests.promises.test_bad_input import incompressible
from tests.rules.test_model import empty


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
