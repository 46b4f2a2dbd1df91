"""Three tiers of real `sdlb node` processes with the default settings, and claims registered at the lowest."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self

from bench import backend, processes
from bench.client import Client
from bench.report import CannotRun
from sdlb.cli.demo.launch import Launcher, Node, WaitTimeout

CLIENTS = 8
"""The number of concurrent connections for registrations."""
POLL_S = 0.01


class Tree:
    """host -> rack -> root, and one backend. A context manager that ends all of it. Raises CannotRun."""

    def __init__(self) -> None:
        processes.tool("nginx", "nginx")
        self.launcher = Launcher("sdlb-bench-")
        self._backends: list[subprocess.Popen[bytes]] = []
        try:
            self.root = self.launcher.node("root-1", entry=True)
            self.rack = self.launcher.node("rack-1", [self.root])
            self.host = self.launcher.node("host-1", [self.rack])
            folder = self.launcher.folder / "backend"
            folder.mkdir()
            process, self.backend = backend.start(folder, self.launcher.ports)
            self._backends.append(process)
            processes.listening(process, self.backend, folder / "backend.log")
            self.launcher.wait_ready()
        except WaitTimeout as error:
            self.close()
            raise CannotRun(str(error)) from None
        except BaseException:
            self.close()
            raise

    @property
    def nodes(self) -> tuple[Node, Node, Node]:
        return self.root, self.rack, self.host

    def close(self) -> None:
        processes.end(self._backends)
        self.launcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ claims

    def put(self, client: Client, number: int) -> None:
        """Registers `service-<number>`, alone on a host name of its own, at the host node."""
        body = {
            "service": f"service-{number}",
            "version": "1.0.0",
            "routes": [route(number)],
            "endpoint": self.backend,
            "health": {"kind": "none"},
            "ttl_s": 0,
        }
        status, content = client.ask("PUT", f"/v1/instances/i-{number}", body=json.dumps(body).encode())
        if status not in (200, 201):
            raise CannotRun(f"registering was answered {status}: {content[:300]!r}")

    def register(self, count: int, timeout_s: float) -> tuple[float, float]:
        """Registers `count` claims over `CLIENTS` connections. Returns the seconds until the last one was accepted, and until
        the root has answered a request for each of them with 200."""
        began = time.monotonic()
        numbers = itertools.count()
        lock = threading.Lock()
        stop = threading.Event()

        def work() -> None:
            with Client(self.host.socket) as client:
                while not stop.is_set():
                    with lock:
                        number = next(numbers)
                    if number >= count:
                        return
                    self.put(client, number)

        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            try:
                seen = pool.submit(self._see_all, count, began + timeout_s, stop)
                for done in [pool.submit(work) for _ in range(CLIENTS)]:
                    done.result()
                taken = time.monotonic() - began
                return taken, seen.result() - began
            finally:
                stop.set()  # if one of them has failed or the timeout has expired

    def _see_all(self, count: int, until: float, stop: threading.Event) -> float:
        with Client(self.root.http) as client:
            for number in range(count):
                while client.ask("GET", "/", name(number))[0] != 200 and not stop.is_set():
                    if time.monotonic() > until:
                        raise TimeoutError(f"{number} of {count} claims reached the root in time")
                    time.sleep(POLL_S)
        return time.monotonic()

    # ------------------------------------------------------------------ costs

    def pids(self, node: Node) -> tuple[int, int]:
        """Of control and engine."""
        assert node.process is not None
        engines = node.engine_pids()
        if len(engines) != 1:
            raise CannotRun(f"{node.name} has {len(engines)} engine processes")
        return node.process.pid, engines[0]

    def cpu_s(self) -> dict[str, tuple[float, float]]:
        """Of control and engine, by node."""
        found: dict[str, tuple[float, float]] = {}
        for node in self.nodes:
            control, engine = self.pids(node)
            found[node.name] = processes.cpu_s([control]), processes.cpu_s([engine])
        return found

    def rss_mb(self) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        for node in self.nodes:
            control, engine = self.pids(node)
            found[node.name] = processes.rss_mb(control), processes.rss_mb(engine)
        return found


def name(number: int) -> str:
    """The host name of a service."""
    return f"service-{number}.bench.test"


def route(number: int) -> str:
    return f"{name(number)}/*"


def spent(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> str:
    """CPU seconds between two measurements, as text."""
    parts: Sequence[str] = [
        f"{node} {after[node][0] - before[node][0]:.1f} + {after[node][1] - before[node][1]:.1f} s" for node in before
    ]
    return ", ".join(parts)
