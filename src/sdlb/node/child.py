"""Child processes that end with this process."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: int = signal.SIGTERM) -> Callable[[], None]:
    """Runs in the child before exec: when this process is killed, even with -9, the program gets that signal (prctl(2))."""
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def set_parent_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # the parent died in between
            os._exit(1)

    return set_parent_death_signal
