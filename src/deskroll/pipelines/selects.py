"""The longer SELECTs, each a file beside the pipeline that uses it."""

from pathlib import Path


def read_select(name: str) -> str:
    """The SELECT in the file of that name, without its last semicolon."""
    return (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8").rstrip().removesuffix(";")
