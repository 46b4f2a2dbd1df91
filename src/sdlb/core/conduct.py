"""How a root conducts the opening of a service: gates, and the cut-over to an incompatible version. Pure functions.

* A version with gates opens when its `before` gates are open. In a cut-over it opens when its `gap` gates are open too.
* "flip": when the version is ready, the versions that it replaces are recalled (`closing`). When nothing of them is in flight
  anywhere, the gap begins. "stopped": the gap begins when the last of them has stopped.
* A cut-over and a hook begin only after every other root has acknowledged the record (its ticket). Before a hook with
  `back = false` they must have acknowledged that it will be called, and before the new version opens, that it will: a root
  that takes over from a lost one then goes on, and else reverts.
* Until `opening`, a flip is reverted if a gate fails, a root is lost, the version is not ready any more, or most of the time
  for which requests are parked has passed. After a hook with `back = false` it is not reverted.
* `after` gates are evaluated once the version serves. If one fails, a flip returns to the version that it replaced.
* A version that was active in an earlier generation does not replace its successor unless an operator promotes it.

Several roots may begin a record at the same time. The document with the greater rank is in force, and its writer conducts.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.core.gates import Evaluated, Facts, evaluate
from sdlb.core.opening import (
    CLOSING,
    GAP,
    NONE,
    OPEN,
    OPENING,
    PREPARE,
    REFUSED,
    REVERTED,
    RUNNING,
    TIMED_OUT,
    WAITING,
    Candidate,
    GateState,
    OpeningRecord,
)
from sdlb.model.gate import Gate, Hook
from sdlb.model.reason import CuttingOver, Gated, Nothing, NotReady, Reason
from sdlb.model.reason import Reverted as WasReverted

GONE_MAX = 8
"""Versions without an instance whose approvals and answers are kept."""
REVERT_AFTER = 0.8
"""Share of the time for which requests are parked, after which a flip is reverted."""


class Waiting(Struct, frozen=True):
    """What a root knows of a version that waits.

    `rivals`: incompatible active versions. `room`: nothing incompatible is active, closing or unaccounted for. `replaces`: incompatible
    versions of the generation. `returns`: it was active in an earlier generation. `barred`: by hold, pin or floor. `missing`: names of
    roots that are in touch and have not acknowledged the record; `alone`: no other root is in touch. `old`: a version of `replaces` has an
    instance. `floor`: capacity that a flip
    needs. `gates`: those that apply.
    """

    facts: Facts
    rank: tuple[int, str]
    rivals: tuple[str, ...] = ()
    room: bool = False
    replaces: tuple[str, ...] = ()
    returns: bool = False
    barred: bool = False
    missing: tuple[str, ...] = ()
    alone: bool = False
    old: bool = False
    floor: int = 0
    gates: tuple[Gate, ...] = ()

    def before(self) -> tuple[Gate, ...]:
        """A compatible version has no gap: its gates there come before it opens."""
        return tuple(gate for gate in self.gates if gate.at == "before" or (gate.at == "gap" and not self.replaces))

    def gap(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if gate.at == "gap" and self.replaces)

    def after(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if gate.at == "after")

    @property
    def joined(self) -> bool:
        return not self.missing


class Conditions(Struct, frozen=True):
    """`flip`: the policy's cut-over. `park_s`: time for which a request is parked. `parked_s`: time since a flip in progress began
    to park. `lost`: names of roots that are out of touch. `running`: (version, gate) of hooks in
    progress; `pauses`: of hooks that are retried, and the time until then. `active`: the versions that serve."""

    wall_s: float
    flip: bool = False
    park_s: float = 0.0
    parked_s: float = 0.0
    lost: tuple[str, ...] = ()
    running: frozenset[tuple[str, str]] = frozenset()
    active: frozenset[str] = frozenset()
    pauses: Mapping[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])


NOTHING: Mapping[str, Waiting] = {}


class Outcome(Struct):
    """`number`: of the record before. `hooks`: (version, hook) to call now.

    `notes`: (code, text, level). `wake_s`: time until the record may change by itself.
    """

    record: OpeningRecord
    number: int = 0
    hooks: list[tuple[str, Hook]] = field(default_factory=list[tuple[str, Hook]])
    notes: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    wakes: list[float] = field(default_factory=list[float])

    @property
    def wake_s(self) -> float | None:
        return min(self.wakes, default=None)


def advance(
    record: OpeningRecord,
    waiting: Mapping[str, Waiting],
    conditions: Conditions,
    opened: Mapping[str, Waiting] = NOTHING,
) -> Outcome:
    """The next state of a record that this root writes. `opened`: candidates that serve and have `after` gates."""
    out = Outcome(_without_the_gone(record, {**waiting, **opened}, conditions.active), record.number)
    for version in sorted(opened):
        _after(out, version, opened[version], waiting, conditions)
    clear: dict[str, bool] = {}
    for version in sorted(waiting):
        clear[version] = _before(out, version, waiting[version], conditions)
    if out.record.committed:
        _proceed(out, waiting.get(out.record.to), conditions)
    else:
        _begin(out, waiting, clear, conditions)
    for version in sorted(waiting):
        _judge(out, version, waiting[version], clear[version], conditions)
    return out


def _without_the_gone(record: OpeningRecord, waiting: Mapping[str, Waiting], active: frozenset[str]) -> OpeningRecord:
    """Drops candidates that have no instance any more. Those with an approval or an answer of a hook are kept: the only instance
    of a version may just restart."""

    def latched(candidate: Candidate) -> bool:
        return any(
            state.by or (state.attempts and state.state in (OPEN, REFUSED)) for state in candidate.gates.values()
        )

    gone = [v for v in record.candidates if v not in waiting and v != record.to]
    kept = [v for v in gone if v not in active and latched(record.candidates[v])][-GONE_MAX:]
    candidates = {v: each for v, each in record.candidates.items() if v not in gone or v in kept}
    return record if len(candidates) == len(record.candidates) else replace(record, candidates=candidates)


# ---------------------------------------------------------------------- gates


def _before(out: Outcome, version: str, each: Waiting, conditions: Conditions) -> bool:
    """Evaluates the gates that come before the cut-over. Returns whether all are open."""
    candidate = out.record.candidates.get(version) or Candidate(since=conditions.wall_s)
    names = {gate.name for gate in each.gates}
    gates = {name: state for name, state in candidate.gates.items() if name in names}
    candidate = replace(
        candidate,
        baseline=max(candidate.baseline, each.facts.baseline),
        replaces=each.replaces,
        opened=0.0,
        failed=False,
        gates=gates,
    )
    out.record = out.record.with_candidate(version, candidate)
    if _is_dormant(candidate, each):
        return False
    return _evaluate(out, version, each, each.before(), conditions, hooks=each.joined and not each.barred)


def _evaluate(
    out: Outcome, version: str, each: Waiting, gates: tuple[Gate, ...], conditions: Conditions, *, hooks: bool
) -> bool:
    candidate = out.record.candidates[version]
    if candidate.no_gates:
        return True
    states = {
        name: replace(state, state=WAITING)
        if state.state == RUNNING and (version, name) not in conditions.running
        else state
        for name, state in candidate.gates.items()
    }
    facts = replace(each.facts, baseline=candidate.baseline)
    found = evaluate(gates, states, facts, hooks=hooks)
    if found.wake_s is not None:
        out.wakes.append(found.wake_s)
    _note_changes(out, version, candidate, found)
    candidate = replace(candidate, gates={**states, **found.states})
    out.record = out.record.with_candidate(version, candidate)
    if found.hook is not None:
        _call(out, version, each, found.hook, conditions)
    return all(found.states[gate.name].state == OPEN for gate in gates)


def _call(out: Outcome, version: str, each: Waiting, hook: Hook, conditions: Conditions) -> None:
    pause = conditions.pauses.get((version, hook.name), 0.0)
    if pause > 0:
        out.wakes.append(pause)
        return
    candidate = out.record.candidates[version]
    state = candidate.gates[hook.name]
    in_gap = out.record.committed and version == out.record.to
    if (version, hook.name) in conditions.running:
        if in_gap:
            return  # of an attempt that was reverted: the old version has served since, so it is called again when it has ended
        # called before the version was away for a while
        out.record = out.record.with_candidate(version, candidate.with_gate(hook.name, replace(state, state=RUNNING)))
        return
    if not hook.back and in_gap and not out.record.tried:
        out.record = replace(out.record, tried=True, number=out.record.number + 1)
        if not each.alone:
            return  # it is called when all other roots know
    number = state.number if state.attempts else out.record.attempt
    state = replace(state, state=RUNNING, attempts=state.attempts + 1, number=number)
    out.record = out.record.with_candidate(version, candidate.with_gate(hook.name, state))
    out.hooks.append((version, hook))


def _note_changes(out: Outcome, version: str, candidate: Candidate, found: Evaluated) -> None:
    codes = {OPEN: ("gate-opened", "info"), REFUSED: ("gate-refused", "error"), TIMED_OUT: ("gate-timeout", "error")}
    for name, state in found.states.items():
        had = candidate.gates.get(name, GateState())
        if state.state != had.state and state.state in codes:
            code, level = codes[state.state]
            why = f": {state.reason}" if state.reason else ""
            out.notes.append((code, f"gate {name} of {version} is {state.state}{why}", level))


# ---------------------------------------------------------------------- after the opening


def _after(out: Outcome, version: str, each: Waiting, waiting: Mapping[str, Waiting], conditions: Conditions) -> None:
    """Evaluates the gates of a version that serves. When all are open, the opening is complete."""
    candidate = out.record.candidates[version]
    out.record = out.record.with_candidate(version, replace(candidate, opened=candidate.opened or conditions.wall_s))
    if _evaluate(out, version, each, each.after(), conditions, hooks=each.joined):
        left = {name: other for name, other in out.record.candidates.items() if name != version}
        out.record = replace(out.record, candidates=left)
        return
    candidate = out.record.candidates[version]
    gate = _first_closed(candidate, each.after())
    if gate is not None and candidate.gates[gate.name].failed and not candidate.failed:
        why = f"gate {gate.name} of {version} failed"
        out.record = out.record.with_candidate(version, replace(candidate, failed=True))
        _return(out, candidate, why, waiting, conditions)


def _return(out: Outcome, failed: Candidate, why: str, waiting: Mapping[str, Waiting], conditions: Conditions) -> None:
    """Promotes the version that was replaced, if it still waits and the policy lets it replace the new one."""
    healthy = [v for v in waiting if v in failed.replaces and waiting[v].facts.healthy and v in out.record.candidates]
    if not conditions.flip or not healthy:
        out.notes.append(("cutover-stuck", f"{why}, and there is no version to return to: it serves on", "error"))
        return
    old = max(healthy, key=lambda v: (waiting[v].facts.able, v))
    out.record = promoted(out.record, old, why, no_gates=why)
    out.notes.append(("cutover-undone", f"{why}: returning to {old}", "error"))


# ---------------------------------------------------------------------- cut-over


def _is_dormant(candidate: Candidate, each: Waiting) -> bool:
    return each.returns and bool(each.rivals) and not candidate.promoted


def _is_reverted(record: OpeningRecord, version: str, each: Waiting) -> bool:
    """Whether it waits for a promotion, which it does as long as there is a version to return to."""
    return record.phase == REVERTED and record.to == version and each.old


def _is_ready(candidate: Candidate, each: Waiting) -> bool:
    return bool(each.facts.healthy) and (bool(candidate.promoted) or each.facts.able >= each.floor)


def _needs_cut_over(each: Waiting, conditions: Conditions) -> bool:
    return (conditions.flip and bool(each.rivals)) or bool(each.gap())


def _may_begin(record: OpeningRecord, version: str, each: Waiting, clear: bool, conditions: Conditions) -> bool:
    if not clear or each.barred or not _needs_cut_over(each, conditions):
        return False
    if _is_reverted(record, version, each):
        return False
    if not each.rivals:
        return each.room and bool(each.facts.healthy)
    return conditions.flip and conditions.park_s > 0 and _is_ready(record.candidates[version], each)


def _begin(out: Outcome, waiting: Mapping[str, Waiting], clear: Mapping[str, bool], conditions: Conditions) -> None:
    record = out.record
    able = [v for v in waiting if _may_begin(record, v, waiting[v], clear[v], conditions)]
    if not able:
        if record.phase == PREPARE:
            out.record = replace(record, phase=NONE, to="", closes=(), since=conditions.wall_s, detail="")
        return
    version = min(able, key=lambda v: waiting[v].rank)
    each = waiting[version]
    if record.phase != PREPARE or record.to != version:
        record = replace(record, phase=PREPARE, to=version, closes=each.rivals, since=conditions.wall_s, tried=False)
    missing = ", ".join(each.missing + conditions.lost if each.rivals else each.missing)
    out.record = replace(record, closes=each.rivals, detail=f"waiting for an answer of {missing}" if missing else "")
    if missing:
        return
    if each.rivals:
        names = ", ".join(each.rivals)
        out.record = replace(out.record, parked_since=conditions.wall_s)
        _enter(out, CLOSING, "cutover-closing", f"new requests are parked, and {names} is drained", conditions)
    else:
        _enter(out, GAP, "cutover-gap", "requests are parked", conditions)
    _proceed(out, each, conditions)


def _enter(out: Outcome, phase: str, code: str, text: str, conditions: Conditions) -> None:
    out.record = replace(out.record, phase=phase, since=conditions.wall_s, detail="")
    out.notes.append((code, f"cut-over to {out.record.to}: {text}", "info"))


def _proceed(out: Outcome, each: Waiting | None, conditions: Conditions) -> None:
    """Continues a committed cut-over."""
    if out.record.phase == OPENING:
        if each is None:
            _revert(out, f"no instance of {out.record.to} is left", each, conditions)
        return
    why = _failure(out, each, conditions)
    if why or each is None:
        _revert(out, why, each, conditions)
        return
    if out.record.phase == CLOSING:
        if not each.room:
            out.record = replace(out.record, detail=f"{', '.join(out.record.closes)} is still closing")
            return
        _enter(out, GAP, "cutover-gap", "nothing of the old version is in flight", conditions)
    if _evaluate(out, out.record.to, each, each.gap(), conditions, hooks=each.joined):
        _enter(out, OPENING, "cutover-opened", "it opens", conditions)
        out.record = replace(out.record, number=out.record.number + 1)
        return
    candidate = out.record.candidates[out.record.to]
    failed = _first_closed(candidate, each.gap())
    if failed is not None and candidate.gates[failed.name].failed:
        _revert(out, f"gate {failed.name}: {candidate.gates[failed.name].reason}", each, conditions)


def _failure(out: Outcome, each: Waiting | None, conditions: Conditions) -> str:
    """Why the cut-over cannot go on. "": it can."""
    record = out.record
    if each is None or not each.facts.healthy:
        return f"no instance of {record.to} is healthy any more"
    if not record.closes or record.tried:
        return ""
    if conditions.lost:
        return f"{', '.join(conditions.lost)} is out of touch"
    left = REVERT_AFTER * conditions.park_s - conditions.parked_s
    if left <= 0:
        return f"it took longer than {REVERT_AFTER:.0%} of the {conditions.park_s:g} s for which requests are parked"
    out.wakes.append(left)
    return ""


def _revert(out: Outcome, why: str, each: Waiting | None, conditions: Conditions) -> None:
    record = out.record
    if record.tried:
        detail = f"{why}; a hook that cannot be undone was called, so the old version stays closed"
        if record.detail != detail:
            out.record = replace(record, detail=detail)
            out.notes.append(("cutover-stuck", f"cut-over to {record.to}: {detail}", "error"))
        return
    candidate = record.candidates.get(record.to)
    candidates = dict(record.candidates)
    if candidate is not None:
        again = {gate.name for gate in each.gap()} if each is not None else set[str]()
        gates = {name: state for name, state in candidate.gates.items() if name not in again or state.failed}
        candidates[record.to] = replace(candidate, promoted="", gates=gates)
    out.record = replace(
        record,
        phase=REVERTED,
        number=record.number + 1,
        attempt=record.attempt + 1,
        since=conditions.wall_s,
        detail=why,
        candidates=candidates,
    )
    out.notes.append(("cutover-reverted", f"cut-over to {record.to} was reverted: {why}", "error"))


# ---------------------------------------------------------------------- what a version waits for


def _judge(out: Outcome, version: str, each: Waiting, clear: bool, conditions: Conditions) -> None:
    """Sets whether the version may open, and the reason if not."""
    record = out.record
    candidate = record.candidates[version]
    reason: Reason = Nothing()
    if record.to == version and record.phase == OPENING:
        if not _all_know(out, each):
            reason = CuttingOver(version, "waiting for an answer of all other roots")
    elif _is_reverted(record, version, each):
        reason = WasReverted(record.detail)
    elif _is_dormant(candidate, each):
        rivals = ", ".join(each.rivals)
        reason = NotReady(f"it was active before {rivals}, and replaces it only when it is promoted")
    elif not clear:
        reason = _gated(candidate, each, each.before())
    elif _needs_cut_over(each, conditions) or (record.to == version and record.committed):
        reason = _cut_over(record, version, each, candidate, conditions)
    out.record = out.record.with_candidate(version, replace(candidate, reason=reason))


def _all_know(out: Outcome, each: Waiting) -> bool:
    """Whether all other roots have acknowledged the record as it is now."""
    return each.alone or (each.joined and out.record.number == out.number)


def _cut_over(
    record: OpeningRecord, version: str, each: Waiting, candidate: Candidate, conditions: Conditions
) -> Reason:
    if record.to == version and record.phase == GAP:
        return _gated(candidate, each, each.gap())
    if record.to == version:
        return CuttingOver(version, record.detail or "the others are closing")
    if record.committed:
        return CuttingOver(record.to, "it goes first")
    if conditions.flip and each.rivals and conditions.park_s <= 0:
        return NotReady("a flip needs parked requests, and park.timeout_s is 0")
    if conditions.flip and each.rivals and not _is_ready(candidate, each):
        needed = max(each.floor, 1)
        return NotReady(f"a capacity of {each.facts.able} is ready, and a flip needs {needed} (max_unavailable)")
    return NotReady("the versions that it replaces still serve" if each.rivals else "no instance is healthy yet")


def _first_closed(candidate: Candidate, gates: tuple[Gate, ...]) -> Gate | None:
    return next((gate for gate in gates if candidate.gates.get(gate.name, GateState()).state != OPEN), None)


def _gated(candidate: Candidate, each: Waiting, gates: tuple[Gate, ...]) -> Reason:
    gate = _first_closed(candidate, gates)
    if gate is None:
        return NotReady("its gates are being evaluated")
    state = candidate.gates.get(gate.name, GateState())
    if isinstance(gate, Hook) and state.state == WAITING and each.missing:
        return Gated(gate.name, f"waiting for an answer of {', '.join(each.missing)}")
    text = {RUNNING: f"the hook is running, attempt {state.attempts}", REFUSED: f"refused: {state.reason}"}
    return Gated(gate.name, text.get(state.state) or state.reason or "not open yet")


# ---------------------------------------------------------------------- orders


def promoted(record: OpeningRecord, version: str, by: str, no_gates: str) -> OpeningRecord:
    """An operator promotes the version: failed gates are evaluated again, and a reverted cut-over is tried again."""
    candidate = record.candidates[version]
    gates = {name: state for name, state in candidate.gates.items() if not state.failed}
    candidate = replace(candidate, promoted=by, no_gates=no_gates or candidate.no_gates, gates=gates)
    record = replace(record.with_candidate(version, candidate), number=record.number + 1, attempt=record.attempt + 1)
    if record.phase == REVERTED and record.to == version:
        record = replace(record, phase=NONE, to="", closes=(), detail="")
    return record
