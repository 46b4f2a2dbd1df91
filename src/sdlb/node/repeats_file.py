"""Idempotency keys on disk: one JSON object a line, appended; the last line of a key counts.

A line that was torn by a crash is left out. The file is written anew when control starts, and when it has grown to some times of what is
kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sdlb.adapters.private_file import write_private

LINES_MAX: Final = 4000
FILE_BYTES_MAX: Final = 32 * 1024 * 1024


class Entry(msgspec.Struct, frozen=True):
    """`request`: its digest. `since`: Unix time. `status` 0: it is in progress. `gone`: the key is free again."""

    uid: int
    key: str
    request: bytes
    since: float
    answer: bytes = b""
    status: int = 0
    media_type: str = ""
    gone: bool = False


class RepeatsFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._lock = asyncio.Lock()

    def load(self) -> list[Entry]:
        """The oldest first. What cannot be read is left out: its keys are as new."""
        found: dict[tuple[int, str], Entry] = {}
        with contextlib.suppress(OSError):
            for line in self._path.read_bytes().splitlines():
                with contextlib.suppress(msgspec.MsgspecError):
                    entry = msgspec.json.decode(line, type=Entry)
                    if found.pop((entry.uid, entry.key), None) is None or not entry.gone:
                        found[entry.uid, entry.key] = entry
        entries = sorted((each for each in found.values() if not each.gone), key=lambda each: each.since)
        if self._path.exists():
            with contextlib.suppress(OSError):
                self._rewrite(entries)
        return entries

    async def append(self, entry: Entry, kept: Callable[[], list[Entry]]) -> bool:
        """Durable when it returns. False: it could not be written. `kept`: all entries, `entry` among them unless it is gone."""
        async with self._lock:
            try:
                full = self._lines >= LINES_MAX or (self._lines and self._path.stat().st_size >= FILE_BYTES_MAX)
                await asyncio.to_thread(self._rewrite, kept()) if full else await asyncio.to_thread(self._append, entry)
            except OSError:
                return False
            return True

    def _append(self, entry: Entry) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self._path, flags, 0o600), "ab", buffering=0) as file:
            file.write(b"\n" + msgspec.json.encode(entry))  # first the end of a line that could not be written whole
            os.fsync(file.fileno())
        self._lines += 1

    def _rewrite(self, entries: list[Entry]) -> None:
        write_private(self._path, b"\n".join(msgspec.json.encode(each) for each in entries))
        self._lines = len(entries)
