"""What instances answer, and what hosts count of it for the analyses of rollouts, as `sdlb.node.figures` does.

Nothing is drawn and no timer runs unless a host has something to count, so other runs are as if this did not exist.
"""

from __future__ import annotations

from bisect import bisect_left
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct, field

from sdlb.core.events import FiguresCounted
from sdlb.core.figures import Analysed
from sdlb.model.canary import BLOCK_S, HEAD_BUCKETS_S, Figures, block_of

if TYPE_CHECKING:
    from sdlb.sim.host import Host
    from sdlb.sim.world import World

SPREAD = (0.5, 1.5)
"""Of the times to a response head, around the usual one of the version."""
Key = tuple[str, str]  # service, version


class Quality(Struct):
    """Of a version. `errors`: probability that a response is a 5xx. `head_s`: usual time to a response head."""

    errors: float = 0.0
    head_s: float = 0.02


class Counting(Struct):
    """One life of a host's control. `counts`: since the last sample. `block`: that began then; None: nothing is known before."""

    boot: int
    block: int | None = None
    analysed: dict[str, Analysed] = field(default_factory=dict[str, Analysed])
    counts: dict[Key, Figures] = field(default_factory=dict[Key, Figures])


class HostFigures:
    """`versions`: how good they are. `each`: for how many requests a simulated one stands, so that an analysis has enough of them."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self.versions: dict[str, Quality] = {}
        self.each = 1
        self._hosts: dict[str, Counting] = {}

    def quality(self, version: str) -> Quality:
        return self.versions.setdefault(version, Quality())

    # ------------------------------------------------------------------ attempts

    def answered(self, host: Host, service: str, version: str) -> None:
        """An instance of this host has answered."""
        counting = self._hosts.get(host.name)
        if counting is not None:
            quality = self.quality(version)
            errors = sum(self._rng.random() < quality.errors for _ in range(self.each))
            head: dict[int, int] = {}
            for _ in range(self.each):
                bucket = bisect_left(HEAD_BUCKETS_S, quality.head_s * self._rng.uniform(*SPREAD))
                head[bucket] = head.get(bucket, 0) + 1
            self._add(counting, (service, version), Figures(self.each, errors, 0, head))

    def failed(self, host: Host, service: str, version: str) -> None:
        """An instance of this host was not reached, or has died with the request."""
        counting = self._hosts.get(host.name)
        if counting is not None:
            self._add(counting, (service, version), Figures(self.each, self.each))

    def _add(self, counting: Counting, key: Key, figures: Figures) -> None:
        counting.counts[key] = counting.counts.get(key, Figures()).plus(figures)

    # ------------------------------------------------------------------ blocks

    def look(self, host: Host) -> None:
        """After a step of control: it may have something to count from now on."""
        counting = self._hosts.get(host.name)
        if (counting is None or counting.boot != host.boot) and host.view.analysed():
            counting = self._hosts[host.name] = Counting(host.boot)
            self._wait(host, counting)

    def _wait(self, host: Host, counting: Counting) -> None:
        left_s = BLOCK_S - host.wall_s % BLOCK_S
        self._world.clock.after(left_s + 0.01, lambda: self._ended(host, counting))

    def _ended(self, host: Host, counting: Counting) -> None:
        if self._hosts.get(host.name) is not counting:
            return
        if not host.running or host.boot != counting.boot:
            del self._hosts[host.name]
            return
        if self._world.clock.now >= host.paused_until:
            self._sample(host, counting)
        if counting.analysed:
            self._wait(host, counting)
        else:
            del self._hosts[host.name]

    def _sample(self, host: Host, counting: Counting) -> None:
        block, before = block_of(host.wall_s), counting.block
        if block == before:
            return
        analysed = {each.service: each for each in host.view.analysed()}
        if before is not None and block == before + 1:
            for service, was in counting.analysed.items():
                both = [each for each in (was, analysed.get(service)) if each is not None]
                versions = sorted({version for each in both for version in each.versions})
                figures = {version: self._figures(counting, both, service, version) for version in versions}
                host.take(FiguresCounted(service, before, figures))
        counting.block, counting.analysed, counting.counts = block, analysed, {}

    def _figures(self, counting: Counting, both: list[Analysed], service: str, version: str) -> Figures:
        counted = counting.counts.get((service, version), Figures())
        if any(version in each.early for each in both):
            return Figures(early_asked=counted.asked, early_errors=counted.errors, hosts=1)
        return Figures(counted.asked, counted.errors, counted.refused, counted.head, hosts=1)
