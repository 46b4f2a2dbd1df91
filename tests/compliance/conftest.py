"""A public node with an endpoint that records, for everything that is thrown at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compliance.recorder import Recorder
from tests.compliance.wire import SITE
from tests.e2e.cluster import Cluster, Node

BRIEF: dict[str, object] = {
    "head_timeout_ms": 800,
    "idle_timeout_ms": 1200,
    "body_timeout_ms": 800,
    "response_timeout_ms": 1500,
    "body_bytes": 100_000,
    "connections_per_address": 40,
}


@pytest.fixture(scope="session")
def nodes() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


@pytest.fixture(scope="session")
def edge(nodes: Cluster, recorder: Recorder) -> Node:
    """The hardened preset with its default limits."""
    node = nodes.node("edge", entry=True, public=True)
    node.wait_ready()
    nodes.register(node, "web-1.0.0", SITE, recorder.endpoint)
    nodes.reachable([node], f"http://{SITE}/", "web-1.0.0")
    return node


@pytest.fixture(scope="session")
def brief(nodes: Cluster, recorder: Recorder) -> Node:
    """The same with short timeouts and small limits."""
    node = nodes.node("brief", entry=True, public=True, limits=BRIEF)
    node.wait_ready()
    nodes.register(node, "web-1.0.0", SITE, recorder.endpoint)
    nodes.reachable([node], f"http://{SITE}/", "web-1.0.0")
    return node
