"""Sentences that make readers stumble: "where" for a condition, "is no", and long lines of Markdown."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
STUMBLES = re.compile(r"\bwhere (?:it|there|no|a|one|they)\b|\bis no [a-z]+", re.IGNORECASE)
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("sample_data/*.md"), *ROOT.glob("torture/*.md")]
)
CODE = sorted((ROOT / "src").rglob("*.py"))
SQL = sorted((ROOT / "src").rglob("*.sql"))
LONGEST = 200


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def texts(path: Path) -> Iterator[str]:
    """Messages, help and docstrings of a module; SQL in capitals may say WHERE."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield " ".join(node.value.split())


def prose(page: str) -> Iterator[str]:
    """The lines of a page outside blocks of code."""
    is_code = False
    for line in page.splitlines():
        is_code ^= line.lstrip().startswith("```")
        if not is_code:
            yield line


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_pages_read_at_once(path: Path) -> None:
    text = " ".join(prose(path.read_text()))
    assert STUMBLES.findall(text) == []
    long = [line for line in prose(path.read_text()) if len(line) > LONGEST and not line.lstrip().startswith("|")]
    assert long == []


@pytest.mark.parametrize("path", CODE, ids=name)
def test_messages_and_help_read_at_once(path: Path) -> None:
    found = [text for text in texts(path) for match in STUMBLES.finditer(text) if not match[0].startswith("WHERE")]
    assert found == []


@pytest.mark.parametrize("path", SQL, ids=name)
def test_comments_in_sql_read_at_once(path: Path) -> None:
    sql = path.read_text()
    comments = [
        " ".join(re.findall(r"-- ?(.*)", sql)),
        *re.findall(r"^COMMENT ON [^']* IS\s+'(.*?)';$", sql, re.MULTILINE | re.DOTALL),
    ]
    assert [text for text in comments if STUMBLES.search(text)] == []
