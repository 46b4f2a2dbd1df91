"""A node that has just started, and one that is about to leave."""

from __future__ import annotations

import socket
import threading
import time

from sdlb.wire.engine_pb2 import Delta, Listener, ToEngine
from tests.compliance.recorder import OK, Recorder
from tests.engine.engine import Engine, until
from tests.engine.http1 import status as answered

HTTP = Listener(key="http", address="127.0.0.1:0")
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)
ASK = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def settle(engine: Engine, ms: int) -> None:
    message = ToEngine()
    message.configure.node = engine.name
    message.configure.listeners.append(HTTP)
    message.configure.settle_ms = ms
    engine.send(message)
    bound = engine._wait("configured").configured.listeners[0]
    host, port = bound.address.rsplit(":", 1)
    engine.address["http"] = (host, int(port))


def status(engine: Engine) -> int:
    with socket.create_connection(engine.address["http"], timeout=20) as client:
        client.sendall(ASK)
        return answered(client)


def test_requests_before_the_first_table_wait_for_it(recorder: Recorder) -> None:
    with Engine([], workers=1) as engine:
        settle(engine, 1)
        got: list[int] = []
        asking = threading.Thread(target=lambda: got.append(status(engine)))
        asking.start()
        time.sleep(0.3)
        assert not got
        engine.serve("*", recorder.endpoint)
        asking.join(5)
        assert got == [200]
        engine.apply(Delta(replace=True))
        assert status(engine) == 421, "there is a table, and the time is up"


def test_requests_for_a_route_that_may_still_come_wait_for_it(recorder: Recorder) -> None:
    with Engine([], workers=1) as engine:
        settle(engine, 1500)
        engine.serve("b.example/*", recorder.endpoint)
        begun = time.monotonic()
        got: list[int] = []
        asking = threading.Thread(target=lambda: got.append(status(engine)))
        asking.start()
        time.sleep(0.3)
        engine.serve("a.example/*", recorder.endpoint)
        asking.join(5)
        assert got == [200] and time.monotonic() - begun < 1.4
        engine.apply(Delta(replace=True))
        assert status(engine) == 421
        assert 1.3 < time.monotonic() - begun < 4


def test_clients_go_and_nodes_stay() -> None:
    gate = threading.Event()

    def answer(_request: bytes, _number: int) -> bytes:
        gate.wait(10)
        return OK

    with Recorder(answer) as endpoint, Engine([HTTP, NODE], workers=2) as engine:
        engine.serve("*", endpoint.endpoint)
        idle = socket.create_connection(engine.address["http"], timeout=20)
        busy = socket.create_connection(engine.address["http"], timeout=20)
        above = socket.create_connection(engine.address["node"], timeout=20)
        busy.sendall(ASK)
        until(lambda: len(endpoint.completed) == 1)
        message = ToEngine()
        message.drain_clients.deadline_ms = 20_000
        engine.send(message)
        until(lambda: refused(engine), "it accepts no more")
        assert idle.recv(10) == b"", "it is closed when it has rested"
        gate.set()
        assert b"connection: close" in busy.recv(65_536)
        assert engine._wait("clients_drained").clients_drained.left == 0
        above.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nsdlb-to: web/1.0.0 *\r\n\r\n")
        answer_above = above.recv(65_536)
        assert b" 200 " in answer_above and b"close" not in answer_above
        engine.configure([HTTP, NODE])
        assert status(engine) == 200, "it stays after all"
        for connection in (idle, busy, above):
            connection.close()


def refused(engine: Engine) -> bool:
    try:
        socket.create_connection(engine.address["http"], timeout=5).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it came while the socket was being closed
        return False
    return False
