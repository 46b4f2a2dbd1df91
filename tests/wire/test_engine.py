"""What control decides reaches the engine whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.core.effects import Apply, MemberPut, Pick, RoutePut, TargetPut
from sdlb.core.events import MemberKey
from sdlb.core.messages import ClaimKey
from sdlb.wire import engine
from sdlb.wire import engine_pb2 as pb

NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
U32 = st.integers(0, (1 << 32) - 1)
KEY = st.builds(MemberKey, st.builds(ClaimKey, NAME, NAME, NAME), NAME)
TARGET = st.builds(TargetPut, NAME, st.booleans(), NAME, st.sampled_from(["http1", "h2c"]))
MEMBER = st.builds(MemberPut, KEY, U32, st.booleans())
STICKY = st.sampled_from([("", ""), ("cookie", "who"), ("header", "x-who"), ("client", "")])
ROUTE = st.builds(
    lambda pattern, service, picks, requests, milliseconds, sticky: RoutePut(
        pattern, service, picks, requests, milliseconds / 1000, *sticky
    ),
    NAME,
    NAME,
    st.lists(st.builds(Pick, NAME, U32, U32), max_size=3).map(tuple),
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
    put_targets=several(TARGET),
    put_members=several(MEMBER),
    put_routes=several(ROUTE),
    delete_members=several(KEY),
    delete_routes=several(NAME),
    delete_targets=several(NAME),
)
SPEAKS = {pb.Target.HTTP1: "http1", pb.Target.H2C: "h2c"}
BY = {pb.Sticky.NONE: "", pb.Sticky.COOKIE: "cookie", pb.Sticky.HEADER: "header", pb.Sticky.CLIENT: "client"}


def read(delta: pb.Delta) -> Apply:
    """As the engine reads it (engine/crates/engine/src/control), in words of control."""
    return Apply(
        epoch=delta.epoch,
        replace=delta.replace,
        put_targets=tuple(
            TargetPut(t.key, t.kind == pb.Target.NODE, t.address, SPEAKS[t.protocol]) for t in delta.put_targets
        ),
        put_members=tuple(MemberPut(engine.member_key(m.key), m.capacity, m.last_resort) for m in delta.put_members),
        put_routes=tuple(
            RoutePut(
                r.pattern,
                r.service,
                tuple(Pick(p.version, p.tier, p.weight) for p in r.picks),
                r.park.requests_max,
                r.park.timeout_ms / 1000,
                BY[r.sticky.by],
                r.sticky.name,
            )
            for r in delta.put_routes
        ),
        delete_members=tuple(engine.member_key(key) for key in delta.delete_members),
        delete_routes=tuple(delta.delete_routes),
        delete_targets=tuple(delta.delete_targets),
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
    assert (got.epoch, got.replace, got.put_targets, got.put_members) == (
        delta.epoch,
        delta.replace,
        delta.put_targets,
        delta.put_members,
    )
    assert (got.delete_members, got.delete_routes, got.delete_targets) == (
        delta.delete_members,
        delta.delete_routes,
        delta.delete_targets,
    )
