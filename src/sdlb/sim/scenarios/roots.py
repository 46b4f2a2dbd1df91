"""I: a node that becomes a root, or a root that becomes a child, keeps its traffic until there is a new decision."""

from __future__ import annotations

from sdlb.sim.process import Process
from sdlb.sim.stage import ROUTE, Stage, scenario


def _rollout(stage: Stage, entry: str) -> tuple[Process, Process]:
    """1.0.1 serves on host-1 with a request in flight, 2.0.0 on host-2 waits for it."""
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.requests(entries=(entry,))
    stage.request(entry, 6.0)
    stage.run(0.5)
    return old, new


def _move_during_a_rollout(stage: Stage, entry: str, parents: tuple[str, ...]) -> None:
    """The entry gets other parents (or none). 1.0.1 serves on, and 2.0.0 opens only when it has stopped."""
    old, new = _rollout(stage, entry)
    stage.acts.move(stage[entry], parents)
    for _ in range(60):
        stage.run(0.5)
        stage.expect(2, "1.0.1 serves on and 2.0.0 waits", stage.serves(old) and not stage.serves(new))
    stage.acts.leave(old, 10.0)
    stage.until(5, "2.0.0 opens when 1.0.1 has stopped", lambda: stage.serves(new), 10.0)
    stage.settle()


@scenario("I", 2, 3, root_1="", edge_2="root-1", host_1="edge-2", host_2="edge-2")
def promoted_root(stage: Stage) -> None:
    """A middle node loses its parents and becomes a root: it starts with the earlier decisions."""
    stage.run(3.0)
    _move_during_a_rollout(stage, "edge-2", ())


@scenario("I", 2, 3, root_1="", root_2="", host_1="root-2", host_2="root-2", host_3="root-1")
def demoted_root(stage: Stage) -> None:
    """A root becomes the child of another root that does not have its services: what serves, serves on."""
    stage.run(3.0)
    _move_during_a_rollout(stage, "root-2", ("root-1",))


def _alone_with_a_waiting_version(stage: Stage, host: str) -> tuple[Process, Process]:
    """1.0.1 serves. 2.0.0 waits on the same host and is older than the remaining instance of 1.0.1."""
    first = stage.instance(host, "catalog-1.0.1")
    stage.serving(first)
    waiting = stage.instance(host, "catalog-2.0.0")
    stage.run(2.0)
    second = stage.instance(host, "catalog-1.0.1")
    stage.serving(second)
    stage.acts.leave(first, 5.0)
    stage.run(3.0)
    stage.requests(entries=(host,))
    stage.request(host, 6.0)
    stage.run(0.5)
    return second, waiting


def _keeps_what_was_decided(stage: Stage, serving: Process, waiting: Process) -> None:
    for _ in range(40):
        stage.run(0.5)
        stage.expect(2, "1.0.1 serves on and 2.0.0 waits", stage.serves(serving) and not stage.serves(waiting))
    stage.settle()


@scenario("I", 2, 3, root_1="", host_1="root-1")
def promoted_host_with_a_waiting_version(stage: Stage) -> None:
    """A host becomes a root while a version waits on it that claimed earlier: the decided version serves on."""
    stage.run(3.0)
    serving, waiting = _alone_with_a_waiting_version(stage, "host-1")
    stage.acts.move(stage["host-1"], ())
    _keeps_what_was_decided(stage, serving, waiting)


@scenario("I", 2, 3, root_1="", root_2="")
def demoted_host_with_a_waiting_version(stage: Stage) -> None:
    """A root with local instances becomes a child while a version waits on it that claimed earlier."""
    stage.run(3.0)
    serving, waiting = _alone_with_a_waiting_version(stage, "root-2")
    stage.acts.move(stage["root-2"], ("root-1",))
    _keeps_what_was_decided(stage, serving, waiting)


@scenario("I", 4, 6, root_1="", root_2="", host_1="root-2")
def demoted_root_while_a_route_changes_hands(stage: Stage) -> None:
    """A root becomes a child and cannot reach its parent, while the former holder of a route drains below it: the root opens the
    route for neither service."""
    stage.run(3.0)
    below = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(below)
    here = stage.instance("root-2", "catalog-1.0.1")
    shop = stage.instance("root-2", "shop-7.0.0", routes=(ROUTE, "example.com/shop*"))
    stage.serving(here)
    for _ in range(4):
        stage.request("host-1", 8.0)
    stage.run(0.5)
    stage.acts.transfer("root-2", ROUTE, "shop", "operator-a")
    stage.run(1.0)
    stage.expect(6, "catalog drains on host-1", not stage.serves(here) and not stage.serves(below))
    stage.acts.move(stage["root-2"], ("root-1",))
    stage.acts.cut("root-2", "root-1", 5.0)
    for _ in range(10):
        stage.run(0.5)
        held = [key for key in stage["root-2"].engine.groups if key.route == ROUTE]
        stage.expect(4, "the route is open for neither", not held)
    stage.until(5, "shop has the route", lambda: stage.serves(shop), 40.0)
    stage.settle()


@scenario("I", 1, 5, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1", host_2="root-1 root-2")
def demoted_root_that_was_a_child_before(stage: Stage) -> None:
    """A rack is a root for a while, changes versions more often than its former tree, and comes back late: its version gives way."""
    stage.run(3.0)
    first = stage.instance("host-1", "catalog-1.0.1")
    stays = stage.instance("host-2", "catalog-1.0.1")
    stage.serving(first, stays)
    stage.acts.move(stage["rack-1"], ())
    stage.run(3.0)
    for version in ("2.0.0", "3.0.0", "2.0.0"):
        new = stage.instance("host-1", f"catalog-{version}")
        stage.acts.leave(first, 5.0)
        stage.serving(new)
        first = new
    stage.acts.move(stage["rack-1"], ("root-1", "root-2"))
    for root in ("root-1", "root-2"):
        stage.acts.cut("rack-1", root, 5.0)
    stage.until(1, "2.0.0 gives way", lambda: not stage.serves(first), 40.0)
    stage.expect(1, "1.0.1 serves on", stage.serves(stays))
    stage.settle()
