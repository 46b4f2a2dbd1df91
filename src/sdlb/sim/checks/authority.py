"""Promise 8: a decision that was acted on is not taken back by a crash."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core.messages import ACTIVE, ClaimKey, DownMessage, DownState
from sdlb.sim import bridge
from sdlb.sim.affected import NEVER, RECOVERY_S
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.world import World


@check(8)
class AuthoritySurvives(Check):
    """A version that a node activates is on its disk before it has any effect, and never returns to an older generation."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        # (node, service) -> generation, versions, when
        self._acted: dict[tuple[str, str], tuple[int, set[str], float]] = {}

    def on_told(self, host: Host, message: DownMessage) -> None:
        if isinstance(message, DownState) and host.name not in self.world.outside:
            for verdict in message.verdicts:
                if verdict.state == ACTIVE:
                    self._on_disk(host, verdict.key)
                    self._not_older(host, verdict.key, verdict.generation)

    def on_apply(self, host: Host, delta: ef.Apply) -> None:
        if not delta.replace:  # a new engine also gets endpoints that are closing
            for endpoint in delta.put_endpoints:
                self._on_disk(host, endpoint.key.claim)

    def _on_disk(self, host: Host, key: ClaimKey) -> None:
        if host.releasing or host.hold.released:
            return  # what it could not write, others had decided and written
        self.compared()
        if not bridge.is_written(host.disk.get, key, root=not host.parents):
            raise self.broken(f"{host.name} has {' '.join(key)} active, but not on its disk")

    def _not_older(self, host: Host, key: ClaimKey, generation: int) -> None:
        world = self.world
        known, versions, since = self._acted.get((host.name, key.service), (0, set[str](), 0.0))
        above = world.shape.above(host.name)
        forgot = max(world.forgot_at.get(name, NEVER) for name in above)
        if since < forgot or world.clock.now - forgot < RECOVERY_S:
            known, versions = 0, set[str]()  # its disk or a root's was lost: what was decided is gone with it
        if generation < known:
            roots = [root for root in world.shape.roots if root in above]
            for version in sorted(versions):
                fits = [world.relations.compatible(root, key.service, version, key.version) for root in roots]
                if False in fits:
                    raise self.broken(
                        f"{host.name} has {' '.join(key)} active in generation {generation}; it had been at {version} "
                        f"in generation {known}"
                    )
            return
        if generation > known:
            versions = set[str]()
        self._acted[host.name, key.service] = generation, versions | {key.version}, world.clock.now
