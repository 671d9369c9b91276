"""The engines: what runs the transformations. Each speaks the protocol in `base` and knows no pipeline."""

from deskroll.engines.base import Engine, Reading, Rows, Sink, open_engine

__all__ = ["Engine", "Reading", "Rows", "Sink", "open_engine"]
