"""How control's links to other nodes are secured: mutual TLS, or unencrypted to loopback and private addresses.

The engine's NODE listener terminates TLS and passes the name in the peer's certificate in the address of its end of the
stream (engine.proto).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Protocol

import grpc

from sdlb.model.identity import Identity

PEER = "unix-abstract:sdlb-peer/"
"""The prefix of the engine's address of a stream that came over mutual TLS."""


class Refused(Exception):
    """A link must not be opened; the text has the reason and what to do."""


class Credentials(Protocol):
    @property
    def note(self) -> str:
        """The warning for each new link; "" when it is secured."""
        ...

    async def check(self, parent: str) -> None:
        """Raises Refused when a link to this address (`host:port`) must not be opened."""
        ...

    def channel(self) -> grpc.ChannelCredentials | None:
        """The gRPC credentials of a channel; None: unencrypted."""
        ...

    def refuse(self, peer: str, node: str) -> str:
        """Why a child whose stream comes from `peer` (as gRPC names it) is not `node`; "" when it may be."""
        ...


class Insecure:
    """Unencrypted links, to loopback and private addresses only."""

    note = "unencrypted: anyone with access to the network between the nodes can read and change the traffic"

    async def check(self, parent: str) -> None:
        host, _, port = parent.rpartition(":")
        host = host.strip("[]")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise Refused(f"{host} cannot be looked up: {error.strerror}") from None
        for *_, address in found:
            ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
            if ip.is_global or ip.is_multicast:
                raise Refused(
                    f"{parent} is {ip}, which is neither loopback nor private; use [identity], unencrypted links must "
                    "not cross the internet"
                )

    def channel(self) -> grpc.ChannelCredentials | None:
        return None

    def refuse(self, peer: str, node: str) -> str:
        return ""


class MutualTls:
    """Both sides present a certificate of the same CAs. `identity`: returns this node's current one."""

    note = ""

    def __init__(self, identity: Callable[[], Identity]) -> None:
        self._identity = identity

    async def check(self, parent: str) -> None:
        """Allows any address: gRPC compares its host with the names in the parent's certificate."""

    def channel(self) -> grpc.ChannelCredentials | None:
        now = self._identity()
        return grpc.ssl_channel_credentials(now.ca, now.pem, now.pem)

    def refuse(self, peer: str, node: str) -> str:
        prefix, _, name = peer.rpartition("/")
        if not prefix.startswith(PEER):
            return "its link does not use mutual TLS"
        return "" if name.lower() == node.lower() else f"its certificate belongs to {name}"
