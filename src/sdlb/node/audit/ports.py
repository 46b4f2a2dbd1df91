"""Which processes listen on a port: /proc/net/tcp names the sockets by inode, /proc/PID/fd their owners (proc(5))."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from pathlib import Path

from msgspec import Struct

from sdlb.node.listeners import LISTEN, TABLES

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
PROC = Path("/proc")


class Listening(Struct, frozen=True):
    address: Address
    port: int
    inode: str
    uid: int


def listening(port: int) -> list[Listening]:
    """All sockets of this network namespace that listen on a port."""
    found: list[Listening] = []
    for table in TABLES:
        try:
            lines = Path(table).read_bytes().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            host, _, number = fields[1].partition(b":")
            if fields[3] == LISTEN and int(number, 16) == port:
                found.append(Listening(_address(host.decode()), port, fields[9].decode(), int(fields[7])))
    return found


def _address(text: str) -> Address:
    """As the tables write it: words of 32 bits in the byte order of the machine."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def overlaps(one: Address, other: Address) -> bool:
    """Whether a connection to one address may arrive at the other. `::` takes connections to IPv4 addresses too."""
    if one == other or (one.is_unspecified and other.is_unspecified):
        return True
    if one.version == other.version:
        return one.is_unspecified or other.is_unspecified
    return (one.version == 6 and one.is_unspecified) or (other.version == 6 and other.is_unspecified)


def owners(inodes: set[str]) -> dict[str, set[int]]:
    """Inode -> the processes that have that socket, as far as this user can see them."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, set[int]] = {inode: set() for inode in inodes}
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # of another user, or it ended
            for number in os.listdir(process / "fd"):
                with contextlib.suppress(OSError):  # closed meanwhile
                    link = os.readlink(process / "fd" / number)
                    if link in wanted:
                        found[wanted[link]].add(int(process.name))
    return found


def name_of(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "?"


def family(pid: int) -> set[int]:
    """A process with its children, and theirs."""
    parents: dict[int, int] = {}
    for process in PROC.iterdir():
        if process.name.isdigit():
            try:
                parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
    found, grew = {pid}, True
    while grew:
        more = {child for child, parent in parents.items() if parent in found} - found
        grew = bool(more)
        found |= more
    return found
