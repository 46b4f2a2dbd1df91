"""Nodes with HAProxy as the engine: the whole way from a registration to a client, as with the native engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from sdlb.sdk.types import Tree
from tests.certificates import Authority, needs_openssl, shown
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic
from tests.engines.play import needs_haproxy

pytestmark = needs_haproxy
HAPROXY = {"kind": "haproxy", "workers": 2}


def edge(cluster: Cluster, **options: Any) -> Node:
    node = cluster.node("edge-1", entry=True, engine=dict(HAPROXY), **options)
    if options.get("start", True):
        node.wait_ready()
    return node


def tree(node: Node) -> Tree:
    with node.client() as client:
        return client.tree()


def test_versions_come_and_go_at_an_edge_and_nothing_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "access.json"
    node = edge(cluster, start=False)
    node.settings["log"] = {"access": str(log)}
    node.start()
    node.wait_ready()
    assert tree(node).engine.version.startswith(("2.", "3."))
    with Backend() as old, Backend() as new, Backend() as later:
        first = cluster.register(node, "web-1.0.0", "web.example", old)
        cluster.reachable([node], "http://web.example/", "web-1.0.0")
        with Traffic([node], "web.example") as traffic:
            second = cluster.register(node, "web-1.0.1", "web.example", new)
            traffic.wait_for(40)
            first.deregister()
            traffic.wait_for(20)
            waiting = cluster.register(node, "web-2.0.0", "web.example", later, wait="waiting")
            traffic.wait_for(20)
            second.deregister()
            waiting.wait("active")
            traffic.wait_for(20)
        assert not [got.error for got in traffic.results if got.error]
        until("the log lines", lambda: log.exists() and len(log.read_text().splitlines()) >= len(traffic.results))
        told = json.loads(log.read_text().splitlines()[-1])
        assert (told["service"], told["version"], told["status"]) == ("web", "2.0.0", 200)
        assert told["endpoint"] == f"i:{waiting.spec.id}"


def test_what_haproxy_does_not_have_is_shown_for_the_services_that_ask_for_it(cluster: Cluster) -> None:
    node = edge(cluster)
    with Backend() as backend:
        cluster.register(node, "web-1.0.0", "web.example", backend)
        assert not [each for each in tree(node).engine.degraded if each.services]
        with node.client() as client:
            client.set_policy("web", {"hedge_s": 0.5})

        def degraded() -> list[tuple[str, tuple[str, ...]]]:
            return [(each.what, each.services) for each in tree(node).engine.degraded if each.services]

        until("degraded", lambda: degraded() == [("hedge_s", ("web",))])
        assert (
            "edge-1: the engine does not have hedge_s (policy of web): requests are not hedged"
            in cluster.sdlb("status", node=node).stdout
        )
        assert "HAProxy does not have hedge_s, which web asks for" in node.log_file.read_text()


def test_a_killed_haproxy_comes_back_with_its_table(cluster: Cluster) -> None:
    node = edge(cluster)
    with Backend() as backend:
        cluster.register(node, "web-1.0.0", "web.example", backend)
        assert get(node, "web.example", "/").status_code == 200
        before = tree(node).engine.pid
        os.kill(before, signal.SIGKILL)
        until("another worker", lambda: (now := tree(node).engine).attached and now.pid != before)
        until("it serves", lambda: get(node, "web.example", "/").status_code == 200)


@needs_openssl
def test_a_renewed_certificate_is_exchanged_without_a_reload(cluster: Cluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("web.example")
    file = tmp_path / "web.pem"
    file.write_text(issued.pem)
    node = edge(cluster, start=False, listen={"https": f"127.0.0.1:{cluster.ports.take()}"})
    node.settings[""]["site"] = [{"hosts": ["web.example"], "certificate": str(file)}]
    node.start()
    node.wait_ready()
    assert shown(node.https, "web.example") == issued.der
    assert shown(node.https, "other.example") is None
    before = tree(node).engine.pid
    renewed = authority.issue("web.example")
    file.write_text(renewed.pem)
    until("the new certificate", lambda: shown(node.https, "web.example") == renewed.der)
    assert tree(node).engine.pid == before


def test_a_missing_haproxy_is_one_error_at_the_start(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        f'name = "n"\nengine = "haproxy"\nstate_dir = "{tmp_path}/state"\n[haproxy]\nbinary = "/nowhere/haproxy"\n'
        f'[listen]\nsocket = "{tmp_path}/s"\nnode = "127.0.0.1:0"\n'
    )
    done = cluster.sdlb("node", "--config", str(file))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "/nowhere/haproxy cannot be started" in done.stderr


def test_a_host_with_haproxy_below_a_native_edge(cluster: Cluster) -> None:
    top = cluster.node("edge-1", entry=True)
    host = cluster.node("host-1", [top], engine=dict(HAPROXY))
    cluster.wait_ready()
    with Backend() as old, Backend() as new:
        first = cluster.register(host, "web-1.0.0", "web.example", old)
        cluster.reachable([top], "http://web.example/", "web-1.0.0")
        with Traffic([top], "web.example") as traffic:
            cluster.register(host, "web-1.0.1", "web.example", new)
            traffic.wait_for(40)
            first.deregister()
            traffic.wait_for(20)
        assert not [got.error for got in traffic.results if got.error]
