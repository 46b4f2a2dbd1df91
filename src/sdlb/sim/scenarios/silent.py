"""F: leases longer than the fence, and `on_silence = "wait"`. A silent instance has not stopped before its time."""

from __future__ import annotations

from sdlb.sim.stage import Stage, scenario


@scenario("F", 2, 4, root_1="", host_1="root-1", host_2="root-1", host_3="root-1")
def long_lease_on_an_unreachable_host(stage: Stage) -> None:
    """A host with an instance whose lease is an hour is unreachable for two minutes: the instance has not stopped."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", ttl_s=3600.0)
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.acts.isolate(stage["host-1"], 120.0)
    stage.run(110.0)
    stage.expect(2, "2.0.0 waits while the lease of 1.0.1 runs", not stage.serves(new))
    stage.run(60.0)
    stage.settle()


@scenario("F", 2, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def lease_ends_while_silence_waits(stage: Stage) -> None:
    """An instance misses its renewals with a request in flight and `on_silence = "wait"`: it has not stopped."""
    stage.run(3.0)
    stage.policy({"on_silence": "wait"})
    stage.run(1.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.request("root-1", 40.0)
    stage.run(0.1)
    stage.acts.hang(old)
    stage.run(25.0)
    stage.expect(2, "2.0.0 waits for the instance that may still run", not stage.serves(new))
    stage.world.end(old, "is killed")
    stage.until(5, "2.0.0 opens once that is known", lambda: stage.serves(new), 10.0)
    stage.settle()


@scenario("F", 2, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def lease_ends_with_a_request_in_flight(stage: Stage) -> None:
    """The same with `on_silence = "open"`: the lease has expired, so the next version opens."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    stage.acts.hang(old)
    stage.until(5, "2.0.0 opens", lambda: stage.serves(new), 45.0)
    stage.world.end(old, "is killed")
    stage.settle()
