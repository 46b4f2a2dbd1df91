"""HAProxy's configuration for other nodes: the listener for parents and children, and requests to children.

One port takes both, as with the native engine. Over mutual TLS they differ in the protocol that they ask for (ALPN): `sdlb/1` is a
parent with requests, `h2` a child that speaks with control, whose TLS is control's own (`links.py`). Without TLS a child's link
begins with the preface of HTTP/2, and a request of a parent with a line of HTTP/1.1.

A request to a child has the stamp of its group, and asks for 425 instead of 421 when the group is not there
(`sdlb-not-here: 425`), because HAProxy before 3.4 retries after 425 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from sdlb.adapters.haproxy.names import CAS, IDENTITY, NODE, SLOT, UNSAFE, quoted

LINKS, PARENTS = "links", "parents"
"""Sockets beside the configuration: of control's TLS for children, and between the port and the rules for requests."""
PREFACE = b"PRI * HTTP/2.0"
IDLE = "3600s"
CHILD = f"{{ var(txn.n),field(4,|) -m str {NODE} }}"
"""The chosen slot is one of child nodes."""
RETRIED_UNSAFE = "conn-failure 425"
BODY_BYTES = 16384
"""Of a body that surely fits in a buffer beside the head."""
GONE = "{ res.hdr(sdlb-not-here) -m found }"


class Listener(Struct, frozen=True):
    """`lua`: HAProxy has the program of `lua.py`."""

    address: str
    control_socket: str
    tls: bool
    lua: bool
    limits: Mapping[str, int]


def port(listener: Listener) -> Iterator[str]:
    """Tells children and parents apart."""
    child = "req.ssl_alpn h2" if listener.tls else f"req.payload(0,{len(PREFACE)}) -m bin {PREFACE.hex()}"
    spoke = "req.ssl_hello_type 1" if listener.tls else f"req.len ge {len(PREFACE)}"
    control = LINKS if listener.tls else listener.control_socket
    yield "frontend port"
    yield "  mode tcp"
    yield f"  bind {listener.address}"
    yield f"  timeout client {IDLE}"
    yield "  tcp-request inspect-delay 10s"
    yield f"  tcp-request content accept if {{ {spoke} }}"
    yield f"  use_backend children if {{ {child} }}"
    yield "  default_backend parents"
    for name, path, options in (("children", control, ""), ("parents", PARENTS, " send-proxy-v2")):
        yield f"backend {name}"
        yield "  mode tcp"
        yield f"  timeout server {IDLE}"
        yield f"  server s {quoted(f'unix@{path}')}{options}"


def requests(listener: Listener, pseudonym: str, refused: Iterable[str], not_stamped: str, safe: str) -> Iterator[str]:
    """Requests of parents. `pseudonym`: of this node, for `Via`. `refused`: rules for what no listener takes. `not_stamped`: the answer
    without a stamp. `safe`: methods that may be repeated."""
    tls = ""
    if listener.tls:
        # A native parent waits for the first bytes of a child, and HAProxy for its parent's: so they agree on the second name.
        tls = (
            f" ssl crt {IDENTITY} ca-file {CAS} verify required ssl-min-ver TLSv1.3 no-tls-tickets"
            " alpn sdlb/1-preface,sdlb/1 proto h2"
        )
    yield "frontend node"
    yield f"  bind unix@{PARENTS} accept-proxy mode 600{tls}"
    if listener.tls:
        # A session of a listener for clients can be resumed here; it has no certificate.
        yield "  tcp-request session reject unless { ssl_c_used }"
    yield f"  timeout http-keep-alive {IDLE}"
    yield "  http-request set-var(txn.m) method"
    yield "  http-request set-var(txn.t) url"
    yield "  http-request set-var(txn.id) req.hdr(x-request-id)"
    yield '  http-request set-var(txn.h) "req.hdr(host),lower"'
    yield from refused
    yield f"  {not_stamped} unless {{ req.hdr_cnt(sdlb-to) eq 1 }}"
    yield "  http-request set-var(txn.early) req.hdr(sdlb-not-here)"
    yield "  http-request set-var(txn.st) req.fhdr(sdlb-to),url_enc,map_str(stamps.map)"
    yield "  http-request set-var(txn.g) var(txn.st),field(1,.)"
    two = "{ var(txn.st) -m sub . }"
    # Instances and child nodes: the second slot gets its part of the draws, and each is the other's replacement.
    yield f"  http-request set-var(txn.o) var(txn.st),field(2,.) if {two}"
    yield f"  http-request set-var(txn.cut) var(txn.st),field(3,.) if {two}"
    yield f"  http-request set-var(txn.second) bool(true) if {two} {{ rand(10000),sub(txn.cut) ge 0 }}"
    yield "  http-request set-var(txn.g) var(txn.st),field(2,.) if { var(txn.second) -m bool }"
    yield "  http-request set-var(txn.o) var(txn.st),field(1,.) if { var(txn.second) -m bool }"
    yield "  http-request set-var(txn.up) var(txn.g),nbsrv if { var(txn.g) -m found }"
    other = f"{two} !{{ var(txn.up) -m int gt 0 }}"
    yield f"  http-request set-var(txn.g) var(txn.o) if {other}"
    yield f"  http-request set-var(txn.up) var(txn.g),nbsrv if {other}"
    # In a worker that leaves, every backend counts as down, and still serves.
    yield "  http-request set-var(txn.up) int(1) if { stopping } { var(txn.g) -m found }"
    up = "{ var(txn.up) -m int gt 0 }"
    if listener.lua:
        yield f"  http-request lua.sdlb_settle if !{up} !{safe} {{ var(txn.early) -m str 425 }}"
    for status, asks in ((425, " { var(txn.early) -m str 425 }"), (421, "")):
        yield f"  http-request return status {status} hdr sdlb-not-here 1 if !{up}{asks}"
    yield "  http-request set-var(txn.n) var(txn.g),map_str(names.map)"
    yield f"  http-request del-header ^sdlb- -m reg unless {CHILD}"
    yield f"  http-request set-header sdlb-not-here 425 if {CHILD}"
    yield f'  http-request add-header via "1.1 {pseudonym}"'
    yield from retried(safe, listener.limits)
    yield f"  http-response set-status 421 if {CHILD} {GONE} !{{ var(txn.early) -m str 425 }}"
    yield f"  http-response allow if {CHILD} {GONE}"
    yield "  http-response del-header ^sdlb- -m reg"
    yield unsafe(safe)
    yield "  use_backend %[var(txn.g)]"


def retried(safe: str, limits: Mapping[str, int]) -> Iterator[str]:
    """A child that says that the group is not there has read nothing, so any request may be sent to another one. HAProxy can do that
    with bodies that it has as a whole before it begins."""
    yield f"  http-request disable-l7-retry unless {safe} or {CHILD}"
    length = "req.hdr_val(content-length)"
    small = f"{{ {length} gt 0 }} {{ {length} le {BODY_BYTES} }}"
    yield f"  http-request wait-for-body time {limits.get('body_timeout_ms', 30000)}ms if {CHILD} {small}"


def unsafe(safe: str) -> str:
    """Which backend has the children for requests that may not be repeated after a connection was closed."""
    return f"  use_backend %[var(txn.g),regsub(^{SLOT},{UNSAFE})] if {CHILD} !{safe}"


def stamped(unavailable: str, failed: str) -> Iterator[str]:
    """At an entry, for requests to child nodes. `unavailable`: the answer when no child has the group after all; `failed`: when it is
    there, and its instances cannot be reached or close their connections."""
    service, version, route = (f"%[var(txn.n),field({at},|),url_dec]" for at in (1, 2, 3))
    yield f'  http-request set-header sdlb-to "{service}/{version} {route}" if {CHILD}'
    yield f"  http-request set-header sdlb-not-here 425 if {CHILD}"
    # Nodes take canonical hosts only.
    yield f"  http-request set-var(txn.port) req.hdr(host),field(-1,:) if {CHILD} {{ req.hdr(host) -m reg :[1-9][0-9]{{0,4}}$ }}"
    yield f"  http-request set-header host %[var(txn.h)] if {CHILD}"
    yield f"  http-request set-header host %[var(txn.h)]:%[var(txn.port)] if {CHILD} {{ var(txn.port) -m found }}"
    yield f"  http-response {failed} if {CHILD} {GONE} !{{ res.hdr(sdlb-not-here) -m str 1 full }}"
    yield f"  http-response {unavailable} if {CHILD} {GONE}"
    yield "  http-response del-header ^sdlb- -m reg"


def loaded() -> Iterator[str]:
    """Servers that are added later may use only the files that another one has loaded."""
    yield "backend identity"
    yield f"  server s 127.0.0.1:1 disabled ssl crt {IDENTITY} ca-file {CAS} verify required"
