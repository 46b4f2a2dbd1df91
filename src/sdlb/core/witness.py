"""What a root sees itself of a rollout, for its record: gates, the phases of a cut-over, who has acknowledged it in which order, and the
gap.

A *gap* begins when no version has capacity at this root, which parks new requests, and ends when its engine has confirmed the first
endpoint of a version again. All is level-triggered: what has changed since the last look is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field

from sdlb.core.messages import Stage
from sdlb.core.opening import COMMITTED, RUNNING, WAITING, GateState, OpeningRecord
from sdlb.core.records import Chain, Records, ms
from sdlb.core.remnants import PREFIX, child_of
from sdlb.model.rollout import CUTTING_OVER, Rollout

if TYPE_CHECKING:
    from sdlb.core.children import Children
    from sdlb.core.slot import Slot
    from sdlb.core.state import State

NAMES_MAX: Final = 64
"""Of one entry."""


class Seen(Struct):
    """What was seen last of the service, in this start of control. `open`: where versions that are replaced may get requests; `ready`:
    where the new one has confirmed capacity; `joined`: roots that follow the opening."""

    open: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    joined: frozenset[str] = frozenset()
    ticket: str = ""
    phase: str = ""
    gates: Mapping[str, GateState] = field(default_factory=dict[str, GateState])
    closed_at: float | None = None  # the gap that has not ended, on the monotonic clock
    committed: bool = False  # a flip to the new version is under way
    served: bool = False


class Witness:
    def __init__(self, state: State, children: Children, records: Records) -> None:
        self._state = state
        self._children = children
        self._records = records

    def first(self, chain: Chain) -> Seen:
        """At the start of control or of the rollout."""
        return Seen(closed_at=_closed_at(chain, self._state.now, ms(self._state.wall_s)))

    def look(
        self, rollout: Rollout, chain: Chain, seen: Seen, opening: OpeningRecord | None, service: str
    ) -> int | None:
        """Records what is new. Returns the milliseconds of a gap that has just ended."""
        slots = [self._state.slots[key] for key in self._state.by_service.get(service, ())]
        if opening is not None:
            self._look_at_gates(rollout, chain, seen, opening)
            self._look_at_phase(rollout, chain, seen, opening, slots)
        seen.committed = opening is not None and opening.to == rollout.to and opening.phase in COMMITTED
        if rollout.state == CUTTING_OVER or seen.committed or seen.closed_at is not None or seen.open:
            self._look_below(rollout, chain, seen, slots)
        return self._look_at_gap(chain, seen, slots)

    def _look_at_gates(self, rollout: Rollout, chain: Chain, seen: Seen, opening: OpeningRecord) -> None:
        candidate = opening.candidates.get(rollout.to)
        if candidate is None or candidate.gates is seen.gates:
            return
        digests = chain.last("started", "followed").get("digests", {}).get(rollout.to, {})
        for name, gate in sorted(candidate.gates.items()):
            if _bare(gate) != (_bare(seen.gates[name]) if name in seen.gates else _recorded(chain, name)):
                fields: dict[str, object] = {
                    "gate": name,
                    "state": _bare(gate)[0],
                    "by": gate.by,
                    "attempts": gate.attempts,
                }
                fields |= {"reason": gate.reason, "since_ms": ms(gate.since), "conductor": opening.conductor}
                self._records.append(chain, "gate", {**fields, "digests": digests}, always=True)
        if candidate.no_gates and candidate.no_gates != chain.last("gates-skipped").get("reason"):
            fields = {"by": candidate.promoted, "reason": candidate.no_gates, "digests": digests}
            self._records.append(chain, "gates-skipped", fields, always=True)
        seen.gates = candidate.gates

    def _look_at_phase(
        self, rollout: Rollout, chain: Chain, seen: Seen, opening: OpeningRecord, slots: list[Slot]
    ) -> None:
        """Of a cut-over that a root conducts."""
        phase = opening.phase if opening.to == rollout.to else ""
        if phase and phase != (seen.phase or chain.last("cut-over").get("phase")):
            fields: dict[str, object] = {"phase": phase, "closes": opening.closes, "conductor": opening.conductor}
            fields |= {"since_ms": ms(opening.since), "detail": opening.detail}
            self._records.append(chain, "cut-over", fields, always=True)
        seen.phase = phase
        if opening.ticket != seen.ticket:
            seen.ticket, seen.joined = opening.ticket, frozenset()
        if phase:
            joined = self._joined(rollout, slots, opening.ticket)
            self._acknowledged(chain, phase, joined - seen.joined)
            seen.joined = joined

    def _joined(self, rollout: Rollout, slots: list[Slot], ticket: str) -> frozenset[str]:
        """The other roots that follow this attempt, as children report."""
        names, others = self._children.root_names, self._children.other_roots()
        sums = [slot.sums for slot in slots if slot.key.version == rollout.to]
        follow = {
            root
            for root in others
            for each in sums
            if root in each.granted.counts or f"{root}/{ticket}" in each.joined.counts
        }
        return frozenset(names.get(root, root) for root in follow)

    def _look_below(self, rollout: Rollout, chain: Chain, seen: Seen, slots: list[Slot]) -> None:
        """Children that have closed the old version, and then have the new one."""
        still: set[str] = set()
        ready: set[str] = set()
        for slot in slots:
            new = slot.key.version == rollout.to
            for target, part in slot.parts.items():
                name = self._name(target)
                if not new and (part.present or part.stage is Stage.OPEN):
                    still.add(name)
                elif new and slot.active and part.ready:
                    ready.add(name)
        self._acknowledged(chain, "closed", seen.open - still)
        self._acknowledged(chain, "opened", ready - seen.ready)
        seen.open, seen.ready = frozenset(still), frozenset(ready)

    def _name(self, target: str) -> str:
        """Of the node that a source belongs to."""
        if target.startswith(PREFIX):
            return child_of(target)
        return target[2:] if target.startswith("n:") else self._state.settings.name

    def _acknowledged(self, chain: Chain, what: str, names: frozenset[str] | set[str]) -> None:
        if names:
            listed = sorted(names)
            fields: dict[str, object] = {"what": what, "by": listed[:NAMES_MAX], "count": len(listed)}
            self._records.append(chain, "acknowledged", fields)

    def _look_at_gap(self, chain: Chain, seen: Seen, slots: list[Slot]) -> int | None:
        now, active = self._state.now, [slot for slot in slots if slot.active]
        if any(slot.sums.capacity for slot in active):
            seen.served = True
            opened = sorted({slot.key.version for slot in active if slot.sums.ready})
            if seen.closed_at is not None and opened:  # else the engine has not confirmed it
                gap_ms = round((now - seen.closed_at) * 1000)
                seen.closed_at = None
                self._records.append(chain, "opened", {"versions": opened, "gap_ms": gap_ms}, always=True)
                return gap_ms
        elif seen.served and seen.closed_at is None:
            seen.closed_at = now
            self._records.append(chain, "closed", {"state": chain.last("state").get("state", "")}, always=True)
        return None


def _bare(gate: GateState) -> tuple[str, tuple[str, ...]]:
    """Without what changes with each attempt of a hook."""
    return WAITING if gate.state == RUNNING else gate.state, gate.by


def _recorded(chain: Chain, name: str) -> tuple[str, tuple[str, ...]]:
    """The gate as the chain has it."""
    found = (each for each in reversed(chain.entries) if each.get("kind") == "gate" and each.get("gate") == name)
    last = next(found, None)
    return (last["state"], tuple(last["by"])) if last is not None else ("", ())


def _closed_at(chain: Chain, now: float, wall_ms: int) -> float | None:
    """When a gap began that has not ended, as an earlier start of control recorded it. On the monotonic clock."""
    last = chain.last("closed", "opened")
    return now - max(0, wall_ms - last["at_ms"]) / 1000 if last.get("kind") == "closed" else None
