"""Serves the local API with uvicorn on a socket that is already open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Collection, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import uvicorn

from sdlb.node.api import Api
from sdlb.node.idempotency import Repeats
from sdlb.node.openapi import version
from sdlb.node.peer import PeerProtocol

if TYPE_CHECKING:
    from sdlb.node.compose import Node


class _Server(uvicorn.Server):
    """Replaces uvicorn's main loop, which wakes up ten times a second: more than all other code of an idle node."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    async def main_loop(self) -> None:
        await self._end.wait()

    def end(self) -> None:
        self.should_exit = True
        self._end.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Installs no signal handlers: the node has its own."""
        yield


PROBES = ("/metrics", "/healthz", "/readyz")
"""The paths that `listen.metrics` answers."""


def serve_api(
    node: Node,
    listening: socket.socket,
    listen: dict[str, str],
    paths: Collection[str] = (),
    repeats: Path | None = None,
) -> tuple[asyncio.Task[None], Callable[[], Awaitable[None]]]:
    """The serving task, and a function that stops it (open responses get one second). `paths`: serves only these.
    `repeats`: the file of idempotency keys."""
    api = Api(
        node.loop,
        node.authority,
        node.engine,
        node.journal,
        node.health,
        node.sites,
        node.acme,
        node.restart,
        listen,
        lambda: node.hardening,
        Repeats(repeats),
    )
    config = uvicorn.Config(
        api.app(paths),
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        limit_concurrency=1000,
    )
    server = _Server(config)

    async def serve() -> None:
        # The first response would block the loop by these: 10 ms to read the package's metadata, 20 ms to load a module.
        version()
        async with anyio.create_task_group():
            pass
        await server.serve(sockets=[listening])

    serving = asyncio.create_task(serve(), name="api")

    async def stop() -> None:
        server.end()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(serving, 3.0)

    return serving, stop
