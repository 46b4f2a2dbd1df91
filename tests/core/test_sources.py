"""Removed sources: the cause, and what happens to the sources that they cover."""

from __future__ import annotations

from random import Random

import pytest

from sdlb.core import effects as ef
from sdlb.core import events as ev
from sdlb.core.messages import Cause, Claim, Stage, UpState
from sdlb.core.settings import Settings
from sdlb.core.slot import Part, Slot, digest_of, includes
from sdlb.core.source import Source, Step
from sdlb.core.state import State
from tests.core.forest import Forest, key_of

KEY = key_of("1.0.1")


def rack(state: State, name: str, *hosts: str) -> Source:
    digest = 0
    for host in hosts:
        digest ^= digest_of(host)
    source = Source(f"n:{name}", Claim(KEY, hosts=hosts, hosts_digest=digest, stage=Stage.OPEN), name)
    source.step(Step.ADMIT)
    state.put_source(KEY, source).update_coverage(source)
    return source


def bench() -> State:
    return State(Settings("edge", "id-edge", 1), Random(0))


@pytest.mark.parametrize("causes", [(Cause.UNKNOWN, Cause.STOPPED), (Cause.STOPPED, Cause.UNKNOWN)])
def test_the_least_known_cause_of_all_is_passed_on(causes: tuple[Cause, ...]) -> None:
    state = bench()
    for name in ("rack-1", "rack-2"):
        rack(state, name, name)
    for name, cause in zip(("rack-1", "rack-2"), causes, strict=True):
        state.drop_source(KEY, f"n:{name}", cause)
    assert state.slots[KEY].cause == Cause.UNKNOWN


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize(("cause", "known"), [(Cause.STOPPED, True), (Cause.PRESUMED, False), (Cause.LEFT, False)])
def test_a_covered_source_has_stopped_only_with_a_source_that_is_known_to_have(cause: Cause, known: bool) -> None:
    state = bench()
    silent = rack(state, "rack-1", "host-1")
    rack(state, "rack-2", "host-1")
    state.step(KEY, silent, Step.SILENCE)
    state.drop_source(KEY, "n:rack-2", cause)
    assert state.known_stopped == ([("n:rack-1", KEY)] if known else [])


@pytest.mark.promise(3)
@pytest.mark.parametrize(("cause", "told"), [(Cause.STOPPED, True), (Cause.PRESUMED, False), (Cause.LEFT, False)])
def test_a_report_just_before_a_silence_is_noticed_is_not_lost(cause: Cause, told: bool) -> None:
    state = bench()
    one = rack(state, "rack-1", "host-1")
    rack(state, "rack-2", "host-1")
    state.drop_source(KEY, "n:rack-2", cause)
    assert state.known_stopped == [], "it may still speak for itself"
    assert one.contradicted is told
    state.slots[KEY].update_coverage(one)
    assert not one.contradicted, "it does"


@pytest.mark.promise(3)
def test_the_next_version_waits_no_longer_than_a_lease_for_a_rack_out_of_sight() -> None:
    """The other rack reports the stop on the common hosts just before the silence of the first is noticed."""
    forest = Forest({"edge": (), "rack-1": ("edge",), "rack-2": ("edge",), "host": ("rack-1", "rack-2")})
    forest.put("host", "a", "1.0.1")
    forest.put("host", "b", "2.0.0")
    forest.run(2.0)
    forest.cut.add(frozenset(("rack-2", "edge")))  # neither end notices
    forest.remove("host", "a", deadline_s=3.0)
    forest.run(4.0)
    edge = forest["edge"].balancer._state.slots[key_of("1.0.1")].sources
    assert list(edge) == ["n:rack-2"] and edge["n:rack-2"].contradicted
    assert forest["host"].state("b") == "waiting"
    forest.run(12.0)
    assert forest["host"].state("b") == "active"


def test_a_silent_source_is_covered_while_a_live_one_speaks_for_its_hosts() -> None:
    state = bench()
    one, other = rack(state, "rack-1", "host-1"), rack(state, "rack-2", "host-1", "host-2")
    slot = state.slots[KEY]
    assert not slot.covered(one), "it speaks for itself"
    state.step(KEY, one, Step.SILENCE)
    assert slot.covered(one)
    other.unlinked = True
    assert not slot.covered(one), "it has no link"
    other.unlinked = False
    state.step(KEY, other, Step.SILENCE)
    assert not slot.covered(one), "it is silent too"


def test_a_child_that_reports_fewer_hosts_covers_no_other() -> None:
    state = bench()
    one = rack(state, "rack-1", "host-1", "host-2")
    rack(state, "rack-2", "host-2")
    state.step(KEY, one, Step.SILENCE)
    assert not state.slots[KEY].covered(one)


def test_coverage_is_compared_with_the_latest_report() -> None:
    state = bench()
    one = rack(state, "rack-1", "host-1")
    rack(state, "rack-2", "host-1")
    one.claim = Claim(KEY, hosts=("host-1", "host-2"), hosts_digest=digest_of("host-1") ^ digest_of("host-2"))
    state.slots[KEY].update_coverage(one)
    state.step(KEY, one, Step.SILENCE)
    assert not state.slots[KEY].covered(one)


def test_hosts_that_are_not_named_are_in_no_other_claim() -> None:
    none, five = Claim(KEY), Claim(KEY, hosts=tuple("abcde"), hosts_digest=1)
    assert not includes(none, none)
    assert not includes(Claim(KEY, hosts=tuple("abcdef"), hosts_digest=2), five), "there may be more than five"
    assert includes(five, five)


def test_a_covered_part_adds_only_what_may_be_in_flight() -> None:
    slot = Slot(KEY)
    slot.put_part("n:a", Part(count=2, stage=Stage.OPEN, present=True, capacity=7, covered=True, child=True))
    assert (slot.sums.present, slot.sums.capacity) == (1, 7)
    assert (slot.count(), slot.sums.open, slot.sums.parts) == (0, 0, 0)
    slot.put_part("n:a", None)
    assert (slot.sums.present, slot.sums.capacity) == (0, 0)


def test_the_generation_of_what_waits_is_none_under_which_something_serves() -> None:
    slot = Slot(KEY)
    slot.put_part("n:a", Part(stage=Stage.WAITING, generation=9, child=True))
    slot.put_part("n:b", Part(stage=Stage.OPEN, generation=4, child=True))
    assert slot.generation() == 4


def test_sums_follow_the_least_that_is_left() -> None:
    slot = Slot(KEY)
    for target, stamp in (("n:a", 3), ("n:b", 5), ("n:c", 9)):
        slot.put_part(target, Part(stamp=stamp, lease_s=stamp, child=True))
    slot.put_part("n:a", Part(stamp=7, lease_s=7, child=True))
    assert (slot.stamp(), slot.lease_s()) == (5, 9)
    slot.put_part("n:c", None)
    assert (slot.stamp(), slot.lease_s()) == (5, 7)


# ---------------------------------------------------------------------- nodes


def test_what_is_written_comes_before_what_is_done() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    batches: list[list[ef.Effect]] = []
    for node in forest.nodes.values():
        carry_out = node.carry_out
        node.carry_out = lambda effects, then=carry_out: (batches.append(effects), then(effects))[1]  # type: ignore[method-assign]
    forest.put("host", "a", "1.0.1")
    forest.put("host", "b", "2.0.0")
    forest.remove("host", "a")
    kinds = [[type(effect) for effect in batch] for batch in batches]
    both = [each for each in kinds if ef.Persist in each and ef.Apply in each]
    assert both and all(each[0] is ef.Persist for each in both)


@pytest.mark.promise(2, 3)
def test_a_node_sends_bye_when_nothing_is_in_flight_through_it() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.1")
    endpoint = ev.EndpointKey(KEY, "i:a")
    forest["host"].engine.in_flight[endpoint] = 1
    forest["host"].handle(ev.Stop(60.0))
    forest.run(5.0)
    assert forest["host"].stopped is None
    assert list(forest["edge"].versions()) == ["1.0.1"]
    forest.finish("host", endpoint)
    assert forest["host"].stopped == ef.Stopped(clean=True)


def test_a_host_that_is_a_child_itself_speaks_for_itself_alone() -> None:
    state = bench()
    host = rack(state, "host-1", "host-1")
    rack(state, "rack", "host-1")
    state.step(KEY, host, Step.SILENCE)
    assert not state.slots[KEY].covered(host)


# ---------------------------------------------------------------------- why nothing is ready


def reason(forest: Forest, node: str) -> str:
    (version,) = forest[node].balancer.view.service("catalog")["versions"]
    return str(version["reason"])


def test_a_root_reports_the_reason_of_an_instance_that_is_not_ready() -> None:
    forest = Forest({"edge": (), "rack": ("edge",), "host": ("rack",)})
    forest.put("host", "a", "1.0.1")
    forest["host"].handle(ev.InstanceHealth("a", False, "connection refused"))
    forest.run(3.0)
    assert reason(forest, "edge") == "no instance is ready on host (a: connection refused)"
    assert reason(forest, "rack") == reason(forest, "host") == reason(forest, "edge")
    forest["host"].handle(ev.InstanceHealth("a", True, ""))
    forest.run(3.0)
    assert reason(forest, "edge") == ""


def test_the_first_result_of_a_check_that_fails_reaches_the_root() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.1")
    forest.put("host", "b", "1.0.1", healthy=False)
    forest["host"].handle(ev.InstanceHealth("a", False, "status 503"))
    forest.run(3.0)
    forest.remove("host", "a")
    forest.run(3.0)
    assert reason(forest, "edge") == "no instance is ready on host (b: not checked yet)"
    forest["host"].handle(ev.InstanceHealth("b", False, "timed out"))
    forest.run(3.0)
    assert reason(forest, "edge") == "no instance is ready on host (b: timed out)"


def test_a_text_that_changes_at_each_check_is_not_sent_each_time() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.1")
    forest["host"].handle(ev.InstanceHealth("a", False, "timed out"))
    forest.run(3.0)
    sent = forest["host"].listen()
    for number in range(5):
        forest["host"].handle(ev.InstanceHealth("a", False, f"timed out after {number} s"))
        forest.run(1.0)
    assert not [message for message in sent if isinstance(message, UpState)]
