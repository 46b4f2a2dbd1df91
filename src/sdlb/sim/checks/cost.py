"""Promise 7: state and messages are bounded by the children and services of a node."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import DownState, Path, UpState
from sdlb.sim import bridge
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.world import World

SIZES_S = 1.0


@check(7)
class ConstantCost(Check):
    """State is bounded by children x claim keys. A change of one service causes messages about that service only."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._instances: dict[str, int] = {}  # host -> the most that it ever had at once
        self._size_at: dict[str, float] = {}  # host -> when its sizes are checked again
        self._timers = False  # some expire in this step, about any service
        self._paths: dict[tuple[str, str], Path] = {}  # (node, parent) -> the path last sent to the node

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        assert host.balancer is not None
        wake = host.balancer.wake_at()
        self._timers = wake is not None and wake <= host.now

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        if self.world.clock.now >= self._size_at.get(host.name, 0.0):  # what grows is larger a second later, too
            self._size_at[host.name] = self.world.clock.now + SIZES_S
            self._size(host)
        dropped = any(isinstance(effect, ef.DropChild | ef.HangUp) for effect in effects)
        touched = None if self._moves(host, events) or dropped else self._touched(host, events)
        if touched is None or self._timers:
            return
        touched |= self._left_behind(effects)
        for effect in effects:
            match effect:
                case ef.ToParent(_, UpState() as up):
                    sent = {claim.key.service for claim in up.claims} | {gone.key.service for gone in up.withdrawn}
                    sent |= {service for service, _ in up.reports}
                case ef.ToChild(_, DownState() as down):
                    sent = {verdict.key.service for verdict in down.verdicts} | {
                        ack.key.service for ack in down.drained
                    }
                case _:
                    continue
            if not sent <= touched:
                raise self.broken(
                    f"{host.name} got messages about {sorted(touched)} and sends messages about {sorted(sent - touched)}"
                )

    def _size(self, host: Host) -> None:
        world = self.world
        keys = world.keys
        children = world.children_ever.get(host.name, 0)  # children that have left stay on record for a while
        sizes = host.view.sizes()
        most = self._instances[host.name] = max(self._instances.get(host.name, 0), sizes["instances"])
        local = most * world.routes_max  # the engine still has those that were just removed
        self.compared()
        bounds = {
            "slots": len(keys),
            "sources": 2 * len(keys) * children + local,  # remnants included
            "told": len(keys) * children,
            "claimed": len(keys) * len(host.addresses),
            "children": children,
            "table": 3 * (len(keys) * children + local) + 2 * len(keys),
        }
        for name, bound in bounds.items():
            if sizes[name] > bound:
                raise self.broken(f"{host.name} holds {sizes[name]} {name}; its children and services explain {bound}")

    def _moves(self, host: Host, events: list[ev.Event]) -> bool:
        """Whether the events move the node to another place in the tree, which concerns all of its services."""
        moves = False
        for event in events:
            match event:
                case ev.ParentMessage(parent, DownState() as down):
                    moves = moves or self._paths.get((host.name, parent)) != down.path
                    self._paths[host.name, parent] = down.path
                case _:
                    pass
        return moves

    def _left_behind(self, effects: list[ef.Effect]) -> set[str]:
        """Services whose documents a node deletes: those of a tree that it has left, when it hears of the first one of its new tree."""
        puts = [effect.puts for effect in effects if isinstance(effect, ef.Persist)]
        names = {
            name.split("/", 2)[2] for put in puts for name, value in put.items() if name[:4] == "doc/" and not value
        }
        return names | {name.rpartition("-")[0] for name in names}  # a release is named after its service and version

    def _subjects(self, message: UpState | DownState) -> set[str]:
        """The services that documents are about. A transferred route is about all services that claim it."""
        named = set(bridge.subjects_of(message))
        return named | {key.service for key in self.world.keys if key.route in named}

    def _touched(self, host: Host, events: list[ev.Event]) -> set[str] | None:
        """The services that these events are about, and those that share a route with them. None: all services.

        A root that is lost concerns all services whose cut-over it conducts or follows.
        """
        services: set[str] = set()
        for event in events:
            match event:
                case ev.ChildMessage(_, UpState(full=False, roots=None, lost=None) as up) if up.seq > 1:
                    services |= {claim.key.service for claim in up.claims} | {gone.key.service for gone in up.withdrawn}
                    services |= self._subjects(up)
                    services |= {service for service, _ in up.reports}
                case ev.ParentMessage(_, DownState(full=False) as down) if down.seq > 1:
                    services |= {v.key.service for v in down.verdicts} | {a.key.service for a in down.drained}
                    services |= self._subjects(down)
                case ev.InstancePut(spec):
                    services.add(spec.service)
                    at = spec.endpoint  # what was registered there before gives way
                    services |= {
                        p.spec.service for p in host.processes.values() if spec.id == p.id or at == p.spec.endpoint
                    }
                case ev.InstanceHealth(id) | ev.InstanceRemove(id) | ev.InstanceDrain(id) | ev.InstanceGone(id):
                    services |= {p.spec.service for p in host.processes.values() if p.id == id}
                case _:
                    return None
        return services | {other for service in services for other in self.world.sharing.get(service, ())}
