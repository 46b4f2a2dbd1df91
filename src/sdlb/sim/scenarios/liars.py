"""E: children that lie. A child may report what it has, but not what was decided."""

from __future__ import annotations

from sdlb.core.messages import Claim, ClaimKey
from sdlb.sim import bridge
from sdlb.sim.liar import Liar
from sdlb.sim.process import Process
from sdlb.sim.stage import ROUTE, Stage, scenario

HUGE = 1_000_000


def _honest(stage: Stage) -> Process:
    process = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(process)
    stage.requests()
    return process


def _claim(liar: Liar, service: str, version: str) -> Claim:
    """The most false claim: open under a huge generation, with the oldest stamp, on another node's host."""
    key = ClaimKey(service, version, ROUTE)
    return bridge.false_claim(key, is_open=True, roots=liar.roots, generation=HUGE, host="host-1", seen=1 << 52)


@scenario("E", 1, 6, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def child_with_a_policy(stage: Stage) -> None:
    """A child sends a policy with a high revision that makes everything compatible: no node applies it."""
    stage.run(3.0)
    first = _honest(stage)
    stage.policy({"priority": "higher"})
    liar = stage.liar("liar", "rack-1")
    stage.run(2.0)
    liar.lie_about_policies(bridge.policy("catalog", '{"compatibility":{"rule":"any"}}', 999_999, "root-1"))
    stage.run(5.0)
    second = stage.instance("host-2", "catalog-2.0.0")
    stage.run(10.0)
    stage.expect(1, "2.0.0 waits for 1.0.1", stage.serves(first) and not stage.serves(second))
    liar.leave()
    stage.settle()


@scenario("E", 2, 6, root_1="", rack_1="root-1", host_1="rack-1")
def child_with_a_huge_generation(stage: Stage) -> None:
    """A child claims to serve an incompatible version under a huge generation: the version that serves is not closed."""
    stage.run(3.0)
    first = _honest(stage)
    liar = stage.liar("liar", "rack-1")
    stage.run(2.0)
    liar.lie(_claim(liar, "catalog", "9.0.0"))
    for _ in range(20):
        stage.run(1.0)
        stage.expect(6, "the version that served before serves on", stage.serves(first))
    liar.leave()
    stage.run(30.0)
    stage.settle()


@scenario("E", 3, 6, root_1="", root_2="", host_1="root-1 root-2")
def child_with_a_route_of_others(stage: Stage) -> None:
    """A child of two roots claims the route of a service that serves for its own service, with the oldest stamp."""
    stage.run(3.0)
    first = _honest(stage)
    liar = stage.liar("liar", "root-1", "root-2")
    stage.run(2.0)
    liar.lie(_claim(liar, "evil", "1.0.0"))
    for _ in range(20):
        stage.run(1.0)
        stage.expect(6, "the holder of the route serves on", stage.serves(first))
    liar.leave()
    stage.run(30.0)
    stage.settle()


@scenario("E", 2, root_1="", rack_1="root-1", rack_2="root-1", host_1="rack-1", host_2="rack-2")
def child_with_an_old_stamp(stage: Stage) -> None:
    """Two versions wait for the first to stop, one of a lying child with an old stamp: the one that claimed first opens first."""
    stage.run(3.0)
    first = _honest(stage)
    honest = stage.instance("host-2", "catalog-2.0.0")
    stage.run(5.0)
    liar = stage.liar("liar", "root-1")
    stage.run(2.0)
    key = ClaimKey("catalog", "9.0.0", ROUTE)
    liar.lie(Claim(key, capacity=0, count=1, hosts=("liar",), stamp=1, opening=True))
    stage.run(2.0)
    stage.acts.leave(first, 10.0)
    stage.until(2, "the version that claimed first opens first", lambda: stage.serves(honest), 10.0)
    liar.leave()
    stage.run(30.0)
    stage.settle()


def _lies_during_a_cut_over(stage: Stage, *parents: str) -> None:
    stage.run(3.0)
    first = _honest(stage)
    second = stage.instance("host-2", "catalog-2.0.0")
    liar = stage.liar("liar", *parents)
    stage.run(2.0)
    liar.lie(_claim(liar, "evil", "1.0.0"))
    stage.run(5.0)
    stage.acts.leave(first, 10.0)
    stage.until(6, "2.0.0 has the route after 1.0.1", lambda: stage.serves(second), 5.0)
    liar.leave()
    stage.run(30.0)
    stage.settle()


@scenario("E", 3, 6, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1", host_2="rack-1")
def child_with_a_route_of_others_during_a_cut_over(stage: Stage) -> None:
    """A child claims to serve another service's route just when that service's next version opens: the service keeps it."""
    _lies_during_a_cut_over(stage, "rack-1")


@scenario("E", 3, 6, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1", host_2="rack-1")
def child_of_both_roots_with_a_route_of_others(stage: Stage) -> None:
    """The same from a child of both roots: together with another one, half of the children report it."""
    _lies_during_a_cut_over(stage, "root-1", "root-2")


@scenario(
    "E",
    3,
    6,
    root_1="",
    root_2="",
    rack_1="root-1 root-2",
    rack_2="root-1 root-2",
    rack_3="root-1",
    host_1="rack-1",
    host_2="rack-1",
)
def child_that_tells_of_a_root_out_of_sight(stage: Stage) -> None:
    """A child claims that the other root has given it the route, which no node above can verify: the holder keeps it."""
    _lies_during_a_cut_over(stage, "rack-3")
