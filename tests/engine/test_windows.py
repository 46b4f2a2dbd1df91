"""The windows of HTTP/2: bodies that are not read do not block others of their connection."""

from __future__ import annotations

import socket
import time

import h2.config
import h2.connection
import h2.events

from sdlb.wire.engine_pb2 import Delta, Limits, Listener
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine

HTTP = Listener(key="http", address="127.0.0.1:0")
STALLED = 20


def test_uploads_that_are_not_read_do_not_block_a_small_one(recorder: Recorder) -> None:
    with Engine([HTTP], workers=1, limits=Limits(body_timeout_ms=60_000)) as engine:
        engine.serve("a.example/*", recorder.endpoint)
        waits = Delta()
        park = waits.put_routes.add(pattern="b.example/*", service="slow").park
        park.requests_max, park.timeout_ms = 1000, 60_000
        engine.apply(waits)
        with socket.create_connection(engine.address["http"], timeout=5) as connection:
            client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            client.initiate_connection()
            uploads = range(1, 2 * STALLED, 2)
            for stream in uploads:
                client.send_headers(stream, head("b.example"))
            small = 2 * STALLED + 1
            client.send_headers(small, head("a.example"))
            quiet = time.monotonic() + 1
            while time.monotonic() < quiet:  # as much as the windows take
                for stream in uploads:
                    left = client.local_flow_control_window(stream)
                    if left > 0:
                        client.send_data(stream, b"x" * min(left, 16_384))
                        quiet = time.monotonic() + 1
                exchange(client, connection)
            assert all(client.local_flow_control_window(stream) == 0 for stream in uploads)
            sent, status, end = 0, "", time.monotonic() + 10
            while not status and time.monotonic() < end:
                window = client.local_flow_control_window(small)
                if sent < 100_000 and window > 0:
                    count = min(window, 16_384, 100_000 - sent)
                    client.send_data(small, b"y" * count, end_stream=sent + count == 100_000)
                    sent += count
                status = exchange(client, connection).get(small, "")
            assert status == "200", f"{sent} of 100,000 bytes could be sent"


def test_the_window_is_what_it_was_when_all_is_taken(recorder: Recorder) -> None:
    """One upload after the other: 40 MiB in all."""
    with Engine([HTTP], workers=1) as engine:
        engine.serve("*", recorder.endpoint)
        with socket.create_connection(engine.address["http"], timeout=5) as connection:
            client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            client.initiate_connection()
            for stream in range(1, 20, 2):
                client.send_headers(stream, head("a.example"))
                left, status, end = 4 << 20, "", time.monotonic() + 20
                while not status:
                    assert time.monotonic() < end, f"{left} bytes are left"
                    window = client.local_flow_control_window(stream)
                    if left and window:
                        count = min(window, 16_384, left)
                        left -= count
                        client.send_data(stream, b"y" * count, end_stream=not left)
                    status = exchange(client, connection, wait=not left or not window).get(stream, "")
                assert status == "200"


def head(host: str) -> list[tuple[str, str]]:
    return [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", "/")]


def exchange(client: h2.connection.H2Connection, connection: socket.socket, *, wait: bool = True) -> dict[int, str]:
    """Sends what is to be sent, and takes what has come: the status of each stream that is answered."""
    connection.sendall(client.data_to_send())
    connection.settimeout(0.05 if wait else 0.000_01)
    try:
        data = connection.recv(65_536)
    except TimeoutError:
        return {}
    finally:
        connection.settimeout(5)
    assert data, "the connection was closed"
    answered: dict[int, str] = {}
    for event in client.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            answered[event.stream_id] = dict(event.headers)[":status"]
        assert not isinstance(event, h2.events.ConnectionTerminated)
    connection.sendall(client.data_to_send())
    return answered
