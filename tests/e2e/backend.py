"""A web server in the test's process: it answers like the demo's application, records its requests, and can misbehave.

It speaks raw HTTP/1.1, so that a test sees and sends exact bytes. Paths with a meaning:
`/bytes/N` N bytes with a length, `/chunks/N` the same in chunks, `/sse` a few server-sent events with pauses,
`/sink` reads the body slowly, `/trailers` an answer with a trailer, `/hang` never answers, `/status/N`, `/early` answers
before it has read the body. Everything else: the demo's JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

PIECE = 64 << 10


@dataclass
class Seen:
    """One request as it came in. `headers` keeps order, case and repetition."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    received_ns: int
    body: bytes = b""
    trailers: list[str] = field(default_factory=list[str])

    def get(self, name: str) -> str | None:
        """The field's only value; None when it is missing."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def has(self, name: str) -> bool:
        return any(key.lower() == name.lower() for key, _ in self.headers)


Handler = Callable[["Backend", Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


class Backend:
    """`handler` replaces the built-in behaviour: it returns whether the connection is to be kept."""

    def __init__(
        self,
        service: str = "catalog",
        version: str = "1.0.1",
        *,
        name: str = "",
        path: Path | None = None,
        handler: Handler | None = None,
    ) -> None:
        self.service, self.version, self.name = service, version, name
        self.seen: list[Seen] = []
        self.connections = 0
        self.bytes_read = 0
        """Body bytes of `/sink` read so far."""
        self.gate = threading.Event()
        """`/hang?until=gate` and `/sink?gate=1` wait for it."""
        self._handler = handler
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.endpoint = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    @property
    def label(self) -> str:
        return f"{self.service}-{self.version}"

    async def _listen(self) -> str:
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=1 << 20)
            return f"unix:{self._path}"
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20, backlog=512)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """At once: the listener and all connections."""
        if not self._thread.is_alive():
            return

        async def stop() -> None:
            if self._server is not None:
                self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            me = asyncio.current_task()
            for task in asyncio.all_tasks():
                if task is not me:
                    task.cancel()

        self.gate.set()
        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------- serving

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while True:
                seen = await read_head(reader)
                if seen is None:
                    return
                self.seen.append(seen)
                handler = self._handler or Backend._answer
                keep = await handler(self, seen, reader, writer)
                await writer.drain()
                if not keep:
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return  # closed by one side or the other
        finally:
            self._writers.discard(writer)
            with contextlib.suppress(Exception):
                writer.close()

    async def _answer(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        parts = urlsplit(seen.target)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        words = parts.path.strip("/").split("/")
        what, number = words[-2] if len(words) > 1 else "", words[-1]
        if words[-1] == "early":
            writer.write(response(413, b"too early", close=True))
            return False
        if words[-1] == "sink":
            return await self._sink(seen, reader, writer, query)
        if seen.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await read_body(seen, reader)
        if what == "bytes":
            await self._bytes(int(number), writer)
        elif what == "chunks":
            await self._chunks(int(number), writer)
        elif words[-1] == "sse":
            await self._events(writer)
        elif words[-1] == "trailers":
            writer.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
                b"5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n"
            )
        elif words[-1] == "hang":
            await self._opened() if query.get("until") == "gate" else await asyncio.Event().wait()
            writer.write(response(200, self._object(seen)))
        elif what == "status":
            writer.write(response(int(number), b"" if number in ("204", "304") else b"as asked"))
        else:
            await asyncio.sleep(float(query.get("delay", "0")))
            content = self._object(seen)
            writer.write(response(200, content, head_only=seen.method == "HEAD", kind="application/json"))
        return True

    async def _opened(self) -> None:
        while not self.gate.is_set():
            await asyncio.sleep(0.02)

    def _object(self, seen: Seen) -> bytes:
        said: dict[str, object] = {
            "service": self.service,
            "version": self.version,
            "instance": self.name,
            "method": seen.method,
            "target": seen.target,
            "body_bytes": len(seen.body),
            "body_sha256": hashlib.sha256(seen.body).hexdigest(),
            "received_ns": seen.received_ns,
            "finished_ns": time.monotonic_ns(),
        }
        return json.dumps(said).encode()

    async def _bytes(self, count: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count)
        for start in range(0, count, PIECE):
            writer.write(b"x" * min(PIECE, count - start))
            await writer.drain()

    async def _chunks(self, count: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, count, PIECE):
            size = min(PIECE, count - start)
            writer.write(b"%x\r\n" % size + b"y" * size + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async def _events(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(5):
            event = b"data: %d %d\n\n" % (number, time.monotonic_ns())
            writer.write(b"%x\r\n" % len(event) + event + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.2)
        writer.write(b"0\r\n\r\n")

    async def _sink(
        self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, query: dict[str, str]
    ) -> bool:
        """Reads a body with a length; with `gate=1` only from when the gate opens."""
        if query.get("gate"):
            await self._opened()
        left = int(seen.get("content-length") or "0")
        digest = hashlib.sha256()
        while left:
            piece = await reader.read(min(PIECE, left))
            if not piece:
                return False
            left -= len(piece)
            self.bytes_read += len(piece)
            digest.update(piece)
        writer.write(response(200, digest.hexdigest().encode()))
        return True


async def read_head(reader: asyncio.StreamReader) -> Seen | None:
    """The next request head; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    received_ns = time.monotonic_ns()
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    fields = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Seen(method, target, fields, received_ns)


async def read_body(seen: Seen, reader: asyncio.StreamReader) -> None:
    if (seen.get("transfer-encoding") or "").lower() != "chunked":
        seen.body = await reader.readexactly(int(seen.get("content-length") or "0"))
        return
    pieces: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        seen.trailers.append(line[:-2].decode("latin-1"))
    seen.body = b"".join(pieces)


def response(
    status: int, content: bytes, *, head_only: bool = False, close: bool = False, kind: str = "text/plain"
) -> bytes:
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(content)
    end = b"Connection: close\r\n" if close else b""
    head = b"HTTP/1.1 %d Answer\r\nContent-Type: %s\r\n%s%s\r\n" % (status, kind.encode(), length, end)
    return head if head_only else head + content
