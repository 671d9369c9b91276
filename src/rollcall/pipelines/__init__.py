"""The pipelines, in the order in which a sync publishes them."""

from rollcall.pipelines.agent_roles import AGENT_ROLES
from rollcall.pipelines.agents import AGENTS
from rollcall.pipelines.groups import GROUPS
from rollcall.pipelines.pipeline import Pipeline
from rollcall.pipelines.roles import ROLES

PIPELINES: tuple[Pipeline, ...] = (AGENTS, ROLES, AGENT_ROLES, GROUPS)

__all__ = ["PIPELINES", "Pipeline"]
