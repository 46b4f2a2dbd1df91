"""Each check finds what it is there for: a core with one rule broken on purpose must not get through.

What is patched here is the rule itself, in the one place where it stands; the simulator runs as always.
"""

from __future__ import annotations

from typing import Any

import pytest

from sdlb.core import authority, children, parents, rootage, state, table
from sdlb.core.messages import ACTIVE
from sdlb.core.slot import Permit
from sdlb.sim.check import CHECKS
from sdlb.sim.run import Plan, simulate
from sdlb.sim.topology import Shape

CALM = Plan(nodes=12, faults=())


def _finds(promises: set[int], plan: Plan, shape: Shape | None = None, seeds: int = 10) -> bool:
    """Whether one of some seeds ends with one of these promises broken."""
    plans = (Plan(**{**_fields(plan), "seed": seed}) for seed in range(1, seeds + 1))
    return any(simulate(each, shape).promise in promises for each in plans)


def _fields(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in Plan.__dataclass_fields__}


def test_every_promise_that_can_be_checked_has_a_check() -> None:
    assert sorted({kind.promise for kind in CHECKS}) == [1, 2, 3, 4, 5, 7, 8]


def test_roots_that_let_all_versions_in_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "_blocker", lambda *_: None)
    assert _finds({1, 2}, CALM)


def test_an_end_of_draining_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parents have let go at once: requests are still on their way through."""
    monkeypatch.setattr(parents.Parents, "drained", lambda *_: True)
    monkeypatch.setattr(table.Table, "present", lambda self, key: key in self._sent)
    assert _finds({1, 2, 3}, CALM)


def test_a_node_that_opens_without_asking_all_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape({"root-1": (), "root-2": (), **{f"host-{n}": ("root-1", "root-2") for n in range(1, 7)}})
    monkeypatch.setattr(parents.Parents, "permit", lambda self, slot, now: Permit(ACTIVE, "", "", "me", 1))
    assert _finds({1, 2}, CALM, shape)


def test_a_child_that_is_given_up_as_soon_as_its_link_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = children.Children.on_closed

    def give_up(self: children.Children, event: Any) -> None:
        child = self.by_link.get(event.link)
        closed(self, event)
        if child is not None:
            self._forget_claims(child)  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(children.Children, "on_closed", give_up)
    assert _finds({4}, Plan(nodes=12, faults=("reset",)))


def test_leases_that_are_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    presume = children.Children._suspect  # type: ignore[reportPrivateUsage]

    def at_once(self: children.Children, child: Any, suspect: bool) -> None:
        presume(self, child, suspect)
        if suspect:
            self._presume_stopped(child, 0.0)  # type: ignore[reportPrivateUsage]

    monkeypatch.setattr(children.Children, "_suspect", at_once)
    assert _finds({4}, Plan(nodes=12, faults=("partition", "pause")))


def test_a_full_state_that_leaves_out_what_was_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = children.Children._drop  # type: ignore[reportPrivateUsage]
    calls = iter(range(1_000_000))

    def forgetful(self: children.Children, child: Any, key: Any) -> None:
        if next(calls) % 5:
            drop(self, child, key)

    monkeypatch.setattr(children.Children, "_drop", forgetful)
    assert _finds({5}, Plan(nodes=12, faults=(), requests_s=0.0))


def test_a_node_that_answers_about_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    touch = state.State.touch

    def touch_all(self: state.State, key: Any) -> None:
        touch(self, key)
        for other, slot in self.slots.items():
            self.dirty[other] = None
            slot.epoch = self.next_number()

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
    load = rootage.Rootage.load_service

    def older(self: rootage.Rootage, service: str, saved: dict[str, object]) -> None:
        load(self, service, {**saved, "generation": 0, "active": {}, "era": ()})

    monkeypatch.setattr(rootage.Rootage, "load_service", older)
    shape = Shape({"root-1": (), **{f"host-{n}": ("root-1",) for n in range(1, 7)}})
    assert _finds({1, 2, 8}, Plan(nodes=7, faults=("kill",)), shape)
