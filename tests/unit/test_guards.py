"""The guards: from what number on a change is a mass change, an empty folder a fault, and rejected records too many."""

import pytest

from deskroll.errors import UsageError
from deskroll.postgres.guards import Limits, find_empty, find_rejected, is_mass_change
from deskroll.postgres.staging import StagedInput
from deskroll.spec.pipeline import Guard


def folder(name: str, read: int, rejected: int = 0, *, found: bool = True, is_folder: bool = True) -> StagedInput:
    return StagedInput("agents", name, is_folder, found, True, read, 0, rejected)


@pytest.mark.parametrize(
    ("changed", "before", "is_refused"),
    [
        (10, 11, True),
        (11, 50, True),
        (10, 49, False),
        (11, 55, False),
        (21, 100, True),
        (20, 100, False),
        (3, 5, True),
        (3, 6, False),
        (2, 2, False),
        (0, 0, False),
        (1000, 0, False),
    ],
)
def test_a_mass_change(changed: int, before: int, is_refused: bool) -> None:
    assert is_mass_change(changed, before) == is_refused


GUARD = Guard("active agents", "be deactivated", folders=("agent_details", "agents"), roster="agents")


@pytest.mark.parametrize(
    ("stored", "sources", "is_first_load", "messages"),
    [
        (5, [folder("agents", 0)], False, ["agents/ is empty, while 5 active agents are stored"]),
        (5, [folder("agent_details", 0)], False, ["agent_details/ is empty, while 5 active agents are stored"]),
        (5, [folder("agents", 1)], False, []),
        (5, [folder("agents", 0, found=False)], False, []),
        (5, [folder("roles", 0)], False, []),
        (0, [folder("agents", 0)], False, []),
        (0, [folder("agents", 0), folder("agent_details", 3)], False, []),
        (
            0,
            [folder("agents", 0), folder("agent_details", 3)],
            True,
            ["agents/ is empty, while agent_details/ has 3 records"],
        ),
        (0, [folder("agents", 3), folder("agent_details", 0)], True, []),
    ],
)
def test_an_empty_folder(stored: int, sources: list[StagedInput], is_first_load: bool, messages: list[str]) -> None:
    assert list(find_empty(GUARD, stored, sources, is_first_load=is_first_load)) == messages


@pytest.mark.parametrize(
    ("limit", "sources", "refused"),
    [
        (None, [folder("a", 4, 3)], ["3 of 4 records of a/ were rejected; the limit is 50% (--max-rejected)"]),
        (None, [folder("a", 2, 2)], []),
        (None, [folder("a", 6, 3)], []),
        ("50%", [folder("a", 1, 1)], ["1 of 1 records of a/ were rejected; the limit is 50% (--max-rejected)"]),
        ("0.5%", [folder("a", 200, 1)], []),
        ("0.4%", [folder("a", 200, 1)], ["1 of 200 records of a/ were rejected; the limit is 0.4% (--max-rejected)"]),
        ("100%", [folder("a", 9, 9)], []),
        ("3", [folder("a", 9, 2), folder("b", 9, 1)], []),
        (
            "2",
            [folder("a", 9, 2), folder("b", 9, 1)],
            ["3 of 18 records were rejected; the limit is 2 (--max-rejected)"],
        ),
        ("0", [folder("a", 9), folder("a.list", 5, 5, is_folder=False)], []),
        ("2", [folder("a", 9, 2), folder("a", 9, 2)], []),
    ],
)
def test_rejected_records(limit: str | None, sources: list[StagedInput], refused: list[str]) -> None:
    assert list(find_rejected(Limits(max_rejected=limit), sources)) == refused


@pytest.mark.parametrize("limit", ["x", "-1", "5 %", "1.5", "%", "1e3"])
def test_what_is_no_limit(limit: str) -> None:
    with pytest.raises(UsageError, match="--max-rejected"):
        Limits(max_rejected=limit)
