"""The authority that decides about a node's claims: the node itself (`Root`), or its parents (`Delegated`).

`Balancer` gets permits from either in the same way. A root proposes each new record to its store and acts on it when it is
committed. With the embedded store that happens in the same iteration, with `Persist` as the first effect (decide, write,
act).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from sdlb.core import saved
from sdlb.core.children import Children
from sdlb.core.decisions import Compatible, HolderRecord, Report, ServiceRecord, decide_route, decide_service
from sdlb.core.effects import ReleaseHeld
from sdlb.core.events import Approve, HookDone, Promote, RouteTransfer
from sdlb.core.messages import ACTIVE, OPENING, REFUSED, TRANSFER, WAITING, ClaimKey, Doc, Path, Stage
from sdlb.core.openings import Openings
from sdlb.core.parents import Parents
from sdlb.core.slot import HOSTS_MAX, Part, Permit, Phase, Slot, Sums
from sdlb.core.state import State, key_of, text_of
from sdlb.core.votes import generation_votes, majority_generation
from sdlb.model.reason import Asking, Nothing, Reason, StillRunning

if TYPE_CHECKING:
    from collections.abc import Iterable

Order = Approve | Promote | RouteTransfer | HookDone
LEAP_MAX = 1 << 20
"""A reported generation that is further above the record than this is false and does not count."""
GENERATION_MAX = 1 << 40
"""The newest generation that a root without a record adopts. Its own decisions continue from there, up to `COUNT_MAX`."""
SCOPE_MAX = 8
"""Ids of other authorities that one record continues. Above that number the oldest are dropped."""


class Authority(Protocol):
    is_root: bool

    def load(self, kind: str, name: str, value: object) -> None:
        """Loads a record from disk, after the claims. The record may be from a time when the node had the other role."""
        ...

    def decide(self, now: float) -> None:
        """Decides about changed services and routes. Slots whose permit changes are marked dirty."""
        ...

    def permit(self, slot: Slot, now: float) -> Permit: ...

    def path(self) -> Path: ...

    def has_say(self, now: float) -> bool:
        """Whether this node can decide, or pass on, anything new."""
        ...

    def admits(self, now: float) -> bool:
        """Whether a further source of an active key may serve. That needs no new record, but contact with a root."""
        ...

    def follow(self) -> None:
        """Decisions could not be written for lease and fence. From now on the other roots decide without this one."""
        ...

    def on_reported(self, doc: Doc) -> None:
        """More than half of the children report this document, which is newer than the one in force here."""
        ...

    def on_order(self, order: Order, now: float) -> None:
        """An order of an operator about gates, cut-overs or routes, or the result of a hook."""
        ...

    def forget(self, key: ClaimKey) -> None:
        """The key has no claim any more."""
        ...

    def review_all(self) -> None:
        """Marks all records for a new decision, including those without a claim."""
        ...

    def review_openings(self) -> None:
        """The roots that the children reach have changed."""
        ...


class Delegated:
    """The parents decide. ACTIVE permits are saved durably."""

    is_root = False

    def __init__(self, state: State, parents: Parents) -> None:
        self._state = state
        self._parents = parents
        self._held: dict[str, HolderRecord] = {}  # route -> who held it when this node was a root

    def load(self, kind: str, name: str, value: object) -> None:
        state = self._state
        if kind == "permit":
            self._resume(key_of(name), saved.permit_from(value))
        elif kind == "service":
            # This node was a root. What it served stays active until its new parents have decided.
            # Its generations mean nothing to others, not even where they continued theirs.
            record = saved.service_from(value)
            scope = (state.settings.node_id,)
            for key in state.by_service.get(name, ()):
                if key.version in record.active and self._had(key):
                    stamp = record.active[key.version]
                    permit = Permit(ACTIVE, Nothing(), state.settings.name, record.generation, scope, stamp)
                    self._resume(key, permit)
                    state.persist(f"permit/{text_of(key)}", saved.permit_to(permit))
            state.persist(f"service/{name}", None)
        elif kind == "holder":  # loaded before all services
            self._held[name] = saved.holder_from(value)
            state.persist(f"holder/{name}", None)

    def _had(self, key: ClaimKey) -> bool:
        """Whether the service had the route. A holder that has never served it may still wait for the former one to close."""
        holder = self._held.get(key.route)
        if holder is None:
            return True
        alone = all(other.service == key.service for other in self._state.by_route[key.route])
        return holder.service == key.service and (holder.confirmed or alone)

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

    def on_order(self, order: Order, now: float) -> None:
        pass

    def forget(self, key: ClaimKey) -> None:
        pass

    def review_all(self) -> None:
        pass

    def review_openings(self) -> None:
        pass


class Root:
    """This node decides, with its own records."""

    is_root = True

    def __init__(self, state: State, children: Children) -> None:
        self._state = state
        self._children = children
        self.records: dict[str, ServiceRecord] = {}
        self.holders: dict[str, HolderRecord] = {}
        self.openings = Openings(state, children, self.records)
        self._barred: dict[str, Mapping[str, Reason]] = {}
        self._stamps: dict[ClaimKey, int] = {}
        self._last_stamp = 0
        self._route_reasons: dict[str, dict[str, Reason]] = {}
        self._version_reasons: dict[str, dict[str, Reason]] = {}
        # service -> (generation that too few report, number of roots before this one, since when)
        self._doubted: dict[str, tuple[int, int, float]] = {}
        self._again_routes: dict[str, None] = {}
        self._again_services: dict[str, None] = {}

    # ------------------------------------------------------------------ records

    def load(self, kind: str, name: str, value: object) -> None:
        state = self._state
        if kind == "service":
            self.records[name] = record = saved.service_from(value)
            # A recall from before the restart may not have been confirmed, so it counts as not confirmed.
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
        """This node was a child: the versions that its parents had activated go on record here."""
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
        """Proposes a record to the store. The embedded store writes it with the `Persist` of this iteration. A shared store
        would commit later and then call `_committed_service`."""
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
        """The seniority of a key ends with its last claim."""
        if self._stamps.pop(key, None) is not None:
            self._state.persist(f"stamp/{text_of(key)}", None, durable=False)

    def _stamp(self, key: ClaimKey) -> int:
        """The seniority of a key. The root gives it when the first claim arrives; claims cannot set it."""
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
        if self._children.other_roots():
            text = "decisions cannot be written to disk; following the decisions of the other roots"
            self._state.note("following", text, "warning")
            self._state.effects.append(ReleaseHeld())

    def on_reported(self, doc: Doc) -> None:
        own = self._state.settings.node_id
        if doc.scope and {own, *self._children.other_roots()}.isdisjoint(doc.scope):
            return  # from another tree
        if self._state.policies.adopt(replace(doc, scope=(own,))) and doc.kind != OPENING:
            self._state.note("doc-learnt", f"adopted {doc.id} revision {doc.revision}, which most children report")

    def on_order(self, order: Order, now: float) -> None:
        match order:
            case Approve():
                self.openings.on_approve(order)
            case Promote():
                self.openings.on_promote(order)
            case HookDone():
                self.openings.on_hook_done(order, now)
            case RouteTransfer():
                self._transfer(order)

    def transfer_objection(self, route: str, service: str) -> str:
        """Why a transfer of the route would have no effect. "": it has one."""
        claims = {key.service for key in self._state.by_route.get(route, ())}
        if not claims:
            return f"no service claims {route}"
        if service not in claims:
            return f"{service} does not claim {route}; these do: {', '.join(sorted(claims))}"
        holder = self.holders.get(route)
        return f"{service} holds {route} already" if holder is not None and holder.service == service else ""

    def _transfer(self, order: RouteTransfer) -> None:
        if not self.transfer_objection(order.route, order.service):
            body = json.dumps({"service": order.service, "by": order.by}).encode()
            self._state.policies.put_doc(TRANSFER, order.route, body)
            text = f"{order.by} transferred {order.route} to {order.service}"
            self._state.note("route-transferred", text, service=order.service)

    def _wanted(self, route: str) -> str:
        """The service to which an operator has transferred the route. "": none."""
        doc = self._state.policies.docs.get(f"{TRANSFER}/{route}")
        try:
            return str(json.loads(doc.body)["service"]) if doc is not None else ""
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""  # of another release or a faulty node

    # ------------------------------------------------------------------ deciding

    def review_all(self) -> None:
        self._state.dirty_services.update(dict.fromkeys(self.records))
        self._state.dirty_routes.update(dict.fromkeys(self.holders))

    def review_openings(self) -> None:
        self.openings.review()

    def decide(self, now: float) -> None:
        """A service or route that lost a permit is decided again when the permits have changed."""
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
            before,
            reports,
            route=route,
            decided_by=state.settings.name,
            settling=self.settling,
            wanted=self._wanted(route),
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
        compatible = self._compatible(service, slots)
        guard = self.openings.guard(service, start, reports, compatible)
        record, reasons = decide_service(
            start,
            reports,
            compatible,
            now=now,
            settling=self.settling,
            hold_s=state.settings.silence_s,
            heard=max(trust.heard, self._written(service, start)),
            guard=guard,
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
        if guard.barred:
            self._barred[service] = guard.barred
        else:
            self._barred.pop(service, None)
        if not self.settling and state.can_write and self.openings.tend(service, record, reports, compatible, now):
            state.dirty_services[service] = None  # decided again, with the new record of its opening
        for key in state.by_service.get(service, ()):
            if self.permit(state.slots[key], now) != state.slots[key].permit:
                state.dirty.setdefault(key, {})

    def _written(self, service: str, record: ServiceRecord) -> int:
        """The generation that a conductor has written, if this root has missed it: its versions are about to be reported."""
        generation = self.openings.generation(service)
        return generation if record.generation < generation <= record.generation + LEAP_MAX else 0

    def _raise_above_doubted(self, service: str, record: ServiceRecord, trust: _Evidence, now: float) -> ServiceRecord:
        """Handles a newer generation that too few children report for lease and fence.

        The record stays, under a generation above the doubted one, so that no node takes this root's decision for the older
        one. Another root that knows the doubted generation makes most children report it within that time. Of several roots
        that do not know it, the first one by its id continues, then the others hear its generation. Each later one waits
        longer, so that two roots do not outbid each other.
        """
        if trust.reported <= max(record.generation, trust.heard) or record.blank:
            self._doubted.pop(service, None)
            return record
        generation, before, since = self._doubted.get(service, (0, 0, now))
        if (generation, before) != (trust.reported, trust.before):
            self._doubted[service] = generation, before, since = trust.reported, trust.before, now
        until = since + (1 + before) * self._state.settings.silence_s
        if now < until:
            self._state.set_timer(until, "hold", service)
            return record
        del self._doubted[service]
        text = f"{service}: too few children report generation {generation} for it to count; continuing above it"
        self._state.note("generation-doubted", text, "warning", service=service)
        return replace(record, generation=generation + 1)

    def _note_active_set(self, service: str, before: ServiceRecord, after: ServiceRecord) -> None:
        if set(before.active) != set(after.active):
            names = ", ".join(sorted(after.active)) or "nothing"
            self.openings.on_active_set(service)
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

    def context(self) -> tuple[str, frozenset[str], frozenset[str], Callable[[ClaimKey], int]]:
        """For `_Evidence`: this root's id, the ids of the other roots that its children reach, those of them that most are out of
        touch with, the seniority of a claim."""
        node_id = self._state.settings.node_id
        return node_id, self._children.other_roots(), self._children.lost_roots(), self._stamp

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
            reason = reason or self._waits(key) or Asking()
        active = state == ACTIVE
        joined = self.openings.ticket(key.service, record.generation, key.version, active=active)
        return Permit(state, reason, node, record.generation, scope, stamp, joined)

    def _waits(self, key: ClaimKey) -> Reason | None:
        """Why the version waits. For a flip, that is not the version which still serves."""
        reason = self._version_reasons.get(key.service, {}).get(key.version)
        if isinstance(reason, StillRunning) and self._state.policy(key.service).opening.cut_over == "flip":
            return self._barred.get(key.service, {}).get(key.version) or reason
        return reason


_BLANK = ServiceRecord()


class _Evidence:
    """Weighs the reports of children about decisions against the record of this root.

    A generation above the record counts only within the record's scope, and if more than half of the children that have the
    service report it. A root without a record (it is new, or its disk was lost) has nothing to compare with: it adopts the
    newest generation of the scope that most of them share.
    """

    def __init__(self, root: Root, record: ServiceRecord | None, slots: list[Slot]) -> None:
        self._node_id, self._peers, self._lost, self._stamp = root.context()
        self._slots = slots
        known = record or _BLANK
        self.adopted: tuple[str, ...] = self._adopt(known) if record is not None and record.blank else ()
        self._ours = {self._node_id, *self._peers, *known.scope, *self.adopted}
        self._ceiling = known.generation if record is not None else 1 << 53
        self.heard = 0
        self.reported = 0  # the newest reported generation of the record's scope, accepted or not
        self._most = GENERATION_MAX if known.blank else known.generation + LEAP_MAX
        doubted = [-slot.sums.doubted.get(0) for slot in slots]
        reported = [
            -slot.sums.generations.get(0) for slot in slots
        ]  # also by what waits below a version that is open here
        newest = max((*doubted, *reported, *(slot.generation() for slot in slots)), default=0)
        if record is not None and newest > known.generation:
            votes = generation_votes(slots, self._is_ours, self._most)
            believed = max(votes, default=0) if known.blank else majority_generation(votes)
            self.reported = max((*votes, *(each for each in doubted if each <= self._most)), default=0)
            self.heard = believed if believed > known.generation else 0
            self._ceiling = max(self._ceiling, self.heard)

    def _adopt(self, record: ServiceRecord) -> tuple[str, ...]:
        """The other scope that most open sources share. If none is open, the one of the sources that know a decision."""
        for stage in (Stage.OPEN, Stage.WAITING):
            votes: Counter[tuple[str, ...]] = Counter()
            for part in self._parts():
                if part.stage is stage and part.generation and part.scope and self._node_id not in part.scope:
                    votes[part.scope] += 1
            if votes:
                return max(votes, key=lambda scope: (votes[scope], scope))
        return ()

    @property
    def before(self) -> int:
        """The number of roots in touch with most children that come before this one, by their ids."""
        return sum(peer < self._node_id for peer in self._peers - self._lost)

    def _parts(self) -> Iterator[Part]:
        for slot in self._slots:
            yield from (part for part in slot.parts.values() if not part.covered)

    def _is_ours(self, scope: tuple[str, ...]) -> bool:
        return not scope or not self._ours.isdisjoint(scope)

    def reports(self, slots: list[Slot]) -> Report:
        """The report over all slots of a version of a service, or of a service on a route."""
        is_open = any(s.sums.present or s.sums.open or s.sums.silent for s in slots)
        recalled = all(s.phase is Phase.CLOSING and s.generation() <= s.opened for s in slots)
        backing, generation = 0, 0
        if is_open and not recalled:
            for slot in slots:
                count, newest = self._backing(slot)
                backing, generation = max(backing, count), max(generation, newest)
        sums = [s.sums for s in slots]
        granted = frozenset(root for each in sums for root in each.granted.counts if root in self._peers)
        if granted and not is_open:  # the generation under which the other roots have granted it
            newest = max(s.generation() for s in slots)
            generation = newest if newest <= self._ceiling else 0
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
            able=max(s.able() for s in slots),
            healthy=max(s.healthy() for s in slots),
            joined=frozenset(name for each in sums for name in each.joined.counts),
            backing=backing,
            majority=backing * 2 > sum(slot.sums.parts for slot in self._slots),
            generation=generation,
            hosts=tuple(sorted({host for s in slots for host in s.hosts()})[:HOSTS_MAX]),
            presumed=bool(silent) and silent == sum(each.parts for each in sums),
            remembered=all(each.recorded_only == each.parts for each in sums),
        )

    def _refused(self, sums: list[Sums]) -> frozenset[str]:
        """The other roots that decided REFUSED, as more than half of the sources report."""
        if not self._peers:
            return frozenset()
        sources = sum(each.parts for each in sums)
        votes: Counter[str] = Counter()
        for each in sums:
            votes.update({root: each.refused.counts[root] for root in self._peers if root in each.refused.counts})
        return frozenset(root for root, count in votes.items() if count * 2 > sources)

    def _seniority(self, slot: Slot) -> int:
        """The earliest stamp that this root or another root of the tree has given."""
        own = self._stamp(slot.key)
        if not self._peers or not slot.sums.granted.counts.keys() & self._peers:
            return own
        return min(own, slot.stamp() or own)

    def _backing(self, slot: Slot) -> tuple[int, int]:
        """The number of sources that are open by decisions that count here, and the newest generation among them."""
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
    """Resumes a permit from before the restart: it stays active until there is another decision."""
    slot.permit = permit
    slot.phase = Phase.OPEN
    slot.on_disk = bool(state.settings.parents)
    slot.opened, slot.opened_scope = permit.generation, permit.scope
    slot.epoch = state.next_number()
