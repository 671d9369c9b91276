"""The map of the project names every room, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "deskroll"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def test_every_room_is_on_the_map() -> None:
    rooms = {path.name for path in SOURCE.glob("*.py") if not path.name.startswith("__")}
    rooms |= {f"{path.parent.name}/" for path in SOURCE.glob("*/__init__.py")}
    table = PAGE.partition("## The rooms")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+\.py|\w+/)`", table)) == rooms


def test_what_the_map_names_is_there() -> None:
    named = re.findall(r"[\w/.-]+\.(?:py|sql)\b", PAGE.replace("*.sql", ""))
    missing = [name for name in named if not any((base / name).exists() for base in (ROOT, SOURCE))]
    assert not missing
