"""Memory pressure is reported, with the connections that were closed for it."""

from __future__ import annotations

import contextlib
import time

from tests.compliance.recorder import Recorder
from tests.compliance.wire import SITE, dial
from tests.e2e.cluster import Cluster, get


def test_memory_pressure_is_reported() -> None:
    head = f"GET / HTTP/1.1\r\nHost: {SITE}\r\nCookie: ".encode() + b"a" * 60_000
    with Cluster() as cluster, Recorder() as recorder, contextlib.ExitStack() as attackers:
        node = cluster.node("edge", entry=True, limits={"memory_mb": 48, "head_timeout_ms": 60_000})
        node.wait_ready()
        cluster.register(node, "web-1.0.0", SITE, recorder.endpoint)
        cluster.reachable([node], f"http://{SITE}/", "web-1.0.0")
        for _ in range(800):
            with contextlib.suppress(OSError):
                attackers.enter_context(dial(node)).sendall(head)
        end = time.monotonic() + 15
        told = ""
        while "engine-memory-full" not in told:
            assert time.monotonic() < end, told
            time.sleep(0.1)
            told = cluster.sdlb("events", node=node).stdout
        assert "of 48 MiB" in told
        assert get(node, SITE, "/").status_code == 200
