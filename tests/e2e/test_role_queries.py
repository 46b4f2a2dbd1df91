"""Analyses of canaries that ask others: queries of a real Prometheus, on real nodes with real programs, under traffic.

A step with an analysis takes three blocks of ten seconds at least, so one test plays all rollouts at once.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, until
from tests.prometheus import Exporter, needs_prometheus, prometheus
from tests.releases import COMMAND, pack

OLD, NEW = "1.0.1", "1.0.2"
FOR = {"fine": "10s", "slow": "10s", "down": "10s"}
SERVICES = tuple(FOR)


def _host(cluster: Cluster, name: str, edge: Node) -> Node:
    """A node that runs all the services."""
    tables: dict[str, Any] = {}
    for service in SERVICES:
        command = [service if word == "catalog" else word for word in COMMAND]
        tables[f"role.web.{service}"] = {
            "driver": "process",
            "routes": [f"{service}.example"],
            "command": command,
            "health": {"kind": "http", "path": "/health", "interval_s": 0.25},
            "from": [f"{cluster.folder}/"],
        }
    node = cluster.node(name, [edge], start=False, **tables)
    node.settings[""]["roles"] = ["web"]
    node.start()
    return node


def _add(node: Node, folder: Path, service: str, version: str) -> None:
    file = folder / f"{service}-{version}.tar"
    artifact = {"any": {"url": str(file), "sha256": pack(file, comment=file.name)}}
    roles.post(node, "/v1/releases", {"service": service, "version": version, "artifact": artifact})


def _start(node: Node, service: str, version: str, **fields: object) -> None:
    body = {"service": service, "version": version, "soak_s": 0.2, "side_by_side": "always", **fields}
    roles.post(node, "/v1/rollouts", body)


@contextmanager
def _asked(entry: Node, sites: Sequence[str]) -> Generator[None]:
    """All sites have requests."""
    ending = threading.Event()

    def run() -> None:
        with httpx.Client(trust_env=False) as client:
            while not ending.wait(0.01):
                for site in sites:
                    client.get(f"http://{entry.http}/", headers={"host": site})

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    ending.set()
    thread.join(20)


@contextmanager
def _judge() -> Generator[tuple[str, list[Any]]]:
    """A hook that agrees: its URL, and the bodies that it gets."""
    bodies: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/judge", bodies
        server.shutdown()


def _query(source: str, **bound: float) -> dict[str, object]:
    value = 'max_over_time(depth{service="{service}",version="{version}"}[{window}])'
    return {"name": "depth", "source": source, "value": value, **bound}


@needs_prometheus
def test_queries_decide_canaries(cluster: Cluster, tmp_path: Path) -> None:
    """One query lets its canary pass, with the consent of a hook, and one halts it. A third server is down: that rollout pauses."""
    with Exporter() as exporter, prometheus(tmp_path, exporter) as url, _judge() as (hook, bodies):
        exporter.text = f'depth{{service="fine",version="{NEW}"}} 3\ndepth{{service="slow",version="{NEW}"}} 70\n'
        sources: dict[str, Any] = {"source.prom": {"url": url}, "source.gone": {"url": "http://127.0.0.1:1"}}
        edge = cluster.node("edge-1", entry=True, **sources)
        for name in ("host-1", "host-2"):
            _host(cluster, name, edge)
        cluster.wait_ready()
        for service in SERVICES:
            _add(edge, cluster.folder, service, OLD)
            _start(edge, service, OLD)
        for service in SERVICES:
            until(f"{service} is there", lambda service=service: roles.rollout(edge, service)["state"] == "done")
            _add(edge, cluster.folder, service, NEW)
            cluster.reachable([edge], f"http://{service}.example/", f"{service}-{OLD}")
        wrong: dict[str, Any] = {"service": "fine", "version": NEW, "step": [{"nodes": 1, "share": 50, "for": "10s"}]}
        wrong["analysis"] = {"query": [_query("promm", max=10)]}
        refused = roles.post(edge, "/v1/rollouts", wrong, 409)
        assert "no [source.promm]; did you mean 'prom'?" in refused["detail"]
        assert roles.rollout(edge, "fine")["to"] == OLD
        with _asked(edge, [f"{service}.example" for service in SERVICES]):
            for service in SERVICES:
                query = _query("gone" if service == "down" else "prom", max=10)
                analysis: dict[str, object] = {"requests_min": 10, "warm_up_s": 0, "query": [query]}
                if service == "fine":
                    analysis["hook"] = hook
                step = [{"nodes": 1, "share": 50, "for": FOR[service]}]
                _start(edge, service, NEW, step=step, analysis=analysis)
            ended = {"fine": "done", "slow": "halted", "down": "paused"}
            for service, state in ended.items():
                until(f"{service} is {state}", lambda s=service, t=state: roles.rollout(edge, s)["state"] == t, 60.0)
    assert roles.rollout(edge, "slow")["detail"] == "query depth: 70 is above max = 10"
    assert roles.rollout(edge, "slow")["step"]["share"] == 0
    paused = roles.rollout(edge, "down")["detail"]
    assert paused.startswith("query depth has no value for the step: gone could not be asked: "), paused
    assert [(body["key"], body["analysis"]["result"]) for body in bodies] == [("analysis/fine/r-4/1/end", "pass")]
    errors = bodies[0]["analysis"]["metrics"]["errors"]
    assert (
        errors["new_requests"] >= 10
        and errors["old_requests"] >= 10
        and bodies[0]["analysis"]["values"] == {"depth": 3}
    )
    texts = [text for _, text in roles.events(edge, "analysis")]
    assert any(": pass: " in text for text in texts) and any(": fail: query depth: 70" in text for text in texts)
