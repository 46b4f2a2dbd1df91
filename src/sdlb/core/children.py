"""The children of a node: their links, leases and claims.

Silence is treated in steps (design.md, "Silence"): a broken link changes nothing; a lease that ran out makes a child
*suspect* (its members stay as a last resort); a fence time later it is presumed stopped. When more than half of at least
three children are suspect at once, the likelier fault is ours: the node is `guarded` and presumes nothing, until enough
are back or an operator says which of them have stopped (`ForgetChild`).
"""

from __future__ import annotations

from dataclasses import replace

from sdlb.core.downlink import Downlink
from sdlb.core.effects import DropChild, ToChild
from sdlb.core.events import ChildClosed, ChildConnected, ForgetChild, MemberKey
from sdlb.core.messages import (
    NO_POLICY,
    Beat,
    Claim,
    ClaimKey,
    DrainAck,
    Hello,
    PolicyDoc,
    Refused,
    UpState,
    Verdict,
    Welcome,
)
from sdlb.core.slot import Slot, Source
from sdlb.core.state import State, key_of, text_of
from sdlb.model.address import check_address, check_name

PROTOCOL = 1
GUARD_CHILDREN_MIN = 3


class Children:
    def __init__(self, state: State) -> None:
        self._state = state
        self.by_name: dict[str, Downlink] = {}
        self.by_link: dict[int, Downlink] = {}
        self.unsynced: set[str] = set()  # on record, not heard from since this control started
        self.just_settled = False  # the last of them has reported: what was kept for them is looked at again
        self.guarded = False
        self._owed: dict[str, None] = {}  # children that something may have to be told

    # ------------------------------------------------------------------ what the disk had

    def load(self, name: str, saved: list[str | int], claims: dict[str, object], now: float) -> None:
        """A child that was there before the restart: its lease starts anew, its claims count meanwhile."""
        node_id, incarnation, address = saved
        child = Downlink(name, str(node_id), int(incarnation), str(address), now)
        self.by_name[name] = child
        self.unsynced.add(name)
        self._state.table.set_target(child.target, True, child.address)
        for text, value in sorted(claims.items()):
            key = key_of(text)
            self._put(child, claim_from_json(key, value), save=False)
        self._state.set_timer(now + self._state.settings.lease_s, "child", name)

    # ------------------------------------------------------------------ links

    def on_connected(
        self, event: ChildConnected, now: float, ancestors: tuple[str, ...], roots: tuple[str, ...]
    ) -> None:
        state, hello = self._state, event.hello
        refused = self._objection(hello, ancestors, now)
        if refused is not None:
            state.note("child-refused", f"{hello.node} was refused: {refused.detail}", "warning", child=hello.node)
            state.effects += [ToChild(event.link, refused), DropChild(event.link)]
            return
        child = self.by_name.get(hello.node)
        if child is None:
            child = self.by_name[hello.node] = Downlink(
                hello.node, hello.node_id, hello.incarnation, hello.data_address, now
            )
            state.set_timer(now + state.settings.lease_s, "child", child.name)
        elif child.link is not None:
            self._unlink(child, drop=True)
        if child.labels != hello.labels:  # it may be in another zone now
            for key in child.keys:
                state.touch(key)
        digest = child.digest([state.slots[key].sources[child.target].claim for key in child.keys])
        child.linked(event.link, hello, digest, now)
        self.by_link[event.link] = child
        state.table.set_target(child.target, True, child.address)
        state.persist(f"child/{child.name}", [child.node_id, child.incarnation, child.address], durable=False)
        self._unsuspect(child)
        welcome = Welcome(
            state.settings.name,
            state.settings.node_id,
            state.settings.incarnation,
            ancestors,
            digest,
            round(state.settings.lease_s * 1000),
            roots,
        )
        state.effects.append(ToChild(event.link, welcome))
        child.dirty.update(child.keys)
        child.dirty_policies.update(dict.fromkeys(state.policies))
        self._owed[child.name] = None
        state.note("child-connected", f"{child.name} is connected", child=child.name)

    def _objection(self, hello: Hello, ancestors: tuple[str, ...], now: float) -> Refused | None:
        if hello.protocol != PROTOCOL:
            return Refused("protocol", f"this node speaks protocol {PROTOCOL}, not {hello.protocol}; use the same sdlb")
        if hello.node in ancestors:
            return Refused("cycle", f"{hello.node} is itself above {self._state.settings.name}; mend its parents")
        try:
            check_name(hello.node)
            check_address(hello.data_address, wildcard=False)
        except ValueError as problem:
            expected = f"expected {problem}"
            what = f"name {hello.node[:80]!r}, reached at {hello.data_address[:80]!r}"
            return Refused("bad-hello", f"{what}: {expected}; mend its name, or advertise in its node file")
        child = self.by_name.get(hello.node)
        if child is None or child.newer(hello):
            return None
        if child.node_id == hello.node_id:
            detail = (
                f"incarnation {hello.incarnation} of {hello.node} is older than {child.incarnation}; its state is old"
            )
            return Refused("older-incarnation", detail)
        if now < child.heard_at + self._state.settings.lease_s:
            return Refused("name-taken", f"another node named {hello.node} is alive; give one of the two another name")
        return None

    def _unlink(self, child: Downlink, drop: bool) -> None:
        if child.link is None:
            return
        self.by_link.pop(child.link, None)
        if drop:
            self._state.effects.append(DropChild(child.link))
        child.link = None

    def on_closed(self, event: ChildClosed) -> None:
        child = self.by_link.get(event.link)
        if child is not None:
            self._unlink(child, drop=False)
            self._state.note("child-disconnected", f"the link of {child.name} broke", child=child.name)

    def heard(self, child: Downlink, now: float) -> None:
        child.heard_at = now
        if child.suspect:
            self._unsuspect(child)

    def on_beat(self, child: Downlink, beat: Beat) -> None:
        if child.behind(beat):
            self._start_over(child)

    def _start_over(self, child: Downlink) -> None:
        self._state.note("link-gap", f"a message of {child.name} was lost; starting over", "warning", child=child.name)
        self._unlink(child, drop=True)

    def on_bye(self, child: Downlink) -> None:
        """It stops for good and says so: known to have stopped."""
        self._forget_claims(child)
        self._unlink(child, drop=True)
        self._remove(child)
        self._state.note("child-left", f"{child.name} has left", child=child.name)

    def on_forget(self, event: ForgetChild) -> None:
        """A silent one has stopped, an operator says: the way out of the guard, and of `on_silence = "wait"`."""
        child = self.by_name.get(event.name)
        if child is None or not child.suspect:
            return
        self._forget_claims(child)
        self._remove(child)
        self._state.persist(f"child/{child.name}", None)  # durable: it is not on record again after a power cut
        text = f"{child.name} was forgotten: an operator says that it has stopped"
        self._state.note("child-forgotten", text, "warning", child=child.name)
        self._weigh_guard()

    # ------------------------------------------------------------------ claims

    def on_state(self, child: Downlink, message: UpState) -> None:
        state = self._state
        if not child.received(message.seq):
            self._start_over(child)
            return
        child.synced = True
        child.claims_due = False
        self.mark_synced(child.name)
        if message.full:
            named = {claim.key for claim in message.claims}
            for key in [key for key in child.keys if key not in named]:
                self._drop(child, key)
        for claim in message.claims:
            self._put(child, claim)
        for key in message.withdrawn:
            self._drop(child, key)
        for doc in message.policies:
            child.policies[doc.service] = doc.rank
            state.adopt_policy(doc)

    def mark_synced(self, name: str) -> None:
        if name in self.unsynced:
            self.unsynced.discard(name)
            if not self.unsynced:
                self.just_settled = True

    def _put(self, child: Downlink, claim: Claim, save: bool = True) -> None:
        state = self._state
        child.keys[claim.key] = None
        child.dirty[claim.key] = None
        self._owed[child.name] = None
        state.put_source(claim.key, Source(child.target, claim, child.name, child.suspect))
        if save:
            state.persist(f"claim/{child.name}/{text_of(claim.key)}", claim_to_json(claim), durable=False)

    def _drop(self, child: Downlink, key: ClaimKey) -> None:
        if key not in child.keys:
            return
        del child.keys[key]
        child.sent.pop(key, None)
        child.acked.pop(key, None)
        child.dirty.pop(key, None)
        self._state.drop_source(key, child.target)
        self._state.persist(f"claim/{child.name}/{text_of(key)}", None, durable=False)

    def _forget_claims(self, child: Downlink) -> None:
        for key in list(child.keys):
            self._drop(child, key)

    def _remove(self, child: Downlink) -> None:
        del self.by_name[child.name]
        self._state.table.forget_target(child.target)
        self.mark_synced(child.name)
        self._state.persist(f"child/{child.name}", None, durable=False)

    # ------------------------------------------------------------------ leases

    def shift(self, by_s: float) -> None:
        """This control did not run for a while: its own deafness is nobody's silence."""
        for child in self.by_name.values():
            child.heard_at += by_s

    def check(self, name: str, now: float) -> None:
        """The timer of a child's lease."""
        state, child = self._state, self.by_name.get(name)
        if child is None:
            return
        lapse = child.heard_at + state.settings.lease_s
        if now < lapse:
            state.set_timer(lapse, "child", name)
            return
        if not child.suspect:
            self._unlink(child, drop=True)
            self._suspect(child, True)
            state.note("child-silent", f"{name} has been silent for its lease", "warning", child=name)
        self._weigh_guard()
        fence = lapse + state.settings.fence_s
        if now < fence:
            state.set_timer(fence, "child", name)
        elif self.guarded:
            state.set_timer(now + state.settings.lease_s, "child", name)
        else:
            self._presume_stopped(child, now)

    def _suspect(self, child: Downlink, suspect: bool) -> None:
        child.suspect = suspect
        for key in child.keys:
            self._state.slots[key].sources[child.target].suspect = suspect
            self._state.touch(key)

    def _unsuspect(self, child: Downlink) -> None:
        if child.suspect:
            self._suspect(child, False)
            self._state.set_timer(child.heard_at + self._state.settings.lease_s, "child", child.name)
            self._weigh_guard()

    def _weigh_guard(self) -> None:
        suspects = sum(1 for child in self.by_name.values() if child.suspect)
        guarded = len(self.by_name) >= GUARD_CHILDREN_MIN and suspects * 2 > len(self.by_name)
        if guarded == self.guarded:
            return
        self.guarded = guarded
        if guarded:
            text = f"{suspects} of {len(self.by_name)} children fell silent together; keeping what they claimed"
            self._state.note("guarded", text, "error")
        else:
            self._state.note("guard-lifted", "enough children are back; leases count again")

    def _presume_stopped(self, child: Downlink, now: float) -> None:
        state = self._state
        kept = 0
        for key in list(child.keys):
            if state.policy(key.service).on_silence == "wait":
                kept += 1
                source = state.slots[key].sources[child.target]
                if not source.claim.presumed:
                    source.claim = replace(source.claim, capacity=0, presumed=True, opening=False, leaving=0)
                    state.touch(key)
            else:
                self._drop(child, key)
        self.mark_synced(child.name)
        if kept:
            state.set_timer(now + state.settings.lease_s, "child", child.name)
            return
        state.note("child-presumed-stopped", f"{child.name} is presumed to have stopped", "warning", child=child.name)
        self._remove(child)
        self._weigh_guard()

    # ------------------------------------------------------------------ what they are told

    def owe_policy(self, service: str) -> None:
        """To all, also to those that have nothing of the service: every root below and above must come to know it."""
        for child in self.by_link.values():
            child.dirty_policies[service] = None
            self._owed[child.name] = None

    def owe(self, slot: Slot, news: bool) -> None:
        """`news`: there is another verdict, for every child; without, only for those that leave something may have changed
        (who claims anew is owed an answer anyway)."""
        for source in slot.sources.values():
            if source.child and (news or source.claim.leaving):
                child = self.by_name.get(source.child)
                if child is not None:
                    child.dirty[slot.key] = None
                    self._owed[child.name] = None

    def flush(self, path: tuple[tuple[str, ...], tuple[str, ...]], path_changed: bool) -> None:
        """Costs what there is to tell, however many children there are."""
        if not self._owed and not path_changed:
            return
        names = self.by_name if path_changed else self._owed
        links = sorted(c.link for c in map(self.by_name.get, names) if c is not None and c.link is not None)
        self._owed.clear()
        for link in links:
            self._flush_one(self.by_link[link], link, path)

    def _flush_one(self, child: Downlink, link: int, path: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        state = self._state
        verdicts: list[Verdict] = []
        drained: list[DrainAck] = []
        for key in () if child.claims_due else child.dirty:
            slot = state.slots.get(key)
            source = slot.sources.get(child.target) if slot is not None else None
            if slot is None or source is None:
                continue
            verdict = verdict_of(slot, state.settings.name)
            if child.sent.get(key) != verdict:
                verdicts.append(verdict)
            leaving = source.claim.leaving
            if leaving and child.acked.get(key) != leaving and not state.table.present(MemberKey(key, child.target)):
                drained.append(DrainAck(key, leaving))
        child.dirty.clear()
        docs: list[PolicyDoc] = []
        for service in sorted(child.dirty_policies):
            doc = state.policies[service]
            if doc.rank > max(child.sent_policies.get(service, NO_POLICY), child.policies.get(service, NO_POLICY)):
                docs.append(doc)
        child.dirty_policies.clear()
        message = child.state(verdicts, [], drained, docs, path)
        if message is not None:
            state.effects.append(ToChild(link, message))


def verdict_of(slot: Slot, node: str) -> Verdict:
    permit = slot.permit
    return Verdict(
        slot.key, permit.state, permit.code, permit.reason, permit.decided_by or node, permit.generation, slot.epoch
    )


def claim_to_json(claim: Claim) -> list[object]:
    """What a restart needs; what a child asks for at the moment (leaving, seen) it says again."""
    return [
        claim.capacity,
        claim.count,
        list(claim.hosts),
        list(claim.compatible),
        claim.stamp,
        claim.open,
        claim.generation,
    ]


def claim_from_json(key: ClaimKey, saved: object) -> Claim:
    capacity, count, hosts, compatible, stamp, is_open, generation = saved  # type: ignore[misc]
    return Claim(
        key,
        int(capacity),  # type: ignore[has-type]
        int(count),  # type: ignore[has-type]
        tuple(hosts),  # type: ignore[has-type]
        tuple(compatible),  # type: ignore[has-type]
        int(stamp),  # type: ignore[has-type]
        bool(is_open),  # type: ignore[has-type]
        int(generation),  # type: ignore[has-type]
    )
