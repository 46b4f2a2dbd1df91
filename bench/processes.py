"""The CPU time and memory of processes, from /proc, and how they are pinned to cores."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.report import CannotRun

Measurement = TypeVar("Measurement")


def tool(name: str, package: str) -> str:
    """The path of a program. Raises CannotRun."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise CannotRun(f"{name} is not installed; on Debian: apt-get install {package}")
    return found


def installed(name: str) -> str:
    """A program that `make bench` installs beside the package, only for the bench. Raises CannotRun."""
    path = Path(sys.prefix) / "bench" / name
    if not path.exists():
        raise CannotRun(f"{path.name} is not installed; `make bench` does that")
    return str(path)


def output(*words: str) -> str:
    """The first line of output of a command, from stdout or stderr."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.splitlines()[0] if done.stdout else ""


def cores() -> tuple[int, int]:
    """Two cores: one for the measured process, one for all others. Raises CannotRun."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise CannotRun("two cores are needed: one for the proxy, one for its client and backend")
    return allowed[0], allowed[1]


def start(words: Sequence[str], core: int | str | None = None, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Starts a command, if requested on one core or on a list of cores ("0,1"). Its output goes to `log`."""
    pin: Sequence[str] = () if core is None else ("taskset", "-c", str(core))
    sink = subprocess.DEVNULL if log is None else log.open("ab")
    try:
        return subprocess.Popen([*pin, *words], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    finally:
        if not isinstance(sink, int):
            sink.close()


def pin(pids: Sequence[int], core: int) -> None:
    """Pins all threads of running processes."""
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(task), {core})


def end(processes: Sequence[subprocess.Popen[Any]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(3.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listening(process: subprocess.Popen[bytes], address: str, log: Path, timeout_s: float = 10.0) -> None:
    """Waits until a process listens at host:port. Raises CannotRun with its last output if it exits."""
    host, _, port = address.rpartition(":")

    def answers() -> bool:
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise CannotRun(f"{process.args!r} exited with code {process.returncode}: {' '.join(last)}")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
            return True
        return False

    until(f"another process listens on {address}; stop it", answers, timeout_s)


def family(pid: int) -> list[int]:
    """The ids of a process and of all its descendants."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
            found += family(int(child))
    return found


def cpu_s(pids: Sequence[int]) -> float:
    """User and system time of all threads so far, to the nanosecond (proc(5), schedstat)."""
    total = 0
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def interleaved(
    names: Sequence[str], rounds: int, measure: Callable[[str, bool], Measurement]
) -> dict[str, list[Measurement]]:
    """Calls `measure(name, warm_up)` for each name in every round. The order rotates; an extra first round warms up."""
    took: dict[str, list[Measurement]] = {name: [] for name in names}
    for number in range(rounds + 1):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            value = measure(name, number == 0)
            if number:
                took[name].append(value)
    return took


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def until(what: str, done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end_at = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > end_at:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)
