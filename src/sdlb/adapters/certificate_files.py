"""Issued certificates, their keys, accounts and the open order, as files in `STATE/acme`.

A file is written under another name, flushed to disk and renamed. So it has the old content or the new one, whatever happens in
between, and chain and key always belong together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from sdlb.adapters import acme_keys
from sdlb.adapters.private_file import write_private
from sdlb.seams.certificates import BadCertificate, Issued, OpenOrder

FILE_BYTES_MAX = 1 << 20


class CertificateFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._certificates = folder / "certificates"

    # ------------------------------------------------------------------ certificates

    def path(self, site: str) -> Path:
        return self._certificates / f"{site.replace('*', '_')}.pem"

    def hosts(self) -> list[str]:
        names = sorted(path.stem for path in self._certificates.glob("*.pem"))
        return [name for name in names if not name.startswith((".", "_"))]

    def load(self, site: str, hosts: Sequence[str]) -> Issued | None:
        content = _read(self.path(site))
        return None if content is None else acme_keys.read(content, hosts)

    def save(self, site: str, issued: Issued) -> None:
        self._write(self.path(site), issued.pem)

    # ------------------------------------------------------------------ account

    def _account(self, directory: str) -> Path:
        return self._folder / f"account-{hashlib.sha256(directory.encode()).hexdigest()[:16]}.json"

    def load_account(self, directory: str) -> tuple[bytes, str]:
        found = _json(self._account(directory))
        key, url = found.get("key"), found.get("url")
        if found.get("directory") != directory or not isinstance(key, str) or not isinstance(url, str):
            return b"", ""
        return key.encode(), url

    def save_account(self, directory: str, key_pem: bytes, url: str) -> None:
        content = {"directory": directory, "url": url, "key": key_pem.decode("ascii")}
        self._write(self._account(directory), _bytes(content))

    # ------------------------------------------------------------------ the open order and the plan

    def load_order(self) -> OpenOrder | None:
        found = _json(self._folder / "order.json")
        try:
            hosts = tuple(str(host) for host in cast("list[object]", found["hosts"]))
            return OpenOrder(str(found["site"]), hosts, str(found["key"]).encode(), str(found["url"]))
        except (KeyError, TypeError):
            return None

    def save_order(self, order: OpenOrder | None) -> None:
        path = self._folder / "order.json"
        if order is None:
            path.unlink(missing_ok=True)
            return
        key = order.key_pem.decode("ascii")
        self._write(path, _bytes({"site": order.site, "hosts": list(order.hosts), "key": key, "url": order.url}))

    def drop_order(self, site: str) -> None:
        order = self.load_order()
        if order is not None and order.site == site:
            self.save_order(None)

    def load_plan(self) -> Mapping[str, Any]:
        return _json(self._folder / "plan.json")

    def save_plan(self, plan: Mapping[str, Any]) -> None:
        self._write(self._folder / "plan.json", _bytes(plan))

    # ------------------------------------------------------------------ files

    def _write(self, path: Path, content: bytes) -> None:
        for folder in (self._folder, path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        write_private(path, content)


def _read(path: Path) -> bytes | None:
    """None: there is no such file. Raises BadCertificate."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(opened, "rb") as file:
            return file.read(FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadCertificate(f"it cannot be read from {path}: {error.strerror}") from None


def _json(path: Path) -> dict[str, Any]:
    """Empty when the file is missing or damaged: it only saves work."""
    try:
        found: object = json.loads(_read(path) or b"{}")
    except (BadCertificate, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _bytes(data: object) -> bytes:
    return json.dumps(data, indent=1).encode()
