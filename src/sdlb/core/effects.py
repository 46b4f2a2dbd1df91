"""Effects: what `Balancer.handle` wants done, in the order in which the loop must carry them out.

`Persist` comes first if there is one. It must be written before any later effect of this or a later batch is carried out:
decide, write, act. With `durable` it must be on disk by then; without, it must survive a crash of the process, but not a
power loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdlb.core.events import EndpointKey
from sdlb.core.messages import DownMessage, RootAnswer, UpMessage
from sdlb.model.gate import Hook
from sdlb.model.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Persist:
    """Key-value changes as one atomic write; a value of None deletes. Values are JSON-able."""

    puts: dict[str, object]
    durable: bool = True


# ------------------------------------------------------------------ engine (defined in engine.proto)


@dataclass(frozen=True, slots=True)
class UpstreamPut:
    """An instance or child node that the engine can connect to (`Target` in engine.proto). `protocol`: "http1" or "h2c"."""

    key: str
    is_node: bool
    address: str
    protocol: str = "http1"


@dataclass(frozen=True, slots=True)
class EndpointPut:
    """An upstream that serves a claim key (`Member` in engine.proto). `far`: it is in another zone than this node."""

    key: EndpointKey
    capacity: int
    last_resort: bool = False
    far: bool = False


@dataclass(frozen=True, slots=True)
class ServicePut:
    """The settings of a service, for all its endpoints and routes."""

    name: str
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Pick:
    """A version of a route that may get new requests, as in engine.proto."""

    version: str
    tier: int
    weight: int


@dataclass(frozen=True, slots=True)
class RoutePut:
    """A route in the engine's table. `park_requests_max` 0: no parking. `sticky_by`: "", "cookie", "header" or "client".
    `recent`: it parks because it served recently, and not because a version is about to serve."""

    pattern: str
    service: str
    picks: tuple[Pick, ...]
    park_requests_max: int = 0
    park_timeout_s: float = 0.0
    sticky_by: str = ""
    sticky_name: str = ""
    recent: bool = False


@dataclass(frozen=True, slots=True)
class Apply:
    """A delta of the engine's table. At most one is unanswered at a time.

    `left_out`: with `replace`, the endpoints that are deleted because the delta does not have them.
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
    """Open a stream to this parent. ParentConnected or ParentClosed follows."""

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
    """Save `incarnation` durably as this node's own, because another state of this node has used all numbers below it."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class ReleaseHeld:
    """Carry out the effects that wait for the disk, and hold none back until it can be written again. The other roots
    decide without this one, because it has had no say for lease and fence, and it follows them."""


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
    """An event for the log and `/v1/events`. `code` is stable, `text` is one sentence for people."""

    code: str
    text: str
    level: str = "info"  # "info", "warning", "error"
    fields: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Changed:
    """Ids of instances and names of services whose state may have changed. Long-polls wait for them."""

    instances: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Execute:
    """Execute a forwarded API call at this root; the event AskDone returns the result. `asker`: the node that got the call."""

    id: str
    method: str
    path: str
    body: bytes
    asker: str = ""


@dataclass(frozen=True, slots=True)
class RunHook:
    """Ask a gate's hook; the event HookDone returns the result. `key`: the same for all attempts at one opening, so that the
    hook can recognise a repeated call. `replaces`: the versions that `version` replaces."""

    key: str
    service: str
    version: str
    hook: Hook
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunDriver:
    """Call the driver of a role's service; the event DriverDone with the same `key` returns the result.

    `call`: "prepare" (the version is named, nothing runs), "start", "stop", "state" or "forget". `slot`: "a" or "b". `release`: as in
    `Target.releases`, with the artifacts of the version. The same call may be repeated after a restart.
    """

    key: str
    role: str
    service: str
    call: str
    slot: str
    version: str = ""
    port: int = 0
    release: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers of the roots to an AskUp of this node. `unreachable`: names of roots or parents that did not answer."""

    id: str
    answers: tuple[RootAnswer, ...]
    unreachable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The drain that Stop started has ended. `clean`: nothing is in flight; else the deadline has passed."""

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
    | RunHook
    | RunDriver
    | Answered
    | Stopped
)
