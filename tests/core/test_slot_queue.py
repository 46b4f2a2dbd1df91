"""Nodes that wait for a slot: their requests stay open at the owner until it is their turn."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from sdlb.core.rollout_rules import Held, Owned
from sdlb.core.slot_queue import HOLD_S, TURN_S, SlotQueue
from sdlb.model.rollout import QUEUED, TAKE, Rollout, SlotAsk
from tests.core.test_rollouts import NEW, OLD, SPEC, Story

ROLLOUT = Rollout("r-1", NEW, OLD)


def ask(node: str, share: int = 100) -> SlotAsk:
    return SlotAsk("catalog", "r-1", 1, node, TAKE, share, waits=True)


def one_at_a_time(asked: SlotAsk, owned: Owned) -> str:
    return "one is out" if owned.slots else ""


def queue_of(*nodes: str) -> SlotQueue:
    queue = SlotQueue()
    for node in nodes:
        queue.hold(f"ask-{node}", ask(node), 0.0)
    return queue


def call(queue: SlotQueue, now: float, owned: Owned | None = None) -> list[str]:
    queue.call("catalog", owned or Owned("r-1"), one_at_a_time, now, now)
    return [id for id, answer in queue.take_answers() if answer.retry_s == 0.0]


def test_as_many_are_called_as_can_have_a_slot_in_the_order_in_which_they_asked() -> None:
    queue = queue_of("b", "a", "c")
    assert call(queue, 1.0) == ["ask-b"]
    assert call(queue, 1.5) == [], "its turn is not over"
    assert call(queue, 2.0 + TURN_S) == ["ask-a"], "b did not ask"
    queue.asked("catalog", "a")
    assert not queue.with_turns("catalog", Owned("r-1"), 2.5 + TURN_S, 0.0).slots
    assert call(queue, 2.5 + TURN_S) == ["ask-c"] and queue.services() == []


def test_no_request_is_open_for_ever_and_none_twice() -> None:
    queue = queue_of("a")
    out = Owned("r-1", slots={"z": Held(100, 0.0)})
    assert call(queue, HOLD_S - 1.0, out) == []
    assert call(queue, HOLD_S, out) == ["ask-a"] and queue.waits("catalog") == 0
    queue = queue_of("a")
    queue.hold("ask-again", ask("a"), 1.0)
    assert [id for id, _ in queue.take_answers()] == ["ask-a"]
    assert call(queue, 1.0) == ["ask-again"]


def test_no_node_waits_while_no_slot_is_open() -> None:
    """None is returned then, and the owner has to hear the requests to see that capacity is short."""
    queue = queue_of("a", "b")
    queue.call("catalog", Owned("r-1"), lambda asked, owned: "capacity is short", 1.0, 1.0)
    assert [(id, answer.why) for id, answer in queue.take_answers()] == [
        (f"ask-{n}", "capacity is short") for n in "ab"
    ]


def test_who_waits_for_another_rollout_is_answered() -> None:
    queue = queue_of("a", "b")
    queue.drop("catalog", ROLLOUT, "")
    assert queue.waits("catalog") == 2
    queue.drop("catalog", replace(ROLLOUT, id="r-2"), "it is r-2")
    answers = queue.take_answers()
    assert [id for id, _ in answers] == ["ask-a", "ask-b"] and all(a.retry_s > 0 and not a.granted for _, a in answers)


# ---------------------------------------------------------------------- in a tree


def waiting(story: Story) -> str:
    """A host whose request is open at the owner."""
    queue = story.forest["edge-1"].balancer._rollouts.queue
    end = story.forest.now + 30.0
    while not queue.waits("catalog"):
        assert story.forest.now < end, "no node waits"
        story.step()
    return next(iter(queue._waiting["catalog"]))


def _dies(story: Story, host: str) -> None:
    story.forest[host].kill()
    story.hosts.remove(host)


def _owner_restarts(story: Story, host: str) -> None:
    story.forest["edge-1"].restart()


def _restarts(story: Story, host: str) -> None:
    story.forest[host].restart()


def _is_cut_off_for_a_while(story: Story, host: str) -> None:
    story.forest.part(host, story.forest[host].parents[0])
    story.forest.run(15.0)
    story.forest.cut.clear()


def _is_not_heard(story: Story, host: str) -> None:
    """The request is lost, and the link stays."""
    story.forest["edge-1"].balancer._rollouts.queue._waiting.clear()


HARMS: list[Callable[[Story, str], None]] = [_dies, _owner_restarts, _restarts, _is_cut_off_for_a_while, _is_not_heard]


@pytest.mark.promise(9)
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("racks", [False, True])
def test_a_node_that_waits_gets_its_slot_whatever_happens(harm: Callable[[Story, str], None], racks: bool) -> None:
    above = "rack-1" if racks else "edge-1"
    tree: dict[str, tuple[str, ...]] = {"edge-1": (), **({"rack-1": ("edge-1",)} if racks else {})}
    story = Story({**tree, **{f"host-{n}": (above,) for n in range(1, 5)}}, max_unavailable="50%")
    story.start(NEW)
    host = waiting(story)
    assert story.agent(host)["phase"] == QUEUED
    story.broken.add(host)  # its capacity may be lost, but no other one
    harm(story, host)
    story.until("done", 2 * HOLD_S + 120.0)
    story.forest.run(5.0)
    assert story.all_run(NEW) and story.lowest >= 200, "the floor"


def test_a_pause_ends_the_wait_and_the_rollout_goes_on_after_it() -> None:
    story = Story()
    story.start(NEW, replace(SPEC, soak_s=10.0))
    host = waiting(story)
    assert story.order("pause") == ""
    story.forest.run(3.0)
    assert story.agent(host)["phase"] == "prepared"
    assert story.order("resume") == ""
    story.until("done")
    assert story.all_run(NEW) and story.lowest == 300
