"""An instance id that registers again as something else: a new source beside the old one, make before break."""

from __future__ import annotations

import pytest

from sdlb.core import events as ev
from tests.core.forest import Forest, interruptions, key_of

ONE = {"edge": (), "rack": ("edge",), "host": ("rack",), "host-2": ("rack",)}
OLD, NEXT, NEW = key_of("1.0.1"), key_of("1.0.2"), key_of("2.0.0")
SPARE = "127.0.0.1:2"


def one(**spec: object) -> Forest:
    forest = Forest(ONE)
    forest.put("host", "a", "1.0.1", **spec)  # type: ignore[arg-type]
    assert forest["host"].state("a") == "active"
    forest.watch.append(lambda: forest.no_dead_end("edge"))
    forest.watch.append(forest.one_generation)
    return forest


def always(forest: Forest, *keys: object) -> None:
    """At the edge there is something behind one of these at any time."""

    def look() -> None:
        assert any(forest.endpoints("edge", key) for key in keys)  # type: ignore[arg-type]

    forest.watch.append(look)


def test_another_version_that_is_compatible_is_there_before_the_old_one_goes() -> None:
    forest = one()
    always(forest, OLD, NEXT)
    forest.put("host", "a", "1.0.2", endpoint=SPARE)
    forest.run(1.0)
    assert forest.endpoints("edge", NEXT) == {"host/i:a#2"}
    assert forest.endpoints("edge", OLD) == set()
    assert forest["edge"].versions() == {"1.0.2": "active"}
    assert forest["host"].state("a") == "active"
    assert forest["host"].balancer.view.instance("a")["former"] == []


@pytest.mark.promise(3)
def test_another_endpoint_is_there_before_the_old_one_goes() -> None:
    forest = one()
    always(forest, OLD)
    forest.put("host", "a", "1.0.1", endpoint=SPARE)
    forest.run(1.0)
    assert forest["host"].serves(OLD) == {"i:a#2"}
    assert forest["host"].engine.targets["i:a#2"].address == SPARE
    assert forest["edge"].serves(OLD) == {"n:rack"}


@pytest.mark.promise(3)
def test_another_route_is_there_before_the_old_one_goes() -> None:
    forest = one()
    other = key_of("1.0.1", route="example.com/shop*")
    always(forest, OLD, other)
    forest.put("host", "a", "1.0.1", "example.com/shop*")
    forest.run(1.0)
    assert forest.endpoints("edge", other) == {"host/i:a#2"}
    assert forest.endpoints("edge", OLD) == set()
    routes = forest["edge"].engine.routes
    assert not routes["example.com/shop*"].recent or routes["example.com/shop*"].picks
    assert routes[OLD.route].recent and not routes[OLD.route].picks, "for what served it a moment ago"


def test_another_service_registers_under_the_id() -> None:
    forest = one()
    other = key_of("1.0.1", service="shop")
    forest.put("host", "a", "1.0.1", service="shop")
    forest.run(1.0)
    assert forest.endpoints("edge", other) == {"host/i:a#2"}
    assert forest.endpoints("edge", OLD) == set()


@pytest.mark.promise(2)
def test_an_incompatible_version_waits_until_nothing_of_the_old_one_is_in_flight() -> None:
    forest = one()
    at_edge, at_host = ev.EndpointKey(OLD, "n:rack"), ev.EndpointKey(OLD, "i:a")
    forest["edge"].engine.in_flight[at_edge] = 1
    forest["host"].engine.in_flight[at_host] = 2
    forest.put("host", "a", "2.0.0", endpoint=SPARE)
    assert forest["edge"].serves(OLD) == set(), "at once: they must not serve together"
    assert forest["host"].serves(OLD) == {"i:a"}
    assert forest["host"].state("a") == "waiting"
    forest.finish("edge", at_edge)
    assert forest["host"].state("a") == "waiting"
    forest.finish("host", at_host)
    assert forest["host"].state("a") == "active"
    assert forest.endpoints("edge", NEW) == {"host/i:a#2"}


@pytest.mark.promise(2)
def test_requests_that_never_end_hold_it_up_no_longer_than_a_drain() -> None:
    forest = one()
    forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest.put("host", "a", "2.0.0", endpoint=SPARE)
    forest.run(29.0)
    assert forest["host"].state("a") == "waiting"
    forest.run(2.0)
    assert forest["host"].state("a") == "active"


@pytest.mark.promise(3)
def test_a_successor_that_is_not_healthy_takes_nothing_away_at_first() -> None:
    forest = one()
    always(forest, OLD, NEXT)
    forest.put("host", "a", "1.0.2", endpoint=SPARE, healthy=False)
    forest.run(20.0)
    assert forest.endpoints("edge", OLD) == {"host/i:a"}
    forest["host"].handle(ev.InstanceHealth("a", True))
    forest.run(1.0)
    assert forest.endpoints("edge", NEXT) == {"host/i:a#2"}
    assert forest.endpoints("edge", OLD) == set()


@pytest.mark.promise(3)
def test_a_successor_that_waits_for_another_host_takes_nothing_away() -> None:
    """The successor is compatible with the old registration, but not with a version on another host: the old one serves
    on."""
    forest = Forest(ONE)
    forest.put("host-2", "b", "1.0.1")
    forest.put("host", "a", "1.0.2")
    always(forest, NEXT)
    forest.put("host", "a", "1.1.0", endpoint=SPARE, compatible=("1.0.2",))
    forest.run(20.0)
    assert forest["host"].state("a") == "waiting"
    assert forest.endpoints("edge", NEXT) == {"host/i:a"}


def test_registering_again_twice_leaves_the_last_one() -> None:
    forest = one()
    always(forest, OLD, NEXT, key_of("1.0.3"))
    forest.put("host", "a", "1.0.2", endpoint=SPARE, settle=False)
    forest.put("host", "a", "1.0.3", endpoint="127.0.0.1:3")
    forest.run(2.0)
    assert forest["edge"].versions() == {"1.0.3": "active"}
    assert len(forest["host"].engine.endpoints) == 1


def test_going_back_to_what_it_was_is_a_registration_like_any_other() -> None:
    forest = one()
    at_host = ev.EndpointKey(OLD, "i:a")
    forest["host"].engine.in_flight[at_host] = 1
    forest.put("host", "a", "1.0.2", endpoint=SPARE)
    forest.put("host", "a", "1.0.1")
    forest.run(1.0)
    assert forest["host"].state("a") == "active"
    assert forest["edge"].versions()["1.0.1"] == "active"
    forest.finish("host", at_host)
    forest.run(60.0)
    assert forest["edge"].versions() == {"1.0.1": "active"}
    assert len(forest.endpoints("edge", OLD)) == 1


@pytest.mark.promise(3)
@pytest.mark.parametrize("again", ["1.0.2", "2.0.0"])
def test_the_id_is_removed_with_all_that_it_was(again: str) -> None:
    forest = one()
    forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest.put("host", "a", again, endpoint=SPARE)
    forest.remove("host", "a", deadline_s=5.0)
    forest.run(40.0)
    assert forest["host"].state("a") == "gone"
    assert forest["host"].engine.endpoints == {}
    assert forest["edge"].versions() == {}
    assert not [name for name in forest["host"].disk if name.startswith("instance/")]


@pytest.mark.promise(2)
def test_a_dead_process_takes_its_former_registration_along() -> None:
    """The draining endpoint belonged to the same process, so it is removed with it."""
    forest = one()
    forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest.put("host", "a", "1.0.2", endpoint=SPARE)
    forest.watch.clear()
    forest["host"].inbox.append(ev.InstanceGone("a", "killed"))
    forest.settle()
    forest.run(31.0)
    assert forest["edge"].versions() == {}


@pytest.mark.promise(3)
@pytest.mark.parametrize("victim", ["edge", "rack", "host"])
@pytest.mark.parametrize(("version", "endpoint"), [("1.0.2", SPARE), ("1.0.1", SPARE), ("2.0.0", SPARE)])
def test_a_replacement_that_is_interrupted_anywhere_comes_to_its_end(victim: str, version: str, endpoint: str) -> None:
    def act(forest: Forest) -> None:
        forest.put("host", "a", version, endpoint=endpoint, settle=False)

    for where, forest in interruptions(one, act, [victim]):
        if version != "2.0.0":
            always(forest, OLD, NEXT)
        forest.run(5.0)
        forest.put("host", "a", version, endpoint=endpoint)  # renewed
        forest.run(40.0)
        assert forest["host"].state("a") == "active", where
        assert forest["edge"].versions() == {version: "active"}, where
        assert len(forest["host"].engine.endpoints) == 1, where
        assert len([name for name in forest["host"].disk if name.startswith("instance/")]) == 1, where


@pytest.mark.promise(3)
def test_a_root_that_restarts_brings_nothing_back_that_it_has_released() -> None:
    """It has acknowledged the drain of 1.0.1, which still has a request in flight, so no node below takes new ones for it."""

    def story() -> Forest:
        forest = one()
        forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
        forest.remove("host", "a", 300.0)
        assert not forest["host"].serves(OLD) and forest["host"].state("a") == "draining"
        assert not forest["edge"].serves(OLD)
        forest.watch.append(lambda: brought_back(forest))
        return forest

    def brought_back(forest: Forest) -> None:
        assert not forest["edge"].serves(OLD), "the root sends requests where none are taken"

    def act(forest: Forest) -> None:
        forest.put("host", "b", "1.0.2", settle=False)

    for where, forest in interruptions(story, act, ["edge"]):
        forest.run(5.0)
        assert forest.endpoints("edge", NEXT), where


@pytest.mark.promise(3)
def test_what_a_root_has_released_once_counts_as_any_other_when_it_has_come_back() -> None:
    """Drained by hand and acknowledged, then registered again at another address. Its next drain is a new one."""

    def story() -> Forest:
        forest = one()
        forest["host"].inbox.append(ev.InstanceDrain("a", 30.0))
        forest.run(1.0)
        assert not forest["edge"].serves(OLD)
        forest.put("host", "a", "1.0.1", endpoint="127.0.0.1:3")
        forest.run(1.0)
        assert forest["edge"].serves(OLD)
        return forest

    def act(forest: Forest) -> None:
        forest.put("host", "a", "1.0.2", endpoint=SPARE, settle=False)

    for where, forest in interruptions(story, act, ["edge"]):
        always(forest, OLD, NEXT)
        forest.run(40.0)
        assert forest["edge"].versions() == {"1.0.2": "active"}, where


# ---------------------------------------------------------------------- owners


def test_another_living_owner_of_an_id_changes_nothing() -> None:
    forest = one(owner="pod-1")
    before = dict(forest["host"].engine.endpoints)
    forest.put("host", "a", "2.0.0", endpoint=SPARE, owner="pod-2")
    assert dict(forest["host"].engine.endpoints) == before
    assert forest["host"].balancer.view.instance("a")["version"] == "1.0.1"
    assert forest["host"].balancer.view.instance("a")["owner"] == "pod-1"
    (note,) = [note for note in forest["host"].notes if note.code == "owner-conflict"]
    assert "pod-1" in note.text and "1.0.1" in note.text
    forest["host"].restart()
    forest.run(5.0)
    forest.put("host", "a", "1.0.1", owner="pod-2")
    assert forest["host"].balancer.view.instance("a")["owner"] == "pod-1", "kept over a restart"


def test_the_same_owner_or_an_unknown_one_may_register_again() -> None:
    forest = one(owner="pod-1")
    forest.put("host", "a", "1.0.2", endpoint=SPARE, owner="pod-1")
    assert forest["host"].balancer.view.instance("a")["version"] == "1.0.2"
    forest.put("host", "a", "1.0.3", endpoint=SPARE)
    assert forest["host"].balancer.view.instance("a")["version"] == "1.0.3"


def test_the_id_is_free_once_its_owner_has_lapsed_or_left() -> None:
    forest = one(owner="pod-1", ttl_s=10.0)
    forest.watch.clear()
    forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest.run(11.0)
    assert forest["host"].state("a") == "lapsed"
    forest.put("host", "a", "1.0.2", endpoint=SPARE, owner="pod-2")
    assert forest["host"].balancer.view.instance("a")["owner"] == "pod-2"
    forest.remove("host", "a", deadline_s=1.0)
    forest.run(40.0)
    forest.put("host", "a", "1.0.3", owner="pod-3")
    assert forest["host"].state("a") == "active"


def test_two_owners_at_the_same_moment() -> None:
    forest = Forest(ONE)
    forest.put("host", "a", "1.0.1", owner="pod-1", settle=False)
    forest.put("host", "a", "2.0.0", owner="pod-2")
    assert forest["host"].balancer.view.instance("a")["owner"] == "pod-1"
    assert forest["edge"].versions() == {"1.0.1": "active"}


@pytest.mark.promise(5)
@pytest.mark.parametrize("removed", [True, False])
def test_nothing_stays_of_a_registration_that_had_drained_when_its_id_was_taken(removed: bool) -> None:
    forest = one(owner="pod-1")
    forest.watch.clear()
    forest["host"].inbox.append(ev.InstanceDrain("a", 5.0))
    forest.settle()
    assert forest["host"].state("a") == "drained"
    forest.put("host", "a", "1.0.1", endpoint=SPARE, owner="pod-2")
    if removed:
        forest["host"].inbox.append(ev.InstanceGone("a", "its process is gone"))
        forest.settle()
    assert len(forest["host"].balancer._local.by_target) == (0 if removed else 1)
    forest.put("host", "b", "2.0.0")
    assert forest["host"].state("b") == ("active" if removed else "waiting")


@pytest.mark.promise(2, 3)
@pytest.mark.parametrize("event", [ev.InstanceRemove("a", 0.0, "pod-1"), ev.InstanceGone("a", "ended", "pod-1")])
def test_the_former_owner_of_an_id_removes_its_own_registration_alone(event: ev.Event) -> None:
    forest = one(owner="pod-1")
    forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest.watch.clear()
    forest["host"].inbox.append(ev.InstanceDrain("a", 60.0))
    forest.settle()
    forest.put("host", "a", "1.0.2", endpoint=SPARE, owner="pod-2")
    assert len(forest["host"].balancer.view.replaced()) == 1
    for _ in range(2):
        forest["host"].inbox.append(event)
        forest.run(1.0)
    assert forest["host"].balancer.view.replaced() == []
    assert forest["host"].state("a") == "active"
    assert forest["host"].balancer.view.instance("a")["owner"] == "pod-2"


@pytest.mark.promise(1)
@pytest.mark.parametrize("silence", ["wait", "open"])
def test_an_id_that_has_lapsed_is_free_unless_silence_is_to_be_waited_for(silence: str) -> None:
    """With `on_silence = "wait"` the id stays taken, because the instance that may still run can only be removed by its
    id."""
    forest = one(owner="pod-1", ttl_s=10.0)
    forest.watch.clear()
    forest.policy("edge", f'{{"on_silence": "{silence}"}}')
    forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest.run(11.0)
    assert forest["host"].state("a") == "lapsed"
    forest.put("host", "a", "2.0.0", endpoint=SPARE, owner="pod-2")
    taken = silence == "open"
    assert forest["host"].balancer.view.instance("a")["owner"] == ("pod-2" if taken else "pod-1")
    if not taken:
        assert "deregister it" in next(n.text for n in forest["host"].notes if n.code == "owner-conflict")
        forest.remove("host", "a")
        forest.run(1.0)
        forest.put("host", "a", "2.0.0", endpoint=SPARE, owner="pod-2")
    forest.run(45.0)
    assert forest["host"].state("a") == "active"


@pytest.mark.promise(2)
def test_an_owner_that_comes_back_after_its_lapse_as_something_else() -> None:
    forest = one(owner="pod-1", ttl_s=10.0)
    forest.watch.clear()
    forest.policy("edge", '{"on_silence": "wait"}')
    forest["host"].engine.in_flight[ev.EndpointKey(OLD, "i:a")] = 1
    forest.run(11.0)
    forest.put("host", "a", "2.0.0", endpoint=SPARE, owner="pod-1")
    forest.run(1.0)
    assert forest["host"].balancer.view.replaced() == []
    assert forest["host"].state("a") == "active"
