"""Evaluates the gates of one waiting version. Pure functions: gates, states and facts in, states out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from sdlb.core.opening import OPEN, REFUSED, RUNNING, TIMED_OUT, WAITING, GateState
from sdlb.model.calendar import Calendar
from sdlb.model.gate import DAY_S, DAYS, Approval, DependsOn, Gate, Hook, MinReady, Soak, Window

WINDOW_CHECK_S = 60.0
"""A closed window is checked this often, because the clocks may change before it opens."""


class Facts(Struct, frozen=True):
    """What the gates of a version are evaluated against.

    `instances`, `healthy`, `able`: registered and healthy instances, capacity of the healthy ones. `baseline`: the capacity of
    the versions that it replaces. `healthy_s`: time for which all its instances have been healthy; None: they are not.
    `active`: service -> its active versions that match a declaration.
    """

    wall_s: float
    instances: int
    healthy: int
    able: int
    baseline: int
    healthy_s: float | None
    active: Callable[[str, str], bool]
    calendar: Calendar


class Evaluated(Struct, frozen=True):
    """`states`: by gate name. `hook`: a hook that is due now. `wake_s`: time after which something may change by itself."""

    states: dict[str, GateState]
    hook: Hook | None = None
    wake_s: float | None = None

    def failed(self) -> bool:
        return any(state.failed for state in self.states.values())


def evaluate(gates: tuple[Gate, ...], states: Mapping[str, GateState], facts: Facts, *, hooks: bool) -> Evaluated:
    """Evaluates gates in their order. A hook is due when all gates before it are open. `hooks` False: none is due.

    A gate that was refused or timed out keeps its state until an operator promotes the version.
    """
    found: dict[str, GateState] = {}
    due: Hook | None = None
    wakes: list[float] = []
    before = True  # all gates before this one are open
    for gate in gates:
        state = states.get(gate.name)
        if state is None:
            state = GateState(WAITING, facts.wall_s)
        if isinstance(gate, Hook):
            if before and hooks and state.state == WAITING:
                due = due or gate
            elif not before and not state.attempts:
                state = replace(state, since=facts.wall_s, reason="the gates before it are not open")
        elif not state.failed and not (gate.latched and state.state == OPEN):
            state = _level(gate, state, facts, wakes)
        state = _timeout(gate, state, facts, wakes)
        if state.failed and gate is due:
            due = None
        found[gate.name] = state
        before = before and state.state == OPEN
    return Evaluated(found, due, min(wakes, default=None))


def _level(gate: Gate, state: GateState, facts: Facts, wakes: list[float]) -> GateState:
    holds, reason = _holds(gate, state, facts, wakes)
    if holds == (state.state == OPEN):
        return state if holds or state.reason == reason else replace(state, reason=reason)
    return replace(state, state=OPEN if holds else WAITING, since=facts.wall_s, reason=reason)


def _holds(gate: Gate, state: GateState, facts: Facts, wakes: list[float]) -> tuple[bool, str]:
    match gate:
        case MinReady():
            least = -(-facts.baseline * round(gate.percent * 100) // 10_000)
            if facts.healthy < max(1, gate.instances):
                return False, f"{facts.healthy} of {max(1, gate.instances)} instances are healthy"
            if facts.able < least:
                return False, f"a capacity of {facts.able} is ready, of {least} ({gate.percent:g}% of {facts.baseline})"
            return True, ""
        case Soak():
            if facts.healthy_s is None:
                return False, f"{facts.healthy} of {facts.instances} instances are healthy"
            if facts.healthy_s < gate.healthy_s:
                wakes.append(gate.healthy_s - facts.healthy_s)
                return False, f"its instances have to be healthy for {gate.healthy_s:g} s"
            return True, ""
        case Window():
            weekday, second = facts.calendar(gate.zone, facts.wall_s)
            if gate.holds(weekday, second):
                return True, ""
            wakes.append(min(WINDOW_CHECK_S, (gate.start_s - second) % DAY_S or WINDOW_CHECK_S))
            hours = f"{_clock(gate.start_s)} to {_clock(gate.end_s)}"
            return False, f"the window is {_days(gate.days)} {hours} ({gate.zone})"
        case DependsOn():
            holds = facts.active(gate.service, gate.version)
            return holds, "" if holds else f"no version {gate.version} of {gate.service} is active"
        case Approval():
            missing = gate.count - len(set(state.by) & set(gate.by))
            names = [name for name in gate.by if name not in state.by]
            return missing <= 0, "" if missing <= 0 else f"waits for {_approvals(missing)} by {_either(names)}"
        case _:
            return False, f"this release does not know gates of the kind {gate.kind}"


def _timeout(gate: Gate, state: GateState, facts: Facts, wakes: list[float]) -> GateState:
    if not gate.timeout_s or state.state not in (WAITING, RUNNING):
        return state
    left = state.since + gate.timeout_s - facts.wall_s
    if left > 0:
        wakes.append(left)
        return state
    why = f" ({state.reason})" if state.reason else ""
    return replace(
        state, state=TIMED_OUT, since=facts.wall_s, reason=f"it was not open after {gate.timeout_s:g} s{why}"
    )


def approved(gate: Approval, state: GateState, by: str, wall_s: float) -> GateState:
    names = state.by if by in state.by else (*state.by, by)
    return replace(state, by=names, since=wall_s if len(names) >= gate.count else state.since)


def answered(state: GateState, outcome: str, detail: str, wall_s: float) -> GateState:
    """The state of a hook after an attempt. "later" and "failed" are retried until its timeout."""
    match outcome:
        case "yes":
            return replace(state, state=OPEN, since=wall_s, reason=detail)
        case "no":
            return replace(state, state=REFUSED, since=wall_s, reason=detail)
        case _:
            return replace(state, state=WAITING, reason=detail)


def _approvals(count: int) -> str:
    return "an approval" if count == 1 else f"{count} approvals"


def _either(names: list[str]) -> str:
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second % 3600 // 60:02}"


def _days(days: tuple[int, ...]) -> str:
    return "every day" if len(days) == 7 else ", ".join(DAYS[day] for day in days)
