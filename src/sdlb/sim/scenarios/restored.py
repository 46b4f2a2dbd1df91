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


@scenario("G", 4, root_1="", rack_1="root-1", host_1="rack-1")
def restored_folder_of_a_host_while_no_root_is_there(stage: Stage) -> None:
    """The state folder of a host is set back while the only root is down: its rack sends it requests as before."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    saved = stage["host-1"].disk.read()
    other = stage.instance("host-1", "catalog-1.0.2")
    stage.serving(other)
    stage.acts.leave(other, 5.0)
    stage.run(6.0)
    stage.acts.kill(stage["root-1"])
    stage.run(30.0)
    stage.acts.restore_folder(stage["host-1"], saved)
    rack = stage["rack-1"].engine
    for _ in range(60):
        stage.run(0.5)
        stage.expect(4, "the rack leads to the host", any("n:host-1" in group for group in rack.groups.values()))
    stage.acts.start(stage["root-1"])
    for _ in range(40):
        stage.run(0.5)
        stage.expect(4, "the rack leads to the host", any("n:host-1" in group for group in rack.groups.values()))
    stage.settle()


@scenario("G", 1, 4, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def restored_folder_of_a_host_that_was_given_another_version(stage: Stage) -> None:
    """A host serves 2.0.0 when its state folder is set back to when 1.0.1 served, while it is cut off and again when it is not, and
    its control restarts once more: it opens 1.0.1 no more."""
    stage.run(3.0)
    old = stage.instance("host-1", "catalog-1.0.1", ttl_s=0.0)
    stage.serving(old)
    saved = stage["host-1"].disk.read()
    here = stage.instance("host-1", "catalog-2.0.0")
    there = stage.instance("host-2", "catalog-2.0.0")
    stage.acts.leave(old, 5.0)
    stage.serving(here, there)
    for cut_off in (True, False):
        if cut_off:
            stage.acts.isolate(stage["host-1"], 6.0)
        stage.acts.restore_folder(stage["host-1"], saved)
        for _ in range(2):
            for _ in range(6):
                stage.run(0.5)
                opened = {key.version for key in stage["host-1"].engine.groups}
                stage.expect(1, "host-1 does not open 1.0.1 again", "1.0.1" not in opened)
                stage.expect(4, "host-2 serves on", stage.serves(there))
            stage.acts.kill(stage["host-1"])
            stage.acts.start(stage["host-1"])
        stage.run(10.0)
    stage.until(5, "2.0.0 serves on host-1", lambda: stage.serves(here), 40.0)
    stage.settle()


@scenario("G", 2, 3, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1", host_3="rack-1")
def restored_folder_of_a_host_whose_version_was_given_up(stage: Stage) -> None:
    """A host is cut off until 2.0.0 opens elsewhere, and its state folder is set back while its engine has a request in flight to
    1.0.1. The instance leaves, before or after the host has closed its version: its program ends when the request is complete."""
    stage.run(3.0)
    for number, wait_s in enumerate((0.5, 25.0)):
        old = stage.instance("host-1", f"catalog-{number + 1}.0.1")
        stage.serving(old)
        saved = stage["host-1"].disk.read()
        beside = stage.instance("host-1", f"catalog-{number + 1}.0.2")
        stage.serving(beside)
        stage.acts.leave(beside, 5.0)
        stage.run(3.0)
        stage.acts.isolate(stage["host-1"], 40.0)
        stage.run(10.0)
        new = stage.instance("host-2", f"catalog-{number + 2}.0.0")
        stage.until(5, f"{new.version} opens", lambda new=new: stage.serves(new), 29.0)
        stage.request("host-1", 70.0)
        complete = stage.now + 70.0
        stage.run(0.5)
        stage.expect(4, "host-1 serves on while it is cut off", old.carried == 1)
        stage.acts.restore_folder(stage["host-1"], saved)
        stage.until(5, "it is back", lambda: stage.connected("host-1"), 45.0)
        stage.run(wait_s)
        stage.acts.leave(old, 100.0)
        stage.until(5, "the old instance ends", lambda old=old: not old.alive, 60.0)
        stage.expect(3, f"{old.version} ends when its request is complete", 0.0 < old.ended - complete < 2.0)
        stage.acts.leave(new, 5.0)
        stage.run(10.0)
    stage.settle()


@scenario("G", 1, 5, root_1="", root_2="", host_1="root-1 root-2", host_2="root-1 root-2", host_3="root-1 root-2")
def generation_that_both_roots_have_forgotten(stage: Stage) -> None:
    """Both roots and two of three hosts return from before a change of generation. Only the third host knows the newer one: its
    version closes, and serves again when its turn comes."""
    stage.run(3.0)
    old = [stage.instance("host-1", "catalog-1.0.1"), stage.instance("host-2", "catalog-1.0.1")]
    stage.serving(*old)
    names = ("root-1", "root-2", "host-1", "host-2")
    saved = [stage[name].disk.read() for name in names]
    new = stage.instance("host-3", "catalog-2.0.0", ttl_s=0.0)
    for process in old:
        stage.acts.leave(process, 10.0)
    stage.serving(new)
    for name, state in zip(names, saved, strict=True):
        stage.acts.restore(stage[name], state)
        stage.acts.power_on(stage[name])
    old = [stage.instance("host-1", "catalog-1.0.1"), stage.instance("host-2", "catalog-1.0.1")]
    stage.run(75.0)
    stage.expect(1, "one of the two versions serves", stage.serves(new) != any(map(stage.serves, old)))
    stage.expect(5, "the roots agree", stage.active("root-1") == stage.active("root-2"))
    first, then = (old, [new]) if stage.serves(old[0]) else ([new], old)
    for process in first:
        stage.acts.leave(process, 10.0)
    stage.until(5, "the other version serves", lambda: all(map(stage.serves, then)), 15.0)
    stage.settle()
