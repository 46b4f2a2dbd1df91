"""Rollouts of several owners take nodes out one after the other."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from sdlb.core.rollout_rules import Held, Owned
from sdlb.core.turns import agreed, agrees, claimed, objection, turns_body
from sdlb.model.rollout import DONE, HALTED, PAUSED, PREPARING, ROLLING, UNDOING, UNDONE, RoleReport, Rollout
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
    assert "r-4 of edge-2" in objection(MINE, [OTHER], [])
    assert not objection(MINE, [replace(OTHER, turn_s=101.0)], [])
    assert not objection(MINE, [replace(OTHER, turn_s=0.0)], []), "it has no node out and wants none"
    assert "r-4" in objection(MINE, [replace(OTHER, turn_s=100.0)], [])
    assert not objection(MINE, [replace(OTHER, id="r-6", turn_s=100.0)], [])
    assert "r-4" in objection(replace(MINE, state=DONE, turn_s=0.0), [OTHER], [])
    assert "adopt r-4" in objection(MINE, [OTHER], []) and "adopt" not in objection(
        MINE, [replace(OTHER, state=DONE)], []
    )


@pytest.mark.promise(9)
def test_a_claim_counts_once_all_roots_agree() -> None:
    later = replace(OTHER, turn_s=103.0)
    assert objection(MINE, [later], ["edge-2"]) == "edge-2 has to agree first" == objection(MINE, [], ["edge-2"])
    assert objection(MINE, [], ["edge-2", "edge-3"]) == "edge-2, edge-3 have to agree first"
    assert not objection(MINE, [later], [])
    body = turns_body(agreed({"catalog": MINE}, []))
    assert agrees(body, "catalog", MINE)
    assert not agrees(body, "catalog", replace(MINE, turn_s=101.0)), "that is another claim"
    assert not agrees(body, "pricing", MINE) and not agrees(body, "catalog", replace(MINE, id="r-6"))
    assert not agrees(b"{}", "catalog", MINE) and not agrees(b"[1", "catalog", MINE)
    assert not agrees(b'{"catalog": ["r-5", 0.0]}', "catalog", replace(MINE, turn_s=0.0)), "it has no claim"


@pytest.mark.promise(9)
def test_a_root_agrees_to_claims_that_are_older_than_its_own_while_no_node_is_out_for_it() -> None:
    assert agreed({"catalog": MINE}, [(OTHER, False)]) == {}
    assert agreed({"catalog": MINE}, [(replace(OTHER, turn_s=110.0), False)]) == {"catalog": ("r-5", 100.0)}
    assert agreed({"catalog": MINE}, [(replace(OTHER, turn_s=0.0), False)]) == {"catalog": ("r-5", 100.0)}
    assert agreed({"catalog": MINE}, [(replace(OTHER, turn_s=110.0), True)]) == {}, (
        "its clock is behind, or it has just joined"
    )
    assert agreed({"catalog": replace(MINE, turn_s=0.0)}, []) == {}


class Walk:
    """Roots, each with a rollout. Their clocks differ. Documents reach each other root at any time, or never. Some roots join late."""

    def __init__(self, roots: str, rng: Random) -> None:
        self.roots, self.rng = roots, rng
        self.clock = {root: rng.choice([50.0, 100.0]) for root in roots}
        self.mine = {root: Rollout("r-1", "2", "1", PAUSED, root, root) for root in roots}
        self.heard = {root: {other: self.mine[other] for other in roots if other != root} for root in roots}
        self.says = dict.fromkeys(roots, b"{}")
        self.told = {root: dict.fromkeys(roots, b"{}") for root in roots}
        self.there = set(roots[:1])
        self.out: set[str] = set()

    def step(self) -> None:
        root, other = self.rng.sample(self.roots, 2)
        if root not in self.there:
            if self.rng.random() < 0.05:
                self.there.add(root)
            return
        rollout, others = self.mine[root], list(self.heard[root].values())
        match self.rng.choice(["want", "take", "take", "return", "hear", "hear", "hear", "say", "say", "say"]):
            case "want":
                self.clock[root] += self.rng.choice([0.0, 0.0, 5.0])
                state, owned = self.rng.choice([ROLLING, PAUSED]), OUT if root in self.out else NONE
                rollout = replace(rollout, state=state)
                self.mine[root] = claimed(rollout, owned, RoleReport(nodes=4), others, self.clock[root])
            case "take" if rollout.turn_s:
                missing = [each for each in self.there - {root} if not agrees(self.told[root][each], root, rollout)]
                if not objection(rollout, others, missing):
                    self.out.add(root)
            case "return":
                self.out.discard(root)
            case "hear":
                self.heard[root][other] = self.mine[other]
            case "say":
                self.told[other][root] = self.says[root]
            case _:
                pass
        self.says[root] = turns_body(agreed(self.heard[root], [(self.mine[root], root in self.out)]))


@pytest.mark.promise(9)
@pytest.mark.parametrize("roots", ["AB", "ABC"])
def test_no_delay_of_documents_lets_two_roots_take_nodes_out(roots: str) -> None:
    taken = 0
    for seed in range(1000):
        walk = Walk(roots, Random(seed))
        for _ in range(80):
            walk.step()
            assert len(walk.out) <= 1, seed
            taken += bool(walk.out)
    assert taken > 500


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


@pytest.mark.promise(9)
def test_a_rollout_that_is_done_claims_for_nodes_that_were_away() -> None:
    done = replace(MINE, state=DONE, turn_s=0.0)
    assert claimed(done, NONE, REPORT, [OTHER], 200.0, late=True).turn_s == 200.0
    assert claimed(done, OUT, REPORT, [OTHER], 200.0).turn_s == 200.0
    assert claimed(replace(done, turn_s=150.0), NONE, REPORT, [OTHER], 200.0).turn_s == 0.0
    assert claimed(replace(done, state=UNDONE), NONE, REPORT, [OTHER], 200.0, late=True).turn_s == 0.0


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
