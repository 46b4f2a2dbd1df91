"""Agents with the owner of the rollout: a whole rollout over a small tree, and what fails in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.model.release import Release
from sdlb.model.role import Program, RoleService
from sdlb.model.rollout import RolloutSpec
from tests.core.forest import ROUTE, Forest
from tests.core.node import Node
from tests.core.programs import Build

WEB = RoleService("web", "catalog", Program(("./catalog",)), (ROUTE,), port=8000)
SPEC = RolloutSpec(soak_s=2.0, progress_s=60.0, drain_s=5.0, nodes_out_max="100%")
HOSTS = ("host-1", "host-2", "host-3")
OLD, NEW, BIG = "1.0.1", "1.0.2", "2.5.1"


class Tree:
    """Hosts under two racks under one root, all with catalog-1.0.1 by a first rollout."""

    def __init__(self, role: RoleService = WEB, first: str = OLD) -> None:
        self.forest = Forest(
            {"edge": (), "rack-1": ("edge",), "rack-2": ("edge",), **dict.fromkeys(HOSTS, ("rack-1", "rack-2"))}
        )
        for host in self.hosts:
            host.roles = (role,)
            host.restart()
        for version in (OLD, NEW, BIG):
            body = msgspec.json.encode(Release("catalog", version).to_data())
            self.forest["edge"].inbox.append(ev.ReleasePut(f"catalog-{version}", body, "operator-a"))
        self.run(5.0)
        if first:
            self.start(first)
            self.until("done")
            self.run(15.0)

    @property
    def hosts(self) -> list[Node]:
        return [self.forest[name] for name in HOSTS]

    def run(self, seconds: float) -> None:
        self.forest.run(seconds)

    def order(self, verb: str, version: str = "", spec: RolloutSpec = SPEC, **more: Any) -> None:
        order = ev.RolloutOrder("catalog", verb, "operator-a", version, spec, **more)
        assert self.forest["edge"].balancer.view.rollout_objection(order) == ""
        self.forest["edge"].inbox.append(order)
        self.forest.settle()

    def start(self, version: str, spec: RolloutSpec = SPEC, **more: Any) -> None:
        self.order("start", version, spec, **more)

    def rollout(self) -> dict[str, Any]:
        found = self.forest["edge"].balancer.view.rollout("catalog")
        assert found is not None
        return found

    def until(self, state: str, seconds: float = 200.0) -> None:
        end = self.forest.now + seconds
        while self.rollout()["state"] != state:
            assert self.forest.now < end, f"{self.rollout()} {[host.balancer.view.agent() for host in self.hosts]}"
            self.run(0.25)

    def runs(self) -> list[list[str]]:
        return [sorted(host.programs.versions().values()) for host in self.hosts]

    def serving(self) -> int:
        return sum(bool(host.engine.endpoints) for host in self.hosts)


def test_a_first_rollout_starts_the_version_on_every_node() -> None:
    tree = Tree()
    assert tree.runs() == [[OLD]] * 3 and tree.serving() == 3


def test_a_compatible_version_is_rolled_out_node_by_node() -> None:
    """Never more than one of three hosts is out."""
    tree = Tree()
    least = [3]
    tree.forest.watch.append(lambda: least.append(tree.serving()))
    tree.start(NEW)
    tree.until("done")
    assert tree.runs() == [[NEW]] * 3 and min(least) == 2


def test_a_version_that_fails_halts_the_rollout_and_touches_one_node() -> None:
    tree = Tree()
    for host in tree.hosts:
        host.programs.builds[NEW] = Build(starts="program")
    tree.start(NEW)
    tree.until("halted")
    tree.run(30.0)
    assert tree.runs() == [[OLD]] * 3 and tree.serving() == 3
    assert sum(f"start a {NEW}" in host.programs.calls for host in tree.hosts) == 1


def test_an_artifact_that_is_missing_halts_the_rollout_before_anything_stops() -> None:
    tree = Tree()
    tree.hosts[1].programs.builds[NEW] = Build(prepares="artifact")
    tree.start(NEW)
    tree.until("halted")
    assert not any(f"stop a {OLD}" in host.programs.calls for host in tree.hosts)


def test_an_incompatible_version_starts_beside_and_replaces_the_old_one_everywhere() -> None:
    tree = Tree()
    tree.forest.watch.append(tree.forest.one_generation)
    tree.start(BIG)
    tree.until("done")
    tree.run(5.0)
    assert tree.runs() == [[BIG]] * 3 and tree.serving() == 3


def test_without_room_an_incompatible_version_is_rolled_out_with_consent() -> None:
    tree = Tree(replace(WEB, side_by_side=False))
    tree.forest.watch.append(tree.forest.one_generation)
    tree.start(BIG, replace(SPEC, accept_gap=True))
    tree.until("done")
    tree.run(5.0)
    assert tree.runs() == [[BIG]] * 3 and tree.serving() == 3


@pytest.mark.parametrize("after_s", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
@pytest.mark.parametrize("version", [NEW, BIG])
def test_an_abort_at_any_time_leads_back(version: str, after_s: float) -> None:
    tree = Tree()
    tree.start(version)
    tree.run(after_s)
    tree.order("abort")
    tree.until("undone")
    tree.run(10.0)
    assert tree.runs() == [[OLD]] * 3 and tree.serving() == 3


def test_a_rollout_is_undone_by_another_one() -> None:
    tree = Tree()
    tree.start(NEW)
    tree.until("done")
    tree.order("undo")
    tree.until("preparing", 1.0)
    tree.until("done")
    assert tree.runs() == [[OLD]] * 3


def _reboot(node: Node) -> None:
    node.power_cut()
    node.programs.slots.clear()
    node.programs.waiting.clear()
    node.start()


def killed(version: str, harm: Callable[[Node], None]) -> None:
    tree = Tree()
    tree.start(version)
    for round_ in range(9):
        tree.run(1.5)
        harm(tree.hosts[round_ % 3])
    tree.until("done")
    tree.run(10.0)
    assert tree.runs() == [[version]] * 3 and tree.serving() == 3


@pytest.mark.parametrize("version", [NEW, BIG])
def test_nodes_that_are_killed_again_and_again_end_the_rollout(version: str) -> None:
    killed(version, Node.restart)


@pytest.mark.parametrize("version", [NEW, BIG])
def test_nodes_that_are_rebooted_again_and_again_end_the_rollout(version: str) -> None:
    killed(version, _reboot)


@pytest.mark.parametrize("version", [NEW, BIG])
def test_nodes_that_lose_their_disk_again_and_again_end_the_rollout(version: str) -> None:
    killed(version, Node.lose_disk)


@pytest.mark.parametrize("version", [NEW, BIG])
@pytest.mark.parametrize("phase", ["draining", "stopping", "starting", "verifying", "ready"])
def test_a_node_that_loses_its_disk_while_it_has_a_slot_keeps_no_other_waiting(version: str, phase: str) -> None:
    """What runs there goes on; the new agent knows of no slot."""
    tree = Tree()
    tree.start(version, replace(SPEC, soak_s=6.0))
    there: list[Node] = []
    for _ in range(600):
        there = [host for host in tree.hosts if host.balancer.view.agent()[0]["phase"] == phase]
        if there or tree.rollout()["state"] == "done":
            break
        tree.run(0.05)
    for host in there:
        host.lose_disk()
    tree.until("done")
    tree.run(10.0)
    assert tree.runs() == [[version]] * 3 and tree.serving() == 3


def test_the_owner_is_killed_again_and_again() -> None:
    tree = Tree()
    tree.start(NEW)
    for _ in range(8):
        tree.run(2.0)
        tree.forest["edge"].restart()
    tree.until("done")
    assert tree.runs() == [[NEW]] * 3
