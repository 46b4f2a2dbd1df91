"""From a policy to the engine's picks: every ready version is in them, with the configured shares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.share import WEIGHT_OF_ALL, Overlay, percentages, picks
from sdlb.model.policy import Policy

VERSIONS = ["1.0.0", "1.0.1", "1.0.2", "1.0.10"]
READY = st.dictionaries(st.sampled_from(VERSIONS), st.integers(1, 1000), min_size=1)
PARTS = st.dictionaries(st.sampled_from(VERSIONS), st.integers(0, 25).map(float))


@given(READY, st.sampled_from(["even", "higher", "lower", "share"]), PARTS)
def test_every_ready_version_is_picked_from_once(ready: dict[str, int], priority: str, parts: dict[str, float]) -> None:
    policy = Policy(priority=priority, shares=parts if priority == "share" else {})
    assert sorted(pick.version for pick in picks(policy, ready)) == sorted(ready)


@given(READY, st.sampled_from(["even", "higher", "lower", "share"]), PARTS)
def test_percentages_are_of_the_whole(ready: dict[str, int], priority: str, parts: dict[str, float]) -> None:
    policy = Policy(priority=priority, shares=parts if priority == "share" else {})
    shown = percentages(picks(policy, ready), ready)
    assert sum(shown.values()) == pytest.approx(100.0)


@given(READY)
def test_higher_and_lower_prefer_by_number_not_by_text(ready: dict[str, int]) -> None:
    order = [version for version in VERSIONS if version in ready]
    tiers = {pick.version: pick.tier for pick in picks(Policy(priority="lower"), ready)}
    assert sorted(order, key=tiers.__getitem__) == order
    tiers = {pick.version: pick.tier for pick in picks(Policy(priority="higher"), ready)}
    assert sorted(order, key=tiers.__getitem__) == order[::-1]


@given(READY, PARTS)
def test_a_named_version_gets_its_percentage_and_the_others_the_rest_by_capacity(
    ready: dict[str, int], parts: dict[str, float]
) -> None:
    others = [version for version in ready if version not in parts]
    if not others:
        return
    found = {pick.version: pick for pick in picks(Policy(priority="share", shares=parts), ready)}
    for version in set(parts) & set(ready):
        assert found[version].weight == round(parts[version] * WEIGHT_OF_ALL / 100)
        assert found[version].tier == (0 if parts[version] else 1), (
            "a share of nothing is only used when nothing else is"
        )
    rest = WEIGHT_OF_ALL - sum(found[version].weight for version in set(parts) & set(ready))
    assert 0 <= rest - sum(found[version].weight for version in others) < len(others)


def test_a_share_of_zero_is_all_when_nothing_else_is_ready() -> None:
    policy = Policy(priority="share", shares={"1.0.1": 0.0})
    assert percentages(picks(policy, {"1.0.1": 5}), {"1.0.1": 5}) == {"1.0.1": 100.0}


@given(READY, st.sampled_from(["even", "higher", "lower"]), st.floats(0, 100))
def test_sessions_end_on_a_version_that_its_rollout_has_taken_back_and_on_no_other(
    ready: dict[str, int], priority: str, share: float
) -> None:
    version = min(ready)
    found = picks(Policy(priority=priority), ready, Overlay(version, share))
    ends = {pick.version for pick in found if pick.ends_sessions}
    assert ends == ({version} if share == 0 and len(ready) > 1 else set())
