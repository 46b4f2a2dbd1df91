"""Promise 3: no request is lost."""

from __future__ import annotations

from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from sdlb.model.gate import Hook
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.liar import claimed_by_liars
from sdlb.sim.process import Process
from sdlb.sim.traffic import Request
from sdlb.sim.world import World


@check(3)
class NothingLost(Check):
    """A request is answered if there are instances for it below its entry, whatever is deployed meanwhile.

    Without disturbances a waiting instance is enough, because requests are parked. Otherwise there must be an instance that
    the root at the entry had reached before and that serves on. Exempt are requests through a node or for a service with a
    disturbance that loses requests: a process, an engine or a machine dies, or the tree is split.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._reached: dict[tuple[str, str], dict[str, float]] = {}  # (root, route) -> process -> since when

    def every_second(self) -> None:
        if self.world.affected.undisturbed:
            return
        now, roots = self.world.clock.now, self.world.shape.roots
        self._reached = {
            place: names for place, names in self._reached.items() if place[0] in roots
        }  # not of a former root
        for root in roots:
            found: dict[str, dict[str, None]] = {}
            for key in self.world.keys:
                if key in self.world.hosts[root].engine.groups:
                    self._walk(self.world.hosts[root], key, found.setdefault(key.route, {}), set())
            for route, names in found.items():
                before = self._reached.get((root, route), {})
                self._reached[root, route] = {name: before.get(name, now) for name in names}
            for other, route in list(self._reached):
                if other == root and route not in found:
                    del self._reached[root, route]

    def _walk(self, host: Host, key: ClaimKey, found: dict[str, None], seen: set[str]) -> None:
        seen.add(host.name)
        for target in host.engine.groups.get(key, ()):
            if target.startswith("i:"):
                process = host.process_at(ev.EndpointKey(key, target))
                if process is not None:
                    found[process.name] = None
                continue
            child = self.world.at(host, target)
            if child is not None and child.name not in seen:
                self._walk(child, key, found, seen)

    def on_lost(self, request: Request, why: str) -> None:
        world = self.world
        entry = request.hops[0].host.name
        if world.clock.now < 15.0 or entry in world.outside:
            return
        able = [p for p in self._able(entry, request.route) if not world.affected.harmed(entry, p.spec.service)]
        self.compared()
        if able:
            names = ", ".join(f"{p.name} on {p.host}" for p in able[:5])
            raise self.broken(
                f"a request for {request.route} at {entry} was lost ({why}) although {names} could serve it"
            )

    def _able(self, entry: str, route: str) -> list[Process]:
        world = self.world
        shape, affected = world.shape, world.affected
        there = [p for p in self._there(entry, route) if not claimed_by_liars(world, p.spec.service)]
        waiting = [p for p in there if not affected.disturbed(shape.above(p.host))]
        return waiting or self._still_serving(entry, route)

    def _still_serving(self, entry: str, route: str) -> list[Process]:
        world, below = self.world, self.world.shape.below(entry)
        now, reached = world.clock.now, self._reached.get((entry, route), {})
        known = [world.processes[name] for name, since in reached.items() if since < now - 1.5]
        known = [p for p in known if p.host in below]  # instances that were moved away may be missing
        return [p for p in known if self._serves_on(p) and p.since < now - 3.0]

    def _serves_on(self, process: Process) -> bool:
        well = process.alive and process.healthy and process.renewing
        return well and process.owed and not self.world.relations.parted(process)

    def _there(self, entry: str, route: str) -> list[Process]:
        world = self.world
        claiming = [p for p in world.processes.values() if route in p.spec.routes and p.host not in world.outside]
        related = [p for p in claiming if world.shape.related(p.host, entry)]
        service = next((p.spec.service for p in related if p.served), None)  # None: it was never served
        now, below = world.clock.now, world.shape.below(entry)
        if any(p.served and p.spec.service != service and now - p.ended < 3.0 for p in related):
            return []  # another service had the route until a moment ago: a refused service gets no requests
        return [
            p
            for p in claiming
            if p.spec.service == service
            and p.host in below
            and self._serves_on(p)
            and p.since < now - 3.0
            and (world.is_endpoint(p) or not (self._must_wait(p) or self._gated(p)))
        ]

    def _gated(self, process: Process) -> bool:
        """Whether gates or orders may keep its version out for longer than requests are parked. A flip may not keep
        the old version out for so long: it is reverted in time."""
        world, service = self.world, process.spec.service
        for root in world.shape.roots:
            if root not in world.shape.above(process.host) or world.hosts[root].balancer is None:
                continue
            policy = world.relations.known(root, service).policy
            opening = policy.opening
            barred = opening.hold or opening.pin or opening.never_below
            flips = (
                process.served
                and opening.cut_over == "flip"
                and all(not isinstance(gate, Hook) or gate.back for gate in policy.gates)
            )
            if barred or (policy.gates and not flips) or not world.relations.settled_opening(root, service):
                return True
        return False

    def _must_wait(self, process: Process) -> bool:
        """Whether an incompatible version serves somewhere in the tree and is to serve on."""
        world, service = self.world, process.spec.service
        roots = [root for root in world.shape.roots if root in world.shape.above(process.host)]
        return any(
            other.owed
            and other.served
            and other.version != process.version
            and root in world.shape.above(other.host)
            and not world.relations.compatible(root, service, process.version, other.version)
            for other in world.by_service[service].values()
            for root in roots
        )
