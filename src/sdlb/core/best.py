"""The best ready capacity of a service in the last minutes: the baseline of a rollout."""

from __future__ import annotations

BEST_S = 600.0
BUCKETS = 10


class Best:
    """The greatest of recent values, in buckets of a minute."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._last = 0

    def add(self, value: int, now: float) -> None:
        """From now on the value is this one."""
        self._forget(now)
        self._buckets[_bucket(now)] = max(value, self._last, self._buckets.get(_bucket(now), 0))
        self._last = value

    def value(self, now: float) -> int:
        self._forget(now)
        return max(self._last, *self._buckets.values()) if self._buckets else self._last

    def _forget(self, now: float) -> None:
        self._buckets = {at: best for at, best in self._buckets.items() if at > _bucket(now) - BUCKETS}


def _bucket(now: float) -> int:
    return int(now / (BEST_S / BUCKETS))
