"""Heartbeats are left out where a state message does as well."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import pytest

from sdlb.core import effects as ef
from sdlb.core.messages import Ask, Beat, DownState, UpState
from tests.core.forest import Forest


@pytest.mark.promise(7)
def test_a_state_message_stands_for_the_heartbeat_of_its_link() -> None:
    up, down = ef.ToParent("p", UpState(4)), ef.ToChild(1, DownState(7))
    spare = [ef.ToParent("p", Beat(3, 6), spare=True), ef.ToChild(1, Beat(6, 3), spare=True)]
    others = [ef.ToParent("q", Beat(1, 1), spare=True), ef.ToChild(2, Beat(1, 1), spare=True)]
    assert ef.without_spare([*spare, *others, up, down]) == [*others, up, down]
    assert ef.without_spare([*spare, ef.ToParent("p", Ask("a", "GET", "/"))]) == [
        *spare,
        ef.ToParent("p", Ask("a", "GET", "/")),
    ]


@pytest.mark.promise(4)
def test_a_heartbeat_with_news_is_sent_in_any_case() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.run(3.0)
    children = forest["edge"].balancer._children
    state = forest["edge"].balancer._state

    def spare(has_say: bool) -> list[bool]:
        state.effects.clear()
        children.beat(has_say)
        found = [each.spare for each in state.effects if isinstance(each, ef.ToChild)]
        state.effects.clear()
        return found

    assert [spare(say) for say in (True, False, False, True, True)] == [[True], [False], [True], [False], [True]]
