"""Reads bodies of requests to the local API, up to a limit, and writes answers."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sdlb.node.problems import Refusal

BODY_BYTES_MAX = 64 * 1024


def as_json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def body_of(request: Request, most: int = BODY_BYTES_MAX) -> bytes:
    """Raises Refusal past the limit, without reading on. It may be called again."""
    read: bytes | None = getattr(request.state, "content", None)
    if read is not None:
        return read
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise Refusal("too-large", f"the body has {length} bytes; send at most {most}")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refusal("too-large", f"the body is longer than {most} bytes; send less")
        parts.append(part)
    request.state.content = content = b"".join(parts)
    return content
