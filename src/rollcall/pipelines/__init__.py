"""The pipelines, in the order in which a sync publishes them."""

from rollcall.pipelines.agent_roles import AGENT_ROLES
from rollcall.pipelines.agents import AGENTS
from rollcall.pipelines.budgets import BUDGETS
from rollcall.pipelines.cards import CARDS
from rollcall.pipelines.groups import GROUPS
from rollcall.pipelines.pipeline import Pipeline
from rollcall.pipelines.roles import ROLES
from rollcall.pipelines.transactions import TRANSACTIONS

PIPELINES: tuple[Pipeline, ...] = (AGENTS, ROLES, AGENT_ROLES, GROUPS, BUDGETS, CARDS, TRANSACTIONS)

__all__ = ["PIPELINES", "Pipeline"]
