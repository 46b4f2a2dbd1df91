"""Computes from a policy which version gets which share of the new requests at an entry."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from sdlb.core.effects import Pick
from sdlb.model.policy import Policy
from sdlb.model.rollout import Target
from sdlb.model.version import sort_key

WEIGHT_OF_ALL = 10_000


class Overlay(Struct, frozen=True):
    """The share that a rollout gives its new version, over what the policy says. `share`: percentage of new requests, at most."""

    version: str
    share: float


def overlay(target: Target | None) -> Overlay | None:
    """None: the policy alone decides."""
    active = target.active if target is not None else None
    return None if active is None or active.share is None else Overlay(active.to, active.share)


def picks(policy: Policy, capacity: Mapping[str, int], over: Overlay | None = None) -> tuple[Pick, ...]:
    """The picks of a route. `capacity`: version -> ready capacity, of the versions that may get new requests.

    "even": one tier, by capacity. "higher", "lower": one tier for each version, the preferred one first. "share": the given
    percentages; other versions get the rest, by capacity. A share of 0 is a second tier, used if no other version is ready.
    The version of a rollout gets its share of the first tier, and the policy divides the rest among the others.
    """
    others = {version: each for version, each in capacity.items() if over is None or version != over.version}
    if over is None or over.version not in capacity or not any(others.values()):
        return _by_policy(policy, capacity)
    return _laid_over(over, _by_policy(policy, others), capacity)


def _by_policy(policy: Policy, capacity: Mapping[str, int]) -> tuple[Pick, ...]:
    versions = sorted(capacity, key=lambda v: sort_key(v, policy.compatibility.scheme))
    if policy.priority == "higher":
        return tuple(Pick(version, tier, 0) for tier, version in enumerate(reversed(versions)))
    if policy.priority == "lower":
        return tuple(Pick(version, tier, 0) for tier, version in enumerate(versions))
    if policy.priority == "share":
        return _shares(policy, versions, capacity)
    return tuple(Pick(version, 0, 0) for version in versions)


def _laid_over(over: Overlay, others: tuple[Pick, ...], capacity: Mapping[str, int]) -> tuple[Pick, ...]:
    """The new version never gets more than its part of the capacity. The others keep their proportions, so that a growing share
    moves only clients of theirs to it (engine: weighted rendezvous). Without a share the sessions on the new version end: the
    rollout has taken it back."""
    part = 100.0 * capacity[over.version] / max(1, sum(capacity.values()))
    weight = round(min(over.share, part) * WEIGHT_OF_ALL / 100)
    if not weight:
        last = max(pick.tier for pick in others) + 1
        return (*others, Pick(over.version, last, 0, ends_sessions=not over.share))
    top = min(pick.tier for pick in others if capacity[pick.version])
    first = [pick for pick in others if pick.tier == top]
    whole = sum(pick.weight or max(1, capacity[pick.version]) for pick in first)
    rest = max(1, WEIGHT_OF_ALL - weight)
    scaled = {pick.version: max(1, rest * (pick.weight or max(1, capacity[pick.version])) // whole) for pick in first}
    return (
        *(Pick(pick.version, pick.tier, scaled.get(pick.version, pick.weight)) for pick in others),
        Pick(over.version, top, weight),
    )


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
