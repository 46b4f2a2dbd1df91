"""Limits of ours: the same for one tier and for three, and never the fault of an endpoint."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import h2.config
import h2.connection
import h2.events
import pytest

from sdlb.wire.engine_pb2 import Limits, Listener, Target
from tests.certificates import needs_openssl
from tests.compliance.recorder import OK, Recorder
from tests.engine.certificates import Authority
from tests.engine.engine import Engine
from tests.engine.frames import Field
from tests.engine.http1 import status
from tests.engine.http2_endpoint import Connection, Http2Endpoint
from tests.engine.test_links import node

HTTP = Listener(key="http", address="127.0.0.1:0")
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]
LIMIT = 16_384


def call(engine: Engine, *fields: Field, trailers: Sequence[Field] = ()) -> dict[str, object]:
    """One request over HTTP/2: the status, the body, the trailers by name, and why it was reset."""
    got: dict[str, object] = {"body": b""}
    with socket.create_connection(engine.address["http"], timeout=10) as connection:
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.decoder.max_header_list_size = 1 << 20
        client.initiate_connection()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "a.example"), (":path", "/"), *fields]
        client.send_headers(1, head, end_stream=not trailers)
        if trailers:
            client.send_data(1, b"x")
            client.send_headers(1, trailers, end_stream=True)
        connection.sendall(client.data_to_send())
        while True:
            events = client.receive_data(connection.recv(65_536))
            connection.sendall(client.data_to_send())
            for event in events:
                if isinstance(event, h2.events.ResponseReceived):
                    got |= dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    got["body"] += event.data
                elif isinstance(event, h2.events.TrailersReceived):
                    got["trailers"] = dict(event.headers)
                elif isinstance(event, h2.events.StreamReset):
                    return got | {"reset": event.error_code}
                elif isinstance(event, h2.events.StreamEnded | h2.events.ConnectionTerminated):
                    return got


def answering(fields: list[Field], trailers: list[Field], body: bytes = b"ok") -> Http2Endpoint:
    def script(connection: Connection, stream: int, _count: int) -> None:
        connection.answer(stream, fields, body, trailers)

    return Http2Endpoint(script)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine([HTTP], workers=1, limits=Limits(head_bytes=LIMIT)) as engine:
        yield engine


def test_the_details_of_a_status_may_be_as_long_as_a_head(engine: Engine) -> None:
    details = ("grpc-status-details-bin", "x" * 12_000)
    with answering(GRPC[:1], [("grpc-status", "3"), details]) as endpoint:
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        for _ in range(5):
            got = call(engine, *GRPC)
            assert (got[":status"], got["trailers"]) == ("200", {"grpc-status": "3", details[0]: details[1]})


@pytest.mark.parametrize("where", ["trailers", "head"])
def test_an_answer_over_the_size_limit_ejects_no_endpoint(engine: Engine, where: str) -> None:
    large = [("large", "x" * 30_000)]
    head, trailers = (large, []) if where == "head" else ([], large)
    small, good = [False], [("grpc-status", "0")]

    def script(connection: Connection, stream: int, _count: int) -> None:
        if small[0]:
            connection.answer(stream, GRPC[:1], b"ok", good)
        elif where == "head":
            connection.headers(stream, [(":status", "200"), *head])
        else:
            connection.answer(stream, GRPC[:1], b"ok", [*good, *trailers])

    with Http2Endpoint(script) as endpoint:
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        for _ in range(6):
            got = call(engine, *GRPC)
            assert "reset" in got or got.get("grpc-status") == "14", got
        engine.counter("upstream_over_limit_total", 6)
        small[0] = True
        assert call(engine, *GRPC)["trailers"] == {"grpc-status": "0"}
        assert len(endpoint.connections) == 1
        assert engine._said.empty()  # it was never ejected


def test_a_head_over_our_limit_in_http1(engine: Engine) -> None:
    long = b"HTTP/1.1 200 OK\r\nX: " + b"y" * 30_000 + b"\r\nContent-Length: 2\r\n\r\nok"
    with Recorder(lambda request, _number: long if b"/long" in request else OK) as endpoint:
        engine.serve("*", endpoint.endpoint)
        with socket.create_connection(engine.address["http"], timeout=10) as client:
            for path, expected in [("long", 502)] * 6 + [("short", 200)]:
                client.sendall(f"GET /{path} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
                assert status(client) == expected
        engine.counter("upstream_over_limit_total", 6)
        assert engine._said.empty()


@pytest.mark.parametrize("fields", [[], [("content-length", "2")]], ids=["without a length", "with a length"])
def test_trailers_pass_from_http2_to_http2(engine: Engine, fields: list[Field]) -> None:
    with answering(fields, [("x-checksum", "abc")]) as endpoint:
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        got = call(engine)
        assert (got["body"], got["trailers"], got.get("content-length")) == (
            b"ok",
            {"x-checksum": "abc"},
            dict(fields).get("content-length"),
        )


def test_a_field_of_ours_is_never_believed_of_an_endpoint(engine: Engine) -> None:
    with answering([("sdlb-length", "1")], [("x-checksum", "abc")]) as endpoint:
        engine.serve("*", endpoint.endpoint, protocol=Target.H2C)
        got = call(engine)
        assert got["body"] == b"ok" and "sdlb-length" not in got and "content-length" not in got


# ------------------------------------------------------------------ tiers


def head_of(size: int, start: bytes) -> bytes:
    """Of exactly this size, without the empty line; in many fields."""
    lines = [start]
    left = size - len(start) - 2
    number = 0
    while left > 1_100:
        line = f"x-{number}: ".encode()
        line += b"y" * (1_000 - len(line)) + b"\r\n"
        lines.append(line)
        left -= len(line)
        number += 1
    return b"".join(lines) + b"z: " + b"z" * (left - 5) + b"\r\n\r\n"


def tree(
    stack: ExitStack,
    authority: Authority,
    tiers: int,
    endpoint: str,
    protocol: Target.Protocol,
    *,
    secured: bool,
    limits: Limits | None = None,
) -> Engine:
    """The entry of nodes one below the other; the last one has the endpoint."""
    engines: list[Engine] = []
    for number in range(tiers):
        name = f"tier-{number}"
        if secured:
            between = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE, tls=True)
            engines.append(stack.enter_context(node(name, authority, HTTP, between, workers=1, limits=limits)))
        else:
            engines.append(stack.enter_context(Engine([HTTP, NODE], name=name, workers=1, limits=limits)))
    for above, below in itertools.pairwise(engines):
        above.serve("*", "{}:{}".format(*below.address["node"]), node=below.name)
    engines[-1].serve("*", endpoint, protocol=protocol)
    return engines[0]


@needs_openssl
@pytest.mark.parametrize("secured", [False, True], ids=["plaintext", "TLS"])
@pytest.mark.parametrize("tiers", [1, 2, 4])
def test_what_one_node_takes_a_tree_takes(authority: Authority, secured: bool, tiers: int) -> None:
    answer = head_of(LIMIT, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n") + b"ok"
    limits = Limits(head_bytes=LIMIT, fields=40)
    with ExitStack() as stack:
        endpoint = stack.enter_context(Recorder(lambda _request, _number: answer))
        entry = tree(stack, authority, tiers, endpoint.endpoint, Target.HTTP1, secured=secured, limits=limits)
        for _ in range(4):
            with socket.create_connection(entry.address["http"], timeout=10) as client:
                client.sendall(head_of(LIMIT, b"GET / HTTP/1.1\r\nHost: a.example\r\n"))
                assert status(client) == 200


def plaintext_tiers(stack: ExitStack, tiers: int, endpoint: Http2Endpoint) -> list[Engine]:
    """The entry first; the last one has the endpoint."""
    engines = [
        stack.enter_context(Engine([HTTP, NODE], name=f"tier-{n}", workers=1, limits=Limits(head_bytes=LIMIT)))
        for n in range(tiers)
    ]
    for above, below in itertools.pairwise(engines):
        above.serve("*", "{}:{}".format(*below.address["node"]), node="below")
    engines[-1].serve("*", endpoint.endpoint, protocol=Target.H2C)
    return engines


@pytest.mark.parametrize("tiers", [2, 3])
def test_the_details_of_a_status_pass_through_plaintext_tiers(tiers: int) -> None:
    details = ("grpc-status-details-bin", "x" * 12_000)
    with ExitStack() as stack:
        endpoint = stack.enter_context(answering(GRPC[:1], [("grpc-status", "3"), details]))
        engines = plaintext_tiers(stack, tiers, endpoint)
        for _ in range(5):
            got = call(engines[0], *GRPC)
            assert (got[":status"], got.get("trailers")) == ("200", {"grpc-status": "3", details[0]: details[1]})
        assert all(engine._said.empty() for engine in engines), "nobody was ejected"


@pytest.mark.parametrize("tiers", [1, 2])
def test_trailers_of_a_request_may_be_as_long_as_a_head(tiers: int) -> None:
    def script(connection: Connection, stream: int, _count: int) -> None:
        connection.answer(stream, GRPC[:1], b"ok", [("grpc-status", "0")])

    with ExitStack() as stack:
        endpoint = stack.enter_context(Http2Endpoint(script))
        engines = plaintext_tiers(stack, tiers, endpoint)
        got = call(engines[0], *GRPC, trailers=[("x-large", "x" * 12_000)])
        assert (got.get(":status"), got.get("trailers")) == ("200", {"grpc-status": "0"}), got


TRAILERS = [("x-checksum", "abc")]


@pytest.mark.parametrize("tiers", [1, 2, 3])
@pytest.mark.parametrize("fields", [[], [("content-length", "2")]], ids=["without a length", "with a length"])
def test_trailers_of_an_answer_pass_through_plaintext_tiers(tiers: int, fields: list[Field]) -> None:
    with ExitStack() as stack:
        endpoint = stack.enter_context(answering([*fields, ("sdlb-length", "1")], TRAILERS))
        entry = plaintext_tiers(stack, tiers, endpoint)[0]
        got = call(entry, ("te", "trailers"))
        length = dict(fields).get("content-length")
        assert (got["body"], got.get("trailers"), got.get("content-length")) == (b"ok", dict(TRAILERS), length)
        assert "sdlb-length" not in got


def ask_http1(engine: Engine, host: str, te: str) -> bytes:
    """The whole answer."""
    with socket.create_connection(engine.address["http"], timeout=10) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close, TE\r\nTE: {te}\r\n\r\n".encode())
        return client.makefile("rb").read()


@pytest.mark.parametrize("tiers", [1, 2, 3])
@pytest.mark.parametrize("body", [b"ok", b"x" * 10_000], ids=["small", "large"])
def test_an_answer_has_one_length_for_a_client_of_http1(tiers: int, body: bytes) -> None:
    """Content-Length, or chunks if the request allows trailers and the instance announces some."""
    with ExitStack() as stack:
        fields = [("content-length", str(len(body)))]
        endpoint = stack.enter_context(answering([*fields, ("trailer", "x-checksum")], TRAILERS, body))
        silent = stack.enter_context(answering(fields, TRAILERS, body))
        engines = plaintext_tiers(stack, tiers, endpoint)
        engines[-1].serve("b.example", silent.endpoint, protocol=Target.H2C, service="silent")
        for above, below in itertools.pairwise(engines):
            above.serve("b.example", "{}:{}".format(*below.address["node"]), node="below", service="silent")
        end = b"%x\r\n%b\r\n0\r\nx-checksum: abc\r\n\r\n" % (len(body), body)
        for host, te, chunked in [("a", "", False), ("a", "trailers", True), ("b", "trailers", False)]:
            head, _, got = ask_http1(engines[0], f"{host}.example", te).partition(b"\r\n\r\n")
            assert (b"transfer-encoding: chunked" in head, b"content-length: " in head) == (chunked, not chunked)
            assert got == (end if chunked else body) and b"sdlb-" not in head


@pytest.mark.parametrize("told", ["1", "3", "-2", "2, 2", "0x2"])
def test_a_link_with_another_length_than_its_content_is_cut(told: str) -> None:
    """No child of ours sends that."""
    answer = f"HTTP/1.1 200 OK\r\nsdlb-length: {told}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with (
        Recorder(lambda _request, _number: answer.encode()) as child,
        Engine([HTTP], workers=1, limits=Limits(head_bytes=LIMIT)) as entry,
    ):
        entry.serve("*", child.endpoint, node="below")
        got = call(entry, ("te", "trailers"))
        assert "reset" in got or (got["body"], got.get("content-length")) == (b"ok", None), got


@needs_openssl
@pytest.mark.parametrize("secured", [False, True], ids=["plaintext", "TLS"])
@pytest.mark.parametrize("tiers", [1, 2, 3])
def test_trailers_of_a_request_with_a_length_are_forwarded(authority: Authority, tiers: int, secured: bool) -> None:
    def script(connection: Connection, stream: int, count: int) -> None:
        if count % 2:  # the trailers are there
            connection.answer(stream)

    with ExitStack() as stack:
        endpoint = stack.enter_context(Http2Endpoint(script))
        entry = tree(stack, authority, tiers, endpoint.endpoint, Target.H2C, secured=secured)
        fields = [("content-length", "1"), ("trailer", "x-checksum"), ("sdlb-length", "7")]
        assert call(entry, *fields, trailers=TRAILERS)["body"] == b"ok"
        head, trailers = endpoint.heads
        assert (endpoint.content, head["content-length"], trailers) == (b"x", "1", dict(TRAILERS))
        assert "sdlb-length" not in head


@needs_openssl
@pytest.mark.parametrize("secured", [False, True], ids=["plaintext", "TLS"])
@pytest.mark.parametrize("tiers", [1, 2, 3])
def test_an_instance_of_http1_gets_the_length(authority: Authority, tiers: int, secured: bool) -> None:
    with ExitStack() as stack:
        endpoint = stack.enter_context(Recorder())
        entry = tree(stack, authority, tiers, endpoint.endpoint, Target.HTTP1, secured=secured)
        fields = [("content-length", "1"), ("trailer", "x-checksum"), ("sdlb-length", "7")]
        for _ in range(2):
            assert call(entry, *fields, trailers=TRAILERS)["body"] == b"ok"
            head, _, content = endpoint.completed[-1].partition(b"\r\n\r\n")
            assert content == b"x" and b"content-length: 1" in head
            assert b"transfer-encoding" not in head and b"sdlb-length" not in head


@pytest.mark.parametrize("told", ["0", "1", "3"])
def test_a_request_from_a_link_has_its_announced_length(told: str) -> None:
    """No sdlb node sends another length. Bytes behind the content are not parsed as a request."""
    with Recorder() as endpoint, Engine([HTTP, NODE], workers=1, limits=Limits(head_bytes=LIMIT)) as host:
        host.serve("*", endpoint.endpoint)
        with socket.create_connection(host.address["node"], timeout=10) as client:
            client.sendall(
                b"POST / HTTP/1.1\r\nhost: a.example\r\nsdlb-to: web/1.0.0 *\r\ntransfer-encoding: chunked\r\n"
                + f"sdlb-length: {told}\r\n\r\n2\r\nok\r\n0\r\n\r\n".encode()
            )
            assert b"400" in client.recv(65_536)[:15] and client.recv(65_536) == b""
        assert not endpoint.completed


def test_a_length_from_outside_a_link_is_ignored(engine: Engine) -> None:
    with Recorder() as endpoint, socket.create_connection(engine.address["http"], timeout=10) as client:
        engine.serve("*", endpoint.endpoint)
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nsdlb-length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        assert status(client) == 200
        head = endpoint.completed[-1].partition(b"\r\n\r\n")[0]
        assert b"transfer-encoding: chunked" in head and b"length" not in head
