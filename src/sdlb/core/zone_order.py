"""The order of a rollout: zone by zone, and spread within a zone (`model.rollout.position`).

The zones and their sizes are fixed when the rollout begins to roll. The cursor stops at the end of a zone until no node in it is left
to update, or to take back while the rollout is undone. A node that no longer reports is not left, so a zone that is lost does not stop
the rollout.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdlb.model.rollout import UNDOING, RoleReport, Rollout, Zone


def zones_of(report: RoleReport) -> tuple[Zone, ...]:
    """In their order. Empty: all nodes are in one zone."""
    found = tuple(Zone(name, nodes) for name, nodes in sorted(report.zones.items()) if nodes > 0)
    return found if len(found) > 1 else ()


def left(rollout: Rollout, report: RoleReport) -> Mapping[str, int]:
    """Zone -> nodes in it that still have their turn."""
    return report.back if rollout.state == UNDOING else report.left


def limited(rollout: Rollout, report: RoleReport, cursor: float) -> float:
    """The cursor without the zones whose turn it is not."""
    total, end = sum(zone.nodes for zone in rollout.zones), 0
    for zone in rollout.zones:
        end += zone.nodes
        if left(rollout, report).get(zone.name):
            return min(cursor, end / total)
    return cursor


def at_end(rollout: Rollout, report: RoleReport) -> bool:
    """Whether the cursor is at the end of a zone, and no node up to there is left. Then the next zone has its turn, even if the first
    ones had fewer nodes than `RolloutSpec.first`."""
    total, end = sum(zone.nodes for zone in rollout.zones), 0
    for zone in rollout.zones:
        end += zone.nodes
        if left(rollout, report).get(zone.name):
            return False
        if end / total >= rollout.cursor:
            return end / total == rollout.cursor
    return False


def current_zone(rollout: Rollout, report: RoleReport) -> str:
    """The zone whose turn it is. "": there are no zones, or none has a node left."""
    return next((zone.name for zone in rollout.zones if left(rollout, report).get(zone.name)), "")
