"""A raw HTTP/1.1 client connection for the load generator: one request at a time, kept alive, nothing retried.

It is strict: a response that is not framed exactly by RFC 9112 raises `BadResponse`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

HEAD_BYTES_MAX = 64 << 10


class BadResponse(Exception):
    """The response is missing, incomplete or not HTTP; the text has the reason."""


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """`address` is (host, port). `reusable`: another request may be sent."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._keep = True

    @property
    def reusable(self) -> bool:
        return self._keep and self._reader is not None and not self._reader.at_eof()

    async def send(self, head: bytes, body: tuple[bytes, ...], *, head_only: bool = False) -> Response:
        """Sends the head and then the body's pieces as they are (chunked by the caller, if so); raises BadResponse."""
        try:
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(*self.address, limit=HEAD_BYTES_MAX)
            self._writer.write(head)
            for piece in body:
                await self._writer.drain()
                self._writer.write(piece)
            await self._writer.drain()
            return await self._response(head_only)
        except BadResponse:
            self._keep = False
            raise
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self._keep = False
            raise BadResponse(_reason(error)) from error

    async def _response(self, head_only: bool) -> Response:
        assert self._reader is not None
        status = 100
        headers: dict[str, str] = {}
        while 100 <= status < 200:
            text = (await self._reader.readuntil(b"\r\n\r\n"))[:-4].decode("latin-1")
            line, *fields = text.split("\r\n")
            words = line.split(" ", 2)
            if len(words) < 2 or words[0] != "HTTP/1.1" or not words[1].isdigit():
                raise BadResponse(f"no status line: {line!r}")
            status = int(words[1])
            headers = {}
            for item in fields:
                name, colon, value = item.partition(":")
                if not colon or name != name.strip():
                    raise BadResponse(f"no header field: {item!r}")
                headers[name.lower()] = value.strip()
        self._keep = "close" not in headers.get("connection", "").lower()
        body = b"" if head_only or status in (204, 304) else await self._body(headers)
        return Response(status, headers, body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        assert self._reader is not None
        if headers.get("transfer-encoding", "").lower() != "chunked":
            if "content-length" not in headers:
                raise BadResponse("a response without a length")
            return await self._reader.readexactly(int(headers["content-length"]))
        pieces: list[bytes] = []
        while True:
            line = await self._reader.readuntil(b"\r\n")
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise BadResponse(f"no chunk size: {line!r}") from None
            if size == 0:
                while await self._reader.readuntil(b"\r\n") != b"\r\n":
                    pass
                return b"".join(pieces)
            pieces.append(await self._reader.readexactly(size))
            if await self._reader.readexactly(2) != b"\r\n":
                raise BadResponse("a chunk does not end where it should")

    def close(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.close()
        self._writer = self._reader = None


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return f"the connection was closed after {len(error.partial)} bytes of a part of the response"
    return f"{type(error).__name__}: {error}"
