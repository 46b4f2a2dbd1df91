"""The file with the keys of TLS session tickets: kept over restarts, so that clients resume their sessions.

One line a key (Unix time at which it was made, name, secret), then a line with the SHA-256 of those above. A file that
is damaged, or that others can read or have written, is not used; each client then makes one full handshake.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from sdlb.adapters.private_file import write_private
from sdlb.model.site import TicketKey

HEAD = "sdlb ticket keys 1"
FILE_BYTES_MAX = 4096


def make_key(now_s: int) -> TicketKey:
    return TicketKey(secrets.token_bytes(16), secrets.token_bytes(32), now_s)


def load_keys(path: Path) -> tuple[tuple[TicketKey, ...], str]:
    """The keys, and why the file cannot be used ("": it is valid or missing)."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return (), ""
    except OSError as error:
        return (), f"{path} cannot be read ({error.strerror})"
    try:
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return (), f"{path} is readable by others or belongs to another user"
        return _parse(os.read(opened, FILE_BYTES_MAX).decode("ascii")), ""
    except (OSError, ValueError):
        return (), f"{path} is damaged"
    finally:
        os.close(opened)


def _parse(text: str) -> tuple[TicketKey, ...]:
    """Raises ValueError."""
    body, mark, digest = text.rpartition("sha256 ")
    if not mark or digest != f"{hashlib.sha256(body.encode()).hexdigest()}\n" or not body.startswith(f"{HEAD}\n"):
        raise ValueError("torn")
    keys: list[TicketKey] = []
    for line in body.splitlines()[1:]:
        made, name, secret = line.split(" ")
        keys.append(TicketKey(bytes.fromhex(name), bytes.fromhex(secret), int(made)))
        if (len(keys[-1].name), len(keys[-1].secret)) != (16, 32):
            raise ValueError("sizes")
    return tuple(keys)


def save_keys(path: Path, keys: Sequence[TicketKey]) -> None:
    """Writes the file atomically, readable only by this user. Raises OSError."""
    body = "".join([f"{HEAD}\n", *(f"{key.made_s} {key.name.hex()} {key.secret.hex()}\n" for key in keys)])
    content = f"{body}sha256 {hashlib.sha256(body.encode()).hexdigest()}\n".encode()
    write_private(path, content)
