"""Passes what the versions of a service answered at this root to the core, while it keeps the record of a rollout.

The engine's totals only grow, also over restarts of control, so the core gets the totals and takes the difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sdlb.core.events import AnswersCounted, Event
from sdlb.seams.engine import EngineStats

COUNT_S: Final = 2.0


class AnswerCounter:
    def __init__(
        self, recorded: Callable[[], list[str]], stats: Callable[[], EngineStats], post: Callable[[Event], None]
    ) -> None:
        self._recorded = recorded
        self._stats = stats
        self._post = post
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """After each iteration of the loop: there may be something to count from now on."""
        if self._timer is None and self._recorded():
            self._wake()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(COUNT_S, self._wake) if self._count() else None

    def _count(self) -> bool:
        """Returns whether there is still something to count."""
        services, stats = self._recorded(), self._stats()
        for service in services if stats.counters else ():  # a control that has just started has no statistics yet
            mine = {version: total for (name, version), total in stats.groups.items() if name == service}
            totals = {version: max(0, sum(each.status) - each.failed) for version, each in sorted(mine.items())}
            self._post(AnswersCounted(service, totals))
        return bool(services)
