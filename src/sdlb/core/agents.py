"""The agent of a node: brings each service of its roles to the version that the target names, one node's part of a rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlb.core.events import DriverDone
    from sdlb.core.forwarding import Forwarder
    from sdlb.core.local_instances import LocalInstances
    from sdlb.core.reports import Reports
    from sdlb.core.state import State
    from sdlb.model.rollout import SlotAnswer


class Agents:
    def __init__(self, state: State, local: LocalInstances, reports: Reports, forwarder: Forwarder) -> None:
        self._state = state
        self._forwarder = forwarder
        self._local = local
        self._reports = reports

    def load(self, name: str, value: object) -> None:
        """`name`: ROLE/SERVICE."""

    def start(self, now: float) -> None:
        """After the saved state was loaded."""

    def on_target(self, service: str, now: float) -> None:
        """The target of a service has changed."""

    def on_driver(self, event: DriverDone, now: float) -> None: ...

    def on_answer(self, service: str, answer: SlotAnswer | None, now: float) -> None:
        """The owner's answer to a SlotAsk. None: it could not be asked."""

    def on_timer(self, name: str, now: float) -> None:
        """`name`: ROLE/SERVICE."""

    def settle(self, now: float) -> None:
        """After each batch of events: instances of this node may have changed."""
