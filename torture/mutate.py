"""The tests are tested: break the SQL in one place at a time, and see that the suite goes red.

    python torture/mutate.py                        every mutation; hours
    python torture/mutate.py --only 040 --seed 1 --most 30

What survives is a gap in the tests, or a change without a meaning. The latter stand in `equivalent_mutants.txt`, each
group under its reason, and are not tried. Exits with 1 if anything survives. Every mutation runs in a copy of `src`, on
a server of its own: what PostgreSQL does first on the steps of the model tests (`replay.py`), then the tests of the
rules. `--survivors FILE` takes up the survivors of a former run, of which FILE is the output.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from deskroll.postgres.server import embedded

ROOT = Path(__file__).parent.parent
REPLAY = Path(__file__).parent / "replay.py"
EQUIVALENT = Path(__file__).parent / "equivalent_mutants.txt"
FILES = [
    *sorted((ROOT / "src/deskroll/postgres/sql/publish").glob("*.sql")),
    *sorted((ROOT / "src/deskroll/postgres/sql/migrations").glob("*.sql")),
    *sorted((ROOT / "src/deskroll/postgres/sql/routines").glob("*.sql")),
    *sorted((ROOT / "src/deskroll/pipelines").glob("*.py")),
    *sorted((ROOT / "src/deskroll/pipelines").glob("*.sql")),
    ROOT / "src/deskroll/transform/check.py",
    ROOT / "src/deskroll/transform/faults.py",
    ROOT / "src/deskroll/transform/values.py",
    ROOT / "src/deskroll/spec/contract.py",
    ROOT / "src/deskroll/transform/compile.py",
    ROOT / "src/deskroll/postgres/guards.py",
]
RULES = [
    *(f"tests/rules/test_rules_{part}.py" for part in ("agents", "roles_groups", "runs")),
    "tests/rules/test_truth.py",
    "tests/rules/test_guards.py",
]
BY_HAND = ["tests/promises/test_publish.py", "tests/promises/test_neighbours.py"]
SPEND = [f"tests/rules/test_rules_{part}.py" for part in ("money", "holders", "purchases", "spend")]
LONG = ["tests/rules/test_model.py", "tests/rules/test_model_spend.py", "tests/commands/test_cli.py"]
OF_SPEND = ("budgets", "cards", "transactions", "spend")
LINE: list[tuple[str, str]] = [
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bFULL JOIN\b", "JOIN"),
    (r"\bNOT EXISTS\b", "EXISTS"),
    (r" >= ", " > "),
    (r" > (?=\w|\()", " >= "),
    (r" < (?=\w|\()", " <= "),
    (r" <> ", " = "),
    (r" = 1\b", " >= 1"),
    (r"^\s*(AND|OR) [^();]*(\([^()]*\)[^();]*)*(?=;?$)", ""),
    (r"\bWHERE [^()\"]*(\([^()]*\)[^()\"]*)*?(?= GROUP BY| ORDER BY|[);\"]|$)", ""),
    (r" (AND|OR) [^();\"]*(?=;?\"*$)", ""),
    (r"context\.is_backfill", "false"),
    (r"context\.is_complete", "true"),
    (r"\bNOT (?=coalesce|context|known|change|today|staged|agent\.|one\.)", ""),
    (r"'-infinity'", "'infinity'"),
    (r"\bDESC\b", "ASC"),
    (r"\bmax\(", "min("),
    (r"(?<!AS )\bis_rejected\b(?! BOOLEAN)", "false AND is_rejected"),
    (r" \* 100\b", " * 10"),
    (r" IS NOT NULL", " IS NULL"),
    (r"\bround\(", "trunc("),
]


@dataclass(frozen=True)
class Mutation:
    """A file, the statement that is changed in it, by its first line, and what the file becomes."""

    file: Path
    statement: str
    old: str
    new: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.name}: {self.statement!r}: {self.old.strip()!r} -> {self.new.strip()!r}"


def mutations(file: Path) -> Iterator[Mutation]:
    """Every line of SQL changed in every way that fits, and every statement of a publish file left out."""
    text = file.read_text()
    lines = text.split("-- migrate:down")[0].split("\n")
    for number, line in enumerate(lines):
        if line.lstrip().startswith(("--", "#", "COMMENT", "'", '"""', "import", "from ")):
            continue
        for pattern, replacement in LINE:
            for found in re.finditer(pattern, line):
                new = line[: found.start()] + replacement + line[found.end() :]
                changed = "\n".join([*lines[:number], new, *lines[number + 1 :]])
                if file.suffix != ".py" or _is_python(changed):
                    statement = _statement(file, lines[: number + 1])
                    yield Mutation(file, statement, line, new, text.replace("\n".join(lines), changed, 1))
    if file.parent.name == "publish":
        for statement in re.findall(r"^(?:[A-Z][^;]*;)$", text, re.MULTILINE):
            first = statement.split("\n")[0]
            yield Mutation(file, first, first, "(left out)", text.replace(statement, "", 1))


def _statement(file: Path, lines: list[str]) -> str:
    """The first line of the statement that the last of these lines is in; lines before that may come and go."""
    if file.suffix == ".py":
        begins = r"(def|class) |\w+( =|:)"
    elif file.parent.name == "pipelines":
        begins = r"(WITH|SELECT)\b|\w+ AS \("
    else:
        begins = r"(INSERT|UPDATE|DELETE|CREATE|ALTER|DO)\b"
    return next(filter(re.compile(begins).match, reversed(lines)), "")


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


class Suite:
    """The steps and the tests: those first that noticed the most mutations of the same file."""

    def __init__(self, server: str, work: Path, steps: Path, *, is_quick: bool) -> None:
        self.server, self.work, self.steps, self.is_quick = server, work, steps, is_quick
        self.telling: dict[str, Counter[str]] = defaultdict(Counter)

    def says(self, mutation: Mutation) -> str:
        """What first notices a mutation; nothing if it survives."""
        home = self.work / threading.current_thread().name
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(ROOT / "src", home / "src")
        (home / mutation.file.relative_to(ROOT)).write_text(mutation.text)
        telling = self.telling[mutation.file.name]
        environment = {
            **os.environ,
            "PYTHONPATH": f"{home / 'src'}:{Path(__file__).parent}",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "examples"),
            "TELLING": json.dumps(telling),
            "ABOUT": re.findall("[a-z]+", mutation.file.stem)[-1].removesuffix("s"),
        }

        def run(*command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )

        if mutation.file.suffix == ".sql":
            first = [step for step, _ in telling.most_common() if step.isdigit()]
            replayed = run(str(REPLAY), str(self.steps), self.server, *first)
            if replayed.returncode:
                said = (replayed.stdout or replayed.stderr).splitlines()[-1]
                telling[said] += said.isdigit()
                return f"step {said}"
            if self.is_quick:
                return ""
            suites = [*(SPEND if any(name in mutation.file.name for name in OF_SPEND) else RULES), *BY_HAND]
        else:
            suites = [*RULES, *SPEND, "tests/promises/test_bad_input.py", *([] if self.is_quick else LONG)]
        options = ["-p", "mutate", "-x", "-rfE", "--tb=no", "-o", f"cache_dir={home / 'cache'}"]
        done = run("-m", "pytest", *options, "--database-url", self.server, *suites)
        if not done.returncode:
            return ""
        found = re.search(r"^(?:FAILED|ERROR) (\S+).*", done.stdout, re.MULTILINE)
        if not found:
            raise RuntimeError(done.stdout + done.stderr)
        telling[found[1]] += 1
        return found[0]


def pytest_configure() -> None:
    """Have a failure of Hypothesis told as it is found: this file is a plugin of the pytest that it runs."""
    settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate])
    settings.load_profile("unshrunk")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests."""
    telling, about = json.loads(os.environ["TELLING"]), os.environ["ABOUT"]
    items.sort(key=lambda item: ("model" in item.nodeid, -telling.get(item.nodeid, 0), about not in item.nodeid))


def main() -> None:
    """Try the mutations, and print those that survive."""
    parser = argparse.ArgumentParser(
        description="Break the SQL in one place at a time, and see that the suite notices."
    )
    parser.add_argument("--only", default="", help="only files whose name holds this; several with commas")
    parser.add_argument("--most", type=int, help="at most this many, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--steps", type=Path, default=ROOT / "bench/out/steps", help="what is replayed; made if missing"
    )
    parser.add_argument("--quick", action="store_true", help="replay, and no tests; of Python, what is fast")
    parser.add_argument("--survivors", type=Path, help="only those that survived, by the output of a former run")
    given = parser.parse_args()
    every = [mutation for file in FILES for mutation in mutations(file)]
    equivalent = {line for line in EQUIVALENT.read_text().splitlines() if line and not line.startswith("#")}
    if gone := equivalent - {str(mutation) for mutation in every}:
        parser.error(f"{EQUIVALENT.name} has entries that are not mutations any more: {min(gone)}")
    every = [one for one in every if any(part in one.file.name for part in given.only.split(","))]
    if given.survivors:
        former = re.findall(r"^\d+/\d+ (.*)\n +SURVIVED", given.survivors.read_text(), re.MULTILINE)
        every = [one for one in every if str(one) in former]
    every = [one for one in every if str(one) not in equivalent]
    random.Random(given.seed).shuffle(every)
    every = every[: given.most]
    survivors = 0
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mutate-") as work, ThreadPoolExecutor(2) as threads:
        Path(work).chmod(0o755)
        server = embedded.start(Path(work) / "server")
        try:
            if not given.steps.exists():
                given.steps.parent.mkdir(parents=True, exist_ok=True)
                subprocess.run([sys.executable, str(REPLAY), "record", given.steps, server], check=True)
            suite = Suite(server, Path(work), given.steps.absolute(), is_quick=given.quick)
            if failure := suite.says(Mutation(FILES[0], "", "", "", FILES[0].read_text())):
                parser.error(f"without a mutation this fails: {failure}")
            said = threads.map(suite.says, every)
            for number, (mutation, failure) in enumerate(zip(every, said, strict=True), start=1):
                survivors += not failure
                print(f"{number}/{len(every)} {mutation}\n    {failure or 'SURVIVED'}", flush=True)
        finally:
            embedded.stop(Path(work) / "server")
    print(f"{len(every)} mutations, {survivors} survived; {len(equivalent)} more are equivalent to the original")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
