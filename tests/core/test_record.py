"""The record of a rollout: what the owner and the other roots write down, and that nothing interrupts or changes the chain."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.core import events as ev
from sdlb.core.records import ENTRIES_MAX, TOTAL_MAX, Records
from sdlb.core.settings import Settings
from sdlb.core.state import State
from sdlb.model.canary import Analysis, Step
from sdlb.model.record import broken
from tests.core.forest import key_of
from tests.core.node import Node
from tests.core.programs import Build
from tests.core.test_rollouts import BIG, NEW, OLD, RACKS, SPEC, Story

GATE = {"name": "sign-off", "kind": "approval", "by": ["operator-a"]}


def record(story: Story, which: str = "catalog", at: str = "edge-1") -> list[dict[str, Any]]:
    """Its entries, which are a whole chain."""
    (found,) = story.forest[at].balancer.view.record(which)
    assert broken(found["entries"]) == (0, ""), found["entries"]
    assert found["number"] == len(found["entries"])
    return found["entries"]


def kinds(entries: list[dict[str, Any]], *which: str) -> list[str]:
    return [each["kind"] for each in entries if not which or each["kind"] in which]


def of(entries: list[dict[str, Any]], *which: str) -> list[dict[str, Any]]:
    return [each for each in entries if each["kind"] in which]


def states(entries: list[dict[str, Any]]) -> list[str]:
    return [each["state"] for each in of(entries, "started", "followed", "state")]


# ---------------------------------------------------------------------- what is in it


def test_the_owner_records_who_what_when_slots_and_the_least_capacity() -> None:
    story = Story(RACKS)
    story.start(NEW)
    began = story.forest.now
    story.until("done")
    story.forest.run(1.0)
    entries = record(story, story.rollout()["id"])
    first, last = entries[0], entries[-1]
    assert (first["kind"], first["by"], first["before"], first["to"]) == ("started", "operator-a", OLD, NEW)
    assert (first["owner"], first["root"], first["settings"]["soak_s"]) == ("edge-1", "edge-1", 3)
    assert abs(first["at_ms"] / 1000 - began) < 1.0
    assert states(entries) == ["preparing", "rolling", "done"]
    taken, back = of(entries, "slot-granted"), of(entries, "slot-returned")
    assert sorted(each["node"] for each in taken) == sorted(each["node"] for each in back) == story.hosts
    assert all((each["share"], each["left"], each["floor"]) == (100, 300, 300) for each in taken)
    assert {each["outcome"] for each in back} == {"done"}
    assert (last["kind"], last["state"], last["least"], last["floor"]) == ("ended", "done", 300, 300)
    assert (last["slots_granted"], last["slots_returned"], last["gaps"]) == (4, 4, 0)
    assert last["took_ms"] == entries[-2]["at_ms"] - first["at_ms"]
    assert [n.text for n in story.forest["edge-1"].notes if n.code == "rollout-recorded"][-1].endswith(
        story.forest["edge-1"].balancer.view.record("catalog")[0]["head"]
    )


def test_digests_of_both_versions_are_in_it() -> None:
    story = Story()
    for version, sha in ((NEW, "b" * 64), (OLD, "a" * 64)):
        body = f'{{"service":"catalog","version":"{version}","artifact":{{"any":{{"url":"/c","sha256":"{sha}"}}}}}}'
        story.forest["edge-1"].inbox.append(ev.ReleasePut(f"catalog-{version}", body.encode(), "operator-a"))
    story.forest.run(0.5)
    story.order("start", version=NEW)
    assert record(story)[0]["digests"] == {OLD: {"any": "a" * 64}, NEW: {"any": "b" * 64}}


def test_orders_are_recorded_with_their_names_and_what_failed_with_its_reason() -> None:
    story = Story()
    story.builds(NEW, Build(starts="program"))
    story.start(NEW)
    story.until("halted")
    story.order("abort")
    story.until("undone")
    story.forest.run(1.0)
    entries = record(story)
    assert states(entries) == ["preparing", "rolling", "halted", "undoing", "undone"]
    (order,) = of(entries, "order")
    assert (order["verb"], order["by"]) == ("abort", "operator-a")
    (back,) = of(entries, "slot-returned")
    assert back["outcome"] == "failed" and back["detail"]
    assert kinds(entries)[-1] == "ended"


def test_a_rollout_that_is_superseded_ends_its_record() -> None:
    story = Story()
    story.start(NEW)
    story.until("rolling")
    old = story.rollout()["id"]
    assert story.start(BIG, supersede=True) == ""
    assert [each["state"] for each in of(record(story, old), "ended")] == ["superseded"]
    assert record(story)[0]["to"] == BIG


def test_capacity_below_the_floor_is_recorded_when_it_falls_and_when_it_is_back() -> None:
    story = Story()
    story.start(NEW)
    story.reach(story.out(), "verifying")
    away = next(
        host for host in story.hosts if not story.rollout()["slots"] or host != story.rollout()["slots"][0]["node"]
    )
    story.broken.add(away)
    story.forest[away].inbox.append(ev.InstanceHealth(f"catalog-{OLD}.{away}.web-a", False, "refused"))
    story.forest.run(1.0)
    story.forest[away].inbox.append(ev.InstanceHealth(f"catalog-{OLD}.{away}.web-a", True))
    story.until("done")
    story.forest.run(1.0)
    entries = record(story)
    below, above = of(entries, "below-floor", "above-floor")
    assert (below["ready"], below["floor"], above["ready"] >= 300) == (200, 300, True)
    assert entries[-1]["least"] == 200


# ---------------------------------------------------------------------- cut-overs


@pytest.mark.parametrize("cut_over", ["stopped", "flip"])
def test_each_root_records_the_cut_over_as_it_sees_it_and_the_gap(cut_over: str) -> None:
    """A request in flight keeps the old version closing for three seconds."""
    story = Story(RACKS, cut_over=cut_over, park={"timeout_s": 60.0})
    story.start(BIG)
    busy = {
        root: next(e for e in story.forest[root].engine.endpoints if e.claim == key_of(OLD)) for root in story.roots
    }
    for root, endpoint in busy.items():
        story.forest[root].engine.in_flight[endpoint] = 1
    closed: dict[str, float] = {}
    end = story.forest.now + 120.0
    while len(closed) < 2:
        story.step()
        assert story.forest.now < end
        for root in story.roots:
            if root not in closed and not story.forest[root].engine.endpoints:
                closed[root] = story.forest.now
    story.forest.run(3.0)
    for root, endpoint in busy.items():
        story.forest[root].engine.in_flight.clear()
        story.forest[root].inbox.extend(story.forest[root].engine.drained())
        assert endpoint not in story.forest[root].engine.draining
    story.until("done")
    story.forest.run(5.0)
    for root in story.roots:
        entries = record(story, at=root)
        if cut_over == "flip":
            assert [each["phase"] for each in of(entries, "cut-over")][-2:] == ["closing", "opening"]
            acknowledged = [each["by"] for each in of(entries, "acknowledged") if each["what"] == "closing"]
            assert acknowledged == [[other for other in story.roots if other != root]]
        order = [(each["kind"], each.get("what", "")) for each in of(entries, "closed", "acknowledged", "opened")]
        names = {name for each in of(entries, "acknowledged") if each["what"] == "closed" for name in each["by"]}
        assert names == {"rack-1", "rack-2"}
        last_ack = max(place for place, each in enumerate(order) if each == ("acknowledged", "closed"))
        assert order.index(("closed", "")) < order.index(("opened", "")) and last_ack < order.index(("opened", ""))
        (opened,) = of(entries, "opened")
        assert 3_000 <= opened["gap_ms"] < 6_000 and opened["versions"] == [BIG]
        assert (entries[-1]["gap_ms"], entries[-1]["gaps"]) == (opened["gap_ms"], 1)
        assert abs(of(entries, "closed")[0]["at_ms"] / 1000 - closed[root]) < 1.0
    assert record(story)[-1]["least"] >= 300, "nothing is lost in the gap of a cut-over"


def test_a_gap_goes_on_while_control_restarts() -> None:
    story = Story({"edge-1": (), "host-1": ("edge-1",)})
    story.forest["host-1"].programs.slow_s = 4.0
    assert story.start(NEW, replace(SPEC, accept_gap=True)) == ""
    end = story.forest.now + 60.0
    while "closed" not in kinds(record(story)):
        story.step()
        assert story.forest.now < end
    closed = story.forest.now
    story.forest.run(3.0)
    story.forest["edge-1"].restart()
    while "opened" not in kinds(record(story)):
        story.step()
        assert story.forest.now < end
    (opened,) = of(record(story), "opened")
    assert abs(opened["gap_ms"] / 1000 - (story.forest.now - closed)) < 0.5 and opened["gap_ms"] > 3000


def test_gates_are_recorded_with_who_approved_which_digest() -> None:
    story = Story(gate=[GATE])
    story.start(BIG)
    story.forest.run(30.0)
    story.forest["edge-1"].inbox.append(ev.Approve("catalog", BIG, "sign-off", "operator-a"))
    story.until("done")
    waiting, approved = of(record(story), "gate")
    assert (waiting["state"], waiting["by"]) == ("waiting", [])
    assert (approved["state"], approved["by"], approved["gate"]) == ("open", ["operator-a"], "sign-off")
    assert approved["digests"] == record(story)[0]["digests"][BIG] and approved["since_ms"] > 0


def test_each_of_several_approvals_is_recorded_once() -> None:
    story = Story(gate=[{**GATE, "by": ["operator-a", "release-bot"], "count": 2}])
    story.start(BIG)
    story.forest.run(30.0)
    for name in ("operator-a", "release-bot"):
        story.forest["edge-1"].inbox.append(ev.Approve("catalog", BIG, "sign-off", name))
        story.forest.run(5.0)
    story.until("done")
    found = [(each["state"], each["by"]) for each in of(record(story), "gate")]
    both = ["operator-a", "release-bot"]
    assert found == [("waiting", []), ("waiting", ["operator-a"]), ("open", both)]


def test_gates_that_are_skipped_are_recorded_with_the_reason() -> None:
    story = Story(gate=[GATE])
    story.start(BIG)
    story.forest.run(30.0)
    story.forest["edge-1"].inbox.append(ev.Promote("catalog", BIG, "operator-a", "it burns"))
    story.until("done")
    (skipped,) = of(record(story), "gates-skipped")
    assert (skipped["by"], skipped["reason"]) == ("operator-a", "it burns")


def test_analyses_are_recorded_with_their_counts() -> None:
    story = Story()
    story.start(NEW, replace(SPEC, step=(Step("1", 5.0, 10.0),), analysis=Analysis(requests_min=10)))
    end = story.forest.now + 300.0
    while not of(record(story), "analysis"):
        story.step()
        assert story.forest.now < end
    (found,) = of(record(story), "analysis")
    assert (found["step"], found["result"], found["requests"]) == (1, "inconclusive", 0) and found["text"]
    assert kinds(record(story), "step") == ["step"]


# ---------------------------------------------------------------------- answers


def counted(story: Story, **totals: int) -> None:
    names = {name.removeprefix("v").replace("_", "."): total for name, total in totals.items()}
    story.forest["edge-1"].inbox.append(ev.AnswersCounted("catalog", names))
    story.forest.run(0.5)


def test_answers_are_counted_from_the_beginning_to_a_moment_after_the_end() -> None:
    story = Story()
    view = story.forest["edge-1"].balancer.view
    story.start(NEW)
    assert view.recorded() == ["catalog"]
    counted(story, v1_0_1=1000)
    counted(story, v1_0_1=1040, v1_0_2=2)
    story.forest["edge-1"].restart()
    counted(story, v1_0_1=1050, v1_0_2=7)
    counted(story, v1_0_1=5, v1_0_2=9)  # the engine is another one
    story.until("done")
    counted(story, v1_0_1=6, v1_0_2=20)
    assert "answers" not in kinds(record(story))
    story.forest.run(5.0)
    counted(story, v1_0_1=6, v1_0_2=23)
    last = record(story)[-1]
    assert (last["kind"], last["entry"], last["answers"]) == ("answers", "edge-1", {OLD: 51, NEW: 23})
    assert story.forest["edge-1"].balancer.view.recorded() == []
    counted(story, v1_0_1=7)
    assert record(story)[-1] == last


def test_a_gap_that_lasts_longer_than_answers_are_counted_is_recorded() -> None:
    """The rollout is done, and this root does not hear of the new version for a while."""
    story = Story(RACKS, cut_over="stopped", park={"timeout_s": 60.0})
    racks = [story.forest[name] for name in ("rack-1", "rack-2")]
    story.start(BIG)
    story.until("done")
    for rack in racks:
        rack.kill()
    for _ in range(5):
        counted(story, v2_5_1=3)
        story.forest.run(1.5)
    assert kinds(record(story), "opened", "ended", "answers") == []
    for rack in racks:
        rack.start()
    story.forest.run(10.0)
    counted(story, v2_5_1=5)
    opened, ended, answers = of(record(story), "opened", "ended", "answers")
    assert opened["gap_ms"] > 9_000 and (ended["gaps"], ended["gap_ms"]) == (1, opened["gap_ms"])
    assert answers["answers"] == {BIG: 2}


# ---------------------------------------------------------------------- the chain


@pytest.mark.promise(8)
@pytest.mark.parametrize("harm", [Node.restart, Node.reboot], ids=["kill", "power"])
def test_no_interruption_breaks_the_chain_or_loses_a_state(harm: Callable[[Node], None]) -> None:
    """The owner is killed after every sixteenth step of a rollout, and no chain is broken."""
    whole: list[str] = []
    for at in range(0, 160, 16):
        story = Story({"edge-1": (), "host-1": ("edge-1",), "host-2": ("edge-1",)})
        story.start(NEW)
        for _ in range(at):
            story.step()
        harm(story.forest["edge-1"])
        story.until("done")
        story.forest.run(5.0)
        entries = record(story)
        whole = whole or states(entries)
        assert states(entries) == whole, at
        granted, back = of(entries, "slot-granted"), of(entries, "slot-returned")
        assert len(granted) == len(back) == 2, at
        assert entries[-1]["kind"] == "ended" and entries[-1]["slots_granted"] == 2, at


def test_a_torn_last_entry_is_set_aside_and_reported_and_the_chain_goes_on() -> None:
    story = Story()
    story.start(NEW)
    story.until("rolling")
    edge = story.forest["edge-1"]
    edge.kill()
    name = max(key for key in edge.disk if key.startswith("record/catalog/r-2/"))
    torn = str(edge.disk[name])[:-7]
    edge.disk[name] = torn
    edge.start()
    story.until("done")
    story.forest.run(1.0)
    assert record(story, "r-2")[-1]["kind"] == "ended"
    assert edge.disk[f"record-aside/{name.removeprefix('record/')}"] == torn
    assert [note.text for note in edge.notes if note.code == "record-torn"]


def test_an_entry_that_was_changed_on_disk_is_named() -> None:
    story = Story()
    story.start(NEW)
    story.until("done")
    edge = story.forest["edge-1"]
    edge.kill()
    edge.disk["record/catalog/r-2/000003"] = str(edge.disk["record/catalog/r-2/000003"]).replace("host-", "hust-")
    edge.disk["record/catalog/r-1/000002"] = "{"
    edge.start()
    for which, number in (("r-2", 3), ("r-1", 2)):
        (found,) = edge.balancer.view.record(which)
        assert broken(found["entries"])[0] == number


def test_another_root_that_adopts_a_rollout_goes_on_in_its_own_record() -> None:
    story = Story(RACKS)
    story.start(NEW)
    story.until("rolling", at="edge-2")
    story.forest["edge-1"].kill()
    story.forest.run(20.0)
    assert story.order("adopt", at="edge-2") == ""
    story.until("done", at="edge-2")
    story.forest.run(2.0)
    entries = record(story, at="edge-2")
    assert kinds(entries)[0] == "followed" and of(entries, "order")[0]["verb"] == "adopt"
    assert [each["owner"] for each in of(entries, "state")][-1] == "edge-2"
    assert entries[-1]["kind"] == "ended" and "least" in entries[-1]


# ---------------------------------------------------------------------- limits


def records() -> tuple[Records, State]:
    state = State(Settings("edge-1", "id", 1, ()), Random(0))
    return Records(state), state


def test_a_full_record_keeps_what_matters_most() -> None:
    found, _ = records()
    chain = found.begin("catalog", "r-1")
    for number in range(2 * ENTRIES_MAX):
        found.append(chain, "slot-granted", {"node": f"host-{number}"})
    for _ in range(100):
        found.append(chain, "state", {"state": "rolling"}, always=True)
    found.append(chain, "slot-granted", {"node": "late"})
    assert len(chain.entries) < ENTRIES_MAX
    assert [each["kind"] for each in chain.entries if each["kind"] == "left-out"] == ["left-out"]
    assert [each["kind"] for each in chain.entries[-100:]] == ["state"] * 100
    assert broken(chain.entries) == (0, "")


def test_the_oldest_finished_records_are_forgotten_as_a_whole() -> None:
    found, state = records()
    for number in range(1, 8):
        chain = found.begin("catalog", f"r-{number}")
        for _ in range(3000):
            found.append(chain, "slot-granted", {})
        if number != 1:
            found.append(chain, "ended", {}, always=True)
    kept = [name for name in (f"r-{number}" for number in range(1, 8)) if found.find(name)]
    assert kept[0] == "r-1" and kept[-1] == "r-7" and "r-2" not in kept, "r-1 is still in progress"
    assert sum(len(found.find(name)[0].entries) for name in kept) <= TOTAL_MAX
    left = {key.split("/")[2] for key, value in state.puts.items() if value is not None}
    assert left == set(kept)
