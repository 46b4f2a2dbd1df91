"""A scenario to explore: a small tree, its instances, actions of operators (each once, at any time), numbers of faults."""

from __future__ import annotations

from msgspec import Struct, field

from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.model.role import Program, RoleService

NO_CHECK = HealthCheck("none")
ROUTE = "shop.example/*"
ROLE = "web"


class Instance(Struct, frozen=True):
    """An instance on `host`. One with the same `id` as an earlier one is the same instance, registered again. One with a `place`
    is a program that the agent of the host may start there."""

    id: str
    host: str
    version: str
    service: str = "catalog"
    route: str = ROUTE
    compatible: tuple[str, ...] = ()
    ttl_s: float = 0.0  # of its lease
    place: str = ""

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


class Action(Struct, frozen=True):
    """An action of an operator or a program at `node`.

    `kind`: "put" (an instance registers), "remove" (it asks to leave), "gone" (its process dies), "move" (the node comes
    back below other `parents`, or as a root), "stop" (the node leaves; it may be started again), "restore" (control is
    stopped, and starts with the state folder of the start of the scenario), "lapse" (the instance is no longer renewed),
    "forget" (`subject`: a child that has stopped), "policy" (`subject`: the document), "approve", "promote" (`subject`:
    service, version, for an approval the gate, and who), "rollout" (`subject`: as for `core.rollout`).
    `after`: numbers of actions that must have been taken before.
    """

    kind: str
    node: str
    subject: str = ""
    parents: tuple[str, ...] = ()
    after: tuple[int, ...] = ()
    instance: int = -1  # of `Scenario.instances`


class Faults(Struct, frozen=True):
    """Numbers of faults of each kind on one path, and the nodes where they happen (empty: all; for a link, its lower end)."""

    kill: int = 0  # control of a node, also in the middle of a step; its links are closed
    reset: int = 0  # a link breaks, and both ends notice
    cut: int = 0  # nothing passes between two nodes any more, and neither end notices
    engine: int = 0  # an engine crashes
    detach: int = 0  # the connection between control and engine breaks; a delta that is on its way is lost
    power: int = 0  # a machine loses power: control, engine, instances, what was not written durably
    at: tuple[str, ...] = ()


class Scenario(Struct, frozen=True):
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
    roles: tuple[str, ...] = ()  # hosts that run the service "catalog" in a role
    releases: tuple[str, ...] = ()  # its versions; a rollout of the first one is over at the start
    bad: tuple[str, ...] = ()  # versions that cannot be started
    side_by_side: bool = True  # whether a host can run two of them

    def role(self) -> RoleService:
        run = Program(("./catalog", "--port", "{port}"))
        return RoleService(ROLE, "catalog", run, (ROUTE,), NO_CHECK, side_by_side=self.side_by_side)


def programs(hosts: tuple[str, ...], versions: tuple[str, ...]) -> tuple[Instance, ...]:
    """The instances that agents of these hosts may register."""
    return tuple(
        Instance(f"catalog-{version}.{host}.{ROLE}-{place}", host, version, place=place)
        for host in hosts
        for version in versions
        for place in ("a", "b")
    )
