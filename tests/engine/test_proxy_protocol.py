"""The PROXY protocol towards instances: each request names its client with its port, also below other tiers."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from concurrent import futures
from contextlib import ExitStack, suppress
from typing import BinaryIO, Self

import grpc
import pytest

from sdlb.wire.engine_pb2 import Delta, Listener, Service, ServiceLimits, Target
from tests.certificates import needs_openssl
from tests.compliance.recorder import OK
from tests.engine.certificates import Authority
from tests.engine.engine import Engine, until
from tests.engine.http1 import status
from tests.engine.http2_endpoint import Connection, Http2Endpoint
from tests.engine.test_links import node
from tests.engine.test_our_limits import call

HTTP = Listener(key="http", address="127.0.0.1:0", trusted_proxies=["127.0.0.0/8"])
OPEN = Listener(key="open", address="127.0.0.1:0")
NODE = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Wanting:
    """An instance that wants a header at the start of each connection, and records it."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.headers: list[bytes] = []
        self.requests: list[int] = []
        self.received: list[bytes] = []

    def serve(self, count: int) -> None:
        """Serves `count` connections one after the other, each until it is closed."""
        for _ in range(count):
            connection, _ = self._listener.accept()
            connection.settimeout(10)
            with connection:
                data = connection.recv(65_536)
                end = 16 + int.from_bytes(data[14:16], "big") if data.startswith(SIGNATURE) else data.find(b"\r\n") + 2
                self.headers.append(data[:end])
                self.received.append(data[end:])
                asked = 0
                while data:
                    asked += data.count(b"GET ")
                    connection.sendall(OK)
                    data = connection.recv(65_536)
                self.requests.append(asked)

    def close(self) -> None:
        self._listener.close()


class Unwrapping:
    """A proxy for a server without support for such headers: removes the header of each connection and forwards the rest."""

    def __init__(self, behind: str) -> None:
        self._behind = behind.rsplit(":", 1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.headers: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, socket.create_connection((self._behind[0], int(self._behind[1]))) as behind:
            header = connection.recv(16, socket.MSG_WAITALL)
            self.headers.append(header + connection.recv(int.from_bytes(header[14:16], "big"), socket.MSG_WAITALL))
            back = threading.Thread(target=self._pass, args=(behind, connection), daemon=True)
            back.start()
            self._pass(connection, behind)
            back.join()

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)


def ask(address: tuple[str, int], clients: list[str]) -> None:
    """All on one connection."""
    with socket.create_connection(address, timeout=10) as connection:
        for client in clients:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: {client}\r\n\r\n".encode())
            assert status(connection) == 200


def tree(
    stack: ExitStack, authority: Authority | None, tiers: int, endpoint: str, version: Service.ProxyProtocol,
    protocol: Target.Protocol = Target.HTTP1,
) -> Engine:  # fmt: skip
    """The entry of nodes one below the other; the last one has the instance. `authority`: for links over TLS."""
    engines: list[Engine] = []
    for number in range(tiers):
        name, listeners = f"tier-{number}", [HTTP, OPEN, NODE]
        if authority is None:
            engines.append(stack.enter_context(Engine(listeners, name=name, workers=1)))
        else:
            between = Listener(key="node", address="127.0.0.1:0", kind=Listener.NODE, tls=True)
            engines.append(stack.enter_context(node(name, authority, HTTP, OPEN, between, workers=1)))
    for above, below in itertools.pairwise(engines):
        above.serve("*", "{}:{}".format(*below.address["node"]), node=below.name)
    engines[-1].serve("*", endpoint, protocol=protocol)
    for engine in engines:
        engine.apply(Delta(put_services=[Service(name="web", proxy_protocol=version)]))
    return engines[0]


def client_of(header: bytes) -> tuple[str, int]:
    """The address and the port that a header names."""
    if not header.startswith(SIGNATURE):
        _, _, address, _, port, _ = header.decode().split()
        return address, int(port)
    width, family = {0x11: (4, socket.AF_INET), 0x21: (16, socket.AF_INET6)}[header[13]]
    (port,) = struct.unpack_from(">H", header, 16 + 2 * width)
    return socket.inet_ntop(family, header[16 : 16 + width]), port


BOTH = pytest.mark.parametrize("version", [Service.V1, Service.V2], ids=["version 1", "version 2"])


@BOTH
@pytest.mark.parametrize("tiers", [1, 2])
def test_each_request_names_its_client(tiers: int, version: Service.ProxyProtocol) -> None:
    """Of a proxy in front of the entry that notes no ports."""
    clients = ["192.0.2.1", "192.0.2.2", "2001:db8::7"]
    with ExitStack() as stack:
        wanting = Wanting()
        stack.callback(wanting.close)
        entry = tree(stack, None, tiers, wanting.endpoint, version)
        serving = threading.Thread(target=wanting.serve, args=(len(clients),))
        serving.start()
        ask(entry.address["http"], clients)
        serving.join(10)
        assert wanting.requests == [1, 1, 1], "a connection is of one client"
        assert [client_of(header) for header in wanting.headers] == [(client, 0) for client in clients]


@needs_openssl
@pytest.mark.parametrize("secured", [False, True], ids=["plaintext", "TLS"])
@pytest.mark.parametrize("tiers", [1, 2, 3])
@BOTH
def test_the_port_of_the_client_goes_along(
    authority: Authority, tiers: int, secured: bool, version: Service.ProxyProtocol
) -> None:
    with ExitStack() as stack:
        wanting = Wanting()
        stack.callback(wanting.close)
        entry = tree(stack, authority if secured else None, tiers, wanting.endpoint, version)
        serving = threading.Thread(target=wanting.serve, args=(6,))
        serving.start()
        expected: list[tuple[str, int]] = []
        # The client itself sends a header with another address.
        with socket.create_connection(entry.address["open"], timeout=10) as client:
            for forged in ("X-Forwarded-For: 192.0.2.9:99", "sdlb-port: 1", "X-Sdlb: 1\r\nsdlb_port: 1"):
                client.sendall(f"GET / HTTP/1.1\r\nHost: a.example\r\n{forged}\r\n\r\n".encode())
                assert status(client) == 200
                expected.append(client.getsockname())
        # Proxies that are trusted.
        ask(entry.address["http"], ["192.0.2.1:4711", "[2001:db8::7]:4712"])
        expected += [("192.0.2.1", 4711), ("2001:db8::7", 4712)]
        with socket.create_connection(entry.address["http"], timeout=10) as client:
            client.sendall(b"PROXY TCP4 198.51.100.7 127.0.0.1 4713 80\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            assert status(client) == 200
        expected.append(("198.51.100.7", 4713))
        serving.join(10)
        assert [client_of(header) for header in wanting.headers] == expected
        assert not [request for request in wanting.received if b"sdlb-" in request]


class WantingHttp2(Http2Endpoint):
    """The same in HTTP/2."""

    def __init__(self) -> None:
        super().__init__(lambda connection, stream, _count: connection.answer(stream))
        self.headers: list[bytes] = []

    def begin(self, connection: Connection, stream: BinaryIO) -> None:
        header = stream.read(6)
        if header == b"PROXY ":
            header += stream.readline()
        else:
            header += stream.read(10)
            header += stream.read(int.from_bytes(header[14:16], "big"))
        self.headers.append(header)
        super().begin(connection, stream)


@BOTH
@pytest.mark.parametrize("tiers", [1, 2])
def test_an_http2_instance_gets_the_header_too(tiers: int, version: Service.ProxyProtocol) -> None:
    """Its connections are not shared by clients then."""
    clients = ["192.0.2.1:1", "192.0.2.2:2", "192.0.2.1:1"]
    with ExitStack() as stack:
        wanting = stack.enter_context(WantingHttp2())
        entry = tree(stack, None, tiers, wanting.endpoint, version, Target.H2C)
        ask(entry.address["http"], clients)
        for client in clients:
            assert call(entry, ("x-forwarded-for", client))["body"] == b"ok"
        expected = [("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.1", 1)]
        assert [client_of(header) for header in wanting.headers] == expected * 2
        until(lambda: wanting.closed == 6, "none is kept")


def test_a_call_of_grpc_has_a_connection_of_its_own() -> None:
    """All at once, with messages of some length."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("a.B", {"C": grpc.unary_unary_rpc_method_handler(lambda it, _: it)}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Unwrapping(f"127.0.0.1:{port}") as front, ExitStack() as stack:
        entry = tree(stack, None, 2, front.endpoint, Service.V2, Target.H2C)
        address = "{}:{}".format(*entry.address["open"])
        with grpc.insecure_channel(address, [("grpc.default_authority", "a.example")]) as channel:
            say = channel.unary_unary("/a.B/C")
            calls = [say.future(bytes([number]) * 50_000, timeout=20) for number in range(8)]
            assert [call.result() for call in calls] == [bytes([number]) * 50_000 for number in range(8)]
        assert len(front.headers) == 8 and len({client_of(header) for header in front.headers}) == 1
    server.stop(None).wait(5)


def test_such_connections_count_for_the_limit_of_an_endpoint() -> None:
    with ExitStack() as stack:
        wanting = stack.enter_context(WantingHttp2())
        wanting.script = lambda connection, stream, count: connection.answer(stream) if count else None
        entry = tree(stack, None, 1, wanting.endpoint, Service.V2, Target.H2C)
        limits = ServiceLimits(endpoint_connections=1)
        entry.apply(Delta(put_services=[Service(name="web", proxy_protocol=Service.V2, limits=limits)]))
        with socket.create_connection(entry.address["open"], timeout=10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            until(lambda: wanting.streams == 1)
            assert call(entry, ("x-forwarded-for", "192.0.2.1"))[":status"] == "503"
        entry.counter("limit_endpoint_connections_total", 1)
        until(lambda: call(entry, ("x-forwarded-for", "192.0.2.1"))[":status"] == "200")
