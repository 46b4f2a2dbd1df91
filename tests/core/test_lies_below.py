"""A lying child below a rack, and false messages other than claims: withdrawals, Byes, roots that it claims to
reach."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.messages import Bye, Cause, ClaimKey, Gone, UpMessage, UpState
from sdlb.core.slot import digest_of
from tests.core.forest import ROUTE, Forest, key_of
from tests.core.test_lies import LIES, USED_UP, honest, told, tree, unmoved

OLD, NEXT, NEW = key_of("1.0.1"), key_of("1.0.2"), key_of("2.0.0")
ELSEWHERE = key_of("1.0.1", service="never-claimed", route="nowhere.example/*")
RACK: dict[str, tuple[str, ...]] = {
    "edge": (),
    "rack": ("edge",),
    "honest-0": ("edge",),
    "honest-1": ("rack",),
    "honest-2": ("rack",),
    "liar": ("rack",),
}


def withdrawing(*keys: ClaimKey, cause: Cause = Cause.STOPPED) -> Callable[[UpMessage], UpMessage]:
    """Every state withdraws these too."""

    def forge(message: UpMessage) -> UpMessage:
        if not isinstance(message, UpState):
            return message
        claims = tuple(claim for claim in message.claims if claim.key not in keys)
        return replace(message, claims=claims, withdrawn=(*message.withdrawn, *(Gone(key, cause) for key in keys)))

    return forge


def hearing(*roots: str) -> Callable[[UpMessage], UpMessage]:
    return lambda message: replace(message, roots=roots) if isinstance(message, UpState) else message


def poke(forest: Forest, number: int) -> None:
    """Anything that makes the liar send a state."""
    forest.put("liar", f"poke-{number}", "1.0.0", service=f"poke-{number}", route=f"poke-{number}.example/*")


# ---------------------------------------------------------------------- below a rack


def unmoved_below(forest: Forest, seconds: float = 30.0) -> None:
    for _ in range(int(seconds)):
        forest.run(1.0)
        for host in honest(forest):
            assert forest[host].state("a") == "active", host
        assert {f"{host}/i:a" for host in honest(forest)} <= forest.endpoints("edge", OLD)
        assert forest["edge"].generation() < USED_UP
        assert forest["rack"].generation() < USED_UP
        forest.one_generation("liar")


@pytest.mark.promise(1)
@pytest.mark.promise(6)
@pytest.mark.parametrize("lie", list(LIES))
@pytest.mark.parametrize("version", ["1.0.1", "1.0.2", "2.0.0"])
def test_a_liar_below_a_rack_changes_nothing_for_others(lie: str, version: str) -> None:
    forest = Forest(RACK)
    forest["liar"].lie = told(LIES[lie])
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", version)
    unmoved_below(forest)
    if version == "2.0.0":
        assert forest["edge"].serves(NEW) == set()
        assert forest["edge"].versions()["2.0.0"] == "waiting"


@pytest.mark.promise(1)
@pytest.mark.parametrize("lie", list(LIES))
@pytest.mark.parametrize("restarted", ["rack", "edge", "liar"])
def test_a_liar_below_a_rack_changes_nothing_after_a_restart(lie: str, restarted: str) -> None:
    forest = Forest(RACK)
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", "2.0.0")
    forest["liar"].lie = told(LIES[lie])
    forest["liar"].restart()
    forest.run(5.0)
    forest[restarted].restart()
    unmoved_below(forest)


@pytest.mark.promise(6)
@pytest.mark.parametrize("lie", list(LIES))
def test_a_liar_below_a_rack_takes_no_route(lie: str) -> None:
    forest = Forest(RACK)
    forest["liar"].lie = told(LIES[lie])
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", "9.0.0", service="other")
    unmoved_below(forest)
    assert forest["edge"].engine.routes[ROUTE].service == "catalog"


@pytest.mark.promise(2)
@pytest.mark.parametrize("lie", list(LIES))
def test_a_liar_below_a_rack_cannot_report_that_another_host_has_stopped(lie: str) -> None:
    """honest-1 is silent at the rack. A lying child claims its host and then reports a stop, which does not count."""
    forest = Forest(RACK)
    forest["liar"].lie = told(LIES[lie])
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-0", "b", "2.0.0")
    forest.put("liar", "l", "1.0.1")
    forest.cut.add(frozenset(("honest-1", "rack")))
    forest.run(1.0)
    forest.remove("liar", "l", deadline_s=1.0)
    for _ in range(15):
        forest.run(1.0)
        assert forest["honest-1"].serves(OLD) == {"i:a"}
        assert forest["honest-0"].state("b") == "waiting"


# ---------------------------------------------------------------------- false withdrawals


@pytest.mark.promise(2)
@pytest.mark.parametrize("cause", list(Cause))
@pytest.mark.parametrize("topology", ["flat", "rack"])
@pytest.mark.parametrize("has", ["nothing", "the same", "another version"])
def test_a_false_withdrawal_takes_nothing_of_what_runs_elsewhere(cause: Cause, topology: str, has: str) -> None:
    forest = tree(2) if topology == "flat" else Forest(RACK)
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    if has != "nothing":
        forest.put("liar", "l", "1.0.1" if has == "the same" else "1.0.2")
    forest.put(honest(forest)[0], "new", "2.0.0")
    forest["liar"].forge = withdrawing(OLD, NEXT, NEW, ELSEWHERE, cause=cause)
    for number in range(5):
        poke(forest, number)
    check = unmoved if topology == "flat" else unmoved_below
    check(forest)
    assert forest[honest(forest)[0]].state("new") == "waiting"
    assert forest["edge"].versions()["2.0.0"] == "waiting"


@pytest.mark.promise(2)
def test_a_false_withdrawal_does_not_count_for_a_silent_host() -> None:
    forest = tree(3)
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-2", "b", "2.0.0")
    forest.put("liar", "l", "1.0.1")
    forest["liar"].lie = lambda c: (replace(c, hosts=("honest-1", "liar"), hosts_digest=0),)
    forest.cut.add(frozenset(("honest-1", "edge")))
    forest.put("liar", "l", "1.0.1", capacity=7)
    forest["liar"].forge = withdrawing(OLD)
    poke(forest, 1)
    for _ in range(15):
        forest.run(1.0)
        assert forest["honest-2"].state("b") == "waiting"


@pytest.mark.promise(7)
def test_withdrawals_and_claims_without_end_leave_nothing_behind() -> None:
    forest = tree(1)
    forest.put("honest-1", "a", "1.0.1")
    forest.put("liar", "l", "1.0.2")
    forest.run(40.0)
    before = forest["edge"].balancer.view.sizes()
    stored = len(forest["edge"].disk)
    flip = withdrawing(NEXT, cause=Cause.STOPPED)
    for number in range(300):
        forest["liar"].forge = flip if number % 2 else lambda message: message
        forest.put("liar", "l", "1.0.2", capacity=10 + 10 * (number % 5))
    forest["liar"].forge = lambda message: message
    forest.put("liar", "l", "1.0.2", capacity=100)
    forest.run(40.0)
    assert forest["edge"].balancer.view.sizes() == before
    assert len(forest["edge"].disk) == stored


@pytest.mark.promise(7)
def test_remnants_that_a_child_makes_without_end_are_bounded() -> None:
    """A child that repeatedly withdraws claims as UNKNOWN and claims them again causes a bounded number of remnants."""
    forest = tree(1)
    forest.put("honest-1", "a", "1.0.1")
    forest.put("liar", "l", "1.0.2")
    flip = withdrawing(NEXT, cause=Cause.UNKNOWN)
    for number in range(300):
        forest["liar"].forge = flip if number % 2 else lambda message: message
        forest.put("liar", "l", "1.0.2", capacity=10 + 10 * (number % 5))
    kept = sum(each["claims"] for each in forest["edge"].balancer.view.tree()["remnants"])
    assert kept <= 10, "each costs memory, a timer and a record on disk"
    forest["liar"].forge = lambda message: message
    forest.run(40.0)
    assert forest["edge"].balancer.view.tree()["remnants"] == []


# ---------------------------------------------------------------------- false farewells


@pytest.mark.promise(2)
@pytest.mark.parametrize("left", [(), (OLD,), (NEW,), (ELSEWHERE,), (OLD, OLD, NEXT, NEW, ELSEWHERE)])
@pytest.mark.parametrize("topology", ["flat", "rack"])
def test_a_false_farewell_is_about_its_own_alone(left: tuple[ClaimKey, ...], topology: str) -> None:
    forest = tree(2) if topology == "flat" else Forest(RACK)
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", "1.0.1")
    forest.put(honest(forest)[0], "new", "2.0.0")
    forest["liar"].forge = lambda message: Bye(left) if isinstance(message, Bye) else message
    forest["liar"].handle(ev.Stop(1.0))
    forest.settle()
    assert forest["liar"].stopped is not None
    check = unmoved if topology == "flat" else unmoved_below
    check(forest)
    assert forest[honest(forest)[0]].state("new") == "waiting"
    forest.run(30.0)
    assert forest["edge"].balancer.view.tree()["remnants"] == []
    assert not any("liar" in name for name in forest["edge"].disk), "what it left is over"


@pytest.mark.promise(2)
def test_a_liar_that_leaves_and_returns_repeatedly_changes_nothing() -> None:
    forest = tree(2)
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest["liar"].forge = lambda message: Bye((OLD, NEW)) if isinstance(message, Bye) else message
    for _ in range(20):
        forest.put("liar", "l", "2.0.0")
        forest["liar"].handle(ev.Stop(0.0))
        forest.settle()
        forest["liar"].restart()
        forest.run(1.0)
    unmoved(forest)
    assert forest["edge"].generation() == 1


# ---------------------------------------------------------------------- false roots

ROOTS = {
    "a root that is not there": ("id-nowhere",),
    "the same one often": ("id-nowhere",) * 50,
    "the edge": ("id-edge",) * 50,
    "many": tuple(f"id-{number}" for number in range(64)),
    "none": (),
}


@pytest.mark.promise(1)
@pytest.mark.promise(6)
@pytest.mark.parametrize("others", [1, 2, 4])
@pytest.mark.parametrize("roots", list(ROOTS))
@pytest.mark.parametrize("version", ["1.0.2", "2.0.0"])
def test_a_root_that_one_child_alone_hears_decides_nothing(others: int, roots: str, version: str) -> None:
    """A child reports a root that no other child reaches, which granted its version earlier and under a newer
    generation: it does not count."""
    forest = tree(others)
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest["liar"].forge = hearing(*ROOTS[roots])
    granted = ROOTS[roots][:1]
    forest["liar"].lie = told(lambda c: replace(c, granted=granted, scope=granted, stamp=1, generation=9))
    forest.put("liar", "l", version)
    poke(forest, 1)
    unmoved(forest)
    if version == "2.0.0":
        assert forest["edge"].serves(NEW) == set()


@pytest.mark.promise(1)
@pytest.mark.parametrize("roots", list(ROOTS))
def test_false_roots_give_no_seniority(roots: str) -> None:
    """Two versions wait for a third to stop. The lying child claimed last and reports the oldest stamp of a false root:
    it does not count."""
    forest = tree(3)
    granted = ROOTS[roots][:1]
    forest["liar"].forge = hearing(*ROOTS[roots])
    forest["liar"].lie = told(lambda c: replace(c, granted=granted, stamp=1))
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-2", "b", "2.0.0")
    forest.run(1.0)
    forest.put("liar", "l", "3.0.0")
    poke(forest, 1)
    forest.remove("honest-1", "a")
    forest.run(5.0)
    assert forest["honest-2"].state("b") == "active"
    assert forest["edge"].versions() == {"2.0.0": "active", "3.0.0": "waiting"}


@pytest.mark.promise(4)
def test_false_roots_do_not_let_a_stuck_root_give_its_decisions_away() -> None:
    forest = tree(2)
    forest["liar"].forge = hearing(*("id-nowhere",) * 50)
    forest.put("honest-1", "a", "1.0.1")
    poke(forest, 1)
    forest["edge"].stick()
    forest.put("honest-2", "b", "1.0.2")
    forest.run(60.0)
    assert "following" not in forest["edge"].codes()
    assert forest["honest-2"].state("b") == "waiting", "a decision that was not written was sent"


@pytest.mark.promise(7)
def test_the_roots_that_children_name_are_forgotten_with_the_next_ones() -> None:
    forest = tree(1)
    for number in range(200):
        forest["liar"].forge = hearing(*(f"id-{number}-{each}" for each in range(5)))
        poke(forest, number)
    assert len(forest["edge"].balancer._children.root_votes) <= 10


# ---------------------------------------------------------------------- false digests


@pytest.mark.promise(2)
@pytest.mark.parametrize("rack_is", ["silent", "gone"])
def test_a_host_with_the_digest_of_a_racks_hosts_does_not_cover_a_host_of_its_own_link(rack_is: str) -> None:
    """honest-1 is a child of the edge itself, so hosts that a lying child names do not cover it."""
    forest = tree(3)
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-2", "b", "2.0.0")
    forest["liar"].lie = told(lambda c: replace(c, hosts_digest=digest_of("honest-1"), hosts=()))
    forest.put("liar", "l", "1.0.1")
    if rack_is == "silent":
        forest.cut.add(frozenset(("honest-1", "edge")))
    else:
        forest.part("honest-1", "edge")
    forest.put("liar", "l", "1.0.1", capacity=7)
    forest.remove("liar", "l", deadline_s=0.0)
    for _ in range(15):
        forest.run(1.0)
        assert forest["honest-1"].serves(OLD) == {"i:a"}
        assert forest["honest-2"].state("b") == "waiting"


@pytest.mark.promise(2)
def test_the_hosts_of_two_racks_are_not_those_of_a_third_whose_digest_is_their_sum() -> None:
    """Digests are combined by exclusive or. A set that a lying child completes to another digest must not match it."""
    forest = Forest(
        {
            "edge": (),
            "rack-1": ("edge",),
            "rack-2": ("edge",),
            "honest-1": ("rack-1",),
            "honest-2": ("rack-2",),
            "liar": ("rack-2",),
            "honest-3": ("edge",),
        }
    )
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-2", "a", "1.0.1")
    forest.put("honest-3", "b", "2.0.0")
    completes = digest_of("honest-1") ^ digest_of("honest-2")
    forest["liar"].lie = told(lambda c: replace(c, hosts_digest=completes))
    forest.part("rack-1", "edge")
    forest.put("liar", "l", "1.0.1")
    forest.remove("liar", "l", deadline_s=0.0)
    forest.remove("honest-2", "a")
    for _ in range(15):
        forest.run(1.0)
        assert forest["honest-1"].serves(OLD) == {"i:a"}
        assert forest["honest-3"].state("b") == "waiting", "rack-2 never had the hosts of rack-1"
