"""K: very large values, and one parent under two addresses."""

from __future__ import annotations

from sdlb.sim.stage import Stage, scenario

LARGE = 3_000_000_000  # fits 32 bits, twice of it does not


@scenario("K", 5, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def capacities_that_add_up_to_more_than_32_bits(stage: Stage) -> None:
    """Two instances with very large capacities: their sum is sent as the largest number that fits."""
    stage.run(3.0)
    first = stage.instance("host-1", "catalog-1.0.1", capacity=LARGE)
    second = stage.instance("host-2", "catalog-1.0.1", capacity=LARGE)
    stage.serving(first, second)
    stage.requests()
    stage.settle()


@scenario("K", 5, root_1="", host_1="root-1")
def two_addresses_of_one_parent(stage: Stage) -> None:
    """A node is configured with two addresses of the same parent: one link stays, the other one is closed."""
    host = stage["host-1"]
    stage.world.network.aliases["root-1-again"] = "root-1"
    host.addresses = ("root-1", "root-1-again")
    stage.run(10.0)
    stage.serving(stage.instance("host-1", "catalog-1.0.1"))
    links = stage.world.network.dialled
    stage.run(60.0)
    more = stage.world.network.dialled - links
    stage.expect(5, f"the two links do not replace each other forever: {more} links in a minute", more <= 15)
