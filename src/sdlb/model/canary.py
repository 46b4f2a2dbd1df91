"""Canaries: the steps of a rollout, how the new version is compared with the old one, and what hosts count for that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field

NODES: Final = re.compile(r"^(([1-9][0-9]?|100)%|[1-9][0-9]{0,5})\Z")
"""A number of nodes, or a percentage of them."""
STEPS_MAX = 16
QUERIES_MAX = 8
BLOCK_S: Final = 10.0
"""Length of a block of figures. Block n is from n * BLOCK_S to (n + 1) * BLOCK_S, in Unix time of the host."""
BLOCKS_KEPT = 4
"""The last blocks that a host reports. Parents add up those with the same number."""


def _head_buckets() -> tuple[float, ...]:
    bounds, bound = list[int](), 500_000
    while bound < 60_000_000_000:
        bounds.append(bound)
        bound = bound * 11 // 10
    return tuple(each / 1e9 for each in (*bounds, 60_000_000_000))


HEAD_BUCKETS_S = _head_buckets()
"""Upper bounds of the buckets in `Figures.head` and `seams.engine.InstanceTotals.heads`: 0.5 ms to 60 s in steps of 10 %, the same
as in the engine (`routes/src/asked.rs`). The list has one more bucket for all above."""


class Step(Struct, frozen=True):
    """`nodes`: how many have the new version, as a number or a percentage. `share`: of new requests for it, in percent; never more
    than its part of the ready capacity. `for_s`: how long the step lasts once its nodes are updated."""

    nodes: str = "100%"
    share: float = 100.0
    for_s: float = 0.0


class Query(Struct, frozen=True):
    """Metrics from a Prometheus server. Either `bad` and `total`: two counters, each as one number for all instances, compared like
    errors. Or `value` with a bound: at the end of a step it fails when the value for the new version is above `max_value` or below
    `min_value`. In the text, `{version}`, `{service}` and `{window}` are replaced; the window is the time of the step so far, as "90s".
    `source`: the name of the server in the node file of the roots."""

    name: str
    source: str
    bad: str = ""
    total: str = ""
    value: str = ""
    max_value: float | None = None
    min_value: float | None = None


class Analysis(Struct, frozen=True):
    """`tolerate`: ratio of the rates up to which the new version counts as good. `alpha`: probability of a false alarm in the whole
    rollout, over all its metrics. `requests_min`: to the new version, without which a step cannot pass. `warm_up_s`: age of an
    instance from which it is compared. `hook`: asked at the end of each step: the name of a program in the roots' node files, or a URL.
    `hook_each`: "step", or "block": also at the end of each block, and then a refusal stops the rollout at once."""

    tolerate: float = 1.25
    alpha: float = 0.01
    requests_min: int = 1000
    warm_up_s: float = 60.0
    queries: tuple[Query, ...] = ()
    hook: str = ""
    hook_each: str = "step"


class Figures(Struct, frozen=True):
    """What instances of one version answered in one block, counted at their hosts and added up.

    `asked`: attempts sent to them that have ended, also where no connection could be opened. `errors`: of these, answered with 5xx
    or a gRPC status 2, 4 or 12 to 15, broken, or not reached. `refused`: answered with 4xx. `head`: index of a bucket of the times
    to a response head -> responses whose head took that long. `early_asked`, `early_errors`: the same of hosts with an instance that is
    younger than `warm_up_s`; these are not in the other numbers. `hosts`: that reported the block.
    """

    asked: int = 0
    errors: int = 0
    refused: int = 0
    head: Mapping[int, int] = field(default_factory=dict[int, int])
    early_asked: int = 0
    early_errors: int = 0
    hosts: int = 0

    def plus(self, other: Figures) -> Figures:
        head = dict(self.head)
        for bucket, count in other.head.items():
            head[bucket] = head.get(bucket, 0) + count
        return Figures(
            self.asked + other.asked,
            self.errors + other.errors,
            self.refused + other.refused,
            head,
            self.early_asked + other.early_asked,
            self.early_errors + other.early_errors,
            self.hosts + other.hosts,
        )


Blocks = Mapping[int, Mapping[str, Figures]]
"""Number of a block -> version -> figures."""


def block_of(wall_s: float) -> int:
    return int(wall_s // BLOCK_S)
