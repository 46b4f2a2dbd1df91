"""Rollouts of several owners take nodes out one after the other."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.core.rollout_rules import Held, Owned
from sdlb.core.turns import UNHEARD, claimed, objection
from sdlb.model.rollout import DONE, HALTED, PAUSED, PREPARING, ROLLING, UNDOING, RoleReport, Rollout
from tests.core.test_rollouts import NEW, RACKS, Story

MINE = Rollout("r-5", "1.0.2", "1.0.1", ROLLING, "edge-1", "id-1", turn_s=100.0)
OTHER = Rollout("r-4", "3.1", "3.0", ROLLING, "edge-2", "id-2", turn_s=90.0)
REPORT = RoleReport(nodes=4, counts={"r-5 prepared": 4})
NONE = Owned("r-5")
OUT = Owned("r-5", slots={"host-1": Held(100, 95.0)})


def turn(rollout: Rollout, owned: Owned = NONE, report: RoleReport = REPORT, *others: Rollout) -> float:
    return claimed(rollout, owned, report, others, 200.0).turn_s


@pytest.mark.promise(9)
def test_the_oldest_claim_is_first_and_equal_ones_go_by_name() -> None:
    assert "r-4 of edge-2" in objection(MINE, [OTHER], 4.0, 200.0)
    assert not objection(MINE, [replace(OTHER, turn_s=101.0)], 4.0, 200.0)
    assert not objection(MINE, [replace(OTHER, turn_s=0.0)], 4.0, 200.0), "it has no node out and wants none"
    assert "r-4" in objection(MINE, [replace(OTHER, turn_s=100.0)], 4.0, 200.0)
    assert not objection(MINE, [replace(OTHER, id="r-6", turn_s=100.0)], 4.0, 200.0)
    assert "r-4" in objection(replace(MINE, state=DONE, turn_s=0.0), [OTHER], 4.0, 200.0)


@pytest.mark.promise(9)
def test_a_claim_counts_once_all_roots_know_it() -> None:
    later = replace(OTHER, turn_s=103.0)
    assert objection(MINE, [later], 4.0, 103.0) == UNHEARD and not objection(MINE, [later], 4.0, 104.0)
    assert objection(replace(MINE, turn_s=0.0), [replace(OTHER, turn_s=0.0)], 4.0, 104.0) == UNHEARD, "it has no claim"
    assert not objection(MINE, [], 4.0, 100.0), "nobody else has a rollout"


@pytest.mark.promise(9)
def test_a_claim_is_later_than_all_that_are_known_even_if_the_clock_is_behind() -> None:
    fresh = replace(MINE, turn_s=0.0)
    assert turn(fresh) == 200.0
    assert turn(fresh, Owned("r-5"), REPORT, replace(OTHER, turn_s=300.0)) > 300.0
    assert turn(MINE) == 100.0, "it keeps its claim"


@pytest.mark.promise(9)
def test_a_claim_lasts_while_a_node_is_out_or_has_to_be() -> None:
    for state in (PREPARING, PAUSED, HALTED):
        assert turn(replace(MINE, state=state)) == 0.0
        assert turn(replace(MINE, state=state), OUT) == 100.0
    assert turn(replace(MINE, state=UNDOING)) == 100.0
    assert turn(replace(MINE, step_since=150.0)) == 0.0, "a step of a canary only takes its time"
    waits = RoleReport(nodes=4, counts={"r-5 ready": 3, "r-5 failed": 1})
    assert turn(MINE, Owned("r-5"), waits) == 0.0, "all wait for the cut-over"
    assert turn(MINE, Owned("r-5"), replace(waits, counts={"r-5 ready": 3})) == 100.0


# ---------------------------------------------------------------------- in a tree


def test_a_former_owner_does_not_count_its_slots() -> None:
    story = Story(RACKS)
    story.start(NEW)
    story.reach(story.out(), "verifying")
    owner = story.forest["edge-1"].balancer._rollouts
    assert owner._out(owner._owned) == 1
    assert story.order("adopt", at="edge-2") == ""
    story.forest.run(1.0)
    assert owner.owned("catalog").slots and owner._out(owner._owned) == 0
    story.until("done", at="edge-2")
    assert story.all_run(NEW) and story.lowest == 300
