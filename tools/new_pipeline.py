"""Write the first version of a pipeline's files: `make pipeline NAME=skills`.

The first call writes `pipelines/skills.py` with a contract of an id and a name, for you to complete. The second call
reads that contract and writes the migration, the publish SQL and the registration. No file that is there is changed,
except for `pipelines/__init__.py`.
"""

import argparse
import importlib
import re
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
TEMPLATES: Final = Path(__file__).parent / "templates"


def main() -> None:
    """Write what is missing of a pipeline."""
    parser = argparse.ArgumentParser(description="Write the first version of a pipeline's files.")
    parser.add_argument("name", help="The pipeline, and its folder and table: a plural in snake_case, such as skills.")
    parser.add_argument("--root", type=Path, default=ROOT, help="The checkout to write into.")
    arguments = parser.parse_args()
    name = arguments.name
    if not re.fullmatch(r"[a-z][a-z_]*s", name):
        sys.exit(f"{name!r} is not a plural in snake_case, such as skills.")
    package = arguments.root / "src" / "deskroll"
    pipeline = package / "pipelines" / f"{name}.py"
    if not pipeline.exists():
        number = f"{_next_number(package / 'postgres' / 'sql' / 'publish', 10):03}"
        _write(pipeline, "pipeline.py", name=name, entity=name.removesuffix("s"), constant=name.upper(), number=number)
        print(f"Complete its contract, and run `make pipeline NAME={name}` again.")
        return
    sys.path.insert(0, str(arguments.root / "src"))
    _write_rest(package, getattr(importlib.import_module(f"deskroll.pipelines.{name}"), name.upper()))
    print("Run `make docs`, and write comments that say what the columns are.")


def _write_rest(package: Path, made: object) -> None:
    """Write what follows from a contract."""
    from deskroll.spec.pipeline import Pipeline

    assert isinstance(made, Pipeline)
    contract, name = made.inputs[0].contract, made.name
    types = {f.name: _type(f.type.sql, is_exact=f.type.is_exact) for f in contract.fields if not f.type.is_kind}
    required = {f.name for f in contract.fields if f.required}
    key, others = contract.key, [column for column in types if column != contract.key]
    columns = [f"    {key} {types[key]} PRIMARY KEY"]
    columns += [f"    {column} {types[column]}{' NOT NULL' if column in required else ''}" for column in others]
    words = {
        "name": name,
        "entity": name.removesuffix("s"),
        "key": key,
        "key_type": types[key],
        "columns": ",\n".join(columns),
        "comments": "\n".join(f"COMMENT ON COLUMN {name}.{column} IS '{_words(column)}.';" for column in types),
        "retype": ""
        if types[key] == "BIGINT"
        else f"\nALTER TABLE {name.removesuffix('s')}_pipeline_errors ALTER COLUMN {key} TYPE TEXT;",
        "names": ", ".join(others),
        "today": ", ".join(f"today.{column}" for column in others),
        "stored": ", ".join(f"stored.{column}" for column in others),
        "assigned": ",\n    ".join(f"{column} = today.{column}" for column in others),
    }
    sql = package / "postgres" / "sql"
    number = _next_number(sql / "migrations", 1)
    _write(sql / "migrations" / f"{number:04}_{name}.sql", "migration.sql", **words)
    _write(sql / "publish" / made.publication.file, "publish.sql", **words)
    _register(package / "pipelines" / "__init__.py", name)


def _type(sql: str, *, is_exact: bool) -> str:
    """The type in PostgreSQL of a column that the engine has as text, or under another name."""
    return "NUMERIC" if is_exact else {"VARCHAR": "TEXT"}.get(sql, sql)


def _words(column: str) -> str:
    return column.replace("_", " ").capitalize()


def _next_number(folder: Path, step: int) -> int:
    """The number of the next file in a folder of numbered ones."""
    last = max(int(path.name.partition("_")[0]) for path in folder.glob("[0-9]*.sql"))
    return (last // step + 1) * step


def _register(path: Path, name: str) -> None:
    """Add a pipeline at the end of the order in which a sync publishes."""
    text = path.read_text()
    imported = f"from deskroll.pipelines.{name} import {name.upper()}\n"
    if imported in text:
        return
    imports = sorted([*re.findall(r"^from deskroll\.pipelines\.\w+ import \w+\n", text, re.MULTILINE), imported])
    text = re.sub(
        r"(^from deskroll\.pipelines\.\w+ import \w+\n)+", "".join(imports), text, count=1, flags=re.MULTILINE
    )
    path.write_text(re.sub(r"^(PIPELINES: .*)\)$", rf"\1, {name.upper()})", text, flags=re.MULTILINE))
    print(f"registered in {path}")


def _write(path: Path, template: str, **words: str) -> None:
    """Write a file from its template."""
    if path.exists():
        sys.exit(f"{path} is there already.")
    path.write_text((TEMPLATES / f"{template}.txt").read_text().format(**words))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
