"""Both ends of a link: what is accepted, what is sent again, what waits for the next heartbeat."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.digest import claims_digest, verdicts_digest
from sdlb.core.downlink import Downlink
from sdlb.core.messages import ACTIVE, Beat, Cause, Claim, DrainAck, Gone, Hello, Path, Stage, Verdict, Welcome
from sdlb.core.uplink import Phase, Uplink
from tests.core.forest import Forest, key_of

KEY, OTHER = key_of("1.0.1"), key_of("2.0.0")
CLAIM = Claim(KEY, 100, 1, ("a",), 7, stage=Stage.OPEN, generation=3, lease_s=30)
VERDICT = Verdict(KEY, ACTIVE, generation=3, epoch=9)


def hello(claims: int = 0, verdicts: int = 0, nonce: str = "n") -> Hello:
    return Hello("a", "id-a", 1, "10.0.0.1:80", claims, nonce=nonce, verdicts_digest=verdicts)


def welcome(digest: int, kept: bool = False, protocol: int = 2) -> Welcome:
    return Welcome("edge", "id-edge", 1, Path(("edge",), ("edge",), ("id-edge",)), digest, "n", protocol, kept)


def uplink_of(protocol: int = 2) -> Uplink:
    """One claim was sent, one verdict came."""
    uplink = Uplink("edge", 0.0, 10.0)
    uplink.greet({})
    uplink.welcome(welcome(0, protocol=protocol), 0.0)
    uplink.state([CLAIM], [], [], ())
    assert uplink.decide((VERDICT,), 1) == [KEY]
    return uplink


@pytest.mark.parametrize("field", ["capacity", "count", "leaving", "lease_s", "generation", "seen"])
def test_a_digest_covers_every_field(field: str) -> None:
    changed = replace(CLAIM, **{field: 1000})  # type: ignore[arg-type]
    assert claims_digest([CLAIM]) != claims_digest([changed])
    assert claims_digest([CLAIM, changed]) == claims_digest([changed, CLAIM])
    assert verdicts_digest([VERDICT]) != verdicts_digest([replace(VERDICT, epoch=10)])


@pytest.mark.parametrize("same", [True, False])
def test_a_full_state_comes_when_the_parent_holds_something_else(same: bool) -> None:
    uplink = uplink_of()
    digest, _ = uplink.greet({})
    assert uplink.welcome(welcome(digest if same else digest + 1), 1.0) is same
    state = uplink.state([], [], [], ())
    assert state is not None and state.full is not same


@pytest.mark.parametrize("kept", [True, False])
def test_verdicts_outlive_a_reconnect_when_the_parent_has_confirmed_them(kept: bool) -> None:
    uplink = uplink_of()
    uplink.welcome(welcome(0, kept), 1.0)
    assert bool(uplink.verdicts) is kept


def test_a_verdict_that_crossed_a_withdrawal_is_none() -> None:
    uplink = uplink_of()
    uplink.state([], [Gone(KEY, Cause.STOPPED)], [], ())
    assert uplink.decide((VERDICT,), 1) == []
    uplink.state([CLAIM], [], [], ())
    assert uplink.decide((VERDICT,), 2) == [], "of before the second claim"
    assert uplink.decide((VERDICT,), 3) == [KEY]


@pytest.mark.parametrize(("protocol", "cause"), [(2, Cause.PRESUMED), (1, Cause.STOPPED)])
def test_causes_are_passed_on_to_parents_that_know_them(protocol: int, cause: Cause) -> None:
    state = uplink_of(protocol).state([], [Gone(KEY, Cause.PRESUMED)], [], ())
    assert state is not None and state.withdrawn == (Gone(KEY, cause),)


@pytest.mark.parametrize(
    ("change", "minor"),
    [
        ({"capacity": 95}, True),
        ({"hosts": ("b",), "hosts_digest": 8}, True),
        ({"capacity": 90}, False),
        ({"capacity": 0}, False),
        ({"leaving": 5}, False),
        ({"seen": 5}, False),
        ({"stage": Stage.WAITING}, False),
    ],
)
def test_only_small_changes_wait_for_the_next_beat(change: dict[str, object], minor: bool) -> None:
    assert Uplink.minor(CLAIM, replace(CLAIM, **change)) is minor  # type: ignore[arg-type]


def test_a_parent_that_has_sent_more_than_arrived_is_noticed() -> None:
    uplink = uplink_of()
    assert uplink.received(1) and not uplink.received(3) and not uplink.received(1)
    assert not uplink.behind(Beat(1, 0)) and uplink.behind(Beat(2, 0))


def test_a_parent_is_in_touch_for_its_lease_and_unless_it_refuses() -> None:
    uplink = uplink_of()
    assert uplink.in_touch(9.9) and not uplink.in_touch(10.0)
    uplink.phase = Phase.REFUSED
    assert not uplink.in_touch(0.0)


# ---------------------------------------------------------------------- the parent's end


def downlink_of() -> Downlink:
    """One verdict and one acknowledgement were sent."""
    child = Downlink("a", "id-a", 1, "10.0.0.1:80", 0.0)
    child.linked(1, hello(), 0, 0.0)
    child.state([VERDICT], [DrainAck(KEY, 4)], [], Path())
    return child


@pytest.mark.parametrize("same", [True, False])
def test_verdicts_are_sent_again_unless_the_child_still_has_them(same: bool) -> None:
    child = downlink_of()
    digest = verdicts_digest([VERDICT]) if same else 1
    assert child.linked(2, hello(verdicts=digest), 0, 1.0) is same
    assert bool(child.sent) is same
    assert not child.acked, "a drain is acknowledged again in any case"


def test_claims_come_first_where_a_child_claims_something_else() -> None:
    child = downlink_of()
    child.linked(2, hello(claims=5), 5, 1.0)
    assert not child.claims_due
    child.linked(3, hello(claims=5), 6, 1.0)
    assert child.claims_due


def test_another_process_of_a_child_may_have_forgotten_something() -> None:
    child = downlink_of()
    child.linked(2, hello(), 0, 1.0)
    assert not child.restarted
    child.linked(3, hello(nonce="other"), 0, 1.0)
    assert child.restarted


@pytest.mark.parametrize("dialing", [False, True])
def test_a_lost_parent_is_reported_with_why_it_could_not_be_reached(dialing: bool) -> None:
    """The reason is also reported if the lease expires during a connection attempt."""
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.part("host", "edge")
    host = forest["host"]
    uplink = host.balancer._parents.links["edge"]
    now = uplink.lost_at - 0.01
    host.handle(ev.ParentClosed("edge", "the certificate does not name the host"))
    uplink.phase = Phase.DIALING if dialing else Phase.IDLE
    host.balancer._parents.check_lease("edge", now + 0.02)
    (note,) = [each for each in host.balancer._state.effects if isinstance(each, ef.Note)]
    assert note.code == "parent-silent" and "does not name the host" in note.text
