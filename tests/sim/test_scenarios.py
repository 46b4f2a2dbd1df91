"""Situations that once broke a promise, one test each: `sdlb sim --scenario NAME` runs the same."""

from __future__ import annotations

import pytest

from sdlb.sim.run import Plan, simulate
from sdlb.sim.scenarios import SCENARIOS

SITUATIONS = "ABCDEFGHIJKLMNOPQ"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.promise(*each.promises), id=name) for name, each in SCENARIOS.items()]
)
def test_scenario(name: str) -> None:
    result = simulate(Plan(scenario=name))
    assert result.broken == "", result.trace[-30:]


def test_every_situation_has_a_scenario() -> None:
    assert sorted({each.situation for each in SCENARIOS.values()}) == list(SITUATIONS)


@pytest.mark.parametrize("name", ["moved-host-newer-generation", "full-disk-during-a-rollout", "cloned-host"])
def test_the_seed_of_a_scenario_changes_its_delays_only(name: str) -> None:
    """A script that holds only with particular delays would prove nothing."""
    results = [simulate(Plan(scenario=name, seed=seed)) for seed in range(2, 7)]
    assert [result.broken for result in results if not result.ok] == []
    assert len({result.digest for result in results}) == 5
