"""An engine without a node, controlled over its socket as by control (proto/engine.proto)."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench import processes
from sdlb.adapters.engine_process import find_binary
from sdlb.core.effects import Apply, EndpointPut, Pick, RoutePut, UpstreamPut
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey
from sdlb.seams.engine import EngineConfig, Listener
from sdlb.wire import engine as wire
from sdlb.wire.engine_pb2 import FromEngine, ToEngine


class Engine:
    """A context manager that ends the process."""

    def __init__(self, folder: Path, core: int | str | None = None, workers: int = 1) -> None:
        self.path = folder / "engine.sock"
        self.process: subprocess.Popen[bytes] = processes.start(
            [find_binary(), "--socket", str(self.path), "--workers", str(workers)], core, folder / "engine.log"
        )
        self._epoch = 0
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            processes.until("the engine listens", self._connected)
        except TimeoutError:
            self.close()
            raise
        self.version = self._wait("attached").attached.engine_version

    def configure(self) -> str:
        """host:port for clients."""
        config = EngineConfig("bench", (Listener("http", "127.0.0.1:0"),), "")
        self._send(wire.to_configure(config))
        configured = self._wait("configured").configured
        if configured.error:
            raise OSError(configured.error)
        return configured.listeners[0].address

    def configure_edge(self, access_log: Path | None, pem: bytes) -> tuple[str, str]:
        """host:port for clients, unencrypted and over TLS, with one certificate for every name."""
        listeners = (Listener("http", "127.0.0.1:0"), Listener("https", "127.0.0.1:0", tls=True))
        self._send(wire.to_configure(EngineConfig("bench", listeners, "", access_log=str(access_log or ""))))
        bound = {each.key: each.address for each in self._wait("configured").configured.listeners}
        message = ToEngine()
        message.sites.put.add(key="all", hosts=["*"]).certificates.add(pem=pem)
        self._send(message)
        for state in self._wait("sites_applied").sites_applied.sites:
            if state.error:
                raise OSError(state.error)
        return bound["http"], bound["https"]

    def apply(
        self,
        targets: Sequence[UpstreamPut] = (),
        endpoints: Sequence[EndpointPut] = (),
        routes: Sequence[RoutePut] = (),
        gone: Sequence[EndpointKey] = (),
        gone_routes: Sequence[str] = (),
    ) -> float:
        """Sends a delta; returns the seconds until it is applied."""
        self._epoch += 1
        puts = tuple(targets), tuple(endpoints), tuple(routes)
        message = wire.to_delta(Apply(self._epoch, False, *puts, tuple(gone), tuple(gone_routes)))
        began = time.perf_counter()
        self._send(message)
        self._wait("applied")
        return time.perf_counter() - began

    def serve(self, services: int, pattern: str, backend: str) -> None:
        """Configures `count` services, each on `pattern` with its number, all with one instance at `backend`."""
        endpoints = [EndpointPut(key(number, pattern), 100) for number in range(services)]
        routes = [
            RoutePut(endpoint.key.claim.route, endpoint.key.claim.service, (Pick("1.0.0", 0, 0),))
            for endpoint in endpoints
        ]
        self.apply([UpstreamPut("i:1", False, backend)], endpoints, routes)

    def close(self) -> None:
        self._socket.close()
        processes.end([self.process])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> bool:
        try:
            self._socket.connect(str(self.path))
        except OSError:
            return False
        return True

    def _send(self, message: ToEngine) -> None:
        frame = message.SerializeToString()
        self._socket.sendall(len(frame).to_bytes(4, "big") + frame)

    def _wait(self, kind: str) -> FromEngine:
        while True:
            message = FromEngine.FromString(self._read(int.from_bytes(self._read(4), "big")))
            if message.WhichOneof("kind") == kind:
                return message
            if message.WhichOneof("kind") == "rejected":
                raise OSError(f"the engine refused: {message.rejected.reason}")

    def _read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._socket.recv(size - len(parts))
            if not part:
                raise OSError("the engine closed the connection")
            parts += part
        return bytes(parts)


def key(number: int, pattern: str, target: str = "i:1") -> EndpointKey:
    return EndpointKey(ClaimKey(f"service-{number}", "1.0.0", pattern.format(number)), target)
