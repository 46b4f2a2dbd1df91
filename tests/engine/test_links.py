"""Mutual TLS between nodes: engines as parent and child, openssl and grpcio as other clients."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from sdlb.wire.engine_pb2 import Identity, Limits, Listener
from tests.compliance.recorder import Recorder
from tests.engine.certificates import Authority, Pair
from tests.engine.engine import Engine, until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

HTTP = Listener(key="http", address="127.0.0.1:0")
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE, tls=True)


def identity(authority: Authority, *names: str) -> Identity:
    """For a node; its name first."""
    pair = authority.node(*names)
    return Identity(pem=pair.pem, ca_pem=authority.root.certificate.read_bytes())


def node(name: str, authority: Authority, *listeners: Listener, names: tuple[str, ...] = (), **more: Any) -> Engine:
    return Engine(listeners, name=name, identity=identity(authority, *(names or (name,))), **more)


@pytest.fixture
def tree(authority: Authority, recorder: Recorder) -> Iterator[tuple[Engine, Engine]]:
    """`edge-1` above `host-1`, which has an instance."""
    with node("edge-1", authority, HTTP, NODE) as edge, node("host-1", authority, NODE) as host:
        join(edge, host)
        host.serve("*", recorder.endpoint)
        yield edge, host


def join(edge: Engine, host: Engine, name: str = "host-1") -> None:
    edge.serve("*", "{}:{}".format(*host.address["node"]), node=name)


def ask(edge: Engine, method: str = "GET", path: str = "/", body: bytes | None = None) -> httpx.Response:
    """On a connection of its own."""
    url = "http://{}:{}{}".format(*edge.address["http"], path)
    return httpx.request(method, url, content=body, headers={"host": "a.example"}, timeout=15, trust_env=False)


def s_client(engine: Engine, *words: str, pair: Pair | None = None, ca: Authority | None = None, send: str = "") -> str:
    shown = ["-cert", str(pair.certificate), "-key", str(pair.key)] if pair else []
    trusted = ["-CAfile", str(ca.root.certificate), "-verify_return_error"] if ca else []
    done = subprocess.run(
        ["openssl", "s_client", "-connect", "{}:{}".format(*engine.address["node"]), "-alpn", "sdlb/1", *shown,
         *trusted, *words], input=send, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


# ------------------------------------------------------------------ requests


def test_requests_go_down_over_one_link(tree: tuple[Engine, Engine], recorder: Recorder) -> None:
    edge, host = tree
    for number in range(20):
        answer = ask(edge, path=f"/x?{number}")
        assert (answer.status_code, answer.content) == (200, b"ok")
    assert recorder.received.count(b"GET /x?") == 20
    assert b"sdlb-to" not in recorder.received.lower()
    # One link for each worker at the most, in both directions' counters.
    assert edge.counter("links_total") <= 2
    assert host.counter("links_total") <= 2
    edge.counter("requests_total", 20)
    until(lambda: edge.groups["1.0.0"]["status_2xx"] == 20)


def test_what_the_entry_takes_the_link_carries(tree: tuple[Engine, Engine], recorder: Recorder) -> None:
    edge, _ = tree
    for code in range(0x21, 0x7F):
        for path in (f"/a{chr(code)}b", f"/a?b{chr(code)}c"):
            text = f"GET {path} HTTP/1.1\r\nHost: a.example\r\nX-Odd: caf\xe9 {chr(code)}\r\nConnection: close\r\n\r\n"
            with socket.create_connection(edge.address["http"], timeout=10) as one:
                one.sendall(text.encode("latin-1"))
                answer = one.makefile("rb").read()
            assert answer.split()[1] in (b"200", b"400"), (path, answer)
            if answer.split()[1] == b"200" and chr(code) not in "#%./;":  # those may be made canonical
                assert f"GET {path} ".encode() in recorder.completed[-1], path
                assert f"caf\xe9 {chr(code)}\r\n".encode("latin-1") in recorder.completed[-1]


def test_bodies_of_all_sizes(authority: Authority) -> None:
    def script(request: bytes, _: int) -> bytes:
        body = request.partition(b"\r\n\r\n")[2]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    with (
        Recorder(script) as echo,
        node("edge-1", authority, HTTP, NODE) as edge,
        node("host-1", authority, NODE) as host,
    ):
        join(edge, host)
        host.serve("*", echo.endpoint)
        for size in (0, 1, 70_000, 3_000_000):
            body = os.urandom(size)
            answer = ask(edge, "POST", body=body)
            assert (answer.status_code, answer.content) == (200, body)


def test_clients_that_do_not_read_leave_the_link_to_the_others(authority: Authority) -> None:
    def script(request: bytes, _: int) -> bytes:
        size = 4_000_000 if b"/large" in request else 2
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)

    with (
        Recorder(script) as recorder,
        node("edge-1", authority, HTTP, NODE, workers=1) as edge,
        node("host-1", authority, NODE, workers=1) as host,
    ):
        join(edge, host)
        host.serve("*", recorder.endpoint)
        stalled: list[socket.socket] = []
        for _ in range(30):
            one = socket.create_connection(edge.address["http"], timeout=10)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(b"GET /large HTTP/1.1\r\nHost: a.example\r\n\r\n")
            one.recv(16)
            stalled.append(one)
        for _ in range(20):
            assert ask(edge).status_code == 200
        for one in stalled:
            one.close()
        # ... and neither do those that cancel most of their requests.
        for _ in range(400):
            with socket.create_connection(edge.address["http"], timeout=10) as one:
                one.sendall(b"GET /large HTTP/1.1\r\nHost: a.example\r\n\r\n")
        assert ask(edge).status_code == 200
        assert host.counter("links_total") < 20
        assert not any(value for name, value in host.counters.items() if "flood" in name)


def test_a_child_without_the_instance_reports_it(tree: tuple[Engine, Engine], authority: Authority) -> None:
    edge, _ = tree
    with node("host-2", authority, NODE) as empty:
        edge.serve("*", "{}:{}".format(*empty.address["node"]), node="host-2")
        for _ in range(20):
            assert ask(edge).status_code == 200
        empty.counter("not_here_total")


def test_websockets(authority: Authority) -> None:
    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with (
        serve(echo, "127.0.0.1", 0, max_size=None) as server,
        node("edge-1", authority, HTTP, NODE) as edge,
        node("host-1", authority, NODE) as host,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        join(edge, host)
        host.serve("*", f"127.0.0.1:{server.socket.getsockname()[1]}")
        with connect("ws://{}:{}/x".format(*edge.address["http"]), max_size=None) as client:
            for message in ("hi", bytes(1_000_000)):
                client.send(message)
                assert client.recv(timeout=15) == message
        server.shutdown()


def test_a_child_that_ends_loses_nothing(tree: tuple[Engine, Engine], authority: Authority, recorder: Recorder) -> None:
    edge, host = tree
    with node("host-2", authority, NODE) as second:
        second.serve("*", recorder.endpoint)
        edge.serve("*", "{}:{}".format(*second.address["node"]), node="host-2")
        for _ in range(20):
            assert ask(edge, "POST", body=b"x").status_code == 200
        host.shut_down()
        for _ in range(100):
            assert ask(edge, "POST", body=b"x").status_code == 200


# ------------------------------------------------------------------ access


def test_links_without_the_right_certificate_are_refused(
    tree: tuple[Engine, Engine], authority: Authority, other: Authority
) -> None:
    _, host = tree
    good = authority.node("edge-9")
    assert "Verification: OK" in s_client(host, pair=good, ca=authority)
    s_client(host)
    host.counter("link_refused_no_certificate_total")
    s_client(host, pair=other.node("edge-1"))
    host.counter("link_refused_certificate_total")
    s_client(host, pair=authority.issue("edge-1"))  # for servers only
    host.counter("link_refused_certificate_total", 2)
    s_client(host, pair=authority.expired("edge-1"))
    host.counter("link_refused_expired_total")
    s_client(host, pair=authority.node("IP:127.0.0.1"))
    host.counter("link_refused_name_total")
    s_client(host, "-tls1_2", pair=good)
    host.counter("link_refused_other_total")
    s_client(host, "-alpn", "http/1.1", pair=good)
    host.counter("link_refused_other_total", 2)
    with socket.create_connection(host.address["node"], timeout=10) as clear:
        clear.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nsdlb-to: web/1.0.0 *\r\n\r\n")
        assert not clear.recv(1000).startswith(b"HTTP")
    host.counter("link_refused_other_total", 3)
    assert ask(tree[0]).status_code == 200  # the others are unharmed


def test_a_child_must_have_the_name_that_is_meant(authority: Authority, other: Authority, recorder: Recorder) -> None:
    with node("edge-1", authority, HTTP, NODE) as edge, node("host-1", authority, NODE) as host:
        host.serve("*", recorder.endpoint)
        join(edge, host, "host-2")
        assert ask(edge).status_code == 502
        edge.counter("link_refused_name_total")
        with node("host-2", other, NODE) as stranger:
            join(edge, stranger, "host-2")
            assert ask(edge).status_code in (502, 503)
            edge.counter("link_refused_certificate_total")
        assert not recorder.completed


def test_a_parent_that_the_child_does_not_take_loses_no_request(
    authority: Authority, other: Authority, recorder: Recorder
) -> None:
    """It learns of it only after its own handshake: what it would send by then would be lost."""
    strict = Identity(pem=authority.node("host-1").pem, ca_pem=other.root.certificate.read_bytes())
    with (
        node("edge-1", authority, HTTP, NODE) as edge,
        Engine([NODE], name="host-1", identity=strict) as host,
        node("host-2", authority, NODE) as second,
    ):
        second.serve("*", recorder.endpoint)
        edge.serve("*", "{}:{}".format(*host.address["node"]), node="host-1")
        edge.serve("*", "{}:{}".format(*second.address["node"]), node="host-2")
        for _ in range(20):
            assert ask(edge, "POST", body=b"x").status_code == 200
        edge.counter("link_refused_ours_total")
        host.counter("link_refused_certificate_total")


def test_a_silent_connection_is_closed(authority: Authority) -> None:
    with node("host-1", authority, NODE, limits=Limits(handshake_timeout_ms=300)) as host:
        with socket.create_connection(host.address["node"], timeout=10) as silent:
            assert silent.recv(10) == b""
        host.counter("timeout_handshake_total")


# ------------------------------------------------------------------ the identity itself


def test_an_identity_that_cannot_be_used_changes_nothing(
    tree: tuple[Engine, Engine], authority: Authority, other: Authority
) -> None:
    edge, host = tree
    ca = authority.root.certificate.read_bytes()
    good, another = authority.node("host-1"), authority.node("host-7")
    bad = {
        'the first DNS name of the certificate must be the node\'s, "host-1"; it is "host-7"': (another.pem, ca),
        "does not belong to the first certificate": (good.certificate.read_bytes() + another.key.read_bytes(), ca),
        "the file has no private key": (good.certificate.read_bytes(), ca),
        "the file has no certificate": (good.key.read_bytes(), ca),
        "there is no certificate among the CAs": (good.pem, b""),
    }
    for told, (pem, ca_pem) in bad.items():
        host.identity = Identity(pem=pem, ca_pem=ca_pem)
        assert told in host.try_configure([NODE]).error
    host.identity = None
    assert "needs an identity" in host.try_configure([NODE]).error
    assert ask(edge).status_code == 200
    assert "Verification: OK" in s_client(host, pair=authority.node("edge-1"), ca=authority)


def test_an_expired_certificate_is_reported_and_used(authority: Authority) -> None:
    pair = authority.expired("host-1")
    with Engine([], name="host-1") as host:
        host.identity = Identity(pem=pair.pem, ca_pem=authority.root.certificate.read_bytes())
        told = host.configure([NODE])
        assert told.identity_not_after_unix_s == 1609459200
        assert "has expired" in told.identity_warnings[0]


def test_a_new_identity_is_for_new_links(authority: Authority, other: Authority, recorder: Recorder) -> None:
    """Here even of another authority; the link that is open goes on."""
    with node("edge-1", authority, HTTP, NODE, workers=1) as edge, node("host-1", authority, NODE) as host:
        join(edge, host)
        host.serve("*", recorder.endpoint)
        keep = Listener(key="node", address="{}:{}".format(*host.address["node"]), kind=Listener.NODE, tls=True)
        assert ask(edge).status_code == 200
        host.identity = identity(other, "host-1")
        host.configure([keep])
        assert ask(edge).status_code == 200
        assert "Verification: OK" in s_client(host, pair=other.node("edge-1"), ca=other)


# ------------------------------------------------------------------ children's streams to control


def test_control_learns_the_node_of_each_stream(authority: Authority, other: Authority, tmp_path: Path) -> None:
    """By grpcio on both sides."""
    socket_path = str(tmp_path / "control.sock")
    ca = authority.root.certificate.read_bytes()
    pair = authority.node("Host-3", "IP:127.0.0.1")

    async def told(host: Engine, shown: Pair, root: bytes) -> str:
        async def answer(requests: Any, context: Any) -> None:
            async for request in requests:
                await context.write(request + context.peer().encode())

        server = grpc.aio.server()
        method: Any = grpc.stream_stream_rpc_method_handler(answer)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", {"C": method}),))
        server.add_insecure_port(f"unix:{socket_path}")
        await server.start()
        secret = grpc.ssl_channel_credentials(root, shown.key.read_bytes(), shown.certificate.read_bytes())
        try:
            async with grpc.aio.secure_channel("ipv4:{}:{}".format(*host.address["node"]), secret) as channel:
                opened: Any = channel
                call: Any = opened.stream_stream("/a.B/C")()
                await asyncio.wait_for(call.write(b"I am "), 10)
                return bytes(await asyncio.wait_for(call.read(), 10)).decode()
        finally:
            await server.stop(0)

    names = ("host-1", "IP:127.0.0.1")
    with node("host-1", authority, NODE, names=names, control_socket=socket_path) as host:
        said = asyncio.run(told(host, pair, ca))
        prefix, _, name = said.rpartition("/")
        assert name == "host-3"
        assert prefix.startswith("I am unix-abstract:sdlb-peer/")
        with pytest.raises(grpc.aio.AioRpcError):
            asyncio.run(told(host, other.node("host-3"), ca))
        host.counter("link_refused_certificate_total")
