"""A scenario to explore: a small tree, its instances, actions of operators (each once, at any time), numbers of faults."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdlb.model.instance import HealthCheck, InstanceSpec

NO_CHECK = HealthCheck("none")
ROUTE = "shop.example/*"


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance on `host`. One with the same `id` as an earlier one is the same instance, registered again."""

    id: str
    host: str
    version: str
    service: str = "catalog"
    route: str = ROUTE
    compatible: tuple[str, ...] = ()
    ttl_s: float = 0.0  # of its lease

    def spec(self) -> InstanceSpec:
        return InstanceSpec(
            self.id,
            self.service,
            self.version,
            (self.route,),
            f"127.0.0.1:{8000 + sum(map(ord, self.version))}",
            compatible=self.compatible,
            health=NO_CHECK,
            ttl_s=self.ttl_s,
        )


@dataclass(frozen=True, slots=True)
class Action:
    """An action of an operator or a program at `node`.

    `kind`: "put" (an instance registers), "remove" (it asks to leave), "gone" (its process dies), "move" (the node comes
    back below other `parents`, or as a root), "stop" (the node leaves; it may be started again), "restore" (control is
    stopped, and starts with the state folder of the start of the scenario), "lapse" (the instance is no longer renewed),
    "forget" (`subject`: a child that has stopped), "policy" (`subject`: the document), "approve", "promote" (`subject`:
    service, version, for an approval the gate, and who).
    `after`: numbers of actions that must have been taken before.
    """

    kind: str
    node: str
    subject: str = ""
    parents: tuple[str, ...] = ()
    after: tuple[int, ...] = ()
    instance: int = -1  # of `Scenario.instances`


@dataclass(frozen=True, slots=True)
class Faults:
    """Numbers of faults of each kind on one path, and the nodes where they happen (empty: all; for a link, its lower end)."""

    kill: int = 0  # control of a node, also in the middle of a step; its links are closed
    reset: int = 0  # a link breaks, and both ends notice
    cut: int = 0  # nothing passes between two nodes any more, and neither end notices
    engine: int = 0  # an engine crashes
    detach: int = 0  # the connection between control and engine breaks; a delta that is on its way is lost
    power: int = 0  # a machine loses power: control, engine, instances, what was not written durably
    at: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    text: str
    tree: dict[str, tuple[str, ...]]
    instances: tuple[Instance, ...]
    first: tuple[int, ...]  # numbers of instances that serve at the start
    actions: tuple[Action, ...]
    faults: Faults = field(default_factory=Faults)
    time: bool = True  # whether leases may run out
    wider: tuple[tuple[str, str], ...] = ()  # links that there may be later: (child, parent)
    alike: tuple[tuple[str, ...], ...] = ()  # nodes that differ only in their names
    policies: tuple[str, ...] = ()  # set at all roots before the first instance, in the form of the action
    answers: tuple[str, ...] = ("yes",)  # that a hook may give
