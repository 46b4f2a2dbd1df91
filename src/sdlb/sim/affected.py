"""What faults excuse, and for how long. A fault excuses only the services and nodes that it affects."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdlb.sim.world import World

RECOVERY_S = 40.0  # time after a fault that may split the tree within which its effects must be over
NEVER = -1e9


class Affected:
    def __init__(self, world: World) -> None:
        self._world = world
        self._harmed_nodes: dict[str, float] = {}
        self._harmed_services: dict[str, float] = {}
        self._split: dict[str, float] = {}
        self._disturbed: dict[str, float] = {}
        self._everything = NEVER  # faults of the whole network

    # ------------------------------------------------------------------ what happened

    def harm_node(self, name: str) -> None:
        """Requests through this node may have been lost."""
        self._harmed_nodes[name] = self._world.clock.now
        self.disturb(name)

    def harm_service(self, service: str) -> None:
        """Requests for this service may have been lost."""
        self._harmed_services[service] = self._world.clock.now

    def split(self, services: Iterable[str]) -> None:
        """Parts of the tree may disagree about these services for a while."""
        for service in services:
            self._split[service] = self._world.clock.now

    def disturb(self, name: str) -> None:
        """This node or its links were disturbed. No requests are lost, but changes may take longer."""
        self._disturbed[name] = self._world.clock.now

    def disturb_all(self) -> None:
        self._everything = self._world.clock.now

    @property
    def undisturbed(self) -> bool:
        """Whether there was no disturbance so far."""
        return not self._disturbed and self._everything == NEVER

    # ------------------------------------------------------------------ what it excuses

    def _lately(self, when: float) -> bool:
        return self._world.clock.now - when < RECOVERY_S

    def is_split(self, service: str) -> bool:
        return self._lately(self._split.get(service, NEVER))

    def harmed(self, entry: str, service: str) -> bool:
        """Whether a recent disturbance excuses the loss of a request for this service that enters at this node."""
        if self.is_split(service) or self._lately(self._harmed_services.get(service, NEVER)):
            return True
        recent = [name for name, when in self._harmed_nodes.items() if self._lately(when)]
        if not recent:
            return False
        shape = self._world.shape
        below = shape.below(entry)
        hosts = {p.host for p in self._world.by_service.get(service, {}).values()} & below
        return any(
            name in below and (name == entry or not hosts or not hosts.isdisjoint(shape.below(name))) for name in recent
        )

    def steady(self, name: str, seconds: float) -> bool:
        """Whether this node was not disturbed for this time."""
        return self._world.clock.now - self._disturbed.get(name, NEVER) > seconds

    def disturbed(self, upper: Iterable[str]) -> bool:
        """Whether one of these nodes or a link between them was disturbed recently."""
        return self._lately(self._everything) or any(self._lately(self._disturbed.get(n, NEVER)) for n in upper)
