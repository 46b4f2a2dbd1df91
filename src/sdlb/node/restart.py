"""Restarts control with the installed program: same process id, same command, new interpreter.

The engine keeps serving meanwhile, as after a crash. First the new program checks that it can run and that the node
file is valid (`sdlb node ... --check`), so that a program that cannot start does not replace the running one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from sdlb.node.problems import Refusal
from sdlb.node.reaper import Reaper

CHECK_WITHIN_S = 60.0
WORDS_MAX = 2000


def command() -> list[str]:
    """The command that started this process. The interpreter is a path, which may lead to a new version by now."""
    return [sys.executable, *sys.orig_argv[1:]]


class Restart:
    def __init__(self, reaper: Reaper, words: Sequence[str] | None = None) -> None:
        self._reaper = reaper
        self._words = list(words or command())
        self.requested = asyncio.Event()

    async def request(self) -> None:
        """Returns when the new program passed its check and the restart is imminent. Raises Refusal: nothing changes."""
        with self._reaper.except_for(self._check()) as process:
            try:
                _, stderr = await asyncio.to_thread(process.communicate, timeout=CHECK_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.communicate)
                stderr = f"it did not answer within {CHECK_WITHIN_S:g} s".encode()
        if process.returncode:
            why = stderr.decode("utf-8", "replace").strip()[-WORDS_MAX:] or f"it exited with code {process.returncode}"
            raise Refusal("control-not-restarted", f"the new program cannot start: {why}")
        self.requested.set()

    def _check(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [*self._words, "--check"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise Refusal("control-not-restarted", f"{self._words[0]}: {error.strerror}") from None


def replace(kept: Sequence[int]) -> None:
    """Does not return. Signals that arrive meanwhile, and the kept ones, stay pending for the new program. Raises
    OSError."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    sys.stderr.flush()
    words = command()
    for number in set(kept):  # to this thread, which blocks the signal: another thread would handle it
        signal.pthread_kill(threading.get_ident(), number)
    os.execv(words[0], words)
