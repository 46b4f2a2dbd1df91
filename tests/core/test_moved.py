"""A node under another authority: earlier decisions do not count, and its traffic continues meanwhile."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from sdlb.core import saved
from sdlb.core.messages import ACTIVE
from sdlb.model.instance import InstanceSpec
from tests.core.forest import ROUTE, Forest, interruptions, key_of
from tests.core.node import Node

OLD, NEW = key_of("1.0.1"), key_of("2.0.0")
PRODUCTION = ("edge", "host-1", "host-2")


def two_trees(*, test_generation: int = 4) -> Forest:
    """Production serves 1.0.1 under generation 1. In the other tree, 2.0.0 has come to `test_generation`."""
    forest = Forest(
        {
            "edge": (),
            "host-1": ("edge",),
            "host-2": ("edge",),
            "lab": (),
            "rack": ("lab",),
            "guest": ("rack",),
            "other": ("rack",),
        }
    )
    forest.put("guest", "first", "1.0.0")
    for number in range(2, test_generation + 1):
        version = "2.0.0" if (test_generation - number) % 2 == 0 else "1.0.0"
        forest.put("guest", f"v{number}", version)
        forest.remove("guest", "first" if number == 2 else f"v{number - 1}")
    if test_generation == 1:
        forest.remove("guest", "first")
        forest.run(1.0)
        forest.put("guest", "v1", "2.0.0")
    assert forest["lab"].versions() == {"2.0.0": "active"}
    forest.run(5.0)
    for host in ("host-1", "host-2"):
        forest.put(host, "a", "1.0.1")
    assert forest["edge"].generation() == 1
    return forest


def settled(forest: Forest, *, seconds: float = 40.0) -> None:
    """Production is not touched while time goes on."""
    for _ in range(int(seconds)):
        forest.run(1.0)
        assert forest["edge"].serves(OLD) == {"n:host-1", "n:host-2"}
        assert not forest["edge"].serves(NEW)


def guest(forest: Forest) -> str:
    (instance,) = forest["guest"].balancer.view.instances()
    return str(instance["state"])


@pytest.mark.promise(1)
@pytest.mark.parametrize("generation", [1, 2, 3, 4])
def test_a_moved_host_takes_nothing_from_the_tree_that_it_comes_to(generation: int) -> None:
    forest = two_trees(test_generation=generation)
    forest["guest"].move("edge")
    settled(forest)
    assert guest(forest) == "waiting"
    assert "1.0.1" in str(forest["guest"].balancer.view.instances()[0]["reason"])
    assert forest["guest"].engine.endpoints == {}
    assert forest["edge"].generation() == 1


@pytest.mark.promise(1)
@pytest.mark.parametrize("generation", [1, 4])
def test_a_moved_subtree_takes_nothing_either(generation: int) -> None:
    forest = two_trees(test_generation=generation)
    forest.put("other", "b", "2.0.0")
    forest["rack"].move("edge")
    settled(forest)
    assert guest(forest) == "waiting"
    assert forest["other"].state("b") == "waiting"
    assert forest["rack"].engine.endpoints == {}


@pytest.mark.promise(3)
def test_a_moved_host_serves_until_its_new_authority_has_decided() -> None:
    forest = two_trees()
    node = forest["guest"]
    held = set(node.engine.endpoints)
    node.kill()
    node.parents = ("edge",)
    node.start()
    decided = False
    while forest.step():
        decided = decided or any(
            verdict.state != ACTIVE
            for message in forest["edge"].sent
            for verdict in getattr(message, "verdicts", ())
            if verdict.key == NEW
        )
        assert decided or set(node.engine.endpoints) == held
    assert decided


@pytest.mark.promise(3)
def test_the_moved_one_goes_on_without_a_gap_where_nothing_is_in_its_way() -> None:
    """A moved node brings a service that the new tree does not have: it serves without a gap."""
    forest = two_trees()
    for host in ("host-1", "host-2"):
        forest.remove(host, "a")
    forest.watch.append(lambda: served(forest))
    forest["guest"].move("edge")
    forest.run(40.0)
    assert guest(forest) == "active"
    assert forest["edge"].serves(NEW) == {"n:guest"}


def served(forest: Forest) -> None:
    assert forest["guest"].serves(NEW)


@pytest.mark.promise(3)
def test_a_moved_subtree_goes_on_without_a_gap_where_nothing_is_in_its_way() -> None:
    forest = two_trees()
    for host in ("host-1", "host-2"):
        forest.remove(host, "a")
    forest.watch.append(lambda: served(forest))
    forest.watch.append(forest.no_dead_end)
    forest["rack"].move("edge")
    forest.run(40.0)
    assert forest["edge"].serves(NEW) == {"n:rack"}


@pytest.mark.promise(1)
def test_an_older_stamp_from_another_tree_is_worth_nothing() -> None:
    """An instance that was registered an hour earlier under another authority has no seniority in the new tree."""
    forest = Forest({"edge": (), "host-1": ("edge",), "lab": (), "guest": ("lab",)})
    forest.put("guest", "g", "2.0.0")
    forest.run(3600.0)
    forest.put("host-1", "a", "1.0.1")
    forest["guest"].move("edge")
    for _ in range(30):
        forest.run(1.0)
        assert forest["host-1"].state("a") == "active"
    forest.put("host-1", "s", "9.0.0", route="shop.example/*", service="shop")
    forest.put("guest", "t", "9.0.0", route="shop.example/*", service="site")
    assert forest["host-1"].state("s") == "active"
    assert forest["guest"].state("t") == "refused"


@pytest.mark.promise(1)
def test_a_moved_host_takes_no_route_from_its_holder() -> None:
    forest = two_trees()
    forest.put("guest", "s", "9.0.0", route="shop.example/*", service="old-shop")
    forest.run(600.0)
    forest.put("host-1", "s", "1.0.0", route="shop.example/*", service="shop")
    forest["guest"].move("edge")
    forest.run(40.0)
    assert forest["host-1"].state("s") == "active"
    assert forest["guest"].state("s") == "refused"
    assert "held by shop" in forest["guest"].reason("s")


@pytest.mark.promise(1)
@pytest.mark.parametrize("victim", ["edge", "guest"])
def test_a_move_that_is_interrupted_anywhere_ends_alike(victim: str) -> None:
    for where, forest in interruptions(two_trees, lambda f: f["guest"].move("edge"), [victim]):
        forest.watch.append(lambda forest=forest: forest.one_generation("guest"))
        forest.run(40.0)
        assert forest["edge"].serves(OLD) == {"n:host-1", "n:host-2"}, where
        assert guest(forest) == "waiting", where
        assert forest["edge"].generation() == 1, where


def test_most_of_a_tree_moved_at_once_takes_nothing_from_the_rest() -> None:
    """More hosts move than the tree had. Their number gives them no majority, because they come from another
    authority."""
    forest = two_trees()
    forest.put("other", "b", "2.0.0")
    more = [forest.add(f"more-{number}", "lab") for number in range(3)]
    for node in more:
        node.start()
    forest.run(1.0)
    for node in more:
        forest.put(node.address, "m", "2.0.0")
        assert node.state("m") == "active"
    for name in ("guest", "other", *(node.address for node in more)):
        forest[name].move("edge")
    settled(forest)


# ---------------------------------------------------------------------- promoted and demoted roots


def small() -> Forest:
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    return forest


@pytest.mark.promise(2)
@pytest.mark.promise(3)
def test_a_child_that_becomes_a_root_keeps_what_serves_and_opens_nothing_that_waits() -> None:
    forest = small()
    node = forest["host-1"]
    forest.put("host-1", "c", "2.0.0")
    endpoint = ev.EndpointKey(OLD, "i:a")
    node.engine.in_flight[endpoint] = 1
    forest.watch.append(lambda: only(forest, "host-1"))
    node.move()
    forest.run(60.0)
    assert (node.state("a"), node.state("c")) == ("active", "waiting")
    assert node.balancer.view.tree()["root"]
    forest.watch.clear()
    forest.finish("host-1", endpoint)
    forest.remove("host-1", "a")
    assert node.state("c") == "active"


def only(forest: Forest, host: str) -> None:
    assert forest[host].serves(OLD) == {"i:a"}
    assert not forest[host].serves(NEW)


@pytest.mark.promise(3)
def test_a_middle_node_that_becomes_a_root_keeps_what_its_children_serve() -> None:
    forest = Forest({"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)})
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.watch.append(lambda: only(forest, "host-1"))
    forest.watch.append(forest.one_generation)
    forest["rack"].move()
    forest.run(60.0)
    assert forest["rack"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    forest.watch.clear()
    forest.remove("host-1", "a")
    assert forest["host-2"].state("b") == "active"


@pytest.mark.promise(3)
def test_a_root_that_becomes_a_child_keeps_what_serves_until_its_parent_has_decided() -> None:
    forest = Forest({"top": (), "edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "b", "2.0.0")
    forest.watch.append(lambda: only(forest, "host-1"))
    forest.watch.append(forest.one_generation)
    forest["edge"].move("top")
    forest.run(60.0)
    assert forest["top"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    assert forest["top"].serves(OLD) == {"n:edge"}


@pytest.mark.promise(1)
def test_a_root_that_becomes_a_child_gives_way_to_what_serves_above() -> None:
    forest = Forest({"top": (), "over": ("top",), "edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    forest.put("over", "o", "2.0.0")
    forest["edge"].move("top")
    for _ in range(60):
        forest.run(1.0)
        assert forest["over"].state("o") == "active"
    assert forest["host-1"].state("a") == "waiting"


@pytest.mark.promise(1)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("roots", [("edge",), ("edge", "edge-2")])
def test_a_child_that_was_a_root_for_a_while_brings_no_newer_generation_back(
    roots: tuple[str, ...], late: bool
) -> None:
    """A child that was a root for a while keeps to itself the generations that it decided alone."""
    tree = {**dict.fromkeys(roots, ()), "rack": roots, "host-1": ("rack",), "host-2": roots}
    forest = Forest(tree)
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-2", "c", "1.0.1")
    forest.run(2.0)
    forest["rack"].move()
    forest.run(2.0)
    for version, gone in (("2.0.0", "a"), ("3.0.0", "b-2.0.0"), ("2.0.0", "b-3.0.0")):
        forest.put("host-1", f"b-{version}", version)
        forest.remove("host-1", gone)
        forest.run(2.0)
    assert forest["rack"].versions() == {"2.0.0": "active"} and forest["rack"].generation() > 2
    forest.cut = {frozenset(("rack", root)) for root in roots if late}
    forest["rack"].move(*roots)
    forest.run(5.0)
    forest.cut.clear()
    forest.run(20.0)
    for _ in range(30):
        forest.run(1.0)
        forest.one_generation()
    assert forest["edge"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    assert forest["host-2"].serves(OLD)


@pytest.mark.promise(1)
def test_most_children_that_were_roots_for_a_while_bring_no_newer_generation_back() -> None:
    """They are a majority below the root. Their generations were not decided in its tree, so their number is no reason to adopt them."""
    forest = Forest(
        {"edge": (), "host": ("edge",)}
        | {f"rack-{number}": ("edge",) for number in (1, 2)}
        | {f"host-{number}": (f"rack-{number}",) for number in (1, 2)}
    )
    for host in ("host", "host-1", "host-2"):
        forest.put(host, f"{host}-a", "1.0.1")
    forest.run(2.0)
    for number in (1, 2):
        forest[f"rack-{number}"].move()
        forest.run(2.0)
        for version, gone in (("2.0.0", "a"), ("3.0.0", "2.0.0"), ("2.0.0", "3.0.0")):
            forest.put(f"host-{number}", f"host-{number}-{version}", version)
            forest.remove(f"host-{number}", f"host-{number}-{gone}")
            forest.run(2.0)
        assert forest[f"rack-{number}"].versions() == {"2.0.0": "active"}
    for number in (1, 2):
        forest[f"rack-{number}"].move("edge")
    forest.run(30.0)
    assert forest["edge"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}
    assert forest["edge"].serves(OLD) == {"n:host"}


def route_refused() -> Forest:
    """`shop` serves one route, and was refused another that `catalog` holds. Its version is active all the same."""
    forest = Forest({"top": (), "edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    spec = InstanceSpec("s", "shop", "7.0.0", (ROUTE, "example.com/shop*"), "127.0.0.1:99", ttl_s=0.0)
    forest["host-2"].inbox.append(ev.InstancePut(spec, True, ""))
    forest.settle()
    assert routes_of_shop(forest) == {ROUTE: "refused", "example.com/shop*": ACTIVE}
    return forest


def routes_of_shop(forest: Forest, node: str = "edge") -> dict[str, str]:
    service = forest[node].balancer.view.service("shop")
    assert service is not None
    return {claim["route"]: claim["state"] for claim in service["versions"][0]["claims"]}


@pytest.mark.promise(4)
@pytest.mark.promise(6)
@pytest.mark.parametrize("reached", [True, False])
def test_a_root_that_becomes_a_child_opens_no_route_that_it_had_refused(reached: bool) -> None:
    forest = route_refused()
    forest.cut = set() if reached else {frozenset(("edge", "top"))}

    def look() -> None:
        assert forest["edge"].serves(OLD) == {"n:host-1"}
        for node in ("edge", "host-2"):
            routes = routes_of_shop(forest, node)
            assert routes["example.com/shop*"] == ACTIVE
            assert routes[ROUTE] != ACTIVE

    forest["edge"].move("top")
    forest.watch.append(look)
    forest.run(40.0)


@pytest.mark.promise(6)
def test_a_root_that_becomes_a_child_while_a_route_changes_hands_opens_it_for_nobody() -> None:
    """A root becomes a child while a transferred route changes hands: `shop` waits for `catalog` to close."""
    forest = route_refused()
    forest["host-1"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest["edge"].inbox.append(ev.RouteTransfer(ROUTE, "shop", "operator-a"))
    forest.settle()
    assert routes_of_shop(forest)[ROUTE] == "waiting"
    forest.cut = {frozenset(("edge", "top"))}
    states: list[str] = []
    forest["edge"].move("top")
    forest.watch.append(lambda: states.append(routes_of_shop(forest)[ROUTE]))
    forest.run(5.0)
    assert set(states) == {"waiting"}


@pytest.mark.promise(8)
@pytest.mark.parametrize("victim", ["rack", "host-1"])
def test_a_promotion_that_is_interrupted_anywhere_keeps_the_traffic(victim: str) -> None:
    def story() -> Forest:
        forest = Forest({"edge": (), "rack": ("edge",), "host-1": ("rack",), "host-2": ("rack",)})
        forest.put("host-1", "a", "1.0.1")
        forest.put("host-2", "b", "2.0.0")
        return forest

    for where, forest in interruptions(story, lambda f: f["rack"].move(), [victim]):
        forest.watch.append(lambda forest=forest: only(forest, "host-1"))
        forest.watch.append(forest.one_generation)
        forest.run(40.0)
        assert forest["rack"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}, where


@pytest.mark.promise(8)
@pytest.mark.parametrize("victim", ["top", "edge", "host-1"])
def test_a_demotion_that_is_interrupted_anywhere_keeps_the_traffic(victim: str) -> None:
    def story() -> Forest:
        forest = Forest({"top": (), "edge": (), "host-1": ("edge",), "host-2": ("edge",)})
        forest.put("host-1", "a", "1.0.1")
        forest.put("host-2", "b", "2.0.0")
        return forest

    for where, forest in interruptions(story, lambda f: f["edge"].move("top"), [victim]):
        forest.watch.append(lambda forest=forest: only(forest, "host-1"))
        forest.watch.append(forest.one_generation)
        forest.run(40.0)
        assert forest["top"].versions() == {"1.0.1": "active", "2.0.0": "waiting"}, where


@pytest.mark.promise(3)
def test_a_root_that_becomes_a_child_while_it_activates_a_version_closes_nothing() -> None:
    """Its claim reaches the new root before the host reports that it serves. The new root waits for that report, and the
    host serves meanwhile."""

    def act(forest: Forest) -> None:
        forest.put("host-1", "a", "1.0.1", settle=False)

    def harm(node: Node) -> None:
        node.move("top")
        node.forest.part("host-1", "edge")

    opened = 0
    for where, forest in interruptions(
        lambda: Forest({"top": (), "edge": (), "host-1": ("edge",)}), act, ["edge"], harm
    ):
        served: set[str] = set()

        def look(forest: Forest = forest, served: set[str] = served, where: str = where) -> None:
            serves = forest["host-1"].serves(OLD)
            assert serves >= served, where
            served |= serves

        forest.watch.append(look)
        forest.run(1.0)
        opened += bool(served)
        forest.cut = {frozenset(("edge", "top"))}  # what the host reports reaches the new root late
        forest.run(1.0)
        forest.cut.clear()
        forest.run(40.0)
        assert forest["top"].versions() == {"1.0.1": "active"}, where
    assert opened


@pytest.mark.promise(3)
@pytest.mark.parametrize(("serves", "waits"), [("1.0.1", "2.0.0"), ("2.0.0", "1.0.1")])
def test_a_child_that_becomes_a_root_begins_with_what_was_decided(serves: str, waits: str) -> None:
    """A promoted node starts with the earlier decision, whatever the names and the order of registrations."""
    forest = Forest({"edge": (), "host-1": ("edge",), "host-2": ("edge",)})
    forest.put("host-2", "a", serves)
    forest.put("host-1", "c", waits)
    forest.put("host-1", "a", serves)
    node = forest["host-1"]
    node.move()
    for _ in range(30):
        forest.run(1.0)
        assert node.serves(key_of(serves)) == {"i:a"}
        assert not node.serves(key_of(waits))
    record = saved.service_from(node.disk["service/catalog"])
    assert "id-edge" in record.scope and list(record.active) == [serves]


@pytest.mark.promise(6)
@pytest.mark.parametrize("other", ["another", "zulu"])
def test_a_child_that_becomes_a_root_keeps_its_routes_for_their_holders(other: str) -> None:
    forest = Forest({"edge": (), "host-1": ("edge",)})
    forest.put("host-1", "a", "1.0.1")
    forest.put("host-1", "x", "1.0.1", service=other)
    node = forest["host-1"]
    node.move()
    for _ in range(5):
        forest.run(1.0)
        assert node.engine.routes[ROUTE].service == "catalog"
        assert node.disk[f"holder/{ROUTE}"]["service"] == "catalog"  # type: ignore[index]
