"""Deadlines while control cannot reach its engine: an instance to which the engine may send requests has not
stopped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sdlb.core import events as ev
from sdlb.core.messages import UpState
from tests.core.forest import Forest, key_of

TREE: dict[str, tuple[str, ...]] = {"edge": (), "host-1": ("edge",), "host-2": ("edge",)}
OLD, NEW = key_of("1.0.1"), key_of("2.0.0")


def drains(forest: Forest) -> None:
    forest.remove("host-1", "a", 5.0)


def is_replaced(forest: Forest) -> None:
    forest.put("host-1", "a", "2.0.0", endpoint="127.0.0.1:2")


def lapses(forest: Forest) -> None:
    """The timer of its lease ends it."""


def lapses_and_is_removed(forest: Forest) -> None:
    forest.run(8.0)
    forest.remove("host-1", "a", 0.5)


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize("end", [drains, is_replaced, lapses, lapses_and_is_removed])
@pytest.mark.parametrize("in_flight", [False, True])
def test_a_deadline_passes_while_the_engine_is_out_of_reach(end: Callable[[Forest], None], in_flight: bool) -> None:
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1", ttl_s=6.0 if end in (lapses, lapses_and_is_removed) else 0.0)
    forest.put("host-2", "b", "2.0.0")
    host = forest["host-1"]
    if in_flight:
        host.engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    host.handle(ev.EngineLost())
    end(forest)
    forest.run(90.0)
    assert host.serves(OLD) == {"i:a"}, "the engine was told nothing"
    assert forest["host-2"].serves(NEW) == set()
    host.inbox.append(host.engine.attached())
    forest.run(2.0)
    assert host.serves(OLD) == set()
    assert forest["host-2"].serves(NEW) == {"i:b"}, "past its deadline, what is in flight is not waited for"


@pytest.mark.promise(3)
def test_a_deadline_is_reported_once_and_a_repeated_removal_gets_the_engines_answer() -> None:
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1")
    host = forest["host-1"]
    host.handle(ev.EngineLost())
    for _ in range(20):
        forest.remove("host-1", "a", 0.5)
        forest.run(0.5)
    assert [note.code for note in host.notes].count("drain-deadline") == 1
    assert host.state("a") == "draining"
    host.inbox.append(host.engine.attached())
    forest.run(1.0)
    assert host.state("a") == "gone"


@pytest.mark.promise(1, 2)
def test_a_node_that_stops_without_its_engine_reports_what_that_may_serve() -> None:
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    host = forest["host-1"]
    host.handle(ev.EngineLost())
    host.inbox.append(ev.Stop(1.0))
    forest.run(3.0)
    assert host.stopped is not None and not host.stopped.clean
    assert forest["host-2"].serves(NEW) == set()


@pytest.mark.promise(3, 5)
def test_the_cause_of_a_stop_is_sent_again_when_the_link_breaks() -> None:
    """A report of a stop that was lost with a link is sent again, so no long lease has to expire."""
    forest = Forest({"edge": (), "rack": ("edge",), "host-2": ("rack",)})
    forest.put("rack", "a", "1.0.1", ttl_s=3600.0)
    forest.put("host-2", "b", "2.0.0")
    forest.cut.add(frozenset(("rack", "edge")))  # in silence
    forest["rack"].inbox.append(ev.InstanceGone("a", "its process is gone"))
    forest.settle()
    assert forest["host-2"].state("b") == "waiting"
    forest.part("rack", "edge")
    forest.cut.clear()
    forest.run(6.0)
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(5)
def test_what_a_parent_has_received_is_not_sent_again() -> None:
    forest = Forest({"edge": (), "host-1": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    forest["host-1"].inbox.append(ev.InstanceGone("a", "its process is gone"))
    forest.run(4.0)
    assert forest["host-1"].balancer._parents.links["edge"].gone == {}
    sent = forest["host-1"].listen()
    forest.part("host-1", "edge")
    forest.cut.clear()
    forest.run(8.0)
    told = [gone for message in sent if isinstance(message, UpState) for gone in message.withdrawn]
    assert told == []


@pytest.mark.promise(1)
def test_the_last_report_is_kept_by_its_cause() -> None:
    """A claim that was presumed stopped does not become one that has stopped, however often the link breaks."""
    forest = Forest({"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("edge",)})
    forest.policy("edge", '{"on_silence": "wait"}')
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.part("rack", "edge")
    forest.part("host-1", "rack")
    forest.policy("edge", '{"on_silence": "wait"}')
    forest.run(40.0)
    for _ in range(3):
        forest.cut.discard(frozenset(("rack", "edge")))
        forest.run(6.0)
        forest.part("rack", "edge")
    assert forest["host-2"].state("b") == "waiting"
