"""Rollouts of a role on real nodes, with real programs, under traffic."""

from __future__ import annotations

import json
import os
import pwd
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from sdlb.cli.demo.launch import APP
from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.roles import SITE
from tests.e2e.traffic import Traffic
from tests.node.test_drivers import CONTROL
from tests.releases import release
from tests.seams.driver_caller import PYTHON

ORDER = (
    "version-fetched",
    "slot-granted",
    "instance-drained",
    "version-stopped",
    "version-started",
    "instance-registered",
    "instance-healthy",
    "node-updated",
)


@pytest.mark.promise(3)
@pytest.mark.promise(9)
def test_a_patch_is_shipped_host_by_host_and_nothing_is_lost(cluster: Cluster) -> None:
    """A rollout takes one host after the other out, each after the one before is verified, and loses no request."""
    edges = [cluster.node(f"edge-{n}", entry=True) for n in (1, 2)]
    racks = [cluster.node(f"rack-{n}", edges) for n in (1, 2)]
    hosts = [roles.host(cluster, f"host-{n}", racks) for n in range(1, 5)]
    cluster.wait_ready()
    roles.deploy(hosts, "1.0.1")
    cluster.reachable(edges, f"http://{SITE}/", "catalog-1.0.1")
    body = release(cluster.folder, "1.0.2")
    file = cluster.folder / "release.json"
    file.write_text(json.dumps(body))
    with Traffic(edges, SITE) as traffic:
        added = cluster.sdlb("release", "add", str(file), node=hosts[2])
        assert added.returncode == 0, added.stderr
        words = ("rollout", "start", "catalog", "1.0.2", "--soak", "1", "--wait")
        waited = cluster.sdlb(*words, node=hosts[2], timeout_s=90.0)
        assert waited.returncode == 0, waited.stderr
        traffic.wait_for(100)
    traffic.assert_nothing_lost()
    [last, _] = cluster.json("rollout", "history", "catalog", node=hosts[2])["history"]
    assert (last["to"], last["state"], last["by"]) == ("1.0.2", "done", pwd.getpwuid(os.getuid()).pw_name)
    assert last["digest"] == body["artifact"]["any"]["sha256"]
    spans: list[tuple[str, str]] = []
    for host in hosts:
        until("it runs 1.0.2 alone", lambda host=host: roles.versions(host) == ["1.0.2"])
        with host.client() as client:
            events = list(client.events(follow=False))
        first = max(n for n, each in enumerate(events) if each.code == ORDER[0])
        later = [each for each in events[first:] if each.code in ORDER]
        assert [each.code for each in later] == list(ORDER)
        spans.append((later[1].at, later[-1].at))
    for (_, verified), (granted, _) in zip(sorted(spans), sorted(spans)[1:], strict=False):
        assert verified <= granted


def _small(cluster: Cluster, hosts: int, **table: object) -> tuple[Node, list[Node]]:
    """An edge with some hosts that run 1.0.1."""
    edge = cluster.node("edge", entry=True)
    below = [roles.host(cluster, f"host-{n}", [edge], **table) for n in range(1, hosts + 1)]
    cluster.wait_ready()
    roles.deploy(below, "1.0.1")
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")
    return edge, below


def _codes(node: Node, *wanted: str) -> list[str]:
    with node.client() as client:
        return [each.code for each in client.events(follow=False) if each.code in wanted]


@pytest.mark.promise(3)
@pytest.mark.promise(4)
def test_programs_outlive_control(cluster: Cluster) -> None:
    """A program serves on while its node's control is killed, and the next control adopts it.

    A planned stop of the node leaves it running too.
    """
    edge, [host] = _small(cluster, 1)
    pid = roles.program(host)
    with Traffic([edge], SITE) as traffic:
        host.kill_control()
        traffic.wait_for(40)
        host.start()
        host.wait_ready()
        traffic.wait_for(40)
        assert cluster.sdlb("node", "restart", node=host).returncode == 0
        host.wait_ready()
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    assert roles.program(host) == pid
    assert host.stop() == 0
    os.kill(pid, 0)
    host.start()
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")
    assert roles.program(host) == pid
    assert roles.versions(host) == ["1.0.1"]


def test_a_program_that_exited_while_control_was_away_is_started_again(cluster: Cluster) -> None:
    edge, [host] = _small(cluster, 1)
    host.kill_control()
    folder = host.folder / "state/roles/web/catalog/a"
    [supervisor] = _processes(["__main__.py", str(folder)])
    pid = roles.program(host)
    for each in (supervisor, pid):
        os.kill(each, signal.SIGKILL)
    host.start()
    until("another program runs", lambda: roles.program(host) not in (0, pid))
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")


def _processes(ends: Sequence[str]) -> list[int]:
    """Those with command lines that have words with these ends."""
    return roles.processes_whose(lambda words: all(any(word.endswith(end) for word in words) for end in ends))


def test_a_program_that_exits_is_unhealthy_at_once(cluster: Cluster) -> None:
    """Its health checks alone would not show it: they are too rare."""
    edge, [host] = _small(cluster, 1, health={"kind": "http", "path": "/health", "interval_s": 600.0})
    pid = roles.program(host)
    os.kill(pid, signal.SIGKILL)
    until("it is unhealthy and healthy again", lambda: _health(host)[-2:] == ["instance-unhealthy", "instance-healthy"])
    assert roles.program(host) not in (0, pid)
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")


def _health(node: Node) -> list[str]:
    return _codes(node, "instance-unhealthy", "instance-healthy")


DIES = """from __future__ import annotations
import os, threading
threading.Timer(1.5, lambda: (print("out of memory, says the build", flush=True), os._exit(7))).start()
"""


def test_commands_run_a_service_too(cluster: Cluster) -> None:
    """Control waits for its commands itself, although it reaps the processes that others leave to it."""
    file = cluster.folder / "control.py"
    file.write_text(CONTROL)
    commands = {name: [*PYTHON, str(file), name] for name in ("start", "stop", "state")}
    table = {"driver": "command", "command": None, "restart": None, **commands}
    edge, [host] = _small(cluster, 1, **table)
    host.kill_control()
    host.start()
    host.wait_ready()
    roles.add(host, cluster.folder, "1.0.2")
    roles.start(host, "1.0.2", accept_gap=True)
    roles.wait(host)
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.2")
    assert roles.versions(host) == ["1.0.2"]
    assert _codes(host, "version-started") == ["version-started"]  # since the start of this control
    with Traffic([edge], SITE) as traffic:
        traffic.wait_for(20)
    assert set(traffic.count()) == {"1.0.2"}


@pytest.mark.promise(3)
def test_a_build_that_dies_after_its_start_is_met_by_one_host(cluster: Cluster) -> None:
    """A version that starts, becomes healthy and exits is tried by one host, which goes back; the others keep theirs."""
    edge, hosts = _small(cluster, 3)
    pids = {host.name: roles.program(host) for host in hosts}
    dies = APP.read_text().replace("from __future__ import annotations\n", DIES, 1)
    roles.add(hosts[0], cluster.folder, "1.0.2", dies)
    with Traffic([edge], SITE, safe=True) as traffic:
        words = ("rollout", "start", "catalog", "1.0.2", "--soak", "10", "--wait")
        waited = cluster.sdlb(*words, node=hosts[0], timeout_s=60.0)
        traffic.wait_for(40)
    assert waited.returncode == 1
    assert "out of memory, says the build" in waited.stderr + waited.stdout
    halted = roles.wait(hosts[0], "halted")
    assert set(traffic.since(traffic.results[-20].sent)) == {"1.0.1"}
    [(name, why)] = halted["failed"].items()
    assert "it exited with code 7: out of memory, says the build" in why
    for host in hosts:
        assert roles.versions(host) == ["1.0.1"]
        if host.name == name:
            assert _codes(host, "node-failed", "node-reverted") == ["node-failed", "node-reverted"]
        else:
            assert roles.program(host) == pids[host.name]
            assert "version-stopped" not in _codes(host, "version-stopped")


@pytest.mark.promise(3)
def test_a_role_that_was_removed_from_the_node_file_is_drained_and_stopped(cluster: Cluster) -> None:
    """The programs of a service that is no longer in the node file are stopped after their instances are drained."""
    edge, hosts = _small(cluster, 2)
    pid = roles.program(hosts[0])
    with Traffic([edge], SITE) as traffic:
        hosts[0].kill_control()
        del hosts[0].settings["role.web.catalog"]
        hosts[0].settings[""]["roles"] = []
        hosts[0].start()
        until("its program is stopped", lambda: not os.path.exists(f"/proc/{pid}"))
        traffic.wait_for(40)
    traffic.assert_nothing_lost()
    hosts[0].wait_ready()
    until("nothing is left", lambda: not (hosts[0].folder / "state/roles").exists() or not _slots(hosts[0]))
    assert roles.versions(hosts[0]) == []
    assert _codes(hosts[0], "instance-drained", "instance-removed") == ["instance-drained", "instance-removed"]
    assert _codes(hosts[0], "role-removed") == ["role-removed"]


def _slots(node: Node) -> list[Path]:
    return list((node.folder / "state/roles").glob("*/*/*"))
