"""A sequential likelihood-ratio test of two proportions: is the new version's rate of bad answers above `tolerate` times the old one's?

For one ratio r above the tolerated ratio t, a block with `w` requests to the new version, `x` of them bad, and `v` to the old one, `y`
of them bad, multiplies the evidence by g^x / (1 + (g - 1) q)^(x + y), where g = r / t and q = t w / (t w + v). If the rate of the old
version is p and that of the new one is at most t p, the mean of this factor is at most 1, for binomial counts too: with
c = 1 / (1 + (g - 1) q), it is at most exp(p (t w (c g - 1) + v (c - 1))), and the exponent is 0. So p may differ from block to block,
and by Ville's inequality the evidence ever reaches 1 / alpha with a probability of at most alpha: the test is valid at every look.

The evidence is a mixture over ratios, which is as valid (Robbins 1970; Lindon and Malek 2022; Turner, Ly and Grünwald 2024). Half of
the weight is on all blocks since the beginning, half on those since the last restart: a version that turns bad late is found as
soon as one that was bad from the start. The restarts share that half, so there may be any number of them.

Errors come in clusters, and counts of clusters vary more. Therefore the exponent is divided by the dispersion: the variance of
the old version's counts between blocks, over that of independent requests (Pearson's statistic). And one block can raise the evidence
only a little, which keeps the test valid: a burst in one or two blocks does not decide.

What hits both versions at the same time does no harm, however long. A burst of one version alone over many blocks is taken for its
fault: no count of 10 minutes can separate the two.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

RATIOS = 24
"""Ratios in the mixture. Their logarithms are a geometric sequence: small differences need much data, which tells ratios apart."""
LOG_RATIO_MIN = 0.03
LOG_RATIO_MAX = 5.0
LOG_RATIO_SCALE = 0.6
"""Most of the weight is on 1.3 to 5 times the tolerated ratio."""
COUNT_MAX = 1e12
"""In one block. Larger numbers are wrong; this bound keeps sums and squares exact enough and finite."""
DISPERSION_PRIOR = 2.0
"""Taken for granted until the old version's blocks show another dispersion."""
PRIOR_BLOCKS = 8.0
"""How many blocks the prior counts for."""
BAD_MIN = 5
BAD_BLOCKS_MIN = 3
GAIN_MAX = 1.25
"""By which one block can raise the logarithm of the evidence, after the division. So a failure takes about five blocks."""
SURELY = 1.28
"""Standard deviations: what is detectable is found in nine of ten cases."""
RATIO_MAX: Final = 1000.0

_LOG_RATIOS: Final = tuple(LOG_RATIO_MIN * (LOG_RATIO_MAX / LOG_RATIO_MIN) ** (k / (RATIOS - 1)) for k in range(RATIOS))
_EXCESS: Final = tuple(math.expm1(u) for u in _LOG_RATIOS)
_DENSITY: Final = tuple(u * u * math.exp(-u / LOG_RATIO_SCALE) for u in _LOG_RATIOS)
"""A gamma distribution of log ratios u with shape 2, by the trapezoidal rule in log u."""
_LOG_WEIGHTS: Final = tuple(math.log(d / math.fsum(_DENSITY)) for d in _DENSITY)
_NOTHING: Final = (0.0,) * RATIOS


class Comparison(Struct, frozen=True):
    """One metric of both versions, since the beginning. `blocks`: with requests to the old version. `bad_blocks`: with bad ones
    of the new version. `squares`: sum over blocks of the squared bad ones per request, both of the old version. `whole`, `recent`:
    logarithm of the likelihood ratio for each ratio of the mixture, since the beginning and since the last restart."""

    old_bad: float = 0.0
    old_total: float = 0.0
    new_bad: float = 0.0
    new_total: float = 0.0
    blocks: int = 0
    bad_blocks: int = 0
    squares: float = 0.0
    whole: tuple[float, ...] = _NOTHING
    recent: tuple[float, ...] = _NOTHING
    restarts: int = 0
    before_step: tuple[float, float, float, int] = (0.0, 0.0, 0.0, 0)
    """`old_bad`, `old_total`, `new_total` and `blocks` when the step began."""


def counted(value: float) -> float:
    """What of a reported number is taken: at least 0, finite, never NaN."""
    return float(min(value, COUNT_MAX)) if value > 0 else 0.0


def add(comparison: Comparison, tolerate: float, old: tuple[float, float], new: tuple[float, float]) -> Comparison:
    """One block. `old`, `new`: bad ones and total."""
    old_total, new_total = counted(old[1]), counted(new[1])
    old_bad, new_bad = min(counted(old[0]), old_total), min(counted(new[0]), new_total)
    whole, recent = comparison.whole, comparison.recent
    if old_total and new_total and (old_bad or new_bad):
        most = GAIN_MAX * dispersion(comparison)
        part = tolerate * new_total / (tolerate * new_total + old_total)
        gains = [min(x, most) for x in _gains(old_bad, new_bad, part)]
        whole = tuple(a + b for a, b in zip(whole, gains, strict=True))
        recent = tuple(a + b for a, b in zip(recent, gains, strict=True))
    return replace(
        comparison,
        old_bad=comparison.old_bad + old_bad,
        old_total=comparison.old_total + old_total,
        new_bad=comparison.new_bad + new_bad,
        new_total=comparison.new_total + new_total,
        blocks=comparison.blocks + (old_total > 0),
        bad_blocks=comparison.bad_blocks + (new_bad > 0),
        squares=comparison.squares + (old_bad * old_bad / old_total if old_total else 0.0),
        whole=whole,
        recent=recent,
    )


def _gains(old_bad: float, new_bad: float, part: float) -> list[float]:
    """By ratio. `part`: of the bad ones that the new version has in the mean at the tolerated ratio."""
    bad = old_bad + new_bad
    return [new_bad * u - bad * math.log1p(part * e) for u, e in zip(_LOG_RATIOS, _EXCESS, strict=True)]


def restart(comparison: Comparison) -> Comparison:
    return replace(comparison, recent=_NOTHING, restarts=comparison.restarts + 1)


def next_step(comparison: Comparison) -> Comparison:
    c = comparison
    return replace(restart(c), before_step=(c.old_bad, c.old_total, c.new_total, c.blocks))


def dispersion(comparison: Comparison) -> float:
    """Never below 1. A few blocks, or a few bad ones, say little: then it is near the prior."""
    c = comparison
    measured, weight = 1.0, 0.0
    if c.blocks > 1 and c.old_bad > 0:
        measured = max(0.0, c.squares * c.old_total / c.old_bad - c.old_bad) / (c.blocks - 1)
        mean = c.old_bad / c.blocks
        weight = (c.blocks - 1) * 2 * mean / (2 * mean + 1)  # a Poisson count's share of the variance of the statistic
    between = (PRIOR_BLOCKS * DISPERSION_PRIOR + weight * measured) / (PRIOR_BLOCKS + weight)
    # If bursts hit a whole version, a larger version has a larger dispersion. In the difference of both, at most twice as much.
    larger = max(1.0, 2 * c.new_total / max(c.new_total + c.old_total, 1.0))
    return 1 + max(0.0, between - 1) * larger


def reaches(comparison: Comparison, least: float) -> bool:
    """Whether the logarithm of the evidence is at least this. No mixture is above its largest part, which mostly saves the sum."""
    most = max(max(comparison.whole), max(comparison.recent))
    return most >= least * dispersion(comparison) and log_evidence(comparison) >= least


def log_evidence(comparison: Comparison) -> float:
    by = dispersion(comparison)
    late = _log_share(comparison.restarts)
    return _log_sum(
        [math.log(0.5) + w + x / by for w, x in zip(_LOG_WEIGHTS, comparison.whole, strict=True)]
        + [late + w + x / by for w, x in zip(_LOG_WEIGHTS, comparison.recent, strict=True)]
    )


def _log_share(restarts: int) -> float:
    """The n-th restart has 1 / (n (n + 1)) of a half; all together have the half."""
    return -math.log(2.0 * (restarts + 1) * (restarts + 2))


def _log_sum(logs: list[float]) -> float:
    most = max(logs)
    return most + math.log(math.fsum(math.exp(x - most) for x in logs))


def enough_bad(comparison: Comparison) -> bool:
    """A single burst is not held against a version."""
    return comparison.new_bad >= BAD_MIN and comparison.bad_blocks >= BAD_BLOCKS_MIN


def detectable(comparison: Comparison, tolerate: float, limit: float) -> float | None:
    """The rate of bad answers of the new version that this step would have found in nine of ten cases. None: not even 1."""
    c = comparison
    old_bad, old_total, new_total = (
        c.old_bad - c.before_step[0],
        c.old_total - c.before_step[1],
        c.new_total - c.before_step[2],
    )
    if old_total < 1 or new_total < 1:
        return None
    by = dispersion(c)
    part = tolerate * new_total / (tolerate * new_total + old_total)
    most = GAIN_MAX * by * (c.blocks - c.before_step[3])
    log_share = _log_share(c.restarts) if c.before_step[3] else math.log(0.75)

    def reached(new_bad: float) -> bool:
        gains = _gains(old_bad, new_bad, part)
        logs = [log_share + w + min(x, most) / by for w, x in zip(_LOG_WEIGHTS, gains, strict=True)]
        return new_bad >= BAD_MIN and _log_sum(logs) >= math.log(limit)

    few, many = 0.0, new_total
    if not reached(many):
        return None
    for _ in range(40):
        middle = (few + many) / 2
        few, many = (few, middle) if reached(middle) else (middle, many)
    root = (SURELY * math.sqrt(by) + math.sqrt(SURELY * SURELY * by + 4 * many)) / 2  # mean - SURELY * deviation = many
    rate = root * root / new_total
    return rate if rate <= 1 else None
