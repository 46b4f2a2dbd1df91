"""Promise 1: one generation at a time."""

from __future__ import annotations

from itertools import combinations

from sdlb.core.messages import ClaimKey
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.process import Process
from sdlb.sim.relation import CHANGE_S
from sdlb.sim.world import World


@check(1)
class OneGeneration(Check):
    """Two incompatible versions of a service never have endpoints on one route at the same time, in any engines of the tree.

    Exempt are pairs of hosts that have not both been in touch with the same root: one that its parent had to presume stopped,
    that was cut off, or has just returned. Versions that have just become incompatible are exempt for a while. All pairs are
    checked again every second.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._open: dict[tuple[str, str], dict[Process, None]] = {}  # (service, route) -> endpoints of some engine
        self._last: dict[tuple[str, str], str] = {}  # the version that opened last

    def on_open(self, host: Host, key: ClaimKey, process: Process) -> None:
        there = self._open.setdefault((key.service, key.route), {})
        for other in there:
            if other.version != process.version:
                self._compare(process, other, key.route, opening=True)
        there[process] = None
        last = self._last.get((key.service, key.route))
        if last is not None and last != key.version and not there.keys() - {process}:
            self.world.coverage.happened["cut-overs"] += 1
        self._last[key.service, key.route] = key.version

    def on_close(self, host: Host, key: ClaimKey, process: Process) -> None:
        self._open[key.service, key.route].pop(process, None)

    def every_second(self) -> None:
        for (_, route), there in self._open.items():
            if len({process.version for process in there}) > 1:
                for a, b in combinations(there, 2):
                    if a.version != b.version:
                        self._compare(a, b, route, opening=False)

    def _compare(self, process: Process, other: Process, route: str, opening: bool) -> None:
        world, service = self.world, process.spec.service
        if not (process.alive and other.alive):
            return  # nothing answers there, whatever an engine still has
        if not world.shape.related(process.host, other.host):
            return
        self.compared()
        if self._alike(process, other):
            return
        root = world.touch.accountable(process.host, other.host)
        if root is None:
            world.coverage.happened["two versions at once, excused"] += 1
            world.affected.split([service])
            return
        fits = world.relations.compatible(root, service, process.version, other.version)
        if fits is False and (opening or not self._stuck(process, other)):
            does = "opens" if opening else "has open"
            raise self.broken(
                f"{process.name} on {process.host} {does} {route} while {other.name} on {other.host} has it open; {root} "
                "hears both"
            )

    def _stuck(self, *processes: Process) -> bool:
        """Whether a disk is full or an engine out of reach, now or until just now, so that a version cannot be closed there."""
        world = self.world
        names = {name for process in processes for name in world.shape.above(process.host)}
        return any(world.clock.now - world.hosts[name].stuck_at < CHANGE_S for name in names)

    def _alike(self, process: Process, other: Process) -> bool:
        """Whether the versions are compatible, or their relation is unsettled, for every root that may decide."""
        roots = [root for root in self.world.shape.roots if root in self.world.shape.above(process.host)]
        service = process.spec.service
        return all(
            self.world.relations.compatible(root, service, process.version, other.version) is not False
            for root in roots
            if self.world.hosts[root].balancer is not None
        )
