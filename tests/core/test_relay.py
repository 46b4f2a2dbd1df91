"""Asks of the roots: a root that hangs is named, and costs the others' answer nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdlb.core import events as ev
from sdlb.core.messages import Answer, RootAnswer
from sdlb.core.relay import DONE_BYTES_MAX, DONE_MAX, Relay
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
    """The newest that fit, none in part."""
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
