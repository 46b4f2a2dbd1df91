"""Actions of operators and programs (start, renew, roll out, drain, crash, conflict, change policies), and client requests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from msgspec import Struct, field

from sdlb.core.events import RolloutOrder
from sdlb.model.canary import Analysis, Step
from sdlb.model.rollout import HALTED, RolloutSpec
from sdlb.sim import bridge
from sdlb.sim.acts import TTL_S, Acts
from sdlb.sim.drivers import Flaw, role
from sdlb.sim.process import Process
from sdlb.sim.world import World

HOUR_S = 3600.0


class Service(Struct):
    """A service. `version`: (major, minor, patch) of new instances. `home`: the root of the tree in which it began."""

    name: str
    routes: tuple[str, ...]
    home: str
    version: tuple[int, int, int] = (1, 0, 1)
    size: int = 3  # instances wanted
    rolling: bool = False
    policy: dict[str, object] = field(default_factory=dict[str, object])
    declares: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])  # by version

    def text(self) -> str:
        return ".".join(str(n) for n in self.version)


class Shop(Struct):
    """A service that is managed by roles, and rolled out. `patch`, `major`: of the last version."""

    name: str
    route: str
    home: str
    major: int = 1
    patch: int = 0


class Workload:
    """`changes`: names of the changes that may happen, from `CHANGES`."""

    def __init__(
        self, world: World, rng: Random, services: int, pace_s: float, requests_s: float, changes: tuple[str, ...]
    ) -> None:
        self.world = world
        self.rng = rng
        self.acts = Acts(world, Random(rng.random()))
        self.pace_s = pace_s
        self.requests_s = requests_s
        self.changes = [CHANGES[name][0] for name in changes]
        self.weights = [CHANGES[name][1] for name in changes]
        trees: dict[int, str] = {}
        for root in world.shape.roots:
            trees.setdefault(world.shape.tree_of(root), root)
        self.services = [self._service(n, home) for home in trees.values() for n in range(services)]
        self.shops: list[Shop] = []
        if "ship" in changes or "canary" in changes:
            self.shops = [shop for home in trees.values() if (shop := self._shop(home)) is not None]
        self.busy = True  # changes things
        self.asking = True  # sends requests
        self._count = 0

    def _service(self, n: int, home: str) -> Service:
        """Separate trees have services with the same names."""
        if n == 1:
            return Service("catalog-img", ("example.com/0/img*",), home, size=2)  # longer than that of the first
        routes = tuple(f"example.com/{n}{suffix}*" for suffix in ("", "-extra")[: self.rng.choice((1, 1, 2))])
        return Service(f"service-{n}", routes, home, size=self.rng.randint(2, 6))

    def _shop(self, home: str) -> Shop | None:
        """In every other tree, some hosts run a service in a role."""
        world = self.world
        hosts = [n for n in world.shape.leaves if world.shape.tree_of(n) == world.shape.tree_of(home)]
        if not hosts or self.rng.random() < 0.5:
            return None
        shop = Shop(f"shop-of-{home}", f"example.com/shop-of-{home}*", home)
        capacity, side_by_side = self.rng.choice((50, 100)), self.rng.random() < 0.7
        for name in self.rng.sample(hosts, min(len(hosts), self.rng.randint(1, 5))):
            world.hosts[name].roles = (role(shop.name, (shop.route,), capacity=capacity, side_by_side=side_by_side),)
        return shop

    # ------------------------------------------------------------------ running

    def start(self) -> None:
        self.world.hooks.otherwise = self._hook
        self.world.drivers.otherwise = self._flaw
        for shop in self.shops:
            self.world.clock.after(self.rng.uniform(3.0, 6.0), partial(self._ship, shop))
        for service in self.services:
            for _ in range(service.size):
                self.world.clock.after(self.rng.uniform(3.0, 6.0), partial(self._start_one, service))
        self.world.clock.after(8.0, self._act)
        self.world.clock.after(9.0, self._ask)

    def _act(self) -> None:
        if self.busy and self.changes:
            service = self.rng.choice(self.services)
            self.rng.choices(self.changes, self.weights)[0](self, service)
        self.world.clock.after(self.rng.expovariate(1 / self.pace_s), self._act)

    def _ask(self) -> None:
        if self.asking and self.requests_s:
            service = self.rng.choice(self.services)
            names = self.world.shape.roots if self.rng.random() < 0.7 else tuple(self.world.hosts)
            near = self.world.hosts[self.rng.choice(names)]
            if near.engine.up and near.powered and not near.leaving and near.name not in self.world.outside:
                hold = self.rng.choice((0.001, 0.01, 0.05, 2.5))
                shops = [shop.route for shop in self.shops if shop.home == service.home]
                route = shops[0] if shops and self.rng.random() < 0.3 else self.rng.choice(service.routes)
                self.world.traffic.send(near, route, hold)
        self.world.clock.after(self.rng.expovariate(self.requests_s or 1.0), self._ask)

    # ------------------------------------------------------------------ instances

    def _mine(self, service: Service) -> list[Process]:
        there = self.world.by_service.get(service.name, {}).values()
        return [p for p in there if p.wanted and p.home == service.home and not p.rejected]

    def _hosts(self, service: Service) -> list[str]:
        world = self.world
        tree = world.shape.tree_of(service.home)
        return [n for n in world.shape.leaves if world.shape.tree_of(n) == tree and n not in world.outside]

    def _start_one(self, service: Service, compatible: tuple[str, ...] | None = None) -> Process | None:
        """Starts an instance. `compatible`: what it declares; by default, the declarations of its version."""
        hosts = self._hosts(service)
        tried = [self.rng.choice(hosts) for _ in range(5)] if hosts else []
        powered = [name for name in tried if self.world.hosts[name].powered]
        if not powered:
            return None
        self._count += 1
        version = service.text()
        spec = self.acts.spec(
            f"{service.name}-{version}-{self._count}",
            service.name,
            version,
            service.routes,
            capacity=self.rng.choice((50, 100, 100)),
            ttl_s=self._ttl_s(),
            compatible=service.declares.get(version, ()) if compatible is None else compatible,
        )
        return self.acts.run(self.world.hosts[powered[0]], spec, home=service.home)

    def _ttl_s(self) -> float:
        return self.rng.choice((0.0, TTL_S, TTL_S))

    # ------------------------------------------------------------------ rollouts

    def roll_patch(self, service: Service) -> None:
        """Rolls out a compatible version, instance by instance, each new one first."""
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
        """The old instance leaves when the new one has been serving for a moment."""
        if new.served:
            self.world.clock.after(2.0, lambda: self.acts.leave(old, 20.0))
        elif self.busy and new.alive and old.alive:
            self.world.clock.after(1.0, lambda: self._follow(new, old))

    def _rolled(self, service: Service) -> None:
        service.rolling = False

    def roll_major(self, service: Service) -> None:
        """Rolls out an incompatible version: its instances wait until the last old one has stopped. Sometimes a rollback."""
        if service.rolling:
            return
        major, minor, _ = service.version
        service.version = self.rng.choice(((major + 1, 0, 0), (major, minor + 1, 0), (max(1, major - 1), minor, 5)))
        old = self._mine(service)
        if self.rng.random() < 0.2:  # the new ones say that they get along with the old
            service.declares.setdefault(service.text(), (f">={major}.0.0",))
        service.rolling = True
        for _ in range(service.size):
            self._start_one(service)
        for n, process in enumerate(old):
            delay = 1.0 + n * self.rng.uniform(0.1, 1.0)
            self.world.clock.after(delay, lambda process=process: self.acts.leave(process, 20.0))
        self.world.clock.after(len(old) + 4.0, lambda: self._rolled(service))

    def scale(self, service: Service) -> None:
        mine = self._mine(service)
        if service.rolling:
            return
        if len(mine) < service.size or self.rng.random() < 0.5:
            self._start_one(service)
        elif len(mine) > 1:
            self.acts.leave(self.rng.choice(mine), self.rng.choice((5.0, 20.0)))

    def withdraw_all(self, service: Service) -> None:
        if service.rolling or self.rng.random() < 0.5:
            return
        service.rolling = True
        for process in self._mine(service):
            self.acts.leave(process, 10.0)

        def back() -> None:
            service.rolling = False
            if self.busy:
                for _ in range(service.size):
                    self._start_one(service)

        self.world.clock.after(self.rng.uniform(3.0, 12.0), back)

    # ------------------------------------------------------------------ policies and declarations

    def _set(self, service: Service, **data: object) -> None:
        """As `sdlb policy set` does: at all the roots of the tree."""
        service.policy.update(data)
        shape = self.world.shape
        for root in shape.roots:
            if shape.tree_of(root) == shape.tree_of(service.home):
                self.acts.policy(root, service.name, dict(service.policy))

    def priority(self, service: Service) -> None:
        versions = sorted({p.version for p in self._mine(service)})
        data: dict[str, object] = {"priority": self.rng.choice(("even", "higher", "lower", "share"))}
        data["shares"] = {version: self.rng.choice((0, 5, 50)) for version in versions[:1]}
        self._set(service, **data)

    def silence(self, service: Service) -> None:
        self._set(service, on_silence=self.rng.choice(("open", "wait")))

    def rules(self, service: Service) -> None:
        """Denies, allows, or no longer restricts that two versions serve side by side."""
        versions = sorted({p.version for p in self._mine(service)})
        rules: dict[str, object] = {"rule": self.rng.choice(("patch", "patch", "minor", "exact"))}
        if len(versions) > 1:
            rules[self.rng.choice(("deny", "allow"))] = [self.rng.sample(versions, 2)]
        self._set(service, compatibility=rules)
        if self.rng.random() < 0.7:
            self.world.clock.after(self.rng.uniform(2.0, 25.0), lambda: self._set(service, compatibility={}))

    def declare(self, service: Service) -> None:
        """A further instance of a version declares compatibility with all versions, and stops after a while."""
        process = self._start_one(service, (">=0",))
        if process is not None:
            self.world.clock.after(self.rng.uniform(3.0, 25.0), lambda: self.acts.leave(process, 10.0))

    # ------------------------------------------------------------------ gates and cut-overs

    def flip(self, service: Service) -> None:
        """From now on the service flips, or no longer does. Then an incompatible version is rolled out; the old one stays."""
        if service.rolling:
            return
        self._set(service, cut_over=self.rng.choice(("flip", "flip", "stopped")), park={"timeout_s": 30})
        major, minor, _ = service.version
        service.version = self.rng.choice(((major + 1, 0, 0), (major, minor + 1, 0)))
        service.rolling = True
        old = self._mine(service)
        for _ in range(max(service.size, len(old))):
            self._start_one(service)
        leave_s = self.rng.uniform(8.0, 20.0)
        for process in old:
            self.world.clock.after(leave_s, lambda process=process: self.acts.leave(process, 20.0))
        self.world.clock.after(leave_s + 4.0, lambda: self._rolled(service))

    def gates(self, service: Service) -> None:
        """Sets gates, or takes them away."""
        hook = {"kind": "hook", "run": "migrate", "timeout_s": 60}
        back = self.rng.random() < 0.8
        known: list[dict[str, object]] = [
            {"name": "sign-off", "kind": "approval", "by": ["operator-a", "operator-b"]},
            {"name": "ready", "kind": "min_ready", "instances": self.rng.choice((1, 2))},
            {"name": "soak", "kind": "soak", "healthy_s": 3},
            {**hook, "name": "warm-up"},
            {**hook, "name": "migrate", "at": "gap", "back": back},
        ]
        chosen = self.rng.sample(known, self.rng.choice((0, 1, 1, 2)))
        for gate in chosen:
            gate["for"] = self.rng.choice(("incompatible", "incompatible", "every"))
        self._set(service, gate=chosen)

    def keep_out(self, service: Service) -> None:
        """Holds or pins versions for a while."""
        versions = sorted({p.version for p in self._mine(service)})
        if versions:
            one = self.rng.choice(versions)
            self._set(
                service, **self.rng.choice(({"hold": [one]}, {"hold": ["*"]}, {"pin": [one]}, {"never_below": one}))
            )
            self.world.clock.after(
                self.rng.uniform(2.0, 20.0), lambda: self._set(service, hold=[], pin=[], never_below="")
            )

    def decide(self, service: Service) -> None:
        """Somebody approves or promotes a waiting version, at all roots."""
        version = self.rng.choice(sorted({p.version for p in self._mine(service)}) or [service.text()])
        by = self.rng.choice(("operator-a", "operator-b", "operator-c"))
        promotes, reason = self.rng.random() < 0.3, self.rng.choice(("", "", "the site is down"))
        shape = self.world.shape
        for root in shape.roots:
            if shape.tree_of(root) == shape.tree_of(service.home):
                if promotes:
                    self.acts.promote_version(root, service.name, version, by, reason)
                else:
                    self.acts.approve(root, service.name, version, "sign-off", by)

    def transfer(self, service: Service) -> None:
        """Another service claims the route, gets it, and gives it back."""
        rival = Service(f"rival-{service.name}", service.routes[:1], service.home)
        process = self._start_one(rival)
        if process is None:
            return
        shape = self.world.shape

        def give(name: str) -> None:
            for root in shape.roots:
                if shape.tree_of(root) == shape.tree_of(service.home):
                    self.acts.transfer(root, service.routes[0], name, "operator-a")

        self.world.clock.after(2.0, lambda: give(rival.name))
        self.world.clock.after(self.rng.uniform(3.0, 10.0), lambda: give(service.name))
        self.world.clock.after(15.0, lambda: self.acts.leave(process, 5.0))

    def _hook(self) -> str:
        if not self.busy:
            return "yes"
        return self.rng.choice(("yes", "yes", "yes", "yes", "yes", "later", "failed", "no"))

    # ------------------------------------------------------------------ rollouts of roles

    def ship(self, service: Service) -> None:
        """A release of a service that roles run, and a rollout to it."""
        shops = [shop for shop in self.shops if shop.home == service.home]
        if shops:
            self._ship(shops[0])

    def _ship(self, shop: Shop) -> None:
        new = self.rng.random() < 0.3 and bool(shop.patch)
        shop.major, shop.patch = (shop.major + 1, 0) if new else (shop.major, shop.patch + 1)
        version = f"{shop.major}.0.{shop.patch}"
        root = self._root(shop)
        self.acts.release(root, shop.name, version)
        spec = RolloutSpec(
            side_by_side=self.rng.choice(("incompatible", "incompatible", "always", "never")),
            soak_s=self.rng.choice((1.0, 3.0)),
            failures_max=self.rng.choice((0, 0, 1)),
            progress_s=self.rng.choice((8.0, 60.0)),
            nodes_out_max=self.rng.choice(("10%", "100%")),
            drain_s=self.rng.choice((2.0, 10.0)),
            accept_gap=self.rng.random() < 0.7,
        )
        order = RolloutOrder(shop.name, "start", "operator-a", version, spec, self.rng.random() < 0.5)
        self.world.clock.after(1.0, lambda: self.acts.rollout(root, order))

    def canary(self, service: Service) -> None:
        """A release that first gets a part of the requests on one node. Half of these releases answer with errors."""
        for shop in self.shops:
            target = bridge.target_of(self.world.hosts[shop.home].view, shop.name)
            if shop.home == service.home and target is not None and target.settled and target.active is None:
                shop.patch += 1
                version = f"{shop.major}.0.{shop.patch}"
                self.world.figures.each = 20
                self.world.figures.quality(version).errors = self.rng.choice((0.0, 0.9))
                self.acts.release(shop.home, shop.name, version)
                spec = RolloutSpec(
                    soak_s=1.0,
                    nodes_out_max="100%",
                    drain_s=2.0,
                    accept_gap=True,
                    step=(Step("1", 20.0, 15.0),),
                    analysis=Analysis(requests_min=40, warm_up_s=2.0),
                )
                order = RolloutOrder(shop.name, "start", "operator-a", version, spec)
                self.world.clock.after(1.0, partial(self.acts.rollout, shop.home, order))

    def back(self, service: Service) -> None:
        """Somebody takes a halted rollout back."""
        for shop in self.shops:
            target = bridge.target_of(self.world.hosts[shop.home].view, shop.name)
            active = target.active if target is not None else None
            if shop.home == service.home and active is not None and active.state == HALTED:
                self.acts.rollout(shop.home, RolloutOrder(shop.name, "abort", "operator-a"))

    def _root(self, shop: Shop) -> str:
        """Mostly the first one."""
        shape = self.world.shape
        roots = [name for name in shape.roots if shape.tree_of(name) == shape.tree_of(shop.home)]
        return self.rng.choice((roots[0], roots[0], *roots)) if roots else shop.home

    def order(self, service: Service) -> None:
        """Somebody pauses, resumes, aborts, undoes or adopts a rollout."""
        for shop in self.shops:
            if shop.home == service.home:
                verb = self.rng.choice(("pause", "resume", "resume", "promote", "abort", "undo", "adopt"))
                self.acts.rollout(self._root(shop), RolloutOrder(shop.name, verb, "operator-a"))

    def _flaw(self, host: str, version: str) -> Flaw:
        if self.rng.random() < 0.85:
            return Flaw()
        return self.rng.choice(
            (
                Flaw(ill=True),
                Flaw(dies_s=self.rng.uniform(1.0, 5.0)),
                Flaw(start="exit code 1", retry=self.rng.random() < 0.5),
                Flaw(prepare="the SHA-256 is another one"),
                Flaw(prepare="the disk is full", retry=True),
                Flaw(hangs_s=self.rng.uniform(3.0, 15.0)),
                Flaw(slow_s=self.rng.uniform(0.5, 3.0)),
            )
        )

    def rest(self) -> None:
        """No more changes; nothing is wrong any more."""
        self.busy = False
        self.world.drivers.heal()

    # ------------------------------------------------------------------ single instances

    def health(self, service: Service) -> None:
        """One of several instances is unhealthy for a while."""
        well = [p for p in self._mine(service) if p.healthy and p.served]
        if len(well) < 2:
            return
        process = self.rng.choice(well)
        process.healthy = False
        self.world.clock.after(self.rng.uniform(1.0, 6.0), lambda: self.acts.well(process))

    def again(self, service: Service) -> None:
        """An instance registers again under its id at another address, perhaps with another version or other routes."""
        served = [p for p in self._mine(service) if p.served and self.world.hosts[p.host].running]
        if not served:
            return
        old = self.rng.choice(served)
        version = self.rng.choice((old.version, service.text()))
        routes = self.rng.choice(
            (service.routes, service.routes[:1], (*service.routes, f"{service.routes[0][:-1]}/b*"))
        )
        spec = self.acts.spec(old.id, service.name, version, routes, ttl_s=old.spec.ttl_s)
        healthy = self.rng.random() < 0.7
        new = self.acts.register_again(old, spec, healthy)
        if not healthy:
            self.world.clock.after(self.rng.uniform(0.5, 4.0), lambda: self.acts.well(new))

    def usurp(self, service: Service) -> None:
        """Another program registers under the id of a live instance, and gives up after a while."""
        served = [p for p in self._mine(service) if p.served and self.world.hosts[p.host].running]
        if served:
            other = self.acts.usurp(self.rng.choice(served), service.text())
            self.world.clock.after(self.rng.uniform(2.0, 12.0), lambda: self._give_up(other))

    def _give_up(self, other: Process) -> None:
        if other.rejected:
            self.world.end(other, "gives up")
        else:  # it has the id by now, so it leaves as others do
            self.acts.leave(other, 10.0)

    def drain(self, service: Service) -> None:
        """An instance is drained by hand, stays registered for a while, and is removed."""
        served = [p for p in self._mine(service) if p.served]
        if len(served) > 1:
            process = self.rng.choice(served)
            self.acts.drain(process, self.rng.choice((5.0, 20.0)))
            self.world.clock.after(self.rng.uniform(1.0, 15.0), lambda: self.acts.leave(process, 10.0))

    def long_lease(self, service: Service) -> None:
        """Starts an instance with a lease of an hour."""
        self._count += 1
        hosts = [name for name in self._hosts(service) if self.world.hosts[name].powered]
        if hosts and not service.rolling:
            name = f"{service.name}-{service.text()}-{self._count}"
            spec = self.acts.spec(name, service.name, service.text(), service.routes, ttl_s=HOUR_S)
            self.acts.run(self.world.hosts[self.rng.choice(hosts)], spec, home=service.home)

    # ------------------------------------------------------------------ other services

    def conflict(self, service: Service) -> None:
        """Another service claims a route that is held, and is refused while its holder is there."""
        rival = Service(f"rival-{service.name}", service.routes[:1], service.home)
        process = self._start_one(rival)
        if process is not None:
            self.world.clock.after(self.rng.uniform(2.0, 10.0), lambda: self.acts.leave(process, 5.0))

    def shorter_route(self, service: Service) -> None:
        """A service claims a catch-all route, which must not get requests of more specific routes."""
        process = self._start_one(Service("catch-all", ("example.com/*",), service.home))
        if process is not None:
            self.world.clock.after(self.rng.uniform(5.0, 20.0), lambda: self.acts.leave(process, 5.0))


CHANGES: dict[str, tuple[Callable[[Workload, Service], None], int]] = {
    "roll-patch": (Workload.roll_patch, 8),
    "roll-major": (Workload.roll_major, 4),
    "scale": (Workload.scale, 6),
    "withdraw-all": (Workload.withdraw_all, 2),
    "priority": (Workload.priority, 4),
    "silence": (Workload.silence, 1),
    "rules": (Workload.rules, 2),
    "declare": (Workload.declare, 2),
    "health": (Workload.health, 4),
    "again": (Workload.again, 3),
    "usurp": (Workload.usurp, 1),
    "drain": (Workload.drain, 2),
    "long-lease": (Workload.long_lease, 1),
    "conflict": (Workload.conflict, 2),
    "shorter-route": (Workload.shorter_route, 2),
    "flip": (Workload.flip, 3),
    "gates": (Workload.gates, 2),
    "keep-out": (Workload.keep_out, 1),
    "decide": (Workload.decide, 4),
    "transfer": (Workload.transfer, 1),
    "ship": (Workload.ship, 3),
    "order": (Workload.order, 2),
    "canary": (Workload.canary, 1),
    "back": (Workload.back, 1),
}
"""Changes by operators and programs, with their frequency."""
CANARIES = ("canary", "back")
"""Only on demand: a canary takes much longer than the usual pause between two changes."""
