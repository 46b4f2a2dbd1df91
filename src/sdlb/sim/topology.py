"""Random trees: one to three roots, up to three tiers between, one to three parents for each node; sometimes two trees.

A `Shape` never changes. A node that moves makes a new one (`moved`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from random import Random


@dataclass(frozen=True)
class Shape:
    """`parents`: node -> its parents, roots first. Times in seconds, as in `Settings`."""

    parents: dict[str, tuple[str, ...]]
    beat_s: float = 2.0
    lease_s: float = 10.0
    fence_s: float = 10.0
    slack_s: float = 1.5  # longest delay by the network, the loop and the heartbeat interval

    @property
    def presumed_s(self) -> float:
        """Silence after which a parent may presume a child stopped."""
        return self.lease_s + self.fence_s - self.slack_s

    def presumed_after_s(self, ttl_s: float) -> float:
        """The same for a child above an instance with this lease, because the fence is never shorter than the lease."""
        return self.lease_s + max(self.fence_s, ttl_s) - self.slack_s

    def moved(self, name: str, parents: tuple[str, ...]) -> Shape:
        """A copy with other parents for one node, which may be new."""
        return replace(self, parents={**self.parents, name: parents})

    @cached_property
    def roots(self) -> tuple[str, ...]:
        return tuple(name for name, parents in self.parents.items() if not parents)

    @cached_property
    def children(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {name: [] for name in self.parents}
        for child, parents in self.parents.items():
            for parent in parents:
                found[parent].append(child)
        return {name: tuple(children) for name, children in found.items()}

    @cached_property
    def _below(self) -> dict[str, frozenset[str]]:
        return _closure(self.children)

    @cached_property
    def _above(self) -> dict[str, frozenset[str]]:
        return _closure(self.parents)

    def below(self, name: str) -> frozenset[str]:
        """All nodes that can be reached downward, itself included."""
        return self._below[name]

    def above(self, name: str) -> frozenset[str]:
        """All nodes that can be reached upward, itself included."""
        return self._above[name]

    def between(self, upper: str, lower: str) -> frozenset[str]:
        """All nodes on ways from one down to the other, both included."""
        return self._below[upper] & self._above[lower]

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        return tuple(name for name, children in self.children.items() if not children and self.parents[name])

    @cached_property
    def inner(self) -> tuple[str, ...]:
        return tuple(name for name, parents in self.parents.items() if parents and self.children[name])

    @cached_property
    def _tree_of(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for number, root in enumerate(self.roots):
            queue = [root]
            while queue:
                name = queue.pop()
                if name not in found:
                    found[name] = number
                    queue += [*self.children[name], *self.parents[name]]
        return found

    def tree_of(self, name: str) -> int:
        """Node -> a number that is the same for all nodes of a connected tree."""
        return self._tree_of[name]

    def related(self, a: str, b: str) -> bool:
        """Whether a root is above both. Only then the promises hold for the two."""
        return any(not self.parents[name] for name in self._above[a] & self._above[b])

    def is_own(self, name: str) -> bool:
        """Whether all nodes below reach the roots only through this node, so that the subtree can be moved as a whole."""
        below = self._below[name]
        return all(set(self.parents[child]) <= below for child in below if child != name)


def _closure(step: dict[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}

    def visit(name: str) -> frozenset[str]:
        if name not in found:
            found[name] = frozenset({name}).union(*(visit(other) for other in step[name]))
        return found[name]

    for name in step:
        visit(name)
    return found


def random_shape(nodes: int, rng: Random) -> Shape:
    """One tree, or two separate ones."""
    if nodes >= 8 and rng.random() < 0.3:
        second = max(3, nodes // 4)
        return Shape({**_random_tree(nodes - second, rng, ""), **_random_tree(second, rng, "b-")})
    return Shape(_random_tree(nodes, rng, ""))


def _random_tree(nodes: int, rng: Random, prefix: str) -> dict[str, tuple[str, ...]]:
    """The tier below the roots has all of them as parents: all roots decide about the same claims."""
    roots = min(rng.choice((1, 2, 2, 3)), max(1, nodes - 1))
    tiers = rng.choice((0, 1, 1, 2, 3)) if nodes >= 8 else rng.choice((0, 1))
    parents: dict[str, tuple[str, ...]] = {f"{prefix}root-{n}": () for n in range(1, roots + 1)}
    above = tuple(parents)
    left = nodes - roots
    for tier in range(1, tiers + 1):
        width = max(1, min(round(left ** (tier / (tiers + 1))), left - 1))
        names = tuple(f"{prefix}t{tier}-{n}" for n in range(1, width + 1))
        for name in names:
            parents[name] = above if tier == 1 else _some(above, rng)
        above = names
        left -= width
    for n in range(1, left + 1):
        parents[f"{prefix}host-{n}"] = above if not tiers else _some(above, rng)
    return parents


def _some(above: tuple[str, ...], rng: Random) -> tuple[str, ...]:
    return tuple(sorted(rng.sample(above, min(len(above), rng.choice((1, 2, 2, 3))))))
