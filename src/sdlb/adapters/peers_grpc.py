"""Calls between entries over gRPC: `sdlb.tree.v1.Tree/Share`, through the node listeners like the links of children.

With an identity the caller insists on the peer's name in its certificate, whatever the address, and the called node on the
caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from sdlb.adapters.credentials import Credentials, Refused
from sdlb.adapters.hook_program import printable
from sdlb.adapters.link_grpc import DIALED, SERVICE, open_channel
from sdlb.model.acme import Peer
from sdlb.seams.peers import PeerFailed

METHOD = "Share"
CALLER = "sdlb-caller"
"""Metadata: the name of the calling node."""


async def _refuse_all(caller: str, body: bytes) -> bytes:
    raise PeerFailed("this node shares nothing")


class GrpcPeers:
    def __init__(self, credentials: Credentials) -> None:
        self.on_call: Callable[[str, bytes], Awaitable[bytes]] = _refuse_all
        self.known: Callable[[str], bool] = lambda name: False
        self._credentials = credentials
        self._channels: dict[Peer, grpc.aio.Channel] = {}

    # ------------------------------------------------------------------ calling

    async def call(self, peer: Peer, name: str, body: bytes, timeout_s: float) -> bytes:
        """Raises PeerFailed."""
        try:
            await self._credentials.check(peer.address)
            path = f"/{SERVICE}/{METHOD}"
            method = self._channel(peer).unary_unary(path, request_serializer=bytes, response_deserializer=bytes)
            return await method(body, timeout=timeout_s, metadata=((CALLER, name),))
        except Refused as error:
            raise PeerFailed(str(error)) from None
        except grpc.aio.AioRpcError as error:
            await self._drop(peer)  # the next call uses the certificates of that time
            raise PeerFailed(_reason(error)) from None

    def _channel(self, peer: Peer) -> grpc.aio.Channel:
        known = self._channels.get(peer)
        if known is not None:
            return known
        channel = self._channels[peer] = open_channel(peer.address, self._credentials, DIALED, peer.name)
        return channel

    async def _drop(self, peer: Peer) -> None:
        channel = self._channels.pop(peer, None)
        if channel is not None:
            await channel.close(0)

    async def close(self) -> None:
        await asyncio.gather(*(self._drop(peer) for peer in list(self._channels)))

    # ------------------------------------------------------------------ called

    def handler(self) -> Any:
        """The method of the gRPC service."""
        return grpc.unary_unary_rpc_method_handler(self._serve, request_deserializer=bytes, response_serializer=bytes)

    async def _serve(self, body: bytes, context: Any) -> bytes:
        metadata: list[tuple[str, object]] = list(context.invocation_metadata() or ())
        caller = next((str(value) for name, value in metadata if name == CALLER), "")
        why = "" if self.known(caller) else f"{caller[:64]!r} is not in [peers]"
        why = why or self._credentials.refuse(context.peer(), caller)
        if why:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"the call was refused: {why}")
        try:
            return await self.on_call(caller, body)
        except (PeerFailed, ValueError) as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:200])
            raise AssertionError("unreachable") from None


def _reason(error: grpc.aio.AioRpcError) -> str:
    text = (error.details() or error.code().name).splitlines()[0]
    return printable(text)[:200]
