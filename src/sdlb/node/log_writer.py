"""Writes log lines from a thread of its own, with a bounded queue.

A pipe that is not read blocks its writer. Only this thread writes, so nothing else blocks: past `LINES_MAX` lines,
lines are dropped and counted, and the count is logged as soon as the pipe is read again. It writes to the file
descriptor, because the buffer of `sys.stderr` has a lock that a blocked thread would hold forever.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

LINES_MAX = 1000
CLOSE_S = 1.0
RETRY_S = 0.05


class LogWriter(io.TextIOBase):
    """The part of a text stream that a log needs. `lost(n)` makes the line that reports n dropped lines."""

    def __init__(self, file: int, lost: Callable[[int], str], lines_max: int = LINES_MAX) -> None:
        self.dropped = 0
        self._file = file
        self._lost = lost
        self._lines_max = lines_max
        self._lines: deque[str] = deque()
        self._reported = 0  # the part of `dropped` that was reported
        self._more = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="sdlb-log", daemon=True)
        self._thread.start()

    def isatty(self) -> bool:
        return os.isatty(self._file)

    def write(self, text: str) -> int:
        """Queues the text; never blocks."""
        with self._more:
            if len(self._lines) >= self._lines_max or self._ending:
                self.dropped += 1
            else:
                self._lines.append(text)
                self._more.notify()
        return len(text)

    def flush(self) -> None:
        """Does nothing: the thread writes as soon as it can."""

    def end(self) -> None:
        """Writes the queued lines, unless that takes longer than `CLOSE_S`."""
        with self._more:
            self._ending = True
            self._more.notify()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._more:
                while not self._lines and not self._ending and self._reported == self.dropped:
                    self._more.wait()
                if not self._lines and self._reported == self.dropped:
                    return
                if self._lines:
                    text = self._lines.popleft()
                else:
                    text = self._lost(self.dropped - self._reported)
                    self._reported = self.dropped
            self._put(text.encode("utf-8", "backslashreplace"))

    def _put(self, rest: bytes) -> None:
        while rest:
            try:
                rest = rest[os.write(self._file, rest) :]
            except BlockingIOError:
                time.sleep(RETRY_S)
            except OSError:
                return  # stderr is closed; the node keeps running


def of_stderr(lost: Callable[[int], str]) -> LogWriter | None:
    """A writer for stderr; None if there is no stderr or it is not a file."""
    try:
        return LogWriter(sys.stderr.fileno(), lost)
    except (AttributeError, OSError, ValueError):
        return None
