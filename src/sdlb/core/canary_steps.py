"""The steps of a canary as pure functions: how many nodes have the new version, which share of requests it gets, and for how long.

A step is *reached* when its nodes have the new version. It is over `for_s` later; with an analysis, only if that has passed. While
the analysis cannot tell, the step goes on up to three times as long, and then the rollout pauses: no data is never a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from sdlb.core.analysis import FAIL, PASS
from sdlb.model.canary import Step
from sdlb.model.rollout import HALTED, PAUSED, UPDATED, RoleReport, Rollout

PROLONGED = 3


class Canary(Struct, frozen=True):
    """What the owner knows of the new version. `result`, `why`: of its analysis; PASS if there is none. `lost`: it had capacity in
    this step, and has none now."""

    result: str = PASS
    why: str = ""
    lost: bool = False


def current(rollout: Rollout) -> Step | None:
    """None: there are no steps, or they are over."""
    steps = rollout.spec.step
    return steps[rollout.at_step] if rollout.at_step < len(steps) else None


def nodes_of(step: Step, nodes: int) -> int:
    """At least one."""
    wanted = -(-nodes * int(step.nodes[:-1]) // 100) if step.nodes.endswith("%") else int(step.nodes)
    return min(max(1, wanted), max(1, nodes))


def updated(owned_updated: int, rollout: Rollout, report: RoleReport) -> int:
    """Nodes that have the new version. The report may be late, and an owner that adopted the rollout has not counted itself."""
    return max(owned_updated, report.count(rollout.id, UPDATED))


def limit_objection(rollout: Rollout, taken: int, nodes: int) -> str:
    """Why no more nodes are updated in this step. `taken`: that have the new version or a slot."""
    step = current(rollout)
    if step is None or taken < nodes_of(step, nodes):
        return ""
    return f"step {rollout.at_step + 1} of {len(rollout.spec.step)} has {nodes_of(step, nodes)} of {nodes} nodes"


def objections(steps: Sequence[Step], nodes: int) -> list[str]:
    """Steps that cannot be reached, each with what to do."""
    found: list[str] = []
    for number, step in enumerate(steps, 1):
        if not step.nodes.endswith("%") and int(step.nodes) > nodes:
            found.append(f"step {number} wants {step.nodes} nodes, and {nodes} run the service")
            continue
        part = 100 * nodes_of(step, nodes) / max(1, nodes)
        if step.share < 100 and step.share > part:
            found.append(
                f"step {number} wants {step.share:g} % of the requests on {nodes_of(step, nodes)} of {nodes} nodes, "
                f"which can have at most {part:.3g} %; give it more nodes or a smaller share"
            )
    return found


def begun(rollout: Rollout, at_step: int) -> Rollout:
    """At the beginning of this step."""
    steps = rollout.spec.step
    share = steps[at_step].share if at_step < len(steps) else 100.0
    return replace(rollout, at_step=at_step, step_since=0.0, share=share, detail="")


def without_steps(rollout: Rollout) -> Rollout:
    """With those left skipped."""
    return begun(rollout, len(rollout.spec.step)) if rollout.spec.step else rollout


def reached_text(before: Rollout, after: Rollout) -> str:
    """What the rollout has reached in its steps. "": nothing new."""
    steps, step = len(after.spec.step), current(after)
    if step is not None and after.step_since and not before.step_since:
        return f"has reached step {after.at_step + 1} of {steps}, {step.share:g} % for {step.for_s:g} s"
    if after.at_step != before.at_step and after.at_step == steps:
        return f"has passed all of its {steps} steps"
    return ""


def stepped(rollout: Rollout, slots: int, done: int, report: RoleReport, canary: Canary, wall_s: float) -> Rollout:
    """The rollout after what this step decides. The same: the step goes on. `slots`: open ones; `done`: nodes that have the new
    version."""
    step = current(rollout)
    if step is None:
        return rollout
    if canary.lost:
        why = f"no instance of {rollout.to} is left in step {rollout.at_step + 1}"
        return replace(rollout, state=HALTED, share=0.0, detail=why)
    if canary.result == FAIL:
        return replace(rollout, state=HALTED, share=0.0, detail=canary.why)
    able = max(1, report.nodes - report.failures(rollout))
    if slots or done < min(nodes_of(step, report.nodes), able):
        return replace(rollout, step_since=0.0) if rollout.step_since else rollout
    if not rollout.step_since:
        return replace(rollout, step_since=wall_s)
    passed_s = wall_s - rollout.step_since
    if passed_s < step.for_s:
        return rollout
    if canary.result == PASS:
        return begun(rollout, rollout.at_step + 1)
    if passed_s >= PROLONGED * step.for_s:
        why = canary.why or "the analysis has no result"
        return replace(rollout, state=PAUSED, detail=f"{why}; 'resume' repeats the step, 'promote' goes on without it")
    return rollout
