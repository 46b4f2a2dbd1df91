"""What the parts of a `Balancer` share: the slots with their indexes, what was touched, what is to be done about it."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from sdlb.core.effects import Effect, Note
from sdlb.core.messages import ClaimKey, PolicyDoc
from sdlb.core.settings import Settings
from sdlb.core.slot import Slot, Source
from sdlb.core.table import Table
from sdlb.model.policy import Policy
from sdlb.model.problem import Invalid

if TYPE_CHECKING:
    from random import Random


def text_of(key: ClaimKey) -> str:
    """One string for a key; no part contains a space."""
    return " ".join(key)


def key_of(text: str) -> ClaimKey:
    service, version, route = text.split(" ")
    return ClaimKey(service, version, route)


class State:
    def __init__(self, settings: Settings, rng: Random) -> None:
        self.settings = settings
        self.rng = rng
        self.slots: dict[ClaimKey, Slot] = {}
        self.by_service: dict[str, dict[ClaimKey, None]] = {}
        self.by_route: dict[str, dict[ClaimKey, None]] = {}
        self.policies: dict[str, PolicyDoc] = {}
        self.table = Table(settings.incarnation << 32)
        self.dirty: dict[ClaimKey, None] = {}
        self.dirty_services: dict[str, None] = {}
        self.dirty_routes: dict[str, None] = {}
        self.new_policies: dict[str, None] = {}
        self.effects: list[Effect] = []
        self.puts: dict[str, object] = {}
        self.durable = False
        self.changed_instances: dict[str, None] = {}
        self.changed_services: dict[str, None] = {}
        self._parsed: dict[str, Policy] = {}
        self._default = Policy()
        self._number = settings.incarnation << 32
        self._timers: list[tuple[float, int, str, str]] = []
        self._timer_count = 0

    # ------------------------------------------------------------------ numbers and timers

    def next_number(self) -> int:
        """Grows over restarts too: the incarnation is its upper half."""
        self._number += 1
        return self._number

    def set_timer(self, at: float, kind: str, name: str = "") -> None:
        self._timer_count += 1
        heapq.heappush(self._timers, (at, self._timer_count, kind, name))

    def due_timers(self, now: float) -> list[tuple[str, str]]:
        due: list[tuple[str, str]] = []
        while self._timers and self._timers[0][0] <= now:
            _, _, kind, name = heapq.heappop(self._timers)
            due.append((kind, name))
        return due

    def next_timer(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    # ------------------------------------------------------------------ slots

    def touch(self, key: ClaimKey) -> None:
        self.dirty[key] = None
        self.dirty_routes[key.route] = None
        self.dirty_services[key.service] = None

    def put_source(self, key: ClaimKey, source: Source) -> None:
        slot = self.slots.get(key)
        if slot is None:
            slot = self.slots[key] = Slot(key)
            self.by_service.setdefault(key.service, {})[key] = None
            self.by_route.setdefault(key.route, {})[key] = None
        slot.sources[source.target] = source
        self.touch(key)

    def drop_source(self, key: ClaimKey, target: str) -> None:
        slot = self.slots.get(key)
        if slot is not None and slot.sources.pop(target, None) is not None:
            self.touch(key)

    def forget_slot(self, key: ClaimKey) -> None:
        del self.slots[key]
        for index, name in ((self.by_service, key.service), (self.by_route, key.route)):
            index[name].pop(key)
            if not index[name]:
                del index[name]

    # ------------------------------------------------------------------ policies

    def policy(self, service: str) -> Policy:
        return self._parsed.get(service, self._default)

    def adopt_policy(self, doc: PolicyDoc) -> bool:
        """Whether it is newer than what was known (then it is kept, durably, and everything that follows is redone)."""
        known = self.policies.get(doc.service)
        if known is not None and known.rank >= doc.rank:
            return False
        try:
            parsed = Policy.from_json(doc.json, where=f"policy of {doc.service}")
        except Invalid as problem:
            self.note("policy-refused", f"from {doc.origin}: {problem}", "error", service=doc.service)
            return False
        self._parsed[doc.service] = parsed
        self.table.set_service(doc.service, parsed.traffic)
        self.policies[doc.service] = doc
        self.persist(f"policy/{doc.service}", [doc.revision, doc.origin, doc.json])
        for key in self.by_service.get(doc.service, ()):
            self.touch(key)
        self.dirty_services[doc.service] = None
        self.new_policies[doc.service] = None
        self.changed_services[doc.service] = None
        return True

    # ------------------------------------------------------------------ effects

    def persist(self, name: str, value: object, durable: bool = True) -> None:
        self.puts[name] = value
        self.durable = self.durable or durable

    def note(self, code: str, text: str, level: str = "info", **fields: str) -> None:
        self.effects.append(Note(code, text, level, fields))
