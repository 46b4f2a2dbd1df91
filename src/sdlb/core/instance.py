"""A registration of an instance on this host.

registered --drain--> draining --parents have acknowledged, nothing in flight--> drained --remove--> removed
     |  \\--registered again as something else--> draining, beside its successor
     \\--lease expired--> lapsed (out of the engine immediately, presumed to have stopped)
     \\--process exited--> removed (known to have stopped)
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from sdlb.core.messages import ClaimKey
from sdlb.model.instance import InstanceSpec

NO_LEASE_S = 1e9
NEVER = 1e18
AGENT = "agent"
"""The owner of registrations that this node's agent makes."""


class Life(Enum):
    REGISTERED = "registered"
    DRAINING = "draining"
    DRAINED = "drained"
    LAPSED = "lapsed"


class Instance(Struct):
    spec: InstanceSpec
    target: str  # "i:ID", of a later registration "i:ID#2" and so on
    healthy: bool
    lease_until: float
    owner: str = ""
    life: Life = Life.REGISTERED
    detail: str = ""
    leaving: int = 0  # number of the drain; 0: none
    drain_until: float = 0.0
    by_policy: bool = False  # its drain has no deadline of its own: `drain` of the policy decides
    removing: bool = False
    forced: bool = False  # past its drain deadline: removed from the engine without waiting for the parents
    listeners: frozenset[str] = frozenset()  # at its endpoint when it registered
    superseded: str = ""  # the id under which another program has registered its endpoint since
    serves_since: float = NEVER  # it has been healthy and active, without a break
    admitted: bool = False  # it was allowed to serve at some time since it registered

    @property
    def why(self) -> str:
        """The reason why it gets no requests although its version is active."""
        if self.superseded:
            return f"another program listens on its endpoint, registered as {self.superseded}; register it again if it still runs"
        return self.detail or "not checked yet"

    def keys(self) -> list[ClaimKey]:
        return [ClaimKey(self.spec.service, self.spec.version, route) for route in self.spec.routes]

    def renewed(self, now: float) -> None:
        """Renews the lease. With `ttl_s` 0 there is none: the registration stays until it is removed or its process exits."""
        self.lease_until = lease_end(self.spec, now)


def lease_end(spec: InstanceSpec, now: float) -> float:
    return now + spec.ttl_s if spec.ttl_s else now + NO_LEASE_S


def same_service(one: InstanceSpec, other: InstanceSpec) -> bool:
    """Whether both serve the same routes with the same version."""
    return (one.service, one.version, one.routes) == (other.service, other.version, other.routes)


def replaces(old: InstanceSpec, new: InstanceSpec) -> bool:
    """Whether `new` replaces `old`, because its version, routes or endpoint differ and not only its settings."""
    same = (old.service, old.version, old.routes, old.endpoint, old.protocol)
    return same != (new.service, new.version, new.routes, new.endpoint, new.protocol)
