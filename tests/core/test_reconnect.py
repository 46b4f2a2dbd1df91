"""A link that breaks and returns: state that both ends still hold is not sent again, and outdated messages do not
count."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from sdlb.core import events as ev
from sdlb.core.messages import (
    ACTIVE,
    Beat,
    Cause,
    Claim,
    DownState,
    Gone,
    Hello,
    Path,
    UpState,
    Verdict,
    Welcome,
)
from sdlb.core.uplink import Uplink
from tests.core.forest import Forest, interruptions, key_of

ONE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}
TWO: dict[str, tuple[str, ...]] = {"edge": (), "host-1": ("edge",), "host-2": ("edge",), "host-3": ("edge",)}
OLD, NEXT, NEW = key_of("1.0.1"), key_of("1.0.2"), key_of("2.0.0")


def served(topology: dict[str, tuple[str, ...]] = ONE) -> Forest:
    forest = Forest(topology)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-1", "w", "2.0.0")
    forest.put("host-2", "b", "1.0.2")
    forest.policy("edge", '{"priority": "higher"}')
    forest.run(5.0)
    return forest


def again(forest: Forest, child: str = "rack", parent: str = "edge", seconds: float = 1.0) -> tuple[list[object], ...]:
    """The link breaks and comes back: what either end sends then, without heartbeats."""
    up, down = forest[child].listen(), forest[parent].listen()
    forest.part(child, parent)
    forest.cut.clear()
    forest.run(seconds)
    return tuple([message for message in said if not isinstance(message, Beat)] for said in (up, down))


def claims(said: list[object]) -> list[Claim]:
    return [claim for message in said if isinstance(message, UpState) for claim in message.claims]


def verdicts(said: list[object]) -> list[Verdict]:
    return [verdict for message in said if isinstance(message, DownState) for verdict in message.verdicts]


# ---------------------------------------------------------------------- what is sent again


@pytest.mark.promise(5)
@pytest.mark.parametrize(("child", "parent"), [("rack", "edge"), ("host-1", "rack"), ("host-2", "rack")])
def test_with_equal_digests_no_claim_and_no_verdict_is_sent_again(child: str, parent: str) -> None:
    forest = served()
    up, down = again(forest, child, parent)
    assert [type(message) for message in up] == [Hello, UpState]
    assert [type(message) for message in down] == [Welcome, DownState]
    assert (claims(up), verdicts(down)) == ([], [])
    (state,) = [message for message in up if isinstance(message, UpState)]
    assert not state.full and not state.withdrawn


@pytest.mark.promise(5)
def test_nothing_moves_above_and_below_a_link_that_comes_back() -> None:
    forest = served()
    others = {name: forest[name].listen() for name in ("host-1", "host-2")}
    engines = {name: node.engine.epoch for name, node in forest.nodes.items()}
    again(forest)
    assert all(isinstance(message, Beat) for said in others.values() for message in said)
    assert {name: node.engine.epoch for name, node in forest.nodes.items()} == engines


def test_what_changed_while_the_link_was_down_is_all_that_is_sent() -> None:
    forest = served()
    forest.part("rack", "edge")
    forest.put("host-2", "c", "1.0.2")
    up, _ = again(forest)
    assert [claim.key for claim in claims(up) if claim.count == 2] == [NEXT]
    assert {claim.key for claim in claims(up)} == {NEXT}
    assert not any(message.full for message in up if isinstance(message, UpState))


def test_with_another_digest_all_claims_are_sent_again() -> None:
    """A message was lost and the loss was not noticed before the link broke: all claims are sent again."""
    forest = served()
    forest.cut.add(frozenset(("rack", "edge")))
    forest.put("host-2", "c", "1.0.2")
    up, down = again(forest)
    first = next(message for message in up if isinstance(message, UpState))
    assert first.full
    assert {claim.key for claim in first.claims} == {OLD, NEXT, NEW}
    assert forest["edge"].balancer.view.child("rack")["instances"] == 4  # type: ignore[index]
    assert {v.key for v in verdicts(down)} <= {OLD, NEXT, NEW}


@pytest.mark.parametrize("disk", ["kept", "lost"])
def test_a_parent_that_knows_less_is_sent_all_claims_and_sends_all_verdicts(disk: str) -> None:
    forest = served()
    up, down = forest["rack"].listen(), forest["edge"].listen()
    if disk == "lost":
        forest["edge"].lose_disk()
    else:
        forest["edge"].restart()
    forest.run(10.0)
    if disk == "lost":
        assert {claim.key for claim in claims(up)} == {OLD, NEXT, NEW}
    assert {verdict.key for verdict in verdicts(down)} == {OLD, NEXT, NEW}
    assert forest["rack"].versions() == {"1.0.1": "active", "1.0.2": "active", "2.0.0": "waiting"}


def test_with_another_digest_of_verdicts_all_of_them_are_sent_again_and_no_claims() -> None:
    """A message of the parent was lost: all verdicts are sent again, and no claims."""
    forest = served()
    real = forest.send_down
    forest.send_down = lambda *_: None  # type: ignore[method-assign]
    forest.policy(
        "edge", '{"priority": "higher", "compatibility": {"allow": [["1.0.1", "2.0.0"], ["1.0.2", "2.0.0"]]}}'
    )
    assert forest["edge"].versions()["2.0.0"] == "active"
    assert forest["rack"].versions()["2.0.0"] == "waiting"
    forest.send_down = real  # type: ignore[method-assign]
    up, down = again(forest)
    assert {verdict.key for verdict in verdicts(down)} == {OLD, NEXT, NEW}
    assert forest["rack"].versions()["2.0.0"] == "active"
    assert not any(message.full for message in up if isinstance(message, UpState))


@pytest.mark.promise(5)
@pytest.mark.promise(7)
def test_a_thousand_reconnects_send_one_empty_state_each_and_no_more() -> None:
    forest = served()
    forest.run(60.0)
    sizes = {name: node.balancer.view.sizes() for name, node in forest.nodes.items()}
    disks = {name: dict(node.disk) for name, node in forest.nodes.items()}
    said = {name: node.listen() for name, node in forest.nodes.items()}
    for _ in range(1000):
        forest.part("rack", "edge")
        forest.cut.clear()
        forest.run(0.25)
    forest.run(30.0)
    kinds = {name: Counter(type(m).__name__ for m in each if not isinstance(m, Beat)) for name, each in said.items()}
    assert kinds == {
        "edge": {"Welcome": 1000, "DownState": 1000},
        "rack": {"Hello": 1000, "UpState": 1000},
        "host-1": {},
        "host-2": {},
    }
    assert claims(said["rack"]) == [] and verdicts(said["edge"]) == []
    assert not any(message.drained for message in said["edge"] if isinstance(message, DownState))
    assert not any(message.full or message.docs for message in said["rack"] if isinstance(message, UpState))
    assert {name: node.balancer.view.sizes() for name, node in forest.nodes.items()} == sizes
    assert {name: dict(node.disk) for name, node in forest.nodes.items()} == disks


# ---------------------------------------------------------------------- nothing of the past is news


def test_a_verdict_that_crossed_a_withdrawal_is_about_a_claim_of_the_past() -> None:
    uplink = Uplink("parent", 0.0, 10.0)
    uplink.greet({})
    assert uplink.welcome(Welcome("parent", "p", 1, Path(("parent",)), 0), 0.0)
    uplink.go_on()
    verdict = Verdict(OLD, ACTIVE)
    for expected in ([Claim(OLD, count=1)], []):
        uplink.state(expected, [] if expected else [Gone(OLD, Cause.STOPPED)], [], ())
    assert uplink.decide((verdict,), received=1) == []
    uplink.state([Claim(OLD, count=2)], [], [], ())
    assert uplink.decide((verdict,), received=1) == [], "it answers the first claim, not this one"
    assert uplink.decide((verdict,), received=2) == []
    assert uplink.verdicts == {}
    assert uplink.decide((verdict,), received=3) == [OLD]


def withdrawn_and_made_again(forest: Forest) -> None:
    """At host-1, its link is down."""
    forest.part("host-1", "edge")
    forest.remove("host-1", "a", deadline_s=0.0)
    forest.run(0.25)
    assert forest["host-1"].state("a") == "gone"
    forest.put("host-1", "a", "1.0.1")


def tree() -> Forest:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.put("host-3", "c", "2.0.0")
    return forest


@pytest.mark.promise(1)
def test_verdicts_about_a_claim_are_forgotten_with_it() -> None:
    forest = tree()
    forest.watch.append(forest.one_generation)
    withdrawn_and_made_again(forest)
    assert forest["host-1"].state("a") == "waiting"
    assert forest["host-1"].serves(OLD) == set()
    forest.run(5.0)
    assert forest["host-1"].state("a") == "waiting", "nobody could be asked"
    forest.cut.clear()
    forest.run(6.0)
    assert forest["host-1"].state("a") == "active", "its parent has not heard of the withdrawal, and holds on to it"
    assert forest["edge"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}


@pytest.mark.promise(1)
@pytest.mark.parametrize("how", ["silence", "forgotten"])
def test_what_was_decided_meanwhile_holds_for_a_claim_that_was_made_again(how: str) -> None:
    forest = tree()
    forest.watch.append(forest.one_generation)
    withdrawn_and_made_again(forest)
    forest.run(15.0 if how == "forgotten" else 30.0)
    if how == "forgotten":
        forest["edge"].inbox.append(ev.ForgetChild("host-1"))
        forest.settle()
    assert forest["host-2"].state("b") == "active"
    forest.cut.clear()
    for _ in range(60):
        forest.run(0.25)
        assert forest["host-1"].serves(OLD) == set()
        assert forest["host-2"].state("b") == "active"
    assert forest["host-1"].state("a") == "waiting"


@pytest.mark.promise(1)
def test_a_verdict_under_way_when_the_link_broke_does_not_count_on_the_next() -> None:
    """The consent to 2.0.0 is under way while the claim is withdrawn, made again, and decided differently: the old
    verdict is ignored."""
    forest = tree()
    forest.watch.append(forest.one_generation)
    forest["host-1"].inbox.append(ev.InstanceRemove("a", 0.0))
    while forest["edge"].versions().get("2.0.0") != "active":
        assert forest.step()
    assert forest["host-2"].state("b") == "waiting", "the consent has not arrived"
    forest.part("host-2", "edge")
    forest["host-2"].inbox.append(ev.InstanceGone("b", "killed"))
    forest.put("host-2", "b", "2.0.0")
    forest.remove("host-3", "c")
    assert forest["host-2"].state("b") == "waiting"
    forest.run(30.0)  # presumed to have stopped
    forest.put("host-1", "a", "1.0.1")
    assert forest["host-1"].state("a") == "active"
    forest.cut.clear()
    forest.run(30.0)
    assert forest["host-2"].state("b") == "waiting"
    assert forest["edge"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}


@pytest.mark.promise(1)
@pytest.mark.promise(5)
@pytest.mark.parametrize("victim", ["edge", "host-1", "host-2"])
def test_a_claim_made_again_while_a_node_restarts_anywhere(victim: str) -> None:
    def act(forest: Forest) -> None:
        forest.watch.append(forest.one_generation)
        forest.part("host-1", "edge")
        host = forest["host-1"]
        host.inbox.append(ev.InstanceGone("a", "killed"))
        forest.cut.clear()
        forest.put("host-1", "a", "1.0.1", settle=False)
        host.balancer._parents.links["edge"].dial_at = forest.now
        host.inbox.append(ev.Tick())

    for where, forest in interruptions(tree, act, [victim]):
        forest.put("host-1", "a", "1.0.1")  # renewed
        forest.run(40.0)
        states = [forest[host].state(name) for host, name in (("host-1", "a"), ("host-2", "b"), ("host-3", "c"))]
        assert states in (["active", "waiting", "waiting"], ["waiting", "active", "active"]), where
        for host, name in (("host-1", "a"), ("host-2", "b"), ("host-3", "c")):
            assert bool(forest[host].engine.endpoints) == (forest[host].state(name) == "active"), where


@pytest.mark.promise(3)
def test_a_link_that_breaks_at_every_step_of_a_rollout_changes_nothing_of_its_end() -> None:
    def act(forest: Forest) -> None:
        forest.watch.append(forest.one_generation)
        forest.remove("host-1", "a", settle=False)

    def breaks(forest: Forest) -> None:
        forest.part("host-2", "edge")
        forest.cut.clear()

    at = 0
    while True:
        forest = tree()
        act(forest)
        if not all(forest.step() for _ in range(at)):
            break
        breaks(forest)
        forest.watch.append(partial(forest.no_dead_end, "edge"))
        forest.run(5.0)
        assert forest["edge"].versions() == {"2.0.0": "active"}, f"step {at}"
        assert forest.endpoints("edge", NEW) == {"host-2/i:b", "host-3/i:c"}, f"step {at}"
        at += 1
    assert at > 10
