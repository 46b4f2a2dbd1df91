"""What a node does about what happened: returned by `Balancer.handle`, in the order in which they must be carried out.

`Persist` comes first when there is one. It must be written before any later effect of the same or of a later batch is
carried out: decide, write, act. With `durable` it must have reached the disk by then; without, it must outlive the
process (kill -9), not a power cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sdlb.core.events import EndpointKey
from sdlb.core.messages import DownMessage, RootAnswer, UpMessage
from sdlb.model.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Persist:
    """Key-value changes as one atomic write; a value of None deletes. Values are JSON-able."""

    puts: dict[str, object]
    durable: bool = True


# ------------------------------------------------------------------ engine (engine.proto has the meanings)


@dataclass(frozen=True, slots=True)
class UpstreamPut:
    """`protocol`: "http1" or "h2c", what an instance speaks."""

    key: str
    is_node: bool
    address: str
    protocol: str = "http1"


@dataclass(frozen=True, slots=True)
class EndpointPut:
    key: EndpointKey
    capacity: int
    last_resort: bool = False
    far: bool = False  # in another zone than this node


@dataclass(frozen=True, slots=True)
class ServicePut:
    """What is set for a service, for all its endpoints and routes."""

    name: str
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Pick:
    version: str
    tier: int
    weight: int


@dataclass(frozen=True, slots=True)
class RoutePut:
    pattern: str
    service: str
    picks: tuple[Pick, ...]
    park_requests_max: int = 0  # 0: no parking, 503 at once
    park_timeout_s: float = 0.0
    sticky_by: str = ""  # "", "cookie", "header", "client"
    sticky_name: str = ""
    recent: bool = False  # it parks because it served a moment ago; else because something is about to serve


@dataclass(frozen=True, slots=True)
class Apply:
    """A delta of the engine's table. The core sends at most one that is not yet answered.

    `left_out`: the endpoints that a replacing one deletes by not naming them.
    """

    epoch: int
    replace: bool = False
    put_upstreams: tuple[UpstreamPut, ...] = ()
    put_endpoints: tuple[EndpointPut, ...] = ()
    put_routes: tuple[RoutePut, ...] = ()
    delete_endpoints: tuple[EndpointKey, ...] = ()
    delete_routes: tuple[str, ...] = ()
    delete_upstreams: tuple[str, ...] = ()
    left_out: tuple[EndpointKey, ...] = ()
    put_services: tuple[ServicePut, ...] = ()
    delete_services: tuple[str, ...] = ()


# ------------------------------------------------------------------ links


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a stream to this parent; answered by ParentConnected or ParentClosed."""

    parent: str


@dataclass(frozen=True, slots=True)
class ToParent:
    parent: str
    message: UpMessage


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the stream to this parent; no ParentClosed follows."""

    parent: str


@dataclass(frozen=True, slots=True)
class Reincarnate:
    """Write `incarnation` as this node's own, durably: another state of this node has used all numbers below it."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class ReleaseHeld:
    """Carry out what waits for the disk, and hold nothing back until it can be written again: this root has had no say
    for so long that the others decide without it, and it only follows them."""


@dataclass(frozen=True, slots=True)
class ToChild:
    link: int
    message: DownMessage


@dataclass(frozen=True, slots=True)
class DropChild:
    """Close this link; no ChildClosed follows."""

    link: int


# ------------------------------------------------------------------ people and programs


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth telling: goes to the log and to `/v1/events`. `code` is stable, `text` is one sentence."""

    code: str
    text: str
    level: str = "info"  # "info", "warning", "error"
    fields: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Changed:
    """What long-polls wait for: an instance id or a service name whose state may look different now."""

    instances: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Execute:
    """This node is a root and is asked: run the API call, then hand in AskDone. `asker`: the node that was asked first."""

    id: str
    method: str
    path: str
    body: bytes
    asker: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What the roots said to an AskUp of this node."""

    id: str
    answers: tuple[RootAnswer, ...]
    unreachable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    """After Stop: nothing goes through this node any more."""

    clean: bool


Effect = (
    Persist
    | Apply
    | Dial
    | ToParent
    | HangUp
    | Reincarnate
    | ReleaseHeld
    | ToChild
    | DropChild
    | Note
    | Changed
    | Execute
    | Answered
    | Stopped
)
