"""Q: two services that are rolled out together, while the owner fails in the middle of the second one."""

from __future__ import annotations

from msgspec.structs import replace

from sdlb.core.events import RolloutOrder
from sdlb.sim.drivers import Flaw
from sdlb.sim.scenarios.rollouts import TREE
from sdlb.sim.stage import QUICK, Stage, scenario

OLD, NEW = {"pricing": "3.0.1", "catalog": "1.0.1"}, {"pricing": "3.0.2", "catalog": "1.0.2"}
PARTS = {"catalog": ("host-1", "host-2", "host-3"), "pricing": ("host-2", "host-3", "host-4")}


def _serves_old(stage: Stage) -> None:
    for service, hosts in PARTS.items():
        stage.roles(*hosts, service=service, route=f"{service}.example/*")
    stage.run(4.0)
    for service, version in OLD.items():
        stage.release(version, service=service)
    stage.acts.release("root-1", "pricing", NEW["pricing"])
    stage.acts.release("root-1", "catalog", NEW["catalog"], f"pricing>={NEW['pricing']}")
    stage.run(1.0)
    _starts(stage, OLD)
    for service in PARTS:
        stage.rolls("done", service=service)
    _all_run(stage, OLD)
    stage.run(15.0)


def _starts(stage: Stage, versions: dict[str, str]) -> None:
    """Named the other way round than they go."""
    first, *others = [
        RolloutOrder(service, "start", "operator-a", versions[service], QUICK) for service in ("catalog", "pricing")
    ]
    why = stage.acts.rollout("root-1", replace(first, also=tuple(others)))
    stage.expect(5, f"the joint rollout starts: {why}", not why)
    stage.run(0.1)


def _all_run(stage: Stage, versions: dict[str, str]) -> None:
    for service, hosts in PARTS.items():
        for host in hosts:
            there = stage.runs(host, service)
            stage.expect(
                5, f"{host} runs {service} {versions[service]} alone: {sorted(there)}", there == {versions[service]}
            )


def _slow(stage: Stage) -> None:
    for version in (*NEW.values(), *OLD.values()):
        stage.world.drivers.flaws["", version] = Flaw(slow_s=0.6)


def _fit(stage: Stage) -> bool:
    """No catalog serves with a pricing that it does not accept."""
    serving = [p for service in PARTS for p in stage.world.by_service[service].values() if stage.world.is_endpoint(p)]
    there = {(p.spec.service, p.version) for p in serving}
    return not {("catalog", NEW["catalog"]), ("pricing", OLD["pricing"])} <= there


def _until(stage: Stage, service: str, *states: str, at: str = "root-1") -> None:
    """Looks at what serves on the way."""
    for _ in range(6000):
        stage.expect(9, "the new catalog serves only with the new pricing", _fit(stage))
        if stage[at].running and stage.rollout(at, service)["state"] in states:
            return
        stage.run(0.05)
    stage.expect(5, f"the rollout of {service} is {states}: {stage.rollout(at, service)}", False)


def _second_begun(stage: Stage, phase: str) -> None:
    stage.until(
        5,
        f"an agent of catalog is {phase}",
        lambda: any(stage.phase(host, "catalog") == phase for host in PARTS["catalog"]),
        60.0,
        0.01,
    )


@scenario("Q", 5, 9, **TREE)
def joint_rollout(stage: Stage) -> None:
    """Two services get new versions together: the one that is required first."""
    _serves_old(stage)
    _starts(stage, NEW)
    _until(stage, "pricing", "done")
    stage.expect(
        9,
        "nothing of catalog is touched before",
        all(stage.runs(h, "catalog") == {OLD["catalog"]} for h in PARTS["catalog"]),
    )
    _until(stage, "catalog", "done")
    _all_run(stage, NEW)
    stage.settle(30.0)


@scenario("Q", 5, 9, **TREE)
def joint_rollout_owner_killed_in_the_second_service(stage: Stage) -> None:
    """The owner is killed in the middle of the second service, and goes on when it is back."""
    _serves_old(stage)
    _slow(stage)
    _starts(stage, NEW)
    _second_begun(stage, "starting")
    stage.acts.kill(stage["root-1"])
    stage.run(20.0)
    stage.acts.start(stage["root-1"])
    stage.run(3.0)
    _until(stage, "catalog", "done")
    _all_run(stage, NEW)
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def joint_rollout_of_which_the_second_part_is_bad(stage: Stage) -> None:
    """The second build is never healthy, and the owner is killed while both go back."""
    _serves_old(stage)
    _slow(stage)
    stage.world.drivers.flaws["", NEW["catalog"]] = Flaw(ill=True)
    _starts(stage, NEW)
    _until(stage, "catalog", "undoing", "undone")
    stage.acts.kill(stage["root-1"])
    stage.run(10.0)
    stage.acts.start(stage["root-1"])
    stage.run(3.0)
    _until(stage, "catalog", "undone")
    _until(stage, "pricing", "done")
    stage.expect(5, "pricing was taken back", stage.rollout(service="pricing")["to"] == OLD["pricing"])
    _all_run(stage, OLD)
    stage.world.drivers.flaws.clear()
    stage.settle(60.0)


@scenario("Q", 5, 9, **TREE)
def joint_rollout_adopted_and_aborted(stage: Stage) -> None:
    """The owner is lost in the second service; another root adopts both parts and takes both back."""
    _serves_old(stage)
    _slow(stage)
    _starts(stage, NEW)
    _second_begun(stage, "starting")
    stage.acts.power_off(stage["root-1"])
    stage.run(20.0)
    for verb in ("adopt", "abort"):
        why = stage.order(verb, "root-2", "pricing")
        stage.expect(5, f"the rollout obeys {verb}: {why}", not why)
        stage.run(15.0 if verb == "adopt" else 0.1)
    _until(stage, "catalog", "undone", at="root-2")
    _until(stage, "pricing", "done", at="root-2")
    _all_run(stage, OLD)
    stage.acts.power_on(stage["root-1"])
    stage.settle(60.0)
