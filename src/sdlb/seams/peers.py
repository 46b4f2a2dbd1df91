"""Interface to the other entries of the tree: calls over mutual TLS between node listeners."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from sdlb.model.acme import Peer


class PeerFailed(Exception):
    """A peer did not answer, or refused the call."""


class PeerLinks(Protocol):
    on_call: Callable[[str, bytes], Awaitable[bytes]]
    """Called with the name that the caller gives for itself and the body; returns the answer. The name is authenticated by
    `check` before."""

    known: Callable[[str], bool]
    """Whether calls of a node with this name are accepted."""

    async def call(self, peer: Peer, name: str, body: bytes, timeout_s: float) -> bytes:
        """`name`: this node's. Raises PeerFailed."""
        ...

    async def close(self) -> None: ...
