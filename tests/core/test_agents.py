"""The agent of a node: the steps of a rollout, and what becomes of them when something fails in the middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sdlb.core import events as ev
from sdlb.core.messages import TARGET
from sdlb.model.role import Program, RoleService
from sdlb.model.rollout import (
    CUTTING_OVER,
    DONE,
    FAIL,
    GIVE_BACK,
    HALTED,
    HOLDING,
    PAUSED,
    PREPARING,
    ROLLING,
    TAKE,
    UNDOING,
    UNDONE,
    Rollout,
    RolloutSpec,
    SlotAnswer,
    SlotAsk,
    Target,
    target_body,
)
from tests.core.forest import ROUTE, Forest, interruptions
from tests.core.node import Node
from tests.core.programs import Build

OLD, NEW, BIG = "1.0.1", "1.0.2", "2.5.1"
WEB = RoleService("web", "catalog", Program(("./catalog",)), (ROUTE,), port=8000)
ALONE = replace(WEB, side_by_side=False)
SPEC = RolloutSpec(soak_s=3.0, progress_s=60.0, drain_s=5.0)


class Story:
    """A root and a host that runs catalog-1.0.1, with an owner that grants what `grants` says."""

    def __init__(self, role: RoleService = WEB, *, settled: str = OLD, more: tuple[RoleService, ...] = ()) -> None:
        self.forest = Forest({"edge": (), "host": ("edge",)})
        self.host.roles = (role, *more)
        self.host.asked = self._answer
        self.host.restart()
        self.grants = True
        self.away = False
        self.asks: list[SlotAsk] = []
        self.slots: set[tuple[str, str]] = set()  # (service, node)
        self.target = Target("catalog", settled)
        if settled:
            self.publish()
            self.forest.run(8.0)
            assert self.serves() == {settled}

    @property
    def host(self) -> Node:
        return self.forest["host"]

    def _answer(self, ask: SlotAsk) -> SlotAnswer | None:
        if self.away:
            return None
        self.asks.append(ask)
        place = (ask.service, ask.node)
        if ask.what != TAKE:
            self.slots.discard(place)
            return SlotAnswer(True)
        if not self.grants:
            return SlotAnswer(False, 1.0, "the floor is 100")
        self.slots.add(place)
        return SlotAnswer(True)

    # ------------------------------------------------------------------ the owner

    def publish(self, target: Target | None = None) -> None:
        self.target = target or self.target
        root = self.forest["edge"]
        state = root.balancer._agents._state  # pyright: ignore[reportPrivateUsage]
        state.policies.put_doc(TARGET, self.target.service, target_body(self.target))
        root.inbox.append(ev.Tick())

    def rollout(self, to: str = NEW, state: str = ROLLING, **more: object) -> None:
        incompatible = to == BIG
        fields: dict[str, object] = {"cursor": 1.0, "spec": SPEC, "incompatible": incompatible, **more}
        before = str(fields.pop("before", self.target.settled))
        self.publish(replace(self.target, rollout=Rollout("r-1", to, before, state, **fields)))  # type: ignore[arg-type]

    def change(self, **fields: object) -> None:
        assert self.target.rollout is not None
        self.publish(replace(self.target, rollout=replace(self.target.rollout, **fields)))  # type: ignore[arg-type]

    def end(self, state: str = DONE) -> None:
        assert self.target.rollout is not None
        settled = self.target.rollout.to if state == DONE else self.target.settled
        self.publish(replace(self.target, settled=settled, rollout=replace(self.target.rollout, state=state)))

    # ------------------------------------------------------------------ what is seen

    def run(self, seconds: float) -> None:
        self.forest.run(seconds)

    def until(self, phase: str, seconds: float = 120.0) -> None:
        end = self.forest.now + seconds
        while self.phase() != phase:
            assert self.forest.now < end, f"{self.phase()} instead of {phase}: {self.agent()}"
            if not self.forest.step():
                self.forest.run(0.25)

    def agent(self) -> dict[str, object]:
        return self.host.balancer.view.agent()[0]

    def phase(self) -> str:
        return str(self.agent()["phase"])

    def serves(self) -> set[str]:
        """Versions to which the engine of the host forwards."""
        return {endpoint.claim.version for endpoint in self.host.engine.endpoints}

    def runs(self) -> dict[str, str]:
        return self.host.programs.versions()

    def report(self):
        return self.host.balancer._reports.total("catalog")  # pyright: ignore[reportPrivateUsage]

    def whats(self) -> list[str]:
        return [ask.what for ask in self.asks]


# ---------------------------------------------------------------------- in place


def test_a_node_runs_the_settled_version_and_registers_it() -> None:
    story = Story()
    assert story.runs() == {"a": OLD} and story.asks == []
    assert story.agent() | {"since": 0, "log": []} == {
        "role": "web",
        "service": "catalog",
        "version": OLD,
        "phase": "current",
        "rollout": "",
        "target": OLD,
        "slots": {
            "a": {"version": OLD, "status": "running", "pid": 1, "port": 8000},
            "b": {"version": "", "status": "absent", "pid": 0, "port": 0},
        },
        "since": 0,
        "detail": "",
        "log": [],
    }


def test_in_place_the_old_version_is_drained_and_stopped_before_the_new_one_starts() -> None:
    story = Story()
    story.rollout()
    story.until("done")
    assert [call for call in story.host.programs.calls if "state" not in call] == [
        f"prepare a {OLD}",
        f"start a {OLD}",
        f"prepare b {NEW}",
        f"stop a {OLD}",
        f"start a {NEW}",
    ]
    assert story.whats() == [TAKE, GIVE_BACK] and story.asks[0].share == 100
    assert story.serves() == {NEW} and story.runs() == {"a": NEW}
    codes = [c for c in story.host.codes() if c in ("slot-granted", "node-updated", "instance-removed")]
    assert codes[-3:] == ["slot-granted", "instance-removed", "node-updated"]


def test_nothing_is_stopped_before_the_owner_grants_a_slot() -> None:
    story = Story()
    story.grants = False
    story.rollout()
    story.run(20.0)
    assert story.phase() == "queued" and story.serves() == {OLD} and len(story.asks) > 5
    assert story.agent()["detail"] == "the floor is 100"
    story.grants = True
    story.until("done")
    assert story.slots == set()


@pytest.mark.parametrize("state", [PREPARING, PAUSED, HALTED])
def test_no_step_begins_in_a_rollout_that_is_not_rolling(state: str) -> None:
    story = Story()
    story.rollout(state=state)
    story.run(20.0)
    assert story.asks == [] and story.runs() == {"a": OLD}
    assert story.phase() == ("current" if state == HALTED else "prepared")


def test_a_node_beyond_the_cursor_does_not_ask() -> None:
    story = Story()
    story.rollout(cursor=0.0)
    story.run(20.0)
    assert story.asks == [] and story.phase() == "prepared"


def test_a_new_version_has_to_be_healthy_for_the_soak_time() -> None:
    story = Story()
    story.rollout()
    story.until("verifying")
    story.run(2.5)
    assert story.phase() == "verifying" and story.serves() == {NEW}
    story.run(3.0)
    assert story.phase() == "done"


def test_what_a_node_reports_in_each_phase() -> None:
    story = Story()
    own = story.report()
    assert (own.nodes, own.ready, own.slots, own.counts) == (1, 100, (), {})
    story.rollout()
    story.until("draining")
    own = story.report()
    assert (own.nodes, own.ready, own.counts) == (1, 0, {"r-1 draining": 1})
    assert [(slot.node, slot.rollout, slot.phase, slot.share) for slot in own.slots] == [
        ("host", "r-1", "draining", 100)
    ]
    story.until("done")
    own = story.report()
    assert (own.ready, own.slots, own.counts) == (100, (), {"r-1 done": 1})
    assert story.forest["edge"].balancer._reports.total("catalog") == own  # pyright: ignore[reportPrivateUsage]


def test_an_instance_of_a_node_without_the_role_counts_as_capacity() -> None:
    story = Story()
    story.forest.put("edge", "catalog-edge", OLD)
    story.run(3.0)
    total = story.forest["edge"].balancer._reports.total("catalog")  # pyright: ignore[reportPrivateUsage]
    assert (total.nodes, total.ready) == (1, 200)


# ---------------------------------------------------------------------- side by side


def beside(to: str = NEW) -> Story:
    story = Story()
    story.rollout(to, spec=replace(SPEC, side_by_side="always"))
    return story


def test_a_compatible_version_starts_beside_the_old_one_which_then_drains() -> None:
    story = beside()
    story.until("verifying")
    assert story.runs() == {"a": OLD, "b": NEW} and OLD in story.serves()
    story.until("done")
    assert story.runs() == {"b": NEW} and story.serves() == {NEW} and story.whats() == [TAKE, GIVE_BACK]


def test_an_incompatible_version_waits_beside_the_old_one_until_the_cut_over() -> None:
    story = beside(BIG)
    story.until("ready")
    story.run(10.0)
    assert story.phase() == "ready" and story.whats() == [TAKE, GIVE_BACK]
    assert story.runs() == {"a": OLD, "b": BIG} and story.serves() == {OLD}
    assert story.report().waiting == {BIG: 100} and story.report().ready == 100
    story.change(state=CUTTING_OVER)
    story.until("done")
    story.run(2.0)
    assert story.runs() == {"b": BIG} and story.serves() == {BIG} and story.whats() == [TAKE, GIVE_BACK]


def test_without_room_an_incompatible_version_waits_in_the_place_of_the_old_one() -> None:
    story = Story(ALONE)
    story.forest.put("edge", "catalog-edge", OLD)  # the version is active elsewhere
    story.rollout(BIG)
    story.until("ready")
    story.run(10.0)
    assert story.phase() == "ready" and story.runs() == {"a": BIG} and story.serves() == set()
    story.change(state=CUTTING_OVER)
    story.until("done")


def test_at_the_cut_over_a_node_with_the_old_version_needs_no_slot() -> None:
    story = Story(ALONE)
    story.grants = False
    story.rollout(BIG)
    story.run(10.0)
    story.change(state=CUTTING_OVER)
    story.until("done")
    assert story.runs() == {"a": BIG} and GIVE_BACK in story.whats()  # of the slot that it may have been granted


def test_without_room_a_compatible_version_always_takes_the_place_of_the_old_one() -> None:
    story = Story(ALONE)
    story.rollout(spec=replace(SPEC, side_by_side="always"))
    story.until("starting")
    assert OLD not in story.runs().values()
    story.until("done")


# ---------------------------------------------------------------------- failures


def failing(build: Build, to: str = NEW, **spec: object) -> Story:
    story = Story()
    story.host.programs.builds[to] = build
    story.rollout(to, spec=replace(SPEC, **spec))  # type: ignore[arg-type]
    return story


def reverted(story: Story, why: str) -> None:
    story.until("failed")
    assert story.runs() == {"a": OLD} and story.serves() == {OLD}
    assert story.whats()[-2:] == [TAKE, FAIL] and story.slots == set() and why in story.asks[-1].detail
    codes = [code for code in story.host.codes() if code in ("node-failed", "node-reverted", "node-updated")]
    assert codes[-2:] == ["node-failed", "node-reverted"]
    assert why in story.report().failed["host"] and story.report().counts == {"r-1 failed": 1}
    asked = len(story.asks)
    story.run(30.0)
    assert story.phase() == "failed" and len(story.asks) == asked, "it is not tried again"


def test_a_version_that_cannot_be_fetched_fails_before_anything_stops() -> None:
    story = failing(Build(prepares="artifact"))
    story.until("failed")
    assert (
        story.asks == []
        and story.runs() == {"a": OLD}
        and story.report().failed == {"host": f"{NEW} cannot be fetched"}
    )


def test_fetching_is_retried_while_that_may_help() -> None:
    story = failing(Build(prepares="machine", retry=True))
    story.run(20.0)
    assert story.phase() == "fetching" and 3 < story.host.programs.calls.count(f"prepare b {NEW}") < 8
    story.host.programs.builds.clear()
    story.until("done")


def test_a_node_goes_back_when_the_new_version_does_not_start() -> None:
    story = failing(Build(starts="program"))
    reverted(story, f"{NEW} does not start")
    assert story.asks[-1].detail.splitlines()[1:] == [f"line {n}" for n in range(10, 30)]


def test_a_start_is_retried_while_that_may_help_and_not_longer() -> None:
    story = failing(Build(starts="machine", retry=True), progress_s=20.0)
    reverted(story, f"{NEW} does not start")
    assert 3 < story.host.programs.calls.count(f"start a {NEW}") < 8


def test_a_node_goes_back_when_the_new_version_does_not_become_healthy() -> None:
    story = failing(Build(healthy=False), progress_s=20.0)
    story.until("verifying")
    story.run(18.0)
    assert story.phase() == "verifying"
    reverted(story, "not healthy within 20 s")


def test_side_by_side_a_failure_leaves_the_old_version_untouched() -> None:
    story = failing(Build(healthy=False), side_by_side="always", progress_s=10.0)
    started = story.host.programs.calls.count(f"start a {OLD}")
    story.forest.watch.append(lambda: _assert(OLD in story.serves()))
    story.until("failed")
    assert story.runs() == {"a": OLD} and story.host.programs.calls.count(f"start a {OLD}") == started
    assert story.whats() == [TAKE, FAIL]


def _assert(holds: bool) -> None:
    assert holds


def flap(story: Story) -> None:
    story.host.programs.builds[NEW] = Build(healthy=False)
    story.run(1.0)
    story.host.programs.builds[NEW] = Build()
    story.run(1.0)


def test_an_interruption_starts_the_clock_over_and_the_third_one_is_a_failure() -> None:
    story = Story()
    story.rollout()
    story.until("verifying")
    for _ in range(2):
        story.run(1.5)
        flap(story)
    assert story.phase() == "verifying"
    story.host.programs.builds[NEW] = Build(healthy=False)
    story.run(1.0)
    reverted(story, "it did not stay healthy")


def test_after_two_interruptions_a_whole_soak_time_is_enough() -> None:
    story = Story()
    story.rollout()
    story.until("verifying")
    for _ in range(2):
        story.run(1.5)
        flap(story)
    story.until("done", 4.0)


def test_a_program_that_exits_again_and_again_before_it_is_healthy_is_a_failure() -> None:
    story = failing(Build(healthy=False))
    story.until("verifying")
    for _ in range(3):
        story.host.programs.die(NEW)
        story.run(8.0)
    story.until("failed", 20.0)


def test_a_program_that_dies_later_is_started_again_with_growing_pauses() -> None:
    story = Story()
    for _ in range(3):
        story.host.programs.die(OLD)
        story.run(1.0)
        assert story.serves() == set()
        story.run(10.0)
        assert story.serves() == {OLD}
    assert story.phase() == "current" and story.host.programs.calls.count(f"start a {OLD}") == 4


def test_a_stop_that_fails_is_repeated_with_growing_pauses_and_nothing_starts_there() -> None:
    story = Story(ALONE)
    story.host.programs.stops = "machine"
    story.rollout()
    story.until("stopping")
    story.run(60.0)
    assert story.runs() == {"a": OLD} and 4 < story.host.programs.calls.count(f"stop a {OLD}") < 10
    story.host.programs.stops = ""
    story.until("done")
    assert story.runs() == {"a": NEW}


def test_a_stop_that_fails_does_not_keep_a_fix_out_of_the_other_slot() -> None:
    story = Story()
    story.host.programs.stops = "machine"
    story.rollout()
    story.until("done")
    assert story.runs() == {"a": OLD, "b": NEW} and story.serves() == {NEW}
    story.host.programs.stops = ""
    story.run(60.0)
    assert story.runs() == {"b": NEW} and story.phase() == "done"


def test_a_driver_that_never_answers_counts_as_failed() -> None:
    story = Story()
    story.host.programs.hangs.add(f"start {NEW}")
    story.rollout()
    story.until("failed", 300.0)
    assert story.runs() == {"a": OLD} and story.serves() == {OLD}


# ---------------------------------------------------------------------- first deployments, new nodes, nodes that were away


def test_the_first_deployment_starts_with_a_slot() -> None:
    story = Story(settled="")
    story.run(5.0)
    assert story.runs() == {} and story.phase() == "current"
    story.rollout(before="")
    story.until("done")
    assert story.runs() == {"a": NEW} and story.whats() == [TAKE, GIVE_BACK] and story.asks[0].share == 0


def test_a_first_deployment_that_fails_leaves_nothing() -> None:
    story = Story(settled="")
    story.host.programs.builds[NEW] = Build(starts="program")
    story.rollout(before="")
    story.until("failed")
    assert story.runs() == {} and story.whats() == [TAKE, FAIL]


def test_a_first_deployment_that_is_aborted_leaves_nothing() -> None:
    story = Story(settled="")
    story.rollout(before="")
    story.until("done")
    story.change(state=UNDOING)
    story.until("current")
    assert story.runs() == {} and story.serves() == set()
    story.end(UNDONE)
    story.run(5.0)
    assert story.runs() == {} and story.phase() == "current"


def new_node(state: str) -> Story:
    """It joins while a rollout is in progress."""
    story = Story(settled="")
    story.publish(replace(story.target, settled=OLD))
    story.rollout(state=state, cursor=0.0)
    return story


@pytest.mark.parametrize("state", [PREPARING, ROLLING, PAUSED, HALTED, UNDOING])
def test_a_node_without_any_version_gets_the_old_one_without_a_slot(state: str) -> None:
    story = new_node(state)
    story.run(10.0)
    assert story.runs() == {"a": OLD} and story.asks == []


def test_a_new_node_takes_part_in_the_rollout_afterwards() -> None:
    story = new_node(ROLLING)
    story.run(10.0)
    story.change(cursor=1.0)
    story.until("done")
    assert story.runs() == {"a": NEW} and story.whats() == [TAKE, GIVE_BACK]


def away(to: str, role: RoleService = WEB) -> Story:
    """Its control was down during a whole rollout."""
    story = Story(role)
    story.host.kill()
    story.rollout(to, DONE)
    story.publish(replace(story.target, settled=to))
    return story


def test_a_node_that_was_away_and_serves_nothing_updates_without_a_slot() -> None:
    story = away(BIG, ALONE)
    story.host.programs.builds[OLD] = Build(healthy=False)
    story.host.start()
    story.until("done")
    assert story.runs() == {"a": BIG} and story.asks == []


def test_a_node_that_was_away_and_serves_updates_beside_what_serves() -> None:
    story = away(NEW)
    story.forest.watch.append(lambda: _assert(bool(story.serves())))
    story.host.start()
    story.until("done")
    assert story.runs() == {"b": NEW} and story.asks == []


def test_a_node_that_was_away_and_serves_without_room_asks_for_a_slot() -> None:
    story = away(NEW, ALONE)
    story.grants = False
    story.host.start()
    story.run(20.0)
    assert story.serves() == {OLD} and story.phase() == "queued"
    story.grants = True
    story.until("done")


# ---------------------------------------------------------------------- the owner, other services


def test_a_node_whose_owner_is_away_ends_its_step_and_begins_none() -> None:
    story = Story()
    story.rollout()
    story.until("starting")
    story.away = True
    story.run(30.0)
    assert story.phase() == "verifying" and story.serves() == {NEW} and story.report().slots[0].phase == "verifying"
    story.away = False
    story.run(10.0)
    assert story.phase() == "done" and story.whats() == [TAKE, GIVE_BACK]


def test_a_slot_of_a_rollout_that_has_ended_is_returned_though_nobody_answers() -> None:
    story = Story()
    story.rollout()
    story.until("starting")
    story.away = True
    story.run(30.0)
    story.end()
    story.run(10.0)
    assert story.phase() == "done" and story.report().slots == ()


PRICING = replace(WEB, service="pricing", routes=("example.com/pricing*",), port=8001)


def two_services() -> Story:
    story = Story(more=(PRICING,))
    catalog = story.target
    story.publish(Target("pricing", OLD))
    story.run(8.0)
    story.rollout()
    story.target = catalog
    story.rollout()
    return story


def test_a_node_has_one_slot_over_all_services() -> None:
    story = two_services()
    story.forest.watch.append(lambda: _assert(len(story.slots) <= 1))
    story.run(40.0)
    assert [entry["phase"] for entry in story.host.balancer.view.agent()] == ["done", "done"]
    assert story.whats() == [TAKE, GIVE_BACK] * 2


def test_a_service_whose_owner_is_away_does_not_keep_another_one_waiting() -> None:
    story = two_services()
    answer = story.host.asked
    assert answer is not None
    story.host.asked = lambda ask: None if ask.service == "catalog" else answer(ask)
    story.run(40.0)
    assert [entry["phase"] for entry in story.host.balancer.view.agent()] == ["queued", "done"]


# ---------------------------------------------------------------------- abort, supersede, pause

PHASES = ["fetching", "prepared", "queued", "draining", "stopping", "starting", "verifying", "done"]


def reach(story: Story, phase: str) -> None:
    """Until the node is in this phase, where it stays for a moment."""
    programs = story.host.programs
    if phase == "draining":
        keys = [key for key in story.host.engine.endpoints if key.claim.version == OLD]
        story.host.engine.in_flight[keys[0]] = 1
    else:
        programs.slow_s = 1.0
    if phase == "prepared":
        story.change(cursor=0.0)
    story.grants = phase != "queued"
    story.until(phase)
    story.grants = True


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", ["never", "always"])
def test_an_abort_leads_back_from_each_phase(mode: str, phase: str) -> None:
    story = Story()
    story.rollout(spec=replace(SPEC, side_by_side=mode))
    reach(story, phase)
    story.change(state=UNDOING, cursor=1.0)
    story.host.engine.in_flight.clear()
    story.host.inbox.extend(story.host.engine.drained())
    story.run(40.0)
    assert story.phase() == "current" and list(story.runs().values()) == [OLD] and story.serves() == {OLD}
    assert story.slots == set() and story.report().slots == ()
    assert "node-failed" not in story.host.codes()


@pytest.mark.parametrize("phase", ["verifying", "ready", "draining", "stopping", "done"])
def test_an_abort_of_an_incompatible_version_leads_back_from_each_phase(phase: str) -> None:
    story = Story()
    story.host.programs.slow_s = 1.0
    story.rollout(BIG)
    if phase in ("draining", "stopping", "done"):
        story.until("ready")
        story.change(state=CUTTING_OVER)
    story.until(phase)
    story.change(state=UNDOING, cursor=1.0)
    story.run(60.0)
    assert story.phase() == "current" and list(story.runs().values()) == [OLD] and story.serves() == {OLD}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("state", [PAUSED, HALTED])
def test_a_step_that_has_begun_ends_although_the_rollout_is_stopped(state: str, phase: str) -> None:
    story = Story()
    story.rollout()
    reach(story, phase)
    story.change(state=state)
    story.host.engine.in_flight.clear()
    story.host.inbox.extend(story.host.engine.drained())
    story.run(40.0)
    begun = phase in (*HOLDING, "done")
    assert story.runs() == {"a": NEW if begun else OLD} and story.slots == set()
    assert story.phase() == ("done" if begun else "prepared")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("mode", ["never", "always"])
def test_another_rollout_takes_over_in_each_phase(mode: str, phase: str) -> None:
    story = Story()
    story.rollout(spec=replace(SPEC, side_by_side=mode))
    reach(story, phase)
    story.change(id="r-2", to="1.0.3", term=2, cursor=1.0)
    story.host.engine.in_flight.clear()
    story.host.inbox.extend(story.host.engine.drained())
    story.run(80.0)
    assert story.phase() == "done" and list(story.runs().values()) == ["1.0.3"] and story.serves() == {"1.0.3"}
    assert story.slots == set() and story.report().counts == {"r-2 done": 1}


# ---------------------------------------------------------------------- killed at each step


def killed(
    build: Callable[[], Story], act: Callable[[Story], None], *, versions: set[str], serves: set[str] | None = None
) -> None:
    """Wherever control is killed, or the machine loses its power, the end is the same."""
    for harm in (Node.restart, _reboot):
        made: dict[Forest, Story] = {}

        def story(made: dict[Forest, Story] = made) -> Forest:
            each = build()
            made[each.forest] = each
            return each.forest

        def start(forest: Forest, made: dict[Forest, Story] = made) -> None:
            act(made[forest])

        for name, forest in interruptions(story, start, ["host"], harm):
            each = made[forest]
            forest.run(60.0)
            assert set(each.runs().values()) == versions, f"{name}: {each.agent()}"
            if serves is None or harm is Node.restart:  # without any program, the new version may open first
                assert each.serves() == (serves or versions), f"{name}: {each.agent()}"
            assert each.slots == set() and each.report().slots == (), f"{name}: {each.agent()}"


def _reboot(node: Node) -> None:
    node.reboot()
    node.programs.slots.clear()
    node.programs.waiting.clear()


def test_killed_anywhere_in_place() -> None:
    killed(Story, lambda story: story.rollout(), versions={NEW})


def test_killed_anywhere_side_by_side() -> None:
    def act(story: Story) -> None:
        story.rollout(spec=replace(SPEC, side_by_side="always"))

    killed(Story, act, versions={NEW})


def test_killed_anywhere_before_a_cut_over() -> None:
    killed(Story, lambda story: story.rollout(BIG), versions={OLD, BIG}, serves={OLD})


def ready() -> Story:
    story = Story()
    story.rollout(BIG)
    story.until("ready")
    return story


def test_killed_anywhere_in_a_cut_over() -> None:
    killed(ready, lambda story: story.change(state=CUTTING_OVER), versions={BIG})


def updated() -> Story:
    story = Story()
    story.rollout()
    story.until("done")
    return story


def test_killed_anywhere_in_an_abort() -> None:
    killed(updated, lambda story: story.change(state=UNDOING), versions={OLD})
