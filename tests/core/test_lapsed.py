"""Instances of a host: what a lapse, a drain and a registration mean for the nodes above."""

from __future__ import annotations

from random import Random

import pytest

from sdlb.core import events as ev
from sdlb.core.effects import Note
from sdlb.core.events import EndpointKey
from sdlb.core.messages import ACTIVE, WAITING, Cause, Claim, UpState
from sdlb.core.routes import Routes
from sdlb.core.settings import Settings
from sdlb.core.slot import Permit
from sdlb.core.source import Source
from sdlb.core.state import State
from sdlb.model.instance import InstanceSpec
from tests.core.forest import ROUTE, Forest, key_of

KEY, NEXT, NEW = key_of("1.0.1"), key_of("1.0.2"), key_of("2.0.0")


def tree() -> Forest:
    return Forest({"edge": (), "host": ("edge",)})


@pytest.mark.promise(2, 4)
def test_what_is_in_flight_at_a_lapse_is_waited_for_as_long_as_the_lease() -> None:
    forest = tree()
    forest.put("host", "a", "1.0.1", ttl_s=30.0)
    forest.put("host", "b", "2.0.0")
    forest["host"].engine.in_flight[EndpointKey(KEY, "i:a")] = 1
    forest.run(55.0)
    assert not forest["host"].serves(KEY)
    assert forest["host"].state("b") == "waiting"
    forest.run(10.0)
    assert forest["host"].state("b") == "active"


@pytest.mark.promise(1, 2)
def test_a_lapse_is_reported_as_presumed() -> None:
    forest = tree()
    forest.put("host", "a", "1.0.1", ttl_s=5.0)
    sent = forest["host"].listen()
    forest.run(30.0)
    gone = [each for message in sent if isinstance(message, UpState) for each in message.withdrawn]
    assert [(each.key, each.cause) for each in gone] == [(KEY, Cause.PRESUMED)]


@pytest.mark.promise(3)
def test_a_lapsed_instance_is_out_at_once_whatever_those_above_still_send() -> None:
    forest = tree()
    forest.put("host", "a", "1.0.1", ttl_s=5.0)
    forest["edge"].engine.in_flight[EndpointKey(KEY, "n:host")] = 1
    forest.run(5.5)
    assert not forest["host"].serves(KEY)


@pytest.mark.promise(3)
def test_a_drain_stays_until_the_parents_have_acknowledged_and_is_forced_at_its_deadline() -> None:
    forest = tree()
    forest.put("host", "a", "1.0.1")
    forest["edge"].engine.in_flight[EndpointKey(KEY, "n:host")] = 1
    forest.remove("host", "a", deadline_s=10.0)
    forest.run(9.0)
    assert forest["host"].serves(KEY) == {"i:a"}
    forest.run(2.0)
    assert not forest["host"].serves(KEY)


@pytest.mark.promise(4)
@pytest.mark.parametrize(("late", "together"), [(1, False), (2, True), (3, True)])
def test_more_than_half_of_three_instances_that_lapse_together_get_one_lease_more(late: int, together: bool) -> None:
    forest = tree()
    for number in range(3):
        forest.put(
            "host", f"a{number}", "1.0.1", ttl_s=5.0 if number < late else 500.0, endpoint=f"127.0.0.1:{number + 1}"
        )
    forest.run(6.0)
    assert ("guarded" in forest["host"].codes()) is together
    assert (len(forest["host"].serves(KEY)) == 3) is together


@pytest.mark.promise(3, 5)
def test_a_drain_goes_on_after_a_restart_of_control() -> None:
    forest = tree()
    forest.put("host", "a", "1.0.1")
    forest["host"].engine.in_flight[EndpointKey(KEY, "i:a")] = 1
    forest.remove("host", "a")
    forest["host"].restart()
    forest.run(3.0)
    assert forest["host"].state("a") == "draining"
    forest.finish("host", EndpointKey(KEY, "i:a"))
    forest.run(1.0)
    assert forest["host"].state("a") == "gone"


@pytest.mark.promise(4)
def test_a_host_that_restarts_while_cut_off_serves_what_it_served() -> None:
    forest = tree()
    forest.put("host", "a", "1.0.1")
    forest.part("host", "edge")
    forest["host"].restart()
    for _ in range(40):
        forest.run(1.0)
        assert forest["host"].serves(KEY) == {"i:a"}


def test_a_replacement_on_two_routes_serves_when_it_does_on_both() -> None:
    forest = tree()
    other = "other.example/*"
    fields = {"service": "catalog", "ttl_s": 0.0}
    for version, endpoint in (("1.0.1", "127.0.0.1:1"), ("1.0.2", "127.0.0.1:2")):
        if version == "1.0.2":  # another service holds the second route of the new one
            forest.put("edge", "x", "1.0.0", route="third.example/*", service="x")
        routes = (ROUTE, other) if version == "1.0.1" else (ROUTE, "third.example/*")
        spec = InstanceSpec("a", version=version, routes=routes, endpoint=endpoint, **fields)  # type: ignore[arg-type]
        forest["host"].inbox.append(ev.InstancePut(spec, True, ""))
        forest.settle()
    assert forest["host"].serves(key_of("1.0.1", route=other)) == {"i:a"}, "the new one does not serve everywhere"


def test_what_answers_at_the_old_address_is_the_new_version() -> None:
    forest = tree()
    forest.put("host", "a", "1.0.1")
    forest.put("host", "a", "1.0.2", settle=False)
    forest.settle()
    assert forest["host"].serves(NEXT) == {"i:a#2"} and not forest["host"].serves(KEY)
    drains = [note for note in forest["host"].notes if isinstance(note, Note) and note.code == "instance-draining"]
    replaced = [note for note in forest["host"].notes if note.code in ("instance-replaced", "claim-active")]
    assert drains and replaced
    order = [note.code for note in forest["host"].notes if note.code in ("instance-draining", "claim-active")]
    assert order[-2:] == ["instance-draining", "claim-active"], "the drain does not wait"


@pytest.mark.promise(6)
def test_of_two_services_on_a_route_the_active_one_has_it() -> None:
    state = State(Settings("host", "id-host", 1, ("edge",)), Random(0))
    for service, permit in (("a", Permit(WAITING, stamp=1)), ("b", Permit(ACTIVE, stamp=9))):
        key = key_of("1.0.0", service=service)
        state.put_source(key, Source("i:x", Claim(key))).permit = permit
    Routes(state).settle(ROUTE)
    route = state.table.route(ROUTE)
    assert route is not None and route.service == "b"
