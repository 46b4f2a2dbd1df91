"""`[acme]` and `[peers]` of the node file: certificates from a CA, and the entries that share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from urllib.parse import urlsplit

from sdlb.model.acme import CHALLENGES, DNS, HTTP, TLS, AcmeSettings, ExternalAccount, Peer, check_on_claim
from sdlb.model.address import check_address, check_name, is_loopback
from sdlb.node.config_programs import read_command
from sdlb.node.config_reader import Reader, one_of

KEYS = ("directory", "email", "profile", "challenge", "hook", "on_claim", "ca_file", "eab")
EAB_KEYS = ("kid", "hmac_key_file")
KID_CHARS_MAX = 256
KID_EXPECTED = f"the key identifier that the CA gave you: at most {KID_CHARS_MAX} characters without spaces"
PATTERNS_MAX = 256
PEERS_MAX = 32
NAMES_MAX = 100
"""Names of one certificate that CAs accept."""
_HOOK = 'the program that sets DNS records and its arguments, for example ["/etc/sdlb/dns"]'


def read_acme(top: Reader, listen: Reader) -> AcmeSettings | None:
    """None without the table. Raises Invalid."""
    if "acme" not in top:
        return None
    table = top.table("acme", KEYS)
    directory = table.text("directory", "", _directory)
    if not directory:
        do = 'set directory, for example "https://acme-v02.api.letsencrypt.org/directory"'
        table.refuse("directory", "is missing or empty", do)
    challenge = table.text("challenge", TLS, one_of(*CHALLENGES))
    hook: tuple[str, ...] = ()
    if challenge == DNS:
        if "hook" not in table:
            table.refuse("challenge", "is dns-01 without a hook", f"set hook to {_HOOK}")
        hook = read_command(table, "hook", _HOOK)
    elif "hook" in table:
        table.refuse("hook", f"is not used by {challenge}", 'set challenge = "dns-01", or remove the line')
    if challenge == HTTP and "http" not in listen:
        do = 'set http = "0.0.0.0:80" under [listen], or use another challenge'
        table.refuse("challenge", "is http-01, which needs the listener listen.http", do)
    on_claim = table.texts("on_claim", check_on_claim, 'hosts, for example ["*.customers.example.com"]', PATTERNS_MAX)
    if on_claim and "https" not in listen:
        table.refuse("on_claim", "needs the TLS listener listen.https", 'set https = "0.0.0.0:443" under [listen]')
    ca_file = table.path("ca_file")
    return AcmeSettings(
        directory,
        table.text("email", "", _email),
        table.text("profile", "", _profile),
        challenge,
        hook,
        "" if ca_file is None else str(ca_file),
        on_claim,
        _read_eab(table),
    )


def _read_eab(acme: Reader) -> ExternalAccount | None:
    """Raises Invalid."""
    if "eab" not in acme:
        return None
    table = acme.table("eab", EAB_KEYS)
    kid, path = table.text("kid", "", _kid, KID_EXPECTED), table.path("hmac_key_file")
    if not kid:
        table.refuse("kid", "is missing or empty", "set it to the key identifier that the CA gave you")
    if path is None:
        table.refuse("hmac_key_file", "is missing or empty", "name the file with the HMAC key that the CA gave you")
    return ExternalAccount(kid, str(path))


def check_site(site: Reader, hosts: Sequence[str], acme: AcmeSettings | None) -> None:
    """Checks a site with `acme = true`. Raises Invalid."""
    if acme is None:
        site.refuse("acme", "needs the table [acme]", "add it with directory and email, or set acme = false")
    for key in ("certificate", "key"):
        if key in site:
            site.refuse(key, "and acme = true exclude each other", "remove one of the two")
    if len(hosts) > NAMES_MAX:
        site.refuse("hosts", f"has {len(hosts)} names", f"a certificate has at most {NAMES_MAX}: split the site")
    for host in hosts:
        if host == "*":
            site.refuse("hosts", 'has "*", for which no CA issues a certificate', "list the hosts")
        if host.startswith("*.") and acme.challenge != DNS:
            what = f"has the wildcard {host}, and CAs issue wildcards with dns-01 only"
            site.refuse("hosts", what, 'set challenge = "dns-01" with a hook in [acme], or list the hosts')


def read_peers(top: Reader, name: str, *, identity: bool) -> tuple[Peer, ...]:
    """The other entries. `identity`: links to them are authenticated. Raises Invalid."""
    if "peers" not in top:
        return ()
    if not isinstance(top.get("peers"), dict):
        top.fail("peers", 'a table of names and addresses: write [peers], and edge-2 = "10.0.0.2:7700"')
    table = top.table("peers", ())
    found: list[Peer] = []
    for peer in cast("dict[str, object]", top.get("peers")):
        try:
            check_name(peer)
        except ValueError as error:
            table.refuse(peer, "is not a name of a node", f"expected {error}")
        if peer == name:
            table.refuse(peer, "is the name of this node", "list the other entries only")
        address = table.text(peer, "", _peer, "the address of its node listener: host:port")
        if not identity and not is_loopback(address):
            what = f"has {address}, and without [identity] private keys would cross the network unencrypted"
            table.refuse(peer, what, "add an [identity] (docs/guide/links.md), or use loopback addresses")
        found.append(Peer(peer, address))
    if len(found) > PEERS_MAX:
        top.refuse("peers", f"has {len(found)} entries", f"use at most {PEERS_MAX}")
    return tuple(found)


# ------------------------------------------------------------------ values


def _directory(text: str) -> str:
    expected = 'the https URL of an ACME directory, for example "https://acme-v02.api.letsencrypt.org/directory"'
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.fragment or port == 0 or " " in text:
        raise ValueError(expected)
    return text


def _email(text: str) -> str:
    name, at, host = text.rpartition("@")
    if not text.isascii() or not at or not name or "." not in host or any(each in text for each in ' ,;?<>"'):
        raise ValueError('one address, for example "ops@example.com"')
    return text


def _profile(text: str) -> str:
    if len(text) > 64 or not text.isascii() or " " in text:
        raise ValueError('the name of a profile of the CA, for example "shortlived"')
    return text


def _kid(text: str) -> str:
    if len(text) > KID_CHARS_MAX or not text.isascii() or " " in text:
        raise ValueError(KID_EXPECTED)
    return text


def _peer(text: str) -> str:
    return check_address(text, wildcard=False, names=True)
