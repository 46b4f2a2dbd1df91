"""B: a claim that is no longer reported has not stopped. A rack that leaves or lost its state knows nothing of its hosts."""

from __future__ import annotations

from sdlb.sim.process import Process
from sdlb.sim.stage import Stage, scenario


def _old_and_new(stage: Stage) -> tuple[Process, Process]:
    """1.0.1 serves on host-1; 2.0.0 on host-2 waits for it."""
    old = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(old)
    new = stage.instance("host-2", "catalog-2.0.0")
    stage.run(2.0)
    return old, new


@scenario("B", 1, 2, root_1="", rack_1="root-1", rack_2="root-1", host_1="rack-1", host_2="rack-2")
def rack_leaves_while_its_host_serves(stage: Stage) -> None:
    """A rack is stopped cleanly. Its only host serves on, so no incompatible version opens before lease and fence."""
    stage.run(3.0)
    old, new = _old_and_new(stage)
    stage.acts.stop(stage["rack-1"])
    stage.run(15.0)
    stage.expect(2, "2.0.0 waits while 1.0.1 may still serve", not stage.serves(new))
    stage.run(20.0)
    stage.acts.leave(old, 5.0)
    stage.run(10.0)
    stage.acts.come_back(stage["rack-1"])
    stage.settle()


@scenario("B", 2, root_1="", rack_1="root-1", rack_2="root-1", host_1="rack-1", host_2="rack-2")
def rack_leaves_and_silence_waits(stage: Stage) -> None:
    """The same with `on_silence = "wait"`: nothing opens until an operator reports that the host has stopped."""
    stage.run(3.0)
    stage.policy({"on_silence": "wait"})
    stage.run(1.0)
    _, new = _old_and_new(stage)
    stage.acts.stop(stage["rack-1"])
    stage.run(120.0)
    stage.expect(2, "2.0.0 waits while it is not known that 1.0.1 has stopped", not stage.serves(new))
    stage.acts.come_back(stage["rack-1"])
    stage.run(40.0)
    stage.settle()


def _replace_rack(stage: Stage, late_s: float) -> None:
    rack, host = stage["rack-1"], stage["host-1"]
    stage.acts.replace(rack)
    stage.acts.cut("host-1", "rack-1", late_s)
    stage.run(1.0)
    stage.acts.power_on(rack)
    assert host.running


@scenario("B", 1, 2, root_1="", rack_1="root-1", rack_2="root-1", host_1="rack-1", host_2="rack-2")
def replaced_rack_whose_host_is_late(stage: Stage) -> None:
    """A rack is replaced by an empty one, which its host reaches only later: claims that it does not report have not stopped."""
    stage.run(3.0)
    _, new = _old_and_new(stage)
    _replace_rack(stage, late_s=16.0)
    stage.run(14.0)
    stage.expect(2, "2.0.0 waits while 1.0.1 may still serve", not stage.serves(new))
    stage.run(40.0)
    stage.settle()


@scenario("B", 2, root_1="", rack_1="root-1", rack_2="root-1", host_1="rack-1", host_2="rack-2")
def replaced_rack_and_silence_waits(stage: Stage) -> None:
    """A replaced rack whose host does not return for two minutes, with `on_silence = "wait"`."""
    stage.run(3.0)
    stage.policy({"on_silence": "wait"})
    stage.run(1.0)
    _, new = _old_and_new(stage)
    _replace_rack(stage, late_s=120.0)
    stage.run(110.0)
    stage.expect(2, "2.0.0 waits while it is not known that 1.0.1 has stopped", not stage.serves(new))
    stage.run(50.0)
    stage.settle()


@scenario("B", 2, root_1="", rack_1="root-1", host_1="rack-1", host_2="rack-1")
def silent_host_is_forgotten(stage: Stage) -> None:
    """An operator reports that a silent host has stopped: the next version opens immediately."""
    stage.run(3.0)
    stage.policy({"on_silence": "wait"})
    stage.run(1.0)
    _, new = _old_and_new(stage)
    stage.acts.power_off(stage["host-1"])
    stage.run(30.0)
    stage.expect(2, "2.0.0 waits while it is not known that 1.0.1 has stopped", not stage.serves(new))
    stage.acts.forget(stage["rack-1"], "host-1")
    stage.until(5, "2.0.0 opens", lambda: stage.serves(new), 5.0)
    stage.acts.power_on(stage["host-1"])
    stage.settle()
