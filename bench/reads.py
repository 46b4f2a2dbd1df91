"""How long decisions wait while long lists are read: 10,000 services, routes and instances of one root, in this process.

The loop, core, store and API are those of a node; its engine confirms everything immediately. The decisions are renewals
with a changed capacity, which pass the loop and the disk one after the other.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec

from bench.report import CannotRun, Report, Row, below
from sdlb.adapters.store_embedded import EmbeddedStore
from sdlb.core.balancer import Balancer
from sdlb.core.effects import Apply, Note
from sdlb.core.events import EngineApplied, EngineAttached, EngineDrained, InstancePut
from sdlb.core.settings import Settings
from sdlb.model.instance import HealthCheck, InstanceSpec
from sdlb.node.authority import Authority
from sdlb.node.health import Health
from sdlb.node.journal import Journal
from sdlb.node.lists import Lists
from sdlb.node.local_paths import listen_unix
from sdlb.node.loop import NodeLoop
from sdlb.node.server import serve_api
from sdlb.seams.engine import EngineStats

SLICE_MS = 10.0
READS = {
    "services": "/v1/services",
    "services, of this node": "/v1/services?scope=local",
    "routes": "/v1/routes",
    "instances": "/v1/instances",
    "the tree": "/v1/tree",
    "metrics": "/metrics",
}
CLIENT = """
import socket, sys
for line in sys.stdin:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        connection.sendall(f"GET {line.strip()} HTTP/1.1\\r\\nHost: node\\r\\nConnection: close\\r\\n\\r\\n".encode())
        answer = bytearray()
        while part := connection.recv(1 << 18):
            answer += part
    print(answer[9:12].decode(), len(answer), flush=True)
"""
"""A separate process, so that handling the answers does not count as work of the node."""


@dataclass
class _Engine:
    """Confirms everything in the next iteration."""

    loop: NodeLoop
    stats: EngineStats = field(default_factory=EngineStats)

    def apply(self, delta: Apply) -> None:
        asyncio.get_running_loop().call_soon(self._confirm, delta)

    def _confirm(self, delta: Apply) -> None:
        self.loop.post(EngineApplied(delta.epoch))
        for key in delta.delete_endpoints:
            self.loop.post(EngineDrained(key, delta.epoch))


class _Sites:
    def views(self) -> list[dict[str, Any]]:
        return []


class _Nobody:
    def send(self, link: Any, message: Any) -> None: ...


def _spec(number: int, capacity: int = 100) -> InstanceSpec:
    route, check = f"s{number}.example.com/*", HealthCheck("none")
    return InstanceSpec(
        f"i-{number}",
        f"service-{number}",
        "1.0.0",
        (route,),
        "127.0.0.1:9",
        health=check,
        ttl_s=0,
        capacity=capacity,
    )


@dataclass
class Measurement:
    took_ms: float
    waits_ms: list[float]
    slice_ms: float  # the longest time on the CPU between two iterations of the event loop

    @property
    def waits(self) -> str:
        return f"{self.percentile_ms(50):.1f} ms, {self.percentile_ms(99):.1f} ms"

    def percentile_ms(self, percent: int) -> float:
        return sorted(self.waits_ms)[len(self.waits_ms) * percent // 100]


class _Slices:
    """The longest time on the CPU between two iterations of the event loop."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - last)
            last = now

    def end(self) -> float:
        self._task.cancel()
        return self.longest_s * 1000


async def _beside(loop: NodeLoop, read: Callable[[], Awaitable[object]], rounds: int) -> Measurement:
    waits: list[float] = []
    capacity = 100
    reading = True

    async def decide() -> None:
        nonlocal capacity
        while reading:
            capacity += 1
            start = time.perf_counter()
            await loop.do(InstancePut(_spec(0, capacity)))
            waits.append((time.perf_counter() - start) * 1000)

    deciding = asyncio.create_task(decide())
    slices, start = _Slices(), time.perf_counter()
    for _ in range(rounds):
        await asyncio.sleep(0.02)
        await read()
    took_ms = (time.perf_counter() - start) / rounds * 1000
    reading = False
    longest = slices.end()
    await deciding
    return Measurement(took_ms, waits, longest)


async def _measure(count: int, rounds: int, folder: Path) -> tuple[dict[str, Measurement], dict[str, float]]:
    def report(note: Note) -> None: ...

    store = EmbeddedStore(folder / "state.db", report)
    await store.load()
    loop = NodeLoop(Balancer(Settings("root-1", "id-1", 1), {}, Random(1)), store, report)
    engine = _Engine(loop)
    authority = Authority(loop)
    wiring: Any = loop
    wiring.engine, wiring.parents, wiring.children = engine, _Nobody(), _Nobody()
    loop.run_here, loop.watch_instances = authority.run_here, lambda names: None
    health = Health(loop.post, Random(2), loop.remember)
    log: Any = _Log()
    journal = Journal("root-1", log)
    node: Any = SimpleNamespace(
        loop=loop,
        authority=authority,
        engine=engine,
        journal=journal,
        health=health,
        sites=_Sites(),
        restart=None,
    )
    socket = folder / "api.sock"
    _, stop_api = serve_api(node, listen_unix(socket), {})
    await loop.start()
    looping = asyncio.create_task(loop.run())
    await loop.do(EngineAttached("boot-1", 0, 0))
    for number in range(count):
        loop.post(InstancePut(_spec(number)))
    await loop.do(InstancePut(_spec(0)))
    view = Lists(loop.balancer.view)
    while set(view.claim_states()) != {"active"} or view.service(f"service-{count - 1}") is None:
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    gc.collect()
    gc.freeze()  # as a node does when it has started
    whole = {
        "services": _whole(view.services),
        "routes": _whole(view.routes),
        "instances": _whole(view.instances),
    }

    async def nothing() -> None:
        await asyncio.sleep(0.1)

    measurements = {"nothing": await _beside(loop, nothing, rounds)}
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, str(socket), stdin=pipe, stdout=pipe)
    assert client.stdin is not None and client.stdout is not None
    for name, path in READS.items():

        async def read(path: str = path) -> None:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(f"{path}\n".encode())
            answer = await client.stdout.readline()
            if not answer.startswith(b"200 "):
                raise CannotRun(f"{path} was answered {answer!r}")

        measurements[name] = await _beside(loop, read, rounds)
    client.stdin.close()
    await client.wait()
    await stop_api()
    looping.cancel()
    await store.close()
    return measurements, whole


class _Log:
    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


def _whole(read: Callable[[], object]) -> float:
    """Milliseconds to make the whole list as JSON without slices: decisions would wait for this long."""
    start = time.perf_counter()
    msgspec.json.encode(read())
    return (time.perf_counter() - start) * 1000


def run(quick: bool) -> Report:
    count, rounds = (1000, 2) if quick else (10_000, 5)
    with tempfile.TemporaryDirectory(prefix="sdlb-bench-") as folder:
        measurements, whole = asyncio.run(_measure(count, rounds, Path(folder)))
    rows: list[Row] = []
    for name, values in measurements.items():
        if name == "nothing":
            rows.append(Row("no read: decisions, median and p99", "", values.waits))
            continue
        in_one = f"; in one go {whole[name]:.0f} ms" if name in whole else ""
        rows.append(Row(f"{name}: the read", "", f"{values.took_ms:.0f} ms{in_one}"))
        rows.append(below(f"{name}: longest slice", values.slice_ms, SLICE_MS, "ms of CPU"))
        rows.append(Row(f"{name}: decisions meanwhile, median and p99", "", values.waits))
    how = [
        f"One root with {count:,} services, each with a route and an instance. Each list is read {rounds} times over the API,",
        "by another process, while renewals that change something are made one after the other. A slice is what the",
        "event loop does without a pause.",
    ]
    raw = {
        name: {
            "took_ms": each.took_ms,
            "slice_cpu_ms": each.slice_ms,
            "wait_p50_ms": each.percentile_ms(50),
            "wait_p99_ms": each.percentile_ms(99),
        }
        for name, each in measurements.items()
    }
    return Report("reads", "decisions while long lists are read", how, rows, {"reads": raw, "whole_ms": whole})
