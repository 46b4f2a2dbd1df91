"""One listener of a node, as `sdlb audit --attack` sees it, and what all attacks on it share."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import socket
import ssl

from msgspec import Struct

from sdlb.node.audit.canary import Canary
from sdlb.node.audit.checks import CHECKS, FAIL, PASS, Finding

QUIET_S = 3.0
"""How long a listener may take to answer or to close."""
FIX = "run: sdlb node upgrade; if it fails again, report it as SECURITY.md describes"
_numbers = itertools.count(1)


class Target(Struct, frozen=True):
    """A listener, and the canary behind it. `path`: the beginning of all paths. `tls`: by HTTPS, with `host` as the server name.
    `public`: with the checks of a public node. `forges`: fields of clients are dropped here. `every_name`: there is a certificate
    for every name. `dhe`: a site offers finite-field Diffie-Hellman."""

    listener: str
    address: tuple[str, int]
    host: str
    path: str
    canary: Canary
    tls: bool = False
    public: bool = True
    forges: bool = True
    every_name: bool = False
    dhe: bool = False

    def dial(self, *protocols: str) -> socket.socket:
        """Raises OSError."""
        plain = socket.create_connection(self.address, timeout=QUIET_S)
        if not self.tls:
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the audit of certificates is another one
        if protocols:
            context.set_alpn_protocols(list(protocols))
        try:
            return context.wrap_socket(plain, server_hostname=self.host, suppress_ragged_eofs=True)
        except OSError:
            plain.close()
            raise

    def reaches_canary(self) -> bool:
        mark = self.mark()
        data = f"GET {mark} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
        return say(self, data, answers=1).statuses == [200] and bool(self.canary.completed(mark.encode()))

    def mark(self) -> str:
        return f"{self.path}{next(_numbers)}-{secrets.token_hex(4)}"

    def raw(self, data: bytes, mark: str) -> bytes:
        """A row's bytes with this listener's host and the mark."""
        return (
            data.replace(b"/MARK", b"MARK").replace(b"MARK", mark.encode()).replace(b"www.example", self.host.encode())
        )


class Talk(Struct, frozen=True):
    statuses: list[int]
    closed: bool


def say(target: Target, data: bytes, answers: int = 0) -> Talk:
    """`answers`: stops after so many; 0: reads until the listener closes, or is quiet."""
    raw, closed = b"", False
    try:
        with target.dial() as connection:
            with contextlib.suppress(ConnectionError, ssl.SSLError):  # it may have been refused already
                connection.sendall(data)
            while not answers or raw.count(b"HTTP/1.1 ") < answers:
                try:
                    piece = connection.recv(65536)
                except TimeoutError:
                    break
                except OSError:
                    closed = True
                    break
                if not piece:
                    closed = True
                    break
                raw += piece
    except OSError:
        closed = True
    found = [int(part[:3]) for part in raw.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    return Talk([status for status in found if status >= 200], closed)


def result(target: Target, section: str, name: str, wrong: str) -> Finding:
    setting = f"{target.listener}: {section}: {name}"
    why = CHECKS["attacks"].why
    return (
        Finding("attacks", FAIL, setting, wrong, why, FIX)
        if wrong
        else Finding("attacks", PASS, setting, "no effect", why)
    )
