"""What nodes report about the services that they run, summed up on the way to the roots. Each node reports to one parent, so
that it is counted once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdlb.model.rollout import RoleReport

if TYPE_CHECKING:
    from sdlb.core.state import State


class Reports:
    """`changed`: services whose sum has changed since the caller last cleared it."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.changed: dict[str, None] = {}
        self._total: dict[str, RoleReport] = {}

    def put_own(self, service: str, report: RoleReport | None) -> None:
        """The report of this node itself; None: it does not run the service."""
        if report is None:
            self._total.pop(service, None)
        else:
            self._total[service] = report
        self.changed[service] = None

    def total(self, service: str) -> RoleReport:
        """Of this node and all nodes below that report through it."""
        return self._total.get(service, RoleReport())
