"""Nodes of neighbouring releases in one tree: which protocol they speak, and what the older one gets."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import (
    PROTOCOL_MAX,
    PROTOCOL_MIN,
    Bye,
    Cause,
    DownState,
    Gone,
    Hello,
    Refused,
    UpMessage,
    UpState,
    Welcome,
)
from sdlb.wire import tree as tree_wire
from tests.core.forest import Forest, key_of
from tests.core.node import Node

KEY = key_of("1.0.1")
RANGES = [(least, most) for most in range(PROTOCOL_MAX + 3) for least in range(most + 1)]


def greeted(hello: Hello) -> tuple[Node, object]:
    """What a root answers."""
    root = Forest({"root": ()})["root"]
    effects = root.balancer.handle(ev.ChildConnected(7, hello), root.forest.now)
    said = [effect.message for effect in effects if isinstance(effect, ef.ToChild)]
    return root, said[0]


def hello_of(least: int, most: int) -> Hello:
    return Hello("host", "id-host", 1, "10.0.0.9:80", protocol=least, protocol_max=most)


@pytest.mark.promise(5)
@pytest.mark.parametrize(("least", "most"), RANGES)
def test_two_releases_speak_the_newest_protocol_that_both_know(least: int, most: int) -> None:
    root, said = greeted(hello_of(least, most))
    if least <= PROTOCOL_MAX and most >= PROTOCOL_MIN:
        assert isinstance(said, Welcome)
        assert said.protocol == min(most, PROTOCOL_MAX)
        assert root.balancer.view.child("host") is not None
    else:
        assert isinstance(said, Refused)
        assert said.code == "protocol"
        assert f"{PROTOCOL_MIN} to {PROTOCOL_MAX}" in said.detail and f"{least} to {most}" in said.detail
        assert root.balancer.view.child("host") is None


def test_a_hello_of_the_release_before_names_no_range() -> None:
    old = tree_wire.encode_up(hello_of(1, 0))
    read = tree_wire.decode_up(old)
    assert isinstance(read, Hello)
    assert (read.protocol, read.protocol_max) == (1, 1)
    _, said = greeted(read)
    assert isinstance(said, Welcome)
    assert said.protocol == 1


def old_parent(forest: Forest, *, docs: bool = True) -> Node:
    """From here on the host's parent is of the release before: its Welcome names no protocol. `docs` False: it has none to
    send."""
    real = forest.send_down

    def older(parent: Node, link: int, message: object) -> None:
        if isinstance(message, Welcome):
            message = replace(message, protocol=1, nonce="", verdicts_kept=False)
        if isinstance(message, DownState) and not docs:
            message = replace(message, docs=())
        real(parent, link, message)

    forest.send_down = older  # type: ignore[method-assign]
    forest.part("host", "edge")
    forest.cut.clear()
    forest.run(1.0)
    assert forest["host"].balancer.view.parents()[0]["state"] == "connected"
    return forest["host"]


@pytest.mark.promise(5)
def test_a_parent_of_protocol_1_is_sent_no_causes() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.1", ttl_s=15.0)
    forest.put("host", "b", "1.0.2")
    node = old_parent(forest)
    said = node.listen()
    forest.run(40.0)  # the lease of "a" is over: presumed to have stopped
    gone = [each for message in said if isinstance(message, UpState) for each in message.withdrawn]
    assert gone == [Gone(KEY, Cause.STOPPED)]
    node.handle(ev.Stop(5.0))
    forest.settle()
    assert [message for message in said if isinstance(message, Bye)] == [Bye()]


def test_a_parent_of_this_release_is_sent_causes() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.1", ttl_s=15.0)
    said = forest["host"].listen()
    forest.run(40.0)
    gone = [each for message in said if isinstance(message, UpState) for each in message.withdrawn]
    assert gone == [Gone(KEY, Cause.PRESUMED)]


@pytest.mark.promise(5)
def test_a_parent_of_protocol_1_takes_no_policy_away_by_not_sending_it() -> None:
    """A parent of protocol 1 does not send documents that both hold, so their absence does not drop them."""
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.1")
    forest.policy("edge", '{"priority": "higher"}')
    node = old_parent(forest, docs=False)
    forest.run(60.0)
    doc = node.balancer.view.policy("catalog")
    assert doc is not None and b"higher" in doc.body


def of_protocol_1(message: UpMessage) -> UpMessage:
    if isinstance(message, Hello):
        return replace(message, protocol_max=1, nonce="", verdicts_digest=0, features=())
    if isinstance(message, UpState):
        claims = tuple(replace(claim, scope=(), granted=(), doubted=0, refused=()) for claim in message.claims)
        return replace(message, claims=claims, roots=None)
    return message


@pytest.mark.promise(1)
def test_a_child_of_protocol_1_counts_like_any_other() -> None:
    """Decisions of a child of protocol 1 have no scope: they are compared as they are and counted like those of any
    other child."""
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")

    forest["host-2"].forge = of_protocol_1
    forest["host-2"].restart()
    forest.run(3.0)
    forest.put("host-2", "b", "2.0.0")
    forest.watch.append(forest.one_generation)
    forest.run(20.0)
    assert forest["host-2"].state("b") == "waiting"
    forest.remove("host-1", "a")
    assert forest["host-2"].state("b") == "active"
    assert forest["edge"].generation() == 2
    forest["edge"].restart()
    forest.run(20.0)
    assert forest["host-2"].state("b") == "active"
    forest["host-2"].handle(ev.Stop(5.0))
    forest.settle()
    assert forest["edge"].balancer.view.child("host-2") is None


@pytest.mark.promise(1)
@pytest.mark.promise(2)
def test_a_rack_of_protocol_1_that_leaves_has_not_stopped_what_is_below_it() -> None:
    """Its Bye cannot list the claims that may still be served, so they are kept as remnants."""
    forest = Forest({"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("edge",)})

    def older(message: UpMessage) -> UpMessage:
        return Bye() if isinstance(message, Bye) else of_protocol_1(message)

    forest["rack"].forge = older
    forest["rack"].restart()
    forest.run(3.0)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest["rack"].handle(ev.Stop(5.0))
    forest.settle()
    forest["rack"].kill()
    assert forest["edge"].balancer.view.child("rack") is None
    assert forest["host-1"].serves(KEY) == {"i:a"}
    for _ in range(18):
        assert forest["host-2"].state("b") == "waiting"
        forest.run(1.0)
    forest.run(10.0)
    assert forest["host-2"].state("b") == "active"
