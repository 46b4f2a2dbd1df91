"""HAProxy in any place of the tree: edges of both kinds above shared hosts, and HAProxy at both ends of mutual TLS."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from sdlb.adapters.credentials import MutualTls
from sdlb.adapters.link_grpc import GrpcParents
from sdlb.core.events import Event, ParentClosed, ParentConnected
from sdlb.core.messages import Hello
from sdlb.model.identity import Identity
from sdlb.sdk.types import Tree
from tests.certificates import Authority, needs_openssl
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, Registration, get, until
from tests.e2e.test_links import certificate
from tests.e2e.test_links import node as secured
from tests.e2e.traffic import Traffic
from tests.engines.play import needs_haproxy

pytestmark = needs_haproxy
HAPROXY = {"kind": "haproxy", "workers": 2}
HOST = "shop.example"
Make = Callable[..., Backend]


def tree(node: Node) -> Tree:
    with node.client() as client:
        return client.tree()


class Shop:
    """One service on all hosts, version by version."""

    def __init__(self, cluster: Cluster, backend: Make, edges: list[Node], hosts: list[Node]) -> None:
        self._cluster, self._backend, self._edges, self._hosts = cluster, backend, edges, hosts
        self.made: dict[str, Backend] = {}

    def start(self, version: str, wait: str = "active") -> list[Registration]:
        self.made[version] = backend = self._backend("shop", version)
        name = f"shop-{version}"
        started = [self._cluster.register(each, name, f"{HOST}/*", backend, wait=wait) for each in self._hosts]
        if wait == "active":
            self._cluster.reachable(self._edges, f"http://{HOST}/", name)
        return started


def stop(registrations: list[Registration]) -> None:
    for each in registrations:
        each.deregister()


@pytest.mark.promise(1)
@pytest.mark.promise(3)
def test_the_same_story_at_an_edge_of_each_kind(cluster: Cluster, backend: Make) -> None:
    """A compatible rollover, a canary, a drain and an incompatible change at two edges, one of them with HAProxy."""
    native = cluster.node("edge-1", entry=True)
    haproxy = cluster.node("edge-2", entry=True, engine=dict(HAPROXY))
    hosts = [cluster.node(f"host-{n}", [native, haproxy]) for n in (1, 2)]
    cluster.wait_ready()
    shop = Shop(cluster, backend, [native, haproxy], hosts)
    first = shop.start("1.0.0")
    worker = tree(haproxy).engine.pid
    with Traffic([native, haproxy], HOST) as traffic:
        second = shop.start("1.0.1")
        stop(first)
        traffic.wait_for(10)
        canary = shop.start("1.0.2")
        with hosts[0].client() as client:
            client.set_policy("shop", {"priority": "share", "shares": {"1.0.2": 10}})
        until("about a tenth at each edge", lambda: all(2 <= canaries(edge) <= 20 for edge in (native, haproxy)))
        stop(canary)
        slow = Slow(haproxy, shop.made["1.0.1"])
        waiting = shop.start("2.0.0", wait="waiting")
        leaving = threading.Thread(target=stop, args=(second,), daemon=True)
        leaving.start()
        until("it leaves", lambda: second[0].get().state == "draining")
        assert waiting[0].get().state == "waiting", "the slow request is still in flight"
        slow.release()
        assert slow.status() == 200
        leaving.join(30)
        for each in waiting:
            each.wait("active")
        cluster.reachable([native, haproxy], f"http://{HOST}/", "shop-2.0.0")
        traffic.wait_for(10)
    traffic.assert_nothing_lost()
    traffic.assert_no_overlap("1.0.0", "1.0.1", "1.0.2", "2.0.0")
    assert {entry for entry, count in entries(traffic).items() if count > 10} == {"edge-1", "edge-2"}
    assert tree(haproxy).engine.pid == worker, "no reload"

    with Traffic([native], HOST) as other, Traffic([haproxy], HOST) as traffic:
        os.kill(worker, signal.SIGKILL)
        until("another worker", lambda: (now := tree(haproxy).engine).attached and now.pid != worker)
        until("it serves", lambda: get(haproxy, HOST, "/").status_code == 200)
        traffic.wait_for(8)
    other.assert_nothing_lost()
    assert {got.answer.version for got in traffic.results if not got.error} == {"2.0.0"}


def entries(traffic: Traffic) -> Counter[str]:
    return Counter(got.entry for got in traffic.results)


def canaries(edge: Node) -> int:
    """Answers of 1.0.2 among 100. `tests/engines` measures the exact share, without other traffic."""
    with httpx.Client(trust_env=False) as client:
        answers = [client.get(f"http://{edge.http}/", headers={"host": HOST}) for _ in range(100)]
    assert {answer.status_code for answer in answers} == {200}
    return sum(answer.json()["version"] == "1.0.2" for answer in answers)


class Slow:
    """A request that is in flight until `release`."""

    def __init__(self, edge: Node, backend: Backend) -> None:
        self._backend = backend
        self._status = 0
        before = len(backend.seen)
        self._thread = threading.Thread(target=self._run, args=(edge,), daemon=True)
        self._thread.start()
        until("it is in flight", lambda: any("until=gate" in seen.target for seen in backend.seen[before:]))

    def _run(self, edge: Node) -> None:
        self._status = get(edge, HOST, "/hang?until=gate").status_code

    def release(self) -> None:
        self._backend.gate.set()

    def status(self) -> int:
        self._thread.join(20)
        return self._status


@needs_openssl
def test_haproxy_at_both_ends_of_mutual_tls(cluster: Cluster, backend: Make, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    top = secured(cluster, authority, "edge-1", entry=True, engine=dict(HAPROXY))
    other = secured(cluster, authority, "edge-2", entry=True)
    rack = secured(cluster, authority, "rack-1", top, other, engine=dict(HAPROXY))
    host = secured(cluster, authority, "host-1", rack)
    cluster.wait_ready()
    assert [child.name for child in tree(top).children] == ["rack-1"]
    stranger = secured(cluster, Authority(tmp_path / "others", "others"), "host-8", rack)
    old = cluster.register(host, "shop-1.0.0", f"{HOST}/*", backend("shop", "1.0.0"))
    cluster.reachable([top, other], f"http://{HOST}/", "shop-1.0.0")
    with Traffic([top, other], HOST) as traffic:
        new = cluster.register(host, "shop-1.0.1", f"{HOST}/*", backend("shop", "1.0.1"))
        cluster.reachable([top, other], f"http://{HOST}/", "shop-1.0.1")
        old.deregister()
        traffic.wait_for(20)
        assert new.get().state == "active"
        before = [tree(each).engine.pid for each in (top, rack)]
        for each in (top, rack):
            certificate(authority, each.name).write(cluster.folder / f"{each.name}.pem")
        for each, worker in zip((top, rack), before, strict=True):
            until("a reload", lambda each=each, worker=worker: tree(each).engine.pid != worker)
        until("its child is back", lambda: all(c.state == "connected" for c in tree(top).children))
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    mine = certificate(authority, "host-2")
    refused = asyncio.run(claims_to_be("host-9", rack, Identity(mine.pem.encode(), authority.pem.read_bytes())))
    assert isinstance(refused, ParentClosed)
    assert "its certificate belongs to host-2" in refused.detail
    until("the stranger's parent is not taken", lambda: "not from a CA that this node trusts" in stranger.tail(40))
    assert [child.name for child in tree(rack).children] == ["host-1"]


async def claims_to_be(name: str, parent: Node, identity: Identity) -> Event:
    """What follows on the first message of a child that links with this certificate."""
    told: asyncio.Queue[Event] = asyncio.Queue()
    links = GrpcParents(told.put_nowait, lambda note: None, MutualTls(lambda: identity), lambda parent: "127.0.0.1:9")
    links.dial(parent.address)
    try:
        assert isinstance(await asyncio.wait_for(told.get(), 10), ParentConnected)
        links.send(parent.address, Hello(name, "id-of-its-own", 1, "127.0.0.1:9", 1, ()))
        return await asyncio.wait_for(told.get(), 10)
    finally:
        await links.close()
