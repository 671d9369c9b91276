"""The pipelines, in the order in which a sync publishes them."""

import difflib
from collections.abc import Iterable

from deskroll.errors import UsageError
from deskroll.pipelines.agent_roles import AGENT_ROLES
from deskroll.pipelines.agents import AGENTS
from deskroll.pipelines.budgets import BUDGETS
from deskroll.pipelines.cards import CARDS
from deskroll.pipelines.groups import GROUPS
from deskroll.pipelines.roles import ROLES
from deskroll.pipelines.transactions import TRANSACTIONS
from deskroll.spec.pipeline import Pipeline

PIPELINES: tuple[Pipeline, ...] = (AGENTS, ROLES, AGENT_ROLES, GROUPS, BUDGETS, CARDS, TRANSACTIONS)

__all__ = ["PIPELINES", "Pipeline", "find_pipelines"]


def find_pipelines(names: Iterable[str]) -> list[Pipeline]:
    """The pipelines of these names, in their order; all of them if no name is given.

    Raises:
        UsageError: a pipeline does not exist; the hint has the nearest name.
    """
    known, wanted = [p.name for p in PIPELINES], list(names)
    for name in wanted:
        if name not in known:
            near = "".join(f"Did you mean {found}? " for found in difflib.get_close_matches(name, known, n=1))
            raise UsageError(f"The pipeline {name!r} does not exist.", f"{near}Pipelines: {', '.join(known)}.")
    return [p for p in PIPELINES if not wanted or p.name in wanted]
