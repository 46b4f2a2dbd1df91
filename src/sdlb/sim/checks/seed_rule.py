"""Promise 2: an incompatible version waits until the last instance of the other versions has stopped."""

from __future__ import annotations

from sdlb.core.messages import ClaimKey
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.process import Process


@check(2)
class SeedRule(Check):
    """No version opens while an instance of an incompatible version that has served is alive or has requests in flight.

    With `cut_over = "flip"` the instance may be alive, but must have drained.

    No node may presume it stopped before it was silent for its lease and the fence, or at all with `on_silence = "wait"`.
    """

    def on_open(self, host: Host, key: ClaimKey, process: Process) -> None:
        rivals = [
            other
            for other in self.world.by_service[key.service].values()
            if other.version != process.version
            and key.route in other.spec.routes
            and self.world.shape.related(process.host, other.host)
        ]
        if not rivals:
            return
        roots = self.world.touch.roots_in_touch(process.host)
        for other in rivals:
            for root in roots:
                if root not in self.world.shape.above(other.host):
                    continue
                self.compared()
                if self._there(root, other) and not self.world.touch.may_presume(root, other):
                    fits = self.world.relations.compatible(root, key.service, process.version, other.version)
                    if fits is False:
                        raise self.broken(
                            f"{process.name} on {process.host} opens while {other.name} on {other.host} has not stopped "
                            f"({other.carried} requests in flight)"
                        )

    def _there(self, root: str, other: Process) -> bool:
        world, now = self.world, self.world.clock.now
        if other.rejected or other.host in world.outside:
            return False
        if not other.renewing and other.spec.ttl_s and now >= other.renewed + other.spec.ttl_s:
            # its lease has expired at its host: the policy decides what that means
            if not world.relations.waits_for_silent(root, other.spec.service, other.renewed):
                return False
        elif world.is_endpoint(other):
            return True
        if other.carried:
            return now < other.leave_by
        return other.served and other.wanted and world.relations.flips(root, other.spec.service) is False


@check(2)
class NobodyIsPushedOut(Check):
    """A version with live instances is not closed in favour of another one.

    Exempt are services for which a split tree is joined again, hosts for which one of several roots was out of reach,
    versions that have just become incompatible, and instances that came from another tree.
    """

    def on_close(self, host: Host, key: ClaimKey, process: Process) -> None:
        world = self.world
        if not host.running or not process.alive or not process.wanted or not process.healthy or process.rejected:
            return
        if host.name in world.outside or not host.engine.up:
            return
        known = host.view.instance(process.id)
        if (
            known is None
            or known["state"] not in ("waiting", "refused")
            or known["reason_code"] in ("opening", "asking")
        ):
            return
        process.served = False  # recalled: it waits like a new version
        self.compared()
        if world.affected.is_split(key.service) or any(map(world.touch.fresh, world.shape.above(host.name))):
            return
        if self._changed(key, process) or world.touch.rejoined(host.name):
            return
        raise self.broken(f"{process.name} on {host.name} was closed although it is alive: {known['reason']}")

    def _changed(self, key: ClaimKey, process: Process) -> bool:
        world = self.world
        roots = [root for root in world.shape.roots if root in world.shape.above(process.host)]
        if world.orders.transferred_lately(key.service):
            return True
        if any(world.relations.flips(root, key.service) is not False for root in roots):
            return True
        return any(
            world.relations.compatible(root, key.service, process.version, other.version) is None
            for root in world.shape.roots
            if root in world.shape.above(process.host) and world.hosts[root].balancer is not None
            for other in world.touch.may_be_there(root, key.service)
        )
