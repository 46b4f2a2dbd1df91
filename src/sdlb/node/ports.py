"""A free port for a program that is about to start.

The usual way is to bind port 0 and to close it again. That gives a port from the range that the kernel also uses for
outgoing connections, so on a busy host it may be taken before the program binds it. Therefore the port is drawn from
below that range and reserved with an abstract Unix socket, which disappears with the process. `sdlb run` and the nodes on this
host respect these reservations.
"""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

from msgspec import Struct

LOWEST = 10_000
DRAWS = 200


class HeldPort(Struct, frozen=True):
    """`name` must be kept for as long as the port is used."""

    port: int
    name: socket.socket | None


def _outgoing_from() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


def is_free(port: int) -> bool:
    """Whether no process listens on the port, on any address of either family."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False  # The program may have more rights than this process, and IPv6 may be missing.
    return True


def hold(port: int) -> socket.socket | None:
    """Reserves the port for this process. None: it is reserved already."""
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name.bind(f"\0sdlb-run-port-{port}")
    except OSError:
        name.close()
        return None
    return name


def hold_free_port(rng: random.Random) -> HeldPort:
    """Raises OSError if no port is free."""
    top = min(_outgoing_from(), 32_768)
    if top - LOWEST >= DRAWS:
        for port in rng.sample(range(LOWEST, top), DRAWS):
            name = hold(port)
            if name is None:
                continue
            if is_free(port):
                return HeldPort(port, name)
            name.close()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return HeldPort(probe.getsockname()[1], None)
