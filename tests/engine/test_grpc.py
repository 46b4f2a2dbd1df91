"""gRPC end to end: grpcio as client and as server, over one tier and over two (with HTTP/1.1 between the nodes)."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from sdlb.wire.engine_pb2 import Limits, Listener, Target
from tests.compliance.recorder import Recorder
from tests.engine.engine import Engine

Raw = bytes


def _handlers() -> dict[str, grpc.RpcMethodHandler[Raw, Raw]]:
    def unary(request: Raw, context: grpc.ServicerContext) -> Raw:
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"), ("blob-bin", b"\x00\xff")))
        left_s = context.time_remaining()
        return request + (b" %d" % round(left_s) if left_s and left_s < 1e6 else b"")

    def fail(request: Raw, context: grpc.ServicerContext) -> Raw:
        context.abort(grpc.StatusCode.NOT_FOUND, "no ü %")
        raise AssertionError

    def down(request: Raw, context: grpc.ServicerContext) -> Iterator[Raw]:
        return (bytes(1000) for _ in range(200))

    def up(requests: Iterator[Raw], context: grpc.ServicerContext) -> Raw:
        return b"%d" % sum(len(request) for request in requests)

    def both(requests: Iterator[Raw], context: grpc.ServicerContext) -> Iterator[Raw]:
        return (request.upper() for request in requests)

    def slow(request: Raw, context: grpc.ServicerContext) -> Iterator[Raw]:
        time.sleep(1.5)  # longer than the timeout of an ordinary response
        yield request

    return {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Slow": grpc.unary_stream_rpc_method_handler(slow),
    }


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", _handlers()),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


LIMITS = Limits(response_timeout_ms=1000, body_timeout_ms=1000, response_idle_timeout_ms=1000)


@pytest.fixture(scope="module")
def host(endpoint: str) -> Iterator[Engine]:
    """The node beside the endpoint."""
    listeners = [
        Listener(key="http", address="127.0.0.1:0"),
        Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE),
    ]
    with Engine(listeners, limits=LIMITS) as engine:
        engine.serve("*", endpoint, protocol=Target.H2C)
        yield engine


@pytest.fixture(scope="module")
def edge(host: Engine) -> Iterator[Engine]:
    """A node above it."""
    with Engine([Listener(key="http", address="127.0.0.1:0")], limits=LIMITS, name="edge-2") as engine:
        engine.serve("*", "{}:{}".format(*host.address["node"]), kind=Target.NODE)
        yield engine


@pytest.fixture(params=["one tier", "two tiers"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue("host" if request.param == "one tier" else "edge")


@pytest.fixture
def channel(engine: Engine) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel("{}:{}".format(*engine.address["http"])) as channel:
        yield channel


def same(message: Raw) -> Raw:
    return message


def method(name: str) -> tuple[str, Callable[[Raw], Raw], Callable[[Raw], Raw]]:
    return f"/test.Echo/{name}", same, same


def test_unary_with_metadata_both_ways(channel: grpc.Channel) -> None:
    answer, call = channel.unary_unary(*method("Unary")).with_call(b"hi", metadata=(("x", "y"),))
    assert answer == b"hi" and call.code() is grpc.StatusCode.OK
    assert ("x-first", "1") in call.initial_metadata()
    assert {("x-last", "2"), ("blob-bin", b"\x00\xff")} <= set(call.trailing_metadata())


def test_deadlines_are_passed_on(channel: grpc.Channel) -> None:
    assert channel.unary_unary(*method("Unary"))(b"hi", timeout=30) in (b"hi 30", b"hi 29")


def test_a_deadline_that_passes(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        next(channel.unary_stream(*method("Slow"))(b"x", timeout=0.3))
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_errors_arrive_as_they_are(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(*method("Fail"))(b"x")
    assert (raised.value.code(), raised.value.details()) == (grpc.StatusCode.NOT_FOUND, "no ü %")
    with pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary(*method("Absent"))(b"x")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_streams_down_and_up(channel: grpc.Channel) -> None:
    assert sum(len(message) for message in channel.unary_stream(*method("Down"))(b"x")) == 200_000
    assert channel.stream_unary(*method("Up"))(bytes(50_000) for _ in range(40)) == b"2000000"


def test_streams_both_ways_and_is_silent_longer_than_others_may_be(channel: grpc.Channel) -> None:
    messages: queue.Queue[bytes | None] = queue.Queue()
    answers = channel.stream_stream(*method("Both"))(iter(messages.get, None))
    for message in (b"a", b"b"):
        messages.put(message)
        assert next(answers) == message.upper()
    time.sleep(1.5)
    messages.put(b"c")
    assert next(answers) == b"C"
    messages.put(None)
    assert list(answers) == []


def test_an_answer_may_take_its_time(channel: grpc.Channel) -> None:
    assert list(channel.unary_stream(*method("Slow"))(b"x")) == [b"x"]


def test_a_call_that_is_cancelled(channel: grpc.Channel, engine: Engine) -> None:
    gone = engine.counters.get("client_gone_total", 0)
    call = channel.stream_stream(*method("Both"))(iter(queue.Queue[bytes]().get, None))
    time.sleep(0.1)
    call.cancel()
    engine.counter("client_gone_total", gone + 1)
    assert channel.unary_unary(*method("Unary"))(b"on") == b"on"


def test_what_we_answer_ourselves_is_grpc_too() -> None:
    limits = Limits(connect_timeout_ms=300)
    with Engine([Listener(key="http", address="127.0.0.1:0")], limits=limits) as engine:
        engine.serve("dead.example/*", "127.0.0.1:9", protocol=Target.H2C)
        with grpc.insecure_channel("{}:{}".format(*engine.address["http"])) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(*method("Unary"))(b"x")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "not served here" in str(raised.value.details())
        options = (("grpc.default_authority", "dead.example"),)
        with grpc.insecure_channel("{}:{}".format(*engine.address["http"]), options=options) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                channel.unary_unary(*method("Unary"))(b"x")
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "cannot be reached" in str(raised.value.details())


def test_statuses_are_counted_for_each_version(endpoint: str) -> None:
    with Engine([Listener(key="http", address="127.0.0.1:0")]) as engine:
        engine.serve("*", endpoint, protocol=Target.H2C, version="3.1.4")
        with grpc.insecure_channel("{}:{}".format(*engine.address["http"])) as channel:
            for _ in range(3):
                channel.unary_unary(*method("Unary"))(b"x")
            for _ in range(2):
                with pytest.raises(grpc.RpcError):
                    channel.unary_unary(*method("Fail"))(b"x")
        wanted = [0] * 18
        wanted[0], wanted[5] = 3, 2
        end = time.monotonic() + 5
        while engine.groups.get("3.1.4", {}).get("grpc_status") != wanted:
            assert time.monotonic() < end, engine.groups
            time.sleep(0.05)


def server(port: int = 0) -> tuple[grpc.Server, int]:
    made = grpc.server(futures.ThreadPoolExecutor(8), options=(("grpc.so_reuseport", 0),))
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", _handlers()),))
    port = made.add_insecure_port(f"127.0.0.1:{port}")
    made.start()
    return made, port


def test_an_endpoint_that_starts_again_costs_no_call() -> None:
    first, port = server()
    with Engine([Listener(key="http", address="127.0.0.1:0")], workers=1) as engine:
        engine.serve("*", f"127.0.0.1:{port}", protocol=Target.H2C)
        with grpc.insecure_channel("{}:{}".format(*engine.address["http"])) as channel:
            call = channel.unary_unary(*method("Unary"))
            for _ in range(3):
                assert call(b"x") == b"x"
                first.stop(None).wait()
                first, _ = server(port)
            assert call(b"x") == b"x"
    first.stop(None)


def test_an_endpoint_without_websockets_is_not_blamed_for_it(host: Engine) -> None:
    """grpcio does not offer extended CONNECT: a client that requests a WebSocket there cannot get the endpoint ejected."""
    address, port = host.address["http"]
    handshake = (
        b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for _ in range(8):
        with socket.create_connection((address, port), timeout=10) as connection:
            connection.sendall(handshake)
            assert connection.recv(1000).startswith(b"HTTP/1.1 501 ")
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        assert channel.unary_unary(*method("Unary"))(b"x") == b"x"


def test_a_body_over_http1_is_not_given_the_time_of_a_call(host: Engine) -> None:
    with Recorder() as recorder, socket.create_connection(host.address["http"], timeout=10) as connection:
        host.serve("plain.example/*", recorder.endpoint, version="4.0.0")
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: plain.example\r\nContent-Type: application/grpc\r\nContent-Length: 10\r\n\r\n"
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def _tells_its_length(listener: socket.socket) -> None:
    """An endpoint that sends a Content-Length, which none of gRPC's own libraries does."""
    connection, _ = listener.accept()
    talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    talk.initiate_connection()
    message = b"\0\0\0\0\2ok"
    head = [(":status", "200"), ("content-type", "application/grpc"), ("content-length", str(len(message)))]
    with connection, contextlib.suppress(OSError):
        connection.sendall(talk.data_to_send())
        while data := connection.recv(65536):
            for event in talk.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    talk.send_headers(event.stream_id, head)
                    talk.send_data(event.stream_id, message)
                    talk.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)
            connection.sendall(talk.data_to_send())


def test_the_status_behind_an_answer_with_a_length() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_tells_its_length, args=(listener,), daemon=True).start()
    with listener, Engine([Listener(key="http", address="127.0.0.1:0")]) as engine:
        engine.serve("*", "{}:{}".format(*listener.getsockname()), protocol=Target.H2C)
        with grpc.insecure_channel("{}:{}".format(*engine.address["http"])) as channel:
            answer, call = channel.unary_unary(*method("Unary")).with_call(b"hi", timeout=10)
            assert answer == b"ok" and call.code() is grpc.StatusCode.OK
