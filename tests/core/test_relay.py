"""Calls that are forwarded to the roots: a root that hangs is named and does not delay the answers of the others."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core import events as ev
from sdlb.core.children import Children
from sdlb.core.effects import Answered, Execute, ToChild
from sdlb.core.events import AskDone
from sdlb.core.forwarding import Forwarder
from sdlb.core.messages import Answer, Ask, RootAnswer
from sdlb.core.parents import Parents
from sdlb.core.relay import DONE_BYTES_MAX, DONE_MAX, Relay
from sdlb.core.rollouts import Rollouts
from sdlb.core.settings import Settings
from sdlb.core.state import State
from tests.core.forest import Forest

TIERS = {
    "edge-1": (),
    "edge-2": (),
    "rack": ("edge-1", "edge-2"),
    "rack-of-racks": ("rack",),
    "host": ("rack-of-racks",),
}


@pytest.mark.parametrize("hung", [[], ["edge-1"], ["edge-1", "edge-2"]])
def test_an_ask_is_answered_by_the_roots_that_can_and_names_the_others(hung: list[str]) -> None:
    forest = Forest(TIERS)
    for root in hung:
        forest.cut.add(frozenset((root, "rack")))  # the link stays open, and nothing comes through
    forest["host"].inbox.append(ev.AskUp("a1", "GET", "/v1/services"))
    forest.run(5.0)
    (answered,) = forest["host"].answered
    assert [answer.root for answer in answered.answers] == [r for r in ("edge-1", "edge-2") if r not in hung]
    assert list(answered.unreachable) == hung


@given(st.lists(st.sampled_from([0, 100, DONE_BYTES_MAX // 3, DONE_BYTES_MAX, 2 * DONE_BYTES_MAX]), max_size=40))
def test_what_is_kept_of_answers_is_bounded(sizes: list[int]) -> None:
    """The newest answers that fit are kept, and none in part."""
    relay = Relay()
    for number, size in enumerate(sizes):
        ask = f"a{number}"
        assert relay.add(ask, None, {"p"}, 0.0)
        assert relay.answered("p", Answer(ask, (RootAnswer("root", 200, bytes(size)),)))
        assert relay.finish(ask, {"root"}) is not None
    kept = [n for n in range(len(sizes)) if relay.done(f"a{n}") is not None]
    assert sum(sizes[n] for n in kept) <= DONE_BYTES_MAX and len(kept) <= DONE_MAX
    assert kept == list(range(len(sizes) - len(kept), len(sizes)))
    if len(kept) < len(sizes):
        assert sum(sizes[-len(kept) - 1 :]) > DONE_BYTES_MAX


def test_a_repeated_call_is_answered_and_not_executed_again() -> None:
    state = State(Settings("edge", "id-edge", 1), Random(0))
    children = Children(state)
    forwarder = Forwarder(state, children, Parents(state, 0.0), Rollouts(state, children, state.reports, None))
    forwarder.ask(Ask("1", "PUT", "/x"), None, True, 0.0)
    forwarder.done_here(AskDone("1", 200, b""))
    forwarder.ask(Ask("1", "PUT", "/x"), 7, True, 1.0)
    kinds = [type(effect) for effect in state.effects]
    assert kinds == [Execute, Answered, ToChild]


def test_a_parent_that_is_lost_is_not_waited_for() -> None:
    relay = Relay()
    relay.add("1", None, {"p-1", "p-2"}, 0.0)
    assert relay.lost("p-1") == []
    assert relay.lost("p-2") == ["1"]
    assert relay.lost("p-2") == []
