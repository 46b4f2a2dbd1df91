"""`sdlb node restart`: control is replaced, traffic is untouched. `sdlb node --check`: all mistakes at once."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, until
from tests.e2e.traffic import Traffic

Make = Callable[..., Backend]
HOST = "restart.example"


@pytest.mark.promise(3)
def test_every_control_of_a_tree_is_restarted_under_traffic(cluster: Cluster, backend: Make) -> None:
    (edge,), (rack,), (host,) = cluster.tiers(1, 1, 1)
    cluster.register(host, "web-1.0.0", f"{HOST}/*", backend("web", "1.0.0"))
    cluster.reachable([edge], f"http://{HOST}/", "web-1.0.0")
    with Traffic([edge], HOST) as traffic:
        for node in (host, rack, edge):
            assert node.process is not None
            engine = cluster.json("tree", node=node)["engine"]["pid"]
            done = cluster.sdlb("node", "restart", node=node)
            assert done.returncode == 0, done.stderr
            assert done.stdout == (
                f"{node.name}: control restarted (process {node.process.pid}); engine {engine} kept serving\n"
            )
            assert node.process.poll() is None, "the process stays, for who supervises it"
            traffic.wait_for(40)
            node.wait_ready()
    traffic.assert_nothing_lost()
    for node in (host, rack, edge):
        assert node.stop() == 0


def test_new_parents_are_taken_by_a_restart(cluster: Cluster) -> None:
    one, two = cluster.node("edge-1", entry=True), cluster.node("edge-2", entry=True)
    host = cluster.node("host-1", [one])
    cluster.wait_ready()
    host.settings[""]["parents"] = [one.address, two.address]
    host.write_config()
    assert cluster.sdlb("node", "restart", node=host).returncode == 0
    host.wait_ready()
    assert {parent["name"] for parent in cluster.json("tree", node=host)["parents"]} == {"edge-1", "edge-2"}


def test_a_node_file_that_is_wrong_restarts_nothing(cluster: Cluster) -> None:
    ((edge,),) = cluster.tiers(1)
    before = cluster.json("tree", node=edge)["incarnation"]
    edge.config.write_text(edge.config.read_text().replace("insecure = true", 'insecure = "yes"\ncolour = 1'))
    done = cluster.sdlb("node", "restart", node=edge)
    assert done.returncode == 1
    assert "cannot start" in done.stderr and "insecure" in done.stderr and "colour" in done.stderr
    assert cluster.json("tree", node=edge)["incarnation"] == before


def test_an_engine_that_exits_after_a_restart_leaves_no_zombie(cluster: Cluster) -> None:
    ((edge,),) = cluster.tiers(1)
    assert cluster.sdlb("node", "restart", node=edge).returncode == 0
    edge.kill_engine()
    until("another engine serves", edge.engine_pids)
    edge.wait_ready()
    assert edge.process is not None
    until("no zombie is left", lambda: not _zombies(edge.process.pid), 5)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1, 0.25, 0.5])
def test_a_stop_during_the_restart_is_not_lost(cluster: Cluster, after_s: float) -> None:
    ((edge,),) = cluster.tiers(1)
    assert edge.process is not None
    with edge.client() as client:
        client.restart_control()
    end = time.monotonic() + after_s
    while time.monotonic() < end:
        time.sleep(0.01)
        edge.process.send_signal(signal.SIGHUP)
    edge.process.send_signal(signal.SIGTERM)
    assert edge.process.wait(20) == 0
    until("its engine has ended", lambda: not edge.engine_pids(), 5)


def _zombies(parent: int) -> list[str]:
    found: list[str] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z" and int(ppid) == parent:
            found.append(stat.parent.name)
    return found


def test_all_errors_of_a_node_file_are_reported_at_once(cluster: Cluster) -> None:
    file = cluster.folder / "node.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_text(
            f"""name = "a b"
state_dir = "/dev/null/state"
colour = "red"
parents = ["nonsense"]
[listen]
http = "127.0.0.1:{port}"
https = "nowhere"
socket = "{cluster.folder}/s/api.sock"
[timing]
lease_s = 0.5
[limits]
fields = 1
[log]
access = "/nowhere/access.log"
level = "loud"
[[site]]
hosts = ["example.com"]
certificate = "{cluster.folder}/none.pem"
[[site]]
hosts = ["example.com"]
certificate = 7
"""
        )
        done = cluster.sdlb("node", "--config", str(file), "--check")
    assert done.returncode == 1 and done.stdout == ""
    lines = [line.removeprefix(f"sdlb node: {file}:") for line in done.stderr.splitlines()]
    assert [" ".join(line.split(" ")[:3]) for line in lines] == [
        "1: name: has",
        "2: state_dir: /dev/null/state",
        "3: colour: is",
        "4: parents: has",
        f"6: listen.http: 127.0.0.1:{port}",
        "7: listen.https: has",
        "10: timing.lease_s: has",
        "12: limits.fields: has",
        "14: log.access: the",
        "15: log.level: has",
        "18: site.0.certificate: the",
        "20: site.1.hosts: has",
        "21: site.1.certificate: has",
    ], "\n".join(lines)


def test_a_file_without_mistakes_and_a_running_node(cluster: Cluster) -> None:
    ((edge,),) = cluster.tiers(1)
    done = cluster.sdlb("node", "--config", str(edge.config), "--check")
    assert (done.returncode, done.stdout) == (0, f"{edge.config}: no errors\n"), done.stderr
    other = cluster.node("other", entry=True, start=False, listen={"http": edge.http})
    other.write_config()
    done = cluster.sdlb("node", "--config", str(other.config), "--check")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"listen.http: {edge.http} cannot be bound (Address already in use)" in done.stderr
    assert not (other.folder / "state").exists(), "nothing is made"
