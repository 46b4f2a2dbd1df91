"""What can be read on the way between nodes: with an `[identity]` none of the secrets that cross, without one all of them.

Certificates with their keys and the keys of session tickets go between entries (`[peers]`), requests go between tiers. All links
run through relays that record every byte. The unencrypted tree shows that the log would have them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from sdlb.adapters import acme_keys
from sdlb.node.ticket_keys import load_keys
from tests.acme_front import Front
from tests.certificates import Authority
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.relay import Relay
from tests.e2e.test_acme import HOST, served
from tests.pebble import Pebble, needs_pebble

pytestmark = needs_pebble
Make = Callable[..., Backend]
BEARER = "bearer-token-of-a-client-5f1c"


@pytest.fixture
def relays() -> Iterator[list[Relay]]:
    made = [Relay() for _ in range(4)]
    yield made
    for each in made:
        each.close()


def state(node: Node) -> Path:
    return Path(str(node.settings[""]["state_dir"]))


def forms(secret: bytes) -> list[bytes]:
    """In which it may cross."""
    plain, url = base64.b64encode(secret).rstrip(b"="), base64.urlsafe_b64encode(secret).rstrip(b"=")
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), plain, url]


def _one_certificate(entries: list[Node]) -> bool:
    found = {served(entry, HOST) for entry in entries}
    return len(found) == 1 and None not in found


def secrets_of(entries: list[Node]) -> dict[str, list[bytes]]:
    """What -> the forms in which it may cross. All of it is on the disks of both entries, so it has crossed."""
    found: dict[str, list[bytes]] = {}
    (pem,) = {(state(node) / "acme" / "certificates" / f"{HOST}.pem").read_bytes() for node in entries}
    key = acme_keys.load_key(pem)
    none = serialization.NoEncryption()
    der = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, none)
    number = key.private_numbers().private_value.to_bytes(32, "big")
    text = pem[pem.index(b"-----BEGIN PRIVATE KEY") :].splitlines()
    found["the key of the site"] = [*text[:-1], *forms(der), *forms(number)]
    (tickets,) = {load_keys(state(node) / "ticket-keys")[0] for node in entries}
    for n, ticket in enumerate(tickets):
        found[f"ticket key {n}"] = forms(ticket.secret)
    return found


@pytest.mark.parametrize("identity", [True, False], ids=["identity", "unencrypted"])
def test_no_secret_crosses_between_nodes_in_clear(
    identity: bool, cluster: Cluster, relays: list[Relay], backend: Make, tmp_path: Path
) -> None:
    """Keys of sites and of session tickets, requests with their fields, and what nodes report: with `[identity]` nothing of it can be
    read between two nodes."""
    ports = [[cluster.ports.take() for _ in range(2)] for _ in range(2)]
    authority = Authority(tmp_path / "identities")
    pebble = Pebble(tmp_path / "pebble", ports[1][0], ports[1][1])
    front = Front(tmp_path / "front", pebble.directory)
    try:
        edges = [
            cluster.node(
                f"edge-{n}",
                entry=True,
                start=False,
                listen={"http": f"127.0.0.1:{http}", "https": f"127.0.0.1:{https}"},
            )
            for n, (http, https) in enumerate(ports, 1)
        ]
        host = cluster.node("host-1", edges[:1], start=False)
        to_one, to_two, to_parent, to_host = relays
        to_one.to, to_two.to, to_parent.to, to_host.to = (
            edges[0].address,
            edges[1].address,
            edges[0].address,
            host.address,
        )
        for node, peer in zip(edges, (("edge-2", to_two), ("edge-1", to_one)), strict=True):
            node.settings[""]["site"] = [{"hosts": [HOST], "acme": True}]
            node.settings["acme"] = {"directory": front.directory, "ca_file": str(front.ca_file)}
            node.settings["peers"] = {peer[0]: peer[1].address}
        host.settings[""]["parents"] = [to_parent.address]
        host.settings[""]["advertise"] = to_host.address
        for node in (*edges, host):
            if identity:
                path = authority.issue(node.name, "IP:127.0.0.1", use="serverAuth,clientAuth").write(
                    tmp_path / f"{node.name}.pem"
                )
                node.settings["identity"] = {"certificate": str(path), "ca": str(authority.pem)}
                del node.settings[""]["insecure"]
            node.start()
        cluster.wait_ready((*edges, host))
        until("both entries serve one certificate", lambda: _one_certificate(edges), 90.0)
        until(
            "both entries have the same ticket keys",
            lambda: load_keys(state(edges[0]) / "ticket-keys") == load_keys(state(edges[1]) / "ticket-keys"),
            60.0,
        )
        cluster.register(host, "shop-1.0.0", "shop.test/*", backend("shop", "1.0.0"))
        cluster.reachable(edges[:1], "http://shop.test/", "shop-1.0.0", 60.0)
        answer = httpx.get(
            f"http://{edges[0].http}/", headers={"host": "shop.test", "authorization": BEARER}, timeout=60.0
        )
        assert answer.status_code == 200
        wanted = secrets_of(edges)
        assert len(wanted) >= 2
    finally:
        front.close()
        pebble.close()
    wanted["a field of a request"] = [BEARER.encode()]
    wanted["a claim"] = [b"shop.test"]
    assert all(each.bytes > 200 for each in relays), "every relay carried something"
    seen = {what for what, each in wanted.items() if any(relay.has(form) for relay in relays for form in each)}
    assert seen == (set() if identity else set(wanted))
    assert any(relay.has(b"PRI * HTTP/2.0") for relay in relays) is not identity
