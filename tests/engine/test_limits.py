"""The policy of a service in the engine: limits, queues, timeouts, retries, load balancing and outlier ejection."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from sdlb.wire.engine_pb2 import Balance, Delta, Listener, Outlier, Service, ServiceLimits
from tests.compliance.recorder import OK, Recorder
from tests.engine.engine import Engine, until

HTTP = [Listener(key="http", address="127.0.0.1:0")]
WITHIN_S = 10.0


class Held:
    """An endpoint that answers when it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.recorder = Recorder(self._answer)

    def _answer(self, _request: bytes, _number: int) -> bytes:
        self.may.wait(WITHIN_S)
        return OK

    @property
    def asked(self) -> int:
        return len(self.recorder.completed)


class World:
    def __init__(self, stack: ExitStack, service: Service, *recorders: Recorder) -> None:
        self.engine = stack.enter_context(Engine(HTTP))
        self.engine.serve("*", *[recorder.endpoint for recorder in recorders])
        self.set(service)
        self.pool = stack.enter_context(ThreadPoolExecutor(32))

    def set(self, service: Service) -> None:
        service.name = "web"
        self.engine.apply(Delta(put_services=[service]))

    def ask(self, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], float]:
        began = time.monotonic()
        connection = http.client.HTTPConnection(*self.engine.address["http"], timeout=WITHIN_S)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            answer.read()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, fields, time.monotonic() - began
        finally:
            connection.close()

    def later(self, *args: str, **headers: str) -> Future[tuple[int, dict[str, str], float]]:
        return self.pool.submit(self.ask, *args, **headers)


@contextmanager
def world(service: Service, *recorders: Recorder) -> Generator[World]:
    with ExitStack() as stack:
        yield World(stack, service, *recorders)


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.may.set()
    made.recorder.close()


# ------------------------------------------------------------------ in flight


def test_past_the_limit_in_flight_the_answer_comes_at_once(held: Held) -> None:
    with world(Service(limits=ServiceLimits(in_flight=2)), held.recorder) as here:
        busy = [here.later() for _ in range(2)]
        until(lambda: held.asked == 2)
        status, fields, _ = here.ask()
        assert (status, fields["retry-after"]) == (503, "1")
        assert "error=connection_limit_reached" in fields["proxy-status"]
        assert here.engine.counter("limit_in_flight_total") == 1
        held.may.set()
        assert [each.result()[0] for each in busy] == [200, 200]
        assert here.ask()[0] == 200
        assert held.asked == 3, "what was refused was sent to nobody"


def test_a_limit_is_lifted_live(held: Held) -> None:
    with world(Service(limits=ServiceLimits(in_flight=1)), held.recorder) as here:
        busy = here.later()
        until(lambda: held.asked == 1)
        assert here.ask()[0] == 503
        here.engine.apply(Delta(delete_services=["web"]))
        other = here.later()
        until(lambda: held.asked == 2)
        held.may.set()
        assert busy.result()[0] == other.result()[0] == 200


def test_queued_requests_get_capacity_in_order(held: Held) -> None:
    limits = ServiceLimits(in_flight=1, pending=3, pending_timeout_ms=9_000)
    with world(Service(limits=limits), held.recorder) as here:
        busy = here.later()
        until(lambda: held.asked == 1)
        waiting = [here.later(f"/{number}") for number in range(3)]
        here.engine.counter("pending_now", 3)
        assert here.ask()[0] == 503
        assert here.engine.counter("limit_pending_total") == 1
        held.may.set()
        assert [each.result()[0] for each in (busy, *waiting)] == [200] * 4


def test_a_request_that_waits_too_long_gets_503(held: Held) -> None:
    limits = ServiceLimits(in_flight=1, pending=3, pending_timeout_ms=300)
    with world(Service(limits=limits), held.recorder) as here:
        busy = here.later()
        until(lambda: held.asked == 1)
        status, _, took_s = here.ask()
        assert status == 503 and took_s >= 0.3
        assert here.engine.counter("timeout_pending_total") == 1
        held.may.set()
        assert busy.result()[0] == 200


def test_a_client_that_goes_gives_its_place_in_the_queue_back(held: Held) -> None:
    limits = ServiceLimits(in_flight=1, pending=1, pending_timeout_ms=9_000)
    with world(Service(limits=limits), held.recorder) as here:
        busy = here.later()
        until(lambda: held.asked == 1)
        with socket.create_connection(here.engine.address["http"]) as gone:
            gone.sendall(b"GET /gone HTTP/1.1\r\nHost: a.example\r\n\r\n")
            here.engine.counter("pending_now")
        here.engine.counter("client_gone_total")
        waiting = here.later()
        held.may.set()
        assert busy.result()[0] == waiting.result()[0] == 200
        assert b"/gone" not in held.recorder.received


def test_low_priority_requests_are_shed_first(held: Held) -> None:
    with world(Service(limits=ServiceLimits(in_flight=10)), held.recorder) as here:
        busy = [here.later() for _ in range(8)]
        until(lambda: held.asked == 8)
        assert here.ask(Priority="u=7")[0] == 503
        assert here.engine.counter("limit_priority_total") == 1
        busy.append(here.later(Priority="u=4, i"))
        until(lambda: held.asked == 9)
        assert here.ask(Priority="u=5")[0] == 503
        busy.append(here.later(Priority="u=0"))
        until(lambda: held.asked == 10)
        assert here.ask(Priority="u=0")[0] == 503
        held.may.set()
        assert {each.result()[0] for each in busy} == {200}


def test_an_endpoint_gets_no_more_than_it_may(held: Held) -> None:
    other = Held()
    with (
        other.recorder,
        world(Service(limits=ServiceLimits(endpoint_in_flight=2)), held.recorder, other.recorder) as here,
    ):
        busy = [here.later() for _ in range(4)]
        until(lambda: held.asked == other.asked == 2)
        assert here.ask()[0] == 503
        held.may.set()
        until(lambda: sum(each.done() for each in busy) == 2)
        assert here.ask()[0] == 200
        assert (held.asked, other.asked) == (3, 2)
        other.may.set()
        assert {each.result()[0] for each in busy} == {200}


def test_an_endpoint_gets_no_more_connections_than_it_may(held: Held) -> None:
    limits = ServiceLimits(endpoint_connections=2)
    with world(Service(limits=limits), held.recorder) as here:
        busy = [here.later() for _ in range(2)]
        until(lambda: held.asked == 2)
        assert here.ask()[0] == 503
        assert here.engine.counter("limit_endpoint_connections_total") == 1
        assert len(held.recorder.connections) == 2
        held.may.set()
        assert {each.result()[0] for each in busy} == {200}


# ------------------------------------------------------------------ time


def test_an_answer_must_begin_in_time(held: Held) -> None:
    with world(Service(timeout_ms=300), held.recorder) as here:
        status, fields, took_s = here.ask()
        assert status == 504 and 0.3 <= took_s < 5
        assert "http_response_timeout" in fields["proxy-status"]


def test_a_try_that_takes_too_long_is_made_elsewhere(held: Held) -> None:
    with Recorder() as quick, world(Service(try_timeout_ms=300), held.recorder, quick) as here:
        while held.asked < 2:  # the endpoint is chosen at random
            assert here.ask()[0] == 200
        assert here.engine.counter("timeout_try_total", 2) == held.asked


def test_what_may_not_be_done_twice_is_not(held: Held) -> None:
    with Recorder() as quick, world(Service(try_timeout_ms=200, timeout_ms=900), held.recorder, quick) as here:
        answers = Counter(here.ask("/", "POST")[0] for _ in range(8))
        assert held.asked + len(quick.completed) == 8, "each was sent once"
        assert (answers[200], answers[504]) == (len(quick.completed), held.asked)


def test_all_tries_together_have_the_time_of_the_request(held: Held) -> None:
    other = Held()
    with other.recorder, world(Service(try_timeout_ms=400, timeout_ms=600), held.recorder, other.recorder) as here:
        status, _, took_s = here.ask()
        assert status == 504 and 0.55 <= took_s < 5
        assert held.asked + other.asked == 2
        other.may.set()


def test_repetitions_are_bounded() -> None:
    """Endpoints without a listener."""
    with ExitStack() as stack:
        closed: list[str] = []
        for _ in range(4):
            probe = socket.create_server(("127.0.0.1", 0))
            closed.append(f"127.0.0.1:{probe.getsockname()[1]}")
            probe.close()
        engine = stack.enter_context(Engine(HTTP))
        engine.serve("*", *closed)
        engine.apply(Delta(put_services=[Service(name="web", retries_max=1)]))
        connection = http.client.HTTPConnection(*engine.address["http"], timeout=WITHIN_S)
        connection.request("GET", "/")
        assert connection.getresponse().status == 502
        connection.close()
        assert engine.counter("retries_total") == 1


# ------------------------------------------------------------------ load balancing


def named(name: bytes) -> Recorder:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-name: " + name + b"\r\n\r\n"
    return Recorder(lambda _request, _number: answer)


@pytest.mark.parametrize(
    ("by", "headers"),
    [
        (Balance.HEADER, {"x_user": "u-{}"}),
        (Balance.COOKIE, {"Cookie": "a=b; x-user=u-{}; c=d"}),
    ],
)
def test_equal_values_go_to_one_endpoint(by: Balance.By, headers: dict[str, str]) -> None:
    balance = Balance(algorithm=Balance.HASH, hash_by=by, hash_name="x-user")
    recorders = [named(b"%d" % number) for number in range(4)]
    with world(Service(balance=balance), *recorders) as here:
        places: dict[int, str] = {}
        for _ in range(3):
            for user in range(100):  # with this many users, one of four endpoints gets none once in 10^12 runs
                name = here.ask(**{key: value.format(user) for key, value in headers.items()})[1]["x-name"]
                assert places.setdefault(user, name) == name
        assert len(set(places.values())) == 4
    for recorder in recorders:
        recorder.close()


def test_the_path_and_the_client_can_be_what_counts() -> None:
    recorders = [named(b"%d" % number) for number in range(4)]
    with world(Service(balance=Balance(algorithm=Balance.HASH, hash_by=Balance.PATH)), *recorders) as here:
        for _ in range(2):
            assert len({here.ask(f"/a?n={number}")[1]["x-name"] for number in range(8)}) == 1, "without the query"
        assert len({here.ask(f"/{number}")[1]["x-name"] for number in range(40)}) == 4
        here.set(Service(balance=Balance(algorithm=Balance.HASH, hash_by=Balance.CLIENT)))
        assert len({here.ask(f"/{number}")[1]["x-name"] for number in range(40)}) == 1
    for recorder in recorders:
        recorder.close()


@pytest.mark.parametrize("algorithm", [Balance.PEAK_EWMA, Balance.PREQUAL])
def test_a_slow_endpoint_gets_few_requests(algorithm: Balance.Algorithm) -> None:
    slow = Recorder(lambda _request, _number: time.sleep(0.15) or OK)
    with slow, Recorder() as quick, world(Service(balance=Balance(algorithm=algorithm)), slow, quick) as here:
        for _ in range(60):
            assert here.ask()[0] == 200
        assert len(slow.completed) <= 6, f"{len(slow.completed)} of 60"


def test_round_robin_is_even() -> None:
    with (
        Recorder() as one,
        Recorder() as other,
        world(Service(balance=Balance(algorithm=Balance.ROUND_ROBIN)), one, other) as here,
    ):
        for _ in range(40):
            here.ask()
        assert len(one.completed) + len(other.completed) == 40
        assert abs(len(one.completed) - len(other.completed)) <= 2


def test_an_endpoint_that_fails_more_than_the_others_is_ejected() -> None:
    bad = Recorder(lambda _request, number: b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n" if number % 2 else OK)
    good = [Recorder() for _ in range(4)]
    outlier = Outlier(success_deviations_percent=150, ejected_percent_max=50, interval_ms=1_000, requests_min=5)
    balance = Balance(algorithm=Balance.ROUND_ROBIN)
    with bad, world(Service(balance=balance, outlier=outlier), bad, *good) as here:
        end = time.monotonic() + WITHIN_S
        while not here.engine.counters.get("outliers_total"):
            assert time.monotonic() < end
            here.ask()
        told = here.engine.health()
        assert told.target == f"i:{bad.endpoint}" and "% of its responses" in told.reason
    for recorder in good:
        recorder.close()
