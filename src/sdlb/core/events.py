"""Events: everything that happens to a node, and the only input to its decisions (`Balancer.handle(event, now)`).

`now` is in seconds on a monotonic clock. The loop or the simulator passes it in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sdlb.core.messages import ClaimKey, DownMessage, Hello, UpMessage
from sdlb.model.instance import InstanceSpec
from sdlb.model.rollout import RolloutSpec

# ------------------------------------------------------------------ time


@dataclass(frozen=True, slots=True)
class Tick:
    """`Balancer.wake_at()` has been reached. An earlier or later Tick does no harm."""


# ------------------------------------------------------------------ instances of this host (local API, health checks)


@dataclass(frozen=True, slots=True)
class InstancePut:
    """An instance registers or renews. With another version, route or endpoint under the same id, it becomes a new registration
    beside the old one, which drains. `healthy`: the first known health.

    `owner`: identifies the registering process, "" if it is not known. While a registration of another owner is alive, that one
    keeps the id (`owner-conflict`). `listeners`: opaque names of the sockets at the endpoint; empty: not known. A registration
    of the same endpoint with other sockets is superseded.
    """

    spec: InstanceSpec
    healthy: bool = True
    owner: str = ""
    listeners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class InstanceDrain:
    """Stop new traffic to an instance that stays registered. Complete when `view.instance(id)["drained"]` is true."""

    id: str
    deadline_s: float


@dataclass(frozen=True, slots=True)
class InstanceRemove:
    """Drain an instance, then remove it. Complete when `view.instance(id)` is None.

    `owner`: the owner of the registration; one of another owner under the same id stays. "": the current registration.
    """

    id: str
    deadline_s: float
    owner: str = ""


@dataclass(frozen=True, slots=True)
class InstanceGone:
    """The process of an instance has exited. It is removed immediately and counts as stopped. `owner`: see `InstanceRemove`."""

    id: str
    detail: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class InstanceHealth:
    """The result of health checks. `detail`: the reason, for people."""

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
    """The stream is open; the core answers with its Hello. `data_address`: where this parent reaches the node's engine."""

    parent: str
    data_address: str


@dataclass(frozen=True, slots=True)
class ParentMessage:
    parent: str
    message: DownMessage


@dataclass(frozen=True, slots=True)
class ParentClosed:
    """The stream was closed or could not be opened."""

    parent: str
    detail: str


# ------------------------------------------------------------------ engine


class EndpointKey(NamedTuple):
    """An endpoint: the source `target` serves the group `claim`. In the engine: (service, version, pattern, target)."""

    claim: ClaimKey
    target: str


@dataclass(frozen=True, slots=True)
class EngineAttached:
    """A connection to the engine. `boot_id`: identifies its process. `epoch`: of the last delta that it applied. `endpoints`:
    their number in its table. `draining`: deleted endpoints with their requests in flight."""

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
    """The connection to the engine was lost. The boot_id of the next EngineAttached shows whether its process has exited."""


@dataclass(frozen=True, slots=True)
class EngineJoined:
    """A second engine process with an empty table is attached (hot restart): the next delta is the whole table, for both."""


# ------------------------------------------------------------------ disk


@dataclass(frozen=True, slots=True)
class StoreStuck:
    """Decisions cannot be written. No effect that needs a durable write is carried out until `StoreWritten`."""


@dataclass(frozen=True, slots=True)
class StoreWritten:
    """All pending writes are on disk."""


# ------------------------------------------------------------------ operators


@dataclass(frozen=True, slots=True)
class PolicyPut:
    """Set the policy document of a service or pattern at this root. `body`: the document as JSON. `by`: the node whose local API
    got the call. `what`: the changes, for people."""

    service: str
    body: bytes
    by: str = ""
    what: str = ""


@dataclass(frozen=True, slots=True)
class PoliciesPut:
    """Set several policy documents in one iteration: all of them or none."""

    puts: tuple[PolicyPut, ...]


@dataclass(frozen=True, slots=True)
class Approve:
    """A person or pipeline `by` approves the gate of a waiting version. Only the root that conducts the service's opening acts on
    it. `View.approval_objection` says beforehand why it would have no effect."""

    service: str
    version: str
    gate: str
    by: str


@dataclass(frozen=True, slots=True)
class Promote:
    """An operator wants this waiting version: gates that failed or timed out are tried again, a version that was active earlier
    may replace its successor, and a flip does not wait for more capacity. `no_gates`: the reason for skipping all gates; "":
    they are not skipped. `View.promotion_objection` says beforehand why it would have no effect."""

    service: str
    version: str
    by: str
    no_gates: str = ""


@dataclass(frozen=True, slots=True)
class RouteTransfer:
    """An operator gives a route to a service, which drains the service that holds it."""

    route: str
    service: str
    by: str


@dataclass(frozen=True, slots=True)
class HookDone:
    """The result of the effect `RunHook`. `outcome`: "yes", "no", "later" (the hook has not decided) or "failed" (it could not be
    asked). `detail`: for people."""

    key: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ReleasePut:
    """A release is available. `body`: `model.release.Release.to_data` as JSON; empty: it is withdrawn. `by`: the user.
    `View.release_objection` says beforehand why it would have no effect."""

    name: str
    body: bytes
    by: str = ""


@dataclass(frozen=True, slots=True)
class RolloutOrder:
    """An operator's order about the rollout of a service, at the root that shall own it or owns it: `verb` "start", "pause",
    "resume", "promote", "abort", "undo" or "adopt". `version`, `release`, `before_release`, `spec` and `supersede` are those of
    "start". `View.rollout_objection` says beforehand why it would have no effect."""

    service: str
    verb: str
    by: str
    version: str = ""
    spec: RolloutSpec = RolloutSpec()
    supersede: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DriverDone:
    """The result of the effect `RunDriver` with the same `key`. `status`, `version`, `pid` and `port`: what is in the slot now.
    `fault`: whose failure it is, as in `seams.driver`; "": it succeeded. `log`: the last lines of the program."""

    key: str
    fault: str = ""
    detail: str = ""
    retry: bool = False
    log: tuple[str, ...] = ()
    status: str = ""
    version: str = ""
    pid: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True)
class ForgetChild:
    """An operator reports that a child has stopped. It has no effect unless the child is suspect or has left."""

    name: str


@dataclass(frozen=True, slots=True)
class AskUp:
    """A local API call that only the roots can answer. The effect `Answered` with the same id has their answers."""

    id: str
    method: str
    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class AskDone:
    """The result of the effect `Execute`."""

    id: str
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Stop:
    """The node leaves permanently: it drains all its traffic and sends Bye. Then the effect `Stopped` follows."""

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
    | PoliciesPut
    | Approve
    | Promote
    | RouteTransfer
    | HookDone
    | ReleasePut
    | RolloutOrder
    | DriverDone
    | ForgetChild
    | AskUp
    | AskDone
    | Stop
)
