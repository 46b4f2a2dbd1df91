"""Effects: what `Balancer.handle` wants done, in the order in which the loop must carry them out.

`Persist` comes first if there is one. It must be written before any later effect of this or a later batch is carried out:
decide, write, act. With `durable` it must be on disk by then; without, it must survive a crash of the process, but not a
power loss.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from sdlb.core.events import EndpointKey
from sdlb.core.messages import DownMessage, DownState, RootAnswer, UpMessage, UpState
from sdlb.model.gate import Hook
from sdlb.model.traffic import Traffic


class Persist(Struct, frozen=True):
    """Key-value changes as one atomic write; a value of None deletes. Values are JSON-able."""

    puts: dict[str, object]
    durable: bool = True


# ------------------------------------------------------------------ engine (defined in engine.proto)


class UpstreamPut(Struct, frozen=True):
    """An instance or child node that the engine can connect to (`Target` in engine.proto). `protocol`: "http1" or "h2c"."""

    key: str
    is_node: bool
    address: str
    protocol: str = "http1"


class EndpointPut(Struct, frozen=True):
    """An upstream that serves a claim key (`Member` in engine.proto). `far`: it is in another zone than this node."""

    key: EndpointKey
    capacity: int
    last_resort: bool = False
    far: bool = False


class ServicePut(Struct, frozen=True):
    """The settings of a service, for all its endpoints and routes."""

    name: str
    traffic: Traffic


class Pick(Struct, frozen=True):
    """A version of a route that may get new requests, as in engine.proto."""

    version: str
    tier: int
    weight: int
    ends_sessions: bool = False


class RoutePut(Struct, frozen=True):
    """A route in the engine's table. `park_requests_max` 0: no parking. `sticky_by`: "", "cookie", "header", "client" or "session".
    `recent`: it parks because it served recently, and not because a version is about to serve."""

    pattern: str
    service: str
    picks: tuple[Pick, ...]
    park_requests_max: int = 0
    park_timeout_s: float = 0.0
    sticky_by: str = ""
    sticky_name: str = ""
    recent: bool = False


class Apply(Struct, frozen=True):
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


class AttachAgain(Struct, frozen=True):
    """Connect to the engine anew. EngineAttached follows, with the requests in flight to deleted endpoints. This control has
    just deleted endpoints that it did not know."""


# ------------------------------------------------------------------ links


class Dial(Struct, frozen=True):
    """Open a stream to this parent. ParentConnected or ParentClosed follows."""

    parent: str


class ToParent(Struct, frozen=True):
    """`spare`: see `without_spare`."""

    parent: str
    message: UpMessage
    spare: bool = False


class HangUp(Struct, frozen=True):
    """Close the stream to this parent; no ParentClosed follows."""

    parent: str


class Reincarnate(Struct, frozen=True):
    """Save `incarnation` durably as this node's own, because another state of this node has used all numbers below it."""

    incarnation: int


class ReleaseHeld(Struct, frozen=True):
    """Carry out the effects that wait for the disk, and hold none back until it can be written again. The other roots
    decide without this one, because it has had no say for lease and fence, and it follows them."""


class ToChild(Struct, frozen=True):
    """`spare`: see `without_spare`."""

    link: int
    message: DownMessage
    spare: bool = False


class DropChild(Struct, frozen=True):
    """Close this link; no ChildClosed follows."""

    link: int


# ------------------------------------------------------------------ people and programs


class Cut(Struct, frozen=True):
    """End the requests that are in flight at these endpoints, or only their streams. The endpoints may be draining."""

    endpoints: tuple[EndpointKey, ...]
    streams_only: bool = False


class Note(Struct, frozen=True):
    """An event for the log and `/v1/events`. `code` is stable, `text` is one sentence for people."""

    code: str
    text: str
    level: str = "info"  # "info", "warning", "error"
    fields: dict[str, str] = field(default_factory=dict[str, str])


class Changed(Struct, frozen=True):
    """Ids of instances and names of services whose state may have changed. Long-polls wait for them."""

    instances: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


class Execute(Struct, frozen=True):
    """Execute a forwarded API call at this root; the event AskDone returns the result. `asker`: the node that got the call."""

    id: str
    method: str
    path: str
    body: bytes
    asker: str = ""


class RunHook(Struct, frozen=True):
    """Ask the hook of a gate or of an analysis; the event HookDone returns the result. `key`: the same for all attempts at one decision,
    so that the hook can recognise a repeated call. `replaces`: the versions that `version` replaces. `analysis`: what the hook of an
    analysis gets to decide, as JSON has it; a gate's gets nothing."""

    key: str
    service: str
    version: str
    hook: Hook
    replaces: tuple[str, ...] = ()
    analysis: Mapping[str, object] = field(default_factory=dict[str, object])

    def __hash__(self) -> int:
        return hash(self.key)


class MetricAsk(Struct, frozen=True):
    """A query in the language of a source, which has one number as its result. `source`: its name in the node file."""

    source: str
    query: str


class AskMetrics(Struct, frozen=True):
    """Evaluate these queries at the Unix time `at`; the event MetricsAnswered with the same `key` returns the results."""

    key: str
    asks: tuple[MetricAsk, ...]
    at: float


class RunDriver(Struct, frozen=True):
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


class Answered(Struct, frozen=True):
    """The answers of the roots to an AskUp of this node. `unreachable`: names of roots or parents that did not answer."""

    id: str
    answers: tuple[RootAnswer, ...]
    unreachable: tuple[str, ...]


class Stopped(Struct, frozen=True):
    """The drain that Stop started has ended. `clean`: nothing is in flight; else the deadline has passed."""

    clean: bool


Effect = (
    Persist
    | Apply
    | AttachAgain
    | Cut
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
    | AskMetrics
    | RunDriver
    | Answered
    | Stopped
)


def without_spare(effects: list[Effect]) -> list[Effect]:
    """Without the heartbeats that add nothing to a state message of the same batch for the same neighbour.

    Not while messages are held back: then the heartbeat carries the lease.
    """
    if not any(isinstance(each, ToParent | ToChild) and each.spare for each in effects):
        return effects
    covered: set[str | int] = set()
    for each in effects:
        match each:
            case ToParent(parent, UpState()):
                covered.add(parent)
            case ToChild(link, DownState()):
                covered.add(link)
            case _:
                pass
    return [each for each in effects if not _is_covered(each, covered)]


def _is_covered(effect: Effect, covered: set[str | int]) -> bool:
    match effect:
        case ToParent(parent, spare=True):
            return parent in covered
        case ToChild(link, spare=True):
            return link in covered
        case _:
            return False
