"""The cost of an idle host node with 20 instances: health checks, leases, beats."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack

from bench.client import Client
from bench.report import CannotRun, Report, below
from bench.tree import Tree

INSTANCES = 20
TTL_S = 10.0
CPU_LIMIT = 1.0
CONTROL_MB, ENGINE_MB = 60.0, 15.0
SETTLE_S = 5.0


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    seconds = 6.0 if quick else 20.0
    with Tree() as tree, ExitStack() as stack:
        stop = threading.Event()
        clients = [stack.enter_context(Client(tree.host.socket)) for _ in range(INSTANCES)]
        renewing = threading.Thread(target=_renew, args=(tree, clients, stop))
        renewing.start()
        stack.callback(renewing.join)
        stack.callback(stop.set)
        stop.wait(SETTLE_S)
        with Client(tree.host.socket) as client:
            states = [instance["state"] for instance in client.json("GET", "/v1/instances")[1]["instances"]]
        if states != ["active"] * INSTANCES:
            raise CannotRun(f"not all {INSTANCES} instances are active: {states}")
        before = tree.cpu_s()
        stop.wait(seconds)
        after = tree.cpu_s()
        memory = tree.rss_mb()
    percent = {
        node: tuple((b - a) * 100 / seconds for a, b in zip(before[node], after[node], strict=True)) for node in before
    }
    control, engine = memory["host-1"]
    rows = [
        below("host node, control + engine", sum(percent["host-1"]), CPU_LIMIT, "% of a core", 2),
        below("rack node, control + engine", sum(percent["rack-1"]), CPU_LIMIT, "% of a core", 2),
        below("root node, control + engine", sum(percent["root-1"]), CPU_LIMIT, "% of a core", 2),
        below("host node, control", control, CONTROL_MB, "MB"),
        below("host node, engine", engine, ENGINE_MB, "MB"),
    ]
    how = [
        f"{INSTANCES} instances on the host node, each asked GET / every 2 s by the node and each renewing its lease of",
        f"{TTL_S:g} s every {TTL_S / 3:.1f} s, as `sdlb run` does; no requests. CPU time over {seconds:g} s, resident memory at the end.",
        "Control and engine apart: "
        + ", ".join(f"{node} {parts[0]:.2f} + {parts[1]:.2f} %" for node, parts in percent.items())
        + ".",
    ]
    measurements = {"cpu_percent": percent, "rss_mb": memory, "instances": INSTANCES, "seconds": seconds}
    return Report("idle", "a node with nothing to do", how, rows, measurements)


def _renew(tree: Tree, clients: list[Client], stop: threading.Event) -> None:
    """Each instance on a connection of its own, spread over a third of the lease."""
    bodies = [json.dumps(_instance(tree, number)).encode() for number in range(INSTANCES)]
    for number, client in enumerate(clients):
        client.ask("PUT", f"/v1/instances/i-{number}", body=bodies[number])
    while True:
        for number, client in enumerate(clients):
            if stop.wait(TTL_S / 3 / INSTANCES):
                return
            client.ask("PUT", f"/v1/instances/i-{number}", body=bodies[number])


def _instance(tree: Tree, number: int) -> dict[str, object]:
    """Five services of four instances each."""
    service = number % 5
    return {
        "service": f"service-{service}",
        "version": "1.0.0",
        "routes": [f"service-{service}.bench.test/*"],
        "endpoint": tree.backend,
        "health": {"kind": "http", "path": "/"},
        "ttl_s": TTL_S,
    }
