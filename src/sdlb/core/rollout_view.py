"""Reads of rollouts and releases at a root, as plain values for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from sdlb.core.canary_analysis import verdict
from sdlb.core.canary_steps import current
from sdlb.core.rollout_rules import missing_capacity
from sdlb.core.zone_order import current_zone, left
from sdlb.model.rollout import (
    DRAINING,
    HOLDING,
    PREPARED,
    QUEUED,
    READY,
    ROLLING,
    STARTING,
    STOPPING,
    UNDOING,
    UPDATED,
    VERIFYING,
    RoleReport,
    Rollout,
    Target,
    past,
)

if TYPE_CHECKING:
    from sdlb.core.rollout_rules import Capacity, HeldBack, Owned
    from sdlb.core.rollouts import Rollouts

OUT = (DRAINING, STOPPING, STARTING, VERIFYING)


def rollout_view(rollouts: Rollouts, target: Target, report: RoleReport, wall_s: float) -> dict[str, Any] | None:
    """The last rollout of a service. At another root than its owner, the counts are those that it knows."""
    rollout = target.rollout
    if rollout is None:
        return None
    owned, now = rollouts.owned(target.service), rollouts.capacity(target.service, rollout)
    return {
        **_summary(rollouts, target, rollout),
        "service": target.service,
        "settled": target.settled,
        "owner": rollout.owner,
        "owner_here": rollouts.owns(rollout),
        "term": rollout.term,
        "detail": rollouts.detail(rollout, target.service),
        "incompatible": rollout.incompatible,
        "spec": msgspec.to_builtins(rollout.spec),
        "nodes": _nodes(rollout, report),
        "capacity": {"ready": now.left, "baseline": now.baseline, "floor": now.floor},
        "step": _step(rollout, wall_s),
        "analysis": _analysis(owned, rollout, wall_s),
        "slots": _slots(owned, report, wall_s),
        "failed": {**report.failed, **owned.failed},
        "next": _next(rollout, owned, report, now, rollouts.held(target.service)),
        "zones": [
            {"zone": each.name, "nodes": each.nodes, "left": left(rollout, report).get(each.name, 0)}
            for each in rollout.zones
        ],
        "history": [_summary(rollouts, target, each) for each in past(target)],
    }


def role_view(service: str, target: Target | None, report: RoleReport) -> dict[str, Any]:
    rollout = target.rollout if target is not None else None
    return {
        "service": service,
        "version": target.settled if target is not None else "",
        "rollout": rollout.id if rollout is not None else "",
        "state": rollout.state if rollout is not None else "",
        "to": rollout.to if rollout is not None else "",
        "nodes": report.nodes,
        "ready": report.ready,
        "waiting": dict(report.waiting),
    }


def _summary(rollouts: Rollouts, target: Target, rollout: Rollout) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "state": rollout.state,
        "before": rollout.before,
        "to": rollout.to,
        "by": rollout.by,
        "started": rollout.started_s,
        "ended": rollout.ended_s,
        "undoes": rollout.undoes,
        "digest": _digest(target, rollout.to),
        "joint": rollouts.joint.view(rollout),
    }


def _digest(target: Target, version: str) -> str:
    """Of the only artifact of the release, or of all of them, by platform."""
    artifacts: Any = target.releases.get(version, {}).get("artifact", {})
    found = {platform: str(each.get("sha256", "")) for platform, each in dict(artifacts).items()}
    return (
        next(iter(found.values())) if len(set(found.values())) == 1 else ", ".join(f"{p} {d}" for p, d in found.items())
    )


def _nodes(rollout: Rollout, report: RoleReport) -> dict[str, int]:
    def count(*phases: str) -> int:
        return report.count(rollout.id, *phases)

    done, out, failed = count(UPDATED), count(*HOLDING), report.failures(rollout)
    return {
        "all": report.nodes or rollout.nodes,
        "done": done,
        "out": out,
        "queued": count(QUEUED),
        "ready": count(READY),
        "failed": failed,
        "prepared": count(PREPARED, QUEUED, READY, UPDATED, *HOLDING),
        "waiting": max(0, (report.nodes or rollout.nodes) - done - out - failed - count(READY)),
    }


def _step(rollout: Rollout, wall_s: float) -> dict[str, Any]:
    """`number` 0: the rollout has no steps, or they are over."""
    step = current(rollout)
    return {
        "number": rollout.at_step + 1 if step is not None else 0,
        "of": len(rollout.spec.step),
        "nodes": step.nodes if step is not None else "",
        "for_s": step.for_s if step is not None else 0.0,
        "since": rollout.step_since if step is not None else 0.0,
        "left_s": max(0.0, round(rollout.step_since + step.for_s - wall_s, 1)) if step and rollout.step_since else 0.0,
        "share": None if rollout.ended else rollout.share,
    }


def _analysis(owned: Owned, rollout: Rollout, wall_s: float) -> dict[str, Any] | None:
    """Of the current step. None: there is none, or another root owns the rollout."""
    if owned.analysis is None or owned.rollout != rollout.id or current(rollout) is None:
        return None
    found, evidence = verdict(owned.analysis, rollout, wall_s), owned.analysis.evidence
    return {
        "result": found.result,
        "metric": found.metric,
        "text": found.text,
        "requests": found.requests,
        "requests_old": int(evidence.step_old_requests),
        "refused": found.refused[1],
        "refused_old": found.refused[0],
        "metrics": {name: msgspec.to_builtins(each) for name, each in found.numbers.items()},
    }


def _slots(owned: Owned, report: RoleReport, wall_s: float) -> list[dict[str, Any]]:
    phases = {slot.node: slot for slot in report.slots}
    return [
        {
            "node": node,
            "phase": phases[node].phase if node in phases else "granted",
            "share": held.share,
            "since_s": round(max(0.0, wall_s - held.since), 1),
            "detail": phases[node].detail if node in phases else "",
        }
        for node, held in sorted(owned.slots.items())
    ]


def _next(rollout: Rollout, owned: Owned, report: RoleReport, now: Capacity, held: HeldBack) -> str:
    if rollout.state not in (ROLLING, UNDOING) or not report.count(rollout.id, QUEUED, PREPARED):
        return ""
    if rollout.state == ROLLING and current(rollout) is not None and rollout.step_since:
        steps, number = len(rollout.spec.step), rollout.at_step + 1
        after = f"step {number + 1}" if number < steps else "the other nodes"
        return f"{after}, when step {number} of {steps} is over"
    zone = current_zone(rollout, report)
    another = (
        f"another node in zone {zone}" if zone else "another node without a zone" if rollout.zones else "another node"
    )
    if owned.slots:
        return f"{another}, when {', '.join(sorted(owned.slots)[:3])} is verified"
    if missing := missing_capacity(now, held.share):
        return f"{another}, when {missing} more of capacity is ready (now {now.left}, floor {now.floor})"
    return f"{another}, but not yet: {held.why}" if held.why and not held.short else f"{another}, when it asks"
