"""A small tree under churn for SOAK_MINUTES (default 10): `make soak`. Loopback only; ends all that it started.

One public edge with two hosts below. While requests over HTTP/1.1, TLS, HTTP/2 and WebSockets run, instances come and
go, versions and the policy change, and bad clients disconnect early, send invalid bytes and send slowly. Each control and engine is
sampled for resident memory and file descriptors. Exits 1 when a request was lost, or when the median of a measurement
in the last quarter exceeds that of the second quarter by more than MEMORY_SHARE and MEMORY_KIB, or FDS.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.certificates import Authority
from tests.e2e.backend import Backend
from tests.e2e.cluster import Cluster, Node, Registration

MEMORY_SHARE, MEMORY_KIB, FDS = 0.10, 4096, 20
SITE = "www.example"
Measurements = dict[tuple[str, str], list[int]]


class Soak:
    """`counts`: answered and lost requests by kind, and what was done to the tree."""

    def __init__(self, cluster: Cluster, seconds: float, certificate: Path) -> None:
        self.cluster, self.until = cluster, time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        self.edge = cluster.node(
            "edge",
            entry=True,
            public=True,
            listen={"https": f"127.0.0.1:{cluster.ports.take()}"},
            start=False,
        )
        self.edge.settings[""]["site"] = [{"hosts": [SITE], "certificate": str(certificate)}]
        self.edge.start()
        self.hosts = [cluster.node(f"host-{number}", [self.edge]) for number in (1, 2)]
        cluster.wait_ready()

    def go_on(self) -> bool:
        return time.monotonic() < self.until

    def count(self, kind: str, fine: bool, why: str = "") -> None:
        self.counts[kind if fine else f"{kind} lost"] += 1
        if not fine and len(self.lost) < 20:
            self.lost.append(f"{kind}: {why}")

    # ------------------------------------------------------------- clients

    def requests(self, url: str, kind: str) -> None:
        """Sends requests, 200 on each connection. The certificate's name is not checked: the address is an IP."""
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        verify.check_hostname, verify.verify_mode = False, ssl.CERT_NONE
        while self.go_on():
            with httpx.Client(
                base_url=url, headers={"host": SITE}, verify=verify, trust_env=False, timeout=20
            ) as client:
                for number in range(200):
                    if not self.go_on():
                        return
                    target = "/bytes/200000" if number % 20 == 0 else "/plain"
                    extensions = {"sni_hostname": SITE}
                    try:
                        status = client.get(target, extensions=extensions).status_code
                        self.count(kind, status == 200, f"status {status}")
                    except httpx.HTTPError as error:
                        self.count(kind, False, repr(error))
                    time.sleep(0.005)

    def http2(self) -> None:
        words = ["h2load", "-n", "500", "-c", "4", "-m", "8", "--header", f":authority: {SITE}"]
        while self.go_on():
            done = subprocess.run(
                [*words, f"http://{self.edge.http}/plain"], capture_output=True, text=True, timeout=60, check=False
            )
            self.count("h2load of 500", "500 2xx" in done.stdout, done.stdout[-300:])
            time.sleep(1)

    async def websockets(self) -> None:
        async def echo(connection: ServerConnection) -> None:
            async for message in connection:
                await connection.send(message)

        async with serve(echo, "127.0.0.1", 0) as server:
            endpoint = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            await asyncio.to_thread(self.cluster.register, self.hosts[0], "socket-1.0.0", f"{SITE}/socket", endpoint)
            await asyncio.to_thread(self.cluster.reachable, [self.edge], f"http://{SITE}/socket", "socket-1.0.0")
            host, port = self.edge.http.split(":")
            while self.go_on():
                try:
                    async with connect(f"ws://{SITE}/socket", host=host, port=int(port), proxy=None) as client:
                        for number in range(20):
                            await client.send(str(number) * 500)
                            self.count("websocket", await client.recv() == str(number) * 500, "another message")
                            await asyncio.sleep(0.02)
                except OSError as error:
                    self.count("websocket", False, repr(error))

    def bad_clients(self) -> None:
        host, port = self.edge.http.split(":")
        inputs = (
            b"GET / HTTP/1.1\r\nHost: ",
            b"\0" * 500,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 90,
            b"\x16\3\1\2\0",
        )
        held: list[socket.socket] = []
        while self.go_on():
            for data in inputs:
                connection = socket.create_connection((host, int(port)), timeout=5)
                connection.sendall(data)
                held.append(connection)
            while len(held) > 40:
                held.pop(0).close()
            self.counts["bad clients"] += len(inputs)
            time.sleep(0.05)
        for connection in held:
            connection.close()

    # ------------------------------------------------------------- churn

    def churn(self) -> None:
        """In each round, a newer version starts on one host, then the older one stops."""
        number = 0
        before = [self._instance(0, number)]
        while self.go_on():
            number += 1
            now = self._instance(number % 2, number)
            words = ["policy", "set", "web", "--priority", ("even", "higher", "lower")[number % 3]]
            done = self.cluster.sdlb(*words, node=self.edge)
            assert done.returncode == 0, done.stderr
            time.sleep(1)
            old = before.pop()
            old[1].deregister()
            old[0].close()
            before.append(now)
            self.counts["versions changed"] += 1
        for backend, _ in before:
            backend.close()

    def _instance(self, host: int, number: int) -> tuple[Backend, Registration]:
        backend = Backend("web", f"1.0.{number}")
        registration = self.cluster.register(self.hosts[host], f"web-1.0.{number}", f"{SITE}/*", backend)
        self.cluster.reachable([self.edge], f"http://{SITE}/", f"web-1.0.{number}")
        return backend, registration

    # ------------------------------------------------------------- measurements

    def sample(self, measurements: Measurements) -> None:
        nodes: list[Node] = [self.edge, *self.hosts]
        while self.go_on():
            for node in nodes:
                assert node.process is not None
                for part, pids in (("control", [node.process.pid]), ("engine", node.engine_pids())):
                    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
                    rss = sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
                    fds = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
                    measurements.setdefault((f"{node.name} {part}", "KiB"), []).append(rss)
                    measurements.setdefault((f"{node.name} {part}", "fds"), []).append(fds)
            time.sleep(1)


def report(soak: Soak, measurements: Measurements) -> bool:
    """Prints the table. True: no request was lost and no measurement has grown."""
    fine = not soak.lost and not any(name.endswith("lost") for name in soak.counts)
    for name, count in sorted(soak.counts.items()):
        print(f"{name:24}{count:10}")
    print(f"\n{'':24}{'2nd quarter':>12}{'last quarter':>14}{'highest':>10}")
    for (process, unit), values in sorted(measurements.items()):
        quarter = len(values) // 4
        early, late = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
        bound = early + (max(MEMORY_KIB, early * MEMORY_SHARE) if unit == "KiB" else FDS)
        fine &= late <= bound
        mark = "" if late <= bound else f"  NOT FLAT: over {bound:.0f}"
        print(f"{process + ' ' + unit:24}{early:12.0f}{late:14.0f}{max(values):10}{mark}")
    for why in soak.lost:
        print(f"lost: {why}")
    return fine


def main() -> int:
    minutes = float(os.environ.get("SOAK_MINUTES", "10"))
    if shutil.which("h2load") is None:
        print("make soak needs h2load (Debian: nghttp2-client)", file=sys.stderr)
        return 2
    measurements: Measurements = {}
    failed: list[BaseException] = []
    with tempfile.TemporaryDirectory() as folder, Cluster() as cluster:
        certificate = Authority(Path(folder) / "authority").issue(SITE).write(Path(folder) / "site.pem")
        soak = Soak(cluster, minutes * 60, certificate)

        def guarded(work: Callable[[], object]) -> threading.Thread:
            def run() -> None:
                try:
                    work()
                except BaseException as error:
                    failed.append(error)
                    soak.until = 0.0

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        churn = guarded(soak.churn)
        cluster.reachable([soak.edge], f"http://{SITE}/", "web-1.0.0")
        work: list[Callable[[], object]] = [
            lambda: soak.requests(f"http://{soak.edge.http}", "http/1.1"),
            lambda: soak.requests(f"https://{soak.edge.https}", "tls"),
            soak.http2,
            lambda: asyncio.run(soak.websockets()),
            soak.bad_clients,
            lambda: soak.sample(measurements),
        ]
        for thread in [churn, *map(guarded, work)]:
            thread.join()
        for error in failed:
            print(f"the soak itself failed: {error!r}", file=sys.stderr)
        return 0 if report(soak, measurements) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
