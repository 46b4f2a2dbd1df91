"""Virtual time: actions run in the order of their times. Of two that are due at the same time, the one planned first runs first."""

from __future__ import annotations

import heapq
from collections.abc import Callable


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._due, (max(when, self.now), self._count, action))

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        self.at(self.now + delay_s, action)

    def run(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, action = heapq.heappop(self._due)
            self.steps += 1
            action()
        self.now = until
