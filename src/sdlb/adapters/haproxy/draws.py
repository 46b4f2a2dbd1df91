"""Shares of versions as draws: each request draws a number of four digits, and a map tells the version by its first digits.

10,000 draws are exact to 0.01 %. A span of draws is written as the few decimal prefixes that cover exactly it, so one
look-up of the longest prefix finds the version. As in the native engine (crate routes, route.rs), the lowest tier with a
ready version that has free capacity gets the requests, else the lowest tier with a ready version. Which version is full is
sampled each second, so the part that overflows to the next tier moves in steps (`spilled`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from sdlb.core.effects import Pick

DIGITS = 4
DRAWS = 10**DIGITS
SPILL_STEPS = 10


class Ready(Struct, frozen=True):
    """A version that can serve. `capacity`: of its ready endpoints. `full`: no endpoint has free capacity."""

    capacity: int
    full: bool = False


def spans(weights: Sequence[int]) -> list[range]:
    """One span of draws for each weight, by the largest remainders. A weight above 0 gets at least one draw."""
    total = sum(weights)
    if not total:
        return [range(0)] * len(weights)
    counts = [weight * DRAWS // total for weight in weights]
    by_rest = sorted(range(len(weights)), key=lambda at: (-(weights[at] * DRAWS % total), at))
    for at in by_rest[: DRAWS - sum(counts)]:
        counts[at] += 1
    for at, weight in enumerate(weights):
        if weight and not counts[at]:
            counts[counts.index(max(counts))] -= 1
            counts[at] = 1
    starts = [sum(counts[:at]) for at in range(len(counts))]
    return [range(start, start + count) for start, count in zip(starts, counts, strict=True)]


def prefixes(span: range) -> list[str]:
    """The fewest decimal prefixes that cover exactly the span; "" covers all."""
    found: list[str] = []
    at = span.start
    while at < span.stop:
        size, digits = 1, DIGITS
        while digits and at % (size * 10) == 0 and at + size * 10 <= span.stop:
            size, digits = size * 10, digits - 1
        found.append(f"{at // size:0{digits}d}" if digits else "")
        at += size
    return found


def weights(picks: Iterable[Pick], ready: Mapping[str, Ready], spilled: int = 0) -> dict[str, int]:
    """Version -> weight, of those that get requests now. `spilled`: how many of `SPILL_STEPS` parts go to the next tier."""
    tiers: dict[int, list[Pick]] = {}
    for pick in picks:
        if pick.version in ready:
            tiers.setdefault(pick.tier, []).append(pick)
    ranked = [_in_tier(tiers[tier], ready) for tier in sorted(tiers)]
    if not ranked:
        return {}
    first = ranked[0]
    spare = next((tier for tier in ranked[1:] if not all(ready[version].full for version in tier)), None)
    if spare is None or not spilled:
        return first
    kept = {version: (SPILL_STEPS - spilled) * weight * sum(spare.values()) for version, weight in first.items()}
    moved = {version: spilled * weight * sum(first.values()) for version, weight in spare.items()}
    return {version: weight for version, weight in (kept | moved).items() if weight}


def is_full(picks: Iterable[Pick], ready: Mapping[str, Ready]) -> bool:
    """Whether the lowest tier with a ready version has no free capacity."""
    known = [pick for pick in picks if pick.version in ready]
    lowest = min((pick.tier for pick in known), default=0)
    return bool(known) and all(ready[pick.version].full for pick in known if pick.tier == lowest)


def _in_tier(tier: Sequence[Pick], ready: Mapping[str, Ready]) -> dict[str, int]:
    room = any(not ready[pick.version].full for pick in tier)
    # A version with a share of its own keeps it when it is full, because shares are exact.
    taken = [pick for pick in tier if pick.weight or not room or not ready[pick.version].full]
    return {pick.version: pick.weight or max(1, ready[pick.version].capacity) for pick in taken}
