"""Starts a whole tree on one machine: real `sdlb node` and `sdlb run` processes in a private folder, on free loopback
ports.

The demo and the end-to-end tests use it. `Launcher.close()` stops everything that was started; if the launcher itself
is killed, the guard process of `sweep.py` does.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self, cast

import sdlb
from sdlb.cli.demo import sweep
from sdlb.sdk.client import Client
from sdlb.sdk.problem import Problem
from sdlb.sdk.types import Instance as Registered

POLL_S = 0.05
SOCKET_PATH_MAX = 100
"""Bytes that a Unix socket's path may have on Linux (108), less a little."""
SDLB = (sys.executable, "-m", "sdlb")
APP = Path(__file__).with_name("app.py")


class WaitTimeout(Exception):
    """An awaited condition was not met in time; the text has the condition and the last state."""


def until(what: str, done: Callable[[], object], timeout_s: float = 20.0, poll_s: float = POLL_S) -> None:
    """Polls until `done` returns something true. A `Problem` (node not up yet) counts as not done."""
    end = time.monotonic() + timeout_s
    last = ""
    while True:
        try:
            if done():
                return
            last = ""
        except Problem as error:
            last = f" ({error})"
        if time.monotonic() > end:
            raise WaitTimeout(f"not within {timeout_s:g} s: {what}{last}")
        time.sleep(poll_s)


class Ports:
    """Free loopback ports, each given once; outside the range from which the kernel takes ports automatically."""

    def __init__(self, rng: random.Random | None = None) -> None:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        low = 10000 if first > 12000 else 1024
        self._candidates = list(range(low, min(max(first, low + 2000), 32768)))
        (rng or random.Random()).shuffle(self._candidates)

    def take(self) -> int:
        while self._candidates:
            port = self._candidates.pop()
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                with contextlib.suppress(OSError):
                    probe.bind(("127.0.0.1", port))
                    return port
        raise OSError("no free port on 127.0.0.1")


def _text(value: object) -> str:
    """A TOML value; what is written here is strings, numbers, truth values, lists and inline tables."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(item) for item in cast("Sequence[object]", value)) + "]"
    if isinstance(value, dict):
        pairs = cast("dict[str, object]", value).items()
        return "{" + ", ".join(f"{key} = {_text(item)}" for key, item in pairs) + "}"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass
class Node:
    """One `sdlb node`. Its control is `process`; its engine is found by the folder that only its node uses."""

    name: str
    folder: Path
    environment: dict[str, str]
    settings: dict[str, dict[str, object]]
    """TOML tables by name; "" holds the top-level keys."""
    process: subprocess.Popen[bytes] | None = None
    log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def socket(self) -> str:
        return str(self.folder / "api.sock")

    @property
    def http(self) -> str:
        """host:port for clients; "" when the node is no entry."""
        return str(self.settings["listen"].get("http", ""))

    @property
    def https(self) -> str:
        """host:port for clients with TLS; "" when there is none."""
        return str(self.settings["listen"].get("https", ""))

    @property
    def address(self) -> str:
        """host:port for children and parents."""
        return str(self.settings["listen"]["node"])

    @property
    def config(self) -> Path:
        return self.folder / "node.toml"

    @property
    def log_file(self) -> Path:
        return self.folder / "node.log"

    def client(self) -> Client:
        return Client(self.socket)

    def write_config(self) -> None:
        lines: list[str] = []
        for name in sorted(self.settings):  # "" first: top-level keys come before any table
            lines += [f"[{name}]"] if name else []
            lines += [f"{key} = {_text(value)}" for key, value in self.settings[name].items()]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Also after `kill_control`: the same command attaches to the running engine."""
        self.write_config()
        self.log = self.log or self.log_file.open("ab")
        self.process = subprocess.Popen(
            [*SDLB, "node", "--config", str(self.config)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise WaitTimeout(f"{self.name} exited with code {self.process.returncode}: {self.tail()}")
        with self.client() as client:
            tree = client.tree()
        return tree.ready and all(parent.state == "connected" for parent in tree.parents)

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        until(f"{self.name} ready and connected to all its parents", self.ready, timeout_s)

    def engine_pids(self) -> list[int]:
        """Running engine processes of this node: one, or two during a hot restart."""
        mine = os.fsencode(f"{self.folder}/")
        found: list[int] = []
        for pid in sweep.marked(Path(self.environment[sweep.MARK])):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words and os.path.basename(words[0]) in ENGINES and any(mine in word for word in words):
                    found.append(pid)
        return found

    def kill_control(self) -> None:
        """kill -9; the engine serves on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_engine(self) -> None:
        for pid in self.engine_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """kill -9 of both processes, control first so that it can't start another engine."""
        self.kill_control()
        self.kill_engine()

    def terminate(self) -> None:
        """SIGTERM: drains and stops. Returns at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM; returns the exit code when both processes have ended."""
        self.terminate()
        assert self.process is not None
        code = self.process.wait(timeout_s)
        until(f"the engine of {self.name} exited", lambda: not self.engine_pids(), timeout_s)
        return code

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        return ""


@dataclass
class Instance:
    """One program under `sdlb run`, registered at `node`."""

    node: Node
    id: str
    name: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def registered(self) -> Registered | None:
        """The instance as the node reports it; None when the node does not know it."""
        with self.node.client() as client:
            return next((item for item in client.instances() if item.id == self.id), None)

    def state(self) -> str:
        found = self.registered()
        return found.state if found is not None else ""

    def wait(self, state: str, timeout_s: float = 20.0) -> Registered:
        """Until the node gives it this state."""

        def done() -> bool:
            if self.process.poll() is not None:
                raise WaitTimeout(
                    f"{self.name} on {self.node.name} exited with code {self.process.returncode}: {self.tail()}"
                )
            return self.state() == state

        until(f"{self.name} on {self.node.name} {state}", done, timeout_s)
        found = self.registered()
        assert found is not None
        return found

    def terminate(self) -> None:
        """SIGTERM: `sdlb run` drains it first. Returns at once."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; returns the exit code when it has drained and ended."""
        self.terminate()
        return self.process.wait(timeout_s)

    def tail(self, lines: int = 8) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        return ""


ENGINES = (b"sdlb-engine", b"haproxy")


class Launcher:
    """Owns a private folder (0700), the ports, and every process started through it. A context manager."""

    def __init__(self, prefix: str = "sdlb-", *, guard: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        if len(str(self.folder)) > SOCKET_PATH_MAX - 40:  # a Unix socket's path must fit below it
            self.folder.rmdir()
            self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.ports = Ports()
        self.nodes: dict[str, Node] = {}
        self.instances: list[Instance] = []
        self.others: list[subprocess.Popen[bytes]] = []
        source = str(Path(sdlb.__file__).parents[1])
        path = os.pathsep.join(item for item in (source, os.environ.get("PYTHONPATH", "")) if item)
        self.environment = {**os.environ, sweep.MARK: str(self.folder), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self.environment.pop("SDLB_SOCKET", None)
        self._guard: subprocess.Popen[bytes] | None = None
        if guard:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(sweep.__file__)), str(self.folder)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )

    # ------------------------------------------------------------- nodes

    def node(
        self,
        name: str,
        parents: Sequence[Node] = (),
        *,
        entry: bool = False,
        public: bool = False,
        start: bool = True,
        **tables: dict[str, object],
    ) -> Node:
        """A node with its own folder; `tables` are further TOML tables by name (`timing={"beat_s": 0.2}`)."""
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        listen: dict[str, object] = {"node": f"127.0.0.1:{self.ports.take()}", "socket": str(folder / "api.sock")}
        if entry:
            listen["http"] = f"127.0.0.1:{self.ports.take()}"
        listen.update(tables.pop("listen", {}))
        top: dict[str, object] = {
            "name": name,
            "state_dir": str(folder / "state"),
            "public": public,
            "insecure": True,
            "parents": [parent.address for parent in parents],
        }
        node = Node(name, folder, self.environment, {"": top, "listen": listen, **tables})
        self.nodes[name] = node
        if start:
            node.start()
        return node

    def wait_ready(self, nodes: Iterable[Node] | None = None, timeout_s: float = 40.0) -> None:
        for node in nodes if nodes is not None else list(self.nodes.values()):
            node.wait_ready(timeout_s)

    # ------------------------------------------------------------- instances

    def run(self, node: Node, name: str, route: str, *options: str, command: Sequence[str] = ()) -> Instance:
        """`sdlb run` of the demo's application (or `command`) on `node`; returns at once."""
        id = f"{name}-{node.name}-{len(self.instances)}"
        service, _, version = name.rpartition("-")
        program = list(command) or [
            *(sys.executable, "-I", "-S", str(APP)),
            *("--service", service, "--version", version, "--instance", node.name),
        ]
        log_file = node.folder / f"{id}.log"
        words = [*SDLB, "run", "--route", route, "--id", id, "--health", "/health", *options, name, "--", *program]
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                words,
                env={**self.environment, "SDLB_SOCKET": node.socket},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        instance = Instance(node, id, name, process, log_file)
        self.instances.append(instance)
        return instance

    def program(self, words: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Any other process that belongs to this launch."""
        process: subprocess.Popen[bytes] = subprocess.Popen(
            list(words),
            env=self.environment,
            start_new_session=True,
            **options,  # pyright: ignore[reportArgumentType, reportCallIssue]
        )
        self.others.append(process)
        return process

    # ------------------------------------------------------------- the end

    def close(self, grace_s: float = 3.0, *, keep_folder: bool = False) -> None:
        """Stops everything: instances and nodes by SIGTERM, after `grace_s` by SIGKILL. Does not raise for exited
        processes."""
        try:
            for group in (self.instances, list(self.nodes.values())):
                for item in group:
                    item.terminate()
                _wait([item.process for item in group if item.process is not None], grace_s)
        finally:
            for process in self.others:  # by group, too: some programs overwrite the environment that bears the mark
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            sweep.sweep(self.folder, frozenset({self._guard.pid}) if self._guard else frozenset())
            for process in self._processes():
                process.wait()
                for pipe in (process.stdin, process.stdout, process.stderr):
                    if pipe is not None:
                        with contextlib.suppress(OSError):  # what was still buffered for the dead
                            pipe.close()
            for node in self.nodes.values():
                if node.log is not None:
                    node.log.close()
            if self._guard is not None and self._guard.stdin is not None:
                if keep_folder:
                    self._guard.kill()
                self._guard.stdin.close()
                self._guard.wait()
            if not keep_folder:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _processes(self) -> list[subprocess.Popen[bytes]]:
        nodes = [node.process for node in self.nodes.values() if node.process is not None]
        return [*nodes, *(instance.process for instance in self.instances), *self.others]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _wait(processes: Iterable[subprocess.Popen[bytes]], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
