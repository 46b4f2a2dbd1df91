"""L: a root whose disk is full still sends heartbeats, but cannot decide."""

from __future__ import annotations

from sdlb.sim.stage import Stage, scenario


@scenario("L", 3, 4, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def full_disk_during_a_rollout(stage: Stage) -> None:
    """The disk of one of two edges fills up before an incompatible rollout: neither loses requests."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    stage.requests(5.0)
    stage.acts.fill_disk(stage["root-2"])
    stage.run(2.0)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.acts.leave(old, 20.0)
    stage.run(90.0)
    stage.expect(3, "2.0.0 serves though one edge cannot write", stage.serves(new))
    lost = {why: n for why, n in stage.world.traffic.outcomes.items() if why != "answered"}
    stage.expect(3, f"no request was lost: {lost}", not lost)
    stage.acts.free_disk(stage["root-2"])
    stage.settle()


@scenario("L", 3, 8, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def full_disk_and_a_crash(stage: Stage) -> None:
    """A root is killed while its disk is full: decisions that it could not write had no effect."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    stage.requests(5.0)
    stage.acts.fill_disk(stage["root-2"])
    beside = stage.instance("host-2", "catalog-1.0.2")
    stage.run(5.0)
    stage.acts.kill(stage["root-2"])
    stage.run(2.0)
    stage.acts.free_disk(stage["root-2"])
    stage.acts.start(stage["root-2"])
    stage.until(5, "the second version serves", lambda: stage.serves(beside), 40.0)
    stage.settle()
