"""Reads a tar stream strictly: ustar, with long names of GNU tar and of pax.

What tar programs read differently is an error: a wrong checksum, an archive without its end, data after the end, sparse files,
unknown types. All metadata is bounded before it is read.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import NoReturn, Protocol

from msgspec import Struct

BLOCK = 512
META_BYTES_MAX = 64 * 1024
FILE, LINK, SYMLINK, FOLDER = "file", "link", "symlink", "folder"
_KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"1": LINK, b"2": SYMLINK, b"5": FOLDER}
_SPECIAL = {b"3": "a character device", b"4": "a block device", b"6": "a FIFO"}
_IGNORED = re.compile(
    r"^(atime|ctime|mtime|uid|gid|uname|gname|comment|charset|hdrcharset|SCHILY\..*|LIBARCHIVE\..*)\Z"
)


class BadTar(ValueError):
    """Says what is wrong with the archive."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes:
        """Exactly `size` bytes; fewer only at the end."""
        ...


class Entry(Struct, frozen=True):
    """`size`: of a file; its content must be read before the next entry. `target`: of a link."""

    kind: str
    name: str
    mode: int
    size: int
    target: str


def is_tar(block: bytes) -> bool:
    """Whether it begins with a header."""
    return len(block) >= BLOCK and block[257:262] == b"ustar"


def entries(source: Source) -> Generator[Entry]:
    """Raises BadTar. The caller reads `Entry.size` bytes of each file from `source`; the padding is skipped here."""
    more: dict[str, str] = {}
    while any(block := _exactly(source, BLOCK)):
        header = _Header(block)
        if header.type in (b"x", b"g", b"L", b"K"):
            text = _meta(source, header)
            if header.type == b"g":
                _pax(text, names=False)
            else:
                more |= _pax(text) if header.type == b"x" else {_GNU[header.type]: _name(text.rstrip(b"\0"))}
            continue
        entry = header.entry(more)
        more = {}
        yield entry
        _skip_padding(source, entry.size)
    if more:
        raise BadTar("ends after the name of an entry")
    while block := source.read(BLOCK * 128):
        if any(block):
            raise BadTar("has data after its end")


_GNU = {b"L": "path", b"K": "linkpath"}


class _Header:
    def __init__(self, block: bytes) -> None:
        if block[257:262] != b"ustar":
            raise BadTar("has an entry that is not in the ustar format")
        if _checksum(block) != _sum_of(block):
            raise BadTar("has a header with a wrong checksum")
        self._block = block
        self.type = block[156:157]
        self.size = _number(block[124:136])

    def entry(self, more: dict[str, str]) -> Entry:
        block = self._block
        name = _name(_text(block[:100]))
        if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
            name = f"{_name(prefix)}/{name}"
        name = more.get("path", name)
        kind = _KINDS.get(self.type)
        if kind is None:
            what = _SPECIAL.get(self.type, f"an entry of the unknown type {self.type!r}")
            raise BadTar(f"has {what}: {name[:100]!r}")
        size = int(more["size"]) if "size" in more else self.size
        if kind is not FILE and size:
            raise BadTar(f"has a link or folder with content: {name[:100]!r}")
        return Entry(kind, name, _number(block[100:108]), size, more.get("linkpath", _name(_text(block[157:257]))))


def _meta(source: Source, header: _Header) -> bytes:
    if header.size > META_BYTES_MAX:
        raise BadTar(f"has metadata of {header.size} bytes, over {META_BYTES_MAX}")
    text = _exactly(source, header.size)
    _skip_padding(source, header.size)
    return text


def _pax(text: bytes, names: bool = True) -> dict[str, str]:
    """Records "LENGTH KEY=VALUE\\n". `names`: those of an entry are permitted."""
    found: dict[str, str] = {}
    while text:
        match = re.match(rb"([1-9][0-9]{0,5}) ([^=\n]{1,256})=", text)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(text) or text[length - 1 : length] != b"\n":
            raise BadTar("has a damaged pax header")
        key, value = _name(match[2]), text[match.end() : length - 1]
        text = text[length:]
        if _IGNORED.match(key):
            continue
        if key not in ("path", "linkpath", "size") or not names or key in found:
            raise BadTar(f"has the pax key {key[:60]!r}, which is not supported")
        found[key] = _name(value)
        if key == "size" and not re.match(r"^[0-9]{1,15}\Z", found[key]):
            raise BadTar("has a damaged pax header")
    return found


def _exactly(source: Source, size: int) -> bytes:
    found = source.read(size)
    if len(found) != size:
        raise BadTar("is not complete")
    return found


def _skip_padding(source: Source, size: int) -> None:
    _exactly(source, -size % BLOCK)


def _checksum(block: bytes) -> int:
    return _number(block[148:156])


def _sum_of(block: bytes) -> int:
    return sum(block[:148]) + 8 * 32 + sum(block[156:BLOCK])


def _number(field: bytes) -> int:
    """Octal digits, or base 256 as GNU tar writes large sizes."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    if not re.match(rb"^[0-7]*\Z", text):
        raise BadTar("has a number that is not octal")
    return int(text or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        _refuse_name(raw)


def _refuse_name(raw: bytes) -> NoReturn:
    raise BadTar(f"has a name that is not UTF-8: {raw[:60]!r}") from None
