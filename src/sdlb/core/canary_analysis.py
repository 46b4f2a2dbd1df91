"""The analysis of a canary at the owner of its rollout: which blocks count, and what they say.

A block is complete when the one after it is over too: by then all hosts have reported it. A version most of whose requests fail is
found with the first report about it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.core import analysis, canary_queries
from sdlb.core.analysis import ERRORS, FAIL, INCONCLUSIVE, PASS, QUERY, RUNNING, Evidence, Verdict
from sdlb.core.canary_hook import HookState
from sdlb.core.canary_queries import QueryState
from sdlb.core.canary_steps import Canary, current
from sdlb.model.canary import Figures, block_of
from sdlb.model.rollout import RoleReport, Rollout

LATE_BLOCKS = 2
HOOK = "hook"
"""The metric of a verdict that the hook has decided."""
MISSED_MAX = 1000
"""Blocks that are counted as missing after a long absence of the owner: more would make no difference."""


class AnalysisState(Struct, frozen=True):
    """`block`: the last one in `evidence`. `since`: the first that counts. `step`: of the rollout, of which `evidence` counts the
    requests. `bad`: figures of a block in which most requests failed. `queries`: by name, in this step. `asked`: the Unix time for which
    they were last asked. `hook`: its answers in this step."""

    evidence: Evidence
    since: int
    block: int
    step: int = 0
    bad: Figures | None = None
    queries: Mapping[str, QueryState] = field(default_factory=dict[str, QueryState])
    asked: float = 0.0
    hook: HookState = HookState()


def advanced(known: AnalysisState | None, rollout: Rollout, report: RoleReport, wall_s: float) -> AnalysisState | None:
    """With the blocks that are complete now. None: the rollout has no analysis, or its steps are over."""
    spec, now = rollout.spec.analysis, block_of(wall_s)
    if spec is None or current(rollout) is None:
        return None
    if known is None or known.block > now:  # or the clock was set back
        evidence = analysis.begin(spec, Figures())
        known = AnalysisState(evidence, now, now, rollout.at_step)  # hosts do not know all of the block that goes on
    if known.step != rollout.at_step:
        evidence = analysis.next_step(known.evidence)
        known = replace(known, evidence=evidence, step=rollout.at_step, queries={}, asked=0.0, hook=HookState())
    return _guarded(_with_blocks(known, rollout, report, now - LATE_BLOCKS), rollout, report)


def _with_blocks(known: AnalysisState, rollout: Rollout, report: RoleReport, last: int) -> AnalysisState:
    evidence, first = known.evidence, max(known.block + 1, last - MISSED_MAX)
    for number in range(first, last + 1):
        figures = report.blocks.get(number)
        if figures:
            old, new = figures.get(rollout.before, Figures()), figures.get(rollout.to, Figures())
            evidence = analysis.add(evidence, old, new)
        else:
            evidence = analysis.missed(evidence)
    return replace(known, evidence=evidence, block=max(known.block, last))


def _guarded(known: AnalysisState, rollout: Rollout, report: RoleReport) -> AnalysisState:
    if known.bad is not None:
        return known
    blocks = [figures for number, figures in sorted(report.blocks.items()) if number >= known.since]
    found = (figures[rollout.to] for figures in blocks if rollout.to in figures)
    return replace(known, bad=next((each for each in found if analysis.guard(each)), None))


def verdict(known: AnalysisState, rollout: Rollout, wall_s: float) -> Verdict:
    found, spec = without_hook(known, rollout, wall_s), rollout.spec.analysis
    assert spec is not None
    if found.result == FAIL or not spec.hook:
        return found
    if known.hook.no:
        return replace(found, result=FAIL, metric=HOOK, text=f"the hook refused: {known.hook.no}")
    if found.result == PASS and not known.hook.yes:
        why = f": {known.hook.why}" if known.hook.why else ""
        return replace(found, result=INCONCLUSIVE, metric=HOOK, text=f"the hook has not agreed{why}")
    return found


def without_hook(known: AnalysisState, rollout: Rollout, wall_s: float) -> Verdict:
    """What figures and queries say."""
    spec = rollout.spec.analysis
    assert spec is not None
    over = _is_over(rollout, wall_s)
    found = analysis.verdict(known.evidence, spec, over=over)
    values = {name: state.value for name, state in known.queries.items() if state.value is not None}
    found = replace(found, values=values)
    if known.bad is None:
        return _with_queries(found, known, rollout) if over and found.result != FAIL else found
    errors, asked = known.bad.errors + known.bad.early_errors, known.bad.asked + known.bad.early_asked
    return replace(found, result=FAIL, metric=ERRORS, text=f"{errors:,} of {asked:,} requests to {rollout.to} failed")


def passed(known: AnalysisState, rollout: Rollout, wall_s: float) -> bool:
    """Whether the step is over, and all but the hook has passed. Costs little before its end."""
    return _is_over(rollout, wall_s) and without_hook(known, rollout, wall_s).result == PASS


def _with_queries(found: Verdict, known: AnalysisState, rollout: Rollout) -> Verdict:
    """At the end of the step: with values beyond their bounds, and with queries that have no data."""
    spec, states, over_s = rollout.spec.analysis, dict(known.queries), _over_s(rollout)
    assert spec is not None
    name, text = canary_queries.broken_bound(spec, states, over_s)
    if name:
        return replace(found, result=FAIL, metric=QUERY + name, text=text)
    if found.result == PASS and (lack := canary_queries.lack(spec, states, over_s)):
        return replace(found, result=INCONCLUSIVE, metric="", text=lack)
    return found


def canary(known: AnalysisState | None, rollout: Rollout, wall_s: float, *, lost: bool) -> Canary:
    spec = rollout.spec.analysis
    if known is None or spec is None:
        return Canary(lost=lost)
    over = _is_over(rollout, wall_s)
    if known.bad is None and not known.hook.no and analysis.result_of(known.evidence, spec, over=over) == RUNNING:
        return Canary(RUNNING, lost=lost)
    found = verdict(known, rollout, wall_s)
    return Canary(found.result, found.text, lost)


def result_text(known: AnalysisState | None, before: Rollout, after: Rollout, wall_s: float) -> tuple[str, str]:
    """Text and level of the event about a step that is over, or was stopped. ("", ""): none is, or it had no result."""
    if known is None or current(before) is None or (after.at_step, after.state) == (before.at_step, before.state):
        return "", ""
    found = verdict(known, before, wall_s)
    if found.result == RUNNING:
        return "", ""
    text = f"step {before.at_step + 1} of {len(before.spec.step)}: {found.result}: {found.text}"
    return text, "error" if found.result == FAIL else "info"


def counts(known: AnalysisState) -> dict[str, str]:
    """Of requests and errors of both versions since the rollout began, for events."""
    errors = known.evidence.metrics[ERRORS]
    named = {
        "requests": errors.new_total,
        "errors": errors.new_bad,
        "requests_old": errors.old_total,
        "errors_old": errors.old_bad,
    }
    return {name: f"{count:.0f}" for name, count in named.items()}


def _is_over(rollout: Rollout, wall_s: float) -> bool:
    """The time of the current step is."""
    return bool(rollout.step_since) and wall_s >= _over_s(rollout)


def _over_s(rollout: Rollout) -> float:
    """The Unix time at which it is over, once it has been reached."""
    step = current(rollout)
    assert step is not None
    return rollout.step_since + step.for_s
