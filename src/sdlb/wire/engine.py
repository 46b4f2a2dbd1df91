"""Conversion between control and engine: core effects to proto/engine.proto, and parts of its messages to core events."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from google.protobuf.message import DecodeError
from msgspec.structs import asdict

from sdlb.core.effects import Apply, EndpointPut, Pick, RoutePut, ServicePut, UpstreamPut
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey
from sdlb.model.acme import HTTP, ChallengeAnswer
from sdlb.model.hardening import Hardening
from sdlb.model.site import Site, SiteState, TicketKey
from sdlb.seams.engine import EngineConfig
from sdlb.wire import engine_pb2 as pb
from sdlb.wire.limits import U32_MAX

__all__ = [
    "DecodeError",
    "endpoint_key",
    "site_states",
    "to_challenges",
    "to_configure",
    "to_delta",
    "to_sites",
    "to_ticket_keys",
]

_STICKY = {
    "cookie": pb.Sticky.COOKIE,
    "header": pb.Sticky.HEADER,
    "client": pb.Sticky.CLIENT,
    "session": pb.Sticky.SESSION,
}
_PROTOCOLS = {"http1": pb.Target.HTTP1, "h2c": pb.Target.H2C}
_KINDS = {"http": pb.Listener.ENTRY, "https": pb.Listener.ENTRY, "node": pb.Listener.NODE}


def endpoint_key(key: pb.MemberKey) -> EndpointKey:
    return EndpointKey(ClaimKey(key.service, key.version, key.pattern), key.target)


def _key(key: EndpointKey) -> pb.MemberKey:
    return pb.MemberKey(
        service=key.claim.service, version=key.claim.version, pattern=key.claim.route, target=key.target
    )


def _target(target: UpstreamPut) -> pb.Target:
    kind = pb.Target.NODE if target.is_node else pb.Target.INSTANCE
    return pb.Target(key=target.key, kind=kind, address=target.address, protocol=_PROTOCOLS[target.protocol])


def _member(member: EndpointPut) -> pb.Member:
    """Cuts the capacity to 32 bits, as the engine counts. The capacity of a child is a sum without a bound."""
    capacity = min(member.capacity, U32_MAX)
    return pb.Member(key=_key(member.key), capacity=capacity, last_resort=member.last_resort, far=member.far)


def _pick(pick: Pick) -> pb.Pick:
    return pb.Pick(version=pick.version, tier=pick.tier, weight=pick.weight, ends_sessions=pick.ends_sessions)


def _route(route: RoutePut) -> pb.Route:
    picks = [_pick(pick) for pick in route.picks]
    message = pb.Route(pattern=route.pattern, service=route.service, picks=picks)
    if route.park_requests_max:
        message.park.requests_max = route.park_requests_max
        message.park.timeout_ms = round(route.park_timeout_s * 1000)
    if route.sticky_by:
        message.sticky.by = _STICKY[route.sticky_by]
        message.sticky.name = route.sticky_name
    return message


_PROXY_PROTOCOLS = {"off": pb.Service.OFF, "v1": pb.Service.V1, "v2": pb.Service.V2}
_ALGORITHMS = {
    "least_requests": pb.Balance.LEAST_REQUESTS,
    "peak_ewma": pb.Balance.PEAK_EWMA,
    "prequal": pb.Balance.PREQUAL,
    "round_robin": pb.Balance.ROUND_ROBIN,
    "hash": pb.Balance.HASH,
}
_HASH_BY = {
    "client": pb.Balance.CLIENT,
    "header": pb.Balance.HEADER,
    "cookie": pb.Balance.COOKIE,
    "path": pb.Balance.PATH,
}


def _service(put: ServicePut) -> pb.Service:
    traffic = put.traffic
    balance, outlier, limits = traffic.balance, traffic.outlier, traffic.limits
    message = pb.Service(
        name=put.name,
        balance=pb.Balance(
            algorithm=_ALGORITHMS[balance.algorithm],
            hash_by=_HASH_BY[balance.hash_by],
            hash_name=balance.hash_name,
            hash_load_percent=_percent(balance.hash_load),
            slow_start_ms=_ms(balance.slow_start_s),
            near_first=balance.zones == "prefer",
        ),
        outlier=pb.Outlier(
            success_deviations_percent=_percent(outlier.success_deviations),
            latency_factor_percent=_percent(outlier.latency_factor),
            ejected_percent_max=outlier.ejected_percent_max,
            interval_ms=_ms(outlier.interval_s),
            requests_min=outlier.requests_min,
        ),
        limits=pb.ServiceLimits(
            in_flight=limits.in_flight,
            endpoint_in_flight=limits.endpoint_in_flight,
            endpoint_connections=limits.endpoint_connections,
            pending=limits.pending,
            pending_timeout_ms=_ms(limits.pending_timeout_s),
            adaptive=limits.adaptive,
            body_bytes=limits.body_bytes,
        ),
        timeout_ms=_ms(traffic.timeout_s),
        try_timeout_ms=_ms(traffic.try_timeout_s),
        hedge_ms=_ms(traffic.hedge_s),
        proxy_protocol=_PROXY_PROTOCOLS[traffic.proxy_protocol],
        keep_encoded_slash=traffic.path.encoded_slash == "keep",
    )
    if traffic.retries_max >= 0:
        message.retries_max = traffic.retries_max
    return message


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _percent(share: float) -> int:
    return round(share * 100)


def to_cut(endpoints: Iterable[EndpointKey], *, streams_only: bool) -> pb.ToEngine:
    """The message `Cut`."""
    return pb.ToEngine(cut=pb.Cut(members=[_key(key) for key in endpoints], streams_only=streams_only))


def to_delta(delta: Apply) -> pb.ToEngine:
    """The message `Delta`."""
    message = pb.Delta(
        epoch=delta.epoch,
        replace=delta.replace,
        put_targets=[_target(target) for target in delta.put_upstreams],
        put_members=[_member(member) for member in delta.put_endpoints],
        put_routes=[_route(route) for route in delta.put_routes],
        delete_members=[_key(key) for key in delta.delete_endpoints],
        delete_routes=delta.delete_routes,
        delete_targets=delta.delete_upstreams,
        put_services=[_service(put) for put in delta.put_services],
        delete_services=delta.delete_services,
    )
    return pb.ToEngine(delta=message)


def to_configure(config: EngineConfig, settle_s: float = 0.0) -> pb.ToEngine:
    """The message `Configure`. `settle_s`: time during which the table may still lack routes."""
    listeners = [
        pb.Listener(
            key=each.key,
            address=each.address,
            kind=_KINDS[each.key],
            public=each.public,
            tls=each.tls,
            trusted_proxies=each.trusted_proxies,
            hardening=None if each.hardening is None else _hardening(each.hardening),
        )
        for each in config.listeners
    ]
    message = pb.Configure(node=config.node, listeners=listeners, control_socket=config.control_socket)
    if config.identity is not None:
        message.identity.pem, message.identity.ca_pem = config.identity.pem, config.identity.ca
    message.settle_ms = _ms(settle_s)
    message.limits.SetInParent()
    for name, value in config.limits.items():
        setattr(message.limits, name, value)
    if config.access_log:
        message.access_log.enabled = True
        message.access_log.path = config.access_log
    return pb.ToEngine(configure=message)


# ------------------------------------------------------------------ sites


def to_sites(sites: Iterable[Site], keep: Collection[str] | None = None) -> pb.ToEngine:
    """The message `Sites`. `keep`: the keys of all sites; others are deleted. None: nothing is deleted."""
    message = pb.Sites(put=[_site(site) for site in sites])
    if keep is not None:
        message.prune = True
        message.keep.extend(keep)
    return pb.ToEngine(sites=message)


def _hardening(hardening: Hardening) -> pb.Hardening:
    known = pb.Hardening.DESCRIPTOR.fields_by_name
    return pb.Hardening(**{name: value for name, value in asdict(hardening).items() if name in known})


def _site(site: Site) -> pb.Site:
    return pb.Site(
        key=site.key,
        hosts=site.hosts,
        certificates=[pb.Certificate(pem=pem) for pem in site.certificates],
        client_ca_pem=site.client_ca,
        client_certificate_required=site.client_required,
        tls13_only=site.tls_min == "1.3",
        no_session_tickets=not site.tickets,
        redirects=[pb.Redirect(prefix=prefix, target=target) for prefix, target in site.redirects],
        fields=[pb.Field(name=name, value=value) for name, value in site.fields],
        error_pages=[pb.ErrorPage(status_from=low, status_to=high, html=html) for (low, high), html in site.pages],
    )


def to_challenges(answers: Iterable[ChallengeAnswer]) -> pb.ToEngine:
    message = pb.Challenges()
    for each in answers:
        if each.kind == HTTP:
            message.http.add(host=each.host, token=each.token, content=each.content)
        else:
            message.tls.add(host=each.host, certificate=pb.Certificate(pem=each.content.encode()))
    return pb.ToEngine(challenges=message)


def to_ticket_keys(keys: Iterable[TicketKey]) -> pb.ToEngine:
    named = [pb.TicketKeys.Key(name=key.name, secret=key.secret) for key in keys]
    return pb.ToEngine(ticket_keys=pb.TicketKeys(keys=named))


def site_states(message: pb.SitesApplied) -> list[SiteState]:
    return [SiteState(each.key, each.error, each.not_after_unix_s, tuple(each.warnings)) for each in message.sites]
