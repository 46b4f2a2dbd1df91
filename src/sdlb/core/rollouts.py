"""Rollouts at a root: the targets of services, and the slots of the rollouts that this root owns.

One root owns a rollout: the one that took `start`, or `adopt` later. It writes the target (a document that all nodes hold), grants
slots, and saves its slots before it answers. The rules are in `rollout_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import msgspec

from sdlb.core.best import Best
from sdlb.core.events import RolloutOrder
from sdlb.core.messages import TARGET
from sdlb.core.openings import TERM
from sdlb.core.releases import Releases
from sdlb.core.rollout_plan import Change, plan
from sdlb.core.rollout_rules import (
    Capacity,
    Conditions,
    Owned,
    advance,
    capacity_objection,
    capacity_of,
    given_back,
    granted,
    is_waiting,
    slot_objection,
)
from sdlb.model.opening import Opening
from sdlb.model.rollout import (
    CUTTING_OVER,
    DONE,
    FAIL,
    GIVE_BACK,
    HALTED,
    HISTORY_MAX,
    PAUSED,
    PREPARING,
    ROLLING,
    SUPERSEDED,
    TAKE,
    UNDOING,
    UNDONE,
    RoleReport,
    Rollout,
    SlotAnswer,
    Target,
    target_body,
)

if TYPE_CHECKING:
    from sdlb.core.authority import Root
    from sdlb.core.children import Children
    from sdlb.core.events import ReleasePut
    from sdlb.core.reports import Reports
    from sdlb.core.state import State
    from sdlb.model.rollout import SlotAsk

RETRY_MIN_S, RETRY_MAX_S = 0.5, 10.0
ASKING = 4
"""If more nodes than these, and two for each slot, wait for a slot, each of them asks more rarely."""
_ID = re.compile(r"^r-([0-9]{1,9})\Z")


class Rollouts:
    def __init__(self, state: State, children: Children, reports: Reports, root: Root | None) -> None:
        """`root`: the deciding side of this node, if it is a root."""
        self._state = state
        self._children = children
        self._reports = reports
        self._root = root
        self._releases = Releases(state)
        self._owned: dict[str, Owned] = {}
        self._best: dict[str, Best] = {}
        self._asking: dict[
            str, dict[str, float]
        ] = {}  # service -> node that waits for a slot -> until when that counts
        self._held: dict[str, bool] = {}  # service that gets no slot although none is open -> whether capacity is short
        self._details: dict[str, str] = {}  # what a rollout waits for, if that alone has changed
        self._returned: dict[str, dict[str, None]] = {}  # service -> nodes that gave a slot back since it was adopted
        self._up_since = 0.0
        self._learns_until: dict[str, float] = {}

    def load(self, service: str, value: object) -> None:
        try:
            self._owned[service] = msgspec.convert(cast("Mapping[str, object]", value)["owned"], Owned)
        except (msgspec.ValidationError, KeyError, TypeError):
            self._state.persist(f"rollout/{service}", None)

    # ------------------------------------------------------------------ reads

    def owned(self, service: str) -> Owned:
        return self._owned.get(service, Owned())

    def detail(self, rollout: Rollout, service: str) -> str:
        return self._details.get(service) or rollout.detail

    def wanted(self, service: str) -> str:
        """The version to which a rollout is in progress. "": none is."""
        target = self._state.targets.get(service)
        active = target.active if target is not None else None
        if active is None:
            return ""
        return active.before if active.state == UNDOING else active.to

    def owns(self, rollout: Rollout | None) -> bool:
        return rollout is not None and rollout.owner_id == self._state.settings.node_id

    def find(self, name: str) -> Target | None:
        """By service, or by the id of its last rollout or one of its history."""
        found = self._state.targets.get(name)
        if found is not None:
            return found
        return next((t for t in self._state.targets.all() if any(r.id == name for r in past(t))), None)

    def capacity(self, service: str, rollout: Rollout) -> Capacity:
        report = self._reports.total(service)
        base = replace(rollout, baseline=self._baseline(service, rollout))
        return capacity_of(base, self.owned(service), report, self.floor(service, base.baseline, report.nodes))

    def _baseline(self, service: str, rollout: Rollout | None = None) -> int:
        """That of the rollout once it has begun to roll, and as long as it is in progress."""
        if rollout is not None and rollout.baseline and not rollout.ended:
            return rollout.baseline
        return max(self.best(service), self._reports.total(service).ready)

    def best(self, service: str) -> int:
        return self._best[service].value(self._state.now) if service in self._best else 0

    def floor(self, service: str, baseline: int, nodes: int) -> int:
        return self._opening(service).floor(baseline, nodes)

    def _opening(self, service: str) -> Opening:
        return self._state.policy(service).opening

    def learning(self, service: str) -> bool:
        """Whether some nodes may not have reported to this root yet, or it cannot trust what it hears."""
        return bool(
            self._children.unsynced
            or self._children.guarded
            or not self._state.can_write
            or self._state.now < self._learns_until.get(service, 0.0)
            or (self._state.now < self._up_since + self._learning_s and self._others())
        )

    def start(self, now: float) -> None:
        """A root that starts has to be found by the nodes that reported to another one meanwhile."""
        self._up_since = now

    @property
    def _learning_s(self) -> float:
        """How long nodes need at most to report to another root: see `reporting`."""
        return self._state.settings.lease_s + 2 * self._state.settings.beat_s

    def _learn(self, service: str, now: float) -> None:
        self._learns_until[service] = now + self._learning_s
        self._state.set_timer(self._learns_until[service], "rollout", service)

    def _others(self) -> frozenset[str]:
        return self._children.other_roots() - {self._state.settings.node_id}

    def _is_first(self) -> bool:
        """Whether this is the first of all roots by name, to which nodes report while no rollout is in progress."""
        names = self._children.root_names
        return all(root in names and names[root] > self._state.settings.name for root in self._others())

    # ------------------------------------------------------------------ orders

    def objection(self, order: RolloutOrder) -> str:
        """Why the order would have no effect. "": it has one."""
        target = self._state.targets.get(order.service)
        active = target.active if target is not None else None
        if order.verb == "start":
            return self._start_objection(order, target, active)
        if order.verb == "undo" and active is None:
            return self._undo_objection(order.service, target)
        if active is None:
            return f"no rollout of {order.service} is in progress"
        if order.verb == "adopt":
            return f"{active.id} is owned by this root already" if self.owns(active) else ""
        if not self.owns(active):
            return f"{active.id} is owned by {active.owner}, not {self._state.settings.name}"
        match order.verb:
            case "pause" if active.state not in (PREPARING, ROLLING):
                return f"{active.id} is {active.state}; only a rollout that is preparing or rolling can be paused"
            case "resume" if active.state not in (PAUSED, HALTED):
                return f"{active.id} is {active.state}; only a paused or halted rollout can be resumed"
            case "promote" if active.state not in (PREPARING, ROLLING, PAUSED):
                return f"{active.id} is {active.state}; there is nothing to promote"
            case "abort" | "undo" if active.state == CUTTING_OVER:
                return f"{active.id} is cutting over to {active.to}; wait until it is done, then undo it"
            case "abort" | "undo" if active.state == UNDOING:
                return f"{active.id} is being undone already"
            case "pause" | "resume" | "promote" | "abort" | "undo":
                return ""
            case _:
                return f"{order.verb} is not an order for a rollout"

    def _start_objection(self, order: RolloutOrder, target: Target | None, active: Rollout | None) -> str:
        name = f"{order.service}-{order.version}"
        if self._release(order.service, order.version) is None:
            return f"there is no release {name}; add it with 'sdlb release add'"
        if active is not None and not order.supersede:
            return f"{active.id} to {active.to} is {active.state}; abort it first, or start with --supersede"
        if active is not None and active.state in (CUTTING_OVER, UNDOING):
            return f"{active.id} is {active.state}; wait until it is over"
        if target is not None and active is None and target.settled == order.version:
            return f"{name} is what all nodes have since {target.rollout.id if target.rollout else 'the start'}"
        return self._floor_objection(order.service, order.version) or self._problems(order)

    def _undo_objection(self, service: str, target: Target | None) -> str:
        last = undoable(target)
        if last is None or not last.before:
            return f"{service} has no finished rollout that could be undone"
        order = RolloutOrder(service, "undo", "")
        return self._floor_objection(service, last.before) or self._problems(order)

    def _floor_objection(self, service: str, version: str) -> str:
        policy = self._state.policy(service)
        if policy.opening.below_floor(version, policy.compatibility.scheme):
            hooks = [gate.name for gate in policy.gates if gate.kind == "hook"]
            after = f", since the hook {', '.join(hooks)}" if hooks else ""
            return f"{service}-{version} is below never_below = {policy.opening.never_below}{after}"
        return ""

    def _problems(self, order: RolloutOrder) -> str:
        problems = self.plan(order)["problems"]
        return "; ".join(cast("list[str]", problems))

    def plan(self, order: RolloutOrder) -> dict[str, object]:
        """What `start` or `undo` would do, as far as it is known beforehand."""
        service, target = order.service, self._state.targets.get(order.service)
        last = undoable(target) if order.verb == "undo" else None
        version, spec = (last.before, last.spec) if last is not None else (order.version, order.spec)
        before, report = self._before(service, target), self._reports.total(service)
        baseline = self._baseline(service)
        floor = self.floor(service, baseline, report.nodes)
        incompatible = self._is_incompatible(service, before, version)
        change = Change(service, before, version, spec, incompatible)
        return plan(change, report, baseline, floor, self._state.policy(service))

    def on_release(self, event: ReleasePut, now: float) -> None:
        self._releases.on_put(event)

    def on_order(self, order: RolloutOrder, now: float) -> None:
        if self._root is None or self.objection(order):
            return
        target = self._state.targets.get(order.service) or Target(order.service)
        active, wall_s = target.active, self._state.wall_s
        match order.verb:
            case "start":
                self._start(target, order, order.version, "", now)
            case "undo" if active is None and (last := undoable(target)) is not None:
                self._start(target, replace(order, spec=last.spec), last.before, last.id, now)
            case "adopt" if active is not None:
                settings = self._state.settings
                self._learn(order.service, now)
                taken = replace(active, owner=settings.name, owner_id=settings.node_id, term=active.term + 1)
                self._save(order.service, Owned(active.id, taken=1))
                self._put(target, taken, order.by, ahead=TERM)
            case "pause" if active is not None:
                self._put(target, replace(active, state=PAUSED, detail=f"paused by {order.by}"), order.by)
            case "resume" if active is not None:
                state = PREPARING if not active.baseline else ROLLING
                self._save(order.service, replace(self._without_lost(order.service), failed={}))
                self._put(target, replace(active, state=state, detail="", started_s=wall_s), order.by)
            case "promote" if active is not None:
                self._put(target, replace(active, cursor=1.0), order.by)
            case "abort" | "undo" if active is not None:
                self._save(order.service, self._without_lost(order.service))
                state = UNDOING if self.owned(order.service).taken else UNDONE
                ended = wall_s if state == UNDONE else 0.0
                gone = replace(active, state=state, cursor=1.0, detail=f"aborted by {order.by}", ended_s=ended)
                self._put(target, gone, order.by)
            case _:
                pass

    def _start(self, target: Target, order: RolloutOrder, version: str, undoes: str, now: float) -> None:
        settings, service = self._state.settings, order.service
        before, last, active = self._before(service, target), target.rollout, target.active
        term = 1
        if active is not None:
            last, term = replace(active, state=SUPERSEDED, ended_s=self._state.wall_s), active.term + 1
        rollout = Rollout(
            self._next_id(),
            version,
            before,
            PREPARING,
            settings.name,
            settings.node_id,
            term=term,
            incompatible=self._is_incompatible(service, before, version),
            spec=order.spec,
            by=order.by,
            started_s=self._state.wall_s,
            undoes=undoes,
        )
        history = ((last,) if last is not None else ()) + target.history
        self._save(service, replace(self._without_lost(service), rollout=rollout.id, failed={}, taken=0, updated=0))
        if not self._is_first():  # nodes have reported to another root so far
            self._learn(service, now)
        self._put(replace(target, history=history[:HISTORY_MAX]), rollout, order.by)

    def _without_lost(self, service: str) -> Owned:
        """Without the slots of nodes that no longer report: an operator has seen that and goes on without them."""
        owned, there = self.owned(service), {slot.node for slot in self._reports.total(service).slots}
        lately = self._state.wall_s - self._learning_s
        slots = {node: held for node, held in owned.slots.items() if node in there or held.since > lately}
        return replace(owned, slots=slots)

    def _next_id(self) -> str:
        numbers = [int(m[1]) for t in self._state.targets.all() for r in past(t) if (m := _ID.match(r.id))]
        return f"r-{max(numbers, default=0) + 1}"

    def _before(self, service: str, target: Target | None) -> str:
        """The version that a rollout replaces: the one that was last done, or the active one that was started by hand."""
        if target is not None and target.settled:
            return target.settled
        root = self._root
        record = root.records.get(service) if root is not None else None
        with_release = [v for v in record.active if self._release(service, v) is not None] if record is not None else []
        return max(with_release, default="")

    def _is_incompatible(self, service: str, before: str, version: str) -> bool:
        return bool(before) and not self._state.policy(service).compatibility.compatible(before, version)

    def _release(self, service: str, version: str) -> dict[str, object] | None:
        """As in `Target.releases`. None: there is none, or it is withdrawn."""
        known = self._releases.get(f"{service}-{version}")
        return known.release.to_data() if known is not None and not known.withdrawn else None

    # ------------------------------------------------------------------ slots

    def on_ask(self, ask: SlotAsk, now: float) -> SlotAnswer | None:
        """None: another root owns the rollout."""
        target = self._state.targets.get(ask.service)
        rollout = target.rollout if target is not None else None
        if rollout is None or not self.owns(rollout):
            return None
        owned = self.owned(ask.service)
        if ask.what != TAKE:
            failed = (ask.detail or "it failed") if ask.what == FAIL and ask.rollout == rollout.id else None
            self._held.pop(ask.service, None)
            self._returned.setdefault(ask.service, {})[ask.node] = None
            updated = ask.what == GIVE_BACK and ask.rollout == rollout.id
            self._save(ask.service, given_back(owned, ask.node, failed, updated=updated))
            self._state.set_timer(now, "rollout", ask.service)
            return SlotAnswer(True)
        retry_s = min(max(rollout.spec.soak_s / 4, RETRY_MIN_S), RETRY_MAX_S)
        if ask.rollout != rollout.id or ask.term > rollout.term:
            return SlotAnswer(False, retry_s, f"the rollout of {ask.service} is {rollout.id}")
        if ask.node in owned.slots:
            return SlotAnswer(True)
        capacity = self.capacity(ask.service, rollout)
        why = self._slot_objection(ask, rollout, owned, capacity)
        if why:
            asking = self._asking.setdefault(ask.service, {})
            others = sum(1 for until in asking.values() if until > now)
            retry_s *= max(1.0, others / (2 * len(owned.slots) + ASKING))  # one of them asks soon after a slot is free
            asking[ask.node] = now + 2 * retry_s
            if not owned.slots and rollout.state == ROLLING and not self.learning(ask.service):
                accept_gap = rollout.spec.accept_gap
                short = capacity_objection(capacity, ask.share, alone=True, accept_gap=accept_gap)
                self._hold(ask.service, rollout, why, now, short=bool(short))
            return SlotAnswer(False, retry_s, why)
        self._asking.get(ask.service, {}).pop(ask.node, None)
        self._held.pop(ask.service, None)
        self._save(ask.service, granted(owned, ask.node, ask.share, self._state.wall_s))
        text = f"{ask.service}: {ask.node} has a slot of {rollout.id}"
        self._state.note("slot-granted", text, service=ask.service, rollout=rollout.id, node=ask.node)
        return SlotAnswer(True)

    def _slot_objection(self, ask: SlotAsk, rollout: Rollout, owned: Owned, now: Capacity) -> str:
        out = sum(1 for each in self._owned.values() for held in each.slots.values() if held.share)
        nodes = max((self._reports.total(t.service).nodes for t in self._state.targets.all()), default=0)
        return slot_objection(rollout, owned, now, ask.share, out=out, nodes=nodes, learning=self.learning(ask.service))

    def _hold(self, service: str, rollout: Rollout, why: str, now: float, *, short: bool) -> None:
        if service not in self._held:
            text = f"{service}: {rollout.id} takes no node out: {why}"
            self._state.note("capacity-held", text, "warning", service=service, rollout=rollout.id)
            self._state.set_timer(now, "rollout", service)
        self._held[service] = short

    def _save(self, service: str, owned: Owned) -> None:
        if owned == self.owned(service):
            return
        self._owned[service] = owned
        self._state.persist(f"rollout/{service}", {"v": 1, "owned": msgspec.to_builtins(owned)})

    # ------------------------------------------------------------------ steps

    def on_timer(self, service: str, now: float) -> None:
        self._reports.changed[service] = None

    def settle(self, now: float) -> None:
        """After each batch of events: reports may have changed."""
        if self._root is None:
            return
        changed, self._reports.changed = self._reports.changed, {}
        for service in changed:
            report, target = self._reports.total(service), self._state.targets.get(service)
            if target is None and report == RoleReport():
                self._best.pop(service, None)
                continue
            self._best.setdefault(service, Best()).add(report.ready, now)
            if target is not None and self.owns(target.active) and self._state.can_write:
                self._step(target, report, now)

    def _step(self, target: Target, report: RoleReport, now: float) -> None:
        service, rollout = target.service, target.active
        assert rollout is not None
        self._collect(service, rollout, report)
        found = advance(rollout, self.owned(service), report, self._conditions(service, rollout, report, now))
        self._details[service] = found.detail
        if replace(found, detail="", nodes=0) != replace(rollout, detail="", nodes=0):
            self._put(target, found, "")
        if is_waiting(found):
            self._state.set_timer(now + self._state.settings.beat_s, "rollout", service)

    def _collect(self, service: str, rollout: Rollout, report: RoleReport) -> None:
        """A root that has adopted a rollout takes over the slots that nodes report."""
        owned, learning = self.owned(service), self.learning(service)
        if owned.rollout != rollout.id:
            owned = Owned(rollout.id, taken=1)
        returned = self._returned.get(service, {}) if learning else self._returned.pop(service, {})
        for slot in report.slots if learning else ():
            if slot.rollout == rollout.id and slot.node not in returned:
                owned = granted(owned, slot.node, slot.share, self._state.wall_s)
        self._save(service, owned)

    def _conditions(self, service: str, rollout: Rollout, report: RoleReport, now: float) -> Conditions:
        root = self._root
        assert root is not None
        asking = {node: until for node, until in self._asking.get(service, {}).items() if until > now}
        self._asking[service] = asking
        record = root.records.get(service)
        return Conditions(
            wall_s=self._state.wall_s,
            floor=self.floor(service, self._baseline(service, rollout), report.nodes),
            learning=self.learning(service),
            best=self.best(service),
            objection=root.openings.cut_objection(service, rollout.to),
            flips=self._opening(service).cut_over == "flip",
            active=record is not None and rollout.to in record.active,
            reverted=root.openings.reverted(service, rollout.to),
            held=self._held.get(service, False),
            asking=len(asking),
        )

    def _put(self, target: Target, rollout: Rollout, by: str, *, ahead: int = 1) -> None:
        before = target.rollout
        settled = rollout.to if rollout.state == DONE else target.settled or rollout.before
        named = {settled, rollout.to, rollout.before, target.settled} - {""}
        releases = {
            version: data
            for version in sorted(named)
            if (data := self._release(target.service, version) or target.releases.get(version)) is not None
        }
        found = replace(target, settled=settled, rollout=rollout, releases=releases)
        self._state.policies.put_doc(TARGET, target.service, target_body(found), ahead=ahead)
        if before is None or (before.id, before.state) != (rollout.id, rollout.state):
            who = f" by {by}" if by else ""
            why = f": {rollout.detail}" if rollout.detail else ""
            text = f"{target.service} {rollout.before or 'nothing'} -> {rollout.to}, {rollout.id}: {rollout.state}{who}{why}"
            level = "error" if rollout.state == HALTED else "info"
            self._state.note("rollout-state", text, level, service=target.service, rollout=rollout.id)
        self._details.pop(target.service, None)
        self._reports.changed[target.service] = None
        self._state.changed_services[target.service] = None


def undoable(target: Target | None) -> Rollout | None:
    """The rollout that `undo` takes back: the one in progress, else the last that is done."""
    if target is None:
        return None
    return target.active or next((each for each in past(target) if each.state == DONE), None)


def past(target: Target) -> tuple[Rollout, ...]:
    return ((target.rollout,) if target.rollout is not None else ()) + target.history
