"""Opens files that configuration names. A FIFO or a device would block the thread that reads it, perhaps for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

EXPOSED = 0o027
"""Permissions that a file with a key must not have: any for others, write for the group. That a group may read it is common
practice (Debian's ssl-cert)."""


class NotRegular(OSError):
    """The path leads to a folder, FIFO, socket or device."""


def open_regular(path: str | Path) -> BinaryIO:
    """For reading, without a buffer. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotRegular(errno.EINVAL, "Not a regular file", str(path))
    return open(file, "rb", buffering=0)


def read_regular(path: str | Path, bytes_max: int) -> bytes:
    """At most one byte more than `bytes_max`, so that a longer file can be told. Raises OSError."""
    with open_regular(path) as file:
        return read_most(file, bytes_max)


def read_most(file: BinaryIO, bytes_max: int) -> bytes:
    """As `read_regular`, of an open file."""
    found = b""
    while len(found) <= bytes_max and (more := file.read(bytes_max + 1 - len(found))):
        found += more
    return found
