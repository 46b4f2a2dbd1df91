"""An access log that takes nothing: a pipe without a reader, or with one that stands still. Traffic and control go on."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdlb.wire.engine_pb2 import Delta, Listener, ToEngine
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine, until
from tests.engine.http1 import status

HTTP = Listener(key="http", address="127.0.0.1:0")
LONG = b"GET /" + b"x" * 60_000 + b" HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture
def engine(recorder: Recorder) -> Iterator[Engine]:
    with Engine([HTTP], workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        yield engine


@pytest.fixture
def pipe(engine: Engine) -> Path:
    path = engine.folder / "access.pipe"
    os.mkfifo(path)
    return path


def ask(client: socket.socket, raw: bytes = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n") -> bytes:
    client.sendall(raw)
    return b"%d" % status(client)


def test_a_pipe_without_a_reader_is_refused_and_nothing_waits(engine: Engine, pipe: Path) -> None:
    kept = engine.access_log
    engine.access_log = pipe
    assert "without a reader" in engine.try_configure([HTTP]).error
    engine.apply(Delta())
    with socket.create_connection(engine.address["http"], timeout=10) as client:
        assert ask(client) == b"200"
    until(kept.read_text, "the log before goes on")


def test_several_settings_in_a_row_are_applied_in_order(engine: Engine, pipe: Path) -> None:
    message = ToEngine()
    message.configure.node = "edge-1"
    message.configure.listeners.append(HTTP)
    message.configure.access_log.enabled = True
    message.configure.access_log.path = str(pipe)
    engine.send(message)
    engine.access_log = engine.folder / "other.log"
    assert "without a reader" in engine.try_configure([HTTP]).error
    assert engine._wait("configured").configured.error == ""
    assert engine.access_log.exists()


@pytest.mark.parametrize("by", ["SIGHUP", "settings"])
def test_a_reader_that_stands_still_holds_nothing_up(engine: Engine, pipe: Path, by: str) -> None:
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        engine.access_log = pipe
        engine.configure([HTTP])
        with socket.create_connection(engine.address["http"], timeout=10) as client:
            # More than the pipe and the queue to the writer hold.
            while not engine.counters.get("access_log_dropped_total", 0):
                assert ask(client, LONG) == b"200"
            if by == "SIGHUP":
                pipe.rename(pipe.with_suffix(".old"))
                engine.process.send_signal(signal.SIGHUP)
                file = pipe
            else:
                file = engine.access_log = engine.folder / "other.log"
                engine.configure([HTTP])
            engine.apply(Delta())
            # What is still in the queue may leave no place for the first.
            until(lambda: ask(client) == b"200" and file.is_file() and '"target":"/"' in file.read_text()[-1000:])
    finally:
        os.close(reader)
    engine.shut_down()
    assert engine.process.wait(10) == 0
