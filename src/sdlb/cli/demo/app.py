"""The demo's web application: small, but real. It runs as its own process and knows nothing of balancers.

    PORT=8001 python app.py --service catalog --version 1.0.1 --instance a

Every answer is a JSON object with the instance, the request and the times (`received_ns`, `finished_ns`:
CLOCK_MONOTONIC, which all processes of one machine share). So a client on the same machine can check the exact order of
events.
`?slow=MS` answers late, in chunks. A body is hashed as it comes; with `x-body-sha256` it is compared: 400 when it
differs. `/health` answers 200. SIGTERM: answers what is in flight, then exits.

Only the standard library, and no import of sdlb: it is started by its path, so that it is up within a moment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

SLOW_CHUNKS = 4
BODY_BYTES_MAX = 64 << 20
READ_BYTES = 64 << 10


class BadRequest(Exception):
    """The request cannot be read: it is answered with 400, and the connection is closed."""


@dataclass(slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    keep: bool
    received_ns: int
    body_bytes: int = 0
    body_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    service: str
    version: str
    instance: str


async def read_head(reader: asyncio.StreamReader) -> Request | None:
    """The next request's head; None when the client is done."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise BadRequest("the connection was closed inside a request header") from None
        return None
    except asyncio.LimitOverrunError:
        raise BadRequest("the request header is too long") from None
    received_ns = time.monotonic_ns()
    lines = head[:-4].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        raise BadRequest(f"no request line: {lines[0]!r}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    keep = words[2] == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    return Request(words[0], words[1], headers, keep, received_ns)


async def body_pieces(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Reads the body whole (it is bounded: this is a demo) and returns it."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        pieces: list[bytes] = []
        total = 0
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            total += size
            if total > BODY_BYTES_MAX:
                raise BadRequest("the body is too long")
            if size == 0:
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                return b"".join(pieces)
            pieces.append(await reader.readexactly(size))
            if await reader.readexactly(2) != b"\r\n":
                raise BadRequest("a chunk does not end where it should")
    length = int(headers.get("content-length", "0"))
    if length > BODY_BYTES_MAX:
        raise BadRequest("the body is too long")
    return await reader.readexactly(length)


class App:
    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.busy = 0
        self.stopping = False
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while (request := await read_head(reader)) is not None:
                self.busy += 1
                try:
                    await self._one(request, reader, writer)
                finally:
                    self.busy -= 1
                if not request.keep or self.stopping:
                    return
        except BadRequest as error:
            text = json.dumps({"error": str(error)}).encode()
            writer.write(
                b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(text) + text
            )
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass  # the client has disconnected: no response is possible
        finally:
            self.writers.discard(writer)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _one(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await body_pieces(reader, request.headers)
        request.body_bytes = len(body)
        request.body_sha256 = hashlib.sha256(body).hexdigest()
        expected = request.headers.get("x-body-sha256")
        status = b"200 OK" if expected in (None, request.body_sha256) else b"400 Bad Request"
        query = parse_qs(urlsplit(request.target).query)
        slow_ms = int(query.get("slow", ["0"])[0])
        keep = b"" if request.keep and not self.stopping else b"Connection: close\r\n"
        head = b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\n" + keep
        if slow_ms and request.method != "HEAD":
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            await self._slowly(request, slow_ms / 1000, writer)
        else:
            content = self._answer(request)
            head += b"Content-Length: %d\r\n\r\n" % len(content)
            writer.write(head if request.method == "HEAD" else head + content)
        await writer.drain()

    async def _slowly(self, request: Request, slow_s: float, writer: asyncio.StreamWriter) -> None:
        """White space first, the object in the last chunk, because only then `finished_ns` is known."""
        for _ in range(SLOW_CHUNKS):
            writer.write(b"10\r\n" + b" " * 15 + b"\n\r\n")
            await writer.drain()
            await asyncio.sleep(slow_s / SLOW_CHUNKS)
        content = self._answer(request)
        writer.write(b"%x\r\n" % len(content) + content + b"\r\n0\r\n\r\n")

    def _answer(self, request: Request) -> bytes:
        return json.dumps(
            {
                "service": self.identity.service,
                "version": self.identity.version,
                "instance": self.identity.instance,
                "method": request.method,
                "target": request.target,
                "host": request.headers.get("host", ""),
                "body_bytes": request.body_bytes,
                "body_sha256": request.body_sha256,
                "received_ns": request.received_ns,
                "finished_ns": time.monotonic_ns(),
            }
        ).encode()

    async def finish(self) -> None:
        """Nothing new on any connection; returns when nothing is in flight."""
        self.stopping = True
        while self.busy:
            await asyncio.sleep(0.01)
        for writer in list(self.writers):
            writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description="the demo's web application")
    parser.add_argument("--service", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--socket", help="serve on this Unix socket; without it on 127.0.0.1 at the port in PORT")
    arguments = parser.parse_args()
    app = App(Identity(arguments.service, arguments.version, arguments.instance))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if arguments.socket:
        server = await asyncio.start_unix_server(app.serve, arguments.socket, limit=READ_BYTES)
    else:
        server = await asyncio.start_server(
            app.serve, "127.0.0.1", int(os.environ["PORT"]), limit=READ_BYTES, backlog=1024
        )
    await stop.wait()
    server.close()
    await app.finish()


if __name__ == "__main__":
    asyncio.run(main())
