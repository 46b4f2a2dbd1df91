"""An engine process of a test's own, driven over its control socket as control does it (proto/engine.proto)."""

from __future__ import annotations

import atexit
import contextlib
import queue
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, Self

from sdlb.adapters.engine_process import find_binary
from sdlb.wire.engine_pb2 import (
    ChallengesApplied,
    Configured,
    Delta,
    FromEngine,
    HandedOver,
    Identity,
    Limits,
    Listener,
    SitesApplied,
    Target,
    TargetHealth,
    ToEngine,
)

WITHIN_S = 10.0


class Before(Protocol):
    """The engine that has the listening sockets."""

    def hand_over(self, path: Path) -> HandedOver: ...


class Engine:
    """`address[key]`: where a listener is. `counters`: the last ones that were reported, once a second."""

    def __init__(
        self,
        listeners: Iterable[Listener],
        *,
        workers: int = 2,
        limits: Limits | None = None,
        name: str = "edge-1",
        after: Before | None = None,
        identity: Identity | None = None,
        control_socket: str = "",
        descriptors: int = 0,
    ) -> None:
        """`after`: the engine whose listening sockets it receives; it does not accept before `configure`. `descriptors`: its
        limit of open files."""
        self.name = name
        self.identity = identity
        self.control_socket = control_socket
        self.folder = Path(tempfile.mkdtemp(prefix="sdlb-engine-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)  # tests read its logs after its end
        self.access_log = self.folder / "access.log"
        self.address: dict[str, tuple[str, int]] = {}
        self.counters: dict[str, int] = {}
        self.groups: dict[str, dict[str, object]] = {}
        self._said: queue.Queue[FromEngine] = queue.Queue()
        self._epoch = 0
        path = self.folder / "engine.sock"
        self.log = (self.folder / "engine.log").open("wb")
        words = [find_binary(), "--socket", str(path), "--workers", str(workers)]
        if descriptors:
            words = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *words]
        sockets = self.folder / "sockets"
        if after is not None:
            words += ["--take-over", str(sockets)]
        self.process = subprocess.Popen(words, stdout=self.log, stderr=self.log)
        if after is not None:
            given = after.hand_over(sockets)
            assert not given.error, given.error
        self._socket = _connect(path)
        threading.Thread(target=self._read, daemon=True).start()
        self.attached = self._wait("attached").attached
        if after is None:
            self.configure(listeners, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._socket.close()
        self.log.close()

    def configure(self, listeners: Iterable[Listener], limits: Limits | None = None) -> Configured:
        configured = self.try_configure(listeners, limits)
        assert not configured.error, configured.error
        for bound in configured.listeners:
            host, port = bound.address.rsplit(":", 1)
            self.address[bound.key] = (host, int(port))
        return configured

    def try_configure(self, listeners: Iterable[Listener], limits: Limits | None = None) -> Configured:
        message = ToEngine()
        if self.identity is not None:
            message.configure.identity.CopyFrom(self.identity)
        message.configure.control_socket = self.control_socket
        message.configure.node = self.name
        message.configure.listeners.extend(listeners)
        message.configure.access_log.enabled = True
        message.configure.access_log.path = str(self.access_log)
        if limits is not None:
            message.configure.limits.CopyFrom(limits)
        self.send(message)
        return self._wait("configured").configured

    def hand_over(self, path: Path) -> HandedOver:
        """To the engine that is about to listen at `path`."""
        end = time.monotonic() + WITHIN_S
        while (answer := self.offer(path)).error and time.monotonic() < end:
            time.sleep(0.01)
        return answer

    def offer(self, path: Path) -> HandedOver:
        message = ToEngine()
        message.hand_over.path = str(path)
        self.send(message)
        return self._wait("handed_over").handed_over

    def shut_down(self, deadline_ms: int = 10_000) -> None:
        message = ToEngine()
        message.shutdown.deadline_ms = deadline_ms
        self.send(message)

    def health(self) -> TargetHealth:
        """Waits until an endpoint is ejected or returns."""
        return self._wait("target_health").target_health

    def drained(self) -> str:
        """Waits until an endpoint is drained; returns its target."""
        return self._wait("drained").drained.key.target

    def serve(
        self,
        pattern: str,
        *endpoints: str,
        service: str = "web",
        version: str = "1.0.0",
        protocol: Target.Protocol = Target.HTTP1,
        kind: Target.Kind = Target.INSTANCE,
        node: str = "",
    ) -> None:
        """Puts a route with these endpoints, or with the child `node` there; returns when every worker has it."""
        delta = Delta()
        for endpoint in endpoints:
            key = f"n:{node}" if node else f"i:{endpoint}"
            kind = Target.NODE if node else kind
            delta.put_targets.add(key=key, kind=kind, address=endpoint, protocol=protocol)
            member = delta.put_members.add(capacity=100)
            member.key.service, member.key.version, member.key.pattern, member.key.target = (
                service,
                version,
                pattern,
                key,
            )
        route = delta.put_routes.add(pattern=pattern, service=service)
        route.picks.add(version=version)
        self.apply(delta)

    def apply(self, delta: Delta) -> None:
        self._epoch += 1
        message = ToEngine()
        message.delta.CopyFrom(delta)
        message.delta.epoch = self._epoch
        self.send(message)
        said = self._wait("applied", "rejected")
        assert said.WhichOneof("kind") == "applied", said.rejected.reason

    def sites(self, message: ToEngine) -> SitesApplied:
        self.send(message)
        return self._wait("sites_applied").sites_applied

    def challenges(self, message: ToEngine) -> ChallengesApplied:
        self.send(message)
        return self._wait("challenges_applied").challenges_applied

    def send(self, message: ToEngine) -> None:
        frame = message.SerializeToString()
        self._socket.sendall(len(frame).to_bytes(4, "big") + frame)

    def counter(self, name: str, at_least: int = 1) -> int:
        """Waits until the counter has reached `at_least`; fails when it does not."""
        end = time.monotonic() + WITHIN_S
        while self.counters.get(name, 0) < at_least:
            assert time.monotonic() < end, f"{name} is {self.counters.get(name, 0)}, not {at_least}"
            time.sleep(0.02)
        return self.counters[name]

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def _wait(self, *kinds: str) -> FromEngine:
        end = time.monotonic() + WITHIN_S
        while True:
            said = self._said.get(timeout=max(0.01, end - time.monotonic()))
            if said.WhichOneof("kind") in kinds:
                return said

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as stream:
            while head := stream.read(4):
                said = FromEngine.FromString(stream.read(int.from_bytes(head, "big")))
                if said.WhichOneof("kind") == "stats":
                    for counter in said.stats.counters:
                        self.counters[counter.name] = counter.value
                    for group in said.stats.groups:
                        self.groups[group.version] = {field.name: value for field, value in group.ListFields()}
                else:
                    self._said.put(said)


def until(done: Callable[[], bool], what: str = "", within_s: float = WITHIN_S) -> None:
    end = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def _connect(path: Path) -> socket.socket:
    end = time.monotonic() + WITHIN_S
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
            return connection
        except OSError:
            connection.close()
            assert time.monotonic() < end, "the engine does not open its socket"
            time.sleep(0.01)
