"""The lists of columns in the publish SQL are those of the contracts. `make docs` writes them anew.

In the SQL a list stands between two comments:

    -- columns of budgets but budget_id, in currentPeriod: today.{}
    today.limit_amount, today.overspend_buffer
    -- end of columns

These are the fields of the contract of the table's first folder that are columns of the table, in the contract's order:
all of them, or without those after `but`, or only those that the JSON has in (or not in) the object that is named.
"""

import re
import textwrap
from pathlib import Path

import pytest

from deskroll.pipelines import PIPELINES
from deskroll.postgres.publisher import FILES
from deskroll.spec.contract import Field
from tests.commands.test_docs import check
from tests.helpers.databases import Database

SELECTS = FILES.parents[2] / "pipelines"
WIDTH = 116
BLOCK = re.compile(
    r"^(?P<indent> *)-- columns of (?P<table>\w+)(?: but (?P<but>[\w, ]+?))?(?:, (?P<no>not )?in (?P<inside>\w+))?"
    r": (?P<template>[^\n]+)\n(?P<body>.*?)^ *-- end of columns$",
    re.MULTILINE | re.DOTALL,
)


def fields_of(table: str) -> tuple[Field, ...]:
    """The contract of the first folder that feeds a table."""
    (folder, pipeline) = next((p.publication.tables[table][0], p) for p in PIPELINES if table in p.publication.tables)
    return next(s.contract.fields for s in pipeline.inputs if s.folder == folder)


def written(block: re.Match[str], db: Database) -> str:
    """A block with the columns as they are to be."""
    stored = {
        row["attname"]
        for row in db.rows("SELECT attname FROM pg_attribute WHERE attrelid = %s::REGCLASS", block["table"])
    }
    left_out = set(re.split(", ", block["but"] or ""))
    items = [
        block["template"].replace("{}", field.name)
        for field in fields_of(block["table"])
        if field.name in stored - left_out
        and (not block["inside"] or field.paths[0].startswith(f"{block['inside']}.") != bool(block["no"]))
    ]
    if "=" in block["template"]:
        body = ",\n".join(block["indent"] + item for item in items)
    else:
        body = "\n".join(
            textwrap.wrap(", ".join(items), WIDTH, initial_indent=block["indent"], subsequent_indent=block["indent"])
        )
    comma = "," * block["body"].rstrip().endswith(",")
    begin = block[0].partition("\n")[0]
    return f"{begin}\n{body}{comma}\n{block['indent']}-- end of columns"


@pytest.mark.parametrize("path", sorted([*FILES.glob("*.sql"), *SELECTS.glob("*.sql")]), ids=lambda path: path.name)
def test_lists_of_columns_are_those_of_the_contract(path: Path, db: Database, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    assert len(BLOCK.findall(text)) == text.count("-- columns of ") == text.count("-- end of columns")
    check(path, BLOCK.sub(lambda block: written(block, db), text), request)
