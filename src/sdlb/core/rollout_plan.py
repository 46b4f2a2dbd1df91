"""What a rollout would do, as far as it is known beforehand: batches, the lowest capacity, the expected gap, and what is in its way."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from msgspec import Struct

from sdlb.core.canary_steps import objections
from sdlb.core.zone_order import zones_of
from sdlb.model.canary import Analysis
from sdlb.model.policy import Policy
from sdlb.model.rollout import RoleReport, RolloutSpec

CUT_S = 1.0
"""Expected from the stop of the last old instance to the first request of a new one that waits; the simulator measures less."""
REPLACE_S = 5.0
"""The same if the new one is started only then: a program takes some seconds. The simulator measures 1 to 3 s."""


class Change(Struct, frozen=True):
    """`before` "": the service has no version yet."""

    service: str
    before: str
    to: str
    spec: RolloutSpec
    incompatible: bool


class Known(Struct, frozen=True):
    """What the node file of the root `name` has: `sources` of metrics, and `hooks`."""

    name: str = "this root"
    sources: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


def plan(
    change: Change, report: RoleReport, baseline: int, floor: int, policy: Policy, known: Known
) -> dict[str, object]:
    """`baseline`, `floor`: capacity of the service, and what has to stay of it. `known`: at the root that would own the rollout."""
    spec, beside = change.spec, _is_beside(change, report)
    share = -(-baseline // max(1, report.nodes))
    parallel = max(1, (baseline - floor) // share) if share else max(1, report.nodes)
    gap_s, lowest = 0.0, baseline - (0 if beside else min(baseline, parallel * share))
    if change.before and not beside and change.incompatible:
        gap_s, lowest = CUT_S if report.nodes > 1 else REPLACE_S, 0
    elif change.before and not beside and baseline and share >= baseline:  # a sole instance
        gap_s, lowest = REPLACE_S, 0
    gap_max_s = gap_s + spec.drain_s if gap_s else 0.0
    problems: list[str] = []
    if not report.nodes:
        problems.append(f"no node runs {change.service}: its node files have no [role.ROLE.{change.service}]")
    if change.before and not beside and change.incompatible:
        problems += _need_both(policy)
    elif change.before and not beside and any(gate.at == "before" and gate.applies == "every" for gate in policy.gates):
        problems.append(
            "gates before a version turns active need both versions side by side; add --side-by-side always"
        )
    if spec.step and change.incompatible:
        problems.append(f"{change.to} cannot serve beside {change.before}, so no step can be reached; remove step")
    elif spec.step and report.nodes:
        problems += objections(spec.step, report.nodes)
    if spec.analysis is not None:
        timeless = next((number for number, step in enumerate(spec.step, 1) if not step.for_s), 0)
        if timeless:
            problems.append(f'step {timeless} has no time in which it could be analysed; add for = "10m"')
        problems += _unknown_names(spec.analysis, known)
    if gap_s and not spec.accept_gap:
        problems.append(
            f"the capacity would fall to {lowest} of {baseline} (floor {floor}) for about {gap_s:g} s, at most {gap_max_s:g} s; "
            "accept that with --accept-gap"
        )
    return {
        "service": change.service,
        "before": change.before,
        "to": change.to,
        "incompatible": change.incompatible,
        "side_by_side": beside,
        "nodes": report.nodes,
        "zones": [{"zone": each.name, "nodes": each.nodes} for each in zones_of(report)],
        "batches": 1 if beside else -(-report.nodes // parallel),
        "lowest": lowest,
        "baseline": baseline,
        "floor": floor,
        "gap_s": gap_s,
        "gap_max_s": gap_max_s,
        "problems": problems,
    }


def _unknown_names(analysis: Analysis, known: Known) -> list[str]:
    """What the analysis needs and the root does not have."""
    problems = [
        f"query {query.name} asks {query.source}, and {_missing(known, 'source', query.source, known.sources)}"
        for query in analysis.queries
        if query.source not in known.sources
    ]
    if analysis.hook and ":" not in analysis.hook and analysis.hook not in known.hooks:
        missing = _missing(known, "hook", analysis.hook, known.hooks)
        problems.append(f"the analysis asks the hook {analysis.hook}, and {missing}")
    return problems


def _missing(known: Known, kind: str, name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, 1)
    do = f"did you mean {near[0]!r}?" if near else "add it and send control SIGHUP"
    return f"the node file of {known.name} has no [{kind}.{name}]; {do}"


def _is_beside(change: Change, report: RoleReport) -> bool:
    mode = change.spec.side_by_side
    return not report.alone and (mode == "always" or (change.incompatible and mode == "incompatible"))


def _need_both(policy: Policy) -> list[str]:
    """What a policy requires that is not possible unless both versions run at the same time."""
    problems: list[str] = []
    if policy.opening.cut_over == "flip":
        problems.append('a flip needs both versions side by side: allow it in the role, or set cut_over = "stopped"')
    if any(gate.at == "before" for gate in policy.gates):
        problems.append("gates before the cut-over need both versions side by side")
    return problems
