"""Rollouts at a root: the targets of services, and the slots of the rollouts that this root owns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlb.model.rollout import SlotAnswer

if TYPE_CHECKING:
    from sdlb.core.children import Children
    from sdlb.core.events import ReleasePut, RolloutOrder
    from sdlb.core.reports import Reports
    from sdlb.core.state import State
    from sdlb.model.rollout import SlotAsk


class Rollouts:
    def __init__(self, state: State, children: Children, reports: Reports) -> None:
        self._state = state
        self._children = children
        self._reports = reports

    def load(self, service: str, value: object) -> None: ...

    def on_release(self, event: ReleasePut, now: float) -> None: ...

    def on_order(self, event: RolloutOrder, now: float) -> None: ...

    def on_ask(self, ask: SlotAsk, now: float) -> SlotAnswer | None:
        """None: another root owns the rollout."""
        return None

    def on_timer(self, service: str, now: float) -> None: ...

    def settle(self, now: float) -> None:
        """After each batch of events: reports may have changed."""
