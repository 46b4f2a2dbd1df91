"""What happens to a node: the only way in to its decisions (`Balancer.handle(event, now)`).

`now` is seconds on a monotonic clock, passed in by the loop or by the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sdlb.core.messages import ClaimKey, DownMessage, Hello, UpMessage
from sdlb.model.instance import InstanceSpec

# ------------------------------------------------------------------ time


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: `Balancer.wake_at()` was reached (earlier or later is harmless)."""


# ------------------------------------------------------------------ instances of this host (local API, health checks)


@dataclass(frozen=True, slots=True)
class InstancePut:
    """Registered or renewed. Another version, route or endpoint under the same id is a new registration beside the old
    one, which drains. `healthy` is the first known health.

    `owner`: who registers, "" when nobody can tell; another living owner of the id keeps it (`owner-conflict`).
    `listeners`: opaque names of the sockets at the endpoint; empty: not known. Where another registration knew others there,
    it gives way.
    """

    spec: InstanceSpec
    healthy: bool = True
    owner: str = ""
    listeners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class InstanceDrain:
    """Take new traffic away; the instance stays registered. Done when `Balancer.instance(id).drained`."""

    id: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class InstanceRemove:
    """Drain, then forget. Done when `Balancer.instance(id)` is None.

    `owner`: whose registration of the id; what another owner has registered meanwhile stays. "": the one in force.
    """

    id: str
    deadline_s: float
    owner: str = ""


@dataclass(frozen=True, slots=True)
class InstanceGone:
    """Its process is known to be gone: out at once, counted as stopped. `owner`: as in `InstanceRemove`."""

    id: str
    detail: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class InstanceHealth:
    id: str
    healthy: bool
    detail: str = ""


# ------------------------------------------------------------------ links to children; `link` numbers one connection


@dataclass(frozen=True, slots=True)
class ChildConnected:
    link: int
    hello: Hello


@dataclass(frozen=True, slots=True)
class ChildMessage:
    link: int
    message: UpMessage


@dataclass(frozen=True, slots=True)
class ChildClosed:
    link: int


# ------------------------------------------------------------------ links to parents; `parent` is the address as configured


@dataclass(frozen=True, slots=True)
class ParentConnected:
    """The stream is open; the core answers with its Hello. `data_address`: where this parent reaches our engine."""

    parent: str
    data_address: str


@dataclass(frozen=True, slots=True)
class ParentMessage:
    parent: str
    message: DownMessage


@dataclass(frozen=True, slots=True)
class ParentClosed:
    """The stream broke, or could not be opened."""

    parent: str
    detail: str


# ------------------------------------------------------------------ engine


class EndpointKey(NamedTuple):
    """`target` in the group of `claim`: the engine's (service, version, pattern, target)."""

    claim: ClaimKey
    target: str


@dataclass(frozen=True, slots=True)
class EngineAttached:
    boot_id: str
    epoch: int
    endpoints: int
    draining: tuple[tuple[EndpointKey, int], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineApplied:
    epoch: int


@dataclass(frozen=True, slots=True)
class EngineRejected:
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class EngineDrained:
    key: EndpointKey
    epoch: int


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The connection to the engine is gone. Whether its process is too shows in the next EngineAttached's boot_id."""


@dataclass(frozen=True, slots=True)
class EngineJoined:
    """A second engine process is attached, and knows nothing: the next delta is the whole table, for both."""


# ------------------------------------------------------------------ disk


@dataclass(frozen=True, slots=True)
class StoreStuck:
    """Decisions cannot be written: nothing durable is acted on until `StoreWritten`."""


@dataclass(frozen=True, slots=True)
class StoreWritten:
    """What could not be written is on disk now."""


# ------------------------------------------------------------------ operators


@dataclass(frozen=True, slots=True)
class PolicyPut:
    """A policy set at this node (roots only; elsewhere it is asked upward). `body`: the document as JSON. `by`: the node
    that was asked first. `what`: in words, what it changes."""

    service: str
    body: bytes
    by: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True)
class ForgetChild:
    """An operator says that this child has stopped. Nothing happens unless its lease has run out (`suspect`) or it has
    left."""

    name: str


@dataclass(frozen=True, slots=True)
class AskUp:
    """A local request that only the roots can answer; comes back as the effect `Answered` with the same id."""

    id: str
    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class AskDone:
    """The answer to the effect `Execute`."""

    id: str
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Stop:
    """This node is to leave for good: drain everything through it, say Bye, then the effect `Stopped`."""

    deadline_s: float


Event = (
    Tick
    | InstancePut
    | InstanceDrain
    | InstanceRemove
    | InstanceGone
    | InstanceHealth
    | ChildConnected
    | ChildMessage
    | ChildClosed
    | ParentConnected
    | ParentMessage
    | ParentClosed
    | EngineAttached
    | EngineApplied
    | EngineRejected
    | EngineDrained
    | EngineLost
    | EngineJoined
    | StoreStuck
    | StoreWritten
    | PolicyPut
    | ForgetChild
    | AskUp
    | AskDone
    | Stop
)
