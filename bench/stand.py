"""The engine and its peers, side by side: one worker each on one core; backend and client on the other.

All know the same routes by path prefix, add the forwarding fields, keep connections on both sides and have the same
certificate (ECDSA on P-256). The result is the CPU time of a proxy's processes (user and system, from the kernel's scheduler)
divided by the number of answered requests, so other work of the machine matters little.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bench import backend, certificates, envoy, load, peers, processes
from bench.certificates import HOST
from bench.engine import Engine, key
from bench.peers import GRPC_PATH, Addresses, Setup
from bench.report import CannotRun
from sdlb.cli.demo.launch import Ports
from sdlb.core.effects import EndpointPut, Pick, RoutePut, UpstreamPut

PATTERN = HOST + "/service-{}/*"
PEERS = {"nginx": peers.nginx, "haproxy": peers.haproxy, "envoy": envoy.start}


class Stand:
    """A context manager that ends everything. `absent`: the peers that are not available, and why."""

    def __init__(self, routes: int, wanted: Sequence[str], logged: bool = True) -> None:
        self.routes = routes
        self.addresses: dict[str, Addresses] = {}
        self.absent: dict[str, str] = {}
        self.here, self.there = processes.cores()
        self._stack = ExitStack()
        self._pids: dict[str, int] = {}
        try:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sdlb-bench-")))
            self._started: list[subprocess.Popen[bytes]] = []
            self._stack.callback(processes.end, self._started)
            certificates.site(self.folder)
            self._ports = Ports()
            process, self.origin = backend.start_large(self.folder, self._ports, self.there)
            self._started.append(process)
            processes.listening(process, self.origin, self.folder / "backend.log")
            grpc = f"127.0.0.1:{self._ports.take()}"
            self._started.append(processes.start([processes.installed("echo"), grpc], self.there))
            processes.listening(self._started[-1], grpc, self.folder / "echo.log")
            self._engine(grpc, logged)
            setup = Setup(self.folder, self.origin, grpc, routes, logged, self.here)
            for name in wanted:
                self._peer(name, setup)
        except BaseException:
            self._stack.close()
            raise

    def cpu_s(self, name: str) -> float:
        return processes.cpu_s(processes.family(self._pids[name]))

    def cost_us(self, name: str, words: Sequence[str]) -> tuple[float, float]:
        """CPU time of the proxy a request while the client works, and requests a second."""
        before = self.cpu_s(name)
        answered, rate = load.ask(words, name, self.there)
        return (self.cpu_s(name) - before) / answered * 1e6, rate

    def pid(self, name: str) -> int:
        return self._pids[name]

    @property
    def versions(self) -> dict[str, str]:
        """The versions of all peers and load generators, by name."""
        others = (*(name for name in PEERS if name in self.addresses), "wrk", "h2load")
        return {"sdlb": f"sdlb-engine {self._version}", **{name: version(name) for name in others}}

    def _engine(self, grpc: str, logged: bool) -> None:
        engine = self._stack.enter_context(Engine(self.folder, self.here))
        log = self.folder / "access.log" if logged else None
        http, https = engine.configure_edge(log, (self.folder / "site.pem").read_bytes())
        engine.serve(self.routes, PATTERN, self.origin)
        echo = key(self.routes, f"{HOST}{GRPC_PATH}*", "i:grpc")
        route = RoutePut(echo.claim.route, echo.claim.service, (Pick("1.0.0", 0, 0),))
        engine.apply([UpstreamPut("i:grpc", False, grpc, "h2c")], [EndpointPut(echo, 100)], [route])
        self.addresses["sdlb"] = Addresses(http, http, https)
        self._pids["sdlb"], self._version = engine.process.pid, engine.version

    def _peer(self, name: str, setup: Setup) -> None:
        """A peer that is not in Debian may be absent; the others are required."""
        to = Addresses(*(f"127.0.0.1:{self._ports.take()}" for _ in range(3)))
        if name == "envoy":
            to = Addresses(to.http, to.http, to.https)
            try:
                process = envoy.start(setup, to)
            except CannotRun as error:
                self.absent[name] = str(error)
                return
        elif name == "floor":
            to = Addresses(to.http, to.http, to.http)
            process = processes.start([processes.installed("floor"), to.http, self.origin], self.here)
        else:
            process = PEERS[name](setup, to)
        self._started.append(process)
        processes.listening(process, to.https, self.folder / f"{name}.log")
        self.addresses[name], self._pids[name] = to, process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def version(name: str) -> str:
    """The version of a peer or load generator, as reports name it; "" for an absent Envoy."""
    match name:
        case "nginx":
            return processes.output("nginx", "-v").partition("nginx version: ")[2].replace("/", " ")
        case "haproxy":
            return "HAProxy " + processes.output("haproxy", "-v").split()[2]
        case "wrk":
            return " ".join(processes.output("wrk", "-v").split()[:2])
        case "h2load":
            return processes.output("h2load", "--version").replace("h2load ", "h2load of ")
        case _:
            return _envoy()


def _envoy() -> str:
    try:
        words = [processes.installed("envoy/_bin/envoy"), "--version"]
    except CannotRun:
        return ""
    output = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    return "Envoy " + output.strip().split("/")[-4] if output.count("/") > 3 else "Envoy"
