"""uvicorn and gunicorn: an instance restarts beside another, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import sdlb
from tests.e2e.cluster import Cluster, Node, get, until
from tests.e2e.traffic import Traffic

HOST = "served.example"
UVICORN = """
import asyncio, sys, time, contextlib, uvicorn, sdlb
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def answer(request):
    received = time.monotonic_ns()
    await request.body()
    await asyncio.sleep(1.5 if request.url.path == "/slow" else 0)
    target = request.url.path + "?" + request.url.query
    return JSONResponse({{"service": "web", "version": sys.argv[1], "target": target, "received_ns": received,
                          "finished_ns": time.monotonic_ns()}})

@contextlib.asynccontextmanager
async def own(app):
    print("own begins", flush=True)
    yield
    print("own ends", flush=True)

port = int(sys.argv[2])
spans = sdlb.lifespan("web-1.0.0", inner=own, routes=["{host}/*"], port=port, id=sys.argv[1])
app = Starlette(routes=[Route("/{{rest:path}}", answer, methods=["GET", "POST"])], lifespan=spans)
uvicorn.run(app, port=port, log_level="warning")
"""
GUNICORN = """
import json, time
from sdlb.sdk.gunicorn import hooks

bind, workers, threads, worker_class = "127.0.0.1:{port}", 2, 4, "gthread"
when_ready, on_exit = hooks("web-1.0.0", routes=["{host}/*"], id="{name}")
"""
WSGI = """
import json, os, time

def app(environ, start):
    received = time.monotonic_ns()
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    time.sleep(1.5 if environ["PATH_INFO"] == "/slow" else 0)
    target = environ["PATH_INFO"] + "?" + environ["QUERY_STRING"]
    body = json.dumps({"service": "web", "version": os.environ["VERSION"], "target": target, "received_ns": received,
                       "finished_ns": time.monotonic_ns()}).encode()
    start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Server:
    """One instance, started as an operator would."""

    def __init__(self, cluster: Cluster, node: Node, kind: str, name: str) -> None:
        self._cluster, self._node, self._kind, self.name = cluster, node, kind, name
        self.port = cluster.ports.take()
        self._folder = cluster.folder / name
        self._folder.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**self._cluster.environment, "SDLB_SOCKET": self._node.socket, "VERSION": self.name}
        if self._kind == "uvicorn":
            words = ["-c", UVICORN.format(host=HOST), self.name, str(self.port)]
        else:
            (self._folder / "wsgi.py").write_text(WSGI)
            config = self._folder / "gunicorn.conf.py"
            config.write_text(GUNICORN.format(port=self.port, host=HOST, name=self.name))
            words = ["-m", "gunicorn", "--config", str(config), "--chdir", str(self._folder), "wsgi:app"]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *words],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(f"{self.name} is active", self._active, 20)

    def _active(self) -> bool:
        with self._node.client() as client:
            return any(each.id == self.name and each.state == "active" for each in client.instances())

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()


@pytest.mark.promise(3)
@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_one_restarts_beside_another_and_nothing_is_lost(cluster: Cluster, kind: str) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    one, two = Server(cluster, host, kind, "one"), Server(cluster, host, kind, "two")
    try:
        one.start()
        two.start()
        cluster.reachable([edge], f"http://{HOST}/", "web-1.0.0")
        with Traffic([edge], HOST) as traffic:
            for server in (one, two, one):
                traffic.wait_for(60)
                assert server.stop() in (0, -signal.SIGTERM), server.log
                traffic.wait_for(40)
                server.start()
            traffic.wait_for(60)
        traffic.assert_nothing_lost()
        assert set(traffic.count()) == {"one", "two"}
        assert one.stop() in (0, -signal.SIGTERM)
        if kind == "uvicorn":
            assert one.log.split("\n")[:4] == ["own begins", "own ends"] * 2
        assert "Traceback" not in one.log + two.log
    finally:
        for server in (one, two):
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
                server.process.wait()


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])
def test_the_socket_is_open_until_the_last_request_is_answered(cluster: Cluster, kind: str) -> None:
    ((edge,),) = cluster.tiers(1)
    server = Server(cluster, edge, kind, "one")
    server.start()
    try:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(get, edge, HOST, "/slow?")
            time.sleep(0.5)
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert httpx.get(f"http://127.0.0.1:{server.port}/direct?", trust_env=False).status_code == 200
            assert not slow.done() and server.process.poll() is None
            assert slow.result(10).status_code == 200
        assert server.process.wait(20) in (0, -signal.SIGTERM)
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@contextlib.contextmanager
def hanging(path: Path) -> Iterator[None]:
    """Takes connections into its queue and never answers; the queue is full."""
    with socket.socket(socket.AF_UNIX) as listening, contextlib.ExitStack() as stack:
        listening.bind(str(path))
        listening.listen(0)
        for _ in range(2):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(path))
        yield


def test_async_never_blocks_the_loop(tmp_path: Path) -> None:
    """Also when the node hangs: how long the loop did not run is measured by a task that does nothing else. (A busy machine
    stops it for a moment; a call that blocks does so for as long as it waits for an answer.)"""

    async def run() -> float:
        worst, ending = 0.0, asyncio.Event()

        async def watch() -> None:
            nonlocal worst
            while not ending.is_set():
                before = time.monotonic()
                await asyncio.sleep(0.005)
                worst = max(worst, time.monotonic() - before - 0.005)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.05)
        worst = 0.0
        serving = sdlb.serve(
            "web-1.0.0", routes=["a.example"], port=1, socket=str(tmp_path / "s"), drain_deadline_s=0.2
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0), serving:
                await serving.wait_active_async(0.3)
        ending.set()
        await watching
        return worst

    with hanging(tmp_path / "s"):
        assert asyncio.run(run()) < 1.5


def test_the_package_is_typed_and_exports_its_errors() -> None:
    assert Path(sdlb.__file__).with_name("py.typed").exists()
    assert issubclass(sdlb.Unreachable, sdlb.Problem)
    assert callable(sdlb.lifespan)
