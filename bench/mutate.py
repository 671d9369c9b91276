"""The tests are tested: break the SQL in one place at a time, and see that the suite goes red.

    python bench/mutate.py                        every mutation; hours
    python bench/mutate.py --only 040 --seed 1 --most 30

What survives is printed, and is either a gap in the tests or a change without a meaning. Every mutation runs in a copy
of `src`, on a server of its own.
"""

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = [
    *sorted((ROOT / "src/rollcall/postgres/publish").glob("*.sql")),
    *sorted((ROOT / "src/rollcall/postgres/migrations").glob("*.sql")),
    *sorted((ROOT / "src/rollcall/pipelines").glob("*.py")),
    ROOT / "src/rollcall/postgres/guard.py",
]
# The quick and telling ones first: what they do not notice, the models may.
HELP_DESK = ["tests/test_rules.py", "tests/test_publish.py", "tests/test_model.py"]
SPEND = ["tests/test_rules_spend.py", "tests/test_publish.py", "tests/test_model_spend.py"]
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
    (r"^\s*(AND|OR) [^()]*(\([^()]*\)[^()]*)*$", ""),
    (r"context\.is_backfill", "false"),
    (r"context\.is_complete", "true"),
    (r"\bNOT (?=coalesce|context|known|change|today|staged|agent\.|one\.)", ""),
    (r"'-infinity'", "'infinity'"),
    (r"\bDESC\b", "ASC"),
    (r"\bmax\(", "min("),
    (r"\bis_rejected\b(?! BOOLEAN)", "false AND is_rejected"),
    (r" \* 100\b", " * 10"),
    (r" IS NOT NULL", " IS NULL"),
    (r"\bround\(", "trunc("),
]


@dataclass(frozen=True)
class Mutation:
    """A file, and what it becomes."""

    file: Path
    line: int
    old: str
    new: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}: {self.old.strip()[:90]!r} -> {self.new.strip()[:90]!r}"


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
                changed = [*lines[:number], new, *lines[number + 1 :]]
                yield Mutation(file, number + 1, line, new, text.replace("\n".join(lines), "\n".join(changed), 1))
    if file.parent.name == "publish":
        for statement in re.findall(r"^(?:[A-Z][^;]*;)$", text, re.MULTILINE):
            number = text[: text.index(statement)].count("\n") + 1
            yield Mutation(file, number, statement.split("\n")[0], "(left out)", text.replace(statement, "", 1))


def survives(mutation: Mutation, work: Path) -> bool:
    """Whether the suite stays green."""
    shutil.rmtree(work / "src", ignore_errors=True)
    shutil.copytree(ROOT / "src", work / "src")
    (work / mutation.file.relative_to(ROOT)).write_text(mutation.text)
    environment = {
        **os.environ,
        "PYTHONPATH": str(work / "src"),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(work / "examples"),
    }
    for suite in SPEND if any(name in mutation.file.name for name in OF_SPEND) else HELP_DESK:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "2", "-o", f"cache_dir={work / 'cache'}", suite]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=600)
        except subprocess.TimeoutExpired:
            return False
        if done.returncode:
            return False
    return True


def main() -> None:
    """Try the mutations, and print those that survive."""
    parser = argparse.ArgumentParser(
        description="Break the SQL in one place at a time, and see that the suite notices."
    )
    parser.add_argument("--only", default="", help="only files whose name holds this; several with commas")
    parser.add_argument("--most", type=int, help="at most this many, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wanted = [file for file in FILES if any(part in file.name for part in given.only.split(","))]
    every = [mutation for file in wanted for mutation in mutations(file)]
    random.Random(given.seed).shuffle(every)
    survivors = 0
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mutate-") as work:
        Path(work).chmod(0o755)
        for number, mutation in enumerate(every[: given.most], start=1):
            is_alive = survives(mutation, Path(work))
            survivors += is_alive
            print(f"{number}/{len(every[: given.most])} {'SURVIVED' if is_alive else 'noticed'} {mutation}", flush=True)
    print(f"{len(every[: given.most])} mutations, {survivors} survived")


if __name__ == "__main__":
    main()
