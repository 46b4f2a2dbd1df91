"""Links of child nodes over mutual TLS: HAProxy passes their bytes on untouched, and control itself ends the TLS here.

As with the native engine, control learns the child's name from the address of the stream (`adapters/credentials.py`): it is the first
DNS name of a certificate that the CAs of this node have signed. Without `[identity]`, HAProxy connects to control directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from sdlb.adapters.haproxy.names import CAS, IDENTITY, is_node_name
from sdlb.adapters.haproxy.node_rules import LINKS
from sdlb.adapters.haproxy.sites import write_identity
from sdlb.model.identity import Identity
from sdlb.seams.engine import EngineConfig, EngineFailed

HANDSHAKE_WITHIN_S = 10.0
CHUNK_BYTES = 1 << 16
REFUSED = "identity: "
"""Begins the reason why a certificate cannot be used, as the native engine's does."""


class Links:
    """`folder`: has the socket, and the files of the certificate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identity: Identity | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def use(self, config: EngineConfig) -> None:
        """Accepts links with this certificate from now on; open ones stay. Raises EngineFailed if it cannot be used."""
        if config.identity is None or (config.identity == self._identity and self._server is not None):
            return
        context = tls(self._folder, config.identity)
        before = self._server

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(config.control_socket, reader, writer)

        path = self._folder / LINKS
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            serve, str(path), ssl=context, ssl_handshake_timeout=HANDSHAKE_WITHIN_S
        )
        path.chmod(0o600)
        self._identity = config.identity
        if before is not None:
            before.close()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, control: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            name = first_name(writer.get_extra_info("peercert") or {})
            if name:
                with contextlib.suppress(OSError, asyncio.CancelledError):
                    await _join(reader, writer, *await _connect(control, name))
        finally:
            writer.close()
            self._open.discard(task)


def tls(folder: Path, identity: Identity) -> ssl.SSLContext:
    """For the node's side of a handshake. Writes the files of the identity to the folder. Raises EngineFailed."""
    write_identity(folder, identity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(folder / IDENTITY, password=lambda: b"")
        context.load_verify_locations(folder / CAS)
    except ssl.SSLError as error:
        raise EngineFailed(f"{REFUSED}{error.reason or error}") from None
    return context


def first_name(certificate: Mapping[str, object]) -> str:
    """The node's name in a verified certificate, as `getpeercert` gives it; "" without one."""
    names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    found = next((value for kind, value in names if kind == "DNS"), "")
    return found if is_node_name(found) else ""


async def _connect(control: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream to control whose address tells the child's name. Only processes that may enter control's folder can have one."""
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        own.bind(f"\0sdlb-peer/{secrets.token_hex(8)}/{name}")
        await asyncio.get_running_loop().sock_connect(own, control)
        return await asyncio.open_unix_connection(sock=own)
    except BaseException:
        own.close()
        raise


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    control_reader: asyncio.StreamReader,
    control_writer: asyncio.StreamWriter,
) -> None:
    """Until either side ends."""
    ways = [
        asyncio.create_task(_copy(reader, control_writer)),
        asyncio.create_task(_copy(control_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        control_writer.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK_BYTES):
            target.write(data)
            await target.drain()
