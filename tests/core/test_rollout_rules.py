"""The rules of a rollout's owner, as pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sdlb.core.rollout_rules import (
    Capacity,
    Conditions,
    Held,
    Owned,
    advance,
    can_wait,
    capacity_objection,
    capacity_of,
    given_back,
    granted,
    next_slot_s,
    nodes_out_max,
    slot_objection,
)
from sdlb.model.rollout import (
    CUTTING_OVER,
    DONE,
    DRAINING,
    HALTED,
    PAUSED,
    PREPARING,
    READY,
    ROLLING,
    UNDOING,
    UNDONE,
    RoleReport,
    Rollout,
    RolloutSpec,
    SlotReport,
    position,
    read_target,
    target_body,
)

ROLLOUT = Rollout("r-1", "1.0.2", "1.0.1", ROLLING, baseline=400, nodes=4, cursor=1.0)
NOW = Conditions(wall_s=1000.0, floor=300, best=400)


def report(*, nodes: int = 4, ready: int = 400, slots: tuple[str, ...] = (), **counts: int) -> RoleReport:
    held = tuple(SlotReport(node, "r-1", DRAINING, 100) for node in slots)
    return RoleReport(nodes=nodes, ready=ready, counts={f"r-1 {k}": n for k, n in counts.items()}, slots=held)


def objection(owned: Owned, found: RoleReport, share: int = 100, rollout: Rollout = ROLLOUT, **more: int) -> str:
    now = capacity_of(rollout, owned, found, 300)
    return slot_objection(
        rollout, owned, now, share, limit="", out=more.get("out", 0), nodes=more.get("nodes", 100), learning=False
    )


def test_a_node_that_is_refused_asks_again_when_its_turn_may_come() -> None:
    two = Owned("r-1", slots={"a": Held(100, 990.0), "b": Held(100, 995.0)})
    assert next_slot_s(Owned("r-1"), 30.0, 5, 1000.0) == 0.0, "no slot is open: something else is in its way"
    assert [next_slot_s(two, 30.0, before, 1000.0) for before in range(5)] == [20.0, 20.0, 50.0, 50.0, 80.0]
    assert next_slot_s(two, 30.0, 0, 1100.0) == 0.0, "one takes longer than usual"


# ---------------------------------------------------------------------- promise 9


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, int], set[str], int]:
    """Nodes with their capacity, those that are broken, and the percentage that may be out."""
    nodes = {f"n{i}": draw(st.integers(1, 500)) for i in range(draw(st.integers(1, 12)))}
    broken = draw(st.sets(st.sampled_from(sorted(nodes)), max_size=3))
    return nodes, broken, draw(st.integers(0, 100))


@pytest.mark.promise(9)
@given(trees(), st.data())
def test_no_order_of_grants_and_losses_takes_more_than_the_floor_allows(
    tree: tuple[dict[str, int], set[str], int], data: st.DataObject
) -> None:
    """Nodes ask, leave, come back and break in any order. Whatever is granted, the capacity of the nodes without a slot stays at
    the floor, unless a single node is out of a whole service."""
    nodes, broken, percent = tree
    baseline = sum(nodes.values())
    floor = -(-baseline * (100 - percent) // 100)
    rollout = replace(ROLLOUT, baseline=baseline, spec=RolloutSpec(nodes_out_max="100%", first=0))
    owned, out, lost = Owned("r-1"), set[str](), set(broken)
    for _ in range(data.draw(st.integers(1, 30))):
        node = data.draw(st.sampled_from(sorted(nodes)))
        ready = sum(c for n, c in nodes.items() if n not in out and n not in lost)
        found = RoleReport(len(nodes), ready=ready, slots=tuple(SlotReport(n, "r-1", DRAINING) for n in sorted(out)))
        match data.draw(st.sampled_from(["ask", "leave", "return", "break"])):
            case "ask" if node not in owned.slots:
                share = 0 if node in lost else nodes[node]
                now = capacity_of(rollout, owned, found, floor)
                if slot_objection(rollout, owned, now, share, limit="", out=len(owned.slots), nodes=99, learning=False):
                    continue
                owned = granted(owned, node, share, 0.0)
                left = sum(c for n, c in nodes.items() if n not in owned.slots and n not in lost)
                single = len(owned.slots) == 1 and not lost
                assert not share or left >= floor or (single and left > 0)
            case "leave" if node in owned.slots:
                out.add(node)
            case "return" if node in out:
                out.discard(node)
                lost.discard(node)
                owned = given_back(owned, node, None)
            case "break":
                lost.add(node)
            case _:
                pass


@pytest.mark.promise(9)
def test_a_slot_counts_until_the_report_shows_its_node_as_out_and_not_twice() -> None:
    owned = granted(Owned("r-1", updated=1), "a", 100, 0.0)
    assert objection(owned, report()) == "a capacity of 200 would be left of 400, and the floor is 300"
    assert capacity_of(ROLLOUT, owned, report(ready=300, slots=("a",)), 300).left == 300


@pytest.mark.promise(9)
def test_a_broken_node_costs_nothing_and_a_sole_one_needs_consent() -> None:
    low = Capacity(baseline=400, floor=300, ready=300, promised=0)
    assert capacity_objection(low, 100, alone=True, accept_gap=False)
    assert not capacity_objection(low, 0, alone=False, accept_gap=False)
    sole = Capacity(baseline=100, floor=75, ready=100, promised=0)
    assert capacity_objection(sole, 100, alone=True, accept_gap=False)
    assert not capacity_objection(sole, 100, alone=True, accept_gap=True)
    assert capacity_objection(sole, 100, alone=False, accept_gap=True)
    two = Capacity(baseline=200, floor=150, ready=200, promised=0)
    assert not capacity_objection(two, 100, alone=True, accept_gap=False), "one node may always be out"
    assert capacity_objection(replace(two, ready=190), 100, alone=True, accept_gap=False)


def test_the_first_node_is_updated_alone() -> None:
    wide = replace(ROLLOUT, spec=RolloutSpec(nodes_out_max="100%", first=1), baseline=4000)
    full = report(nodes=40, ready=4000)
    one = granted(Owned("r-1"), "a", 100, 0.0)
    assert "updated alone" in objection(one, full, rollout=wide)
    assert not objection(replace(one, updated=1), full, rollout=wide)
    assert not objection(one, full, rollout=replace(wide, state=UNDOING)), "going back is urgent"


def test_all_rollouts_count_together() -> None:
    assert "nodes are out" in objection(Owned("r-1", updated=1), report(), out=10, nodes=100)
    assert not objection(Owned("r-1", updated=1), report(), out=9, nodes=100)
    assert not objection(Owned("r-1", updated=1), report(), share=0, out=10, nodes=100)
    assert (nodes_out_max("10%", 4), nodes_out_max("10%", 29), nodes_out_max("3", 4)) == (1, 2, 3)


@pytest.mark.parametrize("state", [PREPARING, PAUSED, HALTED, CUTTING_OVER, UNDONE])
def test_no_slot_is_granted_in_other_states(state: str) -> None:
    assert state in objection(Owned("r-1"), report(), 0, replace(ROLLOUT, state=state))


def test_a_root_that_learns_grants_nothing() -> None:
    now = capacity_of(ROLLOUT, Owned(), report(), 300)
    assert slot_objection(ROLLOUT, Owned(), now, 0, limit="", out=0, nodes=4, learning=True)


def test_a_slot_is_granted_once_and_given_back_once() -> None:
    owned = granted(granted(Owned("r-1"), "a", 100, 5.0), "a", 50, 9.0)
    assert owned.slots == {"a": Held(100, 5.0)} and owned.taken == 1
    owned = given_back(given_back(owned, "a", None), "a", None)
    assert not owned.slots and owned.updated == 1
    assert given_back(owned, "b", "it crashed").failed == {"b": "it crashed"}


# ---------------------------------------------------------------------- steps


def test_nothing_stops_before_all_nodes_have_fetched() -> None:
    start = replace(ROLLOUT, state=PREPARING, baseline=0, cursor=0.0, started_s=900.0)
    partly = advance(start, Owned("r-1"), report(prepared=3), NOW)
    assert partly.state == PREPARING and partly.detail == "3 of 4 nodes have fetched 1.0.2"
    assert advance(start, Owned("r-1"), report(prepared=4), replace(NOW, learning=True)).state == PREPARING
    assert advance(start, Owned("r-1"), report(nodes=0), NOW).state == PREPARING
    rolling = advance(start, Owned("r-1"), report(prepared=4, ready=300), NOW)
    assert (rolling.state, rolling.baseline, rolling.cursor) == (ROLLING, 400, 1.0)


def test_a_node_that_cannot_fetch_halts_the_rollout() -> None:
    start = replace(ROLLOUT, state=PREPARING, started_s=900.0)
    bad = replace(report(prepared=3, failed=1), failed={"host-2": "the digest differs"})
    halted = advance(start, Owned("r-1"), bad, NOW)
    assert (halted.state, halted.detail) == (HALTED, "host-2: the digest differs")
    late = advance(start, Owned("r-1"), report(prepared=3), replace(NOW, wall_s=1501.0))
    assert late.state == HALTED and "only 3 of 4" in late.detail


def test_one_failure_more_than_accepted_halts() -> None:
    one = given_back(Owned("r-1"), "host-1", "exited with 3")
    assert advance(ROLLOUT, one, report(), NOW).detail == "host-1: exited with 3"
    lenient = replace(ROLLOUT, spec=RolloutSpec(failures_max=1))
    assert advance(lenient, one, report(), NOW).state == ROLLING


def test_it_is_done_when_every_node_is_and_no_slot_is_open() -> None:
    assert advance(ROLLOUT, Owned("r-1"), report(done=4), NOW).state == DONE
    assert advance(ROLLOUT, Owned("r-1"), report(done=3), NOW).state == ROLLING
    assert advance(ROLLOUT, granted(Owned("r-1"), "a", 0, 0.0), report(done=4), NOW).state == ROLLING
    assert advance(ROLLOUT, Owned("r-1"), report(done=4), replace(NOW, learning=True)).state == ROLLING
    assert advance(ROLLOUT, Owned("r-1"), report(nodes=0), NOW).state == ROLLING


def test_the_cut_over_waits_for_all_nodes_the_floor_and_the_gates() -> None:
    other = replace(ROLLOUT, incompatible=True)
    ready = replace(report(ready=400), waiting={"1.0.2": 400})
    some = replace(ready, counts={f"r-1 {READY}": 3})
    all_of_them = replace(ready, counts={f"r-1 {READY}": 4})
    assert advance(other, Owned("r-1"), some, NOW).state == ROLLING
    assert advance(other, Owned("r-1"), all_of_them, NOW).state == CUTTING_OVER
    few = replace(all_of_them, waiting={"1.0.2": 299})
    assert "299" in advance(other, Owned("r-1"), few, NOW).detail
    shut = advance(other, Owned("r-1"), all_of_them, replace(NOW, objection="gate window: opens at 09:00"))
    assert (shut.state, shut.detail) == (ROLLING, "gate window: opens at 09:00")
    open_slot = granted(Owned("r-1"), "a", 0, 0.0)
    assert advance(other, open_slot, all_of_them, NOW).state == ROLLING


def test_not_side_by_side_it_cuts_over_when_no_more_node_may_leave() -> None:
    other = replace(ROLLOUT, incompatible=True)
    held = replace(NOW, held=True)
    assert advance(other, Owned("r-1"), report(), held).state == ROLLING
    accepts = replace(other, spec=RolloutSpec(accept_gap=True))
    assert advance(accepts, Owned("r-1"), report(), held).state == CUTTING_OVER
    assert advance(accepts, Owned("r-1"), report(), NOW).state == ROLLING
    failed = replace(accepts, spec=RolloutSpec(accept_gap=True, failures_max=1))
    assert advance(failed, Owned("r-1", failed={"host-1": "x"}), report(), held).state == ROLLING, "it has only failed"
    assert advance(failed, Owned("r-1", failed={"host-1": "x"}, updated=1), report(), held).one_way
    assert not advance(accepts, Owned("r-1"), report(), held).one_way, "it may have to go back"


def test_a_flip_is_followed_and_a_reverted_one_pauses() -> None:
    other, flips = replace(ROLLOUT, incompatible=True), replace(NOW, flips=True)
    ready = replace(report(ready=400), counts={f"r-1 {READY}": 4}, waiting={"1.0.2": 400})
    assert advance(other, Owned("r-1"), ready, flips).state == ROLLING
    assert advance(other, Owned("r-1"), ready, replace(flips, active=True)).state == CUTTING_OVER
    paused = advance(other, Owned("r-1"), ready, replace(flips, reverted="the hook said no"))
    assert (paused.state, paused.detail) == (PAUSED, "the hook said no")


def test_it_is_undone_when_every_node_is_back() -> None:
    undoing, begun = replace(ROLLOUT, state=UNDOING), Owned("r-1", taken=2)
    assert advance(undoing, begun, report(current=3, done=1), NOW).state == UNDOING
    assert advance(undoing, granted(begun, "a", 0, 0.0), report(current=4), NOW).state == UNDOING
    assert advance(undoing, begun, report(current=4), NOW).state == UNDONE


def test_the_cursor_moves_a_bounded_number_of_times() -> None:
    """Each move is one message to every node of the tree."""
    rollout = replace(ROLLOUT, cursor=8 / 1000, baseline=100_000)
    big, moves = report(nodes=1000, ready=100_000, prepared=1000), 0
    owned = Owned("r-1", updated=1)
    assert advance(rollout, Owned("r-1"), big, NOW).cursor == rollout.cursor, "the first one is alone"
    assert advance(rollout, owned, big, replace(NOW, asking=1)).cursor == rollout.cursor, "enough nodes ask"
    while rollout.cursor < 1.0:
        rollout, moves = advance(rollout, owned, big, NOW), moves + 1
    assert moves <= 17


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_position_is_a_place_in_the_order(rollout: str, node: str) -> None:
    assert 0 <= position(rollout, node) < 1 and position(rollout, node) == position(rollout, node)


def test_a_target_survives_its_document_and_bad_ones_are_none() -> None:
    from sdlb.model.rollout import Target

    target = Target("catalog", "1.0.1", ROLLOUT, {"1.0.2": {"service": "catalog"}}, (ROLLOUT,))
    assert read_target(target_body(target)) == target
    for body in (b"", b"{}", b"[1]", b"\xff", b'{"service": 3}', b"[" * 100_000):
        assert read_target(body) is None


@pytest.mark.parametrize(
    ("before", "change", "waits"),
    [
        (PREPARING, {"state": ROLLING, "cursor": 0.1, "baseline": 400}, True),
        (ROLLING, {"cursor": 1.0, "turn_s": 5.0}, True),
        (ROLLING, {"state": DONE, "ended_s": 5.0}, True),
        (UNDOING, {"state": UNDONE, "ended_s": 5.0}, True),
        (ROLLING, {"state": HALTED}, False),
        (CUTTING_OVER, {"state": DONE}, False),
        (ROLLING, {"state": PAUSED}, False),
        (ROLLING, {"state": CUTTING_OVER}, False),
        (ROLLING, {"share": 0.0}, False),
        (ROLLING, {"at_step": 1}, False),
    ],
)
def test_only_steps_that_stop_nothing_wait_for_the_heartbeat(
    before: str, change: dict[str, object], waits: bool
) -> None:
    rollout = Rollout("r-1", "1.0.2", "1.0.1", before)
    assert can_wait(rollout, replace(rollout, **change)) is waits  # type: ignore[arg-type]
