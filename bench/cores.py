"""From one core to two: the engine with one worker and with two, and nginx beside it.

It is made for a machine with two cores, so proxy, backend and client share them: first all three run on one core, then
on both. The growth of requests a second is that of all three together. The proxy's own part is its CPU time a request,
which is higher on two cores (locks, shared caches). Two cores carry 2 x (cost on one) / (cost on two) times as much.
"""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import backend, load, peers, processes
from bench.certificates import site
from bench.engine import Engine
from bench.peers import Addresses, Setup
from bench.report import Report, Row
from bench.stand import PATTERN, version
from sdlb.cli.demo.launch import Ports

ROUTES = 10_000
CONNECTIONS = 64
GROWTH = 1.8


def run(quick: bool) -> Report:
    """Measures the case. Raises CannotRun."""
    load.need("nginx", "openssl")
    rounds, seconds = (2, 1) if quick else (9, 3)
    both = ",".join(map(str, processes.cores()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdlb-bench-")))
        site(folder)
        script = load.script(folder / "ask.lua", ROUTES)
        ports = Ports()
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(processes.end, started)
        addresses: dict[str, str] = {}
        pids: dict[str, int] = {}
        where: dict[str, str] = {}
        for cores in (1, 2):
            on = both.split(",")[0] if cores == 1 else both
            own = folder / str(cores)
            own.mkdir(mode=0o755)
            origin = _backend(own, ports, cores, on, started)
            engine = stack.enter_context(Engine(own, on, cores))
            ours, nginx = f"sdlb {cores}", f"nginx {cores}"
            addresses[ours] = engine.configure_edge(own / "access.log", (folder / "site.pem").read_bytes())[0]
            engine.serve(ROUTES, PATTERN, origin)
            (own / "site.pem").write_bytes((folder / "site.pem").read_bytes())
            to = Addresses(*(f"127.0.0.1:{ports.take()}" for _ in range(3)))
            started.append(peers.nginx(Setup(own, origin, origin, ROUTES, True, on, cores), to))
            processes.listening(started[-1], to.https, own / "nginx.log")
            addresses[nginx] = to.http
            pids |= {ours: engine.process.pid, nginx: started[-1].pid}
            where |= {ours: on, nginx: on}
            ours_version = engine.version

        def one(name: str, _: bool) -> tuple[float, float]:
            threads = len(where[name].split(","))
            words = load.wrk(script, f"http://{addresses[name]}", CONNECTIONS, seconds, threads)
            before = processes.cpu_s(processes.family(pids[name]))
            answered, rate = load.ask(words, name, where[name])
            return (processes.cpu_s(processes.family(pids[name])) - before) / answered * 1e6, rate

        took = processes.interleaved([*addresses], rounds, one)
    return _report(took, rounds, f"sdlb-engine {ours_version}; {version('nginx')}")


def _backend(folder: Path, ports: Ports, workers: int, on: str, started: list[subprocess.Popen[bytes]]) -> str:
    """With as many workers as the proxy has."""
    address = f"127.0.0.1:{ports.take()}"
    body = f"  server {{ listen {address} backlog=4096 reuseport; location / {{ return 200 '{'x' * backend.BODY_BYTES}'; }} }}"
    started.append(backend.start_nginx(folder, "backend", body, on, workers))
    processes.listening(started[-1], address, folder / "backend.log")
    return address


def _report(took: dict[str, list[tuple[float, float]]], rounds: int, versions: str) -> Report:
    us = {name: processes.median([cost for cost, _ in values]) for name, values in took.items()}
    rates = {name: processes.median([rate for _, rate in values]) for name, values in took.items()}
    rows: list[Row] = []
    for name in ("sdlb", "nginx"):
        one, two = f"{name} 1", f"{name} 2"
        growth = 2 * us[one] / us[two]
        target, met = (f">= {GROWTH} x", growth >= GROWTH) if name == "sdlb" else ("", None)
        rows.append(
            Row(f"{name}: throughput of two cores, by CPU per request", target,
                f"{growth:.2f} x ({us[one]:.1f} us, {us[two]:.1f} us)", met)
        )  # fmt: skip
        rows.append(
            Row(f"{name}: requests a second, all on one core and on two", "",
                f"{rates[two] / rates[one]:.2f} x ({rates[one]:,.0f}, {rates[two]:,.0f})")
        )  # fmt: skip
    how = [
        f"HTTP/1.1, {CONNECTIONS} connections, 512 bytes, {ROUTES:,} routes, statistics and access log on; one worker on one core,",
        f"two on two, backend and client on the same cores; medians of {rounds} runs in turn. {versions}.",
    ]
    measurements = {"us_per_request_and_requests_per_s": took}
    return Report("cores", "from one core to two", how, rows, measurements)
