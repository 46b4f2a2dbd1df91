"""Sites: hosts with their own certificates (`[[site]]` in the node file), and the keys of TLS session tickets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from msgspec import Struct

from sdlb.model.problem import Invalid
from sdlb.model.route import Pattern


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file of a site. `where`: the place in the node file that names it, for error messages."""

    path: str
    where: str = field(default="", compare=False)


class FrontSpec(Struct, frozen=True):
    """What a site answers or adds by itself, as configured. `redirects`: prefix and target; `fields`: names in lower case, and
    values; `pages`: first and last status, and the file."""

    redirects: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    pages: tuple[tuple[tuple[int, int], PemFile], ...] = ()


class SiteSpec(Struct, frozen=True):
    """A site as configured. `certificates`: the files of chain and key; key None: both are in one file.

    `client_ca`: clients are asked for a certificate signed by these CAs. `client_required`: a client without one is refused.
    `acme`: its certificate is ordered from the authority of `[acme]`, and `certificates` is empty. `dh`: the site's own DH
    parameters, with which it offers finite-field Diffie-Hellman; None: it does not. `tls_min`, `tickets`: as in `[hardening]`.
    """

    hosts: tuple[str, ...]
    certificates: tuple[tuple[PemFile, PemFile | None], ...]
    client_ca: PemFile | None = None
    client_required: bool = False
    acme: bool = False
    front: FrontSpec = FrontSpec()
    dh: PemFile | None = None
    tls_min: str = "1.2"
    tickets: bool = True

    @property
    def key(self) -> str:
        """The name of the site in API responses, logs and metrics."""
        return self.hosts[0]

    def files(self) -> Iterator[PemFile]:
        for chain, key in self.certificates:
            yield chain
            if key is not None:
                yield key
        if self.client_ca is not None:
            yield self.client_ca
        for _, file in self.front.pages:
            yield file
        if self.dh is not None:
            yield self.dh


@dataclass(frozen=True, slots=True)
class Site:
    """A site as the engine gets it, with the content of the files. `certificates`: PEM, each with its private key; none:
    they were refused, and the engine keeps the site as it is. `redirects`, `fields`, `pages`: as in `FrontSpec`. `dh`: DH
    parameters in PEM; empty: no finite-field Diffie-Hellman."""

    key: str
    hosts: tuple[str, ...]
    certificates: tuple[bytes, ...] = field(repr=False)
    client_ca: bytes = b""
    client_required: bool = False
    redirects: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    pages: tuple[tuple[tuple[int, int], bytes], ...] = field(default=(), repr=False)
    dh: bytes = field(default=b"", repr=False)
    tls_min: str = "1.2"
    tickets: bool = True

    def same_certificates(self, other: Site) -> bool:
        return (self.certificates, self.client_ca) == (other.certificates, other.client_ca)


class SiteState(Struct, frozen=True):
    """The engine's report about a site that it was sent.

    `error`: the site was refused and keeps its former certificates. `not_after_s`: Unix time at which the first of its
    certificates expires. `warnings`: the site serves, but an operator should look at it.
    """

    key: str
    error: str = ""
    not_after_s: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TicketKey:
    """`name`: 16 bytes, sent unencrypted with each ticket. `secret`: 32 bytes. `made_s`: Unix time of its creation."""

    name: bytes
    secret: bytes = field(repr=False)
    made_s: int


def check_site_host(text: str) -> str:
    """Returns the canonical host of a site: `example.com`, `*.example.com` or `*`. Raises ValueError with what was expected."""
    expected = 'a host name: "example.com", "*.example.com" (one or more labels) or "*" (every other name, and none)'
    if not text or "/" in text or ":" in text:  # SNI carries no ports and no addresses (RFC 6066, section 3)
        raise ValueError(expected)
    try:
        host = Pattern.parse(text).host
    except Invalid as error:
        raise ValueError(f"{expected}; {text!r} {error.what}") from None
    if host.removeprefix("*.").rpartition(".")[2].isdigit():
        raise ValueError(expected)
    return host
