"""G: machines that return from an older snapshot can join again."""

from __future__ import annotations

from sdlb.sim.host import Host
from sdlb.sim.stage import Stage, scenario


def _age(stage: Stage, *hosts: Host) -> None:
    """Restarts control several times, so that an earlier snapshot is old."""
    for _ in range(3):
        for host in hosts:
            stage.acts.kill(host)
            stage.run(0.5)
            stage.acts.start(host)
        stage.run(3.0)


def _restore(stage: Stage, *names: str) -> None:
    hosts = [stage[name] for name in names]
    saved = [host.disk.read() for host in hosts]
    _age(stage, *hosts)
    for host, old in zip(hosts, saved, strict=True):
        stage.acts.restore(host, old)
    stage.run(2.0)
    for host in hosts:
        stage.acts.power_on(host)


@scenario("G", 5, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def restored_host(stage: Stage) -> None:
    """A host returns from a snapshot of several restarts ago: it joins and serves."""
    stage.run(3.0)
    stage.serving(stage.instance("host-1", "catalog-1.0.1"), stage.instance("host-2", "catalog-1.0.1"))
    _restore(stage, "host-1")
    again = stage.instance("host-1", "catalog-1.0.1")
    stage.until(5, "it is let in", lambda: stage.connected("host-1"), 12.0)
    stage.until(5, "its new instance serves", lambda: stage.serves(again), 5.0)
    stage.settle()


@scenario("G", 5, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1", host_3="rack-1")
def restored_hosts(stage: Stage) -> None:
    """Most hosts of a rack return from old snapshots at the same time: the rack is guarded, and still accepts them."""
    stage.run(3.0)
    stage.serving(stage.instance("host-3", "catalog-1.0.1"))
    _restore(stage, "host-1", "host-2")
    again = stage.instance("host-1", "catalog-1.0.1")
    stage.until(5, "a new instance serves", lambda: stage.serves(again), 60.0)
    stage.settle()


@scenario("G", 5, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1")
def restored_rack(stage: Stage) -> None:
    """A rack returns from an old snapshot with `on_silence = "wait"`: its parents keep its record and accept it."""
    stage.run(3.0)
    stage.policy({"on_silence": "wait"})
    stage.run(1.0)
    stage.serving(stage.instance("host-1", "catalog-1.0.1"))
    _restore(stage, "rack-1")
    again = stage.instance("host-1", "catalog-1.0.2")
    stage.until(5, "a new instance serves", lambda: stage.serves(again), 60.0)
    stage.settle()


@scenario("G", 1, 8, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2")
def restored_root(stage: Stage) -> None:
    """One of two roots returns from before a change of generation: it learns the decisions and closes nothing."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    saved = stage["root-1"].disk.read()
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.acts.leave(old, 10.0)
    stage.serving(new)
    stage.acts.restore(stage["root-1"], saved)
    waiting = stage.instance("host-1", "catalog-1.0.1")
    stage.run(2.0)
    stage.acts.power_on(stage["root-1"])
    for _ in range(40):
        stage.run(1.0)
        stage.expect(8, "the newer generation serves on", stage.serves(new) and not stage.serves(waiting))
    stage.settle()


@scenario("G", 1, 8, root_1="", host_1="root-1", host_2="root-1")
def restored_only_root(stage: Stage) -> None:
    """The only root returns from before a change of generation, and hears first from a host where the older version waits."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    saved = stage["root-1"].disk.read()
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.acts.leave(old, 10.0)
    stage.serving(new)
    waiting = stage.instance("host-1", "catalog-1.0.1")
    stage.run(2.0)
    stage.acts.restore(stage["root-1"], saved)
    stage.acts.cut("root-1", "host-2", 4.0)
    stage.run(1.0)
    stage.acts.power_on(stage["root-1"])
    for _ in range(40):
        stage.run(1.0)
        stage.expect(8, "the newer generation serves on", stage.serves(new) and not stage.serves(waiting))
    stage.settle()
