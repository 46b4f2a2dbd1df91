"""Trees to try: one to three roots, none to three tiers between, one to three parents for each node."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random


@dataclass(frozen=True)
class Shape:
    """`parents`: node -> its parents, roots first. Times in seconds, as in `Settings`."""

    parents: dict[str, tuple[str, ...]]
    beat_s: float = 2.0
    lease_s: float = 10.0
    fence_s: float = 10.0
    slack_s: float = 1.5  # what a delay, a turn of the loop and the space between two beats may hide

    @property
    def presumed_s(self) -> float:
        """So long a silence, and a parent may take the child for stopped."""
        return self.lease_s + self.fence_s - self.slack_s

    @property
    def roots(self) -> tuple[str, ...]:
        return tuple(name for name, parents in self.parents.items() if not parents)

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        return {name: tuple(c for c, parents in self.parents.items() if name in parents) for name in self.parents}

    @cached_property
    def _below(self) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for name in reversed(self.parents):  # children come after their parents
            found[name] = frozenset({name}).union(*(found[child] for child in self.children[name]))
        return found

    def below(self, name: str) -> frozenset[str]:
        """All nodes that can be reached downward, itself included."""
        return self._below[name]

    @property
    def leaves(self) -> tuple[str, ...]:
        inner = {parent for parents in self.parents.values() for parent in parents}
        return tuple(name for name in self.parents if name not in inner)

    @property
    def inner(self) -> tuple[str, ...]:
        above = {parent for parents in self.parents.values() for parent in parents}
        return tuple(name for name, parents in self.parents.items() if parents and name in above)


def random_shape(nodes: int, rng: Random) -> Shape:
    """The tier below the roots has all of them as parents: all roots decide about the same claims."""
    roots = min(rng.choice((1, 2, 2, 3)), max(1, nodes - 1))
    tiers = rng.choice((0, 1, 1, 2, 3)) if nodes >= 8 else rng.choice((0, 1))
    parents: dict[str, tuple[str, ...]] = {f"root-{n}": () for n in range(1, roots + 1)}
    above = tuple(parents)
    left = nodes - roots
    for tier in range(1, tiers + 1):
        width = max(1, min(round(left ** (tier / (tiers + 1))), left - 1))
        names = tuple(f"t{tier}-{n}" for n in range(1, width + 1))
        for name in names:
            parents[name] = above if tier == 1 else _some(above, rng)
        above = names
        left -= width
    for n in range(1, left + 1):
        parents[f"host-{n}"] = above if not tiers else _some(above, rng)
    return Shape(parents)


def _some(above: tuple[str, ...], rng: Random) -> tuple[str, ...]:
    return tuple(sorted(rng.sample(above, min(len(above), rng.choice((1, 2, 2, 3))))))
