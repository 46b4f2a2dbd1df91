"""Promise 4: an unreachable node does not count as stopped, and a node that is cut off opens nothing."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ACTIVE, ClaimKey
from sdlb.sim.affected import NEVER, RECOVERY_S
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.process import Process
from sdlb.sim.world import World

HOSTS_NAMED = 5  # at most, in a claim


def left_out(host: Host, delta: ef.Apply) -> list[ev.EndpointKey]:
    """The endpoints that a delta removes from this node's engine."""
    out = list(delta.delete_endpoints)
    if delta.replace:
        named = {endpoint.key for endpoint in delta.put_endpoints}
        out += [key for key in host.engine.endpoints() if key not in named]
    return out


@check(4)
class StaticStability(Check):
    """An endpoint leaves an engine's table only for a reason that was reported to its node, never because of unreachability."""

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ef.Apply):
                out = left_out(host, effect)
                for key in out:
                    self._justified(host, key, out)

    def _justified(self, host: Host, key: ev.EndpointKey, out: list[ev.EndpointKey]) -> None:
        world, now = self.world, self.world.clock.now
        if now - world.touch.fresh_at.get(host.name, NEVER) < RECOVERY_S or host.name in world.outside:
            return  # its disk was lost: it follows what it is sent again
        self.compared()
        if key.target.startswith("n:"):
            child = world.at(host, key.target)
            if child is None or not child.honest or (host.name, child.name) in world.forgotten:
                return
            twins = [other for other in world.hosts.values() if other.node == child.node and other is not child]
            if any((twin.name, host.name) in world.claimed for twin in twins):
                return  # a copy of its state folder has taken its place here
            said = world.claimed.get((child.name, host.name), {}).get(key.claim)
            if said is None or said.leaving or not said.capacity or child.name in world.outside:
                return
            heard = world.network.edges[child.name, host.name].up_heard
            if now - heard >= world.shape.presumed_s:
                return
            below = world.shape.below(child.name)
            if len(said.hosts) < HOSTS_NAMED:  # all of them are named
                below = {name for name in below if world.hosts[name].node in said.hosts}
            there = [
                p
                for p in world.processes.values()
                if p.host in below and p.since < heard and p.alive and p.wanted and world.hosts[p.host].engine.up
            ]
            if not any(key.claim in p.keys() for p in there):
                return  # it has stopped, as another child above the same hosts has reported
        else:
            process = host.process_at(key)
            if process is None or not (process.alive and process.healthy and process.renewing):
                return
            if key.claim not in process.keys():
                return  # another one listens there now
            known = host.view.instance(process.id)
            if known is None or known["state"] in ("draining", "drained") or not known["healthy"]:
                return
            if not process.wanted:
                return
            group = (ev.EndpointKey(key.claim, target) for target in host.engine.groups.get(key.claim, ()))
            if any(host.process_at(each) is process for each in group if each not in out):
                return  # a restored host, whose engine has it under the target of a registration that the host does not know
        if host.view.tree()["stopping"]:
            return
        if self._permitted(host, key.claim):
            raise self.broken(f"{host.name} removes {key.target} from {' '.join(key.claim)} without a reason")
        if world.touch.cut_off(host.name) and (host.name, key.claim.service) not in world.touch.must_wait:
            raise self.broken(f"{host.name}, cut off from its parents, closes {' '.join(key.claim)} ({key.target})")

    @staticmethod
    def _permitted(host: Host, key: ClaimKey) -> bool:
        service = host.view.service(key.service)
        if service is None:
            return False
        return any(
            claim["route"] == key.route and claim["state"] == ACTIVE
            for version in service["versions"]
            if version["version"] == key.version
            for claim in version["claims"]
        )


@check(4)
class GuardHolds(Check):
    """If more than half of a node's children are silent at the same time, all stay in its table: the fault is its own."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._record: dict[str, dict[str, None]] = {}  # host -> its children on record

    def on_note(self, host: Host, note: ef.Note) -> None:
        child = note.fields.get("child", "")
        if note.code == "child-connected":
            self._record.setdefault(host.name, {})[child] = None
        elif note.code in ("child-presumed-stopped", "child-left", "child-forgotten"):
            self._record.get(host.name, {}).pop(child, None)

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ef.Apply):
                for key in left_out(host, effect):
                    if key.target.startswith("n:"):
                        self._guarded(host, key)

    def _guarded(self, host: Host, key: ev.EndpointKey) -> None:
        world, record = self.world, self._record.get(host.name, {})
        child = world.at(host, key.target)
        if (
            child is None
            or not child.honest
            or (host.name, child.name) in world.forgotten
            or child.name in world.outside
        ):
            return
        if self._silent_s(host, child.name) < world.shape.presumed_s:
            return
        below = world.shape.below(child.name)
        processes = world.by_service.get(key.claim.service, {}).values()
        if not any(p.host in below and p.alive and key.claim in p.keys() for p in processes):
            return  # it has stopped, and a live child that covers its hosts may have reported that
        # time during which the node did not run is no silence of its children
        if len(record) < 2 or world.affected.disturbed([host.name]) or world.touch.fresh(host.name):
            return
        lapse_s = world.shape.lease_s + world.shape.slack_s
        silent = [other for other in record if self._silent_s(host, other) >= lapse_s]
        self.compared()
        if len(silent) * 2 > len(record):
            raise self.broken(
                f"{host.name} removes {key.target} from {' '.join(key.claim)}: {len(silent)} of its {len(record)} children "
                "are silent at the same time"
            )

    def _silent_s(self, host: Host, child: str) -> float:
        edge = self.world.network.edges.get((child, host.name))
        return 0.0 if edge is None else self.world.clock.now - edge.up_heard


@check(4)
class CutOffOpensNothing(Check):
    """A host that no root has reached for a lease, through any path, opens no version that it did not have open before.

    A version that was open counts as long as its control or its engine has run without a break: a machine that was off has
    no permit that is still confirmed.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._had: dict[str, dict[ClaimKey, tuple[int, int]]] = {}  # host -> boots of control and engine at the time

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        if host.endpoints and any(isinstance(event, ev.EngineAttached) for event in events):
            for key, _ in host.endpoints:
                self._had.setdefault(host.name, {})[key] = host.boot, host.engine.boot

    def on_open(self, host: Host, key: ClaimKey, process: Process) -> None:
        control, engine = self._had.get(host.name, {}).get(key, (0, 0))
        self._had.setdefault(host.name, {})[key] = host.boot, host.engine.boot
        if self.world.touch.adrift(host.name) and host.running:
            self.compared()
            if control != host.boot and engine != host.engine.boot:
                raise self.broken(f"{host.name}, which no root reaches, opens {' '.join(key)} ({process.name})")
