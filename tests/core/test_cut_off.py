"""A node that is cut off from every root serves on, opens nothing, and reports that it is cut off."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from tests.core.forest import Forest, key_of

ONE = {"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)}
OLD, NEW = key_of("1.0.1"), key_of("2.0.0")


@pytest.mark.promise(4)
@pytest.mark.parametrize("children", [2, 3, 5])
def test_when_most_children_are_silent_nothing_is_taken_away(children: int) -> None:
    hosts = [f"host-{number}" for number in range(1, children + 1)]
    forest = Forest({"edge": (), **dict.fromkeys(hosts, ("edge",))})
    for host in hosts:
        forest.put(host, "a", "1.0.1")
    for host in hosts:
        forest.cut.add(frozenset((host, "edge")))
    forest.run(300.0)
    assert forest["edge"].balancer.view.guarded()
    assert forest["edge"].serves(OLD) == {f"n:{host}" for host in hosts}
    assert forest["edge"].engine.routes
    for host in hosts:
        assert forest[host].serves(OLD) == {"i:a"}
    forest.cut.clear()
    forest.run(10.0)
    assert not forest["edge"].balancer.view.guarded()
    assert forest["edge"].serves(OLD) == {f"n:{host}" for host in hosts}


@pytest.mark.promise(4)
def test_one_of_two_silent_children_is_presumed_to_have_stopped() -> None:
    """Half of the children is not a majority."""
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    for host in ("host-1", "host-2"):
        forest.put(host, "a", "1.0.1")
    forest.cut.add(frozenset(("host-1", "edge")))
    forest.run(25.0)
    assert not forest["edge"].balancer.view.guarded()
    assert forest["edge"].serves(OLD) == {"n:host-2"}


@pytest.mark.promise(2)
def test_one_child_alone_is_not_most() -> None:
    """A node with a single child is never guarded; otherwise that child could never be presumed stopped."""
    forest = Forest({"edge": (), "host-1": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    forest.cut.add(frozenset(("host-1", "edge")))
    forest.run(25.0)
    assert forest["edge"].serves(OLD) == set()


@pytest.mark.promise(1)
@pytest.mark.promise(4)
@pytest.mark.parametrize("cut", [("rack", "edge"), ("host-1", "rack")])
def test_a_host_that_lost_its_power_while_it_is_cut_off_opens_nothing_from_its_disk(cut: tuple[str, str]) -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.cut.add(frozenset(cut))
    forest["host-1"].power_cut()
    forest.run(60.0)
    forest["host-1"].start()
    forest.put("host-1", "a", "1.0.1")
    for _ in range(60):
        forest.run(1.0)
        assert forest["host-1"].serves(OLD) == set()
    assert forest["host-1"].state("a") == "waiting"
    forest.cut.clear()
    forest.run(20.0)
    states = forest["host-1"].state("a"), forest["host-2"].state("b")
    assert states in (("waiting", "active"), ("active", "waiting"))
    forest.one_generation()


@pytest.mark.promise(1)
def test_a_rack_that_is_cut_off_reports_that_before_its_recorded_verdicts() -> None:
    """A host returns before the rack has missed it. The rack has its permit on record, but no say."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.cut.add(frozenset(("rack", "edge")))
    forest.run(12.0)
    forest["host-1"].power_cut()
    forest.watch.append(lambda: _opens_nothing(forest))
    forest["host-1"].start()
    forest.put("host-1", "a", "1.0.1")
    forest.run(30.0)
    assert forest["host-1"].state("a") == "waiting"
    forest.watch.clear()
    forest.cut.clear()
    forest.run(20.0)
    assert forest["host-1"].state("a") == "active"


def _opens_nothing(forest: Forest) -> None:
    assert forest["host-1"].engine.endpoints == {}


@pytest.mark.promise(4)
def test_a_host_whose_control_alone_restarts_while_it_is_cut_off_serves_on() -> None:
    """Its engine has run without a break, so its table is still valid."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.cut.add(frozenset(("host-1", "rack")))
    forest.watch.append(lambda: _serves(forest))
    forest["host-1"].restart()
    forest.run(60.0)
    assert forest["host-1"].balancer.view.cut_off()


def _serves(forest: Forest) -> None:
    assert forest["host-1"].serves(OLD) == {"i:a"}


@pytest.mark.promise(4)
def test_an_engine_that_restarts_below_a_control_that_has_heard_nothing_new_gets_its_table_back() -> None:
    """Control was in touch at the time of the decision and has run ever since, so no confirmation is needed."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.cut.add(frozenset(("host-1", "rack")))
    forest.run(12.0)
    forest["host-1"].lose_engine()
    forest.settle()
    assert forest["host-1"].serves(OLD) == {"i:a"}


@pytest.mark.promise(1)
def test_a_new_host_below_a_cut_off_rack_opens_nothing_and_reports_that_it_is_cut_off() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.cut.add(frozenset(("rack", "edge")))
    forest.run(12.0)
    new = forest.add("new", "rack")
    new.start()
    forest.run(3.0)
    for version in ("1.0.1", "2.0.0"):
        forest.put("new", f"i-{version}", version)
    for _ in range(60):
        forest.run(1.0)
        assert new.engine.endpoints == {}
    assert new.balancer.view.cut_off()
    assert new.state("i-1.0.1") == "waiting"
    assert forest["rack"].balancer.view.cut_off()
    assert forest["host-1"].serves(OLD) == {"i:a"}
    forest.cut.clear()
    forest.run(20.0)
    assert new.state("i-1.0.1") == "active"
    assert not new.balancer.view.cut_off()


@pytest.mark.promise(1)
def test_a_further_instance_at_a_cut_off_host_waits_whatever_its_version() -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.cut.add(frozenset(("host-1", "rack")))
    forest.run(12.0)
    for version in ("1.0.1", "1.0.2", "2.0.0"):
        forest.put("host-1", f"i-{version}", version)
        assert forest["host-1"].state(f"i-{version}") == "waiting"
    assert forest["host-1"].serves(OLD) == {"i:a"}


@pytest.mark.promise(4)
@pytest.mark.parametrize("lost", ["edge", "rack"])
def test_what_serves_below_a_lost_node_serves_on_and_can_still_leave(lost: str) -> None:
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-1", "c", "1.0.1", endpoint="127.0.0.1:2")
    forest[lost].kill()
    forest.run(60.0)
    assert forest["host-1"].serves(OLD) == {"i:a", "i:c"}
    forest.remove("host-1", "a")
    forest.run(1.0)
    assert forest["host-1"].serves(OLD) == {"i:c"}
    forest.remove("host-1", "c")
    forest.run(12.0)
    assert forest["host-1"].state("c") == "gone"


@pytest.mark.promise(4)
def test_a_rack_between_two_roots_one_of_which_is_lost_goes_on_deciding() -> None:
    forest = Forest({"edge-1": (), "edge-2": (), "rack": ("edge-1", "edge-2"), "host": ("rack",)})
    forest["edge-2"].kill()
    forest.run(12.0)
    forest.put("host", "a", "1.0.1")
    assert forest["host"].state("a") == "active"
    assert not forest["host"].balancer.view.cut_off()


@pytest.mark.promise(1)
def test_a_node_that_starts_takes_silence_for_no_consent() -> None:
    """A node that has never heard its second parent waits for one lease."""
    forest = Forest({"edge-1": (), "edge-2": ()})
    forest["edge-2"].kill()
    host = forest.add("host", "edge-1", "edge-2")
    host.start()
    forest.put("host", "a", "1.0.1")
    forest.run(8.0)
    assert host.state("a") == "waiting"
    assert "edge-2" in host.reason("a")
    forest.run(4.0)
    assert host.state("a") == "active"


@pytest.mark.promise(2)
def test_a_cut_off_rack_does_not_answer_for_its_roots() -> None:
    """A host is below two racks, one of which is cut off: the decision of the other one is enough."""
    forest = Forest({"edge": (), "rack-1": ("edge",), "rack-2": ("edge",), "host": ("rack-1", "rack-2")})
    forest.cut.add(frozenset(("rack-1", "edge")))
    forest.run(15.0)
    assert forest["rack-1"].balancer.view.cut_off()
    forest.put("host", "a", "1.0.1")
    assert forest["host"].state("a") == "active"
    assert forest["rack-1"].serves(OLD) == set()
    assert forest["rack-2"].serves(OLD) == {"n:host"}
    endpoint = ev.EndpointKey(OLD, "i:a")
    forest["host"].engine.in_flight[endpoint] = 1
    forest.remove("host", "a")
    forest.finish("host", endpoint)
    forest.run(1.0)
    assert forest["host"].state("a") == "gone"


@pytest.mark.promise(1, 4)
@pytest.mark.parametrize("healthy", [True, False])
def test_an_engines_table_confirms_what_it_has_and_nothing_more(healthy: bool) -> None:
    """Control restarts while its node is cut off, with the same engine. Versions that were not open may have been
    replaced."""
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1", healthy=True)
    host = forest["host-1"]
    host.inbox.append(ev.InstanceHealth("a", healthy, ""))
    forest.settle()
    assert host.serves(key_of("1.0.1")) == ({"i:a"} if healthy else set())
    forest.part("host-1", "edge")
    host.restart()
    forest.settle()
    host.inbox.append(ev.InstanceHealth("a", True, ""))
    forest.run(5.0)
    assert host.serves(key_of("1.0.1")) == ({"i:a"} if healthy else set())
    forest.cut.clear()
    forest.run(12.0)
    assert host.serves(key_of("1.0.1")) == {"i:a"}


@pytest.mark.promise(3, 4)
def test_a_child_that_cancels_its_drain_stays_although_its_deletion_was_about_to_be_sent() -> None:
    """The control of the rack did not run for a while, and was cut off meanwhile. It handles the drain and its end before its
    engine has answered an earlier delta."""
    forest = Forest(ONE)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "1.0.1")
    rack = forest["rack"]
    forest._turn.remove("rack")  # pyright: ignore[reportPrivateUsage]
    forest.put("host-1", "a", "1.0.1", capacity=20)
    forest.remove("host-2", "b")
    forest.put("host-2", "c", "1.0.1")
    forest["edge"].kill()
    forest.now += 11.0
    received = len(rack.inbox)
    for _ in range(received):
        rack.handle(rack.inbox.popleft())
    assert rack.balancer.view.tree()["cut_off"]
    forest._turn.append("rack")  # pyright: ignore[reportPrivateUsage]
    for _ in range(10):
        forest.run(0.5)
        assert rack.serves(OLD) == {"n:host-1", "n:host-2"}
