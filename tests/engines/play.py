"""An engine of either kind behind its seam, driven as the core drives it, and endpoints that say who they are."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.adapters.engine_native import NativeEngine
from sdlb.adapters.haproxy import program
from sdlb.adapters.haproxy.engine import HaproxyEngine
from sdlb.core.effects import Apply, EndpointPut, Note, Pick, RoutePut, UpstreamPut
from sdlb.core.events import EndpointKey, EngineApplied, EngineAttached, EngineRejected, Event
from sdlb.core.messages import ClaimKey
from sdlb.model.site import SiteState
from sdlb.seams.engine import Engine, EngineConfig, EngineFailed, Listener

CONFIG = EngineConfig("n", (Listener("http", "127.0.0.1:0"),), "/nowhere/links.sock")
WEBSOCKET = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
"""The example of RFC 6455, section 1.3."""
KINDS = ("native", "haproxy")
WITHIN_S = 20.0


def haproxy_missing() -> str:
    """Why tests with HAProxy are skipped; "": they are not."""
    try:
        asyncio.run(program.find())
    except EngineFailed as error:
        return str(error)
    return ""


needs_haproxy = pytest.mark.skipif(bool(why := haproxy_missing()), reason=f"no HAProxy: {why}")
both = pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=needs_haproxy)])


@dataclass
class Answer:
    status: int
    fields: dict[str, str]
    body: str


@dataclass
class Played:
    """`names`: endpoint -> its name; `table`: what the engine was told."""

    engine: Engine
    folder: Path
    events: list[Event] = field(default_factory=list[Event])
    notes: list[Note] = field(default_factory=list[Note])
    states: list[SiteState] = field(default_factory=list[SiteState])
    epoch: int = 0

    @property
    def haproxy(self) -> HaproxyEngine:
        assert isinstance(self.engine, HaproxyEngine)
        return self.engine

    @property
    def address(self) -> str:
        return self.engine.stats.bound["http"]

    async def until(self, done: Callable[[], bool], what: str = "") -> None:
        for _ in range(round(WITHIN_S / 0.005)):
            if done():
                return
            await asyncio.sleep(0.005)
        raise TimeoutError(f"{what}: {self.events[-5:]} {[note.text for note in self.notes]}")

    async def wait(self, kind: type[Any], count: int = 1) -> list[Any]:
        def found() -> list[Any]:
            return [event for event in self.events if isinstance(event, kind)]

        await self.until(lambda: len(found()) >= count, kind.__name__)
        return found()

    async def apply(self, delta: Apply) -> None:
        """Returns when the delta is applied. Raises ValueError when it is rejected."""
        self.epoch += 1
        self.engine.apply(replace(delta, epoch=self.epoch))
        answers = (EngineApplied, EngineRejected)
        await self.until(lambda: any(isinstance(e, answers) and e.epoch == self.epoch for e in self.events), "apply")
        for event in self.events:
            if isinstance(event, EngineRejected) and event.epoch == self.epoch:
                raise ValueError(event.reason)

    async def ask(self, host: str = "example.com", path: str = "/", fields: str = "", method: str = "GET") -> Answer:
        reader, writer = await connect(self.address)
        try:
            return await request(reader, writer, host, path, fields, method)
        finally:
            writer.close()


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def request(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    host: str = "example.com",
    path: str = "/",
    fields: str = "",
    method: str = "GET",
) -> Answer:
    writer.write(f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}\r\n".encode())
    return await answer(reader)


async def answer(reader: asyncio.StreamReader) -> Answer:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN_S)).decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    return Answer(int(head[0].split()[1]), fields, body.decode())


class Endpoint:
    """Answers with its name. `/slow...` waits for `release`; `/fields` answers with the head that it got,
    `/echo` with what it gets after an upgrade, `/body...` with its name and how long the body is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got = 0
        self.release = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.got += 1
                path = head.split(" ")[1]
                if path.startswith("/body"):
                    length = next(
                        (line[16:] for line in head.lower().split("\r\n") if line.startswith("content-length: ")), "0"
                    )
                    text = f"{self.name} {len(await reader.readexactly(int(length)))}"
                    writer.write(f"HTTP/1.1 200 X\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
                    continue
                if path == "/echo":
                    writer.write(websocket_answer(head))
                    while data := await reader.read(1000):
                        writer.write(data)
                    break
                if path.startswith("/slow"):
                    await self.release.wait()
                status = 503 if path.startswith("/bad") else 200
                body = head if path.startswith("/fields") else self.name
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        self._open.discard(writer)
        writer.close()


def websocket_answer(head: str) -> bytes:
    """RFC 6455, section 4.2.2. HTTP/2 between two nodes gives the handshake another key."""
    key = next(line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest())
    fields = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: "
    return b"HTTP/1.1 101 X\r\n" + fields + accept + b"\r\n\r\n"


@asynccontextmanager
async def endpoints(*names: str) -> AsyncGenerator[list[Endpoint]]:
    made = [Endpoint(name) for name in names]
    for each in made:
        await each.start()
    try:
        yield made
    finally:
        for each in made:
            await each.stop()


def control(kind: str, folder: Path, binary: str = "") -> Played:
    """One life of control. `binary`: of HAProxy."""
    events: list[Event] = []
    notes: list[Note] = []
    folder.chmod(0o700)
    engine: Engine
    if kind == "native":
        engine = NativeEngine(folder / "engine.sock", folder / "engine.log", 2, events.append, notes.append)
    else:
        engine = HaproxyEngine(folder / "haproxy", folder / "engine.log", 2, events.append, notes.append, binary)
    played = Played(engine, folder, events, notes)
    engine.sites.on_states = played.states.extend
    return played


@asynccontextmanager
async def started(
    kind: str, folder: Path, config: EngineConfig = CONFIG, settle_s: float = 0.0, binary: str = ""
) -> AsyncGenerator[Played]:
    played = control(kind, folder, binary)
    await played.engine.start(config, settle_s)
    try:
        await played.wait(EngineAttached)
        yield played
    finally:
        await played.engine.shut_down(0.0)


def key(version: str, target: str, route: str = "example.com/*", service: str = "web") -> EndpointKey:
    return EndpointKey(ClaimKey(service, version, route), target)


def upstream(endpoint: Endpoint) -> UpstreamPut:
    return UpstreamPut(f"i:{endpoint.name}", False, endpoint.address)


def put(version: str, endpoint: Endpoint, route: str = "example.com/*", capacity: int = 100) -> EndpointPut:
    return EndpointPut(key(version, f"i:{endpoint.name}", route), capacity)


def route(picks: Sequence[Pick], pattern: str = "example.com/*", **more: Any) -> RoutePut:
    return RoutePut(pattern, "web", tuple(picks), **more)


def one(version: str) -> list[Pick]:
    return [Pick(version, 0, 0)]


def run(scenario: Callable[..., Any], *args: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario(*args), 100))
