"""How node links are secured: the one place where mutual TLS goes.

`Insecure` is all there is now: clear text, and only to addresses that never cross the internet. A TLS implementation
returns `grpc.ssl_channel_credentials(...)` from `channel`, and the engine's NODE listener ends the TLS of what comes
in.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Protocol

import grpc


class Refused(Exception):
    """A link that must not be opened; the text says why and what to do."""


class Credentials(Protocol):
    @property
    def note(self) -> str:
        """What to warn of for each new link; "" when it is secured."""
        ...

    async def check(self, parent: str) -> None:
        """Raises Refused when a link to this address (`host:port`) must not be opened."""
        ...

    def channel(self) -> grpc.ChannelCredentials | None:
        """What gRPC secures a channel with; None: clear text."""
        ...


class Insecure:
    """Clear text, to loopback and private addresses only."""

    note = "in clear text: whoever can reach the network between these nodes can read and change what they say"

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
                text = f"{parent} is {ip}, which is neither loopback nor private: no link in clear text goes there"
                raise Refused(text)

    def channel(self) -> grpc.ChannelCredentials | None:
        return None
