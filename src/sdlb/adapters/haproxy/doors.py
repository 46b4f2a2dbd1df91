"""What stands before an entry of HAProxy: frontends of bytes, which tell connections apart by how they begin.

HAProxy cannot have a header of the PROXY protocol only where there is one, so with trusted proxies a first frontend has the
entry's address. It passes a connection with such a header of a trusted proxy on as it is, and puts a header with the peer's
address before any other. So the entry, behind a Unix socket, always gets one. A header without an address (`LOCAL`, `UNKNOWN`) is
the proxy's own check: its client is `NOBODY`.

HAProxy does not choose a certificate by protocol. So while CAs validate hosts by tls-alpn-01, another frontend passes handshakes with
that protocol on to control (`challenges.py`), and the others to the entry.

The client of a request is then the last address in `X-Forwarded-For` that is no trusted proxy, as the native engine has it
(`listen/proxied.rs`). HAProxy counts ten addresses from the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from sdlb.adapters.haproxy.names import quoted

CHALLENGES = "challenges"
"""Control's socket for handshakes of CAs."""
PROTOCOL = "acme-tls/1"
HANDSHAKES_MAX = 64
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
    """An entry, and what stands before it. `trusted`: networks of proxies. `challenges`: it is for HTTPS, and handshakes of CAs go to
    control."""

    key: str
    address: str
    trusted: Sequence[str] = ()
    challenges: bool = False

    @property
    def names(self) -> list[str]:
        """The frontends on the way, from the one that has the address to the entry itself."""
        before = ["proxies"] * bool(self.trusted) + ["handshakes"] * self.challenges
        return [*(f"{self.key}-{each}" for each in before), self.key]

    def bind(self, name: str) -> str:
        """What one of them listens on."""
        return self.address if name == self.names[0] else f"{quoted(f'unix@{name}')} accept-proxy mode 600"

    def after(self, name: str) -> str:
        return self.names[self.names.index(name) + 1]


def frontends(door: Door, limits: Mapping[str, int]) -> Iterator[str]:
    """What stands before the entry."""
    for name in door.names[:-1]:
        yield f"frontend {name}"
        yield "  mode tcp"
        yield f"  bind {door.bind(name)}"
        yield f"  timeout client {IDLE}"
        yield f"  tcp-request inspect-delay {limits.get('head_timeout_ms', 10000)}ms"
        first = name == door.names[0]
        yield from proxies(door.trusted) if first else ()
        yield from connections(door, limits) if first else ()
        yield from _proxies(door) if name.endswith("-proxies") else _handshakes(door)
        yield f"  default_backend {name}-on"
        yield from _to(f"{name}-on", door.after(name), " send-proxy-v2")
        if name.endswith("-proxies"):
            yield from _to(f"{name}-named", door.after(name))
        else:
            yield from _to(f"{name}-{CHALLENGES}", CHALLENGES, f" maxconn {HANDSHAKES_MAX}")


def connections(door: Door, limits: Mapping[str, int], *, named: bool = False) -> Iterator[str]:
    """The limit for each client address; IPv6 addresses are counted by /64. A trusted proxy has none. `named`: of those that a header of
    the PROXY protocol names, which are known when it has been read."""
    most = limits.get("connections_per_address")
    if not most:
        return
    when, table = ("session", "named") if named else ("connection", "addresses")
    yield f"  tcp-request {when} track-sc1 src,ipmask(32,64) table {table}{' unless proxy' if door.trusted else ''}"
    yield f"  tcp-request {when} reject if {{ sc1_conn_cur gt {most} }}"


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


def _proxies(door: Door) -> Iterator[str]:
    lines = " ".join(text.encode().hex() for text in PROXY_FIRST)
    yield f"  acl line req.payload(0,11) -m bin {lines}"
    yield f"  acl binary req.payload(0,{len(SIGNATURE)}) -m bin {SIGNATURE.hex()}"
    yield "  tcp-request content accept if !proxy"
    # A header must be there as a whole when the next frontend reads it.
    yield r'  tcp-request content accept if line { req.payload(0,0) -m sub "\r\n" }'
    yield "  tcp-request content accept if binary { req.payload_lv(14,2) -m found }"
    yield "  tcp-request content accept if binary { req.payload(14,2) -m bin 0000 }"
    yield f"  tcp-request content accept if !line !binary {{ req.len ge {len(SIGNATURE)} }}"
    yield f"  use_backend {door.names[0]}-named if proxy line or proxy binary"


def _handshakes(door: Door) -> Iterator[str]:
    yield "  tcp-request content accept if { req.ssl_hello_type 1 }"
    yield f"  use_backend {door.key}-handshakes-{CHALLENGES} if {{ req.ssl_alpn {PROTOCOL} }}"


def _to(name: str, socket: str, options: str = "") -> Iterator[str]:
    yield f"backend {name}"
    yield "  mode tcp"
    yield f"  timeout server {IDLE}"
    yield f"  server s {quoted(f'unix@{socket}')}{options}"
