"""What the pages say is what the program does. `make docs` writes the generated parts anew."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deskroll.pipelines import PIPELINES
from deskroll.settings import Settings
from deskroll.spec.contract import PARSE_ERROR, VALIDATION_ERROR, Contract
from tests.helpers.databases import Database
from tests.helpers.factories import Dump, agent
from tests.helpers.runs import DAYS, SAMPLE, Shell, Sync, sync_into

ROOT = Path(__file__).parent.parent.parent
COMMANDS = [
    "sync",
    "stage",
    "publish",
    "sql",
    "status",
    "runs",
    "errors",
    "groups",
    "agent",
    "evidence",
    "export",
    "forget",
    "db url",
    "db shell",
    "db dump",
    "db migrate",
    "db grants",
    "db stop",
]
LEDGER = ("run_changes", "sync_runs", "sync_run_tables", "sync_run_inputs", "sync_run_guards", "sync_run_drift")
NAMES = (
    "README.md",
    "docs/rules.md",
    "docs/input.md",
    "docs/performance.md",
    "docs/spark.md",
    "docs/operations.md",
    "sample_data/README.md",
)


def check(page: str | Path, expected: str, request: pytest.FixtureRequest) -> None:
    path = ROOT / page
    if request.config.getoption("--update-docs"):
        path.write_text(expected)
    assert path.read_text() == expected, f"{page} is not true any more: `make docs` writes it anew"


def test_the_data_dictionary_is_that_of_the_database(db: Database, request: pytest.FixtureRequest) -> None:
    columns = db.rows(
        """SELECT relname, obj_description(class.oid, 'pg_class') AS about, attname,
            format_type(atttypid, atttypmod) AS type, attnotnull, col_description(class.oid, attnum) AS says, relkind
        FROM pg_class AS class
        JOIN pg_attribute ON attrelid = class.oid AND attnum > 0 AND NOT attisdropped
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'deskroll_migrations'
        ORDER BY relname LIKE 'stg_%%' OR relkind = 'v', relname, attnum"""
    )
    page = "# The tables\n\nEvery table and column, as the database describes them (`make docs` writes this page).\n"
    for name in dict.fromkeys(row["relname"] for row in columns):
        mine = [row for row in columns if row["relname"] == name]
        assert mine[0]["about"], f"{name} has no comment"
        page += f"\n## {name}\n\n{mine[0]['about']}\n\n| column | type | |\n|---|---|---|\n"
        for row in mine:
            assert row["says"], f"{name}.{row['attname']} has no comment"
            required = " not null" if row["attnotnull"] else ""
            page += f"| {row['attname']} | {row['type']}{required} | {row['says']} |\n"
    check("docs/tables.md", page, request)


def test_the_quarantine_tables_name_every_error_type(db: Database) -> None:
    columns = db.rows(
        """SELECT conrelid::REGCLASS::TEXT AS quarantine, pg_get_constraintdef(oid) AS allowed,
            col_description(conrelid, conkey[1]) AS says
        FROM pg_constraint WHERE contype = 'c' AND pg_get_constraintdef(oid) LIKE '%%_ERROR%%'"""
    )
    assert {row["quarantine"] for row in columns} >= {p.publication.quarantine_table for p in PIPELINES}
    for row in columns:
        types = set(re.findall(r"'(\w+)'", row["allowed"]))
        assert {PARSE_ERROR, VALIDATION_ERROR} < types
        assert [name for name in types if f"{name}: " not in row["says"]] == [], row["quarantine"]


def test_the_diagram_is_that_of_the_database(db: Database, request: pytest.FixtureRequest) -> None:
    keys = """SELECT attrelid, attname FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid
        AND attnum = ANY (conkey) WHERE contype = '{}'"""
    columns = db.rows(
        f"""SELECT relname, attname, split_part(format_type(atttypid, NULL), ' ', 1) AS type,
            (oid, attname) IN ({keys.format("p")}) AS is_primary, (oid, attname) IN ({keys.format("f")}) AS is_foreign
        FROM pg_class JOIN pg_attribute ON attrelid = oid AND attnum > 0 AND NOT attisdropped
        WHERE relname = ANY (%s) ORDER BY relname, attnum""",
        [*db.final_tables(), *LEDGER],
    )
    links = db.rows(
        """SELECT conrelid::regclass::text AS child, confrelid::regclass::text AS parent, attname
        FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
        WHERE contype = 'f' ORDER BY 1, 2, 3"""
    )
    lines = [f"    {link['parent']} ||--o{{ {link['child']} : {link['attname']}" for link in links]
    for name in dict.fromkeys(row["relname"] for row in columns if row["relname"] != "deskroll_migrations"):
        lines.append(f"    {name} {{")
        for row in (row for row in columns if row["relname"] == name):
            kinds = ", ".join(kind for kind, is_one in (("PK", row["is_primary"]), ("FK", row["is_foreign"])) if is_one)
            lines.append(f"        {row['type']} {row['attname']} {kinds}".rstrip())
        lines.append("    }")
    diagram = "\n".join(lines)
    page = f"""# The tables and how they hang together

Drawn from the database (`make docs` writes this page). A line is a foreign key; what each column means is in
[tables.md](tables.md). Quarantine, staging and views are left out.

```mermaid
erDiagram
{diagram}
```
"""
    check("docs/diagram.md", page, request)


def test_the_commands_are_those_of_the_program(request: pytest.FixtureRequest, shell: Shell) -> None:
    shell.environment |= {"TERMINAL_WIDTH": "110", "COLUMNS": "110", "NO_COLOR": "1"}
    page = "# The commands\n\nWhat `--help` says (`make docs` writes this page).\n"
    for command in ["", *COMMANDS]:
        said = shell.run(*command.split(), "--help").stdout
        text = "\n".join(line.rstrip() for line in said.strip().splitlines())
        page += f"\n## deskroll {command}".rstrip() + f"\n\n```text\n{text}\n```\n"
    check("docs/commands.md", page, request)


def test_the_readme_shows_what_the_demo_prints(shell: Shell, request: pytest.FixtureRequest) -> None:
    text = (ROOT / "README.md").read_text()
    for day, on in DAYS.items():
        done = shell.run("sync", SAMPLE, "--day", day, "--sync-date", on)
        assert done.returncode == 0, done.stderr
        printed = re.sub(
            r"^database .*", "database deskroll on ….deskroll/demo/postgres, port 5432", done.stdout, flags=re.M
        )
        text = with_block(text, f"sync {day}", printed)
    check("README.md", text, request)


def with_block(page: str, command: str, printed: str) -> str:
    """A page with what a command prints in the block that says so, if it has one."""
    before, marker, after = page.partition(f"<!-- printed by: {command} -->\n")
    if not marker:
        return page
    fence, _, rest = after.partition("\n")
    _, _, behind = f"\n{rest}".partition("\n```")
    lines = "\n".join(line.rstrip() for line in printed.splitlines())
    return f"{before}{marker}{fence}\n{lines}\n```{behind}"


def test_the_operations_page_has_the_grants_that_the_command_prints(
    db: Database, shell: Shell, request: pytest.FixtureRequest
) -> None:
    text = (ROOT / "docs/operations.md").read_text()
    for command in ("db grants deskroll_sync", "db grants --read-only deskroll_reader"):
        printed = shell.run(*command.split()).stdout.replace(db.connection.info.dbname, "deskroll")
        text = with_block(text, command, printed)
    check("docs/operations.md", text, request)


def test_the_page_for_auditors_has_the_answers_of_the_sample(db: Database, request: pytest.FixtureRequest) -> None:
    for day, on in DAYS.items():
        sync_into(db.url, str(SAMPLE), day, on)
    page = (ROOT / "docs/audit.md").read_text()
    queries = re.findall(r"```sql\n(.*?)```\n", page, re.DOTALL)
    assert len(queries) == 7
    for query in queries:
        rows = [{name: _cell(value) for name, value in row.items()} for row in db.rows(query.replace("%", "%%"))]
        lines = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else [["(no rows)"]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        answer = "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )
        before, found, after = page.partition(f"{query}```\n")
        after = re.sub(r"\A\n```text\n.*?```\n", "", after, flags=re.DOTALL)
        page = f"{before}{found}\n```text\n{answer}\n```\n{after}"
    check("docs/audit.md", page, request)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, dict):
        return json.dumps(value)
    return ", ".join(value) or "-" if isinstance(value, list) else str(value)


def test_the_readme_queries_answer_what_they_are_said_to(db: Database, dump: Dump, sync: Sync) -> None:
    who_left, *others = re.findall(r"```sql\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lists = {90: [1, 2, 3, 4], 60: [1, 2, 3], 20: [1, 2], 10: [1, 3], 5: [2, 3], 2: [2], 0: [2, 4]}
    for days_ago, people in lists.items():
        dump.write(f"{days_ago}", "agent_details", [agent(n) for n in people])
        sync(f"{days_ago}", str(db.one("SELECT CURRENT_DATE - %s", days_ago)))
    found = db.rows(f"SELECT name, CURRENT_DATE - since AS days_ago FROM ({who_left.rstrip().rstrip(';')}) AS found")
    assert found == [{"name": "Agent 1", "days_ago": 5}, {"name": "Agent 3", "days_ago": 2}]
    for query in others:
        db.rows(query)


def test_the_readme_names_every_setting_and_its_default() -> None:
    text = (ROOT / "README.md").read_text()
    for name, field in Settings.model_fields.items():
        (row,) = re.findall(rf"^\| `DESKROLL_{name.upper()}` .*$", text, re.MULTILINE)
        if isinstance(field.default, str):
            assert f"`{field.default}`" in row


def test_the_readme_commands_exist(shell: Shell) -> None:
    text = "".join((ROOT / name).read_text() for name in NAMES)
    for command in set(re.findall(r"[`/(]deskroll ((?:db )?[a-z]+)(?=[ `\"\n)|])", text)):
        done = shell.run(*command.split(), "--help")
        assert done.returncode == 0, command


def fields_of(contract: Contract, at: str = "") -> Iterator[str]:
    """The rows of a table of fields; `at` is the list whose elements they are."""
    for field in contract.fields:
        paths = ", else ".join(f"`{at}{'.' * bool(at and path)}{path}`" for path in field.paths)
        yield f"| `{field.name}` | {paths} | {field.type.label} | {'yes' if field.required else ''} |"
    for item in contract.lists:
        yield from fields_of(item, f"{item.name}[*]")


def test_the_page_on_input_has_the_fields_of_the_contracts(request: pytest.FixtureRequest) -> None:
    page = (ROOT / "docs" / "input.md").read_text()
    contracts = {input_.folder: input_.contract for pipeline in PIPELINES for input_ in pipeline.inputs}
    shown = re.findall(r"<!-- fields of (\w+) -->", page)
    assert sorted(shown) == sorted(contracts)
    for folder, contract in contracts.items():
        lines = ["| column | from | type | required |", "|---|---|---|---|", *fields_of(contract)]
        if contract.rules:
            lines += ["", "A record is also rejected if one of these is true:", ""]
            lines += [f"- `{rule.message}`" for rule in contract.rules]
        before, marker, rest = page.partition(f"<!-- fields of {folder} -->\n")
        _, end, after = rest.partition("<!-- end of fields -->")
        page = "".join([before, marker, "\n".join(lines), "\n", end, after])
    check("docs/input.md", page, request)


def test_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("sample_data/*.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_rules_page_and_the_tests_name_the_same_rules() -> None:
    page = set(re.findall(r"^\d+\. \*\*(.+?)\.\*\*", (ROOT / "docs" / "rules.md").read_text(), re.MULTILINE))
    tests = {
        name
        for path in ROOT.glob("tests/rules/test_rules*.py")
        for name in re.findall(r'^class Test\w+:\n    """(.+?)\."""', path.read_text(), re.MULTILINE)
    }
    assert page == tests


def test_the_page_on_adding_a_pipeline_adds_one(shell: Shell, dump: Dump, db: Database, tmp_path: Path) -> None:
    """Its commands write the files that it shows, and these work as they are."""
    page = (ROOT / "docs" / "adding-a-pipeline.md").read_text()
    environment = {k: v for k, v in shell.environment.items() if not k.startswith("COV")}
    shutil.copytree(ROOT / "src", tmp_path / "src")
    for _ in re.findall(r"^make pipeline NAME=skills$", page, re.MULTILINE):
        command = [sys.executable, str(ROOT / "tools" / "new_pipeline.py"), "skills", "--root", str(tmp_path)]
        subprocess.run(command, check=True, capture_output=True, env=environment)
    shown = re.findall(r"```\w+\n(?:--|#) file: (\S+)\n(.*?)```", page, re.DOTALL)
    assert len(shown) == 3
    for name, text in shown:
        assert (tmp_path / name).read_text() == text, name
    dump.write("day1", "skills", [{"id": 1, "name": "Printers"}, {"id": "x", "name": "Bad"}])
    environment["PYTHONPATH"] = str(tmp_path / "src")
    day1 = ("--day", "day1", "--sync-date", "2026-01-05")
    plan = shell.run("sync", dump.path, *day1, "--plan", "--max-rejected", "0", "--json", env=environment)
    assert "1 of 2 records were rejected" in json.loads(plan.stdout)["published"]["refusals"][0]["message"]
    assert db.rows("SELECT * FROM skills") == []
    db.rows("DELETE FROM stg_syncs WHERE pipeline = 'skills' RETURNING pipeline")
    by_hand = shell.run("sql", "skills", env=environment).stdout
    done = shell.run("db", "shell", env=environment, input=by_hand)
    assert done.returncode != 0
    assert "Nothing is staged of skills." in done.stderr
    assert shell.run("stage", dump.path, *day1, "--only", "skills", env=environment).returncode == 0
    done = shell.run("db", "shell", env=environment, input=by_hand)
    assert done.returncode == 0, done.stderr
    assert db.rows("DELETE FROM skills RETURNING name") == [{"name": "Printers"}]
    for _ in range(2):
        done = shell.run("sync", dump.path, *day1, env=environment)
        assert done.returncode == 0, done.stderr
    assert db.rows("SELECT * FROM skills") == [{"skill_id": 1, "name": "Printers"}]
    assert db.one("SELECT error_message FROM skill_pipeline_errors").startswith('id: found "x", expected an integer')
    assert "skills: 1\n" in shell.run("status", env=environment).stdout
    assert db.rows("SELECT inserted, unchanged FROM sync_run_tables WHERE pipeline = 'skills' ORDER BY run_id") == [
        {"inserted": 1, "unchanged": 0},
        {"inserted": 0, "unchanged": 1},
    ]
