"""Metrics over TCP, for a Prometheus that speaks no Unix sockets."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from sdlb.model.problem import Invalid
from sdlb.node.config import Options, read_config
from sdlb.node.metric_texts import TEXTS
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster

Make = Callable[..., Backend]
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_metrics_are_scraped_over_tcp_and_nothing_else_is(cluster: Cluster, backend: Make) -> None:
    address = f"127.0.0.1:{cluster.ports.take()}"
    node = cluster.node("edge-1", entry=True, listen={"metrics": address})
    cluster.wait_ready()
    cluster.register(node, "web-1.0.0", "m.example", backend("web", "1.0.0"))
    with httpx.Client(base_url=f"http://{address}", trust_env=False) as http:
        page = http.get("/metrics").text
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200
        for method, path in (("GET", "/v1/tree"), ("PUT", "/v1/instances/x"), ("GET", "/docs"), ("POST", "/metrics")):
            assert http.request(method, path).status_code in (404, 405), path
    samples = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    for name in (
        'sdlb_requests_total{service="web",version="1.0.0"}',
        'sdlb_failed_total{service="web",version=""}',
        'sdlb_responses_total{service="web",version="1.0.0",class="5xx"}',
        'sdlb_events_total{level="error",code="service-lost"}',
        "sdlb_engine_retry_budget_exhausted_total",
        "sdlb_internal_errors_total",
    ):
        assert samples[name] == "0", f"{name} is there before anything has happened"
    helped = dict(line.split(" ", 3)[2:] for line in page.splitlines() if line.startswith("# HELP "))
    kinds = [line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE ")]
    assert set(kinds) == set(helped)
    assert not [name for name, text in helped.items() if text.startswith("The engine's ")], "each has a text of its own"
    assert cluster.json("tree", node=node)["listen"]["metrics"] == address
    assert node.stop() == 0
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(address.rpartition(":")[2])))


def test_an_address_in_use_is_reported_with_its_key(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        node = cluster.node("edge-1", start=False, listen={"metrics": address})
        node.write_config()
        done = cluster.sdlb("node", "--config", str(node.config))
    assert done.returncode == 1
    assert f"listen.metrics: {address} cannot be bound (Address already in use)" in done.stderr


@pytest.mark.parametrize(
    ("address", "public", "fits"),
    [
        ("127.0.0.1:9101", True, True),
        ("10.1.2.3:9101", True, True),
        ("[fd00::1]:9101", True, True),
        ("0.0.0.0:9101", False, True),
        ("0.0.0.0:9101", True, False),
        ("[::]:9101", True, False),
        ("8.8.8.8:9101", False, False),
        ("[2600::1]:9101", False, False),
        ("localhost:9101", False, False),
    ],
)
def test_metrics_are_never_served_to_the_internet(tmp_path: Path, address: str, public: bool, fits: bool) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f'public = {str(public).lower()}\n[listen]\nmetrics = "{address}"\n')
    if fits:
        assert read_config(Options(config=str(file))).listen_metrics == address
        return
    with pytest.raises(Invalid, match=re.escape(f"{file}:3: listen.metrics")):
        read_config(Options(config=str(file)))


def test_the_texts_are_those_of_the_reference() -> None:
    page = REFERENCE.read_text().partition("## Counters of the engine")[2]
    named = re.findall(r"^\| `([a-z0-9_]+)` \| (?:gauge|counter) \|", page, re.MULTILINE)
    assert sorted(named) == sorted(TEXTS)
