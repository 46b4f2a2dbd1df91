"""Bad versions are found by their figures: one tree, one canary for each way to be bad, all at once under load.

What a test can afford is shorter and has larger differences than what people use. `make canaries` (SDLB_CANARIES=full) plays the usual
settings: 25 % of 1,000 requests a second to one version at a time, `alpha` 1 %, and prints what was measured.
"""

from __future__ import annotations

import http.server
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from sdlb.model.canary import block_of
from tests.e2e import roles
from tests.e2e.cluster import Cluster, Node, until
from tests.e2e.load import Faults, Load, Reply
from tests.releases import COMMAND, release

OLD, NEW = "1.0.1", "1.0.2"
FULL = os.environ.get("SDLB_CANARIES") == "full"
RATE = 1000.0 if FULL else 80.0
"""Requests a second for each service."""
GOOD = Faults(errors=0.005, middle=0.03, slow=0.008)
CASES = {
    "errors": replace(GOOD, errors=0.03 if FULL else 0.08),
    "slow": replace(GOOD, slow=0.018 if FULL else 0.15),
    "breaks": replace(GOOD, breaks=0.1),
    "down": replace(GOOD, errors=1.0),
    "refuses": replace(GOOD, refuses=True),
}
AT_ONCE = ("down", "refuses")
"""Found by the guard, the others by the test of proportions."""
REPORT_S = 3.0
"""After the end of a block, its figures are reported with the next heartbeat (2 s)."""
STEP: dict[str, Any] = {"nodes": 1, "share": 25 if FULL else 50}
FOR = {"slow": "4m"}
"""Else two minutes. Twice the slow answers are found in nine of ten steps of two minutes (tests/core/test_analysis.py)."""
ANALYSIS: dict[str, Any] = {"requests_min": 100, "warm_up_s": 5 if FULL else 1, "alpha": 0.01 if FULL else 0.2}
"""With a larger `alpha`, three blocks are enough."""


@dataclass
class Seen:
    """`began`, `halted`: Unix time at which the version may get requests, and of the verdict. `replies`: to the clients of the service."""

    rollout: dict[str, Any]
    event: dict[str, Any]
    began: float
    halted: float
    replies: list[Reply]

    def of_new(self) -> list[Reply]:
        return [each for each in self.replies if each.version == NEW]


def _host(cluster: Cluster, name: str, edges: list[Node]) -> Node:
    """A node that runs all services. Health checks say nothing about `refuses`: they are too rare."""
    tables: dict[str, Any] = {
        f"role.web.{service}": {
            "driver": "process",
            "routes": [f"{service}.example"],
            "command": [service if word == "catalog" else word for word in COMMAND],
            "health": {"kind": "http", "path": "/health", "interval_s": 600.0 if service == "refuses" else 0.5},
            "from": [f"{cluster.folder}/"],
            "restart": {"first_s": 0.1, "max_s": 1.0},
        }
        for service in CASES
    }
    node = cluster.node(name, edges, start=False, **tables)
    node.settings[""]["roles"] = ["web"]
    node.start()
    return node


def _start(node: Node, service: str, version: str, faults: Faults, **fields: object) -> None:
    roles.post(node, "/v1/releases", release(node.folder.parent, version, faults.program, service=service))
    how = {"soak_s": 0.2, "side_by_side": "always", "nodes_out_max": "100%", **fields}
    roles.post(node, "/v1/rollouts", {"service": service, "version": version, **how})


@contextmanager
def _hook() -> Generator[tuple[str, list[Any]]]:
    """A webhook that says neither yes nor no: its URL, and the bodies that it gets."""
    bodies: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/canary", bodies
        server.shutdown()


def _event(nodes: list[Node], code: str, **fields: str) -> dict[str, Any]:
    """The only one with these fields."""
    found: list[dict[str, Any]] = []
    for node in nodes:
        with node.client() as client:
            found += [
                {"at": datetime.fromisoformat(each.at).timestamp(), "text": each.text, **each.fields}
                for each in client.events(follow=False)
                if each.code == code and all(text in str(each.fields.get(key)) for key, text in fields.items())
            ]
    [only] = found
    return only


def _play(cluster: Cluster, hook: str) -> dict[str, Seen]:
    edges = [cluster.node(f"edge-{n}", entry=True) for n in (1, 2)]
    hosts = [_host(cluster, f"host-{n}", edges) for n in ((1, 2, 3, 4) if FULL else (1, 2))]
    cluster.wait_ready()
    for service in CASES:
        _start(hosts[0], service, OLD, GOOD)
    for service in CASES:
        until(f"{service} is there", lambda s=service: roles.rollout(hosts[0], s)["state"] == "done", 60.0)
        cluster.reachable(edges, f"http://{service}.example/", f"{service}-{OLD}")
    seen: dict[str, Seen] = {}
    for group in [[name] for name in CASES] if FULL else [list(CASES)]:
        _canaries(edges, hosts, group, hook, seen)
    assert roles.command(hosts[0], "abort", "down")[0] == 0
    until("what was halted is undone", lambda: roles.rollout(hosts[0], "down")["state"] == "undone")
    for host in hosts:
        with host.client() as client:
            assert {each.version for each in client.instances() if each.service == "down"} == {OLD}
    return seen


def _canaries(edges: list[Node], hosts: list[Node], group: list[str], hook: str, seen: dict[str, Seen]) -> None:
    with ExitStack() as stack:
        connections = 16 if FULL else 4
        clients = [("",)] * connections
        load = {name: Load(edges, f"{name}.example", clients, RATE / connections) for name in group}
        for each in load.values():
            stack.enter_context(each)
        time.sleep(12.0 if FULL else 0.0)
        for name in group:
            analysis = {**ANALYSIS, **({"hook": hook, "hook_each": "block"} if name == "errors" else {})}
            _start(hosts[0], name, NEW, CASES[name], step=[{**STEP, "for": FOR.get(name, "2m")}], analysis=analysis)
        for name in group:
            until(f"{name} is stopped", lambda n=name: roles.rollout(hosts[0], n)["state"] == "halted", 300.0)
        goal = {name: len(each.replies) + 400 for name, each in load.items()}
        until("all are asked again", lambda: all(len(load[name].replies) >= goal[name] for name in group))
    for name in group:
        event = _event(edges, "analysis", service=name)
        began = _event(hosts, "instance-healthy", instance=f"{name}-{NEW}.")["at"]
        seen[name] = Seen(roles.rollout(hosts[0], name), event, began, event["at"], load[name].replies)


def _counts(replies: list[Reply], first: int, blocks: int) -> Counter[str]:
    """What clients saw in these blocks, with the names of the event's fields."""
    found: Counter[str] = Counter()
    for each in replies:
        if first <= block_of(each.done) < first + blocks:
            suffix = "" if each.version == NEW else "_old"
            found[f"requests{suffix}"] += 1
            found[f"errors{suffix}" if each.status >= 500 else f"good{suffix}"] += 1
    return found


def _agrees(seen: Seen, counted: dict[str, float]) -> bool:
    """Whether these counts of each version are those of the clients in some blocks one after another, to 2 % and two requests: what is in
    flight at the end of a block may be in another one for its client. The old version has more blocks: those of the warm-up too."""
    last = block_of(seen.halted)
    found = [
        _counts(seen.replies, first, blocks)
        for first in range(block_of(seen.replies[0].done), last)
        for blocks in range(1, last - first + 1)
    ]
    return all(
        any(all(abs(each[key] - counted[key]) <= 2 + 0.02 * counted[key] for key in keys) for each in found)
        for keys in ([key for key in counted if key.endswith("_old") is old] for old in (False, True))
    )


@pytest.mark.promise(3)
def test_bad_canaries_are_stopped_with_the_counts_of_their_clients(cluster: Cluster) -> None:
    """More errors, more slow answers, broken connections that retries hide, only errors, no connections: each is stopped. The two last ones
    with the first whole block. Then the version gets nothing more, and the counts of the event and the webhook are those of the clients."""
    with _hook() as (url, bodies):
        found = _play(cluster, url)
    for name, seen in found.items():
        rollout, after = seen.rollout, [each.sent - seen.halted for each in seen.of_new() if each.sent > seen.halted]
        if FULL:
            print(
                f"{name}: stopped {seen.halted - seen.began:.1f} s after it was healthy, {max(after, default=0.0):.2f} s before its"
            )
            took_s = seen.replies[-1].done - seen.replies[0].done
            print(f"  last request, of {len(seen.replies) / took_s:.0f} a second; {rollout['detail']}")
        assert rollout["analysis"]["result"] == "fail" and rollout["step"]["share"] == 0, (name, rollout)
        assert ": fail: " in seen.event["text"]
        assert not any(each > 5.0 for each in after), (name, after)
        assert {each.version for each in seen.replies[-100:]} == {OLD}, name
        if name in AT_ONCE:
            assert block_of(seen.halted - REPORT_S) <= block_of(seen.began) + 1, (name, seen.event)
            assert "requests to 1.0.2 failed" in rollout["detail"]
        else:
            fields = {key: float(seen.event[key]) for key in ("requests", "errors", "requests_old", "errors_old")}
            if name == "breaks":  # its clients see neither the errors nor the attempts that had them
                fields = {f"good{old}": fields[f"requests{old}"] - fields[f"errors{old}"] for old in ("", "_old")}
            assert _agrees(seen, fields), (name, fields)
    assert found["slow"].rollout["analysis"]["metric"] in ("p99", "p90")
    seen = [each.status for each in found["breaks"].replies]
    assert seen.count(502) <= 0.01 * len(seen), "a request that breaks twice is not tried a third time"
    assert found["breaks"].rollout["analysis"]["metric"] == "errors"
    sent = [body["analysis"]["metrics"]["errors"] for body in bodies if body["analysis"]["result"] == "running"]
    last = {"requests": sent[-1]["new_requests"], "requests_old": sent[-1]["old_requests"]}
    last |= {"errors": sent[-1]["new_bad"], "errors_old": sent[-1]["old_bad"]}
    assert last["requests"] > 0 and _agrees(found["errors"], last), last
