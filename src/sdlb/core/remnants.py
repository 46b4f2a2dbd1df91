"""Remnants: claims that a child no longer reports and that are not known to have stopped.

A remnant has no capacity and no endpoint. It blocks incompatible versions until a live source covers its hosts, or it is
known to have stopped. After lease and fence, `on_silence` decides, as for a silent child.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from sdlb.core import saved
from sdlb.core.messages import Cause, Claim, ClaimKey
from sdlb.core.slot import Slot, includes
from sdlb.core.source import Source, Standing, Step
from sdlb.core.state import State, key_of, text_of

PREFIX = "r:"
REMNANTS_MAX = 8
"""Remnants of one child and key. It bounds the state that a child can cause by reporting other hosts each time."""


def child_of(target: str) -> str:
    return target[len(PREFIX) :].rpartition("#")[0]


class Remnants:
    def __init__(self, state: State, is_linked: Callable[[str], bool]) -> None:
        self._state = state
        self._is_linked = is_linked
        self._by_child: dict[str, dict[tuple[ClaimKey, str], None]] = {}

    def load(self, target: str, text: str, value: dict[str, object], now: float) -> None:
        key = key_of(text)
        source = Source(target, saved.claim_from(key, value), child_of(target))
        slot = self._state.put_source(key, source)
        slot.index(target, source.claim.hosts)
        self._arm(slot, source, Cause(int(str(value.get("cause", 3)))), now)

    def keep(self, slot: Slot, claim: Claim, child: str, cause: Cause, now: float, covered_by: set[str]) -> None:
        """Keeps a claim of `child` as a remnant. `covered_by`: the targets that covered it while it was reported."""
        for known in [each for each in slot.sources.values() if each.child == child and each.target.startswith(PREFIX)]:
            if includes(claim, known.claim):
                self.drop(slot.key, known.target, None)
        number = 1
        while f"{PREFIX}{child}#{number}" in slot.sources:
            number += 1
        if number > REMNANTS_MAX:
            number = REMNANTS_MAX
            claim = self._merged(slot, f"{PREFIX}{child}#{number}", claim)
            covered_by = set()
        target = f"{PREFIX}{child}#{number}"
        claim = replace(claim, capacity=0, opening=False, leaving=0)
        source = Source(target, claim, child)
        self._state.put_source(slot.key, source)
        slot.index(target, claim.hosts)
        for other in covered_by:
            source.covered_by.add(other)
            slot.covers.setdefault(other, set()).add(target)
        self._arm(slot, source, cause, now)
        value = {**saved.claim_to(claim), "cause": int(cause)}
        self._state.persist(f"remnant/{target}/{text_of(slot.key)}", value, durable=False)

    def _merged(self, slot: Slot, target: str, claim: Claim) -> Claim:
        """Merges a remnant with the last one of the child. Without hosts it cannot be covered, so it stays until its time."""
        other = slot.sources[target].claim
        self.drop(slot.key, target, None)
        return replace(
            claim,
            count=max(claim.count, other.count),
            hosts=(),
            hosts_digest=0,
            stage=max(claim.stage, other.stage),
            lease_s=max(claim.lease_s, other.lease_s),
        )

    def _arm(self, slot: Slot, source: Source, cause: Cause, now: float) -> None:
        settings = self._state.settings
        source.cause = cause
        source.step(Step.OMIT)
        if cause is Cause.PRESUMED:  # lease and fence have passed already
            source.step(Step.PRESUME)
            source.until = now
        else:
            source.until = now + settings.lease_s + max(settings.fence_s, source.claim.lease_s)
            self._state.set_timer(now + settings.silence_s, "remnant", f"{source.target} {text_of(slot.key)}")
        self._by_child.setdefault(source.child, {})[slot.key, source.target] = None

    def check(self, name: str, now: float) -> None:
        """Handles the timer of a remnant."""
        target, _, text = name.partition(" ")
        key = key_of(text)
        slot = self._state.slots.get(key)
        source = slot.sources.get(target) if slot is not None else None
        if slot is None or source is None or source.standing is not Standing.REMNANT:
            return
        if slot.covered(source):
            self.drop(key, target, None)
        elif source.claim.hosts == (source.child,) and self._is_linked(source.child):
            # Its host is connected, has had the time to learn what its engine has, and claims nothing of it: so the
            # instance gets no requests any more.
            self.drop(key, target, Cause.STOPPED)
        elif now < source.until:
            self._state.set_timer(source.until, "remnant", name)
        elif self._state.policy(key.service).on_silence == "wait":
            self._state.step(key, source, Step.PRESUME)
        else:
            self.drop(key, target, Cause.PRESUMED)

    def recheck(self, service: str) -> None:
        """After a change of the policy: remnants that `on_silence = "wait"` kept are removed under "open"."""
        if self._state.policy(service).on_silence == "wait":
            return
        for key in list(self._state.by_service.get(service, ())):
            for source in list(self._state.slots[key].sources.values()):
                if source.target.startswith(PREFIX) and source.standing is Standing.PRESUMED:
                    self.drop(key, source.target, Cause.PRESUMED)

    def drop(self, key: ClaimKey, target: str, cause: Cause | None) -> None:
        self._state.drop_source(key, target, cause)
        self.dropped(key, target)

    def dropped(self, key: ClaimKey, target: str) -> None:
        named = self._by_child.get(child_of(target), {})
        named.pop((key, target), None)
        if not named:
            self._by_child.pop(child_of(target), None)
        self._state.clear_timer("remnant", f"{target} {text_of(key)}")
        self._state.persist(f"remnant/{target}/{text_of(key)}", None, durable=False)

    def forget(self, child: str) -> bool:
        """Drops the remnants of a node that an operator reports as stopped. Returns whether there were any."""
        mine = list(self._by_child.get(child, ()))
        for key, target in mine:
            self.drop(key, target, Cause.STOPPED)
        return bool(mine)

    def summary(self) -> list[dict[str, object]]:
        """For the API: the nodes that have remnants, and the number of claims of each."""
        return [{"name": name, "claims": len(mine)} for name, mine in sorted(self._by_child.items())]

    def shift(self, by_s: float) -> None:
        for mine in self._by_child.values():
            for key, target in mine:
                self._state.slots[key].sources[target].until += by_s
