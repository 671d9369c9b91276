"""Everything that is printed goes through here: no text of others is markup, an emoji or an order to the terminal."""

import codecs
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from deskroll.logs import fields_of

_WIDE: Final = 1000  # columns of output that goes into a file or a pipe: nothing is to be folded there


def _console(*, stderr: bool) -> Console:
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=None if is_terminal else _WIDE)


_out: Final = _console(stderr=False)
_err: Final = _console(stderr=True)

# What turns the direction of writing, or ends a line.
_TURNING: Final = (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS: Final = (0x7F, *range(0x80, 0xA0))
_IN_JSON: Final = {n: f"\\u{n:04x}" for n in (*_CONTROLS, *_TURNING)}
# What a terminal obeys instead of showing it.
_OBEYED: Final = (
    {n: f"\\x{n:02x}" for n in (*range(0x20), *_CONTROLS)}
    | {n: f"\\u{n:04x}" for n in _TURNING}
    | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
)

Part = str | tuple[str, str]
"""A text, or a text and the style of it."""


def visible(text: str) -> str:
    """Text as it may be shown, on one line: a terminal obeys nothing in it."""
    return text.translate(_OBEYED)


def say(*parts: Part, soft_wrap: bool = False) -> None:
    """A line on stdout."""
    _out.print(_styled(parts), soft_wrap=soft_wrap)


def say_error(*parts: Part) -> None:
    """A line on stderr."""
    _err.print(_styled(parts), soft_wrap=True)


def say_lines(text: str) -> None:
    """Lines of data on stdout, none of them folded."""
    for line in text.removesuffix("\n").split("\n"):
        say(line, soft_wrap=True)


def _styled(parts: Iterable[Part]) -> Text:
    line = Text()
    for part in parts:
        text, style = (part, "") if isinstance(part, str) else part
        line.append(visible(text), style or None)
    return line


class Narration(logging.Handler):
    """Says what is logged: on a terminal the step at hand, which the next one takes the place of, and each warning."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: Status | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Say a message."""
        if record.levelno >= logging.WARNING:
            say_error(record.getMessage())
        elif self._shown:
            self._shown.update(Text(visible(" ".join([record.getMessage(), *map(str, fields_of(record).values())]))))

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show the step at hand."""
        with _err.status(Text("starting")) as self._shown:
            try:
                yield
            finally:
                self._shown = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the step at hand from the terminal, so that lines can be printed there."""
        shown = self._shown
        if shown is None:
            yield
            return
        shown.stop()
        try:
            yield
        finally:
            shown.start()


class LogLines(logging.StreamHandler[TextIO]):
    """Writes a line of log to stderr, without anything that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as its formatter does."""
        return visible(super().format(record))


def is_terminal() -> bool:
    """Whether somebody looks at stderr."""
    return _err.is_terminal


class Columns:
    """A table whose last `numbers` columns, by default all but the first, are numbers."""

    def __init__(self, first: str, *rest: str, numbers: int | None = None) -> None:
        self._table = Table(box=None, pad_edge=False, header_style="bold")
        self._table.add_column(first, no_wrap=True)
        begin = 0 if numbers is None else len(rest) - numbers
        for position, name in enumerate(rest):
            is_number = position >= begin
            self._table.add_column(name, justify="right" if is_number else "left", no_wrap=name != "message")

    def add(self, *cells: str) -> None:
        """Add a row."""
        self._table.add_row(*(Text(visible(cell)) for cell in cells))

    def say(self) -> None:
        """Print it on stdout."""
        _out.print(self._table)


def say_json(value: Any) -> None:
    """One JSON document on stdout, as RFC 8259 has it, in whatever encoding stdout has."""
    document = json.dumps(value, indent=2, ensure_ascii=False, default=str, allow_nan=False)
    sys.stdout.write(as_json(document, sys.stdout.encoding or "utf-8") + "\n")


def say_json_line(value: Any) -> None:
    """One JSON document on one line of stdout, which a reader sees at once."""
    document = json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    sys.stdout.write(as_json(document, sys.stdout.encoding or "utf-8") + "\n")
    sys.stdout.flush()


def as_json(document: str, encoding: str) -> str:
    """The same JSON document, with escapes for what an encoding lacks or a terminal obeys."""
    return document.translate(_IN_JSON).encode(encoding, _ESCAPED).decode(encoding)


def _escape_units(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2)), error.end


_ESCAPED: Final = "deskroll-json"
codecs.register_error(_ESCAPED, _escape_units)
