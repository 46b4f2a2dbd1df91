"""A small tree of `Balancer`s in one process, for tests of the core: messages arrive in order, when the test says so.

Nothing is hidden: the engine here keeps exactly what `Apply` told it, and confirms when it is run.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.balancer import Balancer
from sdlb.core.messages import ClaimKey
from sdlb.core.settings import Settings
from sdlb.model.instance import InstanceSpec


@dataclass
class Engine:
    boot: int = 1
    epoch: int = 0
    members: dict[ev.MemberKey, ef.MemberPut] = field(default_factory=dict)
    routes: dict[str, ef.RoutePut] = field(default_factory=dict)
    targets: dict[str, ef.TargetPut] = field(default_factory=dict)
    in_flight: dict[ev.MemberKey, int] = field(default_factory=dict)
    draining: dict[ev.MemberKey, int] = field(default_factory=dict)

    def apply(self, delta: ef.Apply) -> list[ev.Event]:
        assert delta.epoch > self.epoch
        self.epoch = delta.epoch
        deleted = list(delta.delete_members)
        if delta.replace:
            named = {member.key for member in delta.put_members}
            deleted += [key for key in self.members if key not in named]
            self.routes = {}
        self.targets.update((target.key, target) for target in delta.put_targets)
        for member in delta.put_members:
            self.members[member.key] = member
            self.draining.pop(member.key, None)
        for route in delta.put_routes:
            self.routes[route.pattern] = route
        for pattern in delta.delete_routes:
            del self.routes[pattern]
        out: list[ev.Event] = [ev.EngineApplied(delta.epoch)]
        for key in deleted:
            del self.members[key]
            self.draining[key] = delta.epoch
        return out + self.drained()

    def drained(self) -> list[ev.Event]:
        done = [key for key in self.draining if not self.in_flight.get(key)]
        return [ev.EngineDrained(key, self.draining.pop(key)) for key in done]


class Node:
    def __init__(self, forest: Forest, name: str, parents: tuple[str, ...]) -> None:
        self.forest = forest
        self.name = name
        self.parents = parents
        self.disk: dict[str, object] = {}
        self.engine = Engine()
        self.incarnation = 0
        self.inbox: deque[ev.Event] = deque()
        self.up: dict[str, int] = {}  # parent -> link
        self.notes: list[ef.Note] = []
        self.answered: list[ef.Answered] = []
        self.stopped: ef.Stopped | None = None
        self.alive = False

    def start(self) -> None:
        self.incarnation += 1
        self.alive = True
        settings = Settings(self.name, f"id-{self.name}", self.incarnation, self.parents)
        self.balancer = Balancer(settings, dict(self.disk), Random(self.name))
        self.carry_out(self.balancer.start(self.forest.now))
        draining = tuple((key, self.engine.in_flight.get(key, 0)) for key in self.engine.draining)
        self.inbox.append(
            ev.EngineAttached(f"boot-{self.engine.boot}", self.engine.epoch, len(self.engine.members), draining)
        )

    def kill(self) -> None:
        """kill -9 of control: the engine goes on."""
        self.alive = False
        self.inbox.clear()
        self.forest.break_links(self.name)

    def handle(self, *events: ev.Event) -> None:
        self.carry_out(self.balancer.handle_all(events, self.forest.now))

    def carry_out(self, effects: list[ef.Effect]) -> None:
        for effect in effects:
            match effect:
                case ef.Persist():
                    for key, value in effect.puts.items():
                        if value is None:
                            self.disk.pop(key, None)
                        else:
                            self.disk[key] = value
                case ef.Apply():
                    self.inbox.extend(self.engine.apply(effect))
                case ef.Dial():
                    self.forest.dial(self, effect.parent)
                case ef.ToParent():
                    self.forest.send_up(self, effect.parent, effect.message)
                case ef.ToChild():
                    self.forest.send_down(self, effect.link, effect.message)
                case ef.HangUp():
                    self.forest.close(self.up.pop(effect.parent, 0), told=self.name)
                case ef.DropChild():
                    self.forest.close(effect.link, told=self.name)
                case ef.Note():
                    self.notes.append(effect)
                case ef.Execute():
                    self.inbox.append(ev.AskDone(effect.id, 200, f"{effect.method} {effect.path}".encode()))
                case ef.Answered():
                    self.answered.append(effect)
                case ef.Stopped():
                    self.stopped = effect
                case ef.Changed():
                    pass

    def versions(self, service: str) -> dict[str, str]:
        found = self.balancer.service(service)
        return {} if found is None else {v["version"]: v["state"] for v in found["versions"]}

    def serves(self, key: ClaimKey) -> set[str]:
        return {member.target for member in self.engine.members if member.claim == key}


class Forest:
    """`topology`: node -> parents. Time stands still except in `run(seconds)`."""

    def __init__(self, topology: dict[str, tuple[str, ...]]) -> None:
        self.now = 1000.0
        self.nodes = {name: Node(self, name, parents) for name, parents in topology.items()}
        self.links: dict[int, tuple[str, str]] = {}  # link -> (child, parent)
        self.cut: set[frozenset[str]] = set()
        self._count = 0
        for node in self.nodes.values():
            node.start()
        self.run(1.0)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    # ------------------------------------------------------------------ network

    def dial(self, child: Node, parent: str) -> None:
        if not self.nodes[parent].alive or frozenset((child.name, parent)) in self.cut:
            child.inbox.append(ev.ParentClosed(parent, "connection refused"))
            return
        self._count += 1
        self.links[self._count] = (child.name, parent)
        child.up[parent] = self._count
        child.inbox.append(ev.ParentConnected(parent, f"10.0.0.{1 + list(self.nodes).index(child.name)}:80"))

    def send_up(self, child: Node, parent: str, message: object) -> None:
        link = child.up.get(parent, 0)
        if link not in self.links or frozenset((child.name, parent)) in self.cut:
            return
        if type(message).__name__ == "Hello":
            self.nodes[parent].inbox.append(ev.ChildConnected(link, message))
        else:
            self.nodes[parent].inbox.append(ev.ChildMessage(link, message))

    def send_down(self, parent: Node, link: int, message: object) -> None:
        if link in self.links and frozenset(self.links[link]) not in self.cut:
            self.nodes[self.links[link][0]].inbox.append(ev.ParentMessage(parent.name, message))

    def close(self, link: int, told: str) -> None:
        if link not in self.links:
            return
        child, parent = self.links.pop(link)
        if self.nodes[child].up.get(parent) == link:
            del self.nodes[child].up[parent]
        if told != child and self.nodes[child].alive:
            self.nodes[child].inbox.append(ev.ParentClosed(parent, "closed"))
        if told != parent and self.nodes[parent].alive:
            self.nodes[parent].inbox.append(ev.ChildClosed(link))

    def break_links(self, name: str) -> None:
        for link, ends in list(self.links.items()):
            if name in ends:
                self.close(link, told=name)

    # ------------------------------------------------------------------ time

    def settle(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(100_000):
            busy = [node for node in self.nodes.values() if node.inbox]
            if not busy:
                return
            for node in busy:
                if node.inbox:
                    event = node.inbox.popleft()
                    if node.alive:
                        node.handle(event)
        raise AssertionError("the forest never comes to rest")

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.settle()
        while self.now < end:
            self.now = min(end, self.now + 0.25)
            for node in self.nodes.values():
                if node.alive:
                    node.handle(ev.Tick())
            self.settle()

    # ------------------------------------------------------------------ services

    def put(self, host: str, instance_id: str, version: str, route: str = "example.com/*", **spec: object) -> None:
        fields: dict[str, object] = {"service": "catalog", "ttl_s": 1e9, **spec}
        whole = InstanceSpec(id=instance_id, version=version, routes=(route,), endpoint="127.0.0.1:1", **fields)  # type: ignore[arg-type]
        self[host].inbox.append(ev.InstancePut(whole, stamp=round(self.now * 1e6)))
        self.settle()

    def remove(self, host: str, instance_id: str, deadline_s: float = 30.0) -> None:
        self[host].inbox.append(ev.InstanceRemove(instance_id, deadline_s))
        self.settle()
