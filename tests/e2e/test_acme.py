"""Certificates from a real ACME server (Pebble), ordered, shared and renewed by real nodes."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from tests.acme_front import Front
from tests.certificates import Authority
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, api, until
from tests.engines.play import needs_haproxy
from tests.pebble import Pebble, needs_pebble

pytestmark = needs_pebble
Make = Callable[..., Backend]
LIFETIME_S = 14
HOST = "shop.example"


@dataclass
class World:
    """Two entries that know each other. The CA validates at edge-2; edge-1 orders, because its name comes first."""

    cluster: Cluster
    identities: Authority
    pebble: Pebble
    front: Front
    listen: list[dict[str, object]]

    def identify(self, node: Node) -> None:
        """Gives it a certificate of its own: its links use mutual TLS."""
        issued = self.identities.issue(node.name, use="serverAuth,clientAuth")
        path = issued.write(self.cluster.folder / f"{node.name}.pem")
        node.settings["identity"] = {"certificate": str(path), "ca": str(self.identities.pem)}
        del node.settings[""]["insecure"]

    def edges(
        self, challenge: str, *, identity: bool = False, engines: Sequence[str] = ("native", "native"), **acme: object
    ) -> list[Node]:
        made = [
            self.cluster.node(f"edge-{n}", entry=True, start=False, listen=listen)
            for n, listen in enumerate(self.listen, 1)
        ]
        for node, kind in zip(made, engines, strict=True):
            node.settings["engine"] = {"kind": kind, "workers": 2}
            node.settings[""]["site"] = [{"hosts": [HOST], "acme": True}]
            node.settings["acme"] = {
                "directory": self.front.directory,
                "challenge": challenge,
                "ca_file": str(self.front.ca_file),
                **acme,
            }
            node.settings["peers"] = {peer.name: peer.address for peer in made if peer is not node}
        for node in made:
            if identity:
                self.identify(node)
            node.start()
        self.cluster.wait_ready(made)
        return made


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path) -> Iterator[World]:
    ports = [[cluster.ports.take() for _ in range(2)] for _ in range(2)]
    pebble = Pebble(tmp_path / "pebble", *ports[1], profiles={"short": LIFETIME_S, "long": 90 * 86_400})
    front = Front(tmp_path / "front", pebble.directory)
    listen: list[dict[str, object]] = [
        {"http": f"127.0.0.1:{http}", "https": f"127.0.0.1:{https}"} for http, https in ports
    ]
    try:
        yield World(cluster, Authority(tmp_path / "identities"), pebble, front, listen)
    finally:
        front.close()
        pebble.close()


def served(node: Node, host: str) -> x509.Certificate | None:
    """The certificate of a handshake; None: it fails."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address, _, port = node.https.rpartition(":")
    try:
        with (
            socket.create_connection((address, int(port)), 5.0) as made,
            context.wrap_socket(made, server_hostname=host) as tls,
        ):
            return x509.load_der_x509_certificate(tls.getpeercert(True) or b"")
    except (OSError, ssl.SSLError):
        return None


def codes(node: Node) -> list[str]:
    with api(node) as http:
        return [event["code"] for event in http.get("/v1/events?since=0").json()["events"]]


def orders_shown(node: Node) -> dict[str, str]:
    with api(node) as http:
        lines = http.get("/metrics").text.splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line.startswith("sdlb_acme_orders_total{"))


def test_one_order_serves_two_entries_through_rate_limits_and_outages(world: World) -> None:
    """Both entries serve by one order, with tls-alpn-01. Through 429 and an outage that outlasts the certificate, it serves on,
    `status` shows the next attempt, and the renewal happens by itself."""
    edges = world.edges("tls-alpn-01", profile="short")
    until("both serve", lambda: all(served(edge, HOST) for edge in edges), 30.0)
    first = served(edges[0], HOST)
    assert first is not None
    assert {served(edge, HOST) for edge in edges} == {first}
    assert world.front.orders == 1
    world.front.retry_after_s = 3
    until("the renewal is refused", lambda: world.front.refused > 0, LIFETIME_S)
    shown = world.cluster.sdlb("status", node=edges[0]).stdout
    assert "too many new orders" in shown and "the next attempt is in" in shown
    world.front.down = True
    world.front.retry_after_s = None
    reach = "cannot be reached"
    until("the outage is shown", lambda: reach in world.cluster.sdlb("status", node=edges[0]).stdout, 15.0)
    assert {served(edge, HOST) for edge in edges} == {first}
    assert world.front.orders == 1
    world.front.down = False
    until("both serve the next one", lambda: all(served(edge, HOST) not in (first, None) for edge in edges), 20.0)
    assert world.front.orders == 2
    assert "certificate-issued" in codes(edges[0]) and "certificate-renewed" in codes(edges[1])
    assert "certificate-failed" in codes(edges[0])
    kinds = orders_shown(edges[0])
    assert kinds['sdlb_acme_orders_total{result="issued"}'] == kinds['sdlb_acme_orders_total{result="renewed"}'] == "1"


@needs_haproxy
def test_haproxy_proves_a_host_in_the_handshake(world: World) -> None:
    """The CA validates at the entry with HAProxy, which has no certificate of its own at first, and renews."""
    edges = world.edges("tls-alpn-01", engines=("native", "haproxy"), profile="short")
    until("both serve", lambda: all(served(edge, HOST) for edge in edges), 60.0)
    first = served(edges[1], HOST)
    assert world.front.orders == 1
    until("both serve the next one", lambda: all(served(edge, HOST) not in (first, None) for edge in edges), 60.0)
    assert world.front.orders >= 2


def test_strangers_cause_no_orders_and_a_claim_causes_one(world: World, backend: Make) -> None:
    """With http-01, answered by the entry that has not ordered, over mutual TLS. A thousand handshakes for unclaimed hosts cause
    no order. A node of the same tree that is no peer gets no certificate."""
    edges = world.edges("http-01", identity=True, profile="long", on_claim=["*.customers.example"])
    stranger = world.cluster.node("edge-9", start=False, listen={"https": f"127.0.0.1:{world.cluster.ports.take()}"})
    stranger.settings[""]["site"] = edges[0].settings[""]["site"]
    stranger.settings["acme"] = {"directory": "https://127.0.0.1:1/nowhere"}
    stranger.settings["peers"] = {edges[0].name: edges[0].address}
    world.identify(stranger)
    stranger.start()
    until("both serve", lambda: all(served(edge, HOST) for edge in edges), 30.0)
    with ThreadPoolExecutor(8) as pool:
        names = [f"c{n}.customers.example" for n in range(1000)]
        assert not any(pool.map(partial(served, edges[0]), names))
    assert world.front.orders == 1
    host = "c7.customers.example"
    shop = backend("shop", "1.0.0")
    for edge in edges:
        world.cluster.register(edge, "shop-1.0.0", [f"{host}/*", "*.customers.example/wide*"], shop)
    until("both serve the claimed host", lambda: all(served(edge, host) for edge in edges), 30.0)
    assert world.front.orders == 2
    assert served(edges[0], host) == served(edges[1], host)
    assert served(edges[0], "c8.customers.example") is None
    until("the stranger is refused", lambda: "peer-lost" in codes(stranger), 15.0)
    assert not list((world.cluster.folder / "edge-9" / "state").glob("acme/certificates/*"))
    for path in world.cluster.folder.glob("edge-*/state/acme/**/*"):
        assert path.stat().st_mode & 0o077 == 0, path
    token = httpx.get(f"http://{world.listen[0]['http']}/.well-known/acme-challenge/x", headers={"host": HOST})
    assert token.status_code in (404, 421)  # no challenge is open any more


def test_a_certificate_is_revoked_by_a_command_and_replaced_at_both_entries(world: World) -> None:
    """At the entry that has not ordered it, with the certificate's key. Both serve another key afterwards, and the CA has the
    reason."""
    edges = world.edges("tls-alpn-01", profile="long")
    until("both serve", lambda: all(served(edge, HOST) for edge in edges), 60.0)
    first = served(edges[0], HOST)
    assert first is not None and world.pebble.revocation(first.serial_number) is None
    time.sleep(1.1)  # certificates have whole seconds, and of two the later one serves
    shown = world.cluster.sdlb("tls", "revoke", HOST, "--reason", "keyCompromise", node=edges[1]).stdout
    assert f"{HOST}: certificate " in shown and "is revoked (keyCompromise); another one is ordered" in shown
    assert world.pebble.revocation(first.serial_number) == 1
    until("both serve the next one", lambda: all(served(edge, HOST) not in (first, None) for edge in edges), 60.0)
    second = served(edges[0], HOST)
    assert second is not None and second.public_key() != first.public_key()
    assert world.pebble.revocation(second.serial_number) is None
    assert world.front.orders == 2 and "certificate-revoked" in codes(edges[1])
    world.front.down = True
    failed = world.cluster.sdlb("tls", "revoke", HOST, node=edges[0])
    assert failed.returncode == 1 and "is not revoked: 127.0.0.1" in failed.stderr
    failed = world.cluster.sdlb("tls", "revoke", "other.example", node=edges[0])
    assert "edge-1 has no site 'other.example'; 'sdlb status' lists them" in failed.stderr
