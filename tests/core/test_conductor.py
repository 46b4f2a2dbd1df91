"""A conductor that fails in the middle: what the other root does, and that no hook is called twice at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sdlb.core import events as ev
from tests.core.node import Node
from tests.core.test_openings import APPROVAL, MIGRATE, OLD, ONE, TWO, Story, roots

LONG = {"timeout_s": 600}
WARM_UP = {"name": "warm-up", "kind": "hook", "run": "warm-up"}


def _until_called(story: Story) -> Node:
    """The root whose hook has just been called; nothing has happened since."""
    for _ in range(20_000):
        called = [story.forest[root] for root in roots(story.forest) if story.forest[root].hooks]
        if called:
            return called[0]
        if not story.forest.step():
            story.forest.now += 0.25
            for node in story.forest.nodes.values():
                node.handle(ev.Tick())
    raise AssertionError("no hook is called")


def _vanishes(story: Story, root: Node) -> str:
    """The network of a root fails, and what it has just sent is lost. Returns the other root."""
    for host in ("host-1", "host-2"):
        story.forest.part(host, root.address)
        story.forest[host].inbox.clear()
    return next(each for each in roots(story.forest) if each != root.address)


def _flip(**policy: Any) -> Story:
    story = Story(TWO, cut_over="flip", park=LONG, **policy)
    story.put("1.0.2")
    for host in ("host-1", "host-2"):
        story.forest.put(host, f"{host}-2.5.1", "2.5.1", settle=False)
    return story


def test_before_a_hook_that_cannot_be_undone_every_root_knows_of_it() -> None:
    """The conductor vanishes at the call: the old version does not open at the other root."""
    story = _flip(gate=[{**MIGRATE, "back": False}])
    lost = _until_called(story)
    other = _vanishes(story, lost)
    story.forest.run(60.0)
    assert story.forest[other].versions()["1.0.2"] == "waiting"
    assert not any(story.serve())


def test_a_hook_whose_root_is_lost_is_called_again_with_the_same_key_by_the_root_that_takes_over() -> None:
    story = _flip(gate=[{**MIGRATE, "back": False}])
    lost = _until_called(story)
    other = story.forest[_vanishes(story, lost)]
    story.forest.run(5.0)
    assert other.hooks == []
    story.forest.run(60.0)
    assert [hook.key for hook in other.hooks] == [lost.hooks[0].key]


def test_a_root_whose_hook_still_runs_does_not_follow_another_conductor_yet() -> None:
    """The lost root is back while the other one wants to ask the hook again: it waits for the answer of that root's call."""
    story = _flip(gate=[{**MIGRATE, "back": False}])
    lost = _until_called(story)
    other = story.forest[_vanishes(story, lost)]
    story.forest.run(60.0)
    story.forest.cut.clear()
    story.forest.run(20.0)
    other.inbox.append(ev.HookDone(other.hooks[0].key, "later"))
    story.forest.run(5.0)
    assert len(other.hooks) == 1 and f"waiting for an answer of {lost.address}" in story.reason()
    lost.inbox.append(ev.HookDone(lost.hooks[0].key, "failed"))
    story.forest.run(5.0)
    assert len(other.hooks) == 2


def test_a_hook_of_a_reverted_attempt_ends_before_it_is_called_again() -> None:
    story = Story(ONE, cut_over="flip", park={"timeout_s": 10}, gate=[MIGRATE])
    story.put("1.0.2")
    story.put("2.5.1")
    story.forest.run(15.0)
    assert story.all_serve("1.0.2") and len(story.hooks()) == 1
    story.order(ev.Promote("catalog", "2.5.1", "operator-a"))
    assert len(story.hooks()) == 1
    first = story.hooks()[0]
    story.forest["edge-1"].inbox.append(ev.HookDone(first, "yes"))
    story.forest.run(2.0)
    assert not story.all_serve("2.5.1") and len(story.hooks()) == 2 and story.hooks()[1] != first
    story.answer("yes")
    assert story.all_serve("2.5.1")


def test_a_promotion_while_a_hook_runs_does_not_change_its_key() -> None:
    story = Story(ONE, cut_over="flip", park=LONG, gate=[MIGRATE])
    story.put("1.0.2")
    story.put("2.5.1")
    story.order(ev.Promote("catalog", "2.5.1", "operator-a"))
    story.forest["edge-1"].restart()
    story.forest.run(5.0)
    assert len(story.hooks()) == 2 and len(set(story.hooks())) == 1


def test_a_hook_of_another_version_that_cannot_be_undone_does_not_keep_a_flip_closed() -> None:
    """It runs before its own cut-over, while the flip of the first version drains; that flip can still be reverted."""
    story = Story(TWO, cut_over="flip", park=LONG, gate=[{**WARM_UP, "back": False}])
    story.put("1.0.2")
    story.forest["host-1"].engine.in_flight[ev.EndpointKey(OLD, "i:host-1-1.0.2")] = 1
    story.put("2.5.1")
    story.answer("yes")
    record = story.opening()
    assert record is not None and record["phase"] == "closing"
    story.put("3.0.0")
    assert len(story.hooks()) == 2
    story.remove("2.5.1")
    story.forest.run(2.0)
    assert story.all_serve("1.0.2")


def test_what_a_root_that_took_over_has_recorded_outlives_the_return_of_the_lost_one() -> None:
    story = Story(TWO, gate=[APPROVAL, WARM_UP])
    story.put("1.0.2")
    story.put("2.5.1")
    lost = story.forest[story.conductor]
    other = story.forest[_vanishes(story, lost)]
    for host in ("host-1", "host-2"):  # the lost one goes on writing
        lost.inbox.append(ev.InstanceHealth(f"{host}-2.5.1", False))
    for name in ("operator-a", "release-bot"):
        lost.inbox.append(ev.Approve("catalog", "2.5.1", "sign-off", name))
        story.forest.run(1.0)
    story.forest.run(30.0)
    other.inbox.append(ev.Approve("catalog", "2.5.1", "sign-off", "release-bot"))
    story.forest.run(1.0)
    assert len(other.hooks) == 1
    story.forest.cut.clear()
    story.forest.run(30.0)
    assert story.conductor == other.address and story.gate(name="sign-off")["by"] == ["release-bot"]
    assert len(other.hooks) == 1 and story.gate(name="warm-up")["state"] == "running"


def test_a_conductor_that_is_cut_off_in_the_gap_opens_nothing_and_the_others_revert() -> None:
    story = _flip(gate=[MIGRATE])
    lost = _until_called(story)
    other = _vanishes(story, lost)
    lost.inbox.append(ev.HookDone(lost.hooks[0].key, "yes"))
    story.forest.run(5.0)
    assert lost.versions() == {"1.0.2": "waiting", "2.5.1": "waiting"}
    story.forest.run(60.0)
    assert story.forest[other].versions() == {"1.0.2": "active", "2.5.1": "waiting"}
    story.forest.cut.clear()
    story.forest.run(60.0)
    assert story.all_serve("1.0.2")
    story.order(ev.Promote("catalog", "2.5.1", "operator-a"))
    story.answer("yes")
    assert story.all_serve("2.5.1")


@pytest.mark.promise(1)
def test_a_root_that_takes_over_from_one_that_has_left_does_not_go_on_with_its_flip() -> None:
    """The lost root is in the tree no more, so that it does not count as out of touch. It may have another record of the flip."""
    story = _flip(gate=[MIGRATE])
    lost = _until_called(story)
    other = story.forest[_vanishes(story, lost)]
    lost.kill()
    for host in ("host-1", "host-2"):
        story.forest[host].move(other.address)
    story.forest.run(60.0)
    assert other.hooks == []
    assert other.versions() == {"1.0.2": "active", "2.5.1": "waiting"}


def test_a_root_that_takes_over_after_the_opening_was_announced_goes_on() -> None:
    story = _flip(gate=[MIGRATE])
    lost = _until_called(story)
    lost.inbox.append(ev.HookDone(lost.hooks[0].key, "yes"))
    other = next(each for each in roots(story.forest) if each != lost.address)
    _step_until(story, lambda: (story.opening(other) or {"phase": ""})["phase"] == "opening")
    _vanishes(story, lost)
    story.forest.run(60.0)
    assert story.forest[other].versions() == {"1.0.2": "waiting", "2.5.1": "active"}


def test_a_version_that_is_gone_when_it_is_to_open_lets_the_old_one_back() -> None:
    story = Story(TWO, cut_over="flip", park=LONG, gate=[MIGRATE])
    story.put("1.0.2")
    story.put("2.5.1")
    for host in ("host-1", "host-2"):
        story.forest[host].inbox.append(ev.InstanceGone(f"{host}-2.5.1", "exit code 1"))
    story.answer("yes")
    story.forest.run(10.0)
    assert story.all_serve("1.0.2")


def _step_until(story: Story, holds: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if holds():
            return
        assert story.forest.step()
    raise AssertionError("it never happens")


def test_an_approval_of_somebody_who_may_no_longer_approve_does_not_count() -> None:
    story = Story(TWO, gate=[{**APPROVAL, "count": 2}])
    story.put("1.0.2")
    story.put("2.5.1")
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    story.policy(gate=[{**APPROVAL, "by": ["release-bot", "operator-b"], "count": 2}])
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "release-bot"))
    story.remove("1.0.2")
    assert story.all_serve() and story.gate()["state"] == "waiting"
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-b"))
    assert story.all_serve("2.5.1")


def test_no_hook_is_called_before_the_other_roots_know_the_conductor() -> None:
    story = Story(TWO, gate=[WARM_UP])
    story.put("1.0.2")
    for host in ("host-1", "host-2"):
        story.forest.put(host, f"{host}-2.5.1", "2.5.1", settle=False)
    called = _until_called(story)
    other = next(each for each in roots(story.forest) if each != called.address)
    record = story.opening(other)
    assert record is not None and record["conductor"] == called.address
    story.forest.run(5.0)
    assert len(story.hooks()) == 1


def test_the_hook_of_a_version_on_hold_is_not_called() -> None:
    story = Story(ONE, gate=[WARM_UP], hold=["2.5.1"])
    story.put("1.0.2")
    story.put("2.5.1")
    assert story.hooks() == []
    story.policy(gate=[WARM_UP])
    assert len(story.hooks()) == 1


def test_the_gap_begins_when_nothing_is_in_flight() -> None:
    story = Story(ONE, cut_over="flip", park=LONG, gate=[MIGRATE])
    story.put("1.0.2")
    endpoint = ev.EndpointKey(OLD, "i:host-1-1.0.2")
    story.forest["host-1"].engine.in_flight[endpoint] = 1
    story.put("2.5.1")
    story.forest.run(20.0)
    assert story.hooks() == []
    story.forest.finish("host-1", endpoint)
    story.forest.run(1.0)
    assert len(story.hooks()) == 1


def test_a_flip_is_reverted_when_a_root_is_lost() -> None:
    story = _flip(gate=[MIGRATE])
    conducts = _until_called(story)
    other = next(each for each in roots(story.forest) if each != conducts.address)
    story.forest[other].kill()
    story.forest.run(30.0)
    assert conducts.versions() == {"1.0.2": "active", "2.5.1": "waiting"}
    assert f"{other} is out of touch" in _reason(story, conducts.address)


def test_a_flip_without_parked_requests_does_not_begin() -> None:
    story = Story(ONE, cut_over="flip", park={"timeout_s": 0})
    story.put("1.0.2")
    story.put("2.5.1")
    assert story.all_serve("1.0.2") and "park.timeout_s is 0" in story.reason()


def test_an_approval_and_the_answer_of_a_hook_outlive_a_restart_of_the_only_instance() -> None:
    story = Story(TWO, gate=[APPROVAL, WARM_UP])
    story.put("1.0.2")
    story.put("2.5.1", "host-1")
    story.put("3.0.0", "host-2")
    story.order(ev.Approve("catalog", "2.5.1", "sign-off", "operator-a"))
    story.answer("yes")
    story.remove("2.5.1", "host-1")
    story.forest.run(5.0)
    story.put("2.5.1", "host-1")
    assert story.gate(name="sign-off")["by"] == ["operator-a"] and len(story.hooks()) == 1
    story.remove("1.0.2")
    assert story.all_serve("2.5.1")


def test_a_reverted_version_opens_when_there_is_nothing_left_to_return_to() -> None:
    story = Story(TWO, cut_over="flip", park={"timeout_s": 10})
    story.put("1.0.2")
    story.forest["host-1"].engine.in_flight[ev.EndpointKey(OLD, "i:host-1-1.0.2")] = 1
    story.put("2.5.1")
    story.forest.run(15.0)
    assert story.all_serve("1.0.2")
    for host in ("host-1", "host-2"):
        story.forest[host].inbox.append(ev.InstanceGone(f"{host}-1.0.2", "exit code 1"))
    story.forest.finish("host-1", ev.EndpointKey(OLD, "i:host-1-1.0.2"))
    story.forest.run(5.0)
    assert story.all_serve("2.5.1")


def test_a_gap_with_nothing_to_return_to_is_continued_by_the_root_that_takes_over() -> None:
    story = Story(TWO, gate=[MIGRATE], park=LONG)
    story.put("1.0.2")
    story.put("2.5.1")
    story.remove("1.0.2")
    lost = story.forest[story.conductor]
    other = story.forest[_vanishes(story, lost)]
    story.forest.run(60.0)
    assert [hook.key for hook in other.hooks] == [lost.hooks[0].key]
    other.inbox.append(ev.HookDone(other.hooks[0].key, "yes"))
    story.forest.run(5.0)
    assert other.versions()["2.5.1"] == "active"


def _reason(story: Story, root: str) -> str:
    found = story.forest[root].balancer.view.service("catalog")
    assert found is not None
    return next(each["reason"] for each in found["versions"] if each["version"] == "2.5.1")


@pytest.mark.promise(3, 5)
@pytest.mark.parametrize("gap", [True, False])
def test_a_cut_over_waits_no_longer_than_lease_and_fence_for_a_root_that_was_replaced(gap: bool) -> None:
    """Its former id counts until then, and nothing but the time changes at that moment."""
    story = Story(TWO, cut_over="flip", **({"gate": [MIGRATE]} if gap else {}))
    story.put("1.0.2")
    story.forest["edge-2"].kill()
    story.put("2.5.1")
    assert story.conductor == "edge-1"
    story.forest["edge-2"].replace()
    story.forest.run(60.0)
    assert story.hooks() if gap else story.all_serve("2.5.1")
