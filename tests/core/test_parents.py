"""The common decision of several parents, without nodes around them."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from sdlb.core.effects import Reincarnate, ToParent
from sdlb.core.messages import (
    ACTIVE,
    REFUSED,
    WAITING,
    Beat,
    Cause,
    Claim,
    Doc,
    DownState,
    DrainAck,
    Path,
    Refused,
    Stage,
    UpState,
    Verdict,
    Welcome,
)
from sdlb.core.parents import Parents
from sdlb.core.settings import Settings
from sdlb.core.slot import Part, Permit, Slot
from sdlb.core.source import Source
from sdlb.core.state import State
from sdlb.core.uplink import Phase, Uplink
from sdlb.model.reason import Closing, NewerGeneration, NoParent, StillRunning
from tests.core.forest import key_of

OLD, NEW = key_of("1.0.1"), key_of("2.0.0")
BLOCKED = StillRunning("1.0.1", 1, ("host-1",))
LEASE_S, SILENCE_S = 10.0, 20.0


class Bench:
    """A node below `roots` (two of them, or one named twice); all links are up and were heard at 0."""

    def __init__(self, *roots: str) -> None:
        self.state = State(Settings("host", "id-host", 1, ("p-1", "p-2")), Random(0))
        self.parents = Parents(self.state, 0.0)
        self.slot = self.slot_of(OLD)
        for (parent, uplink), root in zip(self.parents.links.items(), roots or ("root-1", "root-2"), strict=True):
            uplink.phase, uplink.name, uplink.protocol = Phase.UP, parent, 2
            uplink.node_id = f"id-{root}" if root.startswith("root") else f"id-{parent}"
            uplink.path = Path((root,), (root,), (f"id-{root}",))
            uplink.heard(0.0)

    def slot_of(self, key: tuple[str, str, str]) -> Slot:
        return self.state.put_source(key, Source("i:a", Claim(key)))  # type: ignore[arg-type]

    def __getitem__(self, parent: str) -> Uplink:
        return self.parents.links[parent]

    def say(self, parent: str, state: str, generation: int = 1, **more: object) -> None:
        reason = more.pop("reason", BLOCKED if state != ACTIVE else None)
        said = Verdict(self.slot.key, state, generation=generation, scope=("id-root-1", "id-root-2"))
        more = {"decided_by": parent, **more, **({"reason": reason} if reason is not None else {})}
        self[parent].verdicts[self.slot.key] = replace(said, **more)  # type: ignore[arg-type]

    def holds(self, generation: int = 1) -> None:
        self.slot.permit = Permit(ACTIVE, generation=generation, scope=("id-root-1",), decided_by="p-1")

    def permit(self, now: float = 0.0) -> Permit:
        return self.parents.permit(self.slot, now)

    def with_say(self, now: float = 0.0) -> list[str]:
        return [uplink.parent for uplink in self.parents.with_say(now)]


# ---------------------------------------------------------------------- parents with a say


def test_a_parent_has_a_voice_until_its_lease_is_over() -> None:
    bench = Bench()
    bench["p-1"].heard(5.0)
    assert bench.with_say(9.9) == ["p-1", "p-2"]
    assert bench.with_say(10.0) == ["p-1"]
    assert bench.with_say(15.0) == []


def test_a_link_that_breaks_leaves_the_voice_unless_others_pass_the_same_roots_on() -> None:
    apart, same = Bench(), Bench("rack", "rack")
    for bench in (apart, same):
        bench["p-1"].phase = Phase.IDLE
    assert apart.with_say() == ["p-1", "p-2"]
    assert same.with_say() == ["p-2"]


def test_a_root_that_cannot_write_has_a_voice_for_lease_and_fence() -> None:
    bench = Bench()
    bench.parents.on_beat(bench["p-1"], Beat(0, 0, has_say=False), 5.0)
    for uplink in bench.parents.links.values():
        uplink.heard(24.0)
    assert bench.with_say(24.9) == ["p-1", "p-2"]
    assert bench.with_say(25.0) == ["p-2"]
    assert list(bench.state.due_timers(25.0)) == [("mute", "p-1")]


def test_a_node_between_that_is_cut_off_has_no_voice_at_once() -> None:
    bench = Bench("rack", "other")
    bench.parents.on_beat(bench["p-1"], Beat(0, 0, has_say=False), 5.0)
    assert bench.with_say(5.0) == ["p-2"]
    bench.parents.on_beat(bench["p-1"], Beat(0, 0), 6.0)
    assert bench.with_say(6.0) == ["p-1", "p-2"]


# ---------------------------------------------------------------------- what they say together


def test_all_voices_have_to_consent() -> None:
    bench = Bench()
    bench.say("p-1", ACTIVE, 3, stamp=9)
    assert (bench.permit().state, str(bench.permit().reason)) == (WAITING, str(bench.permit().reason))
    assert "p-2" in str(bench.permit().reason)
    bench.say("p-2", ACTIVE, 2, stamp=7)
    permit = bench.permit()
    assert (permit.state, permit.generation, permit.stamp) == (ACTIVE, 3, 7)
    assert permit.scope == ("id-root-1", "id-root-2")


def test_the_roots_above_decide_as_one_and_others_for_themselves() -> None:
    bench = Bench()
    for parent in ("p-1", "p-2"):
        bench.say(parent, ACTIVE, 3, scope=("id-root-1",))
    assert bench.permit().scope == ("id-root-1", "id-root-2")
    for parent in ("p-1", "p-2"):
        bench.say(parent, ACTIVE, 4, scope=("id-p-1",))  # decided before they came below the roots
    assert bench.permit().scope == ("id-p-1",)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("state", [WAITING, REFUSED])
def test_one_that_is_against_closes(state: str, held: bool) -> None:
    bench = Bench()
    if held:
        bench.holds()
    bench.say("p-1", ACTIVE)
    bench.say("p-2", state)
    assert (bench.permit().state, bench.permit().decided_by) == (state, "p-2")


def test_what_serves_is_not_closed_by_one_that_is_late_or_has_no_answer() -> None:
    bench = Bench()
    bench.holds(generation=4)
    bench.say("p-1", WAITING, 3)
    assert bench.permit().state == ACTIVE
    bench.say("p-2", WAITING, 4, reason=NoParent())
    assert bench.permit().state == ACTIVE
    bench.say("p-1", WAITING, 4)
    assert bench.permit().state == WAITING


def test_what_serves_is_not_closed_while_a_root_waits_for_its_report() -> None:
    """The root has heard of this generation from another node, and this one has not reported yet. What belongs to an
    older generation than the one that was heard is closed."""
    bench = Bench()
    bench.holds(generation=4)
    bench.say("p-1", WAITING, 4, reason=NewerGeneration(4))
    bench.say("p-2", WAITING, 4, reason=NewerGeneration(4))
    assert bench.permit().state == ACTIVE
    bench.say("p-2", WAITING, 4, reason=NewerGeneration(5))
    assert (bench.permit().state, bench.permit().decided_by) == (WAITING, "p-2")


def test_a_consent_older_than_a_known_decision_does_not_count() -> None:
    bench = Bench()
    newer = bench.slot_of(NEW)
    newer.permit = Permit(WAITING, generation=5, scope=("id-root-1",))
    for parent in ("p-1", "p-2"):
        bench.say(parent, ACTIVE, 4)
    assert bench.permit().state == WAITING
    for parent in ("p-1", "p-2"):
        bench.say(parent, ACTIVE, 5)
    assert bench.permit().state == ACTIVE


def test_without_a_voice_what_serves_serves_on_and_nothing_opens() -> None:
    bench = Bench()
    assert bench.permit(10.0).reason == NoParent()
    for parent in ("p-1", "p-2"):
        bench.say(parent, ACTIVE)
    assert bench.permit(10.0).state == WAITING
    bench.holds()
    assert bench.permit(10.0) is bench.slot.permit


def test_an_unconfirmed_permit_is_in_force_once_all_parents_have_confirmed() -> None:
    bench = Bench()
    bench.holds()
    bench.parents.require_confirmation()
    assert bench.permit().state == WAITING and bench.permit(10.0).state == WAITING
    for parent in ("p-1", "p-2"):
        bench.say(parent, ACTIVE)
    assert bench.permit().state == ACTIVE
    for uplink in bench.parents.links.values():
        uplink.verdicts.clear()
    assert bench.permit(10.0).state == ACTIVE, "it was confirmed"


def test_what_a_parent_has_decided_since_the_start_needs_no_confirmation() -> None:
    bench = Bench()
    bench.holds()
    bench.say("p-1", WAITING, 1, reason=NoParent())
    bench.parents.require_confirmation()
    assert not bench.parents.unconfirmed


# ---------------------------------------------------------------------- drains


def test_every_parent_in_touch_has_to_acknowledge() -> None:
    bench = Bench()
    bench.slot.leaving = 7
    assert not bench.parents.drained(bench.slot, 0.0)
    bench.parents.on_state(
        bench["p-1"], DownState(1, drained=(DrainAck(OLD, 6), DrainAck(OLD, 7)), path=bench["p-1"].path), 0.0
    )
    assert bench.slot.acked == {"p-1"}
    assert not bench.parents.drained(bench.slot, 0.0)
    bench["p-1"].heard(8.0)
    assert bench.parents.drained(bench.slot, 10.0), "the other one is silent"


def test_the_acknowledgement_of_another_drain_is_none() -> None:
    bench = Bench()
    bench.slot.leaving = 7
    bench.parents.on_state(bench["p-1"], DownState(1, drained=(DrainAck(OLD, 6),), path=bench["p-1"].path), 0.0)
    assert bench.slot.acked == set()


def test_a_root_that_cannot_write_holds_no_drain_up_after_lease_and_fence() -> None:
    bench = Bench()
    bench["p-1"].no_say_since = 0.0
    bench.slot.acked = {"p-2"}
    for uplink in bench.parents.links.values():
        uplink.heard(19.0)
    assert not bench.parents.drained(bench.slot, 19.9)
    assert bench.parents.drained(bench.slot, 20.0)


# ---------------------------------------------------------------------- what is passed up


@pytest.mark.promise(8)
@pytest.mark.parametrize(("one", "other"), [(3, 5), (5, 3)])
def test_the_newest_decision_is_passed_up_whichever_parent_gives_the_reason(one: int, other: int) -> None:
    """A root that is behind, or was restored, learns from it that the other roots are further."""
    bench = Bench()
    bench.say("p-1", WAITING, one)
    bench.say("p-2", WAITING, other)
    bench.slot.permit = permit = bench.permit()
    assert (permit.decided_by, permit.generation) == ("p-1", 5)
    assert bench.parents.claim(bench.slot, bench["p-1"]).generation == 5


@pytest.mark.promise(3, 5)
@pytest.mark.parametrize("behind", ["p-1", "p-2"])
def test_a_root_whose_consent_is_too_old_hears_the_newest_generation_as_one_of_its_own(behind: str) -> None:
    """It does not know the other root: the generation counts there only if its own id is in the scope."""
    bench = Bench()
    for parent, root in (("p-1", "id-root-1"), ("p-2", "id-root-2")):
        bench.say(parent, ACTIVE, 1 if parent == behind else 2, scope=(root,))
    bench.slot.permit = Permit(WAITING, generation=2, scope=("id-root-1", "id-root-2"))
    bench.slot.permit = permit = bench.permit()
    assert (permit.state, permit.reason.code, permit.generation) == (WAITING, "asking", 2)
    claim = bench.parents.claim(bench.slot, bench[behind])
    assert (claim.generation, claim.scope) == (2, ("id-root-1", "id-root-2"))


def test_a_decision_of_another_tree_is_not_passed_up_as_one_of_this_tree() -> None:
    bench = Bench()
    bench.say("p-1", WAITING, 3)
    bench.say("p-2", WAITING, 9, scope=("id-elsewhere",))
    assert bench.permit().generation == 3


def reported(bench: Bench, *generations: int) -> None:
    for number, generation in enumerate(generations):
        part = Part(stage=Stage.OPEN, generation=generation, scope=("id-root-1",), child=True)
        bench.slot.put_part(f"n:host-{number}", part)


@pytest.mark.parametrize(
    ("generations", "generation", "doubted"),
    [((7, 3, 3), 3, 7), ((7, 7, 3), 7, 0), ((3, 3, 3), 3, 0), ((7, 6, 3), 6, 7)],
)
def test_a_newer_generation_is_passed_up_when_more_than_half_report_it(
    generations: tuple[int, ...], generation: int, doubted: int
) -> None:
    bench = Bench()
    bench.slot.permit = Permit(WAITING, generation=3, scope=("id-root-1",))
    reported(bench, *generations)
    claim = bench.parents.claim(bench.slot, bench["p-1"])
    assert (claim.generation, claim.doubted) == (generation, doubted)


def test_a_recall_is_confirmed_when_all_below_have_confirmed_it_and_nothing_is_in_flight() -> None:
    bench = Bench()
    bench.say("p-1", WAITING, epoch=9)
    bench.slot.epoch = 4
    for seen, present, told in ((3, False, 0), (4, True, 0), (4, False, 9)):
        bench.slot.put_part("n:host-1", Part(seen=seen, present=present, child=True))
        assert bench.parents.claim(bench.slot, bench["p-1"]).seen == told


def test_the_longest_lease_below_and_confirmed_capacity_are_passed_up() -> None:
    bench = Bench()
    bench.slot.put_part("n:host-1", Part(lease_s=30, capacity=8, ready=5, child=True))
    bench.slot.put_part("n:host-2", Part(lease_s=3600, capacity=8, child=True))
    claim = bench.parents.claim(bench.slot, bench["p-1"])
    assert (claim.lease_s, claim.capacity) == (3600, 5)


def test_the_cause_of_what_went_while_the_link_was_down_is_passed_up() -> None:
    bench = Bench()
    for uplink in bench.parents.links.values():
        uplink.state([Claim(OLD)], [], [], ())
    bench.state.drop_source(OLD, "i:a", Cause.PRESUMED)
    bench.state.forget_slot(OLD)
    bench.parents.forget(OLD, Cause.PRESUMED)
    for uplink in bench.parents.links.values():
        uplink.dirty[OLD] = None
    bench.parents.flush(damped=False)
    sent = [effect.message for effect in bench.state.effects if isinstance(effect, ToParent)]
    withdrawn = [gone for message in sent if isinstance(message, UpState) for gone in message.withdrawn]
    assert [(gone.key, gone.cause) for gone in withdrawn] == [(OLD, Cause.PRESUMED)] * 2


# ---------------------------------------------------------------------- documents


def document(revision: int) -> Doc:
    return Doc("policy", "catalog", revision, "root-1", b"{}")


def test_documents_of_the_parents_are_in_force_lease_and_fence_after_the_last_came_back() -> None:
    bench = Bench()
    bench.state.policies.adopt(document(9))
    for uplink in bench.parents.links.values():
        uplink.welcomed_at = 0.0
    bench["p-2"].welcomed_at = 5.0
    bench["p-1"].docs["policy/catalog"] = document(2)
    bench.parents.check_docs("p-1", SILENCE_S)
    assert bench.state.policies.docs["policy/catalog"].revision == 9
    bench.parents.check_docs("p-2", SILENCE_S + 5.0)
    assert bench.state.policies.docs["policy/catalog"].revision == 2
    bench["p-1"].docs.clear()
    bench.parents.check_docs("p-1", SILENCE_S + 5.0)
    assert not bench.state.policies.docs


def test_a_document_that_most_children_hold_is_passed_up_once() -> None:
    bench = Bench()
    bench.parents.pass_on(document(3))
    bench.parents.pass_on(document(3))
    assert [effect.message.docs for effect in bench.state.effects] == [(document(3),)] * 2  # type: ignore[union-attr]


def test_the_worst_of_two_refusals_is_reported() -> None:
    bench = Bench()
    bench.say("p-1", WAITING, reason=Closing("1.0.0", ("host",)))
    bench.say("p-2", REFUSED)
    assert bench.permit().state == REFUSED


def test_a_node_that_is_refused_as_older_goes_on_above_and_has_its_permits_confirmed() -> None:
    bench = Bench()
    bench.holds()
    bench["p-1"].phase = Phase.GREETING
    bench.parents.on_refused(bench["p-1"], Refused("older-incarnation", "older", 7), 0.0)
    assert bench.state.incarnation == 8 and Reincarnate(8) in bench.state.effects
    assert list(bench.parents.unconfirmed) == [OLD]
    assert bench["p-1"].phase is Phase.IDLE, "it comes again"


@pytest.mark.parametrize("first", ["p-1", "p-2"])
def test_of_two_addresses_of_one_parent_the_lower_one_is_used(first: str) -> None:
    bench = Bench()
    second = "p-2" if first == "p-1" else "p-1"
    bench[first].node_id, bench[first].nonce = "id-edge", "n"
    bench[second].phase, bench[second].node_id = Phase.GREETING, ""
    path = Path(("edge",), ("edge",), ("id-edge",))
    bench.parents.on_welcome(bench[second], Welcome("edge", "id-edge", 1, path, 0, "n"), 1.0)
    assert (bench["p-1"].phase, bench["p-2"].phase) == (Phase.UP, Phase.DUPLICATE)


def test_known_decisions_of_roots_are_passed_up_and_reports_about_other_roots() -> None:
    """For a root that this node reaches, its own knowledge of the decisions counts and not the report of a child."""
    bench = Bench()
    lies = Part(child=True, granted=("id-root-1", "id-root-3"), refused=("id-root-2", "id-root-3"))
    bench.slot.put_part("n:liar", lies)
    bench.say("p-1", REFUSED)
    bench.say("p-2", ACTIVE, scope=("id-root-2",))
    claim = bench.parents.claim(bench.slot, bench["p-1"])
    assert claim.granted == ("id-root-2", "id-root-3")
    assert claim.refused == ("id-root-1", "id-root-3")


def test_which_of_several_roots_refuses_is_not_known_from_a_node_between() -> None:
    bench = Bench()
    bench["p-1"].path = Path(("rack",), ("root-1", "root-2"), ("id-root-1", "id-root-2"))
    bench.say("p-1", REFUSED)
    assert bench.parents.claim(bench.slot, bench["p-2"]).refused == ()
