"""The embedded store: one SQLite file in the state folder, written by a thread of its own.

Every row carries a CRC32 over key and value, so that a flipped bit is detected even where SQLite's own structure
checks miss it. An unusable file (damaged, or of a newer version) is renamed to `<name>.bad-<n>` and reported; the node
then starts from the state that its children and parents send.

Commits are atomic by SQLite's write-ahead log. Durable ones sync it (`synchronous = FULL`), the others only hand it to
the kernel (`NORMAL`), which survives the end of the process. Commits that wait while another is written share
the next transaction, in order.

SQLite cannot distinguish a truncated write-ahead log from a shorter one, and silently returns to an older state. So
durable transactions are counted, in the file and beside it (`<name>-mark`, written after them). A file with a lower
count than its mark has lost a decision that has taken effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from sdlb.core.effects import Note
from sdlb.seams.store import NoteSink, StoreFailed

SCHEMA = 1
COUNT_KEY = "store/commits"
APPLICATION_ID = 0x73646C62  # "sdlb"
BAD_FILES_MAX = 1000
_NOT_ITS_FAULT = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }
)
"""Errors that do not mean that the file is damaged."""

_Row = tuple[str, bytes | None]
_Commit = tuple[list[_Row], bool, "asyncio.Future[None]"]


class _Untrusted(Exception):
    """The reason for which the file is renamed."""


class EmbeddedStore:
    """Opened by `load`. The folder exists, belongs to this user and is locked (`sdlb.node.local_paths`)."""

    def __init__(self, file: Path, report: NoteSink) -> None:
        self._file = file
        self._report = report
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, "sdlb-store")
        self._waiting: list[_Commit] = []
        self._lock = threading.Lock()  # protects `_waiting`
        self._synchronous = ""
        self._mark = -1  # file descriptor of the mark
        self._count = 0  # durable transactions, ever

    # ------------------------------------------------------------------ the seam

    async def load(self) -> dict[str, object]:
        values, note = await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        if note is not None:
            self._report(note)
        return values

    async def commit(self, puts: Mapping[str, object], durable: bool) -> None:
        loop = asyncio.get_running_loop()
        rows = [(key, None if value is None else msgspec.json.encode(value)) for key, value in puts.items()]
        done: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._waiting.append((rows, durable, done))
            first = len(self._waiting) == 1
        if first:  # else a running job also writes this commit
            try:
                self._thread.submit(self._write_waiting, loop)
            except RuntimeError:
                self._waiting.clear()
                raise StoreFailed("the store is closed") from None
        await done

    async def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=True)

    # ------------------------------------------------------------------ in the thread

    def _open(self) -> tuple[dict[str, object], Note | None]:
        why = ""
        if self._file.exists():
            try:
                return self._read(), None
            except _Untrusted as error:
                why = str(error)
            except sqlite3.Error as error:
                if int(getattr(error, "sqlite_errorcode", 0)) & 0xFF in _NOT_ITS_FAULT:
                    self._close()
                    raise StoreFailed(f"{self._file}: {error}") from error
                why = str(error)
            self._close()
        note = self._set_aside(why) if why else None
        self._create()
        return {}, note

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=2.0)
        self._connection = connection
        return connection

    def _read(self) -> dict[str, object]:
        if self._file.is_symlink() or not self._file.is_file():
            raise StoreFailed(f"{self._file}: not a regular file; remove it or use another state_dir")
        connection = self._connect()
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise _Untrusted("it is not a state file of sdlb, or its header is damaged")
        if schema > SCHEMA:
            raise _Untrusted(
                f"it was written by a newer version of sdlb (schema {schema}, this version supports {SCHEMA})"
            )
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise _Untrusted(f"it is damaged ({found.splitlines()[0]})")
        connection.execute("PRAGMA journal_mode = WAL")
        values = dict(self._rows(connection.execute("SELECT CAST(key AS BLOB), value, crc FROM state")))
        count = values.pop(COUNT_KEY, 0)
        self._open_mark()
        marked = _read_mark(self._mark)
        if not isinstance(count, int) or count < marked:
            raise _Untrusted(f"it ends with write {count} of {marked}: later writes are lost")
        self._count = count
        return values

    def _rows(self, rows: Iterable[tuple[object, object, object]]) -> Iterable[tuple[str, object]]:
        for raw, value, crc in rows:
            if not isinstance(raw, bytes) or not isinstance(value, bytes) or crc != _crc(raw, value):
                raise _Untrusted(f"the value of {str(raw)[:80]} does not match its checksum")
            try:
                yield raw.decode(), msgspec.json.decode(value)
            except ValueError as error:
                raise _Untrusted(f"the value of {str(raw)[:80]} cannot be read ({error})") from error

    def _create(self) -> None:
        try:
            os.close(os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            connection = self._connect()
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) "
                "WITHOUT ROWID"  # one B-tree without an index: a full read covers all data
            )
            self._count = 0
            self._open_mark()
            os.ftruncate(self._mark, 0)
        except (OSError, sqlite3.Error) as error:
            self._close()
            raise StoreFailed(f"{self._file}: {error}; free space on the disk, or use another state_dir") from error

    def _open_mark(self) -> None:
        if self._mark < 0:
            flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
            self._mark = os.open(f"{self._file}-mark", flags, 0o600)

    def _set_aside(self, why: str) -> Note:
        for number in range(1, BAD_FILES_MAX):
            aside = self._file.with_name(f"{self._file.name}.bad-{number}")
            if not os.path.lexists(aside):
                break
        else:
            raise StoreFailed(
                f"{self._file.parent} holds {BAD_FILES_MAX} bad state files; look at them and remove them"
            )
        try:
            os.rename(self._file, aside)
            for suffix in ("-wal", "-shm", "-mark"):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._file}{suffix}", f"{aside}{suffix}")
        except OSError as error:
            raise StoreFailed(f"{self._file}: {why}, and it cannot be renamed: {error}") from error
        text = f"the state file is not usable: {why}; it was renamed to {aside} and the node starts without it"
        return Note("state-set-aside", text, "error", {"file": str(aside)})

    def _write_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """One transaction for all commits that wait; when that fails, one transaction for each, so that each gets its own result."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        try:
            self._write([row for rows, _, _ in waiting for row in rows], any(durable for _, durable, _ in waiting))
            outcome: list[Exception | None] = [None] * len(waiting)
        except (sqlite3.Error, OSError):
            outcome = [self._try_write(rows, durable) for rows, durable, _ in waiting]
        futures = [future for _, _, future in waiting]
        with contextlib.suppress(RuntimeError):  # the loop is closed: no caller waits
            loop.call_soon_threadsafe(_settle, futures, outcome)

    def _try_write(self, rows: list[_Row], durable: bool) -> Exception | None:
        try:
            self._write(rows, durable)
        except (sqlite3.Error, OSError) as error:
            return StoreFailed(f"{self._file}: {error}")
        return None

    def _write(self, rows: list[_Row], durable: bool) -> None:
        connection = self._connection
        if connection is None:
            raise StoreFailed("the store is not open")
        level = "FULL" if durable else "NORMAL"
        if level != self._synchronous:
            connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level
        puts = dict(rows)  # the last value of a key wins
        count = self._count + durable
        if durable:
            puts[COUNT_KEY] = b"%d" % count
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany(
                "INSERT INTO state VALUES (?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value, crc = excluded.crc",
                [(key, value, _crc(key.encode(), value)) for key, value in puts.items() if value is not None],
            )
            connection.executemany("DELETE FROM state WHERE key = ?", [(k,) for k, v in puts.items() if v is None])
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        if durable:
            self._count = count
            # Not synced: after a crash of the machine the mark may be older than the file, never newer.
            os.pwrite(self._mark, _mark_of(count), 0)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        self._synchronous = ""
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _mark_of(count: int) -> bytes:
    text = b"%020d" % count
    return b"%s %08x\n" % (text, zlib.crc32(text))


def _read_mark(file: int) -> int:
    """The count in the mark; 0 if it is missing or invalid."""
    raw = os.pread(file, 64, 0)
    digits = raw[:20]
    return int(digits) if digits.isdigit() and raw == _mark_of(int(digits)) else 0


def _crc(key: bytes, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(key + b"\0"))


def _settle(futures: list[asyncio.Future[None]], outcome: list[Exception | None]) -> None:
    for future, error in zip(futures, outcome, strict=True):
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
