"""The programs of docs/recipes/: started, drained and replaced by their next version under traffic, as the pages describe it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import httpx
import pytest

from tests.e2e.cluster import Cluster, Node, until

EXAMPLES = Path(__file__).parents[2] / "examples"
HOST = "example.com"
VERSION = re.compile(r"shop (\S+)")
GUNICORN = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "2"]
UVICORN = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}"]
SEEN = None
HEALTH = ["--health", "/health"]


def node_js() -> str:
    """The Node.js program, or why it is not usable."""
    if not (program := shutil.which("node")):
        return ""
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return program if int((re.findall(r"\d+", version) or ["0"])[0]) >= 19 else ""


@dataclass(frozen=True)
class Recipe:
    """`command` runs in the folder of that name in examples/. `registers`: the program registers itself, without `sdlb run`."""

    name: str
    folder: str
    command: Sequence[str]
    options: Sequence[str] = ()
    modules: Sequence[str] = ()
    programs: Sequence[str] = ()
    workers: int = 1
    registers: bool = False
    build: Sequence[str] = ()
    """Run once before; `{out}` is a folder for what it makes."""
    environment: dict[str, str] = field(default_factory=dict[str, str])

    def missing(self) -> str:
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                return f"the Python package {module} is not installed"
        for program in self.programs:
            if not (node_js() if program == "node" else shutil.which(program)):
                return f"{program} is not installed" + (", or older than 19" if program == "node" else "")
        return ""


RECIPES = [
    Recipe(
        "gunicorn",
        "gunicorn",
        [*GUNICORN, "--worker-class", "gthread", "--threads", "8", "app:app"],
        HEALTH,
        modules=["gunicorn"],
        workers=2,
    ),
    Recipe(
        "gunicorn-registered",
        "gunicorn",
        [sys.executable, "-m", "gunicorn", "--config", "registered.conf.py", "app:app"],
        modules=["gunicorn"],
        workers=2,
        registers=True,
    ),
    Recipe("fastapi", "fastapi", [*UVICORN, "app:app"], HEALTH, modules=["fastapi", "uvicorn"]),
    Recipe(
        "fastapi-workers",
        "fastapi",
        [*UVICORN, "--workers", "2", "app:app"],
        HEALTH,
        modules=["fastapi", "uvicorn"],
        workers=2,
    ),
    Recipe(
        "fastapi-registered",
        "fastapi",
        [sys.executable, "registered.py"],
        modules=["fastapi", "uvicorn"],
        registers=True,
    ),
    Recipe(
        "django",
        "django",
        [*GUNICORN, "--worker-class", "gthread", "--threads", "8", "shop:application"],
        [*HEALTH, "--health-host", HOST],
        modules=["django", "gunicorn"],
        workers=2,
    ),
    Recipe("node", "node", ["node", "app.mjs"], HEALTH, programs=["node"]),
    Recipe(
        "node-cluster",
        "node",
        ["node", "cluster.mjs"],
        HEALTH,
        programs=["node"],
        workers=2,
        environment={"WORKERS": "2"},
    ),
    Recipe("go", "go", ["{out}/shop"], HEALTH, programs=["go"], build=["go", "build", "-o", "{out}/shop", "."]),
    Recipe(
        "grpc",
        "grpc",
        [sys.executable, "server.py"],
        ["--protocol", "h2c"],
        modules=["grpc_tools"],
        build=[
            *(sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out={out}", "--grpc_python_out={out}"),
            "shop.proto",
        ],
    ),
]


class Program:
    """One version of a recipe's program on `node`, started as its page does it."""

    def __init__(self, cluster: Cluster, node: Node, recipe: Recipe, version: str, out: Path) -> None:
        self.node, self.recipe, self.version = node, recipe, version
        path = os.pathsep.join((str(out), cluster.environment["PYTHONPATH"]))
        environment = {
            **cluster.environment,
            **recipe.environment,
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "SDLB_SOCKET": node.socket,
            "VERSION": version,
        }
        command = [word.replace("{out}", str(out)) for word in recipe.command]
        if recipe.registers:
            environment["PORT"] = str(cluster.ports.take())
        else:
            run = [
                sys.executable,
                "-m",
                "sdlb",
                "run",
                "--route",
                f"{HOST}/*",
                *recipe.options,
                f"shop-{version}",
                "--",
            ]
            command = [*run, *command]
        self.log_file = node.folder / f"shop-{version}.log"
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=EXAMPLES / recipe.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        cluster.others.append(self.process)

    def wait_active(self) -> None:
        def active() -> bool:
            assert self.process.poll() is None, self.log_file.read_text()
            with self.node.client() as client:
                return any(each.version == self.version and each.state == "active" for each in client.instances())

        until(f"shop {self.version} is active", active, 30)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        assert self.process.wait(30) in (0, -signal.SIGTERM), self.log_file.read_text()


class Clients:
    """Sends requests to an entry, one after the other in each thread, until the block is left."""

    def __init__(self, entry: Node, recipe: Recipe, out: Path) -> None:
        self.answers: list[tuple[str, str]] = []
        self.errors: list[str] = []
        self._entry, self._recipe = entry, recipe
        self._messages = messages(out) if recipe.name == "grpc" else None
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(3)]

    def call(self) -> tuple[Callable[[float], tuple[str, str]], Callable[[], None]]:
        """(request, close). `request(delay)` takes about `delay` seconds and returns version and process."""
        if self._recipe.name == "grpc":
            channel = grpc.insecure_channel(self._entry.http, [("grpc.default_authority", HOST)])
            find = channel.unary_unary("/shop.Shop/Find", *(self._messages or (None, None)))
            return lambda delay: (VERSION.findall(find(delay, timeout=30))[0], ""), channel.close
        client = httpx.Client(
            base_url=f"http://{self._entry.http}", headers={"host": HOST}, timeout=30, trust_env=False
        )

        def ask(delay: float) -> tuple[str, str]:
            response = client.get("/slow" if delay else "/")
            assert response.status_code == 200, f"{response.status_code} {response.headers} {response.text[:200]}"
            return VERSION.findall(response.text)[0], response.headers.get("x-worker", "")

        return ask, client.close

    def slow(self) -> tuple[str, str]:
        ask, close = self.call()
        try:
            return ask(2.0)
        finally:
            close()

    def _run(self) -> None:
        ask, close = self.call()
        while not self._ending.is_set():
            try:
                self.answers.append(ask(0.0))
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            time.sleep(0.01)
        close()

    def wait_for(self, what: str, done: Callable[[list[tuple[str, str]]], bool]) -> None:
        start = len(self.answers)
        until(what, lambda: self.errors or done(self.answers[start:]), 20)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(40)


def messages(out: Path) -> tuple[Callable[[float], bytes], Callable[[bytes], str]]:
    """How shop.proto is written and read, by the modules that were generated in `out`."""
    spec = importlib.util.spec_from_file_location("shop_pb2", out / "shop_pb2.py")
    assert spec is not None and spec.loader is not None
    shop: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shop)
    return (
        lambda delay: shop.FindRequest(item="tea", delay_s=delay).SerializeToString(),
        lambda data: shop.FindReply.FromString(data).text,
    )


@pytest.fixture
def built(recipe: Recipe, tmp_path: Path) -> Path:
    if why := recipe.missing():
        pytest.skip(why)
    if recipe.build:
        words = [word.replace("{out}", str(tmp_path)) for word in recipe.build]
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        done = subprocess.run(
            words,
            cwd=EXAMPLES / recipe.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return tmp_path


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_replaced_by_its_next_version_and_no_request_is_lost(
    cluster: Cluster, recipe: Recipe, built: Path
) -> None:
    (edge,), (host,) = cluster.tiers(1, 1)
    first = Program(cluster, host, recipe, "1.0.0", built)
    first.wait_active()
    cluster.reachable([edge], f"http://{HOST}/", "shop-1.0.0")
    with Clients(edge, recipe, built) as clients, ThreadPoolExecutor(12) as pool:
        clients.wait_for("30 answers", lambda answers: len(answers) > 30)
        # Idle connections are reused, so a few clients may meet one worker only. Many requests at once need more.
        seen: set[str] = set()
        for _ in range(5 if recipe.workers > 1 else 0):
            seen |= {process for _, process in pool.map(lambda _: clients.slow(), range(12))}
            if len(seen) >= recipe.workers:
                break
        assert recipe.workers == 1 or len(seen) >= recipe.workers
        second = Program(cluster, host, recipe, "1.0.1", built)
        second.wait_active()
        clients.wait_for("answers of both versions", lambda answers: len({version for version, _ in answers}) == 2)
        cluster.sdlb("policy", "set", "shop", "--priority", "lower", node=host)
        clients.wait_for(
            "answers of 1.0.0 only", lambda answers: {version for version, _ in answers[-20:]} == {"1.0.0"}
        )
        slow = pool.submit(clients.slow)
        time.sleep(0.5)
        first.stop()
        clients.wait_for("answers of 1.0.1", lambda answers: any(version == "1.0.1" for version, _ in answers))
        assert slow.done() or first.process.poll() is None, "it was stopped before its request was answered"
        assert slow.result(20)[0] == "1.0.0"
        first.wait()
        clients.wait_for("30 more answers", lambda answers: len(answers) > 30)
    assert clients.errors == []
    second.stop()
    second.wait()
    assert "Traceback" not in first.log_file.read_text() + second.log_file.read_text()
