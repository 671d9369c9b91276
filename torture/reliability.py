"""Write docs/reliability.md: the promises, the tests that try to break them, and the counts of the last `make torture`.

python torture/reliability.py bench/out/torture
"""

import argparse
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEAD = """# Reliability

What the promises in the [README](../README.md#promises) have been put through. `make torture` does what is counted
here again and writes this page; `make test` does a seeded selection. A count is of cases in which the promise held: one
in which it does not fails the run.

| what was done | times |
|---|---:|
"""


def counts(folder: Path) -> Counter[str]:
    """The counts of all test processes, and the fuzzer's."""
    total: Counter[str] = Counter()
    for path in folder.glob("*.counts"):
        total.update(path.read_text().splitlines())
    log = folder / "fuzz.log"
    if log.exists():
        (runs,) = re.findall(r"number_of_executed_units: (\d+)", log.read_text(errors="replace"))
        total["byte strings tried by the coverage-guided fuzzer"] = int(runs)
    return total


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Write docs/reliability.md.")
    parser.add_argument("folder", type=Path)
    found = counts(parser.parse_args().folder)
    rows = "".join(f"| {what} | {times:,} |\n" for what, times in sorted(found.items()))
    kills = sum(
        times
        for what, times in found.items()
        if re.match("killed|interrupted|connection ended|server crashed|.* full[:,]", what) and "nearly" not in what
    )
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    said = f"\nIn all {kills:,} runs came to harm on {when}, each followed by a sync that put things right.\n"
    tail = (Path(__file__).parent / "reliability.md").read_text()
    (ROOT / "docs" / "reliability.md").write_text(HEAD + rows + said + tail)


if __name__ == "__main__":
    main()
