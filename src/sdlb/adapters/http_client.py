"""What the HTTP clients of control share: the library with its CAs, bounded bodies, and the text of errors."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from sdlb.adapters.hook_program import last_chars, printable

if TYPE_CHECKING:
    import httpx


def load_http() -> tuple[Any, ssl.SSLContext]:
    """httpx and its CAs. In a thread: it takes about 0.2 s. A certificate of the system's CAs or of httpx's is accepted."""
    import httpx

    tls = httpx.create_ssl_context(trust_env=False)
    tls.load_default_certs()
    return httpx, tls


def new_client(tls: ssl.SSLContext, silence_s: float | None = None) -> httpx.AsyncClient:
    """No proxies of the environment and no redirects. `silence_s`: bounds each read; None: the caller bounds the whole request."""
    import httpx

    return httpx.AsyncClient(verify=tls, trust_env=False, follow_redirects=False, timeout=silence_s)


async def read_start(parts: AsyncIterator[bytes], bytes_max: int) -> bytes:
    """The first `bytes_max` bytes of a body."""
    found = bytearray()
    async for part in parts:
        found += part
        if len(found) >= bytes_max:
            break
    return bytes(found[:bytes_max])


def error_text(error: BaseException, chars_max: int) -> str:
    return last_chars(printable(str(error)) or type(error).__name__, chars_max)
