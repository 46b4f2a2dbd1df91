"""The instances of a host: registered, renewed, drained, removed, exited."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sdlb.core import events as ev
from sdlb.core.messages import ClaimKey
from tests.core.forest import Forest

KEY = ClaimKey("catalog", "1.0.1", "example.com/*")
MEMBER = ev.EndpointKey(KEY, "i:a")


def host() -> Forest:
    return Forest({"host": ()})


def test_a_drain_waits_for_what_is_in_flight_and_keeps_the_instance_registered() -> None:
    forest = host()
    forest.put("host", "a", "1.0.1")
    node = forest["host"]
    node.engine.in_flight[MEMBER] = 1
    node.handle(ev.InstanceDrain("a", 30.0))
    forest.settle()
    assert node.balancer.view.instance("a")["state"] == "draining"
    assert node.serves(KEY) == set()
    del node.engine.in_flight[MEMBER]
    node.inbox.extend(node.engine.drained())
    forest.settle()
    assert node.balancer.view.instance("a")["drained"]


def test_a_removal_ends_at_its_deadline_whatever_is_in_flight() -> None:
    forest = host()
    forest.put("host", "a", "1.0.1")
    node = forest["host"]
    node.engine.in_flight[MEMBER] = 1
    forest.remove("host", "a", deadline_s=5.0)
    forest.run(4.0)
    assert node.balancer.view.instance("a") is not None
    forest.run(2.0)
    assert node.balancer.view.instance("a") is None


def test_a_renewal_keeps_a_draining_instance_draining() -> None:
    forest = host()
    forest.put("host", "a", "1.0.1")
    node = forest["host"]
    node.engine.in_flight[MEMBER] = 1
    node.handle(ev.InstanceDrain("a", 30.0))
    forest.put("host", "a", "1.0.1")
    assert node.balancer.view.instance("a")["state"] == "draining"


def test_a_lease_that_runs_out_takes_the_instance_away() -> None:
    forest = host()
    forest.put("host", "a", "1.0.1", ttl_s=10.0)
    forest.run(9.0)
    assert forest["host"].serves(KEY) == {"i:a"}
    forest.run(2.0)
    assert forest["host"].serves(KEY) == set()
    assert forest["host"].balancer.view.instance("a") is None


def test_most_leases_at_once_get_one_lease_more() -> None:
    forest = host()
    for name in "abc":
        forest.put("host", name, "1.0.1", ttl_s=10.0)
    forest.run(11.0)
    assert forest["host"].serves(KEY) == {"i:a", "i:b", "i:c"}
    forest.run(10.0)
    assert forest["host"].serves(KEY) == set()


def test_an_unhealthy_instance_gets_nothing_but_still_counts() -> None:
    forest = host()
    forest.put("host", "a", "1.0.1")
    forest.put("host", "b", "2.0.0")
    node = forest["host"]
    node.inbox.append(ev.InstanceHealth("a", False, "503"))
    forest.settle()
    assert node.serves(KEY) == set()
    assert node.balancer.view.instance("b")["state"] == "waiting", "it has not stopped"
    node.inbox.append(ev.InstanceGone("a", "its process is gone"))
    forest.settle()
    assert node.balancer.view.instance("b")["state"] == "active"


def test_what_an_instance_speaks_reaches_the_engine_also_when_it_changes() -> None:
    forest = host()
    forest.put("host", "a", "1.0.1", protocol="h2c")
    targets = forest["host"].engine.targets
    assert targets["i:a"].protocol == "h2c"
    forest["host"].kill()
    targets.clear()
    forest["host"].start()
    forest.settle()
    assert targets["i:a"].protocol == "h2c", "kept over a restart of control"
    forest.put("host", "a", "1.0.1", protocol="http1")
    assert targets["i:a#2"].protocol == "http1"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "drain", "remove", "gone", "ill", "well", "restart"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["1.0.1", "1.0.2", "2.0.0"]),
    ),
    max_size=20,
)


@given(STEPS)
def test_whatever_happens_the_engine_has_the_active_instances_and_no_others(steps: list[tuple[str, str, str]]) -> None:
    forest = host()
    node = forest["host"]
    for action, name, version in steps:
        match action:
            case "put":
                forest.put("host", name, version)
            case "drain":
                node.inbox.append(ev.InstanceDrain(name, 30.0))
            case "remove":
                node.inbox.append(ev.InstanceRemove(name, 30.0))
            case "gone":
                node.inbox.append(ev.InstanceGone(name, "killed"))
            case "restart":
                node.kill()
                node.start()
            case _:
                node.inbox.append(ev.InstanceHealth(name, action == "well"))
        forest.settle()
        active = {each["target"] for each in node.balancer.view.instances() if each["state"] == "active"}
        assert {endpoint.target for endpoint in node.engine.endpoints} == active
        versions = {each["version"] for each in node.balancer.view.instances() if each["state"] == "active"}
        assert versions <= {"1.0.1", "1.0.2"} or versions == {"2.0.0"}
