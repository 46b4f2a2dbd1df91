"""Events: everything that happens to a node, and the only input to its decisions (`Balancer.handle(event, now)`).

`now` is in seconds on a monotonic clock. The loop or the simulator passes it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from sdlb.core.messages import ClaimKey, DownMessage, Hello, UpMessage
from sdlb.model.canary import Figures
from sdlb.model.instance import InstanceSpec
from sdlb.model.rollout import RolloutSpec

# ------------------------------------------------------------------ time


class Tick(Struct, frozen=True):
    """`Balancer.wake_at()` has been reached. An earlier or later Tick does no harm."""


# ------------------------------------------------------------------ instances of this host (local API, health checks)


class InstancePut(Struct, frozen=True):
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


class InstanceDrain(Struct, frozen=True):
    """Stop new traffic to an instance that stays registered. Complete when `view.instance(id)["drained"]` is true. `deadline_s`
    None: as the policy has it."""

    id: str
    deadline_s: float | None


class InstanceRemove(Struct, frozen=True):
    """Drain an instance, then remove it. Complete when `view.instance(id)` is None.

    `deadline_s` None: as the policy has it. `owner`: the owner of the registration; one of another owner under the same id stays.
    "": the current registration.
    """

    id: str
    deadline_s: float | None
    owner: str = ""


class InstanceGone(Struct, frozen=True):
    """The process of an instance has exited. It is removed immediately and counts as stopped. `owner`: see `InstanceRemove`."""

    id: str
    detail: str
    owner: str = ""


class InstanceHealth(Struct, frozen=True):
    """The result of health checks. `detail`: the reason, for people."""

    id: str
    healthy: bool
    detail: str = ""


# ------------------------------------------------------------------ links to children; `link` numbers one connection


class ChildConnected(Struct, frozen=True):
    link: int
    hello: Hello


class ChildMessage(Struct, frozen=True):
    link: int
    message: UpMessage


class ChildClosed(Struct, frozen=True):
    link: int


# ------------------------------------------------------------------ links to parents; `parent` is the address as configured


class ParentConnected(Struct, frozen=True):
    """The stream is open; the core answers with its Hello. `data_address`: where this parent reaches the node's engine."""

    parent: str
    data_address: str


class ParentMessage(Struct, frozen=True):
    parent: str
    message: DownMessage


class ParentClosed(Struct, frozen=True):
    """The stream was closed or could not be opened."""

    parent: str
    detail: str


# ------------------------------------------------------------------ engine


class EndpointKey(NamedTuple):
    """An endpoint: the source `target` serves the group `claim`. In the engine: (service, version, pattern, target)."""

    claim: ClaimKey
    target: str


class EngineAttached(Struct, frozen=True):
    """A connection to the engine. `boot_id`: identifies its process. `epoch`: of the last delta that it applied. `endpoints`:
    their number in its table. `draining`: deleted endpoints with their requests in flight."""

    boot_id: str
    epoch: int
    endpoints: int
    draining: tuple[tuple[EndpointKey, int], ...] = ()


class EngineApplied(Struct, frozen=True):
    epoch: int


class EngineRejected(Struct, frozen=True):
    epoch: int
    reason: str


class EngineDrained(Struct, frozen=True):
    key: EndpointKey
    epoch: int


class EngineLost(Struct, frozen=True):
    """The connection to the engine was lost. The boot_id of the next EngineAttached shows whether its process has exited."""


class EngineJoined(Struct, frozen=True):
    """A second engine process with an empty table is attached (hot restart): the next delta is the whole table, for both."""


# ------------------------------------------------------------------ disk


class StoreStuck(Struct, frozen=True):
    """Decisions cannot be written. No effect that needs a durable write is carried out until `StoreWritten`."""


class StoreWritten(Struct, frozen=True):
    """All pending writes are on disk."""


# ------------------------------------------------------------------ operators


class PolicyPut(Struct, frozen=True):
    """Set the policy document of a service or pattern at this root. `body`: the document as JSON. `by`: the node whose local API
    got the call. `what`: the changes, for people."""

    service: str
    body: bytes
    by: str = ""
    what: str = ""


class PoliciesPut(Struct, frozen=True):
    """Set several policy documents in one iteration: all of them or none."""

    puts: tuple[PolicyPut, ...]


class Approve(Struct, frozen=True):
    """A person or pipeline `by` approves the gate of a waiting version. Only the root that conducts the service's opening acts on
    it. `View.approval_objection` says beforehand why it would have no effect."""

    service: str
    version: str
    gate: str
    by: str


class Promote(Struct, frozen=True):
    """An operator wants this waiting version: gates that failed or timed out are tried again, a version that was active earlier
    may replace its successor, and a flip does not wait for more capacity. `no_gates`: the reason for skipping all gates; "":
    they are not skipped. `View.promotion_objection` says beforehand why it would have no effect."""

    service: str
    version: str
    by: str
    no_gates: str = ""


class RouteTransfer(Struct, frozen=True):
    """An operator gives a route to a service, which drains the service that holds it."""

    route: str
    service: str
    by: str


class HookDone(Struct, frozen=True):
    """The result of the effect `RunHook`. `outcome`: "yes", "no", "later" (the hook has not decided) or "failed" (it could not be
    asked). `detail`: for people."""

    key: str
    outcome: str
    detail: str = ""


class ReleasePut(Struct, frozen=True):
    """A release is available. `body`: `model.release.Release.to_data` as JSON; empty: it is withdrawn. `by`: the user.
    `View.release_objection` says beforehand why it would have no effect."""

    name: str
    body: bytes
    by: str = ""


class RolloutOrder(Struct, frozen=True):
    """An operator's order about the rollout of a service, at the root that shall own it or owns it: `verb` "start", "pause",
    "resume", "promote", "abort", "undo" or "adopt". `version`, `release`, `before_release`, `spec` and `supersede` are those of
    "start". `also`: the other services of a joint rollout, each with its "start". `View.rollout_objection` says beforehand why it
    would have no effect."""

    service: str
    verb: str
    by: str
    version: str = ""
    spec: RolloutSpec = RolloutSpec()
    supersede: bool = False
    reason: str = ""
    also: tuple[RolloutOrder, ...] = ()


class DriverDone(Struct, frozen=True):
    """The result of the effect `RunDriver` with the same `key`. `status`, `version`, `pid` and `port`: what is in the slot now.
    `restarts`: of this version. `ended`: how its last run ended, where the driver keeps that. `fault`: whose failure it is, as in
    `seams.driver`; "": it succeeded. `log`: the last lines of the program."""

    key: str
    fault: str = ""
    detail: str = ""
    retry: bool = False
    log: tuple[str, ...] = ()
    status: str = ""
    version: str = ""
    pid: int = 0
    port: int = 0
    restarts: int = 0
    ended: str = ""


class FiguresCounted(Struct, frozen=True):
    """A block has ended: what the instances of a service on this host answered in it. `figures`: by version; those that
    `View.analysed` named at its beginning or end."""

    service: str
    block: int
    figures: Mapping[str, Figures]


class AnswersCounted(Struct, frozen=True):
    """What the versions of a service answered to requests that came in at this node, since its engine started. For the services that
    `View.recorded` names."""

    service: str
    totals: Mapping[str, int]


class MetricsAnswered(Struct, frozen=True):
    """The results of the effect `AskMetrics`, in the same order. A number, or why there is none, as a text for people."""

    key: str
    results: tuple[float | str, ...]


class NodeFileNames(Struct, frozen=True):
    """What analyses can name in the node file: `sources` of metrics, and `hooks`. Posted at the start, and when the file has changed."""

    sources: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


class ForgetChild(Struct, frozen=True):
    """An operator reports that a child has stopped. It has no effect unless the child is suspect or has left."""

    name: str


class AskUp(Struct, frozen=True):
    """A local API call that only the roots can answer. The effect `Answered` with the same id has their answers."""

    id: str
    method: str
    path: str
    body: bytes = b""


class AskDone(Struct, frozen=True):
    """The result of the effect `Execute`."""

    id: str
    status: int
    body: bytes


class Stop(Struct, frozen=True):
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
    | FiguresCounted
    | AnswersCounted
    | MetricsAnswered
    | NodeFileNames
    | ForgetChild
    | AskUp
    | AskDone
    | Stop
)
