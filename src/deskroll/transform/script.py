"""The steps of a pipeline as a script: DuckDB runs it as it is, and a person can read what Spark gets."""

from collections.abc import Iterator
from datetime import date

from deskroll.engines.dialect import to_spark
from deskroll.spec.pipeline import Input, Pipeline, Snapshot
from deskroll.transform.compile import Step, compile_pipeline

_FOUND = {
    "look up": "(text VARCHAR, on_date DATE, value VARCHAR)",
    "identify": "(found_file VARCHAR, found_index BIGINT, found_id BIGINT)",
}


def write_script(pipeline: Pipeline, on: date, engine: str) -> str:
    """The transformation of a pipeline, in a sync of a date, in the dialect of an engine: duckdb or spark.

    With Spark, what reads and checks runs in DuckDB in each task, and is a comment.
    """
    write = _to_spark if engine == "spark" else _to_duckdb
    steps = map(write, compile_pipeline(pipeline, on))
    return "\n\n".join([_head(pipeline, engine), *_given(pipeline, on), *steps])


def _head(pipeline: Pipeline, engine: str) -> str:
    folders = ", ".join(f"{i.folder}/" for i in pipeline.inputs)
    where = (
        f"-- Run it in the folder of a day, which holds {folders}: duckdb < script.sql"
        if engine == "duckdb"
        else "-- Spark runs the views. Each task runs what is a comment in a DuckDB of its own."
    )
    return f"-- The transformation of {pipeline.name}, as `deskroll sync` runs it.\n{where}"


def _given(pipeline: Pipeline, on: date) -> Iterator[str]:
    """What a run gives the SELECTs beside the records."""
    rows = ", ".join(f"('{i.folder}', true, true)" for i in pipeline.inputs)
    yield f"""-- The day.
CREATE OR REPLACE TEMP VIEW sync AS SELECT '{on}' AS sync_day, 'api' AS source, DATE '{on}' AS sync_date;

-- Whether the day has each folder, and whether all of it could be read.
CREATE OR REPLACE TEMP VIEW folders AS
SELECT * FROM (VALUES {rows}) AS folders (name, found, complete);"""
    for relation in pipeline.snapshots:
        yield _snapshot(relation)


def _snapshot(relation: Snapshot) -> str:
    """Rows of PostgreSQL's, of which the script has none."""
    columns = ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, (kind, _) in relation.columns.items())
    stored = ", ".join(f"{select} AS {name}" for name, (_, select) in relation.columns.items())
    return f"""-- From PostgreSQL: SELECT {stored} FROM {relation.table} WHERE {relation.where}
CREATE OR REPLACE TEMP VIEW {relation.name} AS SELECT {columns} WHERE false;"""


def _to_duckdb(step: Step) -> str:
    if step.how == "read" and step.input:
        return f"{_records(step.input)}\n\n{_over(step, f'{step.input.folder}_records')}"
    if step.how == "map":
        return _over(step, step.over)
    if step.how == "count":
        return f"-- {step.name}: {', '.join(step.columns)}\n{step.sql};"
    if step.how in _FOUND:
        return f"-- {step.name}: what deskroll finds for\n{_comment(step.sql)}\n{_nothing(step)}"
    return f"CREATE OR REPLACE TEMP {'TABLE' if step.materialize else 'VIEW'} {step.name} AS\n{step.sql};"


def _records(input_: Input) -> str:
    """The records of a folder's files of JSON: arrays, envelopes with an array, or one record."""
    return f"""-- Every record of {input_.folder}/*.json; files of lines or of other shapes need a SELECT of your own.
CREATE OR REPLACE TEMP VIEW {input_.folder}_records AS
SELECT source_file, index - 1 AS record_index, CAST(list[index] AS VARCHAR) AS record,
    CAST(NULL AS VARCHAR) AS raw, CAST(NULL AS VARCHAR) AS fault
FROM (
    SELECT source_file, list, unnest(range(1, len(list) + 1)) AS index
    FROM (
        SELECT source_file, from_json(
            CASE json_type(content)
                WHEN 'ARRAY' THEN content
                ELSE coalesce(
                    json_extract(content, '$.{input_.resource}'),
                    json_extract(content, '$.results'),
                    '[' || content || ']'
                )
            END,
            '["JSON"]'
        ) AS list
        FROM (
            SELECT '{input_.folder}/' || parse_filename(filename) AS source_file, ltrim(content, chr(65279)) AS content
            FROM read_text('{input_.folder}/*.json')
        )
        WHERE json_valid(content)
    )
);"""


def _over(step: Step, relation: str) -> str:
    return f"""CREATE OR REPLACE TEMP TABLE {step.name} AS
WITH records AS NOT MATERIALIZED (SELECT * FROM {relation})
SELECT * FROM (
{step.sql}
);"""


def _nothing(step: Step) -> str:
    return f"CREATE OR REPLACE TEMP TABLE {step.name} {_FOUND[step.how]};"


def _to_spark(step: Step) -> str:
    if step.how == "read":
        return f"-- {step.name}, of the records that the task reads:\n{_comment(step.sql)}"
    if step.how == "map":
        return f"-- {step.name}, of the rows of {step.over}:\n{_comment(step.sql)}"
    if step.how == "count":
        return f"-- {step.name}: {', '.join(step.columns)}\n{to_spark(step.sql, pretty=True)};"
    if step.how in _FOUND:
        return (
            f"-- {step.name} {_FOUND[step.how]}: what deskroll finds for\n{_comment(to_spark(step.sql, pretty=True))}"
        )
    kept = "  -- and its rows are kept, if there are any" if step.materialize else ""
    return f"CREATE OR REPLACE TEMP VIEW {step.name} AS{kept}\n{to_spark(step.sql, pretty=True)};"


def _comment(sql: str) -> str:
    return "\n".join(f"--   {line}" for line in sql.splitlines())
