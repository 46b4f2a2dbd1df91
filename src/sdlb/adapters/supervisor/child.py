"""Starts a program: own session, cgroup, user, output to the FIFO; never through a shell."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import NamedTuple

from sdlb.adapters.supervisor.cgroup import Cgroup
from sdlb.adapters.supervisor.files import Want

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_libc = ctypes.CDLL(None)


def become_subreaper() -> None:
    """Whatever the program forks away becomes our child, not that of process 1."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Started(NamedTuple):
    """A process that waits for `go`. If this process is killed before, it exits without running the program."""

    pid: int
    release: int
    errors: int

    def go(self) -> str:
        """Returns once the program runs, or why it does not."""
        os.write(self.release, b"g")
        os.close(self.release)
        with os.fdopen(self.errors, "rb") as errors:
            return errors.read().decode("utf-8", "replace")


def start(want: Want, out: str, cgroup: Cgroup | None) -> Started:
    """Raises OSError when there can be no further process."""
    waiting, release = os.pipe2(os.O_CLOEXEC)
    errors, failed = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        for each in (waiting, release, errors, failed):
            os.close(each)
        raise
    if not pid:
        os.close(release)
        _run(want, out, cgroup, waiting, failed)
    os.close(waiting)
    os.close(failed)
    return Started(pid, release, errors)


def _run(want: Want, out: str, cgroup: Cgroup | None, waiting: int, failed: int) -> None:
    """In the child. Does not return."""
    what = "it cannot be started"
    try:
        os.setsid()
        if os.read(waiting, 1) != b"g":
            os._exit(1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if cgroup is not None:
            what = "its cgroup cannot be entered"
            cgroup.enter()
        what = "its output cannot be opened"
        _streams(out, want.uid, want.gid)
        os.umask(0o022)
        if want.uid >= 0:
            what = f"user {want.uid} cannot be taken"
            os.setgroups(want.groups)
            os.setresgid(want.gid, want.gid, want.gid)
            os.setresuid(want.uid, want.uid, want.uid)
            _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        what = want.cwd
        os.chdir(want.cwd)
        what = want.command[0]
        os.execve(want.command[0], want.command, want.env)
    except OSError as error:
        os.write(failed, f"{what}: {error.strerror}".encode())
    except BaseException as error:
        os.write(failed, f"{what}: {error!r}"[:500].encode())
    finally:
        os._exit(127)


def _streams(out: str, uid: int, gid: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    file = os.open(out, os.O_RDWR | os.O_NOFOLLOW)
    if uid >= 0:
        os.fchown(file, uid, gid)  # for programs that open /dev/stdout
    os.dup2(null, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
