"""A slow request is also sent to a second endpoint if the policy of its service allows hedging."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlb.wire.engine_pb2 import Balance, Delta, Service
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine
from tests.engine.test_limits import Held, named, until, world
from tests.engine.test_links import HTTP, NODE, ask, join, node

HEDGED = Service(hedge_ms=150, balance=Balance(algorithm=Balance.ROUND_ROBIN))


def hedges(engine: Engine, requests: int) -> tuple[int, int]:
    """The numbers of hedges that were begun and won, after `requests` requests."""
    engine.counter("requests_total", requests)
    return engine.counters.get("hedges_total", 0), engine.counters.get("hedges_won_total", 0)


def holding() -> Iterator[Held]:
    made = Held()
    yield made
    made.may.set()
    made.recorder.close()


@pytest.fixture
def held() -> Iterator[Held]:
    yield from holding()


@pytest.fixture
def other() -> Iterator[Held]:
    yield from holding()


def test_the_second_answers_first(held: Held) -> None:
    with named(b"quick") as quick, world(HEDGED, held.recorder, quick) as here:
        for _ in range(4):
            status, fields, _ = here.ask()
            assert (status, fields["x-name"]) == (200, "quick")
        assert held.asked >= 1 and len(quick.completed) == 4
        assert hedges(here.engine, 4) == (held.asked, held.asked)


def test_the_first_answers_after_all(held: Held, other: Held) -> None:
    with world(HEDGED, held.recorder, other.recorder) as here:
        asked = here.later()
        until(lambda: held.asked + other.asked == 1)
        first = held if held.asked else other
        until(lambda: held.asked + other.asked == 2)
        first.may.set()
        assert asked.result()[0] == 200
        assert hedges(here.engine, 1) == (1, 0)
        (held if first is other else other).may.set()
        assert [here.ask()[0] for _ in range(4)] == [200] * 4


def test_a_second_that_fails_leaves_the_first(held: Held) -> None:
    broken = Recorder(lambda _request, _number: None)
    with broken, world(HEDGED, held.recorder, broken) as here:
        asked = [here.later() for _ in range(2)]
        until(lambda: held.asked == 2)
        until(lambda: len(broken.completed) >= 1)
        held.may.set()
        assert [each.result()[0] for each in asked] == [200, 200]


@pytest.mark.parametrize(
    ("method", "service"),
    [("POST", HEDGED), ("GET", Service(hedge_ms=150, retries_max=0)), ("GET", Service())],
    ids=["not safe to do twice", "no repetitions", "not wanted"],
)
def test_a_request_that_must_not_be_hedged_is_sent_once(held: Held, other: Held, method: str, service: Service) -> None:
    copy = Service()
    copy.CopyFrom(service)
    copy.timeout_ms = 900
    with world(copy, held.recorder, other.recorder) as here:
        assert here.ask("/", method)[0] == 504
        assert held.asked + other.asked == 1
        assert hedges(here.engine, 1) == (0, 0)


def test_with_one_endpoint_it_waits_for_that(held: Held) -> None:
    with world(HEDGED, held.recorder) as here:
        asked = here.later()
        until(lambda: held.asked == 1)
        time.sleep(0.3)  # longer than the delay of a hedge
        held.may.set()
        assert asked.result()[0] == 200
        assert held.asked == 1
        assert hedges(here.engine, 1) == (0, 0)


def test_over_links_to_children(held: Held, tmp_path: Path) -> None:
    """The request at the slow endpoint is cancelled."""
    authority = Authority(tmp_path)
    with (
        named(b"quick") as quick,
        node("edge-1", authority, HTTP) as edge,
        node("host-1", authority, NODE) as slow,
        node("host-2", authority, NODE) as fast,
    ):
        slow.serve("*", held.recorder.endpoint)
        fast.serve("*", quick.endpoint)
        join(edge, slow, "host-1")
        join(edge, fast, "host-2")
        service = Service(name="web")
        service.MergeFrom(HEDGED)
        edge.apply(Delta(put_services=[service]))
        assert [ask(edge).status_code for _ in range(6)] == [200] * 6
        assert held.asked >= 1
        assert hedges(edge, 6) == (held.asked, held.asked)
        assert slow.counter("client_gone_total", held.asked) == held.asked
