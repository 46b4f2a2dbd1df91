"""M: one of two racks is lost during an incompatible rollout. The other rack has the same hosts."""

from __future__ import annotations

from sdlb.sim.stage import Stage, scenario


@scenario(
    "M",
    3,
    root_1="",
    rack_1="root-1",
    rack_2="root-1",
    host_1="rack-1 rack-2",
    host_2="rack-1 rack-2",
)
def rack_lost_during_a_rollout(stage: Stage) -> None:
    """The other rack reports that the old instances on the same hosts have stopped: the next version opens."""
    stage.run(3.0)
    old = [stage.instance(host, "catalog-1.0.1") for host in ("host-1", "host-2")]
    stage.serving(*old)
    new = [stage.instance(host, "catalog-2.0.0") for host in ("host-1", "host-2")]
    stage.run(2.0)
    stage.acts.leave(old[0], 20.0)
    stage.run(2.0)
    stage.acts.power_off(stage["rack-1"])
    stage.run(0.5)
    stage.acts.leave(old[1], 20.0)
    stage.until(3, "2.0.0 serves", lambda: all(map(stage.serves, new)), 13.0)
    stage.acts.power_on(stage["rack-1"])
    stage.run(30.0)
    stage.settle()


@scenario(
    "M",
    3,
    root_1="",
    root_2="",
    rack_1="root-1 root-2",
    rack_2="root-1 root-2",
    host_1="rack-1 rack-2",
    host_2="rack-1 rack-2",
)
def rack_out_of_sight_during_a_rollout(stage: Stage) -> None:
    """A root loses contact with one of the racks without notice. The other rack reports that the old instances have stopped just
    before the silence is noticed: the next version opens within a lease."""
    stage.run(3.0)
    old = [stage.instance(host, "catalog-1.0.1") for host in ("host-1", "host-2")]
    stage.serving(*old)
    new = [stage.instance(host, "catalog-2.0.0") for host in ("host-1", "host-2")]
    stage.run(2.0)
    stage.acts.cut("rack-1", "root-1", 40.0, stall=True)
    for each in old:
        stage.acts.leave(each, 30.0)
    stage.until(3, "2.0.0 serves", lambda: all(map(stage.serves, new)), 13.0)
    stage.run(60.0)
    stage.settle()
