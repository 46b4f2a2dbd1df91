"""Decisions of control reach the engine unchanged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.effects import Apply, EndpointPut, Pick, RoutePut, ServicePut, UpstreamPut
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ClaimKey
from sdlb.model.site import Site, SiteState, TicketKey
from sdlb.model.traffic import Balance, Limits, Outlier, Traffic
from sdlb.seams.engine import EngineConfig, Listener
from sdlb.wire import engine
from sdlb.wire import engine_pb2 as pb
from tests.model.traffic import TRAFFIC

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
U32 = st.integers(0, (1 << 32) - 1)
KEY = st.builds(EndpointKey, st.builds(ClaimKey, NAME, NAME, NAME), NAME)
TARGET = st.builds(UpstreamPut, NAME, st.booleans(), NAME, st.sampled_from(["http1", "h2c"]))
MEMBER = st.builds(EndpointPut, KEY, U32, st.booleans(), st.booleans())
SERVICE = st.builds(ServicePut, NAME, TRAFFIC)
STICKY = st.sampled_from([("", ""), ("cookie", "who"), ("header", "x-who"), ("client", ""), ("session", "sdlb-s")])
ROUTE = st.builds(
    lambda pattern, service, picks, requests, milliseconds, sticky: RoutePut(
        pattern, service, picks, requests, milliseconds / 1000, *sticky
    ),
    NAME,
    NAME,
    st.lists(st.builds(Pick, NAME, U32, U32, st.booleans()), max_size=3).map(tuple),
    U32,
    st.integers(0, 3_600_000),
    STICKY,
)


def several(each: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(each, max_size=3).map(tuple)


DELTA = st.builds(
    Apply,
    epoch=st.integers(0, (1 << 64) - 1),
    replace=st.booleans(),
    put_upstreams=several(TARGET),
    put_endpoints=several(MEMBER),
    put_routes=several(ROUTE),
    delete_endpoints=several(KEY),
    delete_routes=several(NAME),
    delete_upstreams=several(NAME),
    put_services=several(SERVICE),
    delete_services=several(NAME),
)
SPEAKS = {pb.Target.HTTP1: "http1", pb.Target.H2C: "h2c"}
BY = {
    pb.Sticky.NONE: "",
    pb.Sticky.COOKIE: "cookie",
    pb.Sticky.HEADER: "header",
    pb.Sticky.CLIENT: "client",
    pb.Sticky.SESSION: "session",
}


def read(delta: pb.Delta) -> Apply:
    """As the engine reads it (engine/crates/engine/src/control), in words of control."""
    return Apply(
        epoch=delta.epoch,
        replace=delta.replace,
        put_upstreams=tuple(
            UpstreamPut(t.key, t.kind == pb.Target.NODE, t.address, SPEAKS[t.protocol]) for t in delta.put_targets
        ),
        put_endpoints=tuple(
            EndpointPut(engine.endpoint_key(m.key), m.capacity, m.last_resort, m.far) for m in delta.put_members
        ),
        put_routes=tuple(
            RoutePut(
                r.pattern,
                r.service,
                tuple(Pick(p.version, p.tier, p.weight, p.ends_sessions) for p in r.picks),
                r.park.requests_max,
                r.park.timeout_ms / 1000,
                BY[r.sticky.by],
                r.sticky.name,
            )
            for r in delta.put_routes
        ),
        delete_endpoints=tuple(engine.endpoint_key(key) for key in delta.delete_members),
        delete_routes=tuple(delta.delete_routes),
        delete_upstreams=tuple(delta.delete_targets),
        put_services=tuple(ServicePut(s.name, traffic(s)) for s in delta.put_services),
        delete_services=tuple(delta.delete_services),
    )


def traffic(service: pb.Service) -> Traffic:
    balance, outlier, limits = service.balance, service.outlier, service.limits
    return Traffic(
        Balance(
            pb.Balance.Algorithm.Name(balance.algorithm).lower(),
            pb.Balance.By.Name(balance.hash_by).lower(),
            balance.hash_name,
            balance.hash_load_percent / 100,
            balance.slow_start_ms / 1000,
            "prefer" if balance.near_first else "ignore",
        ),
        Outlier(
            outlier.success_deviations_percent / 100,
            outlier.latency_factor_percent / 100,
            outlier.ejected_percent_max,
            outlier.interval_ms / 1000,
            outlier.requests_min,
        ),
        Limits(
            limits.in_flight,
            limits.endpoint_in_flight,
            limits.endpoint_connections,
            limits.pending,
            limits.pending_timeout_ms / 1000,
            limits.adaptive,
        ),
        service.timeout_ms / 1000,
        service.try_timeout_ms / 1000,
        service.retries_max if service.HasField("retries_max") else -1,
        service.hedge_ms / 1000,
    )


@given(DELTA)
def test_a_delta_arrives_as_it_was_decided(delta: Apply) -> None:
    message = pb.ToEngine.FromString(engine.to_delta(delta).SerializeToString())
    assert message.WhichOneof("kind") == "delta"
    parked = tuple(
        RoutePut(r.pattern, r.service, r.picks, r.park_requests_max, r.park_timeout_s if r.park_requests_max else 0.0,
                 r.sticky_by, r.sticky_name)
        for r in delta.put_routes
    )  # fmt: skip
    got = read(message.delta)
    assert got.put_routes == parked
    assert (got.epoch, got.replace, got.put_upstreams, got.put_endpoints) == (
        delta.epoch,
        delta.replace,
        delta.put_upstreams,
        delta.put_endpoints,
    )
    assert (got.put_services, got.delete_services) == (delta.put_services, delta.delete_services)
    assert (got.delete_endpoints, got.delete_routes, got.delete_upstreams) == (
        delta.delete_endpoints,
        delta.delete_routes,
        delta.delete_upstreams,
    )


SITE = st.builds(
    Site,
    NAME,
    st.lists(NAME, min_size=1, max_size=3).map(tuple),
    st.lists(st.binary(max_size=8), min_size=1, max_size=3).map(tuple),
    st.binary(max_size=8),
    st.booleans(),
)


@given(st.lists(SITE, max_size=3), st.lists(NAME, max_size=3) | st.none())
def test_sites_arrive_as_they_were_given(sites: list[Site], keep: list[str] | None) -> None:
    message = pb.ToEngine.FromString(engine.to_sites(sites, keep).SerializeToString())
    assert message.WhichOneof("kind") == "sites"
    assert [
        Site(
            each.key,
            tuple(each.hosts),
            tuple(certificate.pem for certificate in each.certificates),
            each.client_ca_pem,
            each.client_certificate_required,
        )
        for each in message.sites.put
    ] == sites
    assert (message.sites.prune, list(message.sites.keep)) == (keep is not None, keep or [])


@given(st.lists(st.builds(TicketKey, st.binary(max_size=16), st.binary(max_size=32), st.just(0)), max_size=3))
def test_ticket_keys_arrive_in_their_order(keys: list[TicketKey]) -> None:
    message = pb.ToEngine.FromString(engine.to_ticket_keys(keys).SerializeToString())
    assert [TicketKey(key.name, key.secret, 0) for key in message.ticket_keys.keys] == keys


def test_no_secret_is_shown() -> None:
    assert "5ec" not in repr(TicketKey(b"name", b"5ec", 0))
    assert "5ec" not in repr(Site("a", ("a",), (b"5ec",)))


@given(st.lists(st.builds(SiteState, NAME, NAME, st.integers(0, 1 << 40), st.lists(NAME, max_size=2).map(tuple))))
def test_answers_about_sites_arrive(states: list[SiteState]) -> None:
    message = pb.SitesApplied(
        sites=[
            pb.SitesApplied.State(
                key=each.key, error=each.error, not_after_unix_s=each.not_after_s, warnings=each.warnings
            )
            for each in states
        ]
    )
    assert engine.site_states(pb.SitesApplied.FromString(message.SerializeToString())) == states


def test_a_capacity_that_is_too_large_for_the_engine_is_as_large_as_it_can_be() -> None:
    """The capacity of a child is a sum over its subtree. A delta that cannot be encoded would block the whole table."""
    member = EndpointPut(EndpointKey(ClaimKey("s", "1", "x/"), "n:child"), 1 << 40)
    told = engine.to_delta(Apply(1, put_endpoints=(member,)))
    assert [each.capacity for each in told.delta.put_members] == [(1 << 32) - 1]


def test_listeners_show_whether_they_speak_tls() -> None:
    listeners = (
        Listener("http", "127.0.0.1:1"),
        Listener("https", "127.0.0.1:2", True, tls=True),
        Listener("node", "x"),
    )
    told = engine.to_configure(EngineConfig("n", listeners, "")).configure.listeners
    assert [(each.key, each.kind, each.public, each.tls) for each in told] == [
        ("http", pb.Listener.ENTRY, False, False),
        ("https", pb.Listener.ENTRY, True, True),
        ("node", pb.Listener.NODE, False, False),
    ]
