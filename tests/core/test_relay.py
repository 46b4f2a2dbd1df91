"""Asks of the roots: a root that hangs is named, and costs the others' answer nothing."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
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
