"""The children of a node: their links, leases and claims.

Silence has three steps. A broken link changes nothing. An expired lease makes a child *suspect*: its endpoints stay as a
last resort. A fence time later the child is presumed stopped. If more than half of at least two children are suspect at
once, the fault is probably at this node. Then it is `guarded` and presumes no child stopped, until enough children are back
or an operator reports which ones have stopped (`ForgetChild`).

A claim that a child no longer reports has not necessarily stopped. It stays as a *remnant* (`remnants.py`) unless the child
reports the cause.
"""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from sdlb.core import saved
from sdlb.core.downlink import Downlink, Rival
from sdlb.core.effects import DropChild, ToChild
from sdlb.core.events import ChildClosed, ChildConnected, EndpointKey, ForgetChild
from sdlb.core.messages import (
    NO_DOC,
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    WAITING,
    Beat,
    Bye,
    Cause,
    Claim,
    ClaimKey,
    Doc,
    DrainAck,
    Hello,
    Path,
    Refused,
    Stage,
    UpState,
    Verdict,
    Welcome,
)
from sdlb.core.remnants import PREFIX, Remnants
from sdlb.core.slot import Slot, includes
from sdlb.core.source import Source, Standing, Step
from sdlb.core.state import State, key_of, text_of
from sdlb.model.address import check_address, check_name
from sdlb.model.reason import NoParent, differ_in_counts

GUARD_CHILDREN_MIN = 2
ROOT_NAMES_MAX = 64


class Children:
    def __init__(self, state: State) -> None:
        self._state = state
        self.by_name: dict[str, Downlink] = {}
        self.by_link: dict[int, Downlink] = {}
        self.unsynced: set[str] = set()  # recorded children that have not reported since this control started
        self.just_settled = False  # the last of those has reported: all records are decided again
        self.recount = False  # the recorded children, or the roots that most of them reach, have changed
        self.guarded = False
        self.suspects = 0
        self.remnants = Remnants(state, self.is_linked)
        self.root_names: dict[str, str] = {}  # id of a root -> its name, as a child last reported it, for people
        self.root_votes: Counter[str] = Counter()  # id of a root -> number of children that reach it
        self.lost_votes: Counter[str] = (
            Counter()
        )  # id of a root -> number of linked children that are out of touch with it
        self._lagging: dict[ClaimKey, None] = {}  # only counts in the reason have changed: sent with the next heartbeat
        self._pending: dict[str, None] = {}  # children for which there may be something to send

    # ------------------------------------------------------------------ loading

    def load(self, name: str, value: dict[str, object], claims: dict[str, object], now: float) -> None:
        """Loads a child from before the restart. Its lease starts anew, and its claims count meanwhile."""
        node_id, incarnation, address = str(value["node_id"]), int(str(value["incarnation"])), str(value["address"])
        child = Downlink(name, node_id, incarnation, address, now)
        child.nonce = str(value.get("nonce", ""))
        self.by_name[name] = child
        self.unsynced.add(name)
        self._state.table.set_upstream(child.target, True, child.address)
        for text, claim in sorted(claims.items()):
            key = key_of(text)
            self._put(child, saved.claim_from(key, claim), save=False)
            self._state.slots[key].sources[child.target].released = saved.released_from(claim)
        self._state.set_timer(now + self._state.settings.lease_s, "child", name)

    # ------------------------------------------------------------------ links

    def on_connected(self, event: ChildConnected, now: float, path: Path, has_say: bool) -> None:
        state, hello = self._state, event.hello
        refused = self._check_hello(hello, path, now, has_say)
        if refused is not None:
            level = "info" if refused.code == "still-connected" else "warning"
            state.note("child-refused", f"{hello.node} was refused: {refused.detail}", level, child=hello.node)
            state.effects += [ToChild(event.link, refused), DropChild(event.link)]
            return
        child = self.by_name.get(hello.node)
        if child is None:
            child = self.by_name[hello.node] = Downlink(
                hello.node, hello.node_id, hello.incarnation, hello.data_address, now
            )
            child.restarted = True
            state.set_timer(now + state.settings.lease_s, "child", child.name)
        elif child.link is not None:
            self._unlink(child, drop=True)
        if child.labels != hello.labels:  # it may be in another zone now
            for key in child.keys:
                state.touch(key, child.target)
        digest = child.digest([state.slots[key].sources[child.target].claim for key in child.keys])
        kept = child.linked(event.link, hello, digest, now)
        docs_kept = bool(hello.docs_digest) and hello.docs_digest == state.policies.digest
        self.by_link[event.link] = child
        state.table.set_upstream(child.target, True, child.address)
        state.persist(f"child/{child.name}", saved.child_to(child), durable=False)
        self._heard_again(child)
        protocol = min(hello.protocol_max, PROTOCOL_MAX)
        welcome = Welcome(
            state.settings.name,
            state.settings.node_id,
            state.incarnation,
            path,
            digest,
            state.settings.nonce,
            protocol,
            verdicts_kept=kept,
            docs_kept=docs_kept,
        )
        state.effects.append(ToChild(event.link, welcome))
        if not has_say:  # before the verdicts, which the child must not take for decisions of a root
            state.effects.append(ToChild(event.link, child.beat(has_say)))
        child.dirty.update(child.keys)
        if docs_kept:
            child.sent_docs.update((doc.id, doc.rank) for doc in state.policies.docs.values())
        else:
            child.dirty_docs.update(dict.fromkeys(state.policies.docs))
        self._pending[child.name] = None
        state.note("child-connected", f"{child.name} is connected", child=child.name)

    def _check_hello(self, hello: Hello, path: Path, now: float, has_say: bool) -> Refused | None:
        if hello.protocol > PROTOCOL_MAX or hello.protocol_max < PROTOCOL_MIN:
            spoken = f"{PROTOCOL_MIN} to {PROTOCOL_MAX}, not {hello.protocol} to {hello.protocol_max}"
            return Refused("protocol", f"this node speaks protocol {spoken}; run neighbouring releases of sdlb")
        if hello.node in path.ancestors:
            detail = f"{hello.node} is an ancestor of {self._state.settings.name}; change its parents"
            return Refused("cycle", detail)
        try:
            check_name(hello.node)
            check_address(hello.data_address, wildcard=False)
        except ValueError as problem:
            what = f"name {hello.node[:80]!r}, address {hello.data_address[:80]!r}"
            return Refused("bad-hello", f"{what}: expected {problem}; change name or advertise in its node file")
        child = self.by_name.get(hello.node)
        if child is None:
            return None
        if child.node_id != hello.node_id:
            if now < child.heard_at + self._state.settings.lease_s:
                detail = f"another node with the name {hello.node} is alive; rename one of the two"
                return Refused("name-taken", detail)
            return None
        if child.link is not None and child.nonce and hello.nonce != child.nonce:
            objection = self._second_process(child, hello, now, has_say)
            if objection is not None:
                return objection
        if not child.newer(hello):
            newest = child.incarnation
            detail = f"incarnation {hello.incarnation} of {hello.node} is older than {newest}: its state folder is an older copy"
            return Refused("older-incarnation", detail, newest)
        return None

    def _second_process(self, child: Downlink, hello: Hello, now: float, has_say: bool) -> Refused | None:
        """Handles a Hello of a second process. It is a restart, before this node noticed that the old link is dead, or a copy of
        the state folder runs elsewhere. This node sends a heartbeat to the linked process; a dead one does not answer."""
        rival = child.rival
        if rival is None or rival.nonce != hello.nonce:
            child.rival = Rival(hello.nonce, now, 2 * self._state.settings.beat_s)
            if child.link is not None:
                self._state.effects.append(ToChild(child.link, child.beat(has_say)))
        elif rival.answered:
            detail = (
                f"a node named {hello.node} with the same identity is alive: its state folder was copied; stop one of the "
                "two and start it with an empty state folder"
            )
            return Refused("cloned", detail)
        elif now >= rival.until:
            return None
        return Refused("still-connected", f"{hello.node} is still connected; waiting until its old link closes")

    def _unlink(self, child: Downlink, drop: bool) -> None:
        if child.link is None:
            return
        self.by_link.pop(child.link, None)
        if drop:
            self._state.effects.append(DropChild(child.link))
        child.link = None
        child.lost_roots = _recount(self.lost_votes, child.lost_roots, ())
        self._state.policies.forget_child(child.name)
        self._state.reports.drop_child(child.name)
        self._set_unlinked(child, True)

    def _set_unlinked(self, child: Downlink, unlinked: bool) -> None:
        """Records whether the child has a link. That affects the sources that it covers and those that are covered."""
        for key in child.keys:
            slot = self._state.slots[key]
            source = slot.sources[child.target]
            source.unlinked = unlinked
            if unlinked and source.contradicted:
                self._state.known_stopped.append((child.target, key))
            if source.covered_by:
                self._state.touch(key, child.target)
            for name in slot.covers.get(child.target, ()):
                self._state.touch(key, name)

    def on_closed(self, event: ChildClosed) -> None:
        child = self.by_link.get(event.link)
        if child is not None:
            self._unlink(child, drop=False)
            self._state.note("child-disconnected", f"the link to {child.name} was lost", child=child.name)

    def heard(self, child: Downlink, now: float) -> None:
        child.heard_at = now
        if child.rival is not None and now >= child.rival.since + self._state.settings.beat_s / 2:
            child.rival.answered = True
        if child.suspect:
            self._heard_again(child)

    def on_beat(self, child: Downlink, beat: Beat) -> None:
        if child.behind(beat):
            self._start_over(child)

    def _start_over(self, child: Downlink) -> None:
        self._state.note("link-gap", f"a message from {child.name} was lost; reconnecting", "warning", child=child.name)
        self._unlink(child, drop=True)

    def on_bye(self, child: Downlink, bye: Bye, now: float) -> None:
        """The child leaves permanently. Its own instances are known to have stopped."""
        left = set(bye.left)
        for key in list(child.keys):
            hosts = self._state.slots[key].sources[child.target].claim.hosts
            if key in left or (child.protocol < 2 and hosts != (child.name,)):
                self._omit(child, key, Cause.LEFT, now)
            else:
                self._drop(child, key, Cause.STOPPED)
        self._unlink(child, drop=True)
        self._remove(child)
        self._state.note("child-left", f"{child.name} has left", child=child.name)

    def on_forget(self, event: ForgetChild) -> None:
        """An operator reports that a silent child has stopped. It ends the guard, and waiting by `on_silence = "wait"`."""
        child = self.by_name.get(event.name)
        known = self.remnants.forget(event.name)
        if child is not None and child.suspect:
            for key in list(child.keys):
                self._drop(child, key, Cause.STOPPED)
            self._remove(child)
            self._state.persist(f"child/{child.name}", None)  # durable, so that it does not return after a power loss
        elif not known:
            return
        text = f"{event.name} was forgotten: an operator reported that it has stopped"
        self._state.note("child-forgotten", text, "warning", child=event.name)
        self._update_guard()

    # ------------------------------------------------------------------ claims

    def on_state(self, child: Downlink, message: UpState, now: float) -> None:
        if not child.received(message.seq):
            self._start_over(child)
            return
        child.claims_due = False
        self.mark_synced(child.name)
        if message.roots is not None:
            self._set_roots(child, message.roots)
            self._learn_names(message.root_names)
        if message.lost is not None:
            self._set_lost(child, message.lost)
        for claim in message.claims:
            if message.full and child.restarted:
                self._keep_rest(child, claim, now)
            self._put(child, claim)
        for key, cause in message.withdrawn:
            self._withdraw(child, key, cause, now)
        reports = self._state.reports
        if message.full:
            reports.keep_only(child.name, frozenset(service for service, _ in message.reports))
        for service, body in message.reports:
            reports.put_child(child.name, service, body)
        if message.full:
            named = {claim.key for claim in message.claims}
            for key in [key for key in child.keys if key not in named]:
                self._omit(child, key, Cause.UNKNOWN, now)
            child.restarted = False

    def _set_roots(self, child: Downlink, roots: tuple[str, ...]) -> None:
        self.recount = self.recount or child.roots != roots
        child.roots = _recount(self.root_votes, child.roots, roots)

    def _set_lost(self, child: Downlink, roots: tuple[str, ...]) -> None:
        self.recount = self.recount or child.lost_roots != roots
        child.lost_roots = _recount(self.lost_votes, child.lost_roots, roots)

    def _learn_names(self, names: tuple[str, ...]) -> None:
        for text in names:
            root, _, name = text.partition("/")
            if len(self.root_names) < ROOT_NAMES_MAX or root in self.root_names:
                self.root_names[root] = name

    def other_roots(self) -> frozenset[str]:
        """Ids of the roots, without this node, that more than half of the children reach."""
        found = (root for root, votes in self.root_votes.items() if votes * 2 > len(self.by_name))
        return frozenset(found) - {self._state.settings.node_id}

    def lost_roots(self) -> frozenset[str]:
        """Ids of the roots that more than half of the linked children are out of touch with."""
        return frozenset(root for root, votes in self.lost_votes.items() if votes * 2 > len(self.by_link))

    def is_linked(self, name: str) -> bool:
        child = self.by_name.get(name)
        return child is not None and child.link is not None

    def mark_synced(self, name: str) -> None:
        if name in self.unsynced:
            self.unsynced.discard(name)
            child = self.by_name.get(name)
            for key in child.keys if child is not None else ():
                self._state.touch(key, f"n:{name}")
            if not self.unsynced:
                self.just_settled = True

    def _put(self, child: Downlink, claim: Claim, save: bool = True) -> None:
        state = self._state
        child.keys[claim.key] = None
        child.dirty[claim.key] = None
        self._pending[child.name] = None
        slot = state.slots.get(claim.key)
        source = slot.sources.get(child.target) if slot is not None else None
        if slot is None or source is None:
            source = Source(child.target, claim, child.name)
            if not save and claim.stage is Stage.OPEN:  # it was open before the restart
                source.step(Step.ADMIT)
            slot = state.put_source(claim.key, source)
        else:
            if claim == source.claim and not claim.leaving and source.standing is Standing.ADMITTED:
                return
            source.released = source.released and claim.leaving == source.claim.leaving
            source.claim = claim
            state.touch(claim.key, child.target)
        source.unlinked = child.link is None
        # An endpoint that is still in the engine's table is not new, so even a node that is cut off may keep it.
        kept = source.standing is Standing.LEAVING and state.table.in_force(EndpointKey(claim.key, child.target))
        source.step(Step.LEAVE if claim.leaving else Step.RETURN if kept else Step.STAY)
        if child.suspect:
            source.step(Step.SILENCE)
        slot.update_coverage(source)
        if save:
            self._save(source)

    def _save(self, source: Source) -> None:
        name = f"claim/{source.child}/{text_of(source.claim.key)}"
        self._state.persist(name, saved.claim_to(source.claim, source.released), durable=False)

    def _withdraw(self, child: Downlink, key: ClaimKey, cause: Cause, now: float) -> None:
        match cause:
            case Cause.STOPPED:
                self._drop(child, key, cause)
            case Cause.PRESUMED if self._state.policy(key.service).on_silence == "open":
                self._drop(child, key, cause)
            case _:
                self._omit(child, key, cause, now)

    def _omit(self, child: Downlink, key: ClaimKey, cause: Cause, now: float) -> None:
        """The claim is no longer reported and not known to have stopped: it becomes a remnant."""
        slot = self._state.slots.get(key)
        if slot is None or child.target not in slot.sources:
            return
        source = slot.sources[child.target]
        self.remnants.keep(slot, source.claim, child.name, cause, now, source.covered_by)
        self._drop(child, key, None)

    def _keep_rest(self, child: Downlink, claim: Claim, now: float) -> None:
        """Keeps a remnant of the difference if a restarted child, which may have lost state, claims fewer instances."""
        slot = self._state.slots.get(claim.key)
        source = slot.sources.get(child.target) if slot is not None else None
        if slot is None or source is None or claim.count >= source.claim.count:
            return
        if not includes(claim, source.claim):
            self.remnants.keep(slot, source.claim, child.name, Cause.UNKNOWN, now, set())

    def _drop(self, child: Downlink, key: ClaimKey, cause: Cause | None) -> None:
        """Removes the claim. `cause` None: another source replaces it."""
        if key not in child.keys:
            return
        child.forget(key)
        self._state.drop_source(key, child.target, cause)
        self._state.persist(f"claim/{child.name}/{text_of(key)}", None, durable=False)

    def _remove(self, child: Downlink) -> None:
        self._set_roots(child, ())
        self._count_suspect(child, False)
        del self.by_name[child.name]
        self.recount = True
        self._state.table.forget_upstream(child.target)
        self.mark_synced(child.name)
        self._state.clear_timer("child", child.name)
        self._state.persist(f"child/{child.name}", None, durable=False)

    def settle_known(self) -> None:
        """Removes sources that have stopped according to the sources that cover them."""
        while self._state.known_stopped:
            target, key = self._state.known_stopped.pop()
            child = self.by_name.get(target[2:])
            if target.startswith(PREFIX):
                self.remnants.drop(key, target, Cause.STOPPED)
            elif child is not None:
                self._drop(child, key, Cause.STOPPED)

    # ------------------------------------------------------------------ leases

    def shift(self, by_s: float) -> None:
        """Extends all leases by the time for which this control did not run and could not receive messages."""
        for child in self.by_name.values():
            child.heard_at += by_s
        self.remnants.shift(by_s)

    def check(self, name: str, now: float) -> None:
        """Handles the timer of a child's lease."""
        state, child = self._state, self.by_name.get(name)
        if child is None:
            return
        lapse = child.heard_at + state.settings.lease_s
        if now < lapse:
            state.set_timer(lapse, "child", name)
            return
        if not child.suspect:
            self._unlink(child, drop=True)
            self._count_suspect(child, True)
            for key in child.keys:
                state.step(key, state.slots[key].sources[child.target], Step.SILENCE)
            text = f"{name} sent nothing for {state.settings.lease_s:g} s: its lease has expired"
            state.note("child-silent", text, "warning", child=name)
        self._update_guard()
        fence = lapse + state.settings.fence_s
        if now < fence:
            state.set_timer(fence, "child", name)
        elif self.guarded:
            state.set_timer(now + state.settings.lease_s, "child", name)
        else:
            self._presume_stopped(child, lapse, now)

    def _count_suspect(self, child: Downlink, suspect: bool) -> None:
        if child.suspect != suspect:
            child.suspect = suspect
            self.suspects += 1 if suspect else -1

    def _heard_again(self, child: Downlink) -> None:
        for key in child.keys:
            source = self._state.slots[key].sources[child.target]
            if child.suspect or source.unlinked:
                source.unlinked = child.link is None
                if child.suspect:
                    self._state.step(key, source, Step.HEARD)
        if child.suspect:
            self._count_suspect(child, False)
            self._state.set_timer(child.heard_at + self._state.settings.lease_s, "child", child.name)
            self._update_guard()
        else:
            self._set_unlinked(child, child.link is None)

    def _update_guard(self) -> None:
        share = self._state.settings.guard_share
        guarded = len(self.by_name) >= GUARD_CHILDREN_MIN and self.suspects > len(self.by_name) * share
        if guarded == self.guarded:
            return
        self.guarded = guarded
        if guarded:
            text = f"{self.suspects} of {len(self.by_name)} children are silent at the same time; keeping their claims"
            self._state.note("guarded", text, "error")
        else:
            self._state.note("guard-lifted", "enough children are back; leases are enforced again")

    def _presume_stopped(self, child: Downlink, lapse: float, now: float) -> None:
        state = self._state
        due: list[float] = []
        for key in list(child.keys):
            source = state.slots[key].sources[child.target]
            until = lapse + max(state.settings.fence_s, source.claim.lease_s)
            if now < until:
                due.append(until)
            elif state.policy(key.service).on_silence == "wait":
                due.append(now + state.settings.lease_s)
                if source.standing is not Standing.PRESUMED:
                    source.claim = replace(source.claim, capacity=0, opening=False, leaving=0)
                    state.step(key, source, Step.PRESUME)
            else:
                self._drop(child, key, Cause.PRESUMED)
        self.mark_synced(child.name)
        if due:
            state.set_timer(min(due), "child", child.name)
            return
        state.note("child-presumed-stopped", f"{child.name} is presumed to have stopped", "warning", child=child.name)
        self._remove(child)
        self._update_guard()

    # ------------------------------------------------------------------ sending

    def mark_doc_dirty(self, doc_id: str) -> None:
        """Marks a document for all children, including those without the service: all nodes hold all documents."""
        for child in self.by_link.values():
            child.dirty_docs[doc_id] = None
            self._pending[child.name] = None

    def mark_dirty(self, slot: Slot, targets: dict[str, None], changed: bool, lagging: bool) -> None:
        """Marks children to which the verdict of a slot may have to be sent.

        `changed`: the verdict has changed, for all children; otherwise only those in `targets` are marked. `lagging`: only
        counts in its reason have changed.
        """
        if lagging and not changed:
            self._lagging[slot.key] = None
        for target in slot.sources if changed else targets:
            source = slot.sources.get(target)
            child = self.by_name.get(source.child) if source is not None and source.child else None
            if child is None or child.target != target:
                continue
            child.dirty[slot.key] = None
            self._pending[child.name] = None

    def beat(self, has_say: bool) -> None:
        for key in self._lagging:
            slot = self._state.slots.get(key)
            for target in slot.sources if slot is not None else ():
                child = self.by_name.get(target[2:]) if target.startswith("n:") else None
                if child is not None:
                    child.lagging[key] = None
        self._lagging.clear()
        for link in sorted(self.by_link):
            child = self.by_link[link]
            if child.lagging:
                child.dirty.update(child.lagging)
                child.due.update(child.lagging)
                child.lagging.clear()
                self._pending[child.name] = None
            known = child.told_say == has_say
            self._state.effects.append(ToChild(link, child.beat(has_say), spare=known))

    def flush(self, path: Path, path_changed: bool) -> None:
        """Sends what is pending. The cost is that of the messages, not of the number of children."""
        if not self._pending and not path_changed:
            return
        names = self.by_name if path_changed else self._pending
        links = sorted(c.link for c in map(self.by_name.get, names) if c is not None and c.link is not None)
        self._pending.clear()
        for link in links:
            self._flush_one(self.by_link[link], link, path)

    def _flush_one(self, child: Downlink, link: int, path: Path) -> None:
        state = self._state
        verdicts: list[Verdict] = []
        drained: list[DrainAck] = []
        for key in () if child.claims_due else child.dirty:
            slot = state.slots.get(key)
            source = slot.sources.get(child.target) if slot is not None else None
            if slot is None or source is None:
                continue
            verdict = verdict_of(slot, source, state.settings.name)
            before = child.sent.get(key)
            if before is not None and key not in child.due and _lags(before, verdict):
                child.lagging[key] = None
            elif before != verdict:
                verdicts.append(verdict)
            leaving = source.claim.leaving
            if leaving and child.acked.get(key) != leaving and not state.table.present(EndpointKey(key, child.target)):
                drained.append(DrainAck(key, leaving))
                if not source.released and not state.settings.parents:
                    source.released = True
                    self._save(source)
        child.dirty.clear()
        child.due.clear()
        docs: list[Doc] = []
        dropped: list[str] = []
        for doc_id in sorted(child.dirty_docs):
            doc = state.policies.docs.get(doc_id)
            if doc is None and doc_id in child.sent_docs:
                dropped.append(doc_id)
            elif doc is not None and doc.rank != child.sent_docs.get(doc_id, NO_DOC):
                root = state.settings.node_id in path.root_ids  # a document that a root has is in force under that root
                docs.append(replace(doc, scope=path.root_ids) if root else doc)
        child.dirty_docs.clear()
        message = child.state(verdicts, drained, docs, path, dropped)
        if message is not None:
            state.effects.append(ToChild(link, message))


def _recount(votes: Counter[str], old: tuple[str, ...], new: tuple[str, ...]) -> tuple[str, ...]:
    """Replaces the votes of one child. Returns the new ones, each once."""
    for root in old:
        votes[root] -= 1
        if not votes[root]:
            del votes[root]
    new = tuple(dict.fromkeys(new))
    votes.update(new)
    return new


def _lags(before: Verdict, verdict: Verdict) -> bool:
    return replace(before, reason=verdict.reason) == verdict and differ_in_counts(before.reason, verdict.reason)


def verdict_of(slot: Slot, source: Source, node: str) -> Verdict:
    """The verdict for a source. One that was never admitted gets no consent while this node is cut off."""
    permit = slot.permit
    state, reason = permit.state, permit.reason
    if slot.active and source.standing is Standing.CLAIMED:
        state, reason = WAITING, NoParent()
    decided_by = permit.decided_by or node
    return Verdict(
        slot.key, state, reason, decided_by, permit.generation, permit.scope, permit.stamp, slot.epoch, permit.joined
    )
