"""What a rollout would do, as far as it is known beforehand: batches, the lowest capacity, the expected gap, and what is in its way."""

from __future__ import annotations

from dataclasses import dataclass

from sdlb.model.policy import Policy
from sdlb.model.rollout import RoleReport, RolloutSpec


@dataclass(frozen=True, slots=True)
class Change:
    """`before` "": the service has no version yet."""

    service: str
    before: str
    to: str
    spec: RolloutSpec
    incompatible: bool


def plan(change: Change, report: RoleReport, baseline: int, floor: int, policy: Policy) -> dict[str, object]:
    """`baseline`, `floor`: capacity of the service, and what has to stay of it."""
    spec, beside = change.spec, _is_beside(change, report)
    share = -(-baseline // max(1, report.nodes))
    parallel = max(1, (baseline - floor) // share) if share else max(1, report.nodes)
    gap_s, lowest = 0.0, baseline - (0 if beside else min(baseline, parallel * share))
    if change.before and not beside and change.incompatible:
        gap_s, lowest = spec.drain_s + spec.soak_s, 0
    elif change.before and not beside and baseline and share >= baseline:  # a sole instance
        gap_s, lowest = spec.drain_s, 0
    problems: list[str] = []
    if not report.nodes:
        problems.append(f"no node runs {change.service}: its node files have no [role.ROLE.{change.service}]")
    if change.before and not beside and change.incompatible:
        problems += _need_both(policy)
    if gap_s and not spec.accept_gap:
        problems.append(
            f"the capacity would fall to {lowest} of {baseline} (floor {floor}) for about {gap_s:g} s; "
            "accept that with --accept-gap"
        )
    return {
        "service": change.service,
        "before": change.before,
        "to": change.to,
        "incompatible": change.incompatible,
        "side_by_side": beside,
        "nodes": report.nodes,
        "batches": 1 if beside else -(-report.nodes // parallel),
        "lowest": lowest,
        "baseline": baseline,
        "floor": floor,
        "gap_s": gap_s,
        "problems": problems,
    }


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
