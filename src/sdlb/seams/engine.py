"""Interface to the engine (proto/engine.proto defines the messages).

Implementations report `EngineAttached`, `EngineApplied`, `EngineRejected`, `EngineDrained`, `EngineLost` and
`EngineJoined` (core/events.py) to the node's loop, and keep the statistics that metrics and the API read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Literal, Protocol, get_args

from msgspec import Struct, field

from sdlb.core.effects import Apply
from sdlb.core.events import EndpointKey
from sdlb.model.acme import ChallengeAnswer
from sdlb.model.hardening import Hardening
from sdlb.model.identity import Identity
from sdlb.model.site import Site, SiteState, TicketKey

LATENCY_BUCKETS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
"""Upper bounds of the buckets in `GroupTotals.latency`. The list has one more bucket for all above."""


class Listener(Struct, frozen=True):
    """`key`: "http" and "https" accept clients, "node" accepts requests of parents and links of children.

    `trusted_proxies`: networks whose forwarding headers and PROXY protocol headers are trusted. `hardening`: of listeners for
    clients.
    """

    key: str
    address: str
    public: bool = False
    tls: bool = False
    trusted_proxies: tuple[str, ...] = ()
    hardening: Hardening | None = None


class EngineConfig(Struct, frozen=True):
    """`limits`: field names of `Limits` in engine.proto. Those that are absent keep the engine's default."""

    node: str
    listeners: tuple[Listener, ...]
    control_socket: str
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    access_log: str = ""
    identity: Identity | None = None
    """This node's own certificate. None: node links are unencrypted."""
    tls_challenges: bool = False
    """CAs validate hosts by tls-alpn-01 at the listener "https"."""


class InstanceTotals(Struct, frozen=True):
    """Totals of the attempts that this engine sent to instances of one service version, without those through child nodes.

    `answers`: responses by status class, 1xx to 5xx. `broken`: attempts without a usable response. `unreached`: attempts
    without a connection; these are not part of `requests`.
    """

    requests: int = 0
    answers: Sequence[int] = ()
    broken: int = 0
    unreached: int = 0
    heads: Sequence[int] = ()
    """Times to the response head, by `model.canary.HEAD_BUCKETS_S`."""
    head_us_sum: int = 0
    grpc_errors: int | None = None
    """Among `answers` of class 2xx: gRPC calls whose status is an error of the service. None: an older engine does not count them."""


class GroupTotals(Struct, frozen=True):
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


class UpstreamTotals(Struct, frozen=True):
    requests: int = 0
    connects: int = 0
    connect_failures: int = 0
    failures: int = 0
    in_flight: int = 0
    idle_connections: int = 0


class EngineStats(Struct):
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


class Upgraded(Struct, frozen=True):
    """Result of a hot restart: the new engine process and the old one, which exits within `deadline_s`."""

    pid: int
    version: str
    before_pid: int
    before_version: str
    deadline_s: float


Feature = Literal[
    "entry",
    "stamps",
    "children",
    "shares",
    "sticky",
    "parking",
    "sites",
    "ticket_keys",
    "access_log",
    "traffic",
    "latency",
    "hot_restart",
    "limits",
]
"""What an engine may be able to do: clients at an entry, requests of parents, links of children, ..., all settings of
`Traffic`, latency histograms, all limits of the node file."""
FEATURES: frozenset[Feature] = frozenset(get_args(Feature))


class Degraded(Struct, frozen=True):
    """Something that the node is asked for and its engine cannot do. `instead`: what it does. `services`: those that ask for
    it; empty: it concerns the node."""

    what: str
    instead: str
    services: tuple[str, ...] = ()


class SiteSink(Protocol):
    """Keeps the sites and ticket keys, and sends them to each newly attached engine before its listeners."""

    on_states: Callable[[Sequence[SiteState]], None]
    """Called with the engine's report about the sites that it was sent."""
    checks_keys: bool
    """The engine refuses a private ECDSA key whose value does not belong to its public part."""

    def put(self, sites: Sequence[Site], keep: Set[str] | None = None) -> None:
        """Adds or replaces `sites`. `keep`: the keys of all sites; others are deleted. None: nothing is deleted.

        A site that the engine refuses keeps its former certificates.
        """
        ...

    def ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        """The first key encrypts new session tickets; all keys decrypt them."""
        ...


class ChallengeSink(Protocol):
    async def challenges(self, answers: Sequence[ChallengeAnswer]) -> str:
        """Replaces the challenges that the entry listeners answer, now and after a restart of the engine. Returns "" once the
        engine answers them, or why it cannot."""
        ...


class Engine(Protocol):
    """`features`: what it can do at all. Control reports what is missing (`degraded`) instead of refusing to work."""

    stats: EngineStats

    @property
    def features(self) -> frozenset[Feature]: ...

    def degraded(self) -> Sequence[Degraded]:
        """What the current settings and policies ask for and the engine does otherwise or not at all."""
        ...

    @property
    def sites(self) -> SiteSink: ...

    @property
    def challenges(self) -> ChallengeSink: ...

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

    def attach_again(self) -> None:
        """Connects anew: `EngineAttached` follows, with the requests in flight to deleted endpoints."""
        ...

    def cut(self, endpoints: Sequence[EndpointKey], *, streams_only: bool = False) -> None:
        """Ends the requests in flight at these endpoints, also at draining ones; later requests are not affected. Dropped while
        the engine is not attached."""
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
