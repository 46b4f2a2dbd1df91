"""Which effects wait for the disk, which pass, and what the beats contain meanwhile."""

from __future__ import annotations

from sdlb.core import effects as ef
from sdlb.core.events import EngineLost
from sdlb.core.messages import Beat, Bye, DownState, Hello, UpState
from sdlb.node.held_effects import HeldEffects


def holding(messages_max: int = 100) -> HeldEffects:
    hold = HeldEffects(messages_max)
    hold.on = True
    return hold


def rest(hold: HeldEffects) -> list[ef.Effect]:
    out: list[ef.Effect] = []
    while (effect := hold.pop()) is not None:
        out.append(effect)
    return out


def test_effects_of_decisions_wait_in_order_and_the_others_pass() -> None:
    hold = holding()
    waits: list[ef.Effect] = [
        ef.Apply(1),
        ef.ToParent("p", UpState(4)),
        ef.ToChild(1, DownState(7)),
        ef.ToParent("p", UpState(5)),
    ]
    passes: list[ef.Effect] = [
        ef.Note("a", "b"),
        ef.ToParent("q", Hello("n", "id", 1, "127.0.0.1:1")),
        ef.ToParent("q", Bye()),
        ef.Stopped(True),
    ]
    assert [hold.pass_or_hold(effect) for effect in waits] == [None] * 4
    assert [hold.pass_or_hold(effect) for effect in passes] == passes
    assert rest(hold) == waits
    assert not hold.on


def test_a_beat_counts_only_what_was_sent() -> None:
    hold = holding()
    assert hold.pass_or_hold(ef.ToParent("p", Beat(3, 9))) == ef.ToParent("p", Beat(3, 9))
    for seq in (4, 5):
        hold.pass_or_hold(ef.ToParent("p", UpState(seq)))
    hold.pass_or_hold(ef.ToChild(1, DownState(8)))
    assert hold.pass_or_hold(ef.ToParent("p", Beat(5, 9))) == ef.ToParent("p", Beat(3, 9))
    assert hold.pass_or_hold(ef.ToChild(1, Beat(8, 2))) == ef.ToChild(1, Beat(7, 2))
    assert hold.pass_or_hold(ef.ToChild(2, Beat(8, 2))) == ef.ToChild(2, Beat(8, 2))


def test_a_beat_keeps_its_has_say_field() -> None:
    hold = holding()
    hold.pass_or_hold(ef.ToChild(1, DownState(8)))
    assert hold.pass_or_hold(ef.ToChild(1, Beat(8, 2, has_say=False))) == ef.ToChild(1, Beat(7, 2, has_say=False))
    assert hold.pass_or_hold(ef.ToParent("p", Beat(8, 2, has_say=False))) == ef.ToParent("p", Beat(8, 2, has_say=False))


def test_what_is_held_for_a_link_or_an_engine_goes_with_it() -> None:
    hold = holding()
    hold.pass_or_hold(ef.Apply(1))
    hold.pass_or_hold(ef.ToParent("p", UpState(4)))
    hold.pass_or_hold(ef.ToParent("q", UpState(4)))
    assert hold.pass_or_hold(ef.Dial("p")) == ef.Dial("p")
    hold.event(EngineLost())
    assert hold.pass_or_hold(ef.ToParent("p", UpState(1))) is None
    assert hold.pass_or_hold(ef.ToParent("p", Beat(1, 0))) == ef.ToParent("p", Beat(0, 0))
    assert rest(hold) == [ef.ToParent("q", UpState(4)), ef.ToParent("p", UpState(1))]


def test_memory_is_bounded_and_a_gap_shows_what_was_lost() -> None:
    hold = holding(messages_max=3)
    hold.pass_or_hold(ef.Apply(1))
    for seq in range(2, 8):
        hold.pass_or_hold(ef.ToParent("p", UpState(seq)))
        assert len(hold) <= 3
    assert hold.pass_or_hold(ef.ToParent("p", Beat(7, 0))) == ef.ToParent("p", Beat(1, 0))
    left = rest(hold)
    assert left[0] == ef.Apply(1)
    assert left[1] != ef.ToParent("p", UpState(2))
