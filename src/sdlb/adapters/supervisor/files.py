"""The files between control and the supervisor of a slot."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from typing import Any, NamedTuple, TypeVar

FORMAT = 1
FILE_BYTES_MAX = 4 << 20
TAIL_BYTES = 8192
LINES_MAX = 20
LINE_CHARS_MAX = 500
STARTING, RUNNING, PAUSING, STOPPING, STOPPED = "starting", "running", "pausing", "stopping", "stopped"
"""`starting`: the process waits until its number is on disk, then runs the program."""


class Want(NamedTuple):
    """`fingerprint`: of all but `run`. `uid` -1: that of the supervisor. `memory_mb`, `cpu` 0: no limit. `cgroup`: the folder of
    the slot's cgroup, "" for none."""

    run: bool
    fingerprint: str
    version: str
    command: list[str]
    env: dict[str, str]
    cwd: str
    port: int
    stop_timeout_s: float
    first_s: float
    max_s: float
    stable_s: float
    log_bytes_max: int
    uid: int = -1
    gid: int = -1
    groups: list[int] = []  # noqa: RUF012 - never changed
    memory_mb: int = 0
    cpu: float = 0.0
    cgroup: str = ""


class State(NamedTuple):
    """`pid`, `start`: of the program; its start time in ticks since `boot`. `not_executed`: the last start did not get as far as
    running the program. `pauses`: starts in a row that did not last for `stable_s`. `ended`: how the last run of this version ended, and
    its last line."""

    status: str
    fingerprint: str = ""
    version: str = ""
    pid: int = 0
    start: int = 0
    boot: str = ""
    port: int = 0
    since_s: float = 0.0
    restarts: int = 0
    pauses: int = 0
    next_start_s: float = 0.0
    reason: str = ""
    not_executed: bool = False
    warnings: list[str] = []  # noqa: RUF012 - never changed
    ended: str = ""


T = TypeVar("T")
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}


def write(folder: str, name: str, value: Any) -> None:
    """A named tuple. Atomically; on a full disk in place, which needs no space, and a reader may find it damaged then. After a power
    loss the file may be empty, but then nothing runs any more either. Raises OSError."""
    path = f"{folder}/{name}"
    content = json.dumps({"format": FORMAT, **value._asdict()}).encode()
    try:
        _put(f"{path}.new", content, os.O_CREAT)
        os.rename(f"{path}.new", path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not os.path.exists(path):
            raise
        _put(path, content, 0)


def _put(path: str, content: bytes, flags: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    try:
        if os.pwrite(file, content, 0) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.ftruncate(file, len(content))
    finally:
        os.close(file)


def read(folder: str, name: str, kind: type[T]) -> T | None:
    """`kind`: a named tuple. None: there is none, or it is damaged or of a newer format."""
    try:
        with open(f"{folder}/{name}", "rb") as file:
            data: Any = json.loads(file.read(FILE_BYTES_MAX))
        if data.pop("format") != FORMAT:
            return None
        known: Any = kind
        if not all(_fits(known, key, value) for key, value in data.items()):
            return None
        return known(**{key: value for key, value in data.items() if key in known._fields})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _fits(kind: Any, key: str, value: object) -> bool:
    """Whether the value has the type of the field. Keys that are not known are no error."""
    wanted = getattr(kind.__annotations__.get(key), "__forward_arg__", "").partition("[")[0]
    return isinstance(value, _TYPES.get(wanted, object))


def lock(folder: str) -> int:
    """The open lock; -1: another process has it. Raises OSError."""
    file = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return -1
    return file


def supervised(folder: str) -> bool:
    try:
        file = lock(folder)
    except FileNotFoundError:
        return False
    if file >= 0:
        os.close(file)
    return file < 0


def wake(folder: str) -> None:
    try:
        file = os.open(f"{folder}/wake", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.ENOENT):  # nobody is there to be woken
            raise
        return
    try:
        os.write(file, b"w")
    except BlockingIOError:
        pass  # it has enough to read
    finally:
        os.close(file)


def open_fifo(path: str) -> int:
    """Both ends at once: a write never fails for want of a reader, and a read never sees the end."""
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def last_lines(content: bytes) -> list[str]:
    """Without control characters, which could change what a terminal shows."""
    lines = content.decode("utf-8", "replace").splitlines()[-LINES_MAX:]
    return ["".join(each if each.isprintable() else " " for each in line)[:LINE_CHARS_MAX] for line in lines]


def tail(folder: str) -> list[str]:
    """The last lines of the log."""
    found = b""
    for name in ("log", "log.1"):
        try:
            with open(f"{folder}/{name}", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                found = file.read(TAIL_BYTES) + found
        except OSError:
            continue
        if len(found) >= TAIL_BYTES:
            break
    return last_lines(found[-TAIL_BYTES:])
