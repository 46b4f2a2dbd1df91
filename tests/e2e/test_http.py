"""HTTP through three tiers with real clients: streaming, back-pressure, upgrades, trailers, Unix sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from sdlb.sdk.types import Health
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until

Make = Callable[..., Backend]
MIB = 1 << 20
SITE = "http.example"


@pytest.fixture(scope="module")
def web(shared: Cluster, edges: list[Node], hosts: list[Node]) -> Iterator[Backend]:
    """One service for the tests of this file."""
    with Backend("http", "1.0.0") as backend:
        registration = shared.register(hosts[0], "http-1.0.0", SITE, backend)
        shared.reachable(edges, f"http://{SITE}/", "http-1.0.0")
        yield backend
        registration.gone()


def curl(edge: Node, path: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """curl's own idea of HTTP, `-i` with the answer's head."""
    binary = shutil.which("curl")
    if binary is None:
        pytest.skip("curl is not installed")
    command = [binary, "-sS", "-i", "--http1.1", "--max-time", "20", "-H", f"Host: {SITE}", *words]
    return subprocess.run([*command, f"http://{edge.http}{path}"], capture_output=True, timeout=30, check=True)


def engine_memory(node: Node) -> int:
    """Resident bytes of the node's engine."""
    (pid,) = node.engine_pids()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------ headers


def test_forwarding_headers_are_ours(web: Backend, edges: list[Node]) -> None:
    forged = {
        "x-forwarded-for": "6.6.6.6",
        "forwarded": "for=6.6.6.6",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "evil.example",
        "x-real-ip": "6.6.6.6",
        "sdlb-to": "other/9.9.9 evil.example/*",
        "connection": "keep-alive, x-secret",
        "x-secret": "hop",
        "x-kept": "end to end",
    }
    assert get(edges[0], SITE, "/seen", headers=forged).status_code == 200
    seen = next(seen for seen in reversed(web.seen) if seen.target == "/seen")
    assert seen.get("x-forwarded-for") == "127.0.0.1"
    assert seen.get("x-forwarded-proto") == "http"
    assert seen.get("x-forwarded-host") == SITE
    assert "6.6.6.6" not in repr(seen.headers) and "evil" not in repr(seen.headers)
    assert seen.get("host") == SITE
    assert not seen.has("x-secret"), "named in Connection: hop by hop"
    assert seen.get("x-kept") == "end to end"
    assert not seen.has("sdlb-to"), "private headers end at the host node"
    via = [name.strip() for key, value in seen.headers if key.lower() == "via" for name in value.split(",")]
    # A pseudonym of this start of its engine behind the name of each node.
    assert [hop.rpartition("-")[0] for hop in via] == ["1.1 edge-1", "1.1 rack-1", "1.1 host-1"]


def test_an_answer_of_our_own_is_a_small_document(edges: list[Node], web: Backend) -> None:
    answer = get(edges[0], "unknown.example", "/", headers={"accept": "application/json"})
    assert answer.status_code in (404, 421)
    assert "edge-1" in answer.headers["proxy-status"]
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["status"] == answer.status_code
    page = get(edges[0], "unknown.example", "/", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html") and "<" in page.text


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500, 503])
def test_the_applications_statuses_pass_as_they_are(web: Backend, edges: list[Node], status: int) -> None:
    answer = get(edges[0], SITE, f"/status/{status}")
    assert answer.status_code == status
    assert "error" not in answer.headers.get("proxy-status", "")


# ------------------------------------------------------------------ bodies


def test_head_has_the_length_and_no_body(web: Backend, edges: list[Node]) -> None:
    done = curl(edges[0], "/head", "-I")
    assert done.stdout.startswith(b"HTTP/1.1 200") and b"content-length: " in done.stdout.lower()
    after = curl(edges[0], "/head", "-I", "--next", "-sS", "-i", "-H", f"Host: {SITE}", f"http://{edges[0].http}/next")
    assert after.stdout.count(b"HTTP/1.1 200") == 2, "the connection is usable after a HEAD"


def test_expect_continue_passes_through_all_tiers(web: Backend, edges: list[Node]) -> None:
    body = b"e" * 100_000
    done = curl(edges[0], "/sum", "-H", "Expect: 100-continue", "--data-binary", body.decode())
    assert b"100 Continue" in done.stdout
    said = json.loads(done.stdout.rpartition(b"\r\n\r\n")[2])
    assert said["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_trailers_pass(web: Backend, edges: list[Node]) -> None:
    host, port = edges[0].http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(f"GET /trailers HTTP/1.1\r\nHost: {SITE}\r\nTE: trailers\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b"hello" in answer and b"\r\n0\r\nx-sum: 42\r\n\r\n" in answer.lower()


@pytest.mark.parametrize("kind", ["bytes", "chunks"])
def test_a_big_answer_streams_whole(web: Backend, edges: list[Node], kind: str) -> None:
    count, size = 0, 48 * MIB + 17
    before = engine_memory(edges[0])
    with httpx.stream(
        "GET", f"http://{edges[0].http}/{kind}/{size}", headers={"host": SITE}, timeout=30, trust_env=False
    ) as answer:
        for piece in answer.iter_raw(MIB):
            count += len(piece)
    assert count == size
    assert engine_memory(edges[0]) - before < 16 * MIB


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_big_request_streams_whole(web: Backend, edges: list[Node], chunked: bool) -> None:
    piece = os.urandom(MIB)
    digest = hashlib.sha256(piece * 32).hexdigest()
    headers = {"host": SITE} if chunked else {"host": SITE, "content-length": str(32 * MIB)}
    answer = httpx.post(
        f"http://{edges[0].http}/upload",
        content=(piece for _ in range(32)),
        headers=headers,
        timeout=30,
        trust_env=False,
    )
    assert answer.json()["body_sha256"] == digest


def test_a_reader_that_stands_still_holds_the_sender_back(web: Backend, edges: list[Node], shared: Cluster) -> None:
    """256 MiB towards an endpoint that doesn't read: the client is stopped, nothing piles up in the engines.

    The kernel may hold up to `tcp_rmem` and `tcp_wmem` (here 33 and 4 MiB) on each of the four connections.
    """
    web.gate.clear()
    web.bytes_read = 0
    nodes = [edges[0], shared.nodes["rack-1"], shared.nodes["host-1"]]
    before = [engine_memory(node) for node in nodes]
    host, port = edges[0].http.split(":")
    size = 256 * MIB
    digest = hashlib.sha256(b"p" * size).hexdigest().encode()
    sent = 0
    with socket.create_connection((host, int(port)), timeout=2) as raw:
        raw.sendall(f"POST /sink?gate=1 HTTP/1.1\r\nHost: {SITE}\r\nContent-Length: {size}\r\n\r\n".encode())
        piece = b"p" * MIB
        try:
            while sent < size:
                sent += raw.send(piece[: size - sent])
        except TimeoutError:
            pass
        assert sent < 192 * MIB, "nobody held the client back"
        assert web.bytes_read == 0
        for node, was in zip(nodes, before, strict=True):
            assert engine_memory(node) - was < 16 * MIB, node.name
        web.gate.set()
        raw.settimeout(20)
        while sent < size:
            sent += raw.send(piece[: size - sent])
        answer = raw.recv(65536)
        while digest not in answer:
            more = raw.recv(65536)
            assert more, answer
            answer += more
    assert web.bytes_read == size


def test_a_client_that_does_not_read_holds_the_endpoint_back(web: Backend, edges: list[Node], shared: Cluster) -> None:
    nodes = [edges[1], shared.nodes["rack-1"], shared.nodes["host-1"]]
    before = [engine_memory(node) for node in nodes]
    host, port = edges[1].http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.sendall(f"GET /bytes/{256 * MIB} HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode())
        assert raw.recv(12) == b"HTTP/1.1 200"
        time.sleep(1.5)
        for node, was in zip(nodes, before, strict=True):
            assert engine_memory(node) - was < 16 * MIB, node.name


def test_events_are_not_buffered(web: Backend, edges: list[Node]) -> None:
    """Each event arrives well before the next one is sent (200 ms later)."""
    delays: list[float] = []
    with httpx.stream(
        "GET", f"http://{edges[0].http}/sse", headers={"host": SITE}, timeout=20, trust_env=False
    ) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                delays.append((time.monotonic_ns() - int(line.split()[2])) / 1e6)
    assert len(delays) == 5
    assert sorted(delays)[2] < 100, f"milliseconds on the way: {delays}"


def test_pipelined_requests_are_answered_in_order(web: Backend, edges: list[Node]) -> None:
    host, port = edges[0].http.split(":")
    targets = [f"/p{n}?delay={0.3 if n == 0 else 0}" for n in range(6)]
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        for target in targets:
            last = "Connection: close\r\n" if target is targets[-1] else ""
            raw.sendall(f"GET {target} HTTP/1.1\r\nHost: {SITE}\r\n{last}\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode()
    places = [answer.index(f'"target": "{target}"') for target in targets]
    assert places == sorted(places) and answer.count("HTTP/1.1 200") == 6


# ------------------------------------------------------------------ upgrades


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


def test_websockets_through_three_tiers(shared: Cluster, edges: list[Node], hosts: list[Node], site: str) -> None:
    async def main() -> None:
        async with serve(_echo, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            service = site[:-8]
            make = asyncio.to_thread(shared.register, hosts[1], f"{service}-1.0.0", site, f"127.0.0.1:{port}")
            registration = await make
            await asyncio.to_thread(shared.reachable, edges, f"http://{site}/", f"{service}-1.0.0")
            address = edges[0].http.split(":")
            async with connect(
                f"ws://{site}/socket", host=address[0], port=int(address[1]), proxy=None, compression=None
            ) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
                big = os.urandom(3 * MIB // 4)
                await client.send(big)
                assert await client.recv() == big
                for number in range(200):
                    await client.send(str(number))
                assert [await client.recv() for _ in range(200)] == [str(n) for n in range(200)]
                # an upgraded connection is in flight until it ends
                told = await asyncio.to_thread(registration.deregister, 0.5)
                assert not told.drained

    asyncio.run(main())


def test_an_upgrade_that_the_endpoint_refuses_is_an_answer(web: Backend, edges: list[Node]) -> None:
    done = curl(
        edges[0], "/plain", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket",
        "-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    )  # fmt: skip
    assert done.stdout.startswith(b"HTTP/1.1 200")


# ------------------------------------------------------------------ endpoints


def test_a_unix_socket_endpoint(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site[:-8]
    web = backend(service, "1.0.0", path=shared.folder / f"{service}.sock")
    shared.register(hosts[0], f"{service}-1.0.0", site, web)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    assert get(edges[0], site, "/").json()["service"] == service
    assert get(edges[1], site, "/", method="POST", content=b"x" * 100_000).json()["body_bytes"] == 100_000


def test_upstream_connections_are_kept_and_shared(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site[:-8]
    web = backend(service, "1.0.0")
    shared.register(hosts[0], f"{service}-1.0.0", site, web)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    for _ in range(40):  # each on a connection of its own to the edge
        assert get(edges[0], site, "/").status_code == 200
    assert web.connections < 20, "a connection a request"


def test_requests_to_an_exited_endpoint_are_retried_elsewhere_and_it_is_ejected(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    """Its process died unnoticed (no health check): refused connections cost no request while another one is there."""
    service = site[:-8]
    dead, good = backend(service, "1.0.0"), backend(service, "1.0.0")
    shared.register(hosts[0], f"{service}-1.0.0", site, dead)
    shared.register(hosts[0], f"{service}-1.0.0", site, good)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    dead.close()
    assert [get(edges[0], site, "/").status_code for _ in range(40)] == [200] * 40


def test_an_exited_endpoint_without_an_alternative_is_502_with_its_address(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    service = site[:-8]
    dead = backend(service, "1.0.0")
    shared.register(hosts[0], f"{service}-1.0.0", site, dead)
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    with hosts[0].client() as client:
        client.set_policy(service, {"park": {"timeout_s": 0}})
    dead.close()
    answer = get(edges[0], site, "/")
    assert answer.status_code in (502, 503), answer.text
    assert "host-1" in answer.headers["proxy-status"], "the tier that failed is named"


def test_a_refused_check_takes_a_dead_instance_out(
    shared: Cluster, edges: list[Node], hosts: list[Node], site: str, backend: Make
) -> None:
    """From when the check has noticed to when it is out: under a second."""
    service = site[:-8]
    dead = backend(service, "1.0.0")
    registration = shared.register(
        hosts[0], f"{service}-1.0.0", site, dead, health=Health(kind="tcp", interval_s=0.2, timeout_s=0.2, fall=2)
    )
    shared.reachable(edges, f"http://{site}/", f"{service}-1.0.0")
    dead.close()
    registration.wait("unhealthy", 5)
    begin = time.monotonic()

    def out() -> bool:
        with edges[0].client() as client:
            return not any(target.capacity for target in client.explain(f"http://{site}/").targets)

    until("out of the edge's pool", out, 5, 0.02)
    assert time.monotonic() - begin < 1.0


def test_many_clients_at_once(web: Backend, edges: list[Node]) -> None:
    statuses: list[int] = []

    def ask(edge: Node) -> None:
        for _ in range(10):
            statuses.append(get(edge, SITE, "/many?delay=0.05").status_code)

    threads = [threading.Thread(target=ask, args=(edges[n % 2],)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * 240
