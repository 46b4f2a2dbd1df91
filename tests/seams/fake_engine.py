"""An engine that routes nothing and confirms everything in the next turn; nothing is ever in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sdlb.core.effects import Apply
from sdlb.core.events import EngineApplied, EngineAttached, EngineDrained, Event
from sdlb.seams.engine import EngineConfig, Figures


class FakeEngine:
    def __init__(self, post: Callable[[Event], None]) -> None:
        self.figures = Figures()
        self.applied: list[Apply] = []
        self.configs: list[EngineConfig] = []
        self._post = post

    async def start(self, config: EngineConfig) -> None:
        self.configs.append(config)
        self.figures.attached = True
        self._post(EngineAttached("boot-1", 0, 0))

    async def configure(self, config: EngineConfig) -> str:
        self.configs.append(config)
        return ""

    def apply(self, delta: Apply) -> None:
        self.applied.append(delta)
        asyncio.get_running_loop().call_soon(self._confirm, delta)

    def _confirm(self, delta: Apply) -> None:
        self._post(EngineApplied(delta.epoch))
        for key in delta.delete_members:
            self._post(EngineDrained(key, delta.epoch))

    async def shut_down(self, deadline_s: float) -> None:
        self.figures.attached = False

    async def detach(self) -> None:
        self.figures.attached = False
