"""Folders, files and sockets that only this user may write to: modes, ownership and symbolic links are checked."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from sdlb.adapters.private_file import write_private as write_private
from sdlb.model.problem import Invalid

SOCKET_PATH_BYTES_MAX = 100
"""Linux allows 107 bytes; the engine first creates its socket file under a longer name."""


def own_folder(folder: Path, what: str) -> None:
    """Makes `folder` with mode 0700, or checks that only this user may write to it. Raises Invalid.

    Root's folder with the sticky bit (/tmp) and an own folder that others can only read are accepted.
    """
    where = f"{what} {folder}"
    try:
        if not os.path.lexists(folder):
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            folder.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise Invalid(
            "bad-folder", where, f"cannot be created ({error.strerror})", "create it, or use another path"
        ) from None
    if stat.S_ISLNK(found.st_mode):
        raise Invalid("bad-folder", where, "is a symbolic link", "use the folder that it points to")
    if not stat.S_ISDIR(found.st_mode):
        raise Invalid("bad-folder", where, "is not a folder", "use another path")
    if found.st_uid not in (os.geteuid(), 0):
        raise Invalid("bad-folder", where, f"belongs to user {found.st_uid}", "use a folder of your own")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise Invalid("bad-folder", where, "is writable by others", f"run: chmod go-w {folder}")


class StateFolder:
    """The state folder with a lock, so that two controls never use the same one. The lock ends with the process."""

    def __init__(self, folder: Path) -> None:
        own_folder(folder, "state folder")
        if os.lstat(folder).st_uid != os.geteuid():
            raise Invalid("bad-folder", f"state folder {folder}", "belongs to root", "use a folder of your own")
        self.path = folder
        lock = folder / "lock"
        try:
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            where = f"state folder {folder}"
            what = f"cannot be written ({error.strerror})"
            raise Invalid("bad-folder", where, what, "free space, grant access, or use another state_dir") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._lock, 32).decode("ascii", "replace").strip()
            os.close(self._lock)
            what = f"is in use by another control (process {holder or 'unknown'})"
            do = "stop that one, or use another state_dir"
            raise Invalid("state-in-use", f"state folder {folder}", what, do) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def socket_path(self, name: str) -> Path:
        """A socket file in this folder. Raises Invalid when its name would not fit an address."""
        path = self.path / name
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            do = f"use a state_dir of at most {SOCKET_PATH_BYTES_MAX - len(name) - 1} bytes"
            raise Invalid(
                "bad-folder", f"state folder {self.path}", "has a path that is too long for the sockets in it", do
            )
        return path

    def close(self) -> None:
        os.close(self._lock)


def listen_unix(path: Path, mode: int = 0o600) -> socket.socket:
    """A listening Unix socket at `path`, never reachable with wider rights than `mode`. Raises Invalid.

    A file that an exited process left behind is replaced; a socket in use and any other file are not.
    """
    where = f"socket {path}"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise Invalid("bad-socket", where, f"is longer than {SOCKET_PATH_BYTES_MAX} bytes", "use a shorter path")
    own_folder(path.parent, "folder of the socket")
    _check_there(path, where)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        fresh.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            made.bind(str(fresh))
        finally:
            os.umask(mask)
        os.chmod(fresh, mode)
        made.listen(512)
        os.rename(fresh, path)
    except OSError as error:
        made.close()
        raise Invalid(
            "bad-socket", where, f"cannot be created ({error.strerror})", "grant access, or use another path"
        ) from None
    return made


def listen_tcp(address: str, where: str) -> socket.socket:
    """Raises Invalid."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host.strip("[]"), int(port)))
        made.listen(128)
    except OSError as error:
        made.close()
        what = f"{address} cannot be bound ({error.strerror})"
        raise Invalid("bad-listen", where, what, "use another address, or stop the process that has it") from None
    return made


def _check_there(path: Path, where: str) -> None:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Invalid("bad-socket", where, f"cannot be read ({error.strerror})", "use another path") from None
    if stat.S_ISLNK(there.st_mode) or not stat.S_ISSOCK(there.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(there.st_mode) else "not a socket"
        raise Invalid("bad-socket", where, f"is {kind}", "remove it, or use another path")
    if there.st_uid != os.geteuid():
        raise Invalid("bad-socket", where, f"belongs to user {there.st_uid}", "remove it, or use another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return
        raise Invalid("socket-in-use", where, "is in use by another process", "stop that one, or use another path")


def remove_socket(path: Path, made: socket.socket) -> None:
    """Removes the file of an own socket, unless another process has put its own there."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            made.close()
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError:
        pass
