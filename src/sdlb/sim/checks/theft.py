"""Promise 6, as far as it holds without node identities: a false claim takes nothing from instances that serve."""

from __future__ import annotations

from sdlb.core.messages import ACTIVE, ClaimKey
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.liar import Liar
from sdlb.sim.world import World


@check(6)
class LiarsTakeNothing(Check):
    """No root activates a version that only a lying child claims while an honest instance serves the route or an incompatible
    version."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._found_free: set[tuple[str, ClaimKey]] = (
            set()
        )  # (root, key of a lying child): active when no honest instance had it

    def every_second(self) -> None:
        world = self.world
        for host in world.hosts.values():
            if isinstance(host, Liar) and host.running:
                for root in world.shape.roots:
                    # a root that has lost its disk accepts the first reports
                    fresh = world.touch.fresh(root) or not world.hosts[root].running
                    if root in world.shape.above(host.name) and not fresh:
                        self._look(world.hosts[root], host)

    def _look(self, root: Host, liar: Liar) -> None:
        active = {
            ClaimKey(service["service"], version["version"], claim["route"])
            for service in root.view.services()
            for version in service["versions"]
            for claim in version["claims"]
            if claim["state"] == ACTIVE
        }
        for key in liar.claims:
            if key not in active:
                self._found_free.discard((root.name, key))
            elif not any(key in p.keys() for p in self.world.by_service.get(key.service, {}).values()):
                self._rightful(root, key)

    def _rightful(self, root: Host, key: ClaimKey) -> None:
        self.compared()
        robbed = self._robbed(root, key)
        if not robbed:
            self._found_free.add((root.name, key))  # instances that come later, from another tree, wait like new ones
        elif (root.name, key) not in self._found_free:
            raise self.broken(f"{root.name} activates {' '.join(key)} of a lying child, and takes that from {robbed}")

    def _robbed(self, root: Host, key: ClaimKey) -> str:
        """Names of instances that serve the route for another service, or an incompatible version. Empty: there are none."""
        world = self.world
        for processes in world.by_service.values():
            for process in processes.values():
                if key.route not in process.spec.routes or not process.wanted or not process.healthy:
                    continue
                if root.name not in world.shape.above(process.host) or not process.renewing or not process.served:
                    continue
                if world.touch.may_presume(root.name, process):
                    continue  # the root could only take it for stopped
                if process.spec.service != key.service:
                    return process.name
                if world.relations.compatible(root.name, key.service, key.version, process.version) is False:
                    return process.name
        return ""
