"""A small tree of `Balancer`s in one process, for tests of the core: messages arrive in order, when the test runs them.

Nothing is hidden: the engine here keeps exactly what `Apply` has, and confirms when it is run. One step is one event
at one node, so that a test can interrupt anything anywhere (`interruptions`), and look after every step (`watch`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from zlib import crc32

from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey, Hello, UpMessage, UpState
from sdlb.model.instance import InstanceSpec
from sdlb.model.version import Compatibility
from tests.core.node import Node

ROUTE = "example.com/*"
RULES = Compatibility()


def key_of(version: str, service: str = "catalog", route: str = ROUTE) -> ClaimKey:
    return ClaimKey(service, version, route)


class Forest:
    """`topology`: node -> parents. Time stands still except in `run(seconds)`. `timing`: of all nodes, as in `Settings`."""

    def __init__(self, topology: dict[str, tuple[str, ...]], **timing: float) -> None:
        self.now = 1000.0
        self.timing = timing
        self.nodes = {name: Node(self, name, parents) for name, parents in topology.items()}
        self.also: dict[str, str] = {}  # further addresses of nodes
        self.links: dict[int, tuple[str, str]] = {}  # link -> (child, parent as it was dialled)
        self.cut: set[frozenset[str]] = set()
        self.watch: list[Callable[[], None]] = []  # called after every step
        self._count = 0
        self._turn: deque[str] = deque(self.nodes)
        for node in self.nodes.values():
            node.start()
        self.run(1.0)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[self.also.get(name, name)]

    def add(self, address: str, *parents: str) -> Node:
        node = self.nodes[address] = Node(self, address, parents)
        self._turn.append(address)
        return node

    def clone(self, original: str, address: str) -> Node:
        """A machine that was made from a copy of another one's disk."""
        source, node = self[original], self.add(address, *self[original].parents)
        node.name, node.node_id, node.incarnation, node.disk = (
            source.name,
            source.node_id,
            source.incarnation,
            dict(source.disk),
        )
        node.start()
        return node

    # ------------------------------------------------------------------ network

    def is_cut(self, child: str, parent: str) -> bool:
        return frozenset((child, parent)) in self.cut

    def dial(self, child: Node, parent: str) -> None:
        if not self[parent].alive or self.is_cut(child.address, parent):
            child.inbox.append(ev.ParentClosed(parent, "connection refused"))
            return
        self._count += 1
        self.links[self._count] = (child.address, parent)
        child.up[parent] = self._count
        child.inbox.append(ev.ParentConnected(parent, f"10.0.0.{1 + list(self.nodes).index(child.address)}:80"))

    def send_up(self, child: Node, parent: str, message: UpMessage) -> None:
        link = child.up.get(parent, 0)
        if link not in self.links or self.is_cut(child.address, parent):
            return
        if isinstance(message, UpState):
            message = replace(message, claims=tuple(said for claim in message.claims for said in child.lie(claim)))
        message = child.forge(message)
        if isinstance(message, Hello):
            self[parent].inbox.append(ev.ChildConnected(link, message))
        else:
            self[parent].inbox.append(ev.ChildMessage(link, message))

    def send_down(self, parent: Node, link: int, message: object) -> None:
        if link not in self.links or self.is_cut(*self.links[link]):
            return
        child, dialled = self.links[link]
        if self.nodes[child].up.get(dialled) != link:
            return  # of a process that is gone
        self.nodes[child].inbox.append(ev.ParentMessage(dialled, message))  # type: ignore[arg-type]

    def close(self, link: int, told: str) -> None:
        if link not in self.links:
            return
        child, parent = self.links.pop(link)
        if self.nodes[child].up.get(parent) == link:  # else of a process that is gone
            del self.nodes[child].up[parent]
            if told != child and self.nodes[child].alive:
                self.nodes[child].inbox.append(ev.ParentClosed(parent, "closed"))
        if told != self[parent].address and self[parent].alive:
            self[parent].inbox.append(ev.ChildClosed(link))

    def break_links(self, address: str) -> None:
        for link, (child, parent) in list(self.links.items()):
            if address in (child, self[parent].address):
                self.close(link, told=address)

    def part(self, one: str, other: str) -> None:
        """The network between two nodes is gone, and so is the link."""
        self.cut.add(frozenset((one, other)))
        for link, (child, parent) in list(self.links.items()):
            if {child, self[parent].address} == {one, other}:
                del self.links[link]
                del self.nodes[child].up[parent]
                self.nodes[child].inbox.append(ev.ParentClosed(parent, "broken"))
                self[parent].inbox.append(ev.ChildClosed(link))

    # ------------------------------------------------------------------ time

    def step(self) -> bool:
        """Handles one event at the next node that has one. False: no node has an event."""
        for _ in range(len(self._turn)):
            node = self.nodes[self._turn[0]]
            self._turn.rotate(-1)
            if node.inbox and node.alive:
                node.handle(node.inbox.popleft())
                for look in self.watch:
                    look()
                return True
            node.inbox.clear()  # of a dead one
        return False

    def settle(self) -> None:
        """Runs until no node has an event."""
        for _ in range(10_000):
            if not self.step():
                return
        raise AssertionError("the forest never comes to rest")

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.settle()
        while self.now < end:
            self.tick(min(end - self.now, 0.25))
            self.settle()

    def tick(self, seconds: float) -> None:
        """Time passes. What the nodes send is not delivered yet."""
        self.now += seconds
        for node in self.nodes.values():
            if node.alive:
                node.handle(ev.Tick())

    # ------------------------------------------------------------------ services

    def put(
        self,
        host: str,
        instance_id: str,
        version: str,
        route: str = ROUTE,
        *,
        owner: str = "",
        healthy: bool = True,
        settle: bool = True,
        listeners: frozenset[str] = frozenset(),
        **spec: object,
    ) -> None:
        port = 1000 + crc32(instance_id.encode()) % 60_000
        fields: dict[str, object] = {"service": "catalog", "ttl_s": 0.0, "endpoint": f"127.0.0.1:{port}", **spec}
        whole = InstanceSpec(id=instance_id, version=version, routes=(route,), **fields)  # type: ignore[arg-type]
        self[host].inbox.append(ev.InstancePut(whole, healthy, owner, listeners))
        if settle:
            self.settle()

    def remove(self, host: str, instance_id: str, deadline_s: float = 30.0, *, settle: bool = True) -> None:
        self[host].inbox.append(ev.InstanceRemove(instance_id, deadline_s))
        if settle:
            self.settle()

    def policy(self, root: str, body: str, service: str = "catalog") -> None:
        self[root].inbox.append(ev.PolicyPut(service, body.encode()))
        self.settle()

    def finish(self, node: str, endpoint: ev.EndpointKey) -> None:
        """The requests in flight through this endpoint end."""
        engine = self[node].engine
        engine.in_flight.pop(endpoint, None)
        self[node].inbox.extend(engine.drained())
        self.settle()

    # ------------------------------------------------------------------ what a request would see

    def endpoints(self, entry: str, key: ClaimKey) -> set[str]:
        """The instances that a request for `key` may reach from this node's engine, as "host/target"."""
        found: set[str] = set()
        for target in self[entry].serves(key):
            found |= self._behind(entry, key, target)
        return found

    def _behind(self, entry: str, key: ClaimKey, target: str) -> set[str]:
        if target.startswith("i:"):
            return {f"{entry}/{target}"}
        address = self[entry].engine.targets[target].address
        index = int(address.split(".")[-1].split(":")[0]) - 1
        return self.endpoints(list(self.nodes)[index], key)

    def no_dead_end(self, *entries: str) -> None:
        """Make before break, break after the parents let go: what the engine of an entry (without names: of any node)
        forwards to has the request's version."""
        for name in entries or self.nodes:
            for endpoint in self[name].engine.endpoints:
                assert self._behind(name, endpoint.claim, endpoint.target), f"{name} sends {endpoint} nowhere"

    def one_generation(self, *apart: str, rules: Compatibility = RULES) -> None:
        """Promise 1, over the engines of all nodes but those `apart`."""
        served: dict[tuple[str, str], dict[str, str]] = {}
        for name, node in self.nodes.items():
            for endpoint in node.engine.endpoints if name not in apart else ():
                if endpoint.target.startswith("i:"):
                    service, version, route = endpoint.claim
                    served.setdefault((service, route), {})[version] = name
        for place, versions in served.items():
            for one in versions:
                for other in versions:
                    assert rules.compatible(one, other), f"{place}: {one} and {other} at once, {versions}"


Story = Callable[[], Forest]
Act = Callable[[Forest], None]


def interruptions(
    story: Story, act: Act, victims: Iterable[str], harm: Callable[[Node], None] = Node.restart
) -> Iterator[tuple[str, Forest]]:
    """One forest for every step that `act` leads to and every victim: there the victim was harmed (killed with kill -9
    and started again), and nothing has happened since. With a name, for messages."""
    for victim in victims:
        at = 0
        while True:
            forest = story()
            act(forest)
            if not all(forest.step() for _ in range(at)):
                break
            harm(forest[victim])
            yield f"{victim} at step {at}", forest
            at += 1
        assert at > 3, "there was nothing to interrupt"
