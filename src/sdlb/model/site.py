"""Sites: hosts with their own certificates (`[[site]]` in the node file), and the keys of TLS session tickets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from sdlb.model.problem import Invalid
from sdlb.model.route import Pattern


@dataclass(frozen=True, slots=True)
class PemFile:
    """`where`: the place in the node file that names the file, for error messages."""

    path: str
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """A site as configured. `certificates`: the files of chain and key; key None: both are in one file.

    `client_ca`: clients are asked for a certificate signed by these CAs. `client_required`: a client without one is refused.
    """

    hosts: tuple[str, ...]
    certificates: tuple[tuple[PemFile, PemFile | None], ...]
    client_ca: PemFile | None = None
    client_required: bool = False

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


@dataclass(frozen=True, slots=True)
class Site:
    """A site as the engine gets it, with the content of the files. `certificates`: PEM, each with its private key."""

    key: str
    hosts: tuple[str, ...]
    certificates: tuple[bytes, ...] = field(repr=False)
    client_ca: bytes = b""
    client_required: bool = False


@dataclass(frozen=True, slots=True)
class SiteState:
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
