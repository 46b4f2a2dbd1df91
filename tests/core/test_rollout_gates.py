"""Rollouts whose version may not serve yet, or fails its test afterwards: the version that serves stays, or comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from tests.core.test_rollouts import BIG, NEW, OLD, SPEC, TREES, Story

APPROVAL: dict[str, Any] = {"name": "ok", "kind": "approval", "by": ["operator-a"]}
SMOKE: dict[str, Any] = {"name": "smoke", "kind": "hook", "at": "after", "run": "smoke", "timeout_s": 10}
BESIDE = replace(SPEC, side_by_side="always")


def policy(story: Story, **keys: Any) -> None:
    for root in story.roots:
        story.forest[root].inbox.append(ev.PolicyPut("catalog", json.dumps(keys).encode()))
    story.forest.run(2.0)


def serve(story: Story, version: str) -> None:
    assert {host: story.serves(host) for host in story.hosts} == {host: {version} for host in story.hosts}


@TREES
def test_the_old_version_serves_until_the_gates_of_the_new_one_are_open(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree)
    policy(story, gate=[{**APPROVAL, "for": "every"}])
    assert story.start(NEW, BESIDE) == ""
    story.forest.run(60.0)
    assert story.rollout()["state"] == "rolling" and story.lowest == 400
    serve(story, OLD)
    for root in story.roots:
        story.forest[root].inbox.append(ev.Approve("catalog", NEW, "ok", "operator-a"))
    story.until("done")
    serve(story, NEW)
    assert story.lowest == 400


@pytest.mark.parametrize("keys", [{"hold": [NEW]}, {"hold": ["*"]}, {"pin": [OLD]}])
def test_a_compatible_version_that_the_policy_keeps_out_is_not_begun(keys: dict[str, Any]) -> None:
    story = Story()
    policy(story, **keys)
    for spec in (SPEC, BESIDE):
        objection = story.start(NEW, spec)
        assert objection.startswith("catalog-1.0.2 would not turn active") and next(iter(keys)) in objection
    story.forest.run(30.0)
    serve(story, OLD)
    policy(story)
    assert story.start(NEW) == ""
    story.until("done")


@pytest.mark.parametrize("spec", [SPEC, BESIDE], ids=["in-place", "beside"])
def test_a_version_that_is_held_in_the_middle_takes_no_more_nodes_out(spec: Any) -> None:
    story = Story()
    story.start(NEW, replace(spec, soak_s=10.0))
    story.reach(story.out(), "verifying")
    policy(story, hold=[NEW])
    story.forest.run(90.0)
    assert story.rollout()["state"] == "rolling" and story.lowest >= 300
    assert sum(story.serves(host) == {OLD} for host in story.hosts) >= 3
    policy(story)
    story.until("done")
    serve(story, NEW)


def test_an_incompatible_version_may_wait_on_hold() -> None:
    """It serves when it is allowed."""
    story = Story(hold=[BIG])
    assert story.start(BIG) == ""
    story.forest.run(60.0)
    assert story.rollout()["nodes"]["ready"] == 4
    serve(story, OLD)


def test_gates_for_every_version_need_room_for_both() -> None:
    story = Story()
    policy(story, gate=[{**APPROVAL, "for": "every"}])
    assert "need both versions side by side" in story.start(NEW)


@pytest.mark.parametrize("keys", [{"cut_over": "flip"}, {"cut_over": "stopped"}])
def test_a_gate_that_is_not_open_in_time_aborts_the_rollout_if_the_policy_says_so(keys: dict[str, Any]) -> None:
    story = Story(gate=[{**APPROVAL, "timeout_s": 10, "on_timeout": "abort"}], **keys)
    story.start(BIG)
    story.until("undoing")
    assert "gate ok" in story.rollout()["detail"] and story.lowest == 400
    story.until("undone")
    story.forest.run(10.0)
    serve(story, OLD)


def test_a_gate_that_is_not_open_in_time_holds_the_version_else() -> None:
    story = Story(cut_over="flip", gate=[{**APPROVAL, "timeout_s": 10}])
    story.start(BIG)
    story.forest.run(60.0)
    assert story.rollout()["state"] == "rolling"
    serve(story, OLD)


@pytest.mark.parametrize("cut_over", ["flip", "stopped"])
def test_a_test_that_fails_after_the_cut_over_undoes_the_rollout(cut_over: str) -> None:
    """It is not done before. The undo is not undone, although the test fails again."""
    story = Story()
    policy(story, cut_over=cut_over, gate=[SMOKE])
    assert story.start(BIG) == ""
    story.until("cutting-over")
    first = story.rollout()["id"]
    story.forest.run(4.0)
    assert story.rollout()["id"] == first and story.rollout()["state"] == "cutting-over"
    story.forest.run(90.0)
    found = story.rollout()
    assert (found["state"], found["undoes"], found["to"]) == ("done", first, OLD)
    serve(story, OLD)


def test_a_test_that_fails_while_nodes_are_updated_aborts_the_rollout() -> None:
    story = Story()
    policy(story, gate=[{**SMOKE, "for": "every"}])
    assert story.start(NEW, replace(SPEC, soak_s=20.0)) == ""
    story.until("undoing")
    assert "gate smoke" in story.rollout()["detail"]
    story.until("undone")
    serve(story, OLD)


def test_a_promoted_rollout_does_not_wait_for_its_first_nodes() -> None:
    story = Story(max_unavailable="50%")
    story.start(NEW, replace(SPEC, soak_s=60.0, nodes_out_max="2"))
    story.reach(story.out(), "verifying")
    story.forest.run(4.0)
    assert story.rollout()["nodes"]["out"] == 1
    assert story.order("promote") == ""
    story.forest.run(20.0)
    assert story.rollout()["nodes"]["out"] == 2 and story.lowest >= 200


def test_a_rollout_whose_cut_over_was_reverted_says_how_it_goes_on() -> None:
    gap = {"name": "migrate", "kind": "hook", "at": "gap", "run": "migrate", "timeout_s": 5}
    story = Story(cut_over="flip", gate=[gap])
    story.start(BIG)
    story.until("paused")
    for verb in ("resume", "promote"):
        assert "run 'sdlb rollout promote catalog 2.5.1' first" in story.order(verb)
    policy(story, cut_over="flip")
    story.forest["edge-1"].inbox.append(ev.Promote("catalog", BIG, "operator-a", ""))
    story.forest.run(15.0)
    assert story.order("resume") == ""
    story.until("done")
    serve(story, BIG)


def test_events_of_gates_name_their_rollout() -> None:
    story = Story(cut_over="flip", gate=[APPROVAL])
    story.start(BIG)
    story.until("rolling")
    story.forest.run(20.0)
    for root in story.roots:
        story.forest[root].inbox.append(ev.Approve("catalog", BIG, "ok", "operator-a"))
    story.until("done")
    notes = [note for note in story.forest["edge-1"].notes if note.code in ("gate-opened", "cutover-opened")]
    assert {note.code for note in notes} >= {"cutover-opened"}
    assert {note.fields.get("rollout") for note in notes} == {story.rollout()["id"]}
