"""Q: rollouts zone by zone."""

from __future__ import annotations

from sdlb.sim.scenarios.rollouts import HOSTS, NEW, TREE, all_run, obeys, serves_old, starts
from sdlb.sim.stage import Stage, scenario

ZONE_OF = {"host-1": "b", "host-2": "a", "host-3": "b", "host-4": "a"}


def _zoned(stage: Stage) -> None:
    stage.zones(**{host.replace("-", "_"): zone for host, zone in ZONE_OF.items()})
    serves_old(stage, policy={"max_unavailable": "50%"})


def _has_new(stage: Stage) -> set[str]:
    return {host for host in HOSTS if NEW in stage.runs(host)}


@scenario("Q", 5, 9, **TREE)
def rollout_zone_by_zone(stage: Stage) -> None:
    """A zone begins when the one before has the new version, and an undo goes the same way."""
    _zoned(stage)
    first = {host for host, zone in ZONE_OF.items() if zone == "a"}

    def in_order(done: bool) -> None:
        has_new = _has_new(stage)
        there = has_new if done else set(HOSTS) - has_new
        stage.expect(9, f"zone b waits for zone a: {sorted(there)}", there <= first or first <= there)

    starts(stage, first=3)
    stage.until(5, "it is done", lambda: in_order(True) or stage.rollout()["state"] == "done", 120.0)
    obeys(stage, "undo")
    stage.rolls("preparing", 10.0)
    stage.until(5, "it is undone", lambda: in_order(False) or stage.rollout()["state"] == "done", 120.0)
    all_run(stage, "1.0.1")
    stage.settle(30.0)


@scenario("Q", 5, 9, **TREE)
def rollout_aborted_zone_by_zone(stage: Stage) -> None:
    """A rollout that is aborted in the last zone goes back in the order of the zones. A root that is killed meanwhile goes on."""
    _zoned(stage)
    starts(stage)
    stage.until(5, "three hosts are done", lambda: stage.rollout()["nodes"].get("done", 0) >= 3, 120.0, 0.01)
    first = {host for host, zone in ZONE_OF.items() if zone == "a"}
    late = {host for host in HOSTS if stage.phase(host) == "done"} - first  # one that is out comes back at once
    obeys(stage, "abort")

    def back() -> bool:
        has_new = _has_new(stage)
        stage.expect(9, f"zone b waits for zone a: {sorted(has_new)}", not (first & has_new) or late <= has_new)
        return stage[stage.roots()[0]].running and stage.rollout()["state"] == "undone"

    stage.until(5, "a host is back", lambda: back() or len(_has_new(stage)) < 3, 60.0, 0.05)
    stage.acts.kill(stage["root-1"])
    stage.run(5.0)
    stage.acts.start(stage["root-1"])
    stage.until(5, "all are back", back, 120.0, 0.05)
    all_run(stage, "1.0.1")
    stage.settle(60.0)
