"""The judgement of `make chaos`: what each goal excuses, and that everything else breaks the run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.chaos.plan import KINDS, Step
from tools.chaos.report import Attempt, Done, Received, Report, longest_gap, old_after_new, report, table

BEGAN = 100.0


def done(kind: str, tier: str = "", *targets: str, rollout: bool = False, began: float = BEGAN) -> Done:
    """It struck within 0.1 s, was over after 5 s, and had converged a second later."""
    step = Step(1, kind, tier, targets, 5.0 if KINDS[kind].lasts else 0.0, rollout, False)
    return Done(step, began, began + 1.0, began + 1.1, began + 5.0, began + 6.0, frames=1)


GOOD = Attempt("a.1.0", "edge-1", "web", "GET", 0, False, 101.0, 101.02, 200, "", version="1.0.0", instance="host-1")


def lost(cause: str, **fields: object) -> Attempt:
    return replace(GOOD, **{"status": 0, "cause": cause, "version": "", "instance": "", **fields})  # pyright: ignore[reportArgumentType]


def judged(step: Done, *attempts: Attempt) -> Report:
    return report([step], attempts, [])


POST = {"method": "POST", "sent": BEGAN + 1.05, "done": BEGAN + 1.2}
"""In flight when it struck."""
PLANNED = [
    (kind.name, tier)
    for kind in KINDS.values()
    if kind.planned
    for tier in kind.tiers
    if (kind.name, tier) != ("stop", "edge")
]


# ------------------------------------------------------------------ what is lost


@pytest.mark.parametrize(("kind", "tier"), PLANNED)
@pytest.mark.parametrize(
    "cause", ["cut before the answer: x", "cut in the answer: x", "502: x", "503: x", "refused: x"]
)
def test_a_planned_change_loses_nothing(kind: str, tier: str, cause: str) -> None:
    result = judged(done(kind, tier, *([f"{tier}-1"] if tier else [])), GOOD, lost(cause, **POST))
    assert not result.held
    (row,) = result.rows
    assert (row.sent, row.unexcused, sum(row.lost.values())) == (2, 1, 1)
    assert "NOT EXCUSED" in table(result.rows)
    (told,) = result.broken
    assert f"step 1 ({kind}" in told and "edge-1 a.1.0 POST web" in told and "1.050 to 1.200 s" in told


def test_a_stopped_edge_may_refuse_and_no_more() -> None:
    stop = done("stop", "edge", "edge-1")
    assert judged(stop, lost("refused: x", moved=True, sent=101.2, done=101.2)).held
    assert not judged(stop, lost("cut before the answer: x", moved=True, sent=101.2, done=101.3)).held
    assert not judged(stop, lost("refused: x", moved=True, entry="edge-2", sent=101.2, done=101.2)).held
    assert not judged(stop, lost("refused: x", moved=True, sent=106.5, done=106.5)).held, "after it was back"


@pytest.mark.parametrize("kind", ["kill-engine", "kill-node", "kill-machine"])
def test_a_killed_host_takes_what_was_in_flight(kind: str) -> None:
    kill = done(kind, "host", "host-1")
    assert judged(kill, lost("502: x", **POST)).held
    assert judged(kill, lost("cut in the answer: x", sent=100.9, done=101.05)).held, "half an answer"
    assert not judged(kill, lost("502: x", **{**POST, "method": "GET"})).held, "to be repeated"
    assert not judged(kill, lost("502: x", **{**POST, "sent": 101.3, "done": 101.4})).held, "sent after the kill"
    assert not judged(kill, lost("502: x", **{**POST, "sent": 100.2, "done": 100.9})).held, "before it"
    assert not judged(kill, lost("refused: x", **POST)).held, "the edges live"


def test_a_killed_host_takes_nothing_that_another_received() -> None:
    kill, post = done("kill-machine", "host", "host-1"), lost("502: x", **POST)
    assert report([kill], [post], [Received("POST", post.id, "host-1")]).held
    assert not report([kill], [post], [Received("POST", post.id, "host-2")]).held
    rack = done("kill-node", "rack", "rack-1")
    assert report([rack], [post], [Received("POST", post.id, "host-2")]).held


def test_a_silent_peer_takes_what_is_sent_until_it_is_found() -> None:
    for kind, tier in (
        ("cut", "edge-rack"),
        ("one-way", "rack-host"),
        ("unplug", "rack"),
        ("power-off", "host"),
        ("pause-engine", "host"),
    ):
        silence = done(kind, tier, "rack-1", "host-1")
        assert judged(silence, lost("502: x", **{**POST, "sent": 103.0, "done": 104.9})).held
        assert not judged(silence, lost("502: x", **{**POST, "sent": 103.2, "done": 104.9})).held
        assert not judged(silence, lost("504: x", method="GET", sent=102.0, done=104.0)).held


def test_silence_is_found_within_two_seconds() -> None:
    silence = done("cut", "rack-host", "rack-1", "host-1")
    assert judged(silence, replace(GOOD, slow_ms=500, done=GOOD.sent + 2.5)).held
    late = replace(GOOD, slow_ms=500, done=GOOD.sent + 3.0)
    (told,) = judged(silence, late).broken
    assert "waited for over" in told
    shop = replace(late, service="shop")
    assert not judged(silence, shop).held
    assert judged(done("cut", "rack-host", "rack-1", "host-1", rollout=True), shop).held, "it waits for the rollout"


def test_a_killed_edge_takes_its_own_connections() -> None:
    kill = done("kill-node", "edge", "edge-1")
    for cause in ("cut before the answer: x", "cut in the answer: x", "refused: x"):
        assert judged(kill, lost(cause, **POST)).held
        assert not judged(kill, lost(cause, entry="edge-2", **POST)).held
    assert not judged(kill, lost("502: x", **POST)).held, "an answer of ours"
    (row,) = judged(kill, lost("refused: x", moved=True, sent=103.0, done=103.0)).rows
    assert (row.moved, sum(row.lost.values())) == (1, 0)


def test_a_request_in_flight_at_the_next_step_is_lost_by_that_one() -> None:
    before, kill = done("policy"), done("kill-node", "host", "host-1", began=110.0)
    slow = lost("502: x", method="POST", sent=109.9, done=111.05)
    assert report([before, kill], [slow], []).held
    assert not report([before, done("policy", began=110.0)], [slow], []).held


# ------------------------------------------------------------------ versions


def answer(version: str, sent: float, took: float = 0.01, service: str = "shop", entry: str = "edge-1") -> Attempt:
    return replace(GOOD, service=service, version=version, sent=sent, done=sent + took, entry=entry)


def test_an_old_answer_after_a_new_one_breaks_the_run() -> None:
    old = answer("1.0.0", 102.0, entry="edge-2")
    result = judged(done("rollout"), answer("1.0.0", 101.0), answer("2.0.0", 101.5), old)
    assert [row.old for row in result.rows] == [1]
    (told,) = result.broken
    assert "old version after a new one" in told and "edge-2" in told


def test_what_was_sent_before_may_be_answered_by_the_old_one() -> None:
    assert judged(done("rollout"), answer("1.0.0", 101.0, 2.0), answer("2.0.0", 101.5)).held
    assert judged(done("roll"), answer("1.0.1", 101.0), answer("1.0.0", 102.0)).held, "compatible"
    assert judged(done("rollout"), answer("2.0.0", 101.0, service="web"), answer("1.0.0", 102.0)).held, (
        "another service"
    )


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9), st.integers(1, 3)), max_size=12))
def test_old_after_new_by_its_definition(answers: list[tuple[int, int, int]]) -> None:
    attempts = [answer(f"{major}.0.0", float(sent), float(took)) for sent, took, major in sorted(answers)]
    wanted = [each for each in attempts if any(new.version > each.version and new.done < each.sent for new in attempts)]
    assert old_after_new(attempts) == wanted


def test_a_post_that_two_instances_received_breaks_the_run() -> None:
    post = replace(GOOD, method="POST")
    assert report([done("policy")], [post], [Received("POST", post.id, "host-1")]).held
    assert not report([done("policy")], [post], [Received("POST", post.id, "host-1")] * 2).held
    assert report([done("policy")], [GOOD], [Received("GET", GOOD.id, "host-1")] * 2).held


# ------------------------------------------------------------------ figures


def test_a_tree_that_does_not_converge_breaks_the_run() -> None:
    step = done("policy")
    step.converged, step.late = 0.0, "not within 60 s"
    (told,) = judged(step, GOOD).broken
    assert "not within 60 s" in told


def test_a_fault_that_touches_no_frame_has_shown_nothing() -> None:
    cut = done("cut", "rack-host", "rack-1", "host-1")
    assert judged(cut, GOOD).held
    cut.frames = 0
    assert not judged(cut, GOOD).held


@given(st.lists(st.floats(0, 10)))
def test_the_longest_gap_lies_within(moments: list[float]) -> None:
    gap = longest_gap(sorted(moments), 2.0, 8.0)
    assert 0 < gap <= 6.0
    assert longest_gap(sorted([*moments, 5.0]), 2.0, 8.0) <= gap
    inside = [2.0, *(moment for moment in sorted(moments) if 2.0 < moment < 8.0), 8.0]
    assert gap == max(inside[n + 1] - inside[n] for n in range(len(inside) - 1))


def test_the_outage_is_that_of_the_entry_and_service_that_had_the_longest() -> None:
    every = [replace(GOOD, done=100.0 + n / 10, sent=100.0 + n / 10 - 0.01) for n in range(61)]
    shop = [replace(each, service="shop") for each in every if not 102.0 < each.done < 104.0]
    other = [replace(each, entry="edge-2") for each in every]
    (row,) = judged(done("rollout"), *every, *shop, *other).rows
    assert row.outage_s["edge-1"] == pytest.approx(2.0, abs=0.11)  # pyright: ignore[reportUnknownMemberType]
    assert row.outage_s["edge-2"] == pytest.approx(0.1, abs=0.02)  # pyright: ignore[reportUnknownMemberType]
    assert "2.0" in table([row])
