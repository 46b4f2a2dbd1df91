"""The contribution of a source to its slot, which sources are endpoints, and reasons that differ only in counts."""

from __future__ import annotations

from random import Random

import pytest

from sdlb.core import events as ev
from sdlb.core.children import Children, verdict_of
from sdlb.core.endpoints import CAPACITY_MAX, Endpoints
from sdlb.core.events import EndpointKey, EngineAttached
from sdlb.core.local_instances import LocalInstances
from sdlb.core.messages import ACTIVE, WAITING, Claim, Doc, DownState, Stage
from sdlb.core.parents import Parents
from sdlb.core.settings import Settings
from sdlb.core.slot import Part, Permit, Slot
from sdlb.core.source import Source, Standing
from sdlb.core.state import State
from sdlb.model.reason import NoParent
from tests.core.forest import ROUTE, Forest, key_of

KEY, NEXT, NEW = key_of("1.0.1"), key_of("1.0.2"), key_of("2.0.0")


class Bench:
    """A node below one parent, whose engine has confirmed an empty table."""

    def __init__(self, **settings: object) -> None:
        self.state = State(Settings("rack", "id-rack", 1, ("edge",), **settings), Random(0))  # type: ignore[arg-type]
        children = Children(self.state)
        self.parents = Parents(self.state, 0.0)
        self.endpoints = Endpoints(self.state, children, LocalInstances(self.state))
        self.state.table.on_attached(EngineAttached("boot", 0, 0), 0.0, 10.0)
        self.confirm()

    def slot(self, standing: Standing, key: object = KEY, *, capacity: int = 8, stage: Stage = Stage.OPEN) -> Slot:
        claim = Claim(key, capacity, stage=stage, count=1)  # type: ignore[arg-type]
        slot = self.state.put_source(claim.key, Source("n:host", claim, "host", standing))
        slot.permit = Permit(ACTIVE)
        self.state.table.set_upstream("n:host", True, "10.0.0.1:80")
        return slot

    def settle(self, slot: Slot) -> None:
        self.endpoints.settle(slot, {"": None}, self.parents, 0.0)

    def confirm(self) -> None:
        delta = self.state.table.next_delta(0.0)
        if delta is not None:
            self.state.table.on_applied(delta.epoch)

    def part(self, slot: Slot) -> Part:
        self.endpoints.refresh(slot, {"n:host": None})
        return slot.parts["n:host"]

    def wanted(self, slot: Slot) -> bool:
        return self.state.table.wanted(EndpointKey(slot.key, "n:host"))


def test_only_a_confirmed_endpoint_that_is_heard_of_lets_another_one_go() -> None:
    bench = Bench()
    slot = bench.slot(Standing.ADMITTED)
    bench.settle(slot)
    assert (bench.part(slot).stable, bench.part(slot).ready, bench.part(slot).arriving) == (False, 0, True)
    bench.confirm()
    assert (bench.part(slot).stable, bench.part(slot).ready, bench.part(slot).arriving) == (True, 8, False)
    slot.sources["n:host"].standing = Standing.SUSPECT
    assert (bench.part(slot).stable, bench.part(slot).ready) == (False, 8)


@pytest.mark.parametrize("standing", list(Standing))
def test_what_is_no_longer_vouched_for_blocks_and_gets_nothing(standing: Standing) -> None:
    bench = Bench()
    slot = bench.slot(standing)
    bench.settle(slot)
    assert bench.part(slot).stage is (Stage.SILENT if standing is Standing.PRESUMED else Stage.OPEN)
    assert bench.wanted(slot) is (standing in (Standing.ADMITTED, Standing.SUSPECT))


def test_a_suspect_endpoint_is_a_last_resort_and_capacities_fit_a_message() -> None:
    bench = Bench()
    slot = bench.slot(Standing.SUSPECT, capacity=1 << 40)
    bench.settle(slot)
    delta = bench.state.table.next_delta(0.0)
    assert delta is not None
    assert [(put.last_resort, put.capacity) for put in delta.put_endpoints] == [(True, CAPACITY_MAX)]


def served(bench: Bench, standing: Standing) -> Slot:
    """An endpoint that the engine has confirmed, and that is now of this standing."""
    slot = bench.slot(Standing.ADMITTED)
    bench.settle(slot)
    bench.confirm()
    slot.sources["n:host"].standing = standing
    return slot


def test_an_endpoint_that_leaves_stays_until_the_parents_have_acknowledged() -> None:
    bench = Bench()
    slot = served(bench, Standing.LEAVING)
    bench.settle(slot)
    assert slot.leaving and bench.wanted(slot)
    slot.acked.add("edge")
    bench.settle(slot)
    assert not bench.wanted(slot)


def test_a_host_whose_version_was_recalled_parks_too() -> None:
    bench = Bench()
    slot = served(bench, Standing.ADMITTED)
    slot.permit = Permit(WAITING)
    bench.settle(slot)
    assert bench.wanted(slot)
    slot.acked.add("edge")
    bench.settle(slot)
    assert not bench.wanted(slot)


def test_an_instance_past_its_deadline_waits_for_no_parent() -> None:
    bench = Bench()
    slot = served(bench, Standing.FORCED)
    bench.settle(slot)
    assert slot.leaving and not bench.wanted(slot)


@pytest.mark.promise(3)
@pytest.mark.parametrize("route", [ROUTE, "example.com/shop*", "*/*"])
def test_the_last_endpoint_waits_for_one_of_the_next_version_that_is_about_to_serve(route: str) -> None:
    bench = Bench()
    slot = served(bench, Standing.LEAVING)
    other = bench.slot(Standing.ADMITTED, key_of("1.0.2", route=route))
    slot.leaving = 1
    slot.acked.add("edge")
    bench.settle(other)
    bench.settle(slot)
    assert bench.wanted(slot), "the other one is not confirmed yet"
    bench.confirm()
    bench.state.dirty.clear()
    bench.settle(other)
    assert slot.key in bench.state.dirty, "it is looked at again"
    bench.settle(slot)
    assert not bench.wanted(slot)


def test_it_does_not_wait_for_a_further_one_or_for_one_elsewhere() -> None:
    for keys in ((NEXT, NEW), (key_of("1.0.2", route="other.example/*"),)):
        bench = Bench()
        slot = served(bench, Standing.LEAVING)
        slot.leaving = 1
        slot.acked.add("edge")
        for number, key in enumerate(keys):
            bench.settle(bench.slot(Standing.ADMITTED, key))
            if number < len(keys) - 1:
                bench.confirm()
                bench.settle(bench.state.slots[key])
        bench.settle(slot)
        assert not bench.wanted(slot)


def test_over_a_restart_what_leaves_is_in_the_first_table() -> None:
    bench = Bench()
    bench.state.table.synced = False
    slot = bench.slot(Standing.LEAVING)
    bench.settle(slot)
    assert bench.wanted(slot)
    bench.state.table.synced = True
    slot.acked.add("edge")
    bench.settle(slot)
    assert not bench.wanted(slot)


@pytest.mark.parametrize(("zone", "far"), [("a", False), ("b", True), ("", False)])
def test_a_child_in_another_zone_is_far(zone: str, far: bool) -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    children = forest["edge"].balancer._children  # pyright: ignore[reportPrivateUsage]
    bench = Bench(labels=(("zone", "a"),))
    endpoints = Endpoints(bench.state, children, LocalInstances(bench.state))
    children.by_name["host"].labels = (f"zone={zone}",) if zone else ()
    assert endpoints._is_far(Source("n:host", Claim(KEY), "host")) is far  # pyright: ignore[reportPrivateUsage]


# ---------------------------------------------------------------------- what children hear


def test_a_new_claim_gets_no_consent_from_a_node_that_is_cut_off() -> None:
    slot = Slot(KEY, permit=Permit(ACTIVE))
    claimed, admitted = (Source("n:a", Claim(KEY), "a", each) for each in (Standing.CLAIMED, Standing.ADMITTED))
    verdict = verdict_of(slot, claimed, "rack")
    assert (verdict.state, verdict.reason) == (WAITING, NoParent())
    assert verdict_of(slot, admitted, "rack").state == ACTIVE


@pytest.mark.promise(7)
def test_another_count_in_a_reason_is_sent_with_the_next_beat() -> None:
    forest = Forest({"edge": (), **{f"host-{number}": ("edge",) for number in range(1, 5)}})
    for number in (1, 2, 3):
        forest.put(f"host-{number}", "a", "1.0.1")
    forest.put("host-4", "b", "2.0.0")
    forest.run(2.5)
    assert "3" in forest["host-4"].reason("b")
    sent = forest["edge"].listen()
    forest.remove("host-1", "a")
    told = [v for each in sent if isinstance(each, DownState) for v in each.verdicts if v.key == NEW]
    assert told == []
    forest.run(2.5)
    told = [v for each in sent if isinstance(each, DownState) for v in each.verdicts if v.key == NEW]
    assert len(told) == 1
    assert "2" in forest["host-4"].reason("b")


def test_a_child_without_a_link_has_no_vote_about_documents() -> None:
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",), "host-3": ("edge",)})
    policies = forest["edge"].balancer._state.policies  # pyright: ignore[reportPrivateUsage]
    doc = Doc("policy", "catalog", 5, "elsewhere", b"{}")
    assert not policies.reported("host-1", doc, 3)
    assert not policies.reported("host-1", doc, 3), "one vote, however often"
    forest["host-1"].kill()
    forest.settle()
    assert not policies.reported("host-2", doc, 3)
    assert policies.reported("host-3", doc, 3)


# ---------------------------------------------------------------------- routes


def test_a_route_that_never_served_takes_nothing_from_a_wider_one_until_that_goes() -> None:
    forest = Forest({"edge": ()})
    forest.put("edge", "a", "1.0.0")
    forest.put("edge", "b", "1.0.0", route="example.com/shop*", service="shop", healthy=False)
    assert list(forest["edge"].engine.routes) == [ROUTE]
    forest.remove("edge", "a")
    assert "example.com/shop*" in forest["edge"].engine.routes


def test_requests_are_parked_while_a_version_is_about_to_open() -> None:
    forest = Forest({"edge": (), "host": ("edge",)})
    forest.put("host", "a", "1.0.0")
    assert forest["edge"].engine.routes[ROUTE].recent
    forest.put("host", "b", "2.0.0")
    route = forest["edge"].engine.routes[ROUTE]
    assert route.park_requests_max > 0 and not route.recent
    assert [pick.version for pick in route.picks] == ["1.0.0"]


def test_an_unhealthy_or_lapsed_instance_has_no_capacity() -> None:
    forest = Forest({"edge": ()})
    forest.put("edge", "a", "1.0.0", ttl_s=5.0)
    key = key_of("1.0.0")
    assert forest["edge"].serves(key) == {"i:a"}
    forest["edge"].inbox.append(ev.InstanceHealth("a", False))
    forest.settle()
    assert not forest["edge"].serves(key)
    forest["edge"].inbox.append(ev.InstanceHealth("a", True))
    forest.settle()
    assert forest["edge"].serves(key) == {"i:a"}
    forest["edge"].engine.in_flight[EndpointKey(key, "i:a")] = 1
    forest.run(6.0)
    assert forest["edge"].state("a") not in ("active", "waiting")
    assert not forest["edge"].serves(key)
