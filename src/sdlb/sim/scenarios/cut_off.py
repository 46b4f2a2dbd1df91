"""J: a node that is cut off serves on with what it has, and opens nothing."""

from __future__ import annotations

from sdlb.sim.stage import Stage, scenario


@scenario("J", 4, root_1="", rack_1="root-1", rack_2="root-1", host_1="rack-1", host_2="rack-2")
def both_children_silent(stage: Stage) -> None:
    """Both children of an edge are silent at the same time: the fault is probably its own, and it keeps its routes."""
    stage.run(3.0)
    stage.serving(stage.instance("host-1", "catalog-1.0.1"), stage.instance("host-2", "catalog-1.0.1"))
    stage.run(20.0)
    stage.requests(hold_s=0.05)
    for rack in ("rack-1", "rack-2"):
        stage.acts.cut("root-1", rack, 60.0)
    stage.run(55.0)
    stage.expect(4, "the edge still routes", bool(stage["root-1"].engine.groups))
    stage.expect(4, "and reports that it is guarded", stage["root-1"].view.guarded())
    stage.run(30.0)
    stage.settle()


@scenario("J", 1, 4, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def restarted_while_cut_off(stage: Stage) -> None:
    """A host is cut off and loses power. When it starts again, its old permit does not count."""
    stage.run(3.0)
    stage.serving(stage.instance("host-1", "catalog-1.0.1", ttl_s=0.0))
    stage.acts.isolate(stage["host-1"], 70.0)
    stage.run(25.0)
    stage.acts.power_off(stage["host-1"])
    stage.run(5.0)
    stage.acts.power_on(stage["host-1"])
    again = stage.instance("host-1", "catalog-1.0.1")
    stage.run(30.0)
    stage.expect(4, "it opens nothing while no parent answers", not stage.serves(again))
    stage.run(20.0)
    stage.until(5, "it opens when one does", lambda: stage.serves(again), 20.0)
    stage.settle()


@scenario("J", 1, 4, root_1="", rack_1="root-1", host_1="rack-1")
def new_host_below_a_cut_off_rack(stage: Stage) -> None:
    """A host is added below a rack that no root reaches: it opens nothing, and reports that it is cut off."""
    stage.run(3.0)
    stage.serving(stage.instance("host-1", "catalog-1.0.1"))
    stage.acts.cut("rack-1", "root-1", 60.0)
    stage.run(25.0)
    stage.acts.add_node("host-2", ("rack-1",))
    new = stage.instance("host-2", "catalog-1.0.1")
    stage.run(25.0)
    stage.expect(4, "it opens nothing", not stage.serves(new))
    stage.expect(4, "it reports that it is cut off", stage["host-2"].view.cut_off())
    stage.run(15.0)
    stage.until(5, "it opens when the rack is in touch again", lambda: stage.serves(new), 20.0)
    stage.settle()


@scenario("J", 4, root_1="", host_1="root-1")
def control_restarts_while_cut_off(stage: Stage) -> None:
    """Control of a host is killed and restarts while its engine serves and no parent answers: the engine serves on."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    stage.acts.isolate(stage["host-1"], 40.0)
    stage.run(15.0)
    stage.requests(entries=("host-1",))
    for _ in range(2):
        stage.acts.kill(stage["host-1"])
        stage.run(1.0)
        stage.acts.start(stage["host-1"])
        for _ in range(5):
            stage.run(1.0)
            stage.expect(4, "it serves on", stage.serves(old))
    stage.run(20.0)
    stage.settle()


@scenario("J", 1, 4, 5, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def root_cut_off_during_a_rollout(stage: Stage) -> None:
    """A root loses sight of all nodes while another root replaces a version: it opens nothing, and sends no request to a
    version that it has not decided. When it is back, it follows, and answers the requests that are parked."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    stage.run(20.0)
    stage.requests(0.5, entries=("root-2",), hold_s=0.05)
    stage.acts.isolate(stage["root-2"], 30.0)
    stage.run(12.0)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(3.0)
    stage.acts.leave(old, 10.0)
    stage.until(2, "2.0.0 opens without the root that is cut off", lambda: stage.serves(new), 10.0)
    for _ in range(8):
        stage.run(1.0)
        versions = {key.version for key in stage["root-2"].engine.groups}
        stage.expect(4, "root-2 has what it had, and nothing else", versions == {"1.0.1"})
    stage.until(5, "root-2 follows", lambda: stage.active("root-2") == {"2.0.0"}, 25.0)
    stage.run(3.0)
    lost = sum(count for outcome, count in stage.world.traffic.outcomes.items() if outcome != "answered")
    stage.expect(3, "no request was lost", not lost)
    stage.settle()
