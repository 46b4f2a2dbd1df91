"""The engine of a node as a frozen value. The simulator's model of an engine applies the deltas."""

from __future__ import annotations

from msgspec import Struct

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.sim.engine import Engine


class Table(Struct, frozen=True):
    """The table of an engine. `draining`: endpoint -> epoch of its deletion; its request in flight ends in its own step."""

    boot: int = 1
    epoch: int = 0
    endpoints: tuple[ef.EndpointPut, ...] = ()
    routes: tuple[ef.RoutePut, ...] = ()
    targets: tuple[ef.UpstreamPut, ...] = ()
    services: tuple[ef.ServicePut, ...] = ()
    draining: tuple[tuple[ev.EndpointKey, int], ...] = ()

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def keys(self) -> list[ev.EndpointKey]:
        return [endpoint.key for endpoint in self.endpoints]


def apply(table: Table, delta: ef.Apply) -> Table:
    """Raises `BadDelta` if the real engine would refuse the delta."""
    engine = Engine()
    engine.boot, engine.epoch = table.boot, table.epoch
    for endpoint in table.endpoints:
        engine.groups.setdefault(endpoint.key.claim, {})[endpoint.key.target] = endpoint
    engine.routes = {route.pattern: route for route in table.routes}
    engine.targets = {target.key: target for target in table.targets}
    engine.services = {service.name: service for service in table.services}
    engine.draining = dict(table.draining)
    engine.apply(delta)
    endpoints = [endpoint for group in engine.groups.values() for endpoint in group.values()]
    return Table(
        table.boot,
        engine.epoch,
        tuple(sorted(endpoints, key=lambda endpoint: endpoint.key)),
        tuple(engine.routes[pattern] for pattern in sorted(engine.routes)),
        tuple(engine.targets[key] for key in sorted(engine.targets)),
        tuple(engine.services[name] for name in sorted(engine.services)),
        tuple(sorted(engine.draining.items())),
    )


def drained(table: Table, key: ev.EndpointKey) -> Table:
    left = tuple(each for each in table.draining if each[0] != key)
    return Table(table.boot, table.epoch, table.endpoints, table.routes, table.targets, table.services, left)


def crashed(table: Table) -> Table:
    return Table(table.boot + 1)


def attached(table: Table) -> ev.EngineAttached:
    return ev.EngineAttached(
        table.boot_id, table.epoch, len(table.endpoints), tuple((key, 1) for key, _ in table.draining)
    )
