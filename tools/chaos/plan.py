"""What a run does, from a seed: an endless list of steps. Pure.

Each round has every kind of fault once, in random order. Each kind cycles through its tiers. So a short run has all
kinds, and a long one has all kinds at all tiers. If a kind allows a rollout during the fault, about every second of its
steps has one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

EDGES = ("edge-1", "edge-2")
RACKS = ("rack-1", "rack-2")
HOSTS = ("host-1", "host-2", "host-3", "host-4")
TIERS: dict[str, tuple[str, ...]] = {"edge": EDGES, "rack": RACKS, "host": HOSTS}
LINKS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {"edge-rack": (EDGES, RACKS), "rack-host": (RACKS, HOSTS)}
"""Parents and children; every child has every parent."""
ANY_TIER = ("edge", "rack", "host")
ANY_LINK = ("edge-rack", "rack-host")
DURATIONS_S = (3.0, 3.0, 5.0, 12.0)
"""The last one is longer than lease and fence of the tree."""


class Goal(StrEnum):
    """Which requests a step may lose."""

    NOTHING = "nothing"
    IN_FLIGHT = "in flight"
    """A process exits: requests that are in flight at that moment and must not be retried."""
    SILENCE = "silence"
    """The peer vanishes silently: the same, until it is detected after 2 s."""
    ENTRY = "own connections"
    """An edge exits: requests of its own clients on open connections."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of step. `tiers`: of nodes, or of links; "": it concerns a service."""

    name: str
    tiers: tuple[str, ...] = ("",)
    goal: Goal = Goal.NOTHING
    lasts: bool = False
    """The fault lasts for some time; otherwise it is instantaneous."""
    rollout: bool = False
    """An incompatible rollout may go on meanwhile."""
    planned: bool = False
    frames: bool = False
    """wire.py makes the fault and counts its frames."""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("roll", planned=True),
        Kind("rollout", planned=True),
        Kind("policy", planned=True),
        Kind("drain", ("host",), planned=True),
        Kind("restart", ANY_TIER, planned=True),
        Kind("upgrade", ANY_TIER, planned=True),
        Kind("stop", ANY_TIER, planned=True),
        Kind("stop-node", ("host",), planned=True),
        Kind("kill-control", ANY_TIER, rollout=True),
        Kind("kill-engine", ANY_TIER, Goal.IN_FLIGHT, rollout=True),
        Kind("kill-node", ANY_TIER, Goal.IN_FLIGHT),
        Kind("kill-machine", ("host",), Goal.IN_FLIGHT, lasts=True),
        Kind("power-off", ("rack", "host"), Goal.SILENCE, lasts=True),
        Kind("pause-control", ANY_TIER, lasts=True, rollout=True),
        Kind("pause-engine", ("rack", "host"), Goal.SILENCE, lasts=True),
        Kind("unplug", ("rack", "host"), Goal.SILENCE, lasts=True),
        Kind("cut", ANY_LINK, Goal.SILENCE, lasts=True, rollout=True, frames=True),
        Kind("one-way", ANY_LINK, Goal.SILENCE, lasts=True, rollout=True, frames=True),
        Kind("loss", ANY_LINK, lasts=True, rollout=True, frames=True),
        Kind("delay", ANY_LINK, lasts=True, rollout=True, frames=True),
        Kind("old-state", ANY_TIER, rollout=True),
        Kind("blank-state", ANY_TIER, rollout=True),
    )
}


@dataclass(frozen=True, slots=True)
class Step:
    """`targets`: one node, or of a link the parent and the child. `rollout`: an incompatible one goes on meanwhile."""

    number: int
    kind: str
    tier: str
    targets: tuple[str, ...]
    duration_s: float
    rollout: bool
    up: bool
    """For a fault in one direction: frames from the child are lost, not those from the parent."""

    @property
    def goal(self) -> Goal:
        """A killed edge loses its clients' connections; any other killed process loses its requests in flight."""
        goal = KINDS[self.kind].goal
        return Goal.ENTRY if goal is Goal.IN_FLIGHT and self.tier == "edge" else goal

    @property
    def host(self) -> str:
        """The only host that the step affects; "": there is none."""
        return self.targets[-1] if self.targets and self.targets[-1] in HOSTS else ""

    @property
    def name(self) -> str:
        """The name of its row in the table."""
        words = [self.kind, self.tier] if self.tier else [self.kind]
        return " ".join([*words, "+ rollout"] if self.rollout else words)

    def __str__(self) -> str:
        parts = [self.kind, *self.targets]
        if self.kind == "one-way":
            parts.append("upward" if self.up else "downward")
        if self.duration_s:
            parts.append(f"for {self.duration_s:g} s")
        return " ".join([*parts, "+ rollout"] if self.rollout else parts)


def steps(seed: int, kinds: Sequence[str] = tuple(KINDS)) -> Iterator[Step]:
    """An endless list of steps; the caller stops when its time is over."""
    rng = random.Random(seed)
    tiers = {name: rng.sample(KINDS[name].tiers, len(KINDS[name].tiers)) for name in kinds}
    number = rounds = 0
    while True:
        for name in rng.sample(list(kinds), len(kinds)):
            number += 1
            kind = KINDS[name]
            tier = tiers[name][rounds % len(kind.tiers)]
            if tier in LINKS:
                targets = tuple(rng.choice(names) for names in LINKS[tier])
            else:
                targets = (rng.choice(TIERS[tier]),) if tier else ()
            duration_s = rng.choice(DURATIONS_S) if kind.lasts else 0.0
            rollout = rng.random() < 0.5 and kind.rollout
            yield Step(number, name, tier, targets, duration_s, rollout, rng.random() < 0.5)
        rounds += 1
