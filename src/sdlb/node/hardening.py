"""What `public = true` consists of, part by part, for `GET /v1/tree` and `sdlb audit`.

Each part is a key of the node file or a fixed property of the engine. `default` is the value on a public node, so that a
part that differs from it can be found on any node.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from sdlb.model.hardening import PUBLIC_LIMITS, Hardening
from sdlb.node.config import NodeConfig

Value = bool | int | str


class Part(Struct, frozen=True):
    """`setting`: the key of the node file; of a fixed property a name. `default`: the value on a public node. `why`: the attack
    that it prevents. `fixed`: no key changes it. `listeners`: where it applies ("http", "https"); empty: the node has none."""

    setting: str
    value: Value
    default: Value
    why: str
    fixed: bool = False
    listeners: tuple[str, ...] = ()

    @property
    def weaker(self) -> bool:
        """Whether the value is less strict than on a public node. A limit of 0 is no limit, but `hsts_s = 0` is no HSTS."""
        value, default = self.value, self.default
        if self.setting in STRICTER:
            return False
        if isinstance(value, (bool, str)):
            return value != default
        assert isinstance(default, int)
        if self.setting == HSTS:
            return value < default
        return value == 0 or value > default

    def view(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "value": self.value,
            "default": self.default,
            "why": self.why,
            "fixed": self.fixed,
            "listeners": list(self.listeners),
        }


BOTH: Final = ("http", "https")
HSTS: Final = "hardening.hsts_s"
STRICTER: Final = ("hardening.tls_min", "hardening.session_tickets")
"""Of these, every value that is not the default is more strict."""
KEYS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "hardening.refuse_encoded_paths": (
        BOTH,
        "a path with an encoded slash, backslash or NUL reaches a route that was not meant",
    ),
    "hardening.drop_underscore_fields": (
        BOTH,
        "servers that read _ as - take a client's field for one of another name",
    ),
    "hardening.replace_request_ids": (BOTH, "a client chooses the id of its requests in the logs"),
    "hardening.redirect_to_https": (
        ("http",),
        "a client stays on plain HTTP, which anyone on the way can read and change",
    ),
    HSTS: (("https",), "a browser that once used HTTPS is led back to plain HTTP"),
    "hardening.handshakes_per_address": (("https",), "one address uses up the TLS handshakes of all"),
    "hardening.tls_min": (("https",), "older versions have known attacks"),
    "hardening.session_tickets": (("https",), "a stolen key of tickets decrypts old traffic"),
    "limits.connections_per_address": (BOTH, "one address uses up the connections of all"),
    "limits.body_bytes": (BOTH, "a request body without end occupies an endpoint"),
}
"""The keys of the node file: listeners and reason."""
FIXED: Final[dict[str, tuple[tuple[str, ...], str, str]]] = {
    "tls.suites": (("https",), "ECDHE with AEAD", "no forward secrecy, or padding oracles"),
    "tls.groups": (
        ("https",),
        "X25519MLKEM768, X25519, P-256, P-384",
        "recorded traffic is decrypted later, also by a quantum computer",
    ),
    "tls.session_tickets": (
        ("https",),
        "sealed for each site, keys rotated every 12 hours and shared with peers",
        "a session of one site is resumed at another; a stolen key decrypts old traffic (CVE-2025-23419)",
    ),
    "tls.server_name": (
        ("https",),
        "of the same site as the host",
        "a handshake for one site, without its client certificate, is used for another",
    ),
    "fields.aliases": (
        BOTH,
        "dropped",
        "servers that read _ or . as - take a client's field for one of ours (CVE-2026-39858, CVE-2026-88004)",
    ),
    "fields.forwarding": (
        BOTH,
        "set by this node; those of listen.trusted_proxies alone are read",
        "a client chooses the address that logs and limits have",
    ),
    "certificates.faults": (
        ("https",),
        "found when the files are read; a working certificate is kept",
        "a wrong key, a weak one or a name that is not covered takes a site down",
    ),
    "certificates.expiry": (
        ("https",),
        "warned of when a third and a tenth of the lifetime is left",
        "an expired certificate takes a site down; some live for six days only",
    ),
    "certificates.must_staple": (
        ("https",),
        "refused",
        "clients refuse such a certificate without a stapled OCSP response, and CAs have turned their responders off",
    ),
    "listen.shared_port": (BOTH, "refused", "a process that shares the port gets part of the connections"),
    "listen.metrics": ((), "loopback or private addresses only", "metrics reveal much about a site"),
}
"""Properties of every node that no key changes: listeners, value and reason."""


HAPROXY: Final[dict[str, Value]] = {
    "tls.groups": "X25519, P-256, P-384",
    "tls.session_tickets": "off; sessions are resumed from the cache of the process, unless a site has client_ca",
    "fields.aliases": "dropped, but not from request trailers before HAProxy 3.2",
    "listen.shared_port": "not checked",
    "hardening.handshakes_per_address": False,
}
"""What differs with HAProxy as the engine, whatever the node file says."""


def parts(config: NodeConfig) -> tuple[Part, ...]:
    """Every part, also those of listeners that the node does not have."""
    open_here = {key for key in BOTH if getattr(config, f"listen_{key}")}
    preset = Hardening.preset(True)
    found: list[Part] = []
    for setting, (listeners, why) in KEYS.items():
        table, _, name = setting.partition(".")
        if table == "limits":
            value, default = config.limits.get(name, 0), PUBLIC_LIMITS[name]
        else:
            value, default = getattr(config.hardening, name), getattr(preset, name)
        found.append(Part(setting, value, default, why, listeners=_among(listeners, open_here)))
    for setting, (listeners, value, why) in FIXED.items():
        found.append(Part(setting, value, value, why, True, _among(listeners, open_here)))
    if config.engine == "haproxy":
        found = [replace(part, value=HAPROXY.get(part.setting, part.value)) for part in found]
    return tuple(found)


def _among(listeners: tuple[str, ...], open_here: set[str]) -> tuple[str, ...]:
    return tuple(key for key in listeners if key in open_here)
