"""`auto = "compatible"`: which release starts by itself, at which root, and what never does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core import events as ev
from sdlb.core.auto import choose
from sdlb.model.opening import Opening
from sdlb.model.policy import Policy
from sdlb.model.rollout import HISTORY_MAX, TRIED_MAX, Rollout, Target, past, with_history
from sdlb.model.version import sort_key
from tests.core.programs import Build
from tests.core.test_rollouts import ALONE, BIG, NEW, OLD, ONE, RACKS, TREES, Story

NEWER = "1.0.3"
QUICK = {"soak_s": 3.0, "progress_s": 60.0, "drain_s": 5.0}
AUTO: dict[str, Any] = {"auto": "compatible", "rollout": QUICK}
SETTLE_S = 16.0
"""Longer than nodes need to report to another root."""


def add(story: Story, *versions: str, withdrawn: bool = False) -> None:
    for version in versions:
        body = json.dumps({"service": "catalog", "version": version}).encode()
        for root in story.roots:
            story.forest[root].inbox.append(
                ev.ReleasePut(f"catalog-{version}", b"" if withdrawn else body, "operator-a")
            )
    story.forest.run(1.0)


def put(story: Story, *roots: str, **policy: Any) -> None:
    for root in roots or story.roots:
        story.forest[root].inbox.append(ev.PolicyPut("catalog", json.dumps({**AUTO, **policy}).encode()))
    story.forest.run(1.0)


def held(story: Story, at: str = "edge-1") -> list[str]:
    return [note.text for note in story.forest[at].notes if note.code == "auto-held"]


def ids(story: Story, at: str = "edge-1") -> list[str]:
    return [each["id"] for each in story.rollout(at)["history"]]


# ---------------------------------------------------------------------- which version

VERSIONS = ["1.0.1", "1.0.2", "1.0.3", "1.0.10", "2.5.1", "2.5.2"]
SOME = st.lists(st.sampled_from(VERSIONS), unique=True)


@given(st.sampled_from(["", *VERSIONS]), SOME, SOME, SOME, SOME, st.sampled_from(["", "1.0.2", "2.5.2"]))
def test_only_a_newer_compatible_version_that_may_open_and_was_never_tried(
    current: str, releases: list[str], tried: list[str], hold: list[str], pin: list[str], floor: str
) -> None:
    policy = Policy(auto="compatible", opening=Opening(hold=tuple(hold), pin=tuple(pin), never_below=floor))
    found = choose(policy, current, releases, tried)
    able = [
        version
        for version in releases
        if current
        and version.split(".")[:2] == current.split(".")[:2]
        and version not in hold
        and (not pin or version in pin)
        and (not floor or sort_key(version) >= sort_key(floor))
        and all(
            sort_key(version) > sort_key(other)
            for other in (current, *tried)
            if other.split(".")[:2] == current.split(".")[:2]
        )
    ]
    assert found == max(able, key=sort_key, default="")
    assert not choose(Policy(opening=policy.opening), current, releases, tried), "the default is off"


def test_what_was_tried_takes_older_versions_with_it() -> None:
    policy = Policy(auto="compatible")
    assert not choose(policy, OLD, [NEW], [NEWER])
    assert choose(policy, OLD, [NEW], [BIG]) == NEW


def test_a_hold_of_all_versions_holds_every_release() -> None:
    assert choose(Policy(auto="compatible"), OLD, [NEW], []) == NEW
    assert not choose(Policy(auto="compatible", opening=Opening(hold=("*",))), OLD, [NEW], [])


def test_versions_are_remembered_longer_than_rollouts() -> None:
    target = Target("catalog")
    for number in range(HISTORY_MAX + TRIED_MAX + 8):
        target = with_history(target, (Rollout(f"r-{number}", f"1.0.{number}"), *target.history))
    assert len(past(target)) == HISTORY_MAX and len(target.tried) == TRIED_MAX
    last = HISTORY_MAX + TRIED_MAX + 7
    assert {each.to for each in past(target)} | set(target.tried) == {f"1.0.{n}" for n in range(8, last + 1)}
    again = with_history(target, (Rollout("r-99", "1.0.50"), *target.history))
    assert len(again.tried) == len(set(again.tried)) == TRIED_MAX


# ---------------------------------------------------------------------- when it starts


@TREES
def test_a_release_starts_as_soon_as_it_is_added_at_one_root(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, **AUTO)
    story.forest.run(SETTLE_S)
    add(story, NEW)
    for root in story.roots:
        found = story.rollout(root)
        assert (found["id"], found["to"], found["by"], found["owner"]) == ("r-2", NEW, "auto", "edge-1")
    assert story.rollout()["spec"]["soak_s"] == 3.0
    story.until("done")
    story.forest.run(60.0)
    assert story.all_run(NEW) and ids(story) == ["r-2", "r-1"]


@TREES
@pytest.mark.parametrize("first", ["release", "policy", "policy elsewhere"])
def test_the_order_of_release_and_policy_does_not_matter(tree: dict[str, tuple[str, ...]], first: str) -> None:
    story = Story(tree)
    story.forest.run(SETTLE_S)
    changes = [lambda: add(story, NEW), lambda: put(story, *story.roots[-1 if first == "policy elsewhere" else 0 :])]
    for change in changes if first == "release" else reversed(changes):
        assert story.rollout()["id"] == "r-1"
        change()
    story.until("done")
    story.forest.run(5.0)
    assert story.rollout()["to"] == NEW and story.rollout()["by"] == "auto"


def test_without_the_policy_nothing_starts() -> None:
    story = Story()
    add(story, NEW)
    story.forest.run(60.0)
    assert ids(story) == ["r-1"] and not held(story)


@TREES
def test_an_incompatible_release_is_left_to_people(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree, **AUTO)
    add(story, BIG)
    story.forest.run(60.0)
    assert ids(story) == ["r-1"]


def test_after_a_rollout_in_progress_the_newest_release_starts() -> None:
    story = Story(RACKS, **AUTO)
    story.forest.run(SETTLE_S)
    add(story, NEW)
    assert story.rollout()["to"] == NEW
    add(story, NEWER, "1.0.10")
    assert story.rollout()["to"] == NEW and story.rollout()["state"] != "done"
    story.until("done")
    story.forest.run(1.0)
    assert story.rollout()["to"] == "1.0.10"
    story.until("done")
    story.forest.run(60.0)
    assert ids(story) == ["r-3", "r-2", "r-1"]


@pytest.mark.parametrize("keeps", [{"hold": [NEW]}, {"hold": ["*"]}, {"pin": [OLD]}, {"never_below": NEWER}])
def test_what_the_policy_keeps_out_starts_when_it_may(keeps: dict[str, Any]) -> None:
    story = Story(RACKS, **AUTO)
    put(story, **keeps)
    add(story, NEW)
    story.forest.run(SETTLE_S)
    assert ids(story) == ["r-1"]
    put(story)
    assert story.rollout()["to"] == NEW


def test_a_withdrawn_release_starts_when_it_is_available_again() -> None:
    story = Story(RACKS)
    story.forest.run(SETTLE_S)
    add(story, NEW)
    add(story, NEW, withdrawn=True)
    put(story)
    story.forest.run(30.0)
    assert ids(story) == ["r-1"]
    add(story, NEW)
    assert story.rollout()["to"] == NEW
    add(story, NEWER, "1.0.4")
    add(story, "1.0.4", withdrawn=True)
    story.until("done")
    story.forest.run(1.0)
    assert story.rollout()["to"] == NEWER


def test_what_cannot_start_says_why_once_and_starts_when_it_can() -> None:
    story = Story({"edge-1": (), "host-1": ("edge-1",)}, ALONE, **AUTO)
    add(story, NEW)
    story.forest.run(60.0)
    assert ids(story) == ["r-1"]
    (why,) = held(story)
    assert why.startswith("catalog-1.0.2 is not rolled out automatically: the capacity would fall to 0 of 100")
    story = Story({"edge-1": (), "host-1": ("edge-1",)}, **AUTO)
    add(story, NEW)
    story.forest.run(SETTLE_S)
    assert held(story)
    put(story, rollout={**QUICK, "side_by_side": "always"})
    story.until("done")
    assert story.rollout()["to"] == NEW


# ---------------------------------------------------------------------- what never starts again


@TREES
@pytest.mark.parametrize("end", ["abort", "undo", "halted"])
def test_what_was_taken_back_never_starts_again(tree: dict[str, tuple[str, ...]], end: str) -> None:
    story = Story(tree, **AUTO)
    story.forest.run(SETTLE_S)
    if end == "halted":
        story.builds(NEWER, Build(healthy=False))
    add(story, NEWER)
    if end == "undo":
        story.until("done")
        story.forest.run(1.0)
    elif end == "halted":
        story.until("halted")
        story.forest.run(30.0)
        assert story.rollout()["id"] == "r-2"
    assert story.order("undo" if end == "undo" else "abort") == ""
    story.until("done" if end == "undo" else "undone")
    add(story, NEW)
    count = len(ids(story))
    for name in story.forest.nodes:
        story.forest[name].restart()
    story.forest.run(60.0)
    assert len(ids(story)) == count and story.all_run(OLD), "neither it nor an older one in its place"
    add(story, "1.0.4")
    story.until("done")
    assert story.rollout()["to"] == "1.0.4"


# ---------------------------------------------------------------------- which root


def at_edge_2(story: Story, version: str) -> None:
    body = json.dumps({"service": "catalog", "version": version}).encode()
    story.forest["edge-2"].inbox.append(ev.ReleasePut(f"catalog-{version}", body, "operator-a"))
    story.forest.run(1.0)


def test_another_root_starts_it_when_the_first_one_is_lost() -> None:
    story = Story(RACKS, **AUTO)
    story.forest.run(SETTLE_S)
    story.forest["edge-1"].kill()
    story.forest.run(60.0)
    at_edge_2(story, NEW)
    found = story.rollout("edge-2")
    assert (found["to"], found["by"], found["owner"]) == (NEW, "auto", "edge-2")
    story.forest["edge-1"].restart()
    story.until("done", at="edge-2")
    story.forest.run(60.0)
    assert ids(story, "edge-2") == ids(story) == ["r-2", "r-1"] and story.all_run(NEW)


def test_a_root_that_cannot_write_starts_it_later_and_no_other_one_does() -> None:
    story = Story(RACKS, **AUTO)
    story.forest.run(SETTLE_S)
    story.forest["edge-1"].stick()
    story.forest.run(5.0)
    at_edge_2(story, NEW)
    story.forest.run(60.0)
    story.forest["edge-1"].unstick()
    story.until("rolling")
    story.until("done")
    story.forest.run(30.0)
    assert ids(story, "edge-2") == ids(story) == ["r-2", "r-1"] and story.all_run(NEW)


@pytest.mark.parametrize("racks", [2, 3])
def test_a_root_that_was_cut_off_does_not_repeat_what_another_one_has_started(racks: int) -> None:
    names = [f"rack-{n}" for n in range(1, racks + 1)]
    tree: dict[str, tuple[str, ...]] = {"edge-1": (), "edge-2": (), **dict.fromkeys(names, ("edge-1", "edge-2"))}
    story = Story({**tree, **{f"host-{n}": (f"rack-{1 + n % racks}",) for n in range(2 * racks)}})
    add(story, NEW)
    story.forest.run(SETTLE_S)
    for rack in names:
        story.forest.part(rack, "edge-1")
    story.forest.run(60.0)
    put(story)
    story.until("preparing", at="edge-2")
    story.until("done", at="edge-2")
    assert story.order("undo", at="edge-2") == ""
    story.until("done", at="edge-2")
    assert ids(story) == ["r-1"], "the first root knows nothing of it"
    story.forest.cut.clear()
    root = story.forest["edge-1"]
    for _ in range(2000):  # after each step, the first root looks what it could start
        story.step()
        root.balancer._state.set_timer(story.forest.now, "auto", "catalog")
        root.handle(ev.Tick())
        assert story.rollout()["owner"] != "edge-1" or story.rollout()["id"] == "r-1"
    story.forest.run(60.0)
    assert ids(story) == ids(story, "edge-2") == ["r-3", "r-2", "r-1"] and story.all_run(OLD)


def test_a_root_that_has_restarted_starts_what_was_added_before() -> None:
    story = Story(ONE, **AUTO)
    story.forest.run(SETTLE_S)
    root = story.forest["edge-1"]
    root.inbox.append(ev.ReleasePut(f"catalog-{NEW}", json.dumps({"service": "catalog", "version": NEW}).encode()))
    root.handle(root.inbox.popleft())
    assert ids(story) == ["r-1"], "killed between the two steps"
    root.restart()
    story.until("done")
    story.forest.run(30.0)
    assert story.rollout()["to"] == NEW and ids(story) == ["r-2", "r-1"]
