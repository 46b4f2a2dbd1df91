"""One claim more or less among 10,000: how soon the root, three tiers up, routes it while it serves traffic.

A claim counts as added when the root's port has answered a request for it with 200, and as withdrawn when it has
answered one with 503, 421 or 404 (the correct answers then). The time runs from before the call of the local
API. The engine's pause is measured on a separate engine, from sending a delta to `applied`. Traffic never waits that long:
requests use the old table while the new one is made.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench import backend, processes
from bench.client import Client
from bench.engine import Engine, key
from bench.report import CannotRun, Report, Row, below
from bench.tree import Tree, name
from sdlb.cli.demo.launch import Ports
from sdlb.core.effects import EndpointPut, Pick, RoutePut

VISIBLE_MS = 50.0
PAUSE_MS = 1.0
RATE = 2000
CONNECTIONS = 20
REQUESTED = 200
"""The number of services to which the load sends its requests, round robin."""
POLL_S = 0.0005
PATIENCE_S = 10.0
PATTERN = "service-{}.bench.test/*"


class Load:
    """`RATE` requests a second by h2load until the end of the context; then `lost` and `answered` can be read."""

    def __init__(self, address: str, folder: Path, seconds: int) -> None:
        asks = folder / "asks"
        asks.write_text("".join(f"http://{name(n)}/\n" for n in range(REQUESTED)))
        self._process = subprocess.Popen(
            [
                *(processes.tool("h2load", "nghttp2-client"), "--h1", "-t1", f"-c{CONNECTIONS}"),
                *(
                    f"--rps={RATE // CONNECTIONS}",
                    f"--duration={seconds}",
                    f"--connect-to={address}",
                    f"--input-file={asks}",
                ),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._seconds = seconds

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def result(self) -> tuple[int, int, str]:
        """The number of answered requests, the number of lost ones, and the output of h2load."""
        output, _ = self._process.communicate(timeout=self._seconds + 30)
        counts = re.search(
            r"requests: (\d+) total, .*? (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output
        )
        status = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
        if counts is None or status is None:
            raise CannotRun(f"h2load printed: {output.strip()[-500:]}")
        lost = sum(int(counts[n]) for n in (3, 4, 5)) + sum(int(status[n]) for n in (2, 3, 4))
        return int(counts[2]), lost, output

    def close(self) -> None:
        processes.end([self._process])


def run(quick: bool) -> Report:
    """Raises CannotRun, TimeoutError."""
    services, seconds = (1000, 6) if quick else (10_000, 40)
    pauses = _pauses(services, 200 if quick else 2000)
    with Tree() as tree, ExitStack() as stack:
        tree.register(services, 300.0)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdlb-bench-")))
        load = Load(tree.root.http, folder, seconds)
        stack.callback(load.close)
        time.sleep(1.0)
        there: list[float] = []
        gone: list[float] = []
        before = tree.cpu_s()
        began = time.monotonic()
        with (
            Client(tree.host.socket) as api,
            Client(tree.root.http) as requester,
            ThreadPoolExecutor(1) as pool,
        ):
            number = services
            while time.monotonic() < began + seconds - 2.0:  # the load runs a little longer
                there.append(_add(tree, api, requester, number))
                gone.append(_withdraw(api, requester, pool, number))
                number += 1
        took = time.monotonic() - began
        after = tree.cpu_s()
        if not load.runs:
            raise CannotRun(f"h2load stopped early: {load.result()[2].strip()[-300:]}")
        answered, lost, output = load.result()
    rows = [
        below(f"claim added, served by the root, p99 of {len(there)}", _ms(there, 0.99), VISIBLE_MS, "ms"),
        below(f"claim withdrawn, not served by the root, p99 of {len(gone)}", _ms(gone, 0.99), VISIBLE_MS, "ms"),
        Row("requests lost", "0", f"{lost} of {answered + lost:,}", lost == 0),
        below(f"engine, delta sent to applied, p99 of {len(pauses)}", _ms(pauses, 0.99), PAUSE_MS, "ms", 2),
        Row(
            "p50: added, withdrawn, applied",
            "",
            f"{_ms(there, 0.5):.1f}, {_ms(gone, 0.5):.1f}, {_ms(pauses, 0.5):.2f} ms",
        ),
        Row("most: added, withdrawn, applied", "", f"{_ms(there, 1):.1f}, {_ms(gone, 1):.1f}, {_ms(pauses, 1):.2f} ms"),
    ]
    control = {node: (after[node][0] - before[node][0]) / (len(there) + len(gone)) * 1e3 for node in after}
    how = [
        f"{services:,} services below host -> rack -> root; claims of one more are added and withdrawn at the host, one after",
        f"the other, for {took:.0f} s, while {RATE:,} requests a second go through the root to {REQUESTED} of the others. CPU of control",
        "a change: " + ", ".join(f"{node} {ms:.1f} ms" for node, ms in control.items()) + ".",
    ]
    measurements = {
        "added_ms": [value * 1e3 for value in there],
        "withdrawn_ms": [value * 1e3 for value in gone],
        "applied_ms": {share: _ms(pauses, share) for share in (0.5, 0.99, 1)},
        "answered": answered,
        "lost": lost,
        "h2load": output,
    }
    return Report("change", f"one change among {services:,} services", how, rows, measurements)


def _ms(values: list[float], share: float) -> float:
    return processes.quantile(values, share) * 1e3


def _add(tree: Tree, api: Client, requester: Client, number: int) -> float:
    began = time.perf_counter()
    tree.put(api, number)
    return _poll(requester, number, began, served=True)


def _withdraw(api: Client, requester: Client, pool: ThreadPoolExecutor, number: int) -> float:
    """Withdraws a claim and polls the root meanwhile: the call returns only when the claim is drained."""
    began = time.perf_counter()
    answer = pool.submit(api.json, "DELETE", f"/v1/instances/i-{number}")
    took = _poll(requester, number, began, served=False)
    status, body = answer.result()
    if status != 200 or not body["drained"]:
        raise CannotRun(f"the withdrawal was answered {status}: {body}")
    return took


def _poll(requester: Client, number: int, began: float, served: bool) -> float:
    while True:
        status, body = requester.ask("GET", "/", name(number))
        now = time.perf_counter()
        if status not in (200, 404, 421, 503):
            raise CannotRun(f"the root answered {status}: {body[:300]!r}")
        if (status == 200) is served:
            return now - began
        if now - began > PATIENCE_S:
            raise TimeoutError(f"the root did not follow a change within {PATIENCE_S:g} s")
        time.sleep(POLL_S)


def _pauses(services: int, changes: int) -> list[float]:
    """Seconds from each delta to its `applied`, for one engine worker with `services` routes and the same load."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdlb-bench-")))
        process, origin = backend.start(folder, Ports())
        stack.callback(processes.end, [process])
        processes.listening(process, origin, folder / "backend.log")
        engine = stack.enter_context(Engine(folder))
        address = engine.configure()
        engine.serve(services, PATTERN, origin)
        load = Load(address, folder, 60)
        stack.callback(load.close)
        time.sleep(0.5)
        pauses: list[float] = []
        for number in range(changes):
            one = key(services + number // 2, PATTERN)
            route = RoutePut(one.claim.route, one.claim.service, (Pick("1.0.0", 0, 0),))
            if number % 2 == 0:
                pauses.append(engine.apply(endpoints=[EndpointPut(one, 100)], routes=[route]))
            else:
                pauses.append(engine.apply(gone=[one], gone_routes=[one.claim.route]))
            time.sleep(0.001)
        if not load.runs:
            raise CannotRun(f"h2load stopped early: {load.result()[2].strip()[-300:]}")
        return pauses
