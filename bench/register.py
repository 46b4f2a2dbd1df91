"""10,000 claims from empty through three tiers, and the memory of the root that knows them all."""

from __future__ import annotations

import time

from bench.report import Report, below
from bench.tree import CLIENTS, Tree, spent

LIMIT_S = 20.0
CONTROL_MB, ENGINE_MB = 150.0, 100.0
PATIENCE_S = 300.0
SETTLE_S = 3.0


def run(quick: bool) -> Report:
    """Raises CannotRun, TimeoutError."""
    count = 1000 if quick else 10_000
    with Tree() as tree:
        before = tree.cpu_s()
        taken, seen = tree.register(count, PATIENCE_S)
        costs = spent(before, tree.cpu_s())
        time.sleep(SETTLE_S)
        memory = tree.rss_mb()
    control, engine = memory["root-1"]
    rows = [
        below(f"{count:,} claims until the root serves the last", seen, LIMIT_S, "s"),
        below(f"root with {count:,} services, control", control, CONTROL_MB, "MB"),
        below(f"root with {count:,} services, engine", engine, ENGINE_MB, "MB"),
    ]
    how = [
        f"Instances of {count:,} services, each on a host name of its own, put in over the host node's Unix socket from",
        f"{CLIENTS} connections; the last was taken after {taken:.1f} s. All of them serve when the root has answered a request",
        f"for each with 200. CPU of control + engine meanwhile: {costs}. Memory is resident, {SETTLE_S:g} s later.",
    ]
    measurements = {"taken_s": taken, "seen_s": seen, "rss_mb": memory, "clients": CLIENTS, "claims": count}
    return Report("register", "many claims through three tiers", how, rows, measurements)
