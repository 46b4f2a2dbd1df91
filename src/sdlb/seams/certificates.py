"""Interface to the place where issued certificates, their keys and open orders are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sdlb.core.certificates import Lifetime


class BadCertificate(ValueError):
    """A certificate cannot be used; the text is the rest of a sentence that begins with "it"."""


@dataclass(frozen=True, slots=True)
class Issued:
    """`pem`: chain and key. `digest`: SHA-256 of the leaf, hex. `id`: names it in requests for its renewal window."""

    pem: bytes = field(repr=False)
    lifetime: Lifetime
    digest: str
    id: str

    def newer_than(self, other: Issued | None) -> bool:
        """Of two valid certificates, the one that was issued later serves."""
        return other is None or self.rank > other.rank

    @property
    def rank(self) -> tuple[float, float, str]:
        return self.lifetime.not_before_s, self.lifetime.not_after_s, self.digest


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order under way, so that it goes on after a restart. `key_pem`: the key of its certificate. `url` "": the CA has
    not accepted it yet."""

    site: str
    hosts: tuple[str, ...]
    key_pem: bytes = field(repr=False)
    url: str = ""


class CertificateTools(Protocol):
    """Keys, requests and certificates."""

    def new_key(self) -> bytes:
        """PEM."""
        ...

    def signing_request(self, key_pem: bytes, hosts: Sequence[str]) -> bytes:
        """DER."""
        ...

    def read(self, pem: bytes, hosts: Sequence[str]) -> Issued:
        """Chain and key of a certificate that shall serve these hosts. Raises BadCertificate."""
        ...

    def challenge_certificate(self, host: str, authorization: str) -> str:
        """PEM with its key (RFC 8737, section 3)."""
        ...

    def dns_value(self, authorization: str) -> str:
        """The content of the DNS record (RFC 8555, section 8.4)."""
        ...


class CertificateStore(Protocol):
    """Every file is readable by this user alone and is replaced in one step. Calls block; those that write raise OSError."""

    def path(self, site: str) -> Path:
        """The PEM file of a site: its chain and key."""
        ...

    def hosts(self) -> list[str]:
        """The sites that have a certificate, except wildcards."""
        ...

    def load(self, site: str, hosts: Sequence[str]) -> Issued | None:
        """None: there is none. Raises BadCertificate."""
        ...

    def save(self, site: str, issued: Issued) -> None: ...

    def load_account(self, directory: str) -> tuple[bytes, str]:
        """The key (PEM) and URL of the account at that CA. Both are empty when there is none."""
        ...

    def save_account(self, directory: str, key_pem: bytes, url: str) -> None: ...

    def load_order(self) -> OpenOrder | None: ...

    def save_order(self, order: OpenOrder | None) -> None: ...

    def drop_order(self, site: str) -> None:
        """Forgets the open order of this site, with its key."""
        ...

    def load_plan(self) -> Mapping[str, Any]:
        """Empty when there is none."""
        ...

    def save_plan(self, plan: Mapping[str, Any]) -> None: ...
