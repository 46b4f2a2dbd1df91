"""A node's disk. Durable writes survive a power loss; of the other writes, the newest may be lost.

A killed process loses nothing, because the operating system has its writes. A full disk refuses writes.
"""

from __future__ import annotations

from random import Random


class DiskFull(Exception):
    """The disk is full: nothing was written."""


class Disk:
    def __init__(self) -> None:
        self.full = False
        self._safe: dict[str, object] = {}
        self._waiting: list[dict[str, object]] = []

    def write(self, puts: dict[str, object], durable: bool) -> None:
        """Writes. A durable write makes all earlier writes durable too, as in a log."""
        if self.full:
            raise DiskFull
        self._waiting.append(puts)
        if durable:
            self.flush(len(self._waiting))

    def flush(self, count: int) -> None:
        for puts in self._waiting[:count]:
            for key, value in puts.items():
                if value is None:
                    self._safe.pop(key, None)
                else:
                    self._safe[key] = value
        del self._waiting[:count]

    def power_cut(self, rng: Random) -> None:
        self.flush(rng.randint(0, len(self._waiting)))
        self._waiting.clear()

    def read(self) -> dict[str, object]:
        self.flush(len(self._waiting))
        return dict(self._safe)

    def get(self, key: str) -> object:
        return self._safe.get(key)

    # ------------------------------------------------------------------ worse

    def lose(self) -> None:
        self._safe, self._waiting = {}, []

    def set_back(self, to: dict[str, object]) -> None:
        """Restores a snapshot: an earlier `read` of this or another disk."""
        self._safe, self._waiting = dict(to), []
