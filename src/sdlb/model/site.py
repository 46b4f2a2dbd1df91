"""Sites: hosts with certificates of their own (`[[site]]` in the node file), and the keys of TLS session tickets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sdlb.model.problem import Invalid
from sdlb.model.route import Pattern


@dataclass(frozen=True, slots=True)
class PemFile:
    """`where`: the place in the node file that names it, for complaints."""

    path: str
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """A site as it is configured. `certificates`: chain and key of each, in one file (key None) or in two.

    `client_ca`: clients are asked for a certificate of these authorities, and `client_required`: refused without one.
    """

    hosts: tuple[str, ...]
    certificates: tuple[tuple[PemFile, PemFile | None], ...]
    client_ca: PemFile | None = None
    client_required: bool = False

    @property
    def key(self) -> str:
        """Names it in answers, logs and metrics."""
        return self.hosts[0]

    def files(self) -> Iterator[PemFile]:
        for chain, key in self.certificates:
            yield chain
            if key is not None:
                yield key
        if self.client_ca is not None:
            yield self.client_ca


@dataclass(frozen=True, slots=True)
class Site:
    """A site as the engine gets it: what its files had. `certificates`: PEM, each with its private key."""

    key: str
    hosts: tuple[str, ...]
    certificates: tuple[bytes, ...] = field(repr=False)
    client_ca: bytes = b""
    client_required: bool = False


@dataclass(frozen=True, slots=True)
class SiteState:
    """What the engine said of a site that it was given.

    `error`: refused, it has what it had. `not_after_s`: Unix time at which the certificate that ends first ends.
    `warnings`: it serves, and somebody should know.
    """

    key: str
    error: str = ""
    not_after_s: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TicketKey:
    """`name`: 16 bytes, goes in clear with each ticket; `secret`: 32 bytes. `made_s`: Unix time."""

    name: bytes
    secret: bytes = field(repr=False)
    made_s: int


def check_site_host(text: str) -> str:
    """A host of a site, canonical: `example.com`, `*.example.com` or `*`. Raises ValueError with what was expected."""
    expected = 'a host name: "example.com", "*.example.com" (one or more labels) or "*" (every other name, and none)'
    if not text or "/" in text or ":" in text:  # TLS names no ports, and no addresses (RFC 6066, section 3)
        raise ValueError(expected)
    try:
        host = Pattern.parse(text).host
    except Invalid as error:
        raise ValueError(f"{expected}; {text!r} {error.what}") from None
    if host.removeprefix("*.").rpartition(".")[2].isdigit():
        raise ValueError(expected)
    return host
