"""A node's signals, from the first moment of its process to the last.

Signals that arrive during the start are kept, since the default action would end control and leave the engine
listening. A second stop signal aborts the start. Signals after the end of the node are ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Call `hold()` first, `starting(give_up)` when the loop runs, `to(take)` when the node is up, then `end()`."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._give_up: Callable[[], object] = lambda: None
        self._take: Callable[[int], None] = self._keep

    def hold(self) -> None:
        """Keeps signals. `loop.add_signal_handler` is not used: a closed loop restores the default actions."""
        for number in (*ENDING, signal.SIGHUP):
            signal.signal(number, self._came)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ENDING, signal.SIGHUP))  # blocked by a control that has restarted

    def end(self) -> None:
        """The node has ended. Python puts default actions back when it ends itself, but leaves ignored signals
        ignored."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # lets Ctrl-C end a process that still hangs

    def starting(self, give_up: Callable[[], object]) -> None:
        self._loop, self._give_up = asyncio.get_running_loop(), give_up

    def to(self, take: Callable[[int], None]) -> None:
        """From now on `take` gets all signals, the kept ones first."""
        self._loop, self._take = asyncio.get_running_loop(), take
        for number in self._kept:
            self._loop.call_soon(take, number)
        self._kept.clear()

    def keep(self, number: int = 0) -> list[int]:
        """From now on keeps all signals, and `number` too, for the next control. Returns the kept ones."""
        self._loop = None
        if number:
            self._kept.append(number)
        return self._kept

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self._loop is None:
            self._kept.append(number)
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: the node has ended
            self._loop.call_soon_threadsafe(lambda: self._take(number))

    def _keep(self, number: int) -> None:
        self._kept.append(number)
        if sum(each in ENDING for each in self._kept) > 1:
            self._give_up()
