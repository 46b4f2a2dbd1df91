"""Requests: each walks from an entry to an instance, hop by hop, by the engines' tables at that time.

It follows the real engines. The entry picks the version and stamps the request. A tier below picks among the endpoints of
that group, or answers "not here", and the tier above retries elsewhere. If there is no endpoint, the entry parks the request
or fails it.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct, field

from sdlb.core.effects import RoutePut
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey
from sdlb.model.route import Pattern
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.host import Host
    from sdlb.sim.world import World

HOP_S = (0.0002, 0.003)
PARKED_LOOK_S = 0.02


class Hop(Struct):
    """An engine on the path: the endpoint of the last attempt, and those of earlier attempts."""

    host: Host
    boot: int
    endpoint: EndpointKey | None = None
    tried: set[str] = field(default_factory=set[str])


class Request(Struct):
    number: int
    route: str
    name: str  # host of the URL
    path: str
    started: float
    hold_s: float
    key: ClaimKey | None = None
    hops: list[Hop] = field(default_factory=list[Hop])
    tried: set[ClaimKey] = field(default_factory=set[ClaimKey])
    parked_until: float = 0.0
    over: bool = False


@lru_cache(maxsize=4096)
def _pattern(text: str) -> Pattern:
    return Pattern.parse(text)


class Traffic:
    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._count = 0
        self._carried: dict[int, tuple[Request, Process]] = {}
        self._carriers: dict[int, Process] = {}  # request -> the instance that it is on its way to
        self.outcomes: Counter[str] = Counter()
        self.longest_s = 0.0

    # ------------------------------------------------------------------ a request

    def send(self, entry: Host, route: str, hold_s: float) -> None:
        name, _, rest = route.partition("/")
        path = "/" + rest.rstrip("*") + "x"
        self._count += 1
        request = Request(self._count, route, name.replace("*", "www"), path, self._world.clock.now, hold_s)
        request.hops.append(Hop(entry, entry.engine.boot))
        self._pick(request)

    def _pick(self, request: Request) -> None:
        """At the entry: the route, then a version by the route's picks."""
        entry = request.hops[0]
        if self._gone(request, entry):
            return
        route = self._route(entry.host, request)
        if route is None:
            self._fail(request, "no route")
            return
        groups = entry.host.engine.groups
        ready: dict[int, list[tuple[ClaimKey, int]]] = {}
        for pick in route.picks:
            key = ClaimKey(route.service, pick.version, route.pattern)
            if groups.get(key) and key not in request.tried:
                ready.setdefault(pick.tier, []).append((key, pick.weight))
        if not ready:
            self._park(request, route)
            return
        keys = ready[min(ready)]
        weights = [weight or sum(m.capacity for m in groups[key].values()) for key, weight in keys]
        request.key = self._rng.choices([key for key, _ in keys], weights)[0]
        entry.tried.clear()
        self._world.on_pick(entry.host, request.key)
        self._forward(request)

    def _park(self, request: Request, route: RoutePut) -> None:
        now = self._world.clock.now
        if not route.park_requests_max:
            self._fail(request, "no endpoint")
            return
        if not request.parked_until:
            request.parked_until = now + route.park_timeout_s
            self._world.coverage.happened["requests parked"] += 1
        if now >= request.parked_until:
            self._fail(request, "parked too long")
            return
        request.tried.clear()
        self._world.clock.after(PARKED_LOOK_S, lambda: self._pick(request))

    def _route(self, entry: Host, request: Request) -> RoutePut | None:
        matching = [p for p in entry.engine.routes if _pattern(p).matches(request.name, request.path)]
        if not matching:
            return None
        return entry.engine.routes[max(matching, key=lambda p: _pattern(p).specificity)]

    # ------------------------------------------------------------------ one hop

    def _forward(self, request: Request) -> None:
        """From the last hop to one of its endpoints of the stamped group."""
        hop, key = request.hops[-1], request.key
        assert key is not None
        if self._gone(request, hop):
            return
        group = hop.host.engine.groups.get(key, {})
        left = [target for target in group if target not in hop.tried]
        usual = [target for target in left if not group[target].last_resort]
        if not left:
            self._not_here(request)
            return
        target = self._rng.choice(usual or left)
        hop.endpoint = EndpointKey(key, target)
        hop.host.engine.begin(hop.endpoint)
        if target.startswith("i:"):
            process = hop.host.process_at(hop.endpoint)  # by the address that the target has now
            if process is not None:
                self._carriers[request.number] = process
        self._world.clock.after(self._rng.uniform(*HOP_S), lambda: self._arrive(request, target))

    def _arrive(self, request: Request, target: str) -> None:
        hop = request.hops[-1]
        if self._gone(request, hop):
            return
        if target.startswith("n:"):
            child = self._world.at(hop.host, target)
            if child is None or not child.engine.up or any(other.host is child for other in request.hops):
                self._elsewhere(request)  # a node that has moved may be below itself, until the last has heard of it
                return
            request.hops.append(Hop(child, child.engine.boot))
            self._forward(request)
            return
        process = self._carriers.pop(request.number, None)
        if process is None or not process.alive:
            assert request.key is not None
            self._world.figures.failed(hop.host, request.key.service, request.key.version)
            self._elsewhere(request)
            return
        process.carried += 1
        process.carried_at = self._world.clock.now
        self._carried[request.number] = (request, process)
        self._world.clock.after(request.hold_s, lambda: self._answer(request, process))

    def _not_here(self, request: Request) -> None:
        """The last hop has no endpoint for the stamp: the hop before retries elsewhere, or the entry picks another version."""
        if len(request.hops) == 1:
            assert request.key is not None
            request.tried.add(request.key)
            self._pick(request)
            return
        request.hops.pop()
        self._elsewhere(request)

    def _elsewhere(self, request: Request) -> None:
        hop = request.hops[-1]
        assert hop.endpoint is not None
        self._end(hop)
        hop.tried.add(hop.endpoint.target)
        self._forward(request)

    # ------------------------------------------------------------------ endings

    def _answer(self, request: Request, process: Process) -> None:
        if not request.over:
            process.carried -= 1
            process.carried_at = self._world.clock.now
            self._world.figures.answered(request.hops[-1].host, process.spec.service, process.version)
            self._finish(request, "answered")

    def _gone(self, request: Request, hop: Hop) -> bool:
        """Whether the engine that held the request has crashed since."""
        if request.over:
            return True
        if hop.host.engine.up and hop.host.engine.boot == hop.boot:
            return False
        self._finish(request, "engine crashed")
        return True

    def _fail(self, request: Request, why: str) -> None:
        self._finish(request, why)
        self._world.on_lost(request, why)

    def _finish(self, request: Request, outcome: str) -> None:
        request.over = True
        self._carried.pop(request.number, None)
        self._carriers.pop(request.number, None)
        for hop in request.hops:
            if hop.endpoint is not None and hop.host.engine.boot == hop.boot:
                self._end(hop)
        self.outcomes[outcome] += 1
        self.longest_s = max(self.longest_s, self._world.clock.now - request.started - request.hold_s)

    def _end(self, hop: Hop) -> None:
        assert hop.endpoint is not None
        if hop.endpoint in hop.host.engine.draining or hop.endpoint in hop.host.engine.in_flight:
            hop.host.engine.end(hop.endpoint)
            hop.host.tell_drained()

    def process_ended(self, process: Process) -> None:
        for request, carrier in list(self._carried.values()):
            if carrier is process:
                self._world.figures.failed(request.hops[-1].host, process.spec.service, process.version)
                self._finish(request, "instance died")
        process.carried = 0

    def engine_crashed(self, host: Host) -> None:
        for request, process in list(self._carried.values()):
            if any(hop.host is host for hop in request.hops):
                process.carried -= 1
                self._finish(request, "engine crashed")
