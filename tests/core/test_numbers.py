"""Numbers that only grow (epochs, drains), and timers: what the parts of a `Balancer` share."""

from __future__ import annotations

from random import Random

import pytest

from sdlb.core.messages import ACTIVE, WAITING, Doc, DownState, Verdict
from sdlb.core.settings import Settings
from sdlb.core.slot import Part, Phase, Slot
from sdlb.core.state import TIMERS_MAX, State
from tests.core.forest import Forest, key_of


def state_of(incarnation: int = 1) -> State:
    return State(Settings("edge", "id-edge", incarnation), Random(0))


def test_numbers_grow_over_a_restart() -> None:
    before, after = state_of(4), state_of(5)
    assert max(before.next_number() for _ in range(100)) < after.next_number()
    assert after.next_number() < after.next_number()


def test_numbers_go_on_above_all_that_another_process_has_used() -> None:
    state = state_of(2)
    state.reincarnate(9)
    assert state.incarnation == 9
    assert state.next_number() > 9 << 32
    assert state.table.epoch >= 9 << 32


@pytest.mark.promise(1)
def test_each_grant_and_each_recall_has_a_new_epoch() -> None:
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    sent = forest["edge"].listen()
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    allow = '{"compatibility": {"allow": [["1.0.1", "2.0.0"]]}}'
    for body in (allow, "{}", allow):
        forest.policy("edge", body)
    told = [verdict for each in sent if isinstance(each, DownState) for verdict in each.verdicts]
    changes: list[Verdict] = []
    for verdict in told:
        if verdict.key == key_of("2.0.0") and (not changes or changes[-1].state != verdict.state):
            changes.append(verdict)
    assert [verdict.state for verdict in changes] == [WAITING, ACTIVE, WAITING, ACTIVE]
    epochs = [verdict.epoch for verdict in changes]
    assert epochs == sorted(set(epochs))


def test_the_time_that_was_set_last_holds() -> None:
    state = state_of()
    state.set_timer(5.0, "lease", "a")
    state.set_timer(9.0, "lease", "a")
    state.set_timer(4.0, "lease", "b")
    assert list(state.due_timers(8.0)) == [("lease", "b")]
    assert state.next_timer() == 9.0
    state.set_timer(7.0, "lease", "a")
    assert list(state.due_timers(7.0)) == [("lease", "a")]
    assert state.next_timer() is None and state.timers == 0


@pytest.mark.promise(7)
def test_many_timers_at_once_are_due_a_part_at_a_time_the_earliest_first() -> None:
    state = state_of()
    for number in range(TIMERS_MAX + 3):
        state.set_timer(1000.0 - number, "lease", str(number))
    first = list(state.due_timers(2000.0))
    assert first == [("lease", str(number)) for number in range(TIMERS_MAX + 2, 2, -1)]
    assert list(state.due_timers(2000.0)) == [("lease", str(number)) for number in (2, 1, 0)]


def test_one_write_that_has_to_be_durable_makes_the_batch_durable() -> None:
    state = state_of()
    for durable in (False, True, False):
        state.persist("x", 1, durable)
    assert state.durable


def test_a_recall_is_confirmed_by_its_own_epoch() -> None:
    for seen, waits in ((8, True), (9, False)):
        slot = Slot(key_of("1.0.1"), phase=Phase.CLOSING, revoked_epoch=9, epoch=9)
        slot.put_part("n:host", Part(seen=seen, child=True))
        assert (slot.may_be_open_below(), slot.conforms_below()) == (waits, not waits)


def test_documents_of_one_revision_have_an_order_and_are_durable() -> None:
    one, other = (Doc("policy", "catalog", 1, "edge", body) for body in (b"{}", b"{ }"))
    assert one.rank != other.rank
    state = state_of()
    assert state.policies.adopt(max(one, other, key=lambda doc: doc.rank))
    assert state.durable
    assert not state.policies.adopt(min(one, other, key=lambda doc: doc.rank))
