"""Reports files that were completely written or renamed into place, by inotify(7): a changed certificate is used at once.

Only a help: what it misses (a network file system, too many watches) is found by the regular check of the files.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable, Collection

IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE, IN_Q_OVERFLOW, IN_IGNORED = 0x8, 0x80, 0x100, 0x4000, 0x8000
IN_ONLYDIR = 0x0100_0000
HEAD = struct.Struct("iIII")
READ_BYTES = 64 * 1024
FOLDERS_MAX = 1024
"""Other programs of the user need watches too (fs.inotify.max_user_watches)."""


class FolderWatch:
    """`changed` is called with the paths that have changed. Needs a running loop."""

    def __init__(self, changed: Callable[[Collection[str]], None]) -> None:
        self._changed = changed
        self._libc: ctypes.CDLL | None = None
        self._inotify = -1
        self._folders: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def watch(self, paths: Collection[str]) -> None:
        """Watches the folders of these files, and no others."""
        wanted = sorted({os.path.dirname(path) for path in paths})[:FOLDERS_MAX]
        if wanted and not self._open():
            return
        for folder in [folder for folder in self._folders if folder not in wanted]:
            self._forget(folder)
        for folder in wanted:
            if folder not in self._folders:
                self._add(folder)

    def close(self) -> None:
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1
            self._folders.clear()
            self._names.clear()

    def _open(self) -> bool:
        if self._inotify < 0:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._inotify = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            if self._inotify >= 0:
                asyncio.get_running_loop().add_reader(self._inotify, self._read)
        return self._inotify >= 0

    def _add(self, folder: str) -> None:
        assert self._libc is not None
        # A link (as certbot makes) is created or renamed and never written.
        mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ONLYDIR
        watch = self._libc.inotify_add_watch(self._inotify, os.fsencode(folder), mask)
        if watch >= 0:
            self._folders[folder] = watch
            self._names[watch] = folder

    def _forget(self, folder: str) -> None:
        assert self._libc is not None
        watch = self._folders.pop(folder)
        if self._names.get(watch) == folder:
            del self._names[watch]
            self._libc.inotify_rm_watch(self._inotify, watch)

    def _read(self) -> None:
        paths: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._inotify, READ_BYTES)
            at = 0
            while at < len(data):
                watch, mask, _, size = HEAD.unpack_from(data, at)
                name = data[at + HEAD.size : at + HEAD.size + size].rstrip(b"\0")
                at += HEAD.size + size
                folder = self._names.get(watch)
                if folder is not None and mask & IN_IGNORED:  # it was removed; the next `watch` finds another one
                    self._folders.pop(self._names.pop(watch), None)
                elif folder is not None and not mask & IN_Q_OVERFLOW:
                    path = os.path.join(folder, os.fsdecode(name))
                    if not mask & IN_CREATE or os.path.islink(path):  # another new file is still to be written
                        paths.add(path)
        if paths:
            self._changed(paths)
