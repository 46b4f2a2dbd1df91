"""Drains by the policy (`model/drain.py`): what happens at their deadline, and to their streams.

Every request to an instance passes the engine of its host, so that one ends requests. The engines above notice: nothing is in
flight there any more. An instance drains because it leaves (`local_instances`), or because its version was recalled: here.
"""

from __future__ import annotations

from collections.abc import Iterable

from sdlb.core.effects import Cut
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey
from sdlb.core.slot import Phase, Slot
from sdlb.core.state import State
from sdlb.model.drain import CUT, Drain

SLOW_AGAIN_S = 60.0
"""A drain that waits is reported again after this time. The policy may have changed meanwhile."""
SEPARATOR = "\n"


class Drains:
    def __init__(self, state: State) -> None:
        self._state = state

    def recalled(self, key: ClaimKey, now: float) -> None:
        """New requests must not go to the key any more."""
        drain = self._state.policy(key.service).drain
        self._state.set_timer(now + drain.deadline_s, "recall", _name(key))
        if drain.streams_s:
            self._state.set_timer(now + drain.streams_s, "recall-streams", _name(key))

    def over(self, key: ClaimKey) -> None:
        """The recall is complete, or it was taken back."""
        for kind in ("recall", "recall-streams"):
            self._state.clear_timer(kind, _name(key))

    def on_deadline(self, name: str, now: float) -> None:
        slot = self._closing(name)
        here = self._in_flight(slot) if slot is not None else []
        if slot is None or not (here or slot.sums.present):
            return
        key, drain = slot.key, self._state.policy(slot.key.service).drain
        what = f"{key.service}-{key.version}, which was recalled from {key.route},"
        slow(self._state, what, drain, service=key.service, version=key.version)
        if drain.then == CUT:
            cut(self._state, here)
        self._state.set_timer(now + SLOW_AGAIN_S, "recall", name)

    def on_streams(self, name: str) -> None:
        slot = self._closing(name)
        if slot is not None and self._state.policy(slot.key.service).drain.streams_s:
            cut(self._state, self._in_flight(slot), streams_only=True)

    def _closing(self, name: str) -> Slot | None:
        slot = self._state.slots.get(ClaimKey(*name.split(SEPARATOR)))
        return slot if slot is not None and slot.phase is Phase.CLOSING else None

    def _in_flight(self, slot: Slot) -> list[EndpointKey]:
        """The endpoints of this host that may have requests in flight."""
        local = (EndpointKey(slot.key, target) for target in slot.sources if target.startswith("i:"))
        return [each for each in local if self._state.table.has(each)]


def slow(state: State, what: str, drain: Drain, **fields: str) -> None:
    """The node adds the number of requests in flight."""
    then = "they are cut off" if drain.then == CUT else "waiting for them"
    state.note("drain-slow", f"{what} is not drained after {drain.deadline_s:g} s: {then}", "warning", **fields)


def cut(state: State, endpoints: Iterable[EndpointKey], *, streams_only: bool = False) -> None:
    keys = tuple(endpoints)
    if keys:
        state.effects.append(Cut(keys, streams_only))


def _name(key: ClaimKey) -> str:
    return SEPARATOR.join((key.service, key.version, key.route))
