"""A failure below is not retried at every tier: three tiers do not triple the attempts."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sdlb.wire.engine_pb2 import Limits, Listener
from tests.compliance.recorder import OK, Recorder, Script
from tests.engine.engine import Engine
from tests.engine.fixtures import recording
from tests.engine.http1 import status

HTTP = Listener(key="http", address="127.0.0.1:0")
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)
LIMITS = Limits(response_timeout_ms=1500)


recorder = recording("module")


@pytest.fixture(scope="module")
def edge(recorder: Recorder) -> Iterator[Engine]:
    """Two racks under it, two hosts under each rack, one instance that all four reach."""
    with ExitStack() as stack:

        def node(name: str, *listeners: Listener) -> Engine:
            return stack.enter_context(Engine(listeners, name=name, workers=1, limits=LIMITS))

        edge = node("edge", HTTP)
        for rack_name in ("rack-1", "rack-2"):
            rack = node(rack_name, NODE)
            edge.serve("*", place(rack), node=rack_name)
            for number in (1, 2):
                host = node(f"host-{rack_name}-{number}", NODE)
                rack.serve("*", place(host), node=host.name)
                host.serve("*", recorder.endpoint)
        yield edge


def place(engine: Engine) -> str:
    return "{}:{}".format(*engine.address["node"])


def ask(address: tuple[str, int], method: str = "GET") -> int:
    """On a connection of its own; gives the status."""
    with socket.create_connection(address, timeout=15) as client:
        client.sendall(f"{method} / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n".encode())
        return status(client, method)


def late(_request: bytes, _number: int) -> bytes:
    time.sleep(3)
    return OK


FAILURES: dict[str, Script] = {
    "closes": lambda _request, _number: None,
    "garbage": lambda _request, _number: b"no HTTP\r\n\r\n",
    "503": lambda _request, _number: b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
    "late": late,
}


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize(("method", "most"), [("GET", 3), ("POST", 1)])
def test_a_failure_below_is_not_multiplied(edge: Engine, recorder: Recorder, how: str, method: str, most: int) -> None:
    recorder.script = FAILURES[how]
    before = len(recorder.completed)
    assert ask(edge.address["http"], method) in (502, 503, 504)
    recorder.script = None
    # What was sent again on its own has arrived by now: each tier answers after all of its tries. The entry repeats a
    # GET once; and a connection that was kept may have been closed for being idle, so the request uses a new one.
    assert 1 <= len(recorder.completed) - before <= most
    assert ask(edge.address["http"]) == 200


def test_repetitions_of_all_clients_have_one_budget() -> None:
    """When everything fails, endpoints get a fifth more requests than the clients send, not twice as many."""
    with (
        Recorder(lambda _request, _number: None) as one,
        Recorder(lambda _request, _number: None) as other,
        Engine([HTTP], workers=1, limits=Limits(retry_budget_percent=20)) as engine,
    ):
        engine.serve("*", one.endpoint, other.endpoint)
        asked, began = 300, time.monotonic()
        assert {ask(engine.address["http"]) for _ in range(asked)} == {502}
        most = asked * 1.2 + 10 * (time.monotonic() - began + 2)  # ten a second may be repeated in any case
        assert len(one.completed) + len(other.completed) <= most
        engine.counter("retry_budget_exhausted_total")
        assert engine.counter("retries_total") <= most - asked
