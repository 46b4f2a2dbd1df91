"""Which root may take nodes out, when several own a rollout: one after the other, so that `nodes_out_max` holds for all rollouts.

A rollout *claims* its turn while it takes nodes out or wants to, and its target says since when (`Rollout.turn_s`). Every root knows all
targets, so all agree on the order: the oldest claim is first, and rollouts of other owners wait until it is given up. A new claim is
later than all that its owner knows. Two claims that are made at the same time meet while their owners wait for the target to arrive.

A lost owner keeps its claim until its rollout is adopted. Rollouts of one owner need no turns: it counts their nodes together.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sdlb.core.rollout_rules import Owned
from sdlb.model.rollout import DONE, READY, ROLLING, UNDOING, UPDATED, RoleReport, Rollout

UNHEARD = "other roots have to know of it first"
STEP_S = 0.001
"""By which a claim is later than the last one, if the clock of its root is behind."""


def claimed(rollout: Rollout, owned: Owned, report: RoleReport, others: Sequence[Rollout], wall_s: float) -> Rollout:
    """With its claim as it should be. `others`: rollouts in progress of other owners."""
    if rollout.ended:
        return rollout
    if owned.slots or _wants(rollout, report):
        latest = max((each.turn_s for each in others), default=0.0)
        return rollout if rollout.turn_s else replace(rollout, turn_s=max(wall_s, latest + STEP_S))
    return replace(rollout, turn_s=0.0)


def _wants(rollout: Rollout, report: RoleReport) -> bool:
    if rollout.state == ROLLING:
        over = report.count(rollout.id, READY, UPDATED) + report.failures(rollout)
        return not rollout.step_since and over < report.nodes
    return rollout.state == UNDOING


def objection(rollout: Rollout, others: Sequence[Rollout], heard_s: float, wall_s: float) -> str:
    """Why the rollout may not take capacity out now, because of those of other owners. `heard_s`: time until every root knows a
    claim."""
    mine = (rollout.turn_s or float("inf"), rollout.id)
    first = min((each for each in others if each.turn_s), key=lambda each: (each.turn_s, each.id), default=None)
    if first is not None and (first.turn_s, first.id) < mine:
        return f"{first.id} of {first.owner} takes nodes out first; if {first.owner} is lost, adopt {first.id}"
    if others and rollout.state != DONE and wall_s < mine[0] + heard_s:
        return UNHEARD
    return ""
