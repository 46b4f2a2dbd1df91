"""A rollout that is played before it starts, with nodes that are lost in the middle."""

from __future__ import annotations

from typing import Any

import pytest

from sdlb.core.rollout_plan import Change, Known, plan
from sdlb.model.policy import Policy
from sdlb.model.rollout import RoleReport, RolloutSpec
from sdlb.sim.forecast import FINISHES, HALTS, HOLDS, HOSTS_MAX, Forecast, Group, Tree, forecasts, worst

HOSTS = ("host-1", "host-2", "host-3", "host-4")
SPEC = RolloutSpec(soak_s=5.0, nodes_out_max="100%")
FOUR = (Group(("rack-1", "rack-2"), HOSTS, 4, 400),)
ONE = (Group((), ("host-1",), 1, 100),)
LOOSE: dict[str, dict[str, object]] = {"*": {"max_unavailable": "50%"}, "catalog": {"gate": []}}


def tree(groups: tuple[Group, ...] = FOUR, to: str = "1.0.2", **more: Any) -> Tree:
    given: dict[str, Any] = {"spec": SPEC, **more}
    return Tree("edge-1", ("edge-1", "edge-2"), groups, ("example.com/*",), "catalog", "1.0.1", to, **given)


def test_without_a_loss_it_finishes_at_the_floor() -> None:
    (found,) = forecasts(tree())
    assert (found.result, found.lowest, found.baseline, found.floor, found.stuck) == (FINISHES, 300, 400, 300, ())
    assert 4 * SPEC.soak_s < found.took_s < 20 * SPEC.soak_s and found.gap_s == 0.0


def test_a_host_that_is_lost_leaves_no_capacity_for_another_one() -> None:
    """What it had is missing for good, so that no other host may leave: the rollout holds, and says who has not the new version."""
    whole, *lost = forecasts(tree(), ["host-2"])
    assert whole.lost == () and whole.result == FINISHES and lost
    assert [each.lost for each in lost] == [("host-2",)] * len(lost)
    first = lost[0]
    assert (first.at, first.result) == ("while the first nodes are out", HOLDS)
    assert "host-2" in first.stuck and len(first.stuck) > 1 and first.lowest <= 300
    assert worst([whole, *lost]).result == HOLDS


def test_a_root_that_is_lost_takes_its_programs_with_it() -> None:
    _, *lost = forecasts(tree((Group((), ("edge-1", "host-2"), 2, 200),), policies=LOOSE), ["edge-1"])
    assert lost and all(each.result == HOLDS and "edge-1.host" in each.stuck for each in lost)


def test_a_policy_that_allows_more_lets_it_finish_without_that_host_unless_it_is_out_then() -> None:
    """A host that is lost while it is out keeps its slot until it is back."""
    found = forecasts(tree(policies=LOOSE), ["host-2"])
    assert [each.result for each in found] == [FINISHES, HOLDS, FINISHES, FINISHES] and found[0].floor == 200
    assert found[1].why == "host-2 has a slot" and [each.stuck for each in found[2:]] == [("host-2",)] * 2


def test_a_rack_above_half_of_the_hosts_is_lost() -> None:
    """Enough hosts that their lease ends before the others are done: what they had is missing then."""
    groups = (Group(("rack-1",), ("host-1", "host-2"), 6, 600), Group(("rack-2",), ("host-3", "host-4"), 4, 400))
    whole, *lost = forecasts(tree(groups), ["rack-1"])
    found = worst(lost)
    assert whole.result == FINISHES and found.result == HOLDS and found.lowest == 400 < found.floor
    assert {"host-1", "host-2"} & set(found.stuck) and len(found.stuck) >= 4


@pytest.mark.parametrize(
    ("groups", "to", "side_by_side"),
    [
        (FOUR, "2.5.1", True),
        (FOUR, "2.5.1", False),
        (ONE, "2.5.1", False),
        (ONE, "1.0.2", False),
        (FOUR, "1.0.2", False),
    ],
    ids=["beside", "in batches", "sole", "sole patch", "patch"],
)
def test_the_gap_of_the_plan_is_that_of_the_simulator(groups: tuple[Group, ...], to: str, side_by_side: bool) -> None:
    spec = RolloutSpec(soak_s=5.0, nodes_out_max="100%", accept_gap=True)
    (found,) = forecasts(tree(groups, to, spec=spec, side_by_side=side_by_side))
    nodes = sum(group.nodes for group in groups)
    report = RoleReport(nodes=nodes, ready=100 * nodes, alone=0 if side_by_side else nodes)
    change = Change("catalog", "1.0.1", to, spec, to == "2.5.1")
    planned = plan(change, report, found.baseline, found.floor, Policy(), Known())
    assert found.result == FINISHES
    assert found.gap_s <= float(str(planned["gap_s"])) <= found.gap_s + 5.0 or found.gap_s < 0.5
    assert bool(planned["gap_s"]) == (not side_by_side and (to == "2.5.1" or nodes == 1))


def test_of_a_large_tree_a_small_one_in_proportion_is_played() -> None:
    groups = tuple(Group((f"rack-{n}",), (f"host-{n}",), 100, 10_000) for n in range(10))
    (found,) = forecasts(tree(groups))
    assert found.result == FINISHES and found.baseline == 100_000 and found.floor == 75_000
    assert found.played <= HOSTS_MAX and 75_000 <= found.lowest < 100_000


def test_what_cannot_be_played_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"edge-1 knows no node host-9 that runs catalog .* it knows host-1, host-2"):
        forecasts(tree(), ["host-9"])
    with pytest.raises(ValueError, match="nothing to play"):
        forecasts(tree(()))
    with pytest.raises(ValueError, match=r"cannot start: .* accept that with --accept-gap"):
        forecasts(tree(ONE, side_by_side=False))


def test_the_same_tree_gives_the_same_forecast() -> None:
    assert forecasts(tree(ONE, spec=RolloutSpec(accept_gap=True))) == forecasts(
        tree(ONE, spec=RolloutSpec(accept_gap=True))
    )


def test_the_worst_is_the_one_that_halts_then_holds_then_has_the_least() -> None:
    def made(result: str, lowest: int) -> Forecast:
        return Forecast((), "", 0.0, result, "", lowest, 400, 300, 1.0, 0.0, (), 4)

    assert worst([made(FINISHES, 100), made(HOLDS, 300), made(HALTS, 400)]).result == HALTS
    assert worst([made(FINISHES, 100), made(FINISHES, 200)]).lowest == 100


@pytest.mark.parametrize(("zones", "last"), [("ba", {"host-1", "host-2"}), ("ab", {"host-3", "host-4"})])
def test_it_goes_zone_by_zone(zones: str, last: set[str]) -> None:
    """A host is lost while the first zone is updated, so that the rollout holds there: no host of the other zone has the new version."""
    groups = tuple(
        Group((f"rack-{n}",), (f"host-{2 * n - 1}", f"host-{2 * n}"), 2, 200, {zone: 2})
        for n, zone in enumerate(zones, 1)
    )
    _, first, *_ = forecasts(tree(groups), ["host-1"])
    assert first.result == HOLDS and last <= set(first.stuck)


def test_hosts_of_several_zones_are_played_in_proportion() -> None:
    group = Group((), (), 40, 4000, {"b": 30, "a": 10})
    assert [group.zone(place, 8) for place in range(8)] == ["a", "a", *"b" * 6]
    assert Group().zone(0, 1) == ""
