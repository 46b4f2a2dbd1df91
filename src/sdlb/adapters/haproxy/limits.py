"""What HAProxy cannot do, or does otherwise, for this node's settings and policies (`GET /v1/tree`, `engine.degraded`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from sdlb.core.effects import Note
from sdlb.model.traffic import Traffic
from sdlb.seams.engine import Degraded, EngineConfig, Feature

FEATURES: frozenset[Feature] = frozenset(
    {"entry", "stamps", "children", "shares", "sticky", "parking", "sites", "access_log"}
)

_LIMITS = {
    "memory_mb": "HAProxy's own buffers bound its memory; see limits.connections",
    "body_bytes_per_s": "body_timeout_ms alone",
    "body_bytes": "for bodies with a Content-Length; others are not limited",
    "requests_burst_per_address": "requests_per_s_per_address, counted over one second",
    "response_idle_timeout_ms": "response_timeout_ms",
    "event_stream_idle_timeout_ms": "response_timeout_ms",
    "retry_budget_percent": "at most two retries a request",
    "handshake_timeout_ms": "head_timeout_ms",
}
_ALWAYS = (
    (
        "latency",
        "no latencies in metrics; blocks of this node are missing in the analysis of a canary, so its step does not pass",
    ),
    (
        "retries at child nodes",
        "a request with a body of more than 16 KiB, or of unknown length, gets 503 if its child has just lost the version",
    ),
    ("drain.streams_s", 'streams drain as other requests do, so with drain.then = "wait" until they end'),
    ("ticket_keys", "TLS sessions are resumed from the cache of one process, and not at all if a site has client_ca"),
    ("upgrades", "websocket only; other requests go on without the upgrade"),
)


_POLICIES: tuple[tuple[str, str, Callable[[Traffic], bool]], ...] = (
    ("hedge_s", "requests are not hedged", lambda each: each.hedge_s > 0),
    (
        "balance.algorithm",
        "least_requests",
        lambda each: each.balance.algorithm != "least_requests",
    ),
    ("balance.slow_start_s", "a new endpoint gets its full share at once", lambda each: each.balance.slow_start_s > 0),
    ("balance.zones", "all zones alike", lambda each: each.balance.zones != "ignore"),
    (
        "outlier",
        "passive health after consecutive failures alone",
        lambda each: each.outlier.success_deviations > 0 or each.outlier.latency_factor > 0,
    ),
    ("limits.adaptive", "no adaptive limit", lambda each: each.limits.adaptive),
    (
        "limits",
        "no limits of a service",
        lambda each: any(
            (
                each.limits.in_flight,
                each.limits.endpoint_in_flight,
                each.limits.endpoint_connections,
                each.limits.pending,
            )
        ),
    ),
    ("timeout_s", "response_timeout_ms of the node", lambda each: each.timeout_s > 0 or each.try_timeout_s > 0),
    ("retries_max", "at most two retries a request", lambda each: each.retries_max >= 0),
    ("proxy_protocol", "no PROXY protocol header is sent", lambda each: each.proxy_protocol != "off"),
)


def degraded(
    config: EngineConfig,
    services: Mapping[str, Traffic],
    *,
    lua: bool,
    limits_floods: bool,
    drops_trailers: bool,
    wildcards: Iterable[str],
    fronts: Iterable[str],
    refused: Iterable[str],
    sessions: Iterable[str] = (),
) -> list[Degraded]:
    """In a fixed order. `wildcards`: hosts of sites. `fronts`: sites with redirects, fields or pages.
    `refused`: endpoints that HAProxy cannot have, with the reason. `sessions`: services with affinity of sessions."""
    found = [Degraded(what, instead) for what, instead in _ALWAYS]
    for name, instead in _LIMITS.items():
        if name in config.limits:
            found.append(Degraded(f"limits.{name}", instead))
    instead = "they are dropped" if drops_trailers else "passed on with all fields, before HAProxy 3.2"
    found.append(Degraded("trailers of requests", instead))
    public = any(listener.public for listener in config.listeners)
    if public and not limits_floods:
        found.append(Degraded("public", "no flood limits of HTTP/2 before HAProxy 3.0"))
    if any(listener.trusted_proxies for listener in config.listeners):
        instead = "ten addresses of X-Forwarded-For; a PROXY protocol header without an address stands for 0.0.0.0"
        found.append(Degraded("listen.trusted_proxies", instead))
    if not lua:
        found.append(Degraded("parking", "503 with Retry-After: HAProxy is built without Lua"))
        found.append(Degraded("sticky", "by client only: HAProxy is built without Lua"))
    if names := tuple(sorted(set(sessions))):
        found.append(Degraded("sticky", "no cookie is set: each request is placed by the shares", names))
    for what, instead, asks in _POLICIES:
        names = tuple(sorted(name for name, traffic in services.items() if asks(traffic)))
        if names:
            found.append(Degraded(what, instead, names))
    if any(each.hardening is not None and each.hardening.refuse_encoded_paths for each in config.listeners):
        names = tuple(sorted(name for name, each in services.items() if each.path.encoded_slash == "keep"))
        if names:
            found.append(Degraded("path.encoded_slash", "paths with %2F are refused", names))
    found += [Degraded(f"site {host}", "covers one label, not several") for host in wildcards]
    found += [Degraded(f"site {key}", "no redirects, security headers and error pages") for key in fronts]
    return found + [Degraded("endpoint", why) for why in refused]


def notes(before: Iterable[Degraded], after: Iterable[Degraded]) -> list[Note]:
    """What is reported of what is new."""
    found: list[Note] = []
    known = set(before)
    new = [each for each in after if each not in known]
    for each in new:
        if each.services:
            asks = "asks" if len(each.services) == 1 else "ask"
            text = f"HAProxy does not have {each.what}, which {', '.join(each.services)} {asks} for: {each.instead}"
            found.append(Note("engine-degraded", text, "warning", {"what": each.what}))
    ours = "; ".join(f"{each.what} ({each.instead})" for each in new if not each.services)
    if ours:
        found.append(Note("engine-degraded", f"HAProxy does not have: {ours}"))
    return found
