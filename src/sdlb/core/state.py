"""State that the parts of a `Balancer` share: slots and their indexes, what changed, timers, and collected effects."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sdlb.core.effects import Effect, Note
from sdlb.core.messages import Cause, ClaimKey
from sdlb.core.policies import Policies
from sdlb.core.reports import Reports
from sdlb.core.settings import Settings
from sdlb.core.slot import Slot, is_live
from sdlb.core.source import Source, Step
from sdlb.core.table import Table
from sdlb.core.targets import Targets
from sdlb.model.policy import Policy

if TYPE_CHECKING:
    from random import Random

TIMERS_MAX = 250
"""Timers handled in one iteration. When a thousand leases expire at once, other events must not wait for all of them."""
ALL = ""  # in `State.dirty`: all sources of the slot


def text_of(key: ClaimKey) -> str:
    """The key as one string, which `key_of` reads. No part contains a space."""
    return " ".join(key)


def key_of(text: str) -> ClaimKey:
    service, version, route = text.split(" ")
    return ClaimKey(service, version, route)


class State:
    def __init__(self, settings: Settings, rng: Random) -> None:
        self.settings = settings
        self.rng = rng
        self.incarnation = settings.incarnation
        self.slots: dict[ClaimKey, Slot] = {}
        self.by_service: dict[str, dict[ClaimKey, None]] = {}
        self.by_route: dict[str, dict[ClaimKey, None]] = {}
        self.policies = Policies(self)
        self.reports = Reports()
        self.targets = Targets(self.policies)
        self.table = Table(settings.incarnation << 32)
        self.dirty: dict[ClaimKey, dict[str, None]] = {}  # -> targets of the changed sources
        self.dirty_services: dict[str, None] = {}
        self.dirty_routes: dict[str, None] = {}
        self.effects: list[Effect] = []
        self.puts: dict[str, object] = {}
        self.durable = False
        self.changed_instances: dict[str, None] = {}
        self.changed_services: dict[str, None] = {}
        self.now = 0.0
        self.wall_s = 0.0
        self.engine_confirmed = False  # the engine has confirmed the table at least once
        self.stopping = False
        self.can_write = True  # decisions can be written to disk
        self.known_stopped: list[
            tuple[str, ClaimKey]
        ] = []  # sources that have stopped according to those that cover them
        self._number = settings.incarnation << 32
        self._timers: list[tuple[float, int, str, str]] = []
        self._set: dict[tuple[str, str], float] = {}  # the time of each timer that is set
        self._timer_count = 0

    # ------------------------------------------------------------------ numbers and timers

    def next_number(self) -> int:
        """A growing number. It also grows over restarts, because the incarnation is its upper half."""
        self._number += 1
        return self._number

    def reincarnate(self, incarnation: int) -> None:
        """Continues above the numbers of an incarnation that another process has used."""
        self.incarnation = incarnation
        self._number = max(self._number, incarnation << 32)
        self.table.raise_epoch(incarnation << 32)

    def set_timer(self, at: float, kind: str, name: str = "") -> None:
        """Sets the timer of this kind and name, in place of an earlier time."""
        if self._set.get((kind, name)) == at:
            return
        self._set[kind, name] = at
        self._timer_count += 1
        heapq.heappush(self._timers, (at, self._timer_count, kind, name))
        self._compact_timers()

    def clear_timer(self, kind: str, name: str = "") -> None:
        if self._set.pop((kind, name), None) is not None:
            self._compact_timers()

    def _compact_timers(self) -> None:
        """Removes the entries that were replaced or cleared, once they are more than half of the heap."""
        if len(self._timers) > 2 * len(self._set) + 64:
            self._timers = [timer for timer in self._timers if self._set.get((timer[2], timer[3])) == timer[0]]
            heapq.heapify(self._timers)

    def _drop_stale(self) -> None:
        while self._timers and self._set.get((self._timers[0][2], self._timers[0][3])) != self._timers[0][0]:
            heapq.heappop(self._timers)

    def due_timers(self, now: float) -> Iterator[tuple[str, str]]:
        """Up to TIMERS_MAX due timers, the earliest first. Each is removed when it is yielded, so an exception in one handler
        does not lose the others. The rest stay due (`next_timer`) and run after the events that wait meanwhile."""
        for _ in range(TIMERS_MAX):
            self._drop_stale()
            if not self._timers or self._timers[0][0] > now:
                return
            _, _, kind, name = heapq.heappop(self._timers)
            del self._set[kind, name]
            self._compact_timers()
            yield kind, name

    def next_timer(self) -> float | None:
        self._drop_stale()
        return self._timers[0][0] if self._timers else None

    @property
    def timers(self) -> int:
        return len(self._set)

    # ------------------------------------------------------------------ slots

    def touch(self, key: ClaimKey, target: str = ALL) -> None:
        """Marks a source as changed, so that everything that depends on it is recomputed."""
        self.dirty.setdefault(key, {})[target] = None
        self.dirty_routes[key.route] = None
        self.dirty_services[key.service] = None

    def touch_all(self) -> None:
        for key in self.slots:
            self.touch(key)

    def put_source(self, key: ClaimKey, source: Source) -> Slot:
        slot = self.slots.get(key)
        if slot is None:
            slot = self.slots[key] = Slot(key)
            if key.service not in self.by_service:
                self.policies.service_appeared(key.service)
            self.by_service.setdefault(key.service, {})[key] = None
            self.by_route.setdefault(key.route, {})[key] = None
        slot.sources[source.target] = source
        self.touch(key, source.target)
        return slot

    def drop_source(self, key: ClaimKey, target: str, cause: Cause | None) -> None:
        """Removes a source. If it has stopped, so have the silent sources that it covers. `cause` None: another source
        replaces it."""
        slot = self.slots.get(key)
        if slot is None or target not in slot.sources:
            return
        covered = slot.covers.pop(target, set[str]())
        slot.clear_coverage(target)
        slot.index(target, ())
        slot.sources.pop(target).step(Step.STOP)
        if cause is not None:
            slot.cause = max(slot.cause, cause)
        self.touch(key, target)
        for name in sorted(covered):
            other = slot.sources.get(name)
            if other is None:
                continue
            other.covered_by.discard(target)
            self.touch(key, name)
            if cause is Cause.STOPPED and not is_live(other):
                self.known_stopped.append((name, key))
            elif cause is Cause.STOPPED:
                other.contradicted = True  # it may be disconnected already, although its lease still runs

    def step(self, key: ClaimKey, source: Source, step: Step) -> None:
        """Moves a source to its next state. The sources that it covers change with it."""
        source.step(step)
        self.touch(key, source.target)
        for name in self.slots[key].covers.get(source.target, ()):
            self.touch(key, name)

    def forget_slot(self, key: ClaimKey) -> None:
        del self.slots[key]
        for index, name in ((self.by_service, key.service), (self.by_route, key.route)):
            index[name].pop(key)
            if not index[name]:
                del index[name]
        if key.service not in self.by_service:
            self.policies.service_gone(key.service)

    # ------------------------------------------------------------------ policies

    def policy(self, service: str) -> Policy:
        return self.policies.of(service)

    # ------------------------------------------------------------------ effects

    def persist(self, name: str, value: object, durable: bool = True) -> None:
        self.puts[name] = value
        self.durable = self.durable or durable

    def note(self, code: str, text: str, level: str = "info", **fields: str) -> None:
        self.effects.append(Note(code, text, level, fields))
