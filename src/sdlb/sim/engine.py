"""A model of one engine: it carries out deltas as `proto/engine.proto` says, and counts what is in flight.

It refuses what the real one would refuse, and it outlives the control that told it what to do.
"""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey

CAPACITY_MAX = (1 << 32) - 1  # as proto/engine.proto has it


class BadDelta(Exception):
    """Control said something that the real engine would refuse."""


class Engine:
    def __init__(self) -> None:
        self.boot = 1
        self.up = True
        self.epoch = 0
        self.groups: dict[ClaimKey, dict[str, ef.MemberPut]] = {}
        self.routes: dict[str, ef.RoutePut] = {}
        self.targets: dict[str, ef.TargetPut] = {}
        self.targets_before: dict[str, ef.TargetPut] = {}  # the last delta
        self.services: dict[str, ef.ServicePut] = {}
        self.in_flight: dict[ev.MemberKey, int] = {}
        self.draining: dict[ev.MemberKey, int] = {}

    # ------------------------------------------------------------------ life

    @property
    def boot_id(self) -> str:
        return f"boot-{self.boot}"

    def crash(self) -> None:
        """Its process is gone, and with it all that it knew and all that it carried."""
        self.up = False
        self.boot += 1
        self.epoch = 0
        self.groups, self.routes, self.targets, self.services = {}, {}, {}, {}
        self.in_flight, self.draining = {}, {}

    def attached(self) -> ev.EngineAttached:
        members = sum(len(group) for group in self.groups.values())
        draining = tuple((key, self.in_flight.get(key, 0)) for key in self.draining)
        return ev.EngineAttached(self.boot_id, self.epoch, members, draining)

    # ------------------------------------------------------------------ deltas

    def apply(self, delta: ef.Apply) -> list[ev.MemberKey]:
        """Whole or not at all. Returns the members that were taken out."""
        if delta.epoch <= self.epoch:
            raise BadDelta(f"epoch {delta.epoch} after {self.epoch}")
        targets = {} if delta.replace else dict(self.targets)
        targets.update((target.key, target) for target in delta.put_targets)
        for member in delta.put_members:
            if member.key.target not in targets:
                raise BadDelta(f"member {member.key} has no target")
            if not 1 <= member.capacity <= CAPACITY_MAX:
                raise BadDelta(f"member {member.key} has a capacity of {member.capacity}")
        for pattern in delta.delete_routes:
            if pattern not in self.routes:
                raise BadDelta(f"route {pattern} is not there to delete")
        for name in delta.delete_services:
            if name not in self.services:
                raise BadDelta(f"service {name} is not there to delete")
        out = list(delta.delete_members)
        if delta.replace:
            named = {member.key for member in delta.put_members}
            out += [key for key in self.members() if key not in named]
            self.routes, self.services = {}, {}
        for key in out:
            if key.target not in self.groups.get(key.claim, {}):
                raise BadDelta(f"member {key} is not there to delete")
        self.epoch = delta.epoch
        for key in out:
            group = self.groups[key.claim]
            del group[key.target]
            if not group:
                del self.groups[key.claim]
            self.draining[key] = delta.epoch
        for member in delta.put_members:
            self.groups.setdefault(member.key.claim, {})[member.key.target] = member
            self.draining.pop(member.key, None)
        for route in delta.put_routes:
            self.routes[route.pattern] = route
        for pattern in delta.delete_routes:
            del self.routes[pattern]
        for name in delta.delete_targets:
            targets.pop(name, None)
        self.services.update((put.name, put) for put in delta.put_services)
        for name in delta.delete_services:
            del self.services[name]
        self.targets_before, self.targets = self.targets, targets
        return out

    def members(self) -> list[ev.MemberKey]:
        return [ev.MemberKey(claim, target) for claim, group in self.groups.items() for target in group]

    # ------------------------------------------------------------------ what it carries

    def begin(self, key: ev.MemberKey) -> None:
        self.in_flight[key] = self.in_flight.get(key, 0) + 1

    def end(self, key: ev.MemberKey) -> None:
        left = self.in_flight.get(key, 0) - 1
        if left > 0:
            self.in_flight[key] = left
        else:
            self.in_flight.pop(key, None)

    def drained(self) -> list[ev.EngineDrained]:
        """Members that are out and carry nothing any more; each is told once."""
        done = [key for key in self.draining if key not in self.in_flight]
        return [ev.EngineDrained(key, self.draining.pop(key)) for key in done]
