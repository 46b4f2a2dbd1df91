"""Runs the program of a hook gate: argument list, no shell, own process group.

What must hold even when control is killed or restarted while the program runs:

- **The program goes on.** Half a migration is worse than a late one. Its output goes to a FIFO that it holds open in both
  directions, so that it never gets SIGPIPE. When control is away for long, the program stops at about 1 MiB of unread output,
  until control is asked for the same key again.
- **It does not run twice at a time.** The program inherits a lock on a file named after the key. While any of its processes
  holds it, another attempt with this key reports "later".

An attempt that runs past its time is ended with its process group: SIGTERM, and SIGKILL after `KILL_AFTER_S`. Control never
ends a program for another reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sdlb.model.hook_program import HookProgram

YES, NO, LATER, FAILED = "yes", "no", "later", "failed"
EX_TEMPFAIL = 75
"""The exit code for "not yet", as in sysexits.h."""
KILL_AFTER_S = 5.0
JOIN_S = 10.0
"""How long an attempt waits for a program that an earlier control has started for the same key."""
POLL_S = 0.05
LINES_MAX = 20
CHARS_MAX = 1000
"""Of the output that is kept; `LINES_MAX` lines at most. Every node holds it."""
READ_BYTES = 1 << 20
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = ("HOME", "LANG", "TZ", "USER", "LOGNAME")
"""What the program gets of control's own environment."""


def environment(program: HookProgram, own: Mapping[str, str], about: Mapping[str, str]) -> dict[str, str]:
    """`own`: control's environment. `about`: the variables that tell the program what it is run for."""
    kept = {name: own[name] for name in KEPT if name in own}
    return {"PATH": PATH, **kept, **dict(program.env), **about}


class Programs:
    """`folder`: for locks and FIFOs; it is made when it is needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: set[int] = set()
        self._busy: set[Path] = set()  # the locks of the attempts of this control

    def reaps(self, pid: int) -> bool:
        """Whether this object waits for that child itself."""
        return pid in self._running

    async def run(self, program: HookProgram, key: str, timeout_s: float, env: Mapping[str, str]) -> tuple[str, str]:
        """-> (outcome, detail). `timeout_s` 0: no limit. Raises OSError when it cannot be started."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        lock, fifo = self._folder / f"{name}.lock", self._folder / f"{name}.out"
        self._busy.add(lock)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(fifo, 0o600)
            with _Output(fifo) as output:
                return await self._run(program, lock, fifo, output, timeout_s, env)
        finally:
            self._busy.discard(lock)
            self._tidy()

    async def _run(
        self,
        program: HookProgram,
        lock: Path,
        fifo: Path,
        output: _Output,
        timeout_s: float,
        env: Mapping[str, str],
    ) -> tuple[str, str]:
        pid = await self._start_alone(program, env, lock, fifo, output)
        if not pid:
            return LATER, f"process {_pid(lock)} still runs for the same key; control was restarted since it began"
        self._running.add(pid)
        try:
            outcome, what = await self._finish(pid, lock, output, timeout_s)
        finally:
            self._running.discard(pid)
        shown = output.text()
        return outcome, f"{what}: {shown}" if shown else what

    async def _start_alone(
        self, program: HookProgram, env: Mapping[str, str], lock: Path, fifo: Path, output: _Output
    ) -> int:
        """The process id. 0: the program still runs, because an earlier control has started it for the same key."""
        for _ in range(round(JOIN_S / POLL_S)):
            with _locked(lock) as held:
                if held is not None:
                    pid = _start(program, env, held, fifo)
                    with contextlib.suppress(OSError):  # a full disk: the lock itself needs no space
                        os.ftruncate(held, 0)
                        os.pwrite(held, f"{pid}\n".encode(), 0)
                    return pid
            output.read()
            await asyncio.sleep(POLL_S)
        return 0

    async def _finish(self, pid: int, lock: Path, output: _Output, timeout_s: float) -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s if timeout_s else None
        while (status := exit_of(pid)) is None:
            output.read()
            if end is not None and loop.time() >= end:
                return FAILED, await self._kill(pid, lock, output, timeout_s)
            await asyncio.sleep(POLL_S)
        reap(pid)
        output.read()
        return _outcome(*status)

    async def _kill(self, pid: int, lock: Path, output: _Output, timeout_s: float) -> str:
        """The exited leader is not reaped before the last signal: so the number of the group stays its own."""
        signal_group(pid, signal.SIGTERM)
        loop = asyncio.get_running_loop()
        end = loop.time() + KILL_AFTER_S
        while loop.time() < end and (exit_of(pid) is None or _is_held(lock)):
            output.read()
            await asyncio.sleep(POLL_S)
        hard = exit_of(pid) is None or _is_held(lock)
        signal_group(pid, signal.SIGKILL)
        for _ in range(round(1 / POLL_S)):  # a process in an uninterruptible read may live on
            if exit_of(pid) is not None and not _is_held(lock):
                break
            await asyncio.sleep(POLL_S)
        reap(pid)
        output.read()
        return f"the program ran for more than {timeout_s:g} s and was {'killed' if hard else 'stopped'}"

    def _tidy(self) -> None:
        """Removes the files of all keys for which nothing runs; a background process may still hold a lock."""
        for lock in self._folder.glob("*.lock"):
            with contextlib.suppress(OSError):
                if lock not in self._busy and not _is_held(lock):
                    lock.with_suffix(".out").unlink(missing_ok=True)
                    lock.unlink()


def _start(program: HookProgram, env: Mapping[str, str], lock: int, fifo: Path) -> int:
    out = os.open(fifo, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=program.cwd,
            env=dict(env),
            start_new_session=True,
            pass_fds=(lock,),
        )
    finally:
        os.close(out)
    # `Popen` reports the exit code 0 for a child that other code has reaped; that must never mean "yes".
    process.returncode = 0
    return process.pid


def exit_of(pid: int) -> tuple[int, int] | None:
    """(si_code, si_status) of a child that has exited, without reaping it; None: it runs."""
    try:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0, 0
    return None if found is None else (found.si_code, found.si_status)


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _pid(lock: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return str(int(lock.read_bytes()))
    return "of an earlier control"


def _outcome(code: int, status: int) -> tuple[str, str]:
    if code == os.CLD_EXITED:
        outcome = {0: YES, EX_TEMPFAIL: LATER}.get(status, NO)
        return outcome, f"the program exited with code {status}"
    if code in (os.CLD_KILLED, os.CLD_DUMPED):
        return FAILED, f"the program was killed by signal {status}"
    return FAILED, "the exit code of the program is not known"


def signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


@contextmanager
def _locked(lock: Path) -> Generator[int | None]:
    """The open lock; None: another process has it. It is released when the last process that inherited it has closed it."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file
    finally:
        os.close(file)


def _is_held(lock: Path) -> bool:
    with _locked(lock) as file:
        return file is None


class _Output:
    """Reads what the program writes and keeps its end."""

    def __init__(self, fifo: Path) -> None:
        self._file = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._tail = b""
        with contextlib.suppress(OSError):  # a user may have too many large pipes
            fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, READ_BYTES)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self) -> None:
        try:
            self._tail = (self._tail + os.read(self._file, READ_BYTES))[-8 * CHARS_MAX :]
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise

    def text(self) -> str:
        lines = self._tail.decode("utf-8", "replace").splitlines()[-LINES_MAX:]
        return last_chars(" | ".join(filter(None, map(printable, lines))), CHARS_MAX)


def printable(text: str) -> str:
    """Without control characters, which could change what a terminal shows."""
    return "".join(character if character.isprintable() else " " for character in text).strip()


def last_chars(text: str, most: int) -> str:
    text = text.strip()
    return text if len(text) <= most else f"...{text[-most:]}"
