"""How much of the long tests to do."""

import uuid
from pathlib import Path


class Torture:
    """How much of the long tests to do, and how often what came to pass."""

    def __init__(self, folder: Path | None) -> None:
        self.is_full = folder is not None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            self.log = folder / f"{uuid.uuid4().hex}.counts"

    def count(self, what: str) -> None:
        """Note that it came to pass once more; at once, so that a run that is stopped counts as far as it came."""
        if self.is_full:
            with self.log.open("a") as log:
                log.write(f"{what}\n")
