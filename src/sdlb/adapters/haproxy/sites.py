"""Certificates of sites as HAProxy's files: one PEM file for each certificate, and a `crt-list` that gives them their hosts.

A site is checked before it is used: what cannot be used is refused, and the site keeps its former certificates. A changed
certificate is exchanged at run time; another set of sites or hosts needs a reload.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from sdlb.adapters.haproxy.names import CAS, IDENTITY, encode
from sdlb.adapters.haproxy.rules import CIPHERS, CRT_LIST, PROTECTED, SITES
from sdlb.model.identity import Identity
from sdlb.model.site import Site, SiteState, TicketKey

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.S)
DHE_CIPHERS = "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-CHACHA20-POLY1305"
PAYLOAD_BYTES_MAX = 12_000
"""A larger certificate does not fit into a command; it needs a reload."""


class Sites:
    """`on_change`: called when files differ from what the workers have; the engine then calls `take`."""

    checks_keys = False  # OpenSSL compares public keys only

    def __init__(self, folder: Path, on_change: Callable[[], None]) -> None:
        self.on_states: Callable[[Sequence[SiteState]], None] = _ignore
        self.taken: dict[str, Site] = {}
        self._folder = folder
        self._on_change = on_change
        self._pending: dict[str, Site] = {}
        self._keep: set[str] | None = None
        self._numbers: dict[str, int] = {}
        self._not_after: dict[str, int] = {}

    def put(self, sites: Sequence[Site], keep: Collection[str] | None = None) -> None:
        self._pending.update((site.key, site) for site in sites)
        if keep is not None:
            self._keep = set(keep)
        self._on_change()

    def ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        """Tickets are off: a session is resumed from the workers' cache."""

    @property
    def wildcards(self) -> list[str]:
        """Hosts that stand for one label with HAProxy, and for several elsewhere."""
        return sorted(host for site in self.taken.values() for host in site.hosts if host.startswith("*."))

    @property
    def fronts(self) -> list[str]:
        """Sites with redirects, fields or error pages, which HAProxy does not have."""
        return sorted(key for key, site in self.taken.items() if site.redirects or site.fields or site.pages)

    @property
    def any_host(self) -> bool:
        return any("*" in site.hosts for site in self.taken.values())

    @property
    def client_ca(self) -> bool:
        """Whether a site verifies certificates of clients."""
        return any(site.client_ca for site in self.taken.values())

    def take(self) -> tuple[list[SiteState], list[tuple[str, bytes]], bool]:
        """Writes the files of what was put. Returns the states to report, the changed files with their content, and whether a
        reload is needed."""
        states: list[SiteState] = []
        changed: list[tuple[str, bytes]] = []
        reload = False
        pending, self._pending = self._pending, {}
        if self._keep is not None:
            gone = self.taken.keys() - self._keep
            pending = {key: site for key, site in pending.items() if key in self._keep}
            reload = bool(gone)
            for key in gone:
                del self.taken[key]
            self._keep = None
        for key, site in pending.items():
            if not site.certificates:  # refused before it came here: the site stays as it is
                states.append(SiteState(key, "", self._not_after.get(key, 0)))
                continue
            files = _files(site)
            error, not_after, warnings = self._check(files)
            if error:
                states.append(SiteState(key, error, self._not_after.get(key, 0)))
                continue
            before = self.taken.get(key)
            same = before is not None and _shape(before) == _shape(site)
            reload |= not same or any(len(pem) > PAYLOAD_BYTES_MAX for pem in files)
            self.taken[key] = site
            self._not_after[key] = not_after
            former = _files(before) if before is not None and same else []
            for at, pem in enumerate(files):
                if pem not in former[at : at + 1]:
                    changed.append((self._file(key, at), pem))
            states.append(SiteState(key, "", not_after, tuple(warnings)))
        for name, pem in changed:
            write(self._folder / name, pem)
        self._write_list()
        return states, changed, reload

    def report(self, states: Sequence[SiteState]) -> None:
        """What `take` has returned, to control, when it has done what it does now."""
        if states:
            asyncio.get_running_loop().call_soon(self.on_states, states)

    def _file(self, key: str, at: int) -> str:
        number = self._numbers.setdefault(key, len(self._numbers) + 1)
        return f"site-{number}-{at}.pem"

    def _write_list(self) -> None:
        lines: list[str] = []
        for key, site in self.taken.items():
            words: list[str] = []
            if site.client_ca:
                name = f"ca-{self._numbers[key]}.pem"
                write(self._folder / name, join_pem(site.client_ca))
                words += ["ca-file", name, "verify", "required" if site.client_required else "optional"]
            if site.dh:
                words += ["ciphers", f"{CIPHERS}:{DHE_CIPHERS}"]
            if site.tls_min != "1.2":
                words += ["ssl-min-ver", f"TLSv{site.tls_min}"]
            options = f" [{' '.join(words)}]" if words else ""
            hosts = [host for host in site.hosts if host != "*"]
            for at in range(len(site.certificates)):
                line = f"{self._file(key, at)}{options} {' '.join(hosts)}".rstrip()
                lines.insert(0, line) if "*" in site.hosts else lines.append(line)
        write(self._folder / CRT_LIST, "".join(f"{line}\n" for line in lines).encode())
        rows = [
            f"{encode(host)} {self._numbers[key]}{PROTECTED if site.client_ca else ''}\n"
            for key, site in self.taken.items()
            for host in site.hosts
        ]
        write(self._folder / SITES, "".join(rows).encode())

    def _check(self, files: Sequence[bytes]) -> tuple[str, int, list[str]]:
        """The reason why the certificates cannot be used, their expiry (Unix time), and warnings."""
        first = 0
        path = self._folder / "check.pem"
        for pem in files:
            write(path, pem)
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(path, password=lambda: b"")
                not_after = expiry(pem)
            except (ssl.SSLError, ValueError) as error:
                return _why(pem, error), 0, []
            finally:
                path.unlink(missing_ok=True)
            first = min(first or not_after, not_after)
        return "", first, []


def expiry(pem: bytes) -> int:
    """Unix time at which the first certificate expires. Raises ValueError."""
    from cryptography import x509

    return int(x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp())


def write_identity(folder: Path, identity: Identity) -> None:
    """The node's own certificate with its key, and the CAs of other nodes."""
    write(folder / IDENTITY, join_pem(identity.pem))
    write(folder / CAS, join_pem(identity.ca))


def join_pem(pem: bytes) -> bytes:
    """The blocks alone, without blank lines, which would end a payload: certificates first, then the key."""
    blocks: list[tuple[bytes, bytes]] = []
    for found in _BLOCK.finditer(pem):
        lines = [line.strip() for line in found.group(0).splitlines()]
        blocks.append((found.group(1), b"\n".join(line for line in lines if line)))
    blocks.sort(key=lambda block: block[0].endswith(b"PRIVATE KEY"))
    return b"".join(text + b"\n" for _, text in blocks)


def _why(pem: bytes, error: Exception) -> str:
    if b"PRIVATE KEY" not in pem:
        return "there is no private key in it"
    if b"ENCRYPTED" in pem:
        return "its private key has a passphrase"
    if b"BEGIN CERTIFICATE" not in pem:
        return "there is no certificate in it"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the private key does not belong to the certificate"
    return f"it cannot be read: {error}"


def _shape(site: Site) -> tuple[object, ...]:
    return (site.hosts, len(site.certificates), site.client_ca, site.client_required, bool(site.dh), site.tls_min)


def _files(site: Site) -> list[bytes]:
    """The content of the site's files: each certificate with its key, and the site's DH parameters."""
    return [join_pem(pem) + join_pem(site.dh) for pem in site.certificates]


def write(path: Path, content: bytes) -> None:
    """Replaces the file in one step. It is readable for its owner alone."""
    beside = path.with_name(f".{path.name}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    beside.rename(path)


def _ignore(_: Sequence[SiteState]) -> None:
    """Used until a listener is set."""
