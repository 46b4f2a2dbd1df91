"""What operators and programs do: start, renew, roll out, drain, crash, conflict, change policies; and what clients ask."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from random import Random

from sdlb.core import events as ev
from sdlb.core.messages import PolicyDoc
from sdlb.model.instance import InstanceSpec
from sdlb.sim.process import Process
from sdlb.sim.world import World

RENEW_S = 3.0
TTL_S = 10.0
ASK_AGAIN_S = 1.0


@dataclass(slots=True)
class Service:
    """`version`: (major, minor, patch) that new instances get."""

    name: str
    routes: tuple[str, ...]
    version: tuple[int, int, int] = (1, 0, 1)
    size: int = 3  # instances wanted
    rolling: bool = False
    ids: list[str] = field(default_factory=list[str])

    def text(self) -> str:
        return ".".join(str(n) for n in self.version)


class Workload:
    def __init__(self, world: World, rng: Random, services: int, pace_s: float, requests_s: float) -> None:
        self.world = world
        self.rng = rng
        self.pace_s = pace_s
        self.requests_s = requests_s
        self.leaves = world.shape.leaves
        self.roots = world.shape.roots
        self.services = [self._service(n) for n in range(services)]
        self.busy = True  # changes things
        self.asking = True  # sends requests
        self._count = 0

    def _service(self, n: int) -> Service:
        if n == 1:
            return Service("catalog-img", ("example.com/0/img*",), size=2)  # longer than that of the first
        routes = tuple(f"example.com/{n}{suffix}*" for suffix in ("", "-extra")[: self.rng.choice((1, 1, 2))])
        return Service(f"service-{n}", routes, size=self.rng.randint(2, 6))

    # ------------------------------------------------------------------ running

    def start(self) -> None:
        for service in self.services:
            for _ in range(service.size):
                self.world.clock.after(self.rng.uniform(3.0, 6.0), partial(self._start_one, service))
        self.world.clock.after(8.0, self._act)
        self.world.clock.after(9.0, self._ask)

    def _act(self) -> None:
        if self.busy:
            service = self.rng.choice(self.services)
            actions = (
                (self._roll_patch, 4),
                (self._roll_major, 2),
                (self._scale, 3),
                (self._policy, 2),
                (self._health, 2),
                (self._conflict, 1),
                (self._shorter_route, 1),
                (self._withdraw_all, 1),
            )
            self.rng.choices([a for a, _ in actions], [w for _, w in actions])[0](service)
        self.world.clock.after(self.rng.expovariate(1 / self.pace_s), self._act)

    def _ask(self) -> None:
        if self.asking and self.requests_s:
            service = self.rng.choice(self.services)
            near = self.world.hosts[self.rng.choice(self.roots if self.rng.random() < 0.7 else tuple(self.world.hosts))]
            if near.engine.up and near.powered and not near.leaving:
                hold = self.rng.choice((0.001, 0.01, 0.05, 2.5))
                self.world.traffic.send(near, self.rng.choice(service.routes), hold)
        self.world.clock.after(self.rng.expovariate(self.requests_s or 1.0), self._ask)

    # ------------------------------------------------------------------ instances

    def _mine(self, service: Service) -> list[Process]:
        return [p for p in self.world.by_service.get(service.name, {}).values() if p.wanted]

    def _start_one(self, service: Service, compatible: tuple[str, ...] = ()) -> Process | None:
        """`compatible`: what a version says of others, the first time that it is started; it says so ever after."""
        for _ in range(5):
            host = self.world.hosts[self.rng.choice(self.leaves)]
            if host.powered:
                break
        else:
            return None
        self._count += 1
        spec = InstanceSpec(
            id=f"{service.name}-{service.text()}-{self._count}",
            service=service.name,
            version=service.text(),
            routes=service.routes,
            endpoint=f"127.0.0.1:{1000 + self._count}",
            capacity=self.rng.choice((50, 100, 100)),
            ttl_s=self.rng.choice((0.0, TTL_S)),
            pid=self._count,
            compatible=self.world.declared.get((service.name, service.text()), compatible),
        )
        process = Process(host.name, spec, self.world.clock.now)
        self.world.spawn(process)
        self._renew(process)
        return process

    def _renew(self, process: Process) -> None:
        host = self.world.hosts[process.host]
        if not process.alive:
            return
        known = process.wanted or (host.balancer is not None and host.balancer.instance(process.id) is not None)
        if process.renewing and host.running and known:
            host.register(process)
        self.world.clock.after(self.rng.uniform(0.9, 1.1) * RENEW_S, lambda: self._renew(process))

    def _leave(self, process: Process, deadline_s: float) -> None:
        """SIGTERM to `sdlb run`: drain, deregister, and only then does the program end; or at the deadline all the same."""
        if process.wanted and process.alive:
            process.wanted = False
            process.leave_by = self.world.clock.now + deadline_s
            self.world.tell(process.host, f"{process.id} is to leave")
            self._see_off(process, self.world.clock.now + deadline_s)

    def _see_off(self, process: Process, until: float) -> None:
        host, now = self.world.hosts[process.host], self.world.clock.now
        if not process.alive:
            return
        known = host.balancer.instance(process.id) if host.running and host.balancer is not None else None
        paused = now < host.paused_until
        if now >= until + 1.0:
            if process.carried or self.world.is_member(process):
                self.world.harm("left at its deadline")
            self.world.end(process, "its drain took too long")
        elif host.running and not paused and known is None and not self.world.is_member(process):
            self.world.end(process, "drained")
        else:
            if host.running and not paused:
                host.take(ev.InstanceRemove(process.id, max(0.1, until - now)))
            self.world.clock.after(0.2, lambda: self._see_off(process, until))

    # ------------------------------------------------------------------ what operators do

    def _roll_patch(self, service: Service) -> None:
        """Instance by instance, the new one first: compatible."""
        if service.rolling:
            return
        major, minor, patch = service.version
        service.version = major, minor, max(0, patch + self.rng.choice((1, 1, 1, -1)))
        self._roll(service, self._mine(service))

    def _roll(self, service: Service, old: list[Process]) -> None:
        service.rolling = True
        for n, process in enumerate(old):

            def step(process: Process = process) -> None:
                if self.busy and process.alive and process.wanted:
                    new = self._start_one(service)
                    if new is not None:
                        self._follow(new, process)

            self.world.clock.after(n * self.rng.uniform(0.2, 1.5), step)
        self.world.clock.after(len(old) * 1.5 + 3.0, lambda: self._rolled(service))

    def _follow(self, new: Process, old: Process) -> None:
        """The old one leaves once the new one has been serving for a moment."""
        if new.served:
            self.world.clock.after(2.0, lambda: self._leave(old, 20.0))
        elif self.busy and new.alive and old.alive:
            self.world.clock.after(1.0, lambda: self._follow(new, old))

    def _rolled(self, service: Service) -> None:
        service.rolling = False

    def _roll_major(self, service: Service) -> None:
        """Incompatible: the new ones wait until the last of the old has gone. Sometimes back down again."""
        if service.rolling:
            return
        major, minor, _ = service.version
        service.version = self.rng.choice(((major + 1, 0, 0), (major, minor + 1, 0), (max(1, major - 1), minor, 5)))
        compatible: tuple[str, ...] = ()
        old = self._mine(service)
        if self.rng.random() < 0.2:
            compatible = (f">={major}.0.0",)  # the new ones say that they get along with the old
        service.rolling = True
        for _ in range(service.size):
            self._start_one(service, compatible=compatible)
        for n, process in enumerate(old):
            delay = 1.0 + n * self.rng.uniform(0.1, 1.0)
            self.world.clock.after(delay, lambda process=process: self._leave(process, 20.0))
        self.world.clock.after(len(old) + 4.0, lambda: self._rolled(service))

    def _scale(self, service: Service) -> None:
        mine = self._mine(service)
        if service.rolling:
            return
        if len(mine) < service.size or self.rng.random() < 0.5:
            self._start_one(service)
        elif len(mine) > 1:
            self._leave(self.rng.choice(mine), self.rng.choice((5.0, 20.0)))

    def _policy(self, service: Service) -> None:
        versions = sorted({p.version for p in self._mine(service)})
        data: dict[str, object] = {"priority": self.rng.choice(("even", "higher", "lower", "share"))}
        if data["priority"] == "share":
            data["shares"] = {version: self.rng.choice((0, 5, 50)) for version in versions[:1]}
        if self.rng.random() < 0.2:
            data["on_silence"] = self.rng.choice(("open", "wait"))
        text = json.dumps(data)
        for root in self.roots:
            host = self.world.hosts[root]
            if host.running:
                host.take(ev.PolicyPut(PolicyDoc(service.name, 0, "", text)))

    def _health(self, service: Service) -> None:
        """One of several turns unhealthy and comes back."""
        well = [p for p in self._mine(service) if p.healthy and p.served]
        if len(well) < 2:
            return
        process = self.rng.choice(well)
        process.healthy = False

        def recover() -> None:
            process.healthy = True
            process.since = self.world.clock.now

        self.world.clock.after(self.rng.uniform(1.0, 6.0), recover)

    def _conflict(self, service: Service) -> None:
        """Another service claims a route that is taken; refused for as long as its holder is there."""
        rival = Service(f"rival-{service.name}", service.routes[:1])
        process = self._start_one(rival)
        if process is not None:
            self.world.clock.after(self.rng.uniform(2.0, 10.0), lambda: self._leave(process, 5.0))

    def _shorter_route(self, service: Service) -> None:
        """A catch-all: what has a route of its own must not fall to it."""
        process = self._start_one(Service("catch-all", ("example.com/*",)))
        if process is not None:
            self.world.clock.after(self.rng.uniform(5.0, 20.0), lambda: self._leave(process, 5.0))

    def _withdraw_all(self, service: Service) -> None:
        if service.rolling or self.rng.random() < 0.5:
            return
        service.rolling = True
        for process in self._mine(service):
            self._leave(process, 10.0)

        def back() -> None:
            service.rolling = False
            if self.busy:
                for _ in range(service.size):
                    self._start_one(service)

        self.world.clock.after(self.rng.uniform(3.0, 12.0), back)
