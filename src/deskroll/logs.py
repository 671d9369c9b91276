"""Logging: a run logs each step below the logger `deskroll`, with fields for programs."""

import json
import logging
from datetime import UTC, datetime
from typing import Final, Literal

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]

_FIELDS: Final = "deskroll_fields"


def log_step(logger: logging.Logger, message: str, **fields: object) -> None:
    """Log a step of a run as it begins, or what came of it, with its numbers and names as fields."""
    logger.info(message, extra=fields_as_extra(**fields))


def fields_as_extra(**fields: object) -> dict[str, object]:
    """Fields as the argument `extra` of a logger's methods."""
    return {_FIELDS: fields}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a record."""
    fields: dict[str, object] = getattr(record, _FIELDS, {})
    return fields


class TextFormatter(logging.Formatter):
    """A line: time in UTC, level, message, and the fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as a line."""
        fields = "".join(f" {name}={_shown(value)}" for name, value in fields_of(record).items())
        return f"{_time_of(record)} {record.levelname} {record.getMessage()}{fields}"


class JsonFormatter(logging.Formatter):
    """A JSON object a line: `time`, `level`, `message`, and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as a JSON object."""
        said = {"time": _time_of(record), "level": record.levelname.lower(), "message": record.getMessage()}
        return json.dumps(said | fields_of(record), default=str)


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(value: object) -> str:
    """A value without a space, or in quotes."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c.isspace() or c in '"=' for c in text) else text


class KeptLog(logging.Handler):
    """Keeps the messages of a level or above, to be told in an error of ours."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.said.append(record.getMessage())
