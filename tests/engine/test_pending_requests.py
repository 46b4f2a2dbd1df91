"""Requests that wait for room at an endpoint cost nothing while they wait."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from sdlb.wire.engine_pb2 import Delta, Listener, Service, ServiceLimits
from tests.compliance.recorder import OK, Recorder
from tests.engine.engine import Engine, until
from tests.engine.http1 import status

HTTP = Listener(key="http", address="127.0.0.1:0")


def cpu_s(engine: Engine) -> float:
    """Processor time that the engine has used, all threads together."""
    fields = Path(f"/proc/{engine.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send(engine: Engine) -> socket.socket:
    connection = socket.create_connection(engine.address["http"], timeout=20)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
    return connection


def test_requests_that_wait_for_an_endpoint_use_no_cpu_time() -> None:
    """It waits for two seconds, in which nothing happens."""
    may = threading.Event()
    limits = ServiceLimits(endpoint_in_flight=1, pending=100, pending_timeout_ms=2_000)
    with (
        Recorder(lambda _request, _number: OK if may.wait(60) else None) as endpoint,
        Engine([HTTP], workers=1) as engine,
    ):
        engine.apply(Delta(put_services=[Service(name="web", limits=limits)]))
        engine.serve("*", endpoint.endpoint)
        with send(engine) as first:
            until(lambda: len(endpoint.completed) == 1)
            before = cpu_s(engine)
            with send(engine) as one, send(engine) as other:
                assert status(one) == 503
                assert status(other) == 503
            assert cpu_s(engine) - before < 0.3
            with send(engine) as next_:
                engine.counter("pending_now")
                may.set()
                assert status(first) == 200
                assert status(next_) == 200
