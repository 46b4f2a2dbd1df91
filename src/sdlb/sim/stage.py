"""The vocabulary of scenarios: a small tree, and actions on it, second by second.

World and checks are the same as in random runs. A script decides what happens, and may state what it expects.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from sdlb.core.events import RolloutOrder
from sdlb.model.rollout import RolloutSpec
from sdlb.model.version import split_name
from sdlb.sim.acts import TTL_S, Acts
from sdlb.sim.check import Broken
from sdlb.sim.drivers import role
from sdlb.sim.host import Host
from sdlb.sim.liar import Liar
from sdlb.sim.process import Process
from sdlb.sim.topology import Shape
from sdlb.sim.world import World

ROUTE = "example.com/*"
QUICK = RolloutSpec(soak_s=4.0, drain_s=10.0, progress_s=40.0, nodes_out_max="100%")
LOOK_S = 0.25
STEADY_S = 4.0  # from then on the checks hold a node to what it had


class Scenario(Struct, frozen=True):
    """`situation`: the letter in the table of docs/internals/simulator.md. `promises`: those that it tests."""

    name: str
    situation: str
    promises: tuple[int, ...]
    tree: dict[str, tuple[str, ...]]
    script: Callable[[Stage], None]

    @property
    def title(self) -> str:
        return (self.script.__doc__ or "").split("\n\n", 1)[0].replace("\n    ", " ").strip()

    @property
    def shape(self) -> Shape:
        return Shape(dict(self.tree))


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    situation: str, *promises: int, **tree: tuple[str, ...] | str
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Registers a script under its name. `tree`: node (with `_` for `-`) -> its parents; "" for a root."""

    def register(script: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = script.__name__.replace("_", "-")
        parents = {node.replace("_", "-"): _names(above) for node, above in tree.items()}
        SCENARIOS[name] = Scenario(name, situation, promises, parents, script)
        return script

    return register


def _names(parents: tuple[str, ...] | str) -> tuple[str, ...]:
    return tuple(parents.split()) if isinstance(parents, str) else parents


class Stage:
    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.acts = Acts(world, Random(rng.random()))
        self._asking: dict[int, None] = {}
        self._count = 0
        self._streams = 0

    def __getitem__(self, name: str) -> Host:
        return self.world.hosts[name]

    # ------------------------------------------------------------------ time

    @property
    def now(self) -> float:
        return self.world.clock.now

    def run(self, seconds: float) -> None:
        self.world.clock.run(self.now + seconds)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        self.world.clock.after(seconds, action)

    def until(
        self, promise: int, what: str, holds: Callable[[], bool], within_s: float, look_s: float = LOOK_S
    ) -> float:
        """Runs until the condition holds and returns the time that it took. Too late: the promise is broken."""
        started = self.now
        while not holds():
            if self.now - started > within_s:
                raise Broken(promise, f"{what}: not within {within_s:g} s")
            self.run(look_s)
        return self.now - started

    def expect(self, promise: int, what: str, holds: bool) -> None:
        self.world.coverage.compared[f"{promise} the script"] += 1
        if not holds:
            raise Broken(promise, what)

    # ------------------------------------------------------------------ instances

    def instance(
        self,
        host: str,
        label: str,
        *,
        name: str = "",
        routes: tuple[str, ...] = (ROUTE,),
        ttl_s: float = TTL_S,
        capacity: int = 100,
        compatible: tuple[str, ...] = (),
        pid: int | None = None,
    ) -> Process:
        """Starts an instance, which registers a moment later. `label`: SERVICE-VERSION. `pid` 0: its process is not watched."""
        service, version = split_name(label)
        self._count += 1
        spec = self.acts.spec(
            name or f"{label}-{self._count}",
            service,
            version,
            routes,
            ttl_s=ttl_s,
            capacity=capacity,
            compatible=compatible,
        )
        return self.acts.run(self[host], spec if pid is None else replace(spec, pid=pid))

    def again(
        self, process: Process, label: str = "", *, routes: tuple[str, ...] = (), healthy: bool = True
    ) -> Process:
        """Registers an instance again at another address, with another version or other routes if given."""
        service, version = split_name(label) if label else (process.spec.service, process.version)
        fresh = self.acts.spec(process.id, service, version, routes or process.spec.routes)
        spec = replace(fresh, ttl_s=process.spec.ttl_s, capacity=process.spec.capacity)
        return self.acts.register_again(process, spec, healthy)

    def serving(self, *processes: Process) -> None:
        """Runs until all of these serve and every node above knows it."""
        self.until(5, f"{processes[0].name} serves", lambda: all(map(self.world.is_endpoint, processes)), 30.0)
        self.run(STEADY_S)

    def serves(self, process: Process) -> bool:
        return self.world.is_endpoint(process)

    def connected(self, host: str) -> bool:
        """Whether the node is connected to all its parents."""
        return all(parent["state"] == "connected" for parent in self[host].view.tree()["parents"])

    def active(self, node: str, service: str = "catalog") -> set[str]:
        """The versions that are active at this node."""
        found = self[node].view.service(service)
        versions: list[dict[str, Any]] = found["versions"] if found is not None else []
        return {str(version["version"]) for version in versions if version["state"] == "active"}

    # ------------------------------------------------------------------ rollouts

    def roles(self, *hosts: str, service: str = "catalog", route: str = ROUTE, **how: Any) -> None:
        """Before the nodes start: these run the service in a role."""
        for name in hosts:
            self[name].roles += (role(service, (route,), **how),)

    def zones(self, **hosts: str) -> None:
        """Before the nodes start: the zones of hosts (with `_` for `-`)."""
        for name, zone in hosts.items():
            self[name.replace("_", "-")].zone = zone

    def release(self, *versions: str, service: str = "catalog") -> None:
        for version in versions:
            self.acts.release(self.roots()[0], service, version)
        self.run(1.0)

    def roll(
        self, version: str, at: str = "root-1", *, service: str = "catalog", supersede: bool = False, **spec: Any
    ) -> str:
        """Starts a rollout, quick unless the keywords say otherwise. Returns why it does not start; "": it does."""
        how = replace(QUICK, **spec)
        return self.acts.rollout(at, RolloutOrder(service, "start", "operator-a", version, how, supersede))

    def order(self, verb: str, at: str = "root-1", service: str = "catalog") -> str:
        """Orders something about the rollout. Returns why it has no effect; "": it has one."""
        return self.acts.rollout(at, RolloutOrder(service, verb, "operator-a", spec=QUICK))

    def rollout(self, at: str = "root-1", service: str = "catalog") -> dict[str, Any]:
        return self[at].view.rollout(service) or {
            "state": "",
            "detail": "",
            "nodes": {},
            "slots": [],
            "owner_here": False,
        }

    def rolls(self, state: str, within_s: float = 120.0, at: str = "root-1", service: str = "catalog") -> float:
        """Runs until the rollout is in this state at this root."""
        what = f"the rollout of {service} is {state}"
        return self.until(5, what, lambda: self.rollout(at, service)["state"] == state, within_s)

    def phase(self, host: str, service: str = "catalog") -> str:
        """That of the host's agent."""
        return next(str(each["phase"]) for each in self[host].view.agent() if each["service"] == service)

    def errors(self, version: str, rate: float) -> None:
        """From now on this part of the responses of the version are errors. Clients count them as answered."""
        self.world.figures.quality(version).errors = rate

    def slow(self, version: str, head_s: float) -> None:
        """From now on the version takes about that long to respond, as far as hosts count it."""
        self.world.figures.quality(version).head_s = head_s

    def runs(self, host: str, service: str = "catalog") -> set[str]:
        """The versions that drivers truly run on the host."""
        return {slot.version for slot in self.world.drivers.running(service, host)}

    # ------------------------------------------------------------------ requests

    def requests(self, per_s: float = 10.0, *, entries: tuple[str, ...] = (), hold_s: float = 0.01) -> None:
        """Sends requests for the usual route from now on, at these entries in turn. Without entries: at all roots."""
        self._streams += 1
        number = self._streams
        self._asking[number] = None
        names = entries or self.world.shape.roots
        count = 0

        def ask() -> None:
            nonlocal count
            if number in self._asking:
                self.request(names[count % len(names)], hold_s)
                count += 1
                self.after(1.0 / per_s, ask)

        ask()

    def request(self, entry: str, hold_s: float) -> None:
        host = self[entry]
        if host.engine.up and host.powered and not host.leaving:
            self.world.traffic.send(host, ROUTE, hold_s)

    def no_more_requests(self) -> None:
        self._asking.clear()

    # ------------------------------------------------------------------ the end

    def settle(self, seconds: float = 60.0) -> None:
        """Runs until everything has settled. Then the tree must be as its live instances imply (promise 5)."""
        self.run(seconds - 5.0)
        self.no_more_requests()
        self.run(5.0)
        for check in self.world.checks:
            check.at_end()

    # ------------------------------------------------------------------ short names

    def policy(self, data: dict[str, object], service: str = "catalog", root: str = "root-1") -> None:
        self.acts.policy(root, service, data)

    def roots(self, *but: str) -> list[str]:
        return [name for name in self.world.shape.roots if name not in but]

    def everywhere(self, **data: object) -> None:
        """Sets the policy at all roots, as the API does."""
        for root in self.roots():
            self.acts.policy(root, "catalog", data)
        self.run(1.0)

    def approve(self, version: str, gate: str, by: str, *at: str) -> bool:
        asked = [self.acts.approve(root, "catalog", version, gate, by) for root in at or self.roots()]
        return any(asked)

    def promote(self, version: str, by: str = "operator-a", **how: str) -> bool:
        asked = [self.acts.promote_version(root, "catalog", version, by, **how) for root in self.roots()]
        return any(asked)

    def opening(self, at: str = "root-1", service: str = "catalog") -> dict[str, Any]:
        return self[at].view.opening(service) or {"phase": "", "conductor": "", "to": "", "detail": "", "versions": {}}

    def generation(self, service: str = "catalog") -> int:
        """The generation at the first root."""
        found = self[self.roots()[0]].view.service(service)
        return 0 if found is None else int(found["generation"])

    def conductor(self, service: str = "catalog") -> Host:
        """The root that conducts the opening of the service."""
        name = next(name for name in self.roots() if self.opening(name, service).get("here"))
        return self[name]

    def in_phase(self, phase: str) -> None:
        """Runs until a root records this phase of a cut-over."""
        self.until(
            5, f"the cut-over is at {phase}", lambda: any(self.opening(r)["phase"] == phase for r in self.roots()), 30.0
        )

    def rules(self, **rules: object) -> None:
        self.policy({"compatibility": rules})

    def liar(self, name: str, *parents: str) -> Liar:
        return self.acts.add_liar(name, parents)
