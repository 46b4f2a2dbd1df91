"""The routes of the engine's table: which requests are parked, for how long, and which routes are kept."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from sdlb.core import routes
from sdlb.core.routes import RECENT_S
from tests.core.forest import ROUTE, Forest

SHOP = "example.com/shop*"


def parks(forest: Forest, route: str = ROUTE, node: str = "edge") -> bool:
    put = forest[node].engine.routes.get(route)
    return put is not None and put.recent and put.park_requests_max > 0 and not forest[node].engine.endpoints


def tell_health(forest: Forest, healthy: bool) -> None:
    forest["edge"].inbox.append(ev.InstanceHealth("a", healthy))
    forest.settle()


def test_a_route_whose_last_instance_has_gone_parks_and_serves_again_when_one_is_back() -> None:
    forest = Forest({"edge": (), "rack": ("edge",), "host": ("rack",)})
    forest.put("host", "a", "1.0.0")
    forest.remove("host", "a")
    assert parks(forest)
    forest.run(RECENT_S / 2)
    assert parks(forest)
    forest.put("host", "a", "1.0.0")
    assert [pick.version for pick in forest["edge"].engine.routes[ROUTE].picks] == ["1.0.0"]
    forest.remove("host", "a")
    forest.run(RECENT_S - 5)
    assert parks(forest), "the time starts anew"
    forest.run(10)
    assert ROUTE not in forest["edge"].engine.routes


def test_one_whose_instances_are_all_unhealthy_parks_for_a_while_and_then_answers() -> None:
    forest = Forest({"edge": ()})
    forest.put("edge", "a", "1.0.0", ttl_s=0.0)
    assert forest["edge"].engine.routes[ROUTE].park_requests_max > 0, "it may be out of reach for a moment"
    tell_health(forest, False)
    assert parks(forest)
    forest.run(RECENT_S + 1)
    assert forest["edge"].engine.routes[ROUTE].park_requests_max == 0
    tell_health(forest, True)
    assert forest["edge"].engine.routes[ROUTE].park_requests_max > 0


def test_one_that_never_served_does_not_park_for_ever() -> None:
    forest = Forest({"edge": ()})
    forest.put("edge", "a", "1.0.0", healthy=False)
    forest.remove("edge", "a")
    assert ROUTE not in forest["edge"].engine.routes


def test_another_service_takes_the_route_at_once() -> None:
    forest = Forest({"edge": ()})
    forest.put("edge", "a", "1.0.0")
    forest.remove("edge", "a")
    forest.put("edge", "b", "1.0.0", service="shop")
    put = forest["edge"].engine.routes[ROUTE]
    assert put.service == "shop" and put.picks


def test_a_route_that_a_service_gives_up_for_a_wider_one_of_its_own_is_gone_at_once() -> None:
    forest = Forest({"edge": ()})
    forest.put("edge", "a", "1.0.0")
    forest.put("edge", "b", "1.0.0", route=SHOP)
    forest.remove("edge", "b")
    assert SHOP not in forest["edge"].engine.routes
    forest.put("edge", "c", "1.0.0", route=SHOP, service="shop")
    forest.remove("edge", "c")
    assert forest["edge"].engine.routes[SHOP].service == "shop", "what is another service's is not given to this one"


def test_so_many_routes_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LOST_MAX", 2)
    forest = Forest({"edge": ()})
    names = [f"{n}.example/*" for n in range(4)]
    for n, route in enumerate(names):
        forest.put("edge", f"i{n}", "1.0.0", route=route, service=f"s{n}")
    for n in range(4):
        forest.remove("edge", f"i{n}")
    assert list(forest["edge"].engine.routes) == names[2:]
