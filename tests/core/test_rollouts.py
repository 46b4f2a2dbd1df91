"""Rollouts over a whole tree: the owner at a root and the agents of the nodes, with the programs that they start."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.messages import TARGET, Ask, Beat, DownState
from sdlb.model.role import Program, RoleService
from sdlb.model.rollout import RolloutSpec
from tests.core.forest import ROUTE, Forest, key_of
from tests.core.node import Node
from tests.core.programs import Build

OLD, NEW, BIG = "1.0.1", "1.0.2", "2.5.1"
HOSTS = ("host-1", "host-2", "host-3", "host-4")
ONE: dict[str, tuple[str, ...]] = {"edge-1": (), **dict.fromkeys(HOSTS, ("edge-1",))}
RACKS: dict[str, tuple[str, ...]] = {
    "edge-1": (),
    "edge-2": (),
    "rack-1": ("edge-2", "edge-1"),
    "rack-2": ("edge-1", "edge-2"),
    **dict.fromkeys(HOSTS, ("rack-1", "rack-2")),
}
TREES = pytest.mark.parametrize("tree", [ONE, RACKS], ids=["one", "racks"])
WEB = RoleService("web", "catalog", Program(("./catalog",)), (ROUTE,))
ALONE = replace(WEB, side_by_side=False)
SPEC = RolloutSpec(soak_s=3.0, progress_s=60.0, drain_s=5.0)


class Story:
    """A tree whose hosts run catalog-1.0.1, brought there by a rollout. `lowest`: the least capacity that served since."""

    def __init__(
        self, tree: dict[str, tuple[str, ...]] = ONE, role: RoleService = WEB, version: str = OLD, **policy: Any
    ) -> None:
        self.forest = Forest(tree)
        self.roots = [name for name, parents in tree.items() if not parents]
        self.hosts = [name for name in tree if name.startswith("host")]
        self.broken: set[str] = set()
        self.seen: list[set[str]] = []
        for host in self.hosts:
            self.forest[host].roles = (role,)
            self.forest[host].restart()
        for root in self.roots:
            self.forest[root].inbox.append(ev.PolicyPut("catalog", json.dumps(policy).encode()))
        self.forest.run(3.0)
        self.lowest = 0
        self.start(version)
        self.until("done")
        self.lowest = len(self.hosts) * 100
        self.forest.watch.append(self._look)

    def _look(self) -> None:
        """Promise 1 at every step: never two incompatible versions. And the least capacity on hosts that are not broken."""
        serving = {host: self.serves(host) for host in self.hosts}
        versions = {version for each in serving.values() for version in each}
        assert len({version.split(".")[0] for version in versions}) <= 1, serving
        if not self.seen or self.seen[-1] != versions:
            self.seen.append(versions)
        self.lowest = min(self.lowest, sum(100 for host in self.hosts if serving[host] or host in self.broken))

    # ------------------------------------------------------------------ orders

    def start(self, version: str, spec: RolloutSpec = SPEC, *, supersede: bool = False, at: str = "edge-1") -> str:
        body = json.dumps({"service": "catalog", "version": version}).encode()
        for root in self.roots:
            self.forest[root].inbox.append(ev.ReleasePut(f"catalog-{version}", body, "operator-a"))
        self.forest.run(0.5)
        return self.order("start", at=at, version=version, spec=spec, supersede=supersede)

    def order(self, verb: str, *, at: str = "edge-1", **fields: Any) -> str:
        """The objection. "": the order was carried out."""
        given: dict[str, Any] = {"spec": SPEC, **fields}
        order = ev.RolloutOrder("catalog", verb, "operator-a", **given)
        objection = self.forest[at].balancer.view.rollout_objection(order)
        if not objection:
            self.forest[at].inbox.append(order)
            self.forest.run(0.25)
        return objection

    # ------------------------------------------------------------------ what is seen

    def rollout(self, at: str = "edge-1") -> dict[str, Any]:
        found = self.forest[at].balancer.view.rollout("catalog")
        return found or {"state": "", "id": ""}

    def until(self, state: str, seconds: float = 300.0, at: str = "edge-1") -> None:
        end = self.forest.now + seconds
        while self.rollout(at)["state"] != state:
            assert self.forest.now < end, f"not {state}: {self.rollout(at)} {[self.agent(h) for h in self.hosts]}"
            self.step()

    def reach(self, host: str, phase: str) -> None:
        end = self.forest.now + 120.0
        while self.agent(host)["phase"] != phase:
            assert self.forest.now < end, f"{host} is {self.agent(host)}, not {phase}"
            self.step()

    def step(self) -> None:
        """One event at one node, so that no state is missed."""
        if not self.forest.step():
            self.forest.tick(0.25)

    def out(self) -> str:
        """The first host that holds a slot."""
        end = self.forest.now + 60.0
        while not (slots := self.rollout()["slots"]):
            assert self.forest.now < end
            self.step()
        return slots[0]["node"]

    def agent(self, host: str) -> dict[str, Any]:
        return self.forest[host].balancer.view.agent()[0]

    def serves(self, host: str) -> set[str]:
        there = {endpoint.claim.version for endpoint in self.forest[host].engine.endpoints}
        running = {program.version for program in self.forest[host].programs.slots.values()}
        return there & running

    def all_run(self, version: str) -> bool:
        return all(
            set(self.forest[host].programs.versions().values()) == {version} and self.serves(host) == {version}
            for host in self.hosts
        )

    def calls(self, *verbs: str) -> int:
        return sum(1 for host in self.hosts for call in self.forest[host].programs.calls if call.split()[0] in verbs)

    def builds(self, version: str, build: Build, *hosts: str) -> None:
        for host in hosts or self.hosts:
            self.forest[host].programs.builds[version] = build


# ---------------------------------------------------------------------- a patch


@pytest.mark.promise(2, 9)
@TREES
def test_a_patch_is_shipped_node_by_node(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree)
    assert story.all_run(OLD)
    assert story.start(NEW) == ""
    story.until("done")
    assert story.all_run(NEW) and story.lowest == 300
    found = story.rollout()
    assert (found["id"], found["before"], found["to"], found["by"]) == ("r-2", OLD, NEW, "operator-a")
    assert [each["id"] for each in found["history"]] == ["r-2", "r-1"]
    assert found["nodes"]["done"] == 4 and not found["slots"]


@pytest.mark.promise(7)
def test_steps_of_a_rollout_go_out_with_the_heartbeat() -> None:
    story = Story()
    edge, states, beats = story.forest["edge-1"], [story.rollout()["state"]], 0
    sent = edge.listen()

    def look() -> None:
        nonlocal beats
        before, beats = beats, sum(isinstance(message, Beat) for message in sent)
        if (state := story.rollout()["state"]) != states[-1]:
            states.append(state)
            assert state == "preparing" or beats > before, f"{state} between two heartbeats"

    story.forest.watch.append(look)
    story.start(NEW)
    story.until("done")
    story.step()
    assert states == ["done", "preparing", "rolling", "done"]
    docs = [message for message in sent if isinstance(message, DownState) and message.docs]
    assert len(docs) <= 5 * len(story.hosts), "its start, two steps of its state, and of its cursor"


@pytest.mark.promise(9)
def test_the_first_node_is_verified_before_the_second_one_drains() -> None:
    tree: dict[str, tuple[str, ...]] = {"edge-1": (), **{f"host-{n}": ("edge-1",) for n in range(1, 31)}}
    story = Story(tree, max_unavailable="50%")
    begun: list[int] = []

    def look() -> None:
        phases = [story.agent(host)["phase"] for host in story.hosts]
        if "done" not in phases:
            begun.append(sum(phase in ("draining", "stopping", "starting", "verifying") for phase in phases))

    story.forest.watch.append(look)
    story.start(NEW)
    story.until("done")
    assert max(begun) == 1 and story.lowest == 2700, "10 % of 30 nodes"


@TREES
def test_a_bad_build_meets_one_node(tree: dict[str, tuple[str, ...]]) -> None:
    story = Story(tree)
    story.builds(NEW, Build(healthy=False))
    before = story.calls("stop")
    story.start(NEW)
    story.until("halted")
    assert story.calls("stop") - before == 2, "the old version of one host, then the new one"
    story.forest.run(30.0)
    assert story.all_run(OLD) and story.lowest == 300
    assert list(story.rollout()["failed"]) == [story.rollout()["detail"].split(":")[0]]


def test_what_cannot_be_fetched_halts_before_anything_stops() -> None:
    story = Story()
    story.builds(NEW, Build(prepares="artifact"), "host-3")
    story.start(NEW)
    story.until("halted")
    assert "host-3" in story.rollout()["detail"] and "cannot be fetched" in story.rollout()["detail"]
    assert story.all_run(OLD) and story.lowest == 400 and story.calls("stop") == 0
    story.builds(NEW, Build())
    assert story.order("abort") == ""
    assert story.rollout()["state"] == "undone", "nothing was touched"
    assert story.start(NEW) == ""
    story.until("done")
    assert story.all_run(NEW)


@pytest.mark.parametrize("build", [Build(prepares="artifact"), Build(starts="program")], ids=["fetch", "start"])
@TREES
def test_a_node_that_failed_tries_again_when_the_halted_rollout_is_resumed(
    tree: dict[str, tuple[str, ...]], build: Build
) -> None:
    story = Story(tree)
    story.builds(NEW, build)
    for _ in range(2):  # the second time it is as broken as before
        assert story.start(NEW) == "" if story.rollout()["id"] == "r-1" else story.order("resume") == ""
        story.until("halted")
        story.forest.run(10.0)
        assert story.all_run(OLD) and story.rollout()["failed"]
    story.builds(NEW, Build())
    assert story.order("resume") == ""
    story.until("done")
    assert story.all_run(NEW) and story.lowest >= 300 and not story.rollout()["failed"]


def test_a_failure_is_remembered_by_a_node_that_restarts() -> None:
    story = Story()
    story.builds(NEW, Build(starts="program"))
    story.start(NEW)
    story.until("halted")
    [failed] = story.rollout()["failed"]
    story.builds(NEW, Build())
    story.forest[failed].restart()
    story.forest.run(20.0)
    assert story.agent(failed)["phase"] == "failed" and story.all_run(OLD)


def test_the_plan_of_an_undo_goes_from_what_is_rolled_out() -> None:
    story = Story()
    story.start(NEW)
    story.reach(story.out(), "verifying")
    plan = story.forest["edge-1"].balancer.view.rollout_plan(ev.RolloutOrder("catalog", "undo", "operator-a"))
    assert (plan["before"], plan["to"]) == (NEW, OLD)


def test_a_root_to_which_no_node_reports_names_the_one_to_ask() -> None:
    story = Story(RACKS)
    assert "report to edge-1; run the command on edge-1" in story.start(NEW, at="edge-2")
    assert story.start(NEW) == ""
    assert "report to edge-1;" in story.start(BIG, supersede=True, at="edge-2")
    story.until("done")


def test_a_root_that_has_just_started_does_not_say_that_no_node_runs_the_service() -> None:
    story = Story()
    story.start(NEW)
    story.until("done")
    story.forest["edge-1"].kill()
    story.forest["edge-1"].start()
    story.forest.settle()
    assert "does not know yet" in story.order("undo")
    story.forest.run(5.0)
    assert story.order("undo") == ""


def test_a_sole_instance_needs_consent() -> None:
    story = Story({"edge-1": (), "host-1": ("edge-1",)})
    assert "--accept-gap" in story.start(NEW)
    assert story.start(NEW, replace(SPEC, accept_gap=True)) == ""
    story.until("done")
    assert story.all_run(NEW)
    assert story.order("undo") == "", "on the terms of the rollout that it undoes"
    story.until("done")
    assert story.all_run(OLD) and story.rollout()["spec"]["accept_gap"]


def test_side_by_side_a_sole_instance_is_replaced_without_a_gap() -> None:
    story = Story({"edge-1": (), "host-1": ("edge-1",)})
    assert story.start(NEW, replace(SPEC, side_by_side="always")) == ""
    story.until("done")
    assert story.all_run(NEW) and story.lowest == 100


# ---------------------------------------------------------------------- an incompatible version


@pytest.mark.promise(1, 2, 9)
@TREES
@pytest.mark.parametrize("cut_over", ["stopped", "flip"])
def test_an_incompatible_version_waits_beside_the_old_one_until_all_are_ready(
    tree: dict[str, tuple[str, ...]], cut_over: str
) -> None:
    story = Story(tree, cut_over=cut_over)
    assert story.start(BIG) == ""
    story.until("cutting-over")
    waiting = [set(story.forest[host].programs.versions().values()) for host in story.hosts]
    ready = sum(each == {OLD, BIG} for each in waiting)
    assert ready == 4 if cut_over == "stopped" else ready >= 3, "a flip begins at the floor"
    story.until("done")
    story.forest.run(5.0)
    assert story.all_run(BIG) and all(story.forest[r].serves(key_of(BIG)) for r in story.roots)
    assert OLD not in story.seen[-1] and {OLD, BIG} not in story.seen


@pytest.mark.promise(1, 2)
@pytest.mark.parametrize("cut_over", ["stopped", "flip"])
def test_versions_alternate_as_often_as_they_are_undone(cut_over: str) -> None:
    story = Story(RACKS, cut_over=cut_over)
    story.start(BIG)
    story.until("done")
    for version in (OLD, BIG, OLD):
        assert story.order("undo") == ""
        story.until("done")
        story.forest.run(5.0)
        assert story.all_run(version)


@pytest.mark.promise(9)
def test_not_side_by_side_it_goes_in_batches_and_only_with_consent() -> None:
    story = Story(ONE, ALONE)
    before = story.calls("stop")
    assert "--accept-gap" in story.start(BIG)
    story.forest.run(10.0)
    assert story.calls("stop") == before and story.all_run(OLD)
    assert story.start(BIG, replace(SPEC, accept_gap=True)) == ""
    story.until("cutting-over")
    assert story.lowest == 300, "during the batches"
    story.until("done")
    assert story.all_run(BIG)


@pytest.mark.promise(3)
def test_a_gate_holds_the_cut_over_and_nothing_stops() -> None:
    gate = {"name": "sign-off", "kind": "approval", "by": ["operator-a"]}
    story = Story(ONE, gate=[gate])
    story.start(BIG)
    story.forest.run(60.0)
    assert story.rollout()["state"] == "rolling" and "sign-off" in story.rollout()["detail"]
    assert story.lowest == 400
    story.forest["edge-1"].inbox.append(ev.Approve("catalog", BIG, "sign-off", "operator-a"))
    story.until("done")
    assert story.all_run(BIG)


def test_undo_below_the_floor_is_refused() -> None:
    story = Story(ONE)
    story.start(BIG)
    story.until("done")
    story.forest["edge-1"].inbox.append(ev.PolicyPut("catalog", json.dumps({"never_below": "2.5"}).encode()))
    story.forest.run(1.0)
    assert "never_below" in story.order("undo")
    assert story.rollout()["state"] == "done"


# ---------------------------------------------------------------------- a change of mind


def test_pause_takes_no_more_nodes_and_resume_goes_on() -> None:
    story = Story()
    story.start(NEW)
    story.reach(story.out(), "verifying")
    assert story.order("pause") == ""
    story.forest.run(60.0)
    assert story.rollout()["nodes"]["done"] == 1 and story.rollout()["state"] == "paused"
    assert "only a rollout" in story.order("pause")
    assert story.order("resume") == ""
    story.until("done")
    assert story.all_run(NEW) and story.lowest == 300


@pytest.mark.parametrize("phase", ["fetching", "draining", "stopping", "starting", "verifying", "done"])
@pytest.mark.parametrize("verb", ["abort", "undo"])
def test_an_aborted_rollout_goes_back_from_every_phase(phase: str, verb: str) -> None:
    story = Story()
    for host in story.hosts:
        story.forest[host].programs.slow_s = 1.0
    story.start(NEW)
    story.reach(story.hosts[0] if phase == "fetching" else story.out(), phase)
    assert story.order(verb) == ""
    story.until("undone")
    story.forest.run(20.0)
    assert story.all_run(OLD) and story.lowest >= 300
    assert "no rollout" in story.order("abort")


def test_after_an_abort_undo_takes_the_last_finished_rollout_back() -> None:
    story = Story()
    story.start(NEW)
    story.until("done")
    story.start("1.0.3")
    assert story.order("abort") == ""
    story.until("undone")
    assert story.all_run(NEW)
    assert story.order("undo") == ""
    story.until("done")
    assert story.all_run(OLD) and story.rollout()["undoes"] == "r-2"


def test_another_version_supersedes() -> None:
    story = Story()
    story.start(NEW)
    story.reach(story.out(), "done")
    assert "--supersede" in story.start("1.0.3")
    assert story.start("1.0.3", supersede=True) == ""
    story.until("done")
    assert story.all_run("1.0.3") and story.lowest >= 300
    assert [(r["to"], r["state"]) for r in story.rollout()["history"]][:2] == [("1.0.3", "done"), (NEW, "superseded")]
    assert story.order("undo") == ""
    story.until("done")
    assert story.all_run(OLD), "the version that was last done"


# ---------------------------------------------------------------------- faults


@pytest.mark.promise(9)
@TREES
@pytest.mark.parametrize("how", [Node.restart, Node.reboot], ids=["killed", "rebooted"])
@pytest.mark.parametrize("phase", ["fetching", "queued", "draining", "stopping", "starting", "verifying"])
def test_the_owner_is_lost_for_a_moment_in_each_phase(
    phase: str, how: Callable[[Node], None], tree: dict[str, tuple[str, ...]]
) -> None:
    story = Story(tree)
    for host in story.hosts:
        story.forest[host].programs.slow_s = 1.0
    story.start(NEW)
    story.reach(story.hosts[0] if phase in ("fetching", "queued") else story.out(), phase)
    how(story.forest["edge-1"])
    story.until("done")
    assert story.all_run(NEW) and story.lowest >= 300


@pytest.mark.promise(9)
def test_a_lost_owner_takes_nothing_more_out_and_another_root_adopts() -> None:
    story = Story(RACKS)
    story.start(NEW)
    first = story.out()
    story.reach(first, "draining")
    story.forest["edge-1"].kill()
    story.forest.run(60.0)
    assert [h for h in story.hosts if story.agent(h)["version"] == NEW] == [first], "it ends its step"
    assert story.rollout("edge-2")["state"] == "rolling" and story.rollout("edge-2")["owner"] == "edge-1"
    assert story.order("adopt", at="edge-2") == ""
    story.until("done", at="edge-2")
    assert story.all_run(NEW) and story.lowest >= 300
    story.forest["edge-1"].start()
    story.forest.run(30.0)
    assert story.rollout()["owner"] == "edge-2" and story.rollout()["state"] == "done"


@pytest.mark.promise(9)
def test_a_node_that_dies_while_it_is_out_keeps_its_slot() -> None:
    story = Story()
    story.start(NEW)
    first = story.out()
    story.reach(first, "stopping")
    story.broken.add(first)
    story.forest[first].kill()
    story.forest.run(60.0)
    assert [slot["node"] for slot in story.rollout()["slots"]] == [first] and story.lowest >= 300
    story.forest[first].start()
    story.broken.clear()
    story.until("done")
    assert story.all_run(NEW)


@pytest.mark.promise(9)
@TREES
@pytest.mark.parametrize("verbs", [("abort",), ("pause", "resume"), ()], ids=["abort", "resume", "supersede"])
def test_a_node_that_is_lost_for_good_holds_its_slot_until_an_operator_goes_on(
    tree: dict[str, tuple[str, ...]], verbs: tuple[str, ...]
) -> None:
    story = Story(tree, max_unavailable="50%")
    story.start(NEW)
    first = story.out()
    story.reach(first, "stopping")
    story.broken.add(first)
    story.forest[first].kill()
    story.forest[first].engine = type(story.forest[first].engine)()
    story.forest[first].programs.slots.clear()
    story.forest.run(60.0)
    assert [slot["node"] for slot in story.rollout()["slots"]] == [first]
    story.hosts.remove(first)
    for verb in verbs:
        assert story.order(verb) == ""
    if verbs != ("pause", "resume"):
        if verbs:
            story.until("undone")
        assert story.start("1.0.3", supersede=not verbs) == ""
    story.until("done")
    assert story.all_run(story.rollout()["to"]) and story.rollout()["slots"] == []


def test_a_node_that_was_away_for_the_whole_rollout_gets_the_version_when_it_is_back() -> None:
    story = Story()
    story.forest["host-4"].kill()
    story.forest["host-4"].engine = type(story.forest["host-4"].engine)()
    story.forest["host-4"].programs.slots.clear()
    story.forest.run(700.0)  # longer than the time whose best capacity is the baseline
    story.hosts.remove("host-4")
    story.start(NEW)
    story.until("done")
    story.hosts.append("host-4")
    story.forest["host-4"].start()
    story.forest.run(30.0)
    assert story.all_run(NEW)


@pytest.mark.promise(9)
@pytest.mark.parametrize("role", [WEB, ALONE], ids=["side-by-side", "alone"])
def test_nodes_that_serve_the_old_version_while_they_are_away_are_updated_one_by_one(role: RoleService) -> None:
    story = Story(role=role)
    away = ["host-3", "host-4"]
    for host in away:
        story.forest[host].kill()
        story.hosts.remove(host)
    story.forest.run(700.0)
    story.start(NEW)
    story.until("done")
    story.lowest = 400
    story.hosts += away
    for host in away:
        story.forest[host].start()
    story.forest.run(120.0)
    assert story.all_run(NEW) and story.lowest >= 300 and not story.rollout()["slots"]


@pytest.mark.promise(9)
def test_capacity_that_is_lost_meanwhile_is_waited_for() -> None:
    story = Story()
    story.start(NEW)
    story.reach(story.out(), "verifying")
    victim = next(h for h in story.hosts if story.agent(h)["phase"] in ("queued", "prepared"))
    story.builds(OLD, Build(healthy=False), victim)
    story.broken.add(victim)
    story.forest.run(60.0)
    others = [h for h in story.hosts if h != victim]
    assert sum(bool(story.serves(host)) for host in others) >= 3 or story.lowest >= 300
    story.builds(OLD, Build(), victim)
    story.broken.clear()
    story.until("done")
    assert story.all_run(NEW)


def test_orders_that_would_have_no_effect_say_why() -> None:
    story = Story()
    assert story.order("start", version="9.9.9").startswith("there is no release catalog-9.9.9")
    assert "what all nodes have" in story.start(OLD)
    for verb in ("pause", "resume", "abort", "promote", "adopt"):
        assert story.order(verb) == "no rollout of catalog is in progress"
    assert "no finished rollout" in story.order("undo"), "the first one has nothing before it"
    body = json.dumps({"service": "other", "version": "1.0"}).encode()
    story.forest["edge-1"].inbox.append(ev.ReleasePut("other-1.0", body))
    story.forest.run(1.0)
    order = ev.RolloutOrder("other", "start", "operator-a", version="1.0")
    assert "no node runs other" in story.forest["edge-1"].balancer.view.rollout_objection(order)
    assert f"{TARGET}/other" not in story.forest["edge-1"].balancer._state.policies.docs  # pyright: ignore[reportPrivateUsage]


def test_a_refusal_because_another_rollout_has_a_node_out_does_not_begin_the_cut_over() -> None:
    """Only the lack of capacity ends the batches of versions that do not run side by side."""
    story = Story(ONE, ALONE)
    other = replace(ALONE, service="pricing", routes=("pricing.example/*",), port=9000)
    both, *_ = story.hosts  # on the others no agent waits for a slot of the other service, so they ask for this one
    story.forest[both].roles = (ALONE, other)
    story.forest[both].restart()
    story.forest.run(20.0)
    for version in ("1.0", "1.1"):
        body = json.dumps({"service": "pricing", "version": version}).encode()
        story.forest["edge-1"].inbox.append(ev.ReleasePut(f"pricing-{version}", body))
        story.forest.run(0.5)
        slow = replace(SPEC, soak_s=60.0 if version == "1.1" else 1.0, progress_s=600.0, accept_gap=True)
        story.forest["edge-1"].inbox.append(ev.RolloutOrder("pricing", "start", "operator-a", version, slow))
        story.forest.run(60.0 if version == "1.0" else 20.0)
    pricing = story.forest["edge-1"].balancer.view.rollout("pricing")
    assert pricing is not None and len(pricing["slots"]) == 1, pricing
    assert story.start(BIG, replace(SPEC, accept_gap=True)) == ""
    story.forest.run(20.0)
    held = story.forest["edge-1"].balancer._rollouts.held("catalog")  # pyright: ignore[reportPrivateUsage]
    assert "out already" in held.why and not held.short
    assert story.rollout()["state"] == "rolling" and story.lowest == 400


@pytest.mark.promise(9)
@TREES
@pytest.mark.parametrize("role", [WEB, ALONE], ids=["side-by-side", "alone"])
def test_a_failed_node_does_not_keep_the_others_from_an_incompatible_version(
    tree: dict[str, tuple[str, ...]], role: RoleService
) -> None:
    """It cannot serve the old version any more. Until the next rollout it serves nothing."""
    story = Story(tree, role)
    story.builds(BIG, Build(starts="program"), "host-3")
    spec = replace(SPEC, failures_max=1, accept_gap=not role.side_by_side)
    assert story.start(BIG, spec) == ""
    story.until("done")
    story.forest.run(20.0)
    [failed] = story.rollout()["failed"]
    assert failed == "host-3" and story.serves("host-3") == set()
    assert all(story.serves(host) == {BIG} for host in story.hosts if host != failed)
    assert story.agent("host-3")["phase"] == "failed" and story.forest["host-3"].programs.versions() == {}
    assert story.order("undo") == ""
    story.until("done")
    assert story.all_run(OLD)


# ---------------------------------------------------------------------- the tree of a plan


NO_RACK: list[str] = []


@pytest.mark.parametrize(
    ("tree", "groups"),
    [
        (ONE, [(NO_RACK, [host], 1, 100) for host in HOSTS]),
        (RACKS, [(["rack-1", "rack-2"], list(HOSTS), 4, 400)]),
        (
            {"edge-1": (), "r-1": ("edge-1",), "r-2": ("edge-1",), "host-1": ("r-1",), "host-2": ("r-2",)},
            [(["r-1"], ["host-1"], 1, 100), (["r-2"], ["host-2"], 1, 100)],
        ),
    ],
    ids=["children", "shared racks", "racks"],
)
def test_a_plan_has_the_tree_as_far_as_the_root_knows_it(tree: dict[str, tuple[str, ...]], groups: list[Any]) -> None:
    story = Story(tree)
    plan = story.forest["edge-1"].balancer.view.rollout_plan(ev.RolloutOrder("catalog", "start", "operator-a", NEW))
    found = plan["tree"]
    assert [(each["parents"], each["hosts"], each["nodes"], each["capacity"]) for each in found["groups"]] == groups
    assert (found["root"], found["roots"], found["routes"]) == ("edge-1", story.roots, [ROUTE])
    assert (
        found["side_by_side"]
        and not Story(ONE, ALONE)
        .forest["edge-1"]
        .balancer.view.rollout_plan(ev.RolloutOrder("catalog", "start", "operator-a", NEW))["tree"]["side_by_side"]
    )


# ---------------------------------------------------------------------- what is said, and who is left


def test_a_node_that_failed_gets_the_version_by_another_start_of_it() -> None:
    story = Story()
    story.builds(NEW, Build(starts="program"), "host-3")
    assert story.start(NEW, replace(SPEC, failures_max=1)) == ""
    story.until("done")
    story.forest.run(10.0)
    assert story.serves("host-3") == {OLD}
    story.builds(NEW, Build(), "host-3")
    assert story.order("start", version=NEW) == ""
    assert any("for the nodes left: host-3" in note.text for note in story.forest["edge-1"].notes)
    story.until("done")
    assert story.all_run(NEW) and story.lowest >= 300
    assert "what all nodes have" in story.order("start", version=NEW)
    assert story.order("undo") == ""
    story.until("done")
    assert story.all_run(OLD), "an undo takes back the change of the version"


@pytest.mark.parametrize("phase", ["queued", "stopping", "starting", ""])
def test_another_start_for_the_nodes_left_changes_no_other_node(phase: str) -> None:
    """It fails there again, or is aborted in this phase: then the node keeps what it has."""
    story = Story()
    story.builds(NEW, Build(starts="program"), "host-3")
    story.start(NEW, replace(SPEC, failures_max=1))
    story.until("done")
    story.forest.run(10.0)
    story.forest["host-3"].programs.slow_s = 1.0
    others = [host for host in story.hosts if host != "host-3"]
    before = [len(story.forest[host].programs.versions()) for host in others]
    assert story.order("start", version=NEW) == ""
    if phase:
        story.reach("host-3", phase)
    else:
        story.until("halted")
    assert story.order("abort") == "" and story.rollout()["state"] == "undone"
    story.forest.run(60.0)
    assert all(story.serves(host) == ({OLD} if host == "host-3" else {NEW}) for host in story.hosts)
    calls = len(story.forest["host-3"].programs.calls)
    story.forest.run(60.0)
    assert len(story.forest["host-3"].programs.calls) == calls, "it is not tried on and on"
    assert before == [len(story.forest[host].programs.versions()) for host in others]


def test_a_pause_is_said_once_and_a_resume_keeps_the_start() -> None:
    story = Story()
    story.start(NEW)
    started = story.rollout()["started"]
    story.reach(story.out(), "verifying")
    assert story.order("pause") == ""
    story.forest.run(30.0)
    assert story.order("resume") == ""
    assert story.rollout()["started"] == started
    texts = [note.text for note in story.forest["edge-1"].notes if note.code == "rollout-state"]
    assert "catalog 1.0.1 -> 1.0.2, r-2: paused by operator-a" in texts
    story.until("done")


def test_nodes_that_wait_for_the_cut_over_do_not_say_that_they_run_the_version() -> None:
    story = Story()
    story.start(BIG)
    story.until("cutting-over")
    texts = [n.text for h in story.hosts for n in story.forest[h].notes if n.code == "node-updated" and BIG in n.text]
    assert len(texts) == 4 and all("waits for the cut-over" in text for text in texts)
    story.until("done")


# ---------------------------------------------------------------------- messages


@pytest.mark.promise(7)
def test_a_node_asks_for_its_slot_a_few_times() -> None:
    """A node requests its slot a few times only, also the one that gives it back: its request stays open until a slot is free."""
    story = Story({"edge-1": (), **{f"host-{n}": ("edge-1",) for n in range(1, 21)}})
    story.forest.watch.clear()
    asks: list[str] = []
    send = story.forest.send_up

    def count(child: Node, parent: str, message: Any) -> None:
        if isinstance(message, Ask):
            asks.append(child.name)
        send(child, parent, message)

    story.forest.send_up = count  # type: ignore[method-assign]
    began = story.forest.now
    story.start(NEW, replace(SPEC, soak_s=30.0, nodes_out_max="10%"))
    story.until("done", 2000.0)
    assert len(asks) <= 4 * len(story.hosts), "else it is more than six"
    assert story.forest.now - began < 12 * 40.0, "and no slot is free for long"
