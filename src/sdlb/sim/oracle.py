"""The state that the tree must reach when faults stop, computed from the live processes alone (promise 5).

It shares only `sdlb.model` with the core. Each route has one service, and each service a maximal set of compatible versions,
the same at every root of a tree. Every engine has exactly the endpoints that lead to a ready instance. Clones and lying
children are ignored: the tree must be as if they did not exist.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from sdlb.core.events import EndpointKey
from sdlb.core.messages import ACTIVE, REFUSED, ClaimKey
from sdlb.sim import bridge
from sdlb.sim.check import Check, check
from sdlb.sim.engine import CAPACITY_MAX
from sdlb.sim.host import Host
from sdlb.sim.process import Process
from sdlb.sim.waits import Waits

States = dict[ClaimKey, str]


@check(5)
class Convergence(Check):
    """When faults have stopped, every node reaches exactly the state that the live instances and the policy imply."""

    def at_end(self) -> None:
        world = self.world
        for host in world.inside():
            self._well(host)
        trees: dict[int, list[Host]] = {}
        for host in world.inside():
            trees.setdefault(world.shape.tree_of(host.name), []).append(host)
        for hosts in trees.values():
            self._tree(hosts)

    def _tree(self, hosts: list[Host]) -> None:
        names = {host.name for host in hosts}
        live: dict[ClaimKey, list[Process]] = {}
        for process in self.world.processes.values():
            if process.alive and process.host in names and not process.rejected:
                for key in process.keys():
                    live.setdefault(key, []).append(process)
        roots = [host for host in hosts if not host.parents]
        states = {root.name: self._states(root) for root in roots}
        first = states[roots[0].name]
        for root in roots[1:]:
            self.compared()
            if states[root.name] != first:
                raise self.broken(f"{roots[0].name} and {root.name} disagree: {_difference(first, states[root.name])}")
        self._decisions(roots[0], first, live)
        for host in hosts:
            self._table(host, first, live)
        self._policies(hosts)

    # ------------------------------------------------------------------ nodes

    def _well(self, host: Host) -> None:
        tree = host.view.tree()
        if tree["guarded"] or tree["cut_off"] or not tree["ready"]:
            raise self.broken(f"{host.name} is not ready: {tree['detail']}, guarded={tree['guarded']}")
        names = {child["name"] for child in tree["children"] if child["state"] == "connected"}
        children = {name for name in self.world.shape.children[host.name] if name not in self.world.outside}
        if names != children:
            raise self.broken(f"{host.name} is connected to {sorted(names)}, not to all its children")
        lost = [parent["address"] for parent in tree["parents"] if parent["state"] != "connected"]
        if lost:
            raise self.broken(f"{host.name} is not connected to {lost}")
        engine = host.engine
        stuck = [key for key in engine.draining if key not in engine.in_flight]
        if stuck:
            raise self.broken(f"{host.name}: {stuck[0]} is drained and that was not reported")

    def _states(self, root: Host) -> States:
        return {
            ClaimKey(service["service"], version["version"], claim["route"]): claim["state"]
            for service in root.view.services()
            for version in service["versions"]
            for claim in version["claims"]
        }

    # ------------------------------------------------------------------ decisions

    def _decisions(self, root: Host, states: States, live: dict[ClaimKey, list[Process]]) -> None:
        ghosts = sorted(set(states) - set(live))
        unheard = sorted(set(live) - set(states))
        if ghosts or unheard:
            raise self.broken(f"the roots have {ghosts}, which do not exist, and lack {unheard}")
        for route in sorted({key.route for key in live}):
            services = {key.service for key in live if key.route == route}
            holders = {key.service for key in live if key.route == route and states[key] != REFUSED}
            if len(holders) != 1:
                raise self.broken(f"{route} is claimed by {sorted(services)} and held by {sorted(holders)}")
        relations = self.world.relations
        for service in sorted({key.service for key in live}):
            self.compared()
            mine = [key for key in live if key.service == service and states[key] != REFUSED]
            active = {key.version for key in mine if states[key] == ACTIVE}
            waits = Waits(self.world, root.name)
            opens_freely = self._opens_freely(root, service)
            if mine and not active and opens_freely:
                raise self.broken(f"no version of {service} is active, of {sorted({k.version for k in mine})}")
            for key in mine:
                if states[key] != ACTIVE and not opens_freely:
                    problem = waits.problem(key, active)
                    if problem:
                        raise self.broken(problem)
                    continue
                fits = {v: relations.compatible(root.name, service, v, key.version) for v in sorted(active)}
                rivals = [v for v, each in fits.items() if each is False]
                if states[key] == ACTIVE and rivals:
                    raise self.broken(f"{service}: {key.version} and {rivals[0]} are both active")
                if states[key] != ACTIVE and all(fits.values()):
                    raise self.broken(f"{' '.join(key)} waits although nothing blocks it: {self._reason(root, key)}")

    def _opens_freely(self, root: Host, service: str) -> bool:
        """Whether a version without an incompatible one beside it has nothing else to wait for."""
        policy = self.world.relations.known(root.name, service).policy
        opening = policy.opening
        barred = opening.hold or opening.pin or opening.never_below
        return not policy.gates and not barred and opening.cut_over == "stopped"

    def _reason(self, root: Host, key: ClaimKey) -> str:
        service = root.view.service(key.service)
        versions: list[dict[str, Any]] = service["versions"] if service is not None else []
        return next((v["reason"] for v in versions if v["version"] == key.version), "")

    # ------------------------------------------------------------------ tables

    def _table(self, host: Host, states: States, live: dict[ClaimKey, list[Process]]) -> None:
        world = self.world
        expected: dict[ClaimKey, dict[str, int]] = {}
        for key, processes in live.items():
            if states[key] != ACTIVE:
                continue
            for process in processes:
                if process.host == host.name and process.healthy and process.wanted:
                    expected.setdefault(key, {})[process.name] = process.spec.capacity
            for child in world.shape.children[host.name]:
                ready = self._reached(world.hosts[child], key)
                if ready and child not in world.outside:
                    endpoint = EndpointKey(key, f"n:{world.hosts[child].node}")
                    expected.setdefault(key, {})[endpoint.target] = self._weight(
                        host, endpoint, world.hosts[child], ready
                    )
        have = {
            key: {self._instance(host, key, target): endpoint.capacity for target, endpoint in group.items()}
            for key, group in host.engine.groups.items()
        }
        self.compared()
        if have != expected:
            raise self.broken(
                f"the engine of {host.name} has other endpoints than it should: {_difference(expected, have)}"
            )
        here = {key.route: key.service for key in expected}
        routes = {pattern: route.service for pattern, route in host.engine.routes.items() if pattern in here}
        if routes != here:
            raise self.broken(f"the engine of {host.name} has other routes than it should: {_difference(here, routes)}")
        for pattern in routes:
            picked = {pick.version for pick in host.engine.routes[pattern].picks}
            wanted = {key.version for key in expected if key.route == pattern}
            if not wanted <= picked:
                raise self.broken(f"{host.name} picks {sorted(picked)} on {pattern}; {sorted(wanted)} are ready")

    @staticmethod
    def _weight(host: Host, endpoint: EndpointKey, child: Host, ready: set[Process]) -> int:
        """The instances below the child, each counted once. If its paths partly overlap, the child can only estimate: any number
        between the largest of them and their sum is right."""
        exact = min(sum(process.spec.capacity for process in ready), CAPACITY_MAX)
        said = host.engine.groups.get(endpoint.claim, {}).get(endpoint.target)
        ways = [each.capacity for each in child.engine.groups[endpoint.claim].values()]
        if said is not None and sum(ways) > exact and max(ways) <= said.capacity <= min(sum(ways), CAPACITY_MAX):
            return said.capacity
        return exact

    def _reached(self, host: Host, key: ClaimKey) -> set[Process]:
        """The processes that a request can reach from here, each once."""
        hosts = self.world.hosts
        children: dict[str, list[Host]] = {}
        for name in self.world.shape.children[host.name]:  # a clone and its original have one name
            children.setdefault(f"n:{hosts[name].node}", []).append(hosts[name])
        found: set[Process] = set()
        for target in host.engine.groups.get(key, {}):
            process = None if target in children else host.process_at(EndpointKey(key, target))
            for child in children.get(target, ()):
                found |= self._reached(child, key)
            if process is not None:
                found.add(process)
        return found

    @staticmethod
    def _instance(host: Host, key: ClaimKey, target: str) -> str:
        """A name of the instance that does not depend on its target."""
        process = host.process_at(EndpointKey(key, target)) if target.startswith("i:") else None
        return target if process is None else process.name

    def _policies(self, hosts: list[Host]) -> None:
        for service in sorted({key.service for key in self.world.keys}):
            docs: dict[object, list[str]] = {}
            for host in hosts:
                docs.setdefault(bridge.policy_of(host.view, service), []).append(host.name)
            if any(self._meet(a, b) for one, two in combinations(docs.values(), 2) for a in one for b in two):
                raise self.broken(f"the policy of {service} is not the same everywhere: {docs}")

    def _meet(self, a: str, b: str) -> bool:
        """Whether one node is above the other, or both are above a third. Roots without a common descendant are unrelated."""
        shape = self.world.shape
        return bool((shape.below(a) & shape.below(b)) - self.world.outside.keys())


def _difference(a: dict[Any, Any], b: dict[Any, Any]) -> str:
    """The first few entries in which two dictionaries differ."""
    keys = sorted(key for key in {*a, *b} if a.get(key) != b.get(key))
    return "; ".join(f"{key}: {a.get(key)} / {b.get(key)}" for key in keys[:3])
