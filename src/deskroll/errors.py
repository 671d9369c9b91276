"""What can go wrong, by what the reader of the message can do about it.

DeskrollError
├── UsageError          the command names something that is not there: correct the command          exit code 2
├── InputError          the day's files cannot be used as they are: look at the dump                exit code 1
├── DatabaseError       PostgreSQL is out of reach, too old, or will not let us: look at the server exit code 1
├── EngineError         the engine ran out of disk or memory: give it more                          exit code 1
├── BusyError           another run holds the database: wait for it                                 exit code 1
└── RefusedError        a guard held the run back: look, then allow it                              exit code 3
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    INTERRUPTED = 130


class DeskrollError(Exception):
    """A failure that a person can act on: `message` says what happened, and `hint` what to do about it."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DeskrollError):
    """The command names something that is not there."""

    exit_code = ExitCode.USAGE


class InputError(DeskrollError):
    """The day's files cannot be used as they are."""


class DatabaseError(DeskrollError):
    """PostgreSQL is out of reach, too old, full, or refuses."""


class EngineError(DeskrollError):
    """The engine ran out of disk or memory."""


class BusyError(DeskrollError):
    """Another run is at work on the same database."""


class RefusedError(DeskrollError):
    """A guard held the run back; nothing was published."""

    exit_code = ExitCode.REFUSED
