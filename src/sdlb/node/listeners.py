"""The sockets that listen at an endpoint. While they stay the same, the same program answers there.

A TCP socket is identified by its inode in /proc/net/tcp (proc(5)), which lists listening sockets first; a Unix socket
by its file. For a program in another network namespace no socket is found, so the result is empty.
"""

from __future__ import annotations

import ipaddress
import os
import sys

LISTEN = b"0A"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def listeners(endpoint: str) -> frozenset[str]:
    """Opaque names of the sockets at "127.0.0.1:8001", "[::1]:8001" or "unix:/path"; empty if unknown."""
    if endpoint.startswith("unix:"):
        try:
            found = os.stat(endpoint[5:])
        except OSError:
            return frozenset()
        return frozenset({f"{found.st_dev}.{found.st_ino}.{found.st_ctime_ns}"})
    host, _, port = endpoint.rpartition(":")
    wanted = {_hex(host.strip("[]")), b"0" * 8, b"0" * 32}
    inodes: set[str] = set()
    for path in TABLES:
        inodes.update(_in_table(path, wanted, b"%04X" % int(port)))
    return frozenset(inodes)


def _in_table(path: str, hosts: set[bytes], port: bytes) -> set[str]:
    found: set[str] = set()
    try:
        with open(path, "rb") as file:
            next(file, b"")
            for line in file:
                fields = line.split(None, 10)
                if fields[3] != LISTEN:
                    break
                host, _, at = fields[1].partition(b":")
                if at == port and host in hosts:
                    found.add(fields[9].decode())
    except OSError:
        return set()
    return found


def _hex(host: str) -> bytes:
    """An address as the tables write it: words of 32 bits in the byte order of the machine."""
    packed = ipaddress.ip_address(host).packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return b"".join(b"%08X" % int.from_bytes(word, sys.byteorder) for word in words)
