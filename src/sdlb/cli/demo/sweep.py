"""Leaves nothing running: ends every process that carries a launcher's mark, and only those, each by its own id.

The mark is the environment variable `SDLB_LAUNCHED_IN`, set to the launcher's private folder; whatever the launched
processes start themselves inherits it. Programs of roles get no such variable: they and their supervisors name the folder of their
slot, which is inside. Run as a program, this is the guard of a launcher that may be killed at
any moment: it waits for the end of its standard input, which the launcher holds open, then sweeps and removes the folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

MARK = "SDLB_LAUNCHED_IN"
SLOT = "SDLB_SLOT_FOLDER"
SUPERVISOR = b"/supervisor/__main__.py"


def marked(folder: Path) -> list[int]:
    """Ids of the running processes that were started under `folder`, this one excepted."""
    wanted, slot = f"{MARK}={folder}".encode(), f"{SLOT}={folder}/".encode()
    found: list[int] = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = Path(entry.path, "environ").read_bytes().split(b"\0")
            words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile, or another user's
        supervisor = any(word.endswith(SUPERVISOR) for word in words) and any(map(_below(folder), words))
        if supervisor or any(each == wanted or each.startswith(slot) for each in variables):
            found.append(int(entry.name))
    return found


def _below(folder: Path) -> Callable[[bytes], bool]:
    return lambda word: word.startswith(f"{folder}/".encode())


def sweep(folder: Path, spare: frozenset[int] = frozenset()) -> list[int]:
    """Kills what is left, again until nothing new shows up; returns the ids that had to be killed."""
    killed: list[int] = []
    for _ in range(50):
        rest = [pid for pid in marked(folder) if pid not in spare]
        if not rest:
            break
        for pid in rest:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            if pid not in killed:
                killed.append(pid)
        time.sleep(0.02)
    return killed


def main(folder: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
