"""The user at the other end of a connection to the local API: the kernel reports it for Unix sockets (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
from typing import Any

from starlette.requests import Request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sdlb.node.problems import Refusal

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class PeerProtocol(HttpToolsProtocol):
    """HTTP connections whose requests have `state.uid`: of the process that opened the connection; -1: not known."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state: dict[str, Any] = {**self.app_state, "uid": _uid(transport.get_extra_info("socket"))}


def _uid(connection: socket.socket | None) -> int:
    if connection is None or connection.family != socket.AF_UNIX:
        return -1
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return -1
    return _CREDENTIALS.unpack(found)[1]


async def acting_user(request: Request, stated: str) -> str:
    """The name that is recorded for an order. `stated`: another name, which root and the node's own user may give, so that a
    pipeline can name the person that it acts for. Raises Refusal."""
    if not stated.isprintable():
        raise Refusal("bad-json", f"the name {stated[:40]!r} has characters that cannot be printed")
    uid: int = getattr(request.state, "uid", -1)
    name = await asyncio.to_thread(_name, uid)
    if not stated or stated == name:
        if not name:
            raise Refusal("not-permitted", "the user of this connection is not known; use the node's Unix socket")
        return name
    if uid not in (0, os.geteuid()):
        own = await asyncio.to_thread(_name, os.geteuid())
        may = "root" if os.geteuid() == 0 else f"root and {own} (the user of the node)"
        shown = repr(stated if len(stated) <= 40 else f"{stated[:37]}...")
        text = f"{name or 'an unknown user'} may not act as {shown}; only {may} may name another one"
        raise Refusal("not-permitted", text)
    return stated


def _name(uid: int) -> str:
    """In a thread: a directory service may be slow."""
    if uid < 0:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"
