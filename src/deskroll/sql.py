"""Texts as SQL has them, for engines that take no parameters in a SELECT that is given a name."""


def sql_text(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
