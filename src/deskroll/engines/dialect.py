"""DuckDB's dialect, in which all SELECTs are written, as Spark takes it."""

import sqlglot
from sqlglot.errors import ErrorLevel


def to_spark(select: str, *, pretty: bool = False) -> str:
    """A SELECT in DuckDB's dialect as Spark takes it.

    Raises:
        sqlglot.errors.UnsupportedError: it uses what Spark does not have.
    """
    (text,) = sqlglot.transpile(select, read="duckdb", write="spark", unsupported_level=ErrorLevel.RAISE, pretty=pretty)
    return text
