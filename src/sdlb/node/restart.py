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
    """That started this process; the interpreter by its path, behind which another one may be by now."""
    return [sys.executable, *sys.orig_argv[1:]]


class Restart:
    def __init__(self, reaper: Reaper, words: Sequence[str] | None = None) -> None:
        self._reaper = reaper
        self._words = list(words or command())
        self.asked = asyncio.Event()

    async def ask(self) -> None:
        """Returns when it is certain, and about to happen. Raises Refusal: it stays as it was."""
        with self._reaper.except_for(self._check()) as process:
            try:
                _, said = await asyncio.to_thread(process.communicate, timeout=CHECK_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                await asyncio.to_thread(process.communicate)
                said = f"it did not answer within {CHECK_WITHIN_S:g} s".encode()
        if process.returncode:
            why = said.decode("utf-8", "replace").strip()[-WORDS_MAX:] or f"it exited with code {process.returncode}"
            raise Refusal("control-not-restarted", f"the new program cannot start: {why}")
        self.asked.set()

    def _check(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [*self._words, "--check"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise Refusal("control-not-restarted", f"{self._words[0]}: {error.strerror}") from None


def replace(kept: Sequence[int]) -> None:
    """Does not return. Signals that come meanwhile, and those that were kept, wait for the new program. Raises
    OSError."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    sys.stderr.flush()
    words = command()
    for number in set(kept):  # to this thread, which blocks it: another one would take it
        signal.pthread_kill(threading.get_ident(), number)
    os.execv(words[0], words)
