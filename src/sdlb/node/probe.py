"""One health check of an endpoint: by the node that has the instance, and by `sdlb run` before it registers one.

It connects (TCP or Unix socket). For kind "http" it then requests a path over HTTP/1.1, whatever the protocol of the
instance: one that speaks only HTTP/2 needs the kind "tcp", which is the default.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

READ_BYTES = 512
STATUS = "200-399"
"""The healthy status codes of an instance that registers none."""


class Check(Protocol):
    """`HealthCheck` of the model, or `Health` of the SDK."""

    @property
    def kind(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def timeout_s(self) -> float: ...


GREETINGS = {"v1": b"PROXY UNKNOWN\r\n", "v2": b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"}
"""The header before a check when the service's policy uses the PROXY protocol: a LOCAL connection of the node
itself."""


async def probe(endpoint: str, check: Check, greeting: bytes = b"") -> str:
    """ "" when healthy, else the reason."""
    try:
        async with asyncio.timeout(check.timeout_s):
            return await _probe(endpoint, check, greeting)
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"
    except OSError as error:
        return f"cannot connect: {os.strerror(error.errno) if error.errno else error}"


async def _probe(endpoint: str, check: Check, greeting: bytes) -> str:
    loop = asyncio.get_running_loop()
    family, address = where(endpoint)
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as connection:
        await loop.sock_connect(connection, address)
        if check.kind != "http":
            return ""
        host = check.host or ("localhost" if family == socket.AF_UNIX else endpoint)
        head = f"GET {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: sdlb-health\r\nConnection: close\r\n\r\n"
        await loop.sock_sendall(connection, greeting + head.encode())
        got = b""
        while b"\r\n" not in got and len(got) < READ_BYTES:
            more = await loop.sock_recv(connection, READ_BYTES)
            if not more:
                break
            got += more
    words = got.partition(b"\r\n")[0].decode("latin-1").split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not (words[1].isascii() and words[1].isdigit()):
        return f"GET {check.path} was not answered with HTTP"
    if is_among(int(words[1]), check.status):
        return ""
    wanted = "" if check.status == STATUS else f", not {check.status}"
    return f"GET {check.path} answered {words[1]}{wanted}"


def where(endpoint: str) -> tuple[int, str | tuple[str, int]]:
    """Address family and address of "127.0.0.1:8001", "[::1]:8001" or "unix:/path"."""
    if endpoint.startswith("unix:"):
        return socket.AF_UNIX, endpoint[5:]
    host, _, port = endpoint.rpartition(":")
    return socket.AF_INET6 if host.startswith("[") else socket.AF_INET, (host.strip("[]"), int(port))


def is_among(status: int, ranges: str) -> bool:
    """`ranges`: "200-399", "200,204", or a mix of both."""
    for part in ranges.split(","):
        low, _, high = part.partition("-")
        if int(low) <= status <= int(high or low):
            return True
    return False
