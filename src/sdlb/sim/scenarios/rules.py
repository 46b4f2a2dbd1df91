"""C: compatibility changes while versions serve. The active set is decided again, and the losing version is drained."""

from __future__ import annotations

from sdlb.sim.process import Process
from sdlb.sim.stage import Stage, scenario


def _both(stage: Stage) -> tuple[Process, Process]:
    first = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(first)
    second = stage.instance("host-2", "catalog-1.0.2")
    stage.serving(second)
    stage.requests()
    return first, second


@scenario("C", 1, 3, root_1="", host_1="root-1", host_2="root-1")
def active_versions_are_denied(stage: Stage) -> None:
    """An operator denies two active versions to serve side by side: one of them is drained, and no request is lost."""
    stage.run(3.0)
    first, second = _both(stage)
    stage.rules(deny=[["1.0.1", "1.0.2"]])
    stage.run(20.0)
    stage.expect(1, "only one of the two serves", stage.serves(first) != stage.serves(second))
    stage.rules(deny=[])
    stage.until(5, "both serve again", lambda: stage.serves(first) and stage.serves(second), 10.0)
    stage.settle()


@scenario("C", 1, 3, root_1="", root_2="", rack_1="root-1 root-2", host_1="rack-1", host_2="rack-1")
def rule_becomes_stricter(stage: Stage) -> None:
    """The rule changes from `patch` to `exact` below two roots, while three versions are active."""
    stage.run(3.0)
    first, second = _both(stage)
    third = stage.instance("host-2", "catalog-1.0.3")
    stage.serving(third)
    stage.rules(rule="exact")
    stage.run(20.0)
    stage.expect(1, "only one of the three serves", sum(map(stage.serves, (first, second, third))) == 1)
    stage.settle()


@scenario("C", 1, root_1="", host_1="root-1", host_2="root-1", host_3="root-1")
def declaring_instance_leaves(stage: Stage) -> None:
    """The only instance whose declaration made 2.0.0 compatible with 1.0.1 leaves; another 2.0.0 without it stays."""
    stage.run(3.0)
    first = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(first)
    declares = stage.instance("host-2", "catalog-2.0.0", compatible=(">=1.0.0",))
    stage.serving(declares)
    silent = stage.instance("host-3", "catalog-2.0.0")
    stage.serving(silent)
    stage.requests()
    stage.acts.leave(declares, 10.0)
    stage.run(25.0)
    stage.expect(1, "only one of the two versions serves", stage.serves(first) != stage.serves(silent))
    stage.settle()


@scenario("C", 1, 5, root_1="", host_1="root-1", host_2="root-1")
def waiting_version_is_allowed(stage: Stage) -> None:
    """A version waits for an incompatible one until an operator allows the pair."""
    stage.run(3.0)
    first = stage.instance("host-1", "catalog-1.0.1")
    stage.serving(first)
    second = stage.instance("host-2", "catalog-2.0.0")
    stage.run(5.0)
    stage.expect(2, "2.0.0 waits", not stage.serves(second))
    stage.rules(allow=[["1.0.1", "2.0.0"]])
    stage.until(5, "both serve", lambda: stage.serves(first) and stage.serves(second), 5.0)
    stage.rules()
    stage.run(20.0)
    stage.expect(1, "only one of the two serves", stage.serves(first) != stage.serves(second))
    stage.settle()
