"""Reaps child processes that no other code waits for: orphans that the kernel gives to process 1 of a container, and an
engine that was started before control was restarted.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager

AGAIN_S = 0.2


def reap(is_ours: Callable[[int], bool]) -> bool:
    """Reaps all exited children but those that other code waits for. False: the next one is waited for by other code."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        if ended is None:
            return True
        if is_ours(ended.si_pid):
            return False
        os.waitpid(ended.si_pid, os.WNOHANG)


class Reaper:
    """`is_ours`: whether the caller waits for that child itself."""

    def __init__(self, is_ours: Callable[[int], bool]) -> None:
        self._is_ours = is_ours
        self._others: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGCHLD, self._look)
        self._look()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            self._loop = None

    @contextmanager
    def except_for(self, process: subprocess.Popen[bytes]) -> Generator[subprocess.Popen[bytes]]:
        """While in this context, the caller waits for the child itself."""
        self._others.add(process.pid)
        try:
            yield process
        finally:
            self._others.discard(process.pid)

    def _look(self) -> None:
        if self._loop is not None and not reap(lambda pid: pid in self._others or self._is_ours(pid)):
            self._loop.call_later(AGAIN_S, self._look)
