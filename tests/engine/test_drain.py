"""Draining of an engine: open HTTP/2 streams are answered and their connections get GOAWAY. Draining of an endpoint."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time

import httpx
import pytest

from sdlb.wire.engine_pb2 import Delta, Listener, MemberKey, ToEngine
from tests.compliance.recorder import OK, Recorder
from tests.engine.engine import Engine, until
from tests.engine.frames import Client, request

LISTENER = Listener(key="http", address="127.0.0.1:0")


def test_an_open_request_is_answered_behind_the_goodbye() -> None:
    asked = threading.Event()

    def slowly(_request: bytes, _number: int) -> bytes:
        asked.set()
        time.sleep(1.0)
        return OK

    with Recorder(slowly) as recorder, Engine([LISTENER]) as engine:
        engine.serve("*", recorder.endpoint)
        with Client(engine.address["http"]) as client, Client(engine.address["http"]) as resting:
            assert resting.send(b"")
            client.send(client.headers(1, request()))
            assert asked.wait(5)
            engine.send(ToEngine(shutdown={"deadline_ms": 8000}))
            assert resting.end() == "goaway 0"
            assert client.end() == "goaway 0"
            assert client.heard[1] == ["200"] and client.bodies[1] == b"ok"
        assert engine.process.wait(8) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_waits_in_the_queue_at_the_end_is_answered(workers: int) -> None:
    """The end comes before anything was accepted: none of it counts as open yet."""
    with Recorder() as recorder:
        for _ in range(5):
            with Engine([LISTENER], workers=workers) as engine:
                engine.serve("*", recorder.endpoint)
                engine.process.send_signal(signal.SIGSTOP)
                waiting = [socket.create_connection(engine.address["http"], timeout=10) for _ in range(8)]
                for each in waiting:
                    each.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
                engine.shut_down()
                engine.process.send_signal(signal.SIGCONT)
                assert [each.recv(12) for each in waiting] == [b"HTTP/1.1 200"] * 8
                for each in waiting:
                    each.close()
                assert engine.process.wait(10) == 0


def test_a_connected_node_may_still_send_requests() -> None:
    """Its request comes after the end has begun."""
    node = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)
    stamp = b"sdlb-to: web/1.0.0 *\r\n"
    with Recorder() as recorder, Engine([node]) as engine:
        engine.serve("*", recorder.endpoint)
        with socket.create_connection(engine.address["node"], timeout=10) as above:
            time.sleep(0.2)
            engine.shut_down()
            time.sleep(0.5)
            above.sendall(b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n" + stamp + b"\r\n")
            assert above.recv(12) == b"HTTP/1.1 200"
        assert engine.process.wait(10) == 0


@pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load")
def test_a_deadline_cuts_off_what_does_not_end() -> None:
    with Recorder(lambda _request, _number: time.sleep(30) or OK) as recorder, Engine([LISTENER]) as engine:
        engine.serve("*", recorder.endpoint)
        host, port = engine.address["http"]
        load = subprocess.Popen(["h2load", "-n", "4", "-c", "2", f"http://{host}:{port}/"], stdout=subprocess.DEVNULL)
        time.sleep(0.3)
        engine.send(ToEngine(shutdown={"deadline_ms": 500}))
        assert engine.process.wait(8) == 0
        load.wait(8)


def test_connections_to_an_endpoint_that_is_gone_are_closed() -> None:
    """Long before they would be too old: an endpoint that comes and goes leaves none behind each time."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=300\r\n\r\nok"
    with Recorder(lambda _request, _number: answer) as recorder, Engine([LISTENER]) as engine:
        engine.serve("*", recorder.endpoint)
        url = "http://{}:{}/".format(*engine.address["http"])
        assert httpx.get(url, trust_env=False).status_code == 200
        target = f"i:{recorder.endpoint}"
        key = MemberKey(service="web", version="1.0.0", pattern="*", target=target)
        engine.apply(Delta(delete_members=[key], delete_routes=["*"], delete_targets=[target]))
        until(lambda: recorder.closed == 1)
