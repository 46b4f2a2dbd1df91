"""`drain` of a policy with real engines: two edges, a rack, a host; drains by calls without a deadline of their own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.e2e.backend import Backend, Seen
from tests.e2e.cluster import Cluster, Node, get, until

Make = Callable[..., Backend]


def drain(node: Node, instance: str) -> dict[str, object]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=node.socket), timeout=30.0) as client:
        return client.post(f"http://localhost/v1/instances/{instance}/drain").json()


def slow(node: Node, instance: str) -> str:
    """The text of the event, once there is one."""
    with node.client() as client:
        events = [each for each in client.events(follow=False) if each.fields.get("instance") == instance]
    return next((each.text for each in events if each.code == "drain-slow"), "")


async def _streams(own: Backend, seen: Seen, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Server-sent events, or else an answer, for as long as the gate is shut."""
    if seen.target == "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    while not own.gate.is_set():
        await asyncio.sleep(0.02)
    if seen.target != "/events":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    return False


@pytest.mark.promise(3)
@pytest.mark.parametrize("then", ["wait", "cut"])
def test_at_its_deadline_a_drain_waits_on_or_cuts_off(
    then: str, shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service, host = site.partition(".")[0], hosts[0]
    own = backend(service, "1.0.1", handler=_streams)
    with host.client() as client:
        client.set_policy(service, {"drain": {"deadline_s": 2, "then": then, "streams_s": 1}})
    instance = shared.register(host, f"{service}-1.0.1", site, own)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.1")
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(get, edges[0], site, "/plain")
        events = pool.submit(get, edges[1], site, "/events")
        until("both are in flight", lambda: len(own.seen) == 2)
        drained = drain(host, instance.spec.id)["drained"]
        with pytest.raises(httpx.RemoteProtocolError):
            events.result(20)
        until("the event", lambda: bool(slow(host, instance.spec.id)))
        assert "(1 request in flight on this node)" in slow(host, instance.spec.id)
        if then == "wait":
            assert not drained and not plain.done() and instance.get().state == "draining"
            own.gate.set()
            assert plain.result(20).text == "ok"
        else:
            answer = plain.result(20)
            assert answer.status_code == 503 and "drain deadline" in answer.text
    instance.wait("drained")


class Ticks(grpc.GenericRpcHandler):
    """A call that never ends: a message, and again one after a while."""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_stream_rpc_method_handler(self._tick)

    def _tick(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        while context.is_active():
            yield b"tick"
            time.sleep(0.1)


@pytest.mark.promise(3)
def test_streams_of_every_protocol_go_on_until_their_time_in_a_drain_is_over(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str
) -> None:
    """A WebSocket and a gRPC call through all tiers: nothing ends them before `streams_s`, although `then` is `wait`."""
    service, host, streams_s = site.partition(".")[0], hosts[0], 2

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    def begin(name: str, endpoint: str, protocol: str) -> str:
        with host.client() as client:
            client.set_policy(name, {"drain": {"then": "wait", "streams_s": streams_s}})
        instance = shared.register(host, f"{name}-1.0.1", f"{name}.example", endpoint, protocol=protocol)
        shared.reachable(edges, f"http://{name}.example/", f"{name}-1.0.1")
        return instance.spec.id

    grpc_server = grpc.server(ThreadPoolExecutor(4), handlers=[Ticks()])
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    with serve(answer, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chat = begin(f"{service}-chat", f"127.0.0.1:{server.socket.getsockname()[1]}", "http1")
        ticks = begin(f"{service}-ticks", f"127.0.0.1:{port}", "h2c")
        address = edges[0].http.rpartition(":")
        authority = [("grpc.default_authority", f"{service}-ticks.example")]
        with (
            connect(
                f"ws://{service}-chat.example/x", sock=socket.create_connection((address[0], int(address[2])))
            ) as client,
            grpc.insecure_channel(edges[1].http, authority) as channel,
        ):
            client.send("before")
            assert client.recv(timeout=20) == "before"
            call: Iterator[bytes] = iter(channel.unary_stream("/sdlb.test.Ticks/Tick")(b"", timeout=60))
            assert next(call) == b"tick"
            with ThreadPoolExecutor(2) as pool:
                began = time.monotonic()
                drains = [pool.submit(drain, host, each) for each in (chat, ticks)]
                while time.monotonic() < began + streams_s / 2:
                    client.send("meanwhile")
                    assert client.recv(timeout=20) == "meanwhile" and next(call) == b"tick"
                    time.sleep(0.1)
                with pytest.raises(ConnectionClosed):
                    client.recv(timeout=20)
                with pytest.raises(grpc.RpcError) as ended:
                    for _ in call:
                        pass
                code = ended.value.code()  # pyright: ignore[reportAttributeAccessIssue]
                assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
                assert streams_s <= time.monotonic() - began < 20
                assert [each.result(20)["drained"] for each in drains] == [True, True]
        server.shutdown()
    grpc_server.stop(0).wait(5)
