"""Engine = engine: whatever the input, Spark leaves what DuckDB leaves, in every table that there is.

No pipeline and no table is named here: one that is added is compared with the rest.
"""

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deskroll.engines import spark as spark_engine
from deskroll.input.bounds import MAX_RECORD
from tests.helpers.databases import Database, new_database
from tests.helpers.factories import Dump, agent, role
from tests.helpers.runs import DAYS, SAMPLE, sync_into
from tests.promises import test_bad_input as bad
from tests.promises import test_input as source
from tests.rules import test_model as model
from tests.rules import test_model_spend as spend

pytestmark = pytest.mark.usefixtures("spark")


class Pair:
    """Two databases: what one engine makes of a day is compared with what the other makes of it."""

    def __init__(self, ours: Database, theirs: Database) -> None:
        self.began = datetime.now(UTC)
        self.databases = {"duckdb": ours, "spark": theirs}

    def sync(self, dump: str, day: str, on: str, url: str | None = None) -> dict[str, list[Any]]:
        """Sync a day with both, by Spark from `url` if that is given; returns the tables, which are alike."""
        found = {}
        for engine, db in self.databases.items():
            with pytest.MonkeyPatch.context() as patch:
                if url:  # a URL of this machine is read like any other, by Hadoop
                    patch.setattr("deskroll.engines.spark._local", lambda url: "")
                given = (url or dump) if engine == "spark" else dump
                sync_into(db.url, given, day, on, engine, allow_mass_change=True)
            found[engine] = db.everything(self.began)
        for table, rows in found["duckdb"].items():
            assert found["spark"][table] == rows, table
        return found["spark"]

    def empty(self) -> None:
        for db in self.databases.values():
            model.empty(db)


@pytest.fixture
def pair(db: Database, server: str, template: str) -> Iterator[Pair]:
    with new_database(server, template) as url:
        other = Database(url)
        yield Pair(db, other)
        other.connection.close()


def test_the_sample_days(pair: Pair) -> None:
    filled: set[str] = set()
    for day, on in DAYS.items():
        filled |= {name for name, rows in pair.sync(str(SAMPLE), day, on).items() if rows}
    assert {f"stg_{name}" for name in ("agents", "agent_details", "pipeline_errors")} < filled


def write_corpus(dump: Dump) -> None:
    """All bad input that has a test of its own, as one day."""
    for number, (data, _, name) in enumerate(bad.WHOLE_FILES.values()):
        dump.write("day1", "agent_details", data, f"{number:03}-{name}")
    records = [json.dumps(record) for record, *_ in bad.RECORDS.values()]
    good = [json.dumps(agent(n, signature="x" * 1000)) for n in range(100, 400)]
    twice = '{"id": 2, "contact": {"email": "a", "email": "b", "name": "n"}, "available": true, "available": false}'
    lists = {
        "availability": [{"channel": "chat"}, {"channel": None}, '{"channel": "x"}', 5, {"channel": {"a": 1.50}}],
        "group_ids": [1, "2", "x", None, [3], 1e3, 2.50, "null", 10**20],
    }
    odd = agent(7, **lists, contact={"avatar": {"b": [1.5, "é\u0001/"], "a": None}})
    named = [agent(1000 + n, contact={"name": name, "phone": name}) for n, name in enumerate(bad.NAMES)]
    lines = [*records, twice, "{bad", "", "  ", '"text"', *map(json.dumps, [odd, *named])]
    dump.write("day1", "agent_details", "\n".join(lines).encode(), "lines.ndjson")
    dump.write("day1", "agent_details", "\r\n".join([*lines, *good]).encode(), "many lines.jsonl")
    dump.write("day1", "agent_details", f"[{','.join([*records, twice, json.dumps(odd)])}]".encode(), "array.json")
    dump.write("day1", "agent_details", f"[{','.join([*records, *good])}]".encode(), "large.json")
    dump.write("day1", "agent_details", f'{{"x": [], "results": [{",".join(records)}]}}'.encode(), "envelope.json")
    dump.write("day1", "agent_details", gzip.compress("\n".join(lines).encode()), "lines.jsonl.gz")
    dump.write("day1", "agent_details", zstandard.compress(f"[{','.join(records)}]".encode()), "array.json.zst")
    dump.write("day1", "agent_details", b'{"id": 8, "x": ' + bad.DEEP + b"}", "deep.json")
    for name in ("a'b.json", 'a"b.json', "a%b.json", "a%20b.json", "a*[?]{,}.json", "é.JSON", "a;b--.json", "a b.json"):
        dump.write("day1", "agent_details", [agent(9), {"id": "x"}], name)
    for name, data in {
        **dict.fromkeys(source.UNREAD, b"[]"),
        **{name: data for data, name in source.EMPTY.values()},
    }.items():
        dump.write("day1", "agent_details", data, f"unread-{name}")
    dump.write("day1", "agent_details/pages", [agent(10)])
    dump.write("day1", "admin_roles", {"results": [], "errors": ["timeout"]})
    dump.write("day1", "admin_groups/pages", [agent(10)])
    dump.write("day1", "roles", {"results": [role(1)], "nextPage": 2}, "1.json")
    dump.write("day1", "roles", {"results": [role(2)], "nextPage": 3}, "2.json.gz")
    for name in (".DS_Store", "notes.txt", "json"):
        dump.write("day1", "agent_details", b"\x00", name)
    dump.write("day1", "agents", [agent(1), agent(9), {"id": None}])


def test_bad_input(pair: Pair, dump: Dump) -> None:
    write_corpus(dump)
    dump.write("day1", "agent_details", [agent(9), {"id": "x"}], "new\nline\\.json")
    tables = pair.sync(str(dump.path), "day1", "2026-01-05")
    assert len(tables["agent_pipeline_errors"]) > 200


days = model.mixed_days({**model.DIRTY, **spend.DIRTY}, {**model.TIDY, **spend.TIDY})


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.tuples(days, days), order=st.lists(st.sampled_from([0, 1]), min_size=1, max_size=2))
def test_any_days(pair: Pair, content: tuple[Any, ...], order: list[int]) -> None:
    pair.empty()
    dump = Path(tempfile.mkdtemp())
    try:
        for number, some in enumerate(content):
            model.write(dump, f"day{number}", some)
        for on, number in enumerate(order, start=1):
            if any(some is not None for some in content[number].values()):
                pair.sync(str(dump), f"day{number}", f"2026-01-{on:02}")
    finally:
        shutil.rmtree(dump)


@pytest.mark.rare
def test_bad_input_from_a_url(pair: Pair, dump: Dump) -> None:
    write_corpus(dump)
    pair.sync(str(dump.path), "day1", "2026-01-05", url=f"file://{dump.path}")


def test_a_sample_day_from_a_url(pair: Pair) -> None:
    pair.sync(str(SAMPLE), "day2", DAYS["day2"], url=f"file://{SAMPLE}/")


@pytest.mark.parametrize("kind", ["folder", pytest.param("url", marks=pytest.mark.rare)])
def test_long_files_of_lines_are_read_by_several_tasks(
    kind: str, pair: Pair, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deskroll.engines.spark._TASK_BYTES", 64 * 1024)
    monkeypatch.setitem(spark_engine._SESSION, "spark.sql.files.maxPartitionBytes", str(64 * 1024))
    some = [json.dumps(agent(n, signature="x" * (n % 700))) for n in range(2000)]
    dirt = ["{bad", "", '{"id": "x"}', " ", '{"id": 5, "contact": {"name": "\\ud800"}}', "\ufeff" + some[0], "NaN"]
    lines = [line for n, one in enumerate(some) for line in ([one, dirt[n % 7]] if n % 100 == 0 else [one])]
    dump.write("day1", "agent_details", "\n".join(lines).encode(), "long.ndjson")
    dump.write("day1", "agent_details", b"\xef\xbb\xbf" + "\r\n".join(lines[::-1]).encode() + b"\n\n", "crlf.jsonl")
    dump.write("day1", "agent_details", b"{" + b"x" * 300_000 + b"\n" + "\n".join(lines).encode(), "one long.jsonl")
    dump.write("day1", "agents", [agent(1)])
    url = f"file://{dump.path}" if kind == "url" else None
    tables = pair.sync(str(dump.path), "day1", "2026-01-05", url)
    assert max(row["record_index"] for row in tables["agent_pipeline_errors"]) > 1900


def test_a_file_of_lines_of_which_a_part_cannot_be_read_is_one_row(
    pair: Pair, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deskroll.engines.spark._TASK_BYTES", 16 * 1024 * 1024)
    too_long = b'"' + b"x" * (2 * MAX_RECORD) + b'"\n'
    dump.write("day1", "agent_details", too_long + json.dumps(agent(2)).encode(), "a.ndjson")
    dump.write("day1", "agent_details", [agent(1)])
    tables = pair.sync(str(dump.path), "day1", "2026-01-05")
    assert [row["record_index"] for row in tables["agent_pipeline_errors"]] == [None]
    assert [row["agent_id"] for row in tables["agents"]] == [1]
