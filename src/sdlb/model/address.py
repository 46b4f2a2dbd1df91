"""Checks of node names and network addresses."""

from __future__ import annotations

import ipaddress
import re

NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z")
_HOST = re.compile(
    r"^(?=.{1,253}\Z)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z"
)
_ADDRESS = "host:port, for example 127.0.0.1:7700 or [::1]:7700"


def check_name(text: str) -> str:
    """Returns `text` if it is a valid node name. Raises ValueError with what was expected."""
    if not NAME.match(text):
        raise ValueError("a name of up to 64 letters, digits, '.', '_' and '-'")
    return text


def check_host_port(text: str, default: int) -> str:
    """`host` or `host:port` of a URL, without the port if it is the default one. Raises ValueError with what was expected."""
    with_port = text if re.search(r":[0-9]+\Z", text) else f"{text}:{default}"
    return check_address(with_port, wildcard=False, names=True).removesuffix(f":{default}")


def check_address(text: str, *, zero: bool = False, wildcard: bool = True, names: bool = False) -> str:
    """Returns `text` if it is `host:port` with an IP address. Raises ValueError with what was expected.

    `zero`: port 0 is allowed; `wildcard`: the unspecified address is allowed; `names`: a host name is allowed.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5:
        raise ValueError(_ADDRESS)
    if not (0 if zero else 1) <= int(port) <= 65535:
        raise ValueError("a port from 1 to 65535")
    literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ipaddress.ip_address(literal)
    except ValueError:
        last = host.rpartition(".")[2]
        if names and _HOST.match(host) and not last.isdigit():
            return text
        raise ValueError(_ADDRESS if names else f"an IP address with a port: {_ADDRESS}") from None
    if (address.version == 6) != (literal is not host):
        raise ValueError("IPv6 addresses in brackets: [::1]:7700")
    zone = getattr(address, "scope_id", None)
    if zone is not None and not zone.isdigit() and not names:
        # The engine reads numeric zone ids only.
        raise ValueError("an interface by its number: [fe80::1%2]:7700")
    if not wildcard and address.is_unspecified:
        raise ValueError("an address that others can connect to, not the unspecified one")
    return text


def host_of(address: str) -> str:
    """The host of a checked `host:port`, an IPv6 address without its brackets."""
    return address.rpartition(":")[0].strip("[]")


def is_loopback(address: str) -> bool:
    """Whether a checked `host:port` is on this machine."""
    host = host_of(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
