"""The rules of links of spend and of card holders (docs/rules.md), each with tests named after it."""

import unicodedata
from contextlib import ExitStack

import pytest
from pydantic import SecretStr

from deskroll import queries
from deskroll.postgres import database
from deskroll.postgres.migrations import migrate
from deskroll.settings import Settings
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent, budget, card, transaction
from tests.helpers.model_spend import fold
from tests.helpers.runs import Sync
from tests.helpers.servers import another_server, other_servers
from tests.helpers.spend import NEW, OLD, errors, spend, told


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
