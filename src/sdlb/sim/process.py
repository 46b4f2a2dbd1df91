"""The processes that really run on a host: the ground truth of oracle and checks."""

from __future__ import annotations

from msgspec import Struct

from sdlb.core.messages import ClaimKey
from sdlb.model.instance import InstanceSpec


class Process(Struct, eq=False):
    """A registration of an instance. One that registers again under its id with other settings is another process.

    `alive`: it answers requests. `wanted`: it was neither asked to leave nor replaced.
    """

    name: str  # of its own, also where two share an id
    host: str
    spec: InstanceSpec
    since: float  # it has been alive and well
    owner: str = ""  # the registering process; another owner cannot take its id
    home: str = ""  # the service's tree, as the workload knows it
    role: str = ""  # in which its host's agent runs it; "": it runs by itself
    alive: bool = True
    ended: float = 1e9
    healthy: bool = True
    wanted: bool = True
    leave_asked: float = 1e9  # when it was asked to leave, for the first time
    leave_by: float = 1e9  # from then on it counts as stopped, whatever it carries
    renewing: bool = True
    renewed: float = 0.0  # its host last heard of it
    served: bool = False  # has been an endpoint of its host's engine since it started
    endpoint_since: float = 1e9  # of its host's engine, without a break
    carried: int = 0  # requests in flight
    carried_at: float = 0.0  # when one last was
    successor: Process | None = None  # the same id, registered again
    holder: Process | None = None  # another owner's, which has its id

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def version(self) -> str:
        return self.spec.version

    @property
    def rejected(self) -> bool:
        """Whether its id belongs to another live owner, so that it gets no requests."""
        return self.holder is not None and self.holder.alive and self.holder.wanted

    @property
    def owed(self) -> bool:
        """Whether it should serve: it is wanted, or its replacement has not served yet."""
        if self.rejected:
            return False
        return self.wanted or (self.successor is not None and self.successor.wanted and not self.successor.served)

    def keys(self) -> list[ClaimKey]:
        return [ClaimKey(self.spec.service, self.spec.version, route) for route in self.spec.routes]
