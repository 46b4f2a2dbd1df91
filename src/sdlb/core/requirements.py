"""What releases require of other services (`requires` in a release file), and the order that follows from it.

A version turns active only when every version that serves of each service that it requires satisfies it. So each change of a version is
allowed only if all requirements hold before, during and after it. In a joint rollout, that decides which service comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from sdlb.model.release import Requirement
from sdlb.model.version import matches

Requires = Callable[[str, str], Sequence[Requirement]]
"""(service, version) -> what its release requires."""
Serving = Mapping[str, Collection[str]]
"""service -> the versions that serve, or may serve while a rollout of it is in progress."""


class Move(Struct, frozen=True):
    """A service that gets another version."""

    service: str
    to: str

    @property
    def name(self) -> str:
        return f"{self.service}-{self.to}"


def order(moves: Sequence[Move], serving: Serving, requires: Requires) -> tuple[list[Move], str]:
    """The moves one after the other, so that all requirements hold at each point, and services that are required come first where both
    orders do; and why there is no such order. "": there is one."""
    first: dict[str, dict[str, None]] = {move.service: {} for move in moves}  # service -> those that come before it
    for move in moves:
        for other in moves:
            if other is move:
                continue
            forward, needed = _needs(move, other, serving, requires)
            back = _breaks(move, other, serving, requires)
            if needed and back:
                return [], f"{needed}, but {back}; first roll out versions that fit both"
            if back:
                first[other.service][move.service] = None
            elif forward:
                first[move.service][other.service] = None
    found: list[Move] = []
    left = list(moves)
    while left:
        free = [move for move in left if not any(each.service in first[move.service] for each in left)]
        if not free:
            names = ", ".join(move.name for move in left)
            return [], f"{names} require each other in a cycle, so none of them can be first"
        found.append(free[0])
        left.remove(free[0])
    return found, ""


def _needs(move: Move, other: Move, serving: Serving, requires: Requires) -> tuple[bool, str]:
    """Whether the new version requires the other service; and why that has to come first. "": it need not."""
    for need in requires(move.service, move.to):
        if need.service == other.service:
            unfit = [each for each in serving.get(other.service, ()) if not matches(each, [need.versions])]
            there = ", ".join(sorted(unfit)) or "nothing"
            needs = unfit or not serving.get(other.service)
            return True, f"{move.name} requires {need}, and {other.service} {there} is active" if needs else ""
    return False, ""


def _breaks(move: Move, other: Move, serving: Serving, requires: Requires) -> str:
    """Why the version of `move` that serves has to leave before the other service moves. "": it need not."""
    for version in sorted(serving.get(move.service, ())):
        for need in requires(move.service, version):
            if need.service == other.service and not matches(other.to, [need.versions]):
                return f"{move.service}-{version}, which serves, requires {need}"
    return ""


def objection(moves: Sequence[Move], serving: Serving, requires: Requires) -> str:
    """Why the moves, all of them done, would break a requirement. "": they would not."""
    after = {move.service: move.to for move in moves}
    for move in moves:
        for need in requires(move.service, move.to):
            if need.service in after:
                if not matches(after[need.service], [need.versions]):
                    return f"{move.name} requires {need}, and {need.service} would get {after[need.service]}"
                continue
            there = sorted(serving.get(need.service, ()))
            if not there:
                return f"{move.name} requires {need}, and no version of {need.service} is active"
            if unfit := [each for each in there if not matches(each, [need.versions])]:
                return f"{move.name} requires {need}, and {need.service} {', '.join(unfit)} is active"
    for service in sorted(serving):
        for version in sorted(serving[service]) if service not in after else ():
            for need in requires(service, version):
                if need.service in after and not matches(after[need.service], [need.versions]):
                    there = f"{need.service}-{after[need.service]}"
                    return f"{service}-{version}, which is active, requires {need}, and {there} would break it"
    return ""


def withdrawal_objection(service: str, version: str, serving: Serving, requires: Requires) -> str:
    """Why the release of a version that serves must not be withdrawn. "": no other service requires it."""
    for other in sorted(serving) if version in serving.get(service, ()) else ():
        for there in sorted(serving[other]):
            for need in requires(other, there):
                if need.service == service and matches(version, [need.versions]):
                    return f"{other}-{there}, which is active, requires {need}, and uses {service}-{version}"
    return ""
