"""Who decides about a node's claims: this node itself (a root), or its parents.

`Balancer` asks for permits and does not know which. A root proposes each new record to its store and acts on it once it
is committed; with the embedded store that is in the same turn, with `Persist` first (decide, write, act).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from sdlb.core import saved
from sdlb.core.children import Children
from sdlb.core.decisions import Compatible, HolderRecord, Report, ServiceRecord, decide_route, decide_service
from sdlb.core.effects import ReleaseHeld
from sdlb.core.messages import ACTIVE, REFUSED, WAITING, ClaimKey, Doc, Path, Stage
from sdlb.core.parents import Parents
from sdlb.core.slot import HOSTS_MAX, Part, Permit, Phase, Slot, Sums
from sdlb.core.state import State, key_of, text_of
from sdlb.core.votes import generation_votes, majority_generation
from sdlb.model.reason import Asking, Nothing, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

LEAP_MAX = 1 << 20
"""A report of a generation further above the record than this is a lie or a fault, and counts as none."""
GENERATION_MAX = 1 << 40
"""The newest that a root without a record takes over. Its own decisions go on from there, up to what a message can carry."""
SCOPE_MAX = 8
"""Ids of other authorities that one record continues; the oldest go first."""


class Authority(Protocol):
    is_root: bool

    def load(self, kind: str, name: str, value: object) -> None:
        """A record of the disk, after the claims; also one that was written in the other role."""
        ...

    def decide(self, now: float) -> None:
        """What was touched: new records, and slots whose permit differs from then on are touched."""
        ...

    def permit(self, slot: Slot, now: float) -> Permit: ...

    def path(self) -> Path: ...

    def has_say(self, now: float) -> bool:
        """Whether this node can decide, or pass on, anything new."""
        ...

    def admits(self, now: float) -> bool:
        """Whether a further source of what is active may serve: no record is needed for that, but touch with a root."""
        ...

    def follow(self) -> None:
        """Decisions could not be written for lease and fence: from here on the other roots decide without this one."""
        ...

    def on_reported(self, doc: Doc) -> None:
        """More than half of the children hold this document, which is newer than the one in force here."""
        ...

    def forget(self, key: ClaimKey) -> None:
        """Nobody claims it any more."""
        ...

    def review_all(self) -> None:
        """At all there is on record, also at what nobody claims any more."""
        ...


class Delegated:
    """The parents decide. What is active is remembered, durably."""

    is_root = False

    def __init__(self, state: State, parents: Parents) -> None:
        self._state = state
        self._parents = parents
        self._former: dict[str, ServiceRecord] = {}  # of a root that this node was

    def load(self, kind: str, name: str, value: object) -> None:
        state = self._state
        if kind == "permit":
            self._resume(key_of(name), saved.permit_from(value))
        elif kind == "service":
            # This node was a root. What it let be active stays so until its new parents have decided.
            record = saved.service_from(value)
            scope = (state.settings.node_id, *record.scope)
            for key in state.by_service.get(name, ()):
                if key.version in record.active:
                    stamp = record.active[key.version]
                    permit = Permit(ACTIVE, Nothing(), state.settings.name, record.generation, scope, stamp)
                    self._resume(key, permit)
                    state.persist(f"permit/{text_of(key)}", saved.permit_to(permit))
            state.persist(f"service/{name}", None)
        elif kind == "holder":
            state.persist(f"holder/{name}", None)

    def _resume(self, key: ClaimKey, permit: Permit) -> None:
        slot = self._state.slots.get(key)
        if slot is not None:
            resume(self._state, slot, permit)

    def decide(self, now: float) -> None:
        self._state.dirty_routes.clear()
        self._state.dirty_services.clear()

    def permit(self, slot: Slot, now: float) -> Permit:
        return self._parents.permit(slot, now)

    def path(self) -> Path:
        return self._parents.path()

    def has_say(self, now: float) -> bool:
        return self._state.can_write and self.admits(now)

    def admits(self, now: float) -> bool:
        return any(uplink.ever_heard for uplink in self._parents.with_say(now))

    def follow(self) -> None:
        pass

    def on_reported(self, doc: Doc) -> None:
        self._parents.pass_on(doc)

    def forget(self, key: ClaimKey) -> None:
        pass

    def review_all(self) -> None:
        pass


class Root:
    """This node decides, with records of its own."""

    is_root = True

    def __init__(self, state: State, children: Children) -> None:
        self._state = state
        self._children = children
        self.records: dict[str, ServiceRecord] = {}
        self.holders: dict[str, HolderRecord] = {}
        self._stamps: dict[ClaimKey, int] = {}
        self._last_stamp = 0
        self._route_reasons: dict[str, dict[str, Reason]] = {}
        self._version_reasons: dict[str, dict[str, Reason]] = {}
        self._doubted: dict[str, tuple[int, float]] = {}  # service -> generation that too few report, since when
        self._again_routes: dict[str, None] = {}
        self._again_services: dict[str, None] = {}

    # ------------------------------------------------------------------ records

    def load(self, kind: str, name: str, value: object) -> None:
        state = self._state
        if kind == "service":
            self.records[name] = record = saved.service_from(value)
            # What was recalled before the restart may not have been confirmed: treat it as not confirmed.
            for key in state.by_service.get(name, ()):
                slot = state.slots[key]
                if key.version in record.closing:
                    slot.phase = Phase.CLOSING
                    slot.epoch = slot.revoked_epoch = state.next_number()
                elif key.version in record.active:
                    slot.epoch = state.next_number()
        elif kind == "holder":
            self.holders[name] = saved.holder_from(value)
        elif kind == "stamp":
            self._stamps[key_of(name)] = int(str(value))
            self._last_stamp = max(self._last_stamp, int(str(value)))
        elif kind == "permit":
            self._promote(key_of(name), saved.permit_from(value))

    def _promote(self, key: ClaimKey, permit: Permit) -> None:
        """This node was a child: what its parents had let be active goes on record here."""
        state = self._state
        state.persist(f"permit/{text_of(key)}", None)
        slot = state.slots.get(key)
        if slot is None:
            return
        record = self.records.get(key.service, ServiceRecord())
        active = {**record.active, key.version: permit.stamp}
        record = replace(
            record,
            generation=max(record.generation, permit.generation, 1),
            active=active,
            era=tuple(sorted(active)),
            scope=self._widened(record.scope, permit.scope),
        )
        self._propose_service(key.service, record)
        self._propose_holder(key.route, HolderRecord(key.service, permit.stamp))
        resume(state, slot, permit)

    def _propose_service(self, name: str, record: ServiceRecord) -> None:
        """Raises nothing, answers at once: the embedded store writes with this turn's `Persist`. A shared store commits
        later, and `_committed_service` is called then."""
        self._state.persist(f"service/{name}", saved.service_to(record))
        self._committed_service(name, record)

    def _committed_service(self, name: str, record: ServiceRecord) -> None:
        self.records[name] = record

    def _propose_holder(self, route: str, record: HolderRecord | None) -> None:
        self._state.persist(f"holder/{route}", saved.holder_to(record))
        if record is None:
            self.holders.pop(route, None)
        else:
            self.holders[route] = record

    def forget(self, key: ClaimKey) -> None:
        """Its seniority goes with it."""
        if self._stamps.pop(key, None) is not None:
            self._state.persist(f"stamp/{text_of(key)}", None, durable=False)

    def _stamp(self, key: ClaimKey) -> int:
        """Seniority is given here, on first arrival, never by who claims."""
        stamp = self._stamps.get(key)
        if stamp is None:
            self._last_stamp = stamp = max(self._last_stamp + 1, round(self._state.wall_s * 1e6))
            self._stamps[key] = stamp
            self._state.persist(f"stamp/{text_of(key)}", stamp, durable=False)
        return stamp

    @property
    def settling(self) -> bool:
        return bool(self._children.unsynced)

    def path(self) -> Path:
        name, node_id = self._state.settings.name, self._state.settings.node_id
        return Path((name,), (name,), (node_id,))

    def has_say(self, now: float) -> bool:
        return self._state.can_write

    def admits(self, now: float) -> bool:
        return True

    def follow(self) -> None:
        if self._children.other_roots() - {self._state.settings.node_id}:
            text = "decisions cannot be written; following what the other roots decide"
            self._state.note("following", text, "warning")
            self._state.effects.append(ReleaseHeld())

    def on_reported(self, doc: Doc) -> None:
        own = self._state.settings.node_id
        if doc.scope and {own, *self._children.other_roots()}.isdisjoint(doc.scope):
            return  # of another tree
        if self._state.policies.adopt(replace(doc, scope=(own,))):
            self._state.note("doc-learnt", f"{doc.id} revision {doc.revision} was learnt from most children")

    # ------------------------------------------------------------------ deciding

    def review_all(self) -> None:
        self._state.dirty_services.update(dict.fromkeys(self.records))
        self._state.dirty_routes.update(dict.fromkeys(self.holders))

    def decide(self, now: float) -> None:
        """What was taken from a service or version is looked at again once its permits have followed."""
        state = self._state
        self._again_routes.clear()
        self._again_services.clear()
        while state.dirty_routes:
            route, _ = state.dirty_routes.popitem()
            self._decide_route(route)
        while state.dirty_services:
            service, _ = state.dirty_services.popitem()
            self._decide_service(service, now)
        state.dirty_routes.update(self._again_routes)
        state.dirty_services.update(self._again_services)

    def _decide_route(self, route: str) -> None:
        state = self._state
        slots: dict[str, list[Slot]] = {}
        for key in state.by_route.get(route, ()):
            if state.slots[key].sources:
                slots.setdefault(key.service, []).append(state.slots[key])
        trust = _Evidence(self, None, [slot for each in slots.values() for slot in each])
        reports = {service: trust.reports(each) for service, each in slots.items()}
        before = self.holders.get(route)
        holder, reasons = decide_route(
            before, reports, route=route, decided_by=state.settings.name, settling=self.settling
        )
        if holder != before:
            self._propose_holder(route, holder)
            if before is not None:
                self._again_routes[route] = None
        if reasons != self._route_reasons.get(route, {}):
            for service in slots:
                state.dirty_services[service] = None
        _keep(self._route_reasons, route, reasons)

    def _decide_service(self, service: str, now: float) -> None:
        state = self._state
        slots: dict[str, list[Slot]] = {}
        for key in state.by_service.get(service, ()):
            slot = state.slots[key]
            if slot.sources and self._refusal(slot) is None:
                slots.setdefault(key.version, []).append(slot)
        before = self.records.get(service)
        if before is None and not slots:
            return
        before = before or ServiceRecord()
        trust = _Evidence(self, before, [slot for each in slots.values() for slot in each])
        reports = {version: trust.reports(each) for version, each in slots.items()}
        start = replace(before, scope=self._widened(before.scope, trust.adopted)) if trust.adopted else before
        start = self._raise_above_doubted(service, start, trust, now)
        record, reasons = decide_service(
            start,
            reports,
            self._compatible(service, slots),
            now=now,
            settling=self.settling,
            hold_s=state.settings.silence_s,
            heard=trust.heard,
        )
        if not record.same_on_disk(before):
            self._propose_service(service, record)
            self._note_active_set(service, before, record)
            if record.closing != before.closing:
                self._again_services[service] = None
        else:
            self.records[service] = record
        if record.hold_until > now:
            state.set_timer(record.hold_until, "hold", service)
        _keep(self._version_reasons, service, reasons)
        for key in state.by_service.get(service, ()):
            if self.permit(state.slots[key], now) != state.slots[key].permit:
                state.dirty.setdefault(key, {})

    def _raise_above_doubted(self, service: str, record: ServiceRecord, trust: _Evidence, now: float) -> ServiceRecord:
        """A newer generation that too few report for too long: what is on record stays, under a number above it, so that
        nobody takes this root's word for the older one. Where other roots decide too, these are waited for."""
        if trust.reported <= max(record.generation, trust.heard) or record.blank or trust.has_peers:
            self._doubted.pop(service, None)
            return record
        generation, since = self._doubted.get(service, (0, now))
        if generation != trust.reported:
            self._doubted[service] = generation, since = trust.reported, now
        until = since + self._state.settings.silence_s
        if now < until:
            self._state.set_timer(until, "hold", service)
            return record
        del self._doubted[service]
        text = f"{service}: generation {generation} was reported by too few to be believed; going on above it"
        self._state.note("generation-doubted", text, "warning", service=service)
        return replace(record, generation=generation + 1)

    def _note_active_set(self, service: str, before: ServiceRecord, after: ServiceRecord) -> None:
        if set(before.active) != set(after.active):
            names = ", ".join(sorted(after.active)) or "nothing"
            self._state.note(
                "active-set", f"{service}: {names} active (generation {after.generation})", service=service
            )

    @staticmethod
    def _widened(scope: tuple[str, ...], others: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*scope, *others)))[-SCOPE_MAX:]

    def _compatible(self, service: str, slots: Mapping[str, list[Slot]]) -> Compatible:
        rules = self._state.policy(service).compatibility
        declared = {v: tuple(sorted({c for s in each for c in s.compatible()})) for v, each in slots.items()}

        def compatible(a: str, b: str) -> bool:
            return rules.compatible(a, b, declared.get(a, ()), declared.get(b, ()))

        return compatible

    def context(self) -> tuple[str, frozenset[str], Callable[[ClaimKey], int]]:
        """For `_Evidence`: this root's id, the ids of roots that its children hear besides, the seniority of a claim."""
        node_id = self._state.settings.node_id
        return node_id, self._children.other_roots() - {node_id}, self._stamp

    # ------------------------------------------------------------------ the outcome for one key

    def _refusal(self, slot: Slot) -> Reason | None:
        holder = self.holders.get(slot.key.route)
        if holder is not None and holder.service == slot.key.service:
            return None
        return self._route_reasons.get(slot.key.route, {}).get(slot.key.service)

    def permit(self, slot: Slot, now: float) -> Permit:
        key, node = slot.key, self._state.settings.name
        record = self.records.get(key.service, _BLANK)
        scope, stamp = (self._state.settings.node_id,), self._stamp(key)
        state, reason = WAITING, self._refusal(slot)
        if reason is not None:
            state = REFUSED
        else:
            reason = self._route_reasons.get(key.route, {}).get(key.service)
            if reason is None and key.version in record.active:
                state, reason = ACTIVE, Nothing()
            reason = reason or self._version_reasons.get(key.service, {}).get(key.version) or Asking()
        return Permit(state, reason, node, record.generation, scope, stamp)


_BLANK = ServiceRecord()


class _Evidence:
    """What children report about decisions, weighed against what this root has on record.

    A generation above the record counts only within the record's scope, and when more than half of the children that
    have the service report it. A root without a record (its disk was lost, it is new) has nothing to weigh it against: there the
    newest of the scope that most of them share is taken over.
    """

    def __init__(self, root: Root, record: ServiceRecord | None, slots: list[Slot]) -> None:
        self._node_id, self._peers, self._stamp = root.context()
        self._slots = slots
        known = record or _BLANK
        self.adopted: tuple[str, ...] = self._adopt(known) if record is not None and record.blank else ()
        self._ours = {self._node_id, *self._peers, *known.scope, *self.adopted}
        self._ceiling = known.generation if record is not None else 1 << 53
        self.heard = 0
        self.reported = 0  # the newest generation of our scope, believed or not
        self._most = GENERATION_MAX if known.blank else known.generation + LEAP_MAX
        doubted = [-slot.sums.doubted.get(0) for slot in slots]
        newest = max((*doubted, *(slot.generation() for slot in slots)), default=0)
        if record is not None and newest > known.generation:
            votes = generation_votes(slots, self._is_ours, self._most)
            believed = max(votes, default=0) if known.blank else majority_generation(votes)
            self.reported = max((*votes, *(each for each in doubted if each <= self._most)), default=0)
            self.heard = believed if believed > known.generation else 0
            self._ceiling = max(self._ceiling, self.heard)

    def _adopt(self, record: ServiceRecord) -> tuple[str, ...]:
        """The foreign scope that most of the open sources share; if none is open, of those that were told of a decision."""
        for stage in (Stage.OPEN, Stage.WAITING):
            votes: Counter[tuple[str, ...]] = Counter()
            for part in self._parts():
                if part.stage is stage and part.generation and part.scope and self._node_id not in part.scope:
                    votes[part.scope] += 1
            if votes:
                return max(votes, key=lambda scope: (votes[scope], scope))
        return ()

    @property
    def has_peers(self) -> bool:
        return bool(self._peers)

    def _parts(self) -> Iterator[Part]:
        for slot in self._slots:
            yield from (part for part in slot.parts.values() if not part.covered)

    def _is_ours(self, scope: tuple[str, ...]) -> bool:
        return not scope or not self._ours.isdisjoint(scope)

    def reports(self, slots: list[Slot]) -> Report:
        """Over all the slots of one version of a service, or of one service on a route."""
        is_open = any(s.sums.present or s.sums.open or s.sums.silent for s in slots)
        recalled = all(s.phase is Phase.CLOSING and s.generation() <= s.opened for s in slots)
        backing, generation = 0, 0
        if is_open and not recalled:
            for slot in slots:
                count, newest = self._backing(slot)
                backing, generation = max(backing, count), max(generation, newest)
        sums = [s.sums for s in slots]
        granted = frozenset(root for each in sums for root in each.granted.counts if root in self._peers)
        if granted and not is_open:  # under which the other roots have granted it
            told = max(s.generation() for s in slots)
            generation = told if told <= self._ceiling else 0
        silent = sum(each.silent for each in sums)
        return Report(
            stamp=min(self._seniority(s) for s in slots),
            own=min(self._stamp(s.key) for s in slots),
            count=max(s.count() for s in slots),  # an instance with several routes counts once
            open=is_open,
            may_be_open=is_open or any(s.may_be_open_below() for s in slots),
            vouched=backing > 0,
            granted=granted,
            refused=self._refused(sums),
            backing=backing,
            majority=backing * 2 > sum(slot.sums.parts for slot in self._slots),
            generation=generation,
            hosts=tuple(sorted({host for s in slots for host in s.hosts()})[:HOSTS_MAX]),
            presumed=bool(silent) and silent == sum(each.parts for each in sums),
            remembered=all(each.recorded_only == each.parts for each in sums),
        )

    def _refused(self, sums: list[Sums]) -> frozenset[str]:
        """The other roots that refuse it, as more than half of its sources report."""
        sources = sum(each.parts for each in sums)
        votes: Counter[str] = Counter()
        for each in sums:
            votes.update({root: each.refused.counts[root] for root in self._peers if root in each.refused.counts})
        return frozenset(root for root, count in votes.items() if count * 2 > sources)

    def _seniority(self, slot: Slot) -> int:
        """The earliest stamp that this root or one that decides with it has given."""
        own = self._stamp(slot.key)
        if not self._peers or not slot.sums.granted.counts.keys() & self._peers:
            return own
        return min(own, slot.stamp() or own)

    def _backing(self, slot: Slot) -> tuple[int, int]:
        """How many sources are open by decisions that count here, and the newest generation among those."""
        sums = slot.sums
        scopes = sums.scopes
        newest = -sums.open_generations.get(0)
        here = 1 if sums.present and not sums.open else 0
        if newest <= self._ceiling and all(self._is_ours(scope) for scope in scopes):
            return sums.open + here, newest
        counted = [
            part.generation
            for part in slot.parts.values()
            if part.stage is Stage.OPEN
            and not part.covered
            and part.generation <= self._ceiling
            and self._is_ours(part.scope)
        ]
        return len(counted) + here, max(counted, default=0)


def _keep(reasons: dict[str, dict[str, Reason]], name: str, found: dict[str, Reason]) -> None:
    if found:
        reasons[name] = found
    else:
        reasons.pop(name, None)


def resume(state: State, slot: Slot, permit: Permit) -> None:
    """Active before the restart, and so until something else is decided."""
    slot.permit = permit
    slot.phase = Phase.OPEN
    slot.on_disk = bool(state.settings.parents)
    slot.opened, slot.opened_scope = permit.generation, permit.scope
    slot.epoch = state.next_number()
