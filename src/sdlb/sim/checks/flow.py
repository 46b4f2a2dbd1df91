"""Promise 3 where no request shows it: make before break, and no version waits without a reason.

Parked requests, and requests that are retried elsewhere after "not here", hide violations. These checks look at the tables.
"""

from __future__ import annotations

from sdlb.core import events as ev
from sdlb.core.messages import ACTIVE, ClaimKey
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.liar import claimed_by_liars
from sdlb.sim.process import Process
from sdlb.sim.touch import UNDECIDED
from sdlb.sim.world import World

STEADY_S = 3.0  # an instance that has served for this time is known at every entry above it


@check(3)
class MakeBeforeBreak(Check):
    """A node that had a ready endpoint for a service on a route never has none while an instance could serve.

    An instance could serve if it has been serving for a moment, is wanted, healthy, and in its host's engine. Only a decision
    that its version must wait for a present one may leave it out, never a node that has lost or cannot confirm state.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._had: dict[str, dict[tuple[str, str], None]] = {}  # host -> (service, route) with endpoints

    def on_table(self, host: Host, out: list[ev.EndpointKey]) -> None:
        before = self._had.get(host.name, {})
        now = {(key.service, key.route): None for key in host.engine.groups}
        self._had[host.name] = now
        if not host.engine.up or not host.running or host.name in self.world.outside:
            return
        for service, route in before:
            if (service, route) not in now:
                self._emptied(host, service, route, [key for key in out if key.claim.route == route])

    def _emptied(self, host: Host, service: str, route: str, out: list[ev.EndpointKey]) -> None:
        world = self.world
        self.compared()
        if host.leaving or world.affected.harmed(host.name, service):
            return
        below = world.shape.below(host.name)
        for process in list(world.by_service.get(service, {}).values()):
            if process.host not in below or route not in process.spec.routes or not self._could(process, host):
                continue
            if process.host != host.name:
                if process.endpoint_since > world.clock.now - STEADY_S:
                    continue
                if world.clock.now - world.touch.heard_at(host.name, process.host) >= world.shape.presumed_s:
                    continue  # it had to be presumed stopped
                way = world.shape.between(host.name, process.host)
                if any(world.hosts[name].leaving for name in way):
                    continue
                if world.affected.disturbed(way) and not any(self._led_to(host, key, process) for key in out):
                    continue  # the node may not know it yet
                if not all(world.affected.steady(name, STEADY_S) for name in way):
                    continue  # the node may still be handling old messages
            if self._becomes_another(process, route):
                continue
            decided = self._decided(host, ClaimKey(service, process.version, route)) or self._flips(process)
            if decided and (self._cut_over(process) or world.touch.rejoined(host.name)):
                continue
            if world.orders.transferred_lately(service):
                continue
            if service in world.orders.transferred and world.touch.rejoined(process.host):  # by a root that missed it
                continue
            raise self.broken(
                f"{host.name} has no endpoint for {service} on {route}, while {process.name} on {process.host} could serve"
            )

    def _led_to(self, host: Host, key: ev.EndpointKey, process: Process, seen: frozenset[str] = frozenset()) -> bool:
        """Whether requests to this endpoint reach the process. `seen`: nodes on the way; while nodes change places, tables may
        lead in a circle for a moment."""
        child = self.world.at(host, key.target) if key.target.startswith("n:") else None
        if child is None or child.name in seen:
            return False
        endpoints = [ev.EndpointKey(key.claim, target) for target in child.engine.groups.get(key.claim, ())]
        return any(
            child.process_at(m) is process or self._led_to(child, m, process, seen | {child.name}) for m in endpoints
        )

    def _could(self, process: Process, host: Host) -> bool:
        now, new = self.world.clock.now, process.successor
        # those above may not know its successor yet: until they do, they have it
        unheard = new is not None and new.wanted and new.endpoint_since > now - STEADY_S
        wanted = process.owed or (unheard and process.host != host.name)
        steady = process.since < now - STEADY_S
        return process.alive and process.healthy and process.renewing and process.served and wanted and steady

    def _becomes_another(self, process: Process, route: str) -> bool:
        """Whether it was registered again without this route, or as an incompatible version."""
        new = process.successor
        return new is not None and (route not in new.spec.routes or self.world.relations.parted(process))

    def _decided(self, host: Host, key: ClaimKey) -> bool:
        """Whether the node has a decision that the version must wait, or its instance has been replaced."""
        service = host.view.service(key.service)
        for version in service["versions"] if service is not None else ():
            for claim in version["claims"]:
                if version["version"] == key.version and claim["route"] == key.route:
                    waits = (host.name, key.service) in self.world.touch.must_wait
                    return claim["state"] != ACTIVE and (waits or claim["reason_code"] not in UNDECIDED)
        return True

    def _flips(self, process: Process) -> bool:
        """Whether one root may have closed it already, on a decision that the others are about to hear."""
        world = self.world
        roots = [root for root in world.shape.roots if root in world.shape.above(process.host)]
        return any(world.relations.flips(root, process.spec.service) is not False for root in roots)

    def _cut_over(self, process: Process) -> bool:
        """Whether an incompatible version is there, or was until a moment ago."""
        world, service, now = self.world, process.spec.service, self.world.clock.now
        just_ended = [p for p in world.ended.get(service, {}).values() if p.ended > now - STEADY_S]
        return any(
            not world.relations.compatible(root, service, process.version, other.version)
            for root in world.shape.roots
            if root in world.shape.above(process.host)
            for other in (*world.touch.may_be_there(root, service), *just_ended)
        )


@check(3)
class NothingWaitsForNothing(Check):
    """A version that nothing blocks opens within a lease after all others have stopped and every root knows it.

    Where a root was itself disturbed, or its disk is full, the limit is its lease and fence.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._free_since: dict[Process, float] = {}

    def every_second(self) -> None:
        world, now = self.world, self.world.clock.now
        waiting: dict[Process, None] = {}
        for service, processes in world.by_service.items():
            for process in processes.values():
                if process.wanted and process.healthy and process.renewing and not world.is_endpoint(process):
                    waiting[process] = None
                    if self._held(service, process):
                        self._free_since[process] = now
                    since = self._free_since.setdefault(process, now)
                    self.compared()
                    if now - since > self._bound_s(process):
                        raise self.broken(
                            f"{process.name} on {process.host} waits although nothing blocks it{self._reason(process)}"
                        )
        for process in [process for process in self._free_since if process not in waiting]:
            del self._free_since[process]

    def _bound_s(self, process: Process) -> float:
        shape = self.world.shape
        roots = [self.world.hosts[name] for name in shape.above(process.host) if not shape.parents[name]]
        slow = any(root.hold.on or self.world.affected.disturbed([root.name]) for root in roots)
        return shape.lease_s + shape.slack_s + 2.0 + (shape.fence_s if slow else 0.0)

    def _held(self, service: str, process: Process) -> bool:
        """Whether something blocks it, or may block it as far as the roots can know."""
        world, shape = self.world, self.world.shape
        host = world.hosts[process.host]
        if process.rejected or not host.running or not host.engine.up or process.host in world.outside:
            return True
        if world.affected.is_split(service) or world.clock.now < host.paused_until:
            return True
        above = shape.above(process.host)
        if any(map(world.touch.fresh, above)) or any(self._not_well(name) for name in above):
            return True
        if self._not_the_holder(process) or claimed_by_liars(world, service):
            return True
        roots = world.touch.roots_in_touch(process.host)
        if all(world.hosts[root].hold.on for root in roots):
            return True  # the root that could decide cannot write
        if any(world.touch.moved_out(root, service) for root in roots):
            return True
        if any(self._gated(root, service) for root in roots):
            return True
        for root in roots:
            for other in world.touch.may_be_there(root, service):
                if other.version == process.version or root not in shape.above(other.host):
                    continue
                if world.relations.compatible(root, service, process.version, other.version) is not True:
                    return True
        return False

    def _gated(self, root: str, service: str) -> bool:
        """Whether gates or orders may keep versions out; the oracle looks at what they wait for."""
        policy = self.world.relations.known(root, service).policy
        opening = policy.opening
        barred = opening.hold or opening.pin or opening.never_below
        return bool(policy.gates or barred) or not self.world.relations.settled_opening(root, service)

    def _not_well(self, name: str) -> bool:
        host = self.world.hosts[name]
        if host.hold.on and host.parents:
            return True  # it cannot write what it gets, so it has no say
        return host.leaving or host.stopped or (host.running and host.view.guarded())

    def _not_the_holder(self, process: Process) -> bool:
        """Whether another service claims one of its routes, or did recently."""
        for other in self.world.sharing.get(process.spec.service, ()):
            if self.world.by_service.get(other) or self.world.ended.get(other):
                return True
        return False

    def _reason(self, process: Process) -> str:
        known = self.world.hosts[process.host].view.instance(process.id)
        return "" if known is None else f": {known['state']}, {known['reason']}"
