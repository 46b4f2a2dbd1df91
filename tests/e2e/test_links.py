"""A tree whose nodes identify each other by certificates: mutual TLS on every link, for control and for requests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from sdlb.adapters.credentials import MutualTls
from sdlb.adapters.link_grpc import GrpcParents
from sdlb.core.events import Event, ParentClosed, ParentConnected, ParentMessage
from sdlb.core.messages import Hello
from sdlb.model.identity import Identity
from tests.certificates import Authority, Issued, needs_openssl
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, api, get, metric, until
from tests.e2e.test_h2c import echo, talk
from tests.e2e.traffic import Traffic

__all__ = ["echo"]
pytestmark = needs_openssl
Make = Callable[..., Backend]
BOTH = "serverAuth,clientAuth"
NOTICED_S = 10.0
"""A changed file is taken within 4 s."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def certificate(authority: Authority, name: str) -> Issued:
    return authority.issue(name, "IP:127.0.0.1", use=BOTH)


def node(
    cluster: Cluster,
    authority: Authority,
    name: str,
    *parents: Node,
    issued: Issued | None = None,
    start: bool = True,
    **options: Any,
) -> Node:
    """With a certificate of its own."""
    path = (issued or certificate(authority, name)).write(cluster.folder / f"{name}.pem")
    files = {"certificate": str(path), "ca": str(authority.pem)}
    made = cluster.node(name, parents, start=False, identity=files, **options)
    del made.settings[""]["insecure"]
    if start:
        made.start()
    return made


def tree(cluster: Cluster, authority: Authority) -> tuple[Node, Node, Node]:
    """Root, rack and host."""
    root = node(cluster, authority, "edge-1", entry=True)
    rack = node(cluster, authority, "rack-1", root)
    host = node(cluster, authority, "host-1", rack)
    cluster.wait_ready()
    return root, rack, host


def codes(of: Node) -> list[str]:
    with api(of) as http:
        return [event["code"] for event in http.get("/v1/events?since=0").json()["events"]]


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), 10)


# ------------------------------------------------------------------ what goes through


def test_requests_and_a_version_change(cluster: Cluster, backend: Make, authority: Authority) -> None:
    root, rack, host = tree(cluster, authority)
    old = cluster.register(host, "catalog-1.0.1", "shop.example/*", backend("catalog", "1.0.1"))
    cluster.reachable([root], "http://shop.example/", "catalog-1.0.1")
    with Traffic([root], "shop.example") as traffic:
        new = cluster.register(host, "catalog-2.0.0", "shop.example/*", backend("catalog", "2.0.0"), wait="waiting")
        old.deregister()
        new.wait("active")
        until("the new version answers", lambda: '"2.0.0"' in get(root, "shop.example", "/").text)
    assert traffic.results
    assert not [got.error for got in traffic.results if got.error]
    for each in (root, rack, host):
        until("links are counted", lambda each=each: metric(each, "sdlb_engine_links_total") > 0)
        assert metric(each, "sdlb_identity_not_after_seconds") > 1.7e9
        assert "insecure-link" not in codes(each)
    stamped = b"GET / HTTP/1.1\r\nHost: shop.example\r\nsdlb-to: catalog/2.0.0 shop.example/*\r\n\r\n"
    with connected(host.address) as clear:
        clear.sendall(stamped)
        assert b"HTTP" not in clear.recv(1000), "nobody but a node is answered"


def test_websockets_and_grpc(cluster: Cluster, authority: Authority, echo: str) -> None:
    def answer(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    root, _, host = tree(cluster, authority)
    cluster.register(host, "echo-1.0.0", "echo.example", echo, protocol="h2c")
    with serve(answer, "127.0.0.1", 0, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"127.0.0.1:{server.socket.getsockname()[1]}"
        cluster.register(host, "chat-1.0.0", "chat.example", endpoint)
        cluster.reachable([root], "http://chat.example/", "chat-1.0.0")
        with connect("ws://chat.example/x", max_size=None, sock=connected(root.http)) as client:
            for message in ("hi", bytes(300_000)):
                client.send(message)
                assert client.recv(timeout=20) == message
        server.shutdown()
    cluster.reachable([root], "http://echo.example/", "echo-1.0.0")
    with grpc.insecure_channel(root.http, [("grpc.default_authority", "echo.example")]) as channel:
        talk(channel)


# ------------------------------------------------------------------ certificates that change


def test_files_that_are_replaced_under_load(cluster: Cluster, backend: Make, authority: Authority) -> None:
    root, rack, host = tree(cluster, authority)
    cluster.register(host, "catalog-1.0.1", "shop.example/*", backend("catalog", "1.0.1"))
    cluster.reachable([root], "http://shop.example/", "catalog-1.0.1")
    with Traffic([root], "shop.example") as traffic:
        for each in (root, rack, host):
            certificate(authority, each.name).write(cluster.folder / f"{each.name}.pem")
            until(
                f"{each.name} now serving a new certificate",
                lambda each=each: "identity-changed" in codes(each),
                NOTICED_S,
            )
        # One that is of no use changes nothing.
        file = cluster.folder / "rack-1.pem"
        certificate(authority, "rack-7").write(file)
        until("it is told", lambda: "identity-refused" in codes(rack), NOTICED_S)
        file.write_text("")
        until("it is told, too", lambda: "identity-unreadable" in codes(rack), NOTICED_S)
        # New links are made with the new ones: of an engine that was started again, and of a host that comes back.
        good = certificate(authority, "rack-1").write(file)
        until("the last one is taken", lambda: codes(rack).count("identity-changed") == 2, NOTICED_S)
        assert good.exists()
    assert not [got.error for got in traffic.results if got.error]
    rack.kill_engine()
    until("requests go on", lambda: get(root, "shop.example", "/").status_code == 200)
    assert metric(rack, "sdlb_identity_not_after_seconds") > 0


# ------------------------------------------------------------------ access


def test_a_child_speaks_under_its_own_name_only(cluster: Cluster, authority: Authority) -> None:
    """With control's own link, but the Hello of another node."""
    root, rack, _ = tree(cluster, authority)
    issued = certificate(authority, "host-2")
    identity = Identity(issued.pem.encode(), authority.pem.read_bytes())

    async def say(name: str) -> Event:
        told: asyncio.Queue[Event] = asyncio.Queue()
        links = GrpcParents(
            told.put_nowait, lambda note: None, MutualTls(lambda: identity), lambda parent: "127.0.0.1:9"
        )
        links.dial(root.address)
        try:
            assert isinstance(await asyncio.wait_for(told.get(), 10), ParentConnected)
            links.send(root.address, Hello(name, "id-of-its-own", 1, "127.0.0.1:9", 1, ()))
            return await asyncio.wait_for(told.get(), 10)
        finally:
            await links.close()

    refused = asyncio.run(say("rack-1"))
    assert isinstance(refused, ParentClosed)
    assert "its certificate belongs to host-2" in refused.detail
    until("it is told", lambda: "impostor" in codes(root))
    assert isinstance(asyncio.run(say("host-2")), ParentMessage)
    assert rack.ready()


def test_nodes_of_others_and_without_certificates_stay_out(
    cluster: Cluster, authority: Authority, tmp_path: Path
) -> None:
    root, *_ = tree(cluster, authority)
    stranger = node(cluster, Authority(tmp_path / "others", "others"), "host-8", root)
    clear = cluster.node("host-9", [root])
    until("the stranger's parent is not taken", lambda: "not from a CA that this node trusts" in stranger.tail(40))
    until("the clear one is refused", lambda: metric(root, "sdlb_engine_link_refused_other_total") > 0)
    assert not stranger.ready()
    assert not clear.ready()
    with api(root) as http:
        assert "host-8" not in http.get("/v1/tree").text
    assert metric(root, "sdlb_node_ready") == 1


def test_a_parent_that_is_another_one_than_was_meant(cluster: Cluster, authority: Authority) -> None:
    wrong = authority.issue("edge-1", use=BOTH)  # does not name 127.0.0.1
    root = node(cluster, authority, "edge-1", entry=True, issued=wrong)
    host = node(cluster, authority, "host-1", root)
    until("it says why", lambda: "does not name the host" in host.tail(40))
    assert not host.ready()


def test_a_certificate_that_is_of_no_use_ends_the_start(cluster: Cluster, authority: Authority) -> None:
    other = node(cluster, authority, "edge-1", issued=certificate(authority, "edge-2"), start=False)
    other.start()
    until("it ends with one line", lambda: "identity.certificate" in other.tail())
    line = other.tail().strip().splitlines()[-1]
    assert "the first DNS name of the certificate must be the node's" in line
