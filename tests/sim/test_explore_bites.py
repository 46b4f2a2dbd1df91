"""The explorer finds violations: a core with one rule broken on purpose fails in a small tree.

What is patched is the rule itself, as in `test_checks_bite.py`; the unbroken core is explored first, so that what is found
is the broken rule and not something else.
"""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from sdlb.core import agent_steps, balancer, children, decisions, local_instances, parents, rollouts, state, table
from sdlb.core import effects as ef
from sdlb.core.messages import ACTIVE, WAITING, Cause
from sdlb.core.slot import Permit
from sdlb.model.reason import NoParent, Nothing
from sdlb.sim.explore.scenarios import ALL
from sdlb.sim.explore.search import Search

STATES = 12_000


def _finds(name: str, promises: set[int], states: int = STATES) -> int:
    """After how many states one of these promises is found broken; 0: it is not."""
    cover = Search(ALL[name], states).run()
    broken = [failure.problem.promise for failure in cover.failures]
    return max(1, cover.states) if set(broken) & promises else 0


def test_roots_that_let_all_versions_in_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_blocker", lambda *_: None)
    assert _finds("chain-deploy", {1, 2})


def test_a_recall_that_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parents acknowledge immediately although requests are still under way."""
    monkeypatch.setattr(parents.Parents, "drained", lambda *_: True)
    monkeypatch.setattr(table.Table, "present", lambda self, key: key in self._sent)
    assert _finds("chain-deploy", {2, 3})


def test_a_node_that_opens_without_asking_all_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents.Parents, "permit", lambda self, slot, now: Permit(ACTIVE, Nothing(), "me", 1))
    assert _finds("cross-contest", {1, 2})


def test_a_child_that_is_given_up_as_soon_as_its_link_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = children.Children.on_closed

    def give_up(self: children.Children, event: Any) -> None:
        child = self.by_link.get(event.link)
        closed(self, event)
        if child is not None:
            for key in list(child.keys):
                self._drop(child, key, Cause.PRESUMED)  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(children.Children, "on_closed", give_up)
    assert _finds("chain-deploy-reset", {3, 4})


def test_no_fence_after_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    check = children.Children.check

    def at_once(self: children.Children, name: str, now: float) -> None:
        check(self, name, now)
        child = self.by_name.get(name)
        if child is not None and child.suspect:
            self._presume_stopped(child, 0.0, now)  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(children.Children, "check", at_once)
    assert _finds("hosts-roll-cut", {4})


def test_a_node_that_does_not_wait_for_what_its_engine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is asked to drain an instance before its engine is attached reports it as drained."""
    monkeypatch.setattr(table.Table, "synced", property(lambda _: True, lambda *_: None), raising=False)
    assert _finds("drain-kill-host-1", {3})


def test_a_drain_that_is_counted_from_the_attachment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine reports the epoch of the deletion, which was earlier, so the report is ignored."""
    attached = table.Table.on_attached

    def on_attached(self: table.Table, event: Any, *args: Any, **more: Any) -> Any:
        known = self.boot_id
        touched = attached(self, event, *args, **more)
        if event.boot_id != known:
            draining = self._draining  # type: ignore[reportPrivateUsage]
            draining.update({key: event.epoch for key, epoch in draining.items() if not epoch})
        return touched

    monkeypatch.setattr(table.Table, "on_attached", on_attached)
    assert _finds("drain-kill-root", {5}, 14_000)


def test_a_node_that_closes_what_serves_when_it_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is cut off may finish an earlier recall, but must close nothing else."""
    permit = parents.Parents.permit

    def strict(self: parents.Parents, slot: Any, now: float) -> Permit:
        if not any(uplink.ever_heard for uplink in self.with_say(now)):
            return Permit(WAITING, NoParent(), "me", slot.permit.generation)
        return permit(self, slot, now)

    monkeypatch.setattr(parents.Parents, "permit", strict)
    assert _finds("hosts-deploy-kill-cut", {4})


def test_what_leaves_with_its_rack_counts_as_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parents.Parents, "left", lambda self: ())
    assert _finds("leave-deploy", {1, 2})


def test_a_host_that_believes_its_old_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host reopens the permits of an older state folder without any confirmation."""
    monkeypatch.setattr(parents.Parents, "require_confirmation", lambda self, **_: None)
    assert _finds("restore-host", {1, 2})


def test_a_policy_that_recalls_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_part_incompatible", lambda draft: None)
    assert _finds("deny", {5})


def test_a_lease_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_instances.LocalInstances, "check_lease", lambda self, target, now: None)
    assert _finds("lapse", {5})


def test_claims_of_a_lost_child_that_are_never_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children.Children, "_drop", lambda self, child, key, cause: None)
    assert _finds("hosts-deploy", {5})


def test_decisions_that_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    persist = state.State.persist

    def without_services(self: state.State, name: str, value: object, durable: bool = True) -> None:
        if not name.startswith("service/"):
            persist(self, name, value, durable)

    monkeypatch.setattr(state.State, "persist", without_services)
    assert _finds("chain-deploy", {8})


def test_decisions_that_are_written_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act, then write: a kill between the two reveals it."""
    finish = balancer.Balancer._finish  # type: ignore[reportPrivateUsage]

    def late(self: balancer.Balancer, now: float) -> list[ef.Effect]:
        effects = finish(self, now)
        return [e for e in effects if not isinstance(e, ef.Persist)] + [e for e in effects if isinstance(e, ef.Persist)]

    monkeypatch.setattr(balancer.Balancer, "_finish", late)
    assert _finds("chain-deploy", {8})


def test_a_root_that_forgets_what_children_had_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart, recorded claims without a report count as stopped."""
    load = balancer.Balancer._load  # type: ignore[reportPrivateUsage]

    def forget_children(self: balancer.Balancer, now: float) -> None:
        saved = self._saved  # type: ignore[reportPrivateUsage]
        if self.settings.is_root:
            saved = {name: value for name, value in saved.items() if not name.startswith(("child/", "claim/"))}
        self._saved = saved  # type: ignore[reportPrivateUsage]
        load(self, now)

    monkeypatch.setattr(balancer.Balancer, "_load", forget_children)
    assert _finds("wait-kill-root", {1, 2, 4})


def test_capacity_that_is_reported_before_the_engine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table.Table, "applied", lambda self, key: key in self._endpoints)
    assert _finds("hosts-roll", {3})


def test_writes_that_a_power_loss_removes(monkeypatch: pytest.MonkeyPatch) -> None:
    persist = state.State.persist
    monkeypatch.setattr(
        state.State, "persist", lambda self, name, value, durable=True: persist(self, name, value, False)
    )
    assert _finds("chain-deploy-power", {8})


def test_a_drain_that_a_restart_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_instances.LocalInstances, "resume_drains", lambda self, now: None)
    assert _finds("hosts-deploy-kill", {5})


def test_links_that_are_never_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dial = parents.Parents.dial

    def once(self: parents.Parents, parent: str, now: float) -> None:
        if not self.links[parent].ever_heard:
            dial(self, parent, now)

    monkeypatch.setattr(parents.Parents, "dial", once)
    assert _finds("hosts-deploy-reset", {5})


def test_a_rollout_that_gives_slots_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "slot_objection", lambda *_, **__: "")
    assert _finds("role-patch-hosts", {9})


def test_an_agent_that_stops_a_program_before_it_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = agent_steps.advance

    def at_once(record: agent_steps.Record, facts: agent_steps.Facts) -> agent_steps.Outcome:
        return advance(record, replace(facts, seen={n: replace(s, registered=False) for n, s in facts.seen.items()}))

    monkeypatch.setattr(agent_steps, "advance", at_once)
    assert _finds("role-patch-one", {3})


def test_a_node_that_never_goes_back_from_a_version_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_steps, "_revert", lambda *_: None)
    assert _finds("role-bad-one", {5, 9})
