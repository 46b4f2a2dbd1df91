"""The analysis of canaries, on simulated requests: how often it is wrong, what it finds, and that no figures upset it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import reduce
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core import analysis as canary
from sdlb.core import likelihood
from sdlb.core.analysis import FAIL, INCONCLUSIVE, PASS, RUNNING, Evidence, Verdict
from sdlb.core.likelihood import Comparison
from sdlb.model.canary import HEAD_BUCKETS_S, Analysis, Figures, Query

LIMIT = 300.0
"""Three metrics, 1 %."""
QUIET = Figures(1000, 5, 0, {40: 850, 60: 130, 80: 20})


def _binomial(random: Random, n: int, p: float) -> int:
    """Exact by the gaps between hits while these are few; the normal approximation otherwise."""
    if p <= 0 or n <= 0:
        return 0
    if p >= 1:
        return n
    if n * p > 40:
        return min(n, max(0, round(random.gauss(n * p, math.sqrt(n * p * (1 - p))))))
    hits, at, log_miss = 0, 0, math.log1p(-p)
    while (at := at + int(math.log(1 - random.random()) / log_miss) + 1) <= n:
        hits += 1
    return hits


def _clustered(random: Random, p: float, correlation: float) -> float:
    """The rate of one block. With a correlation, counts of blocks are beta-binomial."""
    size = 1 / correlation - 1 if correlation else 0.0
    return random.betavariate(p * size, (1 - p) * size) if correlation else p


def _step(
    seed: int,
    ratio: float,
    *,
    p: float = 0.005,
    new: int = 100,
    old: int = 1900,
    blocks: int = 60,
    correlation: float = 0.0,
) -> int:
    """The block at which a comparison fails, from 1; 0: it does not."""
    random, comparison = Random(seed), Comparison()
    for block in range(1, blocks + 1):
        rates = _clustered(random, p, correlation), min(1.0, ratio * _clustered(random, p, correlation))
        bad = _binomial(random, old, rates[0]), _binomial(random, new, rates[1])
        comparison = likelihood.add(comparison, 1.25, (bad[0], old), (bad[1], new))
        if likelihood.enough_bad(comparison) and likelihood.log_evidence(comparison) >= math.log(LIMIT):
            return block
    return 0


def _part_found(steps: int, find: Callable[[int], int]) -> float:
    return sum(find(seed) > 0 for seed in range(steps)) / steps


def test_three_times_the_errors_are_found_in_99_of_100_steps_of_ten_minutes() -> None:
    """0.5 % before, 200 requests/s, 5 % of them to the new version."""
    assert _part_found(1000, lambda seed: _step(seed, 3.0)) >= 0.99


def test_twice_the_slow_answers_are_found_in_nine_of_ten_steps_of_two_minutes() -> None:
    """1 % before, 1,000 requests/s, 25 % of them to the new version. Of twelve blocks, the first is warm-up, and the last two come late."""
    assert _part_found(300, lambda seed: _step(seed, 2.0, p=0.01, new=2500, old=7500, blocks=9)) >= 0.87


@pytest.mark.parametrize(("ratio", "correlation"), [(1.0, 0.01), (1.25, 0.01), (1.25, 0.05)])
def test_clustered_errors_fail_at_most_one_of_100_good_versions(ratio: float, correlation: float) -> None:
    """Each version has its own bursts. With 0.01, the old version's counts have 20 times the variance of independent errors; with 0.05,
    96 times: most blocks have none, some a fifth."""
    assert _part_found(1000, lambda seed: _step(seed, ratio, correlation=correlation)) <= 0.01


def _compared_with_itself(seed: int, correlation: float) -> str:
    """The result of a ten-minute step over all metrics: errors, p90, p99 and a query. With a correlation, errors and slow answers come in
    bursts, and each version has its own."""
    random, analysis = Random(seed), Analysis(queries=(Query("q", "m", bad="b", total="t"),))
    evidence = canary.begin(analysis, _figures(random, 20_000, 0.005))
    for _ in range(60):
        old, new = (_figures(random, requests, 0.005, correlation) for requests in (1900, 100))
        evidence = canary.add(evidence, old, new)
        counts = [_binomial(random, requests, _clustered(random, 0.01, correlation)) for requests in (1900, 100)]
        evidence = canary.add_query(evidence, "q", (counts[0], 1900.0, counts[1], 100.0))
        if canary.result_of(evidence, analysis, over=False) == FAIL:
            return FAIL
    return canary.result_of(evidence, analysis, over=True)


@pytest.mark.parametrize("correlation", [0.0, 0.01])
def test_a_version_compared_with_itself_fails_at_most_once_in_100_times_over_all_metrics_together(
    correlation: float,
) -> None:
    """1,000 comparisons, half of them with errors and slow answers in clusters."""
    results = [_compared_with_itself(seed, correlation) for seed in range(500)]
    assert results.count(FAIL) <= 5 and results.count(PASS) >= 495


def test_three_times_the_errors_are_found_with_all_metrics_and_a_step_with_none_passes_with_what_it_could_have_found() -> (
    None
):
    analysis = Analysis(requests_min=1000)
    random, found = Random(7), list[str]()
    for ratio in (1.0, 3.0):
        evidence = canary.begin(analysis, _figures(random, 20_000, 0.005))
        assert (evidence.p90, evidence.p99) == (50, 60)
        for _ in range(60):
            evidence = canary.add(evidence, _figures(random, 1900, 0.005), _figures(random, 100, ratio * 0.005))
        verdict = canary.verdict(evidence, analysis, over=True)
        found.append(verdict.result)
        numbers = verdict.numbers["errors"]
        assert set(verdict.numbers) == {"errors", "p90", "p99"} and numbers.limit == pytest.approx(LIMIT)
        assert numbers.detectable is not None and 2 < numbers.detectable < 3.5
        assert verdict.requests == 6000 and numbers.old_rate == pytest.approx(0.005, rel=0.2)
        if ratio > 1:
            assert verdict.metric == "errors" and numbers.evidence >= LIMIT
        else:
            assert "would have detected x2." in verdict.text
    assert found == [PASS, FAIL]


def test_what_is_named_detectable_is_found_in_nine_of_ten_cases() -> None:
    comparison = Comparison()
    for block in range(60):
        comparison = likelihood.add(comparison, 1.25, (9 + block % 2, 1900), (block % 2, 100))
    rate = likelihood.detectable(comparison, 1.25, LIMIT)
    assert rate is not None and 2 < rate / 0.005 < 3.2
    assert 0.85 <= _part_found(300, lambda seed: _step(seed, rate / 0.005)) < 0.99


def test_a_version_that_turns_bad_after_an_hour_is_found_as_soon_as_a_new_one() -> None:
    """A test with one beginning would first have to undo the evidence of an hour."""
    random, comparison = Random(3), Comparison()

    def block(ratio: float, share: float) -> None:
        nonlocal comparison
        new = int(2000 * share)
        bad = _binomial(random, 2000 - new, 0.005), _binomial(random, new, 0.005 * ratio)
        comparison = likelihood.add(comparison, 1.25, (bad[0], 2000 - new), (bad[1], new))

    for _ in range(360):
        block(1.0, 0.05)
    comparison = likelihood.next_step(comparison)
    for _ in range(20):
        block(3.0, 0.25)
    assert likelihood.log_evidence(comparison) >= math.log(LIMIT)


def test_more_answers_above_the_old_p99_fail() -> None:
    analysis = Analysis()
    evidence = canary.begin(analysis, QUIET)
    for _ in range(30):
        slow = Figures(1000, 5, 0, {40: 850, 60: 100, 80: 20, 100: 30})
        evidence = canary.add(evidence, replace(QUIET, head={40: 850, 60: 130, 80: 10, 100: 10}), slow)
    verdict = canary.verdict(evidence, analysis, over=False)
    assert (verdict.result, verdict.metric) == (FAIL, "p99")
    assert verdict.text.startswith(f"slower than {canary.bound_s(80):.3g} s (p99) 3 % against 1 %: evidence ")


def test_thresholds_come_from_the_first_blocks_if_nothing_is_known_before_and_then_stay() -> None:
    evidence = canary.begin(Analysis(), Figures())
    assert (evidence.p90, evidence.p99) == (-1, -1)
    for _ in range(3):
        evidence = canary.add(evidence, replace(QUIET, head={40: 400, 70: 100}), QUIET)
    assert (evidence.p90, evidence.p99) == (70, 70)
    assert evidence.metrics["p90"].old_total == 500.0, "the blocks that the thresholds are from are not compared"
    evidence = canary.add(evidence, replace(QUIET, head={90: 5000}), QUIET)
    assert evidence.p90 == 70


def test_a_query_is_compared_like_errors() -> None:
    analysis = Analysis(queries=(Query("lost", "m", bad="b", total="t"), Query("depth", "m", value="v", max_value=3.0)))
    evidence = canary.begin(analysis, QUIET)
    for _ in range(30):
        evidence = canary.add(evidence, QUIET, QUIET)
        evidence = canary.add_query(evidence, "lost", (2.5, 1000.0, 20.0, 1000.0))
        evidence = canary.add_query(evidence, "unknown", (0.0, 1.0, 1.0, 1.0))
    verdict = canary.verdict(evidence, analysis, over=False)
    assert (verdict.result, verdict.metric) == (FAIL, "query lost")
    assert verdict.numbers["query lost"].limit == pytest.approx(400.0), "alpha is divided among four"


def test_client_errors_are_reported_alone() -> None:
    analysis = Analysis()
    evidence = canary.begin(analysis, QUIET)
    for _ in range(30):
        evidence = canary.add(evidence, QUIET, replace(QUIET, refused=900))
    verdict = canary.verdict(evidence, analysis, over=True)
    assert verdict.result == PASS and verdict.refused == (0.0, 0.9)


def test_the_guard_takes_half_of_twenty_early_ones_included() -> None:
    assert canary.guard(Figures(asked=20, errors=10))
    assert canary.guard(Figures(early_asked=20, early_errors=10))
    assert canary.guard(Figures(asked=10, errors=0, early_asked=10, early_errors=10))
    assert not canary.guard(Figures(asked=19, errors=19))
    assert not canary.guard(Figures(asked=21, errors=10))


def test_no_data_is_never_a_pass() -> None:
    analysis = Analysis(requests_min=5000)

    def over(evidence: Evidence) -> tuple[str, str]:
        found = canary.verdict(evidence, analysis, over=True)
        return found.result, found.text

    began = canary.begin(analysis, QUIET)
    assert over(began) == (INCONCLUSIVE, "no block is complete yet")
    four, ten = (reduce(lambda e, _: canary.add(e, QUIET, QUIET), range(n), began) for n in (4, 10))
    assert over(four) == (INCONCLUSIVE, "4,000 of at least 5,000 requests to the new version")
    assert canary.verdict(four, analysis, over=False).result == RUNNING
    assert over(ten)[0] == PASS
    assert over(canary.missed(ten))[0] == PASS, "one of eleven is less than a tenth"
    assert over(canary.missed(canary.missed(ten))) == (INCONCLUSIVE, "2 of 12 blocks are missing")
    assert over(canary.next_step(ten))[0] == INCONCLUSIVE, "each step needs its own requests"
    alone = reduce(lambda e, _: canary.add(e, Figures(), QUIET), range(10), began)
    assert over(alone) == (INCONCLUSIVE, "no requests to the old version to compare with")


def test_an_old_version_without_errors() -> None:
    analysis = Analysis()
    clean = replace(QUIET, errors=0)
    good = reduce(lambda e, _: canary.add(e, clean, clean), range(30), canary.begin(analysis, clean))
    verdict = canary.verdict(good, analysis, over=True)
    assert verdict.result == PASS
    assert "errors 0 % against 0 %: evidence 0.75 of 300; would have detected 0." in verdict.text
    bad = reduce(lambda e, _: canary.add(e, clean, QUIET), range(20), canary.begin(analysis, clean))
    assert canary.verdict(bad, analysis, over=False).result == FAIL


def test_evidence_survives_a_restart_of_its_owner() -> None:
    evidence = canary.begin(Analysis(), Figures(head={3: 5}))
    for again in range(2):
        assert msgspec.convert(msgspec.to_builtins(evidence), Evidence) == evidence
        assert msgspec.convert(json.loads(msgspec.json.encode(evidence)), Evidence, strict=False) == evidence
        if not again:
            evidence = canary.next_step(canary.missed(canary.add(evidence, QUIET, QUIET)))
    assert len(msgspec.json.encode(evidence)) < 8000


def test_buckets_have_the_bounds_of_the_engine() -> None:
    assert [canary.bound_s(bucket) for bucket in range(len(HEAD_BUCKETS_S))] == list(HEAD_BUCKETS_S)
    assert len(HEAD_BUCKETS_S) == canary.HEAD_BUCKET_LAST, "and one more for all above"


def test_the_mixture_is_the_integral_over_ratios() -> None:
    """Independently: probabilities of how the bad ones of each block fall on the versions, and a sum over 4,000 ratios."""
    random, blocks = Random(11), list[tuple[int, int, int, int]]()
    for _ in range(40):
        old, new = random.randint(500, 900), random.randint(100, 300)
        blocks.append((_binomial(random, old, 0.02), old, _binomial(random, new, 0.03), new))
    comparison = reduce(lambda c, b: likelihood.add(c, 1.25, b[:2], b[2:]), blocks, Comparison())
    by = likelihood.dispersion(comparison)

    def log_probability(ratio: float) -> float:
        total = 0.0
        for old_bad, old, new_bad, new in blocks:
            part = ratio * new / (ratio * new + old)
            total += new_bad * math.log(part) + old_bad * math.log(1 - part)
        return total

    ends = likelihood.LOG_RATIO_MIN, likelihood.LOG_RATIO_MAX
    ratios = [ends[0] + (ends[1] - ends[0]) * (k + 0.5) / 4000 for k in range(4000)]
    density = [u * math.exp(-u / likelihood.LOG_RATIO_SCALE) for u in ratios]
    likely = [math.exp((log_probability(1.25 * math.exp(u)) - log_probability(1.25)) / by) for u in ratios]
    mean = sum(d * x for d, x in zip(density, likely, strict=True)) / sum(density)
    assert likelihood.log_evidence(comparison) == pytest.approx(math.log(0.75 * mean), abs=0.05)


def test_no_block_has_a_mean_above_one_for_a_tolerated_version() -> None:
    """The heart of the test, exactly: the sum over all outcomes of two binomials, for ratios at the bound and below."""

    def probability(n: int, k: int, p: float) -> float:
        return math.comb(n, k) * p**k * (1 - p) ** (n - k)

    for old, new, p, ratio in ((12, 5, 0.2, 1.25), (5, 12, 0.6, 1.25), (12, 5, 0.2, 1.0), (8, 8, 0.01, 0.5)):
        means = [0.0] * likelihood.RATIOS
        for x in range(old + 1):
            for y in range(new + 1):
                chance = probability(old, x, p) * probability(new, y, min(1.0, ratio * p))
                logs = likelihood.add(Comparison(), 1.25, (x, old), (y, new)).whole
                means = [mean + chance * math.exp(log) for mean, log in zip(means, logs, strict=True)]
        assert max(means) <= 1 + 1e-12


def test_dispersion_is_that_of_the_old_version_and_never_below_one() -> None:
    def measured(counts: list[int], new: int = 100) -> float:
        return likelihood.dispersion(
            reduce(lambda c, n: likelihood.add(c, 1.25, (n, 1900), (0, new)), counts, Comparison())
        )

    assert measured([]) == likelihood.DISPERSION_PRIOR
    assert measured([10] * 500) == 1.0
    assert measured([0, 20] * 500) == pytest.approx(10, rel=0.05)
    assert measured([0, 20] * 2) > 3, "four blocks are enough to be careful"
    assert measured([0, 20] * 500, new=100_000) == pytest.approx(19, rel=0.05), "a burst of a larger version is larger"


COUNT = st.one_of(st.integers(0, 30), st.sampled_from([-1, 10**6, 10**15, 10**400]))
HEAD = st.dictionaries(st.one_of(st.integers(0, 130), st.sampled_from([-5, 10**9])), COUNT, max_size=4)
FIGURES = st.builds(Figures, COUNT, COUNT, COUNT, HEAD, COUNT, COUNT, COUNT)
NUMBER = st.one_of(st.floats(), st.floats(0, 100))
BLOCK = st.tuples(FIGURES, FIGURES, st.dictionaries(st.sampled_from(["q", "r"]), st.tuples(*[NUMBER] * 4)))
ANALYSIS = Analysis(queries=(Query("q", "m", bad="b", total="t"),), requests_min=0)


def _sound(verdict: Verdict) -> None:
    assert verdict.result in (RUNNING, PASS, FAIL, INCONCLUSIVE) and verdict.text
    for numbers in verdict.numbers.values():
        assert all(math.isfinite(each) for each in msgspec.to_builtins(numbers).values() if each is not None)
        assert 0 <= numbers.old_rate <= 1 and 0 <= numbers.new_rate <= 1 and numbers.dispersion >= 1
    json.dumps(msgspec.to_builtins(verdict), allow_nan=False)


@given(st.lists(BLOCK, max_size=12), st.booleans())
def test_no_figures_upset_the_analysis(
    blocks: list[tuple[Figures, Figures, dict[str, canary.Counts]]], known: bool
) -> None:
    evidence = canary.begin(ANALYSIS, QUIET if known else Figures())
    for number, block in enumerate(blocks):
        evidence = canary.add(evidence, *block[:2])
        for name, counts in block[2].items():
            evidence = canary.add_query(evidence, name, counts)
        if number % 5 == 4:
            evidence = canary.next_step(canary.missed(evidence))
        canary.guard(block[1])
        running, over = (canary.verdict(evidence, ANALYSIS, over=each) for each in (False, True))
        _sound(running)
        _sound(over)
        assert (running.result == FAIL) == (over.result == FAIL), "time neither makes nor heals a failure"
        assert running.result in (RUNNING, FAIL) and over.result != RUNNING
    json.dumps(msgspec.to_builtins(evidence), allow_nan=False)


@given(st.lists(st.integers(0, 200), max_size=12), st.integers(0, 3))
def test_nothing_fails_without_five_bad_ones_in_three_blocks(bad: list[int], old_bad: int) -> None:
    evidence = canary.begin(ANALYSIS, QUIET)
    for each in bad:
        evidence = canary.add(evidence, replace(QUIET, errors=old_bad), replace(QUIET, errors=each))
    if canary.verdict(evidence, ANALYSIS, over=False).result == FAIL:
        assert sum(bad) >= 5 and sum(each > 0 for each in bad) >= 3


@pytest.mark.parametrize(
    ("bad", "enough"), [([900, 900], False), ([1, 1, 2], False), ([0, 5, 0], False), ([1, 3, 0, 1], True)]
)
def test_enough_is_five_bad_ones_in_three_blocks(bad: list[int], enough: bool) -> None:
    comparison = reduce(lambda c, n: likelihood.add(c, 1.25, (0, 1000), (n, 1000)), bad, Comparison())
    assert likelihood.enough_bad(comparison) == enough


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3)), min_size=3, max_size=20))
def test_more_bad_answers_of_the_new_version_are_never_less_evidence(blocks: list[tuple[int, int, int]]) -> None:
    """The third number: how many more are bad."""

    def after(more: int) -> Comparison:
        return reduce(
            lambda c, b: likelihood.add(c, 1.25, (b[0], 1000), (b[1] + more * b[2], 500)), blocks, Comparison()
        )

    few, many = after(0), after(1)
    assert likelihood.log_evidence(few) <= likelihood.log_evidence(many) + 1e-9
    assert likelihood.enough_bad(few) <= likelihood.enough_bad(many)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60)), min_size=1, max_size=12),
    st.integers(0, 3),
    st.floats(0.1, 20),
)
def test_evidence_reaches_what_it_is(blocks: list[tuple[int, int]], restarts: int, least: float) -> None:
    comparison = reduce(lambda c, b: likelihood.add(c, 1.25, (b[0], 1000), (b[1], 500)), blocks, Comparison())
    for _ in range(restarts):
        comparison = likelihood.restart(comparison)
    assert likelihood.reaches(comparison, least) == (likelihood.log_evidence(comparison) >= least)


def _figures(random: Random, requests: int, rate: float, correlation: float = 0.0) -> Figures:
    slow, slowest = (_binomial(random, requests, _clustered(random, part, correlation)) for part in (0.08, 0.008))
    middle = _binomial(random, requests, 0.08)
    head = {40: requests - middle - slow - slowest, 50: middle, 60: slow, 70: slowest}
    return Figures(requests, _binomial(random, requests, _clustered(random, rate, correlation)), 0, head)
