"""State folders that are older or newer than the table of the engine: what the engine carries is finished all the same."""

from __future__ import annotations

import pytest

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from tests.core.forest import Forest, key_of

TREE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",), "host-3": ("rack",)}
OLD, NEW = key_of("1.0.1"), key_of("2.0.0")


def given_up(*, flight: bool = True) -> Forest:
    """host-1 was cut off until the tree opened 2.0.0 in place of its 1.0.1, which its engine serves on, with a request in
    flight. Then it gets an older state folder, and the link back."""
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put("host-1", "c", "1.0.1")
    forest.remove("host-1", "c")
    forest.part("host-1", "rack")
    forest.run(25.0)
    forest.put("host-2", "b", "2.0.0")
    assert forest["edge"].versions() == {"2.0.0": "active"} and forest["host-1"].serves(OLD)
    if flight:
        forest["host-1"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest["host-1"].restore(backup, rebooted=False)
    forest.cut.clear()
    return forest


def removed(forest: Forest) -> None:
    """The engine has been told to send nothing more, and drains."""
    for _ in range(60):
        forest.run(0.5)
        if not forest["host-1"].serves(OLD):
            return
    raise AssertionError("the engine still sends requests to a version that the tree has given up")


def finishes(forest: Forest, endpoint: ev.EndpointKey) -> None:
    """It is drained when its last request is complete, not before and not later."""
    forest.run(20.0)
    assert endpoint in forest["host-1"].engine.draining
    assert forest["host-1"].state("a") == "draining"
    forest.finish("host-1", endpoint)
    assert forest["host-1"].state("a") == "gone"


@pytest.mark.promise(2, 3)
@pytest.mark.parametrize("early", [True, False])
def test_an_instance_of_a_version_that_was_given_up_is_drained_when_its_last_request_is_complete(early: bool) -> None:
    forest = given_up()
    if early:  # while the node deletes nothing yet
        forest.remove("host-1", "a", 300.0)
        removed(forest)
    else:
        removed(forest)
        forest.remove("host-1", "a", 300.0)
    finishes(forest, ev.EndpointKey(OLD, "i:a"))


def test_it_is_drained_at_once_if_nothing_is_in_flight() -> None:
    forest = given_up(flight=False)
    removed(forest)
    forest.run(1.0)
    forest.remove("host-1", "a", 300.0)
    assert forest["host-1"].state("a") == "gone"
    assert "engine-lost" not in forest["host-1"].codes()


@pytest.mark.promise(8)
def test_a_control_that_is_killed_before_the_engine_has_answered_knows_it_too() -> None:
    """At each step from the deletion to the answer of the engine."""
    for steps in range(12):
        forest = given_up()
        forest.remove("host-1", "a", 300.0)
        while forest["host-1"].serves(OLD):
            if not forest.step():
                forest.tick(0.25)
        for _ in range(steps):
            forest.step()
        forest["host-1"].restart()
        forest.run(3.0)
        finishes(forest, ev.EndpointKey(OLD, "i:a"))


@pytest.mark.promise(4)
def test_a_broken_connection_to_the_engine_ends_no_waiting() -> None:
    """A restored node keeps what its engine serves until its parents have decided, also if the engine attaches twice."""
    forest = Forest(TREE)
    backup = forest["rack"].snapshot()
    forest.put("host-1", "a", "1.0.1")
    forest["edge"].kill()
    forest["rack"].restore(backup, rebooted=False)
    forest.run(1.0)
    forest["rack"].inbox.extend((ev.EngineLost(), forest["rack"].engine.attached()))
    for _ in range(100):
        forest.run(0.5)
        assert forest["rack"].serves(OLD)


@pytest.mark.promise(3)
def test_a_later_registration_that_the_folder_does_not_know_is_finished_too() -> None:
    """The folder has `a` as 1.0.1. Its engine has the registration that replaced it, with a request in flight."""
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1")
    backup = forest["host-1"].snapshot()
    forest.put("host-1", "a", "1.0.2", endpoint="127.0.0.1:9")
    forest.run(1.0)
    later = ev.EndpointKey(ClaimKey("catalog", "1.0.2", OLD.route), "i:a#2")
    assert later in forest["host-1"].engine.endpoints
    forest["host-1"].engine.in_flight[later] = 1
    forest["host-1"].restore(backup, rebooted=False)
    forest.run(1.0)
    forest.remove("host-1", "a", 300.0)
    finishes(forest, later)


def _lost(_: ef.Apply) -> list[ev.Event]:
    return []


@pytest.mark.promise(2, 3, 8)
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_root_that_is_killed_before_its_engine_knows_of_a_recall_waits_for_the_requests_in_flight(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recall is on disk, and its delta is lost with control. The next control deletes the endpoint with its first delta."""
    other = key_of("1.0.2")
    endpoint = ev.EndpointKey(other, "i:b")
    forest = Forest({"edge": ()})
    edge = forest["edge"]
    forest.put("edge", "a", "1.0.1")
    forest.put("edge", "b", "1.0.2")
    edge.engine.in_flight[endpoint] = 1
    engine = edge.engine
    monkeypatch.setattr(engine, "apply", _lost)
    edge.inbox.append(ev.PolicyPut("catalog", b'{"compatibility": {"deny": [["1.0.1", "1.0.2"]]}}'))
    for _ in range(steps):
        forest.step()
    monkeypatch.undo()
    edge.restart()
    forest.run(3.0)
    if not steps:  # the policy was lost
        assert edge.serves(other)
        return
    assert endpoint in engine.draining
    forest.remove("edge", "b", 300.0)
    forest.run(3.0)
    assert edge.state("b") == "draining"
    forest.finish("edge", endpoint)
    assert edge.state("b") == "gone"
