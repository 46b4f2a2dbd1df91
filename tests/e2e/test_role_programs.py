"""Programs of a role that behave badly: they do not stop, write too much, use too much memory, or have names that are commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sdlb.cli.demo.launch import APP
from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, api, until
from tests.e2e.roles import SITE
from tests.e2e.traffic import Traffic

STUBBORN = """from __future__ import annotations
import os, signal, sys, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    os.setsid()
    time.sleep(1000)
def write():
    for _ in range(1000):
        os.write(1, b"x" * 65535 + b"\\n")
threading.Thread(target=write, daemon=True).start()
"""
GREEDY = """from __future__ import annotations
import threading
def grow():
    global kept
    kept = b"x" * (200 << 20)
threading.Timer(1.0, grow).start()
"""
HOST: dict[str, object] = {"memory_mb": 100, "stop_timeout_s": 1.0, "side_by_side": False}


def _program(prelude: str, signals: str = "signal.SIGTERM, signal.SIGINT") -> str:
    text = APP.read_text().replace("from __future__ import annotations\n", prelude, 1)
    return text.replace("(signal.SIGTERM, signal.SIGINT)", f"({signals},)")


def _of(version: str, folder: Path) -> list[int]:
    """Processes that run this version of an artifact of the test."""
    return roles.processes_whose(
        lambda words: version in words and any(word.startswith(f"{folder}/") for word in words)
    )


def _used(folder: Path) -> int:
    return int(subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True).stdout.split()[0])


def _refused(node: Node, version: str) -> None:
    with api(node) as http:
        for path, body in (
            (
                "/v1/releases",
                {"service": "catalog", "version": version, "artifact": {"any": {"url": "/c", "sha256": "a" * 64}}},
            ),
            ("/v1/rollouts", {"service": "catalog", "version": version}),
        ):
            answer = http.post(path, json=body)
            assert answer.status_code == 400 and "is not a version" in answer.json()["detail"], answer.text


@pytest.mark.promise(3)
def test_programs_that_behave_badly_are_kept_in_bounds(cluster: Cluster) -> None:
    """A program that ignores SIGTERM and has forked is stopped whole. Its log is bounded. One that exceeds its memory is stopped, and the
    reason is shown. A version that is a command is refused."""
    edge = cluster.node("edge", entry=True)
    host = roles.host(cluster, "host-1", [edge], **HOST)
    cluster.wait_ready()
    roles.add(host, cluster.folder, "1.0.1", _program(STUBBORN, "signal.SIGINT"))
    roles.start(host, "1.0.1", soak_s=0.2)
    roles.wait(host)
    cluster.reachable([edge], f"http://{SITE}/", "catalog-1.0.1")
    assert len(_of("1.0.1", host.folder)) == 2
    log = host.folder / "state/roles/web/catalog/a"
    until("it has written", lambda: _used(log) > 100)
    roles.add(host, cluster.folder, "1.0.2")
    with Traffic([edge], SITE) as traffic:
        roles.start(host, "1.0.2", soak_s=0.2, accept_gap=True)
        roles.wait(host)
        traffic.wait_for(20)
    traffic.assert_nothing_lost()
    assert _of("1.0.1", host.folder) == [] and roles.versions(host) == ["1.0.2"]
    assert _used(log) < 20 << 10, "64 MB were written"

    roles.add(host, cluster.folder, "1.0.3", _program(GREEDY))
    roles.start(host, "1.0.3", soak_s=20.0, accept_gap=True)
    halted = roles.wait(host, "halted")
    assert "more than memory_mb (100 MiB)" in halted["failed"]["host-1"]
    assert roles.versions(host) == ["1.0.2"] and _of("1.0.3", host.folder) == []

    before = sorted(os.listdir(host.folder))
    for version in ("1.0.2;touch x", "$(id)", "../1.0.2", "1.0.2\n"):
        _refused(host, version)
    assert sorted(os.listdir(host.folder)) == before
