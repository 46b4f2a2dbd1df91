"""Compares the new version of a rollout with the old one, from the figures of blocks in which both had requests.

Metrics: errors; answers slower than the old version's p90 and p99, which are frozen before the step; queries with counters of bad
and of all. Each has its own test (likelihood.py); the probability of a false alarm, `alpha`, is divided among them for the whole
rollout. 4xx is reported and never compared: clients cause it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from msgspec import Struct, field
from msgspec.structs import replace

from sdlb.core import likelihood
from sdlb.core.likelihood import Comparison, counted
from sdlb.model.canary import HEAD_BUCKETS_S, Analysis, Figures

RUNNING: Final = "running"
PASS: Final = "pass"
FAIL: Final = "fail"
INCONCLUSIVE: Final = "inconclusive"

ERRORS: Final = "errors"
P90: Final = "p90"
P99: Final = "p99"
QUERY: Final = "query "
"""Before the name of a query, so that it is no other metric's name."""

HEAD_MIN = 1000
"""Answers of the old version from which p90 and p99 are taken: ten of these are slower than p99."""
HEAD_BUCKET_LAST: Final = len(HEAD_BUCKETS_S)
"""Index of the bucket for all above 60 s."""
RECENT_BLOCKS = 60
GUARD_MIN = 20
MISSED_PART = 0.1
"""Of a step's blocks, how many may be missing."""
EVIDENCE_MAX = 1e9

Counts = tuple[float, float, float, float]
"""Bad and total of the old version, bad and total of the new one, in one block."""


class Evidence(Struct, frozen=True):
    """All that is kept of the blocks. `p90`, `p99`: buckets of times to the response head; what is above them is slow. -1: not
    known yet, then `head` collects the old version's answers. `window`: blocks since the last restart of the tests."""

    tolerate: float = 1.25
    metrics: Mapping[str, Comparison] = field(default_factory=dict[str, Comparison])
    p90: int = -1
    p99: int = -1
    head: Mapping[int, int] = field(default_factory=dict[int, int])
    old_refused: float = 0.0
    new_refused: float = 0.0
    old_requests: float = 0.0
    new_requests: float = 0.0
    step_old_requests: float = 0.0
    step_new_requests: float = 0.0
    step_blocks: int = 0
    step_missed: int = 0
    window: int = 0


class Numbers(Struct, frozen=True):
    """One metric, since the rollout began. Fails with `evidence` of `limit`. Rates are parts of 1. `detectable_rate`: of the new version,
    that this step would have found in nine of ten cases; `detectable`: the same as a ratio to the old rate. None: could not have found
    any."""

    evidence: float = 0.0
    limit: float = 0.0
    old_rate: float = 0.0
    new_rate: float = 0.0
    old_requests: float = 0.0
    new_requests: float = 0.0
    old_bad: float = 0.0
    new_bad: float = 0.0
    dispersion: float = 1.0
    detectable: float | None = None
    detectable_rate: float | None = None


class Verdict(Struct, frozen=True):
    """`metric`: the one that `text` is about. `requests`: to the new version since the step began. `refused`: rates of 4xx, old and new.
    `values`: of queries with a bound, by name."""

    result: str
    metric: str = ""
    text: str = ""
    numbers: Mapping[str, Numbers] = field(default_factory=dict[str, Numbers])
    requests: int = 0
    refused: tuple[float, float] = (0.0, 0.0)
    values: Mapping[str, float] = field(default_factory=dict[str, float])


def begin(analysis: Analysis, before: Figures) -> Evidence:
    """`before`: of the old version, before the first step. With too little of it, p90 and p99 are taken from the first blocks."""
    names = [ERRORS, P90, P99, *(QUERY + each.name for each in analysis.queries if each.bad and each.total)]
    return _frozen(
        Evidence(tolerate=analysis.tolerate, metrics={name: Comparison() for name in names}, head=_heads(before))
    )


def add(evidence: Evidence, old: Figures, new: Figures) -> Evidence:
    """One complete block of both versions."""
    if evidence.window >= RECENT_BLOCKS:
        evidence = _restarted(evidence)
    blocks = _blocks(evidence, old, new)
    metrics = {
        name: likelihood.add(metric, evidence.tolerate, blocks[name][:2], blocks[name][2:])
        if name in blocks
        else metric
        for name, metric in evidence.metrics.items()
    }
    head = evidence.head if evidence.p90 >= 0 else _summed(evidence.head, _heads(old))
    asked_old, asked_new = counted(old.asked), counted(new.asked)
    return _frozen(
        replace(
            evidence,
            metrics=metrics,
            head=head,
            old_refused=evidence.old_refused + min(counted(old.refused), asked_old),
            new_refused=evidence.new_refused + min(counted(new.refused), asked_new),
            old_requests=evidence.old_requests + asked_old,
            new_requests=evidence.new_requests + asked_new,
            step_old_requests=evidence.step_old_requests + asked_old,
            step_new_requests=evidence.step_new_requests + asked_new,
            step_blocks=evidence.step_blocks + 1,
            window=evidence.window + 1,
        )
    )


def add_query(evidence: Evidence, name: str, counts: Counts) -> Evidence:
    """What a query has counted of both versions, since it was last added. Unknown names are left out."""
    metric = evidence.metrics.get(QUERY + name)
    if metric is None:
        return evidence
    added = likelihood.add(metric, evidence.tolerate, counts[:2], counts[2:])
    return replace(evidence, metrics={**evidence.metrics, QUERY + name: added})


def missed(evidence: Evidence) -> Evidence:
    """A block of which nothing is known."""
    return replace(evidence, step_missed=evidence.step_missed + 1)


def next_step(evidence: Evidence) -> Evidence:
    """The evidence stays; requests and blocks are counted from 0."""
    metrics = {name: likelihood.next_step(metric) for name, metric in evidence.metrics.items()}
    return replace(
        evidence, metrics=metrics, step_old_requests=0.0, step_new_requests=0.0, step_blocks=0, step_missed=0, window=0
    )


def guard(new: Figures) -> bool:
    """True: half of the requests are bad, which needs no statistics. Also for an incomplete block."""
    asked = counted(new.asked) + counted(new.early_asked)
    return asked >= GUARD_MIN and 2 * (counted(new.errors) + counted(new.early_errors)) >= asked


def result_of(evidence: Evidence, analysis: Analysis, *, over: bool) -> str:
    """As `Verdict.result`, without the numbers, which cost far more. `over`: the step's time is up."""
    if _failed(evidence, analysis):
        return FAIL
    if not over:
        return RUNNING
    return INCONCLUSIVE if _lack(evidence, analysis) else PASS


def verdict(evidence: Evidence, analysis: Analysis, *, over: bool) -> Verdict:
    """`over`: as in `result_of`."""
    limit, result = _limit(evidence, analysis), result_of(evidence, analysis, over=over)
    logs = {name: likelihood.log_evidence(metric) for name, metric in evidence.metrics.items()}
    numbers = {name: _numbers(evidence, name, logs[name], limit) for name in evidence.metrics}
    metric = max(_failed(evidence, analysis) or evidence.metrics, key=lambda name: max(0.0, logs[name]))
    text = _text(evidence, metric, numbers[metric])
    if result == INCONCLUSIVE:
        metric, text = "", _lack(evidence, analysis)
    refused = (
        evidence.old_refused / max(evidence.old_requests, 1.0),
        evidence.new_refused / max(evidence.new_requests, 1.0),
    )
    return Verdict(result, metric, text, numbers, int(evidence.step_new_requests), refused)


def _limit(evidence: Evidence, analysis: Analysis) -> float:
    """The evidence with which a metric fails."""
    return len(evidence.metrics) / analysis.alpha


def _failed(evidence: Evidence, analysis: Analysis) -> list[str]:
    least = math.log(_limit(evidence, analysis))
    return [
        name
        for name, metric in evidence.metrics.items()
        if likelihood.enough_bad(metric) and likelihood.reaches(metric, least)
    ]


def _lack(evidence: Evidence, analysis: Analysis) -> str:
    """Why the step cannot pass, or "". No data is never a pass."""
    blocks = evidence.step_blocks + evidence.step_missed
    if not blocks:
        return "no block is complete yet"
    if evidence.step_missed > MISSED_PART * blocks or not evidence.step_blocks:
        return f"{evidence.step_missed:,} of {blocks:,} blocks are missing"
    if evidence.step_new_requests < max(analysis.requests_min, 1):
        return f"{evidence.step_new_requests:,.0f} of at least {max(analysis.requests_min, 1):,} requests to the new version"
    if not evidence.step_old_requests:
        return "no requests to the old version to compare with"
    return ""


def bound_s(bucket: int) -> float:
    """Upper bound of a bucket of times to the response head, in seconds; of the last one, what it is above."""
    return HEAD_BUCKETS_S[min(bucket, HEAD_BUCKET_LAST - 1)]


def _blocks(evidence: Evidence, old: Figures, new: Figures) -> dict[str, Counts]:
    blocks: dict[str, Counts] = {ERRORS: (old.errors, old.asked, new.errors, new.asked)}
    if evidence.p90 >= 0:
        for name, bucket in ((P90, evidence.p90), (P99, evidence.p99)):
            blocks[name] = (*_slow(_heads(old), bucket), *_slow(_heads(new), bucket))
    return blocks


def _slow(heads: Mapping[int, int], above: int) -> tuple[float, float]:
    return sum(n for bucket, n in heads.items() if bucket > above), sum(heads.values())


def _heads(figures: Figures) -> dict[int, int]:
    heads = dict[int, int]()
    for bucket, count in figures.head.items():
        at = min(max(bucket, 0), HEAD_BUCKET_LAST)
        heads[at] = heads.get(at, 0) + int(counted(count))
    return heads


def _summed(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {bucket: one.get(bucket, 0) + other.get(bucket, 0) for bucket in sorted({*one, *other})}


def _frozen(evidence: Evidence) -> Evidence:
    """With p90 and p99, once there are enough answers for them. The block that completes them is not compared with them."""
    if evidence.p90 >= 0 or sum(evidence.head.values()) < HEAD_MIN:
        return evidence
    return replace(evidence, p90=_quantile(evidence.head, 0.9), p99=_quantile(evidence.head, 0.99), head={})


def _quantile(heads: Mapping[int, int], part: float) -> int:
    """The first bucket with which at least `part` of the answers are counted."""
    needed, counts = part * sum(heads.values()), 0
    for bucket in sorted(heads):
        counts += heads[bucket]
        if counts >= needed:
            return bucket
    return HEAD_BUCKET_LAST


def _restarted(evidence: Evidence) -> Evidence:
    metrics = {name: likelihood.restart(metric) for name, metric in evidence.metrics.items()}
    return replace(evidence, metrics=metrics, window=0)


def _numbers(evidence: Evidence, name: str, log_evidence: float, limit: float) -> Numbers:
    metric = evidence.metrics[name]
    old_rate = metric.old_bad / metric.old_total if metric.old_total else 0.0
    rate = likelihood.detectable(metric, evidence.tolerate, limit)
    return Numbers(
        evidence=math.exp(min(log_evidence, math.log(EVIDENCE_MAX))),
        limit=limit,
        old_rate=old_rate,
        new_rate=metric.new_bad / metric.new_total if metric.new_total else 0.0,
        old_requests=metric.old_total,
        new_requests=metric.new_total,
        old_bad=metric.old_bad,
        new_bad=metric.new_bad,
        dispersion=likelihood.dispersion(metric),
        detectable=rate / old_rate if rate is not None and old_rate else None,
        detectable_rate=rate,
    )


def _text(evidence: Evidence, name: str, numbers: Numbers) -> str:
    """As in `errors 0.48 % against 0.51 %: evidence 0.3 of 300; would have detected x1.6`."""
    what = name
    if name in (P90, P99):
        bound = bound_s(evidence.p90 if name == P90 else evidence.p99)
        what = f"slower than {f'{1000 * bound:.3g} ms' if bound < 1 else f'{bound:.3g} s'} ({name})"
    if numbers.detectable is not None:
        detected = f"would have detected x{_short(numbers.detectable)}"
    elif numbers.detectable_rate is not None:
        detected = f"would have detected {_percent(numbers.detectable_rate)}"
    else:
        detected = "too little to detect anything"
    rates = f"{_percent(numbers.new_rate)} against {_percent(numbers.old_rate)}"
    return f"{what} {rates}: evidence {_short(numbers.evidence)} of {numbers.limit:,.0f}; {detected}"


def _percent(rate: float) -> str:
    return "under 0.01 %" if 0 < rate < 0.0001 else f"{_short(100 * rate)} %"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}" if number >= 0.01 else "0"
