"""One call at a time to the node, on asyncio alone: what `sdlb run` uses.

A host may have many instances, each with its `sdlb run`; without the HTTP client library a process is 12 MB smaller.
Each call has its own connection: calls are rare, and a restart of control needs no special handling.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar
from urllib.parse import urlencode

from sdlb.sdk.calls import CONNECT_TIMEOUT_S, Call
from sdlb.sdk.problem import Unreachable

T = TypeVar("T")
ANSWER_BYTES_MAX = 1 << 20


async def carry_out(socket: str, call: Call[T]) -> T:
    """Raises Problem, and Unreachable when no node answers in time."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S + call.timeout_s):
            reader, writer = await asyncio.open_unix_connection(socket, limit=65536)
            try:
                writer.write(_request(call))
                answer = await _answer(reader)
            finally:
                writer.close()
    except TimeoutError:
        raise Unreachable(socket, "it accepts connections but does not answer", hangs=True) from None
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError):
        raise Unreachable(socket, "the connection broke, or it is not a node") from None
    except OSError as error:
        raise Unreachable(socket, error.strerror or str(error)) from error
    return call.read(*answer)


def _request(call: Call[T]) -> bytes:
    target = f"{call.path}?{urlencode(call.params)}" if call.params else call.path
    content = call.content()
    head = f"{call.method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: */*\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in call.headers.items())
    if content is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode("ascii") + b"\r\n" + (content or b"")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(status, body). The node answers calls with a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    length = int(fields.get("content-length", "0"))
    if not head[0].startswith("HTTP/1.") or not 0 <= length <= ANSWER_BYTES_MAX:
        raise ValueError
    return status, await reader.readexactly(length)
