"""Signals that come while a node starts: nothing is left behind, and a reload does not end it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, Node, until


def catches(node: Node, number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal (proc(5), SigCgt)."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def slow_engine(cluster: Cluster) -> dict[str, str]:
    """An engine that takes a while to open its socket, so that the start of a node has a middle."""
    from sdlb.adapters.engine_process import find_binary

    script = cluster.folder / "slow-engine"
    script.write_text(f'#!/bin/sh\nsleep 0.5\nexec {find_binary()} "$@"\n')
    script.chmod(0o755)
    return {**cluster.environment, "SDLB_ENGINE": str(script)}


MOMENTS: dict[str, Callable[[Node], object]] = {
    "handlers": lambda node: catches(node, signal.SIGHUP) and catches(node, signal.SIGTERM),
    "api-socket": lambda node: Path(node.socket).exists(),
    "engine": lambda node: (node.folder / "state" / "engine.log").exists(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_during_the_start_leaves_nothing(cluster: Cluster, moment: str) -> None:
    node = cluster.node("edge-1", entry=True, start=False)
    node.environment = slow_engine(cluster)
    node.start()
    assert node.process is not None
    until(moment, lambda: MOMENTS[moment](node), poll_s=0.001)
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(15) == 0, node.tail()
    assert node.engine_pids() == []
    assert not Path(node.socket).exists()


@pytest.mark.parametrize("moment", MOMENTS)
def test_sighup_during_the_start_ends_nothing(cluster: Cluster, moment: str) -> None:
    node = cluster.node("edge-1", entry=True, start=False)
    node.environment = slow_engine(cluster)
    node.start()
    assert node.process is not None
    until(moment, lambda: MOMENTS[moment](node), poll_s=0.001)
    node.process.send_signal(signal.SIGHUP)
    node.wait_ready()
    assert node.stop() == 0
    assert "config-" in node.tail(100), "the file was read again once the node was up"


def test_a_second_signal_gives_a_start_up(cluster: Cluster) -> None:
    node = cluster.node("edge-1", entry=True, start=False)
    script = cluster.folder / "hung-engine"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    node.environment = {**cluster.environment, "SDLB_ENGINE": str(script)}
    node.start()
    assert node.process is not None
    until("engine", lambda: (node.folder / "state" / "engine.log").exists())
    node.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    started = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(15) == 1
    assert time.monotonic() - started < 5
    assert "stopped by a second signal" in node.tail()


def test_signals_at_the_end_change_nothing(cluster: Cluster) -> None:
    """What comes while the last of the node is put away is not taken for a crash."""
    node = cluster.node("edge-1", entry=True)
    node.wait_ready()
    node.terminate()
    assert node.process is not None
    until("its engine has ended", lambda: not node.engine_pids(), poll_s=0.001)
    while node.process.poll() is None:
        node.process.send_signal(signal.SIGTERM)
        node.process.send_signal(signal.SIGHUP)
        time.sleep(0.0005)
    assert node.process.returncode == 0
