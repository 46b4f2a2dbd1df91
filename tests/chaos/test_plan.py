"""The plan of `make chaos`: everything by the seed, every kind in each round, every tier in time, targets that exist."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from tools.chaos.acts import Acts, method
from tools.chaos.plan import KINDS, LINKS, TIERS, Goal, Step, steps

seeds = st.integers(0, 2**32)
some_kinds = st.lists(st.sampled_from(sorted(KINDS)), min_size=1, unique=True)


def taken(seed: int, count: int) -> list[Step]:
    return list(islice(steps(seed), count))


@given(seeds)
def test_a_seed_decides_everything(seed: int) -> None:
    assert taken(seed, 60) == taken(seed, 60)
    assert taken(seed, 20) == taken(seed, 60)[:20], "a longer run begins as a shorter one"


def test_seeds_differ() -> None:
    assert len({tuple(taken(seed, 20)) for seed in range(50)}) == 50


@given(seeds, some_kinds)
def test_each_round_has_every_kind_once_and_three_rounds_every_tier(seed: int, kinds: list[str]) -> None:
    rounds = list(islice(steps(seed, kinds), 3 * len(kinds)))
    for begin in range(0, len(rounds), len(kinds)):
        assert {step.kind for step in rounds[begin : begin + len(kinds)]} == set(kinds)
    assert {(step.kind, step.tier) for step in rounds} == {(name, tier) for name in kinds for tier in KINDS[name].tiers}
    assert [step.number for step in rounds] == list(range(1, len(rounds) + 1))


@given(seeds)
def test_targets_are_of_their_tier(seed: int) -> None:
    for step in taken(seed, 100):
        kind = KINDS[step.kind]
        if step.tier in LINKS:
            assert len(step.targets) == 2
            assert all(name in names for name, names in zip(step.targets, LINKS[step.tier], strict=True))
        else:
            assert all(name in TIERS[step.tier] for name in step.targets)
            assert len(step.targets) == (1 if step.tier else 0)
        assert (step.duration_s > 0) == kind.lasts
        assert kind.rollout or not step.rollout


@given(seeds)
def test_planned_changes_may_lose_nothing(seed: int) -> None:
    for step in taken(seed, 100):
        if KINDS[step.kind].planned:
            assert step.goal is Goal.NOTHING


def test_only_what_ends_at_an_edge_takes_its_own_connections() -> None:
    by_goal = {step.goal: {other.tier for other in taken(1, 300) if other.goal is step.goal} for step in taken(1, 300)}
    assert by_goal[Goal.ENTRY] == {"edge"}
    assert by_goal[Goal.IN_FLIGHT] == {"rack", "host"}


def test_every_kind_can_be_done() -> None:
    assert all(hasattr(Acts, method(name)) for name in KINDS)
