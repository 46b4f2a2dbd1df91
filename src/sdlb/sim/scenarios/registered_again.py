"""D: an instance registers again under its id with other settings. The former registration serves until the new one does."""

from __future__ import annotations

from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.sim.stage import ROUTE, Stage, scenario

OTHER_ROUTE = "example.com/other*"


@scenario("D", 3, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1")
def registered_again_with_a_compatible_version(stage: Stage) -> None:
    """A single instance becomes 1.0.2 under its id: no node above is ever without an endpoint."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(old)
    stage.requests(40.0)
    new = stage.again(old, "catalog-1.0.2")
    stage.serving(new)
    stage.settle()


@scenario("D", 2, 3, root_1="", rack_1="root-1", host_1="rack-1")
def registered_again_with_an_incompatible_version(stage: Stage) -> None:
    """A single instance becomes 2.0.0 under its id with two requests in flight, which end before it opens."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(old)
    for _ in range(2):
        stage.request("root-1", 4.0)
    stage.run(0.1)
    stage.expect(3, "two requests are in flight", old.carried == 2)
    stage.requests()
    new = stage.again(old, "catalog-2.0.0")
    stage.serving(new)
    stage.settle()


@scenario("D", 2, 3, root_1="", host_1="root-1", host_2="root-1")
def registered_again_while_the_old_version_stays_elsewhere(stage: Stage) -> None:
    """An instance becomes 2.0.0, and another host keeps 1.0.1: the old registration drains at once and the new one waits.
    Requests that enter at its host, below which nothing else runs, are not answered meanwhile. The root answers all."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    beside = stage.instance("host-2", "catalog-1.0.1")
    stage.serving(old, beside)
    stage.requests(entries=("root-1", "host-1"))
    stage.run(15.0)
    new = stage.again(old, "catalog-2.0.0")
    stage.until(2, "the old registration drains", lambda: not stage.serves(old), 5.0)
    stage.run(40.0)
    stage.expect(2, "2.0.0 waits for host-2", not stage.serves(new) and stage.serves(beside))
    stage.acts.leave(beside, 10.0)
    stage.serving(new)
    stage.settle()


@scenario("D", 3, root_1="", host_1="root-1")
def registered_again_at_another_address(stage: Stage) -> None:
    """The same version at another address, not healthy yet: the old address serves until it is."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(old)
    stage.requests(40.0)
    new = stage.again(old, healthy=False)
    stage.run(3.0)
    stage.acts.well(new)
    stage.serving(new)
    stage.settle()


@scenario("D", 3, root_1="", rack_1="root-1", host_1="rack-1")
def registered_again_with_more_routes(stage: Stage) -> None:
    """A second route is added. The first one is served all the time."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(old)
    stage.requests(40.0)
    new = stage.again(old, routes=(ROUTE, OTHER_ROUTE))
    stage.serving(new)
    stage.settle()


@scenario("D", 3, 5, root_1="", rack_1="root-1", host_1="rack-1")
def registered_again_while_it_drains(stage: Stage) -> None:
    """Drained by hand, renewed (it stays drained), then registered again at another address: it serves again."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    beside = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old, beside)
    stage.requests()
    stage.acts.drain(old, 10.0)
    stage.run(8.0)
    stage.expect(3, "it is drained, and renewing does not bring it back", not stage.serves(old))
    new = stage.again(old)
    stage.serving(new)
    stage.settle()


@scenario("D", 2, 3, root_1="", rack_1="root-1", host_1="rack-1")
def another_owner_takes_the_id(stage: Stage) -> None:
    """Another program registers under the id of a live instance: it is refused with the reason, and nothing changes."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(old)
    stage.requests(40.0)
    other = stage.acts.usurp(old, "2.0.0")
    for _ in range(20):
        stage.run(1.0)
        stage.expect(3, "the first serves on", stage.serves(old) and not stage.serves(other))
    stage.world.end(other, "gives up")
    stage.settle()


@scenario("D", 2, 3, root_1="", host_1="root-1", host_2="root-1")
def another_program_gets_the_port(stage: Stage) -> None:
    """A program dies unwatched and one of another service gets its port: the new one gets no requests for the first service."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", ttl_s=0.0, pid=0)
    beside = stage.instance("host-2", "catalog-1.0.1")
    stage.serving(old, beside)
    stage.requests()
    stage.acts.crash(old)
    spec = replace(stage.acts.spec("shop", "shop", "1.0.0", ("shop.example/*",)), endpoint=old.spec.endpoint)
    shop = stage.acts.run(stage["host-1"], spec)
    stage.run(1.0)
    for _ in range(20):
        stage.run(1.0)
        stage.expect(2, "the program of another service answers nothing for this one", not shop.carried_at)
    stage["host-1"].take(ev.InstanceRemove(old.id, 1.0))  # an operator has seen it
    stage.run(10.0)
    stage.settle()
