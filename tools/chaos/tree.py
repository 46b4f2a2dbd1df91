"""The tree of a run: two edges, two racks below both, four hosts below both racks; mutual TLS on every link.

Two services, an instance of each on every host, under `sdlb run`: `web` takes newer compatible versions, `shop` incompatible ones.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdlb.cli.demo.launch import SDLB, Instance, Launcher, Node, WaitTimeout, until
from sdlb.sdk.problem import Problem
from tests.certificates import Authority
from tools.chaos import app, clients
from tools.chaos.network import Network
from tools.chaos.plan import EDGES, HOSTS, RACKS

TIMING: dict[str, object] = {"beat_s": 0.5, "lease_s": 4.0, "fence_s": 4.0}
NODE_PORT, HTTP_PORT = 7700, 8080
SERVICES = ("web", "shop")
CLIENTS = tuple(f"clients-{number}" for number in (1, 2))
"""The machines of the clients, one for each edge."""
THREADS = 6
BOTH_USES = "serverAuth,clientAuth"
DRAIN_S = 20.0
CONVERGE_S = 60.0
PARK = {"timeout_s": 30.0, "requests_max": 1000}


class Tree:
    """A context manager: what it started ends with it."""

    def __init__(self, network: Network, seed: int) -> None:
        self.network, self._seed = network, seed
        self.launcher = Launcher("sdlb-chaos-")
        self.logs = self.launcher.folder / "logs"
        self.logs.mkdir()
        self.nodes = self.launcher.nodes
        self.running: dict[tuple[str, str], Instance] = {}
        """The instances by service and host."""
        self.versions = {"web": "1.0.0", "shop": "1.0.0"}
        self.off: set[str] = set()
        """Nodes that are meant to be down."""
        self.copies = self.launcher.folder / "copies"
        self._clients: list[subprocess.Popen[bytes]] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.launcher.close()

    # ------------------------------------------------------------- start

    def start(self) -> None:
        authority = Authority(self.launcher.folder / "authority", "chaos")
        above: list[Node] = []
        for tier in (EDGES, RACKS, HOSTS):
            above = [self._node(authority, name, above) for name in tier]
        for node in self.nodes.values():
            self.start_node(node.name)
        self.launcher.wait_ready(timeout_s=60.0)
        with self.nodes["edge-1"].client() as client:
            for service in SERVICES:
                client.set_policy(service, {"park": PARK})
        for service, host in itertools.product(SERVICES, HOSTS):
            self.start_instance(service, host)
        self.wait_converged()
        for node in self.nodes.values():
            self._copy(node)

    def _node(self, authority: Authority, name: str, parents: Iterable[Node]) -> Node:
        address = self.network[name].address
        listen = {"node": f"{address}:{NODE_PORT}"}
        if name in EDGES:
            listen["http"] = f"{address}:{HTTP_PORT}"
        issued = authority.issue(name, f"IP:{address}", use=BOTH_USES)
        path = issued.write(self.launcher.folder / f"{name}.pem")
        tables: Any = {
            "listen": {**listen},
            "timing": TIMING,
            "identity": {"certificate": str(path), "ca": str(authority.pem)},
            "engine": {"workers": 1},
        }
        node = self.launcher.node(name, list(parents), start=False, **tables)
        del node.settings[""]["insecure"]
        return node

    def start_clients(self) -> None:
        for number, (machine, edge) in enumerate(zip(CLIENTS, EDGES, strict=True)):
            entries = [f"{name}={self.nodes[name].http}" for name in sorted(EDGES, key=lambda name: name != edge)]
            words = [sys.executable, "-I", "-S", str(Path(clients.__file__)), str(self.logs / f"{machine}.jsonl")]
            words += [str(self._seed * 10 + number), str(THREADS), *SERVICES, "--", *entries]
            self._clients.append(
                self.network[machine].make(lambda words=words: self.launcher.program(words, stdin=subprocess.PIPE))
            )

    def stop_clients(self) -> None:
        """Ends the clients after they have received their last answers."""
        for process in self._clients:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._clients:
            process.wait(60)

    def keep_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for node in self.nodes.values():
            for file in node.folder.glob("*.log"):
                shutil.copy2(file, folder / (file.name if file.stem == node.name else f"{node.name}-{file.name}"))
        shutil.copytree(self.logs, folder, dirs_exist_ok=True)

    # ------------------------------------------------------------- nodes

    def start_node(self, name: str) -> None:
        self.network[name].make(self.nodes[name].start)
        self.off.discard(name)

    def sdlb(self, *words: str, node: str) -> None:
        """Runs a command and waits for its end."""
        done = subprocess.run(
            [*SDLB, *words],
            env={**self.launcher.environment, "SDLB_SOCKET": self.nodes[node].socket},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise WaitTimeout(f"sdlb {' '.join(words)} at {node}: {done.stderr.strip()}")

    def kill_machine(self, name: str) -> None:
        """Kills all processes of the node, control first, so that it starts no other engine."""
        self.off.add(name)
        node = self.nodes[name]
        engines = node.engine_pids()
        assert node.process is not None
        node.process.kill()
        for pid in engines:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for (_, host), instance in self.running.items():
            if host == name:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(instance.process.pid, signal.SIGKILL)
        node.process.wait()
        for key in [key for key in self.running if key[1] == name]:
            self.running.pop(key).process.wait()

    def control_pids(self, name: str) -> list[int]:
        process = self.nodes[name].process
        assert process is not None
        return [process.pid]

    # ------------------------------------------------------------- state folders

    def _copy(self, node: Node) -> None:
        with paused(self.control_pids(node.name)):
            _copy_files(node.folder / "state", self.copies / node.name)

    def set_back(self, name: str) -> None:
        """Restores the copy of the state folder from the last call, or from the start, and keeps a new copy of the current one.

        Control must have exited.
        """
        state, copy, now = self.nodes[name].folder / "state", self.copies / name, self.copies / f"{name}.now"
        _copy_files(state, now)
        _copy_files(copy, state)
        _copy_files(now, copy)

    def blank(self, name: str) -> None:
        _remove_files(self.nodes[name].folder / "state")

    # ------------------------------------------------------------- instances

    def start_instance(self, service: str, host: str) -> Instance:
        """Starts an instance of the service's current version; does not wait for it."""
        version, node = self.versions[service], self.nodes[host]
        name = f"{service}-{version}"
        log = self.logs / f"received-{next(self._numbers)}-{name}-{host}.jsonl"
        command = [sys.executable, "-I", "-S", str(Path(app.__file__)), service, version, host, str(log)]
        options = ("--health-interval", "1", "--drain-deadline", f"{DRAIN_S:g}")
        instance = self.network[host].make(
            lambda: self.launcher.run(node, name, f"{service}.example/*", *options, command=command)
        )
        self.running[service, host] = instance
        return instance

    def stop_instance(self, service: str, host: str) -> None:
        """Drains the instance; returns when it has exited."""
        self.running.pop((service, host)).stop(60.0)

    # ------------------------------------------------------------- the current state

    def converged(self) -> bool:
        """All nodes are connected, both edges have the instances that run, all active, and nothing else."""
        for name, node in self.nodes.items():
            if name not in self.off and not node.ready():
                return False
        return all(self._as_meant(edge) for edge in EDGES if edge not in self.off)

    def _as_meant(self, edge: str) -> bool:
        with self.nodes[edge].client() as client:
            tree, services = client.tree(), client.services(local=True)
        if any(child.state != "connected" for child in tree.children) or tree.guarded:
            return False
        for service in services.services:
            hosts = sorted(host for name, host in self.running if name == service.name)
            shown = [each for each in service.versions if each.instances or each.state != "inactive"]
            if [each.version for each in shown] != [self.versions[service.name]]:
                return False
            if shown[0].state != "active" or sorted(shown[0].hosts) != hosts or shown[0].silent:
                return False
        return len(services.services) == len(SERVICES)

    def wait_converged(self, timeout_s: float = CONVERGE_S) -> float:
        """Returns the time at which the tree had converged (monotonic seconds)."""
        until("the tree has converged", self.converged, timeout_s, 0.1)
        return time.monotonic()

    def story(self) -> str:
        """The state of the tree, for a run that failed."""
        parts: list[str] = []
        for edge in EDGES:
            with contextlib.suppress(Problem, OSError), self.nodes[edge].client() as client:
                for service in client.services(local=True).services:
                    for each in service.versions:
                        parts.append(
                            f"{edge}: {service.name}-{each.version} {each.state} {each.instances} on {each.hosts} {each.reason}"
                        )
                parts += [
                    f"{edge}: child {child.name} {child.state} {child.detail}" for child in client.tree().children
                ]
        return "\n".join(parts)


@contextmanager
def paused(pids: Sequence[int]) -> Generator[None]:
    """SIGSTOP, and SIGCONT at the end."""
    _signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        _signal(pids, signal.SIGCONT)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _copy_files(source: Path, target: Path) -> None:
    """Sockets are neither copied nor removed: the engine may still listen there."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_files(target)
    for file in source.iterdir():
        if file.is_file():
            shutil.copy2(file, target)


def _remove_files(folder: Path) -> None:
    for file in folder.iterdir():
        if file.is_file():
            file.unlink()
