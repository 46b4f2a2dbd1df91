"""A root in this process: the real loop, core and API, an engine that confirms everything, a store in memory."""

from __future__ import annotations

import asyncio
import io
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx

from sdlb.adapters.hook import Hooks
from sdlb.core.balancer import Balancer
from sdlb.core.messages import DownMessage, UpMessage
from sdlb.core.settings import Settings
from sdlb.model.hook_program import HookProgram
from sdlb.node.authority import Authority
from sdlb.node.config import NodeConfig
from sdlb.node.hardening import Part, parts
from sdlb.node.health import Health
from sdlb.node.journal import Journal
from sdlb.node.local_paths import listen_unix
from sdlb.node.loop import NodeLoop
from sdlb.node.reaper import Reaper
from sdlb.node.restart import Restart
from sdlb.node.server import serve_api
from sdlb.node.sites import SiteWatch
from sdlb.seams.engine import EngineConfig
from tests.seams.fake_engine import FakeEngine
from tests.seams.fake_store import MemoryStore


class NoParents:
    """Dials no node and gets no events."""

    def dial(self, parent: str) -> None: ...
    def send(self, parent: str, message: UpMessage) -> None: ...
    def hang_up(self, parent: str) -> None: ...
    async def close(self) -> None: ...


class NoChildren:
    def send(self, link: int, message: DownMessage) -> None: ...
    def drop(self, link: int) -> None: ...
    async def close(self) -> None: ...


@dataclass
class Lone:
    loop: NodeLoop
    engine: FakeEngine
    store: MemoryStore
    journal: Journal
    health: Health
    sites: SiteWatch
    authority: Authority
    restart: Restart
    http: httpx.AsyncClient
    log: io.StringIO
    hardening: tuple[Part, ...] = ()

    @property
    def balancer(self) -> Balancer:
        return self.loop.balancer


@asynccontextmanager
async def lone(
    folder: Path,
    parents: tuple[str, ...] = (),
    disk: dict[str, bytes] | None = None,
    listening: socket.socket | None = None,
) -> AsyncGenerator[Lone]:
    """`listening`: where the API listens instead."""
    log = io.StringIO()
    journal = Journal("edge-1", log)
    store = MemoryStore(disk)
    saved = await store.load()
    settings = Settings("edge-1", "id-1", 1, parents, beat_s=0.2, lease_s=1.0, fence_s=1.0)
    loop = NodeLoop(Balancer(settings, saved, Random(1)), store, journal.report)
    engine = FakeEngine(loop.post)
    health = Health(loop.post, Random(2), loop.remember)
    authority = Authority(loop)
    restart = Restart(Reaper(lambda pid: True), [sys.executable, "-c", ""])
    sites = SiteWatch(engine.sites, journal.report, folder / "ticket-keys")
    loop.engine, loop.parents, loop.children = engine, NoParents(), NoChildren()
    loop.run_here = authority.run_here
    programs = {"yes": HookProgram(("/bin/true",)), "slow": HookProgram(("/bin/sleep", "600"))}
    loop.run_hook = Hooks(folder / "hooks", programs, "node.toml").run

    def changed(names: tuple[str, ...]) -> None:
        for name in names:
            if loop.balancer.view.instance(name) is None:
                health.drop(name)

    loop.watch_instances = changed
    listening = listening or listen_unix(folder / "api.sock")
    transport = httpx.AsyncHTTPTransport(uds=str(folder / "api.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://node", timeout=20.0) as http:
        node: Any = Lone(loop, engine, store, journal, health, sites, authority, restart, http, log)
        node.acme = None  # there are no sites
        node.hardening = parts(NodeConfig("edge-1", folder, folder / "api.sock"))
        await loop.start()
        await engine.start(EngineConfig("edge-1", (), ""))
        looping = asyncio.create_task(loop.run())
        _, stop_api = serve_api(
            node, listening, {"http": "127.0.0.1:80", "node": "127.0.0.1:7700"}, repeats=folder / "repeats"
        )
        try:
            yield node
        finally:
            await stop_api()
            looping.cancel()
            health.close()
