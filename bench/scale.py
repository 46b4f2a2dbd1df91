"""The cost by the number of routes, and the memory by the number of idle connections.

Cost: three engines on one core get requests for the same ten routes, and for a thousand of all routes, in interleaved
runs. The first shows the cost of unused routes, the second the cost when the traffic is spread. Memory: 5,000
connections, each idle for some seconds after one request. The growth of the process's resident memory is divided by
their number, for sdlb-engine and nginx with one worker each.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from bench import backend, certificates, load, peers, processes
from bench.certificates import HOST
from bench.engine import Engine
from bench.peers import Addresses, Setup
from bench.report import CannotRun, Report, Row
from bench.stand import PATTERN, version
from sdlb.cli.demo.launch import Ports

ROUTES = (10, 1_000, 100_000)
CONNECTIONS = 5_000
RESTS_S = 6
REQUEST = f"GET /service-1/x HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def run(quick: bool) -> Report:
    """Raises CannotRun."""
    load.need("nginx", "openssl")
    connections = 500 if quick else CONNECTIONS
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files[1] != resource.RLIM_INFINITY and files[1] < connections + 200:
        raise CannotRun(f"{connections} connections need as many open files; the limit is {files[1]} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    here, there = processes.cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdlb-bench-")))
        folder.chmod(0o755)
        certificates.site(folder)
        ports = Ports()
        started: list[subprocess.Popen[bytes]] = []
        stack.callback(processes.end, started)
        process, origin = backend.start(folder, ports, there)
        started.append(process)
        processes.listening(process, origin, folder / "backend.log")
        cost = _routes(stack, folder, origin, here, there, quick)
        memory = _memory(stack, folder, ports, origin, here, connections, started)
    return _report(cost, memory, connections)


# ------------------------------------------------------------------ routes


def _routes(stack: ExitStack, folder: Path, origin: str, here: int, there: int, quick: bool) -> dict[str, list[float]]:
    """Microseconds of CPU a request, by the configured and the requested routes."""
    asks: dict[str, tuple[Engine, list[str]]] = {}
    rounds, seconds = (3, 1) if quick else (9, 3)
    load.script(folder / "few.lua", ROUTES[0])
    for routes in ROUTES:
        own = folder / str(routes)
        own.mkdir(mode=0o700)
        engine = stack.enter_context(Engine(own, here))
        url = f"http://{engine.configure()}"
        engine.serve(routes, PATTERN, origin)
        load.script(own / "ask.lua", routes)
        asks[f"{routes:,} routes, the same {ROUTES[0]} asked for"] = (
            engine,
            load.wrk(folder / "few.lua", url, 64, seconds),
        )
        if routes > ROUTES[0]:
            asks[f"{routes:,} routes, 1,000 of them asked for"] = engine, load.wrk(own / "ask.lua", url, 64, seconds)

    def one(name: str, _: bool) -> float:
        engine, words = asks[name]
        before = processes.cpu_s([engine.process.pid])
        answered, _rate = load.ask(words, f"the engine with {name}", there)
        return (processes.cpu_s([engine.process.pid]) - before) / answered * 1e6

    return processes.interleaved([*asks], rounds, one)


# ------------------------------------------------------------------ memory


def _memory(
    stack: ExitStack,
    folder: Path,
    ports: Ports,
    origin: str,
    core: int,
    connections: int,
    started: list[subprocess.Popen[bytes]],
) -> dict[str, dict[str, float]]:
    """KiB per idle connection, by kind of connection and proxy."""
    own = folder / "memory"
    own.mkdir(mode=0o700)
    found: dict[str, dict[str, float]] = {}
    for kind, dial in (("plain", _plain), ("TLS", _tls), ("HTTP/2 over TLS", _http2)):
        found[kind] = {}
        with Engine(own, core) as engine:
            http, https = engine.configure_edge(own / "access.log", (folder / "site.pem").read_bytes())
            engine.serve(10, PATTERN, origin)
            address = http if kind == "plain" else https
            found[kind]["sdlb"] = _grown(engine.process.pid, address, dial, folder / "site.crt", connections)
        to = Addresses(*(f"127.0.0.1:{ports.take()}" for _ in range(3)))
        nginx = peers.nginx(Setup(folder, origin, origin, 10, True, core), to, f"nginx-{len(started)}")
        started.append(nginx)
        processes.listening(nginx, to.https, folder / f"nginx-{len(started) - 1}.log")
        worker = processes.family(nginx.pid)[-1]
        address = to.http if kind == "plain" else to.https
        found[kind]["nginx"] = _grown(worker, address, dial, folder / "site.crt", connections)
        processes.end([nginx])
    return found


def _grown(pid: int, address: str, dial: Callable[[str, Path], socket.socket], trust: Path, connections: int) -> float:
    """KiB a connection. Memory that the first connections allocate for all is not counted."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(dial(address, trust))
        before = processes.rss_mb(pid)
        for _ in range(connections):
            stack.enter_context(dial(address, trust))
        time.sleep(RESTS_S)
        return (processes.rss_mb(pid) - before) * 1024 / connections


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    made = socket.create_connection((host, int(port)), 10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _plain(address: str, _trust: Path) -> socket.socket:
    made = _connect(address)
    _ask(made)
    return made


def _context(trust: Path, protocol: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trust))
    context.set_alpn_protocols([protocol])
    return context


def _tls(address: str, trust: Path) -> socket.socket:
    made = _context(trust, "http/1.1").wrap_socket(_connect(address), server_hostname=HOST)
    _ask(made)
    return made


def _ask(made: socket.socket) -> None:
    made.sendall(REQUEST)
    got = b""
    while len(got) < backend.BODY_BYTES or b"\r\n\r\n" not in got:
        part = made.recv(65536)
        if not part:
            raise CannotRun(f"a connection was closed behind {got[:100]!r}")
        got += part
    if not got.startswith(b"HTTP/1.1 200 "):
        raise CannotRun(f"a request was answered {got[:100]!r}")


def _http2(address: str, trust: Path) -> socket.socket:
    made = _context(trust, "h2").wrap_socket(_connect(address), server_hostname=HOST)
    talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    talk.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/service-1/x")]
    talk.send_headers(1, fields, end_stream=True)
    while True:
        made.sendall(talk.data_to_send())
        data = made.recv(65536)
        if not data:
            raise CannotRun("an HTTP/2 connection was closed")
        for event in talk.receive_data(data):
            if isinstance(event, h2.events.StreamEnded):
                made.sendall(talk.data_to_send())
                return made


# ------------------------------------------------------------------ report


def _report(cost: dict[str, list[float]], memory: dict[str, dict[str, float]], connections: int) -> Report:
    us = {name: processes.median(values) for name, values in cost.items()}
    least = min(us.values())
    target = f"<= {least * 1.05:.2f} us (1.05 x the least)"
    rows = [
        Row(f"CPU a request, {name}", target, f"{value:.2f} us", value <= least * 1.05) for name, value in us.items()
    ]
    for kind, by in memory.items():
        target = f"<= {by['nginx']:.1f} KiB (nginx)"
        rows.append(
            Row(f"memory per idle connection, {kind}", target, f"{by['sdlb']:.1f} KiB", by["sdlb"] <= by["nginx"])
        )
    how = [
        f"CPU: HTTP/1.1, 64 connections, {backend.BODY_BYTES}-byte answers, medians of {len(next(iter(cost.values())))} runs in turn.",
        f"Memory: {connections:,} kept-alive connections, {RESTS_S} s after one request each; {version('nginx')}.",
    ]
    measurements = {"us_per_request": cost, "kib": memory}
    return Report("scale", "Cost by routes, memory by connections", how, rows, measurements)
