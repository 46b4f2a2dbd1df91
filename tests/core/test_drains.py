"""`drain` of a policy: what happens at the deadline of a drain, and to streams, in a tree of three tiers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdlb.core import events as ev
from sdlb.core.drains import SLOW_AGAIN_S
from tests.core.forest import Forest, key_of

TREE: dict[str, tuple[str, ...]] = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}
OLD, NEW = key_of("1.0.1"), key_of("2.5.1")
PATH = {"edge": "n:rack", "rack": "n:host-1", "host-1": "i:a"}


def serving(**drain: object) -> Forest:
    """A request to instance a of host-1 is in flight, through each tier."""
    forest = Forest(TREE)
    forest.policy("edge", json.dumps({"drain": drain, "cut_over": "flip", "park": {"timeout_s": 3600}}))
    forest.put("host-1", "a", "1.0.1")
    for name, target in PATH.items():
        forest[name].engine.in_flight[ev.EndpointKey(OLD, target)] = 1
    return forest


def finish(forest: Forest) -> None:
    for name, target in reversed(PATH.items()):
        forest.finish(name, ev.EndpointKey(OLD, target))


def run(forest: Forest, seconds: float) -> None:
    """The engines above notice when the host's engine ends the request."""
    for _ in range(round(seconds)):
        forest.run(1.0)
        if ev.EndpointKey(OLD, "i:a") not in forest["host-1"].engine.in_flight:
            finish(forest)


def drain(forest: Forest, deadline_s: float | None = None) -> None:
    forest["host-1"].inbox.append(ev.InstanceRemove("a", deadline_s))
    forest.settle()


def codes(forest: Forest) -> list[str]:
    return [note.code for note in forest["host-1"].notes if note.code.startswith("drain-")]


@pytest.mark.promise(3)
def test_a_drain_that_waits_reports_what_it_waits_for_and_goes_on() -> None:
    forest = serving(deadline_s=5, then="wait", streams_s=0)
    drain(forest)
    run(forest, 6.0)
    assert codes(forest) == ["drain-slow"] and forest["host-1"].state("a") == "draining"
    run(forest, SLOW_AGAIN_S)
    assert codes(forest) == ["drain-slow"] * 2 and not forest["host-1"].cuts
    finish(forest)
    assert forest["host-1"].state("a") == "gone"


def test_a_drain_that_cuts_ends_what_is_in_flight_at_its_deadline() -> None:
    forest = serving(deadline_s=5, then="cut", streams_s=0)
    drain(forest)
    run(forest, 4.0)
    assert not codes(forest) and forest["host-1"].state("a") == "draining"
    run(forest, 2.0)
    assert codes(forest) == ["drain-slow", "drain-deadline"] and forest["host-1"].state("a") == "gone"
    assert [(cut.endpoints, cut.streams_only) for cut in forest["host-1"].cuts] == [
        ((ev.EndpointKey(OLD, "i:a"),), False)
    ]


def test_a_policy_that_changes_while_a_drain_waits_counts_from_its_next_report() -> None:
    forest = serving(deadline_s=5, then="wait", streams_s=0)
    drain(forest)
    run(forest, 6.0)
    forest.policy("edge", json.dumps({"drain": {"deadline_s": 5, "then": "cut"}}))
    run(forest, SLOW_AGAIN_S)
    assert forest["host-1"].state("a") == "gone"


def test_a_call_with_its_own_deadline_brings_a_waiting_drain_to_its_end() -> None:
    forest = serving(deadline_s=5, then="wait", streams_s=0)
    drain(forest)
    run(forest, 6.0)
    drain(forest, 3.0)
    run(forest, 4.0)
    assert codes(forest)[-1] == "drain-deadline" and forest["host-1"].state("a") == "gone"


def test_a_call_with_a_longer_deadline_keeps_its_streams() -> None:
    forest = serving(deadline_s=5, then="wait", streams_s=8)
    drain(forest)
    run(forest, 2.0)
    forest["host-1"].inbox.append(ev.InstanceRemove("a", 60.0))
    run(forest, 20.0)
    assert not forest["host-1"].cuts and forest["host-1"].state("a") == "draining"


def test_a_drain_by_policy_stays_one_when_control_restarts() -> None:
    forest = serving(deadline_s=5, then="wait", streams_s=0)
    drain(forest)
    forest["host-1"].restart()
    run(forest, 60.0)
    assert "drain-deadline" not in codes(forest) and forest["host-1"].state("a") == "draining"


@pytest.mark.promise(1, 3)
@pytest.mark.parametrize("then", ["wait", "cut"])
def test_a_cut_over_waits_for_the_old_version_or_cuts_it_off(then: str) -> None:
    forest = serving(deadline_s=5, then=then, streams_s=3)
    forest.put("host-2", "b", "2.5.1")
    run(forest, 4.0)
    assert [cut.streams_only for cut in forest["host-1"].cuts] == [True], "streams end first"
    assert not forest["host-2"].serves(NEW)
    run(forest, 10.0)
    assert codes(forest) == ["drain-slow"]
    assert forest["host-2"].serves(NEW) == ({"i:b"} if then == "cut" else set())
    finish(forest)
    run(forest, 3.0)
    assert forest["host-2"].serves(NEW) == {"i:b"}
    kinds = {kind for node in forest.nodes.values() for kind, _ in node.balancer._state._set}
    assert not any(kind.startswith("recall") for kind in kinds), "no timer is left"


@settings(max_examples=25, deadline=None)
@given(
    deadline_s=st.integers(1, 12),
    then=st.sampled_from(["wait", "cut"]),
    streams_s=st.integers(0, 12),
    own_s=st.none() | st.integers(1, 12),
    takes_s=st.integers(1, 16),
)
def test_nothing_is_cut_off_that_the_policy_does_not_cut_off(
    deadline_s: int, then: str, streams_s: int, own_s: int | None, takes_s: int
) -> None:
    forest = serving(deadline_s=deadline_s, then=then, streams_s=streams_s)
    drain(forest, own_s)
    run(forest, takes_s)
    gone = forest["host-1"].state("a") == "gone"
    cuts = [cut.streams_only for cut in forest["host-1"].cuts]
    if own_s is not None:
        assert gone is (takes_s >= own_s) and not cuts
        return
    ended = then == "cut" and takes_s >= deadline_s
    assert gone is ended and (False in cuts) is ended
    if not ended:
        assert (True in cuts) is (0 < streams_s <= takes_s)
        assert ("drain-slow" in codes(forest)) is (takes_s >= deadline_s)
        finish(forest)
        assert forest["host-1"].state("a") == "gone"
