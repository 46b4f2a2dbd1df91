"""The openings that a root takes part in: it conducts those whose record it writes, and keeps to the records of other roots.

`conduct.py` has the rules. This module collects what they need, writes the documents, and calls hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sdlb.core import conduct
from sdlb.core.conduct import Conditions, Waiting
from sdlb.core.decisions import NO_GUARD, Compatible, Guard, Report, ServiceRecord
from sdlb.core.effects import RunHook
from sdlb.core.gates import Facts, answered, approved
from sdlb.core.messages import OPENING as KIND
from sdlb.core.messages import Rank
from sdlb.core.opening import (
    CANDIDATES_MAX,
    NONE,
    OPEN,
    OPENING,
    REVERTED,
    RUNNING,
    TIMED_OUT,
    Candidate,
    GateState,
    OpeningRecord,
    differ_in_texts,
    from_body,
    to_body,
)
from sdlb.model.gate import Approval, Gate, Hook
from sdlb.model.opening import Opening
from sdlb.model.reason import BelowFloor, NotReady, OnHold, PinnedOut, Reason
from sdlb.model.version import matches

if TYPE_CHECKING:
    from sdlb.core.children import Children
    from sdlb.core.events import Approve, HookDone, Promote
    from sdlb.core.state import State
    from sdlb.model.policy import Policy

RETRY_S = 1.0
"""Pause before a hook is called again that has not decided or could not be reached."""
TERM = 1 << 20
"""By how many revisions a root that takes over is ahead of the lost one, so that what that one writes meanwhile, and sends when
it is back, is not newer."""
_FREE = Opening()


class Openings:
    def __init__(self, state: State, children: Children, records: Mapping[str, ServiceRecord]) -> None:
        self._state = state
        self._children = children
        self._records = records
        self._read: dict[str, tuple[Rank, OpeningRecord | None]] = {}
        self._healthy_since: dict[str, dict[str, float]] = {}  # service -> version -> time
        self._parked_at: dict[
            str, float
        ] = {}  # service -> time at which a flip began to park, as this control knows it
        self._calls: dict[str, tuple[str, str, str]] = {}  # key of a hook in progress -> (service, version, gate)
        self._retry_at: dict[tuple[str, str, str], float] = {}  # (service, version, gate) -> time of the next attempt
        self._put_at: dict[str, float] = {}  # service -> time at which its record was written last
        self._behind: dict[str, tuple[int, float]] = {}  # service -> (generation without a record, since when)
        self._reached: frozenset[str] = frozenset()  # ids of the other roots that most children reach
        self._left: dict[str, float] = {}  # id of a root that most children no longer reach -> time since when
        self.wanted: Callable[[str], str] = lambda service: ""  # the version to which a rollout is in progress
        self._dependents: dict[str, dict[str, None]] = {}  # service -> services that wait for a version of it

    # ------------------------------------------------------------------ reads

    def record(self, service: str) -> OpeningRecord | None:
        doc = self._state.policies.docs.get(f"{KIND}/{service}")
        if doc is None:
            return None
        known = self._read.get(service)
        if known is None or known[0] != doc.rank:
            known = self._read[service] = (doc.rank, from_body(doc.body))
        return known[1]

    def generation(self, service: str) -> int:
        """The generation of the record: a conductor has decided so far, even if no node has reported it yet."""
        record = self.record(service)
        return record.generation if record is not None else 0

    def conducts(self, service: str) -> bool:
        record = self.record(service)
        return record is not None and record.conductor_id == self._state.settings.node_id

    def ticket(self, service: str, generation: int, version: str, *, active: bool) -> str:
        """What this root sends with its decisions to show which record it follows. For an active version only while its gates are
        evaluated."""
        record = self.record(service)
        if record is None or record.generation != generation:
            return ""
        if not self.conducts(service) and any(call[0] == service for call in self._calls.values()):
            return ""  # a hook that this root called as the conductor still runs
        candidate = record.candidates.get(version)
        return record.ticket if not active or (candidate is not None and candidate.opened) else ""

    def guard(
        self, service: str, record: ServiceRecord, versions: Mapping[str, Report], compatible: Compatible
    ) -> Guard:
        """What must not open now."""
        policy, newest = self._state.policy(service), self.record(service)
        opening = newest if newest is not None and newest.generation == record.generation else None
        conductor = newest.conductor_id if newest is not None else ""
        if not policy.gates and policy.opening == _FREE and (opening is None or not opening.committed):
            return NO_GUARD
        barred: dict[str, Reason] = {}
        for version, report in versions.items():
            if version in record.active:
                continue
            reason = barred_by_policy(policy, version, record)
            if reason is None and conductor not in report.granted:  # else the conductor has opened it already
                reason = self._barred_by_gates(policy, version, record, opening, compatible)
            if reason is not None:
                barred[version] = reason
        return Guard(barred, opening.to if opening is not None and opening.committed else "")

    def _barred_by_gates(
        self, policy: Policy, version: str, record: ServiceRecord, opening: OpeningRecord | None, compatible: Compatible
    ) -> Reason | None:
        if not _needs(policy, version, record, opening, compatible):
            return None
        candidate = opening.candidates.get(version) if opening is not None else None
        if candidate is None:
            by = f" by {opening.conductor}" if opening is not None else ""
            return NotReady(f"its gates have not been evaluated yet{by}")
        return None if candidate.clear else candidate.reason

    # ------------------------------------------------------------------ conducting

    def review(self) -> None:
        """The roots that the children reach have changed: the conductor of a service may be lost."""
        self._peers()
        self._state.dirty_services.update(dict.fromkeys(self._state.policies.names(KIND)))

    def tend(
        self, service: str, record: ServiceRecord, reports: Mapping[str, Report], compatible: Compatible, now: float
    ) -> bool:
        """Continues the opening of a service, if this root conducts it. Returns whether its record has changed."""
        policy, known = self._state.policy(service), self.record(service)
        current = known if known is not None and known.generation == record.generation else None
        needing = [v for v in reports if v not in record.active and _needs(policy, v, record, current, compatible)]
        opened = self._opened(policy, known, record, reports)
        if not needing and not opened and (current is None or current.phase == NONE):
            return False
        may_conduct = self._may_conduct(service, known, record)
        if self._left:  # decided again when it is certain that the first of these roots has left the tree
            self._state.set_timer(min(self._left.values()) + self._state.settings.silence_s, "left", service)
        if not may_conduct:
            return False
        start = self._taken_over(known, current, record)
        needing = sorted(needing, key=lambda v: (v != start.to, reports[v].stamp, v))[:CANDIDATES_MAX]
        self._watch_health(service, {v: reports[v] for v in needing}, now)
        waiting = {v: self._waiting(service, v, record, reports, compatible, start, now) for v in needing}
        start = replace(start, candidates={**start.candidates, **opened})
        serving = {
            v: replace(self._waiting(service, v, record, reports, compatible, start, now), gates=_after(policy, each))
            for v, each in opened.items()
        }
        outcome = conduct.advance(start, waiting, self._conditions(service, policy, record, start, now), serving)
        if outcome.wake_s is not None:
            self._state.set_timer(now + outcome.wake_s, "gate", service)
        changed = outcome.record != known
        if changed and known is not None and differ_in_texts(known, outcome.record):
            changed = self._is_due(service, now)
        if changed:
            self._put(service, outcome.record)
            self._put_at[service] = now
        for code, text, level in outcome.notes:
            self._state.note(code, f"{service}: {text}", level, service=service, **self._of_rollout(service))
        for version, hook in outcome.hooks:
            self._call(service, version, hook, outcome.record)
        return changed

    def _of_rollout(self, service: str) -> dict[str, str]:
        """For events: the rollout that they belong to."""
        target = self._state.targets.get(service)
        active = target.active if target is not None else None
        return {"rollout": active.id} if active is not None else {}

    def _is_due(self, service: str, now: float) -> bool:
        """Whether a change of texts alone is written now. They change with every instance of a version that starts."""
        due = self._put_at.get(service, now) + self._state.settings.beat_s
        if now < due:
            self._state.set_timer(due, "text", service)
        return now >= due

    @staticmethod
    def _opened(
        policy: Policy, known: OpeningRecord | None, record: ServiceRecord, reports: Mapping[str, Report]
    ) -> dict[str, Candidate]:
        """Candidates that have opened and have gates that are evaluated afterwards."""
        if known is None or known.generation not in (record.generation, record.generation - 1):
            return {}
        there = {v: each for v, each in known.candidates.items() if v in record.active and v in reports}
        return {v: each for v, each in there.items() if each.clear and _after(policy, each)}

    def _may_conduct(self, service: str, known: OpeningRecord | None, record: ServiceRecord) -> bool:
        """Another root conducts while its record is valid and its children are in touch with it."""
        node_id = self._state.settings.node_id
        if known is None or known.conductor_id == node_id:
            return True
        if known.generation > record.generation:
            return False  # this root has missed decisions
        if known.generation < record.generation:  # the conductor goes on in the next generation
            return self._waited(service, record.generation)
        if known.conductor_id in self._children.lost_roots():
            return True
        return known.conductor_id not in self._peers()

    def _waited(self, service: str, generation: int) -> bool:
        """Whether the conductor had lease and fence to begin the record of this generation."""
        now, silence_s = self._state.now, self._state.settings.silence_s
        known, since = self._behind.get(service, (0, now))
        if known != generation:
            since = now
        self._behind[service] = generation, since
        if now < since + silence_s:
            self._state.set_timer(since + silence_s, "gate", service)
        return now >= since + silence_s

    def _taken_over(
        self, known: OpeningRecord | None, current: OpeningRecord | None, record: ServiceRecord
    ) -> OpeningRecord:
        settings, wall_s = self._state.settings, self._state.wall_s
        number = known.number + 1 if known is not None else 1
        if current is None:
            return OpeningRecord(settings.node_id, settings.name, record.generation, number, since=wall_s)
        if current.conductor_id == settings.node_id:
            return current
        taken = replace(current, conductor_id=settings.node_id, conductor=settings.name, number=number)
        if not current.committed or current.phase == OPENING or current.tried:
            return taken
        return replace(taken, phase=REVERTED, since=wall_s, detail=f"{current.conductor} was lost")

    def _watch_health(self, service: str, waiting: Mapping[str, Report], now: float) -> None:
        known = self._healthy_since.pop(service, {})
        since = {v: known.get(v, now) for v, each in waiting.items() if each.healthy and each.healthy >= each.count}
        if since:
            self._healthy_since[service] = since

    def _parked_s(self, service: str, opening: OpeningRecord, now: float) -> float:
        """Time since a flip began to park requests: on the monotonic clock, unless control was started since then."""
        if not opening.committed:
            self._parked_at.pop(service, None)
            return 0.0
        if service not in self._parked_at:
            self._parked_at[service] = now - max(0.0, self._state.wall_s - opening.parked_since)
        return now - self._parked_at[service]

    def _conditions(
        self, service: str, policy: Policy, record: ServiceRecord, opening: OpeningRecord, now: float
    ) -> Conditions:
        lost = self._children.lost_roots()
        names = self._children.root_names
        return Conditions(
            wall_s=self._state.wall_s,
            flip=policy.opening.cut_over == "flip",
            park_s=policy.park.timeout_s,
            parked_s=self._parked_s(service, opening, now),
            lost=tuple(sorted(names.get(root, root) for root in self._peers() & lost)),
            running=frozenset(call[1:] for call in self._calls.values() if call[0] == service),
            active=frozenset(record.active),
            pauses={call[1:]: at - now for call, at in self._retry_at.items() if call[0] == service and at > now},
        )

    def _peers(self) -> frozenset[str]:
        """Ids of the other roots. One that the children no longer report counts for lease and fence, because a child that has just
        started reports only the roots that it has reached so far."""
        now, reached = self._state.now, self._children.other_roots()
        self._left.update(dict.fromkeys(self._reached - reached, now))
        self._reached = reached
        ends = now - self._state.settings.silence_s
        self._left = {root: at for root, at in self._left.items() if root not in reached and at > ends}
        return reached.union(self._left)

    def _waiting(
        self,
        service: str,
        version: str,
        record: ServiceRecord,
        reports: Mapping[str, Report],
        compatible: Compatible,
        opening: OpeningRecord,
        now: float,
    ) -> Waiting:
        policy, report = self._state.policy(service), reports[version]
        rivals = tuple(sorted(v for v in record.active if not compatible(v, version)))
        replaced = [reports[v] for v in rivals if v in reports]
        able, healthy = sum(each.able for each in replaced), sum(each.healthy for each in replaced)
        closing = any(
            not compatible(other, version) for other in record.closing if other != version and other in reports
        )
        names = self._children.root_names
        alive = self._peers() - self._children.lost_roots()
        missing = (
            root for root in alive if root not in report.granted and f"{root}/{opening.ticket}" not in report.joined
        )
        since = self._healthy_since.get(service, {}).get(version)
        room = not rivals and not closing
        return Waiting(
            facts=Facts(
                wall_s=self._state.wall_s,
                instances=report.count,
                healthy=report.healthy,
                able=report.able,
                baseline=able,
                healthy_s=None if since is None else now - since,
                active=self._active(service),
                calendar=self._state.settings.calendar,
            ),
            rank=(report.stamp, version),
            rivals=rivals,
            room=room,
            replaces=() if room and record.active else tuple(v for v in record.era if not compatible(version, v)),
            returns=version in record.past and version != self.wanted(service),
            barred=barred_by_policy(policy, version, record) is not None,
            missing=tuple(sorted({names.get(root, root) for root in missing})),
            alone=not alive,
            old=any(other in reports and not compatible(version, other) for other in record.era),
            floor=policy.opening.floor(able, healthy),
            gates=_gates(policy, version, record, compatible),
        )

    def _active(self, waits: str) -> Callable[[str, str], bool]:
        def active(service: str, declaration: str) -> bool:
            self._dependents.setdefault(service, {})[waits] = None
            record = self._records.get(service)
            return record is not None and any(matches(version, (declaration,)) for version in record.active)

        return active

    def on_active_set(self, service: str) -> None:
        """The active set of a service has changed: services that depend on it are decided again."""
        self._state.dirty_services.update(self._dependents.pop(service, {}))

    def _call(self, service: str, version: str, hook: Hook, opening: OpeningRecord) -> None:
        number = opening.candidates[version].gates[hook.name].number
        key = f"{service}/{version}/{opening.generation}.{number}/{hook.name}"
        self._calls[key] = (service, version, hook.name)
        replaces = opening.candidates[version].replaces
        self._state.effects.append(RunHook(key, service, version, hook, replaces))

    def _put(self, service: str, record: OpeningRecord) -> None:
        takes_over = self.record(service) is not None and not self.conducts(service)
        self._state.policies.put_doc(KIND, service, to_body(record), ahead=TERM if takes_over else 1)

    # ------------------------------------------------------------------ orders

    def on_hook_done(self, event: HookDone, now: float) -> None:
        call = self._calls.pop(event.key, None)
        if call is None:
            return  # of an earlier start of this control, which has called it again
        service, version, name = call
        self._state.dirty_services[service] = None
        record = self.record(service)
        candidate = record.candidates.get(version) if record is not None and self.conducts(service) else None
        state = candidate.gates.get(name) if candidate is not None else None
        if record is None or candidate is None or state is None or state.state != RUNNING:
            return
        if event.outcome not in ("yes", "no"):
            self._retry_at[call] = now + RETRY_S
        else:
            self._retry_at.pop(call, None)
        found = answered(state, event.outcome, event.detail, self._state.wall_s)
        if found.state != state.state and event.outcome in ("yes", "no"):
            code, level = ("gate-opened", "info") if event.outcome == "yes" else ("gate-refused", "error")
            why = f": {event.detail}" if event.detail else ""
            text = f"{service}: gate {name} of {version} is {found.state}{why}"
            self._state.note(code, text, level, service=service, **self._of_rollout(service))
        self._put(service, record.with_candidate(version, candidate.with_gate(name, found)))

    def approval_objection(self, service: str, version: str, gate: str, by: str) -> str:
        """Why an approval would have no effect. "": it has one."""
        objection = self._objection(service, version)
        if objection:
            return objection
        approvals = [each for each in self._state.policy(service).gates if isinstance(each, Approval)]
        found = next((each for each in approvals if each.name == gate), None)
        if found is None:
            names = ", ".join(each.name for each in approvals) or "none"
            return f"{service} has no gate {gate} that waits for an approval; its gates of this kind: {names}"
        if by not in found.by:
            return f"{by} may not approve gate {gate} of {service}; {' and '.join(found.by)} may"
        return ""

    def promotion_objection(self, service: str, version: str) -> str:
        """Why a promotion would have no effect. "": it has one. What the policy keeps out is not promoted: gates alone are
        evaluated again."""
        objection = self._objection(service, version)
        record = self._records.get(service)
        if objection or record is None:
            return objection
        barred = barred_by_policy(self._state.policy(service), version, record)
        return f"{service}-{version} cannot be promoted: {barred}" if barred is not None else ""

    def cut_objection(self, service: str, version: str) -> str:
        """Why the versions that this one replaces must not be stopped yet. "": its policy and its gates allow it."""
        policy, current = self._state.policy(service), self._records.get(service)
        if current is None:
            return ""
        barred = barred_by_policy(policy, version, current)
        if barred is not None:
            return str(barred)
        gates = [gate.name for gate in policy.gates if gate.at == "before"]
        record = self.record(service)
        candidate = record.candidates.get(version) if record is not None else None
        if not gates or version in current.era or (candidate is not None and candidate.no_gates):
            return ""
        if candidate is None:
            return "its gates have not been evaluated yet"
        for name in gates:
            state = candidate.gates.get(name)
            if state is None or state.state != OPEN:
                return f"gate {name}: {(state.reason if state is not None else '') or 'it is not open'}"
        return ""

    def late(self, service: str, version: str) -> str:
        """Which gate with `on_timeout = "abort"` was not open in time. "": none."""
        states = self._gates_of(service, version)
        for gate in self._state.policy(service).gates:
            found = states.get(gate.name)
            if gate.on_timeout == "abort" and found is not None and found.state == TIMED_OUT:
                return f"gate {gate.name}: {found.reason}"
        return ""

    def after(self, service: str, version: str) -> tuple[str, str]:
        """Of an active version: the gate after its cut-over that is not open yet, and the one that failed, with its reason. "": none."""
        states, pending, failed = self._gates_of(service, version), "", ""
        for gate in self._state.policy(service).gates:
            found = states.get(gate.name) if gate.at == "after" else None
            if found is not None and found.failed:
                failed = failed or f"gate {gate.name}: {found.reason or found.state}"
            elif found is not None and found.state != OPEN:
                pending = pending or f"gate {gate.name} is not open yet"
        return pending, failed

    def _gates_of(self, service: str, version: str) -> Mapping[str, GateState]:
        record = self.record(service)
        candidate = record.candidates.get(version) if record is not None else None
        return candidate.gates if candidate is not None else {}

    def reverted(self, service: str, version: str) -> str:
        """Why the flip to this version was reverted. "": it was not."""
        record = self.record(service)
        if record is None or record.phase != REVERTED or record.to != version:
            return ""
        return record.detail or "its flip was reverted"

    def _objection(self, service: str, version: str) -> str:
        record = self.record(service)
        current = self._records.get(service)
        if record is None or current is None or record.generation != current.generation:
            return f"no version of {service} waits for a gate or a cut-over"
        if record.conductor_id != self._state.settings.node_id:
            return f"{record.conductor} conducts the opening of {service}, not {self._state.settings.name}"
        if version not in record.candidates:
            names = ", ".join(sorted(record.candidates)) or "none"
            return f"{service}-{version} does not wait for a gate or a cut-over; these do: {names}"
        return ""

    def on_approve(self, event: Approve) -> None:
        if self.approval_objection(event.service, event.version, event.gate, event.by):
            return
        record = self.record(event.service)
        gate = next(each for each in self._state.policy(event.service).gates if each.name == event.gate)
        assert record is not None and isinstance(gate, Approval)
        candidate = record.candidates[event.version]
        known = candidate.gates.get(gate.name) or conduct.GateState(since=self._state.wall_s)
        found = candidate.with_gate(gate.name, approved(gate, known, event.by, self._state.wall_s))
        self._put(event.service, record.with_candidate(event.version, found))
        text = f"{event.by} approved gate {event.gate} of {event.service}-{event.version}"
        self._state.note("gate-approved", text, service=event.service)

    def on_promote(self, event: Promote) -> None:
        record = self.record(event.service)
        if record is None or self.promotion_objection(event.service, event.version):
            return
        self._put(event.service, conduct.promoted(record, event.version, event.by, event.no_gates))
        gates = f" without its gates: {event.no_gates}" if event.no_gates else ""
        text = f"{event.by} promoted {event.service}-{event.version}{gates}"
        self._state.note("version-promoted", text, service=event.service)


def _needs(
    policy: Policy, version: str, record: ServiceRecord, opening: OpeningRecord | None, compatible: Compatible
) -> bool:
    """Whether the version opens only with the consent of the conductor. One that was active in this generation does not."""
    if opening is not None and opening.committed and opening.to == version:
        return True
    if version in record.era:
        return False
    if _gates(policy, version, record, compatible):
        return True
    return policy.opening.cut_over == "flip" and any(not compatible(version, other) for other in record.active)


def _gates(policy: Policy, version: str, record: ServiceRecord, compatible: Compatible) -> tuple[Gate, ...]:
    if not policy.gates:
        return ()
    incompatible = _is_incompatible(version, record, compatible)
    return tuple(gate for gate in policy.gates if gate.applies == "every" or incompatible)


def _after(policy: Policy, candidate: Candidate) -> tuple[Gate, ...]:
    return tuple(g for g in policy.gates if g.at == "after" and (g.applies == "every" or candidate.replaces))


def _is_incompatible(version: str, record: ServiceRecord, compatible: Compatible) -> bool:
    return any(not compatible(version, other) for other in record.era)


def barred_by_policy(policy: Policy, version: str, record: ServiceRecord) -> Reason | None:
    """Why `hold`, `pin` or `never_below` keep a version from opening. None: they do not."""
    opening = policy.opening
    if opening.held(version, returns=version in record.era):
        return OnHold()
    if opening.pinned_out(version):
        return PinnedOut(opening.pin)
    if opening.below_floor(version, policy.compatibility.scheme):
        return BelowFloor(opening.never_below)
    return None
