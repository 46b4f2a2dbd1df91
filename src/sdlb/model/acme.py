"""Certificates from a CA (ACME, RFC 8555): what is configured, and the values that control and peers exchange."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from sdlb.model.problem import Invalid
from sdlb.model.route import Pattern
from sdlb.model.site import check_site_host

HTTP, TLS, DNS = "http-01", "tls-alpn-01", "dns-01"
CHALLENGES = (TLS, HTTP, DNS)
WELL_KNOWN = "/.well-known/acme-challenge/"
KEY_COMPROMISE = "keyCompromise"
REASONS = {"unspecified": 0, KEY_COMPROMISE: 1, "affiliationChanged": 3, "superseded": 4, "cessationOfOperation": 5}
"""Why a certificate is revoked (RFC 5280, section 5.3.1): those that CAs accept from subscribers."""


class ExternalAccount(Struct, frozen=True):
    """The operator's account at the CA, to which the node's ACME account is bound (RFC 8555, section 7.3.4). `hmac_key_file`: the
    key that belongs to `kid`, base64url."""

    kid: str
    hmac_key_file: str


class AcmeSettings(Struct, frozen=True):
    """`[acme]` of the node file. `profile` "": the CA's default. `hook`: the program that sets DNS records. `ca_file` "":
    the system's CAs. `on_claim`: host patterns; a claim of a host inside them that turns active starts an order. `eab` None: the
    CA needs no external account."""

    directory: str
    email: str = ""
    profile: str = ""
    challenge: str = TLS
    hook: tuple[str, ...] = ()
    ca_file: str = ""
    on_claim: tuple[str, ...] = ()
    eab: ExternalAccount | None = None


class Peer(Struct, frozen=True):
    """Another entry with which certificates and challenges are shared. `address`: its node listener."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class ChallengeAnswer:
    """What an entry answers while an order is open. `kind` HTTP: `content` for the path with `token`; TLS: a handshake for
    `host` with the protocol `acme-tls/1` gets the certificate `content` (PEM with its key)."""

    kind: str
    host: str
    token: str
    content: str = field(repr=False)


def check_on_claim(text: str) -> str:
    """A pattern of `on_claim`: a host or `*.` before one. Raises ValueError with what was expected."""
    host = check_site_host(text)
    if host == "*":
        raise ValueError('a host or a wildcard below a domain, for example "*.customers.example.com"')
    return host


def exact_host(route: str) -> str:
    """The host of a claim's route pattern; "" when it is none or a wildcard."""
    try:
        host = Pattern.parse(route).host
    except Invalid:
        return ""
    if not host or "*" in host or host.rpartition(".")[2].isdigit() or ":" in host or "[" in host:
        return ""
    return host


def inside(host: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns of `on_claim` covers this exact host. `*.` stands for one or more labels, as in routes."""
    return any(Pattern(each, "/*").matches_host(host) for each in patterns)
