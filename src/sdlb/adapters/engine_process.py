"""Finds, starts, watches and ends the engine's processes.

Each has a session of its own and outlives control.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from sdlb.seams.engine import EngineFailed

BINARY = "sdlb-engine"
POLL_S = 0.02

# Our own children: only this process can reap them, even when the object that started them is gone.
_started: dict[int, subprocess.Popen[bytes]] = {}


def find_binary() -> str:
    """SDLB_ENGINE, else beside this Python, else on the PATH, else as built in a checkout. Raises EngineFailed."""
    configured = os.environ.get("SDLB_ENGINE")
    if configured:
        return configured
    beside = [Path(sys.executable).parent / BINARY, Path(sysconfig.get_path("scripts")) / BINARY]
    checkout = Path(__file__).parents[3] / "engine" / "target"
    built = [checkout / kind / BINARY for kind in ("release", "debug") if (checkout / kind / BINARY).exists()]
    for path in beside:
        if os.access(path, os.X_OK):
            return str(path)
    found = shutil.which(BINARY)
    if found is not None:
        return found
    if built:
        return str(max(built, key=lambda path: path.stat().st_mtime))
    raise EngineFailed(
        f"the program {BINARY} is not installed; install the package sdlb, or set SDLB_ENGINE to its path"
    )


def spawn(socket_path: Path, log_file: Path, workers: int, take_over: Path | None = None) -> int:
    """Starts an engine; returns its process id. `take_over`: the socket on which it receives the listening sockets of
    the running one. Raises EngineFailed."""
    binary = find_binary()
    words = [binary, "--socket", str(socket_path)]
    if workers:
        words += ["--workers", str(workers)]
    if take_over is not None:
        words += ["--take-over", str(take_over)]
    return launch(words, log_file, Path("/"))


def launch(words: list[str], log_file: Path, folder: Path) -> int:
    """Starts a program in a session of its own, with `folder` as its working directory; returns its process id. Raises
    EngineFailed."""
    for pid in [pid for pid, process in _started.items() if process.poll() is not None]:
        del _started[pid]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        log = os.open(log_file, flags, 0o600)
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder
            )
        finally:
            os.close(log)
    except OSError as error:
        raise EngineFailed(f"the engine {words[0]} cannot be started: {error.strerror}") from None
    _started[process.pid] = process
    return process.pid


async def output(words: list[str], folder: Path, within_s: float) -> tuple[int, str]:
    """Runs a program that exits by itself; returns its exit code and what it has printed. Raises EngineFailed."""
    process = _start(words, folder)
    try:
        printed, _ = await asyncio.to_thread(process.communicate, timeout=within_s)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        await asyncio.to_thread(process.communicate)
        raise EngineFailed(f"the program {words[0]} does not end within {within_s:g} s") from None
    except asyncio.CancelledError:
        _kill_group(process.pid)
        raise
    finally:
        if process.poll() is not None:
            _started.pop(process.pid, None)
    return process.returncode, printed.decode("utf-8", "replace")


def _start(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    try:
        process = subprocess.Popen(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise EngineFailed(f"the program {words[0]} cannot be started: {error.strerror}") from None
    _started[process.pid] = process  # before the loop runs again: the node's reaper must not take its exit code
    return process


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has started holds its output open


def reaps(pid: int) -> bool:
    """Whether the process is a child that this module reaps; reaps it if it has exited."""
    started = _started.get(pid)
    if started is None:
        return False
    started.poll()
    return True


def runs(pid: int, socket_path: Path) -> bool:
    """Whether the engine of this socket still runs with that process id."""
    started = _started.get(pid)
    if started is not None:
        return started.poll() is None
    # Started by an earlier control: compare the command line, because the process id may have been reused.
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(socket_path) in words  # a zombie has no command line


async def ended(pid: int, socket_path: Path, within_s: float) -> bool:
    for _ in range(1 + round(within_s / POLL_S)):
        if not runs(pid, socket_path):
            return True
        await asyncio.sleep(POLL_S)
    return not runs(pid, socket_path)


async def kill(pid: int, socket_path: Path) -> None:
    """Kills the process; returns when it is gone."""
    if runs(pid, socket_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await ended(pid, socket_path, 2.0)


def reopen_log(pid: int, socket_path: Path) -> None:
    if runs(pid, socket_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)


def start_ticks(pid: int) -> int:
    """The start time of the process in clock ticks since boot: a newer one has a greater value. 0: it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def exit_reason(pid: int, log_file: Path) -> str:
    """Why a process has exited: the last line of the log, else its exit code."""
    with contextlib.suppress(OSError, IndexError), log_file.open("rb") as file:
        file.seek(max(0, log_file.stat().st_size - 2000))
        return file.read().decode("utf-8", "replace").splitlines()[-1][:300]
    started = _started.get(pid)
    return f"exit code {started.poll() if started is not None else None}"
