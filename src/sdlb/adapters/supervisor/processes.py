"""Which processes belong to a slot, and signals to them and to no others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MARK = "SDLB_SLOT_FOLDER"
"""The variable by which a supervisor finds the processes of an earlier one."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Stat(NamedTuple):
    """`start`: in ticks since the boot; together with the process id it names a process for ever."""

    parent: int
    start: int
    zombie: bool


def stat(pid: int) -> Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return Stat(int(fields[1]), int(fields[19]), fields[0] in (b"Z", b"X"))
    except (OSError, IndexError, ValueError):
        return None


def lives(pid: int, start: int) -> bool:
    found = stat(pid) if pid > 0 else None
    return found is not None and found.start == start and not found.zombie


def table() -> dict[int, Stat]:
    found: dict[int, Stat] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (each := stat(int(name))) is not None:
            found[int(name)] = each
    return found


def below(processes: Mapping[int, Stat], roots: Iterable[int]) -> set[int]:
    """The descendants of the roots, without them."""
    children: dict[int, list[int]] = {}
    for pid, each in processes.items():
        children.setdefault(each.parent, []).append(pid)
    found: set[int] = set()
    left = list(roots)
    while left:
        for pid in children.get(left.pop(), ()):
            if pid not in found:
                found.add(pid)
                left.append(pid)
    return found


def marked(processes: Mapping[int, Stat], folder: str) -> set[int]:
    """Those that have the mark of the slot in the environment that they were started with."""
    wanted = f"\0{MARK}={folder}\0".encode()
    found: set[int] = set()
    for pid in processes:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted in b"\0" + file.read():
                    found.add(pid)
        except OSError:  # of another user, or gone
            continue
    return found


def send(pid: int, start: int, number: signal.Signals) -> None:
    """The process id may be another's by now: the start time is compared after the process was pinned."""
    try:
        file = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if lives(pid, start):
            signal.pidfd_send_signal(file, number)
    except OSError:
        pass
    finally:
        os.close(file)


def memory_bytes(pids: Iterable[int], above: int) -> int:
    """Resident memory of the processes. Pages that they share count once if the sum would be `above`."""
    pids = list(pids)
    total = sum(_resident(pid) for pid in pids)
    return total if total <= above else sum(_proportional(pid) for pid in pids)


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return _resident(pid)
