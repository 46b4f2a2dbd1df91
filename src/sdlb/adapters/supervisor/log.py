"""The log of a program: two files that together stay under a bound."""

from __future__ import annotations

import os

READ_BYTES = 1 << 16


class Log:
    """A write never fails: what does not fit on the disk is dropped and counted."""

    def __init__(self, folder: str, bytes_max: int) -> None:
        self._path = f"{folder}/log"
        self._half = bytes_max // 2
        self._file = -1
        self._size = 0
        self.dropped = 0

    @property
    def chunk(self) -> int:
        """At most so many bytes are to be written at once."""
        return min(READ_BYTES, self._half)

    def write(self, data: bytes) -> None:
        try:
            if self._file < 0:
                self._open()
            if self._size + len(data) > self._half:
                os.replace(self._path, f"{self._path}.1")
                self.close()
                self._open()
            while data:
                count = os.write(self._file, data)
                self._size += count
                data = data[count:]
        except OSError:
            self.dropped += len(data)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._file).st_size
