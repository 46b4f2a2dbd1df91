"""As process 1 of a container, orphans are ours: they are reaped."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import time
from pathlib import Path

from sdlb.cli.demo.launch import SDLB
from tests.e2e.cluster import Cluster, until

SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2): gets orphans as process 1 does; kept over exec."""


def _subreaper() -> None:
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def children(parent: int) -> dict[int, str]:
    """Process id -> state."""
    found: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent:
            found[int(stat.parent.name)] = state
    return found


def test_orphans_of_a_program_are_reaped(cluster: Cluster) -> None:
    ((edge,),) = cluster.tiers(1)
    orphans = "for i in 1 2 3; do (sleep 0.$i &); done; "
    server = f"exec {sys.executable} -m http.server --bind 127.0.0.1 {{port}}"
    words = [*SDLB, "run", "--route", "z.example", "z-1.0.0", "--", "sh", "-c", orphans + server]
    run = subprocess.Popen(
        words,
        env={**cluster.environment, "SDLB_SOCKET": edge.socket},
        preexec_fn=_subreaper,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until("it is active", lambda: "active" in cluster.sdlb("status", "z", node=edge).stdout, 20)
        time.sleep(0.5)
        until("the program alone is left", lambda: list(children(run.pid).values()) == ["S"], 5)
    finally:
        run.terminate()
        assert run.wait(20) == 0


def test_orphans_of_a_node_are_reaped(cluster: Cluster) -> None:
    node = cluster.node("edge-1", entry=True, start=False)
    node.write_config()
    command = f"sleep 0.1 & sleep 2 & exec {' '.join(SDLB)} node --config {node.config}"
    node.process = subprocess.Popen(["sh", "-c", command], env=node.environment, start_new_session=True)
    node.wait_ready()
    until("the sleepers are gone", lambda: set(children(node.process.pid)) == set(node.engine_pids()), 5)
    assert node.stop() == 0
