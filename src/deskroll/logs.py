"""What libraries log and do not raise."""

import logging


class KeptLog(logging.Handler):
    """Keeps the messages of a level or above, to be told in an error of ours."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.said.append(record.getMessage())
