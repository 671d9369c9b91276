"""The tool that tests the tests still finds what it was told: its list of equivalent mutants has no old entries."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parent.parent.parent / "torture" / "mutate.py"


@pytest.fixture(scope="module")
def mutate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutate", TOOL)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_equivalent_mutant_is_a_mutation(mutate: ModuleType) -> None:
    every = {str(mutation) for file in mutate.FILES for mutation in mutate.mutations(file)}
    lines = mutate.EQUIVALENT.read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} <= every


def test_every_suite_that_it_runs_is_there(mutate: ModuleType) -> None:
    named = [*mutate.RULES, *mutate.BY_HAND, *mutate.SPEND, *mutate.LONG]
    assert [name for name in named if not (TOOL.parent.parent / name).exists()] == []
