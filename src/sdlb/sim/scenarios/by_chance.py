"""N: what random runs have found, each reduced to a small script."""

from __future__ import annotations

from sdlb.core import events as ev
from sdlb.sim.stage import Stage, scenario


@scenario("N", 1, 2, root_1="", host_1="root-1", host_2="root-1")
def drain_deadline_without_the_engine(stage: Stage) -> None:
    """A drain reaches its deadline while control cannot reach its engine, which serves on: the instance has not stopped."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.acts.lose_engine_link(stage["host-1"], 30.0)
    stage.run(1.0)
    stage["host-1"].take(ev.InstanceRemove(old.id, 5.0))  # and its program does not end
    stage.run(20.0)
    stage.expect(1, "2.0.0 waits while the engine has 1.0.1", stage.serves(old) and not stage.serves(new))
    stage.acts.leave(old, 1.0)
    stage.until(5, "2.0.0 opens", lambda: stage.serves(new), 20.0)
    stage.settle()


@scenario("N", 1, 4, root_1="", host_1="root-1", host_2="root-1")
def permit_of_the_disk_for_what_was_not_open(stage: Stage) -> None:
    """Control is down for longer than lease and fence and returns cut off: only what its engine serves stays active."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", ttl_s=0.0)
    stage.serving(old)
    old.healthy = False
    stage.run(3.0)
    stage.expect(1, "1.0.1 is not healthy, and so not open", not stage.serves(old))
    host = stage["host-1"]
    stage.acts.kill(host)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.until(5, "2.0.0 opens when host-1 was silent for long", lambda: stage.serves(new), 30.0)
    stage.acts.isolate(host, 20.0)
    stage.acts.well(old)
    stage.acts.start(host)
    for _ in range(15):
        stage.run(1.0)
        stage.expect(4, "host-1 opens nothing while it is cut off", not stage.serves(old))
    stage.run(20.0)
    stage.settle()


@scenario("N", 3, 5, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def link_breaks_as_the_last_instance_stops(stage: Stage) -> None:
    """The report that the last instance, with a long lease, has stopped is lost with a link: it is sent again."""
    stage.run(3.0)
    old = stage.instance("rack-1", "catalog-1.0.1", ttl_s=3600.0)
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.acts.cut("rack-1", "root-1", 1.0)
    stage.acts.crash(old)
    stage.until(5, "2.0.0 opens", lambda: stage.serves(new), 15.0)
    stage.settle()


@scenario("N", 2, 3, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def root_comes_back_after_a_rollout(stage: Stage) -> None:
    """One of two roots leaves cleanly and returns when the next generation serves: it closes nothing in favour of its record."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    stage.acts.stop(stage["root-2"])
    stage.run(15.0)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.acts.leave(old, 10.0)
    stage.serving(new)
    stage.requests(entries=("root-1",))
    stage.acts.come_back(stage["root-2"])
    for _ in range(30):
        stage.run(1.0)
        stage.expect(2, "2.0.0 serves on", stage.serves(new))
    stage.settle()


@scenario("N", 5, root_1="", host_1="root-1")
def id_taken_over_while_it_drains(stage: Stage) -> None:
    """An instance drains with a request in flight when another owner registers its id and stops soon: nothing of either stays."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    beside = stage.instance("host-1", "catalog-1.0.2")
    stage.serving(old, beside)
    stage.request("root-1", 6.0)
    stage.request("root-1", 6.0)
    stage.request("root-1", 6.0)
    stage.run(0.1)
    stage.acts.leave(old, 20.0)
    stage.run(0.1)
    other = stage.acts.usurp(old, "1.0.3")
    stage.run(4.0)
    stage.world.end(other, "gives up")
    stage.run(10.0)
    stage.settle()


@scenario("N", 3, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def recalled_version_has_its_turn_again(stage: Stage) -> None:
    """A version is recalled with requests in flight when the version that replaced it stops: no request is lost."""
    stage.run(12.0)
    pair = [stage.instance("host-1", "catalog-1.0.1"), stage.instance("host-2", "catalog-1.0.2")]
    stage.serving(*pair)
    for entry in ("host-1", "host-2"):
        stage.request(entry, 6.0 if entry == "host-2" else 0.1)
    stage.run(0.5)
    stage.rules(deny=[["1.0.1", "1.0.2"]])
    stage.run(1.0)
    active = stage.active("root-1")
    stage.expect(1, "one of the two is active", len(active) == 1)
    for process in pair:
        if process.version in active:
            stage.acts.leave(process, 10.0)
    stage.requests(2000.0)
    stage.run(0.5)
    stage.no_more_requests()
    stage.run(20.0)
    stage.settle()


@scenario("N", 5, root_1="", host_1="root-1", host_2="root-1")
def id_taken_over_when_drained(stage: Stage) -> None:
    """An instance that was drained by hand is still registered when another owner registers its id: it blocks nothing later."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(old)
    stage.acts.drain(old, 10.0)
    stage.run(3.0)
    other = stage.acts.usurp(old, "1.0.1")
    stage.run(4.0)
    stage.world.end(other, "gives up")
    stage.world.end(old, "ends at last")
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.until(5, "2.0.0 opens", lambda: stage.serves(new), 10.0)
    stage.settle()
