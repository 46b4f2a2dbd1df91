"""Whether a program already listens, and where: it is registered when it does. Does not block an event loop."""

from __future__ import annotations

import asyncio
import socket

POLL_S = 0.05


def family_of(endpoint: str) -> tuple[int, str | tuple[str, int]]:
    """Address family and address of "127.0.0.1:8001", "[::1]:8001" or "unix:/path"."""
    if endpoint.startswith("unix:"):
        return socket.AF_UNIX, endpoint[5:]
    host, _, port = endpoint.rpartition(":")
    return socket.AF_INET6 if host.startswith("[") else socket.AF_INET, (host.strip("[]"), int(port))


def endpoint_of(listener: socket.socket) -> str:
    """The address at which other programs on this host reach a listener."""
    name = listener.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host = str(name[0]).replace("0.0.0.0", "127.0.0.1") if name[0] != "::" else "::1"
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"


async def until_listening(endpoint: str) -> None:
    family, address = family_of(endpoint)
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                await loop.sock_connect(probe, address)
                return
            except OSError:
                pass
        await asyncio.sleep(POLL_S)
