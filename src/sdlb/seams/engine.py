"""The engine as control sees it (proto/engine.proto has the meanings).

Implementations hand in `EngineAttached`, `EngineApplied`, `EngineRejected`, `EngineDrained`, `EngineLost` and
`EngineJoined` (core/events.py), and keep the figures that metrics and API read.
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
"""Upper bounds of `GroupTotals.latency`; one more counts the rest."""


def _head_buckets() -> tuple[float, ...]:
    bounds, bound = list[int](), 500_000
    while bound < 60_000_000_000:
        bounds.append(bound)
        bound = bound * 11 // 10
    return tuple(each / 1e9 for each in (*bounds, 60_000_000_000))


HEAD_BUCKETS_S = _head_buckets()
"""Upper bounds of `InstanceTotals.heads`: from 0.5 ms in steps of 10 % to 60 s, as the engine has them (`routes/src/asked.rs`);
one more counts the rest."""


@dataclass(frozen=True, slots=True)
class Listener:
    """`key`: "http" and "https" take clients, "node" takes parents' requests and children's links. `trusted_proxies`: networks
    whose word about their clients is believed."""

    key: str
    address: str
    public: bool = False
    tls: bool = False
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`limits`: names of `Limits` in engine.proto, without those that keep the engine's default."""

    node: str
    listeners: tuple[Listener, ...]
    control_socket: str
    limits: Mapping[str, int] = field(default_factory=dict[str, int])
    access_log: str = ""
    identity: Identity | None = None
    """This node's own certificate; None: node links are in clear text."""


@dataclass(frozen=True, slots=True)
class InstanceTotals:
    """What became of requests at the instances of one service version that this engine asks itself. `requests`: each attempt;
    `broken`: those without an answer that could be used; `unreached`: no connection, not among `requests`."""

    requests: int = 0
    answers: Sequence[int] = ()
    broken: int = 0
    unreached: int = 0
    heads: Sequence[int] = ()
    """Times to the head of an answer, by HEAD_BUCKETS_S."""
    head_us_sum: int = 0


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """Totals of one service version since the engine's start."""

    requests: int = 0
    status: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    failed: int = 0
    retries: int = 0
    parked: int = 0
    latency: Sequence[int] = ()
    latency_us_sum: int = 0
    grpc_status: Sequence[int] = ()
    """Answers to gRPC calls by code, 0 to 16, then those without a valid one; empty: there were none."""
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
    """What the engine said last. `ejected`: target -> why, while passive health keeps it out.

    `draining`: deleted members -> their requests in flight.
    """

    pid: int = 0
    version: str = ""
    attached: bool = False
    hangs: bool = False
    """It is attached, and does not answer."""
    bound: dict[str, str] = field(default_factory=dict[str, str])
    groups: dict[tuple[str, str], GroupTotals] = field(default_factory=dict[tuple[str, str], GroupTotals])
    upstreams: dict[str, UpstreamTotals] = field(default_factory=dict[str, UpstreamTotals])
    counters: dict[str, int] = field(default_factory=dict[str, int])
    ejected: dict[str, str] = field(default_factory=dict[str, str])
    draining: dict[EndpointKey, int] = field(default_factory=dict[EndpointKey, int])
    identity_not_after_s: int = 0
    """Unix time at which the node's own certificate ends; 0: it has none."""


class EngineFailed(OSError):
    """The engine could not be started or upgraded, or does not take the configuration."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """One engine process has taken over from another, which ends within `deadline_s`."""

    pid: int
    version: str
    before_pid: int
    before_version: str
    deadline_s: float


class SiteSink(Protocol):
    """Sites and ticket keys: kept, and given to each engine that is attached to, before its listeners."""

    told: Callable[[Sequence[SiteState]], None]
    """Called with what the engine says of the sites that it was given."""

    def put(self, sites: Sequence[Site], keep: Collection[str] | None = None) -> None:
        """`keep`: the keys of all sites; others are deleted. One that the engine refuses keeps what it had."""
        ...

    def ticket_keys(self, keys: Sequence[TicketKey]) -> None:
        """The first one seals, all of them open."""
        ...


class Engine(Protocol):
    stats: EngineStats

    @property
    def sites(self) -> SiteSink: ...

    async def start(self, config: EngineConfig, settle_s: float = 0.0) -> None:
        """Attaches to the running engine, or starts one, and configures it; from then on keeps it attached.

        `settle_s`: for so long after the start of an engine, requests that no route matches wait for one: children have not
        reported yet.

        Raises EngineFailed when it cannot be started, or refuses the configuration (a port that is taken).
        """
        ...

    async def configure(self, config: EngineConfig) -> str:
        """Other listeners and limits, as a whole. "" or why nothing was changed."""
        ...

    def apply(self, delta: Apply) -> None:
        """Dropped when the engine is not attached: the next EngineAttached makes the core send everything."""
        ...

    def reopen_log(self) -> None:
        """The file of the access log was moved away: from here on lines go to a new one of its name."""
        ...

    async def upgrade(self, deadline_s: float) -> Upgraded:
        """A new process of the engine that is installed now takes the listening sockets over; the old one answers what it has
        open until the deadline, in seconds. Raises EngineFailed: the old one serves on as if nothing had been.
        """
        ...

    async def drain_clients(self, deadline_s: float) -> None:
        """The node is about to leave: entry listeners are closed, what their clients have asked for is answered. Returns when
        the last of them has gone, or the deadline has passed. Requests of the nodes above are served on.
        """
        ...

    async def shut_down(self, deadline_s: float) -> None:
        """Ends the engine process: no new connections, what is in flight is answered until the deadline."""
        ...

    async def detach(self) -> None:
        """Lets go of the engine, which serves on."""
        ...
