"""H: the same state folder on two machines. One of the two is the node; the other one is refused with the reason."""

from __future__ import annotations

from sdlb.sim.stage import Stage, scenario


@scenario("H", 1, 2, 5, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def cloned_host(stage: Stage) -> None:
    """A clone of a host that serves 1.0.1 starts elsewhere with 2.0.0, which does not open while the original serves."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    twin = stage.acts.clone(stage["host-1"], "host-1-copy")
    stage.run(3.0)
    stranger = stage.instance("host-1-copy", "catalog-2.0.0")
    for _ in range(40):
        stage.run(1.0)
        stage.expect(1, "the clone opens nothing", not (stage.serves(old) and stage.serves(stranger)))
    stage.expect(5, "the original serves on, and is in touch", stage.serves(old) and not stage["host-1"].view.cut_off())
    parents = [parent["state"] for parent in twin.view.tree()["parents"]]
    stage.expect(5, "the clone is refused", set(parents) <= {"refused", "lost", "connecting"})
    stage.settle()


@scenario("H", 1, 2, 5, root_1="", host_1="root-1", host_2="root-1")
def clones_that_start_together(stage: Stage) -> None:
    """Both machines start from one state folder at the same time, with the same incarnation."""
    stage.run(3.0)
    host = stage["host-1"]
    stage.acts.kill(host)
    stage.run(0.5)
    stage.acts.clone(host, "host-1-copy")
    stage.acts.start(host)
    first = stage.instance("host-1", "catalog-1.0.1")
    second = stage.instance("host-1-copy", "catalog-2.0.0")
    for _ in range(60):
        stage.run(1.0)
        stage.expect(1, "at most one of the two serves", not (stage.serves(first) and stage.serves(second)))
    links = stage.world.network.dialled
    stage.run(20.0)
    stage.expect(5, "the two do not replace each other forever", stage.world.network.dialled - links < 30)
