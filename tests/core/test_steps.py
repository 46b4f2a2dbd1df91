"""The states of a source and of a slot: every state with every step, written out. "-": a bug."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

import pytest

from sdlb.core.messages import Claim, ClaimKey
from sdlb.core.slot import TRANSITIONS, Phase, Slot, Transition
from sdlb.core.source import ENDPOINT, OUT, SILENT, STEPS, Source, Standing, Step

KEY = ClaimKey("catalog", "1.0.1", "example.com/*")
State = TypeVar("State", bound=Enum)
Move = TypeVar("Move", bound=Enum)

SOURCES = """
             admit     leave    stay      return    expire  silence   heard     omit      presume   stop
    claimed  admitted  leaving  claimed   -         forced  claimed   claimed   remnant   presumed  gone
    admitted admitted  leaving  admitted  -         forced  suspect   admitted  remnant   presumed  gone
    suspect  -         leaving  suspect   -         -       suspect   admitted  remnant   presumed  gone
    leaving  -         leaving  claimed   admitted  forced  leaving   leaving   remnant   presumed  gone
    forced   -         forced   claimed   -         forced  -         -         -         presumed  gone
    remnant  -         -        -         -         -       -         -         -         presumed  gone
    presumed -         leaving  claimed   -         -       presumed  claimed   presumed  presumed  gone
    gone     -         -        -         -         -       -         -         -         -         -
"""
SLOTS = """
             grant  recall   conform
    shut     open   -        shut
    open     open   closing  -
    closing  open   -        shut
"""


def read(text: str, states: type[State], moves: type[Move]) -> list[tuple[State, Move, State | None]]:
    head, *lines = [line.split() for line in text.strip().splitlines()]
    rows = [
        (states(state), moves(move), None if after == "-" else states(after))
        for state, *row in lines
        for move, after in zip(head, row, strict=True)
    ]
    assert {(state, move) for state, move, _ in rows} == {(state, move) for state in states for move in moves}
    return rows


@pytest.mark.parametrize(("state", "step", "after"), read(SOURCES, Standing, Step))
def test_each_step_of_a_source(state: Standing, step: Step, after: Standing | None) -> None:
    source = Source("n:host-1", Claim(KEY), "host-1", state)
    if after is None:
        with pytest.raises(KeyError):
            source.step(step)
        assert source.standing is state
    else:
        source.step(step)
        assert source.standing is after
    assert ((state, step) in STEPS) == (after is not None)


@pytest.mark.parametrize(("phase", "transition", "after"), read(SLOTS, Phase, Transition))
def test_each_transition_of_a_slot(phase: Phase, transition: Transition, after: Phase | None) -> None:
    slot = Slot(KEY, phase=phase)
    if after is None:
        with pytest.raises(KeyError):
            slot.transition(transition)
        assert slot.phase is phase
    else:
        slot.transition(transition)
        assert slot.phase is after
    assert ((phase, transition) in TRANSITIONS) == (after is not None)


def test_every_standing_can_be_reached_and_left() -> None:
    reached = {Standing.CLAIMED}
    while more := {after for (state, _), after in STEPS.items() if state in reached} - reached:
        reached |= more
    assert reached == set(Standing)
    assert {state for state, _ in STEPS} == set(Standing) - {Standing.GONE}


def test_what_gets_new_requests_what_leaves_and_what_is_silent() -> None:
    assert {Standing.ADMITTED, Standing.SUSPECT} == ENDPOINT
    assert {Standing.LEAVING, Standing.FORCED} == OUT
    assert {Standing.SUSPECT, Standing.REMNANT, Standing.PRESUMED} == SILENT
    assert not ENDPOINT & OUT


@pytest.mark.parametrize("step", [Step.LEAVE, Step.STAY, Step.HEARD])
def test_what_was_presumed_stopped_returns_as_a_new_claim(step: Step) -> None:
    """Promise 1: an incompatible version may have opened meanwhile."""
    assert STEPS[Standing.PRESUMED, step] not in ENDPOINT
