"""Situations that once broke a promise, each a small tree with a script. `sdlb sim --scenario NAME` runs one.

The letters are those of the table in docs/internals/simulator.md.
"""

from sdlb.sim.scenarios import (
    boundaries,
    by_chance,
    cloned,
    cut_off,
    full_disk,
    joint,
    left,
    liars,
    lost_rack,
    moved,
    openings,
    pairs,
    registered_again,
    restarted,
    restored,
    rollouts,
    roots,
    rules,
    silent,
    zones,
)
from sdlb.sim.stage import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Scenario",
    "boundaries",
    "by_chance",
    "cloned",
    "cut_off",
    "full_disk",
    "joint",
    "left",
    "liars",
    "lost_rack",
    "moved",
    "openings",
    "pairs",
    "registered_again",
    "restarted",
    "restored",
    "rollouts",
    "roots",
    "rules",
    "silent",
    "zones",
]
