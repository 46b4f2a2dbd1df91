"""Rollouts at a root: the targets of services, and the slots of the rollouts that this root owns.

One root owns a rollout: the one that took `start`, or `adopt` later. It writes the target (a document that all nodes hold), grants
slots, and saves its slots before it answers. The rules are in `rollout_rules`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec.structs import replace

from sdlb.core import canary_analysis, canary_steps, turns
from sdlb.core.best import Best
from sdlb.core.canary_asks import CanaryAsks
from sdlb.core.canary_steps import Canary
from sdlb.core.events import HookDone, RolloutOrder
from sdlb.core.joint import Joint, last_done
from sdlb.core.messages import TARGET
from sdlb.core.objections import Objections, without_canary
from sdlb.core.openings import TERM
from sdlb.core.recorder import Recorder
from sdlb.core.releases import Releases
from sdlb.core.rollout_plan import Known
from sdlb.core.rollout_rules import (
    Capacity,
    Conditions,
    HeldBack,
    Owned,
    advance,
    can_wait,
    capacity_objection,
    capacity_of,
    given_back,
    granted,
    is_waiting,
    next_slot_s,
    slot_objection,
)
from sdlb.core.slot_queue import HOLD_S, SlotQueue
from sdlb.model.opening import Opening
from sdlb.model.rollout import (
    DONE,
    FAIL,
    GIVE_BACK,
    HALTED,
    PAUSED,
    PREPARING,
    ROLLING,
    SUPERSEDED,
    TAKE,
    UNDOING,
    UNDONE,
    Part,
    RoleReport,
    Rollout,
    SlotAnswer,
    Target,
    past,
    target_body,
    with_history,
)

if TYPE_CHECKING:
    from sdlb.core.authority import Root
    from sdlb.core.children import Children
    from sdlb.core.events import MetricsAnswered, NodeFileNames, ReleasePut
    from sdlb.core.reports import Reports
    from sdlb.core.state import State
    from sdlb.model.rollout import SlotAsk

RETRY_MIN_S, RETRY_MAX_S = 0.5, 10.0
STEP_RETRY_S = 60.0
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
        self.releases = Releases(state)
        self.recorder = Recorder(state, children, root)
        self.joint = Joint(state, reports, root, self)
        self._owned: dict[str, Owned] = {}
        self._best: dict[str, Best] = {}
        self._asking: dict[
            str, dict[str, float]
        ] = {}  # service -> node that waits for a slot -> until when that counts
        self._held: dict[str, HeldBack] = {}  # service that gets no slot although none is open
        self._details: dict[str, str] = {}  # what a rollout waits for, if that alone has changed
        self._returned: dict[str, dict[str, None]] = {}  # service -> nodes that gave a slot back since it was adopted
        self._took_s: dict[str, float] = {}  # service -> how long the last node had a slot that succeeded
        self._up_since = 0.0
        self._learns_until: dict[str, float] = {}
        self._asks = CanaryAsks(state)
        self._later: dict[str, None] = {}  # services whose next step waits for the heartbeat
        self._at_beat = False
        self.queue = SlotQueue()
        self.objections = Objections(state, children, reports, self)

    def load(self, service: str, value: object) -> None:
        try:
            self._owned[service] = msgspec.convert(cast("Mapping[str, object]", value)["owned"], Owned)
        except (msgspec.ValidationError, KeyError, TypeError):
            self._state.persist(f"rollout/{service}", None)

    # ------------------------------------------------------------------ reads

    def owned(self, service: str) -> Owned:
        return self._owned.get(service, Owned())

    def held(self, service: str) -> HeldBack:
        return self._held.get(service, HeldBack())

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

    def capacity(self, service: str, rollout: Rollout, owned: Owned | None = None) -> Capacity:
        """`owned`: as it would be; None: as it is."""
        report = self._reports.total(service)
        base = replace(rollout, baseline=self.baseline(service, rollout))
        return capacity_of(base, owned or self.owned(service), report, self.floor(service, base.baseline, report.nodes))

    def baseline(self, service: str, rollout: Rollout | None = None) -> int:
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
            or (self._state.now < self._up_since + self.learning_s and self._children.other_roots())
        )

    def start(self, now: float) -> None:
        """A root that starts has to be found by the nodes that reported to another one meanwhile."""
        self._up_since = now
        self.recorder.start()

    @property
    def learning_s(self) -> float:
        """How long nodes need at most to report to another root: see `reporting`."""
        return self._state.settings.lease_s + 2 * self._state.settings.beat_s

    def _learn(self, service: str, now: float) -> None:
        self._learns_until[service] = now + self.learning_s
        self._state.set_timer(self._learns_until[service], "rollout", service)

    def is_first(self) -> bool:
        """Whether this is the first of all roots by name, to which nodes report while no rollout is in progress."""
        names = self._children.root_names
        return all(root in names and names[root] > self._state.settings.name for root in self._children.other_roots())

    # ------------------------------------------------------------------ orders

    def on_release(self, event: ReleasePut, now: float) -> None:
        if not self.objections.release_objection(event):
            self.releases.on_put(event)

    def on_order(self, order: RolloutOrder, now: float) -> None:
        if self._root is None or self.objections.objection(order):
            return
        if not self.joint.on_order(order, now):
            self.carry_out(order, now)

    def carry_out(self, order: RolloutOrder, now: float) -> None:
        """About one service."""
        target = self._state.targets.get(order.service) or Target(order.service)
        active, wall_s = target.active, self._state.wall_s
        self.recorder.order(order.service, order.verb, order.by)
        match order.verb:
            case "start":
                self.begin(order, self.next_ids(1)[0], (), now)
            case "undo" if active is None:
                self.begin(order, self.next_ids(1)[0], (), now)
            case "adopt" if (rollout := target.rollout) is not None:
                settings = self._state.settings
                self._learn(order.service, now)
                taken = replace(rollout, owner=settings.name, owner_id=settings.node_id, term=rollout.term + 1)
                self._save(order.service, Owned(rollout.id, taken=1))
                self._put(target, taken, order.by, ahead=TERM)
            case "pause" if active is not None:
                self._put(target, replace(active, state=PAUSED, detail=f"paused by {order.by}"), order.by)
            case "resume" if active is not None:
                self._save(
                    order.service, replace(self._without_lost(order.service), failed={}, analysis=None, served=False)
                )
                again = canary_steps.begun(active, active.at_step) if active.spec.step else active
                again = replace(again, state=_resumed(active), detail="", tried_s=wall_s, tries=active.tries + 1)
                self._put(target, again, order.by)
            case "promote" if active is not None:
                state = _resumed(active) if active.state == PAUSED else active.state
                cursor = active.cursor if active.zones else 1.0
                promoted = replace(canary_steps.without_steps(active), state=state, cursor=cursor, promoted=True)
                self._put(target, promoted, order.by)
            case "abort" | "undo" if active is not None:
                self.abort(target, active, order.by, f"aborted by {order.by}", ())
            case _:
                pass

    def abort(self, target: Target, active: Rollout, by: str, why: str, joint: tuple[Part, ...]) -> None:
        service = target.service
        self._save(service, self._without_lost(service))
        state = UNDOING if self.owned(service).taken and not active.of_rest else UNDONE
        ended = self._state.wall_s if state == UNDONE else 0.0
        cursor = 0.0 if active.zones else 1.0  # zone by zone again, as `advance` moves it
        gone = replace(active, state=state, cursor=cursor, detail=why, ended_s=ended, joint=joint)
        self._put(target, replace(gone, share=self._share_of_aborted(service, active)), by)

    def begin(self, order: RolloutOrder, id: str, joint: tuple[Part, ...], now: float) -> None:
        """Starts a rollout, or the undo of the last one that is done. `order.reason`: why, for people."""
        target = self._state.targets.get(order.service) or Target(order.service)
        if order.verb == "start":
            if order.version == target.settled and (left := self.objections.left(target)):
                order = replace(order, reason=f"for the nodes left: {', '.join(left)}")
            self._start(target, order, order.version, "", id, joint, now)
        elif (last := last_done(target)) is not None:
            order = replace(order, spec=without_canary(last.spec))
            self._start(target, order, last.before, last.id, id, joint, now)

    def _start(
        self,
        target: Target,
        order: RolloutOrder,
        version: str,
        undoes: str,
        id: str,
        joint: tuple[Part, ...],
        now: float,
    ) -> None:
        settings, service = self._state.settings, order.service
        before, last, active = self.before(service, target), target.rollout, target.active
        term = 1
        turn_s = 0.0
        if active is not None:
            last, term = replace(active, state=SUPERSEDED, ended_s=self._state.wall_s), active.term + 1
            turn_s = active.turn_s  # its open slots remain
        rollout = Rollout(
            id,
            version,
            before,
            PREPARING,
            settings.name,
            settings.node_id,
            term=term,
            incompatible=self.is_incompatible(service, before, version),
            spec=order.spec,
            by=order.by,
            started_s=self._state.wall_s,
            detail=order.reason,
            undoes=undoes,
            joint=joint,
            turn_s=turn_s,
        )
        if rollout.spec.step:
            rollout = canary_steps.begun(rollout, 0)
        history = ((last,) if last is not None else ()) + target.history
        self._save(
            service,
            replace(Owned(rollout.id), slots=self._without_lost(service).slots),
        )
        if not self.is_first():  # nodes have reported to another root so far
            self._learn(service, now)
        self._put(with_history(target, history), rollout, order.by)

    def _share_of_aborted(self, service: str, active: Rollout) -> float | None:
        """No request goes to the version any more, unless the others could not carry them."""
        if active.incompatible:
            return None
        capacities = self._capacities(service)
        capacity, left = sum(capacities.values()), sum(capacities.values()) - capacities.get(active.to, 0)
        floor = self.floor(service, max(capacity, active.baseline), self._reports.total(service).nodes)
        return 0.0 if left >= floor else active.share

    def _capacities(self, service: str) -> dict[str, int]:
        """Of the active versions."""
        found: dict[str, int] = {}
        for key in self._state.by_service.get(service, ()):
            slot = self._state.slots[key]
            if slot.active:
                found[key.version] = max(found.get(key.version, 0), slot.sums.capacity)
        return found

    def _without_lost(self, service: str) -> Owned:
        """Without the slots of nodes that no longer report: an operator has seen that and goes on without them."""
        owned, there = self.owned(service), {slot.node for slot in self._reports.total(service).slots}
        lately = self._state.wall_s - self.learning_s
        slots = {node: held for node, held in owned.slots.items() if node in there or held.since > lately}
        return replace(owned, slots=slots)

    def next_ids(self, number: int) -> list[str]:
        numbers = [int(m[1]) for t in self._state.targets.all() for r in past(t) if (m := _ID.match(r.id))]
        return [f"r-{max(numbers, default=0) + 1 + more}" for more in range(number)]

    def before(self, service: str, target: Target | None) -> str:
        """The version that a rollout replaces: the one that was last done, or the active one that was started by hand."""
        if target is not None and target.settled:
            return target.settled
        root = self._root
        record = root.records.get(service) if root is not None else None
        with_release = (
            [v for v in record.active if self.release_of(service, v) is not None] if record is not None else []
        )
        return max(with_release, default="")

    def is_incompatible(self, service: str, before: str, version: str) -> bool:
        return bool(before) and not self._state.policy(service).compatibility.compatible(before, version)

    def release_of(self, service: str, version: str) -> dict[str, object] | None:
        """As in `Target.releases`. None: there is none, or it is withdrawn."""
        known = self.releases.get(f"{service}-{version}")
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
            if updated and ask.node in owned.slots:
                took_s = max(rollout.spec.soak_s, self._state.wall_s - owned.slots[ask.node].since)
                self._took_s[ask.service] = took_s
            if ask.node in owned.slots:
                self.recorder.slot(ask.service, ask.node, "returned", outcome=ask.what, detail=ask.detail)
            self._state.set_timer(now, "rollout", ask.service)
            return SlotAnswer(True)
        retry_s = min(max(rollout.spec.soak_s / 4, RETRY_MIN_S), RETRY_MAX_S)
        if ask.rollout != rollout.id or ask.term > rollout.term:
            return SlotAnswer(False, retry_s, f"the rollout of {ask.service} is {rollout.id}")
        if ask.node in owned.slots:
            return SlotAnswer(True)
        self.queue.asked(ask.service, ask.node)
        counted = self.queue.with_turns(ask.service, owned, now, self._state.wall_s)
        capacity = self.capacity(ask.service, rollout, counted)
        why = self._slot_objection(ask, rollout, counted)
        if why:
            asking = self._asking.setdefault(ask.service, {})
            others = sum(1 for until in asking.values() if until > now)
            retry_s *= max(1.0, others / (2 * len(owned.slots) + ASKING))  # one of them asks soon after a slot is free
            if not self.learning(ask.service):
                took_s = self._took_s.get(ask.service, rollout.spec.soak_s)
                before = list(asking).index(ask.node) if ask.node in asking else len(asking)
                wait_s = next_slot_s(owned, took_s, before, self._state.wall_s)
                retry_s = wait_s if wait_s > RETRY_MAX_S else retry_s
            asking[ask.node] = now + 2 * retry_s
            if why == self._limit(ask.service, rollout, counted):
                return SlotAnswer(False, STEP_RETRY_S, why)  # it asks again when the rollout takes its next step
            if (
                why != turns.UNHEARD
                and not counted.slots
                and rollout.state == ROLLING
                and not self.learning(ask.service)
            ):
                accept_gap = rollout.spec.accept_gap
                short = capacity_objection(capacity, ask.share, alone=True, accept_gap=accept_gap)
                self._hold(ask.service, rollout, HeldBack(ask.share, why, bool(short)), now)
            return SlotAnswer(False, retry_s, why)
        self._asking.get(ask.service, {}).pop(ask.node, None)
        self._held.pop(ask.service, None)
        self._save(ask.service, granted(owned, ask.node, ask.share, self._state.wall_s))
        left, floor = capacity.left - ask.share, capacity.floor
        self.recorder.slot(ask.service, ask.node, "granted", share=ask.share, left=left, floor=floor)
        text = f"{ask.service}: {ask.node} has a slot of {rollout.id}"
        self._state.note("slot-granted", text, service=ask.service, rollout=rollout.id, node=ask.node)
        return SlotAnswer(True)

    def _limit(self, service: str, rollout: Rollout, owned: Owned) -> str:
        """Why the current step of a canary takes no more nodes."""
        report = self._reports.total(service)
        taken = canary_steps.updated(owned.updated, rollout, report) + len(owned.slots)
        return canary_steps.limit_objection(rollout, taken, report.nodes)

    def hold(self, ask_id: str, ask: SlotAsk, answer: SlotAnswer, now: float) -> bool:
        """Whether the request waits, with this answer so far. Only a few can, for each slot: others ask again later."""
        rollout = self._active(ask.service)
        if rollout is None or answer.granted or not ask.waits or ask.rollout != rollout.id:
            return False
        if rollout.state not in (ROLLING, UNDOING):
            return False
        slots = len(self.queue.with_turns(ask.service, self.owned(ask.service), now, self._state.wall_s).slots)
        if not slots or self.queue.waits(ask.service) >= 3 * slots + ASKING:
            return False
        self.queue.hold(ask_id, ask, now)
        self._asking.setdefault(ask.service, {})[ask.node] = now + HOLD_S
        return True

    def _active(self, service: str) -> Rollout | None:
        """The rollout in progress, if this root owns it."""
        target = self._state.targets.get(service)
        active = target.active if target is not None else None
        return active if self.owns(active) else None

    def _call_waiting(self, changed: Mapping[str, None], now: float) -> None:
        for service in self.queue.services():
            rollout = self._active(service)
            if rollout is None or rollout.state not in (ROLLING, UNDOING):
                self.queue.drop(service, None, "no node is updated now")
                continue
            self.queue.drop(service, rollout, f"the rollout of {service} is {rollout.id}")
            if service in changed:

                def objection(ask: SlotAsk, owned: Owned, rollout: Rollout = rollout) -> str:
                    return self._slot_objection(ask, rollout, owned)

                self.queue.call(service, self.owned(service), objection, now, self._state.wall_s)

    def _slot_objection(self, ask: SlotAsk, rollout: Rollout, owned: Owned) -> str:
        """`owned`: as it would be."""
        now, limit = self.capacity(ask.service, rollout, owned), self._limit(ask.service, rollout, owned)
        out = self._out({**self._owned, ask.service: owned})
        nodes = max((self._reports.total(t.service).nodes for t in self._state.targets.all()), default=0)
        learning = self.learning(ask.service)
        if ask.share and (why := self._turn_objection(rollout)):
            return why
        if (
            rollout.state == ROLLING
            and not rollout.incompatible
            and (key := self.objections.bar(ask.service, rollout.to))
        ):
            return f"{rollout.to} would not turn active: the policy keeps it out ({key})"
        return slot_objection(rollout, owned, now, ask.share, limit=limit, out=out, nodes=nodes, learning=learning)

    def _out(self, owned: Mapping[str, Owned]) -> int:
        """Nodes that are out for rollouts of this root. What it granted before another root adopted the rollout is for that one."""
        targets = self._state.targets
        mine = [name for name in owned if (target := targets.get(name)) is not None and self.owns(target.rollout)]
        return sum(1 for name in mine for held in owned[name].slots.values() if held.share)

    def _of_others(self) -> list[Rollout]:
        """Rollouts in progress that other roots own."""
        return [active for t in self._state.targets.all() if (active := t.active) is not None and not self.owns(active)]

    def _turn_objection(self, rollout: Rollout) -> str:
        heard_s = 2 * self._state.settings.beat_s
        return turns.objection(rollout, self._of_others(), heard_s, self._state.wall_s)

    def _hold(self, service: str, rollout: Rollout, held: HeldBack, now: float) -> None:
        if service not in self._held:
            text = f"{service}: {rollout.id} takes no node out: {held.why}"
            self._state.note("capacity-held", text, "warning", service=service, rollout=rollout.id)
            self._state.set_timer(now, "rollout", service)
        self._held[service] = held

    def _save(self, service: str, owned: Owned) -> None:
        if owned == self.owned(service):
            return
        self._owned[service] = owned
        self._state.persist(f"rollout/{service}", {"v": 1, "owned": msgspec.to_builtins(owned)})

    # ------------------------------------------------------------------ steps

    def on_timer(self, service: str, now: float) -> None:
        self._reports.changed[service] = None

    def on_beat(self) -> None:
        """A target that changes now goes to the children in place of the heartbeat."""
        self._at_beat = True
        self._reports.changed.update(self._later)
        self._later.clear()

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
        self._call_waiting(changed, now)
        self._at_beat = False

    def _step(self, target: Target, report: RoleReport, now: float) -> None:
        service, rollout = target.service, target.active
        assert rollout is not None
        self._collect(service, rollout, report)
        conditions = self._conditions(service, rollout, report, now)
        if rollout.state in (PREPARING, ROLLING) and (why := self._failed_gate(service, rollout)):
            self.joint.abort(target, rollout, why, now)
            return
        if not conditions.learning and report.nodes:
            self.recorder.capacity(service, rollout, report.ready, conditions.floor)
        owned, wall_s = self.owned(service), self._state.wall_s
        found = advance(rollout, owned, report, conditions)
        found = turns.claimed(found, owned, report, self._of_others(), wall_s)
        self._details[service] = found.detail
        if not self._at_beat and can_wait(rollout, found):
            self._later[service] = None
        elif replace(found, detail="", nodes=0) != replace(rollout, detail="", nodes=0):
            self._note_step(service, rollout, found)
            self._put(target, found, "")
        self.joint.review(self._state.targets.get(service), now)
        if found.state == DONE != rollout.state and (why := self._failed_gate(service, found)):
            self.joint.undo(service, found.id, why, now)
        if is_waiting(found):
            self._state.set_timer(now + self._state.settings.beat_s, "rollout", service)

    def _failed_gate(self, service: str, rollout: Rollout) -> str:
        """Which gate ends the rollout, and why. "": none does."""
        if self._root is None:
            return ""
        returns = rollout.before and not rollout.undoes
        failed = self._root.openings.after(service, rollout.to)[1] if returns else ""
        return self._root.openings.late(service, rollout.to) or failed

    def reverted(self, service: str, version: str) -> str:
        """Why the cut-over to this version was reverted. "": it was not."""
        return self._root.openings.reverted(service, version) if self._root is not None else ""

    def _note_step(self, service: str, before: Rollout, after: Rollout) -> None:
        analysis, wall_s = self.owned(service).analysis, self._state.wall_s
        result, level = canary_analysis.result_text(analysis, before, after, wall_s)
        if result and analysis is not None:
            self.recorder.analysed(
                service, before.at_step + 1, canary_analysis.verdict(analysis, before, wall_s), analysis
            )
            counts, text = canary_analysis.counts(analysis), f"{service}: {after.id}, {result}"
            self._state.note("analysis", text, level, service=service, rollout=after.id, **counts)
        if reached := canary_steps.reached_text(before, after):
            self.recorder.step(service, reached)
            self._state.note("step-reached", f"{service}: {after.id} {reached}", service=service, rollout=after.id)

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
        record, turn = root.records.get(service), self.joint.turn(service, rollout)
        return Conditions(
            wall_s=self._state.wall_s,
            floor=self.floor(service, self.baseline(service, rollout), report.nodes),
            learning=self.learning(service),
            best=self.best(service),
            objection=root.openings.cut_objection(service, rollout.to),
            flips=self._opening(service).cut_over == "flip",
            active=record is not None and rollout.to in record.active,
            reverted=root.openings.reverted(service, rollout.to),
            held=self.held(service).short,
            asking=len(asking),
            canary=self._canary(service, rollout, report, now),
            turn=turn.text,
            begun=turn.begun,
            turn_s=turn.since_s,
            after=root.openings.after(service, rollout.to)[0],
        )

    def _canary(self, service: str, rollout: Rollout, report: RoleReport, now: float) -> Canary:
        if canary_steps.current(rollout) is None or rollout.state != ROLLING:
            return Canary()
        owned, wall_s = self.owned(service), self._state.wall_s
        analysis = canary_analysis.advanced(owned.analysis, rollout, report, wall_s)
        if analysis is not None:
            analysis = self._asks.ask(service, rollout, analysis, now)
        serves = self._capacities(service).get(rollout.to, 0) > 0
        self._save(service, replace(owned, analysis=analysis, served=owned.served or serves))
        return canary_analysis.canary(analysis, rollout, wall_s, lost=owned.served and not serves)

    def on_names(self, event: NodeFileNames) -> None:
        self.objections.known = Known(self._state.settings.name, event.sources, event.hooks)

    def on_answer(self, event: MetricsAnswered | HookDone, now: float) -> bool:
        """Whether an analysis has asked for it."""
        service = self._asks.service_of(event)
        target, owned = self._state.targets.get(service), self.owned(service)
        active, known = target.active if target is not None else None, owned.analysis
        if active is not None and known is not None and owned.rollout == active.id:
            if isinstance(event, HookDone):
                known = self._asks.on_hook(service, active, known, event, now)
            else:
                known = self._asks.on_metrics(service, active, known, event)
            self._save(service, replace(owned, analysis=known))
            self._reports.changed[service] = None
        return bool(service)

    def _put(self, target: Target, rollout: Rollout, by: str, *, ahead: int = 1) -> None:
        before = target.rollout
        settled = rollout.to if rollout.state == DONE else target.settled or rollout.before
        named = {settled, rollout.to, rollout.before, target.settled} - {""}
        releases = {
            version: data
            for version in sorted(named)
            if (data := self.release_of(target.service, version) or target.releases.get(version)) is not None
        }
        found = replace(target, settled=settled, rollout=rollout, releases=releases)
        self._state.policies.put_doc(TARGET, target.service, target_body(found), ahead=ahead)
        if before is None or (before.id, before.state) != (rollout.id, rollout.state):
            who = f" by {by}" if by and f"by {by}" not in rollout.detail else ""
            why = f": {rollout.detail}" if rollout.detail else ""
            if rollout.detail == f"{rollout.state} by {by}":
                who, why = f" by {by}", ""
            others = [part.service for part in rollout.joint if part.service != target.service]
            why += f" (together with {', '.join(others)})" if others and rollout.state == PREPARING else ""
            text = f"{target.service} {rollout.before or 'nothing'} -> {rollout.to}, {rollout.id}: {rollout.state}{who}{why}"
            level = "error" if rollout.state == HALTED else "info"
            self._state.note("rollout-state", text, level, service=target.service, rollout=rollout.id)
        self._details.pop(target.service, None)
        self.recorder.put(found)
        self._reports.changed[target.service] = None
        self._state.changed_services[target.service] = None


def _resumed(rollout: Rollout) -> str:
    return ROLLING if rollout.baseline else PREPARING
