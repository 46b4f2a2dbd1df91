"""O: the only instance of a service restarts. Its routes are kept, and requests wait for it."""

from __future__ import annotations

from sdlb.sim.stage import Stage, scenario

ANSWERED = "answered"


def _restarts(stage: Stage, *, killed: bool) -> None:
    stage.run(3.0)
    first = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(first)
    stage.requests()
    stage.run(2.0)
    if killed:
        stage.world.end(first, "is killed")
    else:
        stage.acts.leave(first, 10.0)
    stage.run(2.0)
    second = stage.instance("host-1", "catalog-1.0.1", name="web")
    stage.serving(second)
    stage.run(5.0)
    lost = {outcome: count for outcome, count in stage.world.traffic.outcomes.items() if outcome != ANSWERED}
    stage.expect(3, f"requests wait for the instance that comes back: {lost}", not lost)
    stage.settle()


@scenario("O", 3, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1")
def only_instance_is_stopped_and_started_again(stage: Stage) -> None:
    """The only instance is stopped, and another one is started 2 s later: no request is lost."""
    _restarts(stage, killed=False)


@scenario("O", 3, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1")
def only_instance_is_killed_and_started_again(stage: Stage) -> None:
    """The same with a kill: its requests in flight are retried."""
    _restarts(stage, killed=True)
