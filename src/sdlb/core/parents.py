"""The parents of a node: their links, their common decision, and what is sent to them.

The permit of a key is ACTIVE only if every parent with a say agrees. These parents have no say:

* one that sent nothing for its lease; it also counts as having acknowledged drains,
* one without a link while other parents forward the decisions of the same roots,
* one that is itself cut off,
* a root that could not write for lease and fence.

If no parent has a say, permits stay as they are and nothing new opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from sdlb.core.effects import Dial, HangUp, Reincarnate, ToParent
from sdlb.core.events import ParentClosed, ParentConnected
from sdlb.core.messages import (
    ACTIVE,
    NO_DOC,
    REFUSED,
    WAITING,
    Beat,
    Cause,
    Claim,
    ClaimKey,
    Doc,
    DownState,
    Gone,
    Hello,
    Path,
    Refused,
    Stage,
    Verdict,
    Welcome,
)
from sdlb.core.reporting import Report, Reporting
from sdlb.core.slot import Permit, Slot
from sdlb.core.source import Source, Standing
from sdlb.core.state import State
from sdlb.core.uplink import Phase, Uplink
from sdlb.core.votes import generation_votes, majority_generation
from sdlb.model.reason import Asking, NewerGeneration, NoParent, Nothing

UNDECIDED = (Asking.code, NoParent.code)


class Parents:
    def __init__(self, state: State, now: float) -> None:
        self._state = state
        self.links = {p: Uplink(p, now, state.settings.lease_s) for p in sorted(set(state.settings.parents))}
        self.unconfirmed: dict[ClaimKey, None] = {}  # active permits that a parent must confirm before they count
        self.reporting = Reporting(state, self.links)
        self._dialing = False
        self._lost: set[str] = set()
        self._known_paths: tuple[Path, ...] | None = None  # the paths that `_path` was merged from
        self._path = Path()

    def start(self, now: float) -> None:
        for parent, uplink in self.links.items():
            uplink.heard_at = uplink.dial_at = uplink.welcomed_at = now
            self._state.set_timer(now + self._state.settings.lease_s, "parent", parent)
        self.reporting.start(now)

    # ------------------------------------------------------------------ links

    def start_dialing(self, now: float) -> None:
        """Starts connecting. It is called after the engine has confirmed the table, so that reported capacity can serve."""
        if not self._dialing:
            self._dialing = True
            for parent in self.links:
                self._state.set_timer(now, "dial", parent)

    def dial(self, parent: str, now: float) -> None:
        uplink = self.links[parent]
        if uplink.phase not in (Phase.IDLE, Phase.REFUSED, Phase.DUPLICATE):
            return
        if now < uplink.dial_at:
            self._state.set_timer(uplink.dial_at, "dial", parent)
        elif uplink.phase is Phase.DUPLICATE and self._same_node(uplink) is not None:
            uplink.dial_at = now + self._state.settings.lease_s
            self._state.set_timer(uplink.dial_at, "dial", parent)
        else:
            uplink.phase = Phase.DIALING
            self._state.effects.append(Dial(parent))

    def on_connected(self, event: ParentConnected, now: float) -> None:
        uplink, settings = self.links[event.parent], self._state.settings
        if uplink.phase is not Phase.DIALING:
            self._state.effects.append(HangUp(event.parent))
            self._closed(uplink, now, "unexpected connection")
            return
        claims, verdicts = uplink.greet(self._state.policies.docs)
        hello = Hello(
            settings.name,
            settings.node_id,
            self._state.incarnation,
            event.data_address,
            claims,
            tuple(f"{name}={value}" for name, value in settings.labels),
            nonce=settings.nonce,
            verdicts_digest=verdicts,
            docs_digest=self._state.policies.digest,
        )
        self._state.effects.append(ToParent(event.parent, hello))
        self._state.set_timer(now + settings.lease_s, "greeting", event.parent)

    def on_closed(self, event: ParentClosed, now: float) -> None:
        uplink = self.links[event.parent]
        if uplink.phase not in (Phase.IDLE, Phase.REFUSED, Phase.DUPLICATE):
            was_up = uplink.phase is Phase.UP
            if was_up:
                self._state.note("parent-disconnected", f"the link to {event.parent} was lost", parent=event.parent)
            self._closed(uplink, now, event.detail)
            if was_up and len(self.links) > 1:
                self._state.touch_all()  # other parents may forward the decisions of the same roots

    def _closed(self, uplink: Uplink, now: float, detail: str, phase: Phase = Phase.IDLE) -> None:
        uplink.closed(now, self._state.rng, detail, phase)
        self.reporting.closed(uplink)
        self._state.clear_timer("greeting", uplink.parent)
        self._state.set_timer(uplink.dial_at, "dial", uplink.parent)

    def hang_up(self, uplink: Uplink, now: float, detail: str, phase: Phase = Phase.IDLE) -> None:
        self._state.effects.append(HangUp(uplink.parent))
        self._closed(uplink, now, detail, phase)

    def _same_node(self, uplink: Uplink) -> Uplink | None:
        """The uplink of another address through which the same node is in touch."""
        for other in self.links.values():
            same = other is not uplink and other.node_id and other.node_id == uplink.node_id
            if same and other.in_touch(self._state.now):
                return other
        return None

    def on_welcome(self, uplink: Uplink, message: Welcome, now: float) -> None:
        state = self._state
        if uplink.phase is not Phase.GREETING:
            self.hang_up(uplink, now, "unexpected Welcome")
            return
        if state.settings.name in message.path.ancestors:
            self._cycle(uplink, now)
            return
        self._on_node_id(uplink, message.node_id)
        other = self._same_node(uplink)
        if other is not None and other.parent < uplink.parent:
            self._on_duplicate(uplink, other, message, now)
            return
        if other is not None:
            self._on_duplicate(other, uplink, message, now)
        same = uplink.welcome(message, now)
        self._lost.discard(uplink.parent)
        state.clear_timer("greeting", uplink.parent)
        state.set_timer(uplink.lost_at, "parent", uplink.parent)
        state.set_timer(now + state.settings.silence_s, "docs", uplink.parent)
        if same:
            uplink.go_on()
        else:
            uplink.start_over()
            uplink.dirty_docs.update(dict.fromkeys(state.policies.docs))  # the parent may have lost its disk
        roots = message.path.root_ids
        for doc in list(uplink.docs.values()):  # a document that a root has is in force under that root
            doc = replace(doc, scope=roots) if uplink.is_root else _under(doc, roots)
            uplink.docs[doc.id] = doc
            state.policies.adopt(doc)
        self.reporting.review()
        uplink.dirty.update(dict.fromkeys(uplink.gone))
        uplink.dirty.update(dict.fromkeys(state.slots))
        if not same or not message.verdicts_kept:
            state.touch_all()
        state.note("parent-connected", f"connected to {message.node}", parent=uplink.parent)

    def load(self, parent: str, node_id: str) -> None:
        if parent in self.links:
            self.links[parent].known_id = node_id
        else:
            self.reporting.moved()
            self._state.persist(f"parent/{parent}", None, durable=False)

    def _on_node_id(self, uplink: Uplink, node_id: str) -> None:
        """Records which node is at this address. A new id means that the node lost its disk or was replaced."""
        uplink.node_id = node_id
        if node_id == uplink.known_id:
            return
        if uplink.known_id:
            self._state.policies.on_root_replaced(uplink.known_id, node_id)
        uplink.known_id = node_id
        self._state.persist(f"parent/{uplink.parent}", node_id, durable=False)

    def _cycle(self, uplink: Uplink, now: float) -> None:
        name = self._state.settings.name
        detail = f"{uplink.parent} is a descendant of {name}: a cycle; change the parents of one of them"
        self._state.note("cycle", detail, "error", parent=uplink.parent)
        self.hang_up(uplink, now, detail, Phase.REFUSED)

    def _on_duplicate(self, uplink: Uplink, other: Uplink, message: Welcome, now: float) -> None:
        """Handles two addresses of one node: the first in sort order is used, and the other one waits."""
        if other.nonce in ("", message.nonce) or uplink.nonce == message.nonce:
            detail = f"{uplink.parent} and {other.parent} are addresses of one node, {message.node}; remove one of them"
            self._state.note("parent-twice", detail, "warning", parent=uplink.parent)
        else:
            detail = (
                f"{uplink.parent} and {other.parent} are two nodes with the same identity: a state folder was copied; "
                "start one of them with an empty state folder"
            )
            self._state.note("parent-cloned", detail, "error", parent=uplink.parent)
        self.hang_up(uplink, now, detail, Phase.DUPLICATE)
        self._state.set_timer(uplink.dial_at, "dial", uplink.parent)

    def on_refused(self, uplink: Uplink, message: Refused, now: float) -> None:
        state = self._state
        if message.code == "still-connected":
            self.hang_up(uplink, now, message.detail)
            return
        if message.code == "older-incarnation" and message.incarnation >= state.incarnation:
            # The state folder is an older copy. This node continues with an incarnation that no other state of it has used.
            # The permits on disk may be out of date, so parents must confirm them.
            state.reincarnate(message.incarnation + 1)
            state.effects.append(Reincarnate(state.incarnation))
            text = (
                f"{uplink.parent} knows a later state of this node, so the state folder is an older copy; "
                f"continuing as incarnation {state.incarnation}"
            )
            state.note("restored", text, "warning", parent=uplink.parent)
            self.require_confirmation()
            self.hang_up(uplink, now, message.detail)
            return
        state.note(f"refused-{message.code}", f"{uplink.parent} refused this node: {message.detail}", "error")
        self.hang_up(uplink, now, message.detail, Phase.REFUSED)
        state.touch_all()

    def require_confirmation(self, *, closed: bool = False) -> None:
        """Makes active permits wait until a parent confirms them, unless a parent has done so since the start.

        A root has no parents and relies on its records. `closed`: only permits of keys that the engine does not serve; for
        those that it serves, its table is proof enough.
        """
        if not self.links:
            return
        for key, slot in self._state.slots.items():
            if closed and any(map(_may_serve, slot.sources.values())):
                continue
            if slot.active and not any(u.verdicts.get(key) is not None for u in self.links.values()):
                self.unconfirmed[key] = None
                self._state.touch(key)

    def on_beat(self, uplink: Uplink, beat: Beat, now: float) -> None:
        if uplink.behind(beat):
            self._start_over(uplink, now)
            return
        uplink.acknowledge(beat.received)
        if beat.has_say == (uplink.no_say_since is None):
            return
        uplink.no_say_since = None if beat.has_say else now
        self.reporting.review()
        say_ends_at = uplink.say_ends_at(self._state.settings.silence_s)
        if say_ends_at is not None and say_ends_at > now:
            self._state.set_timer(say_ends_at, "mute", uplink.parent)
        self._state.touch_all()

    def _start_over(self, uplink: Uplink, now: float) -> None:
        self._state.note("link-gap", f"a message from {uplink.parent} was lost; reconnecting", "warning")
        self.hang_up(uplink, now, "a message was lost")

    def on_state(self, uplink: Uplink, message: DownState, now: float) -> None:
        state = self._state
        if not uplink.received(message.seq):
            self._start_over(uplink, now)
            return
        for key in uplink.decide(message.verdicts, message.received):
            state.touch(key)
        for ack in message.drained:
            slot = state.slots.get(ack.key)
            if slot is not None and slot.leaving == ack.leaving:
                slot.acked.add(uplink.parent)
                state.touch(ack.key)
        scope = tuple(sorted({*self.path().root_ids, *message.path.root_ids}))
        if message.full:  # the first message has the parent's documents; newer ones of this node are sent back
            uplink.dirty_docs.update(dict.fromkeys(state.policies.docs))
        for doc in message.docs:
            doc = _under(doc, scope)
            uplink.docs[doc.id] = doc
            uplink.sent_docs[doc.id] = doc.rank
            state.policies.adopt(doc)
            uplink.dirty_docs[doc.id] = None
        for doc_id in message.dropped:
            uplink.docs.pop(doc_id, None)
            uplink.sent_docs.pop(doc_id, None)
        older = any(state.policies.rank(doc.id) > doc.rank for doc in message.docs)
        if (older or message.dropped) and now >= uplink.welcomed_at + state.settings.silence_s:
            state.set_timer(now, "docs", uplink.parent)  # the parent has adopted an older document, or dropped one
        if message.path != uplink.path:
            uplink.path = message.path
            self.reporting.review()
            state.touch_all()
        if state.settings.name in message.path.ancestors:
            self._cycle(uplink, now)

    def check_docs(self, parent: str, now: float) -> None:
        """The parent has had the time to learn newer documents. From now on the documents of the parents are in force, even if
        they are older, and documents that no parent has are dropped."""
        heard = [u for u in self.links.values() if u.phase is Phase.UP]
        if any(now < u.welcomed_at + self._state.settings.silence_s for u in heard):
            return
        if self.links[parent] not in heard or any(u.protocol < 2 for u in heard):
            return  # protocol 1 does not send what both hold
        for doc_id in list(self._state.policies.docs):
            theirs = [u.docs[doc_id] for u in heard if doc_id in u.docs]
            if theirs:
                self._state.policies.adopt(max(theirs, key=lambda doc: doc.rank), older=True)
            else:
                self._state.policies.drop(doc_id)

    def check_lease(self, parent: str, now: float) -> None:
        """Handles the timer of a parent's lease. When it expires, the parent has no say."""
        uplink = self.links[parent]
        if now < uplink.lost_at:
            self._state.set_timer(uplink.lost_at, "parent", parent)
            return
        if parent not in self._lost:
            self._lost.add(parent)
            # During the next attempt, the detail is still that of the last failure.
            failed = uplink.phase in (Phase.IDLE, Phase.DIALING) and uplink.detail
            why = f": {uplink.detail}" if failed else ""
            text = f"{parent} sent nothing for {self._state.settings.lease_s:g} s: its lease has expired{why}"
            self._state.note("parent-silent", text, "warning", parent=parent)
        if uplink.phase is Phase.UP:  # a greeting has its own timer: the parent may have just come back
            self.hang_up(uplink, now, "lease expired")
        self._state.touch_all()

    def check_greeting(self, parent: str, now: float) -> None:
        uplink = self.links[parent]
        if uplink.phase is Phase.GREETING:
            self.hang_up(uplink, now, "no Welcome received")

    def beat(self) -> None:
        for parent, uplink in self.links.items():
            if uplink.phase is Phase.UP:
                self._state.effects.append(ToParent(parent, uplink.beat(), spare=True))

    def path(self) -> Path:
        known = tuple(uplink.path for uplink in self.links.values())
        if known != self._known_paths:
            self._known_paths, self._path = known, self._merged_path()
        return self._path

    def _merged_path(self) -> Path:
        ancestors = {self._state.settings.name}
        roots: set[str] = set()
        root_ids: set[str] = set()
        for uplink in self.links.values():
            ancestors.update(uplink.path.ancestors)
            roots.update(uplink.path.roots)
            root_ids.update(uplink.path.root_ids)
        return Path(tuple(sorted(ancestors)), tuple(sorted(roots)), tuple(sorted(root_ids)))

    def lost_roots(self) -> tuple[str, ...]:
        """Ids of the roots that no parent in touch leads to."""
        if len(self.links) == 1:
            return ()  # then this node cannot report it either
        touching = [uplink.in_touch(self._state.now) for uplink in self.links.values()]
        if all(touching):
            return ()
        paths = zip(self.links.values(), touching, strict=True)
        near = {root for uplink, touch in paths if touch for root in uplink.path.root_ids}
        return tuple(root for root in self.path().root_ids if root not in near)

    def _root_names(self) -> tuple[str, ...]:
        return tuple(f"{uplink.node_id}/{uplink.name}" for uplink in self.links.values() if uplink.is_root)

    # ------------------------------------------------------------------ their common decision

    def with_say(self, now: float) -> list[Uplink]:
        """The parents that have a say: their consent is needed. Empty: this node is cut off."""
        silence_s = self._state.settings.silence_s
        touching: list[Uplink] = []
        for uplink in self.links.values():
            say_ends_at = uplink.say_ends_at(silence_s)
            if uplink.in_touch(now) and (say_ends_at is None or now < say_ends_at):
                touching.append(uplink)
        reached: set[str] = set()
        for uplink in touching:
            if uplink.phase is Phase.UP:
                reached.update(uplink.path.root_ids)
        return [u for u in touching if u.phase is Phase.UP or not _includes(reached, u.path.root_ids)]

    def permit(self, slot: Slot, now: float) -> Permit:
        with_say, held = self.with_say(now), slot.permit
        active = slot.active and slot.key not in self.unconfirmed
        if not any(uplink.ever_heard for uplink in with_say):
            if active:
                return held
            return Permit(WAITING, NoParent(), self._state.settings.name, held.generation, held.scope, held.stamp)
        newest = self._newest(slot)
        verdicts = [self._said(u.verdicts.get(slot.key), newest) for u in with_say]
        if active:
            verdicts = [None if v is not None and _says_nothing(v, held) else v for v in verdicts]
        said = [v for v in verdicts if v is not None]
        stamp = min((v.stamp for v in said if v.stamp), default=held.stamp)
        against = [v for v in said if v.state != ACTIVE]
        if against:
            self.unconfirmed.pop(slot.key, None)  # a parent has decided
            worst = min(against, key=lambda v: (v.state != REFUSED, v.decided_by, str(v.reason)))
            scope = self._group(worst.scope)
            # The newest decision that is known: a parent above it may be behind, and learns it from the claim.
            generation = max(v.generation for v in said if overlap(self._group(v.scope), scope))
            return Permit(worst.state, worst.reason, worst.decided_by, generation, scope, stamp)
        if active and not said:
            return held  # no parent has decided: the permit stays
        unknown = tuple(u.name or u.parent for u, v in zip(with_say, verdicts, strict=True) if v is None)
        if unknown and not active:
            best = max(said, key=lambda v: v.generation, default=held)
            # As one decision of all roots above, so that a root that is behind hears the newest generation.
            scope = self._group(best.scope)
            return Permit(WAITING, Asking(unknown), self._state.settings.name, best.generation, scope, stamp)
        best = max(said, key=lambda v: (v.generation, v.decided_by))
        scope = self._group(root for v in said for root in v.scope)
        self.unconfirmed.pop(slot.key, None)
        return Permit(ACTIVE, Nothing(), best.decided_by, best.generation, scope, stamp)

    def _group(self, scope: Iterable[str]) -> tuple[str, ...]:
        """Adds all roots above to a scope that has one of them. They decide as one, so their generations can be compared. What a parent
        decided before it came below these roots cannot be compared with what they decide."""
        known = {root for uplink in self.links.values() for root in uplink.path.root_ids}
        deciders = set(scope)
        return tuple(sorted(known | deciders if known & deciders or not deciders else deciders))

    def _newest(self, slot: Slot) -> Permit:
        """The newest decision about the service that this node knows."""
        slots = self._state.slots
        permits = (slots[key].permit for key in self._state.by_service.get(slot.key.service, ()))
        return max(permits, key=lambda permit: permit.generation, default=slot.permit)

    @staticmethod
    def _said(verdict: Verdict | None, newest: Permit) -> Verdict | None:
        """The verdict, or None if it is a consent older than a known decision of the same authority: the parent is behind."""
        if verdict is None or verdict.state != ACTIVE or verdict.generation >= newest.generation:
            return verdict
        return verdict if set(verdict.scope).isdisjoint(newest.scope) else None

    def granted(self, key: ClaimKey) -> tuple[str, ...]:
        """Ids of the roots that decided ACTIVE, as far as parents forward it."""
        verdicts = (u.verdicts.get(key) for u in self.links.values())
        return tuple(sorted({root for v in verdicts if v is not None and v.state == ACTIVE for root in v.scope}))

    def _refused(self, key: ClaimKey) -> Iterator[str]:
        """Ids of the roots that decided REFUSED. For a parent with several roots above it, it is not known which."""
        for uplink in self.links.values():
            verdict = uplink.verdicts.get(key)
            if verdict is not None and verdict.state == REFUSED and len(uplink.path.root_ids) == 1:
                yield uplink.path.root_ids[0]

    def _joined(self, slot: Slot, heard: tuple[str, ...]) -> tuple[str, ...]:
        """The roots whose decision carries a ticket: as the parents forward it, and for roots that are not above, as nodes below
        report it."""
        here = [
            f"{verdict.scope[0]}/{verdict.joined}"
            for uplink in self.links.values()
            if (verdict := uplink.verdicts.get(slot.key)) is not None and verdict.joined and len(verdict.scope) == 1
        ]
        below = (each for each in slot.sums.joined.counts if each.partition("/")[0] not in heard)
        return tuple(sorted({*here, *below}))

    def drained(self, slot: Slot, now: float) -> bool:
        """Whether every parent in touch has removed this node's endpoint for the key."""
        silence_s = self._state.settings.silence_s
        for uplink in self.links.values():
            say_ends_at = uplink.say_ends_at(silence_s) if uplink.is_root else None
            mute = say_ends_at is not None and now >= say_ends_at
            if uplink.in_touch(now) and not mute and uplink.parent not in slot.acked:
                return False
        return True

    # ------------------------------------------------------------------ sending

    def claim(self, slot: Slot, uplink: Uplink) -> Claim:
        sent = uplink.sent.get(slot.key)
        verdict = uplink.verdicts.get(slot.key)
        seen = 0 if sent is None else sent.seen
        if verdict is not None and (verdict.state == ACTIVE or self._closed_below(slot)):
            seen = verdict.epoch
        heard = self.path().root_ids  # decisions of these roots are known here; about others, nodes below may know more
        granted = {*self.granted(slot.key), *(root for root in slot.sums.granted.counts if root not in heard)}
        refused = {*self._refused(slot.key), *(root for root in slot.sums.refused.counts if root not in heard)}
        generation, scope, doubted = self._decision(slot)
        return Claim(
            key=slot.key,
            capacity=self._capacity(slot),
            count=slot.count(),
            hosts=slot.hosts(),
            hosts_digest=slot.hosts_digest(),
            compatible=slot.compatible(),
            stage=slot.stage(),
            opening=bool(slot.sums.opening),
            stamp=min((stamp for stamp in (slot.permit.stamp, slot.stamp()) if stamp), default=0),
            generation=generation,
            scope=scope,
            granted=tuple(sorted(granted)),
            # While a parent has to confirm the permit, no drain is asked for: the decision may be ACTIVE.
            leaving=0 if slot.key in self.unconfirmed else slot.leaving,
            seen=seen,
            lease_s=slot.lease_s(),
            doubted=doubted,
            refused=tuple(sorted(refused)),
            able=slot.able(),
            healthy=slot.healthy(),
            joined=self._joined(slot, heard),
            why=slot.why(),
        )

    def _capacity(self, slot: Slot) -> int:
        """What the engine has confirmed. A restored node does not know yet what its engine has, and reports what it has on record, so
        that its parents keep the endpoint."""
        unsure = self._state.table.keep_until is not None and (slot.active or slot.key in self.unconfirmed)
        return max(slot.ready(), slot.capacity()) if unsure else slot.ready()

    def _decision(self, slot: Slot) -> tuple[int, tuple[str, ...], int]:
        """Generation, scope and doubted generation to report. A generation newer than any decision that this node knows is
        reported as such if more than half of the children report it, and otherwise as doubted."""
        doubted = -slot.sums.doubted.get(0)
        generation, scope = slot.generation(), slot.scope()
        newest = self._newest(slot)
        if generation > newest.generation > 0 and overlap(scope, newest.scope):
            slots = (self._state.slots[key] for key in self._state.by_service.get(slot.key.service, ()))
            votes = generation_votes(slots, lambda each: overlap(each, newest.scope), 1 << 53)
            believed = max(majority_generation(votes), newest.generation)
            if generation > believed:
                return believed, newest.scope, max(generation, doubted)
        elif not slot.open() and newest.generation > generation:
            return newest.generation, newest.scope, doubted  # known from any version of the service
        return generation, scope, doubted

    @staticmethod
    def _closed_below(slot: Slot) -> bool:
        return not slot.active and not slot.sums.present and slot.conforms_below()

    def mark_dirty(self, key: ClaimKey) -> None:
        for uplink in self.links.values():
            uplink.dirty[key] = None

    def forget(self, key: ClaimKey, cause: Cause) -> None:
        """Nothing below claims the key any more. Its verdicts must not apply to a later claim."""
        self.unconfirmed.pop(key, None)
        for uplink in self.links.values():
            uplink.forget(key, cause)

    def left(self) -> tuple[ClaimKey, ...]:
        """The claims that may be served after this node has left: by nodes below, or by an engine that control cannot reach."""
        slots, table = self._state.slots, self._state.table
        served = (slot for slot in slots.values() if not table.attached and slot.sums.present)
        below = (slot for slot in slots.values() if any(s.child for s in slot.sources.values()))
        return tuple(sorted({slot.key for slot in (*served, *below)}))

    def mark_doc_dirty(self, doc_id: str) -> None:
        for uplink in self.links.values():
            uplink.dirty_docs[doc_id] = None

    def pass_on(self, doc: Doc) -> None:
        """Sends the parents a document that more than half of the children report."""
        for uplink in self.links.values():
            if uplink.phase is Phase.UP and doc.rank > uplink.sent_docs.get(doc.id, NO_DOC):
                uplink.sent_docs[doc.id] = doc.rank
                message = uplink.state([], [], [doc], self.path().root_ids, self.lost_roots(), self._root_names())
                if message is not None:
                    self._state.effects.append(ToParent(uplink.parent, message))

    def flush(self, damped: bool) -> None:
        reports = self.reporting.due(damped)
        for uplink in self.links.values():
            if uplink.phase is Phase.UP:
                self._flush_one(uplink, damped, reports[uplink.parent])
            else:
                uplink.dirty.clear()

    def _flush_one(self, uplink: Uplink, damped: bool, reports: list[Report]) -> None:
        state = self._state
        claims: list[Claim] = []
        gone: list[Gone] = []
        later: dict[ClaimKey, None] = {}
        for key in uplink.dirty:
            slot = state.slots.get(key)
            if slot is None:
                if key in uplink.gone and not uplink.gone[key].seq:
                    gone.append(Gone(key, uplink.gone[key].cause))
                continue
            claim = self.claim(slot, uplink)
            old = uplink.sent.get(key)
            if old == claim:
                continue
            if damped and old is not None and uplink.minor(old, claim):
                later[key] = None
                continue
            claims.append(claim)
        uplink.dirty = later
        docs: list[Doc] = []
        for doc_id in uplink.dirty_docs:
            doc, sent = state.policies.docs.get(doc_id), uplink.sent_docs.get(doc_id, NO_DOC)
            # An older document too, if the parent has none: it still counts the newer one that this node reported before
            # it adopted the document of another parent.
            if doc is not None and (doc.rank > sent or (doc.rank != sent and doc_id not in uplink.docs)):
                docs.append(doc)
        uplink.dirty_docs.clear()
        roots, lost = self.path().root_ids, self.lost_roots()
        message = uplink.state(claims, gone, docs, roots, lost, self._root_names(), reports)
        if message is not None:
            state.effects.append(ToParent(uplink.parent, message))

    def send_bye(self) -> None:
        for parent, uplink in self.links.items():
            if uplink.phase is Phase.UP:
                self._state.effects += [ToParent(parent, uplink.bye(self.left())), HangUp(parent)]
            uplink.phase = Phase.REFUSED


def _may_serve(source: Source) -> bool:
    """Whether the source had an endpoint according to the state folder."""
    claim = source.claim
    return claim.stage is Stage.OPEN or (
        source.standing is not Standing.CLAIMED and bool(claim.capacity or claim.leaving)
    )


def _includes(some: set[str], others: tuple[str, ...]) -> bool:
    return bool(others) and some.issuperset(others)


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether generations of two scopes can be compared. A scope is empty if it comes from a release without scopes."""
    return not one or not other or not set(one).isdisjoint(other)


def _says_nothing(verdict: Verdict, permit: Permit) -> bool:
    """Whether a verdict does not count against a permit that serves: the parent has no decision itself, or an older one, or it
    waits for the nodes that serve the generation of this very permit."""
    late = verdict.state == WAITING and verdict.generation < permit.generation and overlap(verdict.scope, permit.scope)
    reason = verdict.reason
    awaited = isinstance(reason, NewerGeneration) and reason.generation <= permit.generation
    return late or awaited or reason.code in UNDECIDED


def _under(doc: Doc, roots: tuple[str, ...]) -> Doc:
    """The document with the scope `roots`: in force under one root above means in force under all of them. A document that a
    moved parent still has from its former tree keeps the scope of that tree."""
    if doc.scope and set(doc.scope).isdisjoint(roots):
        return doc
    return replace(doc, scope=roots)
