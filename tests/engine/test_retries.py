"""What is tried again, how often, and where: bounded, paid for, and spread over instances."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from sdlb.wire.engine_pb2 import Listener, Target
from tests.compliance.recorder import OK, Recorder, Script
from tests.engine.engine import Engine
from tests.engine.http1 import status
from tests.engine.http2_endpoint import INTERNAL_ERROR, REFUSED_STREAM, Connection, Http2Endpoint

HTTP = Listener(key="http", address="127.0.0.1:0")
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)
BOUND = 12
"""Attempts of one request, at the very most."""


def ask(address: tuple[str, int], method: str = "GET") -> int:
    """On a connection of its own; gives the status."""
    with socket.create_connection(address, timeout=15) as client:
        client.sendall(f"{method} / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n".encode())
        return status(client, method)


def first_well_then(then: Callable[[Connection, int], None]) -> Callable[[Connection, int, int], None]:
    """The connection is warm, and then."""

    def script(connection: Connection, stream: int, count: int) -> None:
        if count == 0:
            connection.answer(stream)
        else:
            then(connection, stream)

    return script


FAILURES: dict[str, tuple[Callable[[Connection, int], None], int]] = {
    "refused": (lambda connection, stream: connection.reset(stream, REFUSED_STREAM), 503),
    "reset": (lambda connection, stream: connection.reset(stream, INTERNAL_ERROR), 502),
    "go away": (lambda connection, stream: connection.go_away(max(stream - 2, 0)), 502),
    "closed": (lambda connection, _stream: connection.close(), 502),
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_attempts_on_a_warm_connection_are_bounded(how: str, method: str) -> None:
    script, status = FAILURES[how]
    with Http2Endpoint(first_well_then(script)) as endpoint, Engine([HTTP], workers=1) as engine:
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        assert ask(engine.address["http"]) == 200
        assert ask(engine.address["http"], method) == status
        assert endpoint.streams <= BOUND


def test_an_endpoint_that_closes_every_connection_is_not_connected_to_for_ever() -> None:
    with Http2Endpoint(lambda *_: None) as endpoint, Engine([HTTP], workers=1) as engine:
        endpoint.script = lambda connection, *_: connection.close()
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        assert ask(engine.address["http"]) == 502
        assert len(endpoint.connections) <= BOUND


def test_an_endpoint_that_refuses_is_retried_only_after_the_others() -> None:
    script = first_well_then(FAILURES["refused"][0])
    with Http2Endpoint(script) as refuses, Recorder() as good, Engine([HTTP], workers=1) as engine:
        engine.serve("*", refuses.endpoint, protocol=Target.H2C)
        assert ask(engine.address["http"]) == 200
        engine.serve("*", good.endpoint)
        assert {ask(engine.address["http"], method) for _ in range(30) for method in ("GET", "POST")} == {200}


def test_one_refusal_costs_no_request() -> None:
    def script(connection: Connection, stream: int, count: int) -> None:
        if count % 4 == 1:
            connection.reset(stream, REFUSED_STREAM)
        else:
            connection.answer(stream)

    with Http2Endpoint(script) as endpoint, Engine([HTTP], workers=1) as engine:
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        for method in ("GET", "POST", "GET", "POST"):
            assert ask(engine.address["http"], method) == 200


def breaking() -> Script:
    """Two of three requests close their connection; the third succeeds, so that the endpoint is never ejected."""
    numbers = itertools.count()
    return lambda _request, _number: OK if next(numbers) % 3 == 0 else None


@pytest.mark.parametrize("tiers", [1, 2, 3])
def test_a_repetition_goes_to_the_other_instance(tiers: int) -> None:
    """Of two canaries one breaks its connections. Its host picks among them, and the entry repeats."""
    with ExitStack() as stack:
        broken, good = stack.enter_context(Recorder(breaking())), stack.enter_context(Recorder())
        above: Engine | None = None
        names = ["edge", "rack", "host"][:tiers]
        engines = [
            stack.enter_context(Engine([NODE if number else HTTP], name=name, workers=1))
            for number, name in enumerate(names)
        ]
        for engine in engines:
            if above is not None:
                above.serve("*", "{}:{}".format(*engine.address["node"]), node=engine.name)
            above = engine
        assert above is not None
        above.serve("*", broken.endpoint, good.endpoint)
        with socket.create_connection(engines[0].address["http"], timeout=15) as client:
            for _ in range(100):
                client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
                assert status(client) == 200
        assert len(broken.completed) >= 20
