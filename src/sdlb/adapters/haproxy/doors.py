"""What stands before an entry of HAProxy: frontends of bytes, which tell connections apart by how they begin.

HAProxy cannot have a header of the PROXY protocol only where there is one, so with trusted proxies a first frontend has the
entry's address. It passes a connection with such a header of a trusted proxy on as it is, and puts a header with the peer's
address before any other. So the entry, behind a Unix socket, always gets one. A header without an address (`LOCAL`, `UNKNOWN`) is
the proxy's own check: its client is `NOBODY`.

The client of a request is then the last address in `X-Forwarded-For` that is no trusted proxy, as the native engine has it
(`listen/proxied.rs`). HAProxy counts ten addresses from the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from sdlb.adapters.haproxy.names import quoted

IDLE = "3600s"
NOBODY = "0.0.0.0"
ADDRESSES_MAX = 10
WORDS_MAX = 32
"""Networks in one line: HAProxy takes 64 words."""
PROXY_FIRST = ("PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNO")
"""Version 1 of the PROXY protocol, by its first 11 bytes."""
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""Version 2."""
_ADDRESS = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*)$"


class Door(Struct, frozen=True):
    """An entry that is reached through others. `trusted`: networks of proxies, at least one."""

    key: str
    address: str
    trusted: Sequence[str] = ()

    @property
    def first(self) -> str:
        """The frontend that has the address."""
        return f"{self.key}-proxies" if self.trusted else self.key

    @property
    def bind(self) -> str:
        """What the entry itself listens on."""
        return f"unix@{self.key} accept-proxy mode 600" if self.trusted else self.address


def frontends(door: Door, limits: Mapping[str, int]) -> Iterator[str]:
    """What stands before the entry."""
    if door.trusted:
        yield from _proxies(door, limits)


def proxies(networks: Sequence[str]) -> Iterator[str]:
    """The rule `proxy`: the address of the peer, or of the client as far as it is known, is a trusted proxy's."""
    for at in range(0, len(networks), WORDS_MAX):
        yield f"  acl proxy src {' '.join(networks[at : at + WORDS_MAX])}"


def client(networks: Sequence[str], scheme: str) -> Iterator[str]:
    """Makes `src` the client, and `txn.scheme` what it has used, as trusted proxies have noted them."""
    yield f"  http-request set-var(txn.scheme) str({scheme})"
    if not networks:
        return
    yield f"  http-request set-src str({NOBODY}) unless {{ src -m found }}"
    noted = "req.fhdr(x-forwarded-proto,-1),lower"
    yield f"  http-request set-var(txn.scheme) {noted} if proxy {{ {noted} -m str http https }}"
    # Addresses may have a port, or the form of IPv6 for one of IPv4.
    for pattern in (r"^\[(.*)\](:[0-9]+)?$", "^([0-9.]+):[0-9]+$", "^::[Ff]{4}:([0-9.]+)$"):
        yield rf"  http-request replace-value x-forwarded-for {quoted(pattern)} \\1 if proxy"
    yield "  http-request set-var(txn.behind) bool(true) if proxy"
    for number in range(1, ADDRESSES_MAX + 1):
        noted = f"req.hdr(x-forwarded-for,-{number})"
        address = f"{noted},ipmask(32,128)"
        # HAProxy reads an address of IPv4 before other text, too.
        known = f"{{ {noted} -m reg {quoted(_ADDRESS)} }} {{ {address} -m found }}"
        empty = f"{{ {noted} -m len 0 }}"
        yield f"  http-request set-var(txn.behind) bool(false) unless proxy {known} or {empty}"
        yield f"  http-request set-src {address} if {{ var(txn.behind) -m bool }} !{empty}"


def _proxies(door: Door, limits: Mapping[str, int]) -> Iterator[str]:
    lines = " ".join(text.encode().hex() for text in PROXY_FIRST)
    yield f"frontend {door.first}"
    yield "  mode tcp"
    yield f"  bind {door.address}"
    yield f"  timeout client {IDLE}"
    yield from proxies(door.trusted)
    yield f"  acl line req.payload(0,11) -m bin {lines}"
    yield f"  acl binary req.payload(0,{len(SIGNATURE)}) -m bin {SIGNATURE.hex()}"
    yield f"  tcp-request inspect-delay {limits.get('head_timeout_ms', 10000)}ms"
    yield "  tcp-request content accept if !proxy"
    # A header must be there as a whole when the entry reads it.
    yield r'  tcp-request content accept if line { req.payload(0,0) -m sub "\r\n" }'
    yield "  tcp-request content accept if binary { req.payload_lv(14,2) -m found }"
    yield "  tcp-request content accept if binary { req.payload(14,2) -m bin 0000 }"
    yield f"  tcp-request content accept if !line !binary {{ req.len ge {len(SIGNATURE)} }}"
    yield f"  use_backend {door.key}-named if proxy line or proxy binary"
    yield f"  default_backend {door.key}-peer"
    for name, options in (("named", ""), ("peer", " send-proxy-v2")):
        yield f"backend {door.key}-{name}"
        yield "  mode tcp"
        yield f"  timeout server {IDLE}"
        yield f"  server s {quoted(f'unix@{door.key}')}{options}"
