"""The pipelines, in the order in which a sync publishes them."""

from deskroll.pipelines.agent_roles import AGENT_ROLES
from deskroll.pipelines.agents import AGENTS
from deskroll.pipelines.budgets import BUDGETS
from deskroll.pipelines.cards import CARDS
from deskroll.pipelines.groups import GROUPS
from deskroll.pipelines.roles import ROLES
from deskroll.pipelines.transactions import TRANSACTIONS
from deskroll.spec.pipeline import Pipeline

PIPELINES: tuple[Pipeline, ...] = (AGENTS, ROLES, AGENT_ROLES, GROUPS, BUDGETS, CARDS, TRANSACTIONS)

__all__ = ["PIPELINES", "Pipeline"]
