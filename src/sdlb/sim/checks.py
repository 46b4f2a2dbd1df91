"""The promises of design.md, looked at after every step; each check is registered under its promise's number.

A check knows the truth (`World`), not what the nodes believe. What a promise exempts is exempted as narrowly as the
truth allows, and every exemption says why.
"""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ACTIVE, ClaimKey, DownMessage, DownState, UpState
from sdlb.core.state import text_of
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.process import Process
from sdlb.sim.traffic import Request
from sdlb.sim.world import RECOVERY_S, World

# ---------------------------------------------------------------------- 1


@check(1)
class OneGeneration(Check):
    """Two incompatible versions of a service never have members on one route at once, at whatever engines of the tree.

    Exempt are pairs of hosts without a root that both have been in touch with: what a parent had to presume stopped, what
    was cut off from its parents, and what has just come back. They are looked at again until they are over.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._open: dict[tuple[str, str], dict[str, Process]] = {}  # (service, route) -> processes that are members
        self._mine: dict[str, dict[tuple[str, str, str], None]] = {}
        self._excused: dict[tuple[str, str], None] = {}

    def on_table(self, host: Host, out: list[ev.MemberKey]) -> None:
        now = {
            (key.service, key.route, target[2:]): None
            for key, group in host.engine.groups.items()
            for target in group
            if target.startswith("i:")
        }
        before = self._mine.get(host.name, {})
        for service, route, name in before:
            if (service, route, name) not in now:
                self._open[service, route].pop(name)
        for service, route, name in now:
            if (service, route, name) not in before:
                process = host.processes[name]
                self._open.setdefault((service, route), {})[name] = process
                self._compare(process, service, route)
        self._mine[host.name] = now

    def _compare(self, process: Process, service: str, route: str) -> None:
        for other in self._open[service, route].values():
            if self.world.compatible(process, other):
                continue
            root = self.world.accountable(process.host, other.host)
            if root is not None:
                raise self.broken(
                    f"{process.id} on {process.host} opens {route} while {other.id} on {other.host} has it open; {root} "
                    "hears both"
                )
            self._excused[service, route] = None
            self.world.split("two versions at once, excused")

    def every_second(self) -> None:
        for service, route in list(self._excused):
            del self._excused[service, route]
            for process in list(self._open[service, route].values()):
                self._compare(process, service, route)


# ---------------------------------------------------------------------- 2


@check(2)
class SeedRule(Check):
    """Nothing opens while an instance of an incompatible version that has served is there or carries requests.

    Nor is a version that has live instances closed to make room, unless the tree was split and two sides must become one.
    """

    def on_table(self, host: Host, out: list[ev.MemberKey]) -> None:
        for name in sorted({t[2:] for group in host.engine.groups.values() for t in group if t.startswith("i:")}):
            process = host.processes[name]
            if process.id not in self._seen(host):
                self._seen(host)[process.id] = None
                self._opens(process)
        for key in out:
            if key.target.startswith("i:"):
                self._seen(host).pop(key.target[2:], None)
                self._closes(host, key)
        if not host.engine.groups:
            self._seen(host).clear()

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._members: dict[str, dict[str, None]] = {}

    def _seen(self, host: Host) -> dict[str, None]:
        return self._members.setdefault(host.name, {})

    def _opens(self, process: Process) -> None:
        world = self.world
        for other in world.by_service[process.spec.service].values():
            if (
                not other.served
                or world.compatible(process, other)
                or not set(process.keys()) & _routes(other, process)
            ):
                continue
            there = world.is_member(other) or (
                other.renewing and (other.wanted or (other.carried > 0 and world.clock.now < other.leave_by))
            )
            if there and world.accountable(process.host, other.host) is not None:
                raise self.broken(
                    f"{process.id} on {process.host} opens while {other.id} on {other.host} has not stopped "
                    f"({other.carried} requests in flight)"
                )

    def _closes(self, host: Host, key: ev.MemberKey) -> None:
        process = host.processes[key.target[2:]]
        if host.balancer is None or not host.running or not process.alive or not process.wanted or not process.healthy:
            return
        known = host.balancer.instance(process.id)
        if known is None or known["state"] != "waiting" or known["reason_code"] in ("opening", "asking"):
            return
        process.served = False  # recalled: waits like a newcomer
        if self.world.clock.now - self.world.split_at > RECOVERY_S:
            raise self.broken(f"{process.id} on {host.name} was closed though it lives: {known['reason']}")


def _routes(other: Process, process: Process) -> set[ClaimKey]:
    """The other's routes, as keys of this process' version."""
    return {ClaimKey(process.spec.service, process.version, route) for route in other.spec.routes}


# ---------------------------------------------------------------------- 3


@check(3)
class NothingLost(Check):
    """A request is answered when instances for it are there, below the node where it enters, whatever is deployed meanwhile.

    Without faults, one that waits for its turn is enough (requests are parked). With faults of control and its links, it
    takes one that the root where the request enters had reached before and that goes on serving. Exempt is the time after
    what costs requests by itself: a process, an engine or a machine that dies, a split.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._reached: dict[tuple[str, str], dict[str, float]] = {}  # (root, route) -> process -> since when

    def every_second(self) -> None:
        if not self.world.faults or not self.world.calm:
            self._reached.clear()
            return
        now = self.world.clock.now
        for root in self.world.shape.roots:
            found: dict[str, dict[str, None]] = {}
            for key in self.world.keys:
                self._walk(self.world.hosts[root], key, found.setdefault(key.route, {}), set())
            for route, names in found.items():
                before = self._reached.get((root, route), {})
                self._reached[root, route] = {name: before.get(name, now) for name in names}

    def _walk(self, host: Host, key: ClaimKey, found: dict[str, None], seen: set[str]) -> None:
        seen.add(host.name)
        for target in host.engine.groups.get(key, ()):
            if target.startswith("i:"):
                found[target[2:]] = None
            elif target[2:] not in seen:
                self._walk(self.world.hosts[target[2:]], key, found, seen)

    def on_lost(self, request: Request, why: str) -> None:
        world = self.world
        entry = request.hops[0].host.name
        if not world.calm or world.clock.now < 15.0:
            return
        if world.faults:
            able = self._still_serving(entry, request.route)
        else:
            able = self._there(entry, request.route)
        if able:
            names = ", ".join(f"{p.id} on {p.host}" for p in able[:5])
            raise self.broken(f"a request for {request.route} at {entry} was lost ({why}) while {names} could serve it")

    def _still_serving(self, entry: str, route: str) -> list[Process]:
        now, reached = self.world.clock.now, self._reached.get((entry, route), {})
        known = [self.world.processes[name] for name, since in reached.items() if since < now - 1.5]
        return [p for p in known if p.wanted and p.healthy and p.renewing and p.since < now - 3.0]

    def _there(self, entry: str, route: str) -> list[Process]:
        world = self.world
        claiming = [p for p in world.processes.values() if route in p.spec.routes]
        service = next((p.spec.service for p in claiming if p.served), None)  # None: nobody has ever served it
        now, below = world.clock.now, world.shape.below(entry)
        if any(p.served and p.spec.service != service and now - p.ended < 3.0 for p in claiming):
            return []  # another service had the route at least until a moment ago: who is refused is owed nothing
        return [
            p
            for p in claiming
            if p.spec.service == service
            and p.host in below
            and p.wanted
            and p.healthy
            and p.renewing
            and p.since < now - 3.0
        ]


# ---------------------------------------------------------------------- 4


@check(4)
class StaticStability(Check):
    """A member leaves an engine's table only for a reason that its node was told, never because nobody could be reached."""

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ef.Apply):
                out = list(effect.delete_members)
                if effect.replace:
                    named = {member.key for member in effect.put_members}
                    out += [key for key in host.engine.members() if key not in named]
                for key in out:
                    self._justified(host, key)

    def _justified(self, host: Host, key: ev.MemberKey) -> None:
        world, now = self.world, self.world.clock.now
        if now - world.forgot_at.get(host.name, -1e9) < RECOVERY_S or host.balancer is None:
            return  # its disk was lost: it goes by what it is told again
        if key.target.startswith("n:"):
            child = key.target[2:]
            said = world.claimed.get((child, host.name), {}).get(key.claim)
            if said is None or said.leaving or not said.capacity:
                return
            if now - world.network.edges[child, host.name].up_heard >= world.shape.presumed_s:
                return
        else:
            process = host.processes.get(key.target[2:])
            if process is None or not (process.alive and process.healthy and process.renewing):
                return
            known = host.balancer.instance(process.id)
            if known is None or known["state"] in ("draining", "drained") or not known["healthy"]:
                return
        if host.balancer.tree()["stopping"]:
            return
        if self._permitted(host, key.claim):
            raise self.broken(f"{host.name} takes {key.target} out of {text_of(key.claim)} without a reason")
        if world.cut_off(host.name):
            raise self.broken(f"{host.name}, cut off from its parents, closes {text_of(key.claim)} ({key.target})")

    @staticmethod
    def _permitted(host: Host, key: ClaimKey) -> bool:
        assert host.balancer is not None
        service = host.balancer.service(key.service)
        if service is None:
            return False
        return any(
            claim["route"] == key.route and claim["state"] == ACTIVE
            for version in service["versions"]
            if version["version"] == key.version
            for claim in version["claims"]
        )


# ---------------------------------------------------------------------- 7


@check(7)
class ConstantCost(Check):
    """State is bounded by children x claim keys; what happens to one service causes messages about that service only."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._timers = False  # some run out in this step, about whatever they are about

    def before_step(self, host: Host, events: list[ev.Event]) -> None:
        assert host.balancer is not None
        wake = host.balancer.wake_at()
        self._timers = wake is not None and wake <= host.now

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        assert host.balancer is not None
        self._size(host)
        touched = self._touched(events)
        if touched is None or self._timers:
            return
        for effect in effects:
            match effect:
                case ef.ToParent(_, UpState() as up):
                    told = {claim.key.service for claim in up.claims} | {key.service for key in up.withdrawn}
                case ef.ToChild(_, DownState() as down):
                    told = {verdict.key.service for verdict in down.verdicts} | {
                        ack.key.service for ack in down.drained
                    }
                case _:
                    continue
            if not told <= touched:
                raise self.broken(f"{host.name} heard of {sorted(touched)} and tells about {sorted(told - touched)}")

    def _size(self, host: Host) -> None:
        assert host.balancer is not None
        world = self.world
        keys = world.keys
        children = len(world.shape.children[host.name])
        sizes = host.balancer.sizes()
        local = sizes["instances"] * world.routes_max
        bounds = {
            "slots": len(keys),
            "sources": len(keys) * children + local,
            "told": len(keys) * children,
            "claimed": len(keys) * len(host.parents),
            "children": children,
            "table": 3 * (len(keys) * children + local) + 2 * len(keys),
        }
        for name, bound in bounds.items():
            if sizes[name] > bound:
                raise self.broken(f"{host.name} holds {sizes[name]} {name}; its children and services explain {bound}")

    def _touched(self, events: list[ev.Event]) -> set[str] | None:
        """The services that these events are about, and those that share a route with them; None: about all."""
        services: set[str] = set()
        for event in events:
            match event:
                case ev.ChildMessage(_, UpState(full=False) as up) if up.seq > 1:
                    services |= {claim.key.service for claim in up.claims} | {key.service for key in up.withdrawn}
                    services |= {doc.service for doc in up.policies}
                case ev.ParentMessage(_, DownState(full=False) as down) if down.seq > 1:
                    services |= {v.key.service for v in down.verdicts} | {a.key.service for a in down.drained}
                    services |= {doc.service for doc in down.policies}
                case ev.InstancePut(spec):
                    services.add(spec.service)
                case ev.InstanceHealth(id) | ev.InstanceRemove(id) | ev.InstanceDrain(id) | ev.InstanceGone(id):
                    if id in self.world.processes:
                        services.add(self.world.processes[id].spec.service)
                case _:
                    return None
        return services | {other for service in services for other in self.world.sharing.get(service, ())}


# ---------------------------------------------------------------------- 8


@check(8)
class AuthoritySurvives(Check):
    """What a node lets be active is on its disk before anybody hears of it, and it never goes back to an older generation."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        # (node, service) -> generation, versions, when
        self._acted: dict[tuple[str, str], tuple[int, set[str], float]] = {}

    def on_told(self, host: Host, message: DownMessage) -> None:
        if isinstance(message, DownState):
            for verdict in message.verdicts:
                if verdict.state == ACTIVE:
                    self._on_disk(host, verdict.key)
                    self._not_older(host, verdict.key, verdict.generation)

    def after_step(self, host: Host, events: list[ev.Event], effects: list[ef.Effect]) -> None:
        written: dict[str, object] = {}
        for effect in effects:
            match effect:
                case ef.Persist(puts, durable=True):
                    written = puts
                case ef.Apply(replace=False):  # a new engine also gets what is just being closed
                    for member in effect.put_members:
                        self._on_disk(host, member.key.claim, written)
                case _:
                    pass

    def _on_disk(self, host: Host, key: ClaimKey, written: dict[str, object] | None = None) -> None:
        name = f"permit/{text_of(key)}" if host.parents else f"service/{key.service}"
        value = (written or {}).get(name, host.disk.get(name))
        if host.parents:
            held = value is not None
        else:
            held = isinstance(value, dict) and key.version in value["active"]
        if not held:
            raise self.broken(f"{host.name} lets {text_of(key)} be active, and it isn't on its disk")

    def _not_older(self, host: Host, key: ClaimKey, generation: int) -> None:
        known, versions, since = self._acted.get((host.name, key.service), (0, set[str](), 0.0))
        forgot = max(self.world.forgot_at.get(name, -1e9) for name in (host.name, *self.world.shape.roots))
        if since < forgot or self.world.clock.now - forgot < RECOVERY_S:
            known, versions = 0, set[str]()  # its disk or a root's was lost: what was decided is gone with it
        if generation < known:
            rival = next(
                (v for v in sorted(versions) if not self.world.compatible_versions(key.service, v, key.version)), None
            )
            if rival is not None:
                raise self.broken(
                    f"{host.name} lets {text_of(key)} be active in generation {generation}; it had been at {rival} in "
                    f"generation {known}"
                )
            return
        if generation > known:
            versions = set[str]()
        self._acted[host.name, key.service] = generation, versions | {key.version}, self.world.clock.now
