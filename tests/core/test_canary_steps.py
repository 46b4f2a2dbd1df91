"""Canary steps: as rules, and over a whole tree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core.analysis import FAIL, INCONCLUSIVE, RUNNING
from sdlb.core.canary_steps import (
    PROLONGED,
    Canary,
    begun,
    current,
    limit_objection,
    nodes_of,
    objections,
    stepped,
    without_steps,
)
from sdlb.core.share import WEIGHT_OF_ALL, Overlay, overlay, percentages, picks
from sdlb.model.canary import Step
from sdlb.model.policy import Policy
from sdlb.model.rollout import HALTED, PAUSED, ROLLING, UPDATED, RoleReport, Rollout, RolloutSpec, Target
from tests.core.programs import Build
from tests.core.test_rollouts import NEW, OLD, RACKS, SPEC, TREES, Story

STEPS = (Step("1", 5.0, 20.0), Step("50%", 50.0, 10.0))
ROLLOUT = begun(Rollout("r-1", NEW, OLD, ROLLING, baseline=400, cursor=1.0, spec=RolloutSpec(step=STEPS)), 0)
VERSIONS = ["1.0.0", "1.0.1", "1.0.2", "1.0.10"]
READY = st.dictionaries(st.sampled_from(VERSIONS), st.integers(1, 1000), min_size=2)
PRIORITY = st.sampled_from(["even", "higher", "lower", "share"])


def report(nodes: int = 4, updated: int = 0) -> RoleReport:
    return RoleReport(nodes=nodes, ready=nodes * 100, counts={f"r-1 {UPDATED}": updated})


# ---------------------------------------------------------------------- shares


@given(READY, PRIORITY, st.floats(0.0, 100.0), st.data())
def test_the_new_version_gets_its_share_exactly_and_never_more_than_its_part(
    ready: dict[str, int], priority: str, share: float, data: st.DataObject
) -> None:
    new = data.draw(st.sampled_from(sorted(ready)))
    found = picks(Policy(priority=priority), ready, Overlay(new, share))
    assert sorted(pick.version for pick in found) == sorted(ready)
    got = percentages(found, ready).get(new, 0.0)
    part = 100.0 * ready[new] / sum(ready.values())
    assert got == pytest.approx(min(share, part), abs=0.05)


@given(READY, PRIORITY, st.lists(st.floats(0.0, 100.0), min_size=2, max_size=5), st.data())
def test_a_growing_share_moves_clients_only_to_the_new_version(
    ready: dict[str, int], priority: str, shares: list[float], data: st.DataObject
) -> None:
    """Weighted rendezvous keeps a client with a version as long as no other one gains on it: so the weight of the new version may
    only grow in proportion to each other one."""
    new = data.draw(st.sampled_from(sorted(ready)))
    before: dict[str, float] = {}
    for share in sorted(shares):
        found = {pick.version: pick for pick in picks(Policy(priority=priority), ready, Overlay(new, share))}
        mine = found[new]
        ratios = {v: mine.weight / p.weight for v, p in found.items() if v != new and p.weight and p.tier == mine.tier}
        assert all(ratio >= before.get(version, 0.0) for version, ratio in ratios.items())
        before = ratios
        assert sum(pick.weight for pick in found.values() if pick.tier == mine.tier) <= WEIGHT_OF_ALL + len(found)


def test_without_another_ready_version_the_share_does_not_count() -> None:
    policy = Policy()
    assert picks(policy, {NEW: 100, OLD: 0}, Overlay(NEW, 5.0)) == picks(policy, {NEW: 100, OLD: 0})
    assert picks(policy, {OLD: 100}, Overlay(NEW, 5.0)) == picks(policy, {OLD: 100})
    first, second = picks(policy, {OLD: 100, NEW: 100}, Overlay(NEW, 0.0))
    assert (first.version, second.version) == (OLD, NEW) and second.tier > first.tier


def test_only_a_rollout_in_progress_lays_a_share_over_the_policy() -> None:
    assert overlay(None) is None
    assert overlay(Target("catalog", rollout=ROLLOUT)) == Overlay(NEW, 5.0)
    assert overlay(Target("catalog", rollout=replace(ROLLOUT, state="done"))) is None
    assert overlay(Target("catalog", rollout=replace(ROLLOUT, share=None))) is None


# ---------------------------------------------------------------------- steps


@given(st.integers(1, 5000), st.integers(1, 100))
def test_a_percentage_of_nodes_is_rounded_up(nodes: int, percent: int) -> None:
    found = nodes_of(Step(f"{percent}%"), nodes)
    assert 1 <= found <= nodes
    assert found * 100 >= nodes * percent > (found - 1) * 100


def test_a_step_takes_no_more_nodes_than_it_has() -> None:
    assert not limit_objection(ROLLOUT, 0, 4)
    assert limit_objection(ROLLOUT, 1, 4) == "step 1 of 2 has 1 of 4 nodes"
    assert not limit_objection(begun(ROLLOUT, 1), 1, 4) and limit_objection(begun(ROLLOUT, 1), 2, 4)
    assert not limit_objection(without_steps(ROLLOUT), 3, 4) and current(without_steps(ROLLOUT)) is None


def test_a_step_is_over_after_its_time_with_all_its_nodes() -> None:
    def then(rollout: Rollout, done: int, now: float, *, slots: int = 0) -> Rollout:
        return stepped(rollout, slots, done, report(updated=done), Canary(), now)

    assert then(ROLLOUT, 0, 1000.0) == ROLLOUT and then(ROLLOUT, 1, 1000.0, slots=1) == ROLLOUT
    reached = then(ROLLOUT, 1, 1000.0)
    assert reached.step_since == 1000.0
    assert then(reached, 1, 1019.9) == reached
    assert then(reached, 0, 1010.0).step_since == 0.0  # the node is gone: the time starts over
    second = then(reached, 1, 1020.0)
    assert (second.at_step, second.share, second.step_since) == (1, 50.0, 0.0)
    last = then(replace(second, step_since=1000.0), 2, 1010.0)
    assert (last.at_step, last.share) == (2, 100.0) and then(last, 2, 2000.0) == last


def test_no_result_prolongs_a_step_and_then_pauses_and_a_failure_halts_at_once() -> None:
    reached = replace(ROLLOUT, step_since=1000.0)

    def then(now: float, canary: Canary) -> Rollout:
        return stepped(reached, 0, 1, report(updated=1), canary, now)

    for result in (RUNNING, INCONCLUSIVE):
        assert then(1000.0 + PROLONGED * 20.0 - 0.1, Canary(result)) == reached
        paused = then(1000.0 + PROLONGED * 20.0, Canary(result, "300 of 1000 requests"))
        assert paused.state == PAUSED and paused.detail.startswith("300 of 1000 requests; 'resume'")
    failed = then(1000.1, Canary(FAIL, "3 % errors against 0.5 %"))
    assert (failed.state, failed.share, failed.detail) == (HALTED, 0.0, "3 % errors against 0.5 %")
    lost = then(1000.1, Canary(lost=True))
    assert (lost.state, lost.share) == (HALTED, 0.0) and "no instance of 1.0.2" in lost.detail


def test_steps_that_cannot_be_reached_are_named() -> None:
    assert objections(STEPS, 20) == []
    assert objections((Step("3", 5.0),), 2) == ["step 1 wants 3 nodes, and 2 run the service"]
    assert "at most 5 %" in objections((Step("1", 6.0),), 20)[0] and not objections((Step("1", 100.0),), 20)


# ---------------------------------------------------------------------- over a tree

CANARY = replace(SPEC, step=STEPS)
AFTER = {1: "step 2, when step 1", 2: "the other nodes, when step 2"}


def shares(story: Story, host: str) -> dict[str, float]:
    service = story.forest[host].balancer.view.service("catalog") or {"versions": []}
    return {each["version"]: round(each["share"], 1) for each in service["versions"] if each["share"]}


@TREES
def test_a_canary_grows_step_by_step(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree)
    assert not story.start(NEW, CANARY)
    story.until("rolling")
    steps: dict[int, tuple[int, dict[str, float]]] = {}
    most = 0
    while story.rollout()["state"] != "done":
        found = story.rollout()
        if found["step"]["since"]:
            assert found["next"] in ("", f"{AFTER[found['step']['number']]} of 2 is over")
            steps[found["step"]["number"]] = (found["nodes"]["done"], shares(story, "edge-1"))
        elif found["step"]["number"] == 1:
            most = max(most, found["nodes"]["done"])
        story.step()
    assert steps == {1: (1, {OLD: 95.0, NEW: 5.0}), 2: (2, {OLD: 50.0, NEW: 50.0})} and most <= 1
    assert story.all_run(NEW) and shares(story, "edge-1") == {NEW: 100.0}
    codes = [note.text for note in story.forest["edge-1"].notes if note.code == "step-reached"]
    assert [text.split(",")[0] for text in codes] == [
        "catalog: r-2 has reached step 1 of 2",
        "catalog: r-2 has reached step 2 of 2",
        "catalog: r-2 has passed all of its 2 steps",
    ]


def test_every_entry_gives_the_share_and_the_policy_stays() -> None:
    story = Story(RACKS, priority="higher")
    policy = story.forest["edge-2"].balancer.view.policy("catalog")
    assert not story.start(NEW, CANARY)
    while not story.rollout().get("step", {}).get("since"):
        story.step()
    story.forest.run(3.0)
    for root in story.roots:
        assert shares(story, root) == {OLD: 95.0, NEW: 5.0}
    assert story.forest["edge-2"].balancer.view.policy("catalog") == policy


def test_an_abort_takes_the_share_away_at_once() -> None:
    story = Story()
    story.start(NEW, CANARY)
    while not story.rollout().get("step", {}).get("since"):
        story.step()
    assert not story.order("abort")
    assert shares(story, "edge-1") == {OLD: 100.0}
    story.until("undone")
    assert story.all_run(OLD)


def test_an_abort_near_the_end_does_not_overload_the_rest() -> None:
    story = Story()
    story.start(NEW)
    while story.rollout().get("nodes", {}).get("done", 0) < 3:
        story.step()
    assert not story.order("abort")
    assert shares(story, "edge-1").get(OLD, 0.0) < 100.0
    story.until("undone")
    assert story.all_run(OLD)


def test_a_promotion_skips_the_steps_also_of_a_paused_rollout() -> None:
    story = Story()
    story.start(NEW, CANARY)
    while not story.rollout().get("step", {}).get("since"):
        story.step()
    assert not story.order("pause") and not story.order("promote")
    story.until("done", 60.0)
    assert story.all_run(NEW)


def test_an_undo_skips_the_steps() -> None:
    story = Story()
    story.start(NEW, CANARY)
    story.until("done")
    assert not story.order("undo")
    story.until("done", 60.0)
    assert story.all_run(OLD)


def test_the_last_canary_that_dies_halts_the_rollout() -> None:
    story = Story()
    story.start(NEW, replace(CANARY, step=(Step("1", 5.0, 60.0),)))
    while not story.rollout().get("step", {}).get("since"):
        story.step()
    host = next(h for h in story.hosts if story.serves(h) == {NEW})
    story.builds(NEW, Build(healthy=False), host)
    story.forest[host].programs.die(NEW)
    story.until("halted", 60.0)
    assert "no instance of 1.0.2" in story.rollout()["detail"]
    assert story.rollout()["step"]["share"] == 0.0


def test_a_resumed_canary_has_its_share_again() -> None:
    halted = replace(ROLLOUT, state=HALTED, share=0.0, at_step=1)
    assert begun(halted, 1).share == 50.0


def test_an_incompatible_version_has_no_steps() -> None:
    story = Story()
    objection = story.start("2.5.1", CANARY)
    assert objection == "2.5.1 cannot serve beside 1.0.1, so no step can be reached; remove step"
    too_many = story.start(NEW, replace(SPEC, step=(Step("9", 5.0, 1.0),)))
    assert too_many == "step 1 wants 9 nodes, and 4 run the service"


def test_an_owner_that_was_away_when_the_last_canary_died_halts_the_rollout() -> None:
    story = Story()
    story.start(NEW, replace(CANARY, step=(Step("1", 5.0, 60.0),)))
    while not story.rollout().get("step", {}).get("since"):
        story.step()
    host = next(h for h in story.hosts if story.serves(h) == {NEW})
    story.builds(NEW, Build(healthy=False), host)
    story.forest["edge-1"].kill()
    story.forest[host].programs.die(NEW)
    story.forest.run(5.0)
    story.forest["edge-1"].restart()
    story.until("halted", 60.0)
    assert "no instance of 1.0.2" in story.rollout()["detail"]
