"""Challenges of a certificate authority. HAProxy answers http-01 itself. Handshakes of tls-alpn-01 it passes on to control, because
it chooses no certificate by protocol (`doors.py`); control ends their TLS here and closes them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from sdlb.adapters.haproxy.doors import CHALLENGES, PROTOCOL
from sdlb.adapters.haproxy.sites import write
from sdlb.model.acme import HTTP, TLS, WELL_KNOWN, ChallengeAnswer
from sdlb.seams.engine import EngineConfig

HANDSHAKE_WITHIN_S = 10.0
_ANY_HOST = ""


class Challenges:
    """`folder`: has the socket. `put`: replaces the answers of HAProxy, (host, path) -> content; returns "" or why that has failed."""

    def __init__(self, folder: Path, put: Callable[[Mapping[tuple[str, str], str]], Awaitable[str]]) -> None:
        self._folder = folder
        self._put = put
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._server: asyncio.Server | None = None

    async def challenges(self, answers: Sequence[ChallengeAnswer]) -> str:
        handshakes = {each.host: each.content for each in answers if each.kind == TLS}
        try:
            self._contexts = {host: self._context(pem) for host, pem in handshakes.items()}
        except (ssl.SSLError, OSError) as error:
            return f"the certificate of a challenge cannot be used: {error}"
        known = {(each.host, WELL_KNOWN + each.token): each.content for each in answers if each.kind == HTTP}
        error = await self._put(known)
        if error or not handshakes or self._server is not None:
            return error
        return f'HAProxy answers {TLS} only on nodes with challenge = "{TLS}" in [acme]'

    async def use(self, config: EngineConfig) -> None:
        """Accepts handshakes from now on if they come here."""
        if not config.tls_challenges:
            await self.close()
        elif self._server is None:
            path = self._folder / CHALLENGES
            path.unlink(missing_ok=True)
            context = self._context(_ANY_HOST)
            context.sni_callback = self._choose
            self._server = await asyncio.start_unix_server(
                _close, str(path), ssl=context, ssl_handshake_timeout=HANDSHAKE_WITHIN_S
            )
            path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _choose(self, handshake: ssl.SSLObject | ssl.SSLSocket, host: str | None, _: ssl.SSLContext) -> int | None:
        found = self._contexts.get((host or "").lower())
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        handshake.context = found
        return None

    def _context(self, pem: str) -> ssl.SSLContext:
        """Raises SSLError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8737, section 4
        context.set_alpn_protocols([PROTOCOL])
        if pem != _ANY_HOST:
            path = self._folder / "challenge.pem"
            try:
                write(path, pem.encode())
                context.load_cert_chain(path, password=lambda: b"")
            finally:
                path.unlink(missing_ok=True)
        return context


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The handshake is all that the CA wants."""
    writer.close()
