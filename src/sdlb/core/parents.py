"""The parents of a node: their links, what they say together, what they are told.

A key's permit is ACTIVE only when every parent in touch says so. A parent that is not heard of for its lease has no say
(and counts as having acknowledged drains); with none in touch, permits stay as they are and nothing new opens.
"""

from __future__ import annotations

from collections.abc import Callable

from sdlb.core.effects import Dial, HangUp, ToParent
from sdlb.core.events import ParentClosed, ParentConnected
from sdlb.core.messages import (
    ACTIVE,
    NO_POLICY,
    REFUSED,
    WAITING,
    Beat,
    Bye,
    Claim,
    ClaimKey,
    DownState,
    Hello,
    PolicyDoc,
    Refused,
    Verdict,
    Welcome,
)
from sdlb.core.slot import Permit, Slot
from sdlb.core.state import State
from sdlb.core.uplink import Phase, Uplink
from sdlb.model.reason import Asking, NoParent

UNDECIDED = (Asking.code, NoParent.code)

# (capacity that can be served now, capacity is on its way, something may be in flight here)
Measure = Callable[[Slot], tuple[int, bool, bool]]


class Parents:
    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.links = {p: Uplink(p, now, state.settings.lease_s) for p in sorted(set(state.settings.parents))}
        self._dialing = False
        self._lost: set[str] = set()

    def arm(self, now: float) -> None:
        for parent in self.links:
            self._state.set_timer(now + self._state.settings.lease_s, "parent", parent)

    # ------------------------------------------------------------------ links

    def start_dialing(self, now: float) -> None:
        """Not before the engine has confirmed the table, so that what is claimed can be served."""
        if not self._dialing:
            self._dialing = True
            for parent in self.links:
                self._state.set_timer(now, "dial", parent)

    def dial(self, parent: str, now: float) -> None:
        uplink = self.links[parent]
        if uplink.phase in (Phase.IDLE, Phase.REFUSED) and now >= uplink.dial_at:
            uplink.phase = Phase.DIALING
            self._state.effects.append(Dial(parent))

    def on_connected(self, event: ParentConnected, now: float) -> None:
        uplink, settings = self.links[event.parent], self._state.settings
        if uplink.phase is not Phase.DIALING:
            self._state.effects.append(HangUp(event.parent))
            self._closed(uplink, now, "an unexpected connection")
            return
        digest = uplink.greet()
        labels = tuple(f"{name}={value}" for name, value in settings.labels)
        hello = Hello(settings.name, settings.node_id, settings.incarnation, event.data_address, digest, labels)
        self._state.effects.append(ToParent(event.parent, hello))
        self._state.set_timer(now + settings.lease_s, "greeting", event.parent)

    def on_closed(self, event: ParentClosed, now: float) -> None:
        uplink = self.links[event.parent]
        if uplink.phase not in (Phase.IDLE, Phase.REFUSED):
            if uplink.phase is Phase.UP:
                self._state.note("parent-disconnected", f"the link to {event.parent} broke", parent=event.parent)
            self._closed(uplink, now, event.detail)

    def _closed(self, uplink: Uplink, now: float, detail: str, phase: Phase = Phase.IDLE) -> None:
        uplink.closed(now, self._state.rng, detail, phase)
        self._state.set_timer(uplink.dial_at, "dial", uplink.parent)

    def hang_up(self, uplink: Uplink, now: float, detail: str, phase: Phase = Phase.IDLE) -> None:
        self._state.effects.append(HangUp(uplink.parent))
        self._closed(uplink, now, detail, phase)

    def on_welcome(self, uplink: Uplink, message: Welcome, now: float) -> None:
        state = self._state
        if uplink.phase is not Phase.GREETING:
            self.hang_up(uplink, now, "a welcome out of turn")
            return
        if state.settings.name in message.ancestors:
            detail = f"{uplink.parent} is below {state.settings.name}: a cycle; mend the parents of one of them"
            state.note("cycle", detail, "error", parent=uplink.parent)
            self.hang_up(uplink, now, detail, Phase.REFUSED)
            return
        uplink.welcome(message, now)
        self._lost.discard(uplink.parent)
        state.set_timer(uplink.lost_at, "parent", uplink.parent)
        uplink.dirty.update(dict.fromkeys(state.slots))
        uplink.dirty.update(dict.fromkeys(uplink.sent))
        uplink.dirty_policies.update(dict.fromkeys(state.policies))
        for key in state.slots:
            state.touch(key)
        state.note("parent-connected", f"connected to {message.node}", parent=uplink.parent)

    def on_refused(self, uplink: Uplink, message: Refused, now: float) -> None:
        self._state.note(f"refused-{message.code}", f"{uplink.parent} refused us: {message.detail}", "error")
        self.hang_up(uplink, now, message.detail, Phase.REFUSED)
        for key in self._state.slots:
            self._state.touch(key)

    def on_beat(self, uplink: Uplink, beat: Beat, now: float) -> None:
        if uplink.behind(beat):
            self._start_over(uplink, now)

    def _start_over(self, uplink: Uplink, now: float) -> None:
        self._state.note("link-gap", f"a message of {uplink.parent} was lost; starting over", "warning")
        self.hang_up(uplink, now, "a message was lost")

    def on_state(self, uplink: Uplink, message: DownState, now: float) -> bool:
        """Takes in what the parent says; whether ancestors or roots changed."""
        state = self._state
        if not uplink.received(message.seq):
            self._start_over(uplink, now)
            return False
        for key in uplink.decide(message.verdicts, message.received):
            state.touch(key)
        for key in message.forgotten:
            uplink.verdicts.pop(key, None)
            state.touch(key)
        for ack in message.drained:
            slot = state.slots.get(ack.key)
            if slot is not None and slot.leaving == ack.leaving:
                slot.acked.add(uplink.parent)
                state.touch(ack.key)
        for doc in message.policies:
            uplink.sent_policies[doc.service] = doc.rank
            if not state.adopt_policy(doc):
                uplink.dirty_policies[doc.service] = None  # goes back up if ours is newer
        changed = (message.ancestors, message.roots) != (uplink.ancestors, uplink.roots)
        uplink.ancestors, uplink.roots = message.ancestors, message.roots
        if state.settings.name in message.ancestors:
            self.hang_up(uplink, now, f"{uplink.parent} is below {state.settings.name}: a cycle", Phase.REFUSED)
        return changed

    def check_lease(self, parent: str, now: float) -> None:
        """The timer of a parent's lease: from its end on, the parent has no say."""
        uplink = self.links[parent]
        if uplink.in_touch(now):
            self._state.set_timer(uplink.lost_at, "parent", parent)
            return
        if parent not in self._lost:
            self._lost.add(parent)
            why = f": {uplink.detail}" if uplink.phase is Phase.IDLE and uplink.detail else ""
            self._state.note("parent-silent", f"{parent} has been silent for its lease{why}", "warning", parent=parent)
        if uplink.phase in (Phase.UP, Phase.GREETING):
            self.hang_up(uplink, now, "silent for its lease")
        for key in self._state.slots:
            self._state.touch(key)

    def check_greeting(self, parent: str, now: float) -> None:
        uplink = self.links[parent]
        if uplink.phase is Phase.GREETING and not uplink.in_touch(now):
            self.hang_up(uplink, now, "no welcome came")

    def beat(self) -> None:
        for parent, uplink in self.links.items():
            if uplink.phase is Phase.UP:
                self._state.effects.append(ToParent(parent, uplink.beat()))

    def in_touch(self, now: float) -> list[Uplink]:
        return [uplink for uplink in self.links.values() if uplink.in_touch(now)]

    def path(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """All nodes above, this one included, and all roots above."""
        ancestors = {self._state.settings.name}
        roots: set[str] = set()
        for uplink in self.links.values():
            ancestors.update(uplink.ancestors)
            roots.update(uplink.roots)
        if not self.links:
            roots.add(self._state.settings.name)
        return tuple(sorted(ancestors)), tuple(sorted(roots))

    # ------------------------------------------------------------------ what they say together

    def permit(self, slot: Slot, now: float) -> Permit:
        touching = self.in_touch(now)
        if not any(uplink.ever_heard for uplink in touching) and not slot.active:
            reason = NoParent()
            return Permit(WAITING, reason.code, str(reason), self._state.settings.name, slot.permit.generation)
        verdicts = [uplink.verdicts.get(slot.key) for uplink in touching]
        if slot.active:
            verdicts = [None if v is not None and _says_nothing(v, slot.permit) else v for v in verdicts]
        against = [v for v in verdicts if v is not None and v.state != ACTIVE]
        if against:
            worst = min(against, key=lambda v: (v.state != REFUSED, v.decided_by, v.reason))
            return Permit(worst.state, worst.reason_code, worst.reason, worst.decided_by, worst.generation)
        if slot.active and not any(v is not None for v in verdicts):
            return slot.permit  # nobody says anything: what holds, holds
        unknown = tuple(u.name or u.parent for u, v in zip(touching, verdicts, strict=True) if v is None)
        if unknown and not slot.active:
            reason = Asking(unknown)
            generation = max((v.generation for v in verdicts if v is not None), default=slot.permit.generation)
            return Permit(WAITING, reason.code, str(reason), self._state.settings.name, generation)
        said = [v for v in verdicts if v is not None]
        best = max(said, key=lambda v: (v.generation, v.decided_by))
        return Permit(ACTIVE, "", "", best.decided_by, best.generation)

    def granted(self, key: ClaimKey) -> bool:
        return any(key in u.verdicts and u.verdicts[key].state == ACTIVE for u in self.links.values())

    def drained(self, slot: Slot, now: float) -> bool:
        """Whether every parent in touch has taken us out for this key."""
        return all(uplink.parent in slot.acked for uplink in self.in_touch(now))

    # ------------------------------------------------------------------ what they are told

    def claim(self, slot: Slot, uplink: Uplink, capacity: int, opening: bool, present: bool) -> Claim:
        sent = uplink.sent.get(slot.key)
        verdict = uplink.verdicts.get(slot.key)
        seen = 0 if sent is None else sent.seen
        if verdict is not None and (verdict.state == ACTIVE or self._closed_below(slot, present)):
            seen = verdict.epoch
        sources = slot.sources.values()
        return Claim(
            key=slot.key,
            capacity=capacity,
            count=slot.count(),
            hosts=slot.hosts(),
            compatible=slot.compatible(),
            stamp=slot.stamp(),
            open=slot.open(present),
            generation=slot.generation(present),
            leaving=slot.leaving,
            seen=seen,
            presumed=all(source.claim.presumed for source in sources),
            opening=opening,
            granted=self.granted(slot.key) or any(source.claim.granted for source in sources),
        )

    @staticmethod
    def _closed_below(slot: Slot, present: bool) -> bool:
        return not slot.active and not present and slot.conforms_below()

    def owe(self, key: ClaimKey) -> None:
        for uplink in self.links.values():
            uplink.dirty[key] = None

    def forget(self, key: ClaimKey) -> None:
        """Nobody claims it any more: what was said of it, said of what comes later, would be out of date."""
        for uplink in self.links.values():
            uplink.verdicts.pop(key, None)

    def owe_policy(self, service: str) -> None:
        for uplink in self.links.values():
            uplink.dirty_policies[service] = None

    def flush(self, measure: Measure, damped: bool) -> None:
        for uplink in self.links.values():
            if uplink.phase is Phase.UP:
                self._flush_one(uplink, measure, damped)
            else:
                uplink.dirty.clear()

    def _flush_one(self, uplink: Uplink, measure: Measure, damped: bool) -> None:
        state = self._state
        claims: list[Claim] = []
        withdrawn: list[ClaimKey] = []
        later: dict[ClaimKey, None] = {}
        for key in uplink.dirty:
            slot = state.slots.get(key)
            if slot is None:
                if key in uplink.sent:
                    withdrawn.append(key)
                continue
            capacity, opening, present = measure(slot)
            claim = self.claim(slot, uplink, capacity, opening, present)
            old = uplink.sent.get(key)
            if old == claim:
                continue
            if damped and old is not None and uplink.minor(old, claim):
                later[key] = None
                continue
            claims.append(claim)
        uplink.dirty = later
        docs: list[PolicyDoc] = []
        for name in uplink.dirty_policies:
            doc = state.policies.get(name)
            if doc is not None and doc.rank > uplink.sent_policies.get(name, NO_POLICY):
                docs.append(doc)
        uplink.dirty_policies.clear()
        message = uplink.state(claims, withdrawn, docs)
        if message is not None:
            state.effects.append(ToParent(uplink.parent, message))

    def say_bye(self) -> None:
        for parent, uplink in self.links.items():
            if uplink.phase is Phase.UP:
                self._state.effects += [ToParent(parent, Bye()), HangUp(parent)]
            uplink.phase = Phase.REFUSED


def _says_nothing(verdict: Verdict, permit: Permit) -> bool:
    """Against what serves already: a parent that has no answer itself, or that is late, with a generation behind ours."""
    late = verdict.state == WAITING and verdict.generation < permit.generation
    return late or verdict.reason_code in UNDECIDED
