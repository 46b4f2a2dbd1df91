"""Whether a version waits for a reason that holds, from the policy, the live processes and what operators and hooks said.

Only for the end of a run: faults are over, and whatever could happen has happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sdlb.core.messages import ClaimKey
from sdlb.model.gate import Approval, Gate, Hook, MinReady, Soak
from sdlb.sim.process import Process

if TYPE_CHECKING:
    from sdlb.sim.world import World


class Waits:
    """Of one root."""

    def __init__(self, world: World, root: str) -> None:
        self._world = world
        self._root = root
        self._view = world.hosts[root].view

    def problem(self, key: ClaimKey, active: set[str]) -> str:
        """Why the version should not wait. "": it waits for a reason that holds. `active`: versions that are."""
        found = self._view.service(key.service)
        versions: list[dict[str, Any]] = found["versions"] if found is not None else []
        mine = next(version for version in versions if version["version"] == key.version)
        code, text = self._code(mine, key.route), mine["reason"]
        rivals = [
            v for v in sorted(active) if not self._world.relations.compatible(self._root, *key[:1], v, key.version)
        ]
        return (
            "" if self._holds(code, key, rivals) else f"{' '.join(key)} waits for no reason that holds: {code}: {text}"
        )

    @staticmethod
    def _code(version: dict[str, Any], route: str) -> str:
        return next(str(claim["reason_code"]) for claim in version["claims"] if claim["route"] == route)

    def _holds(self, code: str, key: ClaimKey, rivals: list[str]) -> bool:
        policy = self._world.relations.known(self._root, key.service).policy
        opening, gates = policy.opening, policy.gates
        record = self._view.opening(key.service) or {"phase": "", "to": "", "detail": ""}
        gated = any(not self._open(key, gate) for gate in gates)
        match code:
            case "on-hold":
                return opening.held(key.version, returns=False)
            case "pinned":
                return opening.pinned_out(key.version)
            case "below-floor":
                return opening.below_floor(key.version, policy.compatibility.scheme)
            case "gate":
                return gated
            case "reverted":
                return record["phase"] == "reverted" and bool(record["detail"])
            case "cutting-over":  # it is stuck, and cannot go back
                return record["to"] != key.version and "cannot be undone" in record["detail"]
            case "not-ready" if opening.cut_over == "flip":
                return bool(rivals) and (self._returns(key) or self._short(key, rivals))
            case "not-ready" | "still-running":
                return bool(rivals) and opening.cut_over == "stopped"
            case _:
                return False

    def _open(self, key: ClaimKey, gate: Gate) -> bool:
        """Whether the gate has nothing left to wait for."""
        world = self._world
        there = self._there(key.service, key.version)
        match gate:
            case Approval():
                by = world.orders.approvals.get((key.service, key.version, gate.name), set())
                return len(by & set(gate.by)) >= gate.count
            case Hook():
                programs = [p for p in world.hooks.programs if p.gate == (key.service, key.version, gate.name)]
                return bool(programs) and programs[-1].outcome == "yes" and programs[-1].told < 1e9
            case MinReady():
                return len(there) >= gate.instances and not gate.percent
            case Soak():
                return all(world.clock.now - p.since > gate.healthy_s + 3.0 for p in there)
            case _:
                return False

    def _there(self, service: str, version: str) -> list[Process]:
        world = self._world
        return [
            p
            for p in world.by_service.get(service, {}).values()
            if p.version == version
            and p.wanted
            and p.healthy
            and not p.rejected
            and self._root in world.shape.above(p.host)
        ]

    def _returns(self, key: ClaimKey) -> bool:
        """Whether it was active before: then it opens only when it is promoted."""
        return (key.service, key.version) in self._world.opened_ever

    def _short(self, key: ClaimKey, rivals: list[str]) -> bool:
        """Whether its capacity is less than the policy requires for a flip."""
        replaced = [p for rival in rivals for p in self._there(key.service, rival)]
        policy = self._world.relations.known(self._root, key.service).policy
        floor = policy.opening.floor(sum(p.spec.capacity for p in replaced), len(replaced))
        return sum(p.spec.capacity for p in self._there(key.service, key.version)) < max(floor, 1)
