"""Requests that wait when the next version opens get it, whatever was found out about the endpoints of the old one."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdlb.wire.engine_pb2 import Delta, Limits, Listener, Target
from tests.compliance.recorder import Recorder
from tests.engine.endpoints import Full
from tests.engine.engine import Engine
from tests.engine.http1 import status as answered

HTTP = Listener(key="http", address="127.0.0.1:0")
WAITING = 60
"""More than the retry budget pays for."""


def status(address: tuple[str, int], begun: threading.Semaphore) -> int:
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi")
        begun.release()
        return answered(client)


def put(delta: Delta, version: str, target: str, address: str, kind: Target.Kind) -> None:
    delta.put_targets.add(key=target, kind=kind, address=address)
    member = delta.put_members.add(capacity=100)
    key = member.key
    key.service, key.version, key.pattern, key.target = "web", version, "*", target


@pytest.mark.parametrize("parks", [True, False])
@pytest.mark.parametrize("same_node", [True, False])
def test_waiting_requests_get_the_next_version(recorder: Recorder, parks: bool, same_node: bool) -> None:
    """The last resort of the old version cannot be reached: connecting to it takes longer than the cut-over."""
    limits = Limits(connect_timeout_ms=2500, retry_budget_percent=1)
    with Full() as gone, Engine([HTTP], workers=1, limits=limits) as engine:
        old = Delta()
        put(old, "1.0.0", "n:host-1", gone.endpoint, Target.NODE)
        old.put_routes.add(pattern="*", service="web").picks.add(version="1.0.0")
        if parks:
            old.put_routes[0].park.requests_max, old.put_routes[0].park.timeout_ms = 1000, 20_000
        engine.apply(old)
        begun = threading.Semaphore(0)
        with ThreadPoolExecutor(WAITING) as pool:
            waiting = [pool.submit(status, engine.address["http"], begun) for _ in range(WAITING)]
            for _ in waiting:
                begun.acquire()
            engine.counter("requests_total", WAITING)
            new = Delta()
            if same_node:
                put(new, "2.0.0", "n:host-1", gone.endpoint, Target.NODE)
            put(new, "2.0.0", "i:new", recorder.endpoint, Target.INSTANCE)
            key = new.delete_members.add()
            key.service, key.version, key.pattern, key.target = "web", "1.0.0", "*", "n:host-1"
            new.put_routes.add(pattern="*", service="web").picks.add(version="2.0.0")
            engine.apply(new)
            assert [each.result() for each in waiting] == [200] * WAITING
