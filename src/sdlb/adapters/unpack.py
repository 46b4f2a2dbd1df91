"""Unpacks a file whose digest was verified into an empty folder of our own: a tar (also .gz, .xz, .bz2), or a file as it is.

An archive is refused whole when an entry is absolute, leaves the folder, goes through a link, comes twice, is a device or
FIFO, or has a setuid or setgid bit; and when it is larger than the limits.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import zlib
from pathlib import Path
from typing import BinaryIO, Protocol

from msgspec import Struct

from sdlb.adapters import tar_reader
from sdlb.adapters.tar_reader import FILE, FOLDER, SYMLINK, BadTar, Entry

PATH_BYTES_MAX = 1024
DEPTH_MAX = 64
CHUNK = 1 << 18
XZ_MEMORY_MAX = 128 << 20
_GZIP, _XZ, _BZ2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError)


class BadArchive(ValueError):
    """Says what is wrong, in words that follow the name of the artifact."""


class UnpackLimits(Struct, frozen=True):
    bytes_max: int = 8 << 30
    entries_max: int = 100_000


class Unpacker:
    """One folder; several archives may be unpacked over each other, as the layers of an image."""

    def __init__(self, folder: Path, limits: UnpackLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._kinds: dict[str, str] = {"": FOLDER}
        self._bytes = 0
        self._entries = 0

    def unpack(self, archive: Path, plain_name: str) -> None:
        """`plain_name`: of the file, if it is no archive. Raises BadArchive, or OSError (the disk is full)."""
        with archive.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            try:
                self._unpack(file, start, plain_name)
            except BadTar as error:
                raise BadArchive(f"is refused: it {error}") from None
            except BadArchive:
                raise
            except OSError as error:
                if not isinstance(error, gzip.BadGzipFile):
                    raise
                raise BadArchive(f"cannot be decompressed: {error}") from None
            except _BROKEN as error:
                raise BadArchive(f"cannot be decompressed: {error}") from None

    def _unpack(self, file: BinaryIO, start: bytes, plain_name: str) -> None:
        if start.startswith(_ZSTD):
            raise BadArchive("is compressed with zstd, which is not supported; use gzip or xz")
        packed = start.startswith((_GZIP, _XZ, _BZ2))
        stream = _Bounded(_decompressed(file, start), self._limits.bytes_max - self._bytes)
        head = stream.peek(tar_reader.BLOCK)
        if tar_reader.is_tar(head) or (len(head) == tar_reader.BLOCK and not any(head)):
            self._tar(stream)
        elif packed:
            raise BadArchive("is compressed but no tar archive; pack it with tar")
        else:
            path = self._place(plain_name)
            self._file(path, 0o555, stream, None)
        self._bytes += stream.count

    def _tar(self, stream: _Bounded) -> None:
        seen: set[str] = set()
        for entry in tar_reader.entries(stream):
            self._entries += 1
            if self._entries > self._limits.entries_max:
                raise BadArchive(f"has more than {self._limits.entries_max} entries")
            path = self._place(entry.name.removesuffix("/") if entry.kind == FOLDER else entry.name)
            if entry.mode & 0o6000:
                raise BadArchive(f"has a setuid or setgid bit at {path[:100]!r}")
            if entry.kind != FOLDER and path in seen:
                raise BadArchive(f"has {path[:100]!r} twice")
            seen.add(path)
            self._entry(entry, path, stream)

    def _entry(self, entry: Entry, path: str, stream: _Bounded) -> None:
        if entry.kind == FOLDER:
            self._make_folder(path)
            return
        if not path:
            raise BadArchive("has an entry without a name")
        if self._kinds.get(path) == FOLDER:
            raise BadArchive(f"has {path[:100]!r} as a folder and as something else")
        name = path.rpartition("/")[2]
        if name.startswith(".wh."):
            raise BadArchive(f"has a layer that removes files ({path[:100]!r}); use an image of one layer")
        if path in self._kinds:
            os.unlink(self._folder / path)
        if entry.kind == FILE:
            self._file(path, 0o555 if entry.mode & 0o111 else 0o444, stream, entry.size)
        elif entry.kind == SYMLINK:
            _check_target(path, entry.target)
            os.symlink(entry.target, self._folder / path)
            self._kinds[path] = SYMLINK
        else:
            target = self._place(entry.target)
            if self._kinds.get(target) != FILE:
                raise BadArchive(f"has a hard link {path[:100]!r} to {target[:100]!r}, which is not a file before it")
            os.link(self._folder / target, self._folder / path, follow_symlinks=False)
            self._kinds[path] = FILE

    def _place(self, name: str) -> str:
        """The path inside the folder, "" for the folder itself; the folders above it are made."""
        while name.startswith("./"):
            name = name[2:]
        if name in (".", ""):
            return ""
        parts = name.split("/")
        shown = repr(name[:100])
        if name.startswith("/"):
            raise BadArchive(f"has the absolute path {shown}")
        if any(part in ("", ".", "..") for part in parts):
            raise BadArchive(f"has the path {shown}, which leaves its folder or has empty segments")
        if not name.isprintable() or len(os.fsencode(name)) > PATH_BYTES_MAX or len(parts) > DEPTH_MAX:
            raise BadArchive(f"has the path {shown}, which is too long, too deep or not printable")
        if any(len(os.fsencode(part)) > 255 for part in parts):
            raise BadArchive(f"has the path {shown}, which is too long")
        self._make_folder("/".join(parts[:-1]))
        return name

    def _make_folder(self, path: str) -> None:
        kind = self._kinds.get(path)
        if kind == FOLDER:
            return
        if kind is not None:
            raise BadArchive(f"has something below {path[:100]!r}, which is a {kind}")
        self._make_folder(path.rpartition("/")[0])
        os.mkdir(self._folder / path)
        os.chmod(self._folder / path, 0o755)
        self._kinds[path] = FOLDER

    def _file(self, path: str, mode: int, stream: _Bounded, size: int | None) -> None:
        """`size` None: all that is left."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._folder / path, flags, 0o600), "wb", buffering=0) as out:
            left = size
            while left is None or left > 0:
                chunk = stream.read(CHUNK if left is None else min(CHUNK, left))
                if not chunk:
                    break
                left = None if left is None else left - len(chunk)
                _write_all(out, chunk)
            if left:
                raise BadTar("is not complete")
            os.fchmod(out.fileno(), mode)
        self._kinds[path] = FILE


def _write_all(out: BinaryIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[out.write(rest) :]


def _check_target(path: str, target: str) -> None:
    """`..` only at its start: so it goes up real folders, then down, and stays inside whatever other links do."""
    parts = target.split("/")
    up = 0
    while up < len(parts) and parts[up] in ("..", "."):
        up += 1
    climbs = parts[:up].count("..")
    inside = not target.startswith("/") and ".." not in parts[up:] and climbs <= path.count("/")
    if not inside or not target.isprintable() or not 0 < len(os.fsencode(target)) <= PATH_BYTES_MAX:
        raise BadArchive(f"has a link {path[:100]!r} to {target[:100]!r}, which leaves the folder")


# ---------------------------------------------------------------------- streams


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Bounded:
    """Reads exactly the wanted number of bytes, fewer at the end; and no more than the limit in all."""

    def __init__(self, stream: _Stream, most: int) -> None:
        self._stream = stream
        self._most = most
        self._ahead = b""
        self.count = 0

    def peek(self, size: int) -> bytes:
        self._ahead = self._some(size)
        return self._ahead

    def read(self, size: int) -> bytes:
        found, self._ahead = self._ahead[:size], self._ahead[size:]
        return found + self._some(size - len(found)) if len(found) < size else found

    def _some(self, size: int) -> bytes:
        chunks: list[bytes] = []
        while size > 0 and (chunk := self._stream.read(size)):
            chunks.append(chunk)
            size -= len(chunk)
            self.count += len(chunk)
            if self.count > self._most:
                raise BadArchive(f"is larger than {self._most} bytes when it is unpacked")
        return b"".join(chunks)


def _decompressed(file: BinaryIO, start: bytes) -> _Stream:
    if start.startswith(_GZIP):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(_BZ2):
        return bz2.BZ2File(file)
    return _Xz(file) if start.startswith(_XZ) else file


class _Xz:
    """`lzma.LZMAFile` has no limit on memory: a header may ask for 4 GiB."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_MAX)

    def read(self, size: int) -> bytes:
        while True:
            if self._lzma.eof:
                rest = self._lzma.unused_data or self._file.read(CHUNK)
                if not rest:
                    return b""
                if re.match(rb"^\0*\Z", rest):  # padding
                    continue
                self._lzma = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_MAX)
            elif self._lzma.needs_input:
                rest = self._file.read(CHUNK)
                if not rest:
                    raise EOFError("the file is not complete")
            else:
                rest = b""
            if found := self._lzma.decompress(rest, size):
                return found
