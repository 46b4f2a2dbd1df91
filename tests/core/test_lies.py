"""A single child with false reports, in every number and flag, changes nothing for others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.messages import Claim, Stage
from sdlb.core.slot import digest_of
from tests.core.forest import ROUTE, Forest, key_of

OLD, NEW = key_of("1.0.1"), key_of("2.0.0")
HUGE = 1 << 52
USED_UP = 1 << 40
"""Numbers of generations are finite (2^53 on the wire): one child must not use them up, or the fence ends."""
Lie = Callable[[Claim], Claim]
LIES: dict[str, Lie] = {
    "capacity": lambda c: replace(c, capacity=HUGE),
    "no capacity": lambda c: replace(c, capacity=0),
    "count": lambda c: replace(c, count=HUGE),
    "no count": lambda c: replace(c, count=0),
    "hosts": lambda c: replace(c, hosts=("honest-1", "honest-2"), hosts_digest=12345),
    "no hosts": lambda c: replace(c, hosts=(), hosts_digest=0),
    "many hosts": lambda c: replace(c, hosts=tuple(f"h-{n}" for n in range(5)), hosts_digest=77),
    "open": lambda c: replace(c, stage=Stage.OPEN),
    "open under a newer generation": lambda c: replace(c, stage=Stage.OPEN, generation=HUGE),
    "open under a newer generation of the edge": lambda c: replace(
        c, stage=Stage.OPEN, generation=HUGE, scope=("id-edge",)
    ),
    "open under the generation of the edge": lambda c: replace(c, stage=Stage.OPEN, generation=1, scope=("id-edge",)),
    "open under no generation": lambda c: replace(c, stage=Stage.OPEN, generation=0, scope=()),
    "waiting": lambda c: replace(c, stage=Stage.WAITING),
    "silent": lambda c: replace(c, stage=Stage.SILENT),
    "a newer generation": lambda c: replace(c, generation=HUGE),
    "a newer generation of the edge": lambda c: replace(c, generation=HUGE, scope=("id-edge",)),
    "a foreign scope": lambda c: replace(c, scope=("id-nowhere",), generation=HUGE),
    "an old stamp": lambda c: replace(c, stamp=1),
    "granted by the edge": lambda c: replace(c, granted=("id-edge",)),
    "granted by another root": lambda c: replace(c, granted=("id-edge-2", "id-nowhere"), stamp=1),
    "opening": lambda c: replace(c, opening=True),
    "seen": lambda c: replace(c, seen=HUGE),
    "nothing seen": lambda c: replace(c, seen=0),
    "leaving": lambda c: replace(c, leaving=HUGE),
    "lease": lambda c: replace(c, lease_s=HUGE),
    "the digest of others' hosts": lambda c: replace(c, hosts_digest=digest_of("honest-1")),
    "a digest that takes others' hosts out of the sum": lambda c: replace(
        c, hosts_digest=digest_of("liar") ^ digest_of("honest-1")
    ),
    "a huge doubted generation": lambda c: replace(c, doubted=HUGE),
    "a huge doubted generation of the edge": lambda c: replace(c, doubted=HUGE, generation=1, scope=("id-edge",)),
    "the largest doubted generation": lambda c: replace(c, doubted=(1 << 53) - 1, stage=Stage.OPEN, scope=("id-edge",)),
    "a doubted generation just above": lambda c: replace(c, doubted=50),
    "everything at once": lambda c: replace(
        c,
        capacity=HUGE,
        stage=Stage.OPEN,
        generation=HUGE,
        scope=("id-edge",),
        granted=("id-edge-2",),
        stamp=1,
        hosts=("honest-1",),
        seen=HUGE,
    ),
}


def tree(honest: int) -> Forest:
    hosts = [f"honest-{number}" for number in range(1, honest + 1)]
    return Forest({"edge": (), "liar": ("edge",), **dict.fromkeys(hosts, ("edge",))})


def honest(forest: Forest) -> list[str]:
    return [name for name in forest.nodes if name.startswith("honest")]


def told(lie: Lie) -> Callable[[Claim], Iterable[Claim]]:
    return lambda claim: (lie(claim),)


def unmoved(forest: Forest, seconds: float = 30.0) -> None:
    for _ in range(int(seconds)):
        forest.run(1.0)
        for host in honest(forest):
            assert forest[host].state("a") == "active"
            assert f"n:{host}" in forest["edge"].serves(OLD)
        assert forest["edge"].generation() < USED_UP


@pytest.mark.promise(1)
@pytest.mark.promise(6)
@pytest.mark.parametrize("others", [1, 2, 4])
@pytest.mark.parametrize("lie", list(LIES))
@pytest.mark.parametrize("version", ["1.0.1", "1.0.2", "2.0.0"])
def test_one_liar_changes_nothing_for_others(others: int, lie: str, version: str) -> None:
    forest = tree(others)
    forest["liar"].lie = told(LIES[lie])
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", version)
    unmoved(forest)
    if version == "2.0.0":
        assert forest["edge"].serves(NEW) == set()
        assert forest["edge"].versions()["2.0.0"] == "waiting"


@pytest.mark.promise(1)
@pytest.mark.parametrize("others", [1, 2, 4])
@pytest.mark.parametrize("lie", list(LIES))
def test_one_liar_that_reconnects_changes_nothing_for_others(others: int, lie: str) -> None:
    forest = tree(others)
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", "2.0.0")
    forest["liar"].lie = told(LIES[lie])
    forest["liar"].restart()
    forest.run(5.0)
    forest["edge"].restart()
    unmoved(forest)


@pytest.mark.promise(6)
@pytest.mark.parametrize("others", [1, 2, 4])
@pytest.mark.parametrize("lie", list(LIES))
def test_one_liar_takes_no_route(others: int, lie: str) -> None:
    forest = tree(others)
    forest["liar"].lie = told(LIES[lie])
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", "9.0.0", service="other")
    unmoved(forest)
    assert forest["edge"].engine.routes[ROUTE].service == "catalog"


@pytest.mark.promise(2)
@pytest.mark.parametrize("lie", list(LIES))
def test_one_liar_cannot_report_that_others_have_stopped(lie: str) -> None:
    """An honest child is silent. A lying child claims its hosts and then reports a stop, which does not count for the
    honest one."""
    forest = tree(3)
    forest["liar"].lie = told(LIES[lie])
    for host in honest(forest):
        forest.put(host, "a" if host == "honest-1" else "b", "1.0.1" if host == "honest-1" else "2.0.0")
    forest.put("liar", "l", "1.0.1")
    forest.cut.add(frozenset(("honest-1", "edge")))
    forest.run(1.0)
    forest.remove("liar", "l", deadline_s=1.0)
    for _ in range(15):
        forest.run(1.0)
        assert forest["honest-1"].serves(OLD) == {"i:a"}
        assert forest["honest-2"].state("b") == "waiting"


@pytest.mark.promise(1)
@pytest.mark.parametrize("lie", list(LIES))
def test_one_liar_does_not_block_a_rollout_forever(lie: str) -> None:
    """A lying child reports anything about the new version, but the old one has stopped everywhere and the new one
    opens."""
    forest = tree(2)
    forest["liar"].lie = told(LIES[lie])
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-2", "b", "2.0.0")
    forest.put("liar", "l", "2.0.0")
    forest.remove("honest-1", "a")
    forest.run(60.0)
    assert forest["honest-2"].state("b") == "active"
    forest.one_generation()


@pytest.mark.promise(6)
def test_a_liar_that_claims_what_it_does_not_have_gets_that_alone() -> None:
    forest = tree(2)
    more = [key_of("1.0.1", service=f"s-{n}", route=f"s-{n}.example/*") for n in range(3)]
    forest["liar"].lie = lambda claim: (claim, *(replace(claim, key=key) for key in more))
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-2", "a", "1.0.1")
    forest.put("liar", "l", "1.0.1")
    unmoved(forest)


@pytest.mark.promise(7)
def test_a_huge_capacity_fits_what_the_engine_can_take() -> None:
    forest = tree(2)
    forest["liar"].lie = told(LIES["capacity"])
    forest.put("liar", "l", "1.0.1")
    forest.run(1.0)
    endpoints = forest["edge"].engine.endpoints
    assert all(0 < put.capacity < 1 << 32 for put in endpoints.values())
    assert endpoints


@pytest.mark.promise(2)
def test_a_liar_that_leaves_takes_only_its_own_along() -> None:
    forest = tree(2)
    forest["liar"].lie = told(LIES["hosts"])
    for host in honest(forest):
        forest.put(host, "a", "1.0.1")
    forest.put("liar", "l", "1.0.1")
    forest["liar"].handle(ev.Stop(5.0))
    unmoved(forest)


@pytest.mark.promise(2)
def test_an_old_stamp_does_not_jump_the_queue() -> None:
    forest = tree(2)
    forest["liar"].lie = told(LIES["an old stamp"])
    forest.put("honest-1", "a", "1.0.1")
    forest.put("honest-2", "b", "3.0.0")
    forest.run(1.0)
    forest.put("liar", "l", "2.0.0")
    forest.remove("honest-1", "a")
    forest.run(1.0)
    assert forest["honest-2"].state("b") == "active"
    assert forest["liar"].state("l") == "waiting"


@pytest.mark.promise(6)
def test_one_of_two_sources_reports_that_another_root_refuses() -> None:
    """A lying child reports that another root refuses the next version, and claims the route for its own service. The route
    keeps its service."""
    edges = ("edge-1", "edge-2")
    forest = Forest({**dict.fromkeys(edges, ()), **dict.fromkeys(("a", "b", "liar"), edges)})
    forest.put("a", "a", "1.0.1")
    forest.put("b", "b", "2.0.0")
    forest.put("liar", "c", "2.0.0")
    forest.put("liar", "evil", "1.0.0", service="evil")
    ids = ("id-edge-1", "id-edge-2")

    def lie(claim: Claim) -> Iterable[Claim]:
        if claim.key.service == "evil":
            yield replace(claim, granted=ids, stage=Stage.OPEN, stamp=1, generation=1, scope=ids)
        else:
            yield replace(claim, refused=ids)

    forest["liar"].lie = lie
    forest["liar"].restart()
    forest.run(5.0)
    forest.remove("a", "a")
    forest.run(5.0)
    assert forest["b"].state("b") == "active"
    for edge in edges:
        assert forest[edge].versions("evil") == {"1.0.0": "refused"}
