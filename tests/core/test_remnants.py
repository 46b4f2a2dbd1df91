"""A claim that is no longer reported has not stopped: remnants block incompatible versions until more is known."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from tests.core.forest import Forest, interruptions, key_of
from tests.core.node import Node

OLD, NEW = key_of("1.0.1"), key_of("2.0.0")
ONE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("edge",)}
TWO: dict[str, tuple[str, ...]] = {
    "edge": (),
    "rack-1": ("edge",),
    "rack-2": ("edge",),
    "host-1": ("rack-1", "rack-2"),
    "host-2": ("rack-1", "rack-2"),
    "host-3": ("edge",),
}


def one_rack() -> Forest:
    """The old version below the rack, the new one waits beside it."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    assert forest["host-2"].state("b") == "waiting"
    return forest


def two_racks() -> Forest:
    forest = Forest(TWO)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-3", "b", "2.0.0")
    assert forest["host-3"].state("b") == "waiting"
    return forest


def waits(forest: Forest, host: str, seconds: float) -> None:
    for _ in range(int(seconds * 2)):
        forest.run(0.5)
        assert forest[host].state("b") == "waiting"
        forest.one_generation()


# ---------------------------------------------------------------------- a rack that leaves


@pytest.mark.promise(2)
def test_a_rack_that_leaves_takes_nothing_along() -> None:
    """The host below a rack that leaves serves on, so an incompatible version waits for lease and fence."""
    forest = one_rack()
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    assert forest["rack"].stopped is not None
    forest["rack"].kill()
    assert forest["host-1"].serves(OLD) == {"i:a"}
    waits(forest, "host-2", 19.0)
    assert forest["host-2"].reason("b")
    forest.run(5.0)
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_a_rack_that_leaves_is_waited_for_under_on_silence_wait() -> None:
    forest = one_rack()
    forest.policy("edge", '{"on_silence": "wait"}')
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    forest["rack"].kill()
    waits(forest, "host-2", 200.0)
    assert "only presumed" in forest["host-2"].reason("b")
    forest.policy("edge", '{"on_silence": "open"}')
    assert forest["host-2"].state("b") == "active", "from then on silence is enough"


@pytest.mark.promise(2)
def test_an_operator_may_report_that_what_a_rack_left_has_stopped() -> None:
    forest = one_rack()
    forest.policy("edge", '{"on_silence": "wait"}')
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    forest["rack"].kill()
    forest.run(60.0)
    forest["host-1"].kill()
    assert forest["edge"].balancer.view.tree()["remnants"] == [{"name": "rack", "claims": 1}]
    forest["edge"].inbox.append(ev.ForgetChild("rack"))
    forest.settle()
    assert forest["host-2"].state("b") == "active"
    assert forest["edge"].balancer.view.tree()["remnants"] == []
    assert not any("rack" in name for name in forest["edge"].disk)


def test_a_host_that_leaves_has_stopped_what_it_had() -> None:
    """A host drains its instances before it leaves. They are known to have stopped, so the new version opens
    immediately."""
    forest = one_rack()
    forest["host-1"].handle(ev.Stop(10.0))
    forest.settle()
    assert forest["host-1"].stopped is not None and forest["host-1"].stopped.clean
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_what_a_rack_had_itself_has_stopped_and_what_was_below_it_has_not() -> None:
    forest = one_rack()
    forest.remove("host-1", "a")
    forest.remove("host-2", "b")
    forest.put("rack", "own", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_the_remnants_outlive_a_restart_of_the_node_that_keeps_them() -> None:
    forest = one_rack()
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    forest["rack"].kill()
    forest.run(5.0)
    forest["edge"].restart()
    waits(forest, "host-2", 15.0)
    forest.run(30.0)
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
@pytest.mark.parametrize("victim", ["edge", "host-1", "host-2"])
def test_a_rack_that_leaves_while_a_node_restarts(victim: str) -> None:
    def leave(forest: Forest) -> None:
        forest["rack"].inbox.append(ev.Stop(5.0))

    for where, forest in interruptions(one_rack, leave, [victim]):
        forest.watch.append(forest.one_generation)
        forest.run(6.0)
        assert forest["rack"].stopped is not None, where
        forest["rack"].kill()
        forest.run(13.0)
        forest.watch.clear()  # lease and fence are over soon
        forest.run(30.0)
        assert forest["host-2"].state("b") == "active", where


@pytest.mark.promise(2)
def test_the_host_comes_back_below_another_rack_and_is_the_incumbent_still() -> None:
    """A host with a remnant reports through another rack: it is still the incumbent, and nothing of it was closed."""
    forest = one_rack()
    forest.watch.append(forest.one_generation)
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    forest["rack"].kill()
    forest.run(3.0)
    forest["host-1"].move("edge")
    waits(forest, "host-2", 40.0)
    assert forest["edge"].serves(OLD) == {"n:host-1"}
    assert forest["edge"].balancer.view.tree()["remnants"] == []
    forest.remove("host-1", "a")
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(2)
def test_what_has_stopped_below_another_rack_takes_its_remnant_along() -> None:
    """A host returns through another rack and its instance stops: the remnant is dropped too."""
    forest = one_rack()
    forest["rack"].handle(ev.Stop(10.0))
    forest.settle()
    forest["rack"].kill()
    forest.run(3.0)
    forest["host-1"].move("edge")
    forest.run(3.0)
    forest.remove("host-1", "a")
    assert forest["host-2"].state("b") == "active"


# ---------------------------------------------------------------------- a rack that is replaced


@pytest.mark.promise(2)
@pytest.mark.parametrize("lost", [Node.replace, Node.lose_disk])
def test_a_rack_without_its_disk_has_not_stopped_what_it_no_longer_mentions(lost: object) -> None:
    forest = one_rack()
    forest.cut.add(frozenset(("host-1", "rack")))  # its host is not back yet
    forest["rack"].kill()
    forest.run(11.0)  # its name is free again
    lost(forest["rack"])  # type: ignore[operator]
    assert forest["host-1"].serves(OLD) == {"i:a"}
    waits(forest, "host-2", 12.0)
    forest.cut.clear()
    forest.run(40.0)
    assert forest["host-1"].state("a") == "active"
    assert forest["host-2"].state("b") == "waiting"
    assert forest["edge"].balancer.view.tree()["remnants"] == []


@pytest.mark.promise(2)
def test_a_replaced_rack_that_only_some_of_its_hosts_have_found_is_not_all_of_it() -> None:
    """Three hosts had the version, and the replaced rack knows one of them so far. A stop on that host does not count
    for the other two."""
    forest = Forest(
        {"edge": (), "rack": ("edge",), "h-1": ("rack",), "h-2": ("rack",), "h-3": ("rack",), "host-2": ("edge",)}
    )
    for host in ("h-1", "h-2", "h-3"):
        forest.put(host, "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    for host in ("h-2", "h-3"):
        forest.cut.add(frozenset((host, "rack")))
    forest["rack"].kill()
    forest.run(11.0)
    forest["rack"].replace()
    forest.run(6.0)
    assert forest["edge"].serves(OLD) == {"n:rack"}
    forest.remove("h-1", "a")
    waits(forest, "host-2", 10.0)
    forest.cut.clear()
    forest.run(5.0)
    for host in ("h-2", "h-3"):
        assert forest["host-2"].state("b") == "waiting"
        forest.remove(host, "a")
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(5)
def test_what_the_replaced_rack_never_mentions_again_is_over_after_lease_and_fence() -> None:
    forest = one_rack()
    forest["rack"].kill()
    forest["host-1"].kill()
    forest.run(11.0)
    forest["rack"].replace()
    forest.run(60.0)
    assert forest["host-2"].state("b") == "active"


# ---------------------------------------------------------------------- sources with the same hosts


@pytest.mark.promise(3)
def test_one_of_two_racks_lost_in_a_rollout_costs_no_waiting() -> None:
    """The other rack reports that the old instances on the same hosts have stopped. (A host waits for the lost rack's
    acknowledgement until its drain deadline, because that engine may still forward requests.)"""
    forest = two_racks()
    forest.watch.append(forest.one_generation)
    forest["rack-1"].kill()
    forest.run(1.0)
    assert forest["host-3"].state("b") == "waiting"
    forest.remove("host-1", "a", deadline_s=2.0)
    forest.run(1.5)
    assert forest["host-3"].state("b") == "waiting"
    forest.run(1.0)
    assert forest["host-3"].state("b") == "active"


@pytest.mark.promise(3)
@pytest.mark.parametrize("after_s", [0.0, 5.0, 12.0, 18.0])
def test_however_long_the_other_rack_was_silent_already(after_s: float) -> None:
    forest = two_racks()
    forest["rack-1"].kill()
    forest.run(after_s)
    forest.remove("host-1", "a")
    forest.run(11.0 if after_s < 11.0 else 1.0)  # a drain asks the silent parent while it is in touch
    assert forest["host-3"].state("b") == "active"


@pytest.mark.promise(2)
def test_a_silent_rack_may_have_more_hosts_than_the_other_one() -> None:
    """host-4 is below rack-1 alone, so reports of rack-2 about host-1 do not cover it."""
    forest = Forest({**TWO, "host-4": ("rack-1",)})
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-4", "d", "1.0.1")
    forest.put("host-3", "b", "2.0.0")
    forest["rack-1"].kill()
    forest.run(1.0)
    forest.remove("host-1", "a")
    assert forest["host-4"].serves(OLD) == {"i:d"}
    waits(forest, "host-3", 10.0)


@pytest.mark.promise(2)
def test_with_more_hosts_than_names_the_other_rack_still_speaks_for_all_of_them() -> None:
    hosts = [f"h-{number}" for number in range(8)]
    forest = Forest({"edge": (), "rack-1": ("edge",), "rack-2": ("edge",), "host-3": ("edge",)})
    for host in hosts:
        forest.add(host, "rack-1", "rack-2").start()
    forest.run(1.0)
    for host in hosts:
        forest.put(host, "a", "1.0.1")
    forest.put("host-3", "b", "2.0.0")
    forest.run(3.0)
    forest["rack-1"].kill()
    forest.run(1.0)
    for host in hosts:
        assert forest["host-3"].state("b") == "waiting"
        forest.remove(host, "a")
    forest.run(11.0)
    assert forest["host-3"].state("b") == "active"


@pytest.mark.promise(2)
def test_with_more_hosts_than_names_one_more_on_the_silent_side_is_not_overlooked() -> None:
    hosts = [f"h-{number}" for number in range(7)]
    forest = Forest({"edge": (), "rack-1": ("edge",), "rack-2": ("edge",), "host-3": ("edge",), "z": ("rack-1",)})
    for host in hosts:
        forest.add(host, "rack-1", "rack-2").start()
    forest.run(1.0)
    for host in (*hosts, "z"):
        forest.put(host, "a", "1.0.1")
    forest.put("host-3", "b", "2.0.0")
    forest.run(3.0)
    forest["rack-1"].kill()
    forest.run(1.0)
    for host in hosts:
        forest.remove(host, "a")
    assert forest["z"].serves(OLD) == {"i:a"}
    waits(forest, "host-3", 8.0)


@pytest.mark.promise(2)
def test_a_rack_that_leaves_is_covered_by_the_other_one() -> None:
    forest = two_racks()
    forest.watch.append(forest.one_generation)
    forest["rack-1"].handle(ev.Stop(10.0))
    forest.settle()
    forest["rack-1"].kill()
    waits(forest, "host-3", 40.0)
    assert forest["edge"].balancer.view.tree()["remnants"] == []
    forest.remove("host-1", "a")
    assert forest["host-3"].state("b") == "active"


@pytest.mark.promise(2)
@pytest.mark.parametrize("victim", ["edge", "rack-2", "host-1", "host-3"])
def test_a_rollout_with_one_rack_lost_and_another_node_restarted_anywhere(victim: str) -> None:
    def act(forest: Forest) -> None:
        forest["rack-1"].kill()
        forest.remove("host-1", "a", settle=False)

    for where, forest in interruptions(two_racks, act, [victim]):
        forest.watch.append(forest.one_generation)
        forest.run(60.0)
        if forest["host-1"].state("a") != "gone":  # the call was lost with the process: it is made again
            forest.remove("host-1", "a")
            forest.run(30.0)
        assert forest["host-3"].state("b") == "active", where


@pytest.mark.promise(2)
def test_both_racks_lost_is_silence() -> None:
    forest = two_racks()
    forest.put("host-2", "c", "1.0.1")
    forest["rack-1"].kill()
    forest["rack-2"].kill()
    forest.run(1.0)
    assert forest["host-1"].serves(OLD) == {"i:a"}
    waits(forest, "host-3", 60.0)  # two of three children: guarded
