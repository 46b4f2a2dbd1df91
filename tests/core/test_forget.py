"""How a guarded node recovers: an operator reports which of the silent children have stopped."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from tests.core.forest import Forest

HOSTS = ("host-1", "host-2", "host-3")
TREE: dict[str, tuple[str, ...]] = {"edge": (), **dict.fromkeys(HOSTS, ("edge",))}
OLD = ClaimKey("catalog", "1.0.1", "example.com/*")
LONG = 200.0


def guarded() -> Forest:
    """Two of three hosts, which had the old version, are dead; the new one waits on the third."""
    forest = Forest(TREE)
    for host in HOSTS[:2]:
        forest.put(host, f"a-{host}", "1.0.1")
    forest.put("host-3", "b", "2.0.0")
    for host in HOSTS[:2]:
        forest[host].kill()
    forest.run(LONG)
    assert forest["edge"].balancer.view.guarded()
    assert forest["edge"].serves(OLD) == {"n:host-1", "n:host-2"}
    assert forest["host-3"].balancer.view.instance("b")["state"] == "waiting"
    return forest


def codes(forest: Forest) -> list[str]:
    return [note.code for note in forest["edge"].notes]


@pytest.mark.promise(2)
def test_a_forgotten_child_counts_as_stopped_at_once() -> None:
    forest = guarded()
    edge = forest["edge"]
    edge.inbox.append(ev.ForgetChild("host-1"))
    forest.settle()
    assert edge.balancer.view.child("host-1") is None
    assert edge.serves(OLD) == {"n:host-2"}
    assert "child-forgotten" in codes(forest)
    assert forest["host-3"].balancer.view.instance("b")["state"] == "waiting"  # host-2 is still on record
    edge.inbox.append(ev.ForgetChild("host-2"))
    forest.settle()
    assert not edge.balancer.view.guarded()
    assert forest["host-3"].balancer.view.instance("b")["state"] == "active"
    assert not any("host-1" in key or "host-2" in key for key in edge.disk)


def test_the_rest_follows_automatically_when_the_guard_is_lifted() -> None:
    forest = guarded()
    forest["edge"].inbox.append(ev.ForgetChild("host-1"))
    forest.settle()
    assert not forest["edge"].balancer.view.guarded()  # one of two is silent: no longer most
    forest.run(LONG)
    assert forest["edge"].balancer.view.child("host-2") is None
    assert forest["host-3"].balancer.view.instance("b")["state"] == "active"


def test_a_child_in_touch_or_unknown_is_not_forgotten() -> None:
    forest = Forest(TREE)
    forest.put("host-1", "a", "1.0.1")
    forest["host-1"].kill()  # its lease holds
    for name in (*HOSTS, "nobody"):
        forest["edge"].inbox.append(ev.ForgetChild(name))
        forest.settle()
    assert [forest["edge"].balancer.view.child(name)["state"] for name in HOSTS] == [
        "disconnected",
        "connected",
        "connected",
    ]
    assert forest["edge"].serves(OLD) == {"n:host-1"}
    assert "child-forgotten" not in codes(forest)


def test_an_operator_may_report_a_stop_where_silence_alone_is_not_enough() -> None:
    """With `on_silence = "wait"`, a stop must be reported by a node or by an operator."""
    forest = Forest(TREE)
    forest["edge"].handle(
        ev.PolicyPut("catalog", b'{"on_silence": "wait"}'),
    )
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-3", "b", "2.0.0")
    forest["host-1"].kill()
    forest.run(LONG)
    assert forest["host-3"].balancer.view.instance("b")["state"] == "waiting"
    forest["edge"].inbox.append(ev.ForgetChild("host-1"))
    forest.settle()
    assert forest["host-3"].balancer.view.instance("b")["state"] == "active"


@pytest.mark.promise(1)
def test_a_child_that_was_forgotten_and_returns_is_new() -> None:
    forest = guarded()
    for host in HOSTS[:2]:
        forest["edge"].inbox.append(ev.ForgetChild(host))
    forest.settle()
    assert forest["host-3"].balancer.view.instance("b")["state"] == "active"
    forest["host-1"].start()
    forest.run(30.0)
    assert forest["edge"].balancer.view.child("host-1")["state"] == "connected"
    assert forest["edge"].serves(OLD) == set()
    assert forest["host-1"].balancer.view.instance("a-host-1")["state"] == "waiting"
