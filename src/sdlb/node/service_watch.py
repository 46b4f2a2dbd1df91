"""Reports when a service has lost its last ready instance, and when it has one again. Only roots see all instances.

Only a lasting loss counts: in a rollout, or while an instance restarts, a service has none for a moment and requests
are parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from sdlb.core.effects import Note
from sdlb.core.view import View

LOST_AFTER_S = 3.0


class ServiceWatch:
    def __init__(self, view: View, report: Callable[[Note], None]) -> None:
        self._view = view
        self._report = report
        self._up: set[str] = set()
        self._down: dict[str, asyncio.TimerHandle] = {}  # not yet reported
        self._lost: set[str] = set()  # reported

    def look(self, names: Iterable[str]) -> None:
        """Checks these services, which may have changed."""
        if self._view.settings.is_root:
            for name in names:
                self._look(name)

    def _look(self, name: str) -> None:
        state = self._view.serving(name)
        if state == "up":
            self._up.add(name)
            self._calm(name)
            if name in self._lost:
                self._lost.discard(name)
                self._note("service-back", f"{name} has a ready instance again", "info", name)
        elif state == "down" and name in self._up and name not in self._down:
            self._down[name] = asyncio.get_running_loop().call_later(LOST_AFTER_S, self._still_down, name)
        elif state == "gone" and (name in self._up or name in self._lost):
            self._up.discard(name)
            self._lost.discard(name)
            self._calm(name)
            text = f"the last version of {name} is gone: no claim is left"
            self._note("service-gone", text, "warning", name)

    def _calm(self, name: str) -> None:
        if (timer := self._down.pop(name, None)) is not None:
            timer.cancel()

    def _still_down(self, name: str) -> None:
        del self._down[name]
        if self._view.serving(name) == "down":
            self._up.discard(name)
            self._lost.add(name)
            self._note("service-lost", f"{name} has no ready instance any more", "error", name)

    def _note(self, code: str, text: str, level: str, service: str) -> None:
        self._report(Note(code, text, level, {"service": service}))
