"""Computes from a policy which version gets which share of the new requests at an entry."""

from __future__ import annotations

from collections.abc import Mapping

from sdlb.core.effects import Pick
from sdlb.model.policy import Policy
from sdlb.model.version import sort_key

WEIGHT_OF_ALL = 10_000


def picks(policy: Policy, capacity: Mapping[str, int]) -> tuple[Pick, ...]:
    """The picks of a route. `capacity`: version -> ready capacity, of the versions that may get new requests.

    "even": one tier, by capacity. "higher", "lower": one tier for each version, the preferred one first. "share": the given
    percentages; other versions get the rest, by capacity. A share of 0 is a second tier, used if no other version is ready.
    """
    versions = sorted(capacity, key=lambda v: sort_key(v, policy.compatibility.scheme))
    if policy.priority == "higher":
        return tuple(Pick(version, tier, 0) for tier, version in enumerate(reversed(versions)))
    if policy.priority == "lower":
        return tuple(Pick(version, tier, 0) for tier, version in enumerate(versions))
    if policy.priority == "share":
        return _shares(policy, versions, capacity)
    return tuple(Pick(version, 0, 0) for version in versions)


def _shares(policy: Policy, versions: list[str], capacity: Mapping[str, int]) -> tuple[Pick, ...]:
    named = {v: round(policy.shares[v] * WEIGHT_OF_ALL / 100) for v in versions if v in policy.shares}
    others = [v for v in versions if v not in named]
    rest = max(0, WEIGHT_OF_ALL - sum(named.values()))
    total = sum(max(1, capacity[v]) for v in others)
    result: list[Pick] = []
    for version in versions:
        weight = named[version] if version in named else rest * max(1, capacity[version]) // total
        result.append(Pick(version, 0, weight) if weight else Pick(version, 1, 0))
    return tuple(result)


def percentages(picks: tuple[Pick, ...], capacity: Mapping[str, int]) -> dict[str, float]:
    """Version -> percentage of new requests while no version is at capacity, by `Pick.tier` and `weight` as in the engine."""
    ready = [pick for pick in picks if capacity.get(pick.version, 0) > 0]
    tier = min((pick.tier for pick in ready), default=0)
    weights = {pick.version: pick.weight or capacity[pick.version] for pick in ready if pick.tier == tier}
    total = sum(weights.values())
    return {version: 100.0 * weight / total for version, weight in weights.items()}
