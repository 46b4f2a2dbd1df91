"""Instances that speak HTTP/2 unencrypted, and clients in either protocol: grpcio's server and client, curl, httpx."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.certificates import Authority, needs_openssl
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get

METHOD = "/sdlb.test.Echo/Say"
COUNT = "/sdlb.test.Echo/Count"


class Echo(grpc.GenericRpcHandler):
    """Raw bytes, no generated code: `Say` answers what it got, `Count` as many messages as the byte says, then an
    error."""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if call.method == METHOD:
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        if call.method == COUNT:
            return grpc.unary_stream_rpc_method_handler(self._count)
        return None

    def _count(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        for number in range(request[0]):
            yield bytes([number])
        context.abort(grpc.StatusCode.DATA_LOSS, "as asked")


@pytest.fixture
def echo() -> Iterator[str]:
    """host:port of a gRPC server."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait(5)


def talk(channel: grpc.Channel) -> None:
    """Whole messages, streams, and what stands in trailers."""
    say = channel.unary_unary(METHOD)
    for size in (0, 1, 100_000):
        assert say(b"x" * size, timeout=20) == b"x" * size
    got: list[bytes] = []
    with pytest.raises(grpc.RpcError) as told:
        got.extend(channel.unary_stream(COUNT)(bytes([5]), timeout=20))
    assert got == [bytes([number]) for number in range(5)]
    assert told.value.code() is grpc.StatusCode.DATA_LOSS  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(grpc.RpcError) as told:
        channel.unary_unary("/sdlb.test.Echo/Nothing")(b"", timeout=20)
    assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED  # pyright: ignore[reportAttributeAccessIssue]


def test_grpc_from_end_to_end_through_the_tree(cluster: Cluster, echo: str) -> None:
    (entry,), (host,) = cluster.tiers(1, 1)
    cluster.register(host, "echo-1.0.0", "echo.example", echo, protocol="h2c")
    cluster.reachable([entry], "http://echo.example/", "echo-1.0.0")
    with grpc.insecure_channel(entry.http, [("grpc.default_authority", "echo.example")]) as channel:
        talk(channel)


@needs_openssl
def test_grpc_over_tls(cluster: Cluster, echo: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder / "authority")
    path = authority.issue("echo.example").write(folder / "echo.pem")
    node = cluster.node("edge-1", start=False, listen={"https": f"127.0.0.1:{cluster.ports.take()}"})
    node.settings[""]["site"] = [{"hosts": ["echo.example"], "certificate": str(path)}]
    node.start()
    node.wait_ready()
    cluster.register(node, "echo-1.0.0", "echo.example", echo, protocol="h2c")
    named = [("grpc.ssl_target_name_override", "echo.example"), ("grpc.default_authority", "echo.example")]
    trusted = grpc.ssl_channel_credentials(authority.pem.read_bytes())
    with grpc.secure_channel(node.https, trusted, named) as channel:
        talk(channel)


def test_what_an_instance_speaks_can_change(cluster: Cluster, echo: str, backend: Callable[..., Backend]) -> None:
    """The same id, first one program and then another in its place."""
    node = cluster.node("edge-1", entry=True)
    node.wait_ready()
    cluster.register(node, "echo-1.0.0", "echo.example", echo, protocol="h2c", id="echo")
    with grpc.insecure_channel(node.http, [("grpc.default_authority", "echo.example")]) as channel:
        assert channel.unary_unary(METHOD)(b"x", timeout=20) == b"x"
        cluster.register(node, "echo-1.0.0", "echo.example", backend("echo", "1.0.0"), id="echo")
        assert get(node, "echo.example", "/").json()["service"] == "echo"


def test_sdlb_register_passes_the_protocol(cluster: Cluster, echo: str) -> None:
    node = cluster.node("edge-1", entry=True)
    node.wait_ready()
    words = ["register", "--route", "echo.example", "--endpoint", echo, "--id", "echo", "--wait", "20"]
    done = cluster.sdlb(*words, "--protocol", "h2c", "echo-1.0.0", node=node)
    assert done.returncode == 0, done.stderr
    assert _protocol(node) == "h2c", "well by its check, which only connects"
    with grpc.insecure_channel(node.http, [("grpc.default_authority", "echo.example")]) as channel:
        assert channel.unary_unary(METHOD)(b"x", timeout=20) == b"x"
    refused = cluster.sdlb(*words, "--protocol", "tcp", "echo-1.0.0", node=node)
    assert refused.returncode == 2
    assert "not supported in this version" in refused.stderr
    assert _protocol(node) == "h2c"


def _protocol(node: Node) -> str:
    with node.client() as client:
        return client.instance("echo").protocol
