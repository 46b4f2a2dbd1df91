"""A model of an engine: it applies deltas as defined in `proto/engine.proto`, and counts requests in flight.

It refuses what the real engine would refuse, and it outlives control.
"""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey

CAPACITY_MAX = (1 << 32) - 1  # as proto/engine.proto has it


class BadDelta(Exception):
    """Control sent a delta that the real engine would refuse."""


class Engine:
    def __init__(self) -> None:
        self.boot = 1
        self.up = True
        self.epoch = 0
        self.groups: dict[ClaimKey, dict[str, ef.EndpointPut]] = {}
        self.routes: dict[str, ef.RoutePut] = {}
        self.targets: dict[str, ef.UpstreamPut] = {}
        self.targets_before: dict[str, ef.UpstreamPut] = {}  # the last delta
        self.services: dict[str, ef.ServicePut] = {}
        self.in_flight: dict[ev.EndpointKey, int] = {}
        self.draining: dict[ev.EndpointKey, int] = {}

    # ------------------------------------------------------------------ life

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def crash(self) -> None:
        """The process has exited: its table and its requests in flight are lost."""
        self.up = False
        self.boot += 1
        self.epoch = 0
        self.groups, self.routes, self.targets, self.services = {}, {}, {}, {}
        self.in_flight, self.draining = {}, {}

    def attached(self) -> ev.EngineAttached:
        endpoints = sum(len(group) for group in self.groups.values())
        draining = tuple((key, self.in_flight.get(key, 0)) for key in self.draining)
        return ev.EngineAttached(self.boot_id, self.epoch, endpoints, draining)

    # ------------------------------------------------------------------ deltas

    def apply(self, delta: ef.Apply) -> list[ev.EndpointKey]:
        """Applies a delta as a whole, or raises BadDelta. Returns the endpoints that were deleted."""
        if delta.epoch <= self.epoch:
            raise BadDelta(f"epoch {delta.epoch} after {self.epoch}")
        targets = {} if delta.replace else dict(self.targets)
        targets.update((target.key, target) for target in delta.put_upstreams)
        for endpoint in delta.put_endpoints:
            if endpoint.key.target not in targets:
                raise BadDelta(f"endpoint {endpoint.key} has no upstream")
            if not 1 <= endpoint.capacity <= CAPACITY_MAX:
                raise BadDelta(f"endpoint {endpoint.key} has a capacity of {endpoint.capacity}")
        for pattern in delta.delete_routes:
            if pattern not in self.routes:
                raise BadDelta(f"route {pattern} is not there to delete")
        for name in delta.delete_services:
            if name not in self.services:
                raise BadDelta(f"service {name} is not there to delete")
        out = list(delta.delete_endpoints)
        if delta.replace:
            named = {endpoint.key for endpoint in delta.put_endpoints}
            out += [key for key in self.endpoints() if key not in named]
            self.routes, self.services = {}, {}
        for key in out:
            if key.target not in self.groups.get(key.claim, {}):
                raise BadDelta(f"endpoint {key} is not there to delete")
        self.epoch = delta.epoch
        for key in out:
            group = self.groups[key.claim]
            del group[key.target]
            if not group:
                del self.groups[key.claim]
            self.draining[key] = delta.epoch
        for endpoint in delta.put_endpoints:
            self.groups.setdefault(endpoint.key.claim, {})[endpoint.key.target] = endpoint
            self.draining.pop(endpoint.key, None)
        for route in delta.put_routes:
            self.routes[route.pattern] = route
        for pattern in delta.delete_routes:
            del self.routes[pattern]
        for name in delta.delete_upstreams:
            targets.pop(name, None)
        self.services.update((put.name, put) for put in delta.put_services)
        for name in delta.delete_services:
            del self.services[name]
        self.targets_before, self.targets = self.targets, targets
        return out

    def endpoints(self) -> list[ev.EndpointKey]:
        return [ev.EndpointKey(claim, target) for claim, group in self.groups.items() for target in group]

    # ------------------------------------------------------------------ what it carries

    def begin(self, key: ev.EndpointKey) -> None:
        self.in_flight[key] = self.in_flight.get(key, 0) + 1

    def end(self, key: ev.EndpointKey) -> None:
        left = self.in_flight.get(key, 0) - 1
        if left > 0:
            self.in_flight[key] = left
        else:
            self.in_flight.pop(key, None)

    def drained(self) -> list[ev.EngineDrained]:
        """Deleted endpoints without requests in flight. Each is returned once."""
        done = [key for key in self.draining if key not in self.in_flight]
        return [ev.EngineDrained(key, self.draining.pop(key)) for key in done]
