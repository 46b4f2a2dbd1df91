"""Real nodes for a test: the demo's launcher, with short leases, direct registrations and what tests wait for."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sdlb.cli.demo.launch import SDLB, Instance, Launcher, Node, until
from sdlb.sdk.types import Health, Spec
from sdlb.sdk.types import Instance as Registered
from tests.e2e.backend import Backend

FAST: dict[str, object] = {"beat_s": 0.25, "lease_s": 1.5, "fence_s": 1.5}
"""Timing of test nodes: the defaults' proportions, a seventh of their length."""
NO_LEASE = 0.0


@dataclass
class Registration:
    """An instance that was put in by the API, without `sdlb run`: its program is a `Backend` of the test."""

    node: Node
    spec: Spec

    def get(self) -> Registered:
        with self.node.client() as client:
            return client.instance(self.spec.id)

    def wait(self, state: str, timeout_s: float = 15.0) -> Registered:
        until(f"{self.spec.id} {state}", lambda: self.get().state == state, timeout_s)
        return self.get()

    def deregister(self, deadline_s: float = 15.0) -> Registered:
        with self.node.client() as client:
            return client.deregister(self.spec.id, deadline_s)

    def gone(self) -> None:
        with self.node.client() as client:
            client.deregister(self.spec.id, gone=True)


class Cluster(Launcher):
    """Nodes have the tests' short leases; everything is ended by `close`, whatever happens."""

    def __init__(self) -> None:
        super().__init__("sdlb-e2e-")
        self._ids = itertools.count(1)

    def node(self, name: str, parents: Sequence[Node] = (), **options: Any) -> Node:
        options.setdefault("timing", FAST)
        return super().node(name, parents, **options)

    def tiers(self, *tiers: int) -> list[list[Node]]:
        """`tiers(2, 1, 2)`: two edges, a middle node below both, two hosts below that; all ready."""
        names = ["edge", *["rack"] * (len(tiers) - 2), "host"] if len(tiers) > 1 else ["edge"]
        made: list[list[Node]] = []
        for depth, count in enumerate(tiers):
            parents = made[-1] if made else []
            name = names[depth] + (str(depth) if len(tiers) > 3 and 0 < depth < len(tiers) - 1 else "")
            made.append([self.node(f"{name}-{n + 1}", parents, entry=depth == 0) for n in range(count)])
        self.wait_ready()
        return made

    # ------------------------------------------------------------- instances

    def register(
        self,
        node: Node,
        name: str,
        route: str | Sequence[str],
        backend: Backend | str,
        *,
        wait: str = "active",
        **fields: Any,
    ) -> Registration:
        """Puts an instance in by the API; `backend` is what answers, or an endpoint."""
        fields.setdefault("health", Health(kind="none"))
        fields.setdefault("ttl_s", NO_LEASE)
        fields.setdefault("id", f"{name}.{node.name}.{next(self._ids)}")
        routes = [route] if isinstance(route, str) else list(route)
        endpoint = backend if isinstance(backend, str) else backend.endpoint
        spec = Spec.of(name, routes=routes, endpoint=endpoint, **fields)
        with node.client() as client:
            client.register(spec)
        registration = Registration(node, spec)
        if wait:
            registration.wait(wait)
        return registration

    # ------------------------------------------------------------- looking and asking

    def reachable(self, entries: Iterable[Node], url: str, label: str, timeout_s: float = 15.0) -> None:
        """Until each of the entries would send a request for `url` to the version `label` ("catalog-1.0.1")."""

        def seen(node: Node) -> bool:
            with node.client() as client:
                told = client.explain(url)
            return any(f"{told.service}-{target.version}" == label and target.capacity for target in told.targets)

        for node in entries:
            until(f"{label} reachable for {url} at {node.name}", lambda node=node: seen(node), timeout_s)

    def sdlb(self, *words: str, node: Node | None = None, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end, on this node's socket."""
        environment = {**self.environment, **({"SDLB_SOCKET": node.socket} if node is not None else {})}
        return subprocess.run(
            [*SDLB, *words], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def json(self, *words: str, node: Node) -> Any:
        """The JSON that a read command prints."""
        done = self.sdlb(*words, "--json", node=node)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def dump(self) -> str:
        """The logs, for a test that failed."""
        files: list[Path] = []
        for node in self.nodes.values():
            files += [node.log_file, *sorted(node.folder.glob("*.log")), *sorted((node.folder / "state").glob("*.log"))]
        parts: list[str] = []
        for file in dict.fromkeys(files):
            if file.exists() and file.stat().st_size:
                lines = file.read_text(errors="replace").splitlines()
                parts += [f"---- {file.relative_to(self.folder)} ({len(lines)} lines)", *lines[-40:]]
        return "\n".join(parts)


def api(node: Node) -> httpx.Client:
    """The node's local API by a client that isn't ours."""
    transport = httpx.HTTPTransport(uds=node.socket, verify=False)
    return httpx.Client(transport=transport, base_url="http://node", timeout=15.0, trust_env=False)


def metric(of: Node, name: str) -> float:
    """A line of its metrics that has no labels; 0: it is not there."""
    with api(of) as http:
        lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.partition(" ")[0] == name)


def get(node: Node, url_host: str, path: str, **options: Any) -> httpx.Response:
    """One request to an entry, on a connection of its own."""
    headers = {"host": url_host, **options.pop("headers", {})}
    return httpx.request(
        options.pop("method", "GET"),
        f"http://{node.http}{path}",
        headers=headers,
        timeout=options.pop("timeout", 20.0),
        trust_env=False,
        **options,
    )


__all__ = ["FAST", "Cluster", "Instance", "Node", "Registration", "api", "get", "metric", "until"]
