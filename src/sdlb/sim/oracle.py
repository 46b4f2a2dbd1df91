"""What the tree must come to when faults stop, worked out from the live processes alone (promise 5).

It shares no code with the core but the words of `sdlb.model`: for each route one service, for each service a maximal set
of compatible versions, the same at every root; in every engine exactly the members that lead to a ready instance.
"""

from __future__ import annotations

from typing import Any

from sdlb.core.messages import ACTIVE, REFUSED, ClaimKey
from sdlb.core.state import text_of
from sdlb.sim.check import Check, check
from sdlb.sim.host import Host
from sdlb.sim.process import Process

States = dict[ClaimKey, str]


@check(5)
class Convergence(Check):
    """Once faults have stopped, every node comes to what the live instances and the policy imply, and to nothing else."""

    def at_end(self) -> None:
        world = self.world
        live: dict[ClaimKey, list[Process]] = {}
        for process in world.processes.values():
            if process.alive:
                for key in process.keys():
                    live.setdefault(key, []).append(process)
        for host in world.hosts.values():
            self._well(host)
        roots = [world.hosts[name] for name in world.shape.roots]
        states = {root.name: self._states(root) for root in roots}
        first = states[roots[0].name]
        for root in roots[1:]:
            if states[root.name] != first:
                raise self.broken(f"{roots[0].name} and {root.name} disagree: {_difference(first, states[root.name])}")
        self._decisions(first, live)
        for host in world.hosts.values():
            self._table(host, first, live)
        self._policies()

    # ------------------------------------------------------------------ nodes

    def _well(self, host: Host) -> None:
        assert host.balancer is not None
        tree = host.balancer.tree()
        if tree["guarded"] or tree["cut_off"] or not tree["ready"]:
            raise self.broken(f"{host.name} is not well: {tree['detail']}, guarded={tree['guarded']}")
        names = {child["name"] for child in tree["children"] if child["state"] == "connected"}
        if names != set(self.world.shape.children[host.name]):
            raise self.broken(f"{host.name} is connected to {sorted(names)}, not to all its children")
        lost = [parent["address"] for parent in tree["parents"] if parent["state"] != "connected"]
        if lost:
            raise self.broken(f"{host.name} is not connected to {lost}")
        engine = host.engine
        stuck = [key for key in engine.draining if key not in engine.in_flight]
        if stuck:
            raise self.broken(f"{host.name}: {stuck[0]} is drained and nobody was told")

    def _states(self, root: Host) -> States:
        assert root.balancer is not None
        return {
            ClaimKey(service["service"], version["version"], claim["route"]): claim["state"]
            for service in root.balancer.services()
            for version in service["versions"]
            for claim in version["claims"]
        }

    # ------------------------------------------------------------------ decisions

    def _decisions(self, states: States, live: dict[ClaimKey, list[Process]]) -> None:
        ghosts = sorted(set(states) - set(live))
        unheard = sorted(set(live) - set(states))
        if ghosts or unheard:
            raise self.broken(f"the roots know of {ghosts}, which are not there, and do not know of {unheard}")
        for route in sorted({key.route for key in live}):
            services = {key.service for key in live if key.route == route}
            holders = {key.service for key in live if key.route == route and states[key] != REFUSED}
            if len(holders) != 1:
                raise self.broken(f"{route} is claimed by {sorted(services)} and held by {sorted(holders)}")
        for service in sorted({key.service for key in live}):
            mine = [key for key in live if key.service == service and states[key] != REFUSED]
            active = {key.version for key in mine if states[key] == ACTIVE}
            if mine and not active:
                raise self.broken(f"no version of {service} is active, of {sorted({k.version for k in mine})}")
            for key in mine:
                rivals = [v for v in sorted(active) if not self.world.compatible_versions(service, v, key.version)]
                if states[key] == ACTIVE and rivals:
                    raise self.broken(f"{service}: {key.version} and {rivals[0]} are both active")
                if states[key] != ACTIVE and not rivals:
                    raise self.broken(f"{text_of(key)} waits for nothing: {self._reason(key)}")

    def _reason(self, key: ClaimKey) -> str:
        root = self.world.hosts[self.world.shape.roots[0]]
        assert root.balancer is not None
        service = root.balancer.service(key.service)
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
                    expected.setdefault(key, {})[process.target] = process.spec.capacity
            for child in world.shape.children[host.name]:
                ready = sum(m.capacity for m in world.hosts[child].engine.groups.get(key, {}).values())
                if ready:
                    expected.setdefault(key, {})[f"n:{child}"] = ready
        have = {
            key: {target: member.capacity for target, member in group.items()}
            for key, group in host.engine.groups.items()
        }
        if have != expected:
            raise self.broken(
                f"the engine of {host.name} has other members than it should: {_difference(expected, have)}"
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

    def _policies(self) -> None:
        world = self.world
        for service in sorted({key.service for key in world.keys}):
            docs: dict[object, list[str]] = {}
            for name in world.hosts:
                balancer = world.hosts[name].balancer
                assert balancer is not None
                docs.setdefault(balancer.policy(service), []).append(name)
            if len(docs) > 1:
                raise self.broken(f"the policy of {service} is not the same everywhere: {docs}")


def _difference(a: dict[Any, Any], b: dict[Any, Any]) -> str:
    """The first few entries in which two dictionaries differ."""
    keys = sorted(key for key in {*a, *b} if a.get(key) != b.get(key))
    return "; ".join(f"{key}: {a.get(key)} / {b.get(key)}" for key in keys[:3])
