"""Each check finds its violation: a core with one rule broken on purpose must fail.

What is patched here is the rule itself, in the one place where it stands; the simulator runs as always. The unbroken core
passes the same runs (`test_seeds.py`, `test_scenarios.py`), so what is found is the broken rule.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.core import (
    authority,
    canary_analysis,
    children,
    conduct,
    decisions,
    local_instances,
    openings,
    parents,
    policies,
    slot,
    state,
    table,
)
from sdlb.core.canary_steps import Canary
from sdlb.core.effects import RunHook
from sdlb.core.messages import ACTIVE, Cause
from sdlb.core.slot import Permit
from sdlb.model.reason import Nothing
from sdlb.sim.check import CHECKS
from sdlb.sim.run import Plan, simulate
from sdlb.sim.topology import Shape

CALM = Plan(nodes=12, faults=())
ROOTS_AND_HOSTS = {"root-1": (), "root-2": (), **{f"host-{n}": ("root-1", "root-2") for n in range(1, 7)}}


def _finds(promises: set[int], plan: Plan, shape: Shape | None = None, seeds: int = 10) -> bool:
    """Whether one of some seeds ends with one of these promises broken."""
    plans = (replace(plan, seed=seed) for seed in range(1, seeds + 1))
    return any(simulate(each, shape).promise in promises for each in plans)


def _breaks(scenario: str, *promises: int) -> None:
    result = simulate(Plan(scenario=scenario))
    assert result.promise in promises, result.broken or "held"


def test_every_promise_that_can_be_checked_has_a_check() -> None:
    assert sorted({kind.promise for kind in CHECKS}) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


# ---------------------------------------------------------------------- by chance


def test_roots_that_let_all_versions_in_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_blocker", lambda *_: None)
    assert _finds({1, 2}, CALM)


def test_an_end_of_draining_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parents acknowledge immediately although requests are still under way."""
    monkeypatch.setattr(parents.Parents, "drained", lambda *_: True)
    monkeypatch.setattr(table.Table, "present", lambda self, key: key in self._sent)
    assert _finds({1, 2, 3}, CALM)


def test_a_drain_that_the_parents_never_acknowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drain ends at its deadline with nothing in flight, which the check must report."""
    monkeypatch.setattr(parents.Parents, "drained", lambda *_: False)
    assert _finds({3}, CALM, seeds=3)


def test_a_node_that_opens_without_asking_all_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents.Parents, "permit", lambda self, slot, now: Permit(ACTIVE, Nothing(), "me", 1))
    assert _finds({1, 2}, CALM, Shape(ROOTS_AND_HOSTS))


def test_a_child_that_is_given_up_as_soon_as_its_link_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = children.Children.on_closed

    def give_up(self: children.Children, event: Any) -> None:
        child = self.by_link.get(event.link)
        closed(self, event)
        for key in list(child.keys) if child is not None else ():
            self._drop(child, key, Cause.STOPPED)  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(children.Children, "on_closed", give_up)
    assert _finds({1, 2, 4}, Plan(nodes=12, faults=("reset",)))


def test_leases_that_are_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    check = children.Children.check

    def at_once(self: children.Children, name: str, now: float) -> None:
        check(self, name, now)
        child = self.by_name.get(name)
        if child is not None and child.suspect:
            self._presume_stopped(child, 0.0, now)  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(children.Children, "check", at_once)
    assert _finds({4}, Plan(nodes=12, faults=("partition", "pause")))


def test_a_parent_that_does_not_hear_what_was_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    withdraw = children.Children._withdraw  # type: ignore[reportPrivateUsage]
    calls = iter(range(1_000_000))

    def forgetful(self: children.Children, child: Any, key: Any, cause: Any, now: float) -> None:
        if next(calls) % 5:
            withdraw(self, child, key, cause, now)

    monkeypatch.setattr(children.Children, "_withdraw", forgetful)
    assert _finds({3, 5}, Plan(nodes=12, faults=(), requests_s=0.0))


def test_a_node_that_answers_about_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    touch = state.State.touch

    def touch_all(self: state.State, key: Any, *more: Any) -> None:
        touch(self, key, *more)
        for other, each in self.slots.items():
            touch(self, other)
            each.epoch = self.next_number()

    monkeypatch.setattr(state.State, "touch", touch_all)
    assert _finds({7}, CALM)


def test_decisions_that_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    persist = state.State.persist

    def without_services(self: state.State, name: str, value: object, durable: bool = True) -> None:
        if not name.startswith("service/"):
            persist(self, name, value, durable)

    monkeypatch.setattr(state.State, "persist", without_services)
    assert _finds({8}, CALM, seeds=1)


def test_an_active_set_that_the_disk_brings_back_older(monkeypatch: pytest.MonkeyPatch) -> None:
    load = authority.Root.load

    def older(self: authority.Root, kind: str, name: str, value: Any) -> None:
        load(self, kind, name, {**value, "generation": 0, "active": {}, "era": ()} if kind == "service" else value)

    monkeypatch.setattr(authority.Root, "load", older)
    shape = Shape({"root-1": (), **{f"host-{n}": ("root-1",) for n in range(1, 7)}})
    assert _finds({1, 2, 8}, Plan(nodes=7, faults=("kill",)), shape, seeds=20)


# ---------------------------------------------------------------------- in scenarios


def test_no_guard_for_two_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children.Children, "_update_guard", lambda self: None)
    _breaks("both-children-silent", 4)


def test_a_permit_of_the_disk_that_needs_no_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents.Parents, "require_confirmation", lambda self: None)
    _breaks("restarted-while-cut-off", 4)


def test_a_middle_node_that_always_has_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority.Delegated, "has_say", lambda self, now: True)
    _breaks("new-host-below-a-cut-off-rack", 4)


def test_what_is_not_reported_counts_as_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(self: children.Children, child: Any, key: Any, cause: Any, now: float) -> None:
        self._drop(child, key, Cause.STOPPED)  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(children.Children, "_omit", drop)
    _breaks("rack-leaves-while-its-host-serves", 1, 2)
    _breaks("replaced-rack-whose-host-is-late", 2)


def test_children_that_set_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies.Policies, "reported", lambda self, child, doc, linked: doc.rank > self.rank(doc.id))
    _breaks("child-with-a-policy", 6)


def test_a_registration_that_replaces_another_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    replace = local_instances.LocalInstances._replace  # type: ignore[reportPrivateUsage]

    def at_once(self: local_instances.LocalInstances, old: Any, event: Any, now: float) -> None:
        replace(self, old, event, now)
        self._forget(old, Cause.STOPPED, "instance-removed", "it was replaced")  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(local_instances.LocalInstances, "_replace", at_once)
    _breaks("registered-again-with-a-compatible-version", 3)
    _breaks("registered-again-with-an-incompatible-version", 2, 3)


def test_ids_that_anybody_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_instances.LocalInstances, "conflict", lambda self, event: "")
    _breaks("another-owner-takes-the-id", 2, 3, 4)


def test_a_rack_that_cannot_speak_for_the_hosts_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "_covers", lambda one, other: False)
    _breaks("rack-lost-during-a-rollout", 3)


def test_an_active_set_that_is_never_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_part_incompatible", lambda draft: None)
    for name in ("active-versions-are-denied", "rule-becomes-stricter", "declaring-instance-leaves"):
        _breaks(name, 1)


# ---------------------------------------------------------------------- gates and cut-overs


def test_gates_that_keep_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings.Openings, "guard", lambda *_: decisions.NO_GUARD)
    _breaks("gate-in-the-gap-of-a-plain-cut-over", 2)


def test_an_old_version_that_flips_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "_is_dormant", lambda *_: False)
    _breaks("flip-two-roots", 2)


def test_a_hook_with_another_key_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call does not join the first one: two migrations run at a time."""
    call = openings.Openings._call  # type: ignore[reportPrivateUsage]

    def call_anew(self: openings.Openings, *args: Any) -> None:
        call(self, *args)
        effects = self._state.effects  # type: ignore[reportPrivateUsage]
        last = effects[-1]
        assert isinstance(last, RunHook)
        effects[-1] = replace(last, key=f"{last.key}/{self._state.settings.incarnation}")  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(openings.Openings, "_call", call_anew)
    _breaks("flip-only-root-killed-in-gap", 2)


def test_a_conductor_that_opens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut off when its hook has ended. The other root opens the old version, and neither ever yields."""
    monkeypatch.setattr(conduct, "_all_know", lambda *_: True)
    _breaks("flip-conductor-cut-off-in-gap", 5)


@pytest.mark.parametrize("result", ["pass", "fail"])
def test_an_analysis_that_always_has_the_same_result(monkeypatch: pytest.MonkeyPatch, result: str) -> None:
    def always(*_: object, lost: bool) -> Canary:
        return Canary(result, "as always", lost)

    monkeypatch.setattr(canary_analysis, "canary", always)
    plan = Plan(nodes=6, seed=6, faults=(), changes=("canary", "back"), services=1, pace_s=4.0, faults_s=150.0)
    assert "r-" in (broken := simulate(plan).broken) and ("brings" if result == "pass" else "stops") in broken
