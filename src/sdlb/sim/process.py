"""What really runs on a host, whatever the nodes believe: the oracle's ground truth."""

from __future__ import annotations

from dataclasses import dataclass

from sdlb.core.messages import ClaimKey
from sdlb.model.instance import InstanceSpec


@dataclass(slots=True)
class Process:
    """One instance. `alive`: it answers requests. `wanted`: nobody has asked it to leave."""

    host: str
    spec: InstanceSpec
    since: float  # it has been alive and well
    alive: bool = True
    ended: float = 1e9
    healthy: bool = True
    wanted: bool = True
    leave_by: float = 1e9  # when it is not: from then on it counts as stopped, whatever it carries
    renewing: bool = True
    served: bool = False  # has been a member of its host's engine since it started
    carried: int = 0  # requests in flight

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def target(self) -> str:
        return f"i:{self.spec.id}"

    @property
    def version(self) -> str:
        return self.spec.version

    def keys(self) -> list[ClaimKey]:
        return [ClaimKey(self.spec.service, self.spec.version, route) for route in self.spec.routes]
