"""HAProxy's configuration: a pure function of settings.

It has numbered backends (`g1`, `g2`, ...), each one a slot for a group (service, version, route), and no name of a user:
routes, versions and stamps are in maps, which change at run time (`tables.py`). A request is routed in this order:

1. Fields that only an entry sets are removed, host and path are made canonical or refused (`model/route.py`).
2. The route: the exact host, then the 8 longest wildcards, then any host; at each the exact path, then the longest prefix.
3. The version: the draw's longest prefix (`draws.py`). Routes with several versions have an id that begins with `m`.
4. Without an endpoint: the Lua action waits (`lua.py`); then 503 with Retry-After.

A request from a parent has a stamp, which names the group. The rules of the listener for nodes are in `node_rules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field

from sdlb.adapters.haproxy import doors, node_rules
from sdlb.adapters.haproxy.names import SLOT, UNSAFE, quoted
from sdlb.model.acme import WELL_KNOWN
from sdlb.model.hardening import Hardening

LEVELS = 8
"""Wildcards of up to so many labels are looked up: `*.a.example.com` has three."""
MAPS = ("exact", "prefix", "picks", "parks", "sticky", "hosts", "names", "stamps", "meta", "acme")
BY_PREFIX = ("prefix", "picks")
CONFIG, LUA, CRT_LIST, SITES = "haproxy.cfg", "wait.lua", "sites.list", "sites.map"
PROTECTED = "ca"
"""Ends the number of a site with client_ca in the map of sites."""
MASTER, LOG = "cli", "log"
LOG_FIELDS = ("id", "m", "h", "t", "n")
RETRY_AFTER_S = 1
HOPS_MAX, RANGES_MAX = 16, 64
HEADROOM_BYTES = 1024
GLITCHES_MAX = 1000
"""A connection of HTTP/2 with more of what only attacks have many of is closed."""
RESETS_AT_ONCE = 10
DROP_TRAILERS = "option http-drop-request-trailers"
_HOST = r"^(([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?|\[[0-9a-f:.]{2,45}\])$"
_METHOD = r"^[A-Z][A-Z0-9_-]{0,31}$"
_BAD_TARGET = r'["<>\\^`#]|[^!-~]'
_HIDDEN_DOTS = r"(/|%2F)\.\.?%2F|%2F\.\.?(/|%2F|$)"
_REQUEST_ID = r"^[A-Za-z0-9._-]{1,128}$"
_SAFE = "{ method GET HEAD PUT DELETE OPTIONS TRACE }"
_OURS = r"^(sdlb-|x-forwarded-|x-real-ip$|forwarded$)"
_ALIASES = r"^(sdlb|x[._-]forwarded|x[._-]real[._-]ip$|x[._-]request[._-]id$)"
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)


class Bind(Struct, frozen=True):
    """`key`: "http", "https" or "node", as in `seams.engine.Listener`. The others are those of `doors.Door`."""

    key: str
    address: str
    hardening: Hardening = Hardening()
    trusted: Sequence[str] = ()
    challenges: bool = False

    @property
    def door(self) -> doors.Door:
        return doors.Door(self.key, self.address, self.trusted, self.challenges)


class ServerLine(Struct, frozen=True):
    """A server that is in the files because of a reload. `words`: as in `add server`."""

    name: str
    words: str


class Settings(Struct, frozen=True):
    """`pseudonym`: what `Via` names the node by. `folder`: absolute path of the generated files. `limits`: names as in engine.proto.
    `groups`: number of slots. `strict_sni`: a name without a site is refused. `client_ca`: a site verifies certificates of clients.
    `control_socket`: gets the links of child nodes. `lua` to `drops_trailers`: what HAProxy can do (`program.py`)."""

    node: str
    pseudonym: str
    folder: str
    binds: Sequence[Bind]
    groups: int
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    threads: int = 0
    connections: int = 0
    lua: bool = True
    limits_floods: bool = False
    slows_resets: bool = False
    drops_trailers: bool = False
    access_log: bool = False
    strict_sni: bool = True
    client_ca: bool = False
    node_tls: bool = False
    control_socket: str = ""


def configuration(settings: Settings, servers: Mapping[str, Sequence[ServerLine]]) -> str:
    """The text of the file. `servers`: by their backend."""
    lines = [*_global(settings), "", *_defaults(settings)]
    for bind in settings.binds:
        lines += ["", *(_node(settings, bind) if bind.key == "node" else _entry(settings, bind))]
    if settings.node_tls:
        lines += ["", *node_rules.loaded()]
    # Maps that no other rule names are known to commands only if one does.
    known = [f"  http-request set-var(txn.x) str(x),map_str({name}.map)" for name in MAPS if name not in BY_PREFIX]
    lines += ["", "backend none", *known, *_unavailable(settings)]
    for name, stored in (("addresses", "conn_cur"), ("named", "conn_cur"), ("rates", "http_req_rate(1s)")):
        lines += ["", f"backend {name}", f"  stick-table type ipv6 size 100k expire 1m store {stored}"]
    lines += ["", "backend draws", "  stick-table type string len 24 size 100k expire 1h store gpc0"]
    for slot in range(1, settings.groups + 1):
        for kind, rule in ((SLOT, ()), (UNSAFE, (f"  retry-on {node_rules.RETRIED_UNSAFE}",))):
            lines += [f"backend {kind}{slot}", *rule]
            lines += [f"  server {server.name} {server.words}" for server in servers.get(f"{kind}{slot}", ())]
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------ process


def _global(settings: Settings) -> Iterator[str]:
    limits = settings.limits
    yield "# Written by sdlb; do not edit."
    yield "global"
    yield "  expose-experimental-directives"
    yield "  no strict-limits"
    if settings.connections:
        yield f"  maxconn {settings.connections}"
    if settings.threads:
        yield f"  nbthread {settings.threads}"
    yield f"  tune.bufsize {max(16384, limits.get('head_bytes', 65536)) + HEADROOM_BYTES}"
    yield f"  tune.http.maxhdr {max(101, min(32767, limits.get('fields', 100) + 1))}"
    if streams := limits.get("http2_streams", 128):
        yield f"  tune.h2.max-concurrent-streams {streams}"
    if settings.limits_floods:
        yield f"  tune.h2.fe.glitches-threshold {GLITCHES_MAX}"
    if settings.slows_resets:
        yield f"  tune.h2.fe.max-rst-at-once {RESETS_AT_ONCE}"
    if handshakes := limits.get("handshakes"):
        yield f"  maxsslrate {handshakes}"
    yield f"  ssl-default-bind-ciphers {CIPHERS}"
    yield "  ssl-default-bind-curves X25519:P-256:P-384"
    yield "  ssl-default-bind-options ssl-min-ver TLSv1.2 prefer-client-ciphers no-tls-tickets"
    # All sites share the cache. A resumed session has no handshake, in which a site with client_ca could ask for a certificate.
    if settings.client_ca or any(not bind.hardening.session_tickets for bind in settings.binds):
        yield "  tune.ssl.cachesize 0"
    if settings.lua:
        yield f"  lua-load {LUA}"
    if settings.access_log:
        yield f"  log {quoted(f'{settings.folder}/{LOG}')} len 16384 format raw local0"


def _defaults(settings: Settings) -> Iterator[str]:
    limits = settings.limits
    yield "defaults"
    yield "  mode http"
    yield "  balance random(2)"
    yield "  option dontlognull"
    yield "  option allbackups"
    yield "  option http-keep-alive"
    if settings.drops_trailers:
        # No rule sees them, so they could have fields that only an entry sets.
        yield f"  {DROP_TRAILERS}"
    yield "  http-reuse safe"
    yield "  retries 2"
    yield "  option redispatch 1"
    yield "  retry-on conn-failure empty-response 425"
    yield f"  timeout connect {limits.get('connect_timeout_ms', 2000)}ms"
    yield f"  timeout http-request {limits.get('head_timeout_ms', 10000)}ms"
    yield f"  timeout http-keep-alive {limits.get('idle_timeout_ms', 60000)}ms"
    yield f"  timeout client {limits.get('body_timeout_ms', 30000)}ms"
    yield f"  timeout server {limits.get('response_timeout_ms', 60000)}ms"
    yield f"  timeout queue {limits.get('response_timeout_ms', 60000)}ms"
    yield f"  timeout tunnel {limits.get('upgrade_idle_timeout_ms', 3600000)}ms"
    for status, kind, title, detail, more in (
        (400, "malformed-request", "Bad Request", "The request was refused.", ""),
        (408, "head-timeout", "Request Timeout", "The request did not arrive in time.", ""),
        (502, "endpoint-failed", "Bad Gateway", "The endpoint failed.", ""),
        (
            503,
            "nothing-ready",
            "Service Unavailable",
            "No endpoint can be reached.",
            f" hdr Retry-After {RETRY_AFTER_S}",
        ),
        (504, "endpoint-timeout", "Gateway Timeout", "The endpoint did not respond in time.", ""),
    ):
        body = _problem(settings, kind, title, status, detail)
        yield f"  http-error status {status} content-type application/problem+json string {body}{more}"
    if settings.access_log:
        yield "  log global"
        values = " ".join(f"%[var(txn.{name}),url_enc]" for name in LOG_FIELDS)
        yield f'  log-format "{settings.node} %f %ci %ST %B %Tu %rc %ts %b %s %Ts.%ms {values}"'


def _problem(settings: Settings, kind: str, title: str, status: int, detail: str) -> str:
    """A problem document as a word of the configuration. The node's name has only letters, digits, `.`, `_` and `-`."""
    text = (
        f'{{"type":"https://sdlb.dev/problems/{kind}","title":"{title}","status":{status},'
        f'"detail":"{detail}","node":"{settings.node}"}}\\n'
    )
    return '"' + text.replace('"', '\\"') + '"'


def _answer(settings: Settings, status: int, kind: str, title: str, detail: str, more: str = "") -> str:
    body = _problem(settings, kind, title, status, detail)
    return f"http-request return status {status} content-type application/problem+json string {body}{more}"


def _unavailable(settings: Settings) -> Iterator[str]:
    yield f"  http-request {_unavailable_answer(settings)}"


def _unavailable_answer(settings: Settings) -> str:
    answer = _answer(settings, 503, "nothing-ready", "Service Unavailable", "No version of the service is ready.")
    more = f" hdr Retry-After {RETRY_AFTER_S} hdr Cache-Control no-store"
    return answer.removeprefix("http-request ") + more


# ------------------------------------------------------------------ clients


def _entry(settings: Settings, bind: Bind) -> Iterator[str]:
    tls = bind.key == "https"
    yield from doors.frontends(bind.door, settings.limits)
    yield f"frontend {bind.key}"
    yield f"  bind {bind.door.bind(bind.key)}{_tls(settings) if tls else ''}"
    yield from doors.proxies(bind.trusted)
    if bind.trusted or bind.key == bind.door.names[0]:
        yield from doors.connections(bind.door, settings.limits, named=bool(bind.trusted))
    yield from doors.client(bind.trusted, "https" if tls else "http")
    yield from _requests(settings)
    yield from _canonical(settings, bind)
    if tls:
        yield from _same_site(settings)
    else:
        challenge = f"{{ path -m beg {WELL_KNOWN} }}"
        yield f"  http-request set-var(txn.a) var(txn.h),concat(,txn.p),url_enc,map_str(acme.map) if {challenge}"
        answer = 'return status 200 content-type application/octet-stream lf-string "%[var(txn.a),url_dec]"'
        yield f"  http-request {answer} if {{ var(txn.a) -m found }}"
        if bind.hardening.redirect_to_https:
            yield from _site_of("s2", "var(txn.h)")
            port = next((each.address for each in settings.binds if each.key == "https"), ":443").rpartition(":")[2]
            ours = f"!{{ var(txn.s2) -m str none }} !{{ var(txn.scheme) -m str https }} !{challenge}"
            # A client that names a port has reached that one, so nothing between changes them.
            if port != "443":
                named = "{ req.hdr(host) -m reg :[0-9]+$ }"
                yield f"  http-request redirect prefix https://%[var(txn.h)]:{port} code 308 if {ours} {named}"
            yield f"  http-request redirect prefix https://%[var(txn.h)] code 308 if {ours}"
        if settings.client_ca:
            # Only TLS with this very node shows a client certificate, whatever a proxy in front has had.
            yield from _site_of("s3", "var(txn.h)", labels=LEVELS)
            detail = "The host is served over TLS only: its site verifies certificates of clients."
            answer = _answer(settings, 421, "misdirected", "Misdirected Request", detail)
            yield f"  {answer} if {{ var(txn.s3) -m end {PROTECTED} }}"
    yield from _fields(settings, bind)
    yield from _route()
    yield "  http-request set-var(txn.d) str(10000)"
    if settings.lua:
        yield "  http-request set-var(txn.s) lua.sdlb_sticky if { var(txn.r),map_str(sticky.map) -m found }"
        yield "  http-request set-var(txn.d) var(txn.s),xxh32(0),mod(10000),add(10000) if { var(txn.s) -m len gt 0 }"
    else:
        yield "  http-request set-var(txn.s) src if { var(txn.r),map_str(sticky.map) -m beg client }"
        yield "  http-request set-var(txn.d) src,xxh32(0),mod(10000),add(10000) if { var(txn.s) -m found }"
    # A counter instead of chance: of 10,000 requests in a row each draws another number, because 6181 and 10,000 have no
    # common divisor.
    yield "  http-request track-sc0 var(txn.r) table draws if { var(txn.r) -m beg m } !{ var(txn.s) -m len gt 0 }"
    yield (
        "  http-request set-var(txn.d) sc_inc_gpc0(0),mul(6181),mod(10000),add(10000)"
        " if { var(txn.r) -m beg m } !{ var(txn.s) -m len gt 0 }"
    )
    yield "  http-request set-var(txn.g) var(txn.r),concat(.,txn.d),map_beg(picks.map)"
    yield "  http-request set-var(txn.up) var(txn.g),nbsrv if { var(txn.g) -m found }"
    # In a worker that leaves, every backend counts as down, and still serves.
    yield "  http-request set-var(txn.up) int(1) if { stopping } { var(txn.g) -m found }"
    waits = "!{ var(txn.up) -m int gt 0 }"
    if settings.lua:
        yield f"  http-request lua.sdlb_wait if {waits}"
    yield from _no_route(settings)
    yield "  http-request set-var(txn.n) var(txn.g),map_str(names.map) if { var(txn.g) -m found }"
    failed = _answer(settings, 502, "endpoint-failed", "Bad Gateway", "The endpoint failed.")
    yield f"  {failed.replace('request', 'response', 1)} if {{ status 101 }} !{{ var(txn.ws) -m bool }}"
    yield from node_rules.retried(_SAFE, settings.limits)
    yield from node_rules.stamped(_unavailable_answer(settings), failed.removeprefix("http-request "))
    yield node_rules.unsafe(_SAFE)
    yield "  use_backend %[var(txn.g)] if { var(txn.g) -m found }"
    yield "  default_backend none"


def _requests(settings: Settings) -> Iterator[str]:
    """The limit for each client address; IPv6 addresses are counted by /64."""
    requests = settings.limits.get("requests_per_s_per_address")
    if requests:
        detail = "This client sends more requests than this node accepts."
        answer = _answer(settings, 429, "too-many-requests", "Too Many Requests", detail)
        yield "  http-request track-sc2 src,ipmask(32,64) table rates"
        yield f"  {answer} hdr Retry-After {RETRY_AFTER_S} if {{ sc2_http_req_rate gt {requests} }}"


def _tls(settings: Settings) -> str:
    strict = " strict-sni" if settings.strict_sni else ""
    return f" ssl crt-list {CRT_LIST} alpn h2,http/1.1{strict}"


def _refused(settings: Settings) -> Iterator[str]:
    """What every listener refuses, with the bounds of the native engine (`conn/facts.rs`)."""
    version = _answer(settings, 505, "malformed-request", "HTTP Version Not Supported", "The request was refused.")
    yield f"  {version} if {{ fc_http_major 1 }} !{{ req.ver 1.0 1.1 }}"
    malformed = _answer(settings, 400, "malformed-request", "Bad Request", "The request was refused.")
    yield f"  {malformed} if !{{ method -m reg {quoted(_METHOD)} }}"
    loop = _answer(settings, 508, "loop", "Loop Detected", "The request passed this node before, or too many nodes.")
    hop = quoted(rf"^[^ ]+[[:space:]]+{re.escape(settings.pseudonym)}([[:space:]]|$)")
    yield f"  {loop} if {{ req.hdr(via) -m reg {hop} }} or {{ req.hdr_cnt(via) gt {HOPS_MAX} }}"
    ranges = _answer(settings, 416, "too-many-ranges", "Range Not Satisfiable", "The request has too many ranges.")
    yield f"  {ranges} if {{ req.hdr_cnt(range) gt {RANGES_MAX} }}"


def _canonical(settings: Settings, bind: Bind) -> Iterator[str]:
    yield "  http-request set-var(txn.m) method"
    yield "  http-request set-var(txn.t) url"
    given = f"{{ req.hdr(x-request-id) -m reg {quoted(_REQUEST_ID)} }}"
    yield "  http-request set-var(txn.id) uuid"
    if not bind.hardening.replace_request_ids:
        yield f"  http-request set-var(txn.id) req.hdr(x-request-id) if {given}"
    yield from _refused(settings)
    malformed = _answer(settings, 400, "malformed-request", "Bad Request", "The request was refused.")
    yield f"  {malformed} if !{{ req.hdr_cnt(host) eq 1 }}"
    yield r'  http-request set-var(txn.h) "req.hdr(host),lower,regsub(:[0-9]*\$,),regsub([.]\$,)"'
    yield f"  {malformed} if !{{ var(txn.h) -m reg {quoted(_HOST)} }} or {{ var(txn.h) -m len gt 253 }}"
    yield f"  {malformed} if {{ url -m reg {quoted(_BAD_TARGET)} }}"
    yield "  http-request normalize-uri percent-decode-unreserved strict"
    yield "  http-request normalize-uri percent-to-uppercase strict"
    yield "  http-request normalize-uri path-strip-dot"
    yield "  http-request normalize-uri path-strip-dotdot full"
    yield "  http-request set-var(txn.p) path"
    yield f"  {malformed} if !{{ path -m beg / }} or {{ path -m reg {quoted(_HIDDEN_DOTS)} }}"
    if bind.hardening.refuse_encoded_paths:
        yield f"  {malformed} if {{ path -m sub %2F %5C %00 }}"
    if body := settings.limits.get("body_bytes"):
        large = _answer(
            settings, 413, "body-too-large", "Content Too Large", "The body is larger than this node accepts."
        )
        yield f"  {large} if {{ req.body_size gt {body} }}"


def _site_of(name: str, host: str, *, labels: int = 0) -> Iterator[str]:
    """Sets the variable to the site of the host in the map, or `none`: the exact host, then its wildcard, then any host. `labels`: a
    wildcard stands for several, and has at most so many itself."""
    yield f"  http-request set-var(txn.{name}) str(none)"
    yield f"  http-request set-var(txn.{name}) str(*),url_enc,map_str({SITES})"
    for level in range(1, labels + 1):
        under = f"{{ {host},field(-{level + 1},.) -m len gt 0 }}"
        yield f"  http-request set-var(txn.w) {host},field(-1,.,{level}) if {under}"
        yield f"  http-request set-var(txn.{name}) str(*.),concat(,txn.w),url_enc,map_str({SITES}) if {under}"
    yield f'  http-request set-var(txn.{name}) "{host},regsub(^[^.]*,*),url_enc,map_str({SITES})"'
    yield f"  http-request set-var(txn.{name}) {host},url_enc,map_str({SITES})"


def _same_site(settings: Settings) -> Iterator[str]:
    """The name of the handshake and the host must belong to the same site, as HAProxy chooses certificates: a client certificate
    of one site proves nothing for another."""
    for name, host in (("s1", "ssl_fc_sni,lower"), ("s2", "var(txn.h)")):
        yield from _site_of(name, host)
    detail = "The host does not belong to the site of the TLS handshake."
    answer = _answer(settings, 421, "misdirected", "Misdirected Request", detail)
    yield f"  {answer} unless {{ var(txn.s1),strcmp(txn.s2) eq 0 }}"


def _fields(settings: Settings, bind: Bind) -> Iterator[str]:
    yield f"  http-request del-header {quoted(_OURS)} -m reg"
    yield f"  http-request del-header {quoted(_ALIASES)} -m reg"
    if bind.hardening.drop_underscore_fields:
        yield "  http-request del-header _ -m sub"
    # A tunnel of HTTP/2 (h2c) would carry requests past all rules.
    one = "{ req.hdr_cnt(upgrade) eq 1 } { req.hdr(upgrade) -m str -i websocket }"
    yield f"  http-request set-var(txn.ws) bool(true) if {one}"
    other = "!{ var(txn.ws) -m bool }"
    yield f"  http-request del-header connection if {{ req.hdr(connection) -m str -i upgrade http2-settings }} {other}"
    yield f"  http-request del-header upgrade if {other}"
    yield "  http-request del-header http2-settings"
    if bind.hardening.hsts_s:
        given = "{ res.hdr(strict-transport-security) -m found }"
        age = bind.hardening.hsts_s
        tls = "{ var(txn.scheme) -m str https }"
        yield f"  http-after-response set-header strict-transport-security max-age={age} if {tls} !{given}"
    scheme = "%[var(txn.scheme)]"
    yield "  http-request set-header x-forwarded-for %[src]"
    yield "  http-request set-header x-real-ip %[src]"
    yield f"  http-request set-header x-forwarded-proto {scheme}"
    yield "  http-request set-header x-forwarded-host %[var(txn.h)]"
    yield f'  http-request set-header forwarded "for=%[src];host=\\"%[var(txn.h)]\\";proto={scheme}" if !{{ src -m sub : }}'
    yield (
        f'  http-request set-header forwarded "for=\\"[%[src]]\\";host=\\"%[var(txn.h)]\\";proto={scheme}"'
        " if { src -m sub : }"
    )
    yield "  http-request set-header x-request-id %[var(txn.id)]"
    yield f'  http-request add-header via "1.1 {settings.pseudonym}"'


def _route() -> Iterator[str]:
    known = "{ var(txn.r) -m found }"
    for kind, match in (("exact", "str"), ("prefix", "beg")):
        yield f"  http-request set-var(txn.r) var(txn.h),concat(,txn.p),url_enc,map_{match}({kind}.map) unless {known}"
    for level in range(LEVELS, 0, -1):
        under = f"{{ var(txn.h),field(-{level + 1},.) -m len gt 0 }}"
        yield f"  http-request set-var(txn.w) var(txn.h),field(-1,.,{level}) if !{known} {under}"
        for kind, match in (("exact", "str"), ("prefix", "beg")):
            key = "str(*.),concat(,txn.w),concat(,txn.p),url_enc"
            yield f"  http-request set-var(txn.r) {key},map_{match}({kind}.map) if !{known} {under}"
    for kind, match in (("exact", "str"), ("prefix", "beg")):
        yield f"  http-request set-var(txn.r) str(*),concat(,txn.p),url_enc,map_{match}({kind}.map) unless {known}"


def _no_route(settings: Settings) -> Iterator[str]:
    """404 for a host of which another path has a route, else 421."""
    known = "{ var(txn.r) -m found }"
    yield f"  http-request set-var(txn.x) var(txn.h),url_enc,map_str(hosts.map) unless {known}"
    for level in range(LEVELS, 0, -1):
        under = f"{{ var(txn.h),field(-{level + 1},.) -m len gt 0 }}"
        yield f"  http-request set-var(txn.w) var(txn.h),field(-1,.,{level}) if !{known} {under}"
        yield f"  http-request set-var(txn.x) str(*.),concat(,txn.w),url_enc,map_str(hosts.map) if !{known} {under}"
    yield f"  http-request set-var(txn.x) str(*),url_enc,map_str(hosts.map) unless {known}"
    here = _answer(settings, 404, "no-route", "Not Found", "No service claims this path.")
    other = _answer(settings, 421, "wrong-host", "Misdirected Request", "This host is not served here.")
    yield f"  {here} if !{known} {{ var(txn.x) -m found }}"
    yield f"  {other} unless {known}"


# ------------------------------------------------------------------ nodes


def _node(settings: Settings, bind: Bind) -> Iterator[str]:
    where = node_rules.Listener(bind.address, settings.control_socket, settings.node_tls, settings.lua, settings.limits)
    not_stamped = _answer(settings, 421, "not-stamped", "Misdirected Request", "This address is for nodes only.")
    yield from node_rules.port(where)
    yield ""
    yield from node_rules.requests(where, settings.pseudonym, _refused(settings), not_stamped, _SAFE)
