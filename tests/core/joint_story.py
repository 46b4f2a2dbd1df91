"""A tree that runs two services, of which one requires the other, for tests of joint rollouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.model.role import Program, RoleService
from sdlb.model.rollout import RolloutSpec
from tests.core.forest import Forest
from tests.core.programs import Build

CATALOG, PRICING = "catalog", "pricing"
OLD: Mapping[str, str] = {CATALOG: "1.0.1", PRICING: "3.0.1"}
NEW: Mapping[str, str] = {CATALOG: "1.0.2", PRICING: "3.0.2"}
BIG: Mapping[str, str] = {CATALOG: "2.5.1", PRICING: "4.1.0"}
"""Incompatible with the old ones."""
REQUIRES: Mapping[str, str] = {"catalog-1.0.2": "pricing>=3.0.2", "catalog-2.5.1": "pricing>=4.1"}
ROLES = {
    CATALOG: RoleService("web", CATALOG, Program(("./catalog",)), ("example.com/catalog*",), port=8080),
    PRICING: RoleService("web", PRICING, Program(("./pricing",)), ("example.com/pricing*",), port=9090),
}
SPEC = RolloutSpec(soak_s=2.0, progress_s=60.0, drain_s=5.0)
SHARED = dict.fromkeys(("host-1", "host-2", "host-3"), (CATALOG, PRICING))
APART = {"host-1": (CATALOG,), "host-2": (CATALOG,), "host-3": (PRICING,), "host-4": (PRICING,)}
Versions = dict[str, set[str]]


class Duo:
    """`hosts`: the services of each. `lowest`: the least number of hosts at which each service was served since the start."""

    def __init__(self, hosts: Mapping[str, tuple[str, ...]] = SHARED, roots: int = 1, **policy: Any) -> None:
        self.roots = [f"edge-{number}" for number in range(1, roots + 1)]
        self.forest = Forest({**dict.fromkeys(self.roots, ()), **{host: tuple(self.roots) for host in hosts}})
        self.hosts, self.seen = hosts, list[Versions]()
        self.out_most = 0
        self.details: dict[str, dict[str, None]] = {}
        for host, services in hosts.items():
            self.forest[host].roles = tuple(ROLES[service] for service in services)
            self.forest[host].restart()
        self.policy(**policy)
        for services in (OLD, NEW, BIG):
            for service, version in services.items():
                self.release(service, version, *filter(None, [REQUIRES.get(f"{service}-{version}")]))
        for service in (PRICING, CATALOG):
            assert self.start((service, OLD[service])) == ""
            self.until(service, "done")
        self.lowest = {service: len(self.of(service)) for service in OLD}
        self.forest.watch.append(self._look)

    def of(self, service: str) -> list[str]:
        return [host for host, services in self.hosts.items() if service in services]

    def _look(self) -> None:
        """At every step: no version serves together with one that it requires not to be there, nor with an incompatible one."""
        serving = {service: [self.serves(host, service) for host in self.of(service)] for service in OLD}
        there = {service: {version for each in found for version in each} for service, found in serving.items()}
        for service, versions in there.items():
            assert len({version.partition(".")[0] for version in versions}) <= 1, serving
            self.lowest[service] = min(self.lowest[service], sum(map(bool, serving[service])))
        if there[CATALOG] & {NEW[CATALOG]}:
            assert OLD[PRICING] not in there[PRICING], serving
        if there[CATALOG] & {BIG[CATALOG]}:
            assert not {OLD[PRICING], NEW[PRICING]} & there[PRICING], serving
        if not self.seen or self.seen[-1] != there:
            self.seen.append(there)
        for service in OLD:
            self.details.setdefault(service, {})[self.rollout(service).get("detail", "")] = None
        for host in self.hosts:
            phases = [agent["phase"] for agent in self.forest[host].balancer.view.agent()]
            moving = sum(phase in ("draining", "stopping", "starting", "verifying") for phase in phases)
            self.out_most = max(self.out_most, moving)

    # ------------------------------------------------------------------ orders

    def policy(self, *services: str, **policy: Any) -> None:
        for root in self.roots:
            for service in services or OLD:
                self.forest[root].inbox.append(ev.PolicyPut(service, json.dumps(policy).encode()))
        self.forest.run(1.0)

    def release(self, service: str, version: str, *requires: str, withdrawn: bool = False) -> str:
        """The objection of the first root."""
        body = json.dumps({"service": service, "version": version, "requires": requires}).encode()
        put = ev.ReleasePut(f"{service}-{version}", b"" if withdrawn else body, "operator-a")
        objection = self.view().release_objection(put)
        for root in self.roots:
            self.forest[root].inbox.append(put)
        self.forest.run(0.25)
        return objection

    def start(
        self, *what: tuple[str, str], spec: RolloutSpec = SPEC, at: str = "edge-1", supersede: bool = False
    ) -> str:
        first, *others = [
            ev.RolloutOrder(service, "start", "operator-a", version, spec, supersede) for service, version in what
        ]
        return self.order(replace(first, also=tuple(others)), at)

    def both(self, versions: Mapping[str, str] = NEW, **fields: Any) -> str:
        """The other way round than they require each other."""
        return self.start((CATALOG, versions[CATALOG]), (PRICING, versions[PRICING]), **fields)

    def verb(self, verb: str, service: str = CATALOG, at: str = "edge-1") -> str:
        return self.order(ev.RolloutOrder(service, verb, "operator-a", spec=SPEC), at)

    def order(self, order: ev.RolloutOrder, at: str = "edge-1") -> str:
        """The objection. "": the order was carried out."""
        objection = self.view(at).rollout_objection(order)
        if not objection:
            self.forest[at].inbox.append(order)
            self.forest.run(0.25)
        return objection

    # ------------------------------------------------------------------ what is seen

    def view(self, at: str = "edge-1") -> Any:
        return self.forest[at].balancer.view

    def rollout(self, service: str, at: str = "edge-1") -> dict[str, Any]:
        return self.view(at).rollout(service) or {"state": "", "id": ""}

    def states(self, at: str = "edge-1") -> tuple[str, str]:
        """Of pricing and catalog."""
        return self.rollout(PRICING, at)["state"], self.rollout(CATALOG, at)["state"]

    def until(self, service: str, *states: str, at: str = "edge-1") -> None:
        end = self.forest.now + 300.0
        while self.rollout(service, at)["state"] not in states:
            assert self.forest.now < end, f"not {states}: {self.rollout(PRICING, at)} {self.rollout(CATALOG, at)}"
            self.step()

    def until_over(self, at: str = "edge-1") -> None:
        for _ in range(3):  # one part may begin when the other ends
            for service in OLD:
                self.until(service, "done", "undone", at=at)
        self.forest.run(5.0)

    def reach(self, service: str, phase: str) -> str:
        """The first host of which the service is in that phase."""
        end = self.forest.now + 120.0
        while True:
            for host in self.of(service):
                agents = self.forest[host].balancer.view.agent()
                if any(agent["service"] == service and agent["phase"] == phase for agent in agents):
                    return host
            assert self.forest.now < end, f"{service} never {phase}"
            self.step()

    def waited(self, service: str) -> str:
        """All that its rollouts have waited for."""
        return "; ".join(self.details.get(service, {}))

    def step(self) -> None:
        if not self.forest.step():
            self.forest.tick(0.25)

    def serves(self, host: str, service: str) -> set[str]:
        there = {e.claim.version for e in self.forest[host].engine.endpoints if e.claim.service == service}
        running = {p.version for slot, p in self.forest[host].programs.slots.items() if slot[1] == service}
        return there & running

    def all_run(self, versions: Mapping[str, str]) -> bool:
        return all(
            self.serves(host, service) == {versions[service]}
            for host, services in self.hosts.items()
            for service in services
        )

    def builds(self, version: str, build: Build) -> None:
        for host in self.hosts:
            self.forest[host].programs.builds[version] = build

    def notes(self, code: str, at: str = "edge-1") -> list[str]:
        return [note.text for note in self.forest[at].notes if note.code == code]
