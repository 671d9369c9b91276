"""Who makes a run, on which machine, and with which options: for the ledger, and so without any password."""

import os
import platform
from collections.abc import Mapping
from getpass import getuser
from importlib.metadata import version
from typing import Any

from deskroll.postgres.guards import Limits
from deskroll.postgres.ledger import Provenance


def describe(command: str, options: Mapping[str, Any], limits: Limits) -> Provenance:
    """Who makes the run at hand, with what; an option that is empty or false has its default."""
    allowed = {"allow_mass_change": limits.allow_mass_change, "max_rejected": limits.max_rejected}
    given = {name: value for name, value in {**options, **allowed}.items() if value}
    reason = _storable(limits.reason) if limits.reason else None
    return Provenance(
        version("deskroll"), _storable(_os_user()), _storable(platform.node()), {"command": command} | given, reason
    )


def without_credentials(data: str) -> str:
    """The place of a dump, without the user, password and query that a URL may have."""
    scheme, is_url, rest = data.partition("://")
    if not is_url:
        return _storable(data)
    place = rest.rpartition("@")[2]
    return _storable(scheme + is_url + place.partition("?")[0].partition("#")[0])


def _os_user() -> str:
    """The user of the operating system; the number of one who has no name."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # Windows; a container
        pass
    try:
        return getuser()
    except (ImportError, KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _storable(text: str) -> str:
    """Text that PostgreSQL can hold: an argument or a path may not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
