"""The cgroup (version 2) of a slot: all processes of the program end with it, however they were forked; and limits, where the
controllers are delegated.
"""

from __future__ import annotations

import os

_PERIOD_US = 100_000


def base() -> str:
    """A folder in which this process may make cgroups, "" if there is none.

    It is the parent of our own cgroup if that is delegated to us (systemd: `Delegate=yes` and `DelegateSubgroup=`), or
    our own. Controllers can be enabled only in the former, because a cgroup with processes cannot have both.
    """
    own = _own()
    for folder in (os.path.dirname(own), own):
        if folder and os.access(folder, os.W_OK | os.X_OK) and (folder == own or _is_delegated(folder)):
            return folder
    return ""


def _own() -> str:
    mount = path = ""
    try:
        with open("/proc/self/mountinfo") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                if rest.startswith("cgroup2 "):
                    mount = fields.split()[4]
        with open("/proc/self/cgroup") as file:
            for line in file:
                if line.startswith("0::"):
                    path = line[3:].rstrip("\n")
    except OSError:
        return ""
    own = (mount + path).rstrip("/")
    return own if mount and os.path.isdir(own) else ""


def _is_delegated(folder: str) -> bool:
    for name in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except OSError:
            continue
    return False


class Cgroup:
    """`memory`, `cpu`: whether the limit is enforced."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.memory = self.cpu = False

    @classmethod
    def make(cls, folder: str, memory_mb: int, cpu: float) -> Cgroup | None:
        """None: it cannot be made here."""
        found = cls(folder)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError:
            return None
        wanted = [name for name, limit in (("memory", memory_mb), ("cpu", cpu)) if limit]
        for name in wanted:
            _write(f"{os.path.dirname(folder)}/cgroup.subtree_control", f"+{name}")
        if memory_mb:
            found.memory = _write(f"{folder}/memory.max", str(memory_mb << 20))
            _write(f"{folder}/memory.swap.max", "0")
            _write(f"{folder}/memory.oom.group", "1")
        if cpu:
            found.cpu = _write(f"{folder}/cpu.max", f"{max(1000, round(cpu * _PERIOD_US))} {_PERIOD_US}")
        return found

    def enter(self) -> None:
        """This process. Raises OSError."""
        with open(f"{self._folder}/cgroup.procs", "w") as file:
            file.write("0")

    def pids(self) -> set[int]:
        found: set[int] = set()
        for folder, _, _ in os.walk(self._folder):  # the program may have made more cgroups below
            try:
                with open(f"{folder}/cgroup.procs") as file:
                    found.update(int(line) for line in file)
            except OSError:
                continue
        return found

    def kill(self) -> None:
        """Every process at once, so that none can fork away. A kernel before 5.14 cannot."""
        _write(f"{self._folder}/cgroup.kill", "1")

    def oom_kills(self) -> int:
        """How often the memory limit has ended processes."""
        try:
            with open(f"{self._folder}/memory.events") as file:
                return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        except (OSError, ValueError, IndexError):
            return 0

    def remove(self) -> None:
        for folder, _, _ in os.walk(self._folder, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue


def _write(path: str, text: str) -> bool:
    try:
        with open(path, "r+") as file:
            file.write(text)
    except OSError:
        return False
    return True
