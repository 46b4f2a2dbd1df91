"""The agent of a node: the steps of a rollout, first deployments, nodes that were away, and slots."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from sdlb.core.agent_saved import record_from, record_to
from sdlb.core.agent_steps import Place, Record
from sdlb.model.role import RoleService
from sdlb.model.rollout import (
    CUTTING_OVER,
    DONE,
    FAIL,
    GIVE_BACK,
    HALTED,
    PAUSED,
    PREPARING,
    ROLLING,
    TAKE,
    UNDOING,
    UNDONE,
    UNUSED,
    SlotAnswer,
    SlotAsk,
    Target,
)
from tests.core.agent_story import ALONE, BIG, NEW, OLD, SPEC, WEB, Story
from tests.core.node import Answer
from tests.core.programs import Build

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
    story.until("verifying")
    story.run(1.0)
    assert story.serves() == {NEW} and story.report().ready == 0, "until the slot is given back"
    story.until("done")
    story.run(2.5)  # counts alone are sent with a heartbeat
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
    assert story.runs() == {"a": BIG} and story.whats()[-1] != TAKE  # of the slot that it may have been granted


def test_without_room_a_compatible_version_always_takes_the_place_of_the_old_one() -> None:
    story = Story(ALONE)
    story.rollout(spec=replace(SPEC, side_by_side="always"))
    story.until("starting")
    assert OLD not in story.runs().values()
    story.until("done")


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
    story.always(lambda: bool(story.serves()))
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
    story.always(lambda: len(story.slots) <= 1)
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


def test_a_slot_is_given_back_under_the_term_of_the_present_owner() -> None:
    story = Story()
    story.rollout()
    story.until("starting")
    story.change(term=2, owner_id="id-other")
    story.until("done")
    assert [(ask.what, ask.term) for ask in story.asks] == [(TAKE, 1), (GIVE_BACK, 2)]


def test_a_slot_that_is_granted_too_late_is_given_back() -> None:
    story = Story()
    forwarder = story.host.balancer._forwarder  # pyright: ignore[reportPrivateUsage]
    asked: list[SlotAsk] = []
    answers, forwarder.ask_owner = forwarder.ask_owner, lambda service, ask, now: asked.append(ask)
    story.rollout()
    story.run(5.0)
    story.change(state=PAUSED)
    story.run(5.0)
    assert [ask.what for ask in asked] == [TAKE]
    forwarder.ask_owner = answers
    story.host.inbox.append(Answer("catalog", SlotAnswer(True)))  # type: ignore[arg-type]
    story.run(20.0)
    assert story.runs() == {"a": OLD} and story.whats() == [UNUSED] and story.phase() == "prepared"


def test_with_a_full_disk_no_step_begins() -> None:
    story = Story()
    story.host.stick()
    story.forest.put("host", "another", OLD, owner="someone")
    story.rollout()
    story.run(10.0)
    assert story.runs() == {"a": OLD} and story.asks == []
    story.host.unstick()
    story.until("done")


def test_the_record_of_a_newer_release_is_read_without_what_is_not_known() -> None:
    record = Record(phase="queued", log=("a",), places={"a": Place("run", OLD, 8000), "b": Place()})
    data = record_to(record)
    assert record_from({**data, "new": "x", "more": 1, "places": {**data["places"], "c": {}}}) == replace(
        record, new="x"
    )  # type: ignore[dict-item]
    assert record_from({"v": 1}) == Record()
