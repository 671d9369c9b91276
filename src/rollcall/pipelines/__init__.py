"""The pipelines, in the order in which a sync publishes them."""

from rollcall.pipelines.agents import AGENTS
from rollcall.pipelines.pipeline import Pipeline

PIPELINES: tuple[Pipeline, ...] = (AGENTS,)

__all__ = ["PIPELINES", "Pipeline"]
