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
    return open(_open(path)[0], "rb", buffering=0)


def read_regular(path: str | Path, bytes_max: int) -> bytes:
    """At most one byte more than `bytes_max`, so that a longer file can be told. Raises OSError."""
    return read_with_status(path, bytes_max)[0]


def read_with_status(path: str | Path, bytes_max: int) -> tuple[bytes, os.stat_result]:
    """As `read_regular`, with the status of the file from before it was read. Raises OSError."""
    file, status = _open(path)
    try:
        found = os.read(file, min(status.st_size, bytes_max) + 1)
        while len(found) <= bytes_max and (more := os.read(file, bytes_max + 1 - len(found))):
            found += more
        return found, status
    finally:
        os.close(file)


def _open(path: str | Path) -> tuple[int, os.stat_result]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise NotRegular(errno.EINVAL, "Not a regular file", str(path))
    return file, status
