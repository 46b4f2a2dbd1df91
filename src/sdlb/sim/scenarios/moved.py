"""A: nodes that come from another tree. Decisions of that tree do not count here."""

from __future__ import annotations

from sdlb.sim.process import Process
from sdlb.sim.stage import Stage, scenario

LAB = ("1.0.1", "2.0.0", "3.0.0", "4.0.0")


def _generations(stage: Stage, host: str) -> Process:
    """Deploys one incompatible version after another on a host, so that its tree is at its fourth generation."""
    last = stage.instance(host, f"catalog-{LAB[0]}")
    stage.serving(last)
    for version in LAB[1:]:
        new = stage.instance(host, f"catalog-{version}")
        stage.acts.leave(last, 10.0)
        stage.serving(new)
        last = new
    return last


def _production(stage: Stage) -> list[Process]:
    processes = [stage.instance(host, "catalog-1.0.1") for host in ("host-1", "host-2")]
    stage.serving(*processes)
    stage.requests(entries=("root-1",))
    return processes


@scenario("A", 1, 2, 3, root_1="", host_1="root-1", host_2="root-1", lab_root="", host_3="lab-root")
def moved_host_newer_generation(stage: Stage) -> None:
    """A host from a tree at its fourth generation is moved below one at its first, which closes nothing for it."""
    stage.run(3.0)
    lab = _generations(stage, "host-3")
    production = _production(stage)
    stage.acts.move(stage["host-3"], ("root-1",))
    stage.run(40.0)
    stage.expect(2, "the version that served in production serves on", all(map(stage.serves, production)))
    stage.expect(1, "the version from the lab has been closed", not stage.serves(lab))
    for process in production:
        stage.acts.leave(process, 10.0)
    stage.until(5, "the moved version opens when the others have stopped", lambda: stage.serves(lab), 30.0)
    stage.settle()


@scenario("A", 1, 2, root_1="", host_1="root-1", host_2="root-1", lab_root="", host_3="lab-root")
def moved_host_older_stamp(stage: Stage) -> None:
    """A host from a tree with the same generation and an older instance: seniority of another tree does not count."""
    stage.run(3.0)
    lab = stage.instance("host-3", "catalog-2.0.0")
    stage.serving(lab)
    stage.run(5.0)
    production = _production(stage)
    stage.acts.move(stage["host-3"], ("root-1",))
    stage.run(40.0)
    stage.expect(2, "the version that served in production serves on", all(map(stage.serves, production)))
    stage.expect(1, "the version from the lab has been closed", not stage.serves(lab))
    stage.settle()


@scenario(
    "A",
    1,
    2,
    3,
    root_1="",
    root_2="",
    host_1="root-1 root-2",
    host_2="root-1 root-2",
    lab_root="",
    rack_3="lab-root",
    host_3="rack-3",
    host_4="rack-3",
)
def moved_subtree(stage: Stage) -> None:
    """A rack with two hosts at their fourth generation is moved below two roots at their first."""
    stage.run(3.0)
    lab = _generations(stage, "host-3")
    beside = stage.instance("host-4", "catalog-4.0.0")
    stage.serving(lab, beside)
    production = _production(stage)
    stage.acts.move(stage["rack-3"], ("root-1", "root-2"))
    stage.run(45.0)
    stage.expect(2, "the version that served in production serves on", all(map(stage.serves, production)))
    stage.expect(1, "the versions from the lab have been closed", not stage.serves(lab) and not stage.serves(beside))
    stage.settle()


@scenario("A", 1, 3, root_1="", host_1="root-1", lab_root="", host_3="lab-root")
def moved_host_keeps_its_traffic(stage: Stage) -> None:
    """A host with a compatible version is moved: it serves all the time, and its requests in flight are not cut."""
    stage.run(3.0)
    here, there = stage.instance("host-1", "catalog-1.0.1"), stage.instance("host-3", "catalog-1.0.2")
    stage.serving(here, there)
    stage.requests(entries=("root-1", "host-3"))
    stage.request("host-3", 8.0)
    stage.acts.move(stage["host-3"], ("root-1",))
    for _ in range(40):
        stage.run(0.5)
        stage.expect(3, "it serves while the new root has not decided, and after", stage.serves(there))
    stage.settle()


@scenario("A", 1, 6, root_1="", host_1="root-1", lab_root="", host_3="lab-root")
def moved_host_with_a_policy(stage: Stage) -> None:
    """A host brings along a policy of its former tree with a higher revision: it is not applied in the new tree."""
    stage.run(3.0)
    for priority in ("higher", "lower", "even"):
        stage.policy({"priority": priority, "compatibility": {"rule": "any"}}, root="lab-root")
        stage.run(1.0)
    stage.policy({"priority": "higher"})
    here = stage.instance("host-1", "catalog-1.0.1")
    there = stage.instance("host-3", "catalog-1.0.2")
    stage.serving(here, there)
    stage.acts.move(stage["host-3"], ("root-1",))
    stage.run(30.0)
    stage.settle()


@scenario("A", 6, root_1="", lab_root="", host_3="lab-root")
def moved_host_is_the_only_child(stage: Stage) -> None:
    """The same where the host is the only child of its new root, and thus the majority of its children."""
    stage.run(3.0)
    for priority in ("higher", "lower", "even"):
        stage.policy({"priority": priority}, root="lab-root")
        stage.run(1.0)
    there = stage.instance("host-3", "catalog-1.0.2")
    stage.serving(there)
    stage.acts.move(stage["host-3"], ("root-1",))
    stage.run(30.0)
    stage.settle()
