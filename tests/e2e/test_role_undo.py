"""Undo that is not possible: an artifact that is gone, and a version below the floor of a migration."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.e2e import roles
from tests.e2e.cluster import Cluster
from tests.e2e.roles import SITE
from tests.e2e.traffic import Traffic


@pytest.mark.promise(3)
def test_an_undo_that_cannot_be_done_stops_nothing(cluster: Cluster) -> None:
    """An artifact that one host has lost is missed before anything stops. Below `never_below`, floor and hook are named."""
    edge = cluster.node("edge", entry=True, start=False, **{"hook.migrate": {"command": [sys.executable, "-c", ""]}})
    edge.start()
    hosts = [roles.host(cluster, f"host-{n}", [edge]) for n in (1, 2)]
    cluster.wait_ready()
    roles.deploy(hosts, "1.0.1", soak_s=0.2)
    roles.deploy(hosts, "1.0.2", soak_s=0.2)
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.2")

    [artifact] = hosts[1].folder.glob(f"state/store/{roles.rollout(edge)['history'][-1]['digest']}")
    artifact.chmod(0o755)
    shutil.rmtree(artifact)
    source, away = cluster.folder / "catalog-1.0.1.tar", cluster.folder / "away"
    source.rename(away)
    pids = [roles.program(host) for host in hosts]
    with Traffic([edge], SITE) as traffic:
        undone = cluster.sdlb("rollout", "undo", "catalog", "--wait", node=hosts[0])
        assert undone.returncode == 1
        assert f"is halted: host-2: {source} cannot be read" in undone.stderr
        assert [roles.program(host) for host in hosts] == pids and roles.rollout(edge)["failed"].keys() == {"host-2"}
        traffic.wait_for(20)
        assert set(traffic.count()) == {"1.0.2"}
        away.rename(source)
        assert cluster.sdlb("rollout", "resume", "catalog", node=hosts[0]).returncode == 0
        roles.wait(hosts[0])
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    assert [roles.versions(host) for host in hosts] == [["1.0.1"]] * 2

    hook = {"name": "migrate", "kind": "hook", "at": "before", "run": "migrate", "timeout_s": 20}
    policies = cluster.folder / "policies.json"
    policies.write_text(json.dumps({"policy": {"catalog": {"gate": [hook]}}}))
    applied = cluster.sdlb("policy", "apply", str(policies), "--yes", node=edge)
    assert applied.returncode == 0, applied.stderr
    roles.deploy(hosts, "2.5.1", soak_s=0.2)
    assert cluster.sdlb("policy", "set", "catalog", "--never-below", "2.5", node=edge).returncode == 0
    for words in (("undo", "catalog"), ("undo", "catalog", "--dry-run"), ("start", "catalog", "1.0.2")):
        code, lines = roles.command(hosts[0], *words)
        assert code == 1 and "is below never_below = 2.5, since the hook migrate" in lines[-1], lines
    assert roles.rollout(edge)["state"] == "done" and [roles.versions(host) for host in hosts] == [["2.5.1"]] * 2
