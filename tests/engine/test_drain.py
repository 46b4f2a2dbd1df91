"""The end of an engine: what is open over HTTP/2 is answered, and told to go."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time

import pytest

from sdlb.wire.engine_pb2 import Listener, ToEngine
from tests.compliance.recorder import OK, Recorder
from tests.engine.engine import Engine
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
