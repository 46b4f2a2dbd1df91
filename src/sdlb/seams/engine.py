"""Interface to the engine (proto/engine.proto defines the messages).

Implementations report `EngineAttached`, `EngineApplied`, `EngineRejected`, `EngineDrained`, `EngineLost` and
`EngineJoined` (core/events.py) to the node's loop, and keep the statistics that metrics and the API read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sdlb.core.effects import Apply
from sdlb.core.events import EndpointKey
from sdlb.model.identity import Identity
from sdlb.model.site import Site, SiteState, TicketKey

LATENCY_BUCKETS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
"""Upper bounds of the buckets in `GroupTotals.latency`. The list has one more bucket for all above."""


def _head_buckets() -> tuple[float, ...]:
    bounds, bound = list[int](), 500_000
    while bound < 60_000_000_000:
        bounds.append(bound)
        bound = bound * 11 // 10
    return tuple(each / 1e9 for each in (*bounds, 60_000_000_000))


HEAD_BUCKETS_S = _head_buckets()
"""Upper bounds of the buckets in `InstanceTotals.heads`: 0.5 ms to 60 s in steps of 10 %, the same as in the engine
(`routes/src/asked.rs`). The list has one more bucket for all above."""


@dataclass(frozen=True, slots=True)
class Listener:
    """`key`: "http" and "https" accept clients, "node" accepts requests of parents and links of children.

    `trusted_proxies`: networks whose forwarding headers and PROXY protocol headers are trusted.
    """

    key: str
    address: str
    public: bool = False
    tls: bool = False
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`limits`: field names of `Limits` in engine.proto. Those that are absent keep the engine's default."""

    node: str
    listeners: tuple[Listener, ...]
    control_socket: str
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    access_log: str = ""
    identity: Identity | None = None
    """This node's own certificate. None: node links are unencrypted."""


@dataclass(frozen=True, slots=True)
class InstanceTotals:
    """Totals of the attempts that this engine sent to instances of one service version, without those through child nodes.

    `answers`: responses by status class, 1xx to 5xx. `broken`: attempts without a usable response. `unreached`: attempts
    without a connection; these are not part of `requests`.
    """

    requests: int = 0
    answers: Sequence[int] = ()
    broken: int = 0
    unreached: int = 0
    heads: Sequence[int] = ()
    """Times to the response head, by HEAD_BUCKETS_S."""
    head_us_sum: int = 0


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """Totals of one service version since the start of the engine. `status`: responses by class, 1xx to 5xx. `failed`: answered
    by the engine with 502, 503 or 504."""

    requests: int = 0
    status: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    failed: int = 0
    retries: int = 0
    parked: int = 0
    latency: Sequence[int] = ()
    latency_us_sum: int = 0
    grpc_status: Sequence[int] = ()
    """gRPC responses by code, 0 to 16, then those without a valid code. Empty: there were no gRPC calls."""
    at_instances: InstanceTotals | None = None


@dataclass(frozen=True, slots=True)
class UpstreamTotals:
    requests: int = 0
    connects: int = 0
    connect_failures: int = 0
    failures: int = 0
    in_flight: int = 0
    idle_connections: int = 0


@dataclass(slots=True)
class EngineStats:
    """The latest statistics and state that the engine reported.

    `ejected`: key of an upstream -> the reason, while outlier ejection keeps it out. `draining`: deleted endpoint -> its
    requests in flight. `bound`: key of a listener -> its address.
    """

    pid: int = 0
    version: str = ""
    attached: bool = False
    hangs: bool = False
    """The engine is attached but does not answer pings."""
    bound: dict[str, str] = field(default_factory=dict[str, str])
    groups: dict[tuple[str, str], GroupTotals] = field(default_factory=dict[tuple[str, str], GroupTotals])
    upstreams: dict[str, UpstreamTotals] = field(default_factory=dict[str, UpstreamTotals])
    counters: dict[str, int] = field(default_factory=dict[str, int])
    ejected: dict[str, str] = field(default_factory=dict[str, str])
    draining: dict[EndpointKey, int] = field(default_factory=dict[EndpointKey, int])
    identity_not_after_s: int = 0
    """Unix time at which the node's own certificate expires. 0: it has none."""


class EngineFailed(OSError):
    """The engine could not be started or upgraded, or refused the configuration."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """Result of a hot restart: the new engine process and the old one, which exits within `deadline_s`."""

    pid: int
    version: str
    before_pid: int
    before_version: str
    deadline_s: float


class SiteSink(Protocol):
    """Keeps the sites and ticket keys, and sends them to each newly attached engine before its listeners."""

    on_states: Callable[[Sequence[SiteState]], None]
    """Called with the engine's report about the sites that it was sent."""

    def put(self, sites: Sequence[Site], keep: Collection[str] | None = None) -> None:
        """Adds or replaces `sites`. `keep`: the keys of all sites; others are deleted. None: nothing is deleted.

        A site that the engine refuses keeps its former certificates.
        """
        ...

    def ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        """The first key encrypts new session tickets; all keys decrypt them."""
        ...


class Engine(Protocol):
    stats: EngineStats

    @property
    def sites(self) -> SiteSink: ...

    async def start(self, config: EngineConfig, settle_s: float = 0.0) -> None:
        """Attaches to the running engine or starts one, configures it, and keeps it attached from then on.

        `settle_s`: time after the start of an engine during which requests without a matching route wait for one, because
        children have not reported yet.

        Raises EngineFailed if the engine cannot be started or refuses the configuration (a port in use).
        """
        ...

    async def configure(self, config: EngineConfig) -> str:
        """Replaces listeners and limits, all or nothing. Returns "", or the reason why nothing was changed."""
        ...

    def apply(self, delta: Apply) -> None:
        """Sends a delta. It is dropped while the engine is not attached; the core sends the whole table on EngineAttached."""
        ...

    def reopen_log(self) -> None:
        """Opens the access log again under its name, after the file was moved for rotation."""
        ...

    async def upgrade(self, deadline_s: float) -> Upgraded:
        """Hot restart: starts the installed engine and hands the listening sockets over to it.

        The old process finishes its open requests until the deadline. Raises EngineFailed; then the old process serves on
        unchanged.
        """
        ...

    async def drain_clients(self, deadline_s: float) -> None:
        """Closes the entry listeners before the node leaves, and finishes the requests of their clients.

        Returns when the last client connection has closed, or at the deadline. Requests from parents are still served.
        """
        ...

    async def shut_down(self, deadline_s: float) -> None:
        """Stops the engine process: accepts no new connections and finishes requests in flight until the deadline."""
        ...

    async def detach(self) -> None:
        """Closes the control connection; the engine serves on."""
        ...
